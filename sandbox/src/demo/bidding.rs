//! The demo's bidders: one in each region, from the first write to the last.

use std::sync::Arc;

use tokio::time::Instant;

use super::{DemoError, DemoOptions};
use crate::bidder::{Bidder, BidderOptions, Sources, Standing, Summary, Users};
use crate::rate::Rate;
use crate::screen::BidderSnapshot;
use crate::workload::Progress;
use crate::world::World;

/// The bidders of all regions, or none.
pub(super) struct Bidding {
    regions: usize,
    bidders: Vec<RunningBidder>,
}

struct RunningBidder {
    region: String,
    bidder: Bidder,
    start: Standing,
    at_flush: Option<Standing>,
    auctions: Rate,
    lookups: Rate,
    hits: Rate,
    master_reads: Rate,
}

/// What a region's bidder saw.
#[derive(Clone, Debug, Default)]
pub struct BidderReport {
    /// The region.
    pub region: String,
    /// In the whole run, or until the region's cache was flushed.
    pub seen: Summary,
    /// Since it was flushed.
    pub after_flush: Option<Summary>,
}

impl Bidding {
    /// Starts a bidder in every region, if any are asked for.
    pub(super) async fn start(
        world: &World,
        options: &DemoOptions,
        progress: &Arc<Progress>,
    ) -> Result<Self, DemoError> {
        let mut bidders = Vec::new();
        let regions = world.regions();
        for (index, region) in regions.iter().enumerate().filter(|_| options.auctions > 0) {
            let sources = Sources { redis: region.redis().url(), dynamodb: world.dynamodb_url().to_owned() };
            let bidder_options = BidderOptions {
                rate: f64::from(options.auctions),
                writers: u64::try_from(options.workload.writers).unwrap_or(1),
                seed: options.workload.seed.wrapping_add(index as u64),
                ..BidderOptions::new(&options.workload.table)
            };
            let users = Users::Written(Arc::clone(progress));
            let bidder = Bidder::start(&sources, bidder_options, users).await?;
            bidders.push(RunningBidder::new(region.name(), bidder));
        }
        Ok(Self { regions: regions.len(), bidders })
    }

    /// What follows in this region is after its flush.
    pub(super) fn note_flush(&mut self, region: usize) {
        if let Some(running) = self.bidders.get_mut(region) {
            running.at_flush = Some(running.bidder.standing());
        }
    }

    /// Each region's bidder at this moment; none where there are no bidders.
    pub(super) fn snapshots(&mut self, now: Instant) -> Vec<Option<BidderSnapshot>> {
        let mut snapshots: Vec<_> =
            self.bidders.iter_mut().map(|running| Some(running.snapshot(now))).collect();
        snapshots.resize(self.regions, None);
        snapshots
    }

    /// Ends the bidding.
    pub(super) async fn stop(&mut self) -> Vec<BidderReport> {
        let mut reports = Vec::new();
        for running in self.bidders.drain(..) {
            reports.push(running.stop().await);
        }
        reports
    }
}

impl RunningBidder {
    fn new(region: &str, bidder: Bidder) -> Self {
        Self {
            region: region.to_owned(),
            start: bidder.standing(),
            bidder,
            at_flush: None,
            auctions: Rate::default(),
            lookups: Rate::default(),
            hits: Rate::default(),
            master_reads: Rate::default(),
        }
    }

    fn snapshot(&mut self, now: Instant) -> BidderSnapshot {
        let seen = self.bidder.standing().since(&self.start);
        let lookups = self.lookups.observe(now, seen.lookups);
        let hits = self.hits.observe(now, seen.hits());
        BidderSnapshot {
            auctions: seen.auctions,
            rate: self.auctions.observe(now, seen.auctions),
            // Of the last seconds: a flush is to be seen.
            hit_percent: if lookups > 0.0 { 100.0 * hits / lookups } else { 0.0 },
            p50_us: seen.p50_us,
            p99_us: seen.p99_us,
            p999_us: seen.p999_us,
            missed: seen.missed,
            master_reads_per_second: self.master_reads.observe(now, seen.master_reads),
        }
    }

    async fn stop(self) -> BidderReport {
        let end = self.bidder.stop().await;
        let (seen, after_flush) = match self.at_flush {
            Some(at_flush) => (at_flush.since(&self.start), Some(end.since(&at_flush))),
            None => (end.since(&self.start), None),
        };
        BidderReport { region: self.region, seen, after_flush }
    }
}

impl BidderReport {
    /// Whether the bidder found any profile at all.
    #[must_use]
    pub fn bid(&self) -> bool {
        self.seen.fresh + self.seen.stale > 0
    }

    /// A line, or two where there was a flush.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let line = |title: &str, summary: &Summary| {
            format!(
                "{title:<15} {} auctions, {} missed; hits {:>6.2} %; {}; {:.1} master reads/s",
                summary.auctions,
                summary.missed,
                summary.hit_percent(),
                summary.times(),
                summary.master_reads_per_second()
            )
        };
        let mut lines = vec![line(&self.region, &self.seen)];
        if let Some(after) = &self.after_flush {
            lines.push(line("  after flush", after));
        }
        lines
    }
}
