//! What it comes to, in words. Pure.

use serde::Serialize;
use warmcast_cache::TablePolicy;
use warmcast_cache::policy::WritePolicy;
use warmcast_common::tool::Moment;
use warmcast_proto::entry::{EntryHeader, EntryKind};
use warmcast_proto::position::Position;

use super::{Cached, Judged, Row, Watched, header};
use crate::verify::judge::{Difference, Miss};

/// What a key comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Conclusion {
    /// Readers see what the master has.
    Consistent,
    /// Readers see nothing, and ask the master: always safe.
    Miss,
    /// Readers see something else, and the region is behind: the change may be on its way.
    Behind,
    /// Readers see something else, and nothing on its way explains it.
    Wrong,
    /// There is no master to compare with, or it could not be read.
    NotCompared,
}

/// The verdict on a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it comes to.
    pub verdict: Conclusion,
    /// Why, in words.
    pub why: String,
    /// How far the region is behind, if it matters and is known.
    pub behind_ms: Option<u64>,
}

impl Finding {
    pub(super) fn of(watched: &Watched, policy: &TablePolicy) -> Self {
        let finding = |verdict, why: String| Self { verdict, why, behind_ms: None };
        let header = header(watched.cached.value.as_ref());
        match &watched.judged {
            Judged::NotCompared => finding(
                Conclusion::NotCompared,
                match &watched.row {
                    Row::Unreadable(error) => format!("the master could not be read: {error}"),
                    Row::NotConfigured | Row::Read(_) => {
                        "no [master] is configured: what readers see is not compared with anything".to_owned()
                    }
                },
            ),
            Judged::Consistent => {
                let caught_up = match watched.for_ms {
                    0..1_000 => String::new(),
                    ms => format!("; a change was on its way at the first look, {:.1} s ago", seconds(ms)),
                };
                finding(Conclusion::Consistent, format!("{}{caught_up}", consistent(header)))
            }
            Judged::Missing(miss) => finding(Conclusion::Miss, missing(*miss, header, policy)),
            Judged::Wrong(difference) => {
                finding(Conclusion::Wrong, wrong(difference, &watched.cached, header))
            }
            Judged::Behind(difference) => {
                let lag = watched.cached.lag_ms();
                Self { behind_ms: lag, ..finding(Conclusion::Behind, behind(difference, lag)) }
            }
        }
    }
}

impl Cached {
    pub(super) fn lag_ms(&self) -> Option<u64> {
        self.watermark_ms.map(|watermark_ms| self.at_ms.saturating_sub(watermark_ms))
    }
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
pub(super) fn seconds(ms: u64) -> f64 {
    ms as f64 / 1_000.0
}

fn consistent(header: Option<EntryHeader>) -> String {
    match header.map(EntryHeader::kind) {
        None => "there is no such item in the master, and no entry".to_owned(),
        Some(EntryKind::Tombstone | EntryKind::Negative) => {
            "readers see that there is no such item, and the master has none".to_owned()
        }
        Some(_) => "readers see what the master has".to_owned(),
    }
}

/// Why readers see nothing, and what will change that.
fn missing(miss: Miss, header: Option<EntryHeader>, policy: &TablePolicy) -> String {
    let time = header.map_or_else(String::new, |header| Moment::at_ms(header.time_ms()).to_string());
    match (miss, policy.write) {
        (Miss::Unset, WritePolicy::Present) => {
            "there is no entry: the table caches what is read (write = present), and nobody has read it lately"
                .to_owned()
        }
        (Miss::Unset, WritePolicy::All) => "there is no entry: the item has not changed since the cache was filled, its entry \
             was evicted or has expired, or its last change was left absent because it could not be proven to be news; \
             the next change or reader brings it"
            .to_owned(),
        (Miss::Invalid, _) => format!(
            "the entry is invalid since {time}: a change came without the item, or late, or could not be used; the next \
             change, or reader with the master, brings it"
        ),
        (Miss::Held, _) => format!("somebody is filling it from the master, until {time} at the latest"),
        (Miss::NotSent, _) => "the entry says that there is no such item: the region is sent only some of the items, and \
             this one, as it is now, may not be one of them (verify.filtered)"
            .to_owned(),
        (Miss::Outlived, _) => format!(
            "a fill found nothing at {time}, which is believed no longer; the next change, or reader with the master, \
             brings it"
        ),
    }
}

fn wrong(difference: &Difference, cached: &Cached, header: Option<EntryHeader>) -> String {
    if let Difference::Foreign(_) = difference {
        return format!(
            "{difference}: readers miss, and changes of this item become dead letters; is the key prefix shared with \
             others? Delete it"
        );
    }
    let applied = match cached.watermark_ms {
        Some(ms) => format!(
            "every change made before {} is applied, so none on its way explains it",
            Moment::at_ms(ms)
        ),
        None => "no change on its way explains it".to_owned(),
    };
    let kind = match (difference, header) {
        (Difference::NotDeleted, Some(header)) => {
            format!(
                "the row was deleted and is back, or never was in the master: it stands {}",
                place(header)
            )
        }
        (Difference::NotThere, Some(header)) => {
            format!("the master has the row, and the entry denies it {}", place(header))
        }
        (_, Some(header)) => {
            format!("another state of the row, an older one most likely, stands {}", place(header))
        }
        (_, None) => String::new(),
    };
    format!(
        "{difference}; {kind}; {applied}. The stream mends it only with the row's next change; `verify --key ... --repair` \
         mends it now"
    )
}

/// Where an entry stands against changes to come.
fn place(header: EntryHeader) -> String {
    let by = match header.kind() {
        EntryKind::Filled | EntryKind::Negative => "by a fill",
        _ => "by the stream",
    };
    match header.position() {
        Position::ZERO => format!("{by}, without a position"),
        position => format!(
            "{by}, under position {}:{}, which no change up to there replaces",
            position.generation(),
            position.sequence()
        ),
    }
}

fn behind(difference: &Difference, lag_ms: Option<u64>) -> String {
    let region = match lag_ms {
        Some(ms) => format!("the region is {:.1} s behind", seconds(ms)),
        None => "the region has no watermark, so that nothing is known of what is on its way".to_owned(),
    };
    format!("{difference}; {region}: the change may be on its way. Look again, with a longer --wait")
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use warmcast_cache::read::Stay;

    const NOW_MS: u64 = 1_795_341_600_000;

    fn cached(kind: Option<EntryKind>, position: Position) -> Cached {
        let header = kind.map(|kind| match kind {
            EntryKind::Negative => EntryHeader::expiring(kind, position, NOW_MS - 5_000, NOW_MS).unwrap(),
            _ => EntryHeader::new(kind, position, NOW_MS - 5_000).unwrap(),
        });
        let value = header.map(|header| Bytes::copy_from_slice(header.encode().as_ref()));
        Cached { at_ms: NOW_MS, stay: Some(Stay::Gone), value, watermark_ms: Some(NOW_MS - 1_500) }
    }

    fn finding(cached: Cached, judged: Judged) -> Finding {
        Finding::of(&Watched { cached, row: Row::NotConfigured, judged, for_ms: 0 }, &TablePolicy::default())
    }

    #[test]
    fn a_wrong_entry_is_told_with_where_it_stands_and_why_nothing_mends_it() {
        let position = Position::new(1, "17".parse().unwrap()).unwrap();
        let live = cached(Some(EntryKind::Live), position);
        let old = finding(live.clone(), Judged::Wrong(Difference::Attributes(vec!["color".to_owned()])));
        assert_eq!(old.verdict, Conclusion::Wrong);
        for part in [
            "attributes differ: color",
            "an older one most likely",
            "under position 1:17",
            "2026-11-22T09:59:58.500Z",
        ] {
            assert!(old.why.contains(part), "{}", old.why);
        }
        let back = finding(live, Judged::Wrong(Difference::NotDeleted)).why;
        assert!(back.contains("the row was deleted and is back"), "{back}");
        let filled = cached(Some(EntryKind::Negative), Position::ZERO);
        let denied = finding(filled, Judged::Wrong(Difference::NotThere)).why;
        assert!(denied.contains("the entry denies it by a fill, without a position"), "{denied}");
    }

    #[test]
    fn a_region_that_is_behind_is_told_with_by_how_much() {
        let mut live = cached(Some(EntryKind::Live), Position::ZERO);
        let found = finding(live.clone(), Judged::Behind(Difference::NotThere));
        assert_eq!((found.verdict, found.behind_ms), (Conclusion::Behind, Some(1_500)));
        assert!(found.why.contains("1.5 s behind"), "{}", found.why);
        live.watermark_ms = None;
        let found = finding(live, Judged::Behind(Difference::NotThere));
        assert!(found.behind_ms.is_none() && found.why.contains("no watermark"), "{}", found.why);
    }

    #[test]
    fn each_miss_says_why_and_what_ends_it() {
        let why = |kind, miss| finding(cached(kind, Position::ZERO), Judged::Missing(miss)).why;
        assert!(why(None, Miss::Unset).contains("there is no entry"));
        let time = "2026-11-22T09:59:55.000Z";
        for (kind, miss) in [
            (EntryKind::Invalid, Miss::Invalid),
            (EntryKind::Held, Miss::Held),
            (EntryKind::Negative, Miss::Outlived),
        ] {
            let why = why(Some(kind), miss);
            assert!(why.contains(time), "{why}");
        }
    }
}
