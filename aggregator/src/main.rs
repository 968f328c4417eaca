//! The `aggregator` binary.

use std::process::ExitCode;

use clap::Subcommand;
use tokio_util::sync::CancellationToken;
use warmcast_aggregator::import::{ImportKcl, import_kcl};
use warmcast_aggregator::regions::{Regions, regions};
use warmcast_aggregator::replay::{Replay, replay};
use warmcast_common::daemon::{Daemon, Outcome};

const EXAMPLES: &str = "\
Examples:
  aggregator run --config config/aggregator.toml
  aggregator run --config config/aggregator.toml --set batch.linger_ms=20 --check-config
  aggregator import-kcl --config config/aggregator.toml --table profiles --kcl-table profiles-consumer --dry-run";

const IMPORT_EXAMPLES: &str = "\
Exit codes: 0 done; 1 done, and the report has something to look at; 2 refused or failed; 64 wrong flags or \
configuration.

Examples:
  Look first. The application may still run:
    aggregator import-kcl --config aggregator.toml --table profiles --kcl-table profiles-consumer --dry-run
  Stop the application, import, then start the aggregator:
    aggregator import-kcl --config aggregator.toml --table profiles --kcl-table profiles-consumer
  One of several streams of an application:
    aggregator import-kcl --config aggregator.toml --table profiles --kcl-table consumers --kcl-stream profiles";

const REGIONS_EXAMPLES: &str = "\
Exit codes: 0 done; 1 (list) a region is behind; 2 refused or failed; 64 wrong flags or configuration.

Examples:
  aggregator regions list --config aggregator.toml
  A region that was removed from the configuration, once every aggregator runs without it:
    aggregator regions forget --config aggregator.toml sa-east-1 --dry-run
    aggregator regions forget --config aggregator.toml sa-east-1";

const REPLAY_EXAMPLES: &str = "\
Changes keep their positions: a region's cache takes what it lacks, and nothing else. Stopped or killed, the same command \
goes on where it was.
Exit codes: 0 done; 1 done, and something needs a look; 2 refused, failed or stopped; 64 wrong flags or configuration, or \
names, times or keys that are not there.

Examples:
  A region lost changes on their way in the last two hours. First, how much there is to read:
    aggregator replay --config aggregator.toml --region eu-west-1 --since 2h --dry-run
    aggregator replay --config aggregator.toml --region eu-west-1 --since 2h --bytes-per-s 500000
  Some items of one table, to two regions:
    aggregator replay --config aggregator.toml --region eu-west-1 --region us-west-2 --table profiles --keys-file keys.txt
  From a dead letter's sequence number on:
    aggregator replay --config aggregator.toml --region eu-west-1 --table profiles --from-sequence 49973800000000012345678901";

/// The commands beside `run`.
#[derive(Subcommand)]
enum Command {
    /// Begin a table's stream where a KCL application has stopped: take its checkpoints over, once.
    #[command(after_help = IMPORT_EXAMPLES)]
    ImportKcl(ImportKcl),
    /// The regions that the fleet feeds: where one is behind, and how one is forgotten.
    #[command(after_help = REGIONS_EXAMPLES)]
    Regions(Regions),
    /// Send again what the tables' streams still hold, to chosen regions.
    #[command(after_help = REPLAY_EXAMPLES)]
    Replay(Replay),
}

fn main() -> ExitCode {
    Daemon {
        name: "aggregator",
        about: "Tails the streams of DynamoDB tables and puts batched updates to a Kinesis stream in every region.",
        examples: EXAMPLES,
        run: warmcast_aggregator::run,
        command,
    }
    .main()
}

async fn command(command: Command, shutdown: CancellationToken) -> Result<Outcome, anyhow::Error> {
    match command {
        Command::ImportKcl(args) => import_kcl(args, shutdown).await,
        Command::Regions(args) => regions(args, shutdown).await,
        Command::Replay(args) => replay(args, shutdown).await,
    }
}
