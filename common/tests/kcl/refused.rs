//! What is not imported, and why.

use std::time::Duration;

use tokio::task::JoinSet;
use warmcast_common::consumer::kcl::ImportError;
use warmcast_common::consumer::store::Begin;
use warmcast_common::consumer::{Checkpoint, Shard};

use super::world::{Item, KCL_STREAM, STREAM, World, create_table, flags};

const LISTING: &[(&str, &[&str])] = &[("a", &[]), ("b", &[])];

/// Renews the lease of `a` while `work` is done.
async fn while_renewed<T>(world: &World, work: impl Future<Output = T>) -> T {
    let renew = async {
        for counter in 0.. {
            world.put([Item::lease("a", "5").owner("w7", counter)]).await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        unreachable!("it renews for ever")
    };
    tokio::select! {
        done = work => done,
        () = renew => unreachable!("it renews for ever"),
    }
}

#[tokio::test]
async fn an_application_that_runs_is_refused_by_the_names_of_its_workers_unless_forced() {
    let world = World::start(LISTING).await;
    world.put([Item::lease("a", "5").owner("w7", 0), Item::lease("b", "6").owner("killed", 3)]).await;
    let refused = while_renewed(&world, Box::pin(world.import(&flags()))).await.unwrap_err();
    assert!(matches!(&refused, ImportError::Running { owners, .. } if owners == &["w7"]), "{refused}");
    assert!(!world.state_table_exists().await);

    let mut dry = flags();
    dry.dry_run = true;
    let report = while_renewed(&world, Box::pin(world.import(&dry))).await.unwrap();
    assert!(report.warnings[0].contains("still runs: w7"), "{:?}", report.warnings);
    assert!(!world.state_table_exists().await);

    let mut forced = flags();
    forced.force = true;
    let report = while_renewed(&world, Box::pin(world.import(&forced))).await.unwrap();
    assert_eq!((report.totals().imported, report.warnings.len()), (2, 1));
    assert_eq!(world.state().await.leases.len(), 2);
}

#[tokio::test]
async fn what_a_daemon_has_done_since_is_never_overwritten() {
    let world = World::start(LISTING).await;
    world.put([Item::lease("a", "5"), Item::lease("b", "6")]).await;
    world.import(&flags()).await.unwrap();
    let lease = world.store.lease(STREAM, "a").await.unwrap().unwrap();
    world.store.take_lease(&lease, "w1").await.unwrap();
    let before = world.state().await;
    // One more, which alone could be written.
    world.put([Item::lease("c", "7")]).await;
    let report = world.import(&flags()).await.unwrap();
    assert!(report.is_refused());
    assert_eq!((report.totals().conflicts, report.totals().unchanged, report.totals().imported), (1, 1, 1));
    assert_eq!(world.state().await, before);
}

#[tokio::test]
async fn a_stream_that_a_daemon_has_begun_elsewhere_is_refused() {
    let world = World::start(LISTING).await;
    world.put([Item::lease("a", "5")]).await;
    world.store.ensure_table(true).await.unwrap();
    world.store.begin_stream(STREAM, &Checkpoint::AtTime(9)).await.unwrap();
    assert!(world.import(&flags()).await.unwrap().is_refused());
    assert_eq!(world.state().await.leases, []);
}

#[tokio::test]
async fn a_lease_that_kcl_has_not_is_in_the_way() {
    let world = World::start(LISTING).await;
    world.put([Item::lease("a", "5")]).await;
    world.store.ensure_table(true).await.unwrap();
    let shard = Shard { id: "b".to_owned(), parents: Vec::new() };
    world.store.create_lease(STREAM, &shard, &Checkpoint::TrimHorizon, Begin::Now).await.unwrap();
    let report = world.import(&flags()).await.unwrap();
    assert!(report.is_refused());
    let human = report.render(flags().output);
    assert!(human.contains("\nconflict   b  - -> trim-horizon  (owned by nobody)\n"), "{human}");
}

#[tokio::test]
async fn several_streams_are_listed_until_one_is_named() {
    let world = World::start(LISTING).await;
    let clicks = "123456789012:clicks:1700000000";
    world.put([Item::lease_of(clicks, "a", "5"), Item::lease_of(KCL_STREAM, "a", "6")]).await;
    let several = world.import(&flags()).await.unwrap_err().to_string();
    assert!(several.contains(clicks) && several.contains(KCL_STREAM), "{several}");
    let mut args = flags();
    args.kcl_stream = Some("clicks".to_owned());
    let other = world.import(&args).await.unwrap_err();
    assert!(matches!(&other, ImportError::OtherStream { theirs, .. } if theirs == clicks), "{other}");
    assert!(!world.state_table_exists().await);
}

#[tokio::test]
async fn checkpoints_of_a_stream_that_was_enabled_again_are_refused() {
    let world = World::start(LISTING).await;
    // The keys of an application with one stream do not tell, but the shards do.
    world.put([Item::lease("x", "5"), Item::lease("y", "SHARD_END")]).await;
    let unknown = world.import(&flags()).await.unwrap_err();
    assert!(matches!(unknown, ImportError::NoShardKnown { leases: 2, .. }), "{unknown}");
    // Those of one with several do.
    let earlier = KCL_STREAM.replace("2026", "2025");
    let world = World::start(LISTING).await;
    world.put([Item::lease_of(&earlier, "a", "5")]).await;
    let other = world.import(&flags()).await.unwrap_err();
    assert!(matches!(other, ImportError::OtherStream { .. }), "{other}");
    assert!(!world.state_table_exists().await);
}

#[tokio::test]
async fn a_table_without_leases_is_refused_with_what_is_in_it() {
    let world = World::start(LISTING).await;
    let empty = world.import(&flags()).await.unwrap_err().to_string();
    assert!(empty.contains("table profiles-consumer has no lease of KCL"), "{empty}");
    create_table(&world.client, "coordinator", "key").await;
    let item = world.client.put_item().table_name("coordinator");
    let key = aws_sdk_dynamodb::types::AttributeValue::S("Leader".to_owned());
    item.item("key", key).send().await.unwrap();
    let mut args = flags();
    args.kcl_table = "coordinator".to_owned();
    let wrong = world.import(&args).await.unwrap_err().to_string();
    assert!(wrong.contains("is this the lease table of a KCL application?"), "{wrong}");
    args.kcl_table = "missing".to_owned();
    let missing = world.import(&args).await.unwrap_err().to_string();
    assert!(missing.contains("lease table missing") && missing.contains("check the name"), "{missing}");
}

#[tokio::test]
async fn two_imports_at_once_write_every_lease_once() {
    let world = World::start(LISTING).await;
    world.put([Item::lease("a", "5"), Item::lease("b", "6")]).await;
    let world = std::sync::Arc::new(world);
    let mut imports = JoinSet::new();
    for _ in 0..4 {
        let world = std::sync::Arc::clone(&world);
        imports.spawn(async move { world.import(&flags()).await.map(|_| ()) });
    }
    for import in imports.join_all().await {
        import.unwrap();
    }
    assert_eq!(world.state().await.leases.len(), 2);
}
