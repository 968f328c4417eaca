//! What becomes of an application's leases.

use serde_json::Value;
use warmcast_common::clock::now_ms;
use warmcast_common::consumer::store::Begin;
use warmcast_common::consumer::{Checkpoint, Shard};
use warmcast_common::daemon::OutputFormat;

use super::world::{Item, KCL_STREAM, STREAM, TABLE, World, flags};

/// A stream whose first two shards have a child each, and the second a grandchild.
const LISTING: &[(&str, &[&str])] =
    &[("a", &[]), ("a1", &["a"]), ("b", &[]), ("b1", &["b"]), ("b2", &["b1"])];

fn leases(expected: &[(&str, u64, &str)]) -> Vec<(String, u64, String)> {
    expected.iter().map(|(shard, epoch, at)| ((*shard).to_owned(), *epoch, (*at).to_owned())).collect()
}

#[tokio::test]
async fn the_leases_of_a_stopped_application_are_where_our_consumer_starts() {
    let world = World::start(LISTING).await;
    world
        .put([
            Item::lease("a", "SHARD_END").parents(&["long-gone"]),
            Item::lease("a1", "400000000000000000001").parents(&["a"]).owner("killed", 9),
            Item::lease("b", "300000000000000000001").text("pendingCheckpoint", "300000000000000000009"),
            Item::lease("b1", "TRIM_HORIZON").parents(&["b"]),
        ])
        .await;
    let report = world.import(&flags()).await.unwrap();
    assert_eq!((report.totals().imported, report.has_problems()), (4, false), "{report:?}");
    let (found, start) = world.leases().await;
    let expected = [
        ("a", 1, "shard-end"),
        ("a1", 1, "after:400000000000000000001"),
        ("b", 1, "after:300000000000000000001"),
        ("b1", 0, "trim-horizon"),
    ];
    assert_eq!(found, leases(&expected));
    assert_eq!(start, Some(Checkpoint::TrimHorizon));
    let parents: Vec<_> = world.state().await.leases.into_iter().flat_map(|lease| lease.parents).collect();
    assert_eq!(parents, ["long-gone", "a", "b"]);
    assert_eq!(world.store.generation(TABLE, STREAM).await.unwrap(), 1);
    assert_eq!(world.store.generations(TABLE).await.unwrap().len(), 1, "the import assigned it");
}

#[tokio::test]
async fn what_cannot_be_taken_over_to_the_letter_is_reported_by_name() {
    let world = World::start(LISTING).await;
    world
        .put([
            Item::lease("a", "LATEST"),
            Item::lease("a1", "AT_TIMESTAMP"),
            Item::lease("b", "400000000000000000001").number("checkpointSubSequenceNumber", 3),
            Item::lease("b1", "not-a-number"),
            Item::lease("gone-finished", "SHARD_END"),
            Item::lease("gone-unread", "TRIM_HORIZON"),
            Item::lease("gone-begun", "200000000000000000001"),
        ])
        .await;
    let before_ms = now_ms();
    let mut args = flags();
    args.output = OutputFormat::Json;
    let report = world.import(&args).await.unwrap();
    assert!(report.has_problems() && !report.is_refused());
    let (found, _) = world.leases().await;
    let latest: u64 = found[0].2.strip_prefix("at-time:").unwrap().parse().unwrap();
    assert!((before_ms..=now_ms()).contains(&latest), "{latest}");
    let expected = [("b", 1, "trim-horizon"), ("gone-begun", 1, "after:200000000000000000001")];
    assert_eq!(found[1..], leases(&expected));

    let json: Value = serde_json::from_str(&report.render(OutputFormat::Json)).unwrap();
    let shard = |name: &str| {
        let shards = json["shards"].as_array().unwrap();
        shards.iter().find(|entry| entry["shard"] == name).unwrap().clone()
    };
    assert_eq!((&shard("a")["action"], &shard("a")["kcl"]), (&"import".into(), &"LATEST".into()));
    assert_eq!((&shard("a1")["action"], &shard("a1")["ours"]), (&"skip".into(), &Value::Null));
    assert!(shard("a1")["remark"].as_str().unwrap().contains("AT_TIMESTAMP"));
    assert_eq!(shard("b")["kcl"], "400000000000000000001/3");
    assert_eq!(json["unreadable"][0]["key"], "b1");
    let totals = &json["totals"];
    assert_eq!((&totals["imported"], &totals["skipped"]), (&3.into(), &3.into()));
    assert_eq!((&totals["problems"], &totals["conflicts"]), (&3.into(), &0.into()));
    let human = report.render(OutputFormat::Human);
    assert!(human.contains("\nskip       gone-finished  SHARD_END -> -  (gone from the stream"), "{human}");
    assert!(human.contains("\nproblem    item \"b1\" of the lease table"), "{human}");
    assert!(human.ends_with(
        "\n3 imported, 0 unchanged, 3 skipped, 3 problems, 0 conflicts; 0 items are not leases\n"
    ));
}

#[tokio::test]
async fn a_table_of_kcl_3_5_is_imported_without_what_is_not_a_lease() {
    let world = World::start(LISTING).await;
    world
        .put([
            Item::lease_of(KCL_STREAM, "a", "5").text("entityType", "LEASE"),
            Item::lease_of("123456789012:clicks:1700000000", "a", "6").text("entityType", "LEASE"),
            Item::other("Leader", "LEADER"),
            Item::other(KCL_STREAM, "STREAM"),
            Item::other("worker-1", "WORKER_METRIC_STATS").number("lut", 1),
            Item::other("Migration3.0", "CLIENT_VERSION_MIGRATION"),
            Item::other("TableMigration3.5", "TABLE_MIGRATION"),
        ])
        .await;
    let mut args = flags();
    args.kcl_stream = Some(TABLE.to_owned());
    let report = world.import(&args).await.unwrap();
    assert_eq!((report.others, report.kcl_stream.as_deref()), (5, Some(KCL_STREAM)));
    assert_eq!(world.leases().await.0, leases(&[("a", 1, "after:5")]));
}

#[tokio::test]
async fn more_leases_than_one_answer_holds_are_all_imported() {
    let names: Vec<String> = (0..400).map(|number| format!("shard-{number:04}")).collect();
    let listing: Vec<(&str, &[&str])> = names.iter().map(|name| (name.as_str(), &[][..])).collect();
    let world = World::start(&listing).await;
    // 4 KiB each: more than the 1 MiB that a scan answers with.
    let padding = "x".repeat(4_096);
    world.put(names.iter().map(|name| Item::lease(name, "7").text("pendingCheckpoint", &padding))).await;
    let page = world.client.scan().table_name(flags().kcl_table).send().await.unwrap();
    assert!(page.last_evaluated_key().is_some(), "the test must need more than one page");
    assert_eq!(world.import(&flags()).await.unwrap().totals().imported, 400);
    assert_eq!(world.state().await.leases.len(), 400);
}

#[tokio::test]
async fn a_dry_run_reports_the_same_and_writes_nothing() {
    let world = World::start(LISTING).await;
    world.put([Item::lease("a", "5"), Item::lease("a1", "AT_TIMESTAMP").parents(&["a"])]).await;
    let mut args = flags();
    args.dry_run = true;
    let dry = world.import(&args).await.unwrap();
    assert!(!world.state_table_exists().await);
    assert!(dry.render(OutputFormat::Human).ends_with("dry run: nothing was written\n"));
    let wet = world.import(&flags()).await.unwrap();
    assert_eq!((dry.plan, dry.unreadable, dry.warnings), (wet.plan, wet.unreadable, wet.warnings));
    assert_eq!(world.leases().await.0, leases(&[("a", 1, "after:5")]));
}

#[tokio::test]
async fn an_import_that_stopped_half_way_is_finished_by_the_next() {
    let world = World::start(LISTING).await;
    world
        .put([Item::lease("a", "5"), Item::lease("b", "LATEST"), Item::lease("b1", "6").parents(&["b"])])
        .await;
    world.store.ensure_table(true).await.unwrap();
    let shard = |id: &str| Shard { id: id.to_owned(), parents: Vec::new() };
    let (five, earlier) = ("after:5".parse().unwrap(), Checkpoint::AtTime(1_000));
    world.store.create_lease(STREAM, &shard("a"), &five, Begin::Now).await.unwrap();
    world.store.create_lease(STREAM, &shard("b"), &earlier, Begin::Now).await.unwrap();
    let report = world.import(&flags()).await.unwrap();
    assert_eq!((report.totals().imported, report.totals().unchanged), (1, 2), "{report:?}");
    let expected = leases(&[("a", 1, "after:5"), ("b", 1, "at-time:1000"), ("b1", 1, "after:6")]);
    assert_eq!(world.leases().await, (expected.clone(), Some(Checkpoint::TrimHorizon)));
    let again = world.import(&flags()).await.unwrap();
    assert_eq!((again.totals().imported, again.totals().unchanged), (0, 3));
    assert_eq!(world.leases().await.0, expected);
}
