//! One BatchGetItem, and what becomes of its keys: answered, sent again, or given up in time.
//!
//! DynamoDB may answer a part only: what was throttled or beyond 16 MB comes back as unprocessed. A call that is
//! refused for one wrong key is sent again in halves, so that the key fails alone.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use aws_sdk_dynamodb::{
    operation::batch_get_item::BatchGetItemOutput,
    types::{AttributeValue, KeysAndAttributes, ReturnConsumedCapacity},
};
use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout};
use warmcast_proto::item::{self, Item};

use super::{
    Shared,
    breaker::{Permit, Verdict},
    budget::units_of,
    error::{Failure, MasterError},
    item::item as item_of,
    state::{Batch, Waiter},
};
use crate::backoff::Backoff;

/// Between tries of what passes: throttling needs tens of milliseconds, and a key has seconds.
const PAUSE_FIRST: Duration = Duration::from_millis(25);
const PAUSE_MAX: Duration = Duration::from_millis(400);

pub(super) struct Call {
    shared: Arc<Shared>,
    batch: Batch,
}

/// What one try left undone.
enum Left {
    /// These keys, some others having been answered.
    Unprocessed(Vec<Bytes>),
    /// All of them; it may pass.
    All(Failure),
    /// All of them; one may be at fault.
    Divide(Failure),
}

impl Call {
    pub(super) const fn new(shared: Arc<Shared>, batch: Batch) -> Self {
        Self { shared, batch }
    }

    /// Answers every key, by the latest deadline of those who wait.
    pub(super) async fn run(mut self) {
        let mut parts: Vec<Vec<Bytes>> = vec![self.batch.waiters.keys().cloned().collect()];
        let mut backoff = Backoff::new(PAUSE_FIRST, PAUSE_MAX);
        let mut is_first = true;
        while let Some(keys) = parts.pop() {
            if !is_first && !self.may_go_on(&keys).await {
                continue;
            }
            is_first = false;
            let again = match self.attempt(&keys).await {
                Left::Unprocessed(left) => {
                    if left.len() < keys.len() {
                        backoff.reset();
                    }
                    left
                }
                Left::Divide(_) if keys.len() > 1 => {
                    let (first, second) = keys.split_at(keys.len() / 2);
                    parts.extend([second.to_vec(), first.to_vec()]);
                    continue;
                }
                Left::Divide(failure) => {
                    // A key that passed our own check: what we know of the table may be outdated.
                    self.shared.schemas.forget(&self.batch.table);
                    self.fail(&keys, failure);
                    continue;
                }
                Left::All(failure) if failure.class.passes() && Instant::now() < self.batch.deadline => keys,
                Left::All(failure) => {
                    self.fail(&keys, failure);
                    continue;
                }
            };
            if !again.is_empty() {
                self.shared.counters.keys_sent_again.fetch_add(again.len() as u64, Ordering::Relaxed);
                sleep(backoff.next_pause()).await;
                parts.push(again);
            }
        }
    }

    /// Before a further try: somebody still waits, the budget allows it in time, the breaker is closed.
    async fn may_go_on(&mut self, keys: &[Bytes]) -> bool {
        loop {
            let now = Instant::now();
            let wait = self.shared.state.lock().budget_wait(now);
            if now + wait >= self.batch.deadline {
                self.answer_all(keys, &self.shared.timeout(&self.batch.table));
                return false;
            }
            if wait.is_zero() {
                break;
            }
            sleep(wait).await;
        }
        let permit = self.shared.state.lock().begin(keys.len(), Instant::now());
        match permit {
            Ok(permit) => {
                self.batch.permit = permit;
                true
            }
            Err(reason) => {
                let table = Arc::clone(&self.batch.table);
                self.answer_all(keys, &MasterError::Shed { table, reason });
                false
            }
        }
    }

    async fn attempt(&mut self, keys: &[Bytes]) -> Left {
        let shared = Arc::clone(&self.shared);
        let keys_and_attributes = match self.request(keys) {
            Ok(request) => request,
            Err(error) => {
                // Keys are checked before they are queued, so this is for completeness.
                self.ended(Verdict::Good, keys.len(), Some(0.0));
                self.answer_all(keys, &error);
                return Left::Unprocessed(Vec::new());
            }
        };
        shared.counters.calls.fetch_add(1, Ordering::Relaxed);
        let call_timeout = shared.config.call_timeout;
        let started = Instant::now();
        let call = shared
            .client
            .batch_get_item()
            .request_items(&*self.batch.table, keys_and_attributes)
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .send();
        let answer = match timeout(call_timeout, call).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(Failure::new(&error)),
            Err(_) => Err(Failure::timeout(call_timeout)),
        };
        let took = started.elapsed();
        shared.counters.call_seconds.observe(took.as_secs_f64());
        let is_slow = took >= shared.config.breaker.slow_after;
        match answer {
            Ok(answer) => self.read(keys, answer, is_slow),
            Err(failure) => {
                // What DynamoDB says of one table or one key says nothing about DynamoDB.
                let is_service =
                    matches!(failure.class, super::FailureClass::NotFound | super::FailureClass::Permanent);
                let verdict = if is_service && !is_slow { Verdict::Good } else { Verdict::Bad };
                self.ended(verdict, keys.len(), None);
                if failure.is_validation() { Left::Divide(failure) } else { Left::All(failure) }
            }
        }
    }

    fn request(&self, keys: &[Bytes]) -> Result<KeysAndAttributes, MasterError> {
        let table = || Arc::clone(&self.batch.table);
        let attributes = keys.iter().map(|key| self.batch.schema.attributes(key));
        let attributes: Vec<_> = attributes
            .collect::<Result<_, _>>()
            .map_err(|reason| MasterError::Key { table: table(), reason })?;
        let request = KeysAndAttributes::builder().consistent_read(true).set_keys(Some(attributes)).build();
        request.map_err(|error| MasterError::Answer { table: table(), what: error.to_string().into() })
    }

    /// Answers the keys that were processed.
    fn read(&mut self, keys: &[Bytes], answer: BatchGetItemOutput, is_slow: bool) -> Left {
        let consumed = answer.consumed_capacity.as_ref().map(|consumed| {
            consumed.iter().filter_map(aws_sdk_dynamodb::types::ConsumedCapacity::capacity_units).sum::<f64>()
        });
        let unprocessed = self.unprocessed(&answer);
        let mut missing: HashSet<&Bytes> = keys.iter().filter(|key| !unprocessed.contains(*key)).collect();
        let (processed, mut units, mut strangers) = (missing.len(), 0.0, 0_usize);
        for row in answer.responses.into_iter().flat_map(HashMap::into_values).flatten() {
            let key = self.batch.schema.canonical(&row);
            let Some(key) = key.filter(|key| missing.remove(key)) else {
                strangers += 1;
                continue;
            };
            let read = self.item(row);
            if consumed.is_none() {
                units += read.as_ref().map_or(0.0, |item| units_of(item::encode(item).len()));
            }
            self.answer(&key, read.map(Some));
        }
        units += units_of(0) * missing.len() as f64;
        let missing: Vec<Bytes> = missing.into_iter().cloned().collect();
        for key in missing {
            // Not in the answer and not unprocessed: there is no such item. Unless an item came that nobody asked
            // for: then it may be this one, under another name.
            let absent = if strangers == 0 {
                Ok(None)
            } else {
                let what = "BatchGetItem answered with an item that was not asked for".into();
                Err(MasterError::Answer { table: Arc::clone(&self.batch.table), what })
            };
            self.answer(&key, absent);
        }
        let is_bad = is_slow || processed == 0;
        let verdict = if is_bad { Verdict::Bad } else { Verdict::Good };
        self.ended(verdict, keys.len(), Some(consumed.unwrap_or(units)));
        let left = keys.iter().filter(|key| unprocessed.contains(*key)).cloned().collect();
        Left::Unprocessed(left)
    }

    fn unprocessed(&self, answer: &BatchGetItemOutput) -> HashSet<Bytes> {
        let keys = answer.unprocessed_keys.iter().flat_map(HashMap::values).flat_map(KeysAndAttributes::keys);
        keys.filter_map(|key| self.batch.schema.canonical(key)).collect()
    }

    fn item(&self, row: HashMap<String, AttributeValue>) -> Result<Item, MasterError> {
        item_of(row).map_err(|unknown| MasterError::Answer {
            table: Arc::clone(&self.batch.table),
            what: format!("attribute {} has a type that this version does not know", unknown.attribute)
                .into(),
        })
    }

    fn ended(&self, verdict: Verdict, keys: usize, units: Option<f64>) {
        if let Some(units) = units {
            self.shared.counters.spend(units);
        }
        let permit: &Permit = &self.batch.permit;
        self.shared.state.lock().end(permit, verdict, keys, units, Instant::now());
    }

    fn fail(&mut self, keys: &[Bytes], failure: Failure) {
        self.shared.counters.keys_failed.fetch_add(keys.len() as u64, Ordering::Relaxed);
        let table = Arc::clone(&self.batch.table);
        self.answer_all(keys, &MasterError::Call { operation: "BatchGetItem", table, failure });
    }

    fn answer_all(&mut self, keys: &[Bytes], error: &MasterError) {
        for key in keys {
            self.answer(key, Err(error.clone()));
        }
    }

    fn answer(&mut self, key: &Bytes, answer: Result<Option<Item>, MasterError>) {
        let counters = &self.shared.counters;
        if answer.is_ok() {
            counters.keys_read.fetch_add(1, Ordering::Relaxed);
        }
        let mut waiters = self.batch.waiters.remove(key).unwrap_or_default();
        let last = waiters.pop();
        let send = |waiter: Waiter, answer| {
            // Who stopped waiting needs no answer.
            let _ = waiter.send(answer);
        };
        for waiter in waiters {
            send(waiter, answer.clone());
        }
        if let Some(waiter) = last {
            send(waiter, answer);
        }
    }
}
