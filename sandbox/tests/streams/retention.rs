//! Iterators that expire and records that age out, by the clock that the test moves.

use std::time::Duration;

use aws_sdk_dynamodbstreams::primitives::DateTime;
use aws_sdk_dynamodbstreams::types::ShardIteratorType;
use warmcast_sandbox::streams::Record;

use crate::support::*;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);

const EXPIRED: &str = "ExpiredIteratorException";
const TRIMMED: &str = "TrimmedDataAccessException";
const NOT_FOUND: &str = "ResourceNotFoundException";

#[tokio::test]
async fn an_iterator_is_good_for_15_minutes() {
    let fake = Fake::start().await;
    let shard = fake.script().add_shard(&fake.arn, None).unwrap();
    let at = fake.iterator(&shard).await;
    fake.script().clock().advance(15 * MINUTE - Duration::from_millis(1));
    let next = read(&fake.client, &at).await.unwrap().next_shard_iterator.unwrap();
    fake.script().clock().advance(Duration::from_millis(1));
    assert_eq!(read(&fake.client, &at).await.unwrap_err(), EXPIRED);
    // The next one was made later.
    read(&fake.client, &next).await.unwrap();
    fake.server.stop().await;
}

#[tokio::test]
async fn a_position_whose_record_has_aged_out_is_trimmed() {
    let fake = Fake::start().await;
    let script = fake.script();
    let shard = script.add_shard(&fake.arn, None).unwrap();
    let sequences = script.put(&fake.arn, &shard, &[record(), record()]).unwrap();
    script.clock().advance(24 * HOUR - MINUTE);
    script.put(&fake.arn, &shard, &[record()]).unwrap();
    let at_horizon = fake.iterator(&shard).await;
    script.clock().advance(MINUTE);

    // An iterator made before its record went, and sequence numbers from then.
    assert_eq!(read(&fake.client, &at_horizon).await.unwrap_err(), TRIMMED);
    for kind in [ShardIteratorType::AtSequenceNumber, ShardIteratorType::AfterSequenceNumber] {
        let refused = iterator(&fake.client, &fake.arn, &shard, kind, Some(&sequences[0])).await;
        assert_eq!(refused.unwrap_err(), TRIMMED);
    }
    let page = read(&fake.client, &fake.iterator(&shard).await).await.unwrap();
    assert_eq!(page.records().len(), 1);
    fake.server.stop().await;
}

#[tokio::test]
async fn a_script_can_trim_without_the_clock() {
    let fake = Fake::start().await;
    let shard = fake.script().add_shard(&fake.arn, None).unwrap();
    fake.script().put_items(&fake.arn, &shard, 3, 300).unwrap();
    let at = fake.iterator(&shard).await;
    fake.script().trim(&fake.arn, &shard).unwrap();
    assert_eq!(read(&fake.client, &at).await.unwrap_err(), TRIMMED);
    assert!(read(&fake.client, &fake.iterator(&shard).await).await.unwrap().records().is_empty());
    fake.server.stop().await;
}

#[tokio::test]
async fn closed_shards_leave_the_listing_24_hours_after_their_end() {
    let fake = Fake::start().await;
    let script = fake.script();
    let parent = script.add_shard(&fake.arn, None).unwrap();
    let child = script.rollover(&fake.arn, &parent).unwrap();
    script.clock().advance(24 * HOUR - MINUTE);
    let at = fake.iterator(&parent).await;
    assert_eq!(fake.listed_ids().await.len(), 2);
    script.clock().advance(MINUTE);
    // Its child still names it.
    let listed = fake.listed().await;
    assert_eq!(listed[0].shard_id(), Some(child.as_str()));
    assert_eq!((listed.len(), listed[0].parent_shard_id()), (1, Some(parent.as_str())));
    assert_eq!(read(&fake.client, &at).await.unwrap_err(), NOT_FOUND);
    fake.server.stop().await;
}

#[tokio::test]
async fn a_disabled_stream_is_gone_after_24_hours() {
    let fake = Fake::start().await;
    fake.script().add_shard(&fake.arn, None).unwrap();
    fake.script().set_disabled(&fake.arn).unwrap();
    fake.script().clock().advance(24 * HOUR - MINUTE);
    assert_eq!(fake.listed_ids().await.len(), 1);
    fake.script().clock().advance(MINUTE);
    assert_eq!(all_shards(&fake.client, &fake.arn).await.unwrap_err(), NOT_FOUND);
    assert!(fake.client.list_streams().send().await.unwrap().streams().is_empty());
    fake.server.stop().await;
}

#[tokio::test]
async fn an_iterator_at_a_time_starts_with_the_first_record_not_older() {
    let fake = Fake::start().await;
    let script = fake.script();
    let shard = script.add_shard(&fake.arn, None).unwrap();
    let now_s = i64::try_from(script.clock().now_ms() / 1000).unwrap();
    let at_age = |age_s: i64| record().created_ms(u64::try_from((now_s - age_s) * 1000).unwrap());
    script.put(&fake.arn, &shard, &[at_age(300), at_age(200), at_age(100)]).unwrap();
    let at_time = |age_s: i64| {
        fake.client
            .get_shard_iterator()
            .stream_arn(&fake.arn)
            .shard_id(&shard)
            .shard_iterator_type(ShardIteratorType::AtTimestamp)
            .timestamp(DateTime::from_secs(now_s - age_s))
            .send()
    };
    for (age_s, count) in [(1_000, 3), (200, 2), (199, 1), (0, 0)] {
        let at = at_time(age_s).await.unwrap().shard_iterator.unwrap();
        assert_eq!(read(&fake.client, &at).await.unwrap().records().len(), count, "{age_s} s ago");
    }
    let refused = at_time(-60).await.unwrap_err();
    assert_eq!(code(&refused), "ValidationException");
    fake.server.stop().await;
}

fn record() -> Record {
    Record::insert(r#"{"id":{"S":"a"}}"#, r#"{"id":{"S":"a"}}"#)
}
