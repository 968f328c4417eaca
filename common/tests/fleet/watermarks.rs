//! The fleet's watermark: who tells it, and what it waits for. That it is true the
//! [`Journal`](super::journal::Journal) sees to, in these tests and all others.

use std::time::Duration;

use warmcast_common::clock::now_ms;
use warmcast_common::consumer::store::{Begin, Report};
use warmcast_common::consumer::{Shard, WorkerConfig};

use super::script::STREAM;
use super::view::Odds;
use super::world::{World, mortal, names, steady};

/// Long enough for a watermark to be told several times over.
const QUIET: Duration = Duration::from_secs(1);

/// Makes sure that the watermark does not pass this moment. What was under way may still bring it up to it, and takes
/// as long as a busy machine needs.
async fn assert_stands_still(world: &World) {
    let stopped_ms = now_ms();
    tokio::time::sleep(QUIET).await;
    let (teller, watermark_ms) = world.journal.last_watermark();
    assert!(watermark_ms <= stopped_ms, "{teller} told {watermark_ms}, which is past {stopped_ms}");
}

#[tokio::test]
async fn the_first_worker_by_name_tells_it_and_the_next_goes_on_when_that_stops() {
    let world = World::with_shards(12).await;
    let first = world.start("w1", steady()).await;
    let second = world.start("w2", steady()).await;
    world.until_shared(&[("w1", 5..=7), ("w2", 5..=7)]).await;
    world.assert_all_read().await;
    world.until_watermark_passes(now_ms()).await;
    assert_eq!(world.journal.last_watermark().0, "w1/0");
    first.stop().await;
    world.until_watermark_passes(now_ms()).await;
    assert_eq!(world.journal.last_watermark().0, "w2/1");
    second.stop().await;
    world.journal.assert_sound();
}

#[tokio::test]
async fn it_goes_on_while_records_come_and_is_never_far_behind() {
    let world = World::with_shards(6).await;
    let worker = world.start("w1", steady()).await;
    world.assert_all_read().await;
    world.until_watermark_passes(now_ms()).await;
    for _ in 0..40 {
        names(6).iter().for_each(|shard| world.put(shard, 3));
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    // No pause between the records is needed for it.
    world.until_watermark_passes(now_ms() - 1_000).await;
    worker.stop().await;
    world.journal.assert_sound();
}

#[tokio::test]
async fn it_stands_still_while_a_dead_workers_leases_are_free_and_goes_on_when_they_are_taken_over() {
    let world = World::with_shards(8).await;
    let config = WorkerConfig { lease_duration: Duration::from_secs(4), ..mortal() };
    let first = world.start("w1", config.clone()).await;
    let second = world.start("w2", config).await;
    world.until_shared(&[("w1", 3..=5), ("w2", 3..=5)]).await;
    world.until_watermark_passes(now_ms()).await;
    let of_second = world.leases().await.into_iter().find(|lease| lease.owner.as_deref() == Some("w2"));
    second.kill().await;
    world.put(&of_second.expect("w2 has leases").shard, 1);
    assert_stands_still(&world).await;
    world.until_shared(&[("w1", 8..=8)]).await;
    world.until_watermark_passes(now_ms()).await;
    first.stop().await;
    world.journal.assert_sound();
}

#[tokio::test]
async fn it_stands_still_while_a_shard_is_not_read_or_a_record_is_not_done_or_a_worker_is_suspended() {
    let world = World::with_shards(4).await;
    let first = world.start("w1", steady()).await;
    let second = world.start("w2", steady()).await;
    world.until_shared(&[("w1", 1..=3), ("w2", 1..=3)]).await;
    world.until_watermark_passes(now_ms()).await;

    world.downstream.withhold("s01");
    world.put("s01", 1);
    world.until("it is delivered", async || world.journal.got("s01") == [1]).await;
    assert_stands_still(&world).await;
    world.downstream.release("s01", &world.journal);
    world.until_watermark_passes(now_ms()).await;

    world.trouble.odds(Odds { throttled: 1.0, ..Odds::default() });
    assert_stands_still(&world).await;
    world.trouble.odds(Odds::default());
    world.until_watermark_passes(now_ms()).await;

    let suspended = second.suspend();
    assert_stands_still(&world).await;
    drop(suspended);
    world.until_watermark_passes(now_ms()).await;

    first.stop().await;
    second.stop().await;
    world.journal.assert_sound();
}

#[tokio::test]
async fn it_stands_still_while_a_lease_has_no_owner() {
    let world = World::with_shards(3).await;
    let full = WorkerConfig { leases_max: 2, ..steady() };
    let first = world.start("w1", full.clone()).await;
    world.until_shared(&[("", 1..=1), ("w1", 2..=2)]).await;
    assert_stands_still(&world).await;
    assert_eq!(world.journal.last_watermark().1, 0);
    let second = world.start("w2", full).await;
    world.until_watermark_passes(now_ms()).await;
    first.stop().await;
    second.stop().await;
    world.journal.assert_sound();
}

#[tokio::test]
async fn shards_that_split_and_merge_hold_it_for_a_moment_only() {
    let world = World::with_shards(2).await;
    let first = world.start("w1", steady()).await;
    let second = world.start("w2", steady()).await;
    world.until_shared(&[("w1", 1..=1), ("w2", 1..=1)]).await;
    world.until_watermark_passes(now_ms()).await;
    world.shard("left", &["s00"]);
    world.shard("right", &["s00"]);
    world.put("left", 2);
    world.put("right", 2);
    world.close("s00");
    world.until_watermark_passes(now_ms()).await;
    world.shard("merged", &["right", "s01"]);
    world.close("right");
    world.put("merged", 2);
    world.close("s01");
    world.assert_all_read().await;
    world.until_watermark_passes(now_ms()).await;
    first.stop().await;
    second.stop().await;
    world.journal.assert_sound();
}

#[tokio::test]
async fn a_second_child_of_a_split_that_shows_late_is_waited_for() {
    let world = World::with_shards(1).await;
    // A busy machine may take its time to find it.
    world.trouble.children_settle_within(Duration::from_secs(7));
    let worker = world.start("w1", steady()).await;
    world.until_watermark_passes(now_ms()).await;
    world.shard("left", &["s00"]);
    world.shard("right", &["s00"]);
    world.script.with("right", |right| (right.unlisted, right.late) = (true, usize::MAX));
    world.put("left", 1);
    world.put("right", 1);
    world.close("s00");
    world.until("the first is read", async || world.journal.got("left") == [1]).await;
    assert_stands_still(&world).await;
    assert!(world.journal.got("right").is_empty());
    world.script.with("right", |right| right.unlisted = false);
    world.until_watermark_passes(now_ms()).await;
    assert_eq!(world.journal.got("right"), [1]);
    worker.stop().await;
    world.journal.assert_sound();
}

#[tokio::test]
async fn a_worker_of_an_older_version_makes_it_unknown() {
    let world = World::with_shards(2).await;
    let store = &world.table.store;
    let worker = world.start("w1", steady()).await;
    world.until_watermark_passes(now_ms()).await;
    store.announce("w0", "old", &Report::default()).await.expect("announced");
    // It is the first by name, and says nothing. It is not seen at once: heartbeats are read several times a second.
    tokio::time::sleep(QUIET).await;
    assert_stands_still(&world).await;
    store.forget_worker("w0", "old").await.expect("it is there");
    world.until_watermark_passes(now_ms()).await;
    // The last by name, and has a lease that it says nothing of.
    store.announce("w9", "old", &Report::default()).await.expect("announced");
    let shard = Shard { id: "s99".to_owned(), parents: Vec::new() };
    store
        .create_lease(STREAM, &shard, &"after:1".parse().expect("a checkpoint"), Begin::OwnedBy("w9"))
        .await
        .expect("created");
    tokio::time::sleep(QUIET).await;
    assert_stands_still(&world).await;
    worker.stop().await;
    world.journal.assert_sound();
}
