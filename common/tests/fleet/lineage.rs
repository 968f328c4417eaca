//! Parents before children, whoever reads them.

use std::time::Duration;

use warmcast_common::consumer::WorkerConfig;

use super::script::STREAM;
use super::world::{World, steady};

#[tokio::test]
async fn the_children_of_a_shard_are_read_on_by_its_reader_without_a_look_at_the_leases() {
    let world = World::with_shards(1).await;
    let never = Duration::from_secs(3_600);
    let config = WorkerConfig { sync_interval: never, listing_interval: never, ..steady() };
    let worker = world.start("w1", config).await;
    world.assert_all_read().await;
    world.shard("left", &["s00"]);
    world.shard("right", &["s00"]);
    let listings = world.script.listings();
    world.close("s00");
    world.assert_all_read().await;
    assert_eq!(world.script.listings(), listings);
    worker.stop().await;
    world.journal.assert_sound();
}

/// The first child is seen to be ours while the second one's lease is still being written.
#[tokio::test]
async fn a_child_that_is_adopted_while_the_leases_are_looked_at_is_read_once() {
    let world = World::with_shards(1).await;
    let worker = world.start("w1", steady()).await;
    world.assert_all_read().await;
    worker.wire.hold("shard#right");
    world.shard("left", &["s00"]);
    world.shard("right", &["s00"]);
    world.put("left", 1);
    world.close("s00");
    world.until("the second child's lease is on its way", async || worker.wire.waiting() > 0).await;
    world.until("the first child is read", async || world.journal.got("left") == [1]).await;
    worker.wire.release();
    world.assert_all_read().await;
    // Time for whoever believes to have it as well.
    tokio::time::sleep(5 * steady().sync_interval).await;
    let epoch = world.table.lease(STREAM, "left").await.expect("a lease").epoch;
    world.assert_all_read().await;
    tokio::time::sleep(5 * steady().sync_interval).await;
    assert_eq!(world.table.lease(STREAM, "left").await.expect("a lease").epoch, epoch, "it changes hands");
    assert_eq!(world.journal.got("left"), [1, 2, 3]);
    assert_eq!(world.journal.got("right"), [1, 2]);
    worker.stop().await;
    world.journal.assert_sound();
}

#[tokio::test]
async fn a_merge_of_shards_that_different_workers_read_begins_after_the_ends_of_both() {
    let world = World::with_shards(2).await;
    let one = WorkerConfig { leases_max: 1, ..steady() };
    let first = world.start("w1", one.clone()).await;
    let second = world.start("w2", one).await;
    world.until_shared(&[("w1", 1..=1), ("w2", 1..=1)]).await;
    world.assert_all_read().await;
    world.shard("merged", &["s00", "s01"]);
    world.put("merged", 1);
    world.close("s00");
    world.until("the first parent has ended", async || world.checkpoint("s00").await == "shard-end").await;
    tokio::time::sleep(5 * steady().sync_interval).await;
    assert!(world.journal.got("merged").is_empty());
    world.close("s01");
    world.assert_all_read().await;
    assert_eq!(world.journal.got("merged"), [1, 2]);
    first.stop().await;
    second.stop().await;
    world.journal.assert_sound();
}

#[tokio::test]
async fn a_child_that_shows_after_its_parents_lease_is_gone_is_read_and_its_parent_is_not() {
    let world = World::with_shards(1).await;
    let worker = world.start("w1", steady()).await;
    world.assert_all_read().await;
    world.shard("left", &["s00"]);
    world.shard("right", &["s00"]);
    world.script.with("right", |right| (right.unlisted, right.late) = (true, usize::MAX));
    world.journal.shows_too_late("right");
    world.put("right", 1);
    world.close("s00");
    world.until("the parent's lease is gone", async || world.checkpoint("s00").await.is_empty()).await;
    assert!(world.journal.got("right").is_empty());
    world.script.with("right", |right| right.unlisted = false);
    world.assert_all_read().await;
    assert_eq!(world.script.with("s00", |shard| shard.iterators.len()), 1);
    worker.stop().await;
    world.journal.assert_sound();
}

#[tokio::test]
async fn shards_that_ended_long_ago_and_are_still_listed_are_not_read_again_after_a_restart_of_all() {
    let world = World::with_shards(2).await;
    let start = async || [world.start("w1", steady()).await, world.start("w2", steady()).await];
    let fleet = start().await;
    world.assert_all_read().await;
    let generations: [&[(&str, &[&str])]; 3] = [
        &[("a", &["s00"]), ("b", &["s00"]), ("c", &["s01"])],
        &[("d", &["a"]), ("ef", &["b", "c"])],
        &[("last", &["d", "ef"])],
    ];
    for generation in generations {
        let parents = world.journal.open();
        for (shard, parents) in generation {
            world.shard(shard, parents);
        }
        parents.iter().for_each(|parent| world.close(parent));
        world.assert_all_read().await;
    }
    let only_the_last = async || {
        let leases = world.leases().await;
        leases.len() == 1 && *leases[0].shard == *"last"
    };
    world.until("the leases of what is finished are gone", only_the_last).await;
    for process in fleet {
        process.stop().await;
    }
    let fleet = start().await;
    let listings = world.script.listings();
    world.until("the stream is listed again", async || world.script.listings() > listings + 3).await;
    world.assert_all_read().await;
    assert!(only_the_last().await);
    for process in fleet {
        process.stop().await;
    }
    for shard in ["s00", "s01", "a", "b", "c", "d", "ef"] {
        assert_eq!(world.script.with(shard, |shard| shard.iterators.len()), 1, "{shard}");
    }
    world.journal.assert_sound();
}

#[tokio::test]
async fn a_parent_that_one_listing_lacks_is_not_read_before_its_own_parent() {
    let world = World::with_shards(1).await;
    world.shard("middle", &["s00"]);
    world.shard("last", &["middle"]);
    for shard in ["s00", "middle", "last"] {
        world.put(shard, 1);
    }
    world.downstream.withhold("s00");
    world.close("s00");
    world.close("middle");
    world.trouble.hide_once("middle");
    let worker = world.start("w1", steady()).await;
    world.until("the first is read", async || world.journal.got("s00") == [1]).await;
    assert!(world.trouble.has_hidden("middle"));
    tokio::time::sleep(5 * steady().sync_interval).await;
    assert!(world.journal.got("middle").is_empty());
    world.downstream.release("s00", &world.journal);
    world.assert_all_read().await;
    worker.stop().await;
    world.journal.assert_sound();
}

#[tokio::test]
async fn a_finished_shard_whose_child_one_listing_lacks_is_not_read_again() {
    let world = World::with_shards(1).await;
    let worker = world.start("w1", steady()).await;
    world.assert_all_read().await;
    // "b" goes on, so that everybody knows that "s00" is finished; "a" shows to be so by "c" alone.
    let generations: [(&[&str], &str); 3] = [(&["a", "b"], "s00"), (&["c"], "a"), (&["d"], "c")];
    for (children, parent) in generations {
        children.iter().for_each(|child| world.shard(child, &[parent]));
        world.close(parent);
        world.assert_all_read().await;
    }
    world.until("what is finished has no leases", async || world.leases().await.len() == 2).await;
    worker.stop().await;
    world.trouble.hide_once("c");
    let worker = world.start("w1", steady()).await;
    let listings = world.script.listings();
    world.until("the stream is listed again", async || world.script.listings() > listings + 3).await;
    assert!(world.trouble.has_hidden("c"));
    world.assert_all_read().await;
    assert_eq!(world.leases().await.len(), 2);
    worker.stop().await;
    world.journal.assert_sound();
}
