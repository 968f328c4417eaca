//! The restart lock, while it is held.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::clock::now_ms;
use crate::consumer::store::{RestartLock, StateStore, StoreError};
use crate::limits::RESTART_LOCK_RENEWAL_INTERVAL;

/// Tries of giving it up: after them it ends by itself.
const RELEASE_TRIES: usize = 3;
/// Pause between them.
const RELEASE_PAUSE: Duration = Duration::from_millis(500);

/// The lock, as this process has it.
#[derive(Debug)]
pub(super) struct HeldLock {
    store: StateStore,
    lock: RestartLock,
}

/// How a restart ended, as far as who is next is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// Nothing was done: the worker is as it was, and is named if it was.
    NotBegun,
    /// It was begun, and not seen to end well.
    NotSeen,
    /// The worker is back, and these were seen to live.
    Back(BTreeSet<String>),
}

/// It was not renewed in time, and may be another's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the restart lock was lost: it could not be renewed in time, or was changed by hand")]
pub(super) struct LostLock;

impl HeldLock {
    /// Tries to take it for a restart of `worker`, and gives the `lost` up for all who come. The other answer is the lock as it is.
    pub(super) async fn take(
        store: &StateStore,
        owner: &str,
        worker: &str,
        lost: &[String],
    ) -> Result<Result<Self, RestartLock>, StoreError> {
        let before = store.restart_lock().await?;
        let Some(taken) = before.taken(owner, worker, now_ms()) else { return Ok(Err(before)) };
        let lock = taken.without(lost);
        match store.change_restart_lock(&before, &lock).await? {
            true => Ok(Ok(Self { store: store.clone(), lock })),
            false => Ok(Err(store.restart_lock().await?)),
        }
    }

    /// Workers whose restart was not seen to end well, its own among them.
    pub(super) fn unfinished(&self) -> &BTreeSet<String> {
        &self.lock.unfinished
    }

    /// Does `work`, and renews the lock meanwhile. When it is lost, the work is dropped.
    pub(super) async fn during<T>(&mut self, work: impl Future<Output = T>) -> Result<T, LostLock> {
        tokio::pin!(work);
        let first = Instant::now() + RESTART_LOCK_RENEWAL_INTERVAL;
        let mut ticks = interval_at(first, RESTART_LOCK_RENEWAL_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // What came before may have taken a while.
        self.renew().await?;
        loop {
            tokio::select! {
                biased;
                done = &mut work => return Ok(done),
                _ = ticks.tick() => self.renew().await?,
            }
        }
    }

    /// Makes sure that it is held now, and for some time.
    pub(super) async fn renew(&mut self) -> Result<(), LostLock> {
        let renewed = self.lock.renewed(now_ms());
        match self.store.change_restart_lock(&self.lock, &renewed).await {
            Ok(true) => {
                self.lock = renewed;
                Ok(())
            }
            Ok(false) => self.find().await,
            // It lasts until it is renewed next.
            Err(error) if self.lock.held_by(now_ms() + interval_ms()).is_some() => {
                tracing::warn!(%error, "the restart lock could not be renewed; trying again");
                Ok(())
            }
            Err(_) => Err(LostLock),
        }
    }

    /// The lock is not as this process knows it: a write whose answer was lost may have changed it.
    async fn find(&mut self) -> Result<(), LostLock> {
        let now = self.store.restart_lock().await.map_err(|_| LostLock)?;
        let owner = |lock: &RestartLock| lock.holder.as_ref().map(|holder| holder.owner.clone());
        if now.fence != self.lock.fence || owner(&now) != owner(&self.lock) {
            return Err(LostLock);
        }
        self.lock = now;
        Ok(())
    }

    /// Gives it up.
    pub(super) async fn release(mut self, ending: Ending) {
        let (done, living) = match ending {
            Ending::NotBegun => (true, BTreeSet::new()),
            Ending::NotSeen => (false, BTreeSet::new()),
            Ending::Back(living) => (true, living),
        };
        for _ in 0..RELEASE_TRIES {
            let released = self.lock.released(done, &living);
            match self.store.change_restart_lock(&self.lock, &released).await {
                Ok(true) => return,
                Ok(false) if self.find().await.is_err() => return,
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(%error, "the restart lock could not be given up; it ends by itself");
                    tokio::time::sleep(RELEASE_PAUSE).await;
                }
            }
        }
    }
}

fn interval_ms() -> u64 {
    u64::try_from(RESTART_LOCK_RENEWAL_INTERVAL.as_millis()).unwrap_or(u64::MAX)
}
