//! The flags of `status`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::daemon::{ConfigArgs, OutputFormat};

/// The flags of `status`.
#[derive(Args, Clone, Debug)]
pub struct StatusArgs {
    /// Where the state table is.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// How to print it.
    #[arg(long, value_enum, default_value_t)]
    pub output: OutputFormat,
    /// List every shard, and not only those that may be furthest behind.
    #[arg(long)]
    pub shards: bool,
    /// How many of the shards that may be furthest behind are listed.
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub worst: usize,
    /// Look again every SECONDS (5 without a number) until it is stopped. On a terminal in place; elsewhere one report
    /// after the other.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "5",
        value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub watch: Option<u64>,
    /// A watermark that is older than this needs a look.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = humantime::parse_duration)]
    pub watermark_bound: Duration,
    /// Do not count dead letters: for a table of many.
    #[arg(long)]
    pub no_dead_letters: bool,
}

/// Shards that may be furthest behind that an admin endpoint shows.
const WORST_ATTENDED: usize = 20;
/// An admin endpoint looks that often at most.
const ATTENDED_SECONDS: u64 = 10;

impl StatusArgs {
    /// What an admin endpoint shows: as if it were watched.
    pub fn attended(watermark_bound: Duration) -> Self {
        Self {
            // It has its configuration.
            config: ConfigArgs { config: PathBuf::new(), set: Vec::new() },
            output: OutputFormat::Json,
            shards: false,
            worst: WORST_ATTENDED,
            watch: Some(ATTENDED_SECONDS),
            watermark_bound,
            no_dead_letters: false,
        }
    }

    /// How many shards are listed: the furthest behind. `None`: all.
    pub fn shards_listed(&self) -> Option<usize> {
        (!self.shards).then_some(self.worst)
    }
}
