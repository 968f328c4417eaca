//! The same, whatever the cache's servers are: a cluster, and a primary that sentinels watch over.

use std::{sync::Arc, time::Duration};

use warmcast_cache::{
    Answer, Cache, CacheConfig, Outcome, Reader, ReaderConfig,
    reader::{MasterFallback, ReadOptions},
};
use warmcast_proto::{change::ChangeKind, key::ItemKey};

use crate::{
    cluster::RedisCluster,
    fake::{FakeDynamoDb, TABLE},
    sentinel::SentinelSetup,
    world::{PATIENCE, change, key, until, version},
};

const KEYS: usize = 64;

/// Even ones are in the cache, odd ones in the master only.
fn all_keys() -> Vec<ItemKey> {
    (0..KEYS).map(|number| key(&format!("user-{number}"))).collect()
}

async fn warm(cache: &Cache) {
    let changes: Vec<_> = (0..KEYS)
        .step_by(2)
        .map(|number| change(&format!("user-{number}"), 1, ChangeKind::Put, format!("item-{number}")))
        .collect();
    for outcome in cache.apply(&changes.iter().collect::<Vec<_>>()).await {
        assert_eq!(outcome, Ok(Outcome::Applied));
    }
}

async fn reader(cache: CacheConfig, master: &FakeDynamoDb) -> Reader {
    let config = ReaderConfig {
        deadline: PATIENCE,
        staleness_max: None,
        first_level: None,
        master: Some(MasterFallback::new(master.client())),
        ..ReaderConfig::new(cache)
    };
    Reader::connect(config).await.unwrap()
}

/// Whether every key has its answer: from the cache, or from the master.
fn is_whole(answers: &[Answer]) -> bool {
    answers.iter().enumerate().all(|(number, answer)| match answer.row() {
        Some(row) if number % 2 == 0 => row.bytes() == format!("item-{number}").as_bytes(),
        Some(row) => version(&row.item().unwrap()) == 1,
        None => false,
    })
}

async fn is_read_whole(reader: &Reader) -> bool {
    reader.get_many(TABLE, &all_keys()).await.is_ok_and(|answers| is_whole(&answers))
}

#[tokio::test]
async fn a_cluster_is_read_and_filled_and_a_dead_shard_fails_its_own_keys_only() {
    let mut cluster = RedisCluster::start(3, 1).await;
    let master = FakeDynamoDb::start().await;
    let cache = Cache::connect(cluster.config()).await.unwrap();
    warm(&cache).await;
    let reader = reader(cluster.config(), &master).await;
    // Replicas may be a little behind.
    until("every key has its answer", async || is_read_whole(&reader).await).await;
    until("what was missing is filled", async || reader.stats().filler.unwrap().installed == KEYS as u64 / 2)
        .await;
    let calls = master.calls().len();
    until("all of it comes from the cache", async || {
        let misses = reader.stats().misses;
        is_read_whole(&reader).await && reader.stats().misses == misses
    })
    .await;
    assert_eq!(master.calls().len(), calls);

    // A shard's primary and its replica.
    cluster.nodes[0].kill();
    cluster.nodes[3].kill();
    let options = ReadOptions { deadline: Duration::from_secs(5), ..reader.options() };
    let answers = reader.get_many_with(TABLE, &all_keys(), options).await.unwrap();
    let unread = answers.iter().filter(|answer| **answer == Answer::Missing { filling: false }).count();
    assert!((1..KEYS).contains(&unread), "{unread} of {KEYS} keys could not be read");
    assert_eq!(answers.iter().filter(|answer| answer.row().is_some()).count(), KEYS - unread);
    let first = answers.iter().position(|answer| answer.row().is_none()).unwrap();
    let error = reader.get_with(TABLE, &all_keys()[first], options).await;
    assert!(error.is_err(), "{error:?}");
}

#[tokio::test]
async fn sentinels_name_the_server_that_is_read_and_filled() {
    let mut setup = SentinelSetup::start().await;
    let master = Arc::new(FakeDynamoDb::start().await);
    let cache = Cache::connect(setup.config()).await.unwrap();
    warm(&cache).await;
    let reader = reader(setup.config(), &master).await;
    until("every key has its answer", async || is_read_whole(&reader).await).await;

    let before = setup.servers[0].port;
    setup.servers[0].kill();
    until("the replicas are read meanwhile", async || {
        let options = ReadOptions { wait_for_master: false, ..reader.options() };
        let answer = reader.get_with(TABLE, &key("user-0"), options).await;
        answer.is_ok_and(|answer| answer.row().is_some())
    })
    .await;
    setup.wait_for_another_primary(before).await;
    until("a miss is filled on the new primary", async || {
        matches!(reader.get(TABLE, &key("somebody-new")).await, Ok(Answer::Fresh(_)))
    })
    .await;
}
