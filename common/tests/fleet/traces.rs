//! What is left in the state table: gaps that nobody was told of, and heartbeats of those who are gone.

use std::time::Duration;

use warmcast_common::clock::now_ms;
use warmcast_common::consumer::store::{Progressed, Report};
use warmcast_common::consumer::{Checkpoint, WorkerConfig};

use super::script::STREAM;
use super::world::{World, steady};

const HOUR_MS: u64 = 3_600_000;

async fn heartbeats(world: &World) -> Vec<String> {
    let heartbeats = world.table.store.heartbeats().await.expect("heartbeats can be read");
    heartbeats.into_iter().map(|beat| beat.worker).collect()
}

#[tokio::test]
async fn a_shard_that_nobody_read_for_longer_than_records_are_kept_has_a_gap_and_others_have_none() {
    let world = World::with_shards(4).await;
    world.trouble.retain_silently(Duration::from_millis(24 * HOUR_MS));
    // Too old; recent; of a clock that was ahead; not known.
    let seen = [now_ms() - 25 * HOUR_MS, now_ms() - 23 * HOUR_MS, now_ms() + HOUR_MS, 0];
    for (shard, seen_ms) in world.journal.open().iter().zip(seen) {
        world.put(shard, 3);
        (1..=3).for_each(|record| world.journal.acked(shard, record));
        let after: Checkpoint = "after:3".parse().expect("a checkpoint");
        world.leave_lease(shard, &after, Progressed { seen_ms, ..Progressed::default() }).await;
    }
    let worker = world.start("w1", steady()).await;
    world.assert_all_read().await;
    assert_eq!(world.table.gaps(STREAM).await, [("s00".to_owned(), "after:3".to_owned())]);
    worker.stop().await;
    world.journal.assert_sound();
}

#[tokio::test]
async fn a_worker_that_stops_takes_its_heartbeat_with_it() {
    let world = World::with_shards(2).await;
    let first = world.start("w1", steady()).await;
    let second = world.start("w2", steady()).await;
    world.assert_all_read().await;
    assert_eq!(heartbeats(&world).await, ["w1", "w2"]);
    first.stop().await;
    assert_eq!(heartbeats(&world).await, ["w2"]);
    second.stop().await;
    assert!(heartbeats(&world).await.is_empty());
}

#[tokio::test]
async fn the_heartbeat_of_a_worker_that_died_long_ago_is_removed() {
    let world = World::with_shards(1).await;
    let store = &world.table.store;
    store.announce("w9", "it-died", &Report::default()).await.expect("it is announced");
    let lease_duration = Duration::from_millis(100);
    let worker = world.start("w1", WorkerConfig { lease_duration, ..steady() }).await;
    world.until("it is removed", async || heartbeats(&world).await == ["w1"]).await;
    world.assert_all_read().await;
    worker.stop().await;
}
