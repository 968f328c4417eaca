//! One run: everybody at work while faults happen, then quiet, then the comparison.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use fastrand::Rng;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use warmcast_cache::{Cache, CacheConfig, EntryReads, ReadFrom, TablePolicy, Tables, policy::WritePolicy};
use warmcast_proto::entry::{EntryHeader, EntryKind};

use crate::{
    faults::{Fault, Servers},
    fillers::{backfill, invalidate, read_and_fill, reads, redis_key},
    log::{Master, all_names},
    writer::{Lease, SharedLease, Writer, lock},
};

const READERS: usize = 12;

/// How long all go on after the last fault, so that the cache knows something again.
const AFTERMATH: Duration = Duration::from_millis(1_500);

/// How long all must be quiet: until the cache has looked twice at each server and found nothing new.
const QUIET: Duration = Duration::from_millis(2_500);

/// How long the writer may take to come to the end of the stream, on a busy machine.
const CAUGHT_UP_WITHIN: Duration = Duration::from_secs(60);

/// What the environment says, or a new seed, printed for repeating.
fn seed() -> u64 {
    let seed =
        std::env::var("WARMCAST_SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("WARMCAST_SEED={seed}");
    seed
}

fn run_time() -> Duration {
    let ms = std::env::var("WARMCAST_RANDOMISED_MS").map_or(5_000, |ms| ms.parse().unwrap());
    Duration::from_millis(ms)
}

/// One table for each way of treating fills.
fn tables() -> Tables {
    let strict = TablePolicy { strict_margin: Some(Duration::from_secs(3)), ..TablePolicy::default() };
    let present = TablePolicy { write: WritePolicy::Present, ..TablePolicy::default() };
    let named = [("strict".into(), strict), ("present".into(), present)];
    Tables { default: TablePolicy::default(), named: named.into_iter().collect() }
}

/// The tasks of a run and what they share.
struct Run {
    servers: Servers,
    rng: Rng,
    master: Arc<Master>,
    lease: SharedLease,
    /// The two writers' caches, and that of all others: each is a process of its own.
    caches: Vec<Cache>,
    writers: JoinSet<()>,
    stop_writers: CancellationToken,
}

impl Run {
    async fn new(servers: Servers, mut rng: Rng) -> Self {
        let config = CacheConfig { tables: tables(), ..servers.config() };
        let mut caches = Vec::new();
        for _ in 0..3 {
            caches.push(Cache::connect(config.clone()).await.unwrap());
        }
        Self {
            servers,
            rng: rng.fork(),
            master: Arc::default(),
            lease: Arc::new(Mutex::new(Lease::new())),
            caches,
            writers: JoinSet::new(),
            stop_writers: CancellationToken::new(),
        }
    }

    fn start_writer(&mut self, number: u64) {
        let writer = Writer {
            cache: self.caches[usize::try_from(number % 2).unwrap()].clone(),
            master: Arc::clone(&self.master),
            lease: Arc::clone(&self.lease),
            number,
            rng: self.rng.fork(),
        };
        self.writers.spawn(writer.run(self.stop_writers.clone()));
    }

    /// Each of the faults once, then more of them at random until the time is over.
    async fn cause(&mut self, faults: &[Fault]) {
        let ends = Instant::now() + run_time();
        let mut caused = Vec::new();
        for turn in 0.. {
            sleep(Duration::from_millis(self.rng.u64(100..600))).await;
            let fault = match faults.get(turn) {
                Some(fault) => *fault,
                None if Instant::now() >= ends => break,
                None => faults[self.rng.usize(0..faults.len())],
            };
            caused.push(fault);
            if fault == Fault::Takeover {
                let number = lock(&self.lease).take_over();
                self.start_writer(number);
            } else {
                self.servers.cause(fault, &mut self.rng).await;
            }
        }
        println!("{caused:?}");
    }

    /// Waits until all that was delivered is applied and no server shows anything new.
    async fn wait_until_quiet(&self) {
        let deadline = Instant::now() + CAUGHT_UP_WITHIN;
        let state = || {
            let failovers: Vec<u64> = self.caches.iter().map(|cache| *cache.failovers().borrow()).collect();
            (lock(&self.lease).next(), failovers)
        };
        let mut quiet = (state(), Instant::now());
        loop {
            sleep(Duration::from_millis(50)).await;
            let now = state();
            if now != quiet.0 || now.0 != self.master.records_len() {
                quiet = (now, Instant::now());
            }
            if quiet.1.elapsed() >= QUIET {
                return;
            }
            assert!(Instant::now() < deadline, "not quiet: {:?} of {}", quiet.0, self.master.records_len());
        }
    }

    /// Compares every key, and gives what was found how often.
    async fn compare(&self) -> BTreeMap<String, u32> {
        let config = self.caches[0].config().clone();
        let reads = EntryReads::connect(config, ReadFrom::Primary).await.unwrap();
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis().try_into().unwrap();
        let names: Vec<_> = all_names().collect();
        let keys: Vec<Vec<u8>> = names.iter().map(redis_key).collect();
        let mut found = BTreeMap::<String, u32>::new();
        let mut mismatches = Vec::new();
        for (name, entry) in names.iter().zip(reads.get_many(&keys).await) {
            let is = self.master.get(name).map(|shaped| shaped.payload);
            let entry = entry.unwrap();
            let known = entry.as_ref().map(|entry| EntryHeader::decode(entry).unwrap());
            let seen = match known {
                Some((header, payload)) => match header.kind() {
                    EntryKind::Live | EntryKind::Filled => Some(Some(payload)),
                    EntryKind::Tombstone => Some(None),
                    EntryKind::Negative if !header.is_expired(now_ms) => Some(None),
                    EntryKind::Negative | EntryKind::Invalid | EntryKind::Held => None,
                },
                None => None,
            };
            let kind =
                known.map_or_else(|| "Nothing".to_owned(), |(header, _)| format!("{:?}", header.kind()));
            *found.entry(kind).or_default() += 1;
            if seen.is_some_and(|seen| seen != is.as_deref()) {
                mismatches.push((name.clone(), is, entry, self.master.history(name)));
            }
        }
        println!("{} mismatches of {} keys: {found:?}", mismatches.len(), names.len());
        assert!(mismatches.is_empty(), "{mismatches:#?}");
        found
    }
}

pub(crate) async fn run(servers: Servers, faults: &[Fault]) {
    let mut rng = Rng::with_seed(seed());
    let mut run = Run::new(servers, rng.fork()).await;
    let (stop_watching, stop_others) = (CancellationToken::new(), CancellationToken::new());
    let mut watching = JoinSet::new();
    for cache in run.caches.clone() {
        let stop = stop_watching.clone();
        watching.spawn(async move { cache.watch(stop).await });
    }
    run.start_writer(0);
    let mut fills = JoinSet::new();
    let mut others = JoinSet::new();
    for number in 0..READERS {
        let cache = run.caches[2].clone();
        let reads = reads(&cache, number).await;
        let master = Arc::clone(&run.master);
        fills.spawn(read_and_fill(cache, reads, master, rng.fork(), stop_others.clone()));
    }
    let (cache, master) = (run.caches[2].clone(), Arc::clone(&run.master));
    others.spawn(backfill(cache.clone(), Arc::clone(&master), rng.fork(), stop_others.clone()));
    others.spawn(invalidate(cache, master, rng.fork(), stop_others.clone()));
    others.spawn(change(Arc::clone(&run.master), rng.fork(), stop_others.clone()));

    run.cause(faults).await;
    sleep(AFTERMATH).await;
    stop_others.cancel();
    others.join_all().await;
    let fills = fills.join_all().await.into_iter().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    run.master.deliver_again(true);
    run.servers.settle().await;
    run.wait_until_quiet().await;
    run.stop_writers.cancel();
    std::mem::take(&mut run.writers).join_all().await;
    stop_watching.cancel();
    watching.join_all().await;
    println!(
        "{} records, {} rewinds, {} fills written, {} refused",
        run.master.records_len(),
        lock(&run.lease).rewinds,
        fills.0,
        fills.1
    );
    let found = run.compare().await;
    // Something was at stake.
    let known =
        ["Live", "Filled", "Tombstone", "Negative"].iter().filter_map(|kind| found.get(*kind)).sum::<u32>();
    assert!(known > 10 && fills.0 > 10, "{found:?}");
}

/// The tables' other users.
async fn change(master: Arc<Master>, mut rng: Rng, stop: CancellationToken) {
    while !stop.is_cancelled() {
        for _ in 0..rng.u32(0..5) {
            master.change(&mut rng);
        }
        master.deliver_again(false);
        sleep(Duration::from_millis(rng.u64(1..20))).await;
    }
}
