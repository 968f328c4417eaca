//! Worlds, traffic and waiting for the tests.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use warmcast_common::http::{self, Bounds};
use warmcast_sandbox::entry::{self, Entry};
use warmcast_sandbox::measure::Probes;
use warmcast_sandbox::profile::Item;
use warmcast_sandbox::verify;
use warmcast_sandbox::workload::{self, Ledger, Progress, WorkloadError, WorkloadOptions};
use warmcast_sandbox::world::{KEY_ATTRIBUTE, World, WorldOptions};

pub(crate) const TABLE: &str = "profiles";

/// Beyond what a loaded machine needs for anything here; a condition that takes longer is a failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// A world with both regions and the running daemons.
pub(crate) async fn world() -> World {
    World::start(&WorldOptions::default()).await.unwrap_or_else(|error| panic!("{error}"))
}

/// Asks until the answer is `Some`, and fails loudly when it never is.
pub(crate) async fn eventually<T, F>(what: &str, mut ask: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        sleep(POLL_INTERVAL).await;
    }
}

/// What a server answers, with whatever status; nothing while it does not.
pub(crate) async fn get(url: &str) -> Option<String> {
    let bounds = Bounds { body_bytes_max: 16 << 20, within: PATIENCE };
    http::get(url, &[], bounds).await.ok().map(|answer| answer.body)
}

/// Traffic that goes on until `finish`.
pub(crate) struct Traffic {
    writing: JoinSet<Result<Ledger, WorkloadError>>,
    progress: Arc<Progress>,
    stop: CancellationToken,
}

impl Traffic {
    /// At a rate that two cores with a debug build and another test beside it can stand.
    pub(crate) fn start(world: &World) -> Self {
        let options = WorkloadOptions {
            table: TABLE.to_owned(),
            writers: 4,
            duration: Duration::ZERO,
            writes_min: u64::MAX,
            keys_min: u64::MAX,
            keys_max: 600,
            keys_loaded: 0,
            rate: 300,
            ceiling: Duration::from_secs(300),
            seed: 20_240_229,
        };
        let progress = Arc::new(Progress::default());
        let stop = CancellationToken::new();
        let mut writing = JoinSet::new();
        let (probes, _) = Probes::channels(0);
        writing.spawn(workload::run(world.dynamodb(), options, Arc::clone(&progress), probes, stop.clone()));
        Self { writing, progress, stop }
    }

    pub(crate) fn writes(&self) -> u64 {
        self.progress.written().total()
    }

    /// Waits until this many writes more are acknowledged.
    pub(crate) async fn more(&self, writes: u64) {
        let target = self.writes() + writes;
        eventually("the traffic goes on", || async { (self.writes() >= target).then_some(()) }).await;
    }

    pub(crate) async fn finish(mut self) -> Ledger {
        self.stop.cancel();
        let ledger = self.writing.join_next().await.unwrap().unwrap().unwrap();
        assert!(self.progress.written().deletes > 0, "deletions belong to the traffic");
        ledger
    }
}

/// Every row, every region, every attribute.
pub(crate) async fn assert_regions_equal(world: &mut World, ledger: &Ledger) {
    let rows = verify::read_tables(&world.dynamodb(), world.tables()).await.unwrap();
    assert_eq!(verify::check_ledger(TABLE, ledger, &rows), Vec::<String>::new());
    assert!(!rows.is_empty(), "a comparison of nothing proves nothing");
    let comparisons = verify::compare_rows(world, &rows, ledger).await.unwrap();
    assert_eq!(comparisons.len(), world.regions().len());
    for region in &comparisons {
        assert!(region.agrees(), "{region:#?}\n{}", world.tails());
        assert_eq!(region.equal, rows.len());
    }
    assert_eq!(world.ended(), None);
}

pub(crate) fn text(value: &str) -> AttributeValue {
    AttributeValue::S(value.to_owned())
}

pub(crate) async fn put(world: &World, table: &str, mut item: Item, key: &str) {
    item.insert(KEY_ATTRIBUTE.to_owned(), text(key));
    world.dynamodb().put_item().table_name(table).set_item(Some(item)).send().await.unwrap();
}

pub(crate) async fn delete(world: &World, table: &str, key: &str) {
    world.dynamodb().delete_item().table_name(table).key(KEY_ATTRIBUTE, text(key)).send().await.unwrap();
}

/// Waits until one region's entry meets the condition.
pub(crate) async fn wait_for_entry(
    world: &World,
    region: usize,
    (table, key): (&str, &str),
    is_it: impl Fn(&Entry) -> bool,
) -> Entry {
    let region = &world.regions()[region];
    let what = format!("{key} of {table} in {}", region.name());
    eventually(&what, || async {
        let mut connection = region.redis().connect().await.ok()?;
        entry::get(&mut connection, table, key).await.ok().filter(&is_it)
    })
    .await
}

pub(crate) async fn wait_in_every_region(world: &World, key: &str, is_it: impl Fn(&Entry) -> bool) {
    for region in 0..world.regions().len() {
        wait_for_entry(world, region, (TABLE, key), &is_it).await;
    }
}

pub(crate) fn is_live(entry: &Entry) -> bool {
    matches!(entry, Entry::Live { .. })
}

pub(crate) async fn stop(world: World) {
    world.stop().await.unwrap();
}
