//! What waits for the master, and whether it may go. Pure but for the channels of those who wait.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{sync::oneshot, time::Instant};
use warmcast_proto::item::Item;

use super::{
    breaker::{Breaker, Permit, Verdict},
    budget::Budget,
    config::{KEYS_PER_CALL_MAX, MasterConfig},
    error::{MasterError, ShedReason},
    key::KeySchema,
};
use crate::{item_id::ItemId, table_queue::TableQueue};

/// Gets one key's answer.
pub(super) type Waiter = oneshot::Sender<Result<Option<Item>, MasterError>>;

/// What a call reads.
pub(super) struct Batch {
    pub(super) table: Arc<str>,
    pub(super) schema: Arc<KeySchema>,
    /// Everybody who waits for a key, by key.
    pub(super) waiters: HashMap<Bytes, Vec<Waiter>>,
    /// The latest time at which somebody waits.
    pub(super) deadline: Instant,
    pub(super) permit: Permit,
}

/// What may be done now.
pub(super) enum Next {
    /// This call.
    Batch(Batch),
    /// Nothing for so long: the budget is spent.
    Wait(Duration),
    /// Nothing waits.
    Idle,
}

pub(super) struct State {
    config: MasterConfig,
    queue: TableQueue,
    /// Of every key in the queue.
    waiting: HashMap<ItemId, Waiting>,
    breaker: Breaker,
    budget: Budget,
    shed: u64,
}

struct Waiting {
    schema: Arc<KeySchema>,
    waiters: Vec<Waiter>,
    deadline: Instant,
}

impl State {
    pub(super) fn new(config: MasterConfig, now: Instant) -> Self {
        Self {
            queue: TableQueue::default(),
            waiting: HashMap::new(),
            breaker: Breaker::new(config.breaker.clone()),
            budget: Budget::new(config.read_units_per_second_max, now),
            shed: 0,
            config,
        }
    }

    /// Keys that wait.
    pub(super) const fn len(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn admits(&self, now: Instant) -> bool {
        self.breaker.admits(now)
    }

    /// Reads that were not tried, and openings of the breaker.
    pub(super) const fn counts(&self) -> (u64, u64) {
        (self.shed, self.breaker.opened())
    }

    /// Has somebody wait for a key. Who waits for it already shares the read: it has not begun yet.
    pub(super) fn push(
        &mut self,
        id: &ItemId,
        schema: &Arc<KeySchema>,
        deadline: Instant,
        waiter: Waiter,
        now: Instant,
    ) {
        if let Some(waiting) = self.waiting.get_mut(id) {
            waiting.waiters.push(waiter);
            waiting.deadline = waiting.deadline.max(deadline);
            return;
        }
        let keys_max = self.config.queue_keys_max;
        let reason = if !self.breaker.admits(now) {
            Some(ShedReason::Breaker { retry_after: self.config.breaker.open_for })
        } else if self.queue.len() >= keys_max {
            Some(ShedReason::QueueFull { keys_max })
        } else {
            None
        };
        if let Some(reason) = reason {
            self.shed += 1;
            // Who stopped waiting needs no answer.
            let _ = waiter.send(Err(MasterError::Shed { table: Arc::clone(&id.table), reason }));
            return;
        }
        self.queue.push(id.clone());
        let waiting = Waiting { schema: Arc::clone(schema), waiters: vec![waiter], deadline };
        self.waiting.insert(id.clone(), waiting);
    }

    /// What to do now. Keys that nobody waits for any more are passed over.
    pub(super) fn next(&mut self, now: Instant) -> Next {
        loop {
            if self.queue.is_empty() {
                return Next::Idle;
            }
            let wait = self.budget.wait(now);
            if !wait.is_zero() {
                return Next::Wait(wait);
            }
            if !self.breaker.admits(now) {
                self.shed_all();
                return Next::Idle;
            }
            let Some((table, keys)) = self.queue.pop_batch(KEYS_PER_CALL_MAX) else { return Next::Idle };
            if let Some(batch) = self.batch(table, keys, now) {
                return Next::Batch(batch);
            }
        }
    }

    fn batch(&mut self, table: Arc<str>, keys: Vec<Bytes>, now: Instant) -> Option<Batch> {
        let (mut waiters, mut schema, mut deadline) = (HashMap::with_capacity(keys.len()), None, now);
        for key in keys {
            let id = ItemId { table: Arc::clone(&table), key };
            let Some(mut waiting) = self.waiting.remove(&id) else { continue };
            waiting.waiters.retain(|waiter| !waiter.is_closed());
            if waiting.waiters.is_empty() || waiting.deadline <= now {
                continue;
            }
            deadline = deadline.max(waiting.deadline);
            schema = Some(waiting.schema);
            waiters.insert(id.key, waiting.waiters);
        }
        let schema = schema?;
        let permit = self.begin(waiters.len(), now).ok()?;
        Some(Batch { table, schema, waiters, deadline, permit })
    }

    /// A call is about to start, or to be sent again: for so many keys.
    pub(super) fn begin(&mut self, keys: usize, now: Instant) -> Result<Permit, ShedReason> {
        let permit = self.breaker.admit(now).map_err(|retry_after| ShedReason::Breaker { retry_after });
        match &permit {
            Ok(_) => self.budget.charge(estimate(keys), now),
            Err(_) => self.shed += keys as u64,
        }
        permit
    }

    /// How long the budget asks to wait.
    pub(super) fn budget_wait(&mut self, now: Instant) -> Duration {
        self.budget.wait(now)
    }

    /// A call has ended: what it was, and the units that it took if it is known.
    pub(super) fn end(
        &mut self,
        permit: &Permit,
        verdict: Verdict,
        keys: usize,
        units: Option<f64>,
        now: Instant,
    ) {
        self.breaker.record(permit, verdict, now);
        if let Some(units) = units {
            self.budget.charge(units - estimate(keys), now);
        }
    }

    /// Forgets the keys that nobody waits for any more: they take places in the queue.
    pub(super) fn purge(&mut self, now: Instant) {
        let waiting = &mut self.waiting;
        self.queue.retain(|id| {
            let is_wanted = waiting.get(id).is_some_and(|waiting| {
                waiting.deadline > now && waiting.waiters.iter().any(|waiter| !waiter.is_closed())
            });
            if !is_wanted {
                waiting.remove(id);
            }
            is_wanted
        });
    }

    fn shed_all(&mut self) {
        let reason = ShedReason::Breaker { retry_after: self.config.breaker.open_for };
        self.queue = TableQueue::default();
        for (id, waiting) in self.waiting.drain() {
            self.shed += 1;
            for waiter in waiting.waiters {
                let _ = waiter.send(Err(MasterError::Shed { table: Arc::clone(&id.table), reason }));
            }
        }
    }
}

/// Before a call: a unit for each key, as small items take.
fn estimate(keys: usize) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "at most 100")]
    let units = keys as f64;
    units
}
