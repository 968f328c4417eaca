//! The fleet's watermark: a time such that everything created before it is done, in every shard of every stream. Pure.
//!
//! Known only if everything that may still bring something older is accounted for. Take any cut through the leases, as
//! old as it may be: what comes later descends from it, and was created later than what its ancestors have. So the
//! least watermark over the leases of the cut is the fleet's, if each was said of exactly the tenure in the cut; what
//! is done stays done, however old the word. Hence:
//! - *An open lease* counts by its owner's word, if the owner lives and its word is of exactly the leases that it owns
//!   in the cut. One that nobody has counts by its parents while they are there and it was not begun; else nothing
//!   is known.
//! - *A finished lease* counts with its last watermark until all its children have begun, and for a while more: one
//!   child may show later than the other. After that it counts no more; nor does it without a child in a stream that
//!   another has taken the place of, or if the shard was gone before its end, which is a gap.
//! - *A lease that is not over* counts only if it was done into what is there now: a tenure of before is to be rewound,
//!   which begins another one. So the words of all that count are of tenures that went back to before what was lost.
//! - *A stream* counts when two listings have found no shard without a lease.
//!
//! Whatever is doubtful makes it unknown. It never advances by itself.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use super::coverage::{Coverage, LeaseSet};
use super::store::{Lease, StreamState};

/// A stream, as its leases were read.
#[derive(Clone, Copy, Debug)]
pub struct StreamLeases<'a> {
    /// Its name.
    pub stream: &'a str,
    /// What was read.
    pub state: &'a StreamState,
    /// Another stream has taken its place: no shard will be added.
    pub superseded: bool,
    /// See [`StreamSource::children_settle`](super::source::StreamSource::children_settle).
    pub settle: Duration,
}

/// The fleet's watermark.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watermark {
    /// Everything created before it is done, in milliseconds since the epoch.
    pub ms: u64,
    /// The lanes that it does not hold for, by name: they are parked, or lack something.
    pub behind: BTreeSet<String>,
}

/// Why the fleet's watermark is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Hold {
    /// Not all streams are known yet.
    #[error("{found} of at least {expected} streams are consumed")]
    Streams {
        /// How many are.
        found: usize,
        /// How many should be.
        expected: usize,
    },
    /// The leases may not be all there are.
    #[error("stream {0} was not listed twice without a new shard since it was begun")]
    NotListed(String),
    /// A worker's word is of other leases than it has.
    #[error("worker {0} has other leases than were seen")]
    Changed(String),
    /// An owner of leases is dead.
    #[error("worker {0} has leases and is dead, or has not been seen yet")]
    Dead(String),
    /// A worker says nothing of its leases.
    #[error("worker {0} does not tell its watermark: it runs an older version")]
    Silent(String),
    /// Nobody has it.
    #[error("{0} has no owner")]
    Unowned(String),
    /// It was finished without a watermark, and its children have not begun.
    #[error("{0} is finished, its children have not all begun, and it had no watermark")]
    Finished(String),
    /// What was done of it may be lost.
    #[error("{0} was done into what may have lost it since, and was not rewound yet")]
    NotRewound(String),
    /// Its lease takes a later version to read.
    #[error("{0} was written by a newer version, and cannot be read")]
    Newer(String),
    /// A shard has no watermark yet.
    #[error("a shard that worker {0} reads has no watermark yet")]
    Unknown(String),
}

impl Hold {
    /// Whether newer leases may tell more.
    pub fn is_of_leases(&self) -> bool {
        !matches!(self, Self::Streams { .. } | Self::Silent(_) | Self::Unknown(_))
    }
}

/// The fleet's watermark in milliseconds since the epoch. `members` are the workers that live, with what each says of
/// its leases. `target` is the state of what shards are done into, if that may lose something.
///
/// # Errors
/// Why it is not known.
pub fn fleet_watermark(
    streams: &[StreamLeases<'_>],
    members: &BTreeMap<String, Option<Coverage>>,
    target: Option<&str>,
    now_ms: u64,
) -> Result<u64, Hold> {
    let mut leases = streams.iter().flat_map(|stream| &stream.state.leases);
    if let Some(newer) = leases.find(|lease| lease.is_newer()) {
        return Err(Hold::Newer(newer.name()));
    }
    let mut owned: BTreeMap<&str, LeaseSet> = BTreeMap::new();
    for lease in streams.iter().flat_map(|stream| &stream.state.leases) {
        if let Some(owner) = lease.owner.as_deref().filter(|_| !lease.checkpoint.is_end()) {
            owned.entry(owner).or_default().add(&lease.stream, &lease.shard, lease.epoch);
        }
    }
    if let Some(dead) = owned.keys().find(|owner| !members.contains_key(**owner)) {
        return Err(Hold::Dead((*dead).to_owned()));
    }
    let mut least = Least(None);
    for (worker, coverage) in members {
        let Some(coverage) = coverage else { return Err(Hold::Silent(worker.clone())) };
        if coverage.leases != owned.get(worker.as_str()).copied().unwrap_or_default() {
            return Err(Hold::Changed(worker.clone()));
        }
        if coverage.leases.leases > 0 {
            least.lower(coverage.watermark_ms.ok_or_else(|| Hold::Unknown(worker.clone()))?);
        }
    }
    for stream in streams {
        stream.hold(target, now_ms, &mut least)?;
    }
    // Without any lease nothing is known of anything.
    least.0.ok_or(Hold::Streams { found: 0, expected: 1 })
}

/// The lanes that the fleet's watermark does not hold for, if it is known: they are parked on an open lease, as its owner
/// says, or on a finished one, as it was read; or an open one, in the tenure that its owner's word is of, is not read
/// for them. `lanes` are all there are.
pub fn lanes_behind<'a>(
    streams: &[StreamLeases<'_>],
    members: &BTreeMap<String, Option<Coverage>>,
    lanes: impl IntoIterator<Item = &'a str>,
) -> BTreeSet<String> {
    let leases = || streams.iter().flat_map(|stream| &stream.state.leases);
    let on_finished =
        leases().filter(|lease| lease.checkpoint.is_end()).flat_map(|lease| lease.parked.keys());
    let on_open = members.values().flatten().flat_map(|coverage| &coverage.parked);
    let open = |lease: &&Lease| lease.has_started() && !lease.checkpoint.is_end();
    let is_missing = |lane: &&str| leases().filter(open).any(|lease| !lease.lanes.contains(*lane));
    let missing = lanes.into_iter().filter(is_missing).map(str::to_owned);
    on_open.chain(on_finished).cloned().chain(missing).collect()
}

struct Least(Option<u64>);

impl Least {
    fn lower(&mut self, ms: u64) {
        self.0 = Some(self.0.map_or(ms, |least| least.min(ms)));
    }
}

impl StreamLeases<'_> {
    /// What the leases hold the watermark at that no worker's word is of.
    fn hold(&self, target: Option<&str>, now_ms: u64, least: &mut Least) -> Result<(), Hold> {
        let leases = &self.state.leases;
        if self.superseded && leases.is_empty() {
            return Ok(());
        }
        if !self.state.listed || leases.is_empty() {
            return Err(Hold::NotListed(self.stream.to_owned()));
        }
        let mut children: HashMap<&str, Vec<&Lease>> =
            leases.iter().map(|lease| (&*lease.shard, Vec::new())).collect();
        for lease in leases {
            for parent in &lease.parents {
                if let Some(children) = children.get_mut(parent.as_str()) {
                    children.push(lease);
                }
            }
        }
        for lease in leases {
            let is_finished = lease.checkpoint.is_end();
            let children_of = children.get(&*lease.shard).map_or(&[][..], Vec::as_slice);
            if is_finished && self.is_over(lease, children_of, now_ms) {
                continue;
            }
            if let (Some(target), Some(into)) = (target, lease.target.as_deref())
                && target != into
            {
                return Err(Hold::NotRewound(lease.name()));
            }
            if is_finished {
                let last = lease.ended.and_then(|ended| ended.watermark_ms);
                least.lower(last.ok_or_else(|| Hold::Finished(lease.name()))?);
            } else if lease.owner.is_none() {
                // A parent that is there counts: open, by its owner's word; finished, as its child has not begun.
                let waits = |parent: &String| children.contains_key(parent.as_str());
                if lease.has_started() || !lease.parents.iter().any(waits) {
                    return Err(Hold::Unowned(lease.name()));
                }
            }
        }
        Ok(())
    }

    /// Whether nothing comes of a finished shard any more that is not in another lease.
    fn is_over(&self, lease: &Lease, children: &[&Lease], now_ms: u64) -> bool {
        // It was gone before its end, and whatever the listings have has a lease; or an older version wrote its end.
        let Some(ended) = lease.ended else { return children.iter().all(|child| has_begun(child)) };
        match children.is_empty() {
            true => self.superseded,
            false => children.iter().all(|child| has_begun(child)) && ended.is_settled(now_ms, self.settle),
        }
    }
}

fn has_begun(lease: &Lease) -> bool {
    lease.has_started() || lease.checkpoint.is_end()
}

#[cfg(test)]
mod tests;
