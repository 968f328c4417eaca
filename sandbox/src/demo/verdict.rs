//! What the demo says at its end, and whether it passes.

use std::time::Duration;

use super::bidding::BidderReport;
use crate::bidder::AUCTION_DEADLINE;
use crate::screen::{self, Snapshot};
use crate::verify::Comparison;
use crate::workload::Written;

/// What the run showed.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// Acknowledged writes.
    pub written: Written,
    /// How long the traffic lasted.
    pub lasted: Duration,
    /// From the start of the traffic until every region had everything.
    pub settled: Duration,
    /// What the run asked for at least: writes and distinct keys.
    pub wanted: (u64, u64),
    /// Each region against the table.
    pub comparisons: Vec<Comparison>,
    /// What each region's bidder saw.
    pub bidders: Vec<BidderReport>,
    /// Where the table itself is not as it was written: a fault of the sandbox's DynamoDB.
    pub table_findings: Vec<String>,
    /// The last picture.
    pub last: Snapshot,
}

impl Verdict {
    /// Zero mismatches, deletions among the writes, and as many writes and keys as were asked for.
    #[must_use]
    pub fn passes(&self) -> bool {
        self.shortfalls().is_empty()
    }

    /// What is missing to pass.
    #[must_use]
    pub fn shortfalls(&self) -> Vec<String> {
        let mut shortfalls = Vec::new();
        let (writes, keys) = self.wanted;
        if self.written.total() < writes || self.written.keys < keys {
            shortfalls.push(format!(
                "{} writes to {} keys, fewer than the {writes} to {keys} asked for",
                self.written.total(),
                self.written.keys
            ));
        }
        if self.written.deletes == 0 {
            shortfalls.push("nothing was deleted".to_owned());
        }
        if !self.table_findings.is_empty() {
            shortfalls.push(format!("{} rows are not as they were written", self.table_findings.len()));
        }
        if self.comparisons.is_empty() {
            shortfalls.push("no region was compared".to_owned());
        }
        for region in self.comparisons.iter().filter(|region| !region.agrees()) {
            shortfalls.push(format!("{} mismatches in {}", region.mismatches, region.region));
        }
        for bidder in self.bidders.iter().filter(|bidder| !bidder.bid()) {
            shortfalls.push(format!("the bidder in {} found nothing", bidder.region));
        }
        shortfalls
    }

    /// The end of the demo's output.
    #[must_use]
    pub fn report(&self) -> String {
        let Written { creates, updates, deletes, keys, .. } = self.written;
        let mut lines = vec![
            format!(
                "{} writes to {keys} keys in {:.1} s: {creates} created, {updates} updated, {deletes} deleted",
                self.written.total(),
                self.lasted.as_secs_f64()
            ),
            String::new(),
            "every row against every region:".to_owned(),
        ];
        for region in &self.comparisons {
            lines.push(format!("  {}", self.comparison_line(region)));
            lines.extend(region.explained.iter().map(|mismatch| format!("    {mismatch}")));
        }
        lines.extend(self.table_findings.iter().take(5).map(|finding| format!("  table: {finding}")));
        lines.extend(self.bidder_lines());
        lines.push(String::new());
        lines.push(self.headline());
        let shortfalls = self.shortfalls();
        if shortfalls.is_empty() {
            lines.push("verdict: PASS, zero mismatches".to_owned());
        } else {
            lines.push(format!("verdict: FAIL, {}", shortfalls.join("; ")));
        }
        lines.join("\n")
    }

    fn comparison_line(&self, region: &Comparison) -> String {
        let Comparison { region: name, rows, equal, filled, missing, tombstones, mismatches, .. } = region;
        let mut line = format!("{name:<15} {equal} of {rows} rows equal");
        if *filled > 0 {
            line.push_str(&format!(" ({filled} filled by the bidder)"));
        }
        if self.bidders.iter().any(|bidder| bidder.region == *name && bidder.after_flush.is_some()) {
            line.push_str(&format!(", {missing} missing: allowed after the flush"));
        }
        line.push_str(&format!(", {tombstones} tombstones, {mismatches} mismatches"));
        line
    }

    fn bidder_lines(&self) -> Vec<String> {
        if self.bidders.is_empty() {
            return Vec::new();
        }
        let mut lines = vec![
            String::new(),
            format!(
                "bidders: auctions of {} ms, times from their scheduled beginning:",
                AUCTION_DEADLINE.as_millis()
            ),
        ];
        for bidder in &self.bidders {
            lines.extend(bidder.lines().into_iter().map(|line| format!("  {line}")));
        }
        lines
    }

    /// Updates per second, and the lag of each region.
    #[must_use]
    pub fn headline(&self) -> String {
        let updates = self.written.total() as f64 / self.settled.as_secs_f64().max(0.001);
        let mut line = format!("{updates:.0} updates per second");
        for region in &self.last.regions {
            let (p50, p99) = (screen::milliseconds(region.lag.p50), screen::milliseconds(region.lag.p99));
            line.push_str(&format!("\n  {:<15} lag p50 {p50}, p99 {p99}", region.name));
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bidder::Summary;

    fn verdict() -> Verdict {
        let written = Written { creates: 60, updates: 30, deletes: 10, keys: 50, retries: 0 };
        let comparison =
            Comparison { region: "eu-west-1".to_owned(), rows: 40, equal: 40, ..Comparison::default() };
        Verdict {
            written,
            lasted: Duration::from_secs(1),
            settled: Duration::from_secs(2),
            wanted: (100, 50),
            comparisons: vec![comparison],
            bidders: Vec::new(),
            table_findings: Vec::new(),
            last: Snapshot::default(),
        }
    }

    #[test]
    fn a_sound_run_passes() {
        assert!(verdict().passes());
        assert!(verdict().report().ends_with("verdict: PASS, zero mismatches"), "{}", verdict().report());
        assert!(verdict().headline().starts_with("50 updates per second"));
    }

    #[test]
    fn each_shortfall_fails() {
        let mut few = verdict();
        few.wanted = (101, 50);
        let mut keys = verdict();
        keys.wanted = (100, 51);
        let mut undeleted = verdict();
        undeleted.written = Written { deletes: 0, updates: 40, ..undeleted.written };
        let mut mismatch = verdict();
        mismatch.comparisons[0].mismatches = 1;
        let mut unsound = verdict();
        unsound.table_findings.push("x".to_owned());
        let mut nothing = verdict();
        nothing.comparisons.clear();
        let mut idle = verdict();
        idle.bidders.push(BidderReport { region: "eu-west-1".to_owned(), ..BidderReport::default() });
        for failing in [few, keys, undeleted, mismatch, unsound, nothing, idle] {
            assert!(!failing.passes());
            assert!(failing.report().contains("verdict: FAIL"), "{}", failing.report());
        }
    }

    #[test]
    fn the_flushed_region_tells_what_is_missing_and_what_its_bidder_saw_before_and_after() {
        let mut flushed = verdict();
        flushed.comparisons[0].missing = 7;
        let seen = |fresh, missing, master_reads| Summary {
            lasted_s: 2.0,
            auctions: 100,
            lookups: fresh + missing,
            fresh,
            missing,
            master_reads,
            ..Summary::default()
        };
        flushed.bidders.push(BidderReport {
            region: "eu-west-1".to_owned(),
            seen: seen(95, 5, 10),
            after_flush: Some(seen(50, 50, 40)),
        });
        assert!(flushed.passes());
        let report = flushed.report();
        assert!(report.contains("7 missing: allowed after the flush"), "{report}");
        assert!(report.contains("hits  95.00 %") && report.contains("5.0 master reads/s"), "{report}");
        assert!(report.contains("hits  50.00 %") && report.contains("20.0 master reads/s"), "{report}");
    }
}
