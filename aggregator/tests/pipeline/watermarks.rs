//! How far the fleet says that it is: through every shard of every region, and never too far.

use std::time::Duration;

use aws_sdk_dynamodb::types::StreamViewType;
use tokio::time::Instant;
use warmcast_common::clock::now_ms;
use warmcast_proto::frame::{FRAME_BODY_BYTES_MAX, Frame, decode};

use super::fake_kinesis::FakeKinesis;
use super::servers::{DynamoDb, Kinesis, data};
use super::wait::until;
use super::world::{Aggregator, STREAM, config, directory, region};

const NEW_IMAGE: StreamViewType = StreamViewType::NewImage;

/// The least of what the shards were told last; none if one was told nothing.
async fn last_told(region: &Kinesis) -> Option<u64> {
    let told = region.watermarks_by_shard().await;
    told.into_values().map(|watermarks| watermarks.last().copied()).min().flatten()
}

async fn until_told_more_than(region: &Kinesis, watermark_ms: u64) {
    until("every shard was told more", async || last_told(region).await.is_some_and(|ms| ms > watermark_ms))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_watermark_grows_in_every_shard_of_every_region_while_nothing_changes() {
    let (dynamodb, near, far, letters) =
        (DynamoDb::start().await, region(1).await, region(3).await, directory());
    dynamodb.create_table("profiles", NEW_IMAGE).await;
    let config = config(&dynamodb.url, &["profiles"], &[&near.url, &far.url], letters.path());
    let began_ms = now_ms();
    let aggregator = Aggregator::start(config);
    for after_ms in [began_ms, began_ms + 500] {
        until_told_more_than(&near, after_ms).await;
        until_told_more_than(&far, after_ms).await;
    }
    let highest = now_ms();
    for (shard, watermarks) in
        near.watermarks_by_shard().await.into_iter().chain(far.watermarks_by_shard().await)
    {
        assert!(watermarks.is_sorted_by(|a, b| a < b), "{shard}: {watermarks:?}");
        assert!(watermarks.iter().all(|&watermark| watermark < highest), "{shard}: {watermarks:?}");
    }
    aggregator.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_watermark_stands_still_while_a_change_is_not_in_every_region() {
    let (dynamodb, near, far, letters) =
        (DynamoDb::start().await, region(1).await, FakeKinesis::start([]).await, directory());
    dynamodb.create_table("profiles", NEW_IMAGE).await;
    let config = config(&dynamodb.url, &["profiles"], &[&near.url, &far.url], letters.path());
    let aggregator = Aggregator::start(config);
    until_told_more_than(&near, 0).await;
    far.hold();
    dynamodb.put("profiles", "a", "1").await;
    until("the change is in the near region", async || near.changes("profiles").await.len() == 1).await;
    let created_ms = near.changes("profiles").await["a"][0].created_ms;
    let end = Instant::now() + Duration::from_secs(4);
    while Instant::now() < end {
        assert!(last_told(&near).await <= Some(created_ms), "the far region does not have the change");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    far.release();
    until_told_more_than(&near, created_ms + 1_000).await;
    aggregator.stop().await.unwrap();

    let records = near.records(STREAM, "shardId-000000000000").await.into_iter().map(data);
    assert_no_change_comes_after_a_watermark_above_it(records.map(frame));
    assert_no_change_comes_after_a_watermark_above_it(far.landed().into_iter().map(frame));
}

fn frame(bytes: bytes::Bytes) -> Frame {
    decode(bytes, FRAME_BODY_BYTES_MAX).unwrap()
}

fn assert_no_change_comes_after_a_watermark_above_it(frames: impl Iterator<Item = Frame>) {
    let (mut watermark_ms, mut changes) = (0, 0);
    for Frame { watermark_ms: told_ms, changes: more, .. } in frames {
        watermark_ms = watermark_ms.max(told_ms.unwrap_or(0));
        for change in more {
            assert!(change.unwrap().created_ms >= watermark_ms);
            changes += 1;
        }
    }
    assert!(changes == 1 && watermark_ms > 0, "{changes} changes, watermark {watermark_ms}");
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_no_watermark_before_every_table_is_read() {
    let (dynamodb, kinesis, letters) = (DynamoDb::start().await, region(1).await, directory());
    dynamodb.create_table("profiles", NEW_IMAGE).await;
    let config = config(&dynamodb.url, &["profiles", "later"], &[&kinesis.url], letters.path());
    let aggregator = Aggregator::start(config);
    dynamodb.put("profiles", "a", "1").await;
    until("the one table's change came", async || kinesis.changes("profiles").await.len() == 1).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(last_told(&kinesis).await, None, "nobody knows what changes in the other");
    dynamodb.create_table("later", NEW_IMAGE).await;
    until_told_more_than(&kinesis, 0).await;
    aggregator.stop().await.unwrap();
}
