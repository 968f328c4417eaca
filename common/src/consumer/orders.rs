//! What a shard's task is told while it runs.

use std::sync::{Arc, OnceLock};

use tokio_util::sync::CancellationToken;

use super::store::Recipient;

/// The orders for one task. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Orders {
    drain: CancellationToken,
    lost: CancellationToken,
    to: Arc<OnceLock<(String, bool)>>,
}

impl Orders {
    /// None yet.
    pub(super) fn new() -> Self {
        Self { drain: CancellationToken::new(), lost: CancellationToken::new(), to: Arc::default() }
    }

    /// Drain, and give the lease up, or to this worker.
    pub(super) fn drain(&self, to: Option<Recipient<'_>>) {
        if let Some(to) = to {
            // The first order stands.
            let _earlier = self.to.set((to.worker.to_owned(), to.for_balance));
        }
        self.drain.cancel();
    }

    /// The lease is somebody else's: stop, and write nothing.
    pub(super) fn lose(&self) {
        self.lost.cancel();
    }

    /// Whether to drain.
    pub(super) fn is_draining(&self) -> bool {
        self.drain.is_cancelled()
    }

    /// Waits until the shard is to drain.
    pub(super) async fn draining(&self) {
        self.drain.cancelled().await;
    }

    /// To whom the lease goes, if to anyone.
    pub(super) fn recipient(&self) -> Option<Recipient<'_>> {
        self.to.get().map(|(worker, for_balance)| Recipient { worker, for_balance: *for_balance })
    }

    /// Waits until the lease is lost.
    pub(super) async fn lost(&self) {
        self.lost.cancelled().await;
    }

    /// Runs `work` unless, or until, the shard is to drain.
    pub(super) async fn unless_draining<F: Future>(&self, work: F) -> Option<F::Output> {
        self.drain.run_until_cancelled(work).await
    }
}
