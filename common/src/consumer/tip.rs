//! Whether a reader has come to the end of what a shard has so far. Pure.

use crate::limits::TIP_EMPTY_READS_MIN;

use super::source::Page;

/// Whether the reader has come to the end of what a shard has so far.
#[derive(Debug, Default)]
pub(super) struct Tip {
    empty_reads: u32,
}

impl Tip {
    /// Whether there was no more than this page. A service that does not tell may answer with an empty page on the
    /// way. The end of a closed shard is no tip: its children go on, nobody knows since when.
    pub(super) fn is_found<R>(&mut self, page: &Page<R>) -> bool {
        self.empty_reads = if page.records.is_empty() { self.empty_reads.saturating_add(1) } else { 0 };
        let is_up_to_it = match page.behind {
            Some(behind) => behind.is_zero(),
            None => self.empty_reads >= TIP_EMPTY_READS_MIN,
        };
        is_up_to_it && page.next.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::super::source::SourceRecord;
    use super::*;
    use std::time::Duration;

    fn page(records: usize, behind_ms: Option<u64>, next: Option<&str>) -> Page<()> {
        let record = || SourceRecord { sequence: None, created_ms: 1, bytes: 0, body: () };
        Page {
            records: (0..records).map(|_| record()).collect(),
            next: next.map(str::to_owned),
            children: Vec::new(),
            behind: behind_ms.map(Duration::from_millis),
        }
    }

    #[test]
    fn a_source_that_does_not_tell_is_believed_to_be_at_its_tip_after_several_empty_pages() {
        let mut tip = Tip::default();
        let mut found = |records| tip.is_found(&page(records, None, Some("next")));
        assert_eq!([found(0), found(0), found(0), found(0)], [false, false, true, true]);
        assert_eq!([found(1), found(0), found(0), found(0)], [false, false, false, true]);
    }

    #[test]
    fn a_source_that_tells_is_believed_and_the_end_of_a_shard_is_no_tip() {
        let mut tip = Tip::default();
        assert!(tip.is_found(&page(3, Some(0), Some("next"))));
        for _ in 0..2 * TIP_EMPTY_READS_MIN {
            assert!(!tip.is_found(&page(0, Some(7), Some("next"))), "there is more");
            assert!(!tip.is_found(&page(0, Some(0), None)), "the shard is closed");
        }
    }
}
