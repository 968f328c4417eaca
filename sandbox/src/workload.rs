//! The traffic: creates, updates, deletions and re-creations of user profiles.
//!
//! A key belongs to one writer, so its state is known at every moment, and a writer waits for DynamoDB's answer
//! before it goes on. Existing keys are chosen by Zipf's law, new users arrive all the time. Each writer draws
//! from its own generator, seeded by the run's seed: the same seed gives the same sequence of writes per writer.

mod load;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::DisplayErrorContext;
use aws_sdk_dynamodb::types::AttributeValue;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rand_distr::{Distribution as _, Zipf};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use crate::entry::now_ms;
use crate::measure::{Probe, Probes};
use crate::profile;
use crate::world::KEY_ATTRIBUTE;

pub use load::load;

/// A write that fails is sent again: every write sets a state, so sending it twice does no harm.
const ATTEMPTS_MAX: u32 = 20;
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// Zipf's exponent: about 1 for the visits of users to sites.
const ZIPF_EXPONENT: f64 = 1.0;
/// Of a hundred writes, how many bring a new user while there may be more.
const NEW_USERS_PERCENT: u32 = 32;
/// Of a hundred writes to an existing row, how many delete it.
const DELETES_PERCENT: u32 = 12;
/// Of a hundred writes to an existing row, how many update it in place; the rest replace it.
const UPDATES_PERCENT: u32 = 44;

/// What traffic to make.
#[derive(Clone, Debug)]
pub struct WorkloadOptions {
    /// The table.
    pub table: String,
    /// Concurrent writers.
    pub writers: usize,
    /// The run lasts at least this long.
    pub duration: Duration,
    /// And at least until this many writes are acknowledged.
    pub writes_min: u64,
    /// And at least until this many distinct keys were written.
    pub keys_min: u64,
    /// No more distinct keys than this: bounds the table, the cache and the memory.
    pub keys_max: u64,
    /// The first so many of the keys have a row already, written by [`load`] and nobody since.
    pub keys_loaded: u64,
    /// Writes a second over all writers; 0 for as fast as DynamoDB answers.
    pub rate: u32,
    /// It ends after this time even if the minimum is not reached.
    pub ceiling: Duration,
    /// Seeds every writer.
    pub seed: u64,
}

/// What has been written so far.
#[derive(Debug, Default)]
pub struct Progress {
    creates: AtomicU64,
    updates: AtomicU64,
    deletes: AtomicU64,
    keys: AtomicU64,
    retries: AtomicU64,
}

/// Counts of acknowledged writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// New rows and re-created ones.
    pub creates: u64,
    /// Replaced (PutItem) and changed in place (UpdateItem).
    pub updates: u64,
    /// Deleted rows.
    pub deletes: u64,
    /// Distinct keys.
    pub keys: u64,
    /// Attempts that failed and were sent again.
    pub retries: u64,
}

impl Written {
    /// All acknowledged writes.
    #[must_use]
    pub fn total(self) -> u64 {
        self.creates + self.updates + self.deletes
    }
}

impl Progress {
    /// The counts now.
    #[must_use]
    pub fn written(&self) -> Written {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Written {
            creates: count(&self.creates),
            updates: count(&self.updates),
            deletes: count(&self.deletes),
            keys: count(&self.keys),
            retries: count(&self.retries),
        }
    }

    fn count(&self, step: Step) {
        let counter = match step {
            Step::Create => &self.creates,
            Step::Replace | Step::Update => &self.updates,
            Step::Delete => &self.deletes,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// What the table must hold for a key after the last acknowledged write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// The row, at this version.
    Row {
        /// Value of the attribute `version`.
        version: u64,
    },
    /// No row.
    Deleted,
}

/// What the table must hold, by key.
pub type Ledger = BTreeMap<String, Expected>;

/// Why the traffic stopped early.
#[derive(Debug, thiserror::Error)]
pub enum WorkloadError {
    /// DynamoDB refused a write again and again.
    #[error("a write of {key} to {table} failed {ATTEMPTS_MAX} times, the last time with: {reason}")]
    Write {
        /// The table.
        table: String,
        /// The key.
        key: String,
        /// DynamoDB's last answer.
        reason: String,
    },
    /// A writer ended by a panic.
    #[error("a writer of the workload ended: {0}")]
    Writer(#[from] tokio::task::JoinError),
    /// The options make no traffic.
    #[error("the workload needs at least one writer and one key for each writer")]
    Options,
}

/// Writes until the options are met or `stop` is cancelled, and tells what the table must hold now.
///
/// # Errors
/// See [`WorkloadError`].
pub async fn run(
    client: Client,
    options: WorkloadOptions,
    progress: Arc<Progress>,
    probes: Probes,
    stop: CancellationToken,
) -> Result<Ledger, WorkloadError> {
    let writers = u64::try_from(options.writers).unwrap_or(u64::MAX);
    if writers == 0 || options.keys_max < writers {
        return Err(WorkloadError::Options);
    }
    let options = Arc::new(options);
    let mut tasks = JoinSet::new();
    for index in 0..writers {
        let writer = Writer {
            client: client.clone(),
            rng: StdRng::seed_from_u64(options.seed.wrapping_mul(writers).wrapping_add(index)),
            users: Users::new(index, writers, options.keys_loaded),
            options: Arc::clone(&options),
            progress: Arc::clone(&progress),
            probes: probes.clone(),
        };
        tasks.spawn(writer.run(stop.clone()));
    }
    drop(probes);
    let mut ledger = Ledger::new();
    while let Some(ended) = tasks.join_next().await {
        ledger.extend(ended??);
    }
    Ok(ledger)
}

/// One writer and the keys it owns.
struct Writer {
    client: Client,
    rng: StdRng,
    users: Users,
    options: Arc<WorkloadOptions>,
    progress: Arc<Progress>,
    probes: Probes,
}

/// Every `stride`-th user from `first` on, as far as they have been seen.
struct Users {
    first: u64,
    stride: u64,
    states: Vec<User>,
}

#[derive(Clone, Copy, Debug)]
struct User {
    /// Of the last write, deletions included.
    version: u64,
    exists: bool,
    deletions: u64,
}

/// One write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Create,
    Replace,
    Update,
    Delete,
}

impl Users {
    fn new(first: u64, stride: u64, loaded: u64) -> Self {
        let own = usize::try_from(loaded.saturating_sub(first).div_ceil(stride)).unwrap_or_default();
        let states = vec![User { version: 1, exists: true, deletions: 0 }; own];
        Self { first, stride, states }
    }

    fn cookie_id(&self, index: usize) -> String {
        profile::cookie_id(self.first + self.stride * index as u64)
    }
}

impl Writer {
    async fn run(mut self, stop: CancellationToken) -> Result<Ledger, WorkloadError> {
        let started = Instant::now();
        let mut pace = self.pace();
        while !stop.is_cancelled() && !self.is_done(started.elapsed()) {
            if let Some(pace) = &mut pace {
                pace.tick().await;
            }
            let Some((index, step)) = self.choose() else { break };
            self.write(index, step).await?;
        }
        Ok(self.ledger())
    }

    /// The ticks of this writer's share of the rate. A late tick is made up for, so that the rate holds.
    fn pace(&self) -> Option<tokio::time::Interval> {
        let rate = f64::from(self.options.rate);
        if rate <= 0.0 {
            return None;
        }
        let mut pace = interval(Duration::from_secs_f64(self.users.stride as f64 / rate));
        pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
        Some(pace)
    }

    fn is_done(&self, elapsed: Duration) -> bool {
        let written = self.progress.written();
        let reached = written.total() >= self.options.writes_min && written.keys >= self.options.keys_min;
        elapsed >= self.options.ceiling || (reached && elapsed >= self.options.duration)
    }

    /// The next write: which of this writer's users, and what.
    fn choose(&mut self) -> Option<(usize, Step)> {
        let seen = self.users.states.len();
        let more = (seen as u64) < self.options.keys_max / self.users.stride;
        if seen == 0 || (more && self.rng.random_range(0..100) < NEW_USERS_PERCENT) {
            self.users.states.push(User { version: 0, exists: false, deletions: 0 });
            return Some((seen, Step::Create));
        }
        let index = zipf_index(&mut self.rng, seen);
        let user = self.users.states.get(index)?;
        let percent = self.rng.random_range(0..100);
        let step = match percent {
            _ if !user.exists => Step::Create,
            _ if percent < DELETES_PERCENT => Step::Delete,
            _ if percent < DELETES_PERCENT + UPDATES_PERCENT => Step::Update,
            _ => Step::Replace,
        };
        Some((index, step))
    }

    async fn write(&mut self, index: usize, step: Step) -> Result<(), WorkloadError> {
        let Some(user) = self.users.states.get(index).copied() else { return Ok(()) };
        let key = self.users.cookie_id(index);
        let version = user.version + 1;
        let request = Request::new(&mut self.rng, step, &key, version);
        self.send(&key, &request).await?;
        let now = User {
            version,
            exists: step != Step::Delete,
            deletions: user.deletions + u64::from(step == Step::Delete),
        };
        if let Some(user) = self.users.states.get_mut(index) {
            *user = now;
        }
        self.progress.count(step);
        if user.version == 0 {
            self.progress.keys.fetch_add(1, Ordering::Relaxed);
        }
        self.probe(key, user, version);
        Ok(())
    }

    async fn send(&self, key: &str, request: &Request) -> Result<(), WorkloadError> {
        let mut attempts = ATTEMPTS_MAX;
        loop {
            let Err(reason) = request.send(&self.client, &self.options.table, key).await else {
                return Ok(());
            };
            attempts -= 1;
            if attempts == 0 {
                let table = self.options.table.clone();
                return Err(WorkloadError::Write { table, key: key.to_owned(), reason });
            }
            self.progress.retries.fetch_add(1, Ordering::Relaxed);
            sleep(RETRY_PAUSE).await;
        }
    }

    /// Hands the write to the lag measurement, which needs keys that were never deleted before.
    fn probe(&self, key: String, before: User, version: u64) {
        if before.deletions == 0 {
            self.probes.offer(Probe { key, version, acknowledged: Instant::now() });
        }
    }

    fn ledger(&self) -> Ledger {
        let expected = |user: &User| {
            if user.exists { Expected::Row { version: user.version } } else { Expected::Deleted }
        };
        let states = self.users.states.iter().enumerate().filter(|(_, user)| user.version > 0);
        states.map(|(index, user)| (self.users.cookie_id(index), expected(user))).collect()
    }
}

/// One of the `users` that there are by now, chosen as `writers` writers choose among theirs. Bidders ask for the
/// users that the traffic is about.
pub fn choose_user(rng: &mut StdRng, users: u64, writers: u64) -> u64 {
    let writers = writers.clamp(1, users.max(1));
    let of_each = usize::try_from(users / writers).unwrap_or(usize::MAX);
    rng.random_range(0..writers) + writers * zipf_index(rng, of_each) as u64
}

/// One of `count` by Zipf's law: the first is the most frequent.
fn zipf_index(rng: &mut StdRng, count: usize) -> usize {
    let Ok(zipf) = Zipf::new(count as f64, ZIPF_EXPONENT) else { return 0 };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a sample is a whole number between 1 and a number of keys in memory"
    )]
    let rank = zipf.sample(rng) as usize;
    rank.clamp(1, count) - 1
}

/// A write that can be sent again as it is.
enum Request {
    Put(profile::Item),
    Update(profile::Update),
    Delete,
}

impl Request {
    fn new(rng: &mut StdRng, step: Step, key: &str, version: u64) -> Self {
        match step {
            Step::Create | Step::Replace => Self::Put(profile::profile(rng, key, version, now_ms())),
            Step::Update => Self::Update(profile::update(rng, version, now_ms())),
            Step::Delete => Self::Delete,
        }
    }

    async fn send(&self, client: &Client, table: &str, key: &str) -> Result<(), String> {
        let key = AttributeValue::S(key.to_owned());
        match self {
            Self::Put(item) => {
                let put = client.put_item().table_name(table).set_item(Some(item.clone()));
                put.send().await.map(drop).map_err(|error| DisplayErrorContext(error).to_string())
            }
            Self::Update(update) => {
                let request = client
                    .update_item()
                    .table_name(table)
                    .key(KEY_ATTRIBUTE, key)
                    .update_expression(&update.expression)
                    .set_expression_attribute_names(Some(update.names.clone()))
                    .set_expression_attribute_values(Some(update.values.clone()));
                request.send().await.map(drop).map_err(|error| DisplayErrorContext(error).to_string())
            }
            Self::Delete => {
                let delete = client.delete_item().table_name(table).key(KEY_ATTRIBUTE, key);
                delete.send().await.map(drop).map_err(|error| DisplayErrorContext(error).to_string())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zipf_prefers_the_first_and_reaches_the_last() {
        let mut rng = StdRng::seed_from_u64(3);
        let mut hits = [0_u32; 50];
        for _ in 0..50_000 {
            hits[zipf_index(&mut rng, 50)] += 1;
        }
        assert!(hits[0] > 4 * hits[9], "{hits:?}");
        assert!(hits.iter().all(|&hits| hits > 0), "{hits:?}");
        assert_eq!(zipf_index(&mut rng, 1), 0);
    }

    #[test]
    fn the_users_asked_for_are_users_there_are() {
        let mut rng = StdRng::seed_from_u64(4);
        for (users, writers) in [(1, 16), (40, 16), (1_000, 16), (10, 1), (0, 4)] {
            for _ in 0..1_000 {
                assert!(choose_user(&mut rng, users, writers) < users.max(1), "{users} {writers}");
            }
        }
        let first = (0..10_000).filter(|_| choose_user(&mut rng, 1_000, 10) < 10).count();
        assert!(first > 1_000, "the first user of each writer is the most frequent: {first}");
    }
}
