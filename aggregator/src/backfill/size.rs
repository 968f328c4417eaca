//! How many rows a page may have: so few that they are in the regions' streams while they are young. Pure.

use std::num::NonZeroU64;
use std::time::Duration;

/// A page must be in every region's stream so soon after its read began. It is believed there for 30 s
/// (docs/cache-protocol.md, rule 8), and the cache-writer needs its share.
pub(super) const SENT_WITHIN: Duration = Duration::from_secs(10);

/// What DynamoDB answers at most (AWS: Scan, 1 MB).
const PAGE_BYTES_MAX: u64 = 1 << 20;
/// A page is planned to be sent in so many seconds, at the rate that its regions are allowed, beside all the others.
const PLANNED_S: u64 = 2;
/// The most rows of a page: what is made of them is in memory at once.
const ROWS_MAX: u64 = 10_000;
/// What a row is taken for before one was seen.
const ROW_BYTES: u64 = 1_024;
/// After a page that came too late, the next have this much of what they had, down to [`SHARE_MIN`].
const SLOWER: f64 = 0.5;
/// After one that came in time, this much more, up to all.
const FASTER: f64 = 1.25;
const SHARE_MIN: f64 = 1.0 / 1_024.0;

/// How many rows the next page may have.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct PageSize {
    bytes_max: u64,
    row_bytes: u64,
    share: f64,
}

impl PageSize {
    /// With `parts` at a time that share `bytes_per_s` to a region; rows of `row_bytes` each, if that is known.
    pub(super) fn new(bytes_per_s: Option<NonZeroU64>, parts: u64, row_bytes: Option<u64>) -> Self {
        let planned = bytes_per_s.map_or(PAGE_BYTES_MAX, |per_s| per_s.get() * PLANNED_S / parts.max(1));
        Self {
            bytes_max: planned.clamp(1, PAGE_BYTES_MAX),
            row_bytes: row_bytes.filter(|&bytes| bytes > 0).unwrap_or(ROW_BYTES),
            share: 1.0,
        }
    }

    /// Rows of the next page, at least one.
    pub(super) fn rows(&self) -> usize {
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a bound that need not be exact, between 0 and 1 MiB"
        )]
        let bytes = (self.bytes_max as f64 * self.share) as u64;
        usize::try_from((bytes / self.row_bytes).clamp(1, ROWS_MAX)).unwrap_or(1)
    }

    /// A page of so many rows, and bytes in all, was sent in time.
    pub(super) fn in_time(&mut self, rows: u64, bytes: u64) {
        if let Some(row_bytes) = bytes.checked_div(rows).filter(|&bytes| bytes > 0) {
            // The mean of what was known and what was seen: pages differ.
            self.row_bytes = self.row_bytes.midpoint(row_bytes);
        }
        self.share = (self.share * FASTER).min(1.0);
    }

    /// A page was not sent in time.
    pub(super) fn too_late(&mut self) {
        self.share = (self.share * SLOWER).max(SHARE_MIN);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_page_has_rows_and_no_more_than_are_sent_in_time(
            per_s in prop::option::of(1u64..1 << 30),
            parts in 1u64..100,
            steps in prop::collection::vec((any::<bool>(), 1u64..5_000, 1u64..400_000), 0..50),
        ) {
            let mut size = PageSize::new(per_s.and_then(NonZeroU64::new), parts, Some(500));
            for (in_time, rows, row_bytes) in steps {
                let before = size;
                prop_assert!((1..=10_000).contains(&size.rows()));
                let planned = size.rows() as u64 * size.row_bytes;
                prop_assert!(size.rows() == 1 || planned <= PAGE_BYTES_MAX);
                if let Some(per_s) = per_s.filter(|_| size.rows() > 1) {
                    prop_assert!(planned * parts <= per_s * PLANNED_S);
                }
                if in_time {
                    size.in_time(rows, rows * row_bytes);
                    prop_assert!(size.share >= before.share);
                } else {
                    size.too_late();
                    prop_assert!(size.rows() <= before.rows());
                }
            }
        }
    }

    #[test]
    fn it_gets_over_a_slow_region() {
        let mut size = PageSize::new(None, 4, None);
        let at_first = size.rows();
        assert_eq!(at_first, 1_024);
        (0..20).for_each(|_| size.too_late());
        assert_eq!(size.rows(), 1);
        (0..40).for_each(|_| size.in_time(10, 10_240));
        assert_eq!(size.rows(), at_first);
        size.in_time(0, 0);
        assert_eq!(size.rows(), at_first, "an empty page tells nothing of rows");
    }
}
