//! How far a command is: a bar with rate and remaining time on a terminal, a line now and then elsewhere.
//!
//! Always on standard error: standard output is the report's.

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::plain::plain;

/// Where there is no terminal, a line comes so often.
const LINE_INTERVAL: Duration = Duration::from_secs(10);
/// How often a bar is drawn, in a second.
const DRAWN_PER_S: u8 = 5;

/// How far something is. Clones show the same. Dropped, it says where it stood.
#[derive(Clone, Debug)]
pub struct Progress {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    what: String,
    unit: &'static str,
    bar: ProgressBar,
    /// No terminal: lines instead of the bar.
    lines: Option<Mutex<Instant>>,
    began: Instant,
}

impl Progress {
    /// Begins: `what` is done ("backfill of profiles"), counted in `unit` ("rows"), of `total` if that is known.
    pub fn start(what: &str, unit: &'static str, total: Option<u64>) -> Self {
        let bar = match total {
            Some(total) => ProgressBar::new(total),
            None => ProgressBar::no_length(),
        };
        let is_terminal = std::io::stderr().is_terminal();
        let target = match is_terminal {
            true => ProgressDrawTarget::stderr_with_hz(DRAWN_PER_S),
            false => ProgressDrawTarget::hidden(),
        };
        bar.set_draw_target(target);
        bar.set_style(style(unit, total.is_some()));
        bar.set_message(what.to_owned());
        let began = Instant::now();
        let lines = (!is_terminal).then(|| Mutex::new(began));
        Self { shared: Arc::new(Shared { what: what.to_owned(), unit, bar, lines, began }) }
    }

    /// So many more are done.
    pub fn add(&self, done: u64) {
        self.shared.bar.inc(done);
        let Some(last) = &self.shared.lines else { return };
        let is_due = {
            let (mut last, now) = (last.lock(), Instant::now());
            let is_due = now.duration_since(*last) >= LINE_INTERVAL;
            if is_due {
                *last = now;
            }
            is_due
        };
        if is_due {
            self.shared.line();
        }
    }

    /// It is known by now how many there are.
    pub fn set_total(&self, total: u64) {
        self.shared.bar.set_length(total);
        self.shared.bar.set_style(style(self.shared.unit, true));
    }

    /// How many are done.
    pub fn done(&self) -> u64 {
        self.shared.bar.position()
    }

    /// Since it began.
    pub fn elapsed(&self) -> Duration {
        self.shared.began.elapsed()
    }

    /// How many were done in a second, on average.
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    pub fn per_s(&self) -> f64 {
        self.done() as f64 / self.elapsed().as_secs_f64().max(0.001)
    }

    /// Says something, above the bar.
    pub fn note(&self, text: &str) {
        match &self.shared.lines {
            None => self.shared.bar.println(plain(text)),
            Some(_) => say(text),
        }
    }

    /// The end: the bar goes, the report says what there is to say.
    pub fn finish(&self) {
        self.shared.bar.finish_and_clear();
    }
}

impl Shared {
    fn line(&self) {
        let done = self.bar.position();
        let elapsed = self.began.elapsed();
        say(&line(&self.what, self.unit, done, self.bar.length(), elapsed));
    }
}

/// A line on how far it is.
#[expect(clippy::cast_precision_loss, reason = "a rate for people")]
fn line(what: &str, unit: &str, done: u64, total: Option<u64>, elapsed: Duration) -> String {
    let per_s = done as f64 / elapsed.as_secs_f64().max(0.001);
    let of = total.map_or_else(String::new, |total| format!(" of {total}"));
    let left = total.filter(|_| done > 0).map_or_else(String::new, |total| {
        format!(", about {:.0} s left", total.saturating_sub(done) as f64 / per_s)
    });
    format!("{what}: {done}{of} {unit}, {per_s:.0}/s{left}")
}

#[expect(clippy::print_stderr, reason = "how far a command is, for whoever started it")]
fn say(text: &str) {
    eprintln!("{}", plain(text));
}

fn style(unit: &str, has_total: bool) -> ProgressStyle {
    let template = match has_total {
        true => format!(
            "{{msg}} {{wide_bar}} {{percent}}% {{human_pos}}/{{human_len}} {unit}, {{per_sec}}, {{eta}} left"
        ),
        false => format!("{{msg}} {{spinner}} {{human_pos}} {unit}, {{per_sec}}, {{elapsed}}"),
    };
    ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_far_how_fast_and_how_long_it_takes() {
        let ten = Duration::from_secs(10);
        assert_eq!(
            line("backfill", "rows", 1_000, Some(5_000), ten),
            "backfill: 1000 of 5000 rows, 100/s, about 40 s left"
        );
        assert_eq!(line("replay", "records", 50, None, ten), "replay: 50 records, 5/s");
        assert_eq!(line("replay", "records", 0, Some(9), Duration::ZERO), "replay: 0 of 9 records, 0/s");
    }

    #[test]
    fn templates_are_understood_and_counts_are_kept() {
        for total in [None, Some(10)] {
            let progress = Progress::start("test", "rows", total);
            progress.add(4);
            progress.clone().add(3);
            progress.set_total(7);
            assert_eq!(progress.done(), 7);
            progress.note("half");
            progress.finish();
        }
        assert!(
            ProgressStyle::with_template("{msg} {wide_bar} {percent}% {human_pos} {per_sec} {eta}").is_ok()
        );
    }
}
