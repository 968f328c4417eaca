//! The `aggregator` binary.

use std::process::ExitCode;

use clap::Subcommand;
use tokio_util::sync::CancellationToken;
use warmcast_aggregator::backfill::{Backfill, backfill};
use warmcast_aggregator::cost::{CostArgs, cost};
use warmcast_aggregator::import::{ImportKcl, import_kcl};
use warmcast_aggregator::redrive::redrive_command;
use warmcast_aggregator::regions::{Regions, regions};
use warmcast_aggregator::replay::{Replay, replay};
use warmcast_aggregator::status::status;
use warmcast_aggregator::upgrade::upgrade_command;
use warmcast_common::daemon::{Daemon, Outcome};
use warmcast_common::dead_letter::RedriveArgs;
use warmcast_common::status::StatusArgs;
use warmcast_common::upgrade::{self, UpgradeArgs};

const NAME: &str = "aggregator";
const ABOUT: &str =
    "Tails the streams of DynamoDB tables and puts batched updates to a Kinesis stream in every region.";

const EXAMPLES: &str = "\
Examples:
  aggregator run --config config/aggregator.toml
  aggregator config show --config config/aggregator.toml --set batch.linger_ms=20
  aggregator status --config config/aggregator.toml --watch
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
Exit codes: 0 done; 1 (list) a region is behind, (wait) it is not warm in time; 2 refused or failed; 64 wrong flags or configuration.

Examples:
  aggregator regions list --config aggregator.toml
  Before readers are sent to a region:
    aggregator regions wait --config aggregator.toml eu-west-1 --watermark-bound 30s --timeout 1h
  A region that was removed from the configuration, once every aggregator runs without it:
    aggregator regions forget --config aggregator.toml sa-east-1 --dry-run
    aggregator regions forget --config aggregator.toml sa-east-1
  A region has what it lacked: its watermark goes on:
    aggregator regions backfilled --config aggregator.toml eu-west-1";

const STATUS_EXAMPLES: &str = "\
Says who works, who reads what, how far behind the fleet and each table may be, what was lost and what waits. It \
only reads: the state table and the table of dead letters. So it answers also when no worker does. That a worker \
is silent is only said when its heartbeat was seen to stand still for worker.lease_duration_ms: so a look takes \
up to that long, some 3 s if all is well.

A look takes some 50 read units of the state table for each 1,000 leases, up to five times that while leases change hands, \
and up to 1,000 of the table of dead letters, which --watch counts once a minute (--no-dead-letters: not at all).

Exit codes: 0 fine; 1 something needs a look: a silent worker with leases, leases that stay free, a gap, a \
parked region, a backfill that is asked for, a watermark older than --watermark-bound; 2 could not run; 64 wrong \
flags or configuration.

Examples:
  aggregator status --config aggregator.toml
  Every 10 seconds, in place:
    aggregator status --config aggregator.toml --watch 10
  For a check that pages somebody:
    aggregator status --config aggregator.toml --watermark-bound 30s --output json
  The shards that are furthest behind:
    aggregator status --config aggregator.toml --output json --shards | jq '.shards | sort_by(.behind_ms) | .[-20:]'";

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

const REDRIVE_EXAMPLES: &str = "\
Exit codes: 0 done; 1 letters failed again; 2 could not run, or not to the end; 64 wrong flags or configuration.

Examples:
  What was set aside in the last hour, and everything about one of them:
    aggregator redrive list --config aggregator.toml --since 1h
    aggregator redrive show --config aggregator.toml 00112233445566778899aabbccddeeff --raw record.json
  After an upgrade that can read them: look, then send. What still cannot be used stays, so it can be run again:
    aggregator redrive send --config aggregator.toml --table profiles --reason 'type that this version' --dry-run
    aggregator redrive send --config aggregator.toml --table profiles --reason 'type that this version' --rate 20";

const BACKFILL_EXAMPLES: &str = "\
Rows land where a region has nothing, and while they are young: nothing newer is ever replaced, and a command that was \
stopped is run again, and goes on. The regions' cache-writers must be running.

Exit codes: 0 done; 1 done, and the report has something to look at; 2 refused or failed; 64 wrong flags, names or \
lists of keys.

Examples:
  What it would cost:
    aggregator backfill --config aggregator.toml --region eu-west-1 --table profiles --dry-run
  A region that lost its cache, or is new:
    aggregator backfill --config aggregator.toml --region eu-west-1
    aggregator regions wait --config aggregator.toml eu-west-1 --watermark-bound 30s --timeout 1h
  Faster: 20,000 read request units a second, and 8 MiB a second to each region:
    aggregator backfill --config aggregator.toml --region eu-west-1 --segments 16 --read-units-per-s 20000 \
      --bytes-per-s 8388608
  A region that was emptied because changes were lost:
    aggregator backfill --config aggregator.toml --region eu-west-1 --was-emptied
  Only some keys, as of a list or an export to S3 (the rows are read anew):
    aggregator backfill --config aggregator.toml --region eu-west-1 --table profiles --from keys.txt
    aggregator backfill --config aggregator.toml --region eu-west-1 --table profiles --from AWSDynamoDB/01/data";

const COST_EXAMPLES: &str = "\
It needs neither AWS nor a configuration. Every assumption is a line of its output; docs/cost.md has what it says of some \
workloads.

Exit codes: 0 done; 2 a file or the endpoint cannot be read; 64 wrong flags, or wrong values in a file.

Examples:
  aggregator cost --scenario today
  aggregator cost --writes-per-s 20000 --item-bytes 1024 --region us-west-2 --region eu-west-1
  With the rates and sizes of a running aggregator, and what you pay:
    aggregator cost --from-metrics http://127.0.0.1:9640/metrics --reads-per-s 50000 --prices prices.toml --output json";

/// The commands beside `run`.
#[derive(Subcommand)]
enum Command {
    /// The fleet as it is: who works, who reads what, how far behind it is, and what needs a look.
    #[command(after_help = STATUS_EXAMPLES)]
    Status(StatusArgs),
    /// Restart one worker, when the fleet can do without it, and nobody else meanwhile: for rolling upgrades.
    #[command(after_help = upgrade::EXAMPLES)]
    Upgrade(UpgradeArgs),
    /// Begin a table's stream where a KCL application has stopped: take its checkpoints over, once.
    #[command(after_help = IMPORT_EXAMPLES)]
    ImportKcl(ImportKcl),
    /// Send rows of the tables to regions that lack them: to a new region, or one whose cache lost its data.
    #[command(after_help = BACKFILL_EXAMPLES)]
    Backfill(Backfill),
    /// The regions that the fleet feeds: where one is behind, and how one is forgotten.
    #[command(after_help = REGIONS_EXAMPLES)]
    Regions(Regions),
    /// Send again what the tables' streams still hold, to chosen regions.
    #[command(after_help = REPLAY_EXAMPLES)]
    Replay(Replay),
    /// Dead letters: list them, look into them, and send them again.
    #[command(after_help = REDRIVE_EXAMPLES)]
    Redrive(RedriveArgs),
    /// What a workload costs a month, line by line, against DynamoDB global tables and against reading the master.
    #[command(after_help = COST_EXAMPLES)]
    Cost(CostArgs),
}

fn main() -> ExitCode {
    Daemon { name: NAME, about: ABOUT, examples: EXAMPLES, run: warmcast_aggregator::run, command }.main()
}

async fn command(command: Command, shutdown: CancellationToken) -> Result<Outcome, anyhow::Error> {
    match command {
        Command::Status(args) => status(args, shutdown).await,
        Command::Upgrade(args) => upgrade_command(args, shutdown).await,
        Command::ImportKcl(args) => import_kcl(args, shutdown).await,
        Command::Backfill(args) => backfill(args, shutdown).await,
        Command::Regions(args) => regions(args, shutdown).await,
        Command::Replay(args) => replay(args, shutdown).await,
        Command::Redrive(args) => redrive_command(args, shutdown).await,
        Command::Cost(args) => cost(args, shutdown).await,
    }
}

#[cfg(test)]
#[path = "../../common/tests/support/documented.rs"]
mod documented;

#[cfg(test)]
mod tests {
    use super::*;
    use warmcast_common::daemon::command_line;

    #[test]
    fn every_command_tells_its_exit_codes_and_shows_command_lines_that_work() {
        let whole = command_line::<Command>(NAME, ABOUT, EXAMPLES);
        whole.clone().debug_assert();
        assert_eq!(documented::undocumented(&whole), Vec::<String>::new());
    }
}
