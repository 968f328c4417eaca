//! The aggregators, as processes, and all that they talk to: the fake of DynamoDB Streams, a DynamoDB for their state,
//! and the target regions, each behind its proxy.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use aws_sdk_dynamodb::error::DisplayErrorContext;
use aws_sdk_dynamodb::types::AttributeValue as Value;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use super::RegionsError;
use super::cache::Cache;
use super::ledger::{Comparison, KEY, Ledger};
use super::region::{Region, RegionKind, TABLE};
use super::source::Source;
use super::watch::{RegionSample, Sample, millis};
use crate::clients;
use crate::daemon::{Daemon, Endpoint, FleetWorker, WorkerTiming};
use crate::dynamodb::MASTER_REGION;
use crate::master;
use crate::metered::MeteredDynamoDb;
use crate::streams::{FakeStreamsServer, Options};
use crate::usage::Usage;
use crate::world::REGION_NAMES;

/// Often enough for what is shown once a second, and seldom enough to leave other lines among the last.
const STATS_INTERVAL_MS: u64 = 1_000;
/// Between two looks for what has no event.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// Of an aggregator that ended, so many last lines are shown.
const TAIL_LINES: usize = 20;

/// What to bring up.
#[derive(Clone, Debug)]
pub struct RigOptions {
    /// Target regions, 1 to 8.
    pub regions: usize,
    /// How much of them is real.
    pub kind: RegionKind,
    /// Aggregators.
    pub aggregators: usize,
    /// Shards of the table's stream.
    pub table_shards: usize,
    /// Shards of each region's stream.
    pub target_shards: u32,
    /// Rows of the table.
    pub keys: u32,
    /// Bytes of a row.
    pub image_bytes: usize,
    /// The aggregators' `[worker]` section.
    pub timing: WorkerTiming,
    /// What else the aggregators are told: `queue.bytes_max=16777216`.
    pub settings: Vec<String>,
    /// Seed of what is random.
    pub seed: u64,
}

impl Default for RigOptions {
    fn default() -> Self {
        Self {
            regions: 4,
            kind: RegionKind::Sink,
            aggregators: 1,
            table_shards: 4,
            target_shards: 4,
            keys: 1_000,
            image_bytes: 200,
            timing: WorkerTiming::of_a_short_life(),
            settings: Vec::new(),
            seed: 1,
        }
    }
}

/// A running rig. Dropping it kills its processes.
#[derive(Debug)]
pub struct Rig {
    // Dropped in this order: the aggregators before what they talk to, the directory last.
    aggregators: Vec<Daemon>,
    regions: Vec<Region>,
    source: Source,
    streams: FakeStreamsServer,
    dynamodb: MeteredDynamoDb,
    directory: TempDir,
    began: Instant,
}

impl Rig {
    /// Starts everything but the aggregators.
    ///
    /// # Errors
    /// See [`RegionsError`].
    pub async fn start(options: &RigOptions) -> Result<Self, RegionsError> {
        let names = REGION_NAMES.get(..options.regions).filter(|names| !names.is_empty());
        let names = names.ok_or(RegionsError::Regions { regions: options.regions })?;
        let directory = tempfile::Builder::new().prefix("warmcast-regions-").tempdir()?;
        let dynamodb = MeteredDynamoDb::start().await?;
        let stream = Options::default();
        let first_sequence = stream.first_sequence;
        let (streams, arn) = master::start_table(TABLE, KEY, &dynamodb.url(), stream).await?;
        let ledger = Ledger::new(options.keys, options.image_bytes, first_sequence);
        let source = Source::new(streams.streams().clone(), arn, options.table_shards, ledger, options.seed)?;
        let mut regions = Vec::with_capacity(names.len());
        for (name, number) in names.iter().zip(1..) {
            let seed = options.seed.wrapping_add(number);
            regions.push(match options.kind {
                RegionKind::Sink => {
                    let cache = Cache::new(options.keys, first_sequence);
                    Region::sink(name, cache, options.target_shards, seed).await?
                }
                RegionKind::Full => {
                    let master = Endpoint::new(MASTER_REGION, &dynamodb.url());
                    Region::full(name, options.target_shards, &master, directory.path(), seed).await?
                }
            });
        }
        let targets: Vec<Endpoint> = regions.iter().map(Region::endpoint).collect();
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
            Daemon::fleet_aggregator(directory.path(), master, &[TABLE.to_owned()], &targets, worker)
        };
        let aggregators = (1..=options.aggregators).map(aggregator).collect::<Result<_, _>>()?;
        Ok(Self { aggregators, regions, source, streams, dynamodb, directory, began: Instant::now() })
    }

    /// Starts every aggregator that does not run.
    ///
    /// # Errors
    /// One cannot be executed.
    pub fn start_aggregators(&mut self) -> Result<(), RegionsError> {
        for aggregator in &mut self.aggregators {
            aggregator.start()?;
        }
        Ok(())
    }

    /// SIGTERM to an aggregator, which must end well if it runs.
    ///
    /// # Errors
    /// It cannot be signalled, or does not end well.
    pub async fn stop_aggregator(&mut self, number: usize) -> Result<(), RegionsError> {
        let Some(aggregator) = self.aggregators.get_mut(number) else { return Ok(()) };
        match aggregator.terminate().await? {
            Some(status) if !status.success() => {
                let what = format!("{} was told to stop and ended with {status}", aggregator.name());
                Err(RegionsError::Ended { what, tails: self.tails() })
            }
            _ => Ok(()),
        }
    }

    /// The aggregators, to do something to them.
    pub fn aggregators_mut(&mut self) -> &mut [Daemon] {
        &mut self.aggregators
    }

    /// The table's stream.
    #[must_use]
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// The target regions.
    #[must_use]
    pub fn regions(&self) -> &[Region] {
        &self.regions
    }

    /// Samples tell the time since now.
    pub(super) fn begin(&mut self) {
        self.began = Instant::now();
    }

    /// Everything now.
    ///
    /// # Errors
    /// A Redis does not answer, or a process ended by itself.
    pub async fn sample(&mut self) -> Result<Sample, RegionsError> {
        self.check_running()?;
        let parked = self.parked().await?;
        let mut regions = Vec::with_capacity(self.regions.len());
        for region in &mut self.regions {
            let lag = region.lag(&self.source).await?;
            regions.push(RegionSample {
                applied: region.applied(),
                lag_ms: millis(lag.unwrap_or_default()),
                parked: parked.get(region.name()).copied().unwrap_or_default(),
                traffic: region.faults().total(),
            });
        }
        let usages = self.aggregators.iter().filter_map(|aggregator| Usage::of(aggregator.pid()?));
        let queues = self.aggregators.iter().filter_map(|aggregator| aggregator.stats().now("queue_bytes"));
        Ok(Sample {
            at_s: self.began.elapsed().as_secs_f64(),
            put: self.source.ledger().len() as u64,
            regions,
            resident_kib: usages.map(|usage| usage.resident_kib).sum(),
            queue_bytes: queues.sum(),
        })
    }

    /// Waits until these regions have everything that was put, and returns how long that took.
    ///
    /// # Errors
    /// It takes longer than `patience`, or a process ended by itself.
    pub async fn have_everything(
        &mut self,
        regions: &[usize],
        patience: Duration,
    ) -> Result<Duration, RegionsError> {
        let since = Instant::now();
        loop {
            self.check_running()?;
            let mut behind = Vec::new();
            for index in regions {
                let Some(region) = self.regions.get_mut(*index) else { continue };
                if let Some(lag) = region.lag(&self.source).await? {
                    behind.push(format!("{} is {:.1} s behind", region.name(), lag.as_secs_f64()));
                }
            }
            if behind.is_empty() {
                return Ok(since.elapsed());
            }
            if since.elapsed() > patience {
                let (what, tails) = (behind.join(", "), self.tails());
                return Err(RegionsError::Behind { what, waited: patience, tails });
            }
            // Other processes bring it: there is no event to wait for.
            sleep(LOOK_INTERVAL).await;
        }
    }

    /// Of each region that is parked, on how many shards, as the fleet's state table says it.
    ///
    /// # Errors
    /// The table cannot be read.
    pub async fn parked(&self) -> Result<BTreeMap<String, u64>, RegionsError> {
        let failed = |reason: String| RegionsError::State { reason };
        let Some(table) = self.aggregators.first().map(Daemon::state_table) else {
            return Ok(BTreeMap::new());
        };
        let query = clients::dynamodb(&self.dynamodb.url(), MASTER_REGION)
            .query()
            .table_name(table)
            .key_condition_expression("pk = :pk")
            .expression_attribute_values(":pk", Value::S(format!("stream#{}", self.source.arn())));
        let mut leases = query.into_paginator().items().send();
        let mut parked = BTreeMap::new();
        while let Some(lease) = leases.next().await {
            let lease = lease.map_err(|error| failed(DisplayErrorContext(error).to_string()))?;
            let lanes = lease.get("parked").and_then(|lanes| lanes.as_m().ok());
            for region in lanes.into_iter().flat_map(|lanes| lanes.keys()) {
                *parked.entry(region.clone()).or_default() += 1;
            }
        }
        Ok(parked)
    }

    /// Waits until this region is parked on a shard at least, or on none.
    ///
    /// # Errors
    /// It takes longer than `patience`, a process ended by itself, or the state table cannot be read.
    pub async fn is_parked(
        &mut self,
        region: usize,
        wanted: bool,
        patience: Duration,
    ) -> Result<(), RegionsError> {
        let name = self.regions.get(region).map(|region| region.name().to_owned()).unwrap_or_default();
        let since = Instant::now();
        loop {
            self.check_running()?;
            let parked = self.parked().await?;
            if parked.contains_key(&name) == wanted {
                return Ok(());
            }
            if since.elapsed() > patience {
                let what = format!("{name}: waited for parked = {wanted}; parked are {parked:?}");
                return Err(RegionsError::Behind { what, waited: patience, tails: self.tails() });
            }
            // The aggregators write it: there is no event to wait for.
            sleep(LOOK_INTERVAL).await;
        }
    }

    /// Compares every region with what was put.
    ///
    /// # Errors
    /// A Redis does not answer.
    pub async fn compare(&self) -> Result<Vec<Comparison>, RegionsError> {
        let mut comparisons = Vec::with_capacity(self.regions.len());
        for region in &self.regions {
            comparisons.push(region.compare(&self.source).await?);
        }
        Ok(comparisons)
    }

    /// A process that ended by itself is an error.
    fn check_running(&mut self) -> Result<(), RegionsError> {
        let aggregators = self.aggregators.iter_mut().filter_map(|aggregator| {
            let status = aggregator.exit_status()?;
            Some(format!("{} ended with {status}", aggregator.name()))
        });
        let ended: Vec<String> =
            aggregators.chain(self.regions.iter_mut().filter_map(Region::ended)).collect();
        match ended.first() {
            Some(what) => Err(RegionsError::Ended { what: what.clone(), tails: self.tails() }),
            None => Ok(()),
        }
    }

    /// The last lines of the aggregators.
    #[must_use]
    pub fn tails(&self) -> String {
        let mut text = String::new();
        for aggregator in &self.aggregators {
            text.push_str(&format!("--- last lines of {}\n", aggregator.name()));
            let mut tail = aggregator.log().tail();
            // What is told again and again says little of what happened.
            tail.retain(|line| !line.contains(r#""message":"region""#));
            for line in tail.iter().skip(tail.len().saturating_sub(TAIL_LINES)) {
                text.push_str(line);
                text.push('\n');
            }
        }
        text
    }

    /// Lines of level ERROR and WARN of the aggregators.
    #[must_use]
    pub fn complaints(&self) -> (u64, u64) {
        let logs = self.aggregators.iter().map(|of| (of.log().errors(), of.log().warnings()));
        logs.fold((0, 0), |sum, log| (sum.0 + log.0, sum.1 + log.1))
    }

    /// Logs and configurations, until the rig is dropped.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Keeps the directory for the reader of a failure.
    pub fn keep_directory(&mut self) {
        self.directory.disable_cleanup(true);
    }

    /// Stops the aggregators, then the rest.
    ///
    /// # Errors
    /// A process cannot be signalled, or an aggregator does not end well.
    pub async fn stop(mut self) -> Result<(), RegionsError> {
        let mut outcome = Ok(());
        for number in 0..self.aggregators.len() {
            let ended = self.stop_aggregator(number).await;
            outcome = outcome.and(ended);
        }
        for region in self.regions {
            outcome = outcome.and(region.stop().await);
        }
        self.streams.stop().await;
        self.dynamodb.stop().await;
        outcome
    }
}
