//! What `cost` prints: the systems line by line, what is saved, and everything that was assumed.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde::Serialize;
use warmcast_common::prices::{GB_BYTES, Prices, Published, Regional};

use super::measured::Measured;
use super::model::{BUSY_READS_PER_S, IDLE_READS_PER_S, Model, System};
use super::workload::{Capacity, StreamMode, Workload};

/// The whole report.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What is paid for.
    pub workload: Workload,
    /// This system, and those that it is compared with.
    pub systems: Vec<System>,
    /// What this system saves.
    pub saved: Vec<Saved>,
    /// What was assumed, and where the prices are from. A line each.
    pub assumptions: Vec<String>,
}

/// What this system saves against another one, in percent. Less than 0: it costs more.
#[derive(Clone, Debug, Serialize)]
pub struct Saved {
    /// The other one.
    pub against: &'static str,
    /// Of all that it costs.
    pub percent: f64,
    /// Of its bill of DynamoDB.
    pub dynamodb_percent: f64,
}

impl Report {
    /// The report on a workload.
    pub fn new(workload: Workload, measured: Option<&Measured>, prices: &Prices) -> Self {
        let systems = Model { workload: &workload, prices }.systems();
        let [own, others @ ..] = &systems;
        let percent = |own: f64, other: f64| if other > 0.0 { (1.0 - own / other) * 100.0 } else { 0.0 };
        let saved = others.iter().map(|other| Saved {
            against: other.name,
            percent: percent(own.dollars_per_month, other.dollars_per_month),
            dynamodb_percent: percent(own.dynamodb_dollars_per_month, other.dynamodb_dollars_per_month),
        });
        let saved = saved.collect();
        let mut assumptions = assumptions(&workload, measured);
        assumptions.extend(sources(&workload, prices));
        Self { systems: systems.to_vec(), saved, assumptions, workload }
    }

    /// For people.
    pub fn lines(&self) -> String {
        let mut text = String::new();
        let row = |text: &mut String, what: &str, quantity: &str, unit: &str, dollars: f64| {
            let dollars = grouped(dollars);
            let _infallible = writeln!(text, "    {what:<52} {quantity:>10} {unit:<13} {dollars:>11}");
        };
        for system in &self.systems {
            let _infallible = writeln!(text, "\n  {:<79} {:>11}", system.name, "$ a month");
            for line in &system.lines {
                row(&mut text, line.what, &grouped(line.quantity), line.unit, line.dollars_per_month);
            }
            row(&mut text, "in all", "", "", system.dollars_per_month);
            row(&mut text, "of this, DynamoDB", "", "", system.dynamodb_dollars_per_month);
        }
        let mut text = format!("{}\n{}", self.headline(), text.trim_start_matches('\n'));
        text.push_str("\nSaved by Warmcast\n");
        for Saved { against, percent, dynamodb_percent } in &self.saved {
            let _infallible = writeln!(
                text,
                "  {percent:.1} % against {against}; {dynamodb_percent:.1} % of the bill of DynamoDB"
            );
        }
        text.push_str("\nAssumed\n");
        for assumption in &self.assumptions {
            let _infallible = writeln!(text, "  - {assumption}");
        }
        text
    }

    fn headline(&self) -> String {
        let Workload { writes_per_s, item_bytes, reads_per_s, master, regions, .. } = &self.workload;
        format!(
            "{} writes/s of {} bytes in {master}, {} reads/s in each of {} regions\n",
            grouped(*writes_per_s),
            grouped(*item_bytes),
            grouped(*reads_per_s),
            regions.len()
        )
    }
}

fn assumptions(workload: &Workload, measured: Option<&Measured>) -> Vec<String> {
    let gb = |bytes: f64| grouped(bytes / GB_BYTES);
    let Workload { item_bytes, hit_percent, ttl_hit_percent, master, regions, .. } = workload;
    let mut lines = vec![
        "a month has 730 hours; list prices without taxes, discounts, commitments and free tiers; a GB is 2^30 bytes"
            .to_owned(),
        format!("the tables are in {master}; these regions read: {}", regions.join(", ")),
        match workload.capacity {
            Capacity::OnDemand => "DynamoDB's capacity is bought on demand".to_owned(),
            Capacity::Provisioned => format!(
                "DynamoDB's capacity is provisioned, and used to {} %",
                grouped(workload.utilisation_percent)
            ),
        },
        format!("the tables have {} GB, a region's working set has {} GB", gb(workload.table_bytes), gb(workload.working_set_bytes)),
        format!(
            "the warm cache answers {hit_percent} % of a region's reads, one with a time to live {ttl_hit_percent} %; the rest is \
             read of the master: by Warmcast strongly consistent, else eventually, for half the price"
        ),
        format!(
            "a frame has {} changes, each of {} bytes in the region's stream (docs/wire-size.md, unless given or measured)",
            grouped(workload.changes_per_frame),
            grouped(workload.wire_bytes_per_change())
        ),
        format!(
            "a global table sends an item of {} bytes to each region for each write; AWS does not say how many it sends",
            grouped(*item_bytes)
        ),
        format!(
            "the tables' streams have {} shards, each read {IDLE_READS_PER_S} to {BUSY_READS_PER_S} times a second, as many \
             times as it has changes",
            grouped(workload.open_table_shards())
        ),
        streams(workload),
        format!(
            "an item takes {} bytes in the cache beside its own; each primary has {} replica(s); memory bounds it, not calls",
            grouped(workload.cache_overhead_bytes),
            grouped(workload.replicas)
        ),
        format!(
            "a task of either daemon has {} vCPU and {} GB, and takes {} changes/s; each fleet has {} at least",
            workload.task_vcpus,
            gb(workload.task_memory_bytes),
            grouped(workload.task_changes_per_s),
            grouped(workload.tasks_min)
        ),
        match workload.nat {
            true => "the daemons' subnets are private: what they send to other regions and get from there passes a NAT gateway; \
                     without one: --without-nat. What bidders read of the master is taken to pass none",
            false => "nothing passes a NAT gateway",
        }
        .to_owned(),
        "not counted: VPC endpoints, for which Warmcast alone has much to pass (what it reads of the tables' and the regions' \
         streams; see docs/cost.md)"
            .to_owned(),
        "not counted on either side: bidders, backups, logs and metrics, traffic between zones, hours of NAT gateways"
            .to_owned(),
    ];
    if let Some(measured) = measured {
        lines.push(measured.line());
    }
    lines
}

/// How the regions' streams are bought.
fn streams(workload: &Workload) -> String {
    match workload.stream_mode {
        StreamMode::Provisioned => format!(
            "the regions' streams are provisioned, with {} times the shards that they need, and polled, which is free; \
             Terraform's module makes them on demand unless it is given their number: --stream-mode on-demand",
            workload.shard_headroom
        ),
        StreamMode::OnDemand => {
            "the regions' streams are on demand, as Terraform's module makes them unless it is given their shards, and \
             polled; with provisioned shards: --stream-mode provisioned"
        }
        .to_owned(),
    }
}

/// Where the prices are from, for the regions that are in it.
fn sources(workload: &Workload, prices: &Prices) -> Vec<String> {
    let all = || [workload.master.as_str()].into_iter().chain(workload.remote_regions());
    let readers = || workload.regions.iter().map(String::as_str);
    let mut lines = BTreeSet::new();
    lines.extend(of(&prices.dynamodb, all()));
    lines.extend(of(&prices.kinesis, readers()));
    lines.extend(of(&prices.egress, [workload.master.as_str()].into_iter()));
    if workload.nat {
        lines.extend(of(&prices.nat, all()));
    }
    lines.extend(of(&prices.elasticache, readers()));
    lines.extend(of(&prices.fargate, all()));
    lines.into_iter().collect()
}

fn of<'a, P>(
    service: &'a Regional<P>,
    regions: impl Iterator<Item = &'a str>,
) -> impl Iterator<Item = String> {
    regions.map(|region| {
        let Published { source, known_from, verified, .. } = service.published_in(Some(region));
        let doubt = if *verified { "" } else { ", not verified" };
        format!("prices: {source}; of {known_from}{doubt}")
    })
}

/// A number with its thousands apart, and with a fraction if it is small.
fn grouped(number: f64) -> String {
    let rounded = if number.abs() < 10.0 && number.fract() != 0.0 {
        format!("{number:.1}")
    } else {
        format!("{number:.0}")
    };
    let (whole, fraction) = rounded.split_once('.').unwrap_or((&rounded, ""));
    let mut digits = String::new();
    for (index, digit) in whole.chars().enumerate() {
        let is_between = index > 0 && (whole.len() - index).is_multiple_of(3) && !digits.ends_with('-');
        if is_between {
            digits.push(',');
        }
        digits.push(digit);
    }
    if fraction.is_empty() { digits } else { format!("{digits}.{fraction}") }
}
