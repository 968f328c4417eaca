//! The master tables, read strongly consistent: what a fill puts into the cache.
//!
//! Keys of all callers wait in one queue and go out as BatchGetItem calls, as full as the queue is when a place is
//! free. It spares the master, which everything else depends on: few calls at a time, a budget of read units, and
//! a breaker that sheds reads while calls fail or are slow. A read begins after it was asked for, never before:
//! that is what makes it good for a fill (rule 3 of the cache protocol).
//!
//! Modules in the order in which a key meets them: its table's `schemas` turn it into a `key` of DynamoDB; the
//! `state` has it wait, asks `breaker` and `budget`, and gives out batches; a `call` reads one and turns each row
//! into an `item`. A `scan` walks through a whole table, under the same bounds.

mod config;
mod error;
mod key;
mod schemas;
mod breaker;
mod budget;
mod state;
mod item;
mod call;
mod scan;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use aws_sdk_dynamodb::Client;
use parking_lot::Mutex;
use prometheus_client::metrics::histogram::Histogram;
use tokio::{
    sync::{Notify, oneshot},
    task::JoinSet,
    time::{Instant, sleep, timeout_at},
};
use warmcast_proto::{item::Item, key_text::KeyShape};

pub(crate) use self::config::KEYS_PER_CALL_MAX;
use self::{
    call::Call,
    schemas::Schemas,
    state::{Next, State},
};
pub use self::{
    config::{BreakerConfig, MasterConfig},
    error::{Failure, FailureClass, MasterError, ShedReason},
    key::KeyError,
    scan::{SEGMENTS_MAX, ScanPage, ScanPlace, Segment},
};
use crate::item_id::ItemId;

/// How often keys that nobody waits for any more are taken out of the queue, while it stands.
const PURGE_INTERVAL: Duration = Duration::from_millis(100);

/// Upper bounds of the time that a call takes, in seconds: from a region's own network to the other side of the world.
const CALL_SECONDS: [f64; 12] = [0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// Reads the master tables. Clones share the queue and the bounds; the last one's drop ends the calls under way.
#[derive(Clone)]
pub struct Master {
    owner: Arc<Owner>,
}

struct Owner {
    shared: Arc<Shared>,
    /// The worker. It is aborted when this is dropped, and the calls under way with it.
    _worker: JoinSet<()>,
}

struct Shared {
    client: Client,
    config: MasterConfig,
    schemas: Schemas,
    state: Mutex<State>,
    /// Something came into the queue.
    came: Notify,
    counters: Counters,
}

/// What reading the master came to, since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct MasterStats {
    /// Calls of BatchGetItem.
    pub calls: u64,
    /// Keys answered: with an item, or with the knowledge that there is none.
    pub keys_read: u64,
    /// Keys sent again because DynamoDB did not process them or the call failed.
    pub keys_sent_again: u64,
    /// Keys given up because their call failed.
    pub keys_failed: u64,
    /// Keys not tried: the breaker was open or the queue full.
    pub keys_shed: u64,
    /// Keys that had no answer in time.
    pub keys_timed_out: u64,
    /// Keys that wait for a call now.
    pub keys_waiting: usize,
    /// Read request units spent.
    pub read_units: f64,
    /// How often the breaker opened.
    pub breaker_opened: u64,
    /// The breaker is open, or its probes are under way.
    pub is_shedding: bool,
}

#[derive(Debug)]
struct Counters {
    calls: AtomicU64,
    keys_read: AtomicU64,
    keys_sent_again: AtomicU64,
    keys_failed: AtomicU64,
    keys_timed_out: AtomicU64,
    /// In tenths: DynamoDB counts in halves.
    read_unit_tenths: AtomicU64,
    /// Of calls that were answered and of those that were not.
    call_seconds: Histogram,
}

/// A read that was begun.
pub(crate) struct Read {
    answer: Answer,
    deadline: Instant,
}

enum Answer {
    Known(MasterError),
    Coming(oneshot::Receiver<Result<Option<Item>, MasterError>>, ItemId),
}

impl Master {
    /// Starts the worker, in the current runtime. `client` must have the SDK's own retries off: retries are made
    /// here, within the budget. It needs the permissions `dynamodb:BatchGetItem` and `dynamodb:DescribeTable`.
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    #[must_use]
    pub fn new(client: Client, config: MasterConfig) -> Self {
        let state = Mutex::new(State::new(config.clone(), Instant::now()));
        let shared = Arc::new(Shared {
            client,
            config,
            schemas: Schemas::default(),
            state,
            came: Notify::new(),
            counters: Counters::default(),
        });
        let mut worker = JoinSet::new();
        worker.spawn(work(Arc::clone(&shared)));
        Self { owner: Arc::new(Owner { shared, _worker: worker }) }
    }

    /// Reads items, each strongly consistent and begun after this call; one answer for each key, in the keys'
    /// order. `None`: there is no such item. Each answer comes within `read_timeout`.
    pub async fn read_many(&self, keys: &[ItemId]) -> Vec<Result<Option<Item>, MasterError>> {
        let reads = self.begin(keys).await;
        let mut answers = Vec::with_capacity(reads.len());
        for read in reads {
            answers.push(self.finish(read).await);
        }
        answers
    }

    /// How the keys of a table are written by people.
    ///
    /// # Errors
    /// The table cannot be described.
    pub async fn key_shape(&self, table: &Arc<str>) -> Result<KeyShape, MasterError> {
        let shared = &self.owner.shared;
        Ok(shared.schemas.get(&shared.client, table, shared.config.call_timeout).await?.shape())
    }

    /// Whether a read would be tried now: false while the breaker is open.
    #[must_use]
    pub fn admits(&self) -> bool {
        self.owner.shared.state.lock().admits(Instant::now())
    }

    /// What it came to, since the start.
    #[must_use]
    pub fn stats(&self) -> MasterStats {
        let shared = &self.owner.shared;
        let (keys_shed, breaker_opened, keys_waiting, is_shedding) = {
            let state = shared.state.lock();
            let (shed, opened) = state.counts();
            (shed, opened, state.len(), !state.admits(Instant::now()))
        };
        let counters = &shared.counters;
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        #[expect(clippy::cast_precision_loss, reason = "exact up to 2^52 tenths")]
        let read_units = count(&counters.read_unit_tenths) as f64 / 10.0;
        MasterStats {
            calls: count(&counters.calls),
            keys_read: count(&counters.keys_read),
            keys_sent_again: count(&counters.keys_sent_again),
            keys_failed: count(&counters.keys_failed),
            keys_shed,
            keys_waiting,
            keys_timed_out: count(&counters.keys_timed_out),
            read_units,
            breaker_opened,
            is_shedding,
        }
    }

    /// How long calls of BatchGetItem took, in seconds, those that failed included.
    #[must_use]
    pub fn call_seconds(&self) -> &Histogram {
        &self.owner.shared.counters.call_seconds
    }

    pub(crate) fn config(&self) -> &MasterConfig {
        &self.owner.shared.config
    }

    /// Has keys wait for their calls; [`finish`](Self::finish) has each one's answer.
    pub(crate) async fn begin(&self, keys: &[ItemId]) -> Vec<Read> {
        let shared = &self.owner.shared;
        let deadline = Instant::now() + shared.config.read_timeout;
        let mut reads = Vec::with_capacity(keys.len());
        for keys in keys.chunk_by(|a, b| a.table == b.table) {
            let Some(table) = keys.first().map(|id| &id.table) else { continue };
            let schema = match shared.schemas.get(&shared.client, table, shared.config.call_timeout).await {
                Ok(schema) => schema,
                Err(error) => {
                    reads
                        .extend(keys.iter().map(|_| Read { answer: Answer::Known(error.clone()), deadline }));
                    continue;
                }
            };
            let mut state = shared.state.lock();
            for id in keys {
                let answer = match schema.attributes(&id.key) {
                    Err(reason) => Answer::Known(MasterError::Key { table: Arc::clone(table), reason }),
                    Ok(_) => {
                        let (waiter, receiver) = oneshot::channel();
                        state.push(id, &schema, deadline, waiter, Instant::now());
                        Answer::Coming(receiver, id.clone())
                    }
                };
                reads.push(Read { answer, deadline });
            }
        }
        shared.came.notify_one();
        reads
    }

    pub(crate) async fn finish(&self, read: Read) -> Result<Option<Item>, MasterError> {
        let (receiver, id) = match read.answer {
            Answer::Known(error) => return Err(error),
            Answer::Coming(receiver, id) => (receiver, id),
        };
        let shared = &self.owner.shared;
        match timeout_at(read.deadline, receiver).await {
            Ok(Ok(answer)) => answer,
            Err(_) => {
                shared.counters.keys_timed_out.fetch_add(1, Ordering::Relaxed);
                Err(shared.timeout(&id.table))
            }
            // Its batch was dropped: passed over at its deadline, or with the worker.
            Ok(Err(_)) if Instant::now() >= read.deadline => Err(shared.timeout(&id.table)),
            Ok(Err(_)) => Err(MasterError::Stopped),
        }
    }
}

impl std::fmt::Debug for Master {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Master").field("config", self.config()).finish_non_exhaustive()
    }
}

impl Shared {
    fn timeout(&self, table: &Arc<str>) -> MasterError {
        MasterError::Timeout { table: Arc::clone(table), after: self.config.read_timeout }
    }
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            calls: AtomicU64::new(0),
            keys_read: AtomicU64::new(0),
            keys_sent_again: AtomicU64::new(0),
            keys_failed: AtomicU64::new(0),
            keys_timed_out: AtomicU64::new(0),
            read_unit_tenths: AtomicU64::new(0),
            call_seconds: Histogram::new(CALL_SECONDS),
        }
    }
}

impl Counters {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small and not negative")]
    fn spend(&self, units: f64) {
        self.read_unit_tenths.fetch_add((units.max(0.0) * 10.0) as u64, Ordering::Relaxed);
    }
}

/// Starts calls while places are free and something waits. It ends when it is aborted.
async fn work(shared: Arc<Shared>) {
    let mut calls = JoinSet::new();
    loop {
        let mut pause = PURGE_INTERVAL;
        while calls.len() < shared.config.calls_max {
            let next = shared.state.lock().next(Instant::now());
            match next {
                Next::Batch(batch) => {
                    calls.spawn(Call::new(Arc::clone(&shared), batch).run());
                }
                Next::Wait(wait) => {
                    pause = pause.min(wait);
                    break;
                }
                Next::Idle => break,
            }
        }
        let is_standing = shared.state.lock().len() > 0;
        tokio::select! {
            () = shared.came.notified() => {}
            Some(_) = calls.join_next() => {}
            () = sleep(pause), if is_standing => shared.state.lock().purge(Instant::now()),
        }
    }
}
