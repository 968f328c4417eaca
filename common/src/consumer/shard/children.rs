//! The children of a shard that was read to its end: who reads it to its end goes on with them.

use std::time::Duration;

use tokio::time::Instant;

use crate::limits::CHILD_SHARD_TRIES_MAX;
use crate::retry::Backoff;

use super::super::checkpoint::Checkpoint;
use super::super::onset::settling_after;
use super::super::outcome::{Adopted, Children};
use super::super::parked::ParkedLanes;
use super::super::processor::Processor;
use super::super::progress::Stage;
use super::super::source::{Shard, StreamSource};
use super::super::store::{Begin, Ended, Lease, Onset, StoreError};
use super::Held;

impl<S, P> Held<'_, S, P>
where
    S: StreamSource,
    P: Processor<Record = S::Record>,
{
    /// Takes on the children of the shard, which has ended.
    pub(super) async fn pass_on(&self, ended: Ended, parked: ParkedLanes, told: Vec<Shard>) -> Children {
        let parent = self.ended_lease(ended, parked);
        let ended_at = Instant::now();
        self.task.progress.enter(Stage::Children);
        let known = self.task.kin.children(&self.lease.shard);
        let children = match told.is_empty() {
            false => told,
            true if known.is_empty() => self.find_children().await,
            true => known,
        };
        let mut found = Children::default();
        for child in children {
            // After so long others may have read it to its end, and deleted its lease: a full listing tells.
            let is_late = ended_at.elapsed() >= self.task.worker.config().lease_duration;
            match if is_late { Ok(None) } else { self.take_on(&child, &parent).await } {
                Ok(adopted) => found.adopted.extend(adopted),
                // The next full listing finds it.
                Err(error) => {
                    tracing::warn!(stream = &*self.lease.stream, shard = child.id, %error, "the lease of a child could not be written")
                }
            }
            found.names.push(child.id);
        }
        found
    }

    /// Asks for the children of this ended shard; they appear late.
    async fn find_children(&self) -> Vec<Shard> {
        let (task, stream, shard) = (self.task, &*self.lease.stream, &*self.lease.shard);
        let mut pauses = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        for _ in 0..CHILD_SHARD_TRIES_MAX {
            task.progress.enter(Stage::Children);
            match task.orders.unless_draining(task.source.children(shard)).await {
                Some(Ok(listing)) if !listing.shards.is_empty() || listing.disabled => return listing.shards,
                Some(Ok(_)) => {}
                Some(Err(error)) => {
                    tracing::warn!(stream, shard, %error, "children of an ended shard could not be listed")
                }
                None => return Vec::new(),
            }
            if task.orders.unless_draining(tokio::time::sleep(pauses.next_pause())).await.is_none() {
                return Vec::new();
            }
        }
        tracing::info!(
            stream,
            shard,
            "no children of the ended shard show yet; the next full listing looks again"
        );
        Vec::new()
    }

    /// Writes a child's lease, to be begun with its first record, and takes it if its parents are all finished and there is room for it.
    async fn take_on(&self, child: &Shard, parent: &Lease) -> Result<Option<Adopted>, StoreError> {
        let (task, stream) = (self.task, &*self.lease.stream);
        let (store, me) = (task.worker.store(), task.worker.id());
        let _permit = task.state_writes.acquire().await;
        let mut parents = vec![parent.clone()];
        for parent in child.parents.iter().filter(|parent| **parent != *self.lease.shard) {
            match store.lease(stream, parent).await? {
                Some(lease) if lease.checkpoint.is_end() => parents.push(lease),
                Some(_) => {
                    self.leave(child).await?;
                    return Ok(None);
                }
                // Finished with, or never seen: a full listing tells.
                None => return Ok(None),
            }
        }
        if task.orders.is_draining() || !task.worker.has_room() {
            self.leave(child).await?;
            return Ok(None);
        }
        let adopted = |lease| Some(Adopted { lease, since_ms: least_watermark(&parents) });
        // If what shards are done into has another state by now, the child's tenure finds out.
        let target = self.lease.target.as_deref().filter(|_| task.rewinds.config().is_some());
        let settling_ms = target.and_then(|target| settling_after(&parents, target));
        let new = Lease::new(stream, &child.id, 0, Checkpoint::TrimHorizon);
        let lanes = task.lane_onset(&new, &parents);
        let onset = Onset { target, settling_ms, lanes, back_to: None };
        let begin = Begin::OwnedBy(me);
        if let Some(lease) = store.create_child_lease(&self.lease, child, begin, &onset).await? {
            return Ok(adopted(lease));
        }
        match store.lease(stream, &child.id).await? {
            Some(lease) if lease.owner.is_none() && !lease.has_started() => {
                match store.begin_tenure(&lease, me, &onset).await {
                    Err(error) if error.is_fenced() => Ok(None),
                    taken => taken.map(adopted),
                }
            }
            _ => Ok(None),
        }
    }

    /// Writes the lease of a child that others may take when its parents are finished.
    async fn leave(&self, child: &Shard) -> Result<(), StoreError> {
        let store = self.task.worker.store();
        store.create_child_lease(&self.lease, child, Begin::AfterParents, &Onset::default()).await?;
        Ok(())
    }

    /// The lease as it is now that the shard has ended.
    fn ended_lease(&self, ended: Ended, parked: ParkedLanes) -> Lease {
        let settling_ms = self.kept.as_ref().and_then(|kept| kept.settling.lock().until_ms());
        Lease {
            checkpoint: Checkpoint::ShardEnd,
            ended: Some(ended),
            settling_ms,
            parked,
            ..self.lease.clone()
        }
    }
}

/// The least watermark of a shard's parents; `None` if one of them has none, or if there are none.
pub(super) fn least_watermark(parents: &[Lease]) -> Option<u64> {
    let of_each = parents.iter().map(|parent| parent.ended.and_then(|ended| ended.watermark_ms));
    of_each.reduce(|a, b| Some(a?.min(b?))).flatten()
}
