//! How often a fleet lists a large stream. AWS: DescribeStream, ten calls a second for an account.

use tokio::time::Instant;
use warmcast_sandbox::streams::{FakeStreams, Operation};

use crate::life::*;

const DESCRIBES_PER_SECOND_MAX: usize = 10;
/// Together 3,000 listed shards: 30 pages.
const LIVE: usize = 500;
const GENERATIONS: usize = 6;

async fn cold_start(initial_position: &'static str) {
    let mut life = Life::new().await;
    life.fake().grow(&life.arn, LIVE, GENERATIONS).unwrap();
    let since = Instant::now();
    // As by default, but for the idle polls: this machine has other tests to run.
    let tuning = Tuning {
        initial_position,
        sync_interval_ms: 10_000,
        listing_interval_ms: 120_000,
        idle_poll_max_ms: 5_000,
        ..Tuning::default()
    };
    life.start_workers(2, tuning);
    let arn = life.arn.clone();
    let most = |fake: &FakeStreams| fake.describes_per_second_max(&arn).unwrap();
    let every_leaf = |fake: &FakeStreams| fake.live_shards_read_since(&arn, since).unwrap() == LIVE;
    let decided = |fake: &FakeStreams| most(fake) > DESCRIBES_PER_SECOND_MAX || every_leaf(fake);
    life.until("every leaf is read", decided).await;
    let most = most(life.fake());
    let calls = life.fake().calls(Operation::DescribeStream);
    assert!(most <= DESCRIBES_PER_SECOND_MAX, "{most} in a second, {calls} in all\n{}", life.tails());
    assert!(!life.has_logged(&["shard is stuck"]), "{}", life.tails());
    assert_eq!(life.died(), None);
    life.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_that_begins_a_large_stream_from_now_keeps_to_the_limit_of_describe_stream() {
    cold_start("latest").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_that_begins_a_large_stream_from_its_oldest_record_keeps_to_the_limit_of_describe_stream() {
    cold_start("trim-horizon").await;
}
