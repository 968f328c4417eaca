//! What is seen of everything, once a second.

use std::time::Duration;

use serde::Serialize;

use crate::faults::Second;

/// Everything at a moment. Counters are those since the start.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Sample {
    /// Seconds since the load began.
    pub at_s: f64,
    /// Updates that were put.
    pub put: u64,
    /// Of each region.
    pub regions: Vec<RegionSample>,
    /// Resident memory of the aggregators together, in KiB.
    pub resident_kib: u64,
    /// Bytes that they have read and that are not yet in every region, as they report it.
    pub queue_bytes: u64,
}

/// A region at a moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct RegionSample {
    /// Changes that were news.
    pub applied: u64,
    /// How far it is behind.
    pub lag_ms: u64,
    /// On how many shards of the table's stream it is parked.
    pub parked: u64,
    /// What its proxy counted.
    pub traffic: Second,
}

/// Some seconds of a run, pure.
#[derive(Clone, Copy, Debug)]
pub(super) struct Phase<'a>(pub(super) &'a [Sample]);

impl Phase<'_> {
    /// How long it was.
    pub(super) fn seconds(&self) -> f64 {
        self.ends().map_or(0.0, |(first, last)| last.at_s - first.at_s)
    }

    fn ends(&self) -> Option<(&Sample, &Sample)> {
        Some((self.0.first()?, self.0.last()?))
    }

    fn rate(&self, counter: impl Fn(&Sample) -> u64) -> f64 {
        let Some((first, last)) = self.ends().filter(|_| self.seconds() > 0.0) else { return f64::NAN };
        counter(last).saturating_sub(counter(first)) as f64 / self.seconds()
    }

    /// Updates put a second.
    pub(super) fn put_rate(&self) -> f64 {
        self.rate(|sample| sample.put)
    }

    /// Updates applied a second in a region.
    pub(super) fn applied_rate(&self, region: usize) -> f64 {
        self.rate(|sample| sample.regions.get(region).map_or(0, |region| region.applied))
    }

    /// What a counter of a region's proxy rose by in a second.
    pub(super) fn traffic_rate(&self, region: usize, counter: impl Fn(&Second) -> u64) -> f64 {
        self.rate(|sample| sample.regions.get(region).map_or(0, |region| counter(&region.traffic)))
    }

    /// The lags of a region, in seconds, the least first.
    pub(super) fn lags_s(&self, region: usize) -> Vec<f64> {
        let of_region = self.0.iter().filter_map(|sample| sample.regions.get(region));
        let mut lags: Vec<f64> = of_region.map(|region| region.lag_ms as f64 / 1_000.0).collect();
        lags.sort_by(f64::total_cmp);
        lags
    }

    /// The most memory, in MiB.
    pub(super) fn resident_max_mib(&self) -> f64 {
        let most = self.0.iter().map(|sample| sample.resident_kib).max();
        most.map_or(f64::NAN, |kib| kib as f64 / 1_024.0)
    }

    /// The largest queue, in MiB.
    pub(super) fn queue_max_mib(&self) -> f64 {
        let most = self.0.iter().map(|sample| sample.queue_bytes).max();
        most.map_or(f64::NAN, |bytes| bytes as f64 / f64::from(1 << 20))
    }

    /// In each second in which a region was sent entries, the share of them that was rejected.
    pub(super) fn rejected_shares(&self, region: usize) -> Vec<f64> {
        let traffic =
            |sample: &Sample| sample.regions.get(region).map(|region| region.traffic).unwrap_or_default();
        let seconds = self.0.windows(2).filter_map(|pair| {
            let [before, after] = pair else { return None };
            let (before, after) = (traffic(before), traffic(after));
            let sent = after.entries.saturating_sub(before.entries);
            let rejected = after.entries_rejected.saturating_sub(before.entries_rejected);
            (sent > 0).then(|| rejected as f64 / sent as f64)
        });
        seconds.collect()
    }

    /// Its second half.
    pub(super) fn last_half(&self) -> Self {
        Phase(self.0.get(self.0.len() / 2..).unwrap_or_default())
    }

    /// Its first half.
    pub(super) fn first_half(&self) -> Self {
        Phase(self.0.get(..self.0.len() / 2).unwrap_or_default())
    }
}

/// The line that tells what happened between two moments.
pub(super) fn line(names: &[String], before: &Sample, now: &Sample) -> String {
    let pair = [before.clone(), now.clone()];
    let phase = Phase(&pair);
    let regions = names.iter().zip(&now.regions).enumerate().map(|(index, (name, region))| {
        let (rate, lag_s) = (phase.applied_rate(index), region.lag_ms as f64 / 1_000.0);
        let rejected = phase.traffic_rate(index, |traffic| traffic.entries_rejected);
        let rejected = if rejected > 0.0 { format!(" rejected {rejected:.0}/s") } else { String::new() };
        let parked = if region.parked > 0 { format!(" parked on {}", region.parked) } else { String::new() };
        format!("{name} {rate:.0}/s {lag_s:.1} s{rejected}{parked}")
    });
    let regions: Vec<String> = regions.collect();
    format!(
        "{:4.0} s  put {:.0}/s | {} | {:.0} MiB, queue {:.1} MiB",
        now.at_s,
        phase.put_rate(),
        regions.join(" | "),
        phase.resident_max_mib(),
        now.queue_bytes as f64 / f64::from(1 << 20),
    )
}

/// A quantile of sorted values; not a number of none.
pub(super) fn quantile(sorted: &[f64], share: f64) -> f64 {
    let last = sorted.len().saturating_sub(1) as f64;
    let mut left = (last * share).round();
    for value in sorted {
        if left < 1.0 {
            return *value;
        }
        left -= 1.0;
    }
    f64::NAN
}

/// Milliseconds, for a sample.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A sample a second: the region's counters rise by these.
    pub(crate) fn seconds(applied: &[u64], lag_ms: u64) -> Vec<Sample> {
        let mut at =
            Sample { regions: vec![RegionSample { lag_ms, ..RegionSample::default() }], ..Sample::default() };
        let mut samples = vec![at.clone()];
        for rise in applied {
            at.at_s += 1.0;
            at.regions[0].applied += rise;
            samples.push(at.clone());
        }
        samples
    }

    #[test]
    fn a_rate_is_the_rise_over_the_whole_phase() {
        let samples = seconds(&[100, 300], 20);
        let phase = Phase(&samples);
        assert_eq!((phase.seconds(), phase.applied_rate(0)), (2.0, 200.0));
        assert_eq!(phase.lags_s(0), [0.02; 3]);
        assert!(Phase(&samples[..1]).applied_rate(0).is_nan());
    }

    #[test]
    fn seconds_without_entries_have_no_share() {
        let mut samples = seconds(&[0, 0, 0], 0);
        for (sample, (entries, rejected)) in samples.iter_mut().zip([(0, 0), (10, 1), (10, 1), (20, 6)]) {
            sample.regions[0].traffic = Second { entries, entries_rejected: rejected, ..Second::default() };
        }
        assert_eq!(Phase(&samples).rejected_shares(0), [0.1, 0.5]);
    }

    #[test]
    fn quantiles_are_values() {
        let sorted = [1.0, 2.0, 3.0, 4.0, 5.0];
        assert_eq!([0.0, 0.5, 1.0].map(|share| quantile(&sorted, share)), [1.0, 3.0, 5.0]);
        assert!(quantile(&[], 0.5).is_nan());
    }
}
