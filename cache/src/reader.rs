//! What bidders read with: one `GET` or `MGET`, a look at the header, and never longer than the deadline.
//!
//! Around that: a first level in this process, the region's watermark to judge freshness by, and, where it is
//! configured, the master table after a miss, within a budget, with the fill landing after the answer.
//!
//! Modules in the order in which they build on each other: `config`, `answer`, `keys` and `stats` are plain values;
//! the `watermark` is read in the background; `glance` reads an entry's header and `judge` makes an answer of it;
//! `first_level` keeps, `joint_reads` reads; `call` takes a call through all of it, and `fallback` to the master.

mod config;
mod answer;
mod keys;
mod stats;
mod watermark;
mod glance;
mod judge;
mod first_level;
mod joint_reads;
mod call;
#[cfg(feature = "master")]
mod fallback;

use std::{sync::Arc, time::Duration};

use tokio::{task::JoinSet, time::timeout_at};
use warmcast_proto::key::ItemKey;

#[cfg(feature = "master")]
pub use self::config::MasterFallback;
pub use self::{
    answer::{Answer, ReadError, Row},
    config::{FirstLevelConfig, ReadOptions, ReaderConfig},
    stats::ReaderStats,
};
use self::{
    call::Call,
    first_level::FirstLevel,
    joint_reads::{JointReads, Read},
    keys::Keys,
    stats::Counters,
    watermark::Watermark,
};
#[cfg(feature = "master")]
use crate::{cache::Cache, filler::Filler, master::Master};
use crate::{
    config::CacheConfig, connection::ConnectError, key_space::WATERMARK_KEY, outcome::CacheError,
    read::EntryReads, shape::wall_clock_ms,
};

/// Reads items of one region's cache. Clones are cheap and share everything; calls may be concurrent.
///
/// A call never takes longer than its deadline. What is not known by then is [`Answer::Missing`]; its fill, if a
/// master is configured, goes on by itself. Dropping the last clone ends what it has running.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use warmcast_cache::{Answer, CacheConfig, Reader, ReaderConfig};
/// use warmcast_proto::key::ItemKey;
///
/// let cache = CacheConfig::from_url("redis://cache.internal:6379")?;
/// let reader = Reader::connect(ReaderConfig::new(cache)).await?;
/// match reader.get("profiles", &ItemKey::partition("user-1")).await? {
///     Answer::Fresh(profile) => println!("{:?}", profile.item()?),
///     Answer::Stale(_, lag) => println!("known, but the region is {lag:?} behind"),
///     Answer::Absent => println!("there is no such user"),
///     Answer::Missing { filling } => println!("not known here; being filled: {filling}"),
/// }
/// # Ok(())
/// # }
/// ```
///
/// With the master's region behind it, read only by those who may wait:
///
/// ```no_run
/// # async fn example(dynamodb: aws_sdk_dynamodb::Client) -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use warmcast_cache::{CacheConfig, Reader, ReaderConfig, reader::{MasterFallback, ReadOptions}};
/// use warmcast_proto::key::ItemKey;
///
/// let config = ReaderConfig {
///     master: Some(MasterFallback::new(dynamodb)),
///     ..ReaderConfig::new(CacheConfig::from_url("redis://cache.internal:6379")?)
/// };
/// let reader = Reader::connect(config).await?;
/// // In an auction: a miss is filled for the next one.
/// let options = ReadOptions { wait_for_master: false, ..reader.options() };
/// let keys = [ItemKey::partition("user-1"), ItemKey::partition("user-2")];
/// let answers = reader.get_many_with("profiles", &keys, options).await?;
/// // Elsewhere: the master's answer, if it comes within the deadline.
/// let options = ReadOptions { deadline: Duration::from_secs(1), ..reader.options() };
/// let answer = reader.get_with("profiles", &ItemKey::partition("user-3"), options).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Reader {
    inner: Arc<Inner>,
}

struct Inner {
    config: ReaderConfig,
    reads: EntryReads,
    joint_reads: JointReads,
    first_level: Option<FirstLevel>,
    watermark: Watermark,
    #[cfg(feature = "master")]
    filler: Option<Filler>,
    counters: Counters,
    /// Follows the watermark. It is aborted when this is dropped.
    _tasks: JoinSet<()>,
}

/// Why there is no reader.
#[derive(Debug, thiserror::Error)]
pub enum ReaderError {
    /// The configuration cannot be used.
    #[error("the reader's configuration: {}", violations.join("; "))]
    Config {
        /// All that is wrong.
        violations: Vec<String>,
    },
    /// The cache cannot be used.
    #[error(transparent)]
    Connect(#[from] ConnectError),
}

impl Reader {
    /// Connects to the cache.
    ///
    /// # Errors
    /// The configuration or the cache cannot be used; the error says what to do about it.
    pub async fn connect(config: ReaderConfig) -> Result<Self, ReaderError> {
        let violations = config.violations();
        if !violations.is_empty() {
            return Err(ReaderError::Config { violations });
        }
        let reads = EntryReads::connect(config.cache.clone(), config.read_from).await?;
        #[cfg(feature = "master")]
        let filler = filler(&config).await?;
        let watermark_key = [&config.cache.key_prefix, WATERMARK_KEY].concat().into_bytes();
        let watermark = Watermark::default();
        watermark.read(&reads, &watermark_key).await;
        let mut tasks = JoinSet::new();
        tasks.spawn(watermark.clone().follow(reads.clone(), watermark_key));
        let inner = Inner {
            first_level: config.first_level.as_ref().map(FirstLevel::new),
            config,
            reads,
            joint_reads: JointReads::default(),
            watermark,
            #[cfg(feature = "master")]
            filler,
            counters: Counters::default(),
            _tasks: tasks,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// What is known of an item.
    ///
    /// Calls for the same key at the same time share one read of the server.
    ///
    /// # Errors
    /// The cache cannot be read, or not within the deadline, and the first level does not have the item.
    pub async fn get(&self, table: &str, key: &ItemKey) -> Result<Answer, ReadError> {
        self.get_with(table, key, self.options()).await
    }

    /// What is known of an item, with options of this call's own.
    ///
    /// # Errors
    /// See [`get`](Self::get).
    pub async fn get_with(
        &self,
        table: &str,
        key: &ItemKey,
        options: ReadOptions,
    ) -> Result<Answer, ReadError> {
        let inner = &*self.inner;
        let cache_keys = Keys::one(inner.prefix(table), table, key);
        let cache_key = cache_keys.get(0);
        if let Some(answer) = inner.recall(cache_key, options, wall_clock_ms()) {
            inner.counters.first_level_hit(&answer);
            return Ok(answer);
        }
        let mut call = Call::new(inner, 1, options);
        let read = inner.joint_reads.read(cache_key, || inner.read(cache_key));
        match timeout_at(call.deadline, read).await {
            Ok(Read { entry, as_of_ms }) => call.take(0, cache_key, entry, as_of_ms, wall_clock_ms()),
            Err(_) => call.fail(0, ReadError::Deadline { deadline: options.deadline }),
        }
        #[cfg(feature = "master")]
        call.fall_back(table, std::slice::from_ref(key), &cache_keys).await;
        Ok(call.finish()?.pop().unwrap_or(Answer::Missing { filling: false }))
    }

    /// What is known of items of one table; one answer for each key, in the keys' order, with one read of each
    /// server that has some of them.
    ///
    /// Keys that could not be read, because their server is down or slow, are [`Answer::Missing`] without a fill,
    /// and counted ([`ReaderStats::unavailable`]): a bidder uses what there is.
    ///
    /// # Errors
    /// Not one of the keys could be read.
    pub async fn get_many(&self, table: &str, keys: &[ItemKey]) -> Result<Vec<Answer>, ReadError> {
        self.get_many_with(table, keys, self.options()).await
    }

    /// What is known of items, with options of this call's own.
    ///
    /// # Errors
    /// See [`get_many`](Self::get_many).
    pub async fn get_many_with(
        &self,
        table: &str,
        keys: &[ItemKey],
        options: ReadOptions,
    ) -> Result<Vec<Answer>, ReadError> {
        let inner = &*self.inner;
        let cache_keys = Keys::new(inner.prefix(table), table, keys);
        let mut call = Call::new(inner, keys.len(), options);
        let mut wanted: Vec<usize> = (0..keys.len()).collect();
        if inner.first_level.is_some() {
            let now_ms = wall_clock_ms();
            wanted.retain(|index| !call.recall(*index, cache_keys.get(*index), now_ms));
        }
        if !wanted.is_empty() {
            let as_of_ms = call.as_of_ms;
            let asked: Vec<&[u8]> = wanted.iter().map(|index| cache_keys.get(*index)).collect();
            let entries = timeout_at(call.deadline, inner.reads.get_many(&asked)).await;
            let now_ms = wall_clock_ms();
            match entries {
                Ok(entries) => {
                    for ((index, cache_key), entry) in wanted.iter().zip(&asked).zip(entries) {
                        call.take(*index, cache_key, entry, as_of_ms, now_ms);
                    }
                }
                Err(_) => {
                    for index in wanted {
                        call.fail(index, ReadError::Deadline { deadline: options.deadline });
                    }
                }
            }
            #[cfg(feature = "master")]
            call.fall_back(table, keys, &cache_keys).await;
        }
        call.finish()
    }

    /// The configured options, for a call that wants one of them otherwise.
    #[must_use]
    pub fn options(&self) -> ReadOptions {
        self.inner.config.options()
    }

    /// How far the region is behind its master, by its watermark and this machine's clock; none: no watermark was
    /// ever read. It grows while the watermark stands or cannot be read.
    #[must_use]
    pub fn lag(&self) -> Option<Duration> {
        let watermark_ms = self.inner.watermark.get();
        (watermark_ms > 0).then(|| Duration::from_millis(wall_clock_ms().saturating_sub(watermark_ms)))
    }

    /// What it came to, since the start.
    #[must_use]
    pub fn stats(&self) -> ReaderStats {
        let stats = self.inner.counters.stats();
        #[cfg(feature = "master")]
        let stats = {
            let filler = self.inner.filler.as_ref();
            let master = filler.map(|filler| filler.master().stats());
            ReaderStats { filler: filler.map(Filler::stats), master, ..stats }
        };
        stats
    }
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Reader").field("config", &self.inner.config).finish_non_exhaustive()
    }
}

impl Inner {
    fn prefix(&self, table: &str) -> &str {
        let CacheConfig { key_prefix, tables, .. } = &self.config.cache;
        tables.policy(table).key_prefix.as_ref().unwrap_or(key_prefix)
    }

    /// The first level's answer.
    fn recall(&self, cache_key: &[u8], options: ReadOptions, now_ms: u64) -> Option<Answer> {
        let kept = self.first_level.as_ref()?.get(cache_key)?;
        kept.known.answer(kept.as_of_ms, options.staleness_max, now_ms)
    }

    async fn read(&self, cache_key: &[u8]) -> Read {
        let as_of_ms = self.watermark.get();
        let entry = self.reads.get_many(&[cache_key]).await.pop();
        let no_answer =
            || Err(CacheError::Unavailable { address: "cache".into(), reason: "no answer".into() });
        Read { entry: entry.unwrap_or_else(no_answer), as_of_ms }
    }
}

#[cfg(feature = "master")]
async fn filler(config: &ReaderConfig) -> Result<Option<Filler>, ConnectError> {
    let Some(fallback) = &config.master else { return Ok(None) };
    let cache = Cache::connect(config.cache.clone()).await?;
    let master = Master::new(fallback.client.clone(), fallback.master.clone());
    Ok(Some(Filler::new(cache, master, fallback.filler.clone())))
}
