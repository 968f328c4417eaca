//! How evenly the work is shared, and what that may cost.

use std::collections::BTreeMap;
use std::time::Duration;

use warmcast_common::consumer::store::Progressed;
use warmcast_common::consumer::{Checkpoint, WorkerConfig};

use super::world::{World, names, steady};

/// Long enough for several looks at the leases.
const QUIET: Duration = Duration::from_secs(1);

#[tokio::test]
async fn uneven_shards_are_shared_by_throughput_and_then_stay() {
    let world = World::new().await;
    let rates: Vec<u64> = [50_000, 30_000].into_iter().chain([4_000; 15]).collect();
    let shards: Vec<(String, u64)> = names(rates.len()).into_iter().zip(rates).collect();
    for (shard, bytes_per_s) in &shards {
        world.shard(shard, &[]);
        let progressed = Progressed { bytes_per_s: *bytes_per_s, ..Progressed::default() };
        world.leave_lease(shard, &Checkpoint::TrimHorizon, progressed).await;
    }
    // It takes them all, and must give the half of them away. Before it gives more there is time for the receiver to
    // see what it was given, to measure it and to tell, as there is by default.
    let config = WorkerConfig { sync_interval: Duration::from_secs(4), ..steady() };
    let first = world.start("w1", config.clone()).await;
    world.until_shared(&[("w1", 17..=17)]).await;
    let second = world.start("w2", config).await;
    let loads = async || {
        let mut loads: BTreeMap<String, u64> = BTreeMap::new();
        for lease in world.leases().await {
            let (_, rate) = shards.iter().find(|(shard, _)| **shard == *lease.shard).expect("a shard");
            *loads.entry(lease.owner.unwrap_or_default()).or_default() += rate;
        }
        loads
    };
    // 70,000 each, give or take a tenth.
    world
        .until("the throughput is shared and stays so", async || {
            let moves = world.journal.moves().len();
            tokio::time::sleep(Duration::from_secs(6)).await;
            moves > 0 && world.journal.moves().len() == moves
        })
        .await;
    let loads = loads().await;
    assert!(loads.len() == 2 && loads.values().all(|load| (63_000..=77_000).contains(load)), "{loads:?}");
    first.stop().await;
    second.stop().await;
    world.journal.assert_sound();
}

#[tokio::test]
async fn a_worker_of_three_times_the_capacity_has_three_times_the_leases() {
    let world = World::with_shards(40).await;
    let small = world.start("w1", steady()).await;
    let large = world.start("w2", WorkerConfig { capacity: 300, ..steady() }).await;
    world.until_shared(&[("w1", 9..=13), ("w2", 27..=31)]).await;
    world.assert_all_read().await;
    small.stop().await;
    large.stop().await;
    world.journal.assert_sound();
}

#[tokio::test]
async fn no_lease_is_moved_again_within_the_move_interval() {
    let world = World::with_shards(24).await;
    let config = WorkerConfig { move_interval: Duration::from_secs(2), ..steady() };
    let mut fleet = vec![world.start("w1", config.clone()).await];
    world.until_shared(&[("w1", 24..=24)]).await;
    // Each one shifts the balance anew.
    for name in ["w2", "w3", "w4"] {
        fleet.push(world.start(name, config.clone()).await);
        world
            .until("the new one has some", async || world.counts().await.get(name).copied().unwrap_or(0) >= 2)
            .await;
    }
    tokio::time::sleep(QUIET).await;
    let moves = world.journal.moves();
    for (later, moved) in moves.iter().enumerate() {
        let before = moves[..later].iter().filter(|earlier| earlier.shard == moved.shard);
        for earlier in before {
            let between = moved.at - earlier.at;
            assert!(between >= config.move_interval, "{} was moved again after {between:?}", moved.shard);
        }
    }
    world.assert_all_read().await;
    for process in fleet {
        process.stop().await;
    }
    world.journal.assert_sound();
}

#[tokio::test]
async fn shards_beyond_every_workers_leases_max_are_reported_and_taken_by_one_who_has_room() {
    let world = World::with_shards(8).await;
    let full = WorkerConfig { leases_max: 3, ..steady() };
    let first = world.start("w1", full.clone()).await;
    let second = world.start("w2", full).await;
    world.until_shared(&[("", 2..=2), ("w1", 3..=3), ("w2", 3..=3)]).await;
    let reported = ["ERROR", "shards are read by nobody", "worker.leases_max"];
    world.until("that is reported", async || world.journal.says(&reported)).await;
    let third = world.start("w3", steady()).await;
    world.until_shared(&[("w1", 1..=3), ("w2", 1..=3), ("w3", 2..=4)]).await;
    world.assert_all_read().await;
    for process in [first, second, third] {
        process.stop().await;
    }
    world.journal.assert_sound();
}
