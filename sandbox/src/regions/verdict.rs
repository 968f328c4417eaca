//! What a run must have shown. Pure: figures out of samples, each with its target.

use super::watch::{Phase, quantile};
use crate::report::Target;

/// The other regions' throughput during an outage, against before.
const THROUGHPUT_RATIO: f64 = 0.95;
/// So much longer may an update take while a region is gone, in the middle.
const LAG_MEDIAN_MORE_S: f64 = 1.0;
/// The same at most, beside how long a region may stall a shard before it is parked.
const LAG_MAX_MORE_S: f64 = 3.0;
/// What an aggregator may take beside its queue's bound: frames under construction, buffers of connections.
const MEMORY_MORE_MIB: f64 = 64.0;
/// From the first half of an outage to the second; more is growth, not noise.
const MEMORY_GROWTH_MIB: f64 = 32.0;
/// The share of entries that a throttling region may reject once the rate has settled (the rest is use of what it has).
const REJECTED_SHARE: f64 = 0.05;
/// Seconds in which entries were sent; of fewer nothing can be said.
const REJECTED_SECONDS_MIN: usize = 5;

/// A number and what it is held against.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Finding {
    /// What was measured.
    pub(super) name: String,
    /// Of the value.
    pub(super) unit: &'static str,
    /// Not a number: it could not be measured, and meets no target.
    pub(super) value: f64,
    /// Where it should be.
    pub(super) target: Option<Target>,
}

impl Finding {
    /// A number that tells something and has no target.
    pub(super) fn plain(name: impl Into<String>, unit: &'static str, value: f64) -> Self {
        Self { name: name.into(), unit, value, target: None }
    }

    fn held_to(self, target: Target) -> Self {
        Self { target: Some(target), ..self }
    }
}

/// What the aggregator was allowed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowance {
    /// The bound of what may be read and not yet in every region.
    pub(super) queue_mib: f64,
    /// How long a region may stall a shard before it is parked.
    pub(super) park_after_s: f64,
    /// Updates a second that were asked for.
    pub(super) rate: f64,
}

/// The load as it was really put.
pub(super) fn load(baseline: Phase<'_>, allowed: Allowance) -> Vec<Finding> {
    let put = baseline.put_rate();
    let reached = Finding::plain("updates put a second before the fault", "/s", put);
    // A sandbox that cannot make the load has measured something else.
    vec![reached.held_to(Target::AtLeast(0.98 * allowed.rate))]
}

/// What the other regions and the aggregator did while `gone` was.
pub(super) fn outage(
    names: &[String],
    gone: usize,
    baseline: Phase<'_>,
    during: Phase<'_>,
    allowed: Allowance,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (region, name) in names.iter().enumerate().filter(|(region, _)| *region != gone) {
        let (before, meanwhile) = (baseline.applied_rate(region), during.applied_rate(region));
        findings.push(Finding::plain(format!("{name}: updates applied a second before"), "/s", before));
        findings.push(Finding::plain(format!("{name}: the same during the outage"), "/s", meanwhile));
        findings.push(
            Finding::plain(format!("{name}: throughput, during to before"), "", meanwhile / before)
                .held_to(Target::AtLeast(THROUGHPUT_RATIO)),
        );
        let (before, meanwhile) = (baseline.lags_s(region), during.lags_s(region));
        let median = quantile(&before, 0.5);
        findings.push(Finding::plain(format!("{name}: median lag before"), "s", median));
        findings.push(
            Finding::plain(format!("{name}: median lag during the outage"), "s", quantile(&meanwhile, 0.5))
                .held_to(Target::AtMost(median + LAG_MEDIAN_MORE_S)),
        );
        let most = quantile(&before, 1.0) + allowed.park_after_s + LAG_MAX_MORE_S;
        findings.push(
            Finding::plain(format!("{name}: longest lag during the outage"), "s", quantile(&meanwhile, 1.0))
                .held_to(Target::AtMost(most)),
        );
    }
    findings.extend(memory(baseline, during, allowed));
    findings
}

/// Whether the memory is bounded by the queue and flat.
pub(super) fn memory(baseline: Phase<'_>, during: Phase<'_>, allowed: Allowance) -> Vec<Finding> {
    let before = baseline.resident_max_mib();
    let growth = during.last_half().resident_max_mib() - during.first_half().resident_max_mib();
    vec![
        Finding::plain("aggregator's memory before, at most", "MiB", before),
        Finding::plain("aggregator's memory during the fault, at most", "MiB", during.resident_max_mib())
            .held_to(Target::AtMost(before + allowed.queue_mib + MEMORY_MORE_MIB)),
        Finding::plain("its growth from the first half to the second", "MiB", growth)
            .held_to(Target::AtMost(MEMORY_GROWTH_MIB)),
        Finding::plain("queue during the fault, at most", "MiB", during.queue_max_mib())
            .held_to(Target::AtMost(allowed.queue_mib)),
    ]
}

/// What became of the entries sent to a region that throttles.
pub(super) fn throttled(name: &str, region: usize, during: Phase<'_>) -> Vec<Finding> {
    let median = |phase: Phase<'_>| {
        let mut shares = phase.rejected_shares(region);
        shares.sort_by(f64::total_cmp);
        if shares.len() < REJECTED_SECONDS_MIN { f64::NAN } else { 100.0 * quantile(&shares, 0.5) }
    };
    let last = during.last_half();
    let rate = |counter: fn(&crate::faults::Second) -> u64| last.traffic_rate(region, counter);
    let (sent, rejected) = (rate(|second| second.entries), rate(|second| second.entries_rejected));
    vec![
        Finding::plain(
            format!("{name}: entries rejected, of the sent, first half"),
            "%",
            median(during.first_half()),
        ),
        Finding::plain(
            format!("{name}: entries rejected, of the sent, median second of the last half"),
            "%",
            median(last),
        )
        .held_to(Target::AtMost(100.0 * REJECTED_SHARE)),
        Finding::plain(
            format!("{name}: entries rejected, of all sent in the last half"),
            "%",
            100.0 * rejected / sent,
        ),
        Finding::plain(format!("{name}: entries sent a second in the last half"), "/s", sent),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::watch::tests::seconds;
    use super::super::watch::{RegionSample, Sample};
    use super::*;
    use crate::faults::Second;

    const ALLOWED: Allowance = Allowance { queue_mib: 100.0, park_after_s: 1.0, rate: 100.0 };

    fn names() -> Vec<String> {
        ["other", "gone"].map(str::to_owned).into()
    }

    fn passes(findings: &[Finding]) -> bool {
        findings.iter().all(|of| of.target.is_none_or(|target| target.is_met_by(of.value)))
    }

    fn missed(findings: &[Finding]) -> Vec<&str> {
        let missed = findings.iter().filter(|of| of.target.is_some_and(|target| !target.is_met_by(of.value)));
        missed.map(|of| of.name.as_str()).collect()
    }

    fn judged(during: &[Sample]) -> Vec<Finding> {
        let before = with(seconds(&[100; 10], 200), |_, sample| sample.resident_kib = 50 << 10);
        outage(&names(), 1, Phase(&before), Phase(during), ALLOWED)
    }

    fn with(mut samples: Vec<Sample>, change: impl Fn(usize, &mut Sample)) -> Vec<Sample> {
        samples.iter_mut().enumerate().for_each(|(index, sample)| change(index, sample));
        samples
    }

    fn good() -> Vec<Sample> {
        with(seconds(&[99; 20], 300), |_, sample| {
            sample.resident_kib = 120 << 10;
            sample.queue_bytes = 60 << 20;
        })
    }

    #[test]
    fn a_region_that_is_gone_and_disturbs_nobody_passes() {
        assert!(passes(&judged(&good())), "{:?}", missed(&judged(&good())));
    }

    #[test]
    fn a_twentieth_less_throughput_of_another_region_fails() {
        let slow = with(good(), |index, sample| sample.regions[0].applied = 94 * index as u64);
        assert_eq!(missed(&judged(&slow)), ["other: throughput, during to before"]);
    }

    #[test]
    fn a_stall_that_is_made_up_for_shows_in_the_lag() {
        let stalled = with(good(), |index, sample| {
            if index > 5 {
                sample.regions[0].lag_ms = 5_000;
            }
        });
        let expected = ["other: median lag during the outage", "other: longest lag during the outage"];
        assert_eq!(missed(&judged(&stalled)), expected);
    }

    #[test]
    fn memory_beyond_the_queue_and_memory_that_grows_fail() {
        let large = with(good(), |_, sample| sample.resident_kib = 300 << 10);
        assert_eq!(missed(&judged(&large)), ["aggregator's memory during the fault, at most"]);
        let growing = with(good(), |index, sample| sample.resident_kib = (60 + 5 * index as u64) << 10);
        assert_eq!(missed(&judged(&growing)), ["its growth from the first half to the second"]);
        let queue = with(good(), |_, sample| sample.queue_bytes = 101 << 20);
        assert_eq!(missed(&judged(&queue)), ["queue during the fault, at most"]);
    }

    #[test]
    fn nothing_measured_is_nothing_shown() {
        assert!(!passes(&judged(&[])));
        assert!(!passes(&load(Phase(&[]), ALLOWED)));
        assert!(!passes(&throttled("a", 0, Phase(&[]))));
    }

    #[test]
    fn a_load_that_was_not_made_fails() {
        let put =
            |rate: u64| with(seconds(&[0; 5], 0), move |index, sample| sample.put = rate * index as u64);
        assert!(passes(&load(Phase(&put(99)), ALLOWED)));
        assert!(!passes(&load(Phase(&put(90)), ALLOWED)));
    }

    /// So many of a hundred entries are rejected in each second.
    fn rejecting(share: impl Fn(usize) -> u64) -> Vec<Sample> {
        let mut traffic = Second::default();
        (0..40)
            .map(|second| {
                traffic.entries += 100;
                traffic.entries_rejected += share(second);
                let region = RegionSample { traffic, ..RegionSample::default() };
                Sample { at_s: second as f64, regions: vec![region], ..Sample::default() }
            })
            .collect()
    }

    #[test]
    fn throttling_that_settles_passes_and_a_storm_fails() {
        let settles = rejecting(|second| if second < 15 { 60 } else { 3 });
        assert!(passes(&throttled("a", 0, Phase(&settles))));
        let storm = rejecting(|_| 60);
        assert!(!passes(&throttled("a", 0, Phase(&storm))));
        let just_too_much = rejecting(|second| if second < 15 { 60 } else { 6 });
        assert!(!passes(&throttled("a", 0, Phase(&just_too_much))));
    }
}
