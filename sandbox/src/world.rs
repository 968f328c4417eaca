//! The whole world on one machine: DynamoDB, a Kinesis and a Redis per region, and the daemons between them.
//!
//! Everything listens on free loopback ports and has its own handle here. [`World::stop`] stops the daemons
//! first, as an operator would; dropping the world kills what is left.

mod region;

use std::io;
use std::path::Path;
use std::time::Duration;

use aws_sdk_dynamodb::error::DisplayErrorContext;
use aws_sdk_dynamodb::types::AttributeValue;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::clients;
use crate::daemon::{Daemon, DaemonError, DaemonTiming, Endpoint};
use crate::dynamodb::{self, DynamoDb, DynamoDbError, Flavour, MASTER_REGION};
use crate::entry::{self, Entry};
use crate::kinesis::KinesisError;
use crate::process::ProcessError;
use crate::redis_server::RedisServerError;
use crate::relay::Relay;

pub use region::{KinesisRelays, Region};

/// The partition key attribute of every table in the sandbox.
pub const KEY_ATTRIBUTE: &str = "cookie_id";
/// The key of the row that is written and deleted to see that the way is open from end to end.
const CANARY_KEY: &str = "sandbox-canary";
/// Daemons on a small, busy machine.
const READY_PATIENCE: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(10);
/// Names for as many regions as a sandbox may have.
pub(crate) const REGION_NAMES: [&str; 8] = [
    "eu-west-1",
    "ap-northeast-1",
    "us-west-2",
    "sa-east-1",
    "ap-southeast-2",
    "eu-central-1",
    "ca-central-1",
    "ap-south-1",
];

/// What to bring up.
#[derive(Clone, Debug)]
pub struct WorldOptions {
    /// Which DynamoDB.
    pub dynamodb: Flavour,
    /// Number of target regions, 1 to 8.
    pub regions: usize,
    /// Tables to create and to watch.
    pub tables: Vec<String>,
    /// Shards of each region's stream.
    pub kinesis_shards: i32,
    /// How fast the daemons work together.
    pub timing: DaemonTiming,
    /// Whether the daemons reach DynamoDB Streams and Kinesis by relays that can be closed.
    pub relays: bool,
    /// Whether the aggregator reaches each region's Kinesis by a proxy with faults. The cache-writers read directly.
    pub fault_proxies: bool,
}

impl Default for WorldOptions {
    fn default() -> Self {
        Self {
            dynamodb: Flavour::Embedded,
            regions: 2,
            tables: vec!["profiles".to_owned()],
            kinesis_shards: 2,
            timing: DaemonTiming::default(),
            relays: false,
            fault_proxies: false,
        }
    }
}

/// Why the world did not come up, or did not stop cleanly.
#[derive(Debug, thiserror::Error)]
pub enum WorldError {
    /// The directory for logs and configurations.
    #[error("cannot create a temporary directory: {0}")]
    Directory(#[from] io::Error),
    /// Fewer than one region or more than there are names for.
    #[error("{regions} regions: choose 1 to {}", REGION_NAMES.len())]
    Regions {
        /// The number asked for.
        regions: usize,
    },
    /// The master table's server.
    #[error(transparent)]
    DynamoDb(#[from] DynamoDbError),
    /// A region's Kinesis.
    #[error(transparent)]
    Kinesis(#[from] KinesisError),
    /// A region's Redis.
    #[error(transparent)]
    Redis(#[from] RedisServerError),
    /// A daemon that cannot be run.
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    /// A child process that cannot be signalled.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// A row did not come through in time, or a part of the world ended.
    #[error("the sandbox is not ready: {reason}\n{tails}")]
    NotReady {
        /// What was waited for.
        reason: String,
        /// The last lines of the daemons.
        tails: String,
    },
}

/// A running world. Dropping it kills every child process.
#[derive(Debug)]
pub struct World {
    // Fields are dropped in this order: daemons before what they talk to, the directory last.
    aggregator: Daemon,
    regions: Vec<Region>,
    streams_relay: Option<Relay>,
    dynamodb: DynamoDb,
    tables: Vec<String>,
    directory: TempDir,
}

impl World {
    /// Brings up the servers, tables and streams, starts the daemons, and waits until a row written to each
    /// table has come through to every region and its deletion, too.
    ///
    /// # Errors
    /// See [`WorldError`]. What was started is killed.
    pub async fn start(options: &WorldOptions) -> Result<Self, WorldError> {
        let mut world = Self::start_servers(options).await?;
        world.start_daemons()?;
        world.wait_until_ready().await?;
        Ok(world)
    }

    /// The servers, tables and streams of a world whose daemons do not run yet.
    ///
    /// # Errors
    /// See [`WorldError`].
    pub async fn start_servers(options: &WorldOptions) -> Result<Self, WorldError> {
        let names = REGION_NAMES.get(..options.regions).filter(|names| !names.is_empty());
        let names = names.ok_or(WorldError::Regions { regions: options.regions })?;
        let directory = tempfile::Builder::new().prefix("warmcast-sandbox-").tempdir()?;
        let dynamodb = DynamoDb::start(options.dynamodb, directory.path()).await?;
        let client = clients::dynamodb(dynamodb.url(), MASTER_REGION);
        for table in &options.tables {
            dynamodb::create_table(&client, table, KEY_ATTRIBUTE).await?;
        }
        let streams_relay = if options.relays { Some(Relay::start(dynamodb.url()).await?) } else { None };
        let master = Endpoint::new(MASTER_REGION, dynamodb.url());
        let mut regions = Vec::with_capacity(names.len());
        for name in names {
            regions.push(Region::start(name, options, &master, directory.path()).await?);
        }
        let targets: Vec<Endpoint> = regions.iter().map(Region::put_endpoint).collect();
        let streams = streams_relay.as_ref().map(Relay::url);
        let aggregator =
            Daemon::aggregator(directory.path(), master, &options.tables, &targets, streams, options.timing)?;
        let tables = options.tables.clone();
        Ok(Self { aggregator, regions, streams_relay, dynamodb, tables, directory })
    }

    /// Starts every daemon that does not run.
    ///
    /// # Errors
    /// One cannot be executed.
    pub fn start_daemons(&mut self) -> Result<(), DaemonError> {
        self.aggregator.start()?;
        self.regions.iter_mut().try_for_each(|region| region.cache_writer.start())
    }

    /// Writes a row to each table, waits until every region has it, deletes it, waits for its tombstone.
    ///
    /// # Errors
    /// It does not come through, or a daemon ended.
    pub async fn wait_until_ready(&mut self) -> Result<(), WorldError> {
        let deadline = Instant::now() + READY_PATIENCE;
        for table in self.tables.clone() {
            let written = self
                .dynamodb()
                .put_item()
                .table_name(&table)
                .item(KEY_ATTRIBUTE, AttributeValue::S(CANARY_KEY.to_owned()))
                .send()
                .await;
            written.map_err(|error| self.not_ready(format!("{}", DisplayErrorContext(error))))?;
            self.wait_for_canary(&table, |entry| matches!(entry, Entry::Live { .. }), deadline).await?;
            let deleted = self
                .dynamodb()
                .delete_item()
                .table_name(&table)
                .key(KEY_ATTRIBUTE, AttributeValue::S(CANARY_KEY.to_owned()))
                .send()
                .await;
            deleted.map_err(|error| self.not_ready(format!("{}", DisplayErrorContext(error))))?;
            self.wait_for_canary(&table, Entry::is_tombstone, deadline).await?;
        }
        Ok(())
    }

    async fn wait_for_canary(
        &mut self,
        table: &str,
        is_there: impl Fn(&Entry) -> bool,
        deadline: Instant,
    ) -> Result<(), WorldError> {
        for index in 0..self.regions.len() {
            loop {
                if let Some(ended) = self.ended() {
                    return Err(self.not_ready(ended));
                }
                let Some(region) = self.regions.get(index) else { break };
                let entry = match region.redis.connect().await {
                    Ok(mut connection) => entry::get(&mut connection, table, CANARY_KEY).await,
                    Err(error) => Err(error),
                };
                if entry.as_ref().is_ok_and(&is_there) {
                    break;
                }
                if Instant::now() >= deadline {
                    let name = region.name();
                    let reason = format!(
                        "a row written to {table} is not in {name} after {READY_PATIENCE:?}: {entry:?}"
                    );
                    return Err(self.not_ready(reason));
                }
                // The row passes through three other processes: there is no event to wait for.
                sleep(POLL_INTERVAL).await;
            }
        }
        Ok(())
    }

    fn not_ready(&self, reason: String) -> WorldError {
        WorldError::NotReady { reason, tails: self.tails() }
    }

    /// Which child process has ended by itself, and how.
    pub fn ended(&mut self) -> Option<String> {
        if let Some(status) = self.aggregator.exit_status() {
            return Some(format!("the aggregator ended with {status}"));
        }
        self.regions.iter_mut().find_map(Region::ended)
    }

    /// The last lines of every daemon, for a failure report.
    #[must_use]
    pub fn tails(&self) -> String {
        let mut text = String::new();
        for daemon in self.daemons() {
            text.push_str(&format!("--- last lines of {}\n", daemon.name()));
            let tail = daemon.log().tail();
            for line in tail.iter().skip(tail.len().saturating_sub(20)) {
                text.push_str(line);
                text.push('\n');
            }
        }
        text
    }

    /// The aggregator, then each region's cache-writer.
    pub fn daemons(&self) -> impl Iterator<Item = &Daemon> {
        std::iter::once(&self.aggregator).chain(self.regions.iter().map(|region| &region.cache_writer))
    }

    /// Process ids of everything that runs outside this process.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        let redis = self.regions.iter().filter_map(|region| region.redis.pid());
        self.daemons().filter_map(Daemon::pid).chain(redis).chain(self.dynamodb.pid()).collect()
    }

    /// A client for the master region's DynamoDB.
    #[must_use]
    pub fn dynamodb(&self) -> aws_sdk_dynamodb::Client {
        clients::dynamodb(self.dynamodb.url(), MASTER_REGION)
    }

    /// A client for the master region's DynamoDB Streams.
    #[must_use]
    pub fn streams(&self) -> aws_sdk_dynamodbstreams::Client {
        clients::streams(self.dynamodb.url(), MASTER_REGION)
    }

    /// Where DynamoDB and DynamoDB Streams listen.
    #[must_use]
    pub fn dynamodb_url(&self) -> &str {
        self.dynamodb.url()
    }

    /// The relay between DynamoDB Streams and the aggregator, if relays were asked for.
    #[must_use]
    pub fn streams_relay(&self) -> Option<&Relay> {
        self.streams_relay.as_ref()
    }

    /// The watched tables.
    #[must_use]
    pub fn tables(&self) -> &[String] {
        &self.tables
    }

    /// The target regions.
    #[must_use]
    pub fn regions(&self) -> &[Region] {
        &self.regions
    }

    /// The target regions, to do something to them.
    pub fn regions_mut(&mut self) -> &mut [Region] {
        &mut self.regions
    }

    /// The aggregator.
    #[must_use]
    pub fn aggregator(&self) -> &Daemon {
        &self.aggregator
    }

    /// The aggregator, to do something to it.
    pub fn aggregator_mut(&mut self) -> &mut Daemon {
        &mut self.aggregator
    }

    /// Logs and configurations, until the world is dropped.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Keeps the directory for the reader of a failure; it is theirs to remove.
    pub fn keep_directory(&mut self) {
        self.directory.disable_cleanup(true);
    }

    /// Stops everything in order: the daemons drain, then the servers end.
    ///
    /// # Errors
    /// A child process cannot be signalled. The rest is stopped nevertheless.
    pub async fn stop(mut self) -> Result<(), WorldError> {
        let (aggregator, cache_writers) = tokio::join!(
            self.aggregator.terminate(),
            futures_in_order(self.regions.iter_mut().map(|region| region.cache_writer.terminate())),
        );
        let mut outcome = aggregator.map(drop).and(cache_writers);
        for region in self.regions {
            region.kinesis.stop().await;
            outcome = outcome.and(region.redis.stop().await);
        }
        outcome.and(self.dynamodb.stop().await).map_err(WorldError::from)
    }
}

/// Runs each to its end and gives the first error. One after the other: there are few.
async fn futures_in_order<T>(
    futures: impl Iterator<Item = impl Future<Output = Result<T, ProcessError>>>,
) -> Result<(), ProcessError> {
    let mut outcome = Ok(());
    for future in futures {
        outcome = outcome.and(future.await.map(drop));
    }
    outcome
}
