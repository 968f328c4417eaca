//! Who reads which shard, as workers come and go.

use std::time::Duration;

use tokio::time::Instant;
use warmcast_common::consumer::WorkerConfig;

use super::world::{LEASE, World, mortal, names, steady};

/// Every shard's records came once each and in their order.
fn assert_each_record_once(world: &World, shards: usize) {
    for shard in names(shards) {
        let got = world.journal.got(&shard);
        assert!(got.iter().copied().eq(1..=got.len() as u64), "{shard}: {got:?}");
    }
}

#[tokio::test]
async fn two_workers_share_the_shards_and_each_shard_has_one_reader() {
    let world = World::with_shards(40).await;
    let first = world.start("w1", steady()).await;
    let second = world.start("w2", steady()).await;
    world.until_shared(&[("w1", 18..=22), ("w2", 18..=22)]).await;
    for _ in 0..5 {
        world.assert_all_read().await;
    }
    assert_each_record_once(&world, 40);
    first.stop().await;
    second.stop().await;
    world.journal.assert_sound();
}

#[tokio::test]
async fn a_worker_that_joins_is_handed_its_part_and_no_record_comes_twice() {
    let world = World::with_shards(40).await;
    // Whoever starts first may have given half of them to the other already.
    let config = WorkerConfig { move_interval: Duration::ZERO, ..steady() };
    let first = world.start("w1", config.clone()).await;
    let second = world.start("w2", config.clone()).await;
    world.until_shared(&[("w1", 18..=22), ("w2", 18..=22)]).await;
    let before = world.journal.moves().len();
    let third = world.start("w3", config).await;
    // Records come all the while, too few to be balanced by.
    world
        .until("the third has its part", async || {
            for shard in names(40) {
                world.put(&shard, 1);
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
            world.counts().await.get("w3").is_some_and(|leases| *leases >= 11)
        })
        .await;
    world.until_shared(&[("w1", 11..=15), ("w2", 11..=15), ("w3", 11..=15)]).await;
    world.assert_all_read().await;
    assert_each_record_once(&world, 40);
    let moves = world.journal.moves().split_off(before);
    assert!(moves.len() <= 15, "a third of the leases moves, and no more: {}", moves.len());
    assert!(moves.iter().all(|moved| moved.to == "w3"));
    for process in [first, second, third] {
        process.stop().await;
    }
    world.journal.assert_sound();
}

#[tokio::test]
async fn the_shards_of_a_worker_that_dies_are_taken_over_after_the_lease_duration() {
    let world = World::with_shards(20).await;
    let first = world.start("w1", mortal()).await;
    let second = world.start("w2", mortal()).await;
    world.until_shared(&[("w1", 8..=12), ("w2", 8..=12)]).await;
    world.assert_all_read().await;
    let died = Instant::now();
    first.kill().await;
    world.until_shared(&[("w2", 20..=20)]).await;
    // Its last beat may have been seen two intervals before.
    assert!(died.elapsed() > LEASE - 2 * mortal().heartbeat_interval, "{:?}", died.elapsed());
    world.assert_all_read().await;
    second.stop().await;
    world.journal.assert_sound();
}

#[tokio::test]
async fn the_shards_of_a_worker_that_stops_are_read_on_at_once() {
    let world = World::with_shards(20).await;
    let first = world.start("w1", steady()).await;
    let second = world.start("w2", steady()).await;
    world.until_shared(&[("w1", 8..=12), ("w2", 8..=12)]).await;
    world.assert_all_read().await;
    let stopped = Instant::now();
    first.stop().await;
    world.assert_all_read().await;
    assert!(stopped.elapsed() < steady().lease_duration / 2, "{:?}", stopped.elapsed());
    world.until_shared(&[("w2", 20..=20)]).await;
    assert_each_record_once(&world, 20);
    second.stop().await;
    world.journal.assert_sound();
}
