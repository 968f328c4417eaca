//! What is read and not done is bounded.

use std::time::Duration;

use warmcast_common::clock::now_ms;

use super::script::{PAGE_BYTES_MAX, RECORD_BYTES};
use super::wait::{throughout, until};
use super::world::{Start, World};

fn budget(budget_bytes: usize) -> Start {
    Start { budget_bytes, ..Start::default() }
}

#[tokio::test]
async fn reading_stops_when_a_page_no_longer_fits_the_budget() {
    let world = World::new().await;
    world.script.shard("a", &[]);
    world.script.put("a", 1..=100);
    world.recorder.withhold("a");
    // Room for two pages and a half: 100 + 100 are read and held, and 50 are not enough for a third.
    let running = world.start(budget(250)).await;
    world.until_got("a", 1..=20).await;
    let quiet = Duration::from_millis(100);
    throughout(quiet, "twenty records are read", async || world.script.records_read("a") == 20).await;
    assert_eq!(running.budget.bytes_in_use(), 250, "200 held, and 50 set aside for the reader that waits");
    // Four done: 90 bytes are free, still less than a page.
    (1..=4).for_each(|sequence| world.recorder.done("a", sequence));
    throughout(quiet, "twenty records are read", async || world.script.records_read("a") == 20).await;
    // The fifth, out of order: its bytes count all the same.
    world.recorder.done("a", 20);
    world.until_got("a", 1..=30).await;
    throughout(quiet, "thirty records are read", async || world.script.records_read("a") == 30).await;
    assert_eq!(running.budget.bytes_in_use(), 25 * RECORD_BYTES);
    world.recorder.release("a");
    world.until_checkpoint("a", "after:100").await;
    assert_eq!(world.recorder.got("a"), (1..=100).collect::<Vec<_>>());
    running_is_empty(running).await;
}

#[tokio::test]
async fn the_budget_is_shared_by_all_shards_and_none_is_forgotten() {
    let world = World::new().await;
    let shards = ["a", "b", "c", "d"];
    for shard in shards {
        world.script.shard(shard, &[]);
        world.script.put(shard, 1..=30);
        world.recorder.withhold(shard);
    }
    let running = world.start(budget(3 * PAGE_BYTES_MAX)).await;
    let read = async || shards.iter().map(|shard| world.script.records_read(shard)).sum::<usize>();
    until("three pages are read", async || read().await == 30).await;
    throughout(Duration::from_millis(100), "three pages are read", async || read().await == 30).await;
    assert_eq!(running.budget.bytes_in_use(), 3 * PAGE_BYTES_MAX);
    for shard in shards {
        world.recorder.release(shard);
    }
    for shard in shards {
        world.until_checkpoint(shard, "after:30").await;
        assert_eq!(world.recorder.got(shard), (1..=30).collect::<Vec<_>>());
    }
    running_is_empty(running).await;
}

#[tokio::test]
async fn a_record_heavier_than_the_budget_travels_alone() {
    let world = World::new().await;
    world.script.shard("a", &[]);
    world.script.put_one("a", 1, now_ms(), 90);
    world.script.put_one("a", 2, now_ms(), 90);
    world.recorder.withhold("a");
    // Less than a page: each read takes the whole budget.
    let running = world.start(budget(60)).await;
    world.until_got("a", [1]).await;
    throughout(Duration::from_millis(100), "one record is read", async || {
        world.script.records_read("a") == 1
    })
    .await;
    assert_eq!(running.budget.bytes_in_use(), 60);
    world.recorder.release("a");
    world.until_checkpoint("a", "after:2").await;
    running_is_empty(running).await;
}

#[tokio::test]
async fn a_worker_that_waits_for_room_can_be_drained() {
    let world = World::new().await;
    world.script.shard("a", &[]);
    world.script.put("a", 1..=100);
    world.recorder.withhold("a");
    let mut running = world.start(budget(PAGE_BYTES_MAX)).await;
    world.until_got("a", 1..=10).await;
    running.ask_to_stop();
    world.recorder.release("a");
    until("it has drained", async || running.has_ended()).await;
    // A page that came with the order to stop may be among it: it is done and checkpointed like the others.
    let read = world.script.records_read("a");
    assert!(read <= 20, "at most one page is read after the order to stop: {read}");
    assert_eq!(world.recorder.got("a").len(), read);
    assert_eq!(world.checkpoint("a").await, format!("after:{read}"));
    assert_eq!(running.budget.bytes_in_use(), 0);
}

/// Nothing is held when everything is done and nobody reads.
async fn running_is_empty(mut running: super::world::Running) {
    running.ask_to_stop();
    until("it has drained", async || running.has_ended()).await;
    assert_eq!(running.budget.bytes_in_use(), 0);
}
