//! The systems that are compared, line by line. Pure. Rates are of a second, lines of a month of 730 hours.

use serde::Serialize;
use warmcast_common::limits::{KINESIS_SHARD_BYTES_PER_SECOND, KINESIS_SHARD_RECORDS_PER_SECOND};
use warmcast_common::prices::{Dynamodb, GB_BYTES, Kinesis, MONTH_HOURS, Prices};

use super::workload::{Capacity, StreamMode, Workload};

/// Seconds of a month.
const MONTH_S: f64 = MONTH_HOURS * 3_600.0;
const MILLION: f64 = 1e6;

/// Reads of an idle stream shard in a second (`worker.idle_poll_max_ms` of the aggregator, 500).
pub(super) const IDLE_READS_PER_S: f64 = 2.0;
/// Reads of a busy one at most: the pause of 50 ms after a page, and some 30 ms for the call.
pub(super) const BUSY_READS_PER_S: f64 = 12.5;
/// Writes of a shard's lease in a second at most: its checkpoint (`worker.checkpoint_interval_ms`, 1,000).
const CHECKPOINTS_PER_S: f64 = 1.0;
/// Writes of a worker in a second: its heartbeat (`worker.heartbeat_interval_ms`, 3,000).
const HEARTBEATS_PER_S: f64 = 1.0 / 3.0;
/// Watermarks that each shard of a region's stream is told in a second, a record each.
const WATERMARKS_PER_S: f64 = 1.0;
/// Read units of an eventually consistent read for each of a strongly consistent one.
const EVENTUALLY: f64 = 0.5;

/// One thing that is paid for.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Line {
    /// What it is.
    pub what: &'static str,
    /// How much of it, in a month.
    pub quantity: f64,
    /// In what.
    pub unit: &'static str,
    /// What that costs a month.
    pub dollars_per_month: f64,
    /// Whether it is on the bill of DynamoDB.
    pub is_dynamodb: bool,
}

/// A system, and what it costs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct System {
    /// What it is called.
    pub name: &'static str,
    /// Its lines.
    pub lines: Vec<Line>,
    /// All of them.
    pub dollars_per_month: f64,
    /// Of these, what is on the bill of DynamoDB.
    pub dynamodb_dollars_per_month: f64,
}

impl System {
    fn of(name: &'static str, lines: Vec<Line>) -> Self {
        let dollars_per_month = lines.iter().map(|line| line.dollars_per_month).sum();
        let of_dynamodb = lines.iter().filter(|line| line.is_dynamodb);
        let dynamodb_dollars_per_month = of_dynamodb.map(|line| line.dollars_per_month).sum();
        Self { name, lines, dollars_per_month, dynamodb_dollars_per_month }
    }
}

/// What a workload costs at these prices.
#[derive(Clone, Copy, Debug)]
pub struct Model<'a> {
    /// What is to be paid for.
    pub workload: &'a Workload,
    /// At these prices.
    pub prices: &'a Prices,
}

/// How units are counted and priced.
#[derive(Clone, Copy)]
enum Units {
    Write,
    ReplicatedWrite,
    Read,
}

impl Model<'_> {
    /// This system first, then what it is compared with.
    pub fn systems(&self) -> [System; 4] {
        [self.warmcast(), self.global_tables(), self.read_through(), self.ttl_cache()]
    }

    /// This system: tables in the master region, and a cache in each region that is kept warm.
    fn warmcast(&self) -> System {
        let mut lines = self.table_of_master();
        lines.push(self.stream_reads());
        let (sent, misses) = (self.wire_bytes(), 1.0 - self.workload.hit_percent / 100.0);
        lines.push(self.egress("changes sent to the regions", sent));
        lines.extend(self.streams());
        lines.push(self.cache());
        lines.extend(self.reads_of_master(
            ("fills: strongly consistent reads of the master", "fills: items sent to the regions"),
            misses,
            1.0,
        ));
        lines.extend(self.nat(sent, self.read_bytes(misses)));
        lines.push(self.state_tables());
        lines.extend(self.tasks());
        System::of("Warmcast", lines)
    }

    /// A replica of the tables in each region.
    fn global_tables(&self) -> System {
        let workload = self.workload;
        let replicas: Vec<&str> =
            [workload.master.as_str()].into_iter().chain(workload.remote_regions()).collect();
        let units = self.write_units_per_s();
        let writes = self.capacity("writes to each replica", Units::ReplicatedWrite, &replicas, units);
        let read_units = workload.reads_per_s * Dynamodb::read_units(workload.item_bytes) * EVENTUALLY;
        let readers: Vec<&str> = workload.regions.iter().map(String::as_str).collect();
        let reads =
            self.capacity("eventually consistent reads in each region", Units::Read, &readers, read_units);
        let sent = workload.writes_per_s * workload.item_bytes * MONTH_S;
        let lines = vec![
            writes,
            self.storage("storage of each replica", &replicas),
            self.egress("replicated items sent to the regions", sent),
            reads,
        ];
        System::of("DynamoDB global tables, read in every region", lines)
    }

    /// Nothing in the regions: every read goes to the master.
    fn read_through(&self) -> System {
        let mut lines = self.table_of_master();
        let names = ("eventually consistent reads of the master", "items sent to the regions");
        lines.extend(self.reads_of_master(names, 1.0, EVENTUALLY));
        System::of("DynamoDB read by every region at the master", lines)
    }

    /// A cache in each region that is filled by reads, and forgets after a while.
    fn ttl_cache(&self) -> System {
        let mut lines = self.table_of_master();
        lines.push(self.cache());
        let names =
            ("misses: eventually consistent reads of the master", "misses: items sent to the regions");
        lines.extend(self.reads_of_master(names, 1.0 - self.workload.ttl_hit_percent / 100.0, EVENTUALLY));
        System::of("DynamoDB at the master behind caches with a time to live", lines)
    }

    fn write_units_per_s(&self) -> f64 {
        self.workload.writes_per_s * Dynamodb::write_units(self.workload.item_bytes)
    }

    fn table_of_master(&self) -> Vec<Line> {
        let master = [self.workload.master.as_str()];
        vec![
            self.capacity("writes to the tables", Units::Write, &master, self.write_units_per_s()),
            self.storage("storage of the tables", &master),
        ]
    }

    /// Units a second in each of these regions, as capacity is bought.
    fn capacity(&self, what: &'static str, units: Units, regions: &[&str], units_per_s: f64) -> Line {
        let dollars = |region: &&str| {
            let dynamodb = self.prices.dynamodb.prices_in(Some(region));
            match self.workload.capacity {
                Capacity::OnDemand => units.request_dollars(dynamodb, units_per_s * MONTH_S),
                Capacity::Provisioned => {
                    units.capacity_dollars(dynamodb, self.provisioned(units_per_s) * MONTH_HOURS)
                }
            }
        };
        let dollars_per_month = regions.iter().map(dollars).sum();
        let count = regions.len() as f64;
        let (quantity, unit) = match self.workload.capacity {
            Capacity::OnDemand => (count * units_per_s * MONTH_S / MILLION, units.request_name()),
            Capacity::Provisioned => (count * self.provisioned(units_per_s), units.capacity_name()),
        };
        Line { what, quantity, unit, dollars_per_month, is_dynamodb: true }
    }

    fn provisioned(&self, units_per_s: f64) -> f64 {
        (units_per_s / (self.workload.utilisation_percent / 100.0)).ceil()
    }

    fn storage(&self, what: &'static str, regions: &[&str]) -> Line {
        let bytes = self.workload.table_bytes;
        let dollars =
            |region: &&str| self.prices.dynamodb.prices_in(Some(region)).storage_month_dollars(bytes);
        Line {
            what,
            quantity: regions.len() as f64 * bytes / GB_BYTES,
            unit: "GB",
            dollars_per_month: regions.iter().map(dollars).sum(),
            is_dynamodb: true,
        }
    }

    /// Bytes that leave the master for each other region.
    fn egress(&self, what: &'static str, bytes: f64) -> Line {
        let master = Some(self.workload.master.as_str());
        let egress = self.prices.egress.prices_in(master);
        let remote = || self.workload.remote_regions();
        let dollars_per_month = remote().map(|to| egress.dollars(Some(to), bytes)).sum();
        let quantity = remote().count() as f64 * bytes / GB_BYTES;
        Line { what, quantity, unit: "GB", dollars_per_month, is_dynamodb: false }
    }

    /// This share of all reads goes to the master; its answers go to the region.
    fn reads_of_master(
        &self,
        (read, sent): (&'static str, &'static str),
        share: f64,
        consistency: f64,
    ) -> [Line; 2] {
        let workload = self.workload;
        let reads_per_s = workload.reads_per_s * share;
        let regions = workload.regions.len() as f64;
        let units_per_s = regions * reads_per_s * Dynamodb::read_units(workload.item_bytes) * consistency;
        [
            self.capacity(read, Units::Read, &[&workload.master], units_per_s),
            self.egress(sent, self.read_bytes(share)),
        ]
    }

    /// Bytes that a region gets of the master, which is asked for this share of its reads.
    fn read_bytes(&self, share: f64) -> f64 {
        self.workload.reads_per_s * share * self.workload.item_bytes * MONTH_S
    }

    /// What the daemons have pass a NAT gateway, as VPCs have endpoints for the services of their own region only: the bytes
    /// that are sent to each other region, by that of the master's, and what a region is filled with, by that of its own.
    /// Replication by DynamoDB is in no VPC. Where bidders are is not known: what they read is taken to pass none.
    fn nat(&self, sent: f64, read: f64) -> Option<Line> {
        let nat = |region| self.prices.nat.prices_in(Some(region));
        let (master, remote) = (self.workload.master.as_str(), || self.workload.remote_regions());
        let dollars = |region| nat(master).dollars(sent) + nat(region).dollars(read);
        self.workload.nat.then(|| Line {
            what: "NAT: bytes to and from other regions",
            quantity: remote().count() as f64 * (sent + read) / GB_BYTES,
            unit: "GB",
            dollars_per_month: remote().map(dollars).sum(),
            is_dynamodb: false,
        })
    }

    /// The aggregators' reads of the tables' streams: each change is one read at most, and empty reads are billed.
    fn stream_reads(&self) -> Line {
        let shards = self.workload.open_table_shards();
        let changes_per_s = self.workload.writes_per_s / shards;
        let calls = shards * changes_per_s.clamp(IDLE_READS_PER_S, BUSY_READS_PER_S) * MONTH_S;
        let dynamodb = self.prices.dynamodb.prices_in(Some(&self.workload.master));
        Line {
            what: "DynamoDB Streams: reads",
            quantity: calls / MILLION,
            unit: "million calls",
            dollars_per_month: dynamodb.stream_reads_dollars(calls),
            is_dynamodb: true,
        }
    }

    /// Kinesis in each region.
    fn streams(&self) -> Vec<Line> {
        let count = self.workload.regions.len() as f64;
        let line = |what, unit, of_each: f64, dollars: &dyn Fn(&Kinesis) -> f64| {
            let regions = self.workload.regions.iter();
            let of_region = |region: &String| dollars(self.prices.kinesis.prices_in(Some(region)));
            let dollars_per_month = regions.map(of_region).sum();
            Line { what, quantity: count * of_each, unit, dollars_per_month, is_dynamodb: false }
        };
        match self.workload.stream_mode {
            StreamMode::Provisioned => {
                let (shards, put_units) = (self.shards(), self.put_units_per_s() * MONTH_S);
                vec![
                    line("Kinesis: shards", "shards", shards, &|kinesis| {
                        kinesis.shards_dollars(shards * MONTH_HOURS)
                    }),
                    line("Kinesis: PUT payload units", "million units", put_units / MILLION, &|kinesis| {
                        kinesis.put_units_dollars(put_units)
                    }),
                ]
            }
            StreamMode::OnDemand => {
                let (written, read) = (self.on_demand_bytes_per_s() * MONTH_S, self.wire_bytes());
                vec![
                    line("Kinesis: on-demand streams", "streams", 1.0, &|kinesis| {
                        kinesis.on_demand_streams_dollars(MONTH_HOURS)
                    }),
                    line(
                        "Kinesis: written, records rounded up to 1 KB",
                        "GB",
                        written / GB_BYTES,
                        &|kinesis| kinesis.on_demand_in_dollars(written),
                    ),
                    line("Kinesis: read", "GB", read / GB_BYTES, &|kinesis| {
                        kinesis.on_demand_out_dollars(read)
                    }),
                ]
            }
        }
    }

    /// Bytes of changes in one region's stream.
    fn wire_bytes(&self) -> f64 {
        self.workload.writes_per_s * self.workload.wire_bytes_per_change() * MONTH_S
    }

    fn frame_bytes(&self) -> f64 {
        self.workload.wire_bytes_per_change() * self.workload.changes_per_frame
    }

    fn frames_per_s(&self) -> f64 {
        self.workload.writes_per_s / self.workload.changes_per_frame
    }

    /// Shards of one region's stream.
    fn shards(&self) -> f64 {
        let bytes_per_s = self.workload.writes_per_s * self.workload.wire_bytes_per_change();
        let by_bytes = bytes_per_s / KINESIS_SHARD_BYTES_PER_SECOND as f64;
        let by_records = self.frames_per_s() / KINESIS_SHARD_RECORDS_PER_SECOND as f64;
        (by_bytes.max(by_records) * self.workload.shard_headroom).ceil().max(1.0)
    }

    /// Of one region's stream; the watermarks are records, too.
    fn put_units_per_s(&self) -> f64 {
        self.frames_per_s() * Kinesis::put_units(self.frame_bytes()) + self.shards() * WATERMARKS_PER_S
    }

    /// Likewise, if it is on demand.
    fn on_demand_bytes_per_s(&self) -> f64 {
        self.frames_per_s() * Kinesis::on_demand_record_bytes(self.frame_bytes())
            + self.shards() * WATERMARKS_PER_S * Kinesis::on_demand_record_bytes(0.0)
    }

    /// Primaries and replicas that hold the working set, in each region.
    fn cache(&self) -> Line {
        let workload = self.workload;
        let items = workload.working_set_bytes / workload.item_bytes;
        let bytes = workload.working_set_bytes + items * workload.cache_overhead_bytes;
        let nodes = |region: &String| {
            let cache = self.prices.elasticache.prices_in(Some(region));
            (cache, cache.nodes(bytes) * (1.0 + workload.replicas))
        };
        let dollars = |region| {
            let (cache, nodes) = nodes(region);
            cache.nodes_dollars(nodes * MONTH_HOURS)
        };
        Line {
            what: "ElastiCache: primaries and replicas",
            quantity: workload.regions.iter().map(|region| nodes(region).1).sum(),
            unit: "nodes",
            dollars_per_month: workload.regions.iter().map(dollars).sum(),
            is_dynamodb: false,
        }
    }

    /// Leases and heartbeats of the fleets, on demand: one in the master region, one in each other.
    fn state_tables(&self) -> Line {
        let workload = self.workload;
        let shards = workload.open_table_shards();
        let busy = (workload.writes_per_s / shards).min(CHECKPOINTS_PER_S);
        let beats = self.task_count() * HEARTBEATS_PER_S;
        let of_master = (shards * busy + beats) * MONTH_S;
        // Watermarks come all the time, so there is always something to checkpoint.
        let of_region = (self.shards() * CHECKPOINTS_PER_S + beats) * MONTH_S;
        let dollars = |region: &str, writes| {
            self.prices.dynamodb.prices_in(Some(region)).write_request_units_dollars(writes)
        };
        let in_regions: f64 = workload.regions.iter().map(|region| dollars(region, of_region)).sum();
        Line {
            what: "state tables: checkpoints and heartbeats",
            quantity: (of_master + of_region * workload.regions.len() as f64) / MILLION,
            unit: "million WRU",
            dollars_per_month: dollars(&workload.master, of_master) + in_regions,
            is_dynamodb: true,
        }
    }

    /// Of one fleet.
    fn task_count(&self) -> f64 {
        (self.workload.writes_per_s / self.workload.task_changes_per_s).ceil().max(self.workload.tasks_min)
    }

    fn tasks(&self) -> [Line; 2] {
        let (workload, tasks) = (self.workload, self.task_count());
        let dollars = |region: &str| {
            let fargate = self.prices.fargate.prices_in(Some(region));
            fargate.tasks_dollars(tasks * MONTH_HOURS, workload.task_vcpus, workload.task_memory_bytes)
        };
        let line = |what, regions: f64, dollars_per_month| Line {
            what,
            quantity: tasks * regions,
            unit: "tasks",
            dollars_per_month,
            is_dynamodb: false,
        };
        let in_regions: f64 = workload.regions.iter().map(|region| dollars(region)).sum();
        [
            line("Fargate: aggregators", 1.0, dollars(&workload.master)),
            line("Fargate: cache-writers", workload.regions.len() as f64, in_regions),
        ]
    }
}

impl Units {
    fn request_dollars(self, dynamodb: &Dynamodb, units: f64) -> f64 {
        match self {
            Self::Write => dynamodb.write_request_units_dollars(units),
            Self::ReplicatedWrite => dynamodb.replicated_write_request_units_dollars(units),
            Self::Read => dynamodb.read_request_units_dollars(units),
        }
    }

    fn capacity_dollars(self, dynamodb: &Dynamodb, unit_hours: f64) -> f64 {
        match self {
            Self::Write => dynamodb.write_capacity_dollars(unit_hours),
            Self::ReplicatedWrite => dynamodb.replicated_write_capacity_dollars(unit_hours),
            Self::Read => dynamodb.read_capacity_dollars(unit_hours),
        }
    }

    const fn request_name(self) -> &'static str {
        match self {
            Self::Write => "million WRU",
            Self::ReplicatedWrite => "million rWRU",
            Self::Read => "million RRU",
        }
    }

    const fn capacity_name(self) -> &'static str {
        match self {
            Self::Write => "WCU",
            Self::ReplicatedWrite => "rWCU",
            Self::Read => "RCU",
        }
    }
}
