//! The full look at a stream's shards, by one worker of the fleet at a time: leases for new shards, an end to
//! those of finished ones, and gaps for shards that are gone.
//!
//! New shards are normally found by whoever reads their parents to the end; this finds what that missed. Nothing
//! depends on there being one auditor only: every write is conditional.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::aws::CallError;
use crate::clock::now_ms;
use crate::limits::STATE_CALLS_IN_FLIGHT_MAX;
use crate::retry::Class;

use super::catch_up::LaneContext;
use super::checkpoint::Checkpoint;
use super::concurrent::for_each;
use super::lineage::{Lineage, Unconnected};
use super::listings::Listings;
use super::newcomers::{newcomers, onset};
use super::parked::{LaneStart, ParkedLanes};
use super::source::{Listing, Shard, SourceError, StreamSource};
use super::store::{Begin, Lease, Progressed, StateStore, StoreError, StreamState};
use super::worker::Worker;

/// Begins "from now" this much earlier. Sources round creation times down: DynamoDB Streams to the second,
/// Amazon's DynamoDB Local to the minute. Applying a record twice is harmless.
const NOW_MARGIN_MS: u64 = 120_000;

/// One look.
pub(super) struct Audit<S> {
    pub(super) source: Arc<S>,
    pub(super) worker: Arc<Worker>,
    /// Where the stream is begun if nobody ever consumed it.
    pub(super) from_trim_horizon: bool,
    /// Another stream has taken this one's place, which the service forgets in time.
    pub(super) superseded: bool,
    /// What was listed before.
    pub(super) listings: Arc<Listings>,
    /// A look that was held up for longer creates nothing: others may have read shards meanwhile, and ended them.
    /// An older listing proves nothing, either.
    pub(super) valid_for: Duration,
    /// Shards that the service says are not there when this worker reads them.
    pub(super) not_found: BTreeSet<String>,
    pub(super) lanes: Arc<LaneContext>,
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Audited {
    /// Shards were listed that only the next look can place.
    pub(super) unconnected: bool,
    /// Leases were written or ended: others should look.
    pub(super) changed: bool,
    /// Finished shards whose children do not show yet.
    pub(super) without_children: bool,
    /// No shard will be added.
    pub(super) disabled: bool,
    /// The stream was superseded and nothing is left of it to read.
    pub(super) over: bool,
    /// No shard is without a lease, by this listing and the one before it.
    pub(super) listed: bool,
}

/// Why it could not be looked after this time.
#[derive(Debug, thiserror::Error)]
pub(super) enum AuditError {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<CallError> for AuditError {
    fn from(error: CallError) -> Self {
        Self::Store(error.into())
    }
}

impl<S: StreamSource> Audit<S> {
    pub(super) async fn run(self) -> Result<Audited, AuditError> {
        // The leases first: what ends, begins and is deleted while the stream is listed is in one or the other.
        let begun_at = Instant::now();
        let state = self.store().stream_state(self.stream(), true).await?;
        if state.start.is_none() && state.leases.is_empty() {
            // Nothing was finished without them.
            for lane in &self.lanes.lanes {
                self.store().lane_begun(&lane.name, self.stream(), now_ms()).await?;
            }
        }
        if state.start.is_none() && self.from_trim_horizon {
            self.store().begin_stream(self.stream(), &Checkpoint::TrimHorizon).await?;
        }
        let listing = match self.source.shards().await {
            Ok(listing) => listing,
            Err(error) if error.class == Class::NotFound && self.superseded => {
                return self.retire(state).await;
            }
            Err(error) => return Err(SourceError::Call(error).into()),
        };
        match state.start.is_some() || self.from_trim_horizon {
            true => {
                let mut found = self.audit(begun_at, &state.leases, &listing).await?;
                if found.listed && !state.listed {
                    // Whoever removed the stream's state meanwhile begins it again.
                    ignore_fenced(self.store().mark_listed(self.stream(), true).await)?;
                }
                found.listed |= state.listed;
                Ok(found)
            }
            false => self.begin_now(&listing).await,
        }
    }

    fn stream(&self) -> &str {
        self.source.stream()
    }

    fn store(&self) -> &StateStore {
        self.worker.store()
    }

    /// First contact, "from now": only shards that may still get records are read. That they are all there is
    /// recorded last: whoever comes between does the same.
    async fn begin_now(&self, listing: &Listing) -> Result<Audited, AuditError> {
        let start = Checkpoint::AtTime(now_ms().saturating_sub(NOW_MARGIN_MS));
        let leaves = Lineage::leaves(&listing.shards);
        tracing::info!(stream = self.stream(), shards = leaves.len(), %start, "the stream is begun from now");
        self.create(&leaves, &start, Begin::Now).await?;
        self.store().begin_stream(self.stream(), &start).await?;
        Ok(Audited { changed: true, ..Audited::default() })
    }

    /// A shard that is new to a stream which is consumed already is begun with its first record: it descends from
    /// one that was read to its end, or would be.
    async fn audit(
        &self,
        begun_at: Instant,
        leases: &[Lease],
        listing: &Listing,
    ) -> Result<Audited, AuditError> {
        let start = &Checkpoint::TrimHorizon;
        let lineage = Lineage::of(leases);
        let (shards, repeated) = self.listings.add(&listing.shards, Instant::now(), self.valid_for);
        let news = lineage.news(&shards, if repeated { Unconnected::New } else { self.unconnected(leases) });
        let hidden = self.probe(&news.missing_parents).await?;
        // A parent that is there and not listed should show, with its own parents, in the next listing.
        let (held_back, mut new) = match repeated {
            true => (Vec::new(), news.new),
            false if leases.is_empty() => descend_from(news.new, &hidden),
            // One listing may lack the shard that shows another one to be finished.
            false => (news.new, Vec::new()),
        };
        if repeated {
            self.create(&hidden, start, Begin::AfterParents).await?;
        }
        if !new.is_empty() {
            // What was begun, finished and forgotten while the stream was listed is new by its leases then only.
            let since = self.store().leases(self.stream()).await?;
            let still = Lineage::of(&since).news(&shards, Unconnected::New);
            let still: HashSet<&str> = still.new.iter().map(|shard| shard.id.as_str()).collect();
            let held_up = begun_at.elapsed() > self.valid_for;
            new.retain(|shard| !held_up && still.contains(shard.id.as_str()));
        }
        let mut changed = !new.is_empty() || (repeated && !hidden.is_empty());
        for generation in generations(&new) {
            self.create(&generation, start, Begin::AfterParents).await?;
        }
        if !new.is_empty() {
            tracing::info!(stream = self.stream(), shards = new.len(), "new shards");
        }
        changed |= self.end_what_is_gone(leases, &listing.shards).await?;
        if repeated && new.is_empty() {
            changed |= self.welcome(leases, &lineage.finished_shards(&shards)).await?;
        }
        let obsolete: HashSet<String> = lineage.obsolete(&shards).into_iter().collect();
        // A child that shows late is in no lease until then: its parent's holds the watermark for it.
        let (now_ms, settle) = (now_ms(), self.source.children_settle());
        // One that a lane is parked on is still needed.
        let is_settled = |lease: &&Lease| {
            lease.is_over() && lease.ended.is_none_or(|ended| ended.is_settled(now_ms, settle))
        };
        let obsolete = leases.iter().filter(|lease| obsolete.contains(&*lease.shard)).filter(is_settled);
        self.delete(obsolete.cloned().collect()).await?;
        let without_children = !listing.disabled && lineage.without_children().next().is_some();
        let unconnected = news.unconnected > 0 || !held_back.is_empty();
        Ok(Audited {
            unconnected,
            changed,
            without_children,
            disabled: listing.disabled,
            over: false,
            listed: repeated && !changed && !unconnected && hidden.is_empty(),
        })
    }

    /// Lanes that were added begin with the oldest record of these shards, which were finished without them, or have begun
    /// when every shard is read for them.
    async fn welcome(&self, leases: &[Lease], finished: &[Shard]) -> Result<bool, AuditError> {
        if self.lanes.lanes.is_empty() {
            return Ok(false);
        }
        let known = self.store().lanes().await?;
        for lane in newcomers(&self.lanes.lanes, LaneStart::Now, &known, self.stream(), leases) {
            self.store().lane_begun(&lane, self.stream(), now_ms()).await?;
        }
        let newcomers = newcomers(&self.lanes.lanes, LaneStart::TrimHorizon, &known, self.stream(), leases);
        if newcomers.is_empty() {
            return Ok(false);
        }
        tracing::info!(stream = self.stream(), regions = ?newcomers, shards = finished.len(), "lanes were added: finished shards are read again for them");
        let of_new = finished.iter().map(|shard| (shard, onset(&newcomers, None, now_ms())));
        for (shard, onset) in of_new {
            self.store().create_finished_lease(self.stream(), shard, onset.unwrap_or_default()).await?;
        }
        let mut is_fenced = false;
        for lease in leases.iter().filter(|lease| lease.checkpoint.is_end()) {
            if let Some(onset) = onset(&newcomers, Some(lease), now_ms()) {
                match self.store().park_on_finished(lease, onset).await {
                    Err(error) if error.is_fenced() => is_fenced = true,
                    answer => answer?,
                }
            }
        }
        // One that changed meanwhile is parked on by the next look.
        for lane in newcomers.iter().filter(|_| !is_fenced) {
            self.store().lane_begun(lane, self.stream(), now_ms()).await?;
        }
        Ok(true)
    }

    /// What the first listing leaves unconnected is new only if there is nothing it could be connected with.
    fn unconnected(&self, leases: &[Lease]) -> Unconnected {
        if leases.is_empty() { Unconnected::New } else { Unconnected::Unknown }
    }

    /// Which of these shards the service has though no listing shows them.
    async fn probe(&self, missing: &BTreeSet<String>) -> Result<Vec<Shard>, AuditError> {
        let probes = missing.iter().cloned().map(|id| {
            let source = Arc::clone(&self.source);
            async move {
                match source.iterator(&id, &Checkpoint::TrimHorizon).await {
                    Ok(_) => Ok(Some(Shard { id, parents: Vec::new() })),
                    Err(SourceError::Trimmed(_)) => Ok(None),
                    Err(error) if error.is_not_found() => Ok(None),
                    Err(error) => Err(AuditError::Source(error)),
                }
            }
        });
        Ok(for_each(probes, STATE_CALLS_IN_FLIGHT_MAX).await?.into_iter().flatten().collect())
    }

    async fn create(
        &self,
        shards: &[Shard],
        start: &Checkpoint,
        begin: Begin<'static>,
    ) -> Result<(), AuditError> {
        let creations = shards.iter().cloned().map(|shard| {
            let (worker, source, start) = (Arc::clone(&self.worker), Arc::clone(&self.source), start.clone());
            async move {
                let created = worker.store().create_lease(source.stream(), &shard, &start, begin).await;
                created.map(|_| ()).map_err(AuditError::from)
            }
        });
        for_each(creations, STATE_CALLS_IN_FLIGHT_MAX).await.map(|_| ())
    }

    async fn delete(&self, leases: Vec<Lease>) -> Result<(), AuditError> {
        let deletions = leases.into_iter().map(|lease| {
            let worker = Arc::clone(&self.worker);
            async move { Ok::<(), AuditError>(ignore_fenced(worker.store().delete_lease(&lease).await)?) }
        });
        for_each(deletions, STATE_CALLS_IN_FLIGHT_MAX).await.map(|_| ())
    }

    /// Shards that are not there when they are read, and are not listed either. A stream that cannot be listed
    /// ends nothing: an endpoint may be wrong.
    async fn end_what_is_gone(&self, leases: &[Lease], listing: &[Shard]) -> Result<bool, AuditError> {
        let listed: HashSet<&str> = listing.iter().map(|shard| shard.id.as_str()).collect();
        let mut ended = false;
        for lease in leases.iter().filter(|lease| !lease.checkpoint.is_end()) {
            if self.not_found.contains(&*lease.shard) && !listed.contains(&*lease.shard) {
                ended |= self.end_with_gap(lease).await?;
            }
        }
        Ok(ended)
    }

    async fn end_with_gap(&self, lease: &Lease) -> Result<bool, AuditError> {
        let taken = match self.store().take_lease(lease, self.worker.id()).await {
            Err(error) if error.is_fenced() => return Ok(false),
            taken => taken?,
        };
        tracing::error!(
            stream = self.stream(),
            shard = &*taken.shard,
            after = %taken.checkpoint,
            "gap: the shard is gone before it was read to its end; the table needs a backfill"
        );
        self.store().record_gap(&taken, &self.attached(&taken), &taken.checkpoint, now_ms()).await?;
        // What comes after it need not descend from anything that has a lease.
        ignore_fenced(self.store().mark_listed(self.stream(), false).await)?;
        let end = self.store().checkpoint(&taken, &Checkpoint::ShardEnd, Progressed::default()).await;
        ignore_fenced(end)?;
        Ok(true)
    }

    /// The lanes that a shard's records were to be read for: all, if it was never begun.
    fn attached(&self, lease: &Lease) -> BTreeSet<String> {
        match lease.lanes.is_empty() {
            true => self.lanes.lanes.iter().map(|lane| lane.name.to_string()).collect(),
            false => lease.attached(),
        }
    }

    /// Whether nothing is parked on the shard any more: for what was a backfill is asked for. It is taken from a worker
    /// of ours that waits for its lanes; others find out for themselves.
    async fn give_up_parked(&self, lease: &Lease) -> Result<bool, AuditError> {
        let Some(now) = self.store().lease(self.stream(), &lease.shard).await? else { return Ok(true) };
        let theirs = now.owner.as_ref().is_some_and(|owner| {
            owner != self.worker.id() && !self.worker.has_abandoned(owner, self.stream())
        });
        if now.parked.is_empty() || theirs || !now.checkpoint.is_end() {
            return Ok(now.is_over());
        }
        let taken = match self.store().take_lease(&now, self.worker.id()).await {
            Err(error) if error.is_fenced() => return Ok(false),
            taken => taken?,
        };
        for (lane, parked) in &taken.parked {
            let lanes = BTreeSet::from([lane.clone()]);
            self.store().record_gap(&taken, &lanes, &parked.checkpoint, now_ms()).await?;
        }
        let none = Progressed { parked: Some(ParkedLanes::new()), ..Progressed::default() };
        ignore_fenced(self.store().checkpoint(&taken, &Checkpoint::ShardEnd, none).await)?;
        Ok(true)
    }

    /// The service has forgotten a stream that was superseded. What of it was not read is a gap; shards that
    /// others read are theirs to end.
    async fn retire(&self, state: StreamState) -> Result<Audited, AuditError> {
        let mut unread = 0;
        for lease in state.leases.iter().filter(|lease| !lease.checkpoint.is_end()) {
            let theirs = lease.owner.as_ref().is_some_and(|owner| {
                owner != self.worker.id() && !self.worker.has_abandoned(owner, self.stream())
            });
            if theirs || !self.end_with_gap(lease).await? {
                unread += 1;
            }
        }
        // What lanes that are parked still lack is gone as well.
        for lease in state.leases.iter().filter(|lease| !lease.parked.is_empty()) {
            unread += usize::from(!self.give_up_parked(lease).await?);
        }
        self.delete(state.leases.into_iter().filter(Lease::is_over).collect()).await?;
        let over = unread == 0;
        if over {
            tracing::info!(stream = self.stream(), "the superseded stream is over");
        }
        Ok(Audited { changed: true, over, ..Audited::default() })
    }
}

/// Parts shards, which stand parents first: those that descend from one of `ancestors`, and the others.
fn descend_from(shards: Vec<Shard>, ancestors: &[Shard]) -> (Vec<Shard>, Vec<Shard>) {
    let mut line: HashSet<String> = ancestors.iter().map(|shard| shard.id.clone()).collect();
    shards.into_iter().partition(|shard| {
        let descends = shard.parents.iter().any(|parent| line.contains(parent));
        if descends {
            line.insert(shard.id.clone());
        }
        descends
    })
}

/// Splits shards, which stand parents first, so that no shard is in one part with a parent: a lease is written
/// when those of the parents are.
fn generations(shards: &[Shard]) -> Vec<Vec<Shard>> {
    let mut generation_of: HashMap<&str, usize> = HashMap::new();
    let mut generations: BTreeMap<usize, Vec<Shard>> = BTreeMap::new();
    for shard in shards {
        let parents = shard.parents.iter().filter_map(|parent| generation_of.get(parent.as_str()));
        let generation = parents.max().map_or(0, |parent| parent + 1);
        generation_of.insert(&shard.id, generation);
        generations.entry(generation).or_default().push(shard.clone());
    }
    generations.into_values().collect()
}

/// Somebody else changed it meanwhile: their business.
fn ignore_fenced(answer: Result<(), StoreError>) -> Result<(), StoreError> {
    match answer {
        Err(error) if error.is_fenced() => Ok(()),
        answer => answer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_are_a_generation_before_their_children() {
        let shard = |id: &str, parents: &[&str]| Shard {
            id: id.to_owned(),
            parents: parents.iter().map(|parent| (*parent).to_owned()).collect(),
        };
        let shards = [shard("a", &["gone"]), shard("b", &[]), shard("c", &["a"]), shard("d", &["b", "c"])];
        let generations = generations(&shards);
        let ids: Vec<Vec<&str>> =
            generations.iter().map(|of| of.iter().map(|shard| shard.id.as_str()).collect()).collect();
        assert_eq!(ids, [vec!["a", "b"], vec!["c"], vec!["d"]]);
    }
}
