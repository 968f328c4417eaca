//! Shards and streams: who has them, and how far behind they may be. Pure.

use std::collections::BTreeMap;

use serde::Serialize;

use super::observer::is_free;
use super::survey::{Look, StreamLook};
use crate::consumer::coverage::{Coverage, LeaseSet};
use crate::consumer::lineage::Lineage;
use crate::consumer::parked::Parked;
use crate::consumer::store::{Heartbeat, Lease};

/// A shard, as its lease has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ShardStatus {
    /// What its stream is called.
    pub table: String,
    /// Its name.
    pub shard: String,
    /// What there is of its lease.
    pub state: ShardState,
    /// Who has it.
    pub owner: Option<String>,
    /// Everything up to here is done.
    pub checkpoint: String,
    /// It is not further behind than this, in milliseconds. `None`: nothing bounds it.
    pub behind_ms: Option<u64>,
    /// Bytes a second that its last owner read, when it last wrote.
    pub bytes_per_s: u64,
    /// Its next records are settling: nothing is created from them.
    pub is_settling: bool,
    /// When everything that had come was last known to be done, as the lease has it: milliseconds since the epoch.
    pub seen_ms: Option<u64>,
    /// The regions that are parked on it.
    pub parked: Vec<ParkedHere>,
    /// The operators' command that reads it as well.
    pub guest: Option<String>,
}

/// A region that is parked on a shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ParkedHere {
    /// The region.
    pub region: String,
    /// It has everything up to here.
    pub checkpoint: String,
    /// Nothing that it lacks arrived before this: milliseconds since the epoch.
    pub since_ms: u64,
    /// Why.
    pub why: String,
}

/// What there is of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ShardState {
    /// Somebody owns it.
    Held,
    /// Nobody owns it, and somebody could.
    Free,
    /// Its parents are not finished.
    Waiting,
    /// It was read to its end, and nothing is left to be done.
    Finished,
}

/// A stream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct StreamStatus {
    /// The table, or the stream's own name.
    pub table: String,
    /// The stream.
    pub stream: String,
    /// Another stream has taken its place.
    pub superseded: bool,
    /// The fleet is to read it.
    pub is_read: bool,
    /// Leases that somebody owns.
    pub held: usize,
    /// Leases that nobody owns, and somebody could.
    pub free: usize,
    /// Leases of shards whose parents are not finished.
    pub waiting: usize,
    /// Leases of shards that were read to their ends.
    pub finished: usize,
    /// Shards whose next records are settling.
    pub settling: usize,
    /// Shards that a region is parked on.
    pub parked: usize,
    /// Bytes a second that are read.
    pub bytes_per_s: u64,
    /// No shard is further behind than this, in milliseconds, but for those of which nothing is known.
    pub behind_ms: Option<u64>,
    /// Shards to be read of which it is not known how far behind they are.
    pub unbounded: usize,
}

/// The shards of one stream, in the order of the state table.
pub(super) fn shards(of: &StreamLook, words: &Words<'_>, now_ms: u64) -> Vec<ShardStatus> {
    let lineage = Lineage::of(&of.state.leases);
    let status = |lease: &Lease| {
        let done_ms = words.of(lease).unwrap_or(0).max(lease.seen_ms);
        let state = state(lease, &lineage);
        let is_read = matches!(state, ShardState::Held | ShardState::Free);
        ShardStatus {
            table: of.name.label.clone(),
            shard: lease.shard.to_string(),
            state,
            owner: lease.owner.clone(),
            checkpoint: lease.checkpoint.to_string(),
            behind_ms: (is_read && done_ms > 0).then(|| now_ms.saturating_sub(done_ms)),
            bytes_per_s: if lease.owner.is_some() { lease.bytes_per_s } else { 0 },
            is_settling: is_read
                && lease.settling_ms.is_some_and(|until_ms| until_ms == 0 || until_ms > done_ms),
            seen_ms: (lease.seen_ms > 0).then_some(lease.seen_ms),
            parked: lease.parked.iter().map(ParkedHere::of).collect(),
            guest: lease.guest.as_ref().filter(|guest| guest.is_live(now_ms)).map(|guest| guest.name.clone()),
        }
    };
    of.state.leases.iter().map(status).collect()
}

impl ParkedHere {
    fn of((region, place): (&String, &Parked)) -> Self {
        let (checkpoint, why) = (place.checkpoint.to_string(), place.why.clone());
        Self { region: region.clone(), checkpoint, since_ms: place.since_ms, why }
    }
}

/// A stream as its shards make it.
pub(super) fn stream(of: &StreamLook, shards: &[ShardStatus]) -> StreamStatus {
    let mut status = StreamStatus {
        table: of.name.label.clone(),
        stream: of.name.stream.clone(),
        superseded: of.name.superseded,
        is_read: of.name.is_read,
        ..StreamStatus::default()
    };
    for shard in shards {
        match shard.state {
            ShardState::Held => status.held += 1,
            ShardState::Free => status.free += 1,
            ShardState::Waiting => status.waiting += 1,
            ShardState::Finished => status.finished += 1,
        }
        let is_read = matches!(shard.state, ShardState::Held | ShardState::Free);
        status.settling += usize::from(shard.is_settling);
        status.parked += usize::from(!shard.parked.is_empty());
        status.bytes_per_s += shard.bytes_per_s;
        status.unbounded += usize::from(is_read && shard.behind_ms.is_none());
        status.behind_ms = status.behind_ms.max(shard.behind_ms);
    }
    status
}

fn state(lease: &Lease, lineage: &Lineage) -> ShardState {
    match &lease.owner {
        _ if lease.is_over() => ShardState::Finished,
        Some(_) => ShardState::Held,
        None if is_free(lease, lineage) => ShardState::Free,
        None => ShardState::Waiting,
    }
}

/// The furthest behind, so many, those first of which nothing is known.
pub(super) fn worst(mut shards: Vec<ShardStatus>, number: usize) -> Vec<ShardStatus> {
    shards.retain(|shard| matches!(shard.state, ShardState::Held | ShardState::Free));
    let key = |shard: &ShardStatus| std::cmp::Reverse(shard.behind_ms.unwrap_or(u64::MAX));
    shards.sort_by_key(key);
    shards.truncate(number);
    shards
}

/// What workers say of their leases.
pub(super) struct Words<'a> {
    /// The coverage of each worker whose word is of exactly the leases that it was seen to have.
    valid: BTreeMap<&'a str, &'a Coverage>,
}

impl<'a> Words<'a> {
    pub(super) fn of_look(look: &'a Look) -> Self {
        let mut owned: BTreeMap<&str, LeaseSet> = BTreeMap::new();
        let leases = look.streams.iter().flat_map(|stream| &stream.state.leases);
        for lease in leases.filter(|lease| !lease.checkpoint.is_end()) {
            if let Some(owner) = lease.owner.as_deref() {
                owned.entry(owner).or_default().add(&lease.stream, &lease.shard, lease.epoch);
            }
        }
        let word = |beat: &'a Heartbeat| {
            let coverage = beat.report.coverage.as_ref()?;
            let owned = owned.get(beat.worker.as_str()).copied().unwrap_or_default();
            (coverage.leases == owned).then_some((beat.worker.as_str(), coverage))
        };
        Self { valid: look.heartbeats.iter().filter_map(word).collect() }
    }

    /// Everything in the shard that was created before this is done: milliseconds since the epoch.
    fn of(&self, lease: &Lease) -> Option<u64> {
        let owner = lease.owner.as_deref().filter(|_| !lease.checkpoint.is_end())?;
        self.valid.get(owner)?.watermark_ms
    }
}
