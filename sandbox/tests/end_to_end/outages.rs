//! A region's Redis is away for some seconds. Its cache-writer waits, and the other region goes on.

use std::time::Duration;

use tokio::time::sleep;
use warmcast_sandbox::daemon::Daemon;
use warmcast_sandbox::world::World;

use crate::support::*;

/// Longer than any single attempt of the cache-writer.
const OUTAGE: Duration = Duration::from_secs(4);

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_redis_delays_its_own_region_only() {
    let mut world = world().await;
    let traffic = Traffic::start(&world);
    traffic.more(200).await;
    world.regions()[0].redis().freeze().unwrap();
    put(&world, TABLE, Default::default(), "while frozen").await;
    wait_for_entry(&world, 1, (TABLE, "while frozen"), is_live).await;
    sleep(OUTAGE).await;
    assert_eq!(world.ended(), None);
    world.regions()[0].redis().thaw().unwrap();
    let ledger = traffic.finish().await;
    assert_regions_equal(&mut world, &ledger).await;
    assert_few_complaints(&world);
    stop(world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_comes_back_empty_is_filled_with_what_follows() {
    let mut world = world().await;
    put(&world, TABLE, Default::default(), "before").await;
    wait_in_every_region(&world, "before", is_live).await;
    world.regions_mut()[0].redis_mut().kill().await.unwrap();
    for index in 0..20 {
        put(&world, TABLE, Default::default(), &format!("during-{index}")).await;
    }
    wait_for_entry(&world, 1, (TABLE, "during-19"), is_live).await;
    sleep(OUTAGE).await;
    assert_eq!(world.regions_mut()[0].cache_writer_mut().exit_status(), None, "{}", world.tails());
    world.regions_mut()[0].redis_mut().start_again().await.unwrap();
    put(&world, TABLE, Default::default(), "after").await;
    wait_for_entry(&world, 0, (TABLE, "after"), is_live).await;
    for index in 0..20 {
        wait_for_entry(&world, 0, (TABLE, &format!("during-{index}")), is_live).await;
    }
    assert_eq!(world.ended(), None);
    assert_few_complaints(&world);
    stop(world).await;
}

/// An outage is told, and not over and over: in these seconds, eight reducers and all shards of a region had nothing to
/// write to.
fn assert_few_complaints(world: &World) {
    let complaints = |daemon: &Daemon| daemon.log().warnings() + daemon.log().errors();
    let of_each: Vec<u64> = world.daemons().map(complaints).collect();
    assert!(of_each.iter().any(|count| *count > 0), "the outage is told: {of_each:?}");
    assert!(of_each.iter().all(|count| *count <= 40), "{of_each:?}: {}", world.tails());
}
