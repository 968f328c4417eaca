//! A counter with one label, whose values are a fixed list.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What is counted under a value that is not in the list. That is a defect; it makes no other value wrong.
const OTHER: &str = "other";

/// Counters by the value of a label. All values are there from the start.
#[derive(Debug)]
pub struct CounterSet {
    counts: Box<[(&'static str, AtomicU64)]>,
    other: AtomicU64,
}

impl CounterSet {
    /// All at zero.
    #[must_use]
    pub fn new(values: &[&'static str]) -> Self {
        let counts = values.iter().map(|value| (*value, AtomicU64::new(0))).collect();
        Self { counts, other: AtomicU64::new(0) }
    }

    /// Adds to the counter of a value. One that is not in the list is `other`, which is there from then on.
    pub fn add(&self, value: &str, count: u64) {
        let found = self.counts.iter().find(|(known, _)| *known == value);
        found.map_or(&self.other, |(_, counter)| counter).fetch_add(count, Relaxed);
    }

    /// The counter of a value; 0 of one that is not in the list.
    #[must_use]
    pub fn of(&self, value: &str) -> u64 {
        self.iter().find(|(known, _)| *known == value).map_or(0, |(_, count)| count)
    }

    /// All together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.iter().map(|(_, count)| count).sum()
    }

    /// Each value with its counter.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let other = (OTHER, self.other.load(Relaxed));
        let listed = self.counts.iter().map(|(value, counter)| (*value, counter.load(Relaxed)));
        listed.chain((other.1 > 0).then_some(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_there_and_an_unknown_one_makes_none_of_them_wrong() {
        let set = CounterSet::new(&["ok", "failed"]);
        set.add("ok", 2);
        assert_eq!(set.iter().collect::<Vec<_>>(), [("ok", 2), ("failed", 0)]);
        set.add("unheard-of", 1);
        assert_eq!(set.iter().collect::<Vec<_>>(), [("ok", 2), ("failed", 0), ("other", 1)]);
        assert_eq!((set.of("ok"), set.of("unheard-of"), set.total()), (2, 0, 3));
    }
}
