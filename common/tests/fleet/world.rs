//! A state table, streams, and a fleet of processes that consumes them.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep};
use warmcast_common::clock::now_ms;
use warmcast_common::consumer::store::{Begin, Lease, Progressed};
use warmcast_common::consumer::{Checkpoint, Shard, Subscription, WorkerConfig};

use super::journal::Journal;
use super::process::{Process, Program};
use super::script::{STREAM, Script};
use super::sink::{Downstream, Sink};
use super::support::POLL;
use super::table::Table;
use super::view::{Trouble, View};
use super::wire::Wire;

/// How long a fleet may take for what it should do at once: the machine may be busy.
const DEADLINE: Duration = Duration::from_secs(30);

/// What outlives the processes.
pub(crate) struct World {
    pub(crate) table: Table,
    /// The stream that every process reads unless told otherwise.
    pub(crate) script: Script,
    pub(crate) journal: Journal,
    pub(crate) trouble: Trouble,
    pub(crate) downstream: Downstream,
    seed: u64,
    processes: AtomicU64,
}

/// A stream that a process reads.
#[derive(Clone)]
pub(crate) struct Served {
    pub(crate) stream: String,
    pub(crate) script: Script,
    pub(crate) superseded: bool,
}

/// Short intervals, and a lease that no test outlives.
pub(crate) fn steady() -> WorkerConfig {
    WorkerConfig {
        heartbeat_interval: Duration::from_millis(100),
        lease_duration: Duration::from_secs(60),
        sync_interval: Duration::from_millis(200),
        listing_interval: Duration::from_millis(300),
        checkpoint_interval: Duration::from_millis(20),
        idle_poll_max: Duration::from_millis(20),
        capacity: 100,
        leases_max: 1_000,
        stuck_after: Duration::from_secs(60),
        move_interval: Duration::from_secs(60),
    }
}

/// The lease of [`mortal`] workers. A busy machine may hold a living one up for part of it.
pub(crate) const LEASE: Duration = Duration::from_millis(1_500);

/// Workers that are soon missed.
pub(crate) fn mortal() -> WorkerConfig {
    WorkerConfig { lease_duration: LEASE, ..steady() }
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::seeded(0).await
    }

    /// A world whose troubles are drawn from `seed`.
    pub(crate) async fn seeded(seed: u64) -> Self {
        let table = Table::start().await;
        Self {
            script: Script::new(table.store.clone()),
            table,
            journal: Journal::new(),
            trouble: Trouble::new(seed),
            downstream: Downstream::new(seed ^ 1),
            seed,
            processes: AtomicU64::new(0),
        }
    }

    /// A world with the shards s00, s01 and so on.
    pub(crate) async fn with_shards(shards: usize) -> Self {
        let world = Self::new().await;
        names(shards).iter().for_each(|shard| world.shard(shard, &[]));
        world
    }

    /// The stream gets a shard.
    pub(crate) fn shard(&self, shard: &str, parents: &[&str]) {
        self.journal.shard(shard, parents);
        self.script.shard(shard, parents);
    }

    /// The shard gets so many records.
    pub(crate) fn put(&self, shard: &str, records: u64) {
        // Nobody reads in between: what is created is there.
        self.script.with(shard, |scripted| {
            let created_ms = now_ms();
            for number in self.journal.put(shard, records, created_ms) {
                scripted.put_created(number, created_ms);
            }
        });
    }

    /// The shard ends after the records it has.
    pub(crate) fn close(&self, shard: &str) {
        self.journal.close(shard);
        self.script.close(shard);
    }

    /// A process of the worker `name`, which reads the stream.
    pub(crate) async fn start(&self, name: &str, config: WorkerConfig) -> Process {
        self.serve(name, config, &[self.served()]).await
    }

    /// The stream.
    pub(crate) fn served(&self) -> Served {
        Served { stream: STREAM.to_owned(), script: self.script.clone(), superseded: false }
    }

    /// A process that reads these streams.
    pub(crate) async fn serve(&self, name: &str, config: WorkerConfig, streams: &[Served]) -> Process {
        let number = self.processes.fetch_add(1, Ordering::Relaxed);
        let process = format!("{name}/{number}");
        let subscription = |served: &Served| Subscription {
            source: View {
                stream: served.stream.clone(),
                script: served.script.clone(),
                process: process.clone(),
                journal: self.journal.clone(),
                trouble: self.trouble.clone(),
                hidden: Mutex::new(HashSet::new()),
            },
            processor: Sink {
                process: process.clone(),
                journal: self.journal.clone(),
                downstream: self.downstream.clone(),
            },
            from_trim_horizon: true,
            superseded: served.superseded,
        };
        let subscriptions = streams.iter().map(subscription).collect();
        let journal = self.journal.clone();
        let wire =
            Wire::start(&process, self.table.address, journal.clone(), self.seed ^ (number << 8)).await;
        Process::start(Program { process, name: name.to_owned(), config, subscriptions, journal }, wire)
    }

    /// A lease that nobody has, as one who read the shard left it.
    pub(crate) async fn leave_lease(&self, shard: &str, checkpoint: &Checkpoint, progressed: Progressed) {
        let (store, shard) = (&self.table.store, Shard { id: shard.to_owned(), parents: Vec::new() });
        let start = &Checkpoint::TrimHorizon;
        store.begin_stream(STREAM, start).await.expect("the stream is begun");
        store.create_lease(STREAM, &shard, start, Begin::AfterParents).await.expect("the lease is created");
        let lease = store.lease(STREAM, &shard.id).await.expect("it can be read").expect("it was created");
        let lease = store.take_lease(&lease, "before").await.expect("it is free");
        store.release_lease(&lease, Some(checkpoint), progressed, None).await.expect("it is released");
    }

    /// The leases of the stream.
    pub(crate) async fn leases(&self) -> Vec<Lease> {
        self.table.leases(STREAM).await
    }

    /// Who has the lease of a shard.
    pub(crate) async fn owner(&self, shard: &str) -> Option<String> {
        self.table.lease(STREAM, shard).await.and_then(|lease| lease.owner)
    }

    /// How far a shard got as it is in the table; empty without a lease.
    pub(crate) async fn checkpoint(&self, shard: &str) -> String {
        let checkpoint = self.table.checkpoint(STREAM, shard).await;
        checkpoint.map(|checkpoint| checkpoint.to_string()).unwrap_or_default()
    }

    /// How many leases of the stream each worker has; those that nobody has are at "".
    pub(crate) async fn counts(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for lease in self.leases().await {
            *counts.entry(lease.owner.unwrap_or_default()).or_default() += 1;
        }
        counts
    }

    /// Every shard of the stream that goes on gets a record, which comes to a living process.
    pub(crate) async fn assert_all_read(&self) {
        for shard in self.journal.open() {
            self.put(&shard, 1);
        }
        self.until("every shard is read", async || self.journal.unread().is_empty()).await;
    }

    /// Waits until the fleet's watermark passes this time.
    pub(crate) async fn until_watermark_passes(&self, ms: u64) {
        let what = format!("the watermark passes {ms}");
        self.until(&what, async || self.journal.last_watermark().1 > ms).await;
    }

    /// Waits until `condition` holds.
    ///
    /// # Panics
    /// With `what` if it does not in time.
    pub(crate) async fn until(&self, what: &str, mut condition: impl AsyncFnMut() -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !condition().await {
            assert!(Instant::now() < deadline, "waited {DEADLINE:?} until {what}");
            sleep(POLL).await;
        }
    }

    /// Waits until each of these workers has between so many and so many leases, and nobody else has any.
    pub(crate) async fn until_shared(&self, shares: &[(&str, std::ops::RangeInclusive<usize>)]) {
        self.until(&format!("the leases are shared {shares:?}"), async || {
            let counts = self.counts().await;
            let has = |(name, share): &(&str, std::ops::RangeInclusive<usize>)| {
                counts.get(*name).is_some_and(|count| share.contains(count))
            };
            counts.len() == shares.len() && shares.iter().all(has)
        })
        .await;
    }
}

/// A test that failed shows what happened.
impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {}\n{}", self.seed, self.journal.story());
        }
    }
}

/// s00, s01 and so on.
pub(crate) fn names(shards: usize) -> Vec<String> {
    (0..shards).map(|shard| format!("s{shard:02}")).collect()
}
