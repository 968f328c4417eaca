//! A cluster that is written while slots move and primaries fail over.

use std::time::Duration;

use tokio::time::sleep;
use warmcast_cache::{Cache, CacheConfig, CacheError, EntryReads, Outcome, ReadFrom, Servers};

use crate::{
    changes::{
        TABLE, Watching, Writer, apply, assert_complete, keys, payloads, payloads_at_last, put, redis_key,
        wait_for_failovers,
    },
    cluster::{RedisCluster, text},
    sentinel::nobody,
    walks::{items, walk},
};

async fn slot(cluster: &RedisCluster, key: &str) -> u16 {
    let mut command = redis::cmd("CLUSTER");
    command.arg("KEYSLOT").arg(redis_key(key));
    let node = cluster.nodes.iter().find(|node| node.is_running()).unwrap();
    command.query_async(&mut node.admin().await).await.unwrap()
}

#[tokio::test]
async fn entries_go_to_their_slots_while_slots_move_to_nodes_old_and_new() {
    let cluster = RedisCluster::start(3, 0).await;
    let cache = Cache::connect(cluster.config()).await.unwrap();
    let reads = EntryReads::connect(cluster.config(), ReadFrom::Primary).await.unwrap();
    let watching = Watching::start(&cache);
    let epoch = cache.epoch().borrow().clone();
    // Keys of one slot, and of all others.
    let mut written_keys = keys(300);
    written_keys.extend((0..60).map(|number| format!("{{user-0}}-{number}")));
    let moving = slot(&cluster, "{user-0}-1").await;
    let mut writer = Writer::start(&cache, written_keys);
    writer.wait_for_rounds(3).await;

    let from = cluster.owner(moving).await;
    let to = (from + 1) % 3;
    // While half of the keys are here and half there, calls are sent on one by one (ASK).
    let both = async {
        let mut tagged: Vec<_> =
            (0..60).map(|number| put(&format!("{{user-0}}-{number}"), 1_000_000)).collect();
        tagged.push(put("{user-0}-new", 1));
        let answers = apply(&cache, &tagged).await;
        assert!(answers.iter().all(|answer| *answer == Ok(Outcome::Applied)), "{answers:?}");
        let keys: Vec<String> = (0..60).map(|number| format!("{{user-0}}-{number}")).collect();
        for found in payloads(&reads, &keys).await {
            assert!(found.unwrap().unwrap().ends_with(" as of 1000000"));
        }
    };
    cluster.move_slot(moving, from, to, both).await;
    cluster.wait_for_owner(moving, &cluster.nodes[to]).await;
    // Whoever has an old map is sent on (MOVED).
    let again: Vec<_> = (0..60).map(|number| put(&format!("{{user-0}}-{number}"), 2_000_000)).collect();
    let answers = apply(&cache, &again).await;
    assert!(answers.iter().all(|answer| *answer == Ok(Outcome::Applied)), "{answers:?}");

    let written = writer.finish().await;
    let written: Vec<_> = written.into_iter().filter(|change| !change.key.starts_with(b"{")).collect();
    assert_complete(&cache, &reads, &written, false).await;
    let found = payloads_at_last(&reads, &["{user-0}-7".to_owned()]).await;
    assert_eq!(found, [Some("{user-0}-7 as of 2000000".to_owned())]);
    // The looks of two seconds: no slot that moved was taken for a failover, nothing for lost.
    sleep(Duration::from_millis(2_100)).await;
    watching.finish().await;
    assert_eq!(*cache.failovers().borrow(), 0);
    assert_eq!(apply(&cache, &[put("{user-0}-newer", 1)]).await, [Ok(Outcome::Applied)]);
    // Nor by a process that starts now.
    let other = Cache::connect(cluster.config()).await.unwrap();
    assert_eq!(*other.failovers().borrow(), 0);
    assert_eq!((&*cache.epoch().borrow(), &*other.epoch().borrow()), (&epoch, &epoch));
    assert_eq!(apply(&other, &[put("{user-0}-newest", 1)]).await, [Ok(Outcome::Applied)]);
}

#[tokio::test]
async fn the_slots_of_markers_may_move_also_to_a_node_that_had_none() {
    let mut cluster = RedisCluster::start(2, 0).await;
    let cache = Cache::connect(cluster.config()).await.unwrap();
    let epoch = cache.epoch().borrow().clone();
    let watching = Watching::start(&cache);
    let new = cluster.add_node().await;
    // The slots of the first names: among them those of both markers.
    for number in 0..6 {
        let mut command = redis::cmd("CLUSTER");
        command.arg("KEYSLOT").arg(format!("wc:warmcast:marker:{{{number}}}"));
        let slot: u16 = command.query_async(&mut cluster.nodes[0].admin().await).await.unwrap();
        let from = cluster.owner(slot).await;
        let to = if number % 2 == 0 { new } else { 1 - from };
        cluster.move_slot(slot, from, to, async {}).await;
    }
    // The new map is found by a call that is sent on, or by the watch within seconds.
    let changes: Vec<_> = keys(50).iter().map(|key| put(key, 1)).collect();
    let answers = apply(&cache, &changes).await;
    assert!(answers.iter().all(|answer| *answer == Ok(Outcome::Applied)), "{answers:?}");
    sleep(Duration::from_millis(6_500)).await;
    watching.finish().await;
    assert_eq!(*cache.failovers().borrow(), 0);
    assert_eq!(*cache.epoch().borrow(), epoch);
    let other = Cache::connect(cluster.config()).await.unwrap();
    assert_eq!((*other.failovers().borrow(), &*other.epoch().borrow()), (0, &epoch));
}

#[tokio::test]
async fn writes_go_on_through_failovers_of_shards_and_each_is_counted_once_by_every_process() {
    let mut cluster = RedisCluster::start(3, 1).await;
    let cache = Cache::connect(cluster.config()).await.unwrap();
    let other = Cache::connect(cluster.config()).await.unwrap();
    let reads = EntryReads::connect(cluster.config(), ReadFrom::Replica).await.unwrap();
    let (watching, others) = (Watching::start(&cache), Watching::start(&other));
    let keys = keys(200);
    let mut writer = Writer::start(&cache, keys.clone());
    writer.wait_for_rounds(3).await;

    // As an operator does it: node 3 is the replica of node 0.
    text(&mut cluster.nodes[3].admin().await, &["FAILOVER"]).await;
    cluster.wait_for_owner(0, &cluster.nodes[3]).await;
    wait_for_failovers(&cache, 1).await;
    wait_for_failovers(&other, 1).await;

    // A crash: node 4 is the replica of node 1.
    cluster.nodes[1].kill();
    cluster.wait_for_owner(8_000, &cluster.nodes[4]).await;
    wait_for_failovers(&cache, 2).await;
    wait_for_failovers(&other, 2).await;

    writer.wait_for_rounds(3).await;
    let written = writer.finish().await;
    watching.finish().await;
    others.finish().await;
    let primaries = EntryReads::connect(cluster.config(), ReadFrom::Primary).await.unwrap();
    assert_complete(&cache, &primaries, &written, true).await;
    assert_eq!((*cache.failovers().borrow(), *other.failovers().borrow()), (2, 2));
    assert_eq!(*cache.epoch().borrow(), *other.epoch().borrow());
    assert!(payloads_at_last(&reads, &keys).await.iter().all(Option::is_some));
}

#[tokio::test]
async fn a_dead_shard_fails_its_own_entries_only() {
    let mut cluster = RedisCluster::start(3, 0).await;
    let config = cluster.config();
    let cache = Cache::connect(config.clone()).await.unwrap();
    let reads = EntryReads::connect(config, ReadFrom::Primary).await.unwrap();
    let keys = keys(60);
    let changes = |sequence| keys.iter().map(|key| put(key, sequence)).collect::<Vec<_>>();
    let answers = apply(&cache, &changes(1)).await;
    assert!(answers.iter().all(|answer| *answer == Ok(Outcome::Applied)), "{answers:?}");

    let mut of_the_dead = Vec::new();
    for key in &keys {
        of_the_dead.push(slot(&cluster, key).await / 5_462 == 1);
    }
    cluster.nodes[1].kill();
    let answers = apply(&cache, &changes(2)).await;
    let found = payloads(&reads, &keys).await;
    for ((is_dead, answer), found) in of_the_dead.iter().zip(answers).zip(found) {
        if *is_dead {
            assert!(matches!(&answer, Err(CacheError::Unavailable { .. })), "{answer:?}");
            assert!(matches!(&found, Err(CacheError::Unavailable { .. })), "{found:?}");
        } else {
            assert_eq!(answer, Ok(Outcome::Applied));
            assert!(found.unwrap().unwrap().ends_with(" as of 2"));
        }
    }
    // Once the others know it, they say so (CLUSTERDOWN); new processes start with what there is.
    let started = Cache::connect(cluster.config()).await.unwrap();
    let alive = of_the_dead.iter().position(|is_dead| !is_dead).unwrap();
    assert_eq!(apply(&started, &changes(3)[alive..=alive]).await, [Ok(Outcome::Applied)]);
}

#[tokio::test]
async fn a_node_without_the_scripts_is_given_them_and_dead_seeds_are_passed_over() {
    let cluster = RedisCluster::start(3, 0).await;
    let config = CacheConfig {
        servers: Servers::Cluster(vec![nobody(), nobody(), cluster.nodes[2].address()]),
        ..cluster.config()
    };
    let cache = Cache::connect(config).await.unwrap();
    let () =
        redis::cmd("SCRIPT").arg("FLUSH").query_async(&mut cluster.nodes[0].admin().await).await.unwrap();
    let changes: Vec<_> = keys(100).iter().map(|key| put(key, 1)).collect();
    let answers = apply(&cache, &changes).await;
    assert!(answers.iter().all(|answer| *answer == Ok(Outcome::Applied)), "{answers:?}");
    let reads = EntryReads::connect(cluster.config(), ReadFrom::Primary).await.unwrap();
    assert_eq!(walk(&reads, Some(TABLE)).await.0, items(&keys(100)), "on all primaries");
    // A slot that nobody has.
    let lost = slot(&cluster, "user-0").await;
    let owner = cluster.owner(lost).await;
    let mut admin = cluster.nodes[owner].admin().await;
    text(&mut admin, &["DELSLOTS", &lost.to_string()]).await;
    let answers = apply(&cache, &[put("user-0", 2), put("user-1", 2)]).await;
    assert!(matches!(&answers[0], Err(error) if error.is_retryable()), "{answers:?}");
    assert_eq!(answers[1], Ok(Outcome::Applied));
}
