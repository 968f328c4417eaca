//! Metrics: what they are called, how they are bounded, and the text that Prometheus reads.
//!
//! Every metric is `warmcast_` and a name in base units (seconds, bytes) with the unit at its end, as Prometheus'
//! conventions have it. Labels come from the configuration (regions, tables) or from fixed lists (classes of errors),
//! never from data: so there are no keys in them, and not more of them than an operator has named. What is counted
//! anyway is read when somebody asks ([`Collector`], which writes [`Families`]); a [`Histogram`] is fed where it happens.
//!
//! docs/metrics.md lists all of them; a test of each daemon holds its registry against that list.

mod histogram;
mod counter_set;
mod families;

use std::fmt;
use std::time::Duration;

use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;

use crate::clock::now_ms;
use crate::config::Section;

pub use counter_set::CounterSet;
pub use families::{Families, Label};
pub use histogram::Histogram;
pub use prometheus_client::collector::Collector;
pub use prometheus_client::registry::Registry;

/// The media type of [`text`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Upper bounds of histograms of lags, in seconds: from the latency of one call to a day, the age at which a table's
/// stream forgets.
pub const LAG_BUCKETS_S: [f64; 20] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3_600.0,
    7_200.0, 14_400.0, 43_200.0, 86_400.0,
];

/// Upper bounds of histograms of calls and round trips, in seconds.
pub const CALL_BUCKETS_S: [f64; 14] =
    [0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// Upper bounds of histograms of sizes, in bytes: powers of four from 64 bytes to 4 MiB.
pub const SIZE_BUCKETS_BYTES: [f64; 9] =
    [64.0, 256.0, 1_024.0, 4_096.0, 16_384.0, 65_536.0, 262_144.0, 1_048_576.0, 4_194_304.0];

/// Upper bounds of histograms of how many are handled together.
pub const COUNT_BUCKETS: [f64; 11] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1_024.0];

/// The `[metrics]` section.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MetricsConfig {
    /// Whether there is a metric for each shard that the process reads, for at most [`SHARD_SERIES_MAX`] of them.
    pub per_shard: bool,
}

/// Shards that have a metric of their own at most.
pub const SHARD_SERIES_MAX: usize = 1_000;

impl MetricsConfig {
    /// Takes the section's fields.
    pub fn read(mut section: Section) -> Self {
        let config = Self { per_shard: section.boolean("per_shard", false) };
        section.finish();
        config
    }
}

/// An empty registry of a process.
#[must_use]
pub fn registry() -> Registry {
    Registry::with_prefix("warmcast")
}

/// What every process tells of itself. Called when it starts.
pub fn register_process(registry: &mut Registry) {
    let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
    registry.register("build", "1, with the version that runs", version);
    let started = ConstGauge::new(seconds(now_ms()));
    registry.register("start_time_seconds", "When the process started, as a Unix time", started);
}

/// Milliseconds as the seconds that metrics are in.
#[must_use]
pub fn seconds(ms: u64) -> f64 {
    Duration::from_millis(ms).as_secs_f64()
}

/// Everything that is registered, as it is now, in the text that Prometheus and OpenTelemetry collectors read.
///
/// # Errors
/// When a collector fails.
pub fn text(registry: &Registry) -> Result<String, fmt::Error> {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;

    use super::*;

    #[test]
    fn the_text_has_the_prefix_and_ends_as_openmetrics_wants() {
        let mut registry = registry();
        let counter: Counter = Counter::default();
        registry.register("changes_sent", "Changes sent", counter.clone());
        counter.inc_by(3);
        let text = text(&registry).unwrap();
        assert!(text.contains("\nwarmcast_changes_sent_total 3\n"), "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
    }

    #[test]
    fn bounds_go_up() {
        for bounds in [&LAG_BUCKETS_S[..], &CALL_BUCKETS_S, &SIZE_BUCKETS_BYTES, &COUNT_BUCKETS] {
            assert!(bounds.is_sorted(), "{bounds:?}");
        }
    }
}
