//! The services' prices, and what so much of a service costs. Quantities are of any span of time; a month of a rate is
//! [`MONTH_HOURS`](super::MONTH_HOURS).

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use super::{GB_BYTES, ServicePrices};
use crate::config::Section;
use crate::limits::{
    DYNAMODB_READ_UNIT_BYTES, DYNAMODB_WRITE_UNIT_BYTES, KINESIS_ON_DEMAND_ROUND_BYTES,
    KINESIS_PUT_UNIT_BYTES,
};

/// What one unit of anything can cost, in dollars. Beyond this somebody has mistaken the unit.
const DOLLARS: RangeInclusive<f64> = 0.0..=1_000.0;

const MILLION: f64 = 1_000_000.0;

/// DynamoDB's prices, in dollars.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dynamodb {
    write_request_units_million: f64,
    read_request_units_million: f64,
    replicated_write_request_units_million: f64,
    write_capacity_unit_hour: f64,
    read_capacity_unit_hour: f64,
    replicated_write_capacity_unit_hour: f64,
    storage_gb_month: f64,
    stream_reads_100k: f64,
}

/// Kinesis Data Streams' prices, in dollars.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Kinesis {
    shard_hour: f64,
    put_payload_units_million: f64,
    fan_out_consumer_shard_hour: f64,
    fan_out_gb: f64,
    on_demand_stream_hour: f64,
    on_demand_in_gb: f64,
    on_demand_out_gb: f64,
    on_demand_fan_out_gb: f64,
}

/// The price of data that leaves a region, in dollars for each GB.
#[derive(Clone, Debug, PartialEq)]
pub struct Egress {
    gb: f64,
    to: BTreeMap<String, f64>,
}

/// The price of what passes a NAT gateway, in dollars for each GB, whichever way it goes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Nat {
    gb: f64,
}

/// ElastiCache's prices: one type of node.
#[derive(Clone, Debug, PartialEq)]
pub struct ElastiCache {
    /// The type of node, as AWS calls it.
    pub node_type: String,
    node_hour: f64,
    node_gb: f64,
    usable_percent: f64,
}

/// Fargate's prices, in dollars.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fargate {
    vcpu_hour: f64,
    gb_hour: f64,
}

impl Dynamodb {
    /// Write units of one item (AWS: one for each 1 KB, rounded up), replicated or not.
    pub fn write_units(item_bytes: f64) -> f64 {
        (item_bytes / f64::from(DYNAMODB_WRITE_UNIT_BYTES)).ceil().max(1.0)
    }

    /// Read units of a strongly consistent read of one item (AWS: one for each 4 KB, rounded up). An eventually
    /// consistent one takes half of it.
    pub fn read_units(item_bytes: f64) -> f64 {
        (item_bytes / f64::from(DYNAMODB_READ_UNIT_BYTES)).ceil().max(1.0)
    }

    /// Writes on demand.
    pub fn write_request_units_dollars(&self, units: f64) -> f64 {
        units / MILLION * self.write_request_units_million
    }

    /// Reads on demand.
    pub fn read_request_units_dollars(&self, units: f64) -> f64 {
        units / MILLION * self.read_request_units_million
    }

    /// Writes to one replica of a global table, on demand.
    pub fn replicated_write_request_units_dollars(&self, units: f64) -> f64 {
        units / MILLION * self.replicated_write_request_units_million
    }

    /// Provisioned writes: units a second, held for an hour each.
    pub fn write_capacity_dollars(&self, unit_hours: f64) -> f64 {
        unit_hours * self.write_capacity_unit_hour
    }

    /// Provisioned reads: units a second, held for an hour each.
    pub fn read_capacity_dollars(&self, unit_hours: f64) -> f64 {
        unit_hours * self.read_capacity_unit_hour
    }

    /// Provisioned writes to one replica of a global table: units a second, held for an hour each.
    pub fn replicated_write_capacity_dollars(&self, unit_hours: f64) -> f64 {
        unit_hours * self.replicated_write_capacity_unit_hour
    }

    /// A table's bytes, kept for a month.
    pub fn storage_month_dollars(&self, bytes: f64) -> f64 {
        bytes / GB_BYTES * self.storage_gb_month
    }

    /// GetRecords calls of DynamoDB Streams, empty ones as well.
    pub fn stream_reads_dollars(&self, calls: f64) -> f64 {
        calls / 100_000.0 * self.stream_reads_100k
    }
}

impl Kinesis {
    /// PUT payload units of one record (AWS: one for each 25 KB, rounded up).
    pub fn put_units(record_bytes: f64) -> f64 {
        (record_bytes / f64::from(KINESIS_PUT_UNIT_BYTES)).ceil().max(1.0)
    }

    /// Bytes that writing one record to an on-demand stream is charged for (AWS: rounded up to 1 KB).
    pub fn on_demand_record_bytes(record_bytes: f64) -> f64 {
        let round = f64::from(KINESIS_ON_DEMAND_ROUND_BYTES);
        (record_bytes / round).ceil().max(1.0) * round
    }

    /// Provisioned shards.
    pub fn shards_dollars(&self, shard_hours: f64) -> f64 {
        shard_hours * self.shard_hour
    }

    /// PUT payload units of provisioned streams.
    pub fn put_units_dollars(&self, units: f64) -> f64 {
        units / MILLION * self.put_payload_units_million
    }

    /// An enhanced fan-out consumer of a provisioned stream: for its shards, and for the bytes that it gets.
    pub fn fan_out_dollars(&self, consumer_shard_hours: f64, bytes: f64) -> f64 {
        consumer_shard_hours * self.fan_out_consumer_shard_hour + bytes / GB_BYTES * self.fan_out_gb
    }

    /// On-demand streams, whatever goes through them.
    pub fn on_demand_streams_dollars(&self, stream_hours: f64) -> f64 {
        stream_hours * self.on_demand_stream_hour
    }

    /// Bytes written to on-demand streams, each record's as [`on_demand_record_bytes`](Self::on_demand_record_bytes).
    pub fn on_demand_in_dollars(&self, bytes: f64) -> f64 {
        bytes / GB_BYTES * self.on_demand_in_gb
    }

    /// Bytes read of on-demand streams by GetRecords. Of provisioned ones it is free.
    pub fn on_demand_out_dollars(&self, bytes: f64) -> f64 {
        bytes / GB_BYTES * self.on_demand_out_gb
    }

    /// Bytes that an enhanced fan-out consumer gets of on-demand streams.
    pub fn on_demand_fan_out_dollars(&self, bytes: f64) -> f64 {
        bytes / GB_BYTES * self.on_demand_fan_out_gb
    }
}

impl Egress {
    /// Bytes that leave this region for that one; `None`: another one.
    pub fn dollars(&self, to: Option<&str>, bytes: f64) -> f64 {
        let special = to.and_then(|to| self.to.get(to));
        bytes / GB_BYTES * special.unwrap_or(&self.gb)
    }
}

impl Nat {
    /// Bytes that pass it, either way.
    pub fn dollars(&self, bytes: f64) -> f64 {
        bytes / GB_BYTES * self.gb
    }
}

impl ElastiCache {
    /// Bytes of data that one node takes.
    pub fn node_bytes(&self) -> f64 {
        self.node_gb * GB_BYTES * self.usable_percent / 100.0
    }

    /// Nodes that hold so many bytes once: at least one.
    pub fn nodes(&self, data_bytes: f64) -> f64 {
        (data_bytes / self.node_bytes()).ceil().max(1.0)
    }

    /// Nodes, for an hour each.
    pub fn nodes_dollars(&self, node_hours: f64) -> f64 {
        node_hours * self.node_hour
    }
}

impl Fargate {
    /// Tasks of so many virtual CPUs and bytes of memory, for an hour each.
    pub fn tasks_dollars(&self, task_hours: f64, task_vcpus: f64, task_memory_bytes: f64) -> f64 {
        task_hours * (task_vcpus * self.vcpu_hour + task_memory_bytes / GB_BYTES * self.gb_hour)
    }
}

impl ServicePrices for Dynamodb {
    fn read(section: &mut Section, base: Option<&Self>) -> Self {
        let mut price = |name, of: fn(&Self) -> f64| section.required_number(name, DOLLARS, base.map(of));
        Self {
            write_request_units_million: price("write_request_units_million", |p| {
                p.write_request_units_million
            }),
            read_request_units_million: price("read_request_units_million", |p| p.read_request_units_million),
            replicated_write_request_units_million: price("replicated_write_request_units_million", |p| {
                p.replicated_write_request_units_million
            }),
            write_capacity_unit_hour: price("write_capacity_unit_hour", |p| p.write_capacity_unit_hour),
            read_capacity_unit_hour: price("read_capacity_unit_hour", |p| p.read_capacity_unit_hour),
            replicated_write_capacity_unit_hour: price("replicated_write_capacity_unit_hour", |p| {
                p.replicated_write_capacity_unit_hour
            }),
            storage_gb_month: price("storage_gb_month", |p| p.storage_gb_month),
            stream_reads_100k: price("stream_reads_100k", |p| p.stream_reads_100k),
        }
    }
}

impl ServicePrices for Kinesis {
    fn read(section: &mut Section, base: Option<&Self>) -> Self {
        let mut price = |name, of: fn(&Self) -> f64| section.required_number(name, DOLLARS, base.map(of));
        Self {
            shard_hour: price("shard_hour", |p| p.shard_hour),
            put_payload_units_million: price("put_payload_units_million", |p| p.put_payload_units_million),
            fan_out_consumer_shard_hour: price("fan_out_consumer_shard_hour", |p| {
                p.fan_out_consumer_shard_hour
            }),
            fan_out_gb: price("fan_out_gb", |p| p.fan_out_gb),
            on_demand_stream_hour: price("on_demand_stream_hour", |p| p.on_demand_stream_hour),
            on_demand_in_gb: price("on_demand_in_gb", |p| p.on_demand_in_gb),
            on_demand_out_gb: price("on_demand_out_gb", |p| p.on_demand_out_gb),
            on_demand_fan_out_gb: price("on_demand_fan_out_gb", |p| p.on_demand_fan_out_gb),
        }
    }
}

impl ServicePrices for Egress {
    fn read(section: &mut Section, base: Option<&Self>) -> Self {
        // A region whose price is only special to some others has the general one to the rest.
        let gb = section.required_number("gb", DOLLARS, base.map(|base| base.gb));
        let to = section.optional_named_sections("to").into_iter();
        let to = to.map(|(name, mut region)| {
            let gb = region.required_number("gb", DOLLARS, None);
            region.finish();
            (name, gb)
        });
        Self { gb, to: to.collect() }
    }
}

impl ServicePrices for Nat {
    fn read(section: &mut Section, base: Option<&Self>) -> Self {
        Self { gb: section.required_number("gb", DOLLARS, base.map(|base| base.gb)) }
    }
}

impl ServicePrices for ElastiCache {
    fn read(section: &mut Section, base: Option<&Self>) -> Self {
        let node_type = match base {
            Some(base) => section.text_or("node_type", || base.node_type.clone()),
            None => section.required_text("node_type"),
        };
        Self {
            node_type,
            node_hour: section.required_number("node_hour", DOLLARS, base.map(|base| base.node_hour)),
            node_gb: section.required_number("node_gb", 0.1..=100_000.0, base.map(|base| base.node_gb)),
            usable_percent: section.required_number(
                "usable_percent",
                1.0..=100.0,
                base.map(|base| base.usable_percent),
            ),
        }
    }
}

impl ServicePrices for Fargate {
    fn read(section: &mut Section, base: Option<&Self>) -> Self {
        let mut price = |name, of: fn(&Self) -> f64| section.required_number(name, DOLLARS, base.map(of));
        Self { vcpu_hour: price("vcpu_hour", |p| p.vcpu_hour), gb_hour: price("gb_hour", |p| p.gb_hour) }
    }
}
