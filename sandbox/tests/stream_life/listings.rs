//! Listings that lag behind and contradict themselves: what they hide is read once it shows, and what is finished
//! is not read again.

use warmcast_sandbox::streams::Until;

use crate::life::*;

/// Asking for the children of a finished shard is given up after ten tries.
const MORE_THAN_ALL_TRIES: u64 = 14;

/// Listings enough for whatever the aggregator makes of them to show.
const SOME_LISTINGS: u64 = 5;

#[tokio::test(flavor = "multi_thread")]
async fn children_that_stay_hidden_for_long_are_read_when_they_show() {
    let mut life = Life::new().await;
    let (parent, keys) = (life.add_shard(None), keys("item", 3));
    life.put_each(&parent, &keys, 2);
    life.start_workers(1, Tuning::default());
    life.arrivals().await;
    life.fake().hide_children_for(&life.arn, &parent, Until::Settled).unwrap();
    life.put_each(&parent, &keys, 1);
    let children = life.split(&parent);
    life.put_each(&children[0], &keys[..1], 2);
    life.put_each(&children[1], &keys[1..], 2);
    life.ended(&[&parent]).await;
    life.listings(MORE_THAN_ALL_TRIES).await;
    assert!(children.iter().all(|child| life.reads(child).is_none()));
    let reads = life.reads(&parent).unwrap().reads;
    life.fake().settle_listings(&life.arn).unwrap();
    life.assert_all_arrives_once().await;
    life.listings(SOME_LISTINGS).await;
    assert_eq!(life.reads(&parent).unwrap().reads, reads, "a finished shard is not read");
    life.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn children_that_show_after_some_tries_are_read_at_once() {
    let mut life = Life::new().await;
    let (mut shard, keys) = (life.add_shard(None), keys("item", 3));
    life.start_workers(1, Tuning::default());
    for hidden in [1, 3, 5] {
        life.put_each(&shard, &keys, 1);
        life.fake().hide_children_for(&life.arn, &shard, Until::Describes(hidden)).unwrap();
        shard = life.rollover(&shard);
        life.put_each(&shard, &keys, 1);
        life.arrivals().await;
    }
    life.assert_all_arrives_once().await;
    life.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parent_that_looks_open_is_read_to_its_end_before_its_listed_child() {
    let mut life = Life::new().await;
    let (grandparent, keys) = (life.add_shard(None), keys("item", 3));
    life.put_each(&grandparent, &keys, 2);
    let parent = life.rollover(&grandparent);
    life.put_each(&parent, &keys, 2);
    for shard in [&grandparent, &parent] {
        life.fake().show_as_open(&life.arn, shard, Until::Settled).unwrap();
    }
    let child = life.rollover(&parent);
    life.put_each(&child, &keys, 2);
    life.start_workers(1, Tuning::default());
    life.arrivals().await;
    // It goes on like this while there is traffic.
    life.fake().show_as_open(&life.arn, &child, Until::Settled).unwrap();
    let leaf = life.rollover(&child);
    life.put_each(&leaf, &keys, 2);
    life.assert_all_arrives_once().await;
    let reads = life.reads(&child).unwrap().reads;
    life.listings(SOME_LISTINGS).await;
    life.fake().settle_listings(&life.arn).unwrap();
    life.listings(SOME_LISTINGS).await;
    assert_eq!(life.reads(&child).unwrap().reads, reads, "a finished shard is not read");
    life.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_that_is_really_listed_before_its_parent_is_closed_waits_for_it() {
    let mut life = Life::new().await;
    let (parent, keys) = (life.add_shard(None), keys("item", 3));
    life.put_each(&parent, &keys, 2);
    let child = life.add_shard(Some(&parent));
    life.start_workers(1, Tuning::default());
    life.arrivals().await;
    life.listings(SOME_LISTINGS).await;
    assert!(life.reads(&child).is_none());
    life.put_each(&parent, &keys, 1);
    life.fake().close(&life.arn, &parent).unwrap();
    life.put_each(&child, &keys, 1);
    life.assert_all_arrives_once().await;
    life.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn new_shards_that_listings_lack_at_first_are_read_when_they_show() {
    let mut life = Life::new().await;
    let (parent, root) = (life.add_shard(None), life.add_shard(None));
    let (family, other) = (keys("family", 3), keys("other", 3));
    life.put_each(&parent, &family, 1);
    life.put_each(&root, &other, 1);
    // The first listing has neither the one nor the other's child.
    life.fake().omit_from_listings(&life.arn, &root, Until::Describes(2)).unwrap();
    let child = life.rollover(&parent);
    life.put_each(&child, &family, 1);
    life.fake().omit_from_listings(&life.arn, &child, Until::Describes(3)).unwrap();
    life.start_workers(1, Tuning::default());
    life.assert_all_arrives_once().await;
    life.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_that_the_first_listing_lacks_comes_between_its_parent_and_its_child() {
    let mut life = Life::new().await;
    let (grandparent, keys) = (life.add_shard(None), keys("item", 20));
    life.put_each(&grandparent, &keys, 100);
    let parent = life.rollover(&grandparent);
    life.put_each(&parent, &keys, 2);
    life.fake().omit_from_listings(&life.arn, &parent, Until::Describes(2)).unwrap();
    let child = life.rollover(&parent);
    life.put_each(&child, &keys, 2);
    life.start_workers(1, Tuning::default());
    life.assert_all_arrives_once().await;
    life.stop().await;
}

/// Three generations that are finished, of which the service goes on to list all, and listings that lack the middle
/// one so many times.
async fn nothing_is_read_again_though_a_finished_shard_is_not_listed(times: u32) {
    let mut life = Life::new().await;
    let (grandparent, keys) = (life.add_shard(None), keys("item", 3));
    life.put_each(&grandparent, &keys, 2);
    let parent = life.rollover(&grandparent);
    life.put_each(&parent, &keys, 2);
    let child = life.rollover(&parent);
    life.put_each(&child, &keys, 2);
    life.start_workers(1, Tuning::default());
    life.assert_all_arrives_once().await;
    life.only_lease_is_of(&child).await;
    life.fake().omit_from_listings(&life.arn, &parent, Until::Describes(times)).unwrap();
    life.listings(u64::from(times) + SOME_LISTINGS).await;
    life.put_each(&child, &keys, 1);
    life.assert_all_arrives_once().await;
    life.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_read_again_when_one_listing_lacks_a_finished_shard() {
    nothing_is_read_again_though_a_finished_shard_is_not_listed(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_read_again_when_many_listings_lack_a_finished_shard() {
    nothing_is_read_again_though_a_finished_shard_is_not_listed(6).await;
}
