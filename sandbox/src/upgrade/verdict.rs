//! What readers noticed of an upgrade: figures out of what was seen, each with its target. Pure but for the printing.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use super::Worst;
use super::probe::Seen;
use crate::report::{Report, Target};

/// A worker that was restarted.
#[derive(Clone, Debug)]
pub(super) struct Rolled {
    pub(super) name: String,
    /// The command was begun.
    pub(super) began: Instant,
    /// The worker was told to stop.
    pub(super) stopping: Instant,
    /// It had ended, and was started again.
    pub(super) stopped: Instant,
    /// The command ended.
    pub(super) ended: Instant,
}

impl Rolled {
    pub(super) fn in_words(&self) -> String {
        let s = |from: Instant, to: Instant| to.saturating_duration_since(from).as_secs_f64();
        format!(
            "{}: {:.1} s until it could go, {:.2} s to stop, {:.1} s until all was settled",
            self.name,
            s(self.began, self.stopping),
            s(self.stopping, self.stopped),
            s(self.stopped, self.ended)
        )
    }
}

/// A second of the run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Second {
    /// Since the first worker's turn; before it, negative.
    at_s: i64,
    /// Updates that were watched.
    updates: usize,
    /// The 99th percentile of their lags, in milliseconds.
    p99_ms: u64,
    /// The longest.
    max_ms: u64,
}

/// The lags of the updates that were put in the same second.
fn seconds(seen: &Seen, began: Instant) -> Vec<Second> {
    let mut by_second: BTreeMap<i64, Vec<u64>> = BTreeMap::new();
    for (put_at, lag) in &seen.lags {
        let at_s = match put_at.checked_duration_since(began) {
            Some(after) => i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
            None => {
                -1 - i64::try_from(began.saturating_duration_since(*put_at).as_secs()).unwrap_or(i64::MAX)
            }
        };
        by_second.entry(at_s).or_default().push(millis(*lag));
    }
    let second = |(at_s, mut lags): (i64, Vec<u64>)| {
        lags.sort_unstable();
        let rank = (lags.len() * 99).div_ceil(100).saturating_sub(1);
        let of = |index: usize| lags.get(index).copied().unwrap_or_default();
        Second { at_s, updates: lags.len(), p99_ms: of(rank), max_ms: of(lags.len().saturating_sub(1)) }
    };
    by_second.into_iter().map(second).collect()
}

/// What became of the watermark.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Watermark {
    /// How often it was seen to be less than before.
    back: usize,
    /// The longest time in which it was not seen to move, in seconds.
    standing_s: f64,
    /// The oldest that it was when it was seen to move, in seconds.
    age_s: f64,
}

fn watermark(seen: &Seen, from: Instant, to: Instant) -> Watermark {
    let mut found = Watermark::default();
    for pair in seen.watermarks.windows(2) {
        let [(before_at, before, _), (at, ms, age)] = pair else { continue };
        found.back += usize::from(ms < before);
        if *at < from || *before_at > to {
            continue;
        }
        found.standing_s = found.standing_s.max((*at - *before_at).as_secs_f64());
        found.age_s = found.age_s.max(age.as_secs_f64());
    }
    found
}

/// Tells all of it.
pub(super) fn tell(
    report: &mut Report,
    seen: &Seen,
    rolled: &[Rolled],
    began: Instant,
    worst: Worst,
) -> io::Result<()> {
    let seconds = seconds(seen, began);
    for second in &seconds {
        report.second_seen(second)?;
    }
    let (before, during): (Vec<Second>, Vec<Second>) = seconds.iter().partition(|second| second.at_s < 0);
    let p99_s = |of: &[Second]| of.iter().map(|second| second.p99_ms as f64 / 1_000.0).collect::<Vec<f64>>();
    let (before, during) = (p99_s(&before), p99_s(&during));
    let ended = rolled.iter().map(|of| of.ended).max().unwrap_or(began);
    report.figure("all restarts together", "s", vec![(ended - began).as_secs_f64()], None)?;
    for of in rolled {
        let last = of.ended;
        let within = |second: &&Second| {
            let at = began + Duration::from_secs(u64::try_from(second.at_s).unwrap_or_default());
            second.at_s >= 0 && at + Duration::from_secs(1) >= of.stopping && at <= last
        };
        let p99_s = seconds.iter().filter(within).map(|second| second.p99_ms).max().unwrap_or_default()
            as f64
            / 1_000.0;
        report.row(
            &of.name,
            &[
                ("until it could go", "s to go", (of.stopping - of.began).as_secs_f64()),
                ("stopping", "s to stop", (of.stopped - of.stopping).as_secs_f64()),
                ("until all was settled", "s to settle", (of.ended - of.stopped).as_secs_f64()),
                ("worst p99 of a second", "s worst p99", p99_s),
                ("watermark stood", "s watermark stood", watermark(seen, of.stopping, last).standing_s),
            ],
        )?;
    }
    let max = |of: &[f64]| of.iter().copied().fold(f64::NAN, f64::max);
    let median = median(&before);
    report.figure("p99 lag of a second before, median", "s", vec![median], None)?;
    report.figure("p99 lag of a second before, worst", "s", vec![max(&before)], None)?;
    report.figure("p99 lag of a second during the upgrade, worst", "s", vec![max(&during)], None)?;
    let increase = Some(Target::AtMost(worst.lag_increase.as_secs_f64()));
    report.figure("largest increase of p99 lag", "s", vec![max(&during) - median], increase)?;
    let all = watermark(seen, began, ended);
    let standing = Some(Target::AtMost(worst.standing.as_secs_f64()));
    report.figure("the watermark stood, at most", "s", vec![all.standing_s], standing)?;
    report.figure("the watermark's age when it moved, at most", "s", vec![all.age_s], None)?;
    if all.back > 0 {
        report.violation(format!("the watermark moved back {} times", all.back))?;
    }
    if seen.watermarks.is_empty() {
        report.violation("no watermark was seen".to_owned())?;
    }
    Ok(())
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn lags_are_of_the_second_in_which_an_update_was_put() {
        let began = Instant::now() + Duration::from_secs(100);
        let mut seen = Seen::default();
        for number in 0..100 {
            seen.lags.push((began - 500 * MS, number * MS));
            seen.lags.push((began + 1_500 * MS, 2 * number * MS));
        }
        seen.lags.push((began + 1_999 * MS, 9_000 * MS));
        let expected = [
            Second { at_s: -1, updates: 100, p99_ms: 98, max_ms: 99 },
            Second { at_s: 1, updates: 101, p99_ms: 198, max_ms: 9_000 },
        ];
        assert_eq!(seconds(&seen, began), expected);
    }

    #[test]
    fn a_watermark_stands_between_two_moves_and_a_step_back_is_counted() {
        let began = Instant::now();
        let at = |second: u64| began + Duration::from_secs(second);
        let moves = [(0, 10), (1, 11), (5, 12), (6, 11), (20, 30)];
        let watermarks = moves.map(|(second, ms)| (at(second), ms, Duration::from_secs(second)));
        let seen = Seen { watermarks: watermarks.to_vec(), ..Seen::default() };
        assert_eq!(watermark(&seen, at(0), at(6)), Watermark { back: 1, standing_s: 14.0, age_s: 20.0 });
        assert_eq!(watermark(&seen, at(2), at(4)), Watermark { back: 1, standing_s: 4.0, age_s: 5.0 });
    }
}
