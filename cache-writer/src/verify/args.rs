//! The flags of `verify`.

use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use warmcast_common::daemon::{ConfigArgs, OutputFormat};

/// The longest age of a look: beyond it a run is a daemon's work.
const AGE_MAX: Duration = Duration::from_hours(24);

/// The flags of `verify`.
#[derive(Args, Clone, Debug)]
pub struct Verify {
    /// Where the cache and the master tables are; `[master]` is needed.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Look at so many keys at random, half of them from the master's side and half from the cache's. This is what is
    /// done if no other source of keys is named.
    #[arg(long, value_name = "KEYS", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000), conflicts_with_all = ["key", "keys_file", "all"])]
    pub sample: u64,
    /// Only this table. May be repeated. Default: the tables that the configuration names, and those that the cache has
    /// keys of.
    #[arg(long, value_name = "TABLE")]
    pub table: Vec<String>,
    /// Look at this key of the table: its partition key alone (a text, a number, base64), or all of it as DynamoDB's
    /// JSON, {"id":{"S":"user-1"},"n":{"N":"5"}}. May be repeated.
    #[arg(long, value_name = "KEY", requires = "table")]
    pub key: Vec<String>,
    /// Look at the keys in this file, one on a line, as --key has them; - is standard input.
    #[arg(long, value_name = "FILE", requires = "table")]
    pub keys_file: Option<PathBuf>,
    /// Look at everything: all items of the tables, and all that the cache has of them.
    #[arg(long, requires = "table", conflicts_with_all = ["key", "keys_file"])]
    pub all: bool,
    /// When keys that differ are looked at again, after their first look. A key that differs after the last one, in a
    /// region that has applied everything made before the first one, is a mismatch.
    #[arg(long, value_name = "AGES", value_delimiter = ',', default_value = "1s,5s,15s,1m,5m,10m", value_parser = age)]
    pub looks: Vec<Duration>,
    /// Compare only these attributes, where the region is sent only some (a projection in the aggregator's
    /// [regions.NAME.tables.TABLE]) and `attributes` of the cache-writer's configuration does not say which.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub attributes: Option<Vec<String>>,
    /// The region is sent only some of the items (a condition in the aggregator's [regions.NAME.tables.TABLE]): that it
    /// shows none where the master has one is missing, and no mismatch.
    #[arg(long)]
    pub filtered: bool,
    /// Keys looked at in a second, at most.
    #[arg(long, value_name = "N", default_value = "1000")]
    pub keys_per_s: NonZeroU64,
    /// Read request units of the master spent in a second, at most, on average; a strongly consistent read of 4 KB is
    /// one.
    #[arg(long, value_name = "N", default_value = "500")]
    pub read_units_per_s: NonZeroU64,
    /// Keys that are followed until it is known what becomes of their difference. More are counted.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub differences_max: u32,
    /// Mend each lasting mismatch: invalidate it, have it filled from the master, look at it once more.
    #[arg(long)]
    pub repair: bool,
    /// With --repair: change nothing, and say what would be mended.
    #[arg(long, requires = "repair")]
    pub dry_run: bool,
    /// How the report is printed.
    #[arg(long, value_enum, default_value_t)]
    pub output: OutputFormat,
}

/// What stands below the flags.
pub const EXAMPLES: &str = "\
Reads only, unless --repair is given. It compares what readers get with whole items, because it does not know the \
filters of the aggregator: where a region is sent only some attributes or some items, say so (--attributes, --filtered), \
or what it lacks is called a mismatch. It needs the permissions dynamodb:BatchGetItem, dynamodb:DescribeTable and dynamodb:Scan on the master tables, and of the cache \
GET, MGET, SCAN, RANDOMKEY and TYPE.

A key that readers get nothing of is missing, which is no mismatch: they ask the master. One that is always a moment \
behind is no mismatch either: see --looks. It can be stopped at any time, and then reports what it found.

Exit codes: 0 no mismatch lasted, or all were mended; 1 some did, or some keys could not be judged; 2 could not run, or \
was stopped; 64 wrong flags or configuration.

Examples:
  A sample of all tables, 5000 keys from either side:
    cache-writer verify --config cache-writer.toml
  One key, and what is wrong with it:
    cache-writer verify --config cache-writer.toml --table profiles --key user-1 --looks 1m
  A whole table, gently, for a script:
    cache-writer verify --config cache-writer.toml --table profiles --all --keys-per-s 200 --output json
  What lasts is mended, after a look at what that would be:
    cache-writer verify --config cache-writer.toml --table profiles --all --repair --dry-run
    cache-writer verify --config cache-writer.toml --table profiles --all --repair";

fn age(text: &str) -> Result<Duration, String> {
    let age = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if age.is_zero() || age > AGE_MAX { Err("from 1ms to 24h".to_owned()) } else { Ok(age) }
}

impl Verify {
    /// The ages of the looks after the first, ascending.
    #[must_use]
    pub fn ages(&self) -> Vec<Duration> {
        let mut ages = self.looks.clone();
        ages.sort_unstable();
        ages.dedup();
        ages
    }
}
