//! Reading again what was done lately, into something that may have lost it: a cache that failed over.
//!
//! What the shards' records are done into has a *state*, a name that changes whenever it may have lost what was done
//! lately. Each lease says into which state it was done. A shard whose lease says another one than there is now is
//! begun again from an older checkpoint that goes beside the first ([`history`](super::history)): by whoever has it,
//! or takes it, however late.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

/// Shards that ended lately and are remembered. Of more, the last are named.
const ENDED_MAX: usize = 1_000;

/// What shards are done into, and how far they go back when that may have lost something.
#[derive(Clone, Debug)]
pub struct Rewind {
    /// How far a shard goes back at least: in time in which it was busy, and by its records' arrivals. More than can
    /// be lost, and what arrives so much later than what it repeats is told from the rest.
    pub by: Duration,
    /// Records that arrived within this time after the first of a shard that was rewound, or begun in the middle, are
    /// delivered as settling ([`Delivery::settling`](super::processor::Delivery::settling)).
    pub settle: Duration,
    /// The state of what they are done into: it never becomes again what it was. It is known when the consumer is
    /// made; a first value that stands for "not known yet" would have all shards rewound.
    pub target: watch::Receiver<String>,
}

/// What was rewound. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Rewinds(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    rewind: Option<Rewind>,
    /// Shards that this process read to their ends lately.
    ended: Mutex<VecDeque<EndedShard>>,
    shards_rewound: AtomicU64,
}

#[derive(Debug)]
struct EndedShard {
    at: Instant,
    shard: Arc<str>,
}

impl Rewinds {
    /// `None`: nothing is ever lost.
    pub(super) fn new(rewind: Option<Rewind>) -> Self {
        Self(Arc::new(Shared { rewind, ended: Mutex::default(), shards_rewound: AtomicU64::new(0) }))
    }

    /// Shards that this process rewound, each time counted.
    pub fn shards_rewound(&self) -> u64 {
        self.0.shards_rewound.load(Ordering::Relaxed)
    }

    /// How shards are rewound, if they are.
    pub(super) fn config(&self) -> Option<&Rewind> {
        self.0.rewind.as_ref()
    }

    /// The state that shards are done into now; `None` if nothing is ever lost.
    pub(super) fn target(&self) -> Option<String> {
        self.config().map(|rewind| rewind.target.borrow().clone())
    }

    /// Waits until what shards are done into has another state than `target`, and answers which.
    pub(super) async fn target_other_than(&self, target: Option<&str>) -> String {
        if let (Some(rewind), Some(target)) = (self.config(), target)
            && let Ok(other) = rewind.target.clone().wait_for(|now| now != target).await
        {
            return other.clone();
        }
        // Nothing is ever lost, or nobody tells any more.
        std::future::pending().await
    }

    /// A shard was rewound.
    pub(super) fn rewound(&self) {
        self.0.shards_rewound.fetch_add(1, Ordering::Relaxed);
    }

    /// A shard was read to its end by a tenure that did it into the state `target`.
    pub(super) fn ended(&self, shard: &Arc<str>, target: Option<&str>) {
        let Some(rewind) = self.config() else { return };
        let now = Instant::now();
        let mut ended = self.0.ended.lock();
        if ended.len() >= ENDED_MAX {
            ended.pop_front();
        }
        ended.push_back(EndedShard { at: now, shard: Arc::clone(shard) });
        drop(ended);
        // What it was done into changed while that was written: the shard was not there to be named.
        if target.is_some_and(|target| *rewind.target.borrow() != target) {
            self.name_the_ended();
        }
    }

    /// Names the shards that cannot be read again though what they had last may be lost.
    pub(super) fn name_the_ended(&self) {
        let Some(rewind) = self.config() else { return };
        let now = Instant::now();
        let ended: Vec<EndedShard> = self.0.ended.lock().drain(..).collect();
        let lately = ended.iter().filter(|ended| now.duration_since(ended.at) <= rewind.by);
        let shards: Vec<&str> = lately.map(|ended| &*ended.shard).collect();
        if !shards.is_empty() {
            tracing::error!(
                ?shards,
                "shards that ended lately cannot be read again: what they had last may be lost downstream; verify \
                 or backfill it"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn another_target_is_told_at_once_or_when_it_is_there_and_never_by_one_who_is_gone() {
        let (sender, target) = watch::channel("a".to_owned());
        let rewind = Rewind { by: Duration::from_secs(120), settle: Duration::from_secs(60), target };
        let rewinds = Rewinds::new(Some(rewind));
        assert_eq!(rewinds.target_other_than(Some("before")).await, "a");
        let waiting = rewinds.target_other_than(Some("a"));
        tokio::pin!(waiting);
        assert!(tokio::time::timeout(Duration::from_secs(1), &mut waiting).await.is_err());
        sender.send_replace("b".to_owned());
        assert_eq!(waiting.await, "b");
        assert_eq!(rewinds.target().as_deref(), Some("b"));
        drop(sender);
        let never = rewinds.target_other_than(Some("b"));
        assert!(tokio::time::timeout(Duration::from_secs(1), never).await.is_err());
        let without = Rewinds::new(None);
        let never = without.target_other_than(Some("b"));
        assert!(tokio::time::timeout(Duration::from_secs(1), never).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn the_ended_are_remembered_until_they_are_named_or_are_too_many() {
        let (_sender, target) = watch::channel("a".to_owned());
        let rewind = Rewind { by: Duration::from_secs(120), settle: Duration::from_secs(60), target };
        let rewinds = Rewinds::new(Some(rewind));
        let shard: Arc<str> = "s".into();
        (0..=ENDED_MAX).for_each(|_| rewinds.ended(&shard, Some("a")));
        assert_eq!(rewinds.0.ended.lock().len(), ENDED_MAX);
        rewinds.ended(&shard, Some("before"));
        assert!(rewinds.0.ended.lock().is_empty(), "it is named at once");
    }
}
