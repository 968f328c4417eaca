//! Entries on their way to one stream, at the rate that each of its shards takes, and what the answers mean for both.
//! Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;
use warmcast_common::aws::CallError;
use warmcast_common::retry::{Backoff, Class};

use super::ProducerConfig;
use super::health::Health;
use super::queue::{Group, Queue};
use super::routes::{Routes, ShardId};
use crate::target::EntryAnswer;

/// Pauses of an entry that failed inside the service.
const ENTRY_PAUSE_FIRST: Duration = Duration::from_millis(50);
/// See [`ENTRY_PAUSE_FIRST`].
const ENTRY_PAUSE_MAX: Duration = Duration::from_secs(5);

/// What waits for one stream, and what is known of the stream.
#[derive(Debug)]
pub struct Paced<T> {
    /// What waits.
    pub queue: Queue<T>,
    /// Which shard a bucket is in.
    pub routes: Routes,
    /// Whether the region answers.
    pub health: Health,
}

/// What became of a request's entries. Those that did not land wait again.
#[derive(Debug)]
pub struct Settled<T> {
    /// The stream has these.
    pub landed: Vec<T>,
    /// So many were more than their shards take.
    pub throttled: usize,
    /// So many failed inside the service.
    pub failed: usize,
    /// What the first of those answers says.
    pub trouble: Option<String>,
}

/// What one shard took of a request, and what it did not.
#[derive(Default)]
struct Taken {
    taken: u32,
    throttled: u32,
}

impl<T> Paced<T> {
    /// Nothing waits, and nothing is known.
    pub fn new(config: &ProducerConfig) -> Self {
        Self {
            queue: Queue::new(config.shard_limits),
            routes: Routes::default(),
            health: Health::new(config.request_bytes_max),
        }
    }

    /// The answers to a request that was sent at `sent`: each entry gets what its answer says.
    pub fn settle(
        &mut self,
        group: Group<T>,
        answers: &[EntryAnswer],
        sent: Instant,
        now: Instant,
    ) -> Settled<T> {
        let (mut by_shard, mut news) = (BTreeMap::<Option<ShardId>, Taken>::new(), false);
        let is_progress = answers.iter().any(|answer| !matches!(answer, EntryAnswer::Failed { .. }));
        let mut settled = Settled { landed: Vec::new(), throttled: 0, failed: 0, trouble: None };
        for (mut entry, answer) in group.entries.into_iter().zip(answers) {
            match answer {
                EntryAnswer::Taken { shard } => {
                    news |= self.routes.learn(entry.bucket, shard, sent, now);
                    by_shard.entry(self.routes.paced(Some(shard), entry.bucket)).or_default().taken += 1;
                    settled.landed.push(entry.payload);
                }
                EntryAnswer::Throttled { shard, error } => {
                    settled.trouble.get_or_insert_with(|| error.clone());
                    if let Some(shard) = shard {
                        news |= self.routes.learn(entry.bucket, shard, sent, now);
                    }
                    let shard = self.routes.paced(shard.as_deref(), entry.bucket);
                    by_shard.entry(shard).or_default().throttled += 1;
                    settled.throttled += 1;
                    entry.tries += 1;
                    self.queue.put_back(entry, &self.routes, now);
                }
                EntryAnswer::Failed { error } => {
                    settled.trouble.get_or_insert_with(|| error.clone());
                    settled.failed += 1;
                    entry.tries += 1;
                    let pause = entry_pause(entry.tries);
                    self.queue.rest(entry, now + pause);
                }
            }
        }
        if news {
            self.queue.route(&self.routes, now);
        }
        for (shard, Taken { taken, throttled }) in by_shard {
            match throttled {
                0 => self.queue.on_taken(shard.as_ref(), &self.routes, now),
                _ => {
                    let part = f64::from(taken) / f64::from(taken + throttled);
                    self.queue.on_throttled(shard.as_ref(), sent, part, &self.routes, now);
                }
            }
        }
        match is_progress {
            true => self.health.on_answer(),
            false => self.health.on_failure(sent, now),
        }
        settled
    }

    /// The request failed as a whole: its entries wait again, to be part of other requests.
    pub fn send_again(&mut self, group: Group<T>, error: &CallError, sent: Instant, now: Instant) {
        match error.class {
            Class::Throttled => self.health.on_throttled(now),
            _ => self.health.on_failure(sent, now),
        }
        for mut entry in group.entries {
            entry.tries += 1;
            self.queue.put_back(entry, &self.routes, now);
        }
    }
}

fn entry_pause(tries: u32) -> Duration {
    let first = ENTRY_PAUSE_FIRST * 2_u32.saturating_pow(tries.saturating_sub(1).min(10));
    Backoff::new(first, ENTRY_PAUSE_MAX).next_pause()
}
