//! The calls that came in: how many, from whom, how fast; and the service's limit on them.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

/// An operation of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Lists streams.
    ListStreams,
    /// Lists the shards of a stream.
    DescribeStream,
    /// Makes an iterator.
    GetShardIterator,
    /// Reads a page.
    GetRecords,
}

impl Operation {
    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::ListStreams, Self::DescribeStream, Self::GetShardIterator, Self::GetRecords];

    /// The name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ListStreams => "ListStreams",
            Self::DescribeStream => "DescribeStream",
            Self::GetShardIterator => "GetShardIterator",
            Self::GetRecords => "GetRecords",
        }
    }
}

/// Distinct readers that are told apart; further ones are one.
const READERS_MAX: u16 = 1_024;

/// The names of readers, as small numbers.
#[derive(Debug, Default)]
pub(super) struct Readers {
    names: Vec<Arc<str>>,
    numbers: HashMap<Arc<str>, u16>,
}

impl Readers {
    pub(super) fn number(&mut self, name: &str) -> u16 {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let number = u16::try_from(self.names.len()).unwrap_or(u16::MAX);
        if number >= READERS_MAX {
            return READERS_MAX;
        }
        let name: Arc<str> = name.into();
        self.names.push(Arc::clone(&name));
        self.numbers.insert(name, number);
        number
    }

    pub(super) fn name(&self, number: u16) -> Arc<str> {
        self.names.get(usize::from(number)).cloned().unwrap_or_else(|| "(others)".into())
    }

    pub(super) fn find(&self, name: &str) -> Option<u16> {
        self.numbers.get(name).copied()
    }
}

/// How many calls came, refused ones included.
#[derive(Debug, Default)]
pub(super) struct CallCounts(HashMap<(Operation, u16), u64>);

impl CallCounts {
    pub(super) fn note(&mut self, operation: Operation, reader: u16) {
        *self.0.entry((operation, reader)).or_default() += 1;
    }

    pub(super) fn of(&self, operation: Operation) -> u64 {
        self.0.iter().filter(|((of, _), _)| *of == operation).map(|(_, count)| count).sum()
    }

    pub(super) fn by(&self, operation: Operation, reader: u16) -> u64 {
        self.0.get(&(operation, reader)).copied().unwrap_or(0)
    }
}

/// Events in any one second, at most.
#[derive(Debug, Default)]
pub(super) struct Rate {
    recent: VecDeque<Instant>,
    max: usize,
}

/// More in one second are not told apart.
const RATE_MAX: usize = 10_000;

impl Rate {
    pub(super) fn note(&mut self, now: Instant) {
        while self
            .recent
            .front()
            .is_some_and(|oldest| now.saturating_duration_since(*oldest) >= Duration::from_secs(1))
        {
            self.recent.pop_front();
        }
        if self.recent.len() < RATE_MAX {
            self.recent.push_back(now);
        }
        self.max = self.max.max(self.recent.len());
    }

    pub(super) fn per_second_max(&self) -> usize {
        self.max
    }

    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }
}

/// A limit of calls a second. It holds one second's worth.
#[derive(Debug)]
pub(super) struct TokenBucket {
    per_second: u32,
    /// Thousandths of a call.
    level_milli: u64,
    at_ms: u64,
}

impl TokenBucket {
    pub(super) fn new(per_second: u32, now_ms: u64) -> Self {
        Self { per_second, level_milli: u64::from(per_second) * 1_000, at_ms: now_ms }
    }

    /// Whether one more call is allowed now.
    pub(super) fn take(&mut self, now_ms: u64) -> bool {
        let elapsed_ms = now_ms.saturating_sub(self.at_ms);
        let refill_milli = elapsed_ms.saturating_mul(u64::from(self.per_second));
        self.level_milli =
            self.level_milli.saturating_add(refill_milli).min(u64::from(self.per_second) * 1_000);
        self.at_ms = now_ms;
        match self.level_milli.checked_sub(1_000) {
            Some(left) => {
                self.level_milli = left;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_a_second_at_once_and_then_its_rate() {
        let mut bucket = TokenBucket::new(10, 0);
        assert_eq!((0..20).filter(|_| bucket.take(0)).count(), 10);
        assert!(!bucket.take(99));
        assert!(bucket.take(100));
        assert!(!bucket.take(100));
        assert_eq!((0..20).filter(|_| bucket.take(60_000)).count(), 10);
    }

    #[test]
    fn the_rate_is_the_most_in_any_one_second() {
        let start = Instant::now();
        let mut rate = Rate::default();
        for ms in [0, 100, 999, 1_000, 1_050, 3_000] {
            rate.note(start + Duration::from_millis(ms));
        }
        assert_eq!(rate.per_second_max(), 4);
    }

    #[test]
    fn readers_beyond_the_bound_are_one() {
        let mut readers = Readers::default();
        for n in 0..2_000 {
            readers.number(&format!("reader-{n}"));
        }
        let (known, other) = (readers.number("reader-3"), readers.number("reader-1999"));
        assert_eq!(&*readers.name(known), "reader-3");
        assert_eq!(&*readers.name(other), "(others)");
        assert_eq!(readers.find("reader-1999"), None);
    }
}
