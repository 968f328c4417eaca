//! Parents before children.

use super::script::Script;
use super::wait::until;
use super::world::World;

/// When a shard was first read, these parents had been read whole, and their ends were in the table; or their leases
/// were gone again, which only those of ended shards may be.
fn assert_read_after_the_ends_of(script: &Script, shard: &str, parents: &[&str]) {
    let then = script.with(shard, |shard| shard.parents_then.clone());
    for parent in parents {
        assert!(script.with(parent, |parent| parent.is_read_whole()), "{parent}");
        let lease = then.iter().find(|(of, _)| of == parent);
        assert!(lease.is_none_or(|(_, checkpoint)| checkpoint.is_end()), "{parent}: {then:?}");
    }
}

#[tokio::test]
async fn a_split_is_read_after_its_parents_end_is_in_the_table() {
    let world = World::new().await;
    world.script.shard("parent", &[]);
    world.script.shard("left", &["parent"]);
    world.script.shard("right", &["parent"]);
    world.script.put("parent", 1..=25);
    world.script.put("left", 26..=30);
    world.script.put("right", 26..=30);
    world.recorder.withhold("parent");
    world.script.close("parent");
    let running = world.run().await;
    world.until_got("parent", 1..=25).await;
    // All is read, nothing is done: the end must not be checkpointed.
    let listings = world.script.listings();
    until("leases were looked at three times", async || world.script.listings() > listings + 3).await;
    assert_eq!(world.checkpoint("parent").await, "trim-horizon");
    assert_eq!(world.script.with("left", |shard| shard.iterators.len()), 0);
    world.recorder.release("parent");
    world.until_got("left", 26..=30).await;
    world.until_got("right", 26..=30).await;
    assert_read_after_the_ends_of(&world.script, "left", &["parent"]);
    assert_read_after_the_ends_of(&world.script, "right", &["parent"]);
    assert_eq!(world.recorder.got("parent"), (1..=25).collect::<Vec<_>>());
    running.stop().await;
}

#[tokio::test]
async fn a_merge_is_read_after_both_parents_ends_are_in_the_table() {
    let world = World::new().await;
    world.script.shard("a", &[]);
    world.script.shard("b", &[]);
    world.script.shard("merged", &["a", "b"]);
    world.script.put("a", [1, 2]);
    world.script.put("b", [1, 2]);
    world.script.put("merged", [3]);
    world.script.close("a");
    let running = world.run().await;
    world.until_checkpoint("a", "shard-end").await;
    world.until_checkpoint("b", "after:2").await;
    let listings = world.script.listings();
    until("leases were looked at three times", async || world.script.listings() > listings + 3).await;
    assert!(world.recorder.got("merged").is_empty());
    world.script.close("b");
    world.until_got("merged", [3]).await;
    assert_read_after_the_ends_of(&world.script, "merged", &["a", "b"]);
    running.stop().await;
}

#[tokio::test]
async fn children_that_show_late_are_asked_for_again_before_the_next_listing() {
    let world = World::new().await;
    world.script.shard("parent", &[]);
    world.script.put("parent", [1]);
    world.script.shard("child", &["parent"]);
    world.script.with("child", |child| (child.unlisted, child.late) = (true, 2));
    world.script.put("child", [2]);
    world.script.close("parent");
    let running = world.run().await;
    world.until_got("child", [2]).await;
    assert!(world.script.with("parent", |parent| parent.children_asked) >= 3);
    assert_read_after_the_ends_of(&world.script, "child", &["parent"]);
    running.stop().await;
}

#[tokio::test]
async fn children_that_show_in_a_listing_only_are_read() {
    let world = World::new().await;
    world.script.shard("parent", &[]);
    world.script.put("parent", [1]);
    world.script.shard("child", &["parent"]);
    world.script.with("child", |child| (child.unlisted, child.late) = (true, usize::MAX));
    world.script.put("child", [2]);
    world.script.close("parent");
    let running = world.run().await;
    world.until_checkpoint("parent", "shard-end").await;
    world.script.with("child", |child| child.unlisted = false);
    world.until_got("child", [2]).await;
    assert_read_after_the_ends_of(&world.script, "child", &["parent"]);
    running.stop().await;
}

#[tokio::test]
async fn the_lease_of_an_ended_shard_goes_when_its_children_have_begun_and_it_is_not_read_again() {
    let world = World::new().await;
    world.script.shard("parent", &[]);
    world.script.shard("child", &["parent"]);
    world.script.with("child", |child| (child.unlisted, child.late) = (true, usize::MAX));
    world.script.put("parent", [1]);
    world.script.put("child", [2]);
    world.script.close("parent");
    let running = world.run().await;
    world.until_checkpoint("parent", "shard-end").await;
    let listings = world.script.listings();
    until("shards were listed three times", async || world.script.listings() > listings + 3).await;
    assert_eq!(world.checkpoint("parent").await, "shard-end", "its child has not begun");
    world.script.with("child", |child| child.unlisted = false);
    world.until_checkpoint("parent", "").await;
    let listings = world.script.listings();
    until("shards were listed three times", async || world.script.listings() > listings + 3).await;
    world.until_got("child", [2]).await;
    running.stop().await;
    assert_eq!(world.recorder.log(), [("parent".to_owned(), 1), ("child".to_owned(), 2)]);
}
