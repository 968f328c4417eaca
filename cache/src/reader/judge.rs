//! What an entry means to a reader. Pure: a function of its bytes, the watermark and `now`.

use std::time::Duration;

use bytes::{Buf as _, Bytes};
use warmcast_proto::entry::EntryKind;

use super::{
    answer::{Answer, Row},
    glance::glance,
};

/// The longest hold that is believed: fills hold for seconds. A clock that is wrong by hours must not have readers
/// wait for a fill that has long been given up.
const HOLD_MAX: Duration = Duration::from_mins(1);

/// What the cache says of an item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Known(Known),
    Miss(Miss),
}

/// What can be answered, and kept for a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    Item(Row),
    /// There is none; if it says so, until then.
    Absent {
        until_ms: Option<u64>,
    },
}

/// Why nothing can be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Miss {
    /// Nothing is known.
    Unknown,
    /// Nothing is known, and somebody is filling it.
    BeingFilled,
    /// The value is no entry of this version: no fill would be taken.
    Foreign,
}

/// Reads what the server had under a key.
pub(crate) fn see(entry: Option<Bytes>, now_ms: u64) -> Seen {
    let Some(mut entry) = entry else { return Seen::Miss(Miss::Unknown) };
    let Some(header) = glance(&entry) else { return Seen::Miss(Miss::Foreign) };
    match header.kind {
        EntryKind::Live | EntryKind::Filled => {
            // No copy, and no further owner of the bytes.
            entry.advance(header.header_len);
            let row = Row { payload: entry, time_ms: header.time_ms, expires_ms: header.expires_ms };
            Seen::Known(Known::Item(row))
        }
        EntryKind::Tombstone => Seen::Known(Known::Absent { until_ms: None }),
        EntryKind::Negative if header.expires_ms.is_some_and(|expires_ms| expires_ms <= now_ms) => {
            Seen::Miss(Miss::Unknown)
        }
        EntryKind::Negative => Seen::Known(Known::Absent { until_ms: header.expires_ms }),
        EntryKind::Invalid => Seen::Miss(Miss::Unknown),
        EntryKind::Held => {
            let hold_max_ms = u64::try_from(HOLD_MAX.as_millis()).unwrap_or(u64::MAX);
            let is_held = (now_ms..now_ms.saturating_add(hold_max_ms)).contains(&header.time_ms);
            Seen::Miss(if is_held { Miss::BeingFilled } else { Miss::Unknown })
        }
    }
}

impl Known {
    /// The answer at `now_ms`, for what reflects every change made before `as_of_ms`; nothing if it is no longer
    /// believed.
    pub(crate) fn answer(
        self,
        as_of_ms: u64,
        staleness_max: Option<Duration>,
        now_ms: u64,
    ) -> Option<Answer> {
        let is_past = |time_ms: Option<u64>| time_ms.is_some_and(|time_ms| time_ms <= now_ms);
        match self {
            Self::Absent { until_ms } => (!is_past(until_ms)).then_some(Answer::Absent),
            Self::Item(row) if is_past(row.expires_ms) => Some(Answer::Absent),
            Self::Item(row) => {
                // At its own time the item was this, whatever the watermark says.
                let lag = Duration::from_millis(now_ms.saturating_sub(as_of_ms.max(row.time_ms)));
                let is_fresh = staleness_max.is_none_or(|staleness_max| lag <= staleness_max);
                Some(if is_fresh { Answer::Fresh(row) } else { Answer::Stale(row, lag) })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use warmcast_proto::{entry::EntryHeader, position::Position};

    use super::*;

    const NOW_MS: u64 = 1_784_000_000_000;

    fn entry(kind: EntryKind, time_ms: u64, expires_ms: Option<u64>) -> Option<Bytes> {
        let header = match expires_ms {
            None => EntryHeader::new(kind, Position::ZERO, time_ms),
            Some(expires_ms) => EntryHeader::expiring(kind, Position::ZERO, time_ms, expires_ms),
        };
        Some([header.unwrap().encode().as_ref(), b"payload"].concat().into())
    }

    fn answer(entry: Option<Bytes>, as_of_ms: u64) -> Option<Answer> {
        match see(entry, NOW_MS) {
            Seen::Known(known) => known.answer(as_of_ms, Some(Duration::from_secs(10)), NOW_MS),
            Seen::Miss(_) => None,
        }
    }

    #[test]
    fn items_are_fresh_or_stale_by_the_watermark_and_their_own_time() {
        let lag_of = |as_of_ms, time_ms| match answer(entry(EntryKind::Live, time_ms, None), as_of_ms) {
            Some(Answer::Fresh(row)) => {
                assert_eq!((&row.payload[..], row.time_ms), (&b"payload"[..], time_ms));
                None
            }
            Some(Answer::Stale(_, lag)) => Some(lag.as_millis()),
            other => panic!("{other:?}"),
        };
        assert_eq!(lag_of(NOW_MS - 10_000, 0), None);
        assert_eq!(lag_of(NOW_MS - 10_001, 0), Some(10_001));
        assert_eq!(lag_of(NOW_MS - 20_000, NOW_MS - 5_000), None, "five seconds ago it was this");
        assert_eq!(lag_of(0, NOW_MS - 60_000), Some(60_000), "no watermark was ever read");
        assert_eq!(lag_of(NOW_MS + 5_000, 0), None, "the master's clock is ahead");
    }

    #[test]
    fn an_item_past_its_expiry_is_absent_and_a_negative_entry_past_it_is_a_miss() {
        for kind in [EntryKind::Live, EntryKind::Filled] {
            assert!(matches!(answer(entry(kind, 0, Some(NOW_MS + 1)), NOW_MS), Some(Answer::Fresh(_))));
            assert_eq!(answer(entry(kind, 0, Some(NOW_MS)), NOW_MS), Some(Answer::Absent));
        }
        assert_eq!(answer(entry(EntryKind::Negative, 0, Some(NOW_MS + 1)), NOW_MS), Some(Answer::Absent));
        assert_eq!(see(entry(EntryKind::Negative, 0, Some(NOW_MS)), NOW_MS), Seen::Miss(Miss::Unknown));
        // Kept for a moment, it is judged again.
        assert_eq!(Known::Absent { until_ms: Some(NOW_MS) }.answer(NOW_MS, None, NOW_MS), None);
        assert_eq!(answer(entry(EntryKind::Tombstone, 0, None), 0), Some(Answer::Absent));
    }

    #[test]
    fn a_hold_counts_until_its_deadline_if_that_is_believable() {
        let seen = |until_ms| see(entry(EntryKind::Held, until_ms, None), NOW_MS);
        assert_eq!(seen(NOW_MS + 3_000), Seen::Miss(Miss::BeingFilled));
        assert_eq!(seen(NOW_MS - 1), Seen::Miss(Miss::Unknown));
        assert_eq!(seen(NOW_MS + 3_600_000), Seen::Miss(Miss::Unknown));
    }

    #[test]
    fn what_is_no_entry_is_a_miss() {
        assert_eq!(see(None, NOW_MS), Seen::Miss(Miss::Unknown));
        assert_eq!(see(entry(EntryKind::Invalid, 0, None), NOW_MS), Seen::Miss(Miss::Unknown));
        for foreign in ["", "text", "2l000000000000000000000000000000000000000000000"] {
            assert_eq!(see(Some(foreign.into()), NOW_MS), Seen::Miss(Miss::Foreign), "{foreign}");
        }
    }
}
