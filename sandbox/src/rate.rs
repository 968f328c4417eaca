//! A counter's rate over the last few seconds.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// Long enough to be calm, short enough to follow.
const WINDOW: Duration = Duration::from_secs(3);

/// Remembers a counter's recent values. At one observation per refresh it holds a dozen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rate {
    seen: VecDeque<(Instant, u64)>,
}

impl Rate {
    /// Notes the counter's value and gives its rise per second over the window; 0 at first.
    pub(crate) fn observe(&mut self, now: Instant, value: u64) -> f64 {
        self.seen.push_back((now, value));
        while self.seen.len() > 2 && self.seen.front().is_some_and(|(at, _)| now - *at > WINDOW) {
            self.seen.pop_front();
        }
        let Some((then, before)) = self.seen.front() else { return 0.0 };
        let seconds = (now - *then).as_secs_f64();
        if seconds > 0.0 { value.saturating_sub(*before) as f64 / seconds } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_window_counts() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut rate = Rate::default();
        assert_eq!(rate.observe(at(0), 0), 0.0);
        assert_eq!(rate.observe(at(1), 100), 100.0);
        assert_eq!(rate.observe(at(2), 200), 100.0);
        for second in 3..10 {
            rate.observe(at(second), 200);
        }
        assert_eq!(rate.observe(at(10), 200), 0.0);
        assert!(rate.seen.len() <= 5);
    }
}
