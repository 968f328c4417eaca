//! The time that the fake service believes it is.
//!
//! Retention and the life of iterators are hours and minutes: tests move this clock instead of waiting.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A clock shared by all its clones.
#[derive(Clone, Debug)]
pub struct Clock(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    ticks: bool,
    /// Added to the system's time when the clock ticks, the whole time when it does not.
    offset_ms: AtomicU64,
}

impl Clock {
    /// The system's time, plus whatever [`advance`](Self::advance) has added.
    #[must_use]
    pub fn system() -> Self {
        Self(Arc::new(Inner { ticks: true, offset_ms: AtomicU64::new(0) }))
    }

    /// A clock that stands at the system's time and moves by [`advance`](Self::advance) only.
    #[must_use]
    pub fn manual() -> Self {
        Self(Arc::new(Inner { ticks: false, offset_ms: AtomicU64::new(system_ms()) }))
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        let ticked_ms = if self.0.ticks { system_ms() } else { 0 };
        ticked_ms.saturating_add(self.0.offset_ms.load(Ordering::Relaxed))
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        self.0.offset_ms.fetch_add(millis(by), Ordering::Relaxed);
    }
}

/// Whole milliseconds of a duration.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn system_ms() -> u64 {
    millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_when_told_and_for_all_its_clones() {
        let clock = Clock::manual();
        let other = clock.clone();
        let before_ms = clock.now_ms();
        clock.advance(Duration::from_secs(900));
        assert_eq!(other.now_ms(), before_ms + 900_000);
    }

    #[test]
    fn the_system_clock_can_be_advanced_too() {
        let clock = Clock::system();
        clock.advance(Duration::from_secs(86_400));
        assert!(clock.now_ms() >= system_ms() + 86_399_000);
    }
}
