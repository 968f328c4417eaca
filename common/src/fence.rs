//! Notices that this process stood still: stopped by a signal, starved, or its machine suspended.
//!
//! Whoever stands still for long loses its leases without knowing, and what it then has in its hands is old. A tick
//! every quarter of a second tells: when one comes late, the process stood still, and everything that was asked for
//! before is to be dropped and asked for again, which proves the lease. Until the tick has come, nothing is known,
//! and [`Fence::open_until`] is past.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::clock::now_ms;

const TICK: Duration = Duration::from_millis(250);

/// A tick that comes so long after the one before it was late. A process that stood still for less still has its
/// leases: they last for ten seconds, or as long as they are configured to.
const LATE_AFTER: Duration = Duration::from_secs(3);

/// How long after a tick nothing has to be known anew.
const OPEN_FOR: Duration = Duration::from_secs(4);

/// Tells what was asked for before this process last stood still.
#[derive(Debug)]
pub struct Fence(watch::Sender<Ticks>);

impl Default for Fence {
    fn default() -> Self {
        Self::new(Ticks { ticked: Instant::now(), ticked_ms: now_ms(), resumed: None })
    }
}

impl Fence {
    fn new(ticks: Ticks) -> Self {
        Self(watch::Sender::new(ticks))
    }

    /// Ticks until `shutdown`; `opened` is told after each tick until when the process is known to be awake.
    pub async fn keep(&self, opened: impl Fn(Instant), shutdown: &CancellationToken) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
            let mut stood_still = None;
            self.0.send_modify(|ticks| stood_still = ticks.tick(Instant::now(), now_ms()));
            if let Some(stood_still) = stood_still {
                tracing::warn!(
                    stood_still_ms = stood_still.as_millis(),
                    "this process stood still; what it had read before is read again"
                );
            }
            opened(self.open_until());
        }
    }

    /// Until when the process is known to be awake, unless it ticks again.
    pub fn open_until(&self) -> Instant {
        self.0.borrow().ticked + OPEN_FOR
    }

    /// Whether the process did not stand still since `asked`, as far as is known.
    pub fn passes(&self, asked: Instant) -> bool {
        self.0.borrow().resumed.is_none_or(|resumed| asked >= resumed)
    }

    /// The same, known for sure: waits for the next tick if the last one was long ago.
    pub async fn is_awake_since(&self, asked: Instant) -> bool {
        let is_open = |ticks: &Ticks| ticks.ticked + OPEN_FOR > Instant::now();
        // The sender is here.
        drop(self.0.subscribe().wait_for(is_open).await);
        self.passes(asked)
    }
}

/// The last tick by both clocks: one of them stops while the machine is suspended, the other can be set.
#[derive(Clone, Copy, Debug)]
struct Ticks {
    ticked: Instant,
    ticked_ms: u64,
    /// When it last went on after it had stood still.
    resumed: Option<Instant>,
}

impl Ticks {
    /// How long the process stood still before this tick, if it did.
    fn tick(&mut self, now: Instant, wall_ms: u64) -> Option<Duration> {
        let by_wall = Duration::from_millis(wall_ms.saturating_sub(self.ticked_ms));
        let since = now.saturating_duration_since(self.ticked).max(by_wall);
        (self.ticked, self.ticked_ms) = (now, wall_ms);
        if since < LATE_AFTER {
            return None;
        }
        self.resumed = Some(now);
        Some(since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_was_asked_for_before_the_process_stood_still_does_not_pass() {
        let start = Instant::now();
        let mut ticks = Ticks { ticked: start, ticked_ms: 1_000, resumed: None };
        let fence = |ticks: &Ticks| Fence::new(*ticks);
        assert_eq!(ticks.tick(start + TICK, 1_250), None);
        assert!(fence(&ticks).passes(start));
        // Stopped by a signal: both clocks went on.
        let resumed = start + Duration::from_secs(20);
        assert_eq!(ticks.tick(resumed, 21_000), Some(Duration::from_millis(19_750)));
        assert!(!fence(&ticks).passes(start + Duration::from_secs(19)) && fence(&ticks).passes(resumed));
        // Suspended: the monotonic clock stood still with it.
        let next = resumed + TICK;
        assert_eq!(ticks.tick(next, 600_000), Some(Duration::from_secs(579)));
        assert!(!fence(&ticks).passes(resumed) && fence(&ticks).passes(next));
    }

    #[tokio::test(start_paused = true)]
    async fn a_fence_is_open_while_it_is_kept() {
        let (fence, shutdown) = (Fence::default(), CancellationToken::new());
        let told = std::sync::atomic::AtomicUsize::new(0);
        let count = |_| {
            told.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        };
        let keeping = fence.keep(count, &shutdown);
        let stopping = async {
            // Between two ticks.
            tokio::time::sleep(12 * TICK + TICK / 2).await;
            assert!(fence.open_until() > Instant::now() + LATE_AFTER);
            shutdown.cancel();
        };
        tokio::join!(keeping, stopping);
        assert_eq!(told.into_inner(), 12 + 1);
        assert!(fence.is_awake_since(Instant::now()).await);
        tokio::time::advance(OPEN_FOR).await;
        assert!(fence.open_until() < Instant::now(), "nobody keeps it");
    }
}
