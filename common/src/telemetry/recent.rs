//! The latest warnings and errors of this process, for whoever looks at it: its admin page shows them.
//!
//! What repeats is one line with a count. Bounded in lines and in bytes, whatever is logged.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;
use serde_json::{Map, Value};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::fields::Fields;
use crate::clock::now_ms;

/// Lines that are kept.
const LINES_MAX: usize = 100;
/// Bytes of one text of a line, its message or a field.
const TEXT_BYTES_MAX: usize = 512;
/// Fields of a line that are kept.
const FIELDS_MAX: usize = 16;
/// Fields that tell what a line is about: lines that differ in them are no repeats of each other. What the others have
/// (errors, counts, pauses) is that of the last time.
const SUBJECTS: [&str; 8] =
    ["region", "table", "stream", "shard", "worker", "address", "letter", "operation"];

/// The latest warnings and errors. Clones are the same ones.
#[derive(Clone, Debug, Default)]
pub struct Recent(Arc<Mutex<VecDeque<RecentLine>>>);

/// A warning or an error, with how often it came.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RecentLine {
    /// When it came first: milliseconds since the Unix epoch.
    pub first_ms: u64,
    /// When it came last.
    pub last_ms: u64,
    /// How often it came.
    pub count: u64,
    /// `WARN` or `ERROR`.
    pub level: &'static str,
    /// The module that says it.
    pub target: &'static str,
    /// What it says.
    pub message: String,
    /// Its fields, as they were the last time. Texts are cut to 512 bytes.
    pub fields: Map<String, Value>,
}

impl Recent {
    /// The lines, the one that came last first.
    #[must_use]
    pub fn lines(&self) -> Vec<RecentLine> {
        self.0.lock().iter().rev().cloned().collect()
    }

    /// What takes them in, as a part of a subscriber.
    pub fn layer<S: Subscriber + for<'a> LookupSpan<'a>>(&self) -> impl Layer<S> + use<S> {
        TakeIn(self.clone()).with_filter(LevelFilter::WARN)
    }

    fn take_in(&self, line: RecentLine) {
        let mut lines = self.0.lock();
        let before =
            lines.iter().position(|known| known.is_same(&line)).and_then(|index| lines.remove(index));
        if lines.len() >= LINES_MAX {
            lines.pop_front();
        }
        lines.push_back(match before {
            Some(RecentLine { first_ms, count, .. }) => RecentLine { first_ms, count: count + 1, ..line },
            None => line,
        });
    }
}

impl RecentLine {
    fn is_same(&self, other: &Self) -> bool {
        (self.level, self.target) == (other.level, other.target)
            && self.message == other.message
            && SUBJECTS.iter().all(|subject| self.fields.get(*subject) == other.fields.get(*subject))
    }
}

/// Given every event of its level.
struct TakeIn(Recent);

impl<S: Subscriber> Layer<S> for TakeIn {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let metadata = event.metadata();
        let Fields { message, values, .. } = Fields::of(event, TEXT_BYTES_MAX);
        let at_ms = now_ms();
        self.0.take_in(RecentLine {
            first_ms: at_ms,
            last_ms: at_ms,
            count: 1,
            level: metadata.level().as_str(),
            target: metadata.target(),
            message,
            fields: values.into_iter().take(FIELDS_MAX).collect(),
        });
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    fn recent_of(log: impl FnOnce()) -> Vec<RecentLine> {
        let recent = Recent::default();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(recent.layer()), log);
        recent.lines()
    }

    #[test]
    fn warnings_and_errors_are_kept_the_latest_first_and_others_are_not() {
        let lines = recent_of(|| {
            tracing::warn!(region = "eu-west-1", pause_ms = 5_u128, "frames are sent again");
            tracing::info!("stats");
            tracing::error!(error = %"refused", "stopped by an error");
        });
        let said: Vec<_> = lines.iter().map(|line| (line.level, &*line.message)).collect();
        assert_eq!(said, [("ERROR", "stopped by an error"), ("WARN", "frames are sent again")]);
        assert_eq!(lines[1].fields, serde_json::from_str(r#"{"region":"eu-west-1","pause_ms":5}"#).unwrap());
        assert!(lines[0].target.ends_with("recent::tests") && lines[0].last_ms > 0);
    }

    #[test]
    fn repeats_are_one_line_for_each_subject_with_the_last_ones_fields() {
        let lines = recent_of(|| {
            for attempt in 0..3 {
                for region in ["a", "b"] {
                    tracing::warn!(region, attempt, "frames are sent again");
                }
            }
        });
        let said: Vec<_> = lines.iter().map(|line| (&line.fields["region"], line.count)).collect();
        assert_eq!(said, [(&"b".into(), 3), (&"a".into(), 3)]);
        assert!(lines.iter().all(|line| line.fields["attempt"] == 2));
    }

    #[test]
    fn however_much_is_logged_what_is_kept_is_bounded() {
        let long = "ü".repeat(100_000);
        let lines = recent_of(|| {
            (0..500).for_each(|shard| tracing::error!(shard, error = &*long, "{long}"));
        });
        assert_eq!(lines.len(), LINES_MAX);
        assert_eq!(lines[0].fields["shard"], 499);
        assert!(lines.iter().all(|line| serde_json::to_vec(line).unwrap().len() < 3 * TEXT_BYTES_MAX));
        assert!(lines[0].message.ends_with("ü…"));
    }
}
