//! The metrics of the shard consumer, in either daemon. docs/metrics.md says what they mean.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use prometheus_client::encoding::DescriptorEncoder;

use crate::metrics::{Collector, Families, Label, MetricsConfig, Registry, SHARD_SERIES_MAX};

use super::assignment::Member;
use super::budget::ByteBudget;
use super::catch_up::{LaneContext, LaneFigures};
use super::counters::{Counters, LeaseStates};
use super::lag::{LagOfShard, Lags};
use super::worker::Worker;

/// What can be looked at of a consumer while it runs. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ConsumerMetrics {
    pub(super) worker: Arc<Worker>,
    pub(super) lags: Lags,
    pub(super) lanes: Arc<LaneContext>,
    pub(super) budgets: Vec<(&'static str, ByteBudget)>,
    pub(super) config: MetricsConfig,
}

impl ConsumerMetrics {
    /// Registers them.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("read_lag_seconds", "Record created to read", self.counters().read_lag.clone());
        registry.register_collector(Box::new(self.clone()));
    }

    /// What is counted.
    pub fn counters(&self) -> &Counters {
        self.worker.counters()
    }

    /// How the lanes are.
    pub fn lanes(&self) -> Vec<LaneFigures> {
        self.lanes.figures()
    }

    fn reading(&self, to: &mut Families<'_>) -> fmt::Result {
        let counters = self.counters();
        to.counter("records_read", "Records read of shards", counters.records_read())?;
        to.counter("read_bytes", "What they weigh in memory", counters.bytes_read.load(Relaxed))?;
        to.counters("read_calls", "Reads of shards, by result", labelled("result", counters.reads.iter()))?;
        let lag_s = Duration::from_millis(self.lags.max_ms()).as_secs_f64();
        to.gauge("lag_seconds", "How far the shard that is furthest behind is behind its tip", lag_s)?;
        if self.config.per_shard {
            let lags = greatest(self.lags.by_shard(), SHARD_SERIES_MAX);
            let labels =
                |of: &LagOfShard| [("stream", of.stream.to_string()), ("shard", of.shard.to_string())];
            let values = lags.iter().map(|of| (labels(of), of.lag.as_secs_f64()));
            to.gauges("shard_lag_seconds", "How far each shard is behind its tip", values)?;
        }
        to.gauge("shards_owned", "Shards that this process reads", as_i64(self.lags.shards()))?;
        let failures = labelled("reason", counters.shard_failures.iter());
        to.counters("shard_failures", "Shards started again from their checkpoint, by why", failures)?;
        let gaps = counters.gaps.load(Relaxed);
        to.counter("gaps", "Gaps found: records trimmed before they were read", gaps)?;
        let budgets = || {
            let named = self.budgets.iter().map(|(name, budget)| (*name, budget));
            named.chain(self.lanes.budget().map(|budget| ("catch_up", budget)))
        };
        let used = budgets().map(|(name, of)| ([("budget", name)], as_i64(of.bytes_in_use())));
        to.gauges("budget_bytes", "Bytes read and not done yet", used)?;
        let most = budgets().map(|(name, of)| ([("budget", name)], as_i64(of.bytes_max())));
        to.gauges("budget_max_bytes", "The most bytes that may be read and not done yet", most)
    }

    fn sharing(&self, to: &mut Families<'_>) -> fmt::Result {
        let counters = self.counters();
        let LeaseStates { own, others, free, waiting, finished } = counters.leases();
        let states =
            [("own", own), ("others", others), ("free", free), ("waiting", waiting), ("finished", finished)];
        let states = states.map(|(state, leases)| ([("state", state)], as_i64(leases)));
        to.gauges("leases", "Leases of the fleet's streams, as this worker saw them last", states)?;
        let changes = labelled("kind", counters.lease_changes.iter());
        to.counters("lease_changes", "Leases of this worker that came or went", changes)?;
        let members = self.worker.members();
        to.gauge("workers", "Workers that live, as this one sees it", as_i64(members.len()))?;
        let share = share_ratio(&members, self.worker.id());
        to.known_gauge("worker_share_ratio", "This worker's leases to its fair share", share)?;
        to.counter("checkpoints", "Checkpoints written", counters.checkpoints.load(Relaxed))?;
        let beats = labelled("result", counters.heartbeats.iter());
        to.counters("heartbeats", "Heartbeats of this worker in the state table, by result", beats)?;
        let calls = self.worker.store().calls().iter();
        let calls = calls.map(|(call, result, count)| ([("call", call), ("result", result)], count));
        to.counters("state_calls", "Calls to the state table, by operation and result", calls)
    }
}

impl Collector for ConsumerMetrics {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut to = Families::new(encoder);
        self.reading(&mut to)?;
        self.sharing(&mut to)
    }
}

fn labelled(
    name: &'static str,
    counts: impl Iterator<Item = (&'static str, u64)>,
) -> impl Iterator<Item = ([Label<'static>; 1], u64)> {
    counts.map(move |(value, count)| ([(name, value)], count))
}

fn as_i64(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// The shards that are furthest behind, and in the place of the others one that is as far as the furthest of them.
fn greatest(mut lags: Vec<LagOfShard>, shards_max: usize) -> Vec<LagOfShard> {
    lags.sort_unstable_by(|one, other| other.lag.cmp(&one.lag).then_with(|| one.shard.cmp(&other.shard)));
    if let Some(first) = lags.get_mut(shards_max) {
        (first.stream, first.shard) = ("other".into(), "other".into());
        lags.truncate(shards_max + 1);
    }
    lags
}

/// The leases of the worker `me` to its part, by capacity, of all that the workers that stay have. `None` while they have
/// none.
fn share_ratio(members: &[Member], me: &str) -> Option<f64> {
    let staying = || members.iter().filter(|member| !member.leaving);
    let leases: usize = staying().map(|member| member.leases).sum();
    let capacity: f64 = staying().map(|member| f64::from(member.capacity)).sum();
    let me = staying().find(|member| member.id == me)?;
    #[expect(clippy::cast_precision_loss, reason = "counts of leases are far below 2^53")]
    let (own, all) = (me.leases as f64, leases as f64);
    let fair = all * f64::from(me.capacity) / capacity;
    (fair > 0.0).then(|| own / fair)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lag(shard: &str, seconds: u64) -> LagOfShard {
        LagOfShard { stream: "s".into(), shard: shard.into(), lag: Duration::from_secs(seconds) }
    }

    #[test]
    fn the_shards_that_are_furthest_behind_are_told_and_the_rest_is_one() {
        let lags = vec![lag("a", 1), lag("b", 9), lag("c", 3), lag("d", 2)];
        let told = |max| {
            let of = greatest(lags.clone(), max).into_iter();
            of.map(|of| (of.shard.to_string(), of.lag.as_secs())).collect::<Vec<_>>()
        };
        let expected = |shards: &[(&str, u64)]| {
            shards.iter().map(|(shard, seconds)| ((*shard).to_owned(), *seconds)).collect::<Vec<_>>()
        };
        assert_eq!(told(2), expected(&[("b", 9), ("c", 3), ("other", 2)]));
        assert_eq!(told(4), expected(&[("b", 9), ("c", 3), ("d", 2), ("a", 1)]));
    }

    #[test]
    fn a_share_is_by_capacity_and_of_those_that_stay() {
        let member = |id: &str, capacity, leases, leaving| Member {
            id: id.to_owned(),
            capacity,
            leases_max: 100,
            leases,
            bytes_per_s: 0,
            streams: std::collections::BTreeSet::new(),
            leaving,
        };
        let members = [member("a", 100, 10, false), member("b", 300, 50, false), member("c", 100, 9, true)];
        assert_eq!(share_ratio(&members, "a"), Some(10.0 / 15.0));
        assert_eq!(share_ratio(&members, "b"), Some(50.0 / 45.0));
        assert_eq!(share_ratio(&members, "c"), None);
        assert_eq!(share_ratio(&[member("a", 100, 0, false)], "a"), None);
    }
}
