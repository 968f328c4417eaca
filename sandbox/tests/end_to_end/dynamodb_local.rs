//! The same path with Amazon's own DynamoDB.

use warmcast_sandbox::dynamodb::Flavour;
use warmcast_sandbox::world::{World, WorldOptions};

use crate::support::*;

/// For machines that cannot have Java.
const WITHOUT: &str = "WARMCAST_WITHOUT_DYNAMODB_LOCAL";

#[tokio::test(flavor = "multi_thread")]
async fn traffic_through_dynamodb_local_ends_with_equal_regions() {
    if std::env::var_os(WITHOUT).is_some_and(|value| value == "1") {
        println!("NOT TESTED: {WITHOUT}=1, so nothing was run against Amazon's DynamoDB Local");
        return;
    }
    let options = WorldOptions { dynamodb: Flavour::Local, ..WorldOptions::default() };
    let mut world = World::start(&options).await.unwrap_or_else(|error| {
        panic!(
            "{error}\n`make test` installs what is missing, as does `sandbox/setup.sh java dynamodb-local`; \
             {WITHOUT}=1 leaves this test out"
        )
    });
    let traffic = Traffic::start(&world);
    traffic.more(1_000).await;
    let ledger = traffic.finish().await;
    assert_regions_equal(&mut world, &ledger).await;
    stop(world).await;
}
