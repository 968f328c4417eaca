//! Worlds, rows and waiting.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use warmcast_sandbox::daemon::{DaemonTiming, WorkerTiming};
use warmcast_sandbox::entry::{self, Entry};
use warmcast_sandbox::measure::Probes;
use warmcast_sandbox::profile::{Item, VERSION_ATTRIBUTE};
use warmcast_sandbox::workload::{self, Ledger, Progress, WorkloadError, WorkloadOptions};
use warmcast_sandbox::world::{KEY_ATTRIBUTE, World, WorldOptions};
use warmcast_sandbox::{faults::Faults, verify};

/// The names that the handbook uses.
pub(crate) const TABLE: &str = "profiles";
pub(crate) const OTHER_TABLE: &str = "campaigns";
/// Rows of a table, more than a page of anything.
pub(crate) const ROWS: u64 = 120;

const PATIENCE: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Servers without daemons; these will work together faster than by default, because a status is told by heartbeats.
pub(crate) async fn servers(options: WorldOptions) -> World {
    let worker = WorkerTiming {
        heartbeat_interval_ms: Some(500),
        lease_duration_ms: Some(4_000),
        ..WorkerTiming::of_a_short_life()
    };
    let timing = DaemonTiming { worker, watermark_interval_ms: Some(200) };
    let options = WorldOptions { timing, ..options };
    World::start_servers(&options).await.unwrap_or_else(|error| panic!("{error}"))
}

/// The daemons of a world, until a row comes through.
pub(crate) async fn start(world: &mut World) {
    world.start_daemons().unwrap();
    world.wait_until_ready().await.unwrap_or_else(|error| panic!("{error}"));
}

/// Asks until the answer is `Some`, and fails loudly when it never is.
pub(crate) async fn eventually<T, F>(world: &World, what: &str, mut ask: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}\n{}", world.tails());
        sleep(POLL_INTERVAL).await;
    }
}

pub(crate) fn text(value: &str) -> AttributeValue {
    AttributeValue::S(value.to_owned())
}

pub(crate) fn user(number: u64) -> String {
    format!("user-{number}")
}

pub(crate) async fn put(world: &World, table: &str, key: &str, version: u64) {
    world.dynamodb().put_item().table_name(table).set_item(Some(row(key, version))).send().await.unwrap();
}

fn row(key: &str, version: u64) -> Item {
    HashMap::from([
        (KEY_ATTRIBUTE.to_owned(), text(key)),
        (VERSION_ATTRIBUTE.to_owned(), AttributeValue::N(version.to_string())),
    ])
}

pub(crate) async fn delete(world: &World, table: &str, key: &str) {
    world.dynamodb().delete_item().table_name(table).key(KEY_ATTRIBUTE, text(key)).send().await.unwrap();
}

/// Writes every user's row.
pub(crate) async fn put_all(world: &World, table: &str, version: u64) {
    let mut writes = JoinSet::new();
    for number in 0..ROWS {
        let put = world.dynamodb().put_item().table_name(table).set_item(Some(row(&user(number), version)));
        writes.spawn(put.send());
    }
    while let Some(written) = writes.join_next().await {
        written.unwrap().unwrap();
    }
}

/// Users of its own who are written about all the time.
pub(crate) struct Traffic {
    writing: JoinSet<Result<Ledger, WorkloadError>>,
    progress: Arc<Progress>,
    stop: CancellationToken,
}

impl Traffic {
    pub(crate) fn start(world: &World) -> Self {
        let options = WorkloadOptions {
            table: TABLE.to_owned(),
            writers: 2,
            duration: Duration::ZERO,
            writes_min: u64::MAX,
            keys_min: u64::MAX,
            keys_max: 100,
            keys_loaded: 0,
            rate: 50,
            ceiling: Duration::from_secs(300),
            seed: 1,
        };
        let (progress, stop) = (Arc::new(Progress::default()), CancellationToken::new());
        let (probes, _) = Probes::channels(0);
        let mut writing = JoinSet::new();
        writing.spawn(workload::run(world.dynamodb(), options, Arc::clone(&progress), probes, stop.clone()));
        Self { writing, progress, stop }
    }

    pub(crate) async fn finish(mut self) {
        self.stop.cancel();
        self.writing.join_next().await.unwrap().unwrap().unwrap();
        assert!(self.progress.written().total() > 0, "there was traffic");
    }
}

/// Changes to some rows: new ones, new versions, and a deletion.
pub(crate) async fn change_some(world: &World, version: u64) {
    for number in 0..10 {
        put(world, TABLE, &user(number), version).await;
        put(world, TABLE, &format!("{}-of-{version}", user(number)), version).await;
    }
    delete(world, TABLE, &user(10)).await;
}

pub(crate) async fn get(world: &World, region: usize, key: &str) -> Option<Entry> {
    let mut connection = world.regions()[region].redis().connect().await.ok()?;
    entry::get(&mut connection, TABLE, key).await.ok()
}

/// Waits until a region shows this version of a row of [`TABLE`].
pub(crate) async fn has(world: &World, region: usize, key: &str, version: u64) {
    let what = format!("version {version} of {key} in region {region}");
    eventually(world, &what, || async {
        let entry = get(world, region, key).await?;
        (entry.number(VERSION_ATTRIBUTE) == Some(version)).then_some(())
    })
    .await;
}

/// Waits until a region's watermark is past what was done by now.
pub(crate) async fn is_current(world: &World, region: usize) {
    let now_ms = entry::now_ms();
    eventually(world, &format!("region {region} is current"), || async {
        let mut connection = world.regions()[region].redis().connect().await.ok()?;
        entry::watermark_ms(&mut connection).await.ok()?.filter(|watermark_ms| *watermark_ms >= now_ms)
    })
    .await;
}

/// Every row of every table is in every region as it is in the table, and nothing else is.
pub(crate) async fn all_is_well(world: &World) {
    let rows = verify::read_tables(&world.dynamodb(), world.tables()).await.unwrap();
    assert!(!rows.is_empty(), "a comparison of nothing proves nothing");
    for region in verify::compare_rows(world, &rows, &Ledger::new()).await.unwrap() {
        assert!(region.agrees() && region.missing == 0, "{region:#?}\n{}", world.tails());
    }
}

/// A region's proxy has these faults from now on.
pub(crate) fn fail(world: &World, region: usize, faults: Faults) {
    world.regions()[region].faults().unwrap().set(faults);
}

/// The latest stream of [`TABLE`].
pub(crate) async fn stream_arn(world: &World) -> String {
    let described = world.dynamodb().describe_table().table_name(TABLE).send().await.unwrap();
    described.table.unwrap().latest_stream_arn.unwrap()
}
