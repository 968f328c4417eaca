//! What is to be paid for: rates, sizes, regions, and how capacity is bought.

use std::ops::RangeInclusive;

use clap::ValueEnum;
use serde::Serialize;
use warmcast_common::config::Section;

use super::measured::Measured;

/// Bytes of a change in a frame for each byte of its item: docs/wire-size.md, zstd 3, 32 changes a frame (390 of 1,065).
const WIRE_BYTES_PER_ITEM_BYTE: f64 = 390.0 / 1_065.0;
/// Write units that one partition of a table takes in a second (AWS: DynamoDB quotas, 1,000). Each has a stream shard.
const PARTITION_WRITE_UNITS_PER_S: f64 = 1_000.0;
/// Bytes of one partition (AWS: DynamoDB Developer Guide, partitions and data distribution, 10 GB).
const PARTITION_BYTES: f64 = 10.0 * (1_u64 << 30) as f64;

const RATES: RangeInclusive<f64> = 0.0..=1e9;
const BYTES: RangeInclusive<f64> = 0.0..=1e18;

/// How DynamoDB's capacity is bought.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Capacity {
    /// By the request.
    OnDemand,
    /// By the hour, used in part.
    Provisioned,
}

/// How the regions' streams are bought.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum StreamMode {
    /// Shards by the hour, and what is written.
    Provisioned,
    /// What is written, and what is read. What the Terraform module makes, unless it is given a number of shards.
    OnDemand,
}

impl StreamMode {
    /// What it is called in flags and files.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Provisioned => "provisioned",
            Self::OnDemand => "on-demand",
        }
    }
}

/// What is to be paid for.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Workload {
    /// Writes to the tables in a second.
    pub writes_per_s: f64,
    /// Bytes of an item, as DynamoDB counts them.
    pub item_bytes: f64,
    /// Reads in a second in each region.
    pub reads_per_s: f64,
    /// Reads that a region's cache answers, in percent.
    pub hit_percent: f64,
    /// The same of a cache that is filled by reads only and forgets after a while.
    pub ttl_hit_percent: f64,
    /// The region of the tables.
    pub master: String,
    /// The regions that read.
    pub regions: Vec<String>,
    /// Changes of a frame.
    pub changes_per_frame: f64,
    /// Bytes of a change in a region's stream. None: by the item's size.
    pub wire_bytes: Option<f64>,
    /// Open shards of the tables' streams. None: by what is written and stored.
    pub table_shards: Option<f64>,
    /// Bytes of all items.
    pub table_bytes: f64,
    /// Bytes of the items that a region caches.
    pub working_set_bytes: f64,
    /// Bytes that an item takes in the cache beside its own.
    pub cache_overhead_bytes: f64,
    /// Replicas of each primary of the cache.
    pub replicas: f64,
    /// How DynamoDB's capacity is bought.
    pub capacity: Capacity,
    /// How much of provisioned capacity is used, in percent.
    pub utilisation_percent: f64,
    /// How the regions' streams are bought.
    pub stream_mode: StreamMode,
    /// Whether what the daemons send to other regions and get from there passes a NAT gateway: where subnets are private.
    pub nat: bool,
    /// Shards that a region's stream has for each that it needs.
    pub shard_headroom: f64,
    /// Changes that one task of either daemon takes in a second.
    pub task_changes_per_s: f64,
    /// Tasks of either daemon at least.
    pub tasks_min: f64,
    /// Virtual CPUs of a task.
    pub task_vcpus: f64,
    /// Memory of a task, in bytes.
    pub task_memory_bytes: f64,
}

impl Default for Workload {
    /// 20,000 writes a second of 1 KB, to four regions beside the master's.
    fn default() -> Self {
        let gib = |count: u64| (count << 30) as f64;
        let regions = ["us-west-2", "eu-west-1", "ap-northeast-1", "ap-southeast-1"];
        Self {
            writes_per_s: 20_000.0,
            item_bytes: 1_024.0,
            reads_per_s: 50_000.0,
            hit_percent: 99.0,
            ttl_hit_percent: 80.0,
            master: "us-east-1".to_owned(),
            regions: regions.map(str::to_owned).to_vec(),
            changes_per_frame: 32.0,
            wire_bytes: None,
            table_shards: None,
            table_bytes: gib(200),
            working_set_bytes: gib(100),
            cache_overhead_bytes: 150.0,
            replicas: 1.0,
            capacity: Capacity::OnDemand,
            utilisation_percent: 70.0,
            stream_mode: StreamMode::Provisioned,
            nat: true,
            shard_headroom: 1.5,
            task_changes_per_s: 10_000.0,
            tasks_min: 2.0,
            task_vcpus: 2.0,
            task_memory_bytes: gib(4),
        }
    }
}

impl Workload {
    /// A bidder of the size that AdRoll told of: in 2013 four regions, hundreds of millions of users and tens of thousands
    /// of writes a second, in 2018 well over a million auctions a second. Its bill was not published, so the numbers
    /// are ours: 30,000 writes, 300 million users of 1 KB, and a read for each of a million auctions a second. `provisioned`
    /// as it was then.
    pub fn adroll(provisioned: bool) -> Self {
        let regions = ["us-east-1", "us-west-2", "eu-west-1", "ap-northeast-1"];
        let user_bytes = 1_024.0;
        Self {
            writes_per_s: 30_000.0,
            item_bytes: user_bytes,
            reads_per_s: 250_000.0,
            regions: regions.map(str::to_owned).to_vec(),
            table_bytes: 300e6 * user_bytes,
            working_set_bytes: 100e6 * user_bytes,
            capacity: if provisioned { Capacity::Provisioned } else { Capacity::OnDemand },
            ..Self::default()
        }
    }

    /// What was measured stands in for what is assumed.
    pub fn take(&mut self, measured: &Measured) {
        let Measured {
            writes_per_s,
            changes_per_frame,
            wire_bytes,
            body_bytes,
            table_shards,
            is_on_demand,
            regions,
            ..
        } = measured;
        self.writes_per_s = *writes_per_s;
        self.changes_per_frame = changes_per_frame.unwrap_or(self.changes_per_frame);
        self.item_bytes = body_bytes.unwrap_or(self.item_bytes);
        self.wire_bytes = wire_bytes.or(self.wire_bytes);
        self.table_shards = table_shards.or(self.table_shards);
        let mode = |on_demand| if on_demand { StreamMode::OnDemand } else { StreamMode::Provisioned };
        self.stream_mode = is_on_demand.map_or(self.stream_mode, mode);
        if !regions.is_empty() {
            self.regions.clone_from(regions);
        }
    }

    /// Takes what is given out of a section; `base` has the rest.
    pub fn read(mut section: Section, base: &Self) -> Self {
        let mut number = |name, range, of: f64| section.required_number(name, range, Some(of));
        let mut workload = Self {
            writes_per_s: number("writes_per_s", RATES, base.writes_per_s),
            item_bytes: number("item_bytes", 1.0..=409_600.0, base.item_bytes),
            reads_per_s: number("reads_per_s", RATES, base.reads_per_s),
            hit_percent: number("hit_percent", 0.0..=100.0, base.hit_percent),
            ttl_hit_percent: number("ttl_hit_percent", 0.0..=100.0, base.ttl_hit_percent),
            changes_per_frame: number("changes_per_frame", 1.0..=65_536.0, base.changes_per_frame),
            table_bytes: number("table_bytes", BYTES, base.table_bytes),
            working_set_bytes: number("working_set_bytes", BYTES, base.working_set_bytes),
            cache_overhead_bytes: number("cache_overhead_bytes", 0.0..=1e6, base.cache_overhead_bytes),
            replicas: number("replicas", 0.0..=5.0, base.replicas),
            utilisation_percent: number("utilisation_percent", 1.0..=100.0, base.utilisation_percent),
            shard_headroom: number("shard_headroom", 1.0..=100.0, base.shard_headroom),
            task_changes_per_s: number("task_changes_per_s", 1.0..=1e9, base.task_changes_per_s),
            tasks_min: number("tasks_min", 1.0..=1e4, base.tasks_min),
            task_vcpus: number("task_vcpus", 0.25..=1e3, base.task_vcpus),
            task_memory_bytes: number("task_memory_bytes", 0.0..=1e12, base.task_memory_bytes),
            // 0 stands for none.
            wire_bytes: Some(number("wire_bytes", 0.0..=1e6, base.wire_bytes.unwrap_or(0.0))),
            table_shards: Some(number("table_shards", 0.0..=1e6, base.table_shards.unwrap_or(0.0))),
            master: String::new(),
            regions: Vec::new(),
            capacity: base.capacity,
            stream_mode: base.stream_mode,
            nat: base.nat,
        };
        workload.wire_bytes = workload.wire_bytes.filter(|bytes| *bytes > 0.0);
        workload.table_shards = workload.table_shards.filter(|shards| *shards > 0.0);
        workload.master = section.text_or("master", || base.master.clone());
        workload.regions = section.texts("regions").unwrap_or_else(|| base.regions.clone());
        let capacities = [("on-demand", Capacity::OnDemand), ("provisioned", Capacity::Provisioned)];
        workload.capacity = section.choice("capacity", &capacities, base.capacity);
        let modes = [StreamMode::Provisioned, StreamMode::OnDemand].map(|mode| (mode.name(), mode));
        workload.stream_mode = section.choice("stream_mode", &modes, base.stream_mode);
        workload.nat = section.boolean("nat", base.nat);
        let (regions, mut seen) = (&workload.regions, std::collections::BTreeSet::new());
        if let Some(twice) = regions.iter().find(|region| !seen.insert(region.as_str())) {
            section.note("regions", format!("{twice} is there twice"));
        }
        section.finish();
        workload
    }

    /// Bytes of a change in a region's stream.
    pub fn wire_bytes_per_change(&self) -> f64 {
        self.wire_bytes.unwrap_or(self.item_bytes * WIRE_BYTES_PER_ITEM_BYTE)
    }

    /// Open shards of the tables' streams: one for each partition.
    pub fn open_table_shards(&self) -> f64 {
        let write_units_per_s =
            self.writes_per_s * warmcast_common::prices::Dynamodb::write_units(self.item_bytes);
        let partitions =
            (write_units_per_s / PARTITION_WRITE_UNITS_PER_S).max(self.table_bytes / PARTITION_BYTES);
        self.table_shards.unwrap_or_else(|| partitions.ceil().max(1.0))
    }

    /// Regions other than the master's.
    pub fn remote_regions(&self) -> impl Iterator<Item = &str> {
        self.regions.iter().map(String::as_str).filter(|region| *region != self.master)
    }
}
