//! The stream is split and merged: everything arrives, and a shard is read after its parents.

use warmcast_common::dead_letter::Kept;

use super::servers::Kinesis;
use super::wait::until;
use super::world::{CacheWriter, STREAM, World, frame, put_change};

const LOW: u128 = 0;
const HIGH: u128 = u128::MAX;

async fn merge(kinesis: &Kinesis, shard: &str, adjacent: &str) {
    let merge = kinesis.client.merge_shards().stream_name(STREAM);
    merge.shard_to_merge(shard).adjacent_shard_to_merge(adjacent).send().await.unwrap();
    until("the merged shard shows", async || kinesis.shards(STREAM).await.len() == 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shards_are_read_after_their_parents() {
    let world = World::new(1).await;
    // What nobody can read is set aside when it is read: the letters tell the order.
    let mut records = vec![world.put_at(LOW, "root").await];
    world.kinesis.split(STREAM, "shardId-000000000000").await;
    records.push(world.put_at(LOW, "low").await);
    records.push(world.put_at(HIGH, "high").await);
    merge(&world.kinesis, "shardId-000000000001", "shardId-000000000002").await;
    records.push(world.put_at(HIGH, "merged").await);
    let writer = CacheWriter::start(world.config());
    until("every record is read", async || world.letters().await.len() == 4).await;
    let mut letters = world.letters().await;
    letters.sort_by_key(|(kept, _)| kept.first_attempt_ms);
    let position = |kept: Kept| kept.envelope.origin.position.unwrap().to_string();
    let mut read: Vec<String> = letters.into_iter().map(|(kept, _)| position(kept)).collect();
    assert_eq!((&read[0], &read[3]), (&records[0], &records[3]));
    read.sort();
    records.sort();
    assert_eq!(read, records);
    writer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_arrives_while_the_stream_is_split_and_merged() {
    let world = World::new(1).await;
    let writer = CacheWriter::start(world.config());
    let mut sequence = 0;
    for step in 0..3 {
        for _ in 0..20 {
            sequence += 1;
            let (low, high) = (format!("low-{sequence}"), format!("high-{sequence}"));
            world.put_at(LOW, frame(&[put_change("low", sequence), put_change(&low, 1)])).await;
            world.put_at(HIGH, frame(&[put_change("high", sequence), put_change(&high, 1)])).await;
        }
        match step {
            0 => world.kinesis.split(STREAM, "shardId-000000000000").await,
            1 => merge(&world.kinesis, "shardId-000000000001", "shardId-000000000002").await,
            _ => {}
        }
    }
    world.until_entry("low", sequence).await;
    world.until_entry("high", sequence).await;
    for number in 1..=sequence {
        world.until_entry(&format!("low-{number}"), 1).await;
        world.until_entry(&format!("high-{number}"), 1).await;
    }
    writer.stop().await;
    assert!(world.letters().await.is_empty());
}
