//! Whether a region answers, and what is tried when it does not. Pure.
//!
//! A call that fails as a whole holds the region: nothing is sent for a pause that doubles, and then one small call
//! alone, until one succeeds. Several seconds of frames are not sent into a black hole, and a slow way that
//! gets no large call through in time gets small ones through. Anything taken ends the pauses.

use std::time::Duration;

use tokio::time::Instant;
use warmcast_common::retry::Backoff;

const PAUSE_FIRST: Duration = Duration::from_millis(100);
/// A region that is back is found out about this much later at most, and the timeout of one call.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Pause before a probe when there is nothing to send; it doubles up to [`PAUSE_MAX`].
const PROBE_PAUSE: Duration = Duration::from_secs(1);
/// Bytes of a call after one that failed; each one that succeeds doubles it.
const REQUEST_BYTES_MIN: usize = 256 * 1024;

/// How a region's calls go.
#[derive(Debug)]
pub struct Health {
    answers: bool,
    pauses: Backoff,
    held_until: Option<Instant>,
    failed: Option<Instant>,
    failures: u32,
    request_bytes: usize,
    request_bytes_max: usize,
}

impl Health {
    /// Nothing is known against it.
    pub fn new(request_bytes_max: usize) -> Self {
        Self {
            answers: true,
            pauses: Backoff::new(PAUSE_FIRST, PAUSE_MAX),
            held_until: None,
            failed: None,
            failures: 0,
            request_bytes: request_bytes_max,
            request_bytes_max,
        }
    }

    /// Whether the last call succeeded, or none was made.
    pub fn answers(&self) -> bool {
        self.answers
    }

    /// The most bytes of the next call.
    pub fn request_bytes(&self) -> usize {
        self.request_bytes
    }

    /// When the next call may be made, with so many under way. `None`: not before one of them has ended.
    pub fn next_at(&self, in_flight: usize, in_flight_max: usize, now: Instant) -> Option<Instant> {
        let in_flight_max = if self.answers { in_flight_max } else { 1 };
        (in_flight < in_flight_max).then(|| self.held_until.map_or(now, |until| until.max(now)))
    }

    /// When a probe is due, if nothing else is sent. `None`: none is needed.
    pub fn probe_at(&self) -> Option<Instant> {
        let failed = self.failed.filter(|_| !self.answers)?;
        let pause = PROBE_PAUSE * 2_u32.saturating_pow(self.failures.saturating_sub(1).min(8));
        Some(failed + pause.min(PAUSE_MAX))
    }

    /// Something was taken, or throttled for its shard's sake.
    pub fn on_answer(&mut self) {
        self.answers = true;
        self.failures = 0;
        self.request_bytes = self.request_bytes.saturating_mul(2).min(self.request_bytes_max);
        self.pauses.reset();
        self.held_until = None;
    }

    /// The call sent at `sent` failed, or nothing of it was taken for a reason that lies in the service.
    pub fn on_failure(&mut self, sent: Instant, now: Instant) {
        // Calls that were under way together fail together: that is one failure.
        if self.answers || self.failed.is_none_or(|failed| failed < sent) {
            self.failures = self.failures.saturating_add(1);
            self.failed = Some(now);
            self.hold(now);
        }
        self.answers = false;
        self.request_bytes = REQUEST_BYTES_MIN.min(self.request_bytes_max);
    }

    /// The service wants fewer calls.
    pub fn on_throttled(&mut self, now: Instant) {
        self.answers = true;
        self.failures = 0;
        self.hold(now);
    }

    fn hold(&mut self, now: Instant) {
        self.held_until = Some(now + self.pauses.next_pause());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn at(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    #[test]
    fn a_region_that_does_not_answer_gets_one_small_call_at_a_time() {
        let (mut health, start) = (Health::new(5 * MIB), Instant::now());
        assert_eq!((health.next_at(3, 4, start), health.request_bytes()), (Some(start), 5 * MIB));
        health.on_failure(start, at(start, 10));
        assert!(!health.answers());
        assert_eq!((health.next_at(1, 4, at(start, 10)), health.request_bytes()), (None, REQUEST_BYTES_MIN));
        assert!(health.next_at(0, 4, at(start, 10)).unwrap() <= at(start, 110));
        health.on_answer();
        assert!(health.answers());
        assert_eq!(health.next_at(3, 4, at(start, 20)), Some(at(start, 20)));
        assert_eq!(health.request_bytes(), 2 * REQUEST_BYTES_MIN);
        (0..10).for_each(|_| health.on_answer());
        assert_eq!(health.request_bytes(), 5 * MIB);
    }

    #[test]
    fn calls_that_fail_together_are_one_failure() {
        let (mut health, start) = (Health::new(MIB), Instant::now());
        (0..4).for_each(|_| health.on_failure(start, at(start, 10)));
        assert_eq!(health.probe_at(), Some(at(start, 10) + PROBE_PAUSE));
    }

    #[test]
    fn probes_are_a_second_apart_and_then_up_to_five() {
        let (mut health, start) = (Health::new(MIB), Instant::now());
        assert_eq!(health.probe_at(), None);
        let mut pauses = Vec::new();
        for second in 0..6 {
            let failed = start + Duration::from_secs(100 * second);
            health.on_failure(failed, failed);
            pauses.push((health.probe_at().unwrap() - failed).as_secs());
        }
        assert_eq!(pauses, [1, 2, 4, 5, 5, 5]);
        health.on_answer();
        assert_eq!(health.probe_at(), None);
    }

    #[test]
    fn progress_ends_the_pauses() {
        let start = Instant::now();
        let longest = |health: &mut Health| {
            (0..200)
                .map(|_| {
                    let mut health = Health { pauses: health.pauses.clone(), ..Health::new(MIB) };
                    health.on_throttled(start);
                    health.next_at(0, 1, start).unwrap() - start
                })
                .max()
                .unwrap()
        };
        let mut health = Health::new(MIB);
        (0..10).for_each(|_| health.on_throttled(start));
        assert!(longest(&mut health) > Duration::from_secs(1));
        health.on_answer();
        assert!(longest(&mut health) <= PAUSE_FIRST);
    }

    #[test]
    fn a_throttled_region_answers() {
        let (mut health, start) = (Health::new(MIB), Instant::now());
        health.on_throttled(start);
        assert!(health.answers());
        assert_eq!((health.probe_at(), health.request_bytes()), (None, MIB));
    }
}
