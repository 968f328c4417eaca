//! Regions that want other formats than frames.

use aws_sdk_dynamodb::types::{AttributeValue, StreamViewType};
use warmcast_aggregator::record_format::RecordFormat;
use warmcast_common::limits::FRAME_BYTES_MAX;
use warmcast_proto::change::ChangeKind;
use warmcast_proto::{frame, kpl};

use super::servers::{DynamoDb, data};
use super::wait::until;
use super::world::{Aggregator, STREAM, config, directory, region};

#[tokio::test(flavor = "multi_thread")]
async fn a_region_of_each_format_gets_the_same_changes_and_the_same_heartbeats() {
    let (dynamodb, framed, aggregated, letters) =
        (DynamoDb::start().await, region(2).await, region(3).await, directory());
    dynamodb.create_table("profiles", StreamViewType::NewImage).await;
    let regions = [framed.url.as_str(), &aggregated.url];
    let mut config = config(&dynamodb.url, &["profiles"], &regions, letters.path());
    config.regions[1].target.record_format = RecordFormat::Kpl;
    let aggregator = Aggregator::start(config);
    for number in 0..40 {
        dynamodb.put("profiles", &format!("key-{}", number % 20), &format!("text {number}")).await;
    }
    dynamodb.delete("profiles", "key-0").await;
    // Several times what one record can hold, in JSON: six bytes for each of these characters.
    let large = "\u{1}".repeat(100_000);
    for number in 0..4 {
        dynamodb.put("profiles", "large", &format!("{number}{large}")).await;
    }
    dynamodb.put_item("profiles", "too large", AttributeValue::S("\u{1}".repeat(300_000))).await;
    until("everything is in both regions", async || {
        let (theirs, ours) = (framed.changes("profiles").await, aggregated.changes("profiles").await);
        let all = |changes: usize| changes == 46;
        all(theirs.values().map(Vec::len).sum()) && all(ours.values().map(Vec::len).sum())
    })
    .await;
    let (mut theirs, mut ours) = (framed.changes("profiles").await, aggregated.changes("profiles").await);
    // What no record can hold is a miss, which is always safe.
    let (whole, invalid) = (theirs.remove("too large").unwrap(), ours.remove("too large").unwrap());
    assert_eq!((whole[0].kind, invalid[0].kind), (ChangeKind::Put, ChangeKind::Invalidate));
    assert_eq!(whole[0].position, invalid[0].position);
    assert_eq!(theirs, ours, "byte by byte");
    until("every shard of both is told a watermark", async || {
        let told = [framed.watermarks_by_shard().await, aggregated.watermarks_by_shard().await];
        told.iter().flat_map(|shards| shards.values()).all(|watermarks| !watermarks.is_empty())
    })
    .await;
    aggregator.stop().await.unwrap();
    for shard in aggregated.shards(STREAM).await {
        for record in aggregated.records(STREAM, &shard.shard_id).await {
            let data = data(record);
            assert!(data.len() <= FRAME_BYTES_MAX);
            assert!(!data.starts_with(&frame::MAGIC), "no frame is in a stream that is for everybody");
            assert!(kpl::is_aggregated(&data) || data.starts_with(b"{\"warmcast\":1,\"watermark_ms\":"));
        }
    }
}
