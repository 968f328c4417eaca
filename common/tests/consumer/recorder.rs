//! A processor that writes down what it gets. The test decides what becomes of each record.

use std::collections::{BTreeMap, HashSet};

use parking_lot::Mutex;
use warmcast_common::consumer::{Ack, Delivery, Processor};

/// The processor.
#[derive(Default)]
pub(crate) struct Recorder {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Every delivery in its order: shard and sequence number.
    log: Vec<(String, u64)>,
    withheld: BTreeMap<(String, u64), Vec<Ack>>,
    withholding: HashSet<String>,
    lose_once: HashSet<(String, u64)>,
    panic_once: HashSet<(String, u64)>,
    says: BTreeMap<(String, u64), u64>,
    /// What was delivered as settling, in its order.
    settling: Vec<(String, u64)>,
}

impl Recorder {
    /// Keeps the acks of a shard's records until they are released.
    pub(crate) fn withhold(&self, shard: &str) {
        self.state.lock().withholding.insert(shard.to_owned());
    }

    /// Drops the ack of a record the next time it comes.
    pub(crate) fn lose_once(&self, shard: &str, sequence: u64) {
        self.state.lock().lose_once.insert((shard.to_owned(), sequence));
    }

    /// Panics the next time a record comes.
    pub(crate) fn panic_once(&self, shard: &str, sequence: u64) {
        self.state.lock().panic_once.insert((shard.to_owned(), sequence));
    }

    /// A record says that whatever was created before this time came before it.
    pub(crate) fn says(&self, shard: &str, sequence: u64, watermark_ms: u64) {
        self.state.lock().says.insert((shard.to_owned(), sequence), watermark_ms);
    }

    /// The acks of a withheld record, for the test to deal with.
    pub(crate) fn take(&self, shard: &str, sequence: u64) -> Vec<Ack> {
        let acks = self.state.lock().withheld.remove(&(shard.to_owned(), sequence));
        acks.expect("the record is withheld")
    }

    /// A withheld record is done.
    pub(crate) fn done(&self, shard: &str, sequence: u64) {
        let acks = self.state.lock().withheld.remove(&(shard.to_owned(), sequence));
        acks.expect("the record is withheld").into_iter().for_each(Ack::done);
    }

    /// Everything withheld of a shard is done, and what comes from now on is done at once.
    pub(crate) fn release(&self, shard: &str) {
        let released: Vec<Ack> = {
            let mut state = self.state.lock();
            state.withholding.remove(shard);
            let (released, kept) =
                std::mem::take(&mut state.withheld).into_iter().partition(|((of, _), _)| of == shard);
            state.withheld = kept;
            let released: BTreeMap<(String, u64), Vec<Ack>> = released;
            released.into_values().flatten().collect()
        };
        released.into_iter().for_each(Ack::done);
    }

    /// What came of a shard, in its order.
    pub(crate) fn got(&self, shard: &str) -> Vec<u64> {
        let state = self.state.lock();
        state.log.iter().filter(|(of, _)| of == shard).map(|(_, sequence)| *sequence).collect()
    }

    /// What came of a shard as settling, in its order.
    pub(crate) fn settling(&self, shard: &str) -> Vec<u64> {
        let state = self.state.lock();
        state.settling.iter().filter(|(of, _)| of == shard).map(|(_, sequence)| *sequence).collect()
    }

    /// Everything that came, in its order.
    pub(crate) fn log(&self) -> Vec<(String, u64)> {
        self.state.lock().log.clone()
    }
}

impl Processor for Recorder {
    type Record = u64;

    async fn process(&self, _stream: &str, shard: &str, deliveries: Vec<Delivery<u64>>) {
        for Delivery { record, ack, settling, .. } in deliveries {
            let key = (shard.to_owned(), record.body);
            let mut state = self.state.lock();
            state.log.push(key.clone());
            if settling {
                state.settling.push(key.clone());
            }
            if let Some(watermark_ms) = state.says.get(&key) {
                ack.watermark(*watermark_ms);
            }
            if state.panic_once.remove(&key) {
                drop(state);
                panic!("the test wants it: {key:?}");
            }
            if state.lose_once.remove(&key) {
                drop(state);
                drop(ack);
            } else if state.withholding.contains(shard) {
                state.withheld.entry(key).or_default().push(ack);
            } else {
                drop(state);
                ack.done();
            }
        }
    }
}
