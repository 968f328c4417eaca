//! The master tables, and the stream of their changes as the cache-writer reads it.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use fastrand::Rng;
use tokio::time::Instant;
use warmcast_cache::shape::Shaped;
use warmcast_proto::{
    change::{Change, ChangeKind},
    position::Position,
};

/// How long after its first putting a change counts as late. In production: a minute.
pub(crate) const LATE: Duration = Duration::from_millis(1_500);

/// Tables by their policies: see `run.rs`.
pub(crate) const TABLES: [&str; 3] = ["plain", "strict", "present"];

/// Keys of each table. The first of them change all the time. Of the others some change a few times in a row, and
/// then no more for long: what goes wrong with those is not made good by the next change.
const KEYS_EACH: u32 = 400;
const KEYS_HOT: u32 = 10;
const RECENT_MAX: usize = 12;

/// A record of the stream.
#[derive(Clone)]
pub(crate) struct Record {
    pub(crate) change: Change,
    /// When it was put for the first time.
    pub(crate) built: Instant,
    /// When this copy of it came into the stream.
    pub(crate) arrived: Instant,
}

/// An item's name.
pub(crate) type Name = (&'static str, Bytes);

#[derive(Default)]
struct State {
    /// What each item is now; none: there is no such item.
    items: BTreeMap<Name, Option<Bytes>>,
    records: Vec<Record>,
    /// Puts that were sent again, and when the copy will arrive.
    again: Vec<(Instant, Record)>,
    sequence: u64,
    /// The latest that are not hot.
    recent: VecDeque<Name>,
}

impl State {
    fn any_name(&self, rng: &mut Rng) -> Name {
        let number = match rng.u32(0..10) {
            0..3 => rng.u32(0..KEYS_HOT),
            3..8 if !self.recent.is_empty() => return self.recent[rng.usize(0..self.recent.len())].clone(),
            _ => rng.u32(KEYS_HOT..KEYS_EACH),
        };
        (TABLES[rng.usize(0..TABLES.len())], format!("user-{number}").into())
    }

    fn touch(&mut self, name: &Name) {
        let is_hot = (0..KEYS_HOT).any(|number| name.1 == format!("user-{number}"));
        if !is_hot && !self.recent.contains(name) {
            self.recent.push_front(name.clone());
            self.recent.truncate(RECENT_MAX);
        }
    }
}

/// The tables and their stream.
#[derive(Default)]
pub(crate) struct Master(Mutex<State>);

impl Master {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts or deletes an item, and delivers the change: once more in one of eight times, most often in time.
    pub(crate) fn change(&self, rng: &mut Rng) {
        let mut state = self.state();
        let name = state.any_name(rng);
        state.touch(&name);
        state.sequence += 1;
        let is_delete = rng.u32(0..5) == 0;
        let item = (!is_delete).then(|| Bytes::from(format!("item at {}", state.sequence)));
        state.items.insert(name.clone(), item.clone());
        let now = Instant::now();
        let change = Change {
            table: name.0.into(),
            key: name.1,
            position: Position::new(1, state.sequence.to_string().parse().unwrap()).unwrap(),
            kind: if is_delete { ChangeKind::Delete } else { ChangeKind::Put },
            // As DynamoDB tells it: rounded down to the second.
            created_ms: now_ms() / 1_000 * 1_000,
            payload: item.unwrap_or_default(),
        };
        let record = Record { change, built: now, arrived: now };
        if rng.u32(0..8) == 0 {
            let delay = LATE.mul_f32(if rng.u32(0..6) == 0 { 1.0 + rng.f32() } else { rng.f32() * 0.95 });
            state.again.push((now + delay, record.clone()));
        }
        state.records.push(record);
    }

    /// The copies that are due arrive; all of them at the end.
    pub(crate) fn deliver_again(&self, at_the_end: bool) {
        let now = Instant::now();
        let mut state = self.state();
        let (due, rest) =
            std::mem::take(&mut state.again).into_iter().partition(|(due, _)| at_the_end || *due <= now);
        state.again = rest;
        let due: Vec<(Instant, Record)> = due;
        state.records.extend(due.into_iter().map(|(_, record)| Record { arrived: now, ..record }));
    }

    pub(crate) fn records(&self, from: usize, count_max: usize) -> Vec<Record> {
        self.state().records.iter().skip(from).take(count_max).cloned().collect()
    }

    pub(crate) fn records_len(&self) -> usize {
        self.state().records.len()
    }

    /// An item that somebody takes an interest in.
    pub(crate) fn any_name(&self, rng: &mut Rng) -> Name {
        self.state().any_name(rng)
    }

    /// What was delivered of an item, for the report of a mismatch.
    pub(crate) fn history(&self, name: &Name) -> Vec<String> {
        let state = self.state();
        let first = state.records.first().map(|record| record.arrived);
        let records = state.records.iter().enumerate();
        let of_item =
            records.filter(|(_, record)| *record.change.table == *name.0 && record.change.key == name.1);
        let tell = |(index, Record { change, built, arrived }): (usize, &Record)| {
            let (arrived_ms, age_ms) = (
                first.map(|first| arrived.duration_since(first).as_millis()),
                arrived.duration_since(*built).as_millis(),
            );
            format!("record {index}: {change:?} arrived at {arrived_ms:?} ms, {age_ms} ms old")
        };
        of_item.map(tell).collect()
    }

    /// A strongly consistent read.
    pub(crate) fn get(&self, name: &Name) -> Option<Shaped> {
        let item = self.state().items.get(name).cloned().flatten();
        item.map(|payload| Shaped { payload, expires_ms: None })
    }
}

pub(crate) fn all_names() -> impl Iterator<Item = Name> {
    let keys = (0..KEYS_EACH).map(|number| Bytes::from(format!("user-{number}")));
    TABLES.into_iter().flat_map(move |table| keys.clone().map(move |key| (table, key)))
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis().try_into().unwrap()
}
