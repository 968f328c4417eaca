//! The servers and the traffic by themselves, without the daemons: what the other tests stand on.

use std::time::Duration;

use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::ShardIteratorType;
use tokio::task::JoinSet;
use warmcast_sandbox::daemon::STREAM;
use warmcast_sandbox::entry;
use warmcast_sandbox::kinesis::Kinesis;
use warmcast_sandbox::verify::{self, Rows};
use warmcast_sandbox::world::{World, WorldError, WorldOptions};

use crate::support::*;

async fn servers() -> World {
    World::start_servers(&WorldOptions::default()).await.unwrap_or_else(|error| panic!("{error}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_table_holds_what_the_traffic_wrote() {
    let world = servers().await;
    assert_eq!(world.pids().len(), 2, "a Redis for each region");
    let traffic = Traffic::start(&world);
    traffic.more(800).await;
    let ledger = traffic.finish().await;
    let rows = verify::read_tables(&world.dynamodb(), world.tables()).await.unwrap();
    assert_eq!(verify::check_ledger(TABLE, &ledger, &rows), Vec::<String>::new());
    assert!(rows.len() > 100 && rows.len() < ledger.len(), "{} rows, {} keys", rows.len(), ledger.len());
    stop(world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_cache_agrees_with_nothing() {
    let world = servers().await;
    put(&world, TABLE, Default::default(), "row").await;
    let region = &world.regions()[0];
    let rows = verify::read_tables(&world.dynamodb(), world.tables()).await.unwrap();
    assert_eq!(rows.keys().cloned().collect::<Vec<_>>(), [entry::redis_key(TABLE, "row")]);
    let deleted = Default::default();
    let patient = verify::compare_region(region, &rows, &deleted);
    // It waits for the row, because it may still be on its way.
    assert!(tokio::time::timeout(Duration::from_secs(1), patient).await.is_err());
    let nothing = verify::compare_region(region, &Rows::new(), &Default::default()).await.unwrap();
    assert!(nothing.agrees());
    stop(world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_redis_starts_again_empty_on_its_port() {
    let mut world = servers().await;
    let redis = world.regions_mut()[0].redis_mut();
    let mut connection = redis.connect().await.unwrap();
    let () = redis::cmd("SET").arg("key").arg("value").query_async(&mut connection).await.unwrap();
    let url = redis.url();
    redis.kill().await.unwrap();
    assert!(redis.connect().await.is_err());
    redis.start_again().await.unwrap();
    assert_eq!(redis.url(), url);
    assert!(entry::all_redis_keys(&mut redis.connect().await.unwrap()).await.unwrap().is_empty());
    stop(world).await;
}

/// Puts records one after the other; returns how many.
async fn put_records(client: aws_sdk_kinesis::Client, records: usize) -> usize {
    for _ in 0..records {
        let put = client.put_record().stream_name(STREAM).partition_key("key").data(Blob::new(*b"record"));
        put.send().await.unwrap();
    }
    records
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_of_a_stream_sees_every_record_that_is_put_meanwhile() {
    const WRITERS: usize = 16;
    const RECORDS_EACH: usize = 100;
    let kinesis = Kinesis::start("eu-west-1").await.unwrap();
    kinesis.create_stream(STREAM, 1).await.unwrap();
    let mut writers = JoinSet::new();
    for _ in 0..WRITERS {
        writers.spawn(put_records(kinesis.client(), RECORDS_EACH));
    }
    let client = kinesis.client();
    let iterator = client
        .get_shard_iterator()
        .stream_name(STREAM)
        .shard_id("shardId-000000000000")
        .shard_iterator_type(ShardIteratorType::TrimHorizon);
    let mut iterator = iterator.send().await.unwrap().shard_iterator;
    let mut seen = 0;
    loop {
        // Whatever was put before this read began must be in it, or in one before it.
        let is_over = writers.is_empty();
        let read = client.get_records().set_shard_iterator(iterator).send().await.unwrap();
        seen += read.records().len();
        iterator = read.next_shard_iterator;
        if is_over {
            break;
        }
        while writers.try_join_next().is_some() {}
    }
    assert_eq!(seen, WRITERS * RECORDS_EACH);
    kinesis.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_impossible_number_of_regions_is_refused() {
    for regions in [0, 9] {
        let options = WorldOptions { regions, ..WorldOptions::default() };
        let refused = World::start_servers(&options).await.unwrap_err();
        assert!(matches!(refused, WorldError::Regions { .. }), "{refused}");
    }
}
