//! A daemon is killed in the middle of the traffic. Nothing is lost, and no checkpoint was ahead of its effects.

use warmcast_sandbox::checkpoints::{self, Checkpoint};
use warmcast_sandbox::world::World;

use crate::support::*;

/// Waits until the fleet has checkpointed a position, or more of them than it had.
async fn wait_for_checkpoint(world: &World, state_table: &str, before: &[Checkpoint]) -> Vec<Checkpoint> {
    eventually(&format!("a new checkpoint in {state_table}"), || async {
        let now = checkpoints::read_checkpoints(&world.dynamodb(), state_table).await.unwrap();
        let now: Vec<Checkpoint> = now.into_values().collect();
        let is_new = now.iter().any(|it| matches!(it, Checkpoint::After(_)) && !before.contains(it));
        is_new.then_some(now)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_aggregator_loses_nothing_and_has_no_checkpoint_ahead() {
    let mut world = world().await;
    let traffic = Traffic::start(&world);
    let table = world.aggregator().state_table().to_owned();
    let mut seen = Vec::new();
    for _ in 0..2 {
        traffic.more(400).await;
        seen = wait_for_checkpoint(&world, &table, &seen).await;
        world.aggregator_mut().kill().await.unwrap();
        let report = checkpoints::check_aggregator(&world).await.unwrap();
        assert!(report.covered > 0, "{report:?}");
        assert!(report.violations.is_empty(), "{:#?}", report.violations);
        traffic.more(100).await;
        world.aggregator_mut().start().unwrap();
    }
    traffic.more(200).await;
    let ledger = traffic.finish().await;
    assert_regions_equal(&mut world, &ledger).await;
    stop(world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_cache_writer_loses_nothing_and_has_no_checkpoint_ahead() {
    let mut world = world().await;
    let traffic = Traffic::start(&world);
    let table = world.regions()[0].cache_writer().state_table().to_owned();
    let mut seen = Vec::new();
    for _ in 0..2 {
        traffic.more(400).await;
        seen = wait_for_checkpoint(&world, &table, &seen).await;
        world.regions_mut()[0].cache_writer_mut().kill().await.unwrap();
        let report = checkpoints::check_cache_writer(&world, &world.regions()[0]).await.unwrap();
        assert!(report.covered > 0, "{report:?}");
        assert!(report.violations.is_empty(), "{:#?}", report.violations);
        traffic.more(100).await;
        world.regions_mut()[0].cache_writer_mut().start().unwrap();
    }
    traffic.more(200).await;
    let ledger = traffic.finish().await;
    assert_regions_equal(&mut world, &ledger).await;
    stop(world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_checkpoint_would_be_found() {
    let mut world = world().await;
    // The cache-writer of the second region is down while rows are written: its Redis lacks them.
    let state_table = world.regions()[1].cache_writer().state_table().to_owned();
    world.regions_mut()[1].cache_writer_mut().kill().await.unwrap();
    for index in 0..5 {
        put(&world, TABLE, Default::default(), &format!("row-{index}")).await;
    }
    wait_for_entry(&world, 0, (TABLE, "row-4"), is_live).await;
    let report = checkpoints::check_cache_writer(&world, &world.regions()[1]).await.unwrap();
    assert!(report.violations.is_empty(), "{:#?}", report.violations);

    let forged = checkpoints::forge_checkpoint(&world.dynamodb(), &state_table, "shard-end").await.unwrap();
    assert!(forged > 0);
    // Region 0 has the rows, so region 1's stream has them, too: they are put in one go for all regions or
    // a moment later.
    let violations = eventually("the forged checkpoint is found out", || async {
        let report = checkpoints::check_cache_writer(&world, &world.regions()[1]).await.unwrap();
        (report.violations.len() >= 5).then_some(report.violations)
    })
    .await;
    assert_eq!(violations.len(), 5, "{violations:#?}");

    // The same for the aggregator: rows that it never read, under a checkpoint that claims everything.
    world.aggregator_mut().kill().await.unwrap();
    let state_table = world.aggregator().state_table().to_owned();
    put(&world, TABLE, Default::default(), "unread").await;
    let forged = checkpoints::forge_checkpoint(&world.dynamodb(), &state_table, "shard-end").await.unwrap();
    assert!(forged > 0);
    let report = checkpoints::check_aggregator(&world).await.unwrap();
    assert_eq!(report.violations.len(), 1, "{:#?}", report.violations);
    assert!(report.violations[0].missing.contains("unread"), "{:#?}", report.violations);
    stop(world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_daemons_stop_and_start_gracefully() {
    let mut world = world().await;
    let traffic = Traffic::start(&world);
    traffic.more(200).await;
    let aggregator = world.aggregator_mut().terminate().await.unwrap().unwrap();
    assert!(aggregator.success(), "aggregator: {aggregator}\n{}", world.tails());
    let cache_writer = world.regions_mut()[0].cache_writer_mut().terminate().await.unwrap().unwrap();
    assert!(cache_writer.success(), "cache-writer: {cache_writer}\n{}", world.tails());
    traffic.more(100).await;
    world.start_daemons().unwrap();
    let ledger = traffic.finish().await;
    assert_regions_equal(&mut world, &ledger).await;
    stop(world).await;
}
