//! A counter with one label, whose values are a fixed list.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counters by the value of a label. All values are there from the start.
#[derive(Debug)]
pub struct CounterSet {
    counts: Box<[(&'static str, AtomicU64)]>,
}

impl CounterSet {
    /// All at zero. What is counted under a value that is not in the list counts for the last.
    #[must_use]
    pub fn new(values: &[&'static str]) -> Self {
        Self { counts: values.iter().map(|value| (*value, AtomicU64::new(0))).collect() }
    }

    /// Adds to the counter of a value.
    pub fn add(&self, value: &str, count: u64) {
        let found = self.counts.iter().find(|(known, _)| *known == value).or_else(|| self.counts.last());
        if let Some((_, counter)) = found {
            counter.fetch_add(count, Relaxed);
        }
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
        self.counts.iter().map(|(value, counter)| (*value, counter.load(Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_there_and_an_unknown_one_is_the_last() {
        let set = CounterSet::new(&["ok", "failed", "other"]);
        set.add("ok", 2);
        set.add("unheard-of", 1);
        assert_eq!(set.iter().collect::<Vec<_>>(), [("ok", 2), ("failed", 0), ("other", 1)]);
        assert_eq!((set.of("ok"), set.of("unheard-of"), set.total()), (2, 0, 3));
    }
}
