//! What a bidder counts: answers by kind, the times of its lookups, and what they cost the master.

use std::time::Duration;

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::time::Instant;
use warmcast_cache::reader::{Answer, ReaderStats};

/// A lookup that took longer counts as one that took so long.
const LATENCY_MAX: Duration = Duration::from_secs(60);

/// The counts of a running bidder.
#[derive(Debug)]
pub(super) struct Figures {
    tally: Mutex<Tally>,
}

#[derive(Clone, Debug)]
struct Tally {
    counts: Counts,
    latencies_us: Histogram<u64>,
}

/// Cumulative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    auctions: u64,
    missed: u64,
    fresh: u64,
    stale: u64,
    absent: u64,
    missing: u64,
    filling: u64,
    unanswered: u64,
    master_reads: u64,
    filled: u64,
    first_level_hits: u64,
}

impl Counts {
    fn note(&mut self, answers: &[Answer]) {
        for answer in answers {
            match answer {
                Answer::Fresh(_) => self.fresh += 1,
                Answer::Stale(..) => self.stale += 1,
                Answer::Absent => self.absent += 1,
                Answer::Missing { filling } => {
                    self.missing += 1;
                    self.filling += u64::from(*filling);
                }
            }
        }
    }

    fn since(self, earlier: Self) -> Self {
        let rise = |count: fn(&Self) -> u64| count(&self).saturating_sub(count(&earlier));
        Self {
            auctions: rise(|counts| counts.auctions),
            missed: rise(|counts| counts.missed),
            fresh: rise(|counts| counts.fresh),
            stale: rise(|counts| counts.stale),
            absent: rise(|counts| counts.absent),
            missing: rise(|counts| counts.missing),
            filling: rise(|counts| counts.filling),
            unanswered: rise(|counts| counts.unanswered),
            master_reads: rise(|counts| counts.master_reads),
            filled: rise(|counts| counts.filled),
            first_level_hits: rise(|counts| counts.first_level_hits),
        }
    }
}

impl Figures {
    pub(super) fn new() -> Result<Self, hdrhistogram::CreationError> {
        let highest_us = u64::try_from(LATENCY_MAX.as_micros()).unwrap_or(u64::MAX);
        let latencies_us = Histogram::new_with_bounds(1, highest_us, 3)?;
        Ok(Self { tally: Mutex::new(Tally { counts: Counts::default(), latencies_us }) })
    }

    /// An auction whose lookup ended so long after its beginning, with these answers or with none.
    pub(super) fn note(&self, took: Duration, deadline: Duration, answers: Option<&[Answer]>) {
        let mut tally = self.tally.lock();
        let Tally { counts, latencies_us } = &mut *tally;
        latencies_us.saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1));
        counts.auctions += 1;
        counts.missed += u64::from(took > deadline || answers.is_none());
        counts.unanswered += u64::from(answers.is_none());
        counts.note(answers.unwrap_or_default());
    }

    /// An auction for which there was no room.
    pub(super) fn lose(&self) {
        let mut tally = self.tally.lock();
        tally.counts.auctions += 1;
        tally.counts.missed += 1;
        tally.counts.unanswered += 1;
    }

    pub(super) fn standing(&self, reader: &ReaderStats, watermark_lag: Option<Duration>) -> Standing {
        let mut tally = self.tally.lock().clone();
        tally.counts.master_reads = reader.master.as_ref().map_or(0, |master| master.keys_read);
        tally.counts.filled = reader.filler.as_ref().map_or(0, |filler| filler.installed + filler.absent);
        tally.counts.first_level_hits = reader.first_level_hits;
        Standing { at: Instant::now(), tally, watermark_lag }
    }
}

/// A bidder's counts at a moment.
#[derive(Clone, Debug)]
pub struct Standing {
    at: Instant,
    tally: Tally,
    watermark_lag: Option<Duration>,
}

impl Standing {
    /// What happened since an earlier standing of the same bidder.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Summary {
        let mut latencies_us = self.tally.latencies_us.clone();
        // What was counted is never taken back, so that the earlier counts are contained in the later.
        if latencies_us.subtract(&earlier.tally.latencies_us).is_err() {
            latencies_us.reset();
        }
        let counts = self.tally.counts.since(earlier.tally.counts);
        self.summary(self.at.saturating_duration_since(earlier.at), counts, &latencies_us)
    }

    fn summary(&self, lasted: Duration, counts: Counts, latencies_us: &Histogram<u64>) -> Summary {
        let at = |quantile: f64| Duration::from_micros(latencies_us.value_at_quantile(quantile));
        let Counts { fresh, stale, absent, missing, .. } = counts;
        let lookups = fresh + stale + absent + missing;
        Summary {
            lasted_s: lasted.as_secs_f64(),
            auctions: counts.auctions,
            missed: counts.missed,
            unanswered: counts.unanswered,
            lookups,
            fresh,
            stale,
            absent,
            missing,
            filling: counts.filling,
            p50_us: micros(at(0.5)),
            p99_us: micros(at(0.99)),
            p999_us: micros(at(0.999)),
            max_us: latencies_us.max(),
            first_level_hits: counts.first_level_hits,
            master_reads: counts.master_reads,
            filled: counts.filled,
            watermark_lag_ms: self
                .watermark_lag
                .map(|lag| u64::try_from(lag.as_millis()).unwrap_or(u64::MAX)),
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// What a bidder saw in a stretch of time.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Summary {
    /// How long it was.
    pub lasted_s: f64,
    /// Auctions that began.
    pub auctions: u64,
    /// Of these, those without all answers at their deadline.
    pub missed: u64,
    /// Of these, those without any answer.
    pub unanswered: u64,
    /// Profiles asked for and answered: the sum of the next four.
    pub lookups: u64,
    /// The profile, from a region that is not behind.
    pub fresh: u64,
    /// The profile, from a region that is behind.
    pub stale: u64,
    /// Known not to exist.
    pub absent: u64,
    /// A miss: not known.
    pub missing: u64,
    /// Of these, those that are being filled.
    pub filling: u64,
    /// Half of the auctions had their answers after so long, in microseconds from their scheduled beginning.
    pub p50_us: u64,
    /// 99 of 100.
    pub p99_us: u64,
    /// 999 of 1000.
    pub p999_us: u64,
    /// All.
    pub max_us: u64,
    /// Answers that came from the process' own memory.
    pub first_level_hits: u64,
    /// Items read from the master table.
    pub master_reads: u64,
    /// Entries that were made from them.
    pub filled: u64,
    /// How far the region's watermark is behind at the end; none: there is none.
    pub watermark_lag_ms: Option<u64>,
}

impl Summary {
    /// Answers that needed no master: the profile, or that there is none.
    #[must_use]
    pub fn hits(&self) -> u64 {
        self.fresh + self.stale + self.absent
    }

    /// Of the profiles asked for, the part that was a hit, in percent; 0 without any.
    #[must_use]
    pub fn hit_percent(&self) -> f64 {
        percent(self.hits(), self.lookups)
    }

    /// Master reads a second.
    #[must_use]
    pub fn master_reads_per_second(&self) -> f64 {
        self.master_reads as f64 / self.lasted_s.max(0.001)
    }

    /// In words.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let Self { fresh, stale, absent, missing, filling, .. } = self;
        let rate = |count: u64| count as f64 / self.lasted_s.max(0.001);
        let share = |count: &u64| percent(*count, self.lookups);
        let lag = self.watermark_lag_ms.map_or_else(|| "unknown".to_owned(), |ms| format!("{ms} ms"));
        vec![
            format!(
                "auctions       {} in {:.1} s, {:.0}/s; {} missed their deadline, {} without any answer",
                self.auctions,
                self.lasted_s,
                rate(self.auctions),
                self.missed,
                self.unanswered
            ),
            format!(
                "lookups        {}: fresh {:.2} %, stale {:.2} %, known absent {:.2} %, missing {:.2} % ({filling} being filled)",
                self.lookups,
                share(fresh),
                share(stale),
                share(absent),
                share(missing)
            ),
            format!("hit rate       {:.2} %", self.hit_percent()),
            format!("time           {} (from the auction's scheduled beginning)", self.times()),
            format!("first level    {} hits, {:.0}/s", self.first_level_hits, rate(self.first_level_hits)),
            format!(
                "master         {} reads, {:.1}/s; {} entries filled",
                self.master_reads,
                self.master_reads_per_second(),
                self.filled
            ),
            format!("watermark      {lag} behind"),
        ]
    }

    /// The quantiles of the lookups' times.
    #[must_use]
    pub fn times(&self) -> String {
        let ms = |us: u64| us as f64 / 1_000.0;
        format!(
            "p50 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms",
            ms(self.p50_us),
            ms(self.p99_us),
            ms(self.p999_us)
        )
    }
}

fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { 100.0 * part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: Duration = Duration::from_millis(100);
    const IN_TIME: Duration = Duration::from_millis(2);
    const MISS: Answer = Answer::Missing { filling: true };

    #[test]
    fn a_stretch_counts_only_what_happened_in_it() {
        let figures = Figures::new().unwrap();
        figures.note(Duration::from_millis(90), DEADLINE, Some(&[MISS, MISS]));
        let before = figures.standing(&ReaderStats::default(), None);
        figures.note(IN_TIME, DEADLINE, Some(&[Answer::Absent, Answer::Absent, MISS]));
        let summary = figures.standing(&ReaderStats::default(), Some(IN_TIME)).since(&before);
        assert_eq!((summary.auctions, summary.lookups, summary.absent, summary.missing), (1, 3, 2, 1));
        assert!((66.0..67.0).contains(&summary.hit_percent()), "{summary:?}");
        assert!(summary.max_us < 3_000, "{summary:?}");
        assert_eq!(summary.watermark_lag_ms, Some(2));
    }

    #[test]
    fn late_answers_no_answers_and_lost_auctions_are_missed() {
        let figures = Figures::new().unwrap();
        let start = figures.standing(&ReaderStats::default(), None);
        figures.note(2 * DEADLINE, DEADLINE, Some(&[Answer::Absent]));
        figures.note(IN_TIME, DEADLINE, None);
        figures.lose();
        figures.note(IN_TIME, DEADLINE, Some(&[Answer::Absent]));
        let summary = figures.standing(&ReaderStats::default(), None).since(&start);
        assert_eq!((summary.auctions, summary.missed, summary.unanswered), (4, 3, 2));
    }
}
