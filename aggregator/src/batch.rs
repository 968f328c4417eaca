//! Changes become batches: each batch holds changes of one bucket of keys for the same regions, and becomes one frame.
//! Pure.
//!
//! A batch closes by bytes, by count or by age, whichever comes first.

use std::collections::BTreeMap;

use tokio::time::Instant;
use warmcast_common::consumer::Lanes;
use warmcast_proto::change::Change;
use warmcast_proto::frame::FrameBuilder;
use warmcast_proto::key::bucket;

use crate::config::BatchConfig;
use crate::linger::Linger;

/// A closed batch: its frame is not yet finished.
pub struct Batch<A> {
    /// The regions that it is for.
    pub lanes: Lanes,
    /// The bucket that all its keys are in.
    pub bucket: u32,
    /// When the first of its changes came.
    pub opened: Instant,
    /// The changes, in the order in which they came.
    pub frame: FrameBuilder,
    /// The same, each with the time at which it was asked for, if one of the regions wants another format.
    pub changes: Vec<(Change, u64)>,
    /// Their acks.
    pub acks: Vec<A>,
}

/// What a batch's changes have in common: regions and bucket.
type Feed = (Lanes, u32);

/// Open batches.
pub struct Batcher<A> {
    config: BatchConfig,
    /// The regions that want another format than frames.
    unframed: Lanes,
    open: BTreeMap<Feed, Open<A>>,
    /// The open batches by when they are due; a batch's number tells those due at the same time apart.
    due: BTreeMap<(Instant, u64), Feed>,
    opened: u64,
    linger: Linger,
}

struct Open<A> {
    batch: Batch<A>,
    due: (Instant, u64),
}

impl<A> Batcher<A> {
    /// Nothing open. Batches for any of the regions `unframed` keep their changes beside the frame.
    pub fn new(config: BatchConfig, unframed: Lanes) -> Self {
        let linger = Linger::new(config.linger, config.buckets);
        Self { config, unframed, open: BTreeMap::new(), due: BTreeMap::new(), opened: 0, linger }
    }

    /// Adds a change that was asked for at `read_ms`. Returns the batch that had to close to make room for it, if any.
    ///
    /// The change must fit a frame by itself ([`warmcast_proto::frame::change_len`]).
    pub fn push(
        &mut self,
        lanes: Lanes,
        change: &Change,
        read_ms: u64,
        ack: A,
        now: Instant,
    ) -> Option<Batch<A>> {
        let bucket = bucket(&change.table, &change.key, self.config.buckets);
        let feed = (lanes, bucket);
        let full = self.open.get(&feed).is_some_and(|open| {
            open.batch.acks.len() >= self.config.changes_max
                || open.batch.frame.len_with(change) > self.config.body_bytes_max
        });
        let closed = if full { self.close(feed) } else { None };
        self.linger.on_change(now);
        let open = self.open.entry(feed).or_insert_with(|| {
            self.opened += 1;
            let due = (now + self.linger.now(), self.opened);
            self.due.insert(due, feed);
            let (frame, changes, acks) = (FrameBuilder::new(), Vec::new(), Vec::new());
            let batch = Batch { lanes, bucket, opened: now, frame, changes, acks };
            Open { batch, due }
        });
        open.batch.frame.push(change);
        open.batch.frame.read_at(read_ms);
        if !lanes.and(self.unframed).is_empty() {
            // Its bytes are shared, and held by its ack's budget until it is sent.
            open.batch.changes.push((change.clone(), read_ms));
        }
        open.batch.acks.push(ack);
        closed
    }

    /// Closes the batch that has been due for longest, if any is due.
    pub fn pop_due(&mut self, now: Instant) -> Option<Batch<A>> {
        let (&(due, _), &feed) = self.due.first_key_value()?;
        if due > now { None } else { self.close(feed) }
    }

    /// When the next batch is due.
    pub fn next_due(&self) -> Option<Instant> {
        self.due.first_key_value().map(|(&(due, _), _)| due)
    }

    /// Closes any batch: for the end.
    pub fn pop(&mut self) -> Option<Batch<A>> {
        let (_, &feed) = self.due.first_key_value()?;
        self.close(feed)
    }

    fn close(&mut self, feed: Feed) -> Option<Batch<A>> {
        let open = self.open.remove(&feed)?;
        self.due.remove(&open.due);
        Some(open.batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linger::LingerBounds;
    use bytes::Bytes;
    use proptest::prelude::*;
    use std::time::Duration;
    use warmcast_proto::change::ChangeKind;
    use warmcast_proto::frame::{Compression, Compressor, change_len, decode};
    use warmcast_proto::key::Buckets;
    use warmcast_proto::position::Position;
    use warmcast_proto::sequence::Sequence;

    const BODY_BYTES_MAX: usize = 1_000;
    const CHANGES_MAX: usize = 5;

    fn config() -> BatchConfig {
        BatchConfig {
            buckets: Buckets::new(4).unwrap(),
            linger: LingerBounds { min: Duration::from_millis(50), max: Duration::from_millis(50) },
            body_bytes_max: BODY_BYTES_MAX,
            changes_max: CHANGES_MAX,
            compression: Compression::None,
        }
    }

    fn change(key: u8, sequence: usize, payload: usize) -> Change {
        let sequence: Sequence = sequence.to_string().parse().unwrap();
        Change {
            table: "profiles".into(),
            key: vec![key].into(),
            position: Position::new(1, sequence).unwrap(),
            kind: ChangeKind::Put,
            created_ms: 1,
            payload: Bytes::from(vec![7; payload]),
        }
    }

    fn changes(mut batch: Batch<usize>) -> (u32, Vec<Change>, Vec<usize>) {
        let frame = batch.frame.finish(&mut Compressor::new(Compression::None).unwrap()).unwrap();
        let changes = decode(frame, 1 << 20).unwrap().changes.into_iter().map(Result::unwrap).collect();
        (batch.bucket, changes, batch.acks)
    }

    #[test]
    fn a_batch_waits_no_longer_than_the_linger_after_its_first_change() {
        let start = Instant::now();
        let mut batcher = Batcher::new(config(), Lanes::one(1));
        assert_eq!(batcher.next_due(), None);
        assert!(batcher.push(Lanes::one(0), &change(1, 1, 10), 1, 0, start).is_none());
        let later = start + Duration::from_millis(30);
        assert!(batcher.push(Lanes::one(0), &change(1, 2, 10), 1, 1, later).is_none());
        assert_eq!(batcher.next_due(), Some(start + Duration::from_millis(50)));
        assert!(batcher.pop_due(start + Duration::from_millis(49)).is_none());
        assert_eq!(changes(batcher.pop_due(start + Duration::from_millis(50)).unwrap()).2, [0, 1]);
        assert_eq!(batcher.next_due(), None);
    }

    proptest! {
        /// Nothing is lost or doubled, bounds hold, a bucket is a bucket, and a key's changes keep their order.
        #[test]
        fn every_change_is_in_one_batch_of_its_bucket_in_order(
            input in prop::collection::vec((0u8..10, 0usize..900, 0u64..30, 0usize..2), 1..100)
        ) {
            let mut now = Instant::now();
            let mut batcher = Batcher::new(config(), Lanes::one(1));
            let mut batches = Vec::new();
            for (i, &(key, payload, wait_ms, lane)) in input.iter().enumerate() {
                now += Duration::from_millis(wait_ms);
                while let Some(batch) = batcher.pop_due(now) {
                    batches.push(batch);
                }
                prop_assert!(batcher.next_due().is_none_or(|due| due > now));
                let change = change(key, i, payload);
                prop_assert!(change_len(&change) <= BODY_BYTES_MAX);
                batches.extend(batcher.push(Lanes::one(lane), &change, 1, i, now));
            }
            batches.extend(std::iter::from_fn(|| batcher.pop()));
            let mut seen = Vec::new();
            for batch in batches {
                prop_assert!(batch.frame.body_len() <= BODY_BYTES_MAX);
                let (lanes, kept) = (batch.lanes, batch.changes.clone());
                let (number, changes, acks) = changes(batch);
                let expected = if lanes == Lanes::one(1) { changes.as_slice() } else { &[] };
                prop_assert_eq!(kept.into_iter().map(|(change, _)| change).collect::<Vec<_>>(), expected);
                prop_assert!(acks.iter().all(|&ack| Lanes::one(input[ack].3) == lanes));
                prop_assert!(acks.len() <= CHANGES_MAX && acks.len() == changes.len());
                for (change, &ack) in changes.iter().zip(&acks) {
                    prop_assert_eq!(bucket(&change.table, &change.key, config().buckets), number);
                    prop_assert_eq!(change.position.sequence().to_string(), ack.to_string());
                }
                seen.extend(acks);
            }
            for (key, lane) in (0u8..10).flat_map(|key| [(key, 0), (key, 1)]) {
                let of_key: Vec<usize> =
                    seen.iter().copied().filter(|&i| (input[i].0, input[i].3) == (key, lane)).collect();
                prop_assert!(of_key.is_sorted(), "key {} out of order: {:?}", key, of_key);
            }
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..input.len()).collect::<Vec<_>>());
        }
    }
}
