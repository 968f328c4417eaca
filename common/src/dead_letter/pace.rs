//! How fast letters may come. A deploy that makes every record bad would otherwise turn a whole stream into dead
//! letters within minutes, at the price of a write each. Nothing is dropped: beyond the pace letters wait, and when the
//! queue is full their shards wait with them, for which a stream keeps its records 24 hours and longer. Pure.

use std::time::Duration;

use tokio::time::Instant;

/// Letters that may come in a second, on average.
const LETTERS_PER_S: f64 = 100.0;
/// Letters that may come at once.
const LETTERS_BURST: f64 = 1_000.0;
/// Bytes that may come in a second, on average: 22 million write units a day (AWS: one for each KB).
const BYTES_PER_S: f64 = 256.0 * 1024.0;
/// Bytes that may come at once.
const BYTES_BURST: f64 = 64.0 * 1024.0 * 1024.0;

/// The pace of all letters of a process.
#[derive(Debug)]
pub(super) struct Pace {
    letters: Bucket,
    bytes: Bucket,
}

#[derive(Debug)]
struct Bucket {
    per_s: f64,
    burst: f64,
    /// Negative: taken in advance.
    level: f64,
    at: Instant,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        let bucket = |per_s, burst| Bucket { per_s, burst, level: burst, at: now };
        Self { letters: bucket(LETTERS_PER_S, LETTERS_BURST), bytes: bucket(BYTES_PER_S, BYTES_BURST) }
    }

    /// Takes a letter of so many bytes, and says how long to wait before it is stored.
    pub(super) fn take(&mut self, bytes: usize, now: Instant) -> Duration {
        // Lengths of letters are far below what an f64 holds exactly.
        let bytes = f64::from(u32::try_from(bytes).unwrap_or(u32::MAX));
        self.letters.take(1.0, now).max(self.bytes.take(bytes, now))
    }
}

impl Bucket {
    fn take(&mut self, amount: f64, now: Instant) -> Duration {
        let refill = now.saturating_duration_since(self.at).as_secs_f64() * self.per_s;
        self.level = (self.level + refill).min(self.burst) - amount;
        self.at = now;
        Duration::from_secs_f64((-self.level / self.per_s).max(0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes letters of so many bytes for a minute, as fast as allowed; how many.
    fn taken_in_a_minute(bytes: usize) -> u32 {
        let start = Instant::now();
        let (mut pace, mut now, mut taken) = (Pace::new(start), start, 0);
        while now < start + Duration::from_secs(60) {
            now += pace.take(bytes, now);
            taken += 1;
        }
        taken
    }

    #[test]
    fn a_burst_passes_at_once_and_then_a_steady_rate() {
        assert!(taken_in_a_minute(100).abs_diff(1_000 + 60 * 100) <= 1);
        assert!(taken_in_a_minute(1 << 20).abs_diff(64 + 60 / 4) <= 1);
    }

    #[test]
    fn what_was_not_taken_is_saved_up_to_a_burst_only() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        let later = start + Duration::from_secs(86_400);
        let free = (0..2_000).take_while(|_| pace.take(1, later).is_zero()).count();
        assert_eq!(free, 1_000);
    }
}
