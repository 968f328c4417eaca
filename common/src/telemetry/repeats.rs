//! What repeats is left out, and counted: one place in the code writes a few lines at once, and then one every two
//! seconds.
//!
//! Trouble is of many shards at a time: without this, a region that is gone would be a line for each of 5,000 shards
//! every few seconds. What is left out is told: in the next line from the same place, or in one that tells only that.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::callsite::Identifier;
use tracing::{Level, Metadata};

/// Lines that one place may write at once.
const BURST: u32 = 20;
/// After that, the pause between two.
const INTERVAL: Duration = Duration::from_secs(2);
/// Pause between two looks for what was left out and not told.
const TELL_INTERVAL: Duration = Duration::from_secs(10);

/// What each place has written. Bounded: a program has so many places, and no more.
#[derive(Debug)]
pub(super) struct Repeats(Mutex<State>);

#[derive(Debug)]
struct State {
    places: HashMap<Identifier, Place>,
    told_at: Instant,
}

#[derive(Debug)]
struct Place {
    metadata: &'static Metadata<'static>,
    /// When it may write as much as it ever may. The nearer that is, the more it may write.
    full_at: Instant,
    left_out: u64,
}

/// Lines that were left out and that no later line of their place told.
#[derive(Debug)]
pub(super) struct LeftOut {
    pub(super) metadata: &'static Metadata<'static>,
    pub(super) lines: u64,
}

impl Repeats {
    pub(super) fn new(now: Instant) -> Self {
        Self(Mutex::new(State { places: HashMap::new(), told_at: now }))
    }

    /// Whether an event is to be written, and how many of its place were left out before it; `None`: it is left out.
    pub(super) fn admit(&self, metadata: &'static Metadata<'static>, now: Instant) -> Option<u64> {
        if !is_limited(metadata) {
            return Some(0);
        }
        let mut state = self.0.lock();
        let new = || Place { metadata, full_at: now, left_out: 0 };
        let place = state.places.entry(metadata.callsite()).or_insert_with(new);
        if place.take(now) {
            return Some(std::mem::take(&mut place.left_out));
        }
        place.left_out += 1;
        None
    }

    /// What is to be told by itself, because its place has written nothing since.
    pub(super) fn untold(&self, now: Instant) -> Vec<LeftOut> {
        let mut state = self.0.lock();
        if now.saturating_duration_since(state.told_at) < TELL_INTERVAL {
            return Vec::new();
        }
        state.told_at = now;
        let untold = state.places.values_mut().filter(|place| place.left_out > 0);
        untold
            .map(|place| LeftOut { metadata: place.metadata, lines: std::mem::take(&mut place.left_out) })
            .collect()
    }
}

impl Place {
    fn take(&mut self, now: Instant) -> bool {
        let from = self.full_at.max(now);
        if from.saturating_duration_since(now) > INTERVAL * (BURST - 1) {
            return false;
        }
        self.full_at = from + INTERVAL;
        true
    }
}

/// Who asks for debug lines wants them all; the lines of counters come at intervals by themselves.
fn is_limited(metadata: &Metadata<'_>) -> bool {
    *metadata.level() <= Level::INFO && !metadata.target().ends_with("::stats")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tracing::{Event, Subscriber};
    use tracing_subscriber::Layer;
    use tracing_subscriber::layer::{Context, SubscriberExt as _};

    use super::*;

    #[derive(Clone, Default)]
    struct Places(Arc<Mutex<Vec<&'static Metadata<'static>>>>);

    impl<S: Subscriber> Layer<S> for Places {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            self.0.lock().push(event.metadata());
        }
    }

    fn places() -> [&'static Metadata<'static>; 4] {
        let places = Places::default();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(places.clone()), || {
            tracing::warn!("shard is held up");
            tracing::info!("taking leases");
            tracing::debug!("a fill did not land");
            tracing::info!(target: "warmcast_aggregator::stats", "stats");
        });
        let places = places.0.lock();
        places.clone().try_into().unwrap()
    }

    #[test]
    fn a_place_writes_a_few_lines_at_once_then_one_every_two_seconds_and_all_are_counted() {
        let (start, [warning, other, ..]) = (Instant::now(), places());
        let repeats = Repeats::new(start);
        let (mut written, mut told, mut storm) = (0, 0, 0);
        for at_ms in (0..60_000).step_by(10) {
            storm += 1;
            if let Some(left_out) = repeats.admit(warning, start + Duration::from_millis(at_ms)) {
                written += 1;
                told += left_out;
            }
        }
        assert_eq!(written, 20 + 59 / 2);
        assert_eq!(repeats.admit(other, start), Some(0), "another place has its own measure");
        let untold = repeats.untold(start + Duration::from_secs(60));
        assert_eq!(
            untold.iter().map(|left_out| left_out.metadata.name()).collect::<Vec<_>>(),
            [warning.name()]
        );
        assert_eq!(written + told + untold[0].lines, storm);
        assert!(repeats.untold(start + Duration::from_secs(120)).is_empty());
        let later = start + Duration::from_secs(600);
        let again = (0..100).filter(|_| repeats.admit(warning, later).is_some());
        assert_eq!(again.count(), 20);
    }

    #[test]
    fn debug_lines_and_lines_of_counters_are_never_left_out() {
        let (start, [.., debug, stats]) = (Instant::now(), places());
        let repeats = Repeats::new(start);
        assert!((0..1_000).all(|_| repeats.admit(debug, start) == Some(0)));
        assert!((0..1_000).all(|_| repeats.admit(stats, start) == Some(0)));
    }
}
