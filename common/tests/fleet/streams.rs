//! Streams that not every worker reads, that are disabled, or that are forgotten.

use std::time::Duration;

use tokio::time::Instant;
use warmcast_common::consumer::WorkerConfig;

use super::script::{STREAM, Script};
use super::world::{LEASE, Served, World, mortal, steady};

const OTHER: &str = "arn:aws:dynamodb:eu-west-1:1:table/u/stream/2026";

/// A second stream, with the shards b0 to b3.
fn other_stream(world: &World) -> Served {
    let script = Script::new(world.table.store.clone());
    for shard in ["b0", "b1", "b2", "b3"] {
        world.journal.shard(shard, &[]);
        script.shard(shard, &[]);
    }
    Served { stream: OTHER.to_owned(), script, superseded: false }
}

/// Whether one worker has all leases of the other stream.
async fn has_other_stream(world: &World, name: &str) -> bool {
    let leases = world.table.leases(OTHER).await;
    leases.len() == 4 && leases.iter().all(|lease| lease.owner.as_deref() == Some(name))
}

#[tokio::test]
async fn leases_of_a_stream_are_not_given_to_a_worker_that_does_not_read_it() {
    let world = World::with_shards(8).await;
    let other = other_stream(&world);
    // What was given before the other's leases were known may be given back.
    let config = WorkerConfig { move_interval: Duration::from_secs(1), ..steady() };
    let both = world.serve("w1", config.clone(), &[world.served(), other]).await;
    let one = world.start("w2", config).await;
    // Twelve leases in all: the one who reads both streams keeps four of the one and two of the other.
    world.until_shared(&[("w1", 1..=3), ("w2", 5..=7)]).await;
    world.until("w1 has the other stream", async || has_other_stream(&world, "w1").await).await;
    one.stop().await;
    both.stop().await;
    world.journal.assert_sound();
}

#[tokio::test]
async fn leases_of_a_live_worker_that_reads_the_stream_no_more_are_taken_over() {
    let world = World::with_shards(1).await;
    let other = other_stream(&world);
    let before = world.serve("w1", mortal(), &[world.served(), other.clone()]).await;
    world.until("w1 has the other stream", async || has_other_stream(&world, "w1").await).await;
    before.kill().await;
    let restarted = Instant::now();
    let after = world.start("w1", mortal()).await;
    let second = world.serve("w2", mortal(), &[other]).await;
    world.until("w2 has the other stream", async || has_other_stream(&world, "w2").await).await;
    assert!(restarted.elapsed() >= LEASE, "it may only have started: {:?}", restarted.elapsed());
    assert_eq!(world.owner("s00").await.as_deref(), Some("w1"), "it lives");
    after.stop().await;
    second.stop().await;
    world.journal.assert_sound();
}

#[tokio::test]
async fn a_superseded_stream_that_the_service_forgot_is_over_and_what_was_not_read_is_a_gap() {
    let world = World::with_shards(4).await;
    let superseded = Served { superseded: true, ..world.served() };
    let first = world.serve("w1", steady(), std::slice::from_ref(&superseded)).await;
    let second = world.serve("w2", steady(), &[superseded]).await;
    world.until_shared(&[("w1", 1..=3), ("w2", 1..=3)]).await;
    world.assert_all_read().await;
    world.close("s00");
    world.until("s00 is read to its end", async || world.checkpoint("s00").await == "shard-end").await;
    for shard in ["s01", "s02", "s03"] {
        world.until("it is checkpointed", async || world.checkpoint(shard).await == "after:1").await;
    }
    world.trouble.forget();
    let over = "the superseded stream is over";
    for process in ["w1/0", "w2/1"] {
        world.until("the stream is over", async || world.journal.says(&[process, over])).await;
    }
    let mut gaps = world.table.gaps(STREAM).await;
    gaps.dedup();
    let gap = |shard: &str| (shard.to_owned(), "after:1".to_owned());
    assert_eq!(gaps, [gap("s01"), gap("s02"), gap("s03")]);
    assert!(world.leases().await.iter().all(|lease| lease.checkpoint.is_end()));
    first.stop().await;
    second.stop().await;
    world.journal.assert_sound();
}

#[tokio::test]
async fn a_disabled_stream_is_read_to_its_end_and_then_left_alone() {
    let world = World::with_shards(4).await;
    let rarely = WorkerConfig { listing_interval: Duration::from_secs(3_600), ..steady() };
    let first = world.start("w1", rarely.clone()).await;
    let second = world.start("w2", rarely).await;
    world.until_shared(&[("w1", 1..=3), ("w2", 1..=3)]).await;
    world.assert_all_read().await;
    world.trouble.disable();
    let shards = world.journal.open();
    for shard in &shards {
        world.put(shard, 5);
        world.close(shard);
    }
    world.until("all is read", async || world.journal.unread().is_empty()).await;
    let quiet = 10 * steady().sync_interval;
    world
        .until("nobody lists it any more", async || {
            let listings = world.script.listings();
            tokio::time::sleep(quiet).await;
            world.script.listings() == listings
        })
        .await;
    // Each worker at its start, twice if the first look was not enough, and whoever ends a shard without a child.
    let listings = world.script.listings();
    assert!(listings <= 4 + shards.len(), "{listings}");
    for shard in &shards {
        assert!(world.script.with(shard, |shard| shard.children_asked) <= 1);
    }
    first.stop().await;
    second.stop().await;
    world.journal.assert_sound();
}
