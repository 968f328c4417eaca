//! Rows of backfills.

use std::time::Duration;

use warmcast_cache::policy::{PayloadForm, TablePolicy, Tables, WritePolicy};
use warmcast_proto::change::{Change, ChangeKind};
use warmcast_proto::entry::EntryKind;
use warmcast_proto::item;
use warmcast_proto::position::Position;

use super::protocol::{item_of, late_frame};
use super::world::{CacheWriter, World, change, frame, now_ms, put_change, shown};

/// A row as a read found it that began so long ago.
fn row(key: &str, payload: &str, age: Duration) -> Change {
    let created_ms = now_ms() - u64::try_from(age.as_millis()).unwrap();
    let backfill = change(key, 0, ChangeKind::Backfill, payload.to_owned());
    Change { position: Position::ZERO, created_ms, ..backfill }
}

fn young(key: &str, payload: &str) -> Change {
    row(key, payload, Duration::ZERO)
}

const OLD: Duration = Duration::from_mins(2);

#[tokio::test(flavor = "multi_thread")]
async fn a_row_is_written_where_nothing_is_and_never_over_what_the_stream_wrote() {
    let world = World::new(1).await;
    let writer = CacheWriter::start(world.config());
    world.put(frame(&[put_change("live", 5), change("deleted", 5, ChangeKind::Delete, "")])).await;
    world.until_entry("deleted", 5).await;
    let rows = ["cold", "live", "deleted", "later"].map(|key| young(key, "of the table"));
    // In one record with changes of the same keys: neither stands for the other.
    let later = [young("before", "of the table"), put_change("before", 6), put_change("after", 6)];
    let after = young("after", "of the table");
    let last = world.put(frame(&[rows.as_slice(), &later, &[after]].concat())).await;
    world.until_checkpoint(&last).await;
    let entry = async |key: &str| world.entry(key).await.unwrap();
    let (header, payload) = entry("cold").await;
    assert_eq!((header.kind(), header.position()), (EntryKind::Filled, Position::ZERO));
    assert_eq!(payload, b"of the table");
    assert!(header.time_ms().abs_diff(now_ms()) < 60_000, "when the read began");
    assert_eq!(shown(&entry("live").await), (EntryKind::Live, "5"));
    assert_eq!(shown(&entry("deleted").await), (EntryKind::Tombstone, ""));
    for key in ["before", "after"] {
        assert_eq!(shown(&entry(key).await), (EntryKind::Live, "6"), "{key}");
    }
    // What changes later is news.
    world.put(frame(&[put_change("later", 7)])).await;
    assert_eq!(shown(&world.until_entry("later", 7).await), (EntryKind::Live, "7"));
    assert!(world.letters().await.is_empty());
    writer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_comes_too_late_is_not_believed_and_its_key_is_filled_from_the_master() {
    let world = World::new(1).await;
    world.put_into_master("a", "red").await;
    let mut config = world.config();
    config.fallback = Some(world.fallback());
    let writer = CacheWriter::start(config);
    let future = Change { created_ms: now_ms() + 60_000, ..young("gone", "of a clock that is wrong") };
    world.put(late_frame(&[young("gone", "in a record that is late")])).await;
    world.put(frame(&[row("a", "old", OLD), row("gone", "old", OLD), future])).await;
    world.until_kind("a", EntryKind::Filled).await;
    let (header, payload) = world.entry("a").await.unwrap();
    assert_eq!(header.position(), Position::ZERO);
    assert_eq!(item::decode(payload.into()).unwrap(), item_of(&[("id", "a"), ("color", "red")]));
    // The row was in the table once, and is there no more.
    world.until_kind("gone", EntryKind::Negative).await;
    writer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_not_cached_are_done_and_no_dead_letters() {
    let world = World::new(1).await;
    let mut config = world.config();
    let present = TablePolicy { write: WritePolicy::Present, ..TablePolicy::default() };
    let one = PayloadForm::Attribute("color".to_owned());
    let shaped = TablePolicy { payload: one, ..TablePolicy::default() };
    let named = [("profiles".into(), present), ("colors".into(), shaped)];
    config.redis.tables = Tables { named: named.into(), ..Tables::default() };
    let writer = CacheWriter::start(config);
    let in_other_shape = Change { table: "colors".into(), ..young("a", "no item") };
    let last = world.put(frame(&[young("a", "item"), in_other_shape])).await;
    world.until_checkpoint(&last).await;
    assert!(world.entry("a").await.is_none());
    assert!(world.letters().await.is_empty());
    writer.stop().await;
}
