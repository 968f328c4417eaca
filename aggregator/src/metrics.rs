//! The aggregator's metrics: what [`Stats`] counts, and how the regions are. docs/metrics.md says what they mean.

mod cost;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use prometheus_client::encoding::DescriptorEncoder;
use warmcast_common::clock::now_ms;
use warmcast_common::consumer::{ConsumerMetrics, LaneFigures};
use warmcast_common::dead_letter;
use warmcast_common::metrics::{Collector, Families, Label, Registry, register_process, registry, seconds};

use warmcast_common::prices::{Prices, PricesError};

use crate::config::{Config, RegionConfig};
use crate::stats::{RegionStats, Stats};
use cost::{RegionUsage, Usage, dollars_per_million};

/// Everything that can be measured of this process.
///
/// # Errors
/// When there are no prices.
pub fn registry_of(
    config: &Config,
    stats: &Arc<Stats>,
    consumer: &ConsumerMetrics,
) -> Result<Registry, PricesError> {
    let mut registry = registry();
    register_process(&mut registry);
    consumer.register(&mut registry);
    let of = |region: &RegionConfig| (region.name.clone(), region.kinesis.region.clone());
    let figures = Figures {
        stats: Arc::clone(stats),
        consumer: consumer.clone(),
        prices: config.prices.load()?,
        master: config.dynamodb.region.clone(),
        regions: config.regions.iter().map(of).collect(),
    };
    register(&mut registry, figures);
    Ok(registry)
}

/// Registers what only the aggregator has.
fn register(registry: &mut Registry, figures: Figures) {
    let stats = &figures.stats;
    let frames = &stats.frames;
    registry.register("batch_wait_seconds", "How long a frame waited for more changes", frames.waits.clone());
    registry.register("frame_changes", "Changes of a frame", frames.changes.clone());
    registry.register("frame_bytes", "Bytes of a frame, compressed", frames.bytes.clone());
    dead_letter::register(registry, Arc::clone(&stats.dead_letters));
    registry.register_collector(Box::new(figures));
}

#[derive(Debug)]
struct Figures {
    stats: Arc<Stats>,
    consumer: ConsumerMetrics,
    prices: Prices,
    /// The AWS region of the tables.
    master: Option<String>,
    /// The AWS region of each region, by its name.
    regions: BTreeMap<String, Option<String>>,
}

impl Collector for Figures {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut to = Families::new(encoder);
        let regions = self.stats.regions();
        self.changes(&mut to, &regions)?;
        sent(&mut to, &regions)?;
        calls(&mut to, &regions)?;
        standing(&mut to, &regions)?;
        behind(&mut to, &self.consumer.lanes())?;
        let dollars = self.dollars_per_million(&regions);
        to.known_gauge("dollars_per_million_changes", "What a million changes cost here, estimated", dollars)
    }
}

impl Figures {
    fn dollars_per_million(&self, regions: &[Arc<RegionStats>]) -> Option<f64> {
        let used = |of: &Arc<RegionStats>| RegionUsage {
            region: self.regions.get(of.name()).and_then(Option::as_deref),
            bytes: of.bytes_sent.load(Relaxed),
            put_units: of.put_units.load(Relaxed),
            on_demand_bytes: of.is_on_demand().then(|| of.on_demand_bytes.load(Relaxed)),
        };
        let usage = Usage {
            changes: self.stats.records_read.load(Relaxed),
            stream_reads: self.consumer.counters().reads_answered(),
            heartbeats: self.stats.heartbeats_sent.load(Relaxed),
            regions: regions.iter().map(used).collect(),
        };
        dollars_per_million(&usage, self.master.as_deref(), &self.prices)
    }

    fn changes(&self, to: &mut Families<'_>, regions: &[Arc<RegionStats>]) -> fmt::Result {
        let stats = &self.stats;
        let (oversize, incomplete) = (stats.oversize.load(Relaxed), stats.incomplete.load(Relaxed));
        to.counter("oversize_changes", "Changes too large for a frame, sent as invalidations", oversize)?;
        to.counter("incomplete_changes", "Changes without new images, sent as invalidations", incomplete)?;
        let tables = stats.all_suppressed();
        let suppressed = tables.iter().flat_map(|(table, of)| {
            let named = regions.iter().zip(of.iter());
            named.map(move |(region, count)| ([("region", region.name()), ("table", table.as_str())], count))
        });
        to.counters("suppressed_changes", "Changes that a region's filter left out", suppressed)?;
        let body_bytes = stats.frames.body_bytes.load(Relaxed);
        to.counter("frame_body_bytes", "Bytes of the frames' bodies before compression", body_bytes)?;
        let heartbeats = stats.heartbeats_sent.load(Relaxed);
        to.counter("heartbeats_sent", "Watermarks that a shard of a region's stream was told", heartbeats)
    }
}

fn sent(to: &mut Families<'_>, regions: &[Arc<RegionStats>]) -> fmt::Result {
    let count =
        |counter: fn(&RegionStats) -> &AtomicU64| of_each(regions, move |of| counter(of).load(Relaxed));
    to.counters("changes_sent", "Changes that the region's stream has", count(|of| &of.changes_sent))?;
    to.counters("frames_sent", "Their frames", count(|of| &of.frames_sent))?;
    to.counters("sent_bytes", "Their bytes", count(|of| &of.bytes_sent))?;
    let lags = regions.iter().map(|of| (region(of), &of.send_lag));
    to.histograms("send_lag_seconds", "Change created to accepted by the region's stream", lags)
}

fn calls(to: &mut Families<'_>, regions: &[Arc<RegionStats>]) -> fmt::Result {
    let calls = regions.iter().flat_map(|of| labelled(of, "result", of.calls.iter()));
    to.counters("put_calls", "PutRecords calls as a whole, by result", calls)?;
    let times = regions.iter().map(|of| (region(of), &of.call_times));
    to.histograms("put_seconds", "Time of a PutRecords call that was answered", times)?;
    let entries = regions.iter().flat_map(|of| labelled(of, "result", of.entries.iter()));
    to.counters("put_entries", "Entries of PutRecords calls, each time one is sent, by result", entries)?;
    let retries = regions.iter().flat_map(|of| labelled(of, "class", of.retries.iter()));
    to.counters("retries", "Frames sent again, by why", retries)?;
    let left_out = |of: &RegionStats| {
        [("too_old", of.given_up.load(Relaxed)), ("parked", of.worthless.load(Relaxed))].into_iter()
    };
    let left_out = regions.iter().flat_map(|of| labelled(of, "why", left_out(of)));
    to.counters("frames_left_out", "Frames not sent, by why", left_out)
}

/// How the regions are now.
fn standing(to: &mut Families<'_>, regions: &[Arc<RegionStats>]) -> fmt::Result {
    to.gauges(
        "region_up",
        "1 while the region answers",
        of_each(regions, |of| u64::from(!of.does_not_answer())),
    )?;
    to.gauges(
        "region_queue_frames",
        "Frames that wait for the region",
        of_each(regions, |of| of.queue_frames()),
    )?;
    to.gauges("region_queue_bytes", "Their bytes", of_each(regions, |of| of.queue_bytes()))?;
    #[expect(clippy::cast_precision_loss, reason = "a percentage")]
    let rate = of_each(regions, |of| of.rate_percent_min() as f64 / 100.0);
    to.gauges("send_rate_ratio", "Rate of the slowest shard of the region's stream to the limit", rate)?;
    let distributes = of_each(regions, |of| u64::from(of.is_self_distributing()));
    to.gauges("region_self_distributing", "1 if the stream distributes records by itself", distributes)?;
    let on_demand = of_each(regions, |of| u64::from(of.is_on_demand()));
    to.gauges("region_on_demand", "1 if the stream is billed by what goes through it", on_demand)
}

/// Where regions lack something.
fn behind(to: &mut Families<'_>, lanes: &[LaneFigures]) -> fmt::Result {
    let now_ms = now_ms();
    let name = |of: &LaneFigures| [("region", of.name.to_string())];
    let shards = lanes.iter().map(|of| (name(of), of.parked_shards as u64));
    to.gauges("region_parked_shards", "Shards of this worker on which the region is parked", shards)?;
    let age = |since_ms: u64| seconds(now_ms.saturating_sub(since_ms));
    let parked = lanes.iter().map(|of| (name(of), of.parked_since_ms.map_or(0.0, age)));
    to.gauges("region_parked_seconds", "For how long the region has been parked, at the longest", parked)?;
    let gaps = lanes.iter().map(|of| (name(of), of.gaps));
    to.counters("region_gaps", "Gaps that this worker recorded for the region", gaps)?;
    let asked = lanes.iter().map(|of| (name(of), of.backfills_asked));
    to.gauges("region_backfills_asked", "Tables that the region waits to have backfilled", asked)?;
    let watermarks = || lanes.iter().filter_map(|of| Some((name(of), of.watermark_ms?)));
    let told = watermarks().map(|(name, ms)| (name, seconds(ms)));
    to.gauges("watermark_seconds", "Everything created before is in the region's stream", told)?;
    let ages = watermarks().map(|(name, ms)| (name, age(ms)));
    to.gauges("watermark_age_seconds", "How old the region's watermark is", ages)
}

fn region(of: &RegionStats) -> [Label<'_>; 1] {
    [("region", of.name())]
}

fn of_each<'a, V>(
    regions: &'a [Arc<RegionStats>],
    value: impl Fn(&RegionStats) -> V + 'a,
) -> impl Iterator<Item = ([Label<'a>; 1], V)> {
    regions.iter().map(move |of| (region(of), value(of)))
}

fn labelled<'a>(
    of: &'a RegionStats,
    name: &'static str,
    counts: impl Iterator<Item = (&'static str, u64)> + 'a,
) -> impl Iterator<Item = ([Label<'a>; 2], u64)> + 'a {
    counts.map(move |(value, count)| ([("region", of.name()), (name, value)], count))
}
