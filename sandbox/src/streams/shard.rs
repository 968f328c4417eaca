//! One shard: its records, where it begins and ends, and what has aged out of it.

use std::collections::VecDeque;
use std::sync::Arc;

use super::reads::ReadLog;
use super::record::{Sequence, StoredRecord};

/// How long records are kept (AWS: 24 hours).
pub(super) const RETENTION_MS: u64 = 24 * 60 * 60 * 1000;

/// What one read may return (AWS: GetRecords, 1,000 records or 1 MB).
const PAGE_BYTES_MAX: usize = 1 << 20;

/// The place of a shard in its stream's list of shards.
pub(super) type ShardIndex = usize;

#[derive(Debug)]
pub(super) struct Shard {
    pub(super) id: Arc<str>,
    /// The API has room for one parent only.
    pub(super) parent: Option<Arc<str>>,
    pub(super) children: Vec<ShardIndex>,
    pub(super) start: Sequence,
    /// Present once the shard is closed.
    pub(super) end: Option<Sequence>,
    /// Ascending.
    records: VecDeque<StoredRecord>,
    /// The highest sequence number that has aged out, 0 when none has.
    trimmed_to: Sequence,
    /// Most shards of a large stream are never read: the log comes with the first read.
    pub(super) reads: Option<Box<ReadLog>>,
}

/// What a read found.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) records: Vec<StoredRecord>,
    /// Where the next read starts; `None` at the end of a closed shard.
    pub(super) next: Option<Sequence>,
}

/// The records at a position are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Trimmed;

/// Why a sequence number is no position in a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoPosition {
    /// The records there are gone.
    Trimmed,
    /// The shard begins after it.
    NotOfShard,
}

impl Shard {
    pub(super) fn new(id: Arc<str>, parent: Option<Arc<str>>, start: Sequence) -> Self {
        Self {
            id,
            parent,
            children: Vec::new(),
            start,
            end: None,
            records: VecDeque::new(),
            trimmed_to: 0,
            reads: None,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.end.is_none()
    }

    pub(super) fn push(&mut self, record: StoredRecord) {
        self.records.push_back(record);
    }

    /// The highest sequence number in use.
    pub(super) fn last_sequence(&self) -> Sequence {
        self.records.back().map_or_else(|| self.start.max(self.trimmed_to), |record| record.sequence)
    }

    /// Removes the records older than the retention.
    pub(super) fn expire(&mut self, now_ms: u64) {
        while let Some(oldest) = self.records.front()
            && oldest.created_ms.saturating_add(RETENTION_MS) <= now_ms
        {
            self.trimmed_to = oldest.sequence;
            self.records.pop_front();
        }
    }

    /// Removes all records as if they had aged out.
    pub(super) fn trim(&mut self) {
        if let Some(last) = self.records.back() {
            self.trimmed_to = last.sequence;
        }
        self.records.clear();
    }

    /// Where the oldest record is, or would be.
    pub(super) fn horizon(&self) -> Sequence {
        self.start.max(self.trimmed_to.saturating_add(1))
    }

    /// A position at `sequence`. One behind the last record is a position, too: its record may come.
    pub(super) fn position_at(&self, sequence: Sequence) -> Result<Sequence, NoPosition> {
        if sequence < self.start {
            return Err(NoPosition::NotOfShard);
        }
        if sequence <= self.trimmed_to { Err(NoPosition::Trimmed) } else { Ok(sequence) }
    }

    /// The position of the first record made at `at_ms` or later; behind the last record if there is none.
    pub(super) fn position_at_time(&self, at_ms: u64) -> Sequence {
        // Compared as the service tells it, in whole seconds.
        let from = self.records.iter().find(|record| record.created_ms / 1000 * 1000 >= at_ms);
        from.map_or_else(|| self.last_sequence().saturating_add(1), |record| record.sequence)
    }

    /// Up to `limit` records from `position` on.
    pub(super) fn read(&self, position: Sequence, limit: usize) -> Result<Page, Trimmed> {
        if position <= self.trimmed_to {
            return Err(Trimmed);
        }
        let from = self.records.partition_point(|record| record.sequence < position);
        let mut bytes = 0;
        let mut records = Vec::with_capacity(limit.min(self.records.len() - from));
        for record in self.records.range(from..).take(limit) {
            bytes += record.json.len();
            if bytes > PAGE_BYTES_MAX && !records.is_empty() {
                break;
            }
            records.push(record.clone());
        }
        let at_end = from + records.len() == self.records.len();
        let next = records.last().map_or(position, |last: &StoredRecord| last.sequence.saturating_add(1));
        Ok(Page { records, next: (self.is_open() || !at_end).then_some(next) })
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::super::record::{Record, item};
    use super::*;

    fn shard(records: u128) -> Shard {
        let mut shard = Shard::new("shardId-00000000000000000000-00000000".into(), None, 100);
        for n in 1..=records {
            let created_ms = u64::try_from(n).unwrap() * 1_000;
            shard.push(Record::insert("{}", "{}").store(100 + n * 10, created_ms, "r", &mut BytesMut::new()));
        }
        shard
    }

    fn sequences(shard: &Shard, position: Sequence, limit: usize) -> Vec<Sequence> {
        shard.read(position, limit).unwrap().records.iter().map(|record| record.sequence).collect()
    }

    #[test]
    fn pages_follow_each_other_without_gap_or_repetition() {
        let shard = shard(5);
        assert_eq!(sequences(&shard, shard.horizon(), 2), [110, 120]);
        let next = shard.read(shard.horizon(), 2).unwrap().next;
        assert_eq!(sequences(&shard, next.unwrap(), 10), [130, 140, 150]);
    }

    #[test]
    fn an_open_shard_has_a_next_position_at_its_end_and_a_closed_one_has_not() {
        let mut shard = shard(2);
        let page = shard.read(121, 10).unwrap();
        assert!(page.records.is_empty());
        assert_eq!(page.next, Some(121));
        shard.end = Some(shard.last_sequence());
        assert_eq!(shard.read(111, 10).unwrap().next, None);
        assert_eq!(shard.read(110, 1).unwrap().next, Some(111));
    }

    #[test]
    fn aged_records_go_and_positions_before_them_are_refused() {
        let mut shard = shard(3);
        shard.expire(2_000 + RETENTION_MS);
        assert_eq!(sequences(&shard, shard.horizon(), 10), [130]);
        assert_eq!(shard.read(120, 10).unwrap_err(), Trimmed);
        assert_eq!(shard.position_at(120), Err(NoPosition::Trimmed));
        assert_eq!(shard.position_at(99), Err(NoPosition::NotOfShard));
        // What comes after the last one that went is still there.
        assert_eq!(shard.position_at(121), Ok(121));
    }

    #[test]
    fn a_page_holds_a_megabyte_and_at_least_one_record() {
        let mut shard = shard(0);
        for n in 0..4 {
            let record = item(n, 400 << 10);
            shard.push(record.store(200 + u128::from(n), 0, "r", &mut BytesMut::new()));
        }
        shard.push(item(9, 2 << 20).store(300, 0, "r", &mut BytesMut::new()));
        assert_eq!(sequences(&shard, 200, 1_000), [200, 201]);
        assert_eq!(sequences(&shard, 300, 1_000), [300]);
    }

    #[test]
    fn a_position_by_time_is_that_of_the_first_record_not_older() {
        let shard = shard(3);
        assert_eq!(shard.position_at_time(2_000), 120);
        assert_eq!(shard.position_at_time(2_001), 130);
        assert_eq!(shard.position_at_time(9_000), 131);
    }
}
