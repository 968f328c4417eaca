//! What the page draws: a process' figures of the last minutes. Pure.
//!
//! Taken here and not in the page, so that who opens it sees what was before.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

/// The figure that every region has: how old its watermark is, in seconds.
pub const WATERMARK_AGE: &str = "watermark_age_seconds";

/// Pause between two samples.
pub(super) const SAMPLE_INTERVAL: Duration = Duration::from_secs(2);
/// Samples that are kept: ten minutes.
const SAMPLES_MAX: usize = 300;
/// Series that are kept. There are some for each region, and regions are configured.
const SERIES_MAX: usize = 512;
/// Rates of `/status` are of the last samples, so many.
const RATE_SAMPLES: usize = 5;

/// A figure as it is now.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// What it is, for people and programs: `changes_sent`.
    pub name: &'static str,
    /// The region that it is of, if it is of one.
    pub region: Option<Arc<str>>,
    /// Its value.
    pub reading: Reading,
}

/// A figure's value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reading {
    /// How much there was since the process started: what is shown is how much that is in a second.
    Counter(u64),
    /// What is shown as it is. `None`: it is not known.
    Gauge(Option<f64>),
}

impl Figure {
    /// One of the whole process.
    pub const fn new(name: &'static str, reading: Reading) -> Self {
        Self { name, region: None, reading }
    }

    pub(super) fn is_of_the_series_of(&self, other: &Self) -> bool {
        self.name == other.name && self.region == other.region
    }

    /// One of a region.
    pub const fn of_region(name: &'static str, region: Arc<str>, reading: Reading) -> Self {
        Self { name, region: Some(region), reading }
    }
}

/// A series.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Series {
    /// What it is. Of counters: how much in a second.
    pub(super) name: &'static str,
    pub(super) region: Option<String>,
}

/// The last minutes.
#[derive(Debug, Default)]
pub(super) struct History {
    series: Vec<Series>,
    counters: Vec<Option<u64>>,
    last_ms: Option<u64>,
    samples: VecDeque<Sample>,
}

/// All series at one time, in their order; later ones were not there yet. A number is `null` when it is not known.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Sample {
    pub(super) at_ms: u64,
    pub(super) values: Vec<Option<f64>>,
}

/// What of the last minutes somebody has not seen yet.
#[derive(Debug, Serialize)]
pub(super) struct Newer {
    pub(super) interval_ms: u64,
    pub(super) samples_max: usize,
    pub(super) series: Vec<Series>,
    pub(super) samples: Vec<Sample>,
}

/// A figure's rate over the last samples, or its last value.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Rate {
    #[serde(flatten)]
    pub(super) series: Series,
    pub(super) value: Option<f64>,
}

impl History {
    /// Takes a sample.
    pub(super) fn sample(&mut self, figures: &[Figure], now_ms: u64) {
        let past_s =
            self.last_ms.replace(now_ms).map(|last_ms| now_ms.saturating_sub(last_ms) as f64 / 1_000.0);
        let mut values = vec![None; self.series.len()];
        for figure in figures {
            let Some(index) = self.index_of(figure) else { continue };
            values.resize(self.series.len(), None);
            let value = match figure.reading {
                Reading::Gauge(value) => value.filter(|value| value.is_finite()),
                Reading::Counter(count) => self.rate(index, count, past_s),
            };
            if let Some(of) = values.get_mut(index) {
                *of = value;
            }
        }
        self.samples.push_back(Sample { at_ms: now_ms, values });
        while self.samples.len() > SAMPLES_MAX {
            self.samples.pop_front();
        }
    }

    /// What came after `after_ms`.
    pub(super) fn newer(&self, after_ms: u64) -> Newer {
        let samples = self.samples.iter().filter(|sample| sample.at_ms > after_ms).cloned().collect();
        let interval_ms = u64::try_from(SAMPLE_INTERVAL.as_millis()).unwrap_or(u64::MAX);
        Newer { interval_ms, samples_max: SAMPLES_MAX, series: self.series.clone(), samples }
    }

    /// How each figure is of late: the mean of what is known of the last samples.
    pub(super) fn rates(&self) -> Vec<Rate> {
        let value = |index: usize| {
            let lately = self.samples.iter().rev().take(RATE_SAMPLES);
            let known: Vec<f64> =
                lately.filter_map(|sample| sample.values.get(index).copied().flatten()).collect();
            (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64)
        };
        self.series
            .iter()
            .enumerate()
            .map(|(index, series)| Rate { series: series.clone(), value: value(index) })
            .collect()
    }

    fn index_of(&mut self, figure: &Figure) -> Option<usize> {
        let is_it = |series: &Series| {
            series.name == figure.name && series.region.as_deref() == figure.region.as_deref()
        };
        if let Some(index) = self.series.iter().position(is_it) {
            return Some(index);
        }
        if self.series.len() == SERIES_MAX {
            return None;
        }
        self.series.push(Series { name: figure.name, region: figure.region.as_deref().map(str::to_owned) });
        self.counters.push(None);
        Some(self.series.len() - 1)
    }

    fn rate(&mut self, index: usize, count: u64, past_s: Option<f64>) -> Option<f64> {
        let before = self.counters.get_mut(index)?.replace(count)?;
        let past_s = past_s.filter(|past_s| *past_s > 0.0)?;
        Some(count.saturating_sub(before) as f64 / past_s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(sent: u64, lag: Option<f64>) -> Vec<Figure> {
        let region: Arc<str> = "eu-west-1".into();
        vec![
            Figure::of_region("sent", region, Reading::Counter(sent)),
            Figure::new("lag", Reading::Gauge(lag)),
        ]
    }

    #[test]
    fn counters_become_rates_and_gauges_stay_as_they_are() {
        let mut history = History::default();
        history.sample(&figures(100, Some(1.5)), 1_000);
        history.sample(&figures(300, None), 3_000);
        history.sample(&figures(300, Some(f64::NAN)), 5_000);
        let seen = history.newer(0);
        let values: Vec<_> = seen.samples.iter().map(|sample| sample.values.clone()).collect();
        assert_eq!(values, [vec![None, Some(1.5)], vec![Some(100.0), None], vec![Some(0.0), None]]);
        assert_eq!(history.newer(3_000).samples.len(), 1);
        let rates: Vec<_> = history.rates().into_iter().map(|rate| (rate.series.name, rate.value)).collect();
        assert_eq!(rates, [("sent", Some(50.0)), ("lag", Some(1.5))]);
    }

    #[test]
    fn a_series_that_comes_later_does_not_move_the_others() {
        let mut history = History::default();
        history.sample(&figures(1, Some(1.0))[1..], 1_000);
        history.sample(&figures(1, Some(2.0)), 2_000);
        let seen = history.newer(0);
        assert_eq!(seen.series.iter().map(|series| series.name).collect::<Vec<_>>(), ["lag", "sent"]);
        assert_eq!(seen.samples[1].values, [Some(2.0), None]);
    }

    #[test]
    fn it_never_grows_beyond_its_bounds() {
        let mut history = History::default();
        let many: Vec<Figure> = (0..2 * SERIES_MAX)
            .map(|number| Figure::of_region("x", number.to_string().into(), Reading::Gauge(Some(1.0))))
            .collect();
        for second in 0..2 * SAMPLES_MAX as u64 {
            history.sample(&many[..if second == 0 { many.len() } else { 1 }], second * 1_000);
        }
        let seen = history.newer(0);
        assert_eq!((seen.samples.len(), seen.series.len()), (SAMPLES_MAX, SERIES_MAX));
    }
}
