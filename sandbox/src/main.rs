//! The command line of the sandbox.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use warmcast_sandbox::demo::{self, DemoError, DemoOptions};
use warmcast_sandbox::dynamodb::Flavour;
use warmcast_sandbox::fleet::{self, FleetError, FleetOptions, Output, Scenario};
use warmcast_sandbox::screen::Mode;
use warmcast_sandbox::up;
use warmcast_sandbox::workload::WorkloadOptions;
use warmcast_sandbox::world::WorldOptions;

/// The embedded servers, the traffic and the measurement share these. More than the cores of a small machine,
/// because the embedded DynamoDB computes on them.
const WORKER_THREADS: usize = 4;

/// Warmcast's whole world on one machine.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make traffic, watch it arrive in every region, and compare every row at the end.
    Demo(DemoArgs),
    /// Bring up the world without traffic and keep it until SIGINT or SIGTERM.
    Up(UpArgs),
    /// Measure a fleet of aggregators over thousands of shards: its start, losses, costs and restarts.
    Fleet(FleetArgs),
}

#[derive(Debug, Args)]
struct WorldArgs {
    /// Which DynamoDB to run; `local` is Amazon's DynamoDB Local and needs Java.
    #[arg(long, value_enum, default_value_t)]
    dynamodb: Flavour,
    /// Number of target regions, 1 to 8.
    #[arg(long, default_value_t = 2)]
    regions: usize,
    /// Shards of each region's Kinesis stream.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(i32).range(1..=16))]
    shards: i32,
}

#[derive(Debug, Args)]
struct UpArgs {
    #[command(flatten)]
    world: WorldArgs,
    /// Where to write the endpoints as JSON, once everything is ready.
    #[arg(long, value_name = "FILE")]
    endpoints: PathBuf,
}

#[derive(Debug, Args)]
struct DemoArgs {
    #[command(flatten)]
    world: WorldArgs,
    /// Write for at least this long.
    #[arg(long, default_value_t = 20)]
    duration_s: u64,
    /// Write at least this often.
    #[arg(long, default_value_t = 20_000)]
    writes_min: u64,
    /// Write to at least this many distinct keys.
    #[arg(long, default_value_t = 5_000)]
    keys: u64,
    /// Write to no more distinct keys than this.
    #[arg(long, default_value_t = 50_000)]
    keys_max: u64,
    /// Writes per second; 0 for as fast as DynamoDB answers.
    #[arg(long, default_value_t = 1_500)]
    rate: u32,
    /// Concurrent writers.
    #[arg(long, default_value_t = 16)]
    writers: usize,
    /// Give up after this long.
    #[arg(long, default_value_t = 300)]
    ceiling_s: u64,
    /// Seed of the traffic; by default a new one each time.
    #[arg(long)]
    seed: Option<u64>,
    /// Refresh the screen in place, or print plain lines.
    #[arg(long, value_enum, default_value_t)]
    screen: Mode,
}

#[derive(Debug, Args)]
struct FleetArgs {
    /// What to measure.
    #[arg(long, value_enum, default_value_t)]
    scenario: Scenario,
    /// Shards that are open.
    #[arg(long, default_value_t = 5_000)]
    live: usize,
    /// Shards that are listed for each open one, itself included.
    #[arg(long, default_value_t = 7)]
    generations: usize,
    /// Aggregators, each a process.
    #[arg(long, default_value_t = 4)]
    workers: usize,
    /// How often to measure; the figure is the median. The cold start and the idle fleet are measured once.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// How long to watch the idle fleet.
    #[arg(long, default_value_t = 60)]
    idle_s: u64,
    /// The workers' lease duration.
    #[arg(long, default_value_t = 10_000)]
    lease_duration_ms: u64,
    /// The pause between their heartbeats.
    #[arg(long, default_value_t = 3_000)]
    heartbeat_interval_ms: u64,
    /// The longest pause between two of their looks at the leases.
    #[arg(long, default_value_t = 10_000)]
    sync_interval_ms: u64,
    /// The longest pause between two reads of an idle shard. The aggregator's default of 500 is too much work for
    /// one small machine that also plays the service.
    #[arg(long, default_value_t = 5_000)]
    idle_poll_max_ms: u64,
    /// Records a second during the rolling restart.
    #[arg(long, default_value_t = 2_000)]
    records_per_second: u64,
    /// How many of the shards get these records.
    #[arg(long, default_value_t = 300)]
    loaded_shards: usize,
    /// Bytes of the items in these records.
    #[arg(long, default_value_t = 300)]
    image_bytes: usize,
    /// How to print the report.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

impl FleetArgs {
    fn options(&self) -> FleetOptions {
        FleetOptions {
            scenario: self.scenario,
            live: self.live,
            generations: self.generations,
            workers: self.workers,
            runs: self.runs,
            idle: Duration::from_secs(self.idle_s),
            lease_duration_ms: self.lease_duration_ms,
            heartbeat_interval_ms: self.heartbeat_interval_ms,
            sync_interval_ms: self.sync_interval_ms,
            idle_poll_max_ms: self.idle_poll_max_ms,
            records_per_second: self.records_per_second,
            loaded_shards: self.loaded_shards,
            image_bytes: self.image_bytes,
            output: self.output,
        }
    }
}

impl WorldArgs {
    fn options(&self) -> WorldOptions {
        WorldOptions {
            dynamodb: self.dynamodb,
            regions: self.regions,
            kinesis_shards: self.shards,
            ..WorldOptions::default()
        }
    }
}

impl DemoArgs {
    fn options(&self) -> DemoOptions {
        let world = self.world.options();
        let workload = WorkloadOptions {
            table: world.tables.first().cloned().unwrap_or_default(),
            writers: self.writers,
            duration: Duration::from_secs(self.duration_s),
            writes_min: self.writes_min,
            keys_min: self.keys,
            keys_max: self.keys_max.max(self.keys),
            rate: self.rate,
            ceiling: Duration::from_secs(self.ceiling_s),
            seed: self.seed.unwrap_or_else(|| u64::from(rand::random::<u32>())),
        };
        DemoOptions { world, workload, screen: self.screen }
    }
}

fn main() -> anyhow::Result<ExitCode> {
    let cli = Cli::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(tracing_subscriber::EnvFilter::new("error,warmcast_sandbox=warn"))
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKER_THREADS)
        .enable_all()
        .build()
        .context("start the runtime")?;
    runtime.block_on(run(cli))
}

async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let stop = CancellationToken::new();
    let mut signals = JoinSet::new();
    signals.spawn(cancel_on_signal(stop.clone())?);
    match cli.command {
        Command::Demo(args) => match demo::run(args.options(), stop).await {
            Ok(verdict) if verdict.passes() => Ok(ExitCode::SUCCESS),
            Ok(_) => Ok(ExitCode::FAILURE),
            // As a shell reports a program that ended by Ctrl-C.
            Err(error @ DemoError::Interrupted) => {
                tracing::error!("{error}");
                Ok(ExitCode::from(130))
            }
            Err(error) => Err(error.into()),
        },
        Command::Up(args) => {
            up::run(&args.world.options(), &args.endpoints, stop).await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Fleet(args) => match fleet::run(args.options(), stop).await {
            Ok(report) if report.passes() => Ok(ExitCode::SUCCESS),
            Ok(_) => Ok(ExitCode::FAILURE),
            Err(error @ FleetError::Interrupted) => {
                tracing::error!("{error}");
                Ok(ExitCode::from(130))
            }
            Err(error) => Err(error.into()),
        },
    }
}

/// Installs the handlers at once; the future cancels `stop` at the first signal.
fn cancel_on_signal(stop: CancellationToken) -> anyhow::Result<impl Future<Output = ()> + Send> {
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    // A closed terminal must not leave servers behind.
    let mut hangup = signal(SignalKind::hangup()).context("listen for SIGHUP")?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
        stop.cancel();
    })
}
