//! What a daemon's `main` does: command line, configuration, logging, signals, deadline, exit code.

use std::future::Future;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::{Document, EXIT_USAGE, Section, Violations};
use crate::shutdown::on_signal;
use crate::telemetry::{self, LogConfig};

/// A daemon's configuration.
pub trait DaemonConfig: Sized + Send + 'static {
    /// Takes the daemon's fields out of the document. What is wrong is noted there.
    fn read(root: Section) -> Self;
    /// How it logs.
    fn log(&self) -> &LogConfig;
    /// How long it may take to stop. Keep it shorter than the orchestrator's kill.
    fn shutdown_deadline(&self) -> Duration;
}

#[derive(Parser)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the daemon until SIGTERM or SIGINT; a second signal ends it at once.
    Run(RunArgs),
}

/// `run`'s flags.
#[derive(Args)]
struct RunArgs {
    /// The configuration file (TOML). See config/ for commented examples.
    #[arg(long, env = "WARMCAST_CONFIG", value_name = "FILE")]
    config: PathBuf,
    /// Set one key, over the file and over the environment (WARMCAST__SECTION__KEY). May be repeated.
    #[arg(long = "set", value_name = "KEY.PATH=VALUE")]
    set: Vec<String>,
    /// Check the configuration, report every violation, and exit: 0 if it is good, 64 if not.
    #[arg(long)]
    check_config: bool,
}

/// Runs a daemon as a process: `name` and `about` are for its help.
///
/// Exit codes: 0 after a clean stop, 1 when it could not go on, 64 for a wrong command line or configuration.
#[expect(clippy::print_stderr, clippy::print_stdout, reason = "before logging is configured, and for --help")]
pub fn main<C, F, R>(name: &'static str, about: &'static str, run: R) -> ExitCode
where
    C: DaemonConfig,
    F: Future<Output = Result<(), anyhow::Error>> + Send,
    R: FnOnce(C, CancellationToken) -> F,
{
    let command = CommandLine::command().name(name).about(about).version(env!("CARGO_PKG_VERSION"));
    let Command::Run(args) =
        match command.try_get_matches().and_then(|matches| CommandLine::from_arg_matches(&matches)) {
            Ok(CommandLine { command }) => command,
            Err(error) => {
                // Help and version are printed this way too, to standard output. Nobody to tell if it is closed.
                let _closed = error.print();
                return if error.use_stderr() { ExitCode::from(EXIT_USAGE) } else { ExitCode::SUCCESS };
            }
        };
    let config: C = match load(&args) {
        Ok(config) => config,
        Err(problems) => {
            for problem in problems {
                eprintln!("{name}: {problem}");
            }
            return ExitCode::from(EXIT_USAGE);
        }
    };
    if args.check_config {
        println!("{}: configuration is good", args.config.display());
        return ExitCode::SUCCESS;
    }
    telemetry::init(config.log());
    match supervise(config, run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "stopped by an error");
            ExitCode::FAILURE
        }
    }
}

fn load<C: DaemonConfig>(args: &RunArgs) -> Result<C, Vec<String>> {
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let document =
        Document::load(&args.config, environment, &args.set).map_err(|error| vec![error.to_string()])?;
    read(document).map_err(|violations| violations.iter().map(ToString::to_string).collect())
}

/// Reads a daemon's configuration out of a document.
///
/// # Errors
/// Every violation there is.
pub fn read<C: DaemonConfig>(document: Document) -> Result<C, Vec<crate::config::Violation>> {
    let violations = Violations::default();
    let config = C::read(Section::root(document.into_root(), &violations));
    violations.into_result(config)
}

fn supervise<C, F, R>(config: C, run: R) -> Result<(), anyhow::Error>
where
    C: DaemonConfig,
    F: Future<Output = Result<(), anyhow::Error>> + Send,
    R: FnOnce(C, CancellationToken) -> F,
{
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let shutdown = CancellationToken::new();
        let deadline = config.shutdown_deadline();
        let mut signals = JoinSet::new();
        signals.spawn(on_signal(shutdown.clone()));
        let daemon = run(config, shutdown.clone());
        let overdue = async {
            shutdown.cancelled().await;
            tokio::time::sleep(deadline).await;
        };
        tokio::select! {
            outcome = daemon => outcome,
            () = overdue => Err(anyhow::anyhow!(
                "not everything was flushed within {} ms; what was not checkpointed is read again",
                deadline.as_millis()
            )),
            Some(Ok(Err(error))) = signals.join_next() => Err(error.into()),
        }
    })
}

/// The machine's name: the default name of a worker, the same after a restart and another on another machine.
pub fn host_name() -> String {
    gethostname::gethostname().to_string_lossy().into_owned()
}

/// Reads the `[shutdown]` section: how long a stop may take.
pub fn read_shutdown(mut section: Section) -> Duration {
    let deadline = section.duration_ms("deadline_ms", 100..=600_000, 25_000);
    section.finish();
    deadline
}
