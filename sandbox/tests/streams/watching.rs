//! What a fake tells of who read what and when.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::{Instant, timeout};
use warmcast_sandbox::streams::Operation;

use crate::support::*;

#[tokio::test]
async fn calls_are_counted_by_operation_and_by_reader() {
    let fake = Fake::start().await;
    let shard = fake.script().add_shard(&fake.arn, None).unwrap();
    let at = fake.iterator(&shard).await;
    let worker = fake.reader("worker-1");
    for _ in 0..3 {
        read(&worker, &at).await.unwrap();
    }
    read(&fake.client, &at).await.unwrap();
    read(&worker, "garbage").await.unwrap_err();
    let script = fake.script();
    assert_eq!(script.calls(Operation::GetRecords), 5);
    assert_eq!(script.calls_by("worker-1", Operation::GetRecords), 4);
    assert_eq!(script.calls_by("worker-1", Operation::GetShardIterator), 0);
    assert_eq!(script.calls_by("nobody", Operation::GetRecords), 0);
    fake.server.stop().await;
}

#[tokio::test]
async fn records_delivered_again_are_told_apart() {
    let fake = Fake::start().await;
    let shard = fake.script().add_shard(&fake.arn, None).unwrap();
    fake.script().put_items(&fake.arn, &shard, 4, 300).unwrap();
    let at = fake.iterator(&shard).await;
    read(&fake.reader("worker-1"), &at).await.unwrap();
    fake.script().put_items(&fake.arn, &shard, 2, 300).unwrap();
    read(&fake.reader("worker-2"), &at).await.unwrap();
    assert_eq!(fake.script().delivered(&fake.arn).unwrap(), (10, 4));
    let reads = fake.script().reads(&fake.arn, &shard).unwrap().unwrap();
    assert_eq!((reads.reads, reads.delivered, reads.delivered_again), (2, 10, 4));
    assert_eq!(reads.readers.iter().map(|reader| &**reader).collect::<Vec<_>>(), ["worker-2", "worker-1"]);
    assert!(reads.first_read_at.unwrap() < reads.last_read_at.unwrap());
    fake.server.stop().await;
}

#[tokio::test]
async fn live_shards_are_counted_as_read_since_an_instant() {
    let fake = Fake::start().await;
    let script = fake.script();
    script.grow(&fake.arn, 20, 3).unwrap();
    let live = script.live_shards(&fake.arn).unwrap();
    assert_eq!(script.live_shards_read_since(&fake.arn, Instant::now()).unwrap(), 0);
    let start = Instant::now();
    for (n, shard) in live.iter().take(15).enumerate() {
        let reader = fake.reader(if n < 10 { "worker-1" } else { "worker-2" });
        read(&reader, &fake.iterator(shard).await).await.unwrap();
    }
    assert_eq!(script.live_shards_read_since(&fake.arn, start).unwrap(), 15);
    assert_eq!(script.live_shards_read_since(&fake.arn, Instant::now()).unwrap(), 0);
    let readers = script.last_readers(&fake.arn).unwrap();
    assert_eq!(readers.values().filter(|reader| &***reader == "worker-1").count(), 10);
    assert_eq!(readers.len(), 15);
    // A closed shard is not live.
    script.rollover(&fake.arn, &live[0]).unwrap();
    assert_eq!(script.live_shards_read_since(&fake.arn, start).unwrap(), 14);
    let ids: HashSet<_> =
        script.live_reads(&fake.arn).unwrap().into_iter().map(|reads| reads.shard).collect();
    assert_eq!(ids.len(), 14);
    assert!(script.reads(&fake.arn, &live[19]).unwrap().is_none());
    fake.server.stop().await;
}

#[tokio::test]
async fn the_longest_pause_of_each_shard_is_told() {
    let fake = Fake::start().await;
    let script = fake.script();
    let shard = script.add_shard(&fake.arn, None).unwrap();
    let at = fake.iterator(&shard).await;
    read(&fake.client, &at).await.unwrap();
    let before = Instant::now();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let pause = before.elapsed();
    read(&fake.client, &at).await.unwrap();
    let pause_max = |script: &warmcast_sandbox::streams::FakeStreams| script.pauses(&fake.arn).unwrap()[0].1;
    assert!(pause_max(script) >= pause);
    script.reset_pauses(&fake.arn).unwrap();
    let read_at = script.reads(&fake.arn, &shard).unwrap().unwrap().last_read_at.unwrap();
    // Only the pause that has not ended is left.
    let told = pause_max(script);
    assert!(told <= read_at.elapsed(), "{told:?}");
    fake.server.stop().await;
}

#[tokio::test]
async fn the_most_describes_in_a_second_are_told_for_each_stream() {
    let fake = Fake::start().await;
    let other = fake.script().create_stream("other", None).unwrap();
    let start = Instant::now();
    for _ in 0..8 {
        fake.listed().await;
    }
    let most = fake.script().describes_per_second_max(&fake.arn).unwrap();
    if start.elapsed() < Duration::from_secs(1) {
        assert_eq!(most, 8);
    } else {
        assert!((1..=8).contains(&most));
    }
    assert_eq!(fake.script().describes_per_second_max(&other).unwrap(), 0);
    fake.script().reset_describe_rate(&fake.arn).unwrap();
    assert_eq!(fake.script().describes_per_second_max(&fake.arn).unwrap(), 0);
    fake.server.stop().await;
}

#[tokio::test]
async fn a_test_can_wait_for_what_it_wants_to_see() {
    let fake = Fake::start().await;
    let shard = fake.script().add_shard(&fake.arn, None).unwrap();
    let at = fake.iterator(&shard).await;
    let script = fake.script().clone();
    let seen = script.until(|streams| streams.calls_by("late", Operation::GetRecords) == 2);
    let reader = fake.reader("late");
    let reading = async {
        for _ in 0..2 {
            read(&reader, &at).await.unwrap();
        }
    };
    timeout(PATIENCE, async { tokio::join!(seen, reading) }).await.unwrap();
    fake.server.stop().await;
}
