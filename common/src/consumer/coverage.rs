//! The leases that this process holds, and how far everything in them is done: what a worker says of its part of the
//! fleet's watermark.
//!
//! A minimum over leases means nothing without the leases it is over: they change hands while it is on its way. So it
//! goes with a digest of exactly these leases, each in its tenure, which whoever reads the lease table can compare.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use xxhash_rust::xxh3::xxh3_64;

use super::ack::ShardAcks;

/// A set of leases, each in one tenure. Equal sets are equal; different ones are not, but for one chance in 2^64.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct LeaseSet {
    /// How many.
    pub leases: u64,
    /// The XOR of a hash of each: the order does not count.
    pub digest: u64,
}

/// What a worker's watermark is, and over which leases.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// The leases.
    pub leases: LeaseSet,
    /// Everything in them that was created before this is done, in milliseconds since the epoch. `None` while that
    /// is not known of one of them, and of none.
    pub watermark_ms: Option<u64>,
    /// The lanes that it does not hold for: they are parked on one of the leases.
    pub parked: BTreeSet<String>,
}

impl LeaseSet {
    /// Adds a lease in the tenure of this epoch. Each is added once.
    pub fn add(&mut self, stream: &str, shard: &str, epoch: u64) {
        self.leases += 1;
        self.digest ^= hash(stream, shard, epoch);
    }

    fn remove(&mut self, hash: u64) {
        self.leases = self.leases.saturating_sub(1);
        self.digest ^= hash;
    }
}

/// No name has a zero byte, so that different leases are different bytes.
fn hash(stream: &str, shard: &str, epoch: u64) -> u64 {
    xxh3_64(format!("{stream}\0{shard}\0{epoch}").as_bytes())
}

/// The leases that this process holds. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Holdings(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    next_id: u64,
    set: LeaseSet,
    held: HashMap<u64, Held>,
    /// The names of the lanes, by their places.
    lanes: Vec<Arc<str>>,
}

#[derive(Debug)]
struct Held {
    hash: u64,
    acks: ShardAcks,
    /// The parked lanes that this process does not know.
    others: BTreeSet<String>,
}

impl Holdings {
    /// How many leases are held.
    pub fn leases(&self) -> usize {
        self.0.lock().held.len()
    }

    /// What is known now.
    pub fn coverage(&self) -> Coverage {
        let state = self.0.lock();
        let (mut least, mut is_known, mut parked) = (None, true, BTreeSet::new());
        for held in state.held.values() {
            let (of_one, lanes) = held.acks.word();
            is_known &= of_one.is_some();
            least = [least, of_one].into_iter().flatten().min();
            parked.extend(held.others.iter().cloned());
            parked.extend(lanes.iter().filter_map(|lane| state.lanes.get(lane)).map(|name| name.to_string()));
        }
        Coverage { leases: state.set, watermark_ms: least.filter(|_| is_known), parked }
    }

    /// What the lanes are called.
    pub(super) fn name_lanes(&self, lanes: Vec<Arc<str>>) {
        self.0.lock().lanes = lanes;
    }

    /// The lease is held until the answer is dropped. `acks` tell how far it is; `others` are parked lanes that they do
    /// not know.
    pub(super) fn hold(
        &self,
        stream: &str,
        shard: &str,
        epoch: u64,
        acks: ShardAcks,
        others: BTreeSet<String>,
    ) -> Holding {
        let mut state = self.0.lock();
        let id = state.next_id;
        state.next_id += 1;
        state.set.add(stream, shard, epoch);
        state.held.insert(id, Held { hash: hash(stream, shard, epoch), acks, others });
        Holding { holdings: self.clone(), id }
    }
}

/// A lease that is held.
#[derive(Debug)]
pub(super) struct Holding {
    holdings: Holdings,
    id: u64,
}

impl Drop for Holding {
    fn drop(&mut self) {
        let mut state = self.holdings.0.lock();
        if let Some(held) = state.held.remove(&self.id) {
            state.set.remove(held.hash);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::lanes::Lanes;
    use super::*;
    use proptest::prelude::*;

    fn acks(watermark_ms: Option<u64>) -> ShardAcks {
        let acks = ShardAcks::new(1);
        if let Some(watermark_ms) = watermark_ms {
            acks.mark_all(watermark_ms);
        }
        acks
    }

    #[test]
    fn the_watermark_is_the_least_and_unknown_while_one_is() {
        let holdings = Holdings::default();
        assert_eq!(holdings.coverage(), Coverage::default());
        let _a = holdings.hold("s", "a", 1, acks(Some(70)), BTreeSet::new());
        let _b = holdings.hold("s", "b", 3, acks(Some(50)), BTreeSet::new());
        let mut expected = LeaseSet::default();
        expected.add("s", "b", 3);
        expected.add("s", "a", 1);
        assert_eq!(
            holdings.coverage(),
            Coverage { leases: expected, watermark_ms: Some(50), parked: BTreeSet::new() }
        );
        let c = holdings.hold("s", "c", 1, acks(None), BTreeSet::new());
        assert_eq!(holdings.coverage().watermark_ms, None);
        assert_ne!(holdings.coverage().leases, expected);
        drop(c);
        assert_eq!(
            holdings.coverage(),
            Coverage { leases: expected, watermark_ms: Some(50), parked: BTreeSet::new() }
        );
    }

    #[test]
    fn a_lane_that_is_parked_anywhere_is_not_covered() {
        let holdings = Holdings::default();
        holdings.name_lanes(vec!["x".into(), "y".into()]);
        let of = |attached, parked: &[usize]| {
            let place = || super::super::parked::Parked {
                checkpoint: super::super::Checkpoint::TrimHorizon,
                since_ms: 1,
                why: String::new(),
            };
            let parked = parked.iter().map(|lane| (*lane, place())).collect();
            ShardAcks::with_lanes(1, super::super::Checkpoint::TrimHorizon, attached, parked)
        };
        let parked = || holdings.coverage().parked.into_iter().collect::<Vec<_>>();
        let _a = holdings.hold("s", "a", 1, of(Lanes::first(2), &[]), BTreeSet::new());
        assert!(parked().is_empty());
        let b = holdings.hold("s", "b", 1, of(Lanes::one(0), &[1]), ["gone".to_owned()].into());
        assert_eq!(parked(), ["gone", "y"]);
        drop(b);
        let _joining = holdings.hold("s", "b", 2, of(Lanes::first(2), &[0]), BTreeSet::new());
        assert_eq!(parked(), ["x"], "what it lacked is not done yet");
    }

    #[test]
    fn another_tenure_stream_or_shard_is_another_lease() {
        let of = |stream, shard, epoch| {
            let mut set = LeaseSet::default();
            set.add(stream, shard, epoch);
            set
        };
        let one = of("s", "a", 1);
        assert!(
            [of("s", "a", 2), of("t", "a", 1), of("s", "b", 1), of("sa", "", 1)]
                .iter()
                .all(|other| *other != one)
        );
    }

    proptest! {
        #[test]
        fn what_is_held_and_dropped_again_leaves_the_set_as_it_was(
            kept in prop::collection::btree_set((0u8..20, 0u64..4), 0..20),
            dropped in prop::collection::vec((0u8..20, 0u64..4), 0..20),
        ) {
            let (holdings, mut expected) = (Holdings::default(), LeaseSet::default());
            let mut holds = Vec::new();
            let mut passing = Vec::new();
            for (shard, epoch) in &dropped {
                passing.push(holdings.hold("s", &shard.to_string(), *epoch, acks(None), BTreeSet::new()));
            }
            for (shard, epoch) in &kept {
                holds.push(holdings.hold("s", &shard.to_string(), *epoch, acks(None), BTreeSet::new()));
                expected.add("s", &shard.to_string(), *epoch);
            }
            drop(passing);
            prop_assert_eq!(holdings.coverage().leases, expected);
        }
    }
}
