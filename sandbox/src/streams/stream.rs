//! One stream: its shards and their lineage, the sequence of its records, and what ages out of it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::BytesMut;

use super::quirks::Quirks;
use super::record::{self, Record, Sequence};
use super::shard::{RETENTION_MS, Shard, ShardIndex};

/// The service's numbers have gaps; so have ours.
const SEQUENCE_STEP: Sequence = 100;

/// Rollovers come about this often (AWS: seen every 4 hours, idle shards too).
const ROLLOVER_MS: u64 = 4 * 60 * 60 * 1000;

/// Records share allocations of about this size.
const BUFFER_BYTES: usize = 64 << 10;

#[derive(Debug)]
pub(super) struct Stream {
    pub(super) arn: Arc<str>,
    pub(super) table: String,
    pub(super) label: String,
    region: String,
    pub(super) created_ms: u64,
    /// Since when it is disabled.
    pub(super) disabled_ms: Option<u64>,
    shards: Vec<Shard>,
    /// Those that are still there, in the order of the listing.
    by_id: BTreeMap<Arc<str>, ShardIndex>,
    open: BTreeSet<ShardIndex>,
    /// When which shard was closed, the earliest first.
    closed: VecDeque<(u64, ShardIndex)>,
    next_sequence: Sequence,
    next_item: u64,
    buffer: BytesMut,
    pub(super) quirks: Quirks,
}

/// Closing a closed shard, or putting into one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Closed;

impl Stream {
    pub(super) fn new(
        arn: Arc<str>,
        table: &str,
        label: &str,
        region: &str,
        now_ms: u64,
        sequence: Sequence,
    ) -> Self {
        Self {
            arn,
            table: table.to_owned(),
            label: label.to_owned(),
            region: region.to_owned(),
            created_ms: now_ms,
            disabled_ms: None,
            shards: Vec::new(),
            by_id: BTreeMap::new(),
            open: BTreeSet::new(),
            closed: VecDeque::new(),
            next_sequence: sequence,
            next_item: 0,
            buffer: BytesMut::new(),
            quirks: Quirks::default(),
        }
    }

    /// Removes closed shards that have aged out. Records age when their shard is next looked at.
    pub(super) fn expire(&mut self, now_ms: u64) {
        while let Some((closed_ms, index)) = self.closed.front().copied()
            && closed_ms.saturating_add(RETENTION_MS) <= now_ms
        {
            self.closed.pop_front();
            self.quirks.forget(index);
            if let Some(shard) = self.shards.get_mut(index) {
                shard.trim();
                self.by_id.remove(&shard.id);
            }
        }
    }

    /// Whether the whole stream has aged out.
    pub(super) fn is_gone(&self, now_ms: u64) -> bool {
        self.disabled_ms.is_some_and(|since_ms| since_ms.saturating_add(RETENTION_MS) <= now_ms)
    }

    pub(super) fn index(&self, id: &str) -> Option<ShardIndex> {
        self.by_id.get(id).copied()
    }

    pub(super) fn shard(&self, index: ShardIndex) -> Option<&Shard> {
        self.shards.get(index)
    }

    /// The shard without what has aged out of it.
    pub(super) fn shard_mut(&mut self, index: ShardIndex, now_ms: u64) -> Option<&mut Shard> {
        let shard = self.shards.get_mut(index)?;
        shard.expire(now_ms);
        Some(shard)
    }

    /// The shards that are there, by id, from the one after `after` on.
    pub(super) fn listed<'a>(
        &'a self,
        after: Option<&'a str>,
    ) -> impl Iterator<Item = (ShardIndex, &'a Shard)> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        self.by_id
            .range::<str, _>((from, Unbounded))
            .filter_map(|(_, index)| Some((*index, self.shards.get(*index)?)))
    }

    pub(super) fn open_shards(&self) -> impl Iterator<Item = (ShardIndex, &Shard)> {
        self.open.iter().filter_map(|index| Some((*index, self.shards.get(*index)?)))
    }

    pub(super) fn all_shards_mut(&mut self) -> impl Iterator<Item = &mut Shard> {
        self.shards.iter_mut()
    }

    /// Adds an open shard made at `made_ms`. Its parent may be open: listings of the service can be so, too.
    pub(super) fn add_shard(&mut self, parent: Option<ShardIndex>, made_ms: u64) -> ShardIndex {
        let index = self.shards.len();
        let id = shard_id(made_ms, index);
        let parent_id =
            parent.and_then(|parent| self.shards.get(parent)).map(|parent| Arc::clone(&parent.id));
        let start = self.take_sequence();
        self.by_id.insert(Arc::clone(&id), index);
        self.open.insert(index);
        self.shards.push(Shard::new(id, parent_id, start));
        if let Some(parent) = parent.and_then(|parent| self.shards.get_mut(parent)) {
            parent.children.push(index);
        }
        index
    }

    pub(super) fn close(&mut self, index: ShardIndex, now_ms: u64) -> Result<(), Closed> {
        let shard = self.shards.get_mut(index).filter(|shard| shard.is_open()).ok_or(Closed)?;
        shard.end = Some(shard.last_sequence());
        self.open.remove(&index);
        self.closed.push_back((now_ms, index));
        Ok(())
    }

    /// Closes what is open: nothing more comes.
    pub(super) fn disable(&mut self, now_ms: u64) {
        for index in std::mem::take(&mut self.open) {
            if let Some(shard) = self.shards.get_mut(index) {
                shard.end = Some(shard.last_sequence());
                self.closed.push_back((now_ms, index));
            }
        }
        self.disabled_ms.get_or_insert(now_ms);
    }

    /// Adds `live` open shards, each the last of a chain of `generations`. A chain's shards were closed 4 hours after
    /// each other, the last one now.
    pub(super) fn grow(&mut self, live: usize, generations: usize, now_ms: u64) {
        let mut parents: Vec<Option<ShardIndex>> = vec![None; live];
        for generation in (0..generations).rev() {
            let age_ms = ROLLOVER_MS.saturating_mul(u64::try_from(generation).unwrap_or(u64::MAX));
            let made_ms = now_ms.saturating_sub(age_ms);
            for parent in &mut parents {
                if let Some(parent) = *parent {
                    // It was added open in the round before.
                    let _ = self.close(parent, made_ms);
                }
                *parent = Some(self.add_shard(*parent, made_ms));
            }
        }
        self.closed.make_contiguous().sort_unstable();
    }

    /// Puts records into an open shard and returns their sequence numbers.
    pub(super) fn put(
        &mut self,
        index: ShardIndex,
        records: &[Record],
        now_ms: u64,
    ) -> Result<Vec<Sequence>, Closed> {
        self.shards.get(index).filter(|shard| shard.is_open()).ok_or(Closed)?;
        Ok(records.iter().filter_map(|record| self.append(index, record, now_ms)).collect())
    }

    /// Puts `count` items and returns their numbers, which go up through the whole stream.
    pub(super) fn put_items(
        &mut self,
        index: ShardIndex,
        count: u64,
        image_bytes: usize,
        now_ms: u64,
    ) -> Result<std::ops::Range<u64>, Closed> {
        self.shards.get(index).filter(|shard| shard.is_open()).ok_or(Closed)?;
        let items = self.next_item..self.next_item.saturating_add(count);
        self.next_item = items.end;
        for n in items.clone() {
            self.append(index, &record::item(n, image_bytes), now_ms);
        }
        Ok(items)
    }

    fn append(&mut self, index: ShardIndex, record: &Record, now_ms: u64) -> Option<Sequence> {
        let sequence = self.take_sequence();
        if self.buffer.capacity() < BUFFER_BYTES / 8 {
            self.buffer.reserve(BUFFER_BYTES);
        }
        let stored = record.store(sequence, now_ms, &self.region, &mut self.buffer);
        self.shards.get_mut(index)?.push(stored);
        Some(sequence)
    }

    /// The next record gets `sequence`, if that is higher than it would be.
    pub(super) fn raise_sequence(&mut self, sequence: Sequence) {
        self.next_sequence = self.next_sequence.max(sequence);
    }

    fn take_sequence(&mut self) -> Sequence {
        let sequence = self.next_sequence;
        self.next_sequence = sequence.saturating_add(SEQUENCE_STEP);
        sequence
    }
}

/// `shardId-<20 digits of milliseconds>-<8 hexadecimal digits>`, as the service makes them.
fn shard_id(made_ms: u64, index: ShardIndex) -> Arc<str> {
    // Odd, so different indexes give different digits; they look random and do not sort by index, as in the service.
    const SCATTER: u32 = 0x9e37_79b1;
    let number = u32::try_from(index).unwrap_or(u32::MAX);
    format!("shardId-{made_ms:020}-{:08x}", number.wrapping_mul(SCATTER)).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: u64 = 1_700_000_000_000;
    const HOUR_MS: u64 = 60 * 60 * 1000;

    fn stream() -> Stream {
        Stream::new("arn".into(), "table", "label", "region", NOW_MS, 10_u128.pow(20))
    }

    fn ids(stream: &Stream) -> Vec<String> {
        stream.listed(None).map(|(_, shard)| shard.id.to_string()).collect()
    }

    #[test]
    fn shard_ids_have_the_form_of_the_service_and_are_listed_in_order() {
        let mut stream = stream();
        for _ in 0..300 {
            stream.add_shard(None, NOW_MS);
        }
        let ids = ids(&stream);
        assert_eq!(ids.len(), 300);
        assert!(ids.is_sorted());
        let (time, hex) = ids[7].strip_prefix("shardId-").unwrap().split_once('-').unwrap();
        assert_eq!((time.len(), hex.len()), (20, 8));
        assert_eq!(time.parse::<u64>().unwrap(), NOW_MS);
    }

    #[test]
    fn a_grown_stream_is_chains_of_closed_ancestors_with_one_open_shard_each() {
        let mut stream = stream();
        stream.grow(10, 7, NOW_MS);
        stream.expire(NOW_MS);
        assert_eq!(ids(&stream).len(), 70);
        assert_eq!(stream.open_shards().count(), 10);
        for (_, leaf) in stream.open_shards() {
            let mut ancestors = 0;
            let mut at = leaf;
            while let Some(parent) = at.parent.as_deref() {
                let parent = stream.shard(stream.index(parent).unwrap()).unwrap();
                assert!(parent.start < at.start && parent.end.is_some_and(|end| end < at.start));
                assert!(parent.id < at.id);
                ancestors += 1;
                at = parent;
            }
            assert_eq!(ancestors, 6);
        }
        // The oldest generation was closed 20 hours ago.
        stream.expire(NOW_MS + 4 * HOUR_MS);
        assert_eq!(ids(&stream).len(), 60);
    }

    #[test]
    fn closed_shards_age_out_whole_and_open_ones_stay() {
        let mut stream = stream();
        let parent = stream.add_shard(None, NOW_MS);
        stream.close(parent, NOW_MS + 1).unwrap();
        stream.add_shard(Some(parent), NOW_MS + 1);
        stream.expire(NOW_MS + RETENTION_MS);
        assert_eq!(ids(&stream).len(), 2);
        stream.expire(NOW_MS + 1 + RETENTION_MS);
        assert_eq!(ids(&stream).len(), 1);
        assert!(stream.index(&stream.open_shards().next().unwrap().1.id).is_some());
    }

    #[test]
    fn sequence_numbers_go_up_through_the_whole_stream() {
        let mut stream = stream();
        let (a, b) = (stream.add_shard(None, NOW_MS), stream.add_shard(None, NOW_MS));
        let record = Record::insert("{}", "{}");
        let first = stream.put(a, &[record.clone(), record.clone()], NOW_MS).unwrap();
        let second = stream.put(b, std::slice::from_ref(&record), NOW_MS).unwrap();
        stream.raise_sequence(10_u128.pow(23));
        let third = stream.put(a, &[record], NOW_MS).unwrap();
        let all = [first, second, third].concat();
        assert!(all.is_sorted() && all.len() == 4);
        assert!(all[0].to_string().len() == 21 && all[3].to_string().len() == 24);
    }

    #[test]
    fn a_closed_shard_takes_no_records_and_closes_once() {
        let mut stream = stream();
        let shard = stream.add_shard(None, NOW_MS);
        stream.close(shard, NOW_MS).unwrap();
        assert_eq!(stream.close(shard, NOW_MS), Err(Closed));
        assert_eq!(stream.put_items(shard, 1, 10, NOW_MS), Err(Closed));
    }
}
