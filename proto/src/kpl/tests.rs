use std::sync::Arc;

use bytes::Bytes;
use md5::{Digest as _, Md5};
use proptest::prelude::*;
use prost::Message as _;

use super::*;

/// The schema of aggregation-format.md, by another codec.
#[derive(Clone, PartialEq, prost::Message)]
struct AggregatedRecord {
    #[prost(string, repeated, tag = "1")]
    partition_key_table: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    explicit_hash_key_table: Vec<String>,
    #[prost(message, repeated, tag = "3")]
    records: Vec<Record>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Record {
    #[prost(uint64, optional, tag = "1")]
    partition_key_index: Option<u64>,
    #[prost(uint64, optional, tag = "2")]
    explicit_hash_key_index: Option<u64>,
    #[prost(bytes = "vec", optional, tag = "3")]
    data: Option<Vec<u8>>,
    #[prost(message, repeated, tag = "4")]
    tags: Vec<Tag>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Tag {
    #[prost(string, required, tag = "1")]
    key: String,
    #[prost(string, optional, tag = "2")]
    value: Option<String>,
}

fn any_user_record() -> impl Strategy<Value = UserRecord> {
    let data = prop::collection::vec(any::<u8>(), 0..60).prop_map(Bytes::from);
    // Few keys, so that they repeat.
    ("[a-c\u{e4}]{0,2}", prop::option::of("[0-9]{1,2}"), data).prop_map(|(partition_key, explicit, data)| {
        UserRecord { partition_key: partition_key.into(), explicit_hash_key: explicit.map(Arc::from), data }
    })
}

/// All of them, in as many records as they take.
fn aggregate(records: &[UserRecord], bytes_max: usize) -> Vec<Bytes> {
    let mut builder = AggregateBuilder::new(bytes_max);
    let mut made = Vec::new();
    for record in records {
        let explicit = record.explicit_hash_key.as_deref();
        let len = builder.len_with(&record.partition_key, explicit, record.data.len());
        if builder.push(&record.partition_key, explicit, &record.data) {
            assert!(len <= bytes_max);
            continue;
        }
        assert!(len > bytes_max);
        made.extend(builder.finish());
        assert!(builder.push(&record.partition_key, explicit, &record.data), "one alone fits");
    }
    made.extend(builder.finish());
    assert_eq!(builder.finish(), None, "finishing leaves nothing");
    made
}

/// A record of a message as it stands.
fn around(message: &[u8]) -> Bytes {
    [&MAGIC, message, Md5::digest(message).as_slice()].concat().into()
}

fn message_of(record: &Bytes) -> AggregatedRecord {
    AggregatedRecord::decode(&record[MAGIC.len()..record.len() - DIGEST_LEN]).unwrap()
}

proptest! {
    #[test]
    fn user_records_read_back_in_their_order_and_no_record_is_too_long(
        records in prop::collection::vec(any_user_record(), 0..40),
        bytes_max in 120usize..2_000,
    ) {
        let made = aggregate(&records, bytes_max);
        prop_assert!(made.iter().all(|record| record.len() <= bytes_max));
        let read: Vec<UserRecord> = made.into_iter().flat_map(|record| decode(record).unwrap()).collect();
        prop_assert_eq!(read, records);
    }

    #[test]
    fn another_codec_reads_the_same_and_each_key_is_there_once(
        records in prop::collection::vec(any_user_record(), 1..40)
    ) {
        let made = aggregate(&records, 1 << 20);
        prop_assert_eq!(made.len(), 1);
        let message = message_of(&made[0]);
        for table in [&message.partition_key_table, &message.explicit_hash_key_table] {
            let mut keys = table.clone();
            keys.sort_unstable();
            keys.dedup();
            prop_assert_eq!(keys.len(), table.len());
        }
        prop_assert_eq!(message.records.len(), records.len());
        for (theirs, record) in message.records.iter().zip(&records) {
            let key = |table: &[String], index: u64| table[usize::try_from(index).unwrap()].clone();
            prop_assert_eq!(&key(&message.partition_key_table, theirs.partition_key_index.unwrap()), &*record.partition_key);
            let explicit = theirs.explicit_hash_key_index.map(|index| key(&message.explicit_hash_key_table, index));
            prop_assert_eq!(explicit.as_deref(), record.explicit_hash_key.as_deref());
            prop_assert_eq!(theirs.data.as_deref(), Some(record.data.as_ref()));
        }
        // Theirs: tables first.
        prop_assert_eq!(decode(around(&message.encode_to_vec())).unwrap(), records);
    }

    #[test]
    fn the_length_is_foretold_exactly(
        records in prop::collection::vec(any_user_record(), 1..10)
    ) {
        let mut builder = AggregateBuilder::new(1 << 20);
        let mut foretold = 0;
        for record in &records {
            let explicit = record.explicit_hash_key.as_deref();
            foretold = builder.len_with(&record.partition_key, explicit, record.data.len());
            prop_assert!(builder.push(&record.partition_key, explicit, &record.data));
        }
        prop_assert_eq!(builder.finish().unwrap().len(), foretold);
    }

    #[test]
    fn a_damaged_record_is_never_taken_for_a_sound_one(
        records in prop::collection::vec(any_user_record(), 1..10),
        at in any::<prop::sample::Index>(),
        flip in 1u8..,
    ) {
        let mut record = aggregate(&records, 1 << 20).remove(0).to_vec();
        let at = at.index(record.len());
        record[at] ^= flip;
        let error = decode(record.clone().into()).unwrap_err();
        let len = record.len();
        let expected = if at < MAGIC.len() { KplError::NotAggregated } else { KplError::ChecksumMismatch { len } };
        prop_assert_eq!(error, expected);
        let cut = Bytes::from(record).slice(..at);
        prop_assert!(decode(cut).is_err());
    }

    #[test]
    fn a_message_that_is_wrong_under_a_right_digest_never_panics(
        records in prop::collection::vec(any_user_record(), 1..10),
        at in any::<prop::sample::Index>(),
        replaced in prop::collection::vec(any::<u8>(), 0..6),
        cut in 0usize..6,
    ) {
        let record = aggregate(&records, 1 << 20).remove(0);
        let mut message = record[MAGIC.len()..record.len() - DIGEST_LEN].to_vec();
        let at = at.index(message.len());
        let end = (at + cut).min(message.len());
        message.splice(at..end, replaced);
        let _ = decode(around(&message));
    }

    #[test]
    fn garbage_under_a_right_digest_never_panics(message in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode(around(&message));
    }
}

fn record(partition: Option<u64>, explicit: Option<u64>, data: Option<&[u8]>) -> Record {
    Record {
        partition_key_index: partition,
        explicit_hash_key_index: explicit,
        data: data.map(<[u8]>::to_vec),
        tags: vec![Tag { key: "k".to_owned(), value: None }],
    }
}

fn decode_message(
    keys: &[&str],
    explicit: &[&str],
    records: Vec<Record>,
) -> Result<Vec<UserRecord>, KplError> {
    let table = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect();
    let message = AggregatedRecord {
        partition_key_table: table(keys),
        explicit_hash_key_table: table(explicit),
        records,
    };
    decode(around(&message.encode_to_vec()))
}

#[test]
fn tags_are_passed_over_and_tables_may_have_keys_that_nobody_uses() {
    let records = decode_message(&["a", "unused"], &["7"], vec![record(Some(0), None, Some(b"x"))]).unwrap();
    assert_eq!(records.len(), 1);
    assert_eq!((&*records[0].partition_key, &records[0].explicit_hash_key), ("a", &None));
    assert_eq!(records[0].data.as_ref(), b"x");
}

#[test]
fn a_user_record_without_what_it_must_have_is_an_error_that_says_so() {
    let one =
        |of: Record| decode_message(&["a"], &["7"], vec![record(Some(0), None, Some(b"")), of]).unwrap_err();
    assert_eq!(one(record(None, None, Some(b""))), KplError::Missing { index: 1, field: "partition key" });
    assert_eq!(one(record(Some(0), None, None)), KplError::Missing { index: 1, field: "data" });
    assert_eq!(
        one(record(Some(1), None, Some(b""))),
        KplError::KeyIndex { index: 1, table: "partition", key: 1, keys: 1 }
    );
    assert_eq!(
        one(record(Some(0), Some(u64::MAX), Some(b""))),
        KplError::KeyIndex { index: 1, table: "explicit hash", key: u64::MAX, keys: 1 }
    );
}

#[test]
fn the_numbers_of_keys_and_of_user_records_are_bounded() {
    let keys = vec![""; KEYS_MAX + 1];
    assert_eq!(decode_message(&keys, &[], vec![]), Err(KplError::TooMany));
    assert_eq!(decode_message(&[], &keys, vec![]), Err(KplError::TooMany));
    assert_eq!(decode_message(&keys[1..], &keys[1..], vec![]), Ok(vec![]));
    let records = vec![Record { tags: vec![], ..record(Some(0), None, Some(b"")) }; USER_RECORDS_MAX + 1];
    assert_eq!(decode_message(&[""], &[], records.clone()), Err(KplError::TooMany));
    assert_eq!(decode_message(&[""], &[], records[1..].to_vec()).unwrap().len(), USER_RECORDS_MAX);

    let mut builder = AggregateBuilder::new(RECORD_BYTES_MAX);
    assert!((0..USER_RECORDS_MAX).all(|_| builder.push("", None, b"")));
    assert!(!builder.push("", None, b""), "full");
    assert_eq!(decode(builder.finish().unwrap()).unwrap().len(), USER_RECORDS_MAX);
}

#[test]
fn what_is_not_aggregated_is_told_from_what_is_damaged() {
    assert_eq!(decode(Bytes::from_static(b"WCFR")), Err(KplError::NotAggregated));
    assert_eq!(decode(Bytes::new()), Err(KplError::NotAggregated));
    assert_eq!(decode(around(b"")), Err(KplError::Truncated { len: 20 }));
    assert_eq!(decode(Bytes::from(MAGIC.to_vec())), Err(KplError::Truncated { len: 4 }));
    let len = RECORD_BYTES_MAX + 1;
    let mut long = MAGIC.to_vec();
    long.resize(len, 0);
    assert_eq!(decode(long.into()), Err(KplError::TooLong { len }));
}

#[test]
fn a_record_of_one_byte_more_than_the_limit_is_not_made() {
    let mut builder = AggregateBuilder::new(100);
    let overhead = builder.len_with("key", Some("1"), 0);
    let data = vec![7; 100 - overhead];
    assert!(!builder.push("key", Some("1"), &[data.as_slice(), b"x"].concat()));
    assert_eq!(builder.finish(), None);
    assert!(builder.push("key", Some("1"), &data));
    assert_eq!(builder.finish().unwrap().len(), 100);
}
