//! The command line of the sandbox.

mod args;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use warmcast_sandbox::bench::{self, BenchError};
use warmcast_sandbox::demo::{self, DemoError};
use warmcast_sandbox::fleet::{self, FleetError};
use warmcast_sandbox::regions::{self, RegionsError};
use warmcast_sandbox::repairs::{self, RepairsError};
use warmcast_sandbox::upgrade::{self, UpgradeError};
use warmcast_sandbox::{bidder, screenshot, up};

use args::{Bench, Cli, Command};

/// The embedded servers, the traffic and the measurement share these. More than the cores of a small machine,
/// because the embedded DynamoDB computes on them.
const WORKER_THREADS: usize = 4;

fn main() -> anyhow::Result<ExitCode> {
    let cli = Cli::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(tracing_subscriber::EnvFilter::new("error,warmcast_sandbox=warn"))
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(worker_threads(&cli.command))
        .enable_all()
        .build()
        .context("start the runtime")?;
    runtime.block_on(run(cli))
}

/// A benchmark leaves a core to the server that it measures.
fn worker_threads(command: &Command) -> usize {
    match command {
        Command::Bench { .. } => {
            std::thread::available_parallelism().map_or(1, |cores| cores.get().max(2) - 1)
        }
        _ => WORKER_THREADS,
    }
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
            up::run(&args.world.options(), args.contents(), &args.endpoints, stop).await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Screenshot(args) => {
            let duration = Duration::from_secs(args.duration_s);
            screenshot::run(args.rate, duration, &args.directory, stop).await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Bidder(args) => {
            bidder::run(args.command(), stop).await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Bench { what: Bench::Reader(args) } => match bench::reader(args.options(), stop).await {
            Ok(report) if report.passes() => Ok(ExitCode::SUCCESS),
            Ok(_) => Ok(ExitCode::FAILURE),
            Err(error @ BenchError::Interrupted) => {
                tracing::error!("{error}");
                Ok(ExitCode::from(130))
            }
            Err(error) => Err(error.into()),
        },
        Command::Bench { what: Bench::Bytes(args) } => {
            let report = bench::bytes::run(&args.options())?;
            Ok(if report.passes() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
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
        Command::Repairs(args) => match repairs::run(args.options(), stop).await {
            Ok(report) if report.passes() => Ok(ExitCode::SUCCESS),
            Ok(_) => Ok(ExitCode::FAILURE),
            Err(error @ RepairsError::Interrupted) => {
                tracing::error!("{error}");
                Ok(ExitCode::from(130))
            }
            Err(error) => Err(error.into()),
        },
        Command::Upgrade(args) => match upgrade::run(args.options(), stop).await {
            Ok(report) if report.passes() => Ok(ExitCode::SUCCESS),
            Ok(_) => Ok(ExitCode::FAILURE),
            Err(error @ UpgradeError::Interrupted) => {
                tracing::error!("{error}");
                Ok(ExitCode::from(130))
            }
            Err(error) => Err(error.into()),
        },
        Command::Regions(args) => match regions::run(args.options(), stop).await {
            Ok(report) if report.passes() => Ok(ExitCode::SUCCESS),
            Ok(_) => Ok(ExitCode::FAILURE),
            Err(error @ RegionsError::Interrupted) => {
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
