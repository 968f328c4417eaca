//! A batch as records of the Kinesis Producer Library's format, for the regions that want them so. Pure.
//!
//! Each change is a user record by itself, a JSON document under its item's key. All of a batch have the hash key of its
//! bucket: the Kinesis Client Library throws an aggregated record away if one of them would belong to another shard.
//! Nothing is compressed, so a batch whose frame fits one record may take several of these.

use bytes::Bytes;
use warmcast_proto::change::{Change, ChangeKind};
use warmcast_proto::json;
use warmcast_proto::kpl::AggregateBuilder;

/// A batch's records.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Aggregated {
    /// The records, in the order of the changes.
    pub records: Vec<AggregatedRecord>,
    /// Changes that no record can hold, or whose item cannot be read: each is there as an invalidation.
    pub invalidated: usize,
}

/// One Kinesis record.
#[derive(Debug, PartialEq, Eq)]
pub struct AggregatedRecord {
    /// The record.
    pub bytes: Bytes,
    /// How many of the batch's changes it has.
    pub changes: usize,
    /// When the first of them was asked for: milliseconds since the Unix epoch.
    pub read_ms: u64,
}

/// Not even the name of an item fits a record. DynamoDB has no such names: they have at most 3 KiB.
#[derive(Debug, thiserror::Error)]
#[error("a key of {key_bytes} bytes does not fit a record of {bytes_max}")]
pub struct KeyTooLarge {
    key_bytes: usize,
    bytes_max: usize,
}

/// Makes records of changes, each with the time at which it was asked for, that have this explicit hash key.
///
/// # Errors
/// An item's key alone is too large for a record.
pub fn aggregate(
    changes: &[(Change, u64)],
    hash_key: u128,
    record_bytes_max: usize,
) -> Result<Aggregated, KeyTooLarge> {
    let hash_key = hash_key.to_string();
    let mut open = Open { builder: AggregateBuilder::new(record_bytes_max), changes: 0, read_ms: u64::MAX };
    let mut aggregated = Aggregated::default();
    for (change, read_ms) in changes {
        let whole = json::encode(change, *read_ms).ok();
        let fits = whole.is_some_and(|document| {
            open.push(&mut aggregated.records, change, *read_ms, &hash_key, &document)
        });
        if fits {
            continue;
        }
        // A miss is always safe.
        aggregated.invalidated += 1;
        let invalidation = Change { kind: ChangeKind::Invalidate, payload: Bytes::new(), ..change.clone() };
        let fits = json::encode(&invalidation, *read_ms)
            .is_ok_and(|document| open.push(&mut aggregated.records, change, *read_ms, &hash_key, &document));
        if !fits {
            return Err(KeyTooLarge { key_bytes: change.key.len(), bytes_max: record_bytes_max });
        }
    }
    aggregated.records.extend(open.close());
    Ok(aggregated)
}

/// The record that is being filled.
struct Open {
    builder: AggregateBuilder,
    changes: usize,
    read_ms: u64,
}

impl Open {
    /// Adds a user record, to the next record if this one is full; whether it fits any.
    fn push(
        &mut self,
        closed: &mut Vec<AggregatedRecord>,
        change: &Change,
        read_ms: u64,
        hash_key: &str,
        document: &[u8],
    ) -> bool {
        let partition_key = json::partition_key(&change.key);
        let mut added = self.builder.push(&partition_key, Some(hash_key), document);
        if !added && self.changes > 0 {
            closed.extend(self.close());
            added = self.builder.push(&partition_key, Some(hash_key), document);
        }
        if added {
            self.changes += 1;
            self.read_ms = self.read_ms.min(read_ms);
        }
        added
    }

    fn close(&mut self) -> Option<AggregatedRecord> {
        let changes = std::mem::take(&mut self.changes);
        let read_ms = std::mem::replace(&mut self.read_ms, u64::MAX);
        self.builder.finish().map(|bytes| AggregatedRecord { bytes, changes, read_ms })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use proptest::prelude::*;
    use warmcast_proto::item::{Item, Value, encode};
    use warmcast_proto::position::Position;
    use warmcast_proto::record::Record;

    const BYTES_MAX: usize = 2_000;
    const HASH_KEY: u128 = 7;

    fn change(key: usize, text: &str) -> Change {
        let attributes = BTreeMap::from([("v".to_owned(), Value::S(text.to_owned()).into())]);
        Change {
            table: "profiles".into(),
            key: format!("user-{key}").into(),
            position: Position::ZERO,
            kind: ChangeKind::Put,
            created_ms: 1,
            payload: encode(&Item { attributes }),
        }
    }

    fn read(aggregated: &Aggregated) -> Vec<Change> {
        let parts = aggregated.records.iter().flat_map(|record| {
            let parts = Record::open(record.bytes.clone()).unwrap().decode().unwrap().parts;
            assert_eq!(parts.len(), record.changes);
            let read_ms = parts.iter().map(|part| part.read_ms.unwrap());
            assert_eq!(read_ms.min(), Some(record.read_ms));
            parts
        });
        parts.map(|part| part.change.unwrap()).collect()
    }

    proptest! {
        #[test]
        fn every_change_is_in_one_record_in_order_and_no_record_is_too_long(
            texts in prop::collection::vec((0usize..3_000, 1u64..9), 0..30)
        ) {
            let changes: Vec<_> = texts.iter().enumerate()
                .map(|(key, &(len, read_ms))| (change(key, &"x".repeat(len)), read_ms))
                .collect();
            let aggregated = aggregate(&changes, HASH_KEY, BYTES_MAX).unwrap();
            prop_assert!(aggregated.records.iter().all(|record| record.bytes.len() <= BYTES_MAX));
            let read = read(&aggregated);
            prop_assert_eq!(read.len(), changes.len());
            let mut invalidated = 0;
            for (read, (change, _)) in read.iter().zip(&changes) {
                if read.kind == ChangeKind::Invalidate {
                    invalidated += 1;
                    prop_assert!(change.payload.len() > BYTES_MAX - 300);
                    prop_assert_eq!((&read.key, read.position), (&change.key, change.position));
                } else {
                    prop_assert_eq!(read, change);
                }
            }
            prop_assert_eq!(aggregated.invalidated, invalidated);
        }
    }

    #[test]
    fn a_user_record_has_its_items_key_and_its_buckets_hash_key() {
        let aggregated = aggregate(&[(change(1, "a"), 5), (change(2, "b"), 4)], HASH_KEY, BYTES_MAX).unwrap();
        assert_eq!(aggregated.records.len(), 1);
        let records = warmcast_proto::kpl::decode(aggregated.records[0].bytes.clone()).unwrap();
        let keys: Vec<_> = records.iter().map(|record| &*record.partition_key).collect();
        assert_eq!(keys, ["user-1", "user-2"]);
        assert!(records.iter().all(|record| record.explicit_hash_key.as_deref() == Some("7")));
    }

    #[test]
    fn an_item_that_fits_exactly_is_sent_and_with_one_byte_more_it_is_an_invalidation() {
        let one = |len: usize| aggregate(&[(change(1, &"x".repeat(len)), 5)], HASH_KEY, BYTES_MAX).unwrap();
        let overhead = one(1_000).records[0].bytes.len() - 1_000;
        let exact = one(BYTES_MAX - overhead);
        assert_eq!((exact.records[0].bytes.len(), exact.invalidated), (BYTES_MAX, 0));
        let over = one(BYTES_MAX - overhead + 1);
        assert_eq!((read(&over)[0].kind, over.invalidated), (ChangeKind::Invalidate, 1));
    }

    #[test]
    fn an_item_that_cannot_be_read_is_an_invalidation() {
        let bad = Change { payload: Bytes::from_static(b"\xff"), ..change(1, "") };
        let aggregated = aggregate(&[(bad, 5), (change(2, "b"), 5)], HASH_KEY, BYTES_MAX).unwrap();
        let kinds: Vec<_> = read(&aggregated).iter().map(|change| change.kind).collect();
        assert_eq!(kinds, [ChangeKind::Invalidate, ChangeKind::Put]);
        assert_eq!(aggregated.invalidated, 1);
    }

    #[test]
    fn a_key_that_no_record_can_hold_is_an_error() {
        let large = Change { key: vec![b'k'; BYTES_MAX].into(), ..change(1, "") };
        let error = aggregate(&[(large, 5)], HASH_KEY, BYTES_MAX).unwrap_err();
        assert_eq!(error.to_string(), "a key of 2000 bytes does not fit a record of 2000");
    }
}
