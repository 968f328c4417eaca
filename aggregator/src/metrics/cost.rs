//! What the aggregator's calls and bytes cost for a million changes. Pure.
//!
//! Counted is what grows with the load: reads of the tables' streams, what is written to the regions' streams (of
//! provisioned ones PUT payload units, of on-demand ones bytes), and what is transferred to other regions. What is paid by
//! the hour (shards, machines) and what takes the bytes there (NAT gateways) is not known here: `aggregator cost` has that.

use warmcast_common::prices::{Kinesis, Prices};

/// What was used since the process started.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Usage<'a> {
    /// Changes read.
    pub(super) changes: u64,
    /// Reads of the tables' streams that were answered, with records or without.
    pub(super) stream_reads: u64,
    /// Watermarks that a shard was told, each a record of its own.
    pub(super) heartbeats: u64,
    /// For each region.
    pub(super) regions: Vec<RegionUsage<'a>>,
}

/// What was sent to one region.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct RegionUsage<'a> {
    /// The AWS region; `None`: it is not known which.
    pub(super) region: Option<&'a str>,
    /// Bytes of records.
    pub(super) bytes: u64,
    /// PUT payload units of records.
    pub(super) put_units: u64,
    /// Bytes of records, each rounded up, if the stream is on demand. `None`: it is provisioned, or not known yet.
    pub(super) on_demand_bytes: Option<u64>,
}

/// Dollars for a million changes; `None` while there was none. `master`: the region that the aggregator is in.
#[expect(clippy::cast_precision_loss, reason = "an estimate")]
pub(super) fn dollars_per_million(usage: &Usage<'_>, master: Option<&str>, prices: &Prices) -> Option<f64> {
    let reads = prices.dynamodb.prices_in(master).stream_reads_dollars(usage.stream_reads as f64);
    let region = |of: &RegionUsage<'_>| {
        let kinesis = prices.kinesis.prices_in(of.region);
        let puts = match of.on_demand_bytes {
            Some(bytes) => kinesis.on_demand_in_dollars(bytes as f64),
            None => kinesis.put_units_dollars(of.put_units as f64),
        };
        // Within a region nothing is charged.
        let leaves = of.region.is_none() || of.region != master;
        let bytes = if leaves { of.bytes as f64 } else { 0.0 };
        puts + prices.egress.prices_in(master).dollars(of.region, bytes)
    };
    let dollars = reads + heartbeats_dollars(usage, prices) + usage.regions.iter().map(region).sum::<f64>();
    (usage.changes > 0).then(|| dollars * 1_000_000.0 / usage.changes as f64)
}

/// They are counted for all regions together, each of which is told as many.
#[expect(clippy::cast_precision_loss, reason = "an estimate")]
fn heartbeats_dollars(usage: &Usage<'_>, prices: &Prices) -> f64 {
    let kinesis = prices.kinesis.prices_in(None);
    let records = usage.heartbeats as f64;
    let on_demand = usage.regions.iter().filter(|of| of.on_demand_bytes.is_some()).count() as f64;
    let share = on_demand / usage.regions.len().max(1) as f64;
    kinesis.put_units_dollars(records * (1.0 - share))
        + kinesis.on_demand_in_dollars(records * share * Kinesis::on_demand_record_bytes(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_puts_and_what_leaves_the_region_are_paid_for() {
        let prices = Prices::built_in().unwrap();
        let gb = 1 << 30;
        let region = |region| RegionUsage { region, bytes: gb, put_units: 1_000_000, on_demand_bytes: None };
        let on_demand = RegionUsage { on_demand_bytes: Some(2 * gb), ..region(Some("us-west-2")) };
        let usage = |regions| Usage { changes: 2_000_000, stream_reads: 100_000, heartbeats: 0, regions };
        let cost = |regions| dollars_per_million(&usage(regions), Some("us-east-1"), &prices).unwrap();
        let near = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-9, "{found} {expected}");
        near(cost(vec![]), 0.02 / 2.0);
        near(cost(vec![region(Some("us-east-1"))]), (0.02 + 0.014) / 2.0);
        near(cost(vec![region(Some("us-east-2"))]), (0.02 + 0.014 + 0.01) / 2.0);
        near(cost(vec![region(None), region(None)]), (0.02 + 2.0 * (0.014 + 0.02)) / 2.0);
        near(cost(vec![on_demand.clone()]), (0.02 + 2.0 * 0.08 + 0.02) / 2.0);
        let heartbeats = Usage { changes: 1_000_000, heartbeats: 1_000_000, ..Usage::default() };
        near(dollars_per_million(&heartbeats, None, &prices).unwrap(), 0.014);
        let idle = RegionUsage { bytes: 0, put_units: 0, on_demand_bytes: None, ..on_demand.clone() };
        let idle_on_demand = RegionUsage { on_demand_bytes: Some(0), ..idle.clone() };
        let heartbeats = Usage { regions: vec![idle, idle_on_demand], ..heartbeats };
        let half = 0.014 / 2.0 + 500_000.0 * 1_024.0 / gb as f64 * 0.08;
        near(dollars_per_million(&heartbeats, None, &prices).unwrap(), half);
        assert_eq!(dollars_per_million(&Usage::default(), None, &prices), None, "nothing was read");
    }
}
