//! The bounds of reading the master.

use std::time::Duration;

pub use super::breaker::BreakerConfig;

/// The most keys in one call (AWS: BatchGetItem, 100 items and 16 MB; what is beyond the bytes comes back as
/// unprocessed).
pub(crate) const KEYS_PER_CALL_MAX: usize = 100;

/// The bounds of reading the master tables.
#[derive(Clone, Debug, PartialEq)]
pub struct MasterConfig {
    /// Calls of BatchGetItem under way, each for up to 100 keys. At least 1.
    pub calls_max: usize,
    /// Keys that wait for a call; further ones are shed. At least 1.
    pub queue_keys_max: usize,
    /// What may be spent: read request units a second (a strongly consistent read of 4 KB takes one). What a call
    /// took is known when it is answered, so a second may exceed it and the next ones pay for that. Infinite: no
    /// bound. More than 0.
    pub read_units_per_second_max: f64,
    /// The longest wait for one call's answer. More than 0.
    pub call_timeout: Duration,
    /// The longest wait for one key, from asking to its answer: for its turn, the budget, the calls, and sending
    /// again what was throttled or not processed. More than 0.
    pub read_timeout: Duration,
    /// When to leave the master alone.
    pub breaker: BreakerConfig,
}

impl Default for MasterConfig {
    fn default() -> Self {
        Self {
            calls_max: 8,
            queue_keys_max: 10_000,
            read_units_per_second_max: 1_000.0,
            call_timeout: Duration::from_secs(1),
            read_timeout: Duration::from_secs(3),
            breaker: BreakerConfig::default(),
        }
    }
}

impl MasterConfig {
    /// What is wrong with it; each names the key. None: it can be used.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        let mut violations = self.breaker.violations();
        let mut check = |is_right: bool, what: &str| {
            if !is_right {
                violations.push(what.to_owned());
            }
        };
        check(self.calls_max >= 1, "calls_max must be at least 1");
        check(self.queue_keys_max >= 1, "queue_keys_max must be at least 1");
        check(self.read_units_per_second_max > 0.0, "read_units_per_second_max must be above 0");
        check(!self.call_timeout.is_zero(), "call_timeout must be longer than 0");
        check(!self.read_timeout.is_zero(), "read_timeout must be longer than 0");
        violations
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_violation_is_named_at_once() {
        assert_eq!(MasterConfig::default().violations(), Vec::<String>::new());
        let wrong = MasterConfig {
            calls_max: 0,
            queue_keys_max: 0,
            read_units_per_second_max: f64::NAN,
            call_timeout: Duration::ZERO,
            read_timeout: Duration::ZERO,
            breaker: BreakerConfig { probes: 0, ..BreakerConfig::default() },
        };
        assert_eq!(wrong.violations().len(), 6, "{:?}", wrong.violations());
    }
}
