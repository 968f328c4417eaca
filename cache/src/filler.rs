//! Fills after a miss: take the key, read the master, fill.
//!
//! One flight for each key in this process: who asks for a key that is on its way joins it, whole. Keys go in
//! batches of one table, by a worker that the filler owns; what is too much, and everything while the master's
//! breaker is open, is shed. Who waits is answered as soon as the master is read; the fill lands after that.

mod flights;
mod batch;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::{sync::Notify, task::JoinSet};

pub(crate) use self::flights::Ticket;
use self::flights::{FillResult, Flights};
use crate::{
    cache::Cache,
    item_id::ItemId,
    master::{Master, MasterError},
    outcome::CacheError,
    shape::ShapeError,
};

/// The bounds of filling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FillerConfig {
    /// For how long a key is taken: nobody else reads the master for it. Longer than the master's `read_timeout`,
    /// or fills that come late are refused.
    pub hold: Duration,
    /// Keys waiting and being filled; further ones are shed. At least 1.
    pub keys_max: usize,
    /// Batches under way, each of up to 100 keys. At least 1.
    pub batches_max: usize,
}

impl Default for FillerConfig {
    fn default() -> Self {
        Self { hold: Duration::from_secs(5), keys_max: 10_000, batches_max: 16 }
    }
}

impl FillerConfig {
    /// What is wrong with it; each names the key. None: it can be used.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        let mut violations = Vec::new();
        if self.hold.is_zero() {
            violations.push("hold must be longer than 0".to_owned());
        }
        if self.keys_max == 0 {
            violations.push("keys_max must be at least 1".to_owned());
        }
        if self.batches_max == 0 {
            violations.push("batches_max must be at least 1".to_owned());
        }
        violations
    }
}

/// Fills a cache from the master tables. Clones share the flights and the bounds; the last one's drop ends the
/// fills under way, whose holds then run out by themselves.
#[derive(Clone)]
pub struct Filler {
    owner: Arc<Owner>,
}

struct Owner {
    shared: Arc<Shared>,
    /// The worker. It is aborted when this is dropped, and the batches under way with it.
    _worker: JoinSet<()>,
}

struct Shared {
    cache: Cache,
    master: Master,
    config: FillerConfig,
    flights: Mutex<Flights>,
    /// A key came into the queue.
    came: Notify,
    /// The last flight has ended.
    emptied: Notify,
    counters: Counters,
}

/// What a fill found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FillAnswer {
    /// The master has this item.
    Item(Filling),
    /// The master has no such item.
    Absent,
    /// The cache had an entry by then; these are its bytes.
    Present(Bytes),
    /// Another process fills it.
    Busy,
}

/// An item that was read from the master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filling {
    /// As the table's policy shapes it.
    pub payload: Bytes,
    /// The item's own expiry, ms since the Unix epoch.
    pub expires_ms: Option<u64>,
    /// The item was this at some time after this one, ms since the Unix epoch on the cache server's clock.
    pub read_ms: u64,
}

/// Why a key was not filled. Its readers go on missing: a miss is always safe.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FillError {
    /// It was not tried. It may be another time.
    #[error("the fill was not tried: {reason}")]
    Shed {
        /// Why.
        reason: FillShedReason,
    },
    /// The cache could not be asked for the key.
    #[error(transparent)]
    Cache(CacheError),
    /// The master was not read.
    #[error(transparent)]
    Master(MasterError),
    /// The item cannot be cached as its table's policy says.
    #[error("an item of table {table} cannot be cached: {error}")]
    Shape {
        /// The table.
        table: Arc<str>,
        /// Why.
        error: ShapeError,
    },
    /// The worker has ended: the runtime that it was made in is gone.
    #[error("fills have ended with the runtime that they were started in")]
    Stopped,
}

/// Why a fill was not tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FillShedReason {
    /// Reads of the master fail or are slow.
    #[error("the breaker is open, because too many reads of the master failed or were slow")]
    Breaker,
    /// As many keys wait or are under way as may.
    #[error("{keys_max} keys wait or are being filled already (keys_max)")]
    Full {
        /// The bound.
        keys_max: usize,
    },
}

/// What filling came to, since the start; in keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FillerStats {
    /// Filled with an item.
    pub installed: u64,
    /// Filled with the knowledge that there is no item.
    pub absent: u64,
    /// Refused by the cache: something came in between.
    pub refused: u64,
    /// The cache had an entry by then.
    pub present: u64,
    /// Another process was filling it.
    pub busy: u64,
    /// Not tried: too many, or the breaker was open.
    pub shed: u64,
    /// The cache or the master failed, or the item does not fit its table's policy.
    pub failed: u64,
    /// Waiting or being filled now.
    pub under_way: usize,
}

#[derive(Debug, Default)]
struct Counters {
    installed: AtomicU64,
    absent: AtomicU64,
    refused: AtomicU64,
    present: AtomicU64,
    busy: AtomicU64,
    shed: AtomicU64,
    failed: AtomicU64,
}

impl Filler {
    /// Starts the worker, in the current runtime.
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    #[must_use]
    pub fn new(cache: Cache, master: Master, config: FillerConfig) -> Self {
        let shared = Arc::new(Shared {
            cache,
            master,
            flights: Mutex::new(Flights::new(config.keys_max)),
            config,
            came: Notify::new(),
            emptied: Notify::new(),
            counters: Counters::default(),
        });
        let mut worker = JoinSet::new();
        worker.spawn(work(Arc::clone(&shared)));
        Self { owner: Arc::new(Owner { shared, _worker: worker }) }
    }

    /// Fills keys; one answer for each, in their order, as soon as the master is read. The fills land after that,
    /// also if this future is dropped. An answer may come from a read that began before this call, if the key was
    /// on its way already.
    pub async fn fill_many(&self, keys: &[ItemId]) -> Vec<Result<FillAnswer, FillError>> {
        let tickets = self.ask(keys.iter());
        let mut answers = Vec::with_capacity(tickets.len());
        for ticket in tickets {
            answers.push(ticket.wait().await);
        }
        answers
    }

    /// Fills keys that became invalid just now, in the background. How many were taken; the others are shed, and
    /// their next reader has them filled.
    pub fn offer(&self, keys: impl IntoIterator<Item = ItemId>) -> usize {
        let shared = &self.owner.shared;
        let admits = shared.master.admits();
        let (mut taken, mut shed) = (0, 0);
        {
            let mut flights = shared.flights.lock();
            for id in keys {
                match flights.offer(id, admits) {
                    true => taken += 1,
                    false => shed += 1,
                }
            }
        }
        shared.counters.shed.fetch_add(shed, Ordering::Relaxed);
        shared.came.notify_one();
        taken
    }

    /// Waits until nothing waits or is under way. It takes as long as the master takes: bound it.
    pub async fn idle(&self) {
        let shared = &self.owner.shared;
        loop {
            let emptied = shared.emptied.notified();
            tokio::pin!(emptied);
            emptied.as_mut().enable();
            if shared.flights.lock().len() == 0 {
                return;
            }
            emptied.await;
        }
    }

    /// What it came to, since the start.
    #[must_use]
    pub fn stats(&self) -> FillerStats {
        let shared = &self.owner.shared;
        let counters = &shared.counters;
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        FillerStats {
            installed: count(&counters.installed),
            absent: count(&counters.absent),
            refused: count(&counters.refused),
            present: count(&counters.present),
            busy: count(&counters.busy),
            shed: count(&counters.shed),
            failed: count(&counters.failed),
            under_way: shared.flights.lock().len(),
        }
    }

    /// The master that it reads.
    #[must_use]
    pub fn master(&self) -> &Master {
        &self.owner.shared.master
    }

    /// Joins a key's flight, if this process has one.
    pub(crate) fn join(&self, id: &ItemId) -> Option<Ticket> {
        self.owner.shared.flights.lock().join(id)
    }

    /// Has keys filled; each ticket has one key's answer.
    pub(crate) fn ask<'a>(&self, keys: impl ExactSizeIterator<Item = &'a ItemId>) -> Vec<Ticket> {
        let shared = &self.owner.shared;
        let admits = shared.master.admits();
        let tickets: Vec<Ticket> = {
            let mut flights = shared.flights.lock();
            keys.map(|id| flights.ask(id, admits)).collect()
        };
        let shed = tickets.iter().filter(|ticket| ticket.is_shed()).count();
        shared.counters.shed.fetch_add(shed as u64, Ordering::Relaxed);
        shared.came.notify_one();
        tickets
    }
}

impl std::fmt::Debug for Filler {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Filler").field("config", &self.owner.shared.config).finish_non_exhaustive()
    }
}

impl Ticket {
    pub(crate) async fn wait(self) -> FillResult {
        match self {
            Self::Known(answer) => answer,
            Self::Coming(receiver) => receiver.await.unwrap_or(Err(FillError::Stopped)),
        }
    }

    /// Its answer is not known yet.
    pub(crate) const fn is_coming(&self) -> bool {
        matches!(self, Self::Coming(_))
    }

    const fn is_shed(&self) -> bool {
        matches!(self, Self::Known(Err(FillError::Shed { .. })))
    }
}

impl Shared {
    /// Answers who waits for a key, and ends its flight.
    fn settle(&self, id: &ItemId, answer: &FillResult) {
        self.flights.lock().answer(id, answer);
        self.end(id);
    }

    fn end(&self, id: &ItemId) {
        let is_empty = {
            let mut flights = self.flights.lock();
            flights.end(id);
            flights.len() == 0
        };
        if is_empty {
            self.emptied.notify_waiters();
        }
    }
}

/// Starts batches while places are free and something waits. It ends when it is aborted.
async fn work(shared: Arc<Shared>) {
    let mut batches = JoinSet::new();
    loop {
        while batches.len() < shared.config.batches_max {
            let next = shared.flights.lock().begin(batch::KEYS_MAX);
            let Some((table, keys)) = next else { break };
            batches.spawn(batch::run(Arc::clone(&shared), table, keys));
        }
        tokio::select! {
            () = shared.came.notified() => {}
            Some(_) = batches.join_next() => {}
        }
    }
}
