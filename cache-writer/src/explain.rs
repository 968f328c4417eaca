//! `explain`: everything that is known about one key, and whether it is as it should be. Only ever reads.
//!
//! ```text
//! look: the master, then the entry ─Look→ watch: again, until it is proven ─Judged→ verdict ─┐
//! surroundings: shard, lease, watermark, dead letters ──────────────────────────────────────┴→ report
//! ```
//!
//! A single look cannot tell a wrong entry from one whose change is on its way. The region's watermark can: once it has
//! passed the time at which the master was read, every change that was made before is applied. So what differs is watched
//! until then, for [`ExplainArgs::wait`] at most.

mod surroundings;
mod verdict;
mod report;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use clap::Args;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use warmcast_cache::read::Stay;
use warmcast_cache::{EntryReads, ItemId, Master, MasterError, ReadFrom, WATERMARK_KEY};
use warmcast_common::clock::now_ms;
use warmcast_common::daemon::{ConfigArgs, ConfigError, Outcome, OutputFormat};
use warmcast_proto::entry::EntryHeader;
use warmcast_proto::item::Item;
use warmcast_proto::key::{Buckets, cache_key};
use warmcast_proto::key_text::KeyShape;

use crate::config::Config;
use crate::named::{find_tables, read_key};
use crate::refill::master;
use crate::verify::case::{Case, Later, Look};
use crate::verify::judge::{Difference, Foreign, Miss, Rules, Verdict};

pub use report::{EntryPart, Explanation, MasterPart, Part};
pub use verdict::{Conclusion, Finding};

/// Between two looks at a key that differs.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// How much later than the read of the master the watermark must be before a difference is taken for wrong: creation
/// times are whole seconds, rounded down, and clocks differ (rule 4 of the cache protocol).
const PROOF_MARGIN_MS: u64 = 3_000;

/// The flags of `explain`.
#[derive(Args, Clone, Debug)]
pub struct ExplainArgs {
    /// Where the cache, the stream, the state table and the master are.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// The key: the value of the partition key, or DynamoDB's JSON of the whole key. Without `[master]` in the
    /// configuration: its canonical bytes, those that are no plain text as \xNN.
    #[arg(value_name = "KEY")]
    pub key: String,
    /// The key's table.
    #[arg(long, value_name = "TABLE")]
    pub table: String,
    /// The aggregator's `batch.buckets`.
    #[arg(long, value_name = "BUCKETS", default_value_t = 64)]
    pub buckets: u32,
    /// Compare only these attributes, where the region is sent only some (the filters of the aggregator's configuration).
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub attributes: Option<Vec<String>>,
    /// The region is sent only some of the items: that readers see none is no mismatch. Default: `verify.filtered`.
    #[arg(long)]
    pub filtered: bool,
    /// For how long a difference is watched, in seconds, until it is known whether a change is on its way.
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(..=600))]
    pub wait: u64,
    /// How to print it.
    #[arg(long, value_enum, default_value_t)]
    pub output: OutputFormat,
}

/// Carries out `explain`.
///
/// # Errors
/// The key or its table is none, or the cache or the master cannot be read.
pub async fn explain_command(
    args: ExplainArgs,
    shutdown: CancellationToken,
) -> Result<Outcome, anyhow::Error> {
    let config: Config = args.config.load()?;
    let explaining = explain(&args, &config);
    let explanation = shutdown.run_until_cancelled(explaining).await.context("stopped by a signal")??;
    warmcast_common::tool::report(args.output, &explanation, || explanation.lines())?;
    explanation.outcome()
}

/// Explains a key.
///
/// # Errors
/// As of [`explain_command`].
pub async fn explain(args: &ExplainArgs, config: &Config) -> Result<Explanation, anyhow::Error> {
    Box::pin(look_into(args, config)).await
}

async fn look_into(args: &ExplainArgs, config: &Config) -> Result<Explanation, anyhow::Error> {
    let refuse = |problem: String| ConfigError { problems: vec![problem] };
    let buckets = Buckets::new(args.buckets).map_err(|error| refuse(format!("--buckets: {error}")))?;
    let master = match &config.fallback {
        Some(fallback) => Some(master(fallback).await),
        None => None,
    };
    let tables = std::slice::from_ref(&args.table);
    // While the master is away the rest is explained all the same.
    let (shape, away) = match find_tables(tables, master.as_ref(), &config.redis.tables).await {
        Ok(tables) => (tables.into_values().next().flatten(), None),
        Err(error) if error.is::<ConfigError>() => return Err(error),
        Err(error) => (None, Some(error.to_string())),
    };
    let key = read_key(shape.as_ref(), &args.key).map_err(refuse)?;
    let subject = Subject::new(args, config, key, shape);
    let reads = EntryReads::connect(config.redis.clone(), ReadFrom::Primary).await.context("the cache")?;
    let eyes = Eyes { subject: &subject, reads: &reads, master: master.as_ref(), away };
    let watching = Box::pin(eyes.watch(Duration::from_secs(args.wait)));
    let around = Box::pin(surroundings::look_around(config, &subject, buckets));
    let (watched, surroundings) = tokio::join!(watching, around);
    Ok(Explanation::new(&subject, watched?, surroundings))
}

/// The key that is explained.
struct Subject {
    id: ItemId,
    shape: Option<KeyShape>,
    /// The server's key.
    cache_key: Vec<u8>,
    watermark_key: Vec<u8>,
    rules: Rules,
    policy: warmcast_cache::TablePolicy,
}

impl Subject {
    fn new(args: &ExplainArgs, config: &Config, key: Bytes, shape: Option<KeyShape>) -> Self {
        let redis = &config.redis;
        let policy = redis.tables.policy(&args.table).clone();
        let prefix = policy.key_prefix.as_ref().unwrap_or(&redis.key_prefix);
        Self {
            cache_key: cache_key(prefix, &args.table, &key),
            watermark_key: [&redis.key_prefix, WATERMARK_KEY].concat().into_bytes(),
            rules: Rules::new(policy.clone(), args.attributes.clone())
                .filtered(args.filtered || config.verify.is_filtered),
            policy,
            id: ItemId::new(args.table.as_str(), key),
            shape,
        }
    }
}

/// What the cache has.
#[derive(Clone, Debug)]
struct Cached {
    /// When it was read: milliseconds since the Unix epoch.
    at_ms: u64,
    value: Option<Bytes>,
    /// `None`: the server may not be asked.
    stay: Option<Stay>,
    watermark_ms: Option<u64>,
}

/// A key after the last look at it.
struct Watched {
    cached: Cached,
    row: Row,
    judged: Judged,
    /// For how long it was watched.
    for_ms: u64,
}

impl Cached {
    /// The key holds something, and no string.
    fn is_no_string(&self) -> bool {
        self.value.is_none() && matches!(self.stay, Some(Stay::Unbounded | Stay::Left(_)))
    }
}

/// What the master has.
enum Row {
    NotConfigured,
    /// It could not be read, for this reason.
    Unreadable(String),
    Read(Option<Item>),
}

/// What the looks say.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Judged {
    /// There is no master to compare with, or it cannot be read.
    NotCompared,
    Consistent,
    Missing(Miss),
    /// It differs, and every change that was made before the master was first read is applied.
    Wrong(Difference),
    /// It differs, and changes may be on their way.
    Behind(Difference),
}

/// What looks at the key.
struct Eyes<'a> {
    subject: &'a Subject,
    reads: &'a EntryReads,
    master: Option<&'a Master>,
    /// The master cannot be read, for this reason.
    away: Option<String>,
}

impl Eyes<'_> {
    /// Looks until it is known what the key is.
    async fn watch(&self, wait: Duration) -> Result<Watched, anyhow::Error> {
        let began = Instant::now();
        let (mut look, mut cached, mut row) = self.look().await?;
        let watched = |cached, row, judged| {
            let for_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
            Ok(Watched { cached, row, judged, for_ms })
        };
        let Some(first) = &look else { return watched(cached, row, Judged::NotCompared) };
        if cached.is_no_string() {
            return watched(cached, row, Judged::Wrong(Difference::Foreign(Foreign::NoString)));
        }
        let mut difference = match first.verdict() {
            Verdict::Consistent => return watched(cached, row, Judged::Consistent),
            Verdict::Missing(miss) => return watched(cached, row, Judged::Missing(miss)),
            Verdict::Different(difference) => difference,
        };
        // Nothing on its way mends it.
        if let Difference::Foreign(_) = difference {
            return watched(cached, row, Judged::Wrong(difference));
        }
        let mut case = Case::new(first);
        loop {
            let proven_ms = case.first_read_ms() + PROOF_MARGIN_MS;
            if cached.watermark_ms.is_some_and(|watermark_ms| watermark_ms >= proven_ms) {
                return watched(cached, row, Judged::Wrong(difference));
            }
            if began.elapsed() >= wait {
                return watched(cached, row, Judged::Behind(difference));
            }
            sleep(LOOK_INTERVAL).await;
            (look, cached, row) = self.look().await?;
            let Some(look) = &look else { return watched(cached, row, Judged::NotCompared) };
            match case.look_again(look) {
                Later::Consistent(_) => return watched(cached, row, Judged::Consistent),
                Later::Missing(miss) => return watched(cached, row, Judged::Missing(miss)),
                Later::Different(found) => difference = found,
            }
        }
    }

    /// The master, the cache, and where they differ the master once more, so that a change in between is no difference.
    async fn look(&self) -> Result<(Option<Look>, Cached, Row), anyhow::Error> {
        let Some(master) = self.master else { return Ok((None, self.cached().await?, Row::NotConfigured)) };
        let read_ms = now_ms();
        let row = self.row(master).await;
        let cached = self.cached().await?;
        let mut row = match row {
            Ok(row) => row,
            Err(error) => return Ok((None, cached, Row::Unreadable(error))),
        };
        let rules = &self.subject.rules;
        let mut look = Look {
            read_ms,
            done_ms: cached.at_ms,
            expected: rules.expected(row.as_ref(), cached.at_ms),
            seen: rules.seen(cached.value.as_ref(), cached.at_ms),
            header: header(cached.value.as_ref()),
            expected_after: None,
        };
        if let Verdict::Different(_) = look.verdict() {
            row = match self.row(master).await {
                Ok(row) => row,
                Err(error) => return Ok((None, cached, Row::Unreadable(error))),
            };
            look.done_ms = now_ms();
            look.expected_after = Some(rules.expected(row.as_ref(), look.done_ms));
        }
        Ok((Some(look), cached, Row::Read(row)))
    }

    async fn row(&self, master: &Master) -> Result<Option<Item>, String> {
        if let Some(why) = &self.away {
            return Err(why.clone());
        }
        let answer = master.read_many(std::slice::from_ref(&self.subject.id)).await.pop();
        answer.unwrap_or(Err(MasterError::Stopped)).map_err(|error| error.to_string())
    }

    /// The watermark first: what it promises holds for the entry that is read after it.
    async fn cached(&self) -> Result<Cached, anyhow::Error> {
        let watermark_ms = match self.get(&self.subject.watermark_key).await? {
            Some(text) => str::from_utf8(&text).ok().and_then(|text| text.parse().ok()),
            None => None,
        };
        let value = self.get(&self.subject.cache_key).await?;
        let at_ms = now_ms();
        let stay = self.reads.stay(&self.subject.cache_key).await.ok();
        Ok(Cached { at_ms, value, stay, watermark_ms })
    }

    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, anyhow::Error> {
        let answer = self.reads.get_many(&[key]).await.pop();
        Ok(answer.context("the cache gave no answer")??)
    }
}

fn header(value: Option<&Bytes>) -> Option<EntryHeader> {
    EntryHeader::decode(value?).ok().map(|(header, _)| header)
}

/// A part of what is known, or why it is not.
type Known<T> = Result<T, Arc<str>>;
