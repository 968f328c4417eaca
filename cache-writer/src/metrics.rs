//! The cache-writer's metrics, beside those of the shard consumer: read of what is counted anyway when somebody asks, but
//! for the histograms, which are fed where it happens. docs/metrics.md says what each means.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::histogram::Histogram;
use warmcast_cache::Filler;
use warmcast_cache::filler::FillerStats;
use warmcast_common::clock::now_ms;
use warmcast_common::consumer::ConsumerMetrics;
use warmcast_common::dead_letter;
use warmcast_common::metrics::{
    CALL_BUCKETS_S, Collector, Families, Registry, register_process, registry, seconds,
};
use warmcast_common::prices::{Dynamodb, Kinesis, Prices};

use crate::config::Config;
use crate::stats::Stats;

/// What the metrics are read from.
#[derive(Debug)]
pub struct Sources {
    /// What is counted on the way of the changes.
    pub stats: Arc<Stats>,
    /// What fills keys, if something does.
    pub filler: Option<Filler>,
    /// Whether the stream is billed by what is read of it: its mode is on-demand.
    pub is_on_demand: bool,
    /// What its calls cost.
    pub bill: Bill,
}

/// The prices of what a cache-writer uses.
#[derive(Debug)]
pub struct Bill {
    kinesis: Kinesis,
    master: Dynamodb,
}

impl Bill {
    /// Those of the regions that are configured.
    pub fn new(prices: &Prices, config: &Config) -> Self {
        let region = config.kinesis.service.region.as_deref();
        let master = config.fallback.as_ref().and_then(|fallback| fallback.dynamodb.region.as_deref());
        Self { kinesis: *prices.kinesis.prices_in(region), master: *prices.dynamodb.prices_in(master) }
    }

    /// What a million changes cost: the bytes read of an on-demand stream (of a provisioned one they are free), and the
    /// read units of the master. None: nothing was received.
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    fn dollars_per_million(&self, changes: u64, on_demand_bytes: u64, read_units: f64) -> Option<f64> {
        let stream = self.kinesis.on_demand_out_dollars(on_demand_bytes as f64);
        let fills = self.master.read_request_units_dollars(read_units);
        (changes > 0).then(|| (stream + fills) / changes as f64 * 1e6)
    }
}

/// Everything that can be measured of this process.
#[must_use]
pub fn registry_of(sources: Sources, consumer: &ConsumerMetrics) -> Registry {
    let mut registry = registry();
    register_process(&mut registry);
    consumer.register(&mut registry);
    dead_letter::register(&mut registry, Arc::clone(&sources.stats.dead_letters));
    register(&mut registry, sources);
    registry
}

/// Registers what only the cache-writer has.
fn register(registry: &mut Registry, sources: Sources) {
    let (lags, round_trips) = (&sources.stats.lags, &sources.stats.round_trips);
    let help = "Change asked of its table's stream to received";
    registry.register("receive_lag_seconds", help, lags.receive.clone());
    registry.register("apply_lag_seconds", "Change created to written", lags.apply.clone());
    let (seconds, commands) = (round_trips.seconds.clone(), round_trips.commands.clone());
    registry.register("redis_seconds", "Time of a round trip to the cache", seconds);
    registry.register("redis_pipeline_commands", "Commands of a round trip", commands);
    let call_seconds = match &sources.filler {
        Some(filler) => filler.master().call_seconds().clone(),
        None => Histogram::new(CALL_BUCKETS_S),
    };
    registry.register("fill_seconds", "Time of a call that reads the master", call_seconds);
    registry.register_collector(Box::new(sources));
}

impl Collector for Sources {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut families = Families::new(encoder);
        self.changes(&mut families)?;
        self.freshness(&mut families)?;
        self.calls(&mut families)?;
        self.verification(&mut families)
    }
}

impl Sources {
    fn changes(&self, families: &mut Families<'_>) -> fmt::Result {
        let stats = &self.stats;
        let help = "Changes unpacked from frames";
        families.counter("changes_received", help, count(&stats.changes_received))?;
        families.counter("received_bytes", "Bytes of the records received", count(&stats.received_bytes))?;
        let outcomes = [
            ("applied", &stats.changes_applied),
            ("stale", &stats.changes_stale),
            ("left_absent", &stats.changes_left_absent),
            ("covered", &stats.changes_covered),
            ("skipped", &stats.changes_skipped),
            ("coalesced", &stats.changes_coalesced),
            ("failed", &stats.changes_failed),
        ];
        families.counters("changes", "Changes, by what became of them", by_outcome(outcomes))?;
        let outcomes = [
            ("written", &stats.backfills_written),
            ("occupied", &stats.backfills_occupied),
            ("too_late", &stats.backfills_too_late),
            ("refused", &stats.backfills_refused),
        ];
        families.counters("backfills", "Rows of backfills, by what became of them", by_outcome(outcomes))?;
        let help = "Changes applied again because the cache could not be reached";
        families.counter("retries", help, count(&stats.retries))
    }

    fn freshness(&self, families: &mut Families<'_>) -> fmt::Result {
        let help = "Times that the cache may have lost writes, after which the shards were read again";
        families.counter("rewinds", help, count(&self.stats.rewinds))?;
        let watermark_ms = Some(count(&self.stats.watermark_ms)).filter(|ms| *ms > 0);
        let help = "Every change created before is in the cache, as this worker published last";
        families.known_gauge("watermark_seconds", help, watermark_ms.map(seconds))?;
        let age = watermark_ms.map(|ms| seconds(now_ms().saturating_sub(ms)));
        families.known_gauge("watermark_age_seconds", "How old the watermark is", age)
    }

    fn calls(&self, families: &mut Families<'_>) -> fmt::Result {
        let calls = self.stats.round_trips.calls.iter().map(|(result, count)| ([("result", result)], count));
        families.counters("redis_calls", "Round trips to the cache", calls)?;
        let fills = self.filler.as_ref().map(Filler::stats).unwrap_or_default();
        let FillerStats { installed, absent, refused, present, busy, shed, failed, under_way } = fills;
        let outcomes = [
            ("installed", installed),
            ("absent", absent),
            ("refused", refused),
            ("present", present),
            ("busy", busy),
            ("shed", shed),
            ("failed", failed),
        ];
        let outcomes = outcomes.map(|(outcome, count)| ([("outcome", outcome)], count));
        families.counters("fills", "Fills of keys whose items are not known", outcomes)?;
        families.known_gauge::<i64>(
            "fills_waiting",
            "Keys that wait to be filled",
            i64::try_from(under_way).ok(),
        )?;
        let master = self.filler.as_ref().map(|filler| filler.master().stats()).unwrap_or_default();
        let help = "Read units of the master tables, for fills and verification";
        families.counter("fill_read_units", help, master.read_units)?;
        let help = "1 while the master is not asked because it is in trouble";
        families.gauge("breaker_open", help, i64::from(master.is_shedding))?;
        families.counter("breaker_opened", "Times that the breaker opened", master.breaker_opened)?;
        let (changes, bytes) = (count(&self.stats.changes_received), count(&self.stats.received_bytes));
        let on_demand_bytes = if self.is_on_demand { bytes } else { 0 };
        let dollars = self.bill.dollars_per_million(changes, on_demand_bytes, master.read_units);
        let help = "What reading the stream and the master cost for a million changes received";
        families.known_gauge("dollars_per_million_changes", help, dollars)
    }

    fn verification(&self, families: &mut Families<'_>) -> fmt::Result {
        let stats = &self.stats;
        let counters = [
            ("verify_looked_at", "Keys compared with the master", &stats.verify_looked_at),
            ("verify_missing", "Of these, those that readers got nothing of", &stats.verify_missing),
            ("verify_different", "Of these, those that differed at first", &stats.verify_different),
            ("verify_mismatches", "Of these, those that are wrong and stay so", &stats.verify_mismatches),
            ("verify_not_judged", "Of these, those that could not be judged", &stats.verify_not_judged),
            ("verify_failed", "Times that no keys could be had to look at", &stats.verify_failed),
        ];
        counters
            .into_iter()
            .try_for_each(|(name, help, counter)| families.counter(name, help, count(counter)))
    }
}

fn count(counter: &AtomicU64) -> u64 {
    counter.load(Relaxed)
}

type Outcome = [(&'static str, &'static str); 1];

fn by_outcome<const N: usize>(counters: [(&'static str, &AtomicU64); N]) -> [(Outcome, u64); N] {
    counters.map(|(outcome, counter)| ([("outcome", outcome)], count(counter)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: 1 GB of an on-demand stream is 4 cents, 8 million read units are a dollar.
    #[test]
    fn a_million_changes_cost_what_was_read_for_them() {
        let prices = Prices::built_in().unwrap();
        let bill =
            Bill { kinesis: *prices.kinesis.prices_in(None), master: *prices.dynamodb.prices_in(None) };
        assert_eq!(bill.dollars_per_million(0, 1, 1.0), None);
        assert_eq!(bill.dollars_per_million(5, 0, 0.0), Some(0.0));
        let dollars = bill.dollars_per_million(2_000_000, 1 << 30, 8e6).unwrap();
        assert!((dollars - 0.52).abs() < 1e-9, "{dollars}");
    }
}
