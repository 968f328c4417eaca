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
/// A daemon that drains needs seconds; longer than this is a hang.
const STOP_PATIENCE: Duration = Duration::from_secs(20);

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
        let name = "aggregator".to_owned();
        let dead_letters = directory.join(format!("{name}-dead-letters"));
        let state_table = "warmcast-aggregator".to_owned();
        let config = AggregatorConfig {
            worker_id: "aggregator-1".to_owned(),
            dynamodb,
            state: State { table: state_table.clone(), create: true },
            tables: tables
                .iter()
                .map(|table| (table.clone(), TableConfig { initial_position: "trim-horizon" }))
                .collect(),
            regions: regions
                .iter()
                .map(|region| (region.region.clone(), RegionConfig::new(region)))
                .collect(),
            batch: Batch { buckets: BUCKETS, linger_ms: LINGER_MS },
            dead_letters: DeadLetters { directory: dead_letters.clone() },
            log: LogConfig::default(),
        };
        Self::new(name, "aggregator", directory, &config, state_table, dead_letters)
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

    /// `aggregator`, or `cache-writer-<region>`.
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
    access_key_id: &'static str,
    secret_access_key: &'static str,
}

impl Endpoint {
    /// The service at `url`, which belongs to `region`.
    #[must_use]
    pub fn new(region: &str, url: &str) -> Self {
        Self {
            region: region.to_owned(),
            endpoint: url.to_owned(),
            access_key_id: CREDENTIAL,
            secret_access_key: CREDENTIAL,
        }
    }
}

#[derive(Serialize)]
struct AggregatorConfig {
    worker_id: String,
    dynamodb: Endpoint,
    state: State,
    tables: BTreeMap<String, TableConfig>,
    regions: BTreeMap<String, RegionConfig>,
    batch: Batch,
    dead_letters: DeadLetters,
    log: LogConfig,
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
            access_key_id: endpoint.access_key_id,
            secret_access_key: endpoint.secret_access_key,
        };
        Self { stream: STREAM, kinesis }
    }
}

#[derive(Serialize)]
struct RegionKinesis {
    endpoint: String,
    access_key_id: &'static str,
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
