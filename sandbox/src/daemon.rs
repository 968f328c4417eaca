//! The real daemons as child processes: their configuration files, their start, their end.

mod config;
mod output;

use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use serde::Serialize;
use tokio::process::Command;

use crate::clients::CREDENTIAL;
use crate::log::{Log, Stats};
use crate::process::{Process, ProcessError};
use config::{
    AdminConfig, AggregatorConfig, Batch, CacheWriterConfig, KinesisConfig, LogConfig, Master, RedisConfig,
    RegionConfig, State, TableConfig, Watermark,
};

pub use output::CommandOutput;

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
    /// Another command of its program could not be run, or its output not be read.
    #[error("cannot run `{command}`: {source}")]
    Command {
        /// The command line.
        command: String,
        /// What failed.
        source: io::Error,
    },
}

/// A daemon and its place: it can be killed and started again. Dropping it kills it.
#[derive(Debug)]
pub struct Daemon {
    name: String,
    program: &'static str,
    config: PathBuf,
    settings: Vec<String>,
    environment: Vec<(String, String)>,
    state_table: String,
    log: Arc<Log>,
    process: Option<Process>,
    other: Option<OtherProgram>,
}

/// Another build of a daemon's program.
#[derive(Clone, Debug)]
pub(crate) struct OtherProgram {
    /// The directory that it is in.
    pub(crate) directory: PathBuf,
    /// The configuration that it understands.
    pub(crate) config: PathBuf,
}

impl Daemon {
    /// The only aggregator: reads the streams of `tables`, writes to the Kinesis of each of `regions`.
    /// `streams_endpoint` is where DynamoDB Streams is, if it is not where DynamoDB is.
    ///
    /// # Errors
    /// Its files cannot be written.
    pub fn aggregator(
        directory: &Path,
        dynamodb: Endpoint,
        tables: &[String],
        regions: &[Endpoint],
        streams_endpoint: Option<String>,
        timing: DaemonTiming,
    ) -> Result<Self, DaemonError> {
        let worker = FleetWorker {
            worker_id: "aggregator-1".to_owned(),
            streams_endpoint,
            from_trim_horizon: true,
            timing: timing.worker,
            watermark_interval_ms: timing.watermark_interval_ms,
            stats_interval_ms: STATS_INTERVAL_MS,
            settings: Vec::new(),
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
            watermark: worker.watermark_interval_ms.map(|interval_ms| Watermark { interval_ms }),
            batch: Batch { buckets: BUCKETS, linger_ms: LINGER_MS },
            log: LogConfig { stats_interval_ms: worker.stats_interval_ms, ..LogConfig::default() },
            admin: AdminConfig::default(),
        };
        let daemon = Self::new(name.to_owned(), "aggregator", directory, &config, state_table)?;
        Ok(Self { settings: worker.settings, ..daemon })
    }

    /// A cache-writer of a region.
    ///
    /// # Errors
    /// Its files cannot be written.
    pub fn cache_writer(directory: &Path, plan: CacheWriterPlan) -> Result<Self, DaemonError> {
        let fleet = format!("cache-writer-{}", plan.kinesis.region);
        let name = match plan.number {
            1 => fleet.clone(),
            number => format!("{fleet}-{number}"),
        };
        let state_table = format!("warmcast-{fleet}");
        let config = CacheWriterConfig {
            worker_id: name.clone(),
            kinesis: KinesisConfig { stream: STREAM, endpoint: plan.kinesis },
            master: plan.dynamodb.clone(),
            dynamodb: plan.dynamodb,
            state: State { table: state_table.clone(), create: true },
            redis: RedisConfig { url: plan.redis_url, key_prefix: String::new() },
            worker: plan.timing,
            log: LogConfig::default(),
            admin: AdminConfig::default(),
        };
        Self::new(name, "cache-writer", directory, &config, state_table)
    }

    fn new(
        name: String,
        program: &'static str,
        directory: &Path,
        config: &impl Serialize,
        state_table: String,
    ) -> Result<Self, DaemonError> {
        let files = |source| DaemonError::Files { name: name.clone(), source };
        let text = toml::to_string_pretty(config)
            .map_err(|source| DaemonError::Config { name: name.clone(), source })?;
        let path = directory.join(format!("{name}.toml"));
        std::fs::write(&path, text).map_err(files)?;
        let log = Log::create(&name, directory).map_err(files)?;
        let (settings, environment) = (Vec::new(), Vec::new());
        let (config, process, other) = (path, None, None);
        Ok(Self { name, program, config, settings, environment, state_table, log, process, other })
    }

    /// Tells it something else from its next start on, in the words of its flag `--set`: `queue.bytes_max=16777216`.
    pub fn set(&mut self, setting: &str) {
        self.settings.push(setting.to_owned());
    }

    /// Gives it a variable of the environment from its next start on.
    pub fn set_variable(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Starts it, or starts it again with the same configuration. A running one is left alone.
    ///
    /// # Errors
    /// The executable is missing or cannot be executed.
    pub fn start(&mut self) -> Result<(), DaemonError> {
        if self.process.is_none() {
            let command = match &self.other {
                Some(other) => self.command_of(other.directory.join(self.program), &other.config, &["run"]),
                None => self.command_line(&["run"])?,
            };
            self.process = Some(Process::spawn(&self.name, command, &self.log)?);
        }
        Ok(())
    }

    /// Runs another command of its program, to its end, with the same configuration: `["status", "--output", "json"]`.
    /// Whether the daemon itself runs does not matter. Dropping the future kills the command.
    ///
    /// # Errors
    /// The executable is missing or cannot be executed. How the command ended is no error here.
    pub async fn command(&self, arguments: &[&str]) -> Result<CommandOutput, DaemonError> {
        let mut command = self.command_line(arguments)?;
        command.stdin(Stdio::null()).kill_on_drop(true);
        let line = format!("{} {}", self.program, arguments.join(" "));
        match command.output().await {
            Ok(output) => Ok(CommandOutput::new(line, output)),
            Err(source) => Err(DaemonError::Command { command: line, source }),
        }
    }

    /// Has it run another build of its program from its next start on; `None`: the present one. Its other commands stay
    /// those of the present one.
    pub(crate) fn run_as(&mut self, other: Option<OtherProgram>) {
        self.other = other;
    }

    /// A command line of the present program, with its configuration.
    pub(crate) fn command_line(&self, arguments: &[&str]) -> Result<Command, DaemonError> {
        Ok(self.command_of(find_binary(self.program)?, &self.config, arguments))
    }

    fn command_of(&self, program: PathBuf, config: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).arg("--config").arg(config);
        for setting in &self.settings {
            command.arg("--set").arg(setting);
        }
        clean_environment(&mut command);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Its program.
    pub(crate) fn program(&self) -> &'static str {
        self.program
    }

    /// Its configuration file, which its settings are not in.
    #[must_use]
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// The directory that its executable is in.
    ///
    /// # Errors
    /// The executable is missing.
    pub fn binaries(&self) -> Result<PathBuf, DaemonError> {
        let binary = find_binary(self.program)?;
        Ok(binary.parent().unwrap_or_else(|| Path::new(".")).to_owned())
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

    /// The DynamoDB table in which it sets aside what it cannot use: the default, beside the state table.
    #[must_use]
    pub fn dead_letters(&self) -> String {
        format!("{}-dead-letters", self.state_table)
    }

    /// What it prints.
    #[must_use]
    pub fn log(&self) -> &Arc<Log> {
        &self.log
    }

    /// Where its admin endpoint is, when it has said so: the last that it has.
    #[must_use]
    pub fn admin_url(&self) -> Option<String> {
        let is_it = |line: &&String| line.contains("the admin endpoint listens");
        let line = self.log.tail().into_iter().rev().find(|line| is_it(&line))?;
        let line: serde_json::Value = serde_json::from_str(&line).ok()?;
        Some(format!("http://{}", line.get("address")?.as_str()?))
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

    /// Freezes it (SIGSTOP): it does nothing, and keeps all it has.
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn freeze(&self) -> Result<(), ProcessError> {
        self.signal(Signal::STOP)
    }

    /// Lets a frozen one go on (SIGCONT).
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn thaw(&self) -> Result<(), ProcessError> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<(), ProcessError> {
        self.process.as_ref().map_or(Ok(()), |process| process.signal(signal))
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

/// The configuration file alone decides: the caller's AWS_* and the like must not reach a daemon.
pub fn clean_environment(command: &mut Command) {
    command.env_clear();
    for kept in ["PATH", "HOME", "TMPDIR", "RUST_LOG", "RUST_BACKTRACE"] {
        if let Some(value) = std::env::var_os(kept) {
            command.env(kept, value);
        }
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

/// What a cache-writer is told.
#[derive(Clone, Debug)]
pub struct CacheWriterPlan {
    /// Which of its region's fleet it is, from 1.
    pub number: u32,
    /// The region's Kinesis.
    pub kinesis: Endpoint,
    /// The DynamoDB that has the state table and, in the sandbox, the master tables.
    pub dynamodb: Endpoint,
    /// The region's Redis.
    pub redis_url: String,
    /// Its `[worker]` section.
    pub timing: WorkerTiming,
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
    /// Its `[worker]` section.
    pub timing: WorkerTiming,
    /// Pause between its heartbeats to the regions; without one, the default.
    pub watermark_interval_ms: Option<u64>,
    /// Pause between two reports of its counters.
    pub stats_interval_ms: u64,
    /// What else it is told, in the words of its flag `--set`: `queue.bytes_max=16777216`.
    pub settings: Vec<String>,
}

/// How fast a world's daemons work together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DaemonTiming {
    /// The `[worker]` section of each.
    pub worker: WorkerTiming,
    /// Pause between the aggregator's heartbeats to the regions; without one, the default.
    pub watermark_interval_ms: Option<u64>,
}

impl Default for DaemonTiming {
    fn default() -> Self {
        Self { worker: WorkerTiming::of_a_short_life(), watermark_interval_ms: None }
    }
}

/// The keys of `[worker]` that a fleet's timing depends on, in milliseconds; what is not there has its default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct WorkerTiming {
    /// A worker whose heartbeat has stood still for so long is taken for dead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease_duration_ms: Option<u64>,
    /// Pause between heartbeats.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heartbeat_interval_ms: Option<u64>,
    /// The longest pause between two looks at the leases.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sync_interval_ms: Option<u64>,
    /// Pause between two full listings of a stream's shards.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listing_interval_ms: Option<u64>,
    /// The longest pause between two reads of an idle shard.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_poll_max_ms: Option<u64>,
}

impl WorkerTiming {
    /// For a world that lives for seconds: a stream's watermark is not known before its shards were listed several
    /// times, which by default takes half a minute.
    #[must_use]
    pub fn of_a_short_life() -> Self {
        Self { sync_interval_ms: Some(500), listing_interval_ms: Some(1_000), ..Self::default() }
    }
}
