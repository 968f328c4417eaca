//! Shards that do not go on, and workers that did not for a while.

use std::time::Duration;

use warmcast_common::consumer::WorkerConfig;

use super::world::{World, mortal, names, steady};

fn watchful() -> WorkerConfig {
    WorkerConfig { stuck_after: Duration::from_secs(1), ..steady() }
}

/// How often each shard was begun to be read.
fn begun(world: &World, shard: &str) -> usize {
    world.script.with(shard, |shard| shard.iterators.len())
}

#[tokio::test]
async fn a_read_that_never_returns_restarts_its_shard_and_no_other() {
    let world = World::with_shards(4).await;
    let worker = world.start("w1", watchful()).await;
    world.assert_all_read().await;
    world.trouble.stall_once("s01");
    world.until("the read has come", async || world.trouble.has_stalled("s01")).await;
    world.assert_all_read().await;
    assert!(world.journal.says(&["ERROR", "shard is stuck", "s01", "a page of records"]));
    assert_eq!(names(4).iter().map(|shard| begun(&world, shard)).collect::<Vec<_>>(), [1, 2, 1, 1]);
    worker.stop().await;
    world.journal.assert_sound();
}

#[tokio::test]
async fn a_shard_that_waits_for_what_is_downstream_is_reported_and_not_restarted() {
    let world = World::with_shards(4).await;
    let worker = world.start("w1", watchful()).await;
    world.assert_all_read().await;
    world.downstream.block("s01");
    world.put("s01", 1);
    let reported = ["WARN", "shard is held up", "s01", "room downstream"];
    world.until("that is reported", async || world.journal.says(&reported)).await;
    for shard in ["s00", "s02", "s03"] {
        world.put(shard, 1);
    }
    world.until("the others are read", async || world.journal.unread() == ["s01"]).await;
    world.downstream.unblock("s01");
    world.assert_all_read().await;
    assert_eq!(names(4).iter().map(|shard| begun(&world, shard)).collect::<Vec<_>>(), [1, 1, 1, 1]);
    assert!(!world.journal.says(&["shard is stuck"]));
    worker.stop().await;
    world.journal.assert_sound();
}

#[tokio::test]
async fn a_worker_that_was_suspended_for_longer_than_the_lease_stops_reading_its_idle_shards() {
    let world = World::with_shards(6).await;
    let first = world.start("w1", mortal()).await;
    let second = world.start("w2", mortal()).await;
    world.until_shared(&[("w1", 2..=4), ("w2", 2..=4)]).await;
    world.assert_all_read().await;
    for shard in names(6) {
        world.until("it is checkpointed", async || world.checkpoint(&shard).await == "after:1").await;
    }
    let mut lost = world.leases().await;
    lost.retain(|lease| lease.owner.as_deref() == Some("w1"));
    let suspended = first.suspend();
    world.until_shared(&[("w2", 6..=6)]).await;
    drop(suspended);
    for lease in lost {
        let told = ["w1/0", "lease lost", &lease.shard];
        world.until("it knows that it lost its shards", async || world.journal.says(&told)).await;
    }
    // From now on each record comes to one of them only.
    world.assert_all_read().await;
    for shard in names(6) {
        assert_eq!(world.journal.got(&shard), [1, 2], "{shard}");
    }
    first.stop().await;
    second.stop().await;
    world.journal.assert_sound();
}

#[tokio::test]
async fn what_a_suspended_worker_had_under_way_is_read_by_another_and_never_checkpointed_by_it() {
    let world = World::with_shards(1).await;
    let first = world.start("w1", mortal()).await;
    world.until_shared(&[("w1", 1..=1)]).await;
    world.downstream.withhold("s00");
    world.put("s00", 3);
    world.until("it is under way", async || world.journal.got("s00") == [1, 2, 3]).await;
    let second = world.start("w2", mortal()).await;
    let suspended = first.suspend();
    world.until("the other one has it too", async || world.journal.got("s00") == [1, 2, 3, 1, 2, 3]).await;
    let taken = world.table.lease(super::script::STREAM, "s00").await.expect("a lease");
    drop(suspended);
    world.until("it knows", async || world.journal.says(&["w1/0", "lease lost", "s00"])).await;
    assert_eq!(world.owner("s00").await.as_deref(), Some("w2"));
    assert_eq!(world.checkpoint("s00").await, taken.checkpoint.to_string());
    world.downstream.release("s00", &world.journal);
    world.until("it is done", async || world.checkpoint("s00").await == "after:3").await;
    first.stop().await;
    second.stop().await;
    world.journal.assert_sound();
}

#[tokio::test]
async fn a_shard_that_its_owner_ends_while_another_takes_it_for_dead_is_not_taken() {
    let world = World::with_shards(1).await;
    let first = world.start("w1", mortal()).await;
    world.assert_all_read().await;
    let second = world.start("w2", mortal()).await;
    second.wire.hold(":new_owner");
    let suspended = first.suspend();
    world.until("the other one takes it", async || second.wire.waiting() > 0).await;
    world.close("s00");
    drop(suspended);
    world.until("it has ended", async || world.checkpoint("s00").await == "shard-end").await;
    second.wire.release();
    world.until("that is known", async || world.journal.says(&["w2/1", "lease not taken", "s00"])).await;
    assert_eq!(world.journal.got("s00"), [1]);
    first.stop().await;
    second.stop().await;
    world.journal.assert_sound();
}

#[tokio::test]
async fn a_process_whose_name_another_one_took_while_it_was_suspended_ends() {
    let world = World::with_shards(4).await;
    let first = world.start("w1", steady()).await;
    world.assert_all_read().await;
    let suspended = first.suspend();
    let second = world.start("w1", steady()).await;
    world.assert_all_read().await;
    drop(suspended);
    world.until("the first ends", async || first.has_ended()).await;
    world.assert_all_read().await;
    second.stop().await;
    world.journal.assert_sound();
}
