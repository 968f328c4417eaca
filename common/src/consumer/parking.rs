//! Which lanes are to be parked: those that hold up what others could go on with. Pure.
//!
//! While every lane of a shard stands still nobody is parked: reading waits, and that is all there is to do. A lane that
//! alone makes no progress, or for which so much waits that the others would soon have to, is parked, on the shards
//! where it is so.

use std::collections::BTreeMap;
use std::time::Duration;

use super::ack::LaneStanding;
use super::parked::ParkReason;

/// When a lane is parked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parking {
    /// A lane that made no progress on a shard for so long is parked there.
    pub after: Duration,
    /// What may wait for one lane on all shards of this process together: its share of the byte budget.
    pub lane_bytes_max: usize,
    /// As many records of one shard may wait for a lane.
    pub lane_records_max: usize,
}

/// Which lanes to park, of those that stand so on the shards: pairs of a shard's place in `standings` and a lane.
pub(super) fn to_park(standings: &[Vec<LaneStanding>], parking: &Parking) -> Vec<(usize, usize, ParkReason)> {
    let mut parks = Vec::new();
    let mut lanes: BTreeMap<usize, Vec<(usize, &LaneStanding)>> = BTreeMap::new();
    for (shard, of_shard) in standings.iter().enumerate() {
        for standing in of_shard {
            lanes.entry(standing.lane).or_default().push((shard, standing));
        }
    }
    for (lane, mut of_lane) in lanes {
        let mut waiting: usize = of_lane.iter().map(|(_, standing)| standing.load.bytes).sum();
        let is_over = waiting > parking.lane_bytes_max;
        // The heaviest first, down to half of the share: what is just below it would soon be above it again.
        of_lane.sort_by_key(|(_, standing)| std::cmp::Reverse(standing.load.bytes));
        for (shard, standing) in of_lane.into_iter().filter(|(_, standing)| standing.load.holds_up) {
            let reason = if standing.stalled >= parking.after {
                ParkReason::Stalled
            } else if standing.load.records > parking.lane_records_max {
                ParkReason::QueueRecords
            } else if is_over && waiting > parking.lane_bytes_max / 2 {
                ParkReason::QueueBytes
            } else {
                continue;
            };
            waiting = waiting.saturating_sub(standing.load.bytes);
            parks.push((shard, lane, reason));
        }
    }
    parks
}

/// Which lanes to park so that the shards can drain: those that make no progress, whether or not others do. Each is
/// caught up by whoever goes on with the shard.
pub(super) fn to_park_for_drain(
    standings: &[Vec<LaneStanding>],
    patience: Duration,
) -> Vec<(usize, usize, ParkReason)> {
    let of_shards = standings.iter().enumerate();
    let all = of_shards.flat_map(|(shard, of)| of.iter().map(move |standing| (shard, standing)));
    let stalled = all.filter(|(_, standing)| standing.stalled >= patience);
    stalled.map(|(shard, standing)| (shard, standing.lane, ParkReason::Stalled)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::window::LaneLoad;
    use super::*;

    const PARKING: Parking =
        Parking { after: Duration::from_secs(20), lane_bytes_max: 100, lane_records_max: 10 };

    fn standing(lane: usize, records: usize, bytes: usize, holds_up: bool, stalled_s: u64) -> LaneStanding {
        let load = LaneLoad { records, bytes, first: 0, holds_up };
        LaneStanding { lane, load, stalled: Duration::from_secs(stalled_s) }
    }

    #[test]
    fn a_lane_that_alone_stands_still_is_parked_where_it_does() {
        let standings = [
            vec![standing(0, 1, 10, false, 30), standing(1, 5, 10, true, 20)],
            vec![standing(0, 1, 10, true, 19), standing(1, 5, 10, true, 3)],
        ];
        assert_eq!(to_park(&standings, &PARKING), [(0, 1, ParkReason::Stalled)]);
    }

    #[test]
    fn lanes_that_all_stand_still_are_not_parked() {
        let standings = [vec![standing(0, 99, 900, false, 300), standing(1, 99, 900, false, 300)]];
        assert_eq!(to_park(&standings, &PARKING), []);
    }

    #[test]
    fn a_lane_with_exactly_its_share_is_not_parked_and_with_a_byte_more_it_is_where_most_waits() {
        let of = |second| {
            [
                vec![standing(2, 1, 30, true, 0)],
                vec![standing(2, 1, second, true, 0)],
                vec![standing(2, 1, 10, true, 0)],
            ]
        };
        assert_eq!(to_park(&of(60), &PARKING), []);
        assert_eq!(to_park(&of(61), &PARKING), [(1, 2, ParkReason::QueueBytes)]);
        let light = [vec![standing(2, 1, 51, true, 0)], vec![standing(2, 1, 50, true, 0)]];
        assert_eq!(to_park(&light, &PARKING).len(), 1, "half of its share is left to it");
    }

    #[test]
    fn a_lane_for_which_too_many_records_of_a_shard_wait_is_parked_there() {
        let of = |records| [vec![standing(1, records, 0, true, 0)]];
        assert_eq!(to_park(&of(10), &PARKING), []);
        assert_eq!(to_park(&of(11), &PARKING), [(0, 1, ParkReason::QueueRecords)]);
    }
}
