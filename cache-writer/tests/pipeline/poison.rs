//! One bad thing among many good: it is set aside, all others are applied, and nothing waits for it.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::PutRecordsRequestEntry;
use warmcast_common::dead_letter::{
    DeadLetterConfig, Filter, Form, Keeper, LetterStore, Quarantine, ReasonClass, StoreConfig,
};
use warmcast_proto::entry::{EntryHeader, EntryKind};
use warmcast_proto::frame::wire::{Change as WireChange, FrameBody, Kind};

use super::bad_input::{frame_of, wire};
use super::wait::until;
use super::world::{CacheWriter, STREAM, World, frame, letter_store, put_change, redis_key, shown};

/// A quarantine in a directory, and what must run for it.
pub(crate) fn quarantine(directory: &Path) -> (Quarantine, Keeper) {
    // No client of the directory's: it is never called.
    let config = aws_sdk_dynamodb::Config::builder()
        .behavior_version(aws_sdk_dynamodb::config::BehaviorVersion::latest())
        .build();
    let store = StoreConfig::Directory { directory: directory.to_owned(), bytes_max: 64 << 20 };
    let client = aws_sdk_dynamodb::Client::from_conf(config);
    let store = LetterStore::open(&DeadLetterConfig { store }, client).unwrap();
    Quarantine::new(store, "test", Arc::default())
}

/// A frame of this table's changes.
fn frame_with(changes: Vec<WireChange>) -> Vec<u8> {
    frame_of(&FrameBody { tables: vec!["profiles".to_owned()], changes, ..FrameBody::default() })
}

impl World {
    /// Puts records by one call; the sequence number of the last.
    async fn put_all(&self, records: impl IntoIterator<Item = Vec<u8>>) -> String {
        let entries = records.into_iter().map(|data| {
            let entry = PutRecordsRequestEntry::builder().partition_key("p").explicit_hash_key("0");
            entry.data(Blob::new(data)).build().unwrap()
        });
        let put = self.kinesis.client.put_records().stream_name(STREAM);
        let answer = put.set_records(Some(entries.collect())).send().await.unwrap();
        assert_eq!(answer.failed_record_count.unwrap_or(0), 0);
        answer.records.last().unwrap().sequence_number.clone().unwrap()
    }

    /// How many of these keys have an entry of each kind: live, invalid.
    async fn count_kinds(&self, keys: &[String]) -> (usize, usize) {
        let (mut live, mut invalid) = (0, 0);
        for keys in keys.chunks(1_000) {
            let keys: Vec<_> = keys.iter().map(|key| redis_key(key)).collect();
            let mut admin = self.admin.clone();
            let values: Vec<Option<Vec<u8>>> =
                redis::cmd("MGET").arg(&keys).query_async(&mut admin).await.unwrap();
            for value in values.into_iter().flatten() {
                match EntryHeader::decode(&value).unwrap().0.kind() {
                    EntryKind::Live => live += 1,
                    EntryKind::Invalid => invalid += 1,
                    other => panic!("nobody wrote {other:?}"),
                }
            }
        }
        (live, invalid)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poison_record_in_each_position_of_a_page_is_set_aside_and_all_others_are_applied() {
    const RECORDS: usize = 5;
    let world = World::new(1).await;
    let writer = CacheWriter::start(world.config());
    for bad in 0..RECORDS {
        let key = |number: usize| format!("key-{bad}-{number}");
        let record = |number: usize| match number == bad {
            true => format!("poison {bad}").into_bytes(),
            false => frame(&[put_change(&key(number), 1)]),
        };
        let last = world.put_all((0..RECORDS).map(record)).await;
        world.until_checkpoint(&last).await;
        for number in (0..RECORDS).filter(|number| *number != bad) {
            assert_eq!(shown(&world.entry(&key(number)).await.unwrap()), (EntryKind::Live, "1"));
        }
        let letters = world.letters().await;
        assert_eq!(letters.len(), bad + 1, "set aside before the checkpoint passes it: {letters:?}");
        assert_eq!(&*letters[bad].1.bytes, format!("poison {bad}").as_bytes());
        assert_eq!(letters[bad].0.envelope.class, ReasonClass::UndecodableRecord);
    }
    writer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poison_change_in_each_position_of_a_frame_is_set_aside_and_its_key_is_invalid() {
    const CHANGES: usize = 5;
    let world = World::new(1).await;
    let writer = CacheWriter::start(world.config());
    for bad in 0..CHANGES {
        let key = |number: usize| format!("key-{bad}-{number}");
        // The bad one's key had an item before.
        world.put(frame(&[put_change(&key(bad), 1)])).await;
        world.until_entry(&key(bad), 1).await;
        let kind = |number: usize| if number == bad { Kind::Unspecified } else { Kind::Delete };
        let changes = (0..CHANGES).map(|number| wire(&key(number), kind(number), 0)).collect();
        let last = world.put(frame_with(changes)).await;
        world.until_checkpoint(&last).await;
        for number in 0..CHANGES {
            let expected = if number == bad { EntryKind::Invalid } else { EntryKind::Tombstone };
            assert_eq!(shown(&world.until_entry(&key(number), 9).await), (expected, ""));
        }
        let letters = world.letters().await;
        assert_eq!(letters.len(), bad + 1);
        let envelope = &letters[bad].0.envelope;
        assert_eq!((envelope.form, envelope.index), (Form::Change, u32::try_from(bad).ok()));
        assert_eq!(
            (envelope.table.as_deref(), envelope.key.as_deref()),
            (Some("profiles"), Some(key(bad).as_bytes()))
        );
        assert_eq!(envelope.origin.position.as_deref(), Some(&*last));
    }
    writer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_with_many_bad_changes_is_one_letter_and_each_key_is_invalid() {
    const CHANGES: usize = 2_000;
    let world = World::new(1).await;
    let writer = CacheWriter::start(world.config());
    let keys: Vec<String> = (0..CHANGES).map(|number| format!("key-{number}")).collect();
    let changes = keys.iter().map(|key| wire(key, Kind::Unspecified, 0)).collect();
    let data = frame_with(changes);
    let last = world.put(data.clone()).await;
    world.until_checkpoint(&last).await;
    assert_eq!(world.count_kinds(&keys).await, (0, CHANGES));
    let letters = world.letters().await;
    assert_eq!(letters.len(), 1);
    let (kept, letter) = &letters[0];
    assert_eq!((&*letter.bytes, kept.envelope.form), (&*data, Form::KinesisRecord));
    assert!(kept.envelope.reason.contains("1999 more of its changes"), "{kept:?}");
    assert_eq!(kept.envelope.class, ReasonClass::UndecodableChange);
    writer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_poison_among_a_hundred_thousand_is_set_aside_and_99_999_are_applied() {
    const FRAMES: usize = 100;
    const CHANGES: usize = 1_000;
    let world = World::new(1).await;
    let seed = fastrand::u64(..);
    let poison = usize::try_from(seed).unwrap_or(0) % (FRAMES * CHANGES);
    println!("seed {seed}: change {poison} is the poison");
    let keys: Vec<String> = (0..FRAMES * CHANGES).map(|number| format!("key-{number}")).collect();
    let mut last = String::new();
    for (number, keys) in keys.chunks(CHANGES).enumerate() {
        let change = |(index, key): (usize, &String)| {
            let kind = if number * CHANGES + index == poison { Kind::Unspecified } else { Kind::Put };
            WireChange { payload: "item".into(), ..wire(key, kind, 0) }
        };
        last = world.put(frame_with(keys.iter().enumerate().map(change).collect())).await;
    }
    let writer = CacheWriter::start(world.config());
    world.until_checkpoint(&last).await;
    let (live, invalid) = world.count_kinds(&keys).await;
    let letters = world.letters().await;
    println!("{} changes: {live} applied, {} quarantined, {invalid} invalid", keys.len(), letters.len());
    assert_eq!((live, invalid, letters.len()), (99_999, 1, 1));
    let (entry, _) = world.entry(&keys[poison]).await.unwrap();
    assert_eq!(entry.kind(), EntryKind::Invalid);
    assert_eq!(letters[0].0.envelope.key.as_deref(), Some(keys[poison].as_bytes()));
    writer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_letters_cannot_be_stored_all_else_goes_on_and_the_checkpoint_waits() {
    let world = World::new(1).await;
    let mut config = world.config();
    let retention = Duration::from_secs(86_400);
    let table = "state-dead-letters".to_owned();
    config.dead_letters.store = StoreConfig::Table { table, create: false, retention };
    let writer = CacheWriter::start(config);
    let first = world.put(frame(&[put_change("a", 1)])).await;
    world.until_checkpoint(&first).await;
    let mut last = String::new();
    for number in 0..20 {
        world.put(format!("poison {number}")).await;
        last = world.put(frame(&[put_change(&format!("b-{number}"), 1)])).await;
    }
    for number in 0..20 {
        world.until_entry(&format!("b-{number}"), 1).await;
    }
    let checkpoints = world.dynamodb.checkpoints(STREAM).await;
    assert_eq!(checkpoints[0].1, format!("after:{first}"), "no letter is stored");
    letter_store(world.dynamodb.client.clone(), true).prepare().await.unwrap();
    world.until_checkpoint(&last).await;
    let expected: BTreeSet<_> = (0..20).map(|number| format!("poison {number}").into_bytes()).collect();
    let found: BTreeSet<_> =
        world.letters().await.into_iter().map(|(_, letter)| letter.bytes.to_vec()).collect();
    assert_eq!(found, expected);
    writer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_read_again_after_a_crash_is_the_same_letter() {
    let world = World::new(1).await;
    let mut config = world.config();
    // The crash comes before the checkpoint.
    config.worker.checkpoint_interval = Duration::from_secs(600);
    let writer = CacheWriter::start(config);
    world.put("poison").await;
    let stored = async || world.letters.list(&Filter::default(), None).await.unwrap().letters;
    until("the letter is stored", async || stored().await.len() == 1).await;
    drop(writer);
    let first = stored().await.remove(0);
    let last = world.put(frame(&[put_change("a", 1)])).await;
    let writer = CacheWriter::start(world.config());
    world.until_checkpoint(&last).await;
    let letters = stored().await;
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert_eq!((letters[0].id, letters[0].attempts), (first.id, 2));
    assert_eq!(letters[0].first_attempt_ms, first.first_attempt_ms);
    assert!(letters[0].last_attempt_ms > first.last_attempt_ms);
    writer.stop().await;
}
