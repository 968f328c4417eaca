//! `backfill`, against real servers inside this process.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_sdk_dynamodb::types::{AttributeValue, StreamViewType};
use clap::{Args as _, FromArgMatches as _};
use flate2::Compression;
use flate2::write::GzEncoder;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use warmcast_aggregator::Config;
use warmcast_aggregator::backfill::{Backfill, BackfillReport, Finding, carry_out};
use warmcast_aggregator::regions::reports;
use warmcast_common::clock::now_ms;
use warmcast_common::config::Document;
use warmcast_common::consumer::store::{LaneState, StateStore};
use warmcast_common::daemon::{ConfigError, read};
use warmcast_proto::change::{Change, ChangeKind};
use warmcast_proto::position::Position;

use super::fake_kinesis::FakeKinesis;
use super::servers::{DynamoDb, Kinesis};
use super::wait::until;
use super::world::{Aggregator, changes, config, config_text, region, text};

const TABLE: &str = "profiles";

/// A master and two regions.
struct World {
    dynamodb: DynamoDb,
    regions: [Kinesis; 2],
    store: StateStore,
    directory: TempDir,
}

impl World {
    async fn new() -> Self {
        let dynamodb = DynamoDb::start().await;
        dynamodb.create_table(TABLE, StreamViewType::NewImage).await;
        let store = StateStore::new(dynamodb.client.clone(), "state");
        let regions = [region(2).await, region(1).await];
        Self { dynamodb, regions, store, directory: tempfile::tempdir().unwrap() }
    }

    /// `more` are settings beside those of [`config_text`].
    fn config(&self, more: &str) -> Config {
        let urls = [&*self.regions[0].url, &*self.regions[1].url];
        let text = config_text(&self.dynamodb.url, &[TABLE], &urls, self.directory.path());
        read(Document::parse(&(text + more)).unwrap()).unwrap()
    }

    /// An aggregator runs until both regions are fed; then nobody does, and what is in the streams is what a backfill puts
    /// there.
    async fn fed(&self, config: &Config) {
        let aggregator = Aggregator::start(config.clone());
        until("both regions are fed", async || {
            let lanes = self.store.lanes().await.unwrap_or_default();
            lanes.len() == 2 && lanes.values().all(|lane| lane.begun.len() == 1)
        })
        .await;
        aggregator.stop().await.unwrap();
    }

    async fn put_rows(&self, rows: usize) {
        for row in 0..rows {
            self.dynamodb.put(TABLE, &row.to_string(), &"x".repeat(row % 50)).await;
        }
    }

    async fn lane(&self, name: &str) -> LaneState {
        self.store.lanes().await.unwrap().remove(name).unwrap()
    }

    /// What the region's stream has, by key.
    async fn sent(&self, region: usize) -> BTreeMap<String, Vec<Change>> {
        self.regions[region].changes(TABLE).await
    }
}

fn args(flags: &[&str]) -> Backfill {
    let command = Backfill::augment_args(clap::Command::new("backfill"));
    let all = ["backfill", "--config", "unused"].iter().chain(flags);
    Backfill::from_arg_matches(&command.try_get_matches_from(all).unwrap()).unwrap()
}

async fn run(config: &Config, flags: &[&str]) -> Result<BackfillReport, anyhow::Error> {
    match carry_out(&args(flags), config, &CancellationToken::new()).await? {
        Finding::Report(report) => Ok(report),
        Finding::Estimate(estimate) => panic!("{estimate:?}"),
    }
}

const BOTH: [&str; 4] = ["--region", "region-0", "--region", "region-1"];

#[tokio::test(flavor = "multi_thread")]
async fn each_region_gets_the_rows_of_its_view_and_what_was_asked_for_is_made() {
    let world = World::new().await;
    let long = "x".repeat(25);
    let filter = format!("[regions.region-1.tables.{TABLE}]\ncondition = \"begins_with(v, '{long}')\"\n");
    let config = world.config(&format!("initial_position = 'backfill'\n{filter}projection = ['v']\n"));
    world.fed(&config).await;
    world.put_rows(100).await;
    assert!(world.lane("region-1").await.backfills.values().all(|of| of.is_of_new_lane()));
    let Finding::Estimate(estimate) =
        carry_out(&args(&[&BOTH, ["--dry-run"].as_slice()].concat()), &config, &CancellationToken::new())
            .await
            .unwrap()
    else {
        panic!("a dry run only estimates")
    };
    assert_eq!((estimate.regions.len(), &*estimate.tables[0].table), (2, TABLE));
    assert!(world.sent(0).await.is_empty(), "a dry run sends nothing");

    let began_ms = now_ms();
    let report = run(&config, &[&BOTH, ["--segments", "3"].as_slice()].concat()).await.unwrap();
    let of = &report.tables[0];
    assert_eq!((of.rows_read, of.rows_sent, of.rows_outside, of.pages_again), (100, 100, 0, 0));
    let expected = [("region-0".to_owned(), 100), ("region-1".to_owned(), 50)];
    assert_eq!(of.regions, expected.into());
    let made: Vec<_> = report.made.iter().map(|of| (&*of.region, &*of.table)).collect();
    assert_eq!((made, report.has_problems()), (vec![("region-1", TABLE)], false));
    assert!(world.lane("region-1").await.backfills.is_empty());
    let all = world.sent(0).await;
    assert_eq!(all.len(), 100);
    for (key, changes) in &all {
        let [change] = changes.as_slice() else { panic!("{key} was sent {} times", changes.len()) };
        assert_eq!((change.kind, change.position), (ChangeKind::Backfill, Position::ZERO));
        assert!((began_ms..=now_ms()).contains(&change.created_ms), "when its read began");
        assert_eq!(text(change), "x".repeat(key.parse::<usize>().unwrap() % 50));
    }
    let some = world.sent(1).await;
    assert_eq!(some.len(), 50);
    assert!(some.values().flatten().all(|change| text(change).len() > 24));
    assert!(world.store.jobs().await.unwrap().is_empty(), "nothing is left to be cleaned up");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_was_stopped_goes_on_where_it_was() {
    let world = World::new().await;
    let config = world.config("");
    world.fed(&config).await;
    world.put_rows(300).await;
    // A page of some rows at a time, with pauses.
    let slow = ["--region", "region-0", "--segments", "2", "--bytes-per-s", "3000"];
    let stop = CancellationToken::new();
    let args = args(&slow);
    let stopped = async {
        until("some rows are sent", async || world.sent(0).await.len() > 30).await;
        stop.cancel();
    };
    let (first, ()) = tokio::join!(carry_out(&args, &config, &stop), stopped);
    let error = first.unwrap_err().to_string();
    assert!(error.contains("stopped by a signal; the same command goes on"), "{error}");
    let before = world.sent(0).await.len();
    assert!((30..300).contains(&before), "{before}");
    // Another rate is the same job.
    let fast = ["--region", "region-0", "--segments", "2", "--bytes-per-s", "10000000"];
    let second = run(&config, &fast).await.unwrap();
    assert!(second.resumed_from_ms.is_some());
    let again = second.tables[0].rows_read;
    assert!(again < 300 && again >= 300 - before as u64, "{again} rows after {before}");
    assert_eq!(world.sent(0).await.len(), 300);
    let third = run(&config, &fast).await.unwrap();
    assert_eq!((third.resumed_from_ms, third.tables[0].rows_read), (None, 300), "a job that is done is over");
}

fn list(directory: &Path, name: &str, content: &[u8]) -> PathBuf {
    let path = directory.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, content).unwrap();
    path
}

fn gzip(content: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(content.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_list_only_the_keys_are_taken_and_the_rows_are_read_anew() {
    let world = World::new().await;
    let config = world.config("initial_position = 'backfill'\n");
    world.fed(&config).await;
    world.put_rows(150).await;
    let export: String = (0..120)
        .map(|row| format!("{{\"Item\":{{\"id\":{{\"S\":\"{row}\"}},\"v\":{{\"S\":\"of last week\"}}}}}}\n"))
        .collect();
    let directory = tempfile::tempdir().unwrap();
    list(directory.path(), "data/a.json.gz", &gzip(&export));
    list(directory.path(), "data/b.json.gz", &gzip("{\"Item\":{\"id\":{\"S\":\"gone\"}}}\n"));
    list(directory.path(), "manifest-files.json", b"{}");
    let directory = directory.path().to_str().unwrap();
    let flags = ["--region", "region-1", "--table", TABLE, "--from", directory];
    let report = run(&config, &flags).await.unwrap();
    let of = &report.tables[0];
    assert_eq!((of.rows_read, of.rows_sent, of.rows_absent), (120, 120, 1));
    let sent = world.sent(1).await;
    assert_eq!(sent.len(), 120);
    assert!(sent.values().flatten().all(|change| text(change) != "of last week"));
    assert!(report.made.is_empty() && report.open.is_empty());
    assert_eq!(world.lane("region-1").await.backfills.len(), 1, "a list is not the whole table");
    assert!(world.sent(0).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_done_is_refused_before_anything_is_sent() {
    let world = World::new().await;
    let config = world.config("");
    let refused = async |config: &Config, flags: &[&str]| run(config, flags).await.unwrap_err();
    // The state table of no fleet, and then one that feeds nobody yet.
    let error = format!("{:#}", refused(&config, &BOTH).await);
    assert!(error.contains("is the state table that of a fleet that has run?"), "{error}");
    world.store.ensure_table(true).await.unwrap();
    let error = refused(&config, &BOTH).await.to_string();
    assert!(error.contains("region-0 does not get the changes of profiles on every shard yet"), "{error}");
    world.fed(&config).await;
    world.put_rows(5).await;

    let error = refused(&config, &["--region", "mars", "--table", "orders"]).await;
    let problems = &error.downcast_ref::<ConfigError>().unwrap().problems;
    assert_eq!(problems.len(), 2, "{problems:?}");
    let mut streamless = config.clone();
    streamless.regions[1].stream = "missing".to_owned();
    let error = refused(&streamless, &BOTH).await.to_string();
    assert!(error.contains("nothing was sent") && error.contains("stream missing in region-1"), "{error}");
    let mut tableless = config.clone();
    tableless.tables[0].name = "orders".to_owned();
    let error = refused(&tableless, &BOTH).await.to_string();
    assert!(error.contains("DescribeTable on table orders"), "{error}");
    let directory = tempfile::tempdir().unwrap();
    let bad = list(directory.path(), "keys.txt", b"0\n{\"Item\":{\"id\":{\"N\":\"5\"}}}\n1\n{\"Item\":{}}\n");
    let flags = ["--region", "region-0", "--table", TABLE, "--from", bad.to_str().unwrap()];
    let error = refused(&config, &flags).await;
    let problems = &error.downcast_ref::<ConfigError>().unwrap().problems;
    assert!(problems[0].contains("line 2") && problems[1].contains("line 4"), "{problems:?}");

    assert!(world.sent(0).await.is_empty() && world.sent(1).await.is_empty());
    assert!(world.store.jobs().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_that_lost_changes_waits_until_somebody_says_that_it_was_emptied() {
    let world = World::new().await;
    let config = world.config("");
    world.fed(&config).await;
    world.dynamodb.put_item(TABLE, "a", AttributeValue::S("x".to_owned())).await;
    let lane = world.lane("region-0").await;
    let stream = lane.begun.first().unwrap();
    world.store.ask_backfill("region-0", stream, "records were trimmed", now_ms()).await.unwrap();
    let report = run(&config, &["--region", "region-0"]).await.unwrap();
    assert!(report.has_problems() && report.open[0].why.contains("--was-emptied"), "{report:?}");
    assert_eq!(world.lane("region-0").await.backfills.len(), 1);
    let report = run(&config, &["--region", "region-0", "--was-emptied"]).await.unwrap();
    assert_eq!((report.made.len(), report.open.len()), (1, 0));
    assert!(world.lane("region-0").await.backfills.is_empty());
    assert_eq!(world.sent(0).await["a"].len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_is_not_sent_in_time_is_read_again() {
    let dynamodb = DynamoDb::start().await;
    dynamodb.create_table(TABLE, StreamViewType::NewImage).await;
    let kinesis = FakeKinesis::start([]).await;
    let directory = tempfile::tempdir().unwrap();
    let config = config(&dynamodb.url, &[TABLE], &[&kinesis.url], directory.path());
    let store = StateStore::new(dynamodb.client.clone(), "state");
    store.ensure_table(true).await.unwrap();
    let described = dynamodb.client.describe_table().table_name(TABLE).send().await.unwrap();
    let stream = described.table.unwrap().latest_stream_arn.unwrap();
    store.lane_begun("region-0", &stream, now_ms()).await.unwrap();
    for row in 0..20 {
        dynamodb.put(TABLE, &row.to_string(), "x").await;
    }
    kinesis.hold();
    let within = Duration::from_millis(400);
    let args = Backfill { sent_within: within, ..args(&["--region", "region-0", "--segments", "1"]) };
    let stop = CancellationToken::new();
    let opened = async {
        until("the page was sent twice", async || kinesis.calls().len() > 1).await;
        let opened_ms = now_ms();
        kinesis.release();
        opened_ms
    };
    let (done, opened_ms) = tokio::join!(carry_out(&args, &config, &stop), opened);
    let Finding::Report(report) = done.unwrap() else { panic!("it was no dry run") };
    assert!(report.tables[0].pages_again >= 1 && report.tables[0].rows_read == 20, "{report:?}");
    // The last of each row is of a read that was young when it landed.
    let landed: BTreeMap<_, _> =
        kinesis.landed().into_iter().flat_map(changes).map(|change| (change.key.clone(), change)).collect();
    assert_eq!(landed.len(), 20);
    let oldest = opened_ms - u64::try_from(within.as_millis()).unwrap();
    assert!(landed.values().all(|change| change.created_ms >= oldest), "{landed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_is_warm_when_it_lacks_nothing_and_is_told_a_young_watermark() {
    let world = World::new().await;
    // Of the second region, which comes last.
    let config = world.config("initial_position = 'backfill'\n");
    let warmth = async |bound: Duration| {
        let reports = reports(&config, bound).await.unwrap_or_default();
        reports.into_iter().map(|of| (of.warmth.is_warm, of.warmth.waits_for.join("; "))).collect::<Vec<_>>()
    };
    let bound = Duration::from_secs(15);
    let aggregator = Aggregator::start(config.clone());
    until("the first region is warm", async || warmth(bound).await.first().is_some_and(|of| of.0)).await;
    let (is_warm, waits_for) = warmth(bound).await[1].clone();
    assert!(!is_warm && waits_for == "1 backfills that were asked for", "{waits_for}");
    until("it is fed on every shard", async || world.lane("region-1").await.begun.len() == 1).await;
    run(&config, &["--region", "region-1"]).await.unwrap();
    until("it is warm, too", async || warmth(bound).await.iter().all(|of| of.0)).await;
    aggregator.stop().await.unwrap();
    // Nobody tells anything more: what was told grows old, or is nobody's word.
    let young = Duration::from_millis(1);
    until("neither is warm", async || warmth(young).await.iter().all(|of| !of.0)).await;
}
