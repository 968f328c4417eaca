//! Which of a shard's checkpoints is old enough to go back to. Pure.
//!
//! What was done lately may be lost. How lately is not a matter of the clock alone: in an outage nothing is done, and
//! one who is slow needs long for little. So a checkpoint is old enough when the shard was busy for so long since, and
//! when its records arrived so much earlier than those of the current one: a record and what repeats or supersedes it
//! arrive close together, however long both wait to be read.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::checkpoint::Checkpoint;

/// The checkpoints that are kept are at least this part of the history's time apart: the fewer, the further it goes
/// back.
const PARTS: u32 = 12;

/// A checkpoint that comes later than this after the last one was held up: the rest of the time does not count.
const ADVANCE_MAX: Duration = Duration::from_secs(2);

/// When the checkpoint's record arrived, and the first that was done of its tenure: in milliseconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrivals {
    /// Of the first record that was done.
    pub first_ms: u64,
    /// Of the last one below the checkpoint.
    pub last_ms: u64,
}

/// The checkpoints of a shard's tenure that it may have to go back to.
#[derive(Clone, Debug)]
pub struct History {
    by: Duration,
    /// The newest that is known to be old enough.
    oldest: Checkpoint,
    /// Later ones, oldest first.
    later: VecDeque<Kept>,
    current: Checkpoint,
    /// When it was first seen to be the current one.
    advanced: Instant,
    /// How long the shard was busy in this tenure.
    progress: Duration,
    /// When the current checkpoint's record arrived; `None` until that is known of one.
    arrival_ms: Option<u64>,
}

#[derive(Clone, Debug)]
struct Kept {
    progress: Duration,
    /// `None`: as the first that is known.
    arrival_ms: Option<u64>,
    checkpoint: Checkpoint,
}

impl History {
    /// A tenure that begins `now` at `checkpoint`. `oldest` is where it would go back to before.
    pub fn new(by: Duration, oldest: Checkpoint, checkpoint: Checkpoint, now: Instant) -> Self {
        let first = Kept { progress: Duration::ZERO, arrival_ms: None, checkpoint: checkpoint.clone() };
        Self {
            by,
            oldest,
            later: VecDeque::from([first]),
            current: checkpoint,
            advanced: now,
            progress: Duration::ZERO,
            arrival_ms: None,
        }
    }

    /// The shard's checkpoint is this now. While its arrival is not known it counts as that of the one before.
    pub fn observe(&mut self, checkpoint: &Checkpoint, arrivals: Option<Arrivals>, now: Instant) {
        if *checkpoint == self.current {
            return;
        }
        self.progress += now.saturating_duration_since(self.advanced).min(ADVANCE_MAX);
        self.advanced = now;
        self.current = checkpoint.clone();
        if let Some(Arrivals { first_ms, last_ms }) = arrivals {
            for kept in &mut self.later {
                kept.arrival_ms.get_or_insert(first_ms);
            }
            self.arrival_ms = self.arrival_ms.max(Some(last_ms));
        }
        let is_apart = |last: &Kept| self.age(last) >= self.by / PARTS;
        if self.later.back().is_none_or(is_apart) {
            let (progress, arrival_ms) = (self.progress, self.arrival_ms);
            self.later.push_back(Kept { progress, arrival_ms, checkpoint: checkpoint.clone() });
        }
        let passed = self.later.iter().take_while(|kept| self.age(kept) >= self.by).count();
        if let Some(newest) = self.later.drain(..passed).next_back() {
            self.oldest = newest.checkpoint;
        }
    }

    /// The checkpoint to go back to: everything that was done lately comes after it. Never ahead of the current one.
    pub fn point(&self) -> Checkpoint {
        self.oldest.clone()
    }

    /// How much older a checkpoint is than the current one, in both ways.
    fn age(&self, kept: &Kept) -> Duration {
        let arrived = self.arrival_ms.zip(kept.arrival_ms);
        let by_arrival = arrived.map_or(0, |(current_ms, kept_ms)| current_ms.saturating_sub(kept_ms));
        self.progress.saturating_sub(kept.progress).min(Duration::from_millis(by_arrival))
    }
}

#[cfg(test)]
mod tests {
    use super::super::ack::ShardAcks;
    use super::super::budget::ByteBudget;
    use super::super::sequence_number::SequenceNumber;
    use super::*;
    use proptest::prelude::*;

    const BY: Duration = Duration::from_secs(120);
    const BY_MS: u64 = 120_000;
    /// Arrivals before that of the first record.
    const EPOCH_MS: u64 = 1_700_000_000_000;

    fn after(number: u64) -> Checkpoint {
        Checkpoint::After(SequenceNumber::new(number.to_string()).unwrap())
    }

    fn number(checkpoint: &Checkpoint) -> u64 {
        match checkpoint {
            Checkpoint::After(sequence) => sequence.as_str().parse().unwrap(),
            _ => 0,
        }
    }

    /// A shard with one record for each second, by arrival; its number is the second.
    struct Shard {
        history: History,
        now: Instant,
        done: u64,
    }

    impl Shard {
        fn new() -> Self {
            let now = Instant::now();
            Self { history: History::new(BY, Checkpoint::TrimHorizon, after(0), now), now, done: 0 }
        }

        /// So many records are done, each so long after the last.
        fn do_each_after(&mut self, pause: Duration, records: u64) {
            for _ in 0..records {
                self.now += pause;
                self.done += 1;
                self.observe();
            }
        }

        fn observe(&mut self) {
            let arrivals = Arrivals { first_ms: EPOCH_MS + 1_000, last_ms: EPOCH_MS + 1_000 * self.done };
            self.history.observe(&after(self.done), Some(arrivals), self.now);
        }

        fn point(&self) -> u64 {
            number(&self.history.point())
        }
    }

    #[test]
    fn what_the_lease_said_counts_until_a_checkpoint_of_the_tenure_is_old_enough() {
        let mut shard = Shard::new();
        shard.do_each_after(Duration::from_secs(1), 120);
        assert_eq!(shard.history.point(), Checkpoint::TrimHorizon, "the first record came at 1");
        shard.do_each_after(Duration::from_secs(1), 1);
        assert_eq!(shard.history.point(), after(0));
        shard.do_each_after(Duration::from_secs(1), 379);
        assert!((365..=380).contains(&shard.point()), "{}", shard.point());
    }

    #[test]
    fn an_outage_in_which_nothing_is_done_makes_no_checkpoint_old() {
        let mut shard = Shard::new();
        shard.do_each_after(Duration::from_secs(1), 500);
        let before = shard.point();
        for _ in 0..180 {
            shard.now += Duration::from_secs(1);
            shard.observe();
        }
        assert_eq!(shard.point(), before);
        // What piled up is done at once.
        shard.do_each_after(Duration::from_millis(10), 180);
        assert!(shard.point() <= before + 12, "{} was not done two minutes ago", shard.point());
    }

    #[test]
    fn one_who_is_slow_goes_back_as_far_in_the_log() {
        let mut shard = Shard::new();
        shard.do_each_after(Duration::from_secs(1), 500);
        // Ten seconds for a second of the log.
        shard.do_each_after(Duration::from_secs(10), 300);
        assert!((660..=680).contains(&shard.point()), "{}", shard.point());
    }

    /// A server of several is away: what is meant for the others goes on, and the checkpoint does not.
    #[tokio::test(start_paused = true)]
    async fn a_record_that_is_not_done_for_long_holds_the_point_behind_it_though_later_ones_are_done() {
        let (acks, budget) = (ShardAcks::new(10_000), ByteBudget::new(100_000));
        let mut history = History::new(BY, Checkpoint::TrimHorizon, after(0), Instant::now());
        let mut held = None;
        for second in 1..=1_000 {
            let sequence = SequenceNumber::new(second.to_string()).unwrap();
            let ack = acks.track(Some(sequence), EPOCH_MS + 1_000 * second, budget.reserve(1).await).await;
            match second {
                500 => held = Some(ack),
                _ => ack.done(),
            }
            tokio::time::advance(Duration::from_secs(1)).await;
            let status = acks.status();
            history.observe(&Checkpoint::After(status.checkpoint.unwrap()), status.arrivals, Instant::now());
        }
        assert!((365..380).contains(&number(&history.point())), "{}", history.point());
        held.unwrap().done();
        let status = acks.status();
        history.observe(&Checkpoint::After(status.checkpoint.unwrap()), status.arrivals, Instant::now());
        let busy_for = 499 + ADVANCE_MAX.as_secs();
        assert!(number(&history.point()) <= busy_for - BY.as_secs(), "{} was done lately", history.point());
    }

    #[test]
    fn without_a_known_arrival_nothing_is_old_enough() {
        let start = Instant::now();
        let mut history = History::new(BY, after(3), after(7), start);
        for second in 1..1_000 {
            history.observe(&after(7 + second), None, start + Duration::from_secs(second));
        }
        assert_eq!(history.point(), after(3));
        assert_eq!(history.later.len(), 1);
    }

    /// Everything that was ever observed: when the shard was busy for how long, and the arrival.
    struct Model(Vec<(u64, u64, u64)>);

    impl Model {
        fn newest_of_age(&self, age_ms: u64) -> u64 {
            let (progress_ms, arrival_ms, _) = *self.0.last().unwrap();
            let is_old = |(progress, arrival, _): &&(u64, u64, u64)| {
                progress_ms - progress >= age_ms && arrival_ms - arrival >= age_ms
            };
            self.0.iter().rev().find(is_old).map_or(0, |(_, _, number)| *number)
        }
    }

    proptest! {
        /// Pauses of up to 20 s, in each of which records of up to so many milliseconds of the log are done, or none.
        #[test]
        fn the_point_is_old_enough_in_both_ways_and_never_goes_back(
            steps in prop::collection::vec((0u64..20_000, 0u64..3, 0u64..60_000), 1..300),
        ) {
            let start = Instant::now();
            let mut history = History::new(BY, Checkpoint::TrimHorizon, after(1), start);
            let (mut now, mut done, mut arrival_ms, mut last_point) = (start, 1, EPOCH_MS, 0);
            let (mut model, mut advanced, mut first_ms) = (Model(Vec::new()), start, None);
            for (pause_ms, records, log_ms) in steps {
                now += Duration::from_millis(pause_ms);
                if records > 0 {
                    (done, arrival_ms) = (done + records, arrival_ms + log_ms);
                    let first = *first_ms.get_or_insert(arrival_ms);
                    let busy = u64::try_from(now.duration_since(advanced).as_millis()).unwrap().min(2_000);
                    advanced = now;
                    if model.0.is_empty() {
                        model.0.push((0, first, 1));
                    }
                    let progress_ms = model.0.last().unwrap().0 + busy;
                    model.0.push((progress_ms, arrival_ms, done));
                }
                let arrivals = first_ms.map(|first_ms| Arrivals { first_ms, last_ms: arrival_ms });
                history.observe(&after(done), arrivals, now);
                let point = number(&history.point());
                if !model.0.is_empty() {
                    let newest = model.newest_of_age(BY_MS);
                    prop_assert!(point <= newest, "{point} is not old enough, but {newest}");
                }
                prop_assert!(last_point <= point && point <= done);
                last_point = point;
                prop_assert!(history.later.len() <= 2 + PARTS as usize);
            }
        }

        /// While as much of the log is done as time goes by, the point is not much older than it must be.
        #[test]
        fn in_the_long_run_the_point_is_not_much_older(steps in prop::collection::vec(0u64..2_000, 1..600)) {
            let start = Instant::now();
            let mut history = History::new(BY, Checkpoint::TrimHorizon, after(1), start);
            let mut model = Model(vec![(0, EPOCH_MS, 1)]);
            let mut passed_ms = 0;
            for (number, pause_ms) in (2..).zip(steps) {
                passed_ms += pause_ms;
                let arrivals = Arrivals { first_ms: EPOCH_MS, last_ms: EPOCH_MS + passed_ms };
                history.observe(&after(number), Some(arrivals), start + Duration::from_millis(passed_ms));
                model.0.push((passed_ms, EPOCH_MS + passed_ms, number));
            }
            let oldest = model.newest_of_age(BY_MS + BY_MS / u64::from(PARTS) + 2_000);
            prop_assert!(number(&history.point()) >= oldest, "{} is older than {oldest}", history.point());
        }
    }
}
