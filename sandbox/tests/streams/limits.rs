//! The service's limits on calls, where the options enforce them.

use std::time::Duration;

use warmcast_sandbox::streams::{Clock, Operation, Options};

use crate::support::*;

#[tokio::test]
async fn more_describes_than_the_limit_are_refused_until_time_passes() {
    let options = Options { clock: Clock::manual(), describes_per_second: Some(10), ..Options::default() };
    let fake = Fake::with(options).await;
    let other = fake.script().create_stream("other", None).unwrap();
    let describe = |arn: String| {
        let client = fake.client.clone();
        async move { all_shards(&client, &arn).await.err() }
    };
    for _ in 0..10 {
        assert_eq!(describe(fake.arn.clone()).await, None);
    }
    assert_eq!(describe(fake.arn.clone()).await.as_deref(), Some("LimitExceededException"));
    // Each stream has its own limit, and time fills it again.
    assert_eq!(describe(other).await, None);
    fake.script().clock().advance(Duration::from_millis(100));
    assert_eq!(describe(fake.arn.clone()).await, None);
    assert_eq!(describe(fake.arn.clone()).await.as_deref(), Some("LimitExceededException"));
    fake.server.stop().await;
}

#[tokio::test]
async fn a_third_reader_is_refused_where_the_limit_is_enforced() {
    let fake =
        Fake::with(Options { clock: Clock::manual(), readers_per_shard: Some(2), ..Options::default() })
            .await;
    let shard = fake.script().add_shard(&fake.arn, None).unwrap();
    let at = fake.iterator(&shard).await;
    let readers = ["a", "b", "c"].map(|id| fake.reader(id));
    // Readers count together within a second: on a machine that is slower than that, once more.
    let mut refused = 0;
    for _ in 0..20 {
        for reader in &readers {
            match read(reader, &at).await {
                Ok(_) => {}
                Err(code) => {
                    assert_eq!(code, "LimitExceededException");
                    refused += 1;
                }
            }
        }
    }
    assert!(refused > 0);
    let reads = fake.script().reads(&fake.arn, &shard).unwrap().unwrap();
    assert!(reads.readers_at_once_max <= 2);
    assert_eq!(fake.script().calls(Operation::GetRecords), 60);
    fake.server.stop().await;
}

#[tokio::test]
async fn a_read_returns_a_thousand_records_or_a_megabyte() {
    let fake = Fake::start().await;
    let many = fake.script().add_shard(&fake.arn, None).unwrap();
    let large = fake.script().add_shard(&fake.arn, None).unwrap();
    fake.script().put_items(&fake.arn, &many, 1_500, 100).unwrap();
    fake.script().put_items(&fake.arn, &large, 5, 300 << 10).unwrap();
    for (shard, pages) in [(many, [1_000, 500].as_slice()), (large, [3, 2].as_slice())] {
        let mut at = fake.iterator(&shard).await;
        for expected in pages {
            let page = read(&fake.client, &at).await.unwrap();
            assert_eq!(page.records().len(), *expected);
            at = page.next_shard_iterator.unwrap();
        }
    }
    fake.server.stop().await;
}
