//! Two fleets, as processes, and all that they talk to: the fake of DynamoDB Streams, a DynamoDB for their state, and one
//! region with a Kinesis and a Redis.

use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use super::previous::Previous;
use super::probe::{Probe, is_there};
use super::{UpgradeError, UpgradeOptions};
use crate::daemon::{Daemon, DaemonTiming, Endpoint, FleetWorker};
use crate::dynamodb::MASTER_REGION;
use crate::entry;
use crate::master;
use crate::metered::MeteredDynamoDb;
use crate::regions::{Comparison, KEY, Ledger, Source, TABLE, compare_cache};
use crate::streams::{FakeStreamsServer, Options};
use crate::world::{REGION_NAMES, Region, WorldOptions};

/// Between two looks for what has no event.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// Updates whose place in the cache tells how far the region is.
const LIVE_UPDATES: usize = 1_000;
/// A region that has what was put so long ago is live.
const LIVE_LAG: Duration = Duration::from_secs(2);
/// Of a daemon that ended, so many last lines are shown.
const TAIL_LINES: usize = 12;
const STATS_INTERVAL_MS: u64 = 1_000;

/// A running rig. Dropping it kills its processes.
#[derive(Debug)]
pub(super) struct Rig {
    // Dropped in this order: the daemons before what they talk to, the directory last.
    pub(super) aggregators: Vec<Daemon>,
    pub(super) cache_writers: Vec<Daemon>,
    region: Region,
    source: Source,
    streams: FakeStreamsServer,
    dynamodb: MeteredDynamoDb,
    directory: TempDir,
}

impl Rig {
    /// Starts everything but the daemons, which will run the previous version.
    pub(super) async fn start(
        options: &UpgradeOptions,
        previous: &mut Previous,
    ) -> Result<Self, UpgradeError> {
        let directory = tempfile::Builder::new().prefix("warmcast-upgrade-").tempdir()?;
        let dynamodb = MeteredDynamoDb::start().await?;
        let stream = Options::default();
        let first_sequence = stream.first_sequence;
        let (streams, arn) = master::start_table(TABLE, KEY, &dynamodb.url(), stream).await?;
        let ledger = Ledger::new(options.keys, options.image_bytes, first_sequence);
        let source = Source::new(streams.streams().clone(), arn, options.table_shards, ledger, options.seed)?;
        let [name, ..] = REGION_NAMES;
        let master = Endpoint::new(MASTER_REGION, &dynamodb.url());
        let world = WorldOptions {
            kinesis_shards: i32::try_from(options.target_shards).unwrap_or(i32::MAX),
            timing: DaemonTiming { worker: options.timing, watermark_interval_ms: None },
            ..WorldOptions::default()
        };
        let region = Region::start(name, &world, &master, directory.path()).await?;
        // The region's own one is the first by another name, and does not run.
        let numbers = 2..=u32::try_from(options.workers).unwrap_or(1) + 1;
        let cache_writers = numbers.map(|number| region.another_cache_writer(number, directory.path()));
        let cache_writers = cache_writers.collect::<Result<_, _>>()?;
        let aggregator = |number: usize| {
            let worker_id = format!("aggregator-{number}");
            let worker = FleetWorker {
                worker_id: worker_id.clone(),
                streams_endpoint: Some(streams.url()),
                from_trim_horizon: true,
                timing: options.timing,
                watermark_interval_ms: None,
                stats_interval_ms: STATS_INTERVAL_MS,
                settings: options.settings.clone(),
            };
            let master = Endpoint::new(MASTER_REGION, &dynamodb.url()).signed_by(&worker_id);
            let targets = [region.put_endpoint()];
            Daemon::fleet_aggregator(directory.path(), master, &[TABLE.to_owned()], &targets, worker)
        };
        let aggregators = (1..=options.workers).map(aggregator).collect::<Result<_, _>>()?;
        let mut rig = Self { aggregators, cache_writers, region, source, streams, dynamodb, directory };
        let mut others = Vec::new();
        for daemon in rig.daemons() {
            others.extend(previous.in_place_of(daemon).await?);
        }
        // All of them, or none.
        if previous.is_other() {
            rig.daemons_mut().zip(others).for_each(|(daemon, other)| daemon.run_as(Some(other)));
        }
        Ok(rig)
    }

    fn daemons(&self) -> impl Iterator<Item = &Daemon> {
        self.aggregators.iter().chain(&self.cache_writers)
    }

    fn daemons_mut(&mut self) -> impl Iterator<Item = &mut Daemon> {
        self.aggregators.iter_mut().chain(&mut self.cache_writers)
    }

    pub(super) fn start_daemons(&mut self) -> Result<(), UpgradeError> {
        Ok(self.daemons_mut().try_for_each(Daemon::start)?)
    }

    pub(super) fn source(&self) -> &Source {
        &self.source
    }

    pub(super) async fn probe(&self, rate: u64) -> Result<Probe, UpgradeError> {
        Ok(Probe::start(self.region.redis().connect().await?, self.source.clone(), rate))
    }

    /// Waits until the region has every update that was put before now.
    pub(super) async fn has_everything(&mut self, patience: Duration) -> Result<Duration, UpgradeError> {
        let end = self.source.ledger().len();
        self.has_up_to(end, patience).await
    }

    /// Waits until the region has what was put moments ago, while more is put.
    pub(super) async fn is_live(&mut self, patience: Duration) -> Result<(), UpgradeError> {
        let since = Instant::now();
        loop {
            let end = self.source.ledger().len();
            let took = self.has_up_to(end, patience.saturating_sub(since.elapsed())).await?;
            if took < LIVE_LAG && self.watermark().await?.is_some() {
                return Ok(());
            }
        }
    }

    async fn watermark(&self) -> Result<Option<u64>, UpgradeError> {
        Ok(entry::watermark_ms(&mut self.region.redis().connect().await?).await?)
    }

    async fn has_up_to(&mut self, end: usize, patience: Duration) -> Result<Duration, UpgradeError> {
        let since = Instant::now();
        let mut connection = self.region.redis().connect().await?;
        let mut wanted: Vec<usize> = (end.saturating_sub(LIVE_UPDATES)..end).collect();
        loop {
            self.check_running()?;
            let there = is_there(&mut connection, &self.source, &wanted).await?;
            let left = wanted.iter().zip(there).filter(|(_, there)| !there).map(|(number, _)| *number);
            wanted = left.collect();
            if wanted.is_empty() {
                return Ok(since.elapsed());
            }
            if since.elapsed() > patience {
                let what =
                    format!("the region lacks {} of the last updates after {patience:?}", wanted.len());
                return Err(self.not_seen(what));
            }
            // Other processes bring it: there is no event to wait for.
            sleep(LOOK_INTERVAL).await;
        }
    }

    /// Compares every row of the region with what was put.
    pub(super) async fn compare(&self) -> Result<Comparison, UpgradeError> {
        let mut connection = self.region.redis().connect().await?;
        Ok(compare_cache(&mut connection, &self.source).await?)
    }

    /// Records that no cache-writer could use.
    pub(super) fn set_aside(&self) -> u64 {
        self.cache_writers.iter().map(|writer| writer.stats().total("dead_letters")).sum()
    }

    fn check_running(&mut self) -> Result<(), UpgradeError> {
        let ended = self.daemons_mut().find_map(|daemon| {
            daemon.exit_status().map(|status| format!("{} ended with {status}", daemon.name()))
        });
        ended.map_or(Ok(()), |what| Err(self.not_seen(what)))
    }

    pub(super) fn not_seen(&self, what: String) -> UpgradeError {
        UpgradeError::NotSeen { what, tails: self.tails() }
    }

    fn tails(&self) -> String {
        let mut text = String::new();
        for daemon in self.daemons() {
            text.push_str(&format!("--- last lines of {}\n", daemon.name()));
            let mut tail = daemon.log().tail();
            // What is told again and again says little of what happened.
            tail.retain(|line| {
                !line.contains(r#""message":"region""#) && !line.contains(r#""message":"stats""#)
            });
            for line in tail.iter().skip(tail.len().saturating_sub(TAIL_LINES)) {
                text.push_str(line);
                text.push('\n');
            }
        }
        text
    }

    /// Lines of level ERROR and WARN.
    pub(super) fn complaints(&self) -> (u64, u64) {
        let logs = self.daemons().map(|of| (of.log().errors(), of.log().warnings()));
        logs.fold((0, 0), |sum, log| (sum.0 + log.0, sum.1 + log.1))
    }

    /// Logs and configurations, until the rig is dropped.
    pub(super) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(super) fn keep_directory(&mut self) {
        self.directory.disable_cleanup(true);
    }

    /// Stops the daemons, then the rest.
    pub(super) async fn stop(mut self) -> Result<(), UpgradeError> {
        let mut outcome = Ok(());
        for daemon in self.aggregators.iter_mut().chain(&mut self.cache_writers) {
            outcome = outcome.and(daemon.terminate().await.map(drop));
        }
        outcome = outcome.and(self.region.stop().await);
        self.streams.stop().await;
        self.dynamodb.stop().await;
        Ok(outcome?)
    }
}
