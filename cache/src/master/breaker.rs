//! When to leave the master alone. Pure: a function of what calls became, and `now`.
//!
//! Closed, every call is admitted, and a sliding window counts how many of them were bad (failed, throttled or
//! slow). When too many were, it opens: nothing is admitted for a while. Then it is half open: a few probes are
//! admitted; if all are good it closes, if one is bad it opens again, for twice as long.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

/// Into how many parts the window is cut; it slides by one part at a time.
const PARTS: u32 = 10;

/// When the breaker opens, and for how long.
#[derive(Clone, Debug, PartialEq)]
pub struct BreakerConfig {
    /// How far back calls count. More than 0.
    pub window: Duration,
    /// The fewest calls in the window that say anything. At least 1.
    pub calls_min: u32,
    /// The share of bad calls that opens it: above 0, at most 1.
    pub bad_share: f64,
    /// A call that takes this long is as bad as one that fails.
    pub slow_after: Duration,
    /// How long it stays open the first time; each further time in a row twice as long.
    pub open_for: Duration,
    /// The longest that it stays open.
    pub open_for_max: Duration,
    /// Calls that are tried after that, and must all be good. At least 1.
    pub probes: u32,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(10),
            calls_min: 10,
            bad_share: 0.5,
            slow_after: Duration::from_millis(500),
            open_for: Duration::from_secs(2),
            open_for_max: Duration::from_secs(30),
            probes: 3,
        }
    }
}

impl BreakerConfig {
    /// What is wrong with it; each names the key.
    pub(crate) fn violations(&self) -> Vec<String> {
        let mut violations = Vec::new();
        let mut check = |is_right: bool, what: &str| {
            if !is_right {
                violations.push(format!("breaker.{what}"));
            }
        };
        check(!self.window.is_zero(), "window must be longer than 0");
        check(self.calls_min >= 1, "calls_min must be at least 1");
        check(self.bad_share > 0.0 && self.bad_share <= 1.0, "bad_share must be above 0 and at most 1");
        check(!self.slow_after.is_zero(), "slow_after must be longer than 0");
        check(!self.open_for.is_zero(), "open_for must be longer than 0");
        check(self.open_for_max >= self.open_for, "open_for_max must not be shorter than open_for");
        check(self.probes >= 1, "probes must be at least 1");
        violations
    }
}

/// What a call became.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Good,
    Bad,
}

/// A call was admitted. It is given back with the verdict, so that a call from before an opening does not decide
/// about what came after it.
#[derive(Debug)]
pub(crate) struct Permit {
    era: u64,
}

#[derive(Debug)]
pub(crate) struct Breaker {
    config: BreakerConfig,
    state: State,
    /// Counts the changes of state.
    era: u64,
    opened: u64,
}

#[derive(Debug)]
enum State {
    Closed(Window),
    Open { until: Instant, open_for: Duration },
    HalfOpen { admitted: u32, good: u32, open_for: Duration },
}

impl Breaker {
    pub(crate) fn new(config: BreakerConfig) -> Self {
        Self { config, state: State::Closed(Window::default()), era: 0, opened: 0 }
    }

    /// How often it opened.
    pub(crate) const fn opened(&self) -> u64 {
        self.opened
    }

    /// Whether a call would be admitted; takes nothing.
    pub(crate) fn admits(&self, now: Instant) -> bool {
        match &self.state {
            State::Closed(_) => true,
            State::Open { until, .. } => now >= *until,
            State::HalfOpen { admitted, .. } => *admitted < self.config.probes,
        }
    }

    /// Admits a call, or says after which time one may be admitted.
    pub(crate) fn admit(&mut self, now: Instant) -> Result<Permit, Duration> {
        if let State::Open { until, open_for } = self.state {
            if now < until {
                return Err(until - now);
            }
            self.enter(State::HalfOpen { admitted: 0, good: 0, open_for });
        }
        if let State::HalfOpen { admitted, .. } = &mut self.state {
            if *admitted >= self.config.probes {
                // The probes decide: that takes as long as a call.
                return Err(self.config.slow_after);
            }
            *admitted += 1;
        }
        Ok(Permit { era: self.era })
    }

    /// Learns what an admitted call became.
    pub(crate) fn record(&mut self, permit: &Permit, verdict: Verdict, now: Instant) {
        if permit.era != self.era {
            return;
        }
        match &mut self.state {
            State::Closed(window) => {
                window.add(&self.config, verdict, now);
                if window.is_bad(&self.config) {
                    self.open(self.config.open_for, now);
                }
            }
            State::HalfOpen { good, open_for, .. } => match verdict {
                Verdict::Bad => {
                    let open_for = open_for.saturating_mul(2).min(self.config.open_for_max);
                    self.open(open_for, now);
                }
                Verdict::Good => {
                    *good += 1;
                    if *good >= self.config.probes {
                        self.enter(State::Closed(Window::default()));
                    }
                }
            },
            // Entering it began a new era, and it admits nothing.
            State::Open { .. } => {}
        }
    }

    fn open(&mut self, open_for: Duration, now: Instant) {
        self.opened += 1;
        self.enter(State::Open { until: now + open_for, open_for });
    }

    fn enter(&mut self, state: State) {
        self.era += 1;
        self.state = state;
    }
}

/// The calls of the last while, counted in parts of the window.
#[derive(Debug, Default)]
struct Window {
    parts: VecDeque<Part>,
}

#[derive(Debug)]
struct Part {
    begun: Instant,
    calls: u32,
    bad: u32,
}

impl Window {
    fn add(&mut self, config: &BreakerConfig, verdict: Verdict, now: Instant) {
        let is_past = |part: &Part| now.saturating_duration_since(part.begun) >= config.window;
        while self.parts.front().is_some_and(is_past) {
            self.parts.pop_front();
        }
        let part_len = config.window / PARTS;
        if self.parts.back().is_none_or(|part| now.saturating_duration_since(part.begun) >= part_len) {
            self.parts.push_back(Part { begun: now, calls: 0, bad: 0 });
        }
        if let Some(part) = self.parts.back_mut() {
            part.calls = part.calls.saturating_add(1);
            part.bad = part.bad.saturating_add(u32::from(verdict == Verdict::Bad));
        }
    }

    fn is_bad(&self, config: &BreakerConfig) -> bool {
        let calls: u64 = self.parts.iter().map(|part| u64::from(part.calls)).sum();
        let bad: u64 = self.parts.iter().map(|part| u64::from(part.bad)).sum();
        #[expect(clippy::cast_precision_loss, reason = "a share, of counts far below 2^52")]
        let is_bad = bad as f64 >= calls as f64 * config.bad_share;
        calls >= u64::from(config.calls_min) && is_bad
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OPEN_FOR: Duration = Duration::from_secs(2);

    fn breaker() -> Breaker {
        Breaker::new(BreakerConfig { calls_min: 4, probes: 2, ..BreakerConfig::default() })
    }

    fn call(breaker: &mut Breaker, verdict: Verdict, now: Instant) {
        let permit = breaker.admit(now).unwrap();
        breaker.record(&permit, verdict, now);
    }

    fn opened(now: Instant) -> Breaker {
        let mut breaker = breaker();
        for _ in 0..4 {
            call(&mut breaker, Verdict::Bad, now);
        }
        assert!(!breaker.admits(now));
        breaker
    }

    #[test]
    fn it_opens_when_the_share_of_bad_calls_is_reached_and_not_before() {
        let now = Instant::now();
        let mut breaker = breaker();
        for verdict in [Verdict::Bad, Verdict::Good, Verdict::Good] {
            call(&mut breaker, verdict, now);
        }
        assert!(breaker.admits(now), "three calls say nothing");
        call(&mut breaker, Verdict::Good, now);
        assert!(breaker.admits(now), "one of four was bad");
        call(&mut breaker, Verdict::Bad, now);
        assert!(breaker.admits(now), "two of five were bad");
        call(&mut breaker, Verdict::Bad, now);
        assert_eq!(breaker.admit(now).unwrap_err(), OPEN_FOR, "three of six were bad");
        assert_eq!(breaker.opened(), 1);
    }

    #[test]
    fn calls_beyond_the_window_are_forgotten() {
        let start = Instant::now();
        let mut breaker = breaker();
        for _ in 0..3 {
            call(&mut breaker, Verdict::Bad, start);
        }
        let later = start + BreakerConfig::default().window;
        for _ in 0..4 {
            call(&mut breaker, Verdict::Good, later);
        }
        call(&mut breaker, Verdict::Bad, later);
        assert!(breaker.admits(later));
    }

    #[test]
    fn good_probes_close_it() {
        let now = Instant::now();
        let mut breaker = opened(now);
        let later = now + OPEN_FOR;
        let (first, second) = (breaker.admit(later).unwrap(), breaker.admit(later).unwrap());
        assert!(breaker.admit(later).is_err(), "no more than its probes");
        breaker.record(&first, Verdict::Good, later);
        assert!(!breaker.admits(later), "one probe is not enough");
        breaker.record(&second, Verdict::Good, later);
        for _ in 0..100 {
            call(&mut breaker, Verdict::Good, later);
        }
    }

    #[test]
    fn a_bad_probe_opens_it_for_twice_as_long_up_to_a_bound() {
        let mut now = Instant::now();
        let mut breaker = opened(now);
        let mut open_for = OPEN_FOR;
        for _ in 0..6 {
            now += open_for;
            call(&mut breaker, Verdict::Bad, now);
            open_for = (open_for * 2).min(BreakerConfig::default().open_for_max);
            assert_eq!(breaker.admit(now).unwrap_err(), open_for);
        }
        assert_eq!(open_for, BreakerConfig::default().open_for_max);
    }

    #[test]
    fn calls_from_before_the_opening_do_not_decide_about_what_came_after() {
        let now = Instant::now();
        let mut breaker = breaker();
        let straggler = breaker.admit(now).unwrap();
        for _ in 0..4 {
            call(&mut breaker, Verdict::Bad, now);
        }
        let later = now + OPEN_FOR;
        let probe = breaker.admit(later).unwrap();
        breaker.record(&straggler, Verdict::Bad, later);
        breaker.record(&straggler, Verdict::Good, later);
        assert!(breaker.admits(later), "still half open, with one probe left");
        breaker.record(&probe, Verdict::Good, later);
        call(&mut breaker, Verdict::Good, later);
        assert!(breaker.admit(later).is_ok(), "closed by its own two probes");
    }

    proptest! {
        #[test]
        fn it_always_comes_back(verdicts in prop::collection::vec((any::<bool>(), 0u64..5_000), 0..200)) {
            let mut now = Instant::now();
            let mut breaker = breaker();
            for (is_good, wait_ms) in verdicts {
                now += Duration::from_millis(wait_ms);
                match breaker.admit(now) {
                    Ok(permit) => {
                        let verdict = if is_good { Verdict::Good } else { Verdict::Bad };
                        breaker.record(&permit, verdict, now);
                    }
                    Err(wait) => prop_assert!(wait <= BreakerConfig::default().open_for_max),
                }
            }
            now += BreakerConfig::default().open_for_max;
            for _ in 0..20 {
                call(&mut breaker, Verdict::Good, now);
            }
        }
    }

    #[test]
    fn every_violation_is_named() {
        let wrong = BreakerConfig {
            window: Duration::ZERO,
            calls_min: 0,
            bad_share: f64::NAN,
            slow_after: Duration::ZERO,
            open_for: Duration::from_secs(9),
            open_for_max: Duration::from_secs(1),
            probes: 0,
        };
        assert_eq!(wrong.violations().len(), 6);
        assert_eq!(BreakerConfig::default().violations(), Vec::<String>::new());
    }
}
