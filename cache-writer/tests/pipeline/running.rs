//! What the cache-writer does while everything is well.

use warmcast_proto::change::ChangeKind;
use warmcast_proto::entry::EntryKind;

use super::world::{CacheWriter, World, change, frame, put_change, shown};

#[tokio::test(flavor = "multi_thread")]
async fn changes_end_in_the_cache_with_kind_position_time_and_payload() {
    let world = World::new(1).await;
    let writer = CacheWriter::start(world.config());
    let kinds = [
        ("put", ChangeKind::Put, "item", EntryKind::Live),
        ("delete", ChangeKind::Delete, "", EntryKind::Tombstone),
        ("expire", ChangeKind::Expire, "", EntryKind::Tombstone),
        ("invalidate", ChangeKind::Invalidate, "", EntryKind::Invalid),
    ];
    let changes = kinds.map(|(key, kind, payload, _)| change(key, 7, kind, payload));
    world.put(frame(&changes)).await;
    for ((key, _, payload, kind), sent) in kinds.iter().zip(&changes) {
        let entry = world.until_entry(key, 7).await;
        assert_eq!(shown(&entry), (*kind, *payload), "{key}");
        assert_eq!(entry.0.time_ms(), sent.created_ms, "{key}");
    }
    writer.stop().await;
    assert!(world.letters().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn duplicates_and_older_changes_change_nothing() {
    let world = World::new(1).await;
    let writer = CacheWriter::start(world.config());
    let newest = frame(&[put_change("a", 3), put_change("a", 5), put_change("b", 1)]);
    world.put(newest.clone()).await;
    world.until_entry("a", 5).await;
    world.put(frame(&[put_change("a", 4), put_change("b", 2)])).await;
    world.put(newest).await;
    let last = world.put(frame(&[put_change("a", 1)])).await;
    world.until_checkpoint(&last).await;
    assert_eq!(shown(&world.until_entry("a", 5).await), (EntryKind::Live, "5"));
    assert_eq!(shown(&world.until_entry("b", 2).await), (EntryKind::Live, "2"));
    writer.stop().await;
    assert!(world.letters().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_goes_on_after_the_checkpoint() {
    let world = World::new(1).await;
    let writer = CacheWriter::start(world.config());
    // What nobody can read leaves a trace each time it is read.
    world.put("first").await;
    let last = world.put(frame(&[put_change("a", 1)])).await;
    world.until_entry("a", 1).await;
    writer.stop().await;
    world.until_checkpoint(&last).await;
    assert_eq!(world.dynamodb.leases_with_owner().await, 0, "a stopped worker releases its leases");
    world.put("second").await;
    world.put(frame(&[put_change("a", 2)])).await;
    let writer = CacheWriter::start(world.config());
    world.until_entry("a", 2).await;
    writer.stop().await;
    let letters: Vec<_> = world
        .letters()
        .await
        .into_iter()
        .map(|(kept, letter)| (letter.bytes.to_vec(), kept.attempts))
        .collect();
    assert_eq!(letters, [(b"first".to_vec(), 1), (b"second".to_vec(), 1)]);
}
