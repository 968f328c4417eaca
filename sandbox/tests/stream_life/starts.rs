//! A stream is begun from now on, with more shards than one page of a listing has.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;
use warmcast_sandbox::streams::{Calls, ErrorCode, FakeStreams, Fault, Operation, Record, When};

use crate::life::*;

/// Listed on two pages, of which the leaves alone are read. AWS: 100 shards a page.
const LIVE: usize = 110;
const GENERATIONS: usize = 2;

/// Older than what counts as now.
const OLD: Duration = Duration::from_secs(600);

fn from_now() -> Tuning {
    Tuning { initial_position: "latest", idle_poll_max_ms: 500, ..Tuning::default() }
}

/// Puts old changes into a shard, which must not arrive.
fn put_old(life: &Life, shard: &str, count: usize) {
    life.fake().put(&life.arn, shard, &vec![old_change("old"); count]).unwrap();
}

fn old_change(key: &str) -> Record {
    let at = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap() - OLD;
    change(key).created_ms(u64::try_from(at.as_millis()).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_begun_from_now_gives_new_changes_only() {
    let mut life = Life::new().await;
    life.fake().grow(&life.arn, LIVE, GENERATIONS).unwrap();
    let shards = life.fake().live_shards(&life.arn).unwrap();
    for shard in &shards {
        put_old(&life, shard, 2);
    }
    let since = Instant::now();
    life.start_workers(2, from_now());
    let arn = life.arn.clone();
    let every_leaf = |fake: &FakeStreams| fake.live_shards_read_since(&arn, since).unwrap() == LIVE;
    life.until("every leaf is read", every_leaf).await;
    for (n, shard) in shards.iter().enumerate() {
        life.put(shard, &format!("item-{n}"));
    }
    life.assert_all_arrives_once().await;
    // The old ones were not even asked for.
    assert_eq!(life.records_read(&life.arn), LIVE as u64);
    // A shard that comes later is read from its first record on, whatever its time.
    let child = life.rollover(&shards[0]);
    let old = life.fake().put(&life.arn, &child, &[old_change("item-0")]).unwrap();
    life.ledger.expect("item-0", 1, &old);
    life.assert_all_arrives_once().await;
    life.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_without_iterators_by_time_is_read_from_its_oldest_record_and_filtered() {
    let mut life = Life::new().await;
    let shard = life.add_shard(None);
    put_old(&life, &shard, 50);
    let refused = Fault::Error(ErrorCode::Validation);
    life.fake().inject(refused, Calls::of(Operation::GetShardIterator), When::Next(1));
    life.put(&shard, "item");
    life.start_workers(1, from_now());
    life.put(&shard, "item");
    life.assert_all_arrives_once().await;
    assert_eq!(life.records_read(&life.arn), 52, "the old ones were passed over");
    life.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn iterators_that_are_refused_for_a_while_only_delay() {
    let mut life = Life::new().await;
    let shards: Vec<String> = (0..5).map(|_| life.add_shard(None)).collect();
    let refused = Fault::Error(ErrorCode::Validation);
    life.fake().inject(refused, Calls::of(Operation::GetShardIterator), When::Next(12));
    for (n, shard) in shards.iter().enumerate() {
        put_old(&life, shard, 3);
        life.put(shard, &format!("item-{n}"));
    }
    life.start_workers(2, from_now());
    life.assert_all_arrives_once().await;
    life.stop().await;
}
