//! What a shard's task is doing, for how long, and how much it reads: what the watchdog and the balance judge by.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// What a shard's task does or waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Takes the lease.
    Taking,
    /// Waits for room in the byte budget.
    Room,
    /// Asks for an iterator.
    Seeking,
    /// Reads a page.
    Reading,
    /// Hands a page on: waits for the window or for the processor.
    HandingOn,
    /// Pauses before the next read, until then.
    Pausing(Instant),
    /// Waits for the last acks.
    Settling,
    /// Writes the last checkpoint.
    Finishing,
    /// Looks for the shard's children.
    Children,
    /// The shard is finished: brings the lanes that are parked on it up.
    CatchingUp,
}

/// What the watchdog makes of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on.
    Fine,
    /// It has long waited for this, which is somebody else's to give: starting it again would not help.
    Blocked(&'static str, Duration),
    /// It has long done nothing where nothing should hold it up.
    Stuck(&'static str, Duration),
}

impl Stage {
    fn name(self) -> &'static str {
        match self {
            Self::Taking => "the answer of the state table",
            Self::Room => "room in the byte budget",
            Self::Seeking => "an iterator",
            Self::Reading => "a page of records",
            Self::HandingOn => "room downstream",
            Self::Pausing(_) => "its next turn",
            Self::Settling => "acknowledgements from downstream",
            Self::Finishing => "the state table to take its last checkpoint",
            Self::Children => "its children to be listed",
            Self::CatchingUp => "its parked lanes to take more",
        }
    }

    /// Whether what it waits for is given by others, who have their own retries.
    fn is_downstream(self) -> bool {
        matches!(
            self,
            Self::Room
                | Self::HandingOn
                | Self::Settling
                | Self::Finishing
                | Self::Children
                | Self::CatchingUp
        )
    }
}

/// A task's stage and rate, shared with the watchdog.
#[derive(Debug)]
pub struct Progress(Mutex<State>);

#[derive(Debug)]
struct State {
    stage: Stage,
    since: Instant,
    rate: Rate,
}

impl Progress {
    /// A task that takes its lease, which was read at this rate before.
    pub fn new(bytes_per_s: u64, now: Instant) -> Self {
        Self(Mutex::new(State { stage: Stage::Taking, since: now, rate: Rate::new(bytes_per_s, now) }))
    }

    /// The task enters a stage.
    pub fn enter(&self, stage: Stage) {
        let mut state = self.0.lock();
        (state.stage, state.since) = (stage, Instant::now());
    }

    /// The task has read so much.
    pub fn read(&self, bytes: usize) {
        self.0.lock().rate.add(bytes as f64, Instant::now());
    }

    /// Bytes a second, as a decaying average.
    pub fn bytes_per_s(&self) -> u64 {
        self.0.lock().rate.per_s(Instant::now())
    }

    /// What the watchdog makes of it now.
    pub fn judge(&self, now: Instant, stuck_after: Duration) -> Verdict {
        let state = self.0.lock();
        let since = match state.stage {
            Stage::Pausing(until) => until.max(state.since),
            _ => state.since,
        };
        let waited = now.saturating_duration_since(since);
        match (waited < stuck_after, state.stage.is_downstream()) {
            (true, _) => Verdict::Fine,
            (false, true) => Verdict::Blocked(state.stage.name(), waited),
            (false, false) => Verdict::Stuck(state.stage.name(), waited),
        }
    }
}

/// An average that forgets: what came [`Rate::MEMORY`] ago counts for a third.
#[derive(Clone, Copy, Debug)]
struct Rate {
    per_s: f64,
    at: Instant,
}

impl Rate {
    const MEMORY: Duration = Duration::from_secs(30);

    fn new(per_s: u64, now: Instant) -> Self {
        Self { per_s: per_s as f64, at: now }
    }

    fn add(&mut self, amount: f64, now: Instant) {
        self.per_s = self.decayed(now) + amount / Self::MEMORY.as_secs_f64();
        self.at = now;
    }

    fn decayed(&self, now: Instant) -> f64 {
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        self.per_s * (-elapsed / Self::MEMORY.as_secs_f64()).exp()
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "not negative, and saturating"
    )]
    fn per_s(&self, now: Instant) -> u64 {
        self.decayed(now).round() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STUCK_AFTER: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn what_waits_for_downstream_is_blocked_and_what_waits_for_nothing_is_stuck() {
        let progress = Progress::new(0, Instant::now());
        for (stage, blocked) in [(Stage::HandingOn, true), (Stage::Room, true), (Stage::Reading, false)] {
            progress.enter(stage);
            tokio::time::advance(STUCK_AFTER - Duration::from_millis(1)).await;
            assert_eq!(progress.judge(Instant::now(), STUCK_AFTER), Verdict::Fine);
            tokio::time::advance(Duration::from_millis(1)).await;
            let verdict = progress.judge(Instant::now(), STUCK_AFTER);
            assert_eq!(matches!(verdict, Verdict::Blocked(..)), blocked, "{verdict:?}");
            assert_eq!(matches!(verdict, Verdict::Stuck(..)), !blocked, "{verdict:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_is_no_standstill_until_it_should_be_over() {
        let progress = Progress::new(0, Instant::now());
        progress.enter(Stage::Pausing(Instant::now() + 10 * STUCK_AFTER));
        tokio::time::advance(10 * STUCK_AFTER).await;
        assert_eq!(progress.judge(Instant::now(), STUCK_AFTER), Verdict::Fine);
        tokio::time::advance(STUCK_AFTER).await;
        assert!(matches!(progress.judge(Instant::now(), STUCK_AFTER), Verdict::Stuck(..)));
    }

    #[tokio::test(start_paused = true)]
    async fn the_rate_settles_at_what_is_read_and_is_forgotten() {
        let progress = Progress::new(0, Instant::now());
        for _ in 0..300 {
            tokio::time::advance(Duration::from_secs(1)).await;
            progress.read(1_000);
        }
        assert!((980..=1_030).contains(&progress.bytes_per_s()), "{}", progress.bytes_per_s());
        tokio::time::advance(Duration::from_secs(300)).await;
        assert_eq!(progress.bytes_per_s(), 0);
    }
}
