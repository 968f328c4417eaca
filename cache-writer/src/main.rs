//! The `cache-writer` binary.

use std::process::ExitCode;

use clap::Subcommand;
use tokio_util::sync::CancellationToken;
use warmcast_cache_writer::import::{ImportKcl, import_kcl};
use warmcast_common::daemon::{Daemon, Outcome};

const EXAMPLES: &str = "\
Examples:
  cache-writer run --config config/cache-writer.toml
  cache-writer run --config config/cache-writer.toml --set reducers.count=16 --check-config
  cache-writer import-kcl --config config/cache-writer.toml --kcl-table cache-consumer --dry-run";

const IMPORT_EXAMPLES: &str = "\
Exit codes: 0 done; 1 done, and the report has something to look at; 2 refused or failed; 64 wrong flags or \
configuration.

Examples:
  Look first. The application may still run:
    cache-writer import-kcl --config cache-writer.toml --kcl-table cache-consumer --dry-run
  Stop the application, import, then start the cache-writer:
    cache-writer import-kcl --config cache-writer.toml --kcl-table cache-consumer
  One of several streams of an application:
    cache-writer import-kcl --config cache-writer.toml --kcl-table consumers --kcl-stream updates-eu-west-1";

/// The commands beside `run`.
#[derive(Subcommand)]
enum Command {
    /// Begin the stream where a KCL application has stopped: take its checkpoints over, once.
    #[command(after_help = IMPORT_EXAMPLES)]
    ImportKcl(ImportKcl),
}

fn main() -> ExitCode {
    Daemon {
        name: "cache-writer",
        about: "Applies the updates of a region's Kinesis stream to the region's Redis.",
        examples: EXAMPLES,
        run: warmcast_cache_writer::run,
        command,
    }
    .main()
}

async fn command(command: Command, shutdown: CancellationToken) -> Result<Outcome, anyhow::Error> {
    match command {
        Command::ImportKcl(args) => import_kcl(args, shutdown).await,
    }
}
