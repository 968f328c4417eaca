//! Calls without an answer: the shard alone is held up, and starts again.

use tokio::time::{Duration, Instant};
use warmcast_sandbox::streams::{Calls, Operation, When};

use crate::life::*;

/// Sooner than any timeout of the SDK's.
const STUCK_AFTER_MS: u64 = 2_000;
/// A timeout of the SDK's would take longer.
const RECOVERY_MAX: Duration = Duration::from_secs(8);

async fn one_shard_hangs(operation: Operation) {
    let mut life = Life::new().await;
    let shards: Vec<String> = (0..3).map(|_| life.add_shard(None)).collect();
    life.start_workers(1, Tuning { stuck_after_ms: STUCK_AFTER_MS, ..Tuning::default() });
    let families: Vec<Vec<String>> = (0..3).map(|n| keys(&format!("family-{n}"), 3)).collect();
    for (shard, family) in shards.iter().zip(&families) {
        life.put_each(shard, family, 2);
    }
    life.arrivals().await;
    let calls = life.fake().calls(operation);
    let hang = life.fake().hang(Calls::of(operation).shard(&shards[0]), When::Next(1));
    if operation == Operation::GetShardIterator {
        life.fake().clock().advance(Duration::from_secs(16 * 60));
    }
    life.until("a call hangs", |fake| fake.calls(operation) > calls).await;
    for (shard, family) in shards.iter().zip(&families).skip(1) {
        life.put_each(shard, family, 2);
    }
    // The others go on while the one hangs.
    life.arrivals().await;
    assert!(!life.has_logged(&["shard is stuck"]), "{}", life.tails());
    let since = Instant::now();
    life.put_each(&shards[0], &families[0], 2);
    let arrivals = life.arrivals().await;
    assert!(since.elapsed() < RECOVERY_MAX, "it took {:?}\n{}", since.elapsed(), life.tails());
    assert!(life.has_logged(&["shard is stuck", &shards[0]]), "{}", life.tails());
    assert!(shards[1..].iter().all(|shard| !life.has_logged(&["shard failed", shard])), "{}", life.tails());
    life.ledger.assert_arrived(&arrivals);
    drop(hang);
    life.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_without_an_answer_holds_up_its_shard_alone_and_only_for_a_while() {
    one_shard_hangs(Operation::GetRecords).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_iterator_that_never_comes_holds_up_its_shard_alone_and_only_for_a_while() {
    one_shard_hangs(Operation::GetShardIterator).await;
}
