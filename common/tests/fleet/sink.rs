//! What is downstream of a fleet: it writes every record into the journal, and is slow, full or lossy as told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use warmcast_common::consumer::{Ack, Delivery, Processor};

use super::journal::Journal;

/// A process's way downstream.
pub(crate) struct Sink {
    pub(crate) process: String,
    pub(crate) journal: Journal,
    pub(crate) downstream: Downstream,
}

/// What all processes hand records to. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Downstream(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// Shards of which nothing is taken in.
    blocked: watch::Sender<BTreeSet<String>>,
}

struct State {
    random: fastrand::Rng,
    /// How likely a record is to be lost, and a page to be taken in slowly.
    lost: f64,
    slow: f64,
    withholding: BTreeSet<String>,
    withheld: BTreeMap<String, Vec<(u64, Ack)>>,
}

impl Downstream {
    pub(crate) fn new(seed: u64) -> Self {
        let state = State {
            random: fastrand::Rng::with_seed(seed),
            lost: 0.0,
            slow: 0.0,
            withholding: BTreeSet::new(),
            withheld: BTreeMap::new(),
        };
        Self(Arc::new(Shared { state: Mutex::new(state), blocked: watch::Sender::default() }))
    }

    pub(crate) fn trouble(&self, lost: f64, slow: f64) {
        let mut state = self.0.state.lock();
        (state.lost, state.slow) = (lost, slow);
    }

    /// Takes nothing of the shard in until it is unblocked.
    pub(crate) fn block(&self, shard: &str) {
        self.0.blocked.send_modify(|blocked| blocked.extend([shard.to_owned()]));
    }

    pub(crate) fn unblock(&self, shard: &str) {
        self.0.blocked.send_modify(|blocked| blocked.retain(|other| other != shard));
    }

    /// Takes records of the shard in and does not acknowledge them until it is released.
    pub(crate) fn withhold(&self, shard: &str) {
        self.0.state.lock().withholding.insert(shard.to_owned());
    }

    pub(crate) fn release(&self, shard: &str, journal: &Journal) {
        let mut state = self.0.state.lock();
        state.withholding.remove(shard);
        let withheld = state.withheld.remove(shard).unwrap_or_default();
        drop(state);
        for (record, ack) in withheld {
            journal.acked(shard, record);
            ack.done();
        }
    }
}

impl Sink {
    async fn wait_for_room(&self, shard: &str) {
        let Downstream(shared) = &self.downstream;
        let mut blocked = shared.blocked.subscribe();
        drop(blocked.wait_for(|blocked| !blocked.contains(shard)).await);
        let slow_ms = {
            let state = &mut *shared.state.lock();
            if state.random.f64() < state.slow { state.random.u64(0..50) } else { 0 }
        };
        tokio::time::sleep(Duration::from_millis(slow_ms)).await;
    }

    fn take_in(&self, shard: &str, record: u64, ack: Ack) {
        self.journal.delivered(&self.process, shard, record);
        let mut state = self.downstream.0.state.lock();
        if state.random.f64() < state.lost {
            drop(state);
            self.journal.note(format!("{} loses {shard}/{record}", self.process));
        } else if state.withholding.contains(shard) {
            state.withheld.entry(shard.to_owned()).or_default().push((record, ack));
        } else {
            drop(state);
            self.journal.acked(shard, record);
            ack.done();
        }
    }
}

impl Processor for Sink {
    type Record = u64;

    async fn process(&self, _stream: &str, shard: &str, deliveries: Vec<Delivery<u64>>) {
        self.wait_for_room(shard).await;
        let records: Vec<u64> = deliveries.iter().map(|delivery| delivery.record.body).collect();
        self.journal.note(format!("{} got {shard}/{records:?}", self.process));
        for Delivery { record, ack, .. } in deliveries {
            self.take_in(shard, record.body, ack);
        }
    }
}
