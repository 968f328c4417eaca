//! What `/readyz` says of an aggregator that can, and of one that cannot do its part.

use aws_sdk_dynamodb::types::StreamViewType;

use super::endpoint::{Readiness, address, ask};
use super::servers::DynamoDb;
use super::wait::until;
use super::world::{Aggregator, config, directory, region};

#[tokio::test(flavor = "multi_thread")]
async fn an_aggregator_is_ready_when_it_reads_or_could_take_over_and_not_while_it_finds_no_stream() {
    let (dynamodb, near, letters) = (DynamoDb::start().await, region(1).await, directory());
    dynamodb.create_table("profiles", StreamViewType::NewImage).await;
    let config = |worker: &str, table: &str, number: u8| {
        let mut config = config(&dynamodb.url, &[table], &[&near.url], letters.path());
        config.worker_id = worker.to_owned();
        config.admin.listen = Some(address(number));
        config
    };
    let reads = Aggregator::start(config("w1", "profiles", 2));
    until("the one that reads is ready", async || Readiness::of(address(2)).await.ready).await;
    let stands_by = Aggregator::start(config("w2", "profiles", 3));
    until("the one that stands by is ready", async || Readiness::of(address(3)).await.ready).await;

    let finds_none = Aggregator::start(config("w3", "misspelt", 4));
    until("it knows the others", async || {
        ask(address(4), "/metrics", &[])
            .await
            .is_some_and(|answer| answer.body.contains("\nwarmcast_workers 3\n"))
    })
    .await;
    let readiness = Readiness::of(address(4)).await;
    assert!(!readiness.ready && readiness.met == ["fleet"], "{readiness:?}");
    assert_eq!(readiness.unmet, [("leases".to_owned(), "no stream is found yet".to_owned())]);
    dynamodb.create_table("misspelt", StreamViewType::NewImage).await;
    until("it has found its stream", async || Readiness::of(address(4)).await.ready).await;

    for aggregator in [finds_none, stands_by, reads] {
        aggregator.stop().await.unwrap();
    }
}
