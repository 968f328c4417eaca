//! Which of the backfills that were asked for a run has made. Pure.
//!
//! A backfill brings what a region lacks: rows land where nothing is. So a region that was new has everything when the
//! whole table was sent. One that lost changes (a gap) may have entries of before, which no row replaces: its backfill is
//! made only if its cache was emptied before. Somebody has to say so.

use std::collections::BTreeMap;

use warmcast_common::consumer::store::{Backfill, LaneState};

use super::report::Asked;

/// What a run did, as far as that matters here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Done {
    /// When it, or the run that it went on with, was begun: milliseconds since the epoch.
    pub(super) began_ms: u64,
    /// It went on with what a run before had done.
    pub(super) resumed: bool,
    /// The regions' caches were emptied of the tables before.
    pub(super) was_emptied: bool,
}

/// A backfill that the state table asks for, with its stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Open {
    pub(super) stream: String,
    pub(super) latest_ms: u64,
    pub(super) asked: Asked,
    pub(super) is_made: bool,
}

/// What was asked for `region` before the run (`before`) and still is (`now`), for each of the streams, which are of these
/// tables.
pub(super) fn open(
    region: &str,
    tables: &BTreeMap<String, String>,
    before: &LaneState,
    now: &LaneState,
    done: Done,
) -> Vec<Open> {
    let judge = |(stream, table): (&String, &String)| {
        let backfill = now.backfills.get(stream)?;
        let why = problem(before.backfills.get(stream), backfill, done);
        let is_made = why.is_none();
        let why = why.unwrap_or_else(|| backfill.why.clone());
        let asked = Asked { region: region.to_owned(), table: table.clone(), why };
        Some(Open { stream: stream.clone(), latest_ms: backfill.latest_ms, asked, is_made })
    };
    tables.iter().filter_map(judge).collect()
}

/// Why it is not made.
fn problem(before: Option<&Backfill>, now: &Backfill, done: Done) -> Option<String> {
    let again = "it was asked for after this one began; run it again";
    let is_older = !done.resumed || now.latest_ms < done.began_ms;
    if before.is_none_or(|before| before != now) || !is_older {
        return Some(format!("{again} ({})", now.why));
    }
    if now.is_of_new_lane() || done.was_emptied {
        return None;
    }
    Some(format!(
        "{}: entries of before may be stale, and rows land only where nothing is. Empty the region's cache of the \
         table on every primary and backfill with --was-emptied, or keep its readers away, say `aggregator regions \
         backfilled`, and mend it with `cache-writer verify --all --repair`",
        now.why
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks(stream: &str, asked_ms: u64, why: &str) -> LaneState {
        let backfill = Backfill { asked_ms, latest_ms: asked_ms, why: why.to_owned() };
        LaneState { backfills: [(stream.to_owned(), backfill)].into(), ..LaneState::default() }
    }

    fn shown(before: &LaneState, now: &LaneState, done: Done) -> Option<(bool, String)> {
        let tables = [("s".to_owned(), "profiles".to_owned()), ("other".to_owned(), "orders".to_owned())];
        let mut open = open("eu-west-1", &tables.into(), before, now, done);
        assert!(open.len() <= 1);
        open.pop().map(|open| {
            assert_eq!((&*open.stream, &*open.asked.table), ("s", "profiles"));
            (open.is_made, open.asked.why)
        })
    }

    const FRESH: Done = Done { began_ms: 10, resumed: false, was_emptied: false };

    #[test]
    fn a_new_region_has_everything_when_the_whole_table_was_sent() {
        let asked = asks("s", 5, "it is new");
        assert_eq!(shown(&asked, &asked, FRESH), Some((true, "it is new".to_owned())));
        let resumed = Done { resumed: true, ..FRESH };
        assert_eq!(shown(&asked, &asked, resumed).map(|of| of.0), Some(true));
        assert_eq!(shown(&asked, &LaneState::default(), FRESH), None, "somebody said so already");
        assert_eq!(shown(&asked, &asks("elsewhere", 5, "it is new"), FRESH), None);
    }

    #[test]
    fn what_was_asked_for_meanwhile_stays_asked_for() {
        let asked = asks("s", 15, "it is new");
        for (before, done) in [
            (LaneState::default(), FRESH),
            (asks("s", 5, "it is new"), FRESH),
            // Between the runs.
            (asked.clone(), Done { resumed: true, ..FRESH }),
        ] {
            let (is_made, why) = shown(&before, &asked, done).unwrap();
            assert!(!is_made && why.contains("run it again"), "{why}");
        }
    }

    #[test]
    fn a_gap_is_made_good_only_in_a_cache_that_was_emptied() {
        let gap = asks("s", 5, "records of shard 1 were trimmed after x");
        let (is_made, why) = shown(&gap, &gap, FRESH).unwrap();
        assert!(!is_made && why.contains("records of shard 1") && why.contains("--was-emptied"), "{why}");
        assert_eq!(shown(&gap, &gap, Done { was_emptied: true, ..FRESH }).map(|of| of.0), Some(true));
    }
}
