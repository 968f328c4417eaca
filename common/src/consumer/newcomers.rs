//! Lanes that are added to a stream which is read already, and begin with the oldest record there is: what became of
//! shards that were finished before them. Pure.
//!
//! Shards that are read are theirs from their oldest record when their tenures begin with them. One that was finished
//! has no lease any more, though its records are there for hours: it gets one again, finished, with the new lanes
//! parked at its start. That is done once, when no shard is read without them: then nothing more is finished without
//! them. Lanes that begin with what comes from now on have begun by then, and want nothing of finished shards.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::checkpoint::Checkpoint;
use super::lanes::Lanes;
use super::parked::{Lane, LaneOnset, LaneStart, ParkReason, Parked};
use super::store::{LaneState, Lease};

/// The lanes with this start that have not begun, and that no shard is read without: those that begin with the oldest
/// record are to begin on finished shards now, the others have begun. `known` is what the state table has of lanes.
pub(super) fn newcomers(
    lanes: &[Lane],
    start: LaneStart,
    known: &BTreeMap<String, LaneState>,
    stream: &str,
    leases: &[Lease],
) -> BTreeSet<String> {
    let is_new = |lane: &&Lane| {
        let has_begun = known.get(&*lane.name).is_some_and(|state| state.begun.contains(stream));
        lane.start == start && !has_begun
    };
    let is_read_everywhere = |lane: &&Lane| {
        let open = |lease: &&Lease| lease.has_started() && !lease.checkpoint.is_end();
        leases.iter().filter(open).all(|lease| lease.lanes.contains(&*lane.name))
    };
    let names = lanes.iter().filter(is_new).filter(is_read_everywhere).map(|lane| lane.name.to_string());
    names.collect()
}

/// The lanes that begin with the oldest record and have not begun on every shard of these streams.
pub fn late_on(streams: &[Arc<str>], lanes: &[Lane], known: &BTreeMap<String, LaneState>) -> Vec<String> {
    let is_late = |lane: &&Lane| {
        let begun = known.get(&*lane.name).map(|state| &state.begun);
        lane.start == LaneStart::TrimHorizon
            && streams.iter().any(|stream| !begun.is_some_and(|of| of.contains(&**stream)))
    };
    lanes.iter().filter(is_late).map(|lane| lane.name.to_string()).collect()
}

/// How a finished shard's lease begins for them. `lease` is what it has, if it has one; nothing if it has them already.
pub(super) fn onset(newcomers: &BTreeSet<String>, lease: Option<&Lease>, now_ms: u64) -> Option<LaneOnset> {
    let (mut known, mut parked) = lease.map(|of| (of.lanes.clone(), of.parked.clone())).unwrap_or_default();
    for lane in newcomers.iter().filter(|lane| !lease.is_some_and(|of| of.lanes.contains(*lane))) {
        let why = ParkReason::New.to_string();
        parked.insert(lane.clone(), Parked { checkpoint: Checkpoint::TrimHorizon, since_ms: now_ms, why });
        known.insert(lane.clone());
    }
    let is_news = lease.is_none_or(|of| of.lanes != known);
    is_news.then_some(LaneOnset { attached: Lanes::NONE, parked, known })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(shard: &str, checkpoint: &str, lanes: &[&str]) -> Lease {
        let lanes = lanes.iter().map(|lane| (*lane).to_owned()).collect();
        Lease { lanes, ..Lease::new("s", shard, 2, checkpoint.parse().unwrap()) }
    }

    fn lanes() -> Vec<Lane> {
        let lane = |name: &str, start| Lane { name: name.into(), start };
        vec![
            lane("old", LaneStart::TrimHorizon),
            lane("new", LaneStart::TrimHorizon),
            lane("later", LaneStart::Now),
        ]
    }

    fn known() -> BTreeMap<String, LaneState> {
        let begun = LaneState { begun: ["s".to_owned()].into(), ..LaneState::default() };
        [("old".to_owned(), begun), ("new".to_owned(), LaneState::default())].into()
    }

    #[test]
    fn a_new_lane_begins_on_finished_shards_when_no_shard_is_read_without_it() {
        let new: BTreeSet<String> = ["new".to_owned()].into();
        let (with, without) = (lease("a", "after:1", &["old", "new"]), lease("b", "after:1", &["old"]));
        let ended = lease("c", "shard-end", &["old"]);
        let of = |leases: &[&Lease]| {
            let leases: Vec<Lease> = leases.iter().map(|lease| (*lease).clone()).collect();
            newcomers(&lanes(), LaneStart::TrimHorizon, &known(), "s", &leases)
        };
        assert_eq!(of(&[&with, &ended]), new);
        assert_eq!(of(&[&with, &without]), BTreeSet::new(), "that one may end without it");
        let other: BTreeSet<String> = ["new".to_owned(), "old".to_owned()].into();
        assert_eq!(newcomers(&lanes(), LaneStart::TrimHorizon, &known(), "another", &[]), other);
        let now = |leases: &[Lease]| newcomers(&lanes(), LaneStart::Now, &known(), "s", leases);
        assert_eq!(now(&[with, ended.clone()]), BTreeSet::new(), "the first is read without it");
        let later: BTreeSet<String> = ["later".to_owned()].into();
        assert_eq!(now(&[lease("a", "after:1", &["later"]), ended]), later);
    }

    #[test]
    fn a_finished_shard_has_it_once() {
        let new: BTreeSet<String> = ["new".to_owned()].into();
        let places = |onset: LaneOnset| (onset.parked.into_keys().collect::<Vec<_>>(), onset.known.len());
        assert_eq!(onset(&new, None, 7).map(places), Some((vec!["new".to_owned()], 1)));
        let finished = lease("c", "shard-end", &["old"]);
        assert_eq!(onset(&new, Some(&finished), 7).map(places), Some((vec!["new".to_owned()], 2)));
        assert_eq!(onset(&new, Some(&lease("c", "shard-end", &["old", "new"])), 7), None);
    }
}
