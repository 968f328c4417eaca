//! What was put into the streams, and whether all of it arrived, in the order of each key.

use std::collections::{BTreeMap, BTreeSet};

use warmcast_proto::position::Position;
use warmcast_sandbox::checkpoints::read_frames;
use warmcast_sandbox::kinesis::Kinesis;

/// One change of an item: its key, and its place in the item's history.
pub(crate) type Change = (String, Position);

/// The changes that must arrive.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    expected: BTreeSet<Change>,
}

/// The changes that have arrived, in the order of their arrival. The target stream has one shard, and a worker has
/// one put under way, so this is the order in which the changes of a key were read.
#[derive(Debug)]
pub(crate) struct Arrivals(pub(crate) Vec<Change>);

impl Ledger {
    /// These changes, by their sequence numbers, are in the stream of this generation.
    pub(crate) fn expect(&mut self, key: &str, generation: u32, sequences: &[String]) {
        self.expected.extend(
            sequences.iter().map(|sequence| {
                (key.to_owned(), Position::new(generation, sequence.parse().unwrap()).unwrap())
            }),
        );
    }

    pub(crate) fn len(&self) -> usize {
        self.expected.len()
    }

    /// How many have not arrived.
    pub(crate) fn missing(&self, arrivals: &Arrivals) -> usize {
        let arrived: BTreeSet<&Change> = arrivals.0.iter().collect();
        self.expected.iter().filter(|change| !arrived.contains(change)).count()
    }

    /// All has arrived and nothing else; what arrived first of each change is in the order of its key.
    pub(crate) fn assert_arrived(&self, arrivals: &Arrivals) {
        let arrived: BTreeSet<Change> = arrivals.0.iter().cloned().collect();
        assert_eq!(arrived.symmetric_difference(&self.expected).collect::<Vec<_>>(), Vec::<&Change>::new());
        arrivals.assert_ordered();
    }
}

impl Arrivals {
    pub(crate) async fn read(kinesis: &Kinesis) -> Self {
        let frames = read_frames(kinesis, |_, _| true).await.unwrap();
        let changes = frames.into_iter().flat_map(|frame| frame.effects);
        Self(
            changes
                .map(|change| (String::from_utf8(change.key.to_vec()).unwrap(), change.position))
                .collect(),
        )
    }

    /// Changes that have arrived more than once.
    pub(crate) fn repeated(&self) -> BTreeSet<&Change> {
        let mut seen = BTreeSet::new();
        self.0.iter().filter(|change| !seen.insert(*change)).collect()
    }

    /// A change that arrives for the first time is newer than all of its key that came before.
    fn assert_ordered(&self) {
        let mut newest: BTreeMap<&str, Position> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for (key, position) in &self.0 {
            if !seen.insert((key, position)) {
                continue;
            }
            if let Some(before) = newest.insert(key, *position) {
                assert!(before < *position, "{key}: {position:?} arrived after {before:?}");
            }
        }
    }
}
