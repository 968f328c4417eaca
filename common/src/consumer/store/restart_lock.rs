//! The restart lock: one worker of a fleet is restarted at a time.
//!
//! One item. Who takes it waits before until the fleet is settled, restarts a worker, and waits until it is back
//! (`upgrade.rs`). It is renewed while it is held, and ends by itself at its `until_ms`: the holder's clock plus
//! [`RESTART_LOCK`], judged by the clock of who looks. What is taken for granted: the clocks differ by less than it lasts
//! beyond a renewal (50 s); if they do not, two workers may restart at once, which loses nothing.
//!
//! Every change is one conditional write of the whole item as it was read: what is decided here by pure functions is done
//! by one of those who decide, or by nobody. `fence` grows with each holder, so that one who was held up for longer than
//! the lock lasts finds out by its next renewal. A worker whose restart was not seen to end well stays named, also while
//! it is restarted again, until it is seen to live or given up: who is next does not go on over it.

use std::collections::BTreeSet;

use aws_sdk_dynamodb::types::AttributeValue;

use super::item::{Attributes, Item, key, n, new_item, s};
use super::{StateStore, StoreError};
use crate::aws::CallError;
use crate::limits::RESTART_LOCK;

const PARTITION: &str = "locks";
const SORT: &str = "restart";

/// The lock as it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RestartLock {
    /// Grows with each holder. 0: nobody ever had it.
    pub fence: u64,
    /// Who has it, or had it until it ended by itself.
    pub holder: Option<LockHolder>,
    /// The workers whose restart was begun and not seen to end well. The present holder's is among them if that was so
    /// when it took the lock.
    pub unfinished: BTreeSet<String>,
}

/// Who has the restart lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockHolder {
    /// A name for the process that has it, different from every other's.
    pub owner: String,
    /// The worker that it restarts.
    pub worker: String,
    /// Since when: milliseconds since the epoch, by its clock.
    pub since_ms: u64,
    /// When it ends by itself.
    pub until_ms: u64,
}

impl LockHolder {
    /// Whether it has the lock. One that has it for longer than anybody can is of a wrong clock, and nobody waits for it.
    pub fn is_live(&self, now_ms: u64) -> bool {
        let ahead = self.until_ms.saturating_sub(now_ms);
        ahead > 0 && ahead <= 2 * lock_ms()
    }
}

impl RestartLock {
    /// Who has it now.
    pub fn held_by(&self, now_ms: u64) -> Option<&LockHolder> {
        self.holder.as_ref().filter(|holder| holder.is_live(now_ms))
    }

    /// The workers whose restart was begun, by whoever does not have the lock any more, and not seen to end well.
    pub fn left_behind(&self, now_ms: u64) -> BTreeSet<String> {
        let mut workers = self.unfinished.clone();
        let gone = self.holder.as_ref().filter(|holder| !holder.is_live(now_ms));
        workers.extend(gone.map(|holder| holder.worker.clone()));
        workers
    }

    /// As it is when `owner` takes it for a restart of `worker`; `None` while another has it.
    pub fn taken(&self, owner: &str, worker: &str, now_ms: u64) -> Option<Self> {
        if self.held_by(now_ms).is_some() {
            return None;
        }
        let unfinished = self.left_behind(now_ms);
        let holder = LockHolder {
            owner: owner.to_owned(),
            worker: worker.to_owned(),
            since_ms: now_ms,
            until_ms: now_ms.saturating_add(lock_ms()),
        };
        Some(Self { fence: self.fence + 1, holder: Some(holder), unfinished })
    }

    /// As it is when these workers are given up: nobody waits for them any more.
    #[must_use]
    pub fn without(mut self, lost: &[String]) -> Self {
        self.unfinished.retain(|worker| !lost.contains(worker));
        self
    }

    /// As it is when its holder renews it.
    #[must_use]
    pub fn renewed(&self, now_ms: u64) -> Self {
        let until_ms = now_ms.saturating_add(lock_ms());
        let holder = self.holder.clone().map(|holder| LockHolder { until_ms, ..holder });
        Self { holder, ..self.clone() }
    }

    /// As it is when its holder gives it up. `done`: whether what it did to its worker needs no looking after, because that
    /// is back or because nothing was done; `living`: workers that were seen to live since.
    #[must_use]
    pub fn released(&self, done: bool, living: &BTreeSet<String>) -> Self {
        let mut unfinished: BTreeSet<String> = self.unfinished.difference(living).cloned().collect();
        unfinished.extend(self.holder.as_ref().filter(|_| !done).map(|holder| holder.worker.clone()));
        Self { fence: self.fence, holder: None, unfinished }
    }
}

fn lock_ms() -> u64 {
    u64::try_from(RESTART_LOCK.as_millis()).unwrap_or(u64::MAX)
}

impl StateStore {
    /// The restart lock; one that nobody ever had is free.
    ///
    /// # Errors
    /// When the call fails or the item is not the lock.
    pub async fn restart_lock(&self) -> Result<RestartLock, StoreError> {
        let item = self.get(key(PARTITION, SORT)).await?;
        let read = |attributes| read(&Item { table: self.table(), attributes });
        item.as_ref().map_or_else(|| Ok(RestartLock::default()), read)
    }

    /// Writes `after`, if the lock is still as `before` says. Returns whether it was.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn change_restart_lock(
        &self,
        before: &RestartLock,
        after: &RestartLock,
    ) -> Result<bool, CallError> {
        if before.fence == 0 {
            return self.put_new(item_of(after)).await;
        }
        let put = self
            .client
            .put_item()
            .table_name(&self.table)
            .set_item(Some(item_of(after)))
            .expression_attribute_values(":fence", n(before.fence));
        let put = match &before.holder {
            Some(holder) => put
                .condition_expression("fence = :fence AND until_ms = :until")
                .expression_attribute_values(":until", n(holder.until_ms)),
            None => put.condition_expression("fence = :fence AND attribute_not_exists(until_ms)"),
        };
        match self.answered("PutItem", put.send().await) {
            Ok(_) => Ok(true),
            Err(error) if error.is_code("ConditionalCheckFailedException") => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn item_of(lock: &RestartLock) -> Attributes {
    let mut item = new_item(PARTITION, SORT);
    item.insert("fence".to_owned(), n(lock.fence));
    if let Some(holder) = &lock.holder {
        item.insert("owner".to_owned(), s(&holder.owner));
        item.insert("worker".to_owned(), s(&holder.worker));
        item.insert("since_ms".to_owned(), n(holder.since_ms));
        item.insert("until_ms".to_owned(), n(holder.until_ms));
    }
    if !lock.unfinished.is_empty() {
        let workers = lock.unfinished.iter().cloned().collect();
        item.insert("unfinished".to_owned(), AttributeValue::Ss(workers));
    }
    item
}

fn read(item: &Item<'_>) -> Result<RestartLock, StoreError> {
    item.check_format()?;
    let holder = item.optional_text("owner")?.map(|owner| {
        Ok::<_, StoreError>(LockHolder {
            owner: owner.to_owned(),
            worker: item.text("worker")?.to_owned(),
            since_ms: item.number("since_ms")?,
            until_ms: item.number("until_ms")?,
        })
    });
    Ok(RestartLock {
        fence: item.number("fence")?,
        holder: holder.transpose()?,
        unfinished: item.text_set("unfinished")?.into_iter().collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000_000;

    fn taken(worker: &str) -> RestartLock {
        RestartLock::default().taken("host-1", worker, NOW).unwrap()
    }

    fn workers(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn one_has_it_until_it_is_released_or_ends_by_itself() {
        let lock = taken("w1");
        assert_eq!(lock.taken("host-2", "w2", NOW + lock_ms() - 1), None);
        let renewed = lock.renewed(NOW + 30_000);
        assert_eq!(renewed.taken("host-2", "w2", NOW + lock_ms()), None);
        let next = lock.taken("host-2", "w2", NOW + lock_ms()).unwrap();
        assert_eq!((next.fence, next.holder.unwrap().worker), (2, "w2".to_owned()));
        assert!(lock.released(true, &workers(&[])).taken("host-2", "w2", NOW + 1).is_some());
    }

    #[test]
    fn a_lock_of_a_wrong_clock_is_nobodys() {
        let ahead = taken("w1").renewed(NOW + 10 * lock_ms());
        assert_eq!(ahead.held_by(NOW), None);
        assert!(ahead.taken("host-2", "w2", NOW).is_some());
    }

    #[test]
    fn a_worker_whose_restart_was_not_seen_to_end_well_stays_named_until_it_is_seen_to_live() {
        let failed = taken("w1").released(false, &workers(&[]));
        assert_eq!(failed.left_behind(NOW), workers(&["w1"]));
        let killed = taken("w1");
        assert_eq!(killed.left_behind(NOW), workers(&[]), "it is at work");
        assert_eq!(killed.left_behind(NOW + lock_ms()), workers(&["w1"]));
        for before in [failed, killed] {
            let next = before.taken("host-2", "w2", NOW + lock_ms()).unwrap();
            assert_eq!(next.unfinished, workers(&["w1"]));
            assert_eq!(next.released(true, &workers(&["w2"])).unfinished, workers(&["w1"]));
            assert_eq!(next.released(true, &workers(&["w1", "w2"])).unfinished, workers(&[]));
        }
    }

    #[test]
    fn a_second_attempt_at_a_worker_that_comes_to_nothing_leaves_it_named() {
        let failed = taken("w1").released(false, &workers(&[]));
        let again = failed.taken("host-1", "w1", NOW).unwrap();
        assert_eq!(again.released(true, &workers(&[])).unfinished, workers(&["w1"]), "nothing was done");
        assert_eq!(again.released(false, &workers(&[])).unfinished, workers(&["w1"]), "it failed again");
        assert_eq!(again.released(true, &workers(&["w1"])).unfinished, workers(&[]), "it is back");
        let lost = workers(&["w1"]).into_iter().collect::<Vec<_>>();
        assert_eq!(
            again.without(&lost).released(true, &workers(&[])).unfinished,
            workers(&[]),
            "it is given up"
        );
        let first = taken("w2");
        assert_eq!(first.released(true, &workers(&[])).unfinished, workers(&[]), "nothing was ever done");
    }
}
