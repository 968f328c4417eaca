//! A lane that is *parked* on a shard: its records are not kept for it; it is known up to where it has everything,
//! and is brought up to the others from there when it can take more.
//!
//! The place is part of the lease and is written with the checkpoint, in one write: so whatever happens, each lane
//! has everything below the checkpoint, or below its own place if it is parked.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::checkpoint::Checkpoint;
use super::lanes::Lanes;
use super::store::Lease;

/// Where and why a lane is parked on a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parked {
    /// The lane has everything of the shard up to here.
    pub checkpoint: Checkpoint,
    /// Since when: nothing that it lacks arrived earlier. Milliseconds since the epoch.
    pub since_ms: u64,
    /// Why, for people.
    pub why: String,
}

impl Parked {
    /// Whether what it lacks may be gone by now, where the service would begin at the oldest record without a word.
    /// `retention`: for how long records are kept. One that begins with the oldest record there is lacks nothing.
    pub fn may_be_trimmed(&self, retention: Duration, now_ms: u64) -> bool {
        let is_silent = matches!(self.checkpoint, Checkpoint::TrimHorizon | Checkpoint::AtTime(_));
        is_silent && !self.is_new() && self.is_as_old_as(retention, now_ms)
    }

    /// Whether the lane is to begin with the oldest record there is.
    pub fn is_new(&self) -> bool {
        self.why == ParkReason::New.to_string()
    }

    /// Whether what it lacks may be as old as this.
    pub fn is_as_old_as(&self, age: Duration, now_ms: u64) -> bool {
        u128::from(now_ms.saturating_sub(self.since_ms)) >= age.as_millis()
    }
}

/// The lanes that are parked on a shard, by name.
pub type ParkedLanes = BTreeMap<String, Parked>;

/// Why a lane is parked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ParkReason {
    /// It made no progress while others did.
    Stalled,
    /// What waited for it took its share of the byte budget.
    QueueBytes,
    /// As many of the shard's records as are allowed waited for it.
    QueueRecords,
    /// Its own queue was full.
    QueueFull,
    /// A copy had waited for so long that it would do harm or no good.
    TooOld,
    /// This process does not know the lane: the configuration has changed.
    NotConfigured,
    /// It is new and begins with the oldest record there is.
    New,
    /// It was parked on the shard's parent.
    Inherited,
}

impl fmt::Display for ParkReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stalled => "stalled",
            Self::QueueBytes => "queue-bytes",
            Self::QueueRecords => "queue-records",
            Self::QueueFull => "queue-full",
            Self::TooOld => "too-old",
            Self::NotConfigured => "not-configured",
            Self::New => "new",
            Self::Inherited => "inherited",
        })
    }
}

/// Where a lane that a shard's lease does not know yet begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaneStart {
    /// With what comes from now on.
    Now,
    /// With the oldest record there is.
    TrimHorizon,
}

/// A lane, as this process is told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lane {
    /// Its name: the same in every process of the fleet, and after restarts.
    pub name: Arc<str>,
    /// Where it begins on shards that were read before it was there.
    pub start: LaneStart,
}

/// How a shard's tenure begins for its lanes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LaneOnset {
    /// Those that records are read for.
    pub attached: Lanes,
    /// Those that are parked, also of lanes that this process does not know.
    pub parked: ParkedLanes,
    /// All lanes that the lease speaks for.
    pub known: BTreeSet<String>,
}

/// How `lease` is to be begun for `lanes`. `parents` are the leases of its parents, as many as there are; they count
/// if the shard was never read.
///
/// A lane that the lease speaks for and this process does not know is parked where the lease is: it is forgotten by
/// command only, and another process, or this one with another configuration, goes on with it.
pub fn lane_onset(lease: &Lease, parents: &[Lease], lanes: &[Lane], now_ms: u64) -> LaneOnset {
    let park = |checkpoint, why: ParkReason| Parked { checkpoint, since_ms: now_ms, why: why.to_string() };
    let mut parked = lease.parked.clone();
    let mut known = lease.lanes.clone();
    if known.is_empty() && !lease.has_started() {
        known.extend(parents.iter().flat_map(|parent| parent.lanes.iter().cloned()));
        for (name, of_parent) in parents.iter().flat_map(|parent| &parent.parked) {
            let inherited = || park(lease.checkpoint.clone(), ParkReason::Inherited);
            let of_child = parked.entry(name.clone()).or_insert_with(inherited);
            of_child.since_ms = of_child.since_ms.min(of_parent.since_ms);
        }
    }
    // A lease of a version without lanes speaks for all there were: those that are configured now.
    let is_new = |name: &str| lease.has_started() && !lease.lanes.is_empty() && !known.contains(name);
    for lane in lanes {
        if is_new(&lane.name) && lane.start == LaneStart::TrimHorizon {
            parked.insert(lane.name.to_string(), park(Checkpoint::TrimHorizon, ParkReason::New));
        }
    }
    // Of a shard that is at its end each has everything, unless it is parked.
    let missing = known.iter().filter(|name| lanes.iter().all(|lane| *lane.name != ***name));
    for name in missing.filter(|_| !lease.checkpoint.is_end()) {
        let at = || park(lease.checkpoint.clone(), ParkReason::NotConfigured);
        parked.entry(name.clone()).or_insert_with(at);
    }
    known.extend(lanes.iter().map(|lane| lane.name.to_string()));
    let attached = lanes.iter().enumerate().filter(|(_, lane)| !parked.contains_key(&*lane.name));
    LaneOnset { attached: attached.map(|(place, _)| place).collect(), parked, known }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(epoch: u64, checkpoint: &str, known: &[&str], parked: &[(&str, &str)]) -> Lease {
        let parked = parked.iter().map(|(name, at)| {
            let checkpoint = at.parse().unwrap();
            ((*name).to_owned(), Parked { checkpoint, since_ms: 5, why: "stalled".to_owned() })
        });
        Lease {
            lanes: known.iter().map(|name| (*name).to_owned()).collect(),
            parked: parked.collect(),
            ..Lease::new("s", "a", epoch, checkpoint.parse().unwrap())
        }
    }

    fn lanes(of: &[(&str, LaneStart)]) -> Vec<Lane> {
        of.iter().map(|(name, start)| Lane { name: (*name).into(), start: *start }).collect()
    }

    fn places(onset: &LaneOnset) -> Vec<(String, String, String)> {
        let of = |(name, parked): (&String, &Parked)| {
            (name.clone(), parked.checkpoint.to_string(), parked.why.clone())
        };
        onset.parked.iter().map(of).collect()
    }

    const NOW: LaneStart = LaneStart::Now;
    const OLDEST: LaneStart = LaneStart::TrimHorizon;

    #[test]
    fn what_is_parked_stays_parked_and_the_others_are_attached() {
        let lease = lease(3, "after:9", &["a", "b"], &[("b", "after:4")]);
        let onset = lane_onset(&lease, &[], &lanes(&[("a", OLDEST), ("b", OLDEST)]), 7);
        assert_eq!(onset.attached, Lanes::one(0));
        assert_eq!(onset.parked, lease.parked);
        assert_eq!(onset.known, lease.lanes);
    }

    #[test]
    fn a_lane_that_is_new_to_a_shard_begins_as_it_is_told() {
        let lease = lease(3, "after:9", &["a"], &[]);
        let onset = lane_onset(&lease, &[], &lanes(&[("a", NOW), ("b", OLDEST), ("c", NOW)]), 7);
        assert_eq!(onset.attached, [0, 2].into_iter().collect());
        assert_eq!(places(&onset), [("b".into(), "trim-horizon".into(), "new".into())]);
        assert_eq!(onset.known.len(), 3);
    }

    #[test]
    fn a_lane_that_is_not_configured_any_more_is_kept_where_it_was() {
        let before = lease(3, "after:9", &["a", "b", "c"], &[("c", "after:2")]);
        let onset = lane_onset(&before, &[], &lanes(&[("a", OLDEST)]), 7);
        assert_eq!(
            places(&onset),
            [
                ("b".into(), "after:9".into(), "not-configured".into()),
                ("c".into(), "after:2".into(), "stalled".into())
            ]
        );
        assert_eq!(onset.known.len(), 3, "only a command forgets one");
        let back = lease(4, "after:12", &["a", "b", "c"], &[("b", "after:9"), ("c", "after:2")]);
        let onset = lane_onset(&back, &[], &lanes(&[("b", OLDEST)]), 8);
        assert_eq!(onset.attached, Lanes::NONE);
        assert_eq!(onset.parked["a"].checkpoint.to_string(), "after:12");
        assert_eq!(onset.parked["b"].checkpoint.to_string(), "after:9");
    }

    #[test]
    fn a_child_begins_with_what_is_parked_on_a_parent() {
        let child = Lease { parents: vec!["p".to_owned()], ..lease(0, "trim-horizon", &[], &[]) };
        let parent = lease(3, "shard-end", &["a", "b"], &[("b", "after:4")]);
        let onset = lane_onset(&child, &[parent], &lanes(&[("a", NOW), ("b", NOW), ("c", OLDEST)]), 7);
        assert_eq!(onset.attached, [0, 2].into_iter().collect(), "what is new begins with the shard");
        assert_eq!(places(&onset), [("b".into(), "trim-horizon".into(), "inherited".into())]);
        assert_eq!(onset.known.len(), 3);
    }

    #[test]
    fn a_lease_of_a_version_without_lanes_has_them_all() {
        let onset =
            lane_onset(&lease(3, "after:9", &[], &[]), &[], &lanes(&[("a", OLDEST), ("b", OLDEST)]), 7);
        assert_eq!((onset.attached, onset.parked.len(), onset.known.len()), (Lanes::first(2), 0, 2));
    }
}
