//! What becomes of each lease of KCL. Pure.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

use super::lease::{KclCheckpoint, KclLease};
use crate::consumer::store::{Begin, Lease, StreamState};
use crate::consumer::{Checkpoint, Shard};

/// What becomes of every lease, in the order of the shards' names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// One for each lease of KCL, and for each lease of ours that KCL has not.
    pub entries: Vec<Entry>,
    /// The stream was begun by a daemon of ours already, elsewhere than an import begins it.
    pub begun_at: Option<Checkpoint>,
}

/// What becomes of one lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The shard.
    pub shard: String,
    /// What KCL has; `None` if only we have a lease.
    pub kcl: Option<KclCheckpoint>,
    /// What becomes of it.
    pub action: Action,
}

/// What becomes of a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is to be written.
    Import(Planned),
    /// It was written before, and nobody has touched it since.
    Unchanged(Planned),
    /// It is not taken over.
    Skip(Skip),
    /// We have a lease of the shard that an import would not write.
    Conflict {
        /// Its checkpoint.
        ours: Checkpoint,
        /// Its owner.
        owner: Option<String>,
    },
}

/// A lease of ours, as an import writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// The shard.
    pub shard: Shard,
    /// Where it is read from.
    pub checkpoint: Checkpoint,
    /// Whether KCL has begun it, so that its ancestors are finished with.
    pub begin: Begin<'static>,
    /// What one should know about it.
    pub note: Option<Note>,
}

/// What is said of a lease that is taken over, but not to the letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// `LATEST` has become a time.
    FromNow,
    /// The checkpoint is in the middle of a record.
    WithinRecord,
    /// The shard is not listed any more.
    Trimmed,
}

/// Why a lease is not taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skip {
    /// The shard is not listed any more, and KCL has finished it or would have begun it later than it ended.
    Gone,
    /// The shard is not listed any more, and KCL has not read it.
    GoneUnread,
    /// `AT_TIMESTAMP`.
    NoTimestamp,
}

impl Planned {
    /// Whether `lease` is this one, and nobody has touched it since it was written.
    pub fn is(&self, lease: &Lease) -> bool {
        let parents: HashSet<&String> = lease.parents.iter().collect();
        lease.owner.is_none()
            && lease.epoch == u64::from(self.begin == Begin::Now)
            && lease.checkpoint == self.checkpoint
            && parents == self.shard.parents.iter().collect()
    }
}

impl Skip {
    /// Whether a person should look at it.
    pub fn is_problem(self) -> bool {
        match self {
            Self::Gone => false,
            Self::GoneUnread | Self::NoTimestamp => true,
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FromNow => "KCL had read nothing of it: what came in before this import is not read",
            Self::WithinRecord => {
                "KCL stopped within an aggregated record, which our checkpoints cannot name: read again from the \
                 shard's oldest record"
            }
            Self::Trimmed => "gone from the stream: what KCL had not read of it will be recorded as a gap",
        })
    }
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gone => "gone from the stream, and nothing of it was wanted any more",
            Self::GoneUnread => "gone from the stream before KCL had read it: what was in it is lost",
            Self::NoTimestamp => {
                "KCL keeps the time of AT_TIMESTAMP in the application's configuration only: the shard is read from \
                 its oldest record"
            }
        })
    }
}

/// Decides about every lease of one stream, given what the stream lists and what our state table has of it.
pub fn plan(leases: &[KclLease], listing: &[Shard], state: &StreamState, now_ms: u64) -> Plan {
    let listed: HashSet<&str> = listing.iter().map(|shard| shard.id.as_str()).collect();
    let unfinished: HashSet<&str> = leases
        .iter()
        .filter(|lease| lease.checkpoint != KclCheckpoint::ShardEnd)
        .map(|lease| lease.shard.as_str())
        .collect();
    let mut ours: HashMap<&str, &Lease> = state.leases.iter().map(|lease| (&*lease.shard, lease)).collect();
    let mut entries: BTreeMap<&str, Entry> = BTreeMap::new();
    for lease in leases {
        let shard = lease.shard.as_str();
        let action = match (planned(lease, &unfinished, now_ms), ours.remove(shard)) {
            (Ok(planned), Some(ours)) => match written_before(ours, &planned, &lease.checkpoint) {
                Some(planned) => Action::Unchanged(planned),
                None => conflict(ours),
            },
            (Err(_), Some(ours)) => conflict(ours),
            (planned, None) if listed.contains(shard) => planned.map_or_else(Action::Skip, Action::Import),
            (planned, None) => gone(lease, planned),
        };
        entries.insert(shard, Entry { shard: shard.to_owned(), kcl: Some(lease.checkpoint.clone()), action });
    }
    for (shard, lease) in ours {
        entries.insert(shard, Entry { shard: shard.to_owned(), kcl: None, action: conflict(lease) });
    }
    Plan {
        entries: entries.into_values().collect(),
        begun_at: state.start.clone().filter(|start| *start != Checkpoint::TrimHorizon),
    }
}

/// The lease that stands for one of KCL's.
fn planned(lease: &KclLease, unfinished: &HashSet<&str>, now_ms: u64) -> Result<Planned, Skip> {
    let (checkpoint, note) = match &lease.checkpoint {
        KclCheckpoint::TrimHorizon => (Checkpoint::TrimHorizon, None),
        KclCheckpoint::Latest => (Checkpoint::AtTime(now_ms), Some(Note::FromNow)),
        KclCheckpoint::AtTimestamp => return Err(Skip::NoTimestamp),
        KclCheckpoint::Record(sequence) => (Checkpoint::After(sequence.clone()), None),
        KclCheckpoint::Within(..) => (Checkpoint::TrimHorizon, Some(Note::WithinRecord)),
        KclCheckpoint::ShardEnd => (Checkpoint::ShardEnd, None),
    };
    // KCL gives LATEST only to shards none of whose ancestors it is to read (HierarchicalShardSyncer), so that
    // they are finished with, too. Without this they would be read from their start, before it.
    let latest = lease.checkpoint == KclCheckpoint::Latest
        && !lease.parents.iter().any(|parent| unfinished.contains(parent.as_str()));
    let begin = if lease.checkpoint.has_begun() || latest { Begin::Now } else { Begin::AfterParents };
    let shard = Shard { id: lease.shard.clone(), parents: lease.parents.clone() };
    Ok(Planned { shard, checkpoint, begin, note })
}

/// The lease as an earlier import wrote it, if `ours` is that and was never read since.
fn written_before(ours: &Lease, planned: &Planned, kcl: &KclCheckpoint) -> Option<Planned> {
    let mut planned = planned.clone();
    if let (KclCheckpoint::Latest, Checkpoint::AtTime(then), Checkpoint::AtTime(now)) =
        (kcl, &ours.checkpoint, &planned.checkpoint)
        && then <= now
    {
        planned.checkpoint = ours.checkpoint.clone();
    }
    planned.is(ours).then_some(planned)
}

/// A lease of a shard that is not listed. One with a record goes on, for the consumer finds out what is lost.
fn gone(lease: &KclLease, planned: Result<Planned, Skip>) -> Action {
    match (&lease.checkpoint, planned) {
        (KclCheckpoint::Record(_) | KclCheckpoint::Within(..), Ok(planned)) => {
            Action::Import(Planned { note: Some(Note::Trimmed), ..planned })
        }
        (KclCheckpoint::TrimHorizon | KclCheckpoint::AtTimestamp, _) => Action::Skip(Skip::GoneUnread),
        _ => Action::Skip(Skip::Gone),
    }
}

fn conflict(ours: &Lease) -> Action {
    Action::Conflict { ours: ours.checkpoint.clone(), owner: ours.owner.clone() }
}

impl Plan {
    /// Leases of ours that an import would not write.
    pub fn conflicts(&self) -> usize {
        self.entries.iter().filter(|entry| matches!(entry.action, Action::Conflict { .. })).count()
    }

    /// The leases to write, in layers: those of a layer may be written in any order, and after the layers before
    /// it, so that no lease is ever there without those of its parents.
    pub fn layers(&self) -> Vec<Vec<&Planned>> {
        let mut rest: Vec<&Planned> = self
            .entries
            .iter()
            .filter_map(|entry| match &entry.action {
                Action::Import(planned) => Some(planned),
                _ => None,
            })
            .collect();
        let mut layers = Vec::new();
        while !rest.is_empty() {
            let waiting: HashSet<&str> = rest.iter().map(|planned| planned.shard.id.as_str()).collect();
            let blocked = |planned: &&Planned| {
                planned.shard.parents.iter().any(|parent| waiting.contains(parent.as_str()))
            };
            let (later, now): (Vec<_>, Vec<_>) = rest.iter().copied().partition(blocked);
            // Shards that are each other's ancestors, which no service lists: any order is as good.
            let cycle = now.is_empty();
            layers.push(if cycle { later.clone() } else { now });
            rest = if cycle { Vec::new() } else { later };
        }
        layers
    }
}

#[cfg(test)]
mod tests;
