//! The lag as a bidder would see it: from DynamoDB's acknowledgement until a region's Redis shows the write.
//!
//! A sample of the writes is looked for in every region by asking Redis every 2 ms. The resolution is
//! therefore about 2 ms, always to our disadvantage. The number of writes looked for at once is bounded; what
//! finds no room is not measured.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use redis::aio::MultiplexedConnection;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use crate::entry::{self, Entry};
use crate::profile::VERSION_ATTRIBUTE;

/// One of this many writes is measured.
const SAMPLE_EVERY: u64 = 20;
/// Writes looked for at once, by region.
const IN_FLIGHT_MAX: usize = 64;
const POLL_INTERVAL: Duration = Duration::from_millis(2);
/// A Redis that does not answer is asked again after this.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);
/// A write that is not seen after this time counts as unseen. The comparison at the end tells what became of it.
const SEEN_PATIENCE: Duration = Duration::from_secs(60);

/// A write to look for, of a key that had never been deleted before it: whatever deletion its entry shows is
/// then this write or a newer one. Nothing that a reader sees tells two deletions apart.
#[derive(Clone, Debug)]
pub struct Probe {
    /// The row's key.
    pub key: String,
    /// The version that the write set; for a deletion, the version it would have set.
    pub version: u64,
    /// When DynamoDB's answer was there.
    pub acknowledged: Instant,
}

impl Probe {
    /// Whether a reader who finds `entry` sees this write or a newer one.
    #[must_use]
    pub fn is_seen(&self, entry: &Entry) -> bool {
        match entry.number(VERSION_ATTRIBUTE) {
            Some(version) => version >= self.version,
            None => entry.is_tombstone(),
        }
    }
}

/// Where writers offer their writes. When every clone is dropped, the measurement comes to its end.
#[derive(Clone, Debug)]
pub struct Probes {
    offered: Arc<AtomicU64>,
    regions: Vec<mpsc::Sender<Probe>>,
}

impl Probes {
    /// Makes a channel for each of `regions` regions.
    #[must_use]
    pub fn channels(regions: usize) -> (Self, Vec<mpsc::Receiver<Probe>>) {
        let (senders, receivers) = (0..regions).map(|_| mpsc::channel(IN_FLIGHT_MAX)).unzip();
        (Self { offered: Arc::default(), regions: senders }, receivers)
    }

    /// Takes one of 20 writes; never waits.
    pub fn offer(&self, probe: Probe) {
        if self.offered.fetch_add(1, Ordering::Relaxed).is_multiple_of(SAMPLE_EVERY) {
            for region in &self.regions {
                // Full: enough is being looked for already. Closed: nobody measures any more.
                let _ = region.try_send(probe.clone());
            }
        }
    }
}

/// The lags of one region.
#[derive(Debug)]
pub struct Lags {
    histogram_us: Mutex<Histogram<u64>>,
    unseen: AtomicU64,
    forget: AtomicBool,
}

/// A region's lags in figures.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LagSummary {
    /// Writes measured.
    pub count: u64,
    /// Half of them were seen within this.
    pub p50: Duration,
    /// 99 of 100 were seen within this.
    pub p99: Duration,
    /// The slowest.
    pub max: Duration,
    /// Writes not seen in time.
    pub unseen: u64,
}

impl Lags {
    /// From 1 µs up to more than the patience, with three significant digits.
    ///
    /// # Errors
    /// None with these constants.
    pub fn new() -> Result<Self, hdrhistogram::CreationError> {
        let highest_us = 2 * SEEN_PATIENCE.as_secs() * 1_000_000;
        let histogram_us = Mutex::new(Histogram::new_with_bounds(1, highest_us, 3)?);
        Ok(Self { histogram_us, unseen: AtomicU64::new(0), forget: AtomicBool::new(false) })
    }

    /// The figures now.
    #[must_use]
    pub fn summary(&self) -> LagSummary {
        let histogram = self.histogram();
        let at = |quantile: f64| Duration::from_micros(histogram.value_at_quantile(quantile));
        LagSummary {
            count: histogram.len(),
            p50: at(0.5),
            p99: at(0.99),
            max: Duration::from_micros(histogram.max()),
            unseen: self.unseen.load(Ordering::Relaxed),
        }
    }

    /// Gives up what is being looked for: the cache was flushed, and what it had shown already is gone.
    pub fn forget(&self) {
        self.forget.store(true, Ordering::Relaxed);
    }

    fn record(&self, lag: Duration) {
        let lag_us = u64::try_from(lag.as_micros()).unwrap_or(u64::MAX);
        self.histogram().saturating_record(lag_us.max(1));
    }

    fn histogram(&self) -> MutexGuard<'_, Histogram<u64>> {
        self.histogram_us.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Measures one region until every [`Probes`] is dropped and every write was seen or given up.
pub async fn run(redis_url: String, table: String, mut probes: mpsc::Receiver<Probe>, lags: Arc<Lags>) {
    let mut connection = None;
    let mut pending: Vec<(Vec<u8>, Probe)> = Vec::with_capacity(IN_FLIGHT_MAX);
    loop {
        if pending.is_empty() {
            let Some(probe) = probes.recv().await else { return };
            pending.push((entry::redis_key(&table, &probe.key), probe));
        }
        while pending.len() < IN_FLIGHT_MAX {
            let Ok(probe) = probes.try_recv() else { break };
            pending.push((entry::redis_key(&table, &probe.key), probe));
        }
        if lags.forget.swap(false, Ordering::Relaxed) {
            pending.clear();
            while probes.try_recv().is_ok() {}
            continue;
        }
        let asked = match look(&mut connection, &redis_url, &pending).await {
            Ok(entries) => {
                settle(&mut pending, &entries, &lags);
                true
            }
            Err(_) => {
                // Redis is away: the lag goes on growing, and we look again over a new connection.
                connection = None;
                false
            }
        };
        give_up(&mut pending, &lags);
        // What a bidder sees can only be learnt by asking.
        sleep(if asked { POLL_INTERVAL } else { RETRY_INTERVAL }).await;
    }
}

async fn look(
    connection: &mut Option<MultiplexedConnection>,
    redis_url: &str,
    pending: &[(Vec<u8>, Probe)],
) -> redis::RedisResult<Vec<Entry>> {
    let keys: Vec<Vec<u8>> = pending.iter().map(|(key, _)| key.clone()).collect();
    let connection = match connection {
        Some(connection) => connection,
        None => connection.insert(redis::Client::open(redis_url)?.get_multiplexed_async_connection().await?),
    };
    entry::get_many(connection, &keys).await
}

/// Records the writes that are there, and keeps the others.
fn settle(pending: &mut Vec<(Vec<u8>, Probe)>, entries: &[Entry], lags: &Lags) {
    let mut entries = entries.iter();
    pending.retain(|(_, probe)| {
        let seen = entries.next().is_some_and(|entry| probe.is_seen(entry));
        if seen {
            lags.record(probe.acknowledged.elapsed());
        }
        !seen
    });
}

fn give_up(pending: &mut Vec<(Vec<u8>, Probe)>, lags: &Lags) {
    let before = pending.len();
    pending.retain(|(_, probe)| probe.acknowledged.elapsed() < SEEN_PATIENCE);
    lags.unseen.fetch_add((before - pending.len()) as u64, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use warmcast_proto::entry::EntryKind;
    use warmcast_proto::position::Position;

    use super::*;
    use crate::row::{Number, Value};

    fn live(version: &str) -> Entry {
        let row = [(VERSION_ATTRIBUTE.to_owned(), Value::Number(Number::parse(version)))].into();
        Entry::Live { position: Position::ZERO, row }
    }

    fn probe(version: u64) -> Probe {
        Probe { key: "ck".to_owned(), version, acknowledged: Instant::now() }
    }

    #[test]
    fn a_write_is_seen_at_its_version_or_a_newer_one() {
        assert!(!probe(5).is_seen(&live("4")));
        assert!(probe(5).is_seen(&live("5")));
        assert!(probe(5).is_seen(&live("6")));
        assert!(!probe(5).is_seen(&Entry::Absent));
    }

    #[test]
    fn a_deletion_is_seen_as_a_tombstone_or_a_newer_version() {
        let tombstone = Entry::Marker { kind: EntryKind::Tombstone, position: Position::ZERO };
        assert!(probe(5).is_seen(&tombstone), "this deletion, or one after this write");
        assert!(!probe(5).is_seen(&live("4")));
        assert!(probe(5).is_seen(&live("6")));
        assert!(!probe(5).is_seen(&Entry::Absent), "absent may mean: not there yet");
    }

    #[tokio::test]
    async fn what_finds_no_room_is_dropped_not_waited_for() {
        let (probes, receivers) = Probes::channels(2);
        for _ in 0..SAMPLE_EVERY * (IN_FLIGHT_MAX as u64 + 10) {
            probes.offer(probe(1));
        }
        assert!(receivers.iter().all(|receiver| receiver.len() == IN_FLIGHT_MAX));
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_that_never_shows_counts_as_unseen() {
        let lags = Lags::new().unwrap();
        let mut pending = vec![(b"k".to_vec(), probe(1))];
        settle(&mut pending, &[Entry::Absent], &lags);
        give_up(&mut pending, &lags);
        assert_eq!(pending.len(), 1);
        tokio::time::advance(SEEN_PATIENCE).await;
        give_up(&mut pending, &lags);
        assert_eq!((pending.len(), lags.summary().unseen), (0, 1));
    }
}
