//! What a daemon's `main` does: command line, configuration, logging, signals, deadline, exit code.
//!
//! Every daemon has the command `run`. It brings its other commands as a [`clap::Subcommand`] with a handler
//! ([`Daemon`]); they share the configuration's flags ([`ConfigArgs`]), the forms of output ([`OutputFormat`])
//! and the exit codes ([`Outcome`]), so that scripts can rely on them whatever the command.

mod configuration;
mod health;
mod help;
mod shell;

use std::future::Future;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::admin::AdminConfig;
use crate::config::{Document, EXIT_USAGE, Section, Violation, read_effective};
use crate::otlp::{self, OtlpConfig};
use crate::plain::plain;
use crate::shutdown::on_signal;
use crate::telemetry::{self, Identity, LogConfig, Telemetry};

use configuration::Configuration;
use health::HealthCheck;
use shell::{Completions, Man};

/// The exit code of a command that could not do what it was asked.
const EXIT_COULD_NOT_RUN: u8 = 2;

/// A daemon's configuration.
pub trait DaemonConfig: Sized + Send + 'static {
    /// The program, as logs and traces name it.
    const SERVICE: &'static str;

    /// Takes the daemon's fields out of the document. What is wrong is noted there.
    fn read(root: Section) -> Self;
    /// The worker's name.
    fn worker_id(&self) -> &str;
    /// How it logs.
    fn log(&self) -> &LogConfig;
    /// Where it answers who asks.
    fn admin(&self) -> &AdminConfig;
    /// How long it may take to stop. Keep it shorter than the orchestrator's kill.
    fn shutdown_deadline(&self) -> Duration;
}

/// A daemon as a process: what its help says, what `run` does, and what its other commands do.
pub struct Daemon<R, H> {
    /// The binary's name.
    pub name: &'static str,
    /// What it is for, in a line.
    pub about: &'static str,
    /// Command lines that work, shown at the end of its help.
    pub examples: &'static str,
    /// Runs until the token is cancelled, then drains. What it is given to show tells of the process as a whole.
    pub run: R,
    /// Carries out one of the commands beside `run`. When the token is cancelled it should end soon.
    pub command: H,
}

/// How a command ended that could do what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Exit code 0: nothing needs a look.
    Done,
    /// Exit code 1: its report names something that needs one.
    Problems,
    /// The exit code of a command that it ran for whoever typed it.
    Code(u8),
}

/// How a command prints its report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// Lines for people.
    #[default]
    Human,
    /// JSON.
    Json,
}

/// The flags of every command that reads the daemon's configuration.
#[derive(Args, Clone, Debug)]
pub struct ConfigArgs {
    /// The configuration file (TOML). See config/ for commented examples.
    #[arg(long, env = "WARMCAST_CONFIG", value_name = "FILE")]
    pub config: PathBuf,
    /// Set one key, over the file and over the environment (WARMCAST__SECTION__KEY). May be repeated.
    #[arg(long = "set", value_name = "KEY.PATH=VALUE")]
    pub set: Vec<String>,
}

/// A configuration that cannot be used: everything that is wrong with it. It ends a command with exit code 64.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", problems.join("; "))]
pub struct ConfigError {
    /// One line each.
    pub problems: Vec<String>,
}

#[derive(Parser)]
struct CommandLine<K: Subcommand> {
    #[command(subcommand)]
    command: Command<K>,
}

#[derive(Subcommand)]
enum Command<K: Subcommand> {
    /// Run the daemon until SIGTERM or SIGINT; a second signal ends it at once.
    #[command(after_help = help::RUN)]
    Run(RunArgs),
    #[command(flatten)]
    Other(K),
    /// The configuration: whether it is good, and what takes effect.
    Config(Configuration),
    /// Ask the daemon of this machine whether it is alive, or ready.
    #[command(after_help = help::HEALTH)]
    Health(HealthCheck),
    /// Print what makes a shell complete command lines of this program.
    #[command(after_help = help::COMPLETIONS)]
    Completions(Completions),
    /// The manual, as pages for man(1).
    #[command(after_help = help::MAN)]
    Man(Man),
}

/// `run`'s flags.
#[derive(Args)]
struct RunArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Check the configuration, report every violation, and exit: 0 if it is good, 64 if not.
    #[arg(long)]
    check_config: bool,
}

impl<R, H> Daemon<R, H> {
    /// Carries out the command line of this process.
    ///
    /// Exit codes of `run`: 0 after a clean stop, 1 when it could not go on. Of the other commands: 0 done, 1 when
    /// problems were found ([`Outcome`]), 2 when it could not do what it was asked. Of all of them: 64 for a wrong
    /// command line or configuration.
    pub fn main<C, F, K, G>(self) -> ExitCode
    where
        C: DaemonConfig,
        F: Future<Output = Result<(), anyhow::Error>>,
        R: FnOnce(C, Telemetry, CancellationToken) -> F,
        K: Subcommand,
        G: Future<Output = Result<Outcome, anyhow::Error>>,
        H: FnOnce(K, CancellationToken) -> G,
    {
        let whole = command_line::<K>(self.name, self.about, self.examples);
        let given = whole.clone().try_get_matches();
        match given.and_then(|matches| CommandLine::from_arg_matches(&matches)) {
            Ok(CommandLine { command: Command::Run(args) }) => run(self.name, &args, self.run),
            Ok(CommandLine { command: Command::Other(args) }) => execute(self.name, args, self.command),
            Ok(CommandLine { command: Command::Config(args) }) => exit_code(self.name, args.carry_out::<C>()),
            Ok(CommandLine { command: Command::Health(args) }) => exit_code(self.name, args.carry_out::<C>()),
            Ok(CommandLine { command: Command::Completions(args) }) => {
                exit_code(self.name, args.carry_out(whole))
            }
            Ok(CommandLine { command: Command::Man(args) }) => exit_code(self.name, args.carry_out(whole)),
            Err(error) => {
                // Help and version are printed this way too, to standard output. Nobody to tell if it is closed.
                let _closed = error.print();
                if error.use_stderr() { ExitCode::from(EXIT_USAGE) } else { ExitCode::SUCCESS }
            }
        }
    }
}

/// The whole command line of a daemon whose commands beside those of every daemon are `K`. `examples` are command lines
/// that work.
pub fn command_line<K: Subcommand>(
    name: &'static str,
    about: &'static str,
    examples: &'static str,
) -> clap::Command {
    let command = CommandLine::<K>::command().name(name).about(about).after_help(examples);
    help::complete(command.version(env!("CARGO_PKG_VERSION")), name)
}

impl ConfigArgs {
    /// Reads the configuration, and starts to log as it says.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn load<C: DaemonConfig>(&self) -> Result<C, ConfigError> {
        let config: C = read(self.document()?)?;
        // A command is no worker.
        telemetry::init(config.log(), Identity { service: C::SERVICE, worker_id: None });
        Ok(config)
    }

    /// Reads the configuration of a daemon at work, and what the standard environment says of OpenTelemetry.
    fn load_of_run<C: DaemonConfig>(&self) -> Result<(C, Option<OtlpConfig>), ConfigError> {
        let (config, otlp) = (read(self.document()?), otlp::read(environment()));
        match (config, otlp) {
            (Ok(config), Ok(otlp)) => Ok((config, otlp)),
            (config, otlp) => {
                let violations = config.err().into_iter().chain(otlp.err()).flatten();
                Err(violations.collect::<Vec<_>>().into())
            }
        }
    }

    /// The file with what the environment and the flags say, not yet looked into.
    fn document(&self) -> Result<Document, ConfigError> {
        let document = Document::load(&self.config, environment(), &self.set);
        document.map_err(|error| ConfigError { problems: vec![error.to_string()] })
    }
}

fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

impl From<Vec<Violation>> for ConfigError {
    fn from(violations: Vec<Violation>) -> Self {
        Self { problems: violations.iter().map(ToString::to_string).collect() }
    }
}

/// Writes a command's report to standard output, without what a terminal would obey: others wrote the keys and the items
/// in it.
///
/// # Errors
/// When standard output does not take it.
pub fn print(report: &str) -> std::io::Result<()> {
    print_as_it_is(&plain(report))
}

/// As [`print`], of a text that moves the cursor: what others wrote in it is plain already.
pub(crate) fn print_as_it_is(report: &str) -> std::io::Result<()> {
    let mut output = std::io::stdout().lock();
    output.write_all(report.as_bytes())?;
    output.flush()
}

#[expect(clippy::print_stdout, reason = "the answer of --check-config")]
fn run<C, F, R>(name: &str, args: &RunArgs, run: R) -> ExitCode
where
    C: DaemonConfig,
    F: Future<Output = Result<(), anyhow::Error>>,
    R: FnOnce(C, Telemetry, CancellationToken) -> F,
{
    let (config, otlp): (C, _) = match args.config.load_of_run() {
        Ok(loaded) => loaded,
        Err(error) => return refuse_config(name, &error),
    };
    if args.check_config {
        print!("{}", configuration::good(&args.config.config));
        return ExitCode::SUCCESS;
    }
    let worker_id = Some(config.worker_id().to_owned());
    let telemetry = telemetry::init(config.log(), Identity { service: C::SERVICE, worker_id });
    let telemetry = Telemetry { otlp, ..telemetry };
    let deadline = config.shutdown_deadline();
    match supervise(Some(deadline), |shutdown| run(config, telemetry, shutdown)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "stopped by an error");
            ExitCode::FAILURE
        }
    }
}

fn execute<K, G, H>(name: &str, args: K, command: H) -> ExitCode
where
    G: Future<Output = Result<Outcome, anyhow::Error>>,
    H: FnOnce(K, CancellationToken) -> G,
{
    exit_code(name, supervise(None, |shutdown| command(args, shutdown)))
}

/// What a command's end is to whoever typed it.
#[expect(clippy::print_stderr, reason = "the answer of a command to whoever typed it")]
fn exit_code(name: &str, outcome: Result<Outcome, anyhow::Error>) -> ExitCode {
    match outcome {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Problems) => ExitCode::FAILURE,
        Ok(Outcome::Code(code)) => ExitCode::from(code),
        Err(error) => match error.downcast_ref::<ConfigError>() {
            Some(config) => refuse_config(name, config),
            None => {
                eprintln!("{name}: {}", plain(&format!("{error:#}")));
                ExitCode::from(EXIT_COULD_NOT_RUN)
            }
        },
    }
}

#[expect(clippy::print_stderr, reason = "before logging is configured")]
fn refuse_config(name: &str, error: &ConfigError) -> ExitCode {
    for problem in &error.problems {
        eprintln!("{name}: {}", plain(problem));
    }
    ExitCode::from(EXIT_USAGE)
}

/// Reads a daemon's configuration out of a document.
///
/// # Errors
/// Every violation there is.
pub fn read<C: DaemonConfig>(document: Document) -> Result<C, Vec<Violation>> {
    read_effective(document, C::read).map(|(config, _)| config)
}

/// Drives `start`'s future to its end. A signal cancels its token; after that it may take `deadline`.
fn supervise<T, F>(
    deadline: Option<Duration>,
    start: impl FnOnce(CancellationToken) -> F,
) -> Result<T, anyhow::Error>
where
    F: Future<Output = Result<T, anyhow::Error>>,
{
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let shutdown = CancellationToken::new();
        let mut signals = JoinSet::new();
        let stopping = match deadline {
            Some(_) => "stopping: no more reads, then flush, checkpoint and release",
            None => "stopping",
        };
        signals.spawn(on_signal(shutdown.clone(), stopping));
        let work = start(shutdown.clone());
        let overdue = async {
            shutdown.cancelled().await;
            let Some(deadline) = deadline else { return std::future::pending().await };
            tokio::time::sleep(deadline).await;
            deadline.as_millis()
        };
        tokio::select! {
            outcome = work => outcome,
            deadline_ms = overdue => Err(anyhow::anyhow!(
                "not everything was flushed within {deadline_ms} ms; what was not checkpointed is read again"
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
