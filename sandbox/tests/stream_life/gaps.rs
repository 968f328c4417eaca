//! Data that is gone before it was read: recorded, complained of, and passed over.

use std::time::Duration;

use warmcast_sandbox::streams::{Calls, ErrorCode, Fault, Operation, When};

use crate::life::*;

/// AWS: records are kept for 24 hours, and so are closed shards.
const RETENTION: Duration = Duration::from_secs(24 * 60 * 60);

/// The words of the log line that a person must see.
const COMPLAINT: [&str; 2] = [r#""level":"ERROR""#, "backfill"];

/// Keeps a shard from being read, and puts changes into it that nobody will ever see.
fn hold_back(life: &Life, shard: &str, key: &str) {
    let calls = Calls::of(Operation::GetRecords).shard(shard);
    life.fake().inject(Fault::Error(ErrorCode::LimitExceeded), calls, When::Always);
    life.fake().put(&life.arn, shard, &[change(key), change(key)]).unwrap();
}

async fn the_last_position(life: &Life, shard: &str) -> String {
    life.eventually("the position is checkpointed", || async {
        let leases = life.master.leases(&life.arn).await;
        let checkpoint = leases.get(shard)?.checkpoint.clone();
        checkpoint.starts_with("after:").then_some(checkpoint)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn records_trimmed_while_a_worker_reads_are_a_gap_and_reading_goes_on() {
    let mut life = Life::new().await;
    let (shard, other) = (life.add_shard(None), life.add_shard(None));
    life.start_workers(1, Tuning::default());
    life.put(&shard, "item");
    life.arrivals().await;
    let position = the_last_position(&life, &shard).await;
    hold_back(&life, &shard, "item");
    life.fake().trim(&life.arn, &shard).unwrap();
    life.put(&shard, "item");
    life.put(&other, "other");
    life.fake().clear_faults();
    life.assert_all_arrives_once().await;
    assert_eq!(life.master.gaps(&life.arn).await, [(shard.clone(), position)]);
    assert!(life.has_logged(&[COMPLAINT[0], COMPLAINT[1], &shard]), "{}", life.tails());
    assert!(!life.has_logged(&["shard failed"]), "{}", life.tails());
    life.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_trimmed_while_nobody_reads_are_a_gap_after_the_restart() {
    let mut life = Life::new().await;
    let shard = life.add_shard(None);
    life.start_workers(1, Tuning::default());
    life.put(&shard, "item");
    life.arrivals().await;
    life.stop_workers().await;
    let position = the_last_position(&life, &shard).await;
    life.fake().put(&life.arn, &shard, &[change("item"), change("item")]).unwrap();
    life.fake().trim(&life.arn, &shard).unwrap();
    life.put(&shard, "item");
    life.start_again();
    life.assert_all_arrives_once().await;
    assert_eq!(life.master.gaps(&life.arn).await, [(shard.clone(), position)]);
    assert!(life.has_logged(&[COMPLAINT[0], COMPLAINT[1], &shard]), "{}", life.tails());
    life.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_that_is_gone_while_it_is_read_is_a_gap_and_its_child_is_read() {
    let mut life = Life::new().await;
    let shard = life.add_shard(None);
    life.start_workers(2, Tuning::default());
    life.put(&shard, "item");
    life.arrivals().await;
    let position = the_last_position(&life, &shard).await;
    hold_back(&life, &shard, "item");
    let child = life.rollover(&shard);
    let neighbour = life.add_shard(None);
    // The service forgets the shard a day after it was closed.
    life.fake().clock().advance(RETENTION + Duration::from_secs(1));
    life.put(&child, "item");
    life.put(&neighbour, "other");
    life.fake().clear_faults();
    life.assert_all_arrives_once().await;
    assert_eq!(life.master.gaps(&life.arn).await, [(shard.clone(), position)]);
    assert!(life.has_logged(&[COMPLAINT[0], COMPLAINT[1], &shard]), "{}", life.tails());
    assert_eq!(life.died(), None);
    life.stop().await;
}
