//! Who read a shard, when, and what was delivered how often.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::record::Sequence;

/// How many of the latest readers of a shard are remembered.
const READERS_KEPT: usize = 4;

/// Reads this close together count as made at once. The service does not say how it counts.
const AT_ONCE: Duration = Duration::from_secs(1);

/// What has been read of one shard.
#[derive(Clone, Debug)]
pub struct ShardReads {
    /// The shard's id.
    pub shard: Arc<str>,
    /// Whether the shard still takes records.
    pub open: bool,
    /// Answered reads, empty ones included.
    pub reads: u64,
    /// The first read.
    pub first_read_at: Option<Instant>,
    /// The latest read.
    pub last_read_at: Option<Instant>,
    /// The longest time between two reads that follow each other, of those that ended since the last reset.
    pub pause_max: Duration,
    /// Records delivered, repetitions included.
    pub delivered: u64,
    /// Records delivered that were not above the highest delivered before.
    pub delivered_again: u64,
    /// The access key ids of the latest readers, the newest first.
    pub readers: Vec<Arc<str>>,
    /// The most readers ever seen within one second (AWS: no more than 2 may read a shard).
    pub readers_at_once_max: usize,
}

/// The same as it is kept, one for each shard that was ever read.
#[derive(Clone, Debug, Default)]
pub(super) struct ReadLog {
    reads: u64,
    first_read_at: Option<Instant>,
    last_read_at: Option<Instant>,
    pause_max: Duration,
    delivered: u64,
    delivered_again: u64,
    highest: Sequence,
    /// The newest first.
    readers: Vec<(u16, Instant)>,
    readers_at_once_max: usize,
}

impl ReadLog {
    /// Notes one read.
    pub(super) fn note(&mut self, reader: u16, at: Instant) {
        self.reads += 1;
        if let Some(last) = self.last_read_at {
            self.pause_max = self.pause_max.max(at.saturating_duration_since(last));
        }
        self.first_read_at.get_or_insert(at);
        self.last_read_at = Some(at);
        self.readers.retain(|(known, _)| *known != reader);
        self.readers.insert(0, (reader, at));
        self.readers.truncate(READERS_KEPT);
        self.readers_at_once_max = self.readers_at_once_max.max(self.readers_at_once(at));
    }

    /// Readers of the last second.
    pub(super) fn readers_at_once(&self, now: Instant) -> usize {
        self.readers.iter().filter(|(_, at)| now.saturating_duration_since(*at) < AT_ONCE).count()
    }

    /// Whether `reader` is one of the readers of the last second.
    pub(super) fn is_reading(&self, reader: u16, now: Instant) -> bool {
        self.readers
            .iter()
            .any(|(known, at)| *known == reader && now.saturating_duration_since(*at) < AT_ONCE)
    }

    /// Notes what a read returned, in ascending order, and returns how many of it were delivered before.
    pub(super) fn deliver(&mut self, sequences: impl ExactSizeIterator<Item = Sequence>) -> u64 {
        let highest_before = self.highest;
        let mut again = 0;
        for sequence in sequences {
            self.delivered += 1;
            again += u64::from(sequence <= highest_before);
            self.highest = self.highest.max(sequence);
        }
        self.delivered_again += again;
        again
    }

    pub(super) fn last_read_at(&self) -> Option<Instant> {
        self.last_read_at
    }

    pub(super) fn last_reader(&self) -> Option<u16> {
        self.readers.first().map(|(reader, _)| *reader)
    }

    /// The longest pause, with the one that has not ended at `now`.
    pub(super) fn pause_at(&self, now: Instant) -> Duration {
        let current = self.last_read_at.map_or(Duration::ZERO, |last| now.saturating_duration_since(last));
        self.pause_max.max(current)
    }

    pub(super) fn reset_pause(&mut self) {
        self.pause_max = Duration::ZERO;
    }

    pub(super) fn report(&self, shard: Arc<str>, open: bool, name: impl Fn(u16) -> Arc<str>) -> ShardReads {
        ShardReads {
            shard,
            open,
            reads: self.reads,
            first_read_at: self.first_read_at,
            last_read_at: self.last_read_at,
            pause_max: self.pause_max,
            delivered: self.delivered,
            delivered_again: self.delivered_again,
            readers: self.readers.iter().map(|(reader, _)| name(*reader)).collect(),
            readers_at_once_max: self.readers_at_once_max,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_pause_is_between_two_reads_until_it_is_reset() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut log = ReadLog::default();
        for ms in [0, 100, 700, 800] {
            log.note(1, at(ms));
        }
        assert_eq!(log.pause_at(at(900)), Duration::from_millis(600));
        assert_eq!(log.pause_at(at(3_800)), Duration::from_millis(3_000));
        log.reset_pause();
        log.note(1, at(950));
        assert_eq!(log.pause_at(at(950)), Duration::from_millis(150));
    }

    #[test]
    fn what_is_not_above_the_highest_was_delivered_before() {
        let mut log = ReadLog::default();
        assert_eq!(log.deliver([10, 20, 30].into_iter()), 0);
        assert_eq!(log.deliver([20, 30, 40].into_iter()), 2);
        assert_eq!((log.delivered, log.delivered_again), (6, 2));
    }

    #[test]
    fn readers_at_once_are_those_of_the_last_second() {
        let start = Instant::now();
        let mut log = ReadLog::default();
        log.note(1, start);
        log.note(2, start + Duration::from_millis(500));
        log.note(3, start + Duration::from_millis(1_200));
        assert_eq!(log.readers_at_once_max, 2);
        assert!(!log.is_reading(1, start + Duration::from_millis(1_200)));
        assert_eq!(log.last_reader(), Some(3));
    }
}
