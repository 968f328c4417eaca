//! The rate by itself, and many senders against a model of a shard: a token bucket with a second's burst, behind a
//! network of 20 to 150 ms.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::*;
use proptest::prelude::*;

const LIMITS: ShardLimits = ShardLimits { bytes_per_second: 1_048_576.0, records_per_second: 1_000.0 };
const TICK: Duration = Duration::from_millis(5);
const IN_FLIGHT_MAX: usize = 4;
/// Entries of one shard in one request.
const ENTRIES_MAX: usize = 200;

/// The shard: what it takes in a second, as a part of [`LIMITS`].
struct ModelShard {
    share: f64,
    bytes: f64,
    records: f64,
    filled: Instant,
}

impl ModelShard {
    fn new(share: f64, now: Instant) -> Self {
        let (bytes, records) = (LIMITS.bytes_per_second * share, LIMITS.records_per_second * share);
        Self { share, bytes, records, filled: now }
    }

    fn takes(&mut self, bytes: f64, now: Instant) -> bool {
        let time = now.saturating_duration_since(self.filled).as_secs_f64();
        let (bytes_max, records_max) =
            (LIMITS.bytes_per_second * self.share, LIMITS.records_per_second * self.share);
        // One entry of any size fits a full bucket.
        self.bytes = (self.bytes + bytes_max * time).min(bytes_max.max(bytes));
        self.records = (self.records + records_max * time).min(records_max.max(1.0));
        self.filled = now;
        let takes = self.bytes >= bytes && self.records >= 1.0;
        if takes {
            self.bytes -= bytes;
            self.records -= 1.0;
        }
        takes
    }
}

/// A request: when it arrives, when its answer is back, whose it is, when it was sent, its entries.
type Request = (Instant, Instant, usize, Instant, Vec<usize>);

/// An answer: when it is back, whose it is, when the request was sent, its entries, those of them that were taken.
type Answer = (Instant, usize, Instant, usize, usize);

/// Senders that always have something to send, entries of 100 to `bytes_max` bytes.
struct Simulation {
    random: fastrand::Rng,
    now: Instant,
    shard: ModelShard,
    rates: Vec<Rate>,
    in_flight: Vec<usize>,
    arriving: BinaryHeap<Reverse<Request>>,
    answering: BinaryHeap<Reverse<Answer>>,
    bytes_max: usize,
    sent: usize,
    rejected: usize,
    taken_bytes: usize,
    taken: usize,
}

impl Simulation {
    fn new(seed: u64, senders: usize, share: f64, bytes_max: usize) -> Self {
        fastrand::seed(seed);
        let now = Instant::now();
        Self {
            random: fastrand::Rng::with_seed(seed),
            now,
            shard: ModelShard::new(share, now),
            rates: (0..senders).map(|_| Rate::new(LIMITS, now)).collect(),
            in_flight: vec![0; senders],
            arriving: BinaryHeap::new(),
            answering: BinaryHeap::new(),
            bytes_max,
            sent: 0,
            rejected: 0,
            taken_bytes: 0,
            taken: 0,
        }
    }

    /// Runs for this time; returns the rejected part of the entries sent, and the part of the shard's limits used.
    fn run(&mut self, time: Duration) -> (f64, f64) {
        (self.sent, self.rejected, self.taken_bytes, self.taken) = (0, 0, 0, 0);
        let end = self.now + time;
        while self.now < end {
            self.now += TICK;
            self.arrive();
            self.answer();
            for sender in 0..self.rates.len() {
                self.send(sender);
            }
        }
        let bytes = to_f64(self.taken_bytes) / LIMITS.bytes_per_second;
        let records = to_f64(self.taken) / LIMITS.records_per_second;
        let used = bytes.max(records) / self.shard.share / time.as_secs_f64();
        (to_f64(self.rejected) / to_f64(self.sent.max(1)), used)
    }

    fn arrive(&mut self) {
        while self.arriving.peek().is_some_and(|Reverse(first)| first.0 <= self.now) {
            let Reverse((at, back, sender, sent, entries)) = self.arriving.pop().unwrap();
            let bytes = entries.iter().filter(|&&bytes| self.shard.takes(to_f64(bytes), at));
            let (taken, taken_bytes) = bytes.fold((0, 0), |(n, sum), bytes| (n + 1, sum + bytes));
            self.sent += entries.len();
            self.rejected += entries.len() - taken;
            self.taken += taken;
            self.taken_bytes += taken_bytes;
            self.answering.push(Reverse((back, sender, sent, entries.len(), taken)));
        }
    }

    fn answer(&mut self) {
        while self.answering.peek().is_some_and(|Reverse(first)| first.0 <= self.now) {
            let Reverse((at, sender, sent, entries, taken)) = self.answering.pop().unwrap();
            self.in_flight[sender] -= 1;
            match taken == entries {
                true => self.rates[sender].on_taken(at),
                false => self.rates[sender].on_throttled(sent, to_f64(taken) / to_f64(entries), at),
            }
        }
    }

    fn send(&mut self, sender: usize) {
        if self.in_flight[sender] == IN_FLIGHT_MAX {
            return;
        }
        let mut entries = Vec::new();
        while entries.len() < ENTRIES_MAX && self.rates[sender].is_ready(self.now) {
            let bytes = self.random.usize(100..=self.bytes_max);
            self.rates[sender].send(bytes);
            entries.push(bytes);
        }
        if !entries.is_empty() {
            let mut way = || Duration::from_millis(self.random.u64(10..=75));
            let (there, back) = (way(), way());
            self.in_flight[sender] += 1;
            self.arriving.push(Reverse((
                self.now + there,
                self.now + there + back,
                sender,
                self.now,
                entries,
            )));
        }
    }

    /// The same second by second; and the rejected part of the second in which it was largest.
    fn seconds(&mut self, seconds: u32) -> ((f64, f64), f64) {
        let (mut sent, mut rejected, mut used, mut worst) = (0, 0, 0.0, 0.0_f64);
        for _ in 0..seconds {
            let (rejected_now, used_now) = self.run(Duration::from_secs(1));
            (sent, rejected) = (sent + self.sent, rejected + self.rejected);
            used += used_now / f64::from(seconds);
            worst = worst.max(rejected_now);
        }
        ((to_f64(rejected) / to_f64(sent.max(1)), used), worst)
    }

    /// How long it takes until nine tenths of the limits are used over a second.
    fn recovery(&mut self) -> Duration {
        let began = self.now;
        while self.run(Duration::from_secs(1)).1 < 0.9 {
            assert!(self.now - began < Duration::from_secs(120), "no recovery");
        }
        self.now - began
    }
}

/// Senders, the shard's share of the limits, the largest entry.
const CASES: [(usize, f64, usize); 8] = [
    (1, 0.1, 1_000),
    (1, 0.1, 40_000),
    (1, 0.5, 5_000),
    (1, 0.03, 2_000),
    (4, 0.1, 1_000),
    (4, 0.2, 20_000),
    (4, 1.0, 5_000),
    (8, 0.5, 2_000),
];

#[test]
fn a_shard_with_a_part_of_the_limits_has_few_entries_rejected_and_most_of_it_used() {
    for (senders, share, bytes_max) in CASES {
        for seed in 0..3 {
            let mut simulation = Simulation::new(seed, senders, share, bytes_max);
            let at_first = simulation.run(Duration::from_secs(5)).0;
            let ((rejected, used), worst) = simulation.seconds(60);
            let case = format!(
                "{senders} senders, {share} of the limits, entries up to {bytes_max}, seed {seed}: rejected \
                 {at_first:.3} in the first 5 s, then {rejected:.4}, in the worst second {worst:.2}; used {used:.2}"
            );
            println!("{case}");
            assert!(rejected < 0.05, "{case}");
            assert!(worst < 0.4, "{case}");
            assert!(used > 0.7, "{case}");
        }
    }
}

#[test]
fn capacity_that_is_back_is_used_within_some_tens_of_seconds() {
    for (senders, share, bytes_max) in CASES {
        for seed in 0..3 {
            let mut simulation = Simulation::new(seed, senders, share, bytes_max);
            simulation.run(Duration::from_secs(30));
            simulation.shard.share = 1.0;
            let recovery = simulation.recovery();
            println!("{senders} senders, from {share}, entries up to {bytes_max}, seed {seed}: {recovery:?}");
            assert!(recovery <= Duration::from_secs(60), "{recovery:?}, seed {seed}");
        }
    }
}

#[test]
fn a_limit_that_moves_all_the_time_is_followed() {
    for seed in 0..3 {
        let mut simulation = Simulation::new(seed, 3, 1.0, 5_000);
        let (mut sent, mut rejected) = (0, 0);
        for step in 0..20 {
            simulation.shard.share = [1.0, 0.3, 0.6, 0.15][step % 4];
            simulation.run(Duration::from_secs(20));
            (sent, rejected) = (sent + simulation.sent, rejected + simulation.rejected);
        }
        let rejected = to_f64(rejected) / to_f64(sent);
        println!("seed {seed}: rejected {rejected:.4}");
        assert!(rejected < 0.05, "{rejected}, seed {seed}");
    }
}

#[test]
fn a_request_that_was_under_way_when_the_rate_was_cut_does_not_cut_it_again() {
    let start = Instant::now();
    let at = |ms| start + Duration::from_millis(ms);
    let mut rate = Rate::new(LIMITS, start);
    rate.on_throttled(at(10), 0.0, at(100));
    assert_eq!(rate.share(), 0.5);
    rate.on_throttled(at(90), 0.0, at(150));
    assert_eq!(rate.share(), 0.5);
    rate.on_throttled(at(110), 1.0, at(200));
    assert_eq!(rate.share(), 0.375);
}

#[test]
fn what_is_not_taken_and_what_is_not_sent_makes_no_rate_grow() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut rate = Rate::new(LIMITS, start);
    rate.on_throttled(at(1), 0.0, at(2));
    assert!(rate.is_ready(at(100)));
    assert_eq!(rate.share(), 0.5);
    rate.on_taken(at(100));
    assert_eq!(rate.share(), 0.5 + INCREASE, "one answer vouches for a second");
}

proptest! {
    /// However it is used: never beyond the limits, never below the floor, and its word on when it is ready holds.
    #[test]
    fn a_rate_stays_within_its_bounds_and_keeps_its_word(
        steps in prop::collection::vec((0u8..3, 1usize..1_048_576, 1u64..5_000), 1..200)
    ) {
        let start = Instant::now();
        let (mut now, mut rate, mut sent) = (start, Rate::new(LIMITS, start), 0);
        for (step, bytes, wait_ms) in steps {
            match step {
                0 => rate.on_throttled(now, 0.5, now + Duration::from_millis(wait_ms)),
                1 => rate.on_taken(now + Duration::from_millis(wait_ms)),
                _ => {
                    let at = rate.ready_at(now);
                    prop_assert!(rate.clone().is_ready(at));
                    now = at;
                    if rate.is_ready(now) {
                        rate.send(bytes);
                        sent += bytes;
                    }
                }
            }
            now += Duration::from_millis(wait_ms);
            prop_assert!((SHARE_MIN..=1.0).contains(&rate.share()));
        }
        let bound = LIMITS.bytes_per_second * ((now - start) + BURST).as_secs_f64() + 1_048_576.0;
        prop_assert!(to_f64(sent) <= bound, "{sent} bytes in {:?}", now - start);
    }
}
