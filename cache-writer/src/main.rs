//! The `cache-writer` binary.

use std::process::ExitCode;

use clap::Subcommand;
use tokio_util::sync::CancellationToken;
use warmcast_cache_writer::explain::{ExplainArgs, explain_command};
use warmcast_cache_writer::import::{ImportKcl, import_kcl};
use warmcast_cache_writer::redrive::redrive_command;
use warmcast_cache_writer::replay::{ReplayArgs, replay_command};
use warmcast_cache_writer::status::status;
use warmcast_cache_writer::upgrade::upgrade_command;
use warmcast_cache_writer::verify::{self, Verify};
use warmcast_common::daemon::{Daemon, Outcome};
use warmcast_common::dead_letter::RedriveArgs;
use warmcast_common::status::StatusArgs;
use warmcast_common::upgrade::{self, UpgradeArgs};

const NAME: &str = "cache-writer";
const ABOUT: &str = "Applies the updates of a region's Kinesis stream to the region's Redis.";

const EXAMPLES: &str = "\
Examples:
  cache-writer run --config config/cache-writer.toml
  cache-writer run --config config/cache-writer.toml --set reducers.count=16 --check-config
  cache-writer config show --config config/cache-writer.toml --set reducers.count=16
  cache-writer status --config config/cache-writer.toml --watch
  cache-writer import-kcl --config config/cache-writer.toml --kcl-table cache-consumer --dry-run
  cache-writer verify --config config/cache-writer.toml --sample 10000";

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

const REDRIVE_EXAMPLES: &str = "\
Exit codes: 0 done; 1 letters failed again; 2 could not run, or not to the end; 64 wrong flags or configuration.

Examples:
  What was set aside in the last hour, and everything about one of them:
    cache-writer redrive list --config cache-writer.toml --since 1h
    cache-writer redrive show --config cache-writer.toml 00112233445566778899aabbccddeeff --raw record.bin
  After an upgrade that can read them: look, then send. What still cannot be used stays, so it can be run again:
    cache-writer redrive send --config cache-writer.toml --class undecodable-record --dry-run
    cache-writer redrive send --config cache-writer.toml --class undecodable-record --rate 20";

const EXPLAIN_EXAMPLES: &str = "\
Only ever reads. Where the aggregator's filters send the region only some attributes or some items, say so (--attributes, \
--filtered), or what is not sent looks wrong.

Exit codes: 0 consistent, or a miss, which is always safe; 1 wrong, or behind for longer than it was \
watched; 2 could not run; 64 wrong flags, table or key.

Examples:
    cache-writer explain --config cache-writer.toml --table profiles user-1
  A table with a sort key, and an aggregator with 256 buckets:
    cache-writer explain --config cache-writer.toml --table visits --buckets 256 '{\"id\":{\"S\":\"user-1\"},\"at\":{\"N\":\"5\"}}'";

const REPLAY_EXAMPLES: &str = "\
Each change that the cache lacks makes its key invalid at the change's position, and the key is filled from the master; \
what the cache has stays as it is. So it can be run again, and goes on where it was stopped.

Exit codes: 0 done; 1 done, and keys stay misses, or something cannot be read; 2 could not run, or not to the end; 64 \
wrong flags, table, key or time.

Examples:
  What came into the stream in the last 15 minutes; look first:
    cache-writer replay --config cache-writer.toml --since 15m --dry-run
    cache-writer replay --config cache-writer.toml --since 15m
  One table, of an hour of yesterday:
    cache-writer replay --config cache-writer.toml --table profiles --since 2026-11-21T09:00:00Z --until 2026-11-21T10:00:00Z
  Keys from a list, as far back as the stream goes:
    cache-writer replay --config cache-writer.toml --table profiles --keys-file keys.txt --from-horizon
  A shard from a record on, with what descends from it:
    cache-writer replay --config cache-writer.toml --from-sequence shardId-000000000003=4966...";

/// The commands beside `run`.
#[derive(Subcommand)]
enum Command {
    /// The fleet as it is: who works, who reads what, how far behind it is, and what needs a look.
    #[command(after_help = STATUS_EXAMPLES)]
    Status(StatusArgs),
    /// Restart one worker, when the fleet can do without it, and nobody else meanwhile: for rolling upgrades.
    #[command(after_help = upgrade::EXAMPLES)]
    Upgrade(UpgradeArgs),
    /// Begin the stream where a KCL application has stopped: take its checkpoints over, once.
    #[command(after_help = IMPORT_EXAMPLES)]
    ImportKcl(ImportKcl),
    /// Dead letters: list them, look into them, and apply them again.
    #[command(after_help = REDRIVE_EXAMPLES)]
    Redrive(RedriveArgs),
    /// Everything that is known about one key, and whether its entry is as it should be.
    #[command(after_help = EXPLAIN_EXAMPLES)]
    Explain(ExplainArgs),
    /// Apply the region's stream again from a time on, where the cache lacks something.
    #[command(after_help = REPLAY_EXAMPLES)]
    Replay(ReplayArgs),
    /// Compare the cache with the master tables, and mend what is wrong.
    #[command(after_help = verify::EXAMPLES)]
    Verify(Verify),
}

fn main() -> ExitCode {
    Daemon { name: NAME, about: ABOUT, examples: EXAMPLES, run: warmcast_cache_writer::run, command }.main()
}

async fn command(command: Command, shutdown: CancellationToken) -> Result<Outcome, anyhow::Error> {
    match command {
        Command::Status(args) => status(args, shutdown).await,
        Command::Upgrade(args) => upgrade_command(args, shutdown).await,
        Command::ImportKcl(args) => import_kcl(args, shutdown).await,
        Command::Redrive(args) => redrive_command(args, shutdown).await,
        Command::Explain(args) => explain_command(args, shutdown).await,
        Command::Replay(args) => replay_command(args, shutdown).await,
        Command::Verify(args) => verify::verify(args, shutdown).await,
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
