//! What is checkpointed, and from where a shard is read again.

use std::time::Duration;

use warmcast_common::clock::now_ms;
use warmcast_common::consumer::Checkpoint;
use warmcast_common::consumer::store::StateStore;

use super::gate::{Gate, Stage};
use super::script::{RECORD_BYTES, STREAM};
use super::table::client;
use super::wait::{throughout, until};
use super::world::{Start, World};

const HOUR_MS: u64 = 3_600_000;

fn from_now() -> Start {
    Start { from_trim_horizon: false, ..Start::default() }
}

#[tokio::test]
async fn a_killed_worker_resumes_after_its_checkpoint_and_loses_nothing() {
    let world = World::new().await;
    world.script.shard("a", &[]);
    world.script.put("a", 1..=5);
    let running = world.run().await;
    world.until_checkpoint("a", "after:5").await;
    world.recorder.withhold("a");
    world.script.put("a", 6..=8);
    world.until_got("a", 1..=8).await;
    running.kill().await;
    assert_eq!(world.checkpoint("a").await, "after:5");
    world.recorder.release("a");
    world.script.put("a", [9]);
    // The same name: there is nobody to wait for.
    let running = world.run().await;
    world.until_got("a", (1..=8).chain(6..=9)).await;
    running.stop().await;
    assert_eq!(world.checkpoint("a").await, "after:9");
}

#[tokio::test]
async fn the_checkpoint_never_passes_a_record_that_is_not_done() {
    let world = World::new().await;
    world.script.shard("a", &[]);
    world.script.put("a", 1..=5);
    world.recorder.withhold("a");
    let running = world.run().await;
    world.until_got("a", 1..=5).await;
    for sequence in [2, 4, 5] {
        world.recorder.done("a", sequence);
    }
    let quiet = Duration::from_millis(100);
    throughout(quiet, "nothing is checkpointed", async || world.checkpoint("a").await == "trim-horizon")
        .await;
    world.recorder.done("a", 1);
    world.until_checkpoint("a", "after:2").await;
    throughout(quiet, "record 3 is not passed", async || world.checkpoint("a").await == "after:2").await;
    world.recorder.done("a", 3);
    world.until_checkpoint("a", "after:5").await;
    running.stop().await;
}

#[tokio::test]
async fn a_drained_worker_has_awaited_every_ack_and_released_its_lease() {
    let world = World::new().await;
    world.script.shard("a", &[]);
    world.script.put("a", 1..=3);
    world.recorder.withhold("a");
    // No checkpoint but the first one and the last.
    let mut config = super::world::fast();
    config.checkpoint_interval = Duration::from_secs(3_600);
    let mut running = world.start(Start { config, ..Start::default() }).await;
    world.until_got("a", 1..=3).await;
    running.ask_to_stop();
    throughout(Duration::from_millis(100), "it waits for its acks", async || !running.has_ended()).await;
    world.recorder.done("a", 1);
    world.recorder.done("a", 2);
    throughout(Duration::from_millis(50), "it waits for the last one", async || !running.has_ended()).await;
    assert_eq!(world.owner("a").await.as_deref(), Some("w1"));
    world.recorder.done("a", 3);
    until("it has drained", async || running.has_ended()).await;
    assert_eq!(world.checkpoint("a").await, "after:3");
    assert_eq!(world.owner("a").await, None);
    assert_eq!(running.budget.bytes_in_use(), 0);
}

#[tokio::test]
async fn a_checkpoint_that_is_late_on_the_wire_does_not_undo_the_shards_end() {
    let world = World::new().await;
    let gate = Gate::start(world.table.address).await;
    let store = StateStore::new(client(gate.address).await, "state");
    world.script.shard("a", &[]);
    world.script.shard("child", &["a"]);
    world.script.put("a", 1..=3);
    world.script.put("child", [4]);
    gate.hold("after:3");
    let running = world.start_with(Start::default(), store, std::sync::Arc::clone(&world.recorder)).await;
    until("the checkpoint is under way", async || gate.stage() == Stage::Held).await;
    world.script.close("a");
    let reads = world.script.with("a", |shard| shard.reads);
    until("the shard is read to its end", async || world.script.with("a", |shard| shard.reads) > reads).await;
    throughout(Duration::from_millis(200), "the end waits for what is under way", async || {
        world.checkpoint("a").await == "trim-horizon"
    })
    .await;
    gate.release();
    until("the late checkpoint has arrived", async || gate.stage() == Stage::Answered).await;
    world.until_got("child", [4]).await;
    // The lease may be gone by now: its child has begun.
    let checkpoint = world.checkpoint("a").await;
    assert!(["shard-end", ""].contains(&checkpoint.as_str()), "{checkpoint}");
    assert_eq!(world.recorder.got("a"), [1, 2, 3]);
    running.stop().await;
}

#[tokio::test]
async fn from_now_passes_over_what_is_older_and_checkpoints_it() {
    let world = World::new().await;
    world.script.shard("a", &[]);
    for sequence in 1..=15 {
        world.script.put_one("a", sequence, now_ms() - HOUR_MS, RECORD_BYTES);
    }
    let running = world.start(from_now()).await;
    world.until_checkpoint("a", "after:15").await;
    assert!(world.recorder.got("a").is_empty());
    world.script.put("a", [16]);
    world.until_got("a", [16]).await;
    assert_eq!(running.budget.bytes_in_use(), 0);
    running.stop().await;
}

#[tokio::test]
async fn from_now_hands_on_a_record_whose_time_is_not_known() {
    let world = World::new().await;
    world.script.shard("a", &[]);
    world.script.put_one("a", 1, now_ms() - HOUR_MS, RECORD_BYTES);
    world.script.put_one("a", 2, 0, RECORD_BYTES);
    let running = world.start(from_now()).await;
    world.until_got("a", [2]).await;
    running.stop().await;
}

#[tokio::test]
async fn a_restart_before_the_first_record_does_not_move_the_start() {
    let world = World::new().await;
    world.script.shard("a", &[]);
    let running = world.start(from_now()).await;
    until("the shard is read", async || world.script.with("a", |shard| shard.reads) > 2).await;
    running.stop().await;
    let start = world.checkpoint("a").await;
    assert!(start.starts_with("at-time:"), "{start}");
    // It comes in while no worker runs.
    world.script.put("a", [1]);
    let running = world.start(from_now()).await;
    world.until_got("a", [1]).await;
    let from = world.script.with("a", |shard| shard.iterators.clone());
    let start: Checkpoint = start.parse().unwrap();
    assert_eq!(from, [start.clone(), start]);
    running.stop().await;
}

#[tokio::test]
async fn from_now_is_said_once_even_if_every_shard_has_ended_since() {
    let world = World::new().await;
    world.script.shard("a", &[]);
    world.script.put("a", [1]);
    world.script.close("a");
    let running = world.start(from_now()).await;
    world.until_checkpoint("a", "shard-end").await;
    // A listing that is not consistent shows neither the ended shard nor its child.
    world.script.with("a", |shard| shard.unlisted = true);
    let listings = world.script.listings();
    until("leases were looked at three times", async || world.script.listings() > listings + 3).await;
    world.script.shard("child", &["a"]);
    world.script.put_one("child", 2, now_ms() - HOUR_MS, RECORD_BYTES);
    world.until_got("child", [2]).await;
    running.stop().await;
    let leases = world.table.leases(STREAM).await;
    assert!(leases.iter().all(|lease| !matches!(lease.checkpoint, Checkpoint::AtTime(_))), "{leases:?}");
}
