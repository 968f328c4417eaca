//! What passed, second by second.

use std::collections::VecDeque;
use std::ops::AddAssign;
use std::time::Duration;

use serde::Serialize;

/// Seconds kept.
const SECONDS_MAX: usize = 4 * 60 * 60;

/// What came in one second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Second {
    /// Requests of any kind.
    pub calls: u64,
    /// Of these, those that got no answer, or an error that the proxy made.
    pub calls_failed: u64,
    /// Bytes of their bodies as they were on the wire.
    pub body_bytes: u64,
    /// Entries of PutRecords calls.
    pub entries: u64,
    /// Bytes of their data and partition keys, as the service counts them against a shard's capacity.
    pub entry_bytes: u64,
    /// Of these, those that the server took.
    pub entries_taken: u64,
    /// Of these, those that were answered with an error code of their own, by the proxy or by the server. The rest was
    /// in calls that failed as a whole.
    pub entries_rejected: u64,
    /// Of these, those that were answered as taken and did not reach the server.
    pub entries_lost: u64,
}

impl AddAssign for Second {
    fn add_assign(&mut self, other: Self) {
        self.calls += other.calls;
        self.calls_failed += other.calls_failed;
        self.body_bytes += other.body_bytes;
        self.entries += other.entries;
        self.entry_bytes += other.entry_bytes;
        self.entries_taken += other.entries_taken;
        self.entries_rejected += other.entries_rejected;
        self.entries_lost += other.entries_lost;
    }
}

#[derive(Debug, Default)]
pub(super) struct Traffic {
    /// What was before `seconds`.
    earlier: Second,
    /// The number of the first of `seconds`.
    first: usize,
    seconds: VecDeque<Second>,
}

impl Traffic {
    /// The second that it is so long after the start. One that is no longer kept counts as the oldest.
    pub(super) fn at(&mut self, elapsed: Duration) -> &mut Second {
        let number = usize::try_from(elapsed.as_secs()).unwrap_or(usize::MAX);
        if number.saturating_sub(self.first) >= 2 * SECONDS_MAX {
            // Nothing came for so long that nothing of what was is kept.
            self.earlier = self.total();
            self.seconds.clear();
            self.first = number;
        }
        while self.first + self.seconds.len() <= number {
            self.seconds.push_back(Second::default());
        }
        while self.seconds.len() > SECONDS_MAX {
            self.earlier += self.seconds.pop_front().unwrap_or_default();
            self.first += 1;
        }
        self.seconds.get_mut(number.saturating_sub(self.first)).unwrap_or(&mut self.earlier)
    }

    pub(super) fn seconds(&mut self, elapsed: Duration) -> Vec<Second> {
        self.at(elapsed);
        let mut seconds: Vec<Second> = self.seconds.iter().copied().collect();
        if let Some(first) = seconds.first_mut() {
            *first += self.earlier;
        }
        seconds
    }

    pub(super) fn total(&self) -> Second {
        let mut total = self.earlier;
        self.seconds.iter().for_each(|second| total += *second);
        total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_is_counted_in_its_second_and_quiet_seconds_are_there() {
        let mut traffic = Traffic::default();
        for ms in [100, 900, 3_500] {
            traffic.at(Duration::from_millis(ms)).calls += 1;
        }
        let calls: Vec<u64> =
            traffic.seconds(Duration::from_secs(5)).iter().map(|second| second.calls).collect();
        assert_eq!(calls, [2, 0, 0, 1, 0, 0]);
        assert_eq!(traffic.total().calls, 3);
    }

    #[test]
    fn old_seconds_are_added_up_and_none_is_lost() {
        let mut traffic = Traffic::default();
        for hour in [0, 3, 7, 40, 41] {
            traffic.at(Duration::from_secs(hour * 3_600)).entries += 1;
        }
        let seconds = traffic.seconds(Duration::from_secs(41 * 3_600));
        assert!(seconds.len() <= SECONDS_MAX);
        assert_eq!(seconds.iter().map(|second| second.entries).sum::<u64>(), 5);
        assert_eq!(seconds.last().unwrap().entries, 1);
        assert_eq!(traffic.total().entries, 5);
    }
}
