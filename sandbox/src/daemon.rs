//! The real daemons as child processes: their configuration files, their start, their end.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::process::Command;

use crate::clients::CREDENTIAL;
use crate::log::{Log, Stats};
use crate::process::{Process, ProcessError};

/// The stream's name in every region.
pub const STREAM: &str = "warmcast";
/// How often the daemons report their counters: often enough for a screen that looks alive.
const STATS_INTERVAL_MS: u64 = 250;
/// Keys hash into this many frames: at least the shards of a sandbox's stream.
const BUCKETS: u32 = 16;
const LINGER_MS: u64 = 20;
/// A daemon ends by itself after its `shutdown.deadline_ms`, 25 s by default; longer than this is a hang.
const STOP_PATIENCE: Duration = Duration::from_secs(30);

/// Why a daemon could not be run.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The executable is not beside the sandbox's own.
    #[error(
        "the executable {name} is not in {}: run `cargo build --workspace --bins`",
        searched.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" or ")
    )]
    BinaryMissing {
        /// The executable's name.
        name: String,
        /// Directories looked at.
        searched: Vec<PathBuf>,
    },
    /// Its configuration or its log could not be written.
    #[error("cannot write the files of {name}: {source}")]
    Files {
        /// The daemon.
        name: String,
        /// What failed.
        source: io::Error,
    },
    /// Its configuration does not fit TOML.
    #[error("cannot write the configuration of {name}: {source}")]
    Config {
        /// The daemon.
        name: String,
        /// What failed.
        source: toml::ser::Error,
    },
    /// The process.
    #[error(transparent)]
    Process(#[from] ProcessError),
}

/// A daemon and its place: it can be killed and started again. Dropping it kills it.
#[derive(Debug)]
pub struct Daemon {
    name: String,
    program: &'static str,
    config: PathBuf,
    state_table: String,
    dead_letters: PathBuf,
    log: Arc<Log>,
    process: Option<Process>,
}

impl Daemon {
    /// The aggregator: reads the streams of `tables`, writes to the Kinesis of each of `regions` (name, URL).
    ///
    /// # Errors
    /// Its files cannot be written.
    pub fn aggregator(
        directory: &Path,
        dynamodb: Endpoint,
        tables: &[String],
        regions: &[Endpoint],
    ) -> Result<Self, DaemonError> {
        let worker = FleetWorker {
            worker_id: "aggregator-1".to_owned(),
            streams_endpoint: None,
            from_trim_horizon: true,
            timing: None,
            stats_interval_ms: STATS_INTERVAL_MS,
        };
        Self::new_aggregator("aggregator", directory, dynamodb, tables, regions, worker)
    }

    /// An aggregator that is one of a fleet: named by its `worker_id`, as are its files.
    ///
    /// # Errors
    /// Its files cannot be written.
    pub fn fleet_aggregator(
        directory: &Path,
        dynamodb: Endpoint,
        tables: &[String],
        regions: &[Endpoint],
        worker: FleetWorker,
    ) -> Result<Self, DaemonError> {
        let name = worker.worker_id.clone();
        Self::new_aggregator(&name, directory, dynamodb, tables, regions, worker)
    }

    fn new_aggregator(
        name: &str,
        directory: &Path,
        dynamodb: Endpoint,
        tables: &[String],
        regions: &[Endpoint],
        worker: FleetWorker,
    ) -> Result<Self, DaemonError> {
        let dead_letters = directory.join(format!("{name}-dead-letters"));
        let state_table = "warmcast-aggregator".to_owned();
        let initial_position = if worker.from_trim_horizon { "trim-horizon" } else { "latest" };
        let config = AggregatorConfig {
            worker_id: worker.worker_id,
            dynamodb: Master { endpoint: dynamodb, streams_endpoint: worker.streams_endpoint },
            state: State { table: state_table.clone(), create: true },
            tables: tables.iter().map(|table| (table.clone(), TableConfig { initial_position })).collect(),
            regions: regions
                .iter()
                .map(|region| (region.region.clone(), RegionConfig::new(region)))
                .collect(),
            worker: worker.timing,
            batch: Batch { buckets: BUCKETS, linger_ms: LINGER_MS },
            dead_letters: DeadLetters { directory: dead_letters.clone() },
            log: LogConfig { stats_interval_ms: worker.stats_interval_ms, ..LogConfig::default() },
        };
        Self::new(name.to_owned(), "aggregator", directory, &config, state_table, dead_letters)
    }

    /// The cache-writer of the region of `kinesis`.
    ///
    /// # Errors
    /// Its files cannot be written.
    pub fn cache_writer(
        directory: &Path,
        dynamodb: Endpoint,
        kinesis: Endpoint,
        redis_url: String,
    ) -> Result<Self, DaemonError> {
        let name = format!("cache-writer-{}", kinesis.region);
        let dead_letters = directory.join(format!("{name}-dead-letters"));
        let state_table = format!("warmcast-{name}");
        let config = CacheWriterConfig {
            worker_id: name.clone(),
            kinesis: KinesisConfig { stream: STREAM, endpoint: kinesis },
            dynamodb,
            state: State { table: state_table.clone(), create: true },
            redis: RedisConfig { url: redis_url, key_prefix: String::new() },
            dead_letters: DeadLetters { directory: dead_letters.clone() },
            log: LogConfig::default(),
        };
        Self::new(name, "cache-writer", directory, &config, state_table, dead_letters)
    }

    fn new(
        name: String,
        program: &'static str,
        directory: &Path,
        config: &impl Serialize,
        state_table: String,
        dead_letters: PathBuf,
    ) -> Result<Self, DaemonError> {
        let files = |source| DaemonError::Files { name: name.clone(), source };
        let text = toml::to_string_pretty(config)
            .map_err(|source| DaemonError::Config { name: name.clone(), source })?;
        let path = directory.join(format!("{name}.toml"));
        std::fs::write(&path, text).map_err(files)?;
        std::fs::create_dir_all(&dead_letters).map_err(files)?;
        let log = Log::create(&name, directory).map_err(files)?;
        Ok(Self { name, program, config: path, state_table, dead_letters, log, process: None })
    }

    /// Starts it, or starts it again with the same configuration. A running one is left alone.
    ///
    /// # Errors
    /// The executable is missing or cannot be executed.
    pub fn start(&mut self) -> Result<(), DaemonError> {
        if self.process.is_none() {
            let mut command = Command::new(find_binary(self.program)?);
            command.arg("run").arg("--config").arg(&self.config);
            // The configuration file alone decides: the caller's AWS_* and the like must not reach a daemon.
            command.env_clear();
            for kept in ["PATH", "HOME", "TMPDIR", "RUST_LOG", "RUST_BACKTRACE"] {
                if let Some(value) = std::env::var_os(kept) {
                    command.env(kept, value);
                }
            }
            self.process = Some(Process::spawn(&self.name, command, &self.log)?);
        }
        Ok(())
    }

    /// `aggregator`, `cache-writer-<region>`, or the name in a fleet.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The DynamoDB table that holds its leases and checkpoints.
    #[must_use]
    pub fn state_table(&self) -> &str {
        &self.state_table
    }

    /// Where it sets undecodable records aside.
    #[must_use]
    pub fn dead_letters(&self) -> &Path {
        &self.dead_letters
    }

    /// What it prints.
    #[must_use]
    pub fn log(&self) -> &Arc<Log> {
        &self.log
    }

    /// Its counters across restarts.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.log.stats()
    }

    /// The process id while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().and_then(Process::pid)
    }

    /// How it ended, if it has ended by itself.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        self.process.as_mut().and_then(Process::exit_status)
    }

    /// kill -9. `start` starts it again.
    ///
    /// # Errors
    /// The operating system refuses.
    pub async fn kill(&mut self) -> Result<(), ProcessError> {
        if let Some(process) = self.process.take() {
            process.kill().await?;
            self.log.end_run();
        }
        Ok(())
    }

    /// SIGTERM, as an orchestrator would stop it; killed when it hangs. `None` when it was not running.
    ///
    /// # Errors
    /// The operating system refuses.
    pub async fn terminate(&mut self) -> Result<Option<ExitStatus>, ProcessError> {
        let Some(process) = self.process.take() else { return Ok(None) };
        let status = process.terminate(STOP_PATIENCE).await?;
        self.log.end_run();
        Ok(Some(status))
    }
}

/// Finds a daemon's executable: beside the running one, or one directory up (tests run from `deps`).
fn find_binary(name: &str) -> Result<PathBuf, DaemonError> {
    let own =
        std::env::current_exe().map_err(|source| DaemonError::Files { name: name.to_owned(), source })?;
    let searched: Vec<PathBuf> = own.ancestors().skip(1).take(2).map(Path::to_owned).collect();
    let found = searched.iter().map(|directory| directory.join(name)).find(|path| path.is_file());
    found.ok_or_else(|| DaemonError::BinaryMissing { name: name.to_owned(), searched })
}

/// How to reach one service: a table in either daemon's configuration.
#[derive(Clone, Debug, Serialize)]
pub struct Endpoint {
    region: String,
    endpoint: String,
    access_key_id: String,
    secret_access_key: &'static str,
}

impl Endpoint {
    /// The service at `url`, which belongs to `region`.
    #[must_use]
    pub fn new(region: &str, url: &str) -> Self {
        Self {
            region: region.to_owned(),
            endpoint: url.to_owned(),
            access_key_id: CREDENTIAL.to_owned(),
            secret_access_key: CREDENTIAL,
        }
    }

    /// The same with another access key id: local servers accept any, and may tell callers apart by it.
    #[must_use]
    pub fn signed_by(self, access_key_id: &str) -> Self {
        Self { access_key_id: access_key_id.to_owned(), ..self }
    }
}

/// What an aggregator is told when it is one of a fleet.
#[derive(Clone, Debug)]
pub struct FleetWorker {
    /// Its name in the fleet.
    pub worker_id: String,
    /// Where DynamoDB Streams is, if it is not where DynamoDB is.
    pub streams_endpoint: Option<String>,
    /// Whether a stream that was never read is begun with its oldest record, or with what comes from now on.
    pub from_trim_horizon: bool,
    /// Its `[worker]` section; without one, the defaults.
    pub timing: Option<WorkerTiming>,
    /// Pause between two reports of its counters.
    pub stats_interval_ms: u64,
}

/// The keys of `[worker]` that a fleet's timing depends on, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct WorkerTiming {
    /// A worker whose heartbeat has stood still for so long is taken for dead.
    pub lease_duration_ms: u64,
    /// Pause between heartbeats.
    pub heartbeat_interval_ms: u64,
    /// The longest pause between two looks at the leases.
    pub sync_interval_ms: u64,
    /// The longest pause between two reads of an idle shard.
    pub idle_poll_max_ms: u64,
}

#[derive(Serialize)]
struct AggregatorConfig {
    worker_id: String,
    dynamodb: Master,
    state: State,
    tables: BTreeMap<String, TableConfig>,
    regions: BTreeMap<String, RegionConfig>,
    #[serde(skip_serializing_if = "Option::is_none")]
    worker: Option<WorkerTiming>,
    batch: Batch,
    dead_letters: DeadLetters,
    log: LogConfig,
}

#[derive(Serialize)]
struct Master {
    #[serde(flatten)]
    endpoint: Endpoint,
    #[serde(skip_serializing_if = "Option::is_none")]
    streams_endpoint: Option<String>,
}

#[derive(Serialize)]
struct CacheWriterConfig {
    worker_id: String,
    kinesis: KinesisConfig,
    dynamodb: Endpoint,
    state: State,
    redis: RedisConfig,
    dead_letters: DeadLetters,
    log: LogConfig,
}

#[derive(Serialize)]
struct State {
    table: String,
    create: bool,
}

#[derive(Serialize)]
struct TableConfig {
    initial_position: &'static str,
}

/// In the aggregator's configuration the region is the table's name, not a key in it.
#[derive(Serialize)]
struct RegionConfig {
    stream: &'static str,
    kinesis: RegionKinesis,
}

impl RegionConfig {
    fn new(endpoint: &Endpoint) -> Self {
        let kinesis = RegionKinesis {
            endpoint: endpoint.endpoint.clone(),
            access_key_id: endpoint.access_key_id.clone(),
            secret_access_key: endpoint.secret_access_key,
        };
        Self { stream: STREAM, kinesis }
    }
}

#[derive(Serialize)]
struct RegionKinesis {
    endpoint: String,
    access_key_id: String,
    secret_access_key: &'static str,
}

#[derive(Serialize)]
struct KinesisConfig {
    stream: &'static str,
    #[serde(flatten)]
    endpoint: Endpoint,
}

#[derive(Serialize)]
struct RedisConfig {
    url: String,
    key_prefix: String,
}

#[derive(Serialize)]
struct Batch {
    buckets: u32,
    linger_ms: u64,
}

#[derive(Serialize)]
struct DeadLetters {
    directory: PathBuf,
}

#[derive(Serialize)]
struct LogConfig {
    format: &'static str,
    stats_interval_ms: u64,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { format: "json", stats_interval_ms: STATS_INTERVAL_MS }
    }
}
