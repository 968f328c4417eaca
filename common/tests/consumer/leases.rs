//! Several workers, one stream.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use warmcast_common::consumer::store::{Begin, Report};
use warmcast_common::consumer::{Checkpoint, Shard, WorkerConfig};

use super::recorder::Recorder;
use super::script::STREAM;
use super::wait::{throughout, until};
use super::world::{Running, Start, World, fast, tells, text};

const LEASE: Duration = Duration::from_millis(600);

fn short_lease(id: &'static str) -> Start {
    let config = WorkerConfig { lease_duration: LEASE, ..fast() };
    Start { id, config, ..Start::default() }
}

/// Another worker, with a processor of its own.
async fn second(world: &World) -> (Running, Arc<Recorder>) {
    let recorder = Arc::new(Recorder::default());
    let store = world.table.store.clone();
    (world.start_with(short_lease("w2"), store, Arc::clone(&recorder)).await, recorder)
}

#[tokio::test]
async fn a_worker_that_beats_keeps_its_leases() {
    let world = World::new().await;
    world.script.shard("a", &[]);
    let first = world.start(short_lease("w1")).await;
    until("w1 has the lease", async || world.owner("a").await.as_deref() == Some("w1")).await;
    let (other, recorder) = second(&world).await;
    throughout(2 * LEASE, "w1 has the lease", async || world.owner("a").await.as_deref() == Some("w1")).await;
    world.script.put("a", [1]);
    world.until_got("a", [1]).await;
    assert!(recorder.log().is_empty());
    // Released, it need not expire.
    first.stop().await;
    let released = Instant::now();
    until("w2 has the lease", async || world.owner("a").await.as_deref() == Some("w2")).await;
    assert!(released.elapsed() < LEASE, "{:?}", released.elapsed());
    other.stop().await;
}

#[tokio::test]
async fn a_dead_workers_lease_is_taken_over_after_the_lease_duration_and_not_before() {
    let world = World::new().await;
    world.script.shard("a", &[]);
    world.script.put("a", 1..=2);
    let first = world.start(short_lease("w1")).await;
    world.until_checkpoint("a", "after:2").await;
    let (other, recorder) = second(&world).await;
    world.recorder.withhold("a");
    world.script.put("a", 3..=4);
    world.until_got("a", 1..=4).await;
    let died = Instant::now();
    first.kill().await;
    until("w2 has the lease", async || world.owner("a").await.as_deref() == Some("w2")).await;
    // The last beat that w2 saw is at most one interval older than the death, and was seen at its next look.
    let earliest = LEASE - 2 * fast().heartbeat_interval;
    assert!(died.elapsed() >= earliest, "taken over after {:?}", died.elapsed());
    until("w2 got what w1 had not done", async || recorder.got("a") == [3, 4]).await;
    other.stop().await;
    assert_eq!(world.checkpoint("a").await, "after:4");
}

#[tokio::test]
async fn an_owner_whose_heartbeat_was_not_seen_yet_is_not_taken_for_dead() {
    let world = World::new().await;
    world.script.shard("a", &[]);
    // As w1 sees it when w2 was announced and took the lease between two of w1's looks at the heartbeats.
    let (store, shard) = (&world.table.store, Shard { id: "a".to_owned(), parents: Vec::new() });
    store.create_lease(STREAM, &shard, &Checkpoint::TrimHorizon, Begin::AfterParents).await.unwrap();
    store.take_lease(&world.table.lease(STREAM, "a").await.unwrap(), "w2").await.unwrap();
    let running = world.start(short_lease("w1")).await;
    until("w1 has looked at leases", async || world.script.listings() > 3).await;
    assert_eq!(world.owner("a").await.as_deref(), Some("w2"));
    // But an owner that never shows is dead.
    until("w1 has the lease", async || world.owner("a").await.as_deref() == Some("w1")).await;
    running.stop().await;
}

#[tokio::test]
async fn a_lost_lease_ends_the_reading_and_no_checkpoint_follows() {
    let world = World::new().await;
    world.script.shard("a", &[]);
    world.script.shard("b", &[]);
    world.script.put("a", 1..=4);
    world.recorder.withhold("a");
    let first = world.run().await;
    world.until_got("a", 1..=4).await;
    world.recorder.done("a", 1);
    world.until_checkpoint("a", "after:1").await;
    // Another worker has it now, alive and well.
    world.table.store.announce("w9", "other", &Report::default()).await.unwrap();
    let lease = world.table.lease(STREAM, "a").await.unwrap();
    let taken = world.table.store.take_lease(&lease, "w9").await.unwrap();
    world.recorder.done("a", 2);
    until("w1 has stopped reading a", async || {
        let reads = world.script.with("a", |shard| shard.reads);
        tokio::time::sleep(20 * fast().idle_poll_max).await;
        world.script.with("a", |shard| shard.reads) == reads
    })
    .await;
    world.recorder.release("a");
    throughout(Duration::from_millis(100), "the lease is as w9 took it", async || {
        world.table.lease(STREAM, "a").await.as_ref() == Some(&taken)
    })
    .await;
    let churn = [
        "lease_changes_total{kind=\"taken\"} 2",
        "lease_changes_total{kind=\"lost\"} 1",
        "leases{state=\"own\"} 1",
        "leases{state=\"others\"} 1",
        "shards_owned 1",
    ];
    until("the metrics tell it", async || tells(&first.metrics, &churn)).await;
    // The other shard is not concerned.
    world.script.put("b", [1]);
    world.until_checkpoint("b", "after:1").await;
    let metrics = first.metrics.clone();
    first.stop().await;
    assert!(tells(&metrics, &["lease_changes_total{kind=\"released\"} 1"]), "{}", text(&metrics));
    assert_eq!(world.table.lease(STREAM, "a").await, Some(taken), "nor is it released by its former owner");
}

#[tokio::test]
async fn a_lease_lost_before_the_shards_end_does_not_end_it() {
    let world = World::new().await;
    world.script.shard("a", &[]);
    world.script.shard("child", &["a"]);
    world.script.put("a", 1..=2);
    world.script.close("a");
    world.recorder.withhold("a");
    let first = world.run().await;
    world.until_got("a", 1..=2).await;
    world.table.store.announce("w9", "other", &Report::default()).await.unwrap();
    let lease = world.table.lease(STREAM, "a").await.unwrap();
    let taken = world.table.store.take_lease(&lease, "w9").await.unwrap();
    world.recorder.release("a");
    throughout(Duration::from_millis(150), "the lease is as w9 took it", async || {
        world.table.lease(STREAM, "a").await.as_ref() == Some(&taken)
    })
    .await;
    assert!(world.recorder.got("child").is_empty());
    first.stop().await;
}

#[tokio::test]
async fn a_second_process_of_the_same_name_fences_the_first() {
    let world = World::new().await;
    world.script.shard("a", &[]);
    let first = world.run().await;
    until("w1 has the lease", async || world.owner("a").await.as_deref() == Some("w1")).await;
    let second = world.run().await;
    let stopped = first.worker.beat(&tokio_util::sync::CancellationToken::new()).await;
    assert!(stopped.unwrap_err().is_fenced());
    world.script.put("a", [1]);
    world.until_checkpoint("a", "after:1").await;
    first.kill().await;
    second.stop().await;
}
