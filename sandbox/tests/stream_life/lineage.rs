//! Shards roll over, split and merge: children come after their parents, and nothing is lost or read again.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::time::{Duration, sleep};
use warmcast_sandbox::streams::{Calls, FakeStreams, Operation, When};

use crate::life::*;

/// Open shards at the most.
const SHARDS_MAX: usize = 10;
const ROUNDS: usize = 60;

/// An open shard and the items whose changes it takes.
struct Open {
    shard: String,
    keys: Vec<String>,
}

/// One shard, or two, are replaced by their children.
fn reshape(life: &mut Life, open: &mut Vec<Open>, random: &mut StdRng) {
    let at = random.random_range(0..open.len());
    let Open { shard, mut keys } = open.swap_remove(at);
    match random.random_range(0..3) {
        0 if open.len() < SHARDS_MAX - 1 && keys.len() > 1 => {
            let [first, second] = life.split(&shard);
            let half = keys.split_off(keys.len() / 2);
            open.push(Open { shard: first, keys });
            open.push(Open { shard: second, keys: half });
        }
        1 if open.len() > 3 => {
            // The API has no room for the second parent, so its items are not changed again: nothing orders them.
            let other = open.swap_remove(random.random_range(0..open.len()));
            let child = life.merge(&shard, &other.shard);
            open.push(Open { shard: child, keys });
        }
        _ => {
            let child = life.rollover(&shard);
            open.push(Open { shard: child, keys });
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn shards_that_roll_over_split_and_merge_under_traffic_keep_every_change_in_order() {
    let mut life = Life::new().await;
    let mut random = StdRng::seed_from_u64(20_240_229);
    let mut open: Vec<Open> =
        (0..4).map(|n| Open { shard: life.add_shard(None), keys: keys(&format!("family-{n}"), 4) }).collect();
    life.start_workers(2, Tuning::default());
    let both_read = |fake: &FakeStreams| {
        ["worker-1", "worker-2"].iter().all(|worker| fake.calls_by(worker, Operation::GetRecords) > 0)
    };
    life.until("both read", both_read).await;
    for round in 0..ROUNDS {
        for Open { shard, keys } in &open {
            life.put_each(shard, keys, 1);
        }
        if round % 4 == 3 {
            reshape(&mut life, &mut open, &mut random);
        }
        // The traffic takes its time.
        sleep(Duration::from_millis(40)).await;
    }
    life.assert_all_arrives_once().await;
    assert_eq!(life.died(), None);
    life.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_waits_until_all_of_its_parent_is_in_the_region() {
    let mut life = Life::without_target().await;
    let parent = life.add_shard(None);
    let keys = keys("item", 5);
    life.put_each(&parent, &keys, 3);
    let children = life.split(&parent);
    let halves = keys.split_at(2);
    life.put_each(&children[0], halves.0, 3);
    life.put_each(&children[1], halves.1, 3);
    life.start_workers(2, Tuning::default());
    life.until("the parent is read", |_| life.reads(&parent).is_some_and(|reads| reads.delivered == 15))
        .await;
    // Many looks at leases and shards later the parent is still not done, and its children wait.
    life.listings(4).await;
    assert!(!life.master.leases(&life.arn).await[&parent].is_ended());
    assert!(children.iter().all(|child| life.reads(child).is_none()));
    life.create_target().await;
    life.assert_all_arrives_once().await;
    life.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn generations_of_closed_shards_are_read_from_the_oldest_on_and_never_again() {
    let mut life = Life::new().await;
    let mut shards = vec![life.add_shard(None)];
    let keys = keys("item", 3);
    for _ in 0..5 {
        let last = shards.last().unwrap().clone();
        life.put_each(&last, &keys, 2);
        shards.push(life.rollover(&last));
    }
    let leaf = shards.last().unwrap().clone();
    life.put_each(&leaf, &keys, 2);
    life.start_workers(2, Tuning::default());
    life.assert_all_arrives_once().await;
    // The leases of what is finished go, and the service lists the shards for hours more.
    life.only_lease_is_of(&leaf).await;
    let reads = |life: &Life| -> Vec<u64> {
        shards[..5].iter().map(|shard| life.reads(shard).unwrap().reads).collect()
    };
    let before = reads(&life);
    life.listings(3).await;
    // A restart, too, goes on where it was.
    life.stop_workers().await;
    life.start_again();
    life.put_each(&leaf, &keys, 1);
    life.assert_all_arrives_once().await;
    life.listings(3).await;
    assert_eq!(reads(&life), before, "{}", life.tails());
    life.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_for_children_that_takes_long_does_not_bring_finished_ones_back() {
    let mut life = Life::new().await;
    let (shard, keys) = (life.add_shard(None), keys("item", 3));
    life.start_workers(1, Tuning::default());
    life.put_each(&shard, &keys, 2);
    life.arrivals().await;
    let hang = life.fake().hang(Calls::of(Operation::DescribeStream).shard(&shard), When::Next(1));
    let child = life.rollover(&shard);
    life.put_each(&child, &keys, 2);
    // A full listing finds the child, which is read, ends, and has begun children of its own.
    life.arrivals().await;
    let leaf = life.rollover(&child);
    life.put_each(&leaf, &keys, 2);
    life.arrivals().await;
    life.only_lease_is_of(&leaf).await;
    // Only now the search from back then is answered.
    drop(hang);
    let is_over = || async { life.has_logged(&["shard read to its end", &shard]).then_some(()) };
    life.eventually("the search is over", is_over).await;
    life.listings(3).await;
    life.put_each(&leaf, &keys, 1);
    life.assert_all_arrives_once().await;
    life.stop().await;
}
