//! The arguments of every command, and what they ask the library for.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use warmcast_cache::ReadFrom;
use warmcast_sandbox::bench::ReaderBenchOptions;
use warmcast_sandbox::bench::bytes::BytesBenchOptions;
use warmcast_sandbox::bidder::{BidderCommand, BidderOptions, OnMiss};
use warmcast_sandbox::daemon::WorkerTiming;
use warmcast_sandbox::demo::DemoOptions;
use warmcast_sandbox::dynamodb::Flavour;
use warmcast_sandbox::fleet::{FleetOptions, Scenario};
use warmcast_sandbox::regions::{self, RegionKind, RegionsOptions, RigOptions};
use warmcast_sandbox::repairs::{self, RepairsOptions};
use warmcast_sandbox::report::Output;
use warmcast_sandbox::screen::Mode;
use warmcast_sandbox::up::Contents;
use warmcast_sandbox::upgrade::{Choice, UpgradeOptions, Worst};
use warmcast_sandbox::workload::WorkloadOptions;
use warmcast_sandbox::world::WorldOptions;

/// Warmcast's whole world on one machine.
#[derive(Debug, Parser)]
#[command(version, about)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make traffic, watch it arrive in every region, and compare every row at the end.
    Demo(DemoArgs),
    /// Bring up the world and keep it until SIGINT or SIGTERM, without traffic or with some.
    Up(UpArgs),
    /// Pictures of the aggregator's admin page under load, one of four regions being cut off.
    Screenshot(ScreenshotArgs),
    /// Hold auctions in the world of `sandbox up`, and tell how the lookups of their profiles went.
    Bidder(BidderArgs),
    /// Measure one part by itself.
    Bench {
        #[command(subcommand)]
        what: Bench,
    },
    /// Measure a fleet of aggregators over thousands of shards: its start, losses, costs and restarts.
    Fleet(FleetArgs),
    /// Upgrade two fleets under load, one worker after another, and judge what a region's readers notice.
    #[command(after_help = UPGRADE_EXAMPLES)]
    Upgrade(UpgradeArgs),
    /// Let one of several regions fail under load, and judge what the others notice and how it catches up.
    #[command(after_help = REGIONS_EXAMPLES)]
    Regions(RegionsArgs),
    /// Let data go missing or wrong under load, run what operators run, and judge whether it is mended.
    #[command(after_help = REPAIRS_EXAMPLES)]
    Repairs(RepairsArgs),
}

const REPAIRS_EXAMPLES: &str = "\
Examples:
  sandbox repairs                                      a region's Redis is flushed, then backfilled
  sandbox repairs --scenario planted                   two wrong entries are found, explained and repaired
  sandbox repairs --scenario dropped --drop-s 60       a region's records are lost for a minute, then replayed
  sandbox repairs --scenario healthy --output json     what verification says of a region where all is well

Exit code 0: every target met. 1: the verdict is FAIL, or there is none. 130: interrupted.";

const REGIONS_EXAMPLES: &str = "\
Examples:
  sandbox regions                                      one of four regions is gone for three minutes
  sandbox regions --scenario outage-kill               and the aggregator is killed meanwhile
  sandbox regions --scenario throttle --output json    one region takes a tenth of what it should
  sandbox regions --kind full --rate 2000 --outage-s 30

Exit code 0: every target met. 1: the verdict is FAIL, or there is none. 130: interrupted.";

#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// The bidders' Reader beside a plain `redis` client on the same server.
    Reader(ReaderBenchArgs),
    /// Bytes on the wire for an update, by batch size and compression, against plain DynamoDB JSON.
    Bytes(BytesBenchArgs),
}

#[derive(Debug, Args)]
pub(crate) struct WorldArgs {
    /// Which DynamoDB to run; `local` is Amazon's DynamoDB Local and needs Java.
    #[arg(long, value_enum, default_value_t)]
    dynamodb: Flavour,
    /// Number of target regions, 1 to 8.
    #[arg(long, default_value_t = 2)]
    regions: usize,
    /// Shards of each region's Kinesis stream.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(i32).range(1..=16))]
    shards: i32,
}

#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    #[command(flatten)]
    pub(crate) world: WorldArgs,
    /// Write profiles of about so many users before it is ready; 0 for none.
    #[arg(long, default_value_t = 0)]
    users: u64,
    /// Then go on to write so many of them a second; 0 for none.
    #[arg(long, default_value_t = 0)]
    rate: u32,
    /// Where to write the endpoints as JSON, once everything is ready.
    #[arg(long, value_name = "FILE")]
    pub(crate) endpoints: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct ScreenshotArgs {
    /// Where the pictures go: admin.png and admin-phone.png.
    #[arg(long, value_name = "DIRECTORY", default_value = "docs")]
    pub(crate) directory: PathBuf,
    /// Writes a second.
    #[arg(long, default_value_t = 400)]
    pub(crate) rate: u32,
    /// How long it runs before a region is cut off, and the same again before the pictures.
    #[arg(long, default_value_t = 60)]
    pub(crate) duration_s: u64,
}

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    #[command(flatten)]
    world: WorldArgs,
    /// Write for at least this long.
    #[arg(long, default_value_t = 20)]
    duration_s: u64,
    /// Write at least this often.
    #[arg(long, default_value_t = 20_000)]
    writes_min: u64,
    /// Write to at least this many distinct keys.
    #[arg(long, default_value_t = 5_000)]
    keys: u64,
    /// Write to no more distinct keys than this.
    #[arg(long, default_value_t = 50_000)]
    keys_max: u64,
    /// Writes per second; 0 for as fast as DynamoDB answers.
    #[arg(long, default_value_t = 1_500)]
    rate: u32,
    /// Concurrent writers.
    #[arg(long, default_value_t = 16)]
    writers: usize,
    /// Give up after this long.
    #[arg(long, default_value_t = 300)]
    ceiling_s: u64,
    /// Auctions a second in each region; 0 for no bidders.
    #[arg(long, default_value_t = 200)]
    auctions: u32,
    /// Leave every cache alone; else the last region's is flushed half-way.
    #[arg(long)]
    no_flush: bool,
    /// Seed of the traffic; by default a new one each time.
    #[arg(long)]
    seed: Option<u64>,
    /// Refresh the screen in place, or print plain lines.
    #[arg(long, value_enum, default_value_t)]
    screen: Mode,
}

/// Which server of a shard to read.
#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
pub(crate) enum Server {
    /// The primary.
    Primary,
    /// A replica where there is one.
    #[default]
    Replica,
}

#[derive(Debug, Args)]
pub(crate) struct BidderArgs {
    /// The file that `sandbox up` wrote.
    #[arg(long, value_name = "FILE")]
    endpoints: PathBuf,
    /// The region to read in; by default the first.
    #[arg(long)]
    region: Option<String>,
    /// Auctions a second, on average.
    #[arg(long, default_value_t = 200.0)]
    rate: f64,
    /// How long to bid.
    #[arg(long, default_value_t = 10)]
    duration_s: u64,
    /// Profiles that an auction looks up.
    #[arg(long, default_value_t = 2)]
    keys_per_auction: usize,
    /// How many users there are, as `sandbox up --users` wrote them.
    #[arg(long, default_value_t = 1_000)]
    users: u64,
    /// Of a hundred profiles asked for, how many do not exist.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(0..=100))]
    unknown_percent: u32,
    /// From an auction's beginning until the bid must be made.
    #[arg(long, default_value_t = 100)]
    deadline_ms: u64,
    /// A region whose watermark is further behind has stale rows; 0: that is not judged.
    #[arg(long, default_value_t = 10_000)]
    staleness_max_ms: u64,
    /// Which server of a shard to read.
    #[arg(long, value_enum, default_value_t)]
    read_from: Server,
    /// What a miss does: nothing, fill the cache from the master after the answer, or wait for the master.
    #[arg(long, value_enum, default_value_t)]
    on_miss: OnMiss,
    /// Keep no rows in the process.
    #[arg(long)]
    no_first_level: bool,
    /// Seed of the arrivals and of the choice of users.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

impl BidderArgs {
    pub(crate) fn command(self) -> BidderCommand {
        let options = BidderOptions {
            table: String::new(),
            rate: self.rate,
            deadline: Duration::from_millis(self.deadline_ms),
            keys_per_auction: self.keys_per_auction,
            unknown_percent: self.unknown_percent,
            writers: 1,
            seed: self.seed,
            staleness_max: Some(Duration::from_millis(self.staleness_max_ms)).filter(|max| !max.is_zero()),
            read_from: match self.read_from {
                Server::Primary => ReadFrom::Primary,
                Server::Replica => ReadFrom::Replica,
            },
            first_level: !self.no_first_level,
            on_miss: self.on_miss,
        };
        BidderCommand {
            endpoints: self.endpoints,
            region: self.region,
            users: self.users,
            duration: Duration::from_secs(self.duration_s),
            options,
            output: self.output,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct ReaderBenchArgs {
    /// Callers at a time, each number measured by itself.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 64])]
    callers: Vec<usize>,
    /// Pairs of rounds for each number of callers; the figures are medians.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// How long a round lasts.
    #[arg(long, default_value_t = 2_000)]
    round_ms: u64,
    /// Profiles in the cache.
    #[arg(long, default_value_t = 100_000)]
    profiles: usize,
    /// Bytes of each.
    #[arg(long, default_value_t = 600)]
    profile_bytes: usize,
    /// Connections of either client.
    #[arg(long, default_value_t = 1)]
    connections: usize,
    /// How to print the report.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

impl ReaderBenchArgs {
    pub(crate) fn options(self) -> ReaderBenchOptions {
        ReaderBenchOptions {
            callers: self.callers,
            runs: self.runs,
            round: Duration::from_millis(self.round_ms),
            profiles: self.profiles,
            profile_bytes: self.profile_bytes,
            connections: self.connections,
            output: self.output,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct BytesBenchArgs {
    /// Changes of a frame, each number measured by itself.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 4, 16, 32, 64, 256, 1000])]
    changes: Vec<usize>,
    /// Updates, each of another user.
    #[arg(long, default_value_t = 8_000)]
    updates: usize,
    /// Frames are made again until they have taken so much CPU time.
    #[arg(long, default_value_t = 300)]
    cpu_ms: u64,
    /// Seed of the profiles.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How to print the report.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

impl BytesBenchArgs {
    pub(crate) fn options(self) -> BytesBenchOptions {
        BytesBenchOptions {
            changes: self.changes,
            updates: self.updates,
            cpu: Duration::from_millis(self.cpu_ms),
            seed: self.seed,
            output: self.output,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct FleetArgs {
    /// What to measure.
    #[arg(long, value_enum, default_value_t)]
    scenario: Scenario,
    /// Shards that are open.
    #[arg(long, default_value_t = 5_000)]
    live: usize,
    /// Shards that are listed for each open one, itself included.
    #[arg(long, default_value_t = 7)]
    generations: usize,
    /// Aggregators, each a process.
    #[arg(long, default_value_t = 4)]
    workers: usize,
    /// How often to measure; the figure is the median. The cold start and the idle fleet are measured once.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// How long to watch the idle fleet.
    #[arg(long, default_value_t = 60)]
    idle_s: u64,
    /// The workers' lease duration.
    #[arg(long, default_value_t = 10_000)]
    lease_duration_ms: u64,
    /// The pause between their heartbeats.
    #[arg(long, default_value_t = 3_000)]
    heartbeat_interval_ms: u64,
    /// The longest pause between two of their looks at the leases.
    #[arg(long, default_value_t = 10_000)]
    sync_interval_ms: u64,
    /// The longest pause between two reads of an idle shard. The aggregator's default of 500 is too much work for
    /// one small machine that also plays the service.
    #[arg(long, default_value_t = 5_000)]
    idle_poll_max_ms: u64,
    /// Records a second during the rolling restart.
    #[arg(long, default_value_t = 2_000)]
    records_per_second: u64,
    /// How many of the shards get these records.
    #[arg(long, default_value_t = 300)]
    loaded_shards: usize,
    /// Bytes of the items in these records.
    #[arg(long, default_value_t = 300)]
    image_bytes: usize,
    /// How to print the report.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

impl FleetArgs {
    pub(crate) fn options(&self) -> FleetOptions {
        FleetOptions {
            scenario: self.scenario,
            live: self.live,
            generations: self.generations,
            workers: self.workers,
            runs: self.runs,
            idle: Duration::from_secs(self.idle_s),
            lease_duration_ms: self.lease_duration_ms,
            heartbeat_interval_ms: self.heartbeat_interval_ms,
            sync_interval_ms: self.sync_interval_ms,
            idle_poll_max_ms: self.idle_poll_max_ms,
            records_per_second: self.records_per_second,
            loaded_shards: self.loaded_shards,
            image_bytes: self.image_bytes,
            output: self.output,
        }
    }
}

const UPGRADE_EXAMPLES: &str = "\
Exit codes: 0 PASS; 1 FAIL; 130 interrupted.

Examples:
  sandbox upgrade                                      from the commit before, at 5,000 updates a second
  sandbox upgrade --previous v1.2.0 --rate 2000
  sandbox upgrade --present --workers 2                nothing is built: a rolling restart";

#[derive(Debug, Args)]
pub(crate) struct UpgradeArgs {
    /// The revision to upgrade from. Without it $WARMCAST_PREVIOUS; without that the commit before the last one, or the
    /// last one if something was changed since.
    #[arg(long, value_name = "REVISION")]
    previous: Option<String>,
    /// Build nothing, and restart the present version.
    #[arg(long, conflicts_with = "previous")]
    present: bool,
    /// Aggregators, and as many cache-writers, each a process.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=8))]
    workers: u8,
    /// Updates a second.
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(1..))]
    rate: u64,
    /// How long to watch before the first restart.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    baseline_s: u64,
    /// Rows of the table.
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(1..))]
    keys: u32,
    /// Bytes of a row. The script keeps every update.
    #[arg(long, default_value_t = 200)]
    image_bytes: usize,
    /// Shards of the table's stream.
    #[arg(long, default_value_t = 12)]
    table_shards: usize,
    /// Shards of the region's stream.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=64))]
    target_shards: u32,
    /// Restart a worker of each fleet at a time, instead of one fleet after the other.
    #[arg(long)]
    together: bool,
    /// The workers' lease duration.
    #[arg(long, default_value_t = 10_000)]
    lease_duration_ms: u64,
    /// The pause between their heartbeats.
    #[arg(long, default_value_t = 3_000)]
    heartbeat_interval_ms: u64,
    /// The longest pause between two of their looks at the leases.
    #[arg(long, default_value_t = 10_000)]
    sync_interval_ms: u64,
    /// Pause between two full listings of a stream's shards.
    #[arg(long, default_value_t = 5_000)]
    listing_interval_ms: u64,
    /// By so much the 99th percentile of a second's lags may rise.
    #[arg(long, default_value_t = 1_000)]
    lag_increase_max_ms: u64,
    /// For so long the watermark may stand.
    #[arg(long, default_value_t = 15_000)]
    standing_max_ms: u64,
    /// What else the aggregators are told, as by their own flag: batch.linger_ms=50.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// Seed of the keys.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How to print the report.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

impl UpgradeArgs {
    pub(crate) fn options(self) -> UpgradeOptions {
        let previous = match (self.present, self.previous) {
            (true, _) => Choice::Present,
            (false, Some(revision)) => Choice::Revision(revision),
            (false, None) => Choice::Default,
        };
        UpgradeOptions {
            previous,
            workers: self.workers.into(),
            rate: self.rate,
            baseline: Duration::from_secs(self.baseline_s),
            keys: self.keys,
            image_bytes: self.image_bytes,
            table_shards: self.table_shards,
            target_shards: self.target_shards,
            together: self.together,
            timing: WorkerTiming {
                lease_duration_ms: Some(self.lease_duration_ms),
                heartbeat_interval_ms: Some(self.heartbeat_interval_ms),
                sync_interval_ms: Some(self.sync_interval_ms),
                listing_interval_ms: Some(self.listing_interval_ms),
                ..WorkerTiming::default()
            },
            settings: self.settings,
            worst: Worst {
                lag_increase: Duration::from_millis(self.lag_increase_max_ms),
                standing: Duration::from_millis(self.standing_max_ms),
            },
            seed: self.seed,
            output: self.output,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct RegionsArgs {
    /// What happens.
    #[arg(long, value_enum, default_value_t)]
    scenario: regions::Scenario,
    /// Target regions, 2 to 8; the last is the one that fails.
    #[arg(long, default_value_t = 4)]
    regions: usize,
    /// How much of them is real.
    #[arg(long, value_enum, default_value_t)]
    kind: RegionKind,
    /// Updates a second.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..))]
    rate: u64,
    /// How long to watch before anything fails.
    #[arg(long, default_value_t = 30)]
    baseline_s: u64,
    /// How long the region is gone.
    #[arg(long, default_value_t = 180)]
    outage_s: u64,
    /// How long it throttles.
    #[arg(long, default_value_t = 60)]
    throttle_s: u64,
    /// Rows of the table.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..))]
    keys: u32,
    /// Bytes of a row. The script keeps every update: a million of 200 bytes take about 700 MB.
    #[arg(long, default_value_t = 200)]
    image_bytes: usize,
    /// Shards of the table's stream.
    #[arg(long, default_value_t = 24)]
    table_shards: usize,
    /// Shards of each region's stream.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    target_shards: u32,
    /// The aggregator's queue.bytes_max.
    #[arg(long, default_value_t = 256 << 20)]
    queue_bytes_max: u64,
    /// The aggregator's parking.after_ms: how long a region may stall a shard before it is parked.
    #[arg(long, default_value_t = 15_000)]
    park_after_ms: u64,
    /// What else the aggregator is told, as by its own flag: batch.linger_ms=50.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// Seed of the keys.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How to print the report.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

impl RegionsArgs {
    pub(crate) fn options(self) -> RegionsOptions {
        let rig = RigOptions {
            kind: self.kind,
            table_shards: self.table_shards,
            target_shards: self.target_shards,
            keys: self.keys,
            image_bytes: self.image_bytes,
            settings: self.settings,
            seed: self.seed,
            ..RigOptions::default()
        };
        RegionsOptions {
            scenario: self.scenario,
            regions: self.regions,
            rate: self.rate,
            baseline: Duration::from_secs(self.baseline_s),
            outage: Duration::from_secs(self.outage_s),
            throttle: Duration::from_secs(self.throttle_s),
            park_after: Duration::from_millis(self.park_after_ms),
            queue_bytes_max: self.queue_bytes_max,
            rig,
            output: self.output,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct RepairsArgs {
    /// What goes wrong.
    #[arg(long, value_enum, default_value_t)]
    scenario: repairs::Scenario,
    /// Target regions, 1 to 8; it happens in the last.
    #[arg(long, default_value_t = 2)]
    regions: usize,
    /// Rows of the table.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    rows: u64,
    /// Writes a second.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
    /// How long the load lasts before anything goes wrong. By default as long as the scenario needs.
    #[arg(long)]
    baseline_s: Option<u64>,
    /// How long records are lost.
    #[arg(long, default_value_t = 600)]
    drop_s: u64,
    /// Keys that are looked at in a healthy region; the default takes ten minutes, at the 500 a second that `verify` reads
    /// by default.
    #[arg(long, default_value_t = 300_000)]
    sample: u64,
    /// When they are looked at again.
    #[arg(long, default_value = "1m,5m,10m")]
    looks: String,
    /// The backfill's read units a second. By default as many as this machine serves: nobody bills them.
    #[arg(long, default_value_t = 1_000_000)]
    read_units_per_s: u64,
    /// The most bytes a second that the backfill sends.
    #[arg(long, default_value_t = 64 << 20)]
    bytes_per_s: u64,
    /// Seed of the traffic.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How to print the report.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

impl RepairsArgs {
    pub(crate) fn options(self) -> RepairsOptions {
        RepairsOptions {
            scenario: self.scenario,
            regions: self.regions,
            rows: self.rows,
            rate: self.rate,
            baseline: self.baseline_s.map(Duration::from_secs),
            drop: Duration::from_secs(self.drop_s),
            sample: self.sample,
            looks: self.looks,
            read_units_per_s: self.read_units_per_s,
            bytes_per_s: self.bytes_per_s,
            seed: self.seed,
            output: self.output,
        }
    }
}

impl UpArgs {
    pub(crate) fn contents(&self) -> Contents {
        Contents { users: self.users, rate: self.rate }
    }
}

impl WorldArgs {
    pub(crate) fn options(&self) -> WorldOptions {
        WorldOptions {
            dynamodb: self.dynamodb,
            regions: self.regions,
            kinesis_shards: self.shards,
            ..WorldOptions::default()
        }
    }
}

impl DemoArgs {
    pub(crate) fn options(&self) -> DemoOptions {
        let world = self.world.options();
        let workload = WorkloadOptions {
            table: world.tables.first().cloned().unwrap_or_default(),
            writers: self.writers,
            duration: Duration::from_secs(self.duration_s),
            writes_min: self.writes_min,
            keys_min: self.keys,
            keys_max: self.keys_max.max(self.keys),
            keys_loaded: 0,
            rate: self.rate,
            ceiling: Duration::from_secs(self.ceiling_s),
            seed: self.seed.unwrap_or_else(|| u64::from(rand::random::<u32>())),
        };
        DemoOptions { world, workload, auctions: self.auctions, flush: !self.no_flush, screen: self.screen }
    }
}
