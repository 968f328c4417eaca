//! Children of shards whose reader ended with them and could not look for the children: it stopped, or died, or they
//! showed too late. Asked for shard by shard, which is quicker than a listing of the whole stream.

use std::sync::Arc;
use std::time::Duration;

use crate::limits::CHILD_SHARD_TRIES_MAX;
use crate::retry::Backoff;

use super::source::{Shard, StreamSource};
use super::store::{Begin, Lease, Onset, StateStore, StoreError};
use super::worker::Worker;

/// Looks for the children of these finished shards, and writes their leases. What is not found is left to the full
/// listing.
pub(super) async fn find_children<S: StreamSource>(
    source: Arc<S>,
    worker: Arc<Worker>,
    mut ended: Vec<Lease>,
) {
    let mut pauses = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
    for _ in 0..CHILD_SHARD_TRIES_MAX {
        let mut without = Vec::new();
        for lease in ended {
            match find_children_of(&*source, &worker, &lease).await {
                Ok(0) => without.push(lease),
                Ok(_) => worker.report_change(),
                Err(error) => {
                    tracing::debug!(
                        shard = &*lease.shard,
                        error,
                        "children of a finished shard not found yet"
                    );
                    without.push(lease);
                }
            }
        }
        if without.is_empty() {
            return;
        }
        ended = without;
        tokio::time::sleep(pauses.next_pause()).await;
    }
}

/// How many children a shard has now.
async fn find_children_of<S: StreamSource>(
    source: &S,
    worker: &Worker,
    ended: &Lease,
) -> Result<usize, String> {
    let listing = source.children(&ended.shard).await.map_err(|error| error.to_string())?;
    for child in &listing.shards {
        create(worker.store(), ended, child).await.map_err(|error| error.to_string())?;
    }
    Ok(listing.shards.len())
}

/// A child of a shard that has no lease is finished with, or was never seen: a full listing tells.
async fn create(store: &StateStore, ended: &Lease, child: &Shard) -> Result<(), StoreError> {
    for parent in child.parents.iter().filter(|parent| **parent != *ended.shard) {
        if store.lease(&ended.stream, parent).await?.is_none() {
            return Ok(());
        }
    }
    store.create_child_lease(ended, child, Begin::AfterParents, &Onset::default()).await?;
    Ok(())
}
