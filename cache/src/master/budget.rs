//! What may be spent on the master: a token bucket of read units. Pure.
//!
//! A call is charged an estimate when it starts and the difference when its answer says what it took, so the
//! level can fall below zero; then nothing starts until the rate has paid for it.

use std::time::Duration;

use tokio::time::Instant;

/// The bytes of an item that one strongly consistent read unit pays for (AWS: Read/write capacity mode, read
/// request units).
const UNIT_BYTES: usize = 4_096;

#[derive(Debug)]
pub(crate) struct Budget {
    units_per_second: f64,
    level: f64,
    filled_at: Instant,
}

impl Budget {
    /// Full: what one second gives.
    pub(crate) fn new(units_per_second: f64, now: Instant) -> Self {
        Self { units_per_second, level: units_per_second, filled_at: now }
    }

    /// How long until a call may start; zero: now.
    pub(crate) fn wait(&mut self, now: Instant) -> Duration {
        self.fill(now);
        if self.level > 0.0 {
            return Duration::ZERO;
        }
        // A little more than nothing must be there.
        let seconds = (-self.level / self.units_per_second).max(0.001);
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }

    /// Takes units; with a negative number, gives some back.
    pub(crate) fn charge(&mut self, units: f64, now: Instant) {
        self.fill(now);
        self.level = (self.level - units).min(self.units_per_second);
    }

    fn fill(&mut self, now: Instant) {
        let seconds = now.saturating_duration_since(self.filled_at).as_secs_f64();
        self.filled_at = self.filled_at.max(now);
        self.level = self.units_per_second.mul_add(seconds, self.level).min(self.units_per_second);
    }
}

/// The read units that an item of so many bytes takes, read strongly consistent. None takes one as well.
pub(crate) fn units_of(item_bytes: usize) -> f64 {
    let units = item_bytes.div_ceil(UNIT_BYTES).max(1);
    #[expect(clippy::cast_precision_loss, reason = "an item has at most 400 KiB")]
    let units = units as f64;
    units
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_holds_what_a_second_gives_and_waits_until_a_debt_is_paid() {
        let now = Instant::now();
        let mut budget = Budget::new(100.0, now);
        budget.charge(50.0, now);
        assert_eq!(budget.wait(now), Duration::ZERO);
        budget.charge(250.0, now);
        assert_eq!(budget.wait(now), Duration::from_secs(2));
        assert_eq!(budget.wait(now + Duration::from_millis(2_100)), Duration::ZERO);
        let rested = now + Duration::from_hours(1);
        budget.charge(100.0, rested);
        assert!(budget.wait(rested) > Duration::ZERO, "an hour's rest gives no more than a second's units");
    }

    #[test]
    fn no_limit_is_infinity() {
        let now = Instant::now();
        let mut budget = Budget::new(f64::INFINITY, now);
        budget.charge(1e12, now);
        assert_eq!(budget.wait(now), Duration::ZERO);
        assert_eq!(budget.wait(now + Duration::from_secs(1)), Duration::ZERO);
    }

    #[test]
    fn items_cost_a_unit_for_each_4_kib_and_nothing_costs_one() {
        assert_eq!([0, 1, 4_096, 4_097, 409_600].map(units_of), [1.0, 1.0, 1.0, 2.0, 100.0]);
    }

    proptest! {
        #[test]
        fn over_time_no_more_is_spent_than_the_rate_allows(costs in prop::collection::vec(0.1f64..500.0, 1..100)) {
            let start = Instant::now();
            let (rate, mut now, mut spent) = (100.0, start, 0.0);
            let mut budget = Budget::new(rate, now);
            for cost in costs {
                now += budget.wait(now);
                budget.charge(cost, now);
                let seconds = (now - start).as_secs_f64();
                prop_assert!(spent <= rate * (seconds + 1.0) + 0.001, "before the last call, which may overdraw");
                spent += cost;
            }
        }
    }
}
