//! The `cache-writer` binary.

use std::process::ExitCode;

use clap::Subcommand;
use tokio_util::sync::CancellationToken;
use warmcast_cache_writer::import::{ImportKcl, import_kcl};
use warmcast_cache_writer::status::status;
use warmcast_common::daemon::{Daemon, Outcome};
use warmcast_common::status::StatusArgs;

const NAME: &str = "cache-writer";
const ABOUT: &str = "Applies the updates of a region's Kinesis stream to the region's Redis.";

const EXAMPLES: &str = "\
Examples:
  cache-writer run --config config/cache-writer.toml
  cache-writer config show --config config/cache-writer.toml --set reducers.count=16
  cache-writer status --config config/cache-writer.toml --watch
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

const STATUS_EXAMPLES: &str = "\
Says who works, who reads what, how far behind the fleet and each table may be, what was lost and what waits. It \
only reads: the state table, the table of dead letters, the name of the stream and the watermark in Redis. So it \
answers also when no worker does. That a worker is silent is only said when its heartbeat was seen to stand \
still for worker.lease_duration_ms: so a look takes up to that long, some 3 s if all is well.

A look takes some 50 read units of the state table for each 1,000 leases, up to five times that while leases change hands, \
and up to 1,000 of the table of dead letters, which --watch counts once a minute (--no-dead-letters: not at all).

Exit codes: 0 fine; 1 something needs a look: a silent worker with leases, leases that stay free, a gap, a cache \
that cannot be read, a watermark older than --watermark-bound; 2 could not run; 64 wrong flags or configuration.

Examples:
  cache-writer status --config cache-writer.toml
  Every 10 seconds, in place:
    cache-writer status --config cache-writer.toml --watch 10
  For a check that pages somebody:
    cache-writer status --config cache-writer.toml --watermark-bound 30s --output json
  The shards that are furthest behind:
    cache-writer status --config cache-writer.toml --output json --shards | jq '.shards | sort_by(.behind_ms) | .[-20:]'";

/// The commands beside `run`.
#[derive(Subcommand)]
enum Command {
    /// The fleet as it is: who works, who reads what, how far behind it is, and what needs a look.
    #[command(after_help = STATUS_EXAMPLES)]
    Status(StatusArgs),
    /// Begin the stream where a KCL application has stopped: take its checkpoints over, once.
    #[command(after_help = IMPORT_EXAMPLES)]
    ImportKcl(ImportKcl),
}

fn main() -> ExitCode {
    Daemon { name: NAME, about: ABOUT, examples: EXAMPLES, run: warmcast_cache_writer::run, command }.main()
}

async fn command(command: Command, shutdown: CancellationToken) -> Result<Outcome, anyhow::Error> {
    match command {
        Command::Status(args) => status(args, shutdown).await,
        Command::ImportKcl(args) => import_kcl(args, shutdown).await,
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
