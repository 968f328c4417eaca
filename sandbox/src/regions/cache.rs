//! What a region's cache would hold: of each key the newest change, by compare-and-set. Pure.

use bytes::Bytes;
use warmcast_proto::change::{Change, ChangeKind};
use warmcast_proto::frame::{self, FRAME_BODY_BYTES_MAX};
use warmcast_proto::item;

use super::ledger::{Held, Ledger, Order, key_of};
use crate::row;

/// The cache of one region.
#[derive(Debug)]
pub(super) struct Cache {
    first_sequence: u128,
    entries: Vec<Entry>,
    counts: Counts,
}

/// What came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Changes that were news.
    pub(super) applied: u64,
    /// Changes that were none: repetitions, and what came late.
    pub(super) stale: u64,
    /// Records and changes that were not understood.
    pub(super) undecodable: u64,
}

#[derive(Clone, Debug, Default)]
struct Entry {
    order: Option<Order>,
    state: State,
}

#[derive(Clone, Debug, Default)]
enum State {
    /// A miss.
    #[default]
    Unknown,
    Deleted,
    Row(Bytes),
}

impl Cache {
    pub(super) fn new(keys: u32, first_sequence: u128) -> Self {
        let entries = (0..keys).map(|_| Entry::default()).collect();
        Self { first_sequence, entries, counts: Counts::default() }
    }

    /// Applies a record's frame.
    pub(super) fn apply(&mut self, record: Bytes) {
        let Ok(frame) = frame::decode(record, FRAME_BODY_BYTES_MAX) else {
            self.counts.undecodable += 1;
            return;
        };
        for change in frame.changes {
            let is_understood = change.is_ok_and(|change| self.apply_change(&change));
            self.counts.undecodable += u64::from(!is_understood);
        }
    }

    fn apply_change(&mut self, change: &Change) -> bool {
        // Nobody backfills these regions.
        if change.kind == ChangeKind::Backfill {
            return false;
        }
        let order = Ledger::order(self.first_sequence, change.position);
        let place = key_of(&change.key).and_then(|key| usize::try_from(key).ok());
        let Some(entry) = place.and_then(|place| self.entries.get_mut(place)) else { return false };
        if entry.order.is_some_and(|held| held >= order) {
            self.counts.stale += 1;
            return true;
        }
        self.counts.applied += 1;
        entry.order = Some(order);
        entry.state = match change.kind {
            // A copy: the change's bytes would keep its whole frame.
            ChangeKind::Put => State::Row(Bytes::copy_from_slice(&change.payload)),
            ChangeKind::Delete | ChangeKind::Expire => State::Deleted,
            ChangeKind::Invalidate | ChangeKind::Backfill => State::Unknown,
        };
        true
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    /// Whether the state of a key is that of this update or a newer one.
    pub(super) fn covers(&self, key: u32, order: Order) -> bool {
        self.entry(key).and_then(|entry| entry.order).is_some_and(|held| held >= order)
    }

    pub(super) fn held(&self, key: u32) -> Held {
        let Some(entry) = self.entry(key) else { return Held::default() };
        match &entry.state {
            State::Unknown => Held::default(),
            State::Deleted => Held { order: entry.order, row: None },
            State::Row(payload) => match item::decode(payload.clone()) {
                Ok(item) => Held { order: entry.order, row: Some(row::from_cache(&item)) },
                Err(_) => Held::default(),
            },
        }
    }

    fn entry(&self, key: u32) -> Option<&Entry> {
        self.entries.get(usize::try_from(key).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use warmcast_proto::frame::{Compression, Compressor, FrameBuilder};
    use warmcast_proto::item::{Item, Value};
    use warmcast_proto::position::Position;

    use super::*;

    const FIRST: u128 = 1_000;

    fn change(key: &str, sequence: u128, kind: ChangeKind) -> Change {
        let item = Item { attributes: [("n".to_owned(), Value::N(sequence.to_string()).into())].into() };
        Change {
            table: "profiles".into(),
            key: Bytes::copy_from_slice(key.as_bytes()),
            position: Position::new(1, sequence.to_string().parse().unwrap()).unwrap(),
            kind,
            created_ms: 1,
            payload: if kind == ChangeKind::Put { item::encode(&item) } else { Bytes::new() },
        }
    }

    fn frame(changes: &[Change]) -> Bytes {
        let mut builder = FrameBuilder::new();
        changes.iter().for_each(|change| builder.push(change));
        builder.finish(&mut Compressor::new(Compression::Lz4).unwrap()).unwrap()
    }

    #[test]
    fn the_newest_change_of_a_key_stays_whatever_comes_later() {
        let mut cache = Cache::new(2, FIRST);
        cache.apply(frame(&[
            change("user-1", 1_200, ChangeKind::Put),
            change("user-0", 1_050, ChangeKind::Put),
        ]));
        let newest = cache.held(1);
        cache.apply(frame(&[
            change("user-1", 1_100, ChangeKind::Delete),
            change("user-1", 1_200, ChangeKind::Put),
        ]));
        assert_eq!(cache.held(1), newest);
        assert_eq!(newest.row.unwrap()["n"], crate::row::Value::Number(crate::row::Number::parse("1200")));
        cache.apply(frame(&[change("user-1", 1_300, ChangeKind::Delete)]));
        assert_eq!(cache.held(1).row, None);
        let order = cache.held(1).order.unwrap();
        assert!(cache.covers(1, order) && !cache.covers(0, order));
        assert_eq!(cache.counts(), Counts { applied: 3, stale: 2, undecodable: 0 });
    }

    #[test]
    fn what_is_not_understood_is_counted_and_an_invalidation_is_a_miss() {
        let mut cache = Cache::new(1, FIRST);
        cache.apply(Bytes::from_static(b"no frame"));
        cache.apply(frame(&[change("user-7", 1_200, ChangeKind::Put), change("x", 1_200, ChangeKind::Put)]));
        assert_eq!(cache.counts().undecodable, 3);
        cache.apply(frame(&[change("user-0", 1_200, ChangeKind::Invalidate)]));
        assert_eq!(cache.held(0), Held::default());
    }
}
