//! The flags of `upgrade`.

use std::ffi::OsString;
use std::time::Duration;

use clap::Args;

use crate::daemon::ConfigArgs;

/// What its help ends with.
pub const EXAMPLES: &str = "\
The command after -- restarts the worker and waits until it was started, as `systemctl restart` does. One restart at a time \
is made in a fleet; each begins when every lease is held by a worker that lives, nobody is stopping, nothing waits or settles, \
and the watermark is young, and ends when that is so again and the worker has its share. Nothing is retried, and nothing is \
left to clean up: the lock of a command that was killed ends after a minute. A worker that does not come back stops those who \
are next, until it is seen to live or one of them is told --lost.

Exit codes: 0 done; 1 the restart was begun, and the fleet was not seen to be settled again, within --back or before a \
signal (with --dry-run: it could not be restarted now); 2 refused, failed or stopped, and nothing was restarted; 64 wrong flags or configuration; \
if the command after -- fails, its own.

Examples:
  Whether this machine's worker could be restarted now:
    {program} upgrade --config /etc/warmcast/{program}.toml --dry-run
  On each machine, at the same time if you like, once the new program is installed:
    {program} upgrade --config /etc/warmcast/{program}.toml -- systemctl restart warmcast-{program}
  From elsewhere, for the worker of another machine:
    {program} upgrade --config {program}.toml --worker host-7 -- ssh host-7 systemctl restart warmcast-{program}
  Another worker was taken out of service while it was restarted:
    {program} upgrade --config {program}.toml --lost host-3 -- systemctl restart warmcast-{program}";

/// The flags of `upgrade`.
#[derive(Args, Clone, Debug)]
pub struct UpgradeArgs {
    /// Where the state table is, and which worker is restarted.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// The worker that the command restarts, if it is not the configuration's `worker_id`.
    #[arg(long)]
    pub worker: Option<String>,
    /// How long to wait for the lock and for a settled fleet, before anything is done.
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = humantime::parse_duration)]
    pub wait: Duration,
    /// How long to wait for the worker and for a settled fleet, after the command.
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = humantime::parse_duration)]
    pub back: Duration,
    /// A fleet whose watermark is older than this is not settled.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = humantime::parse_duration)]
    pub watermark_bound: Duration,
    /// Go on without this worker, whose restart was not seen to end well: nobody waits for it any more. May be repeated.
    #[arg(long, value_name = "WORKER")]
    pub lost: Vec<String>,
    /// Take no lock and run nothing: say whether it could be done now, and what is in the way.
    #[arg(long)]
    pub dry_run: bool,
    /// The command that restarts the worker, with its arguments, after `--`.
    #[arg(last = true, required_unless_present = "dry_run", value_name = "COMMAND")]
    pub command: Vec<OsString>,
}
