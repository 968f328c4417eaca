//! A target region behind its proxy: a sink, or a Kinesis with a cache-writer and a Redis. Both tell what was applied,
//! how far they are behind, and what they have of each key.

use std::path::Path;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use tokio::time::Instant;

use super::RegionsError;
use super::cache::{Cache, Counts};
use super::ledger::{Comparison, Held, Ledger, key_text};
use super::sink::Sink;
use super::source::Source;
use crate::daemon::Endpoint;
use crate::entry::{self, Entry};
use crate::faults::FaultProxy;
use crate::world::{self, WorldOptions};

/// The table whose rows a region has.
pub(crate) const TABLE: &str = "profiles";
/// Moments whose last updates are asked of a Redis at once.
const PROBES_PER_LOOK: usize = 400;

/// How much of a region is real.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum RegionKind {
    /// A Kinesis that applies records at once, inside this process.
    #[default]
    Sink,
    /// A Kinesis, a cache-writer and a Redis.
    Full,
}

/// A target region.
#[derive(Debug)]
pub struct Region {
    name: String,
    faults: FaultProxy,
    target: Target,
    /// The first update that the region was not yet seen to have.
    next: usize,
}

#[derive(Debug)]
enum Target {
    Sink(Sink),
    Full { region: Box<world::Region>, connection: Option<MultiplexedConnection> },
}

impl Region {
    /// A region that is a sink.
    pub(super) async fn sink(name: &str, cache: Cache, shards: u32, seed: u64) -> Result<Self, RegionsError> {
        let sink = Sink::start(cache, shards).await?;
        let faults = FaultProxy::start(&sink.url(), seed).await?;
        Ok(Self { name: name.to_owned(), faults, target: Target::Sink(sink), next: 0 })
    }

    /// A region with everything; its state table is in the DynamoDB of `master`.
    pub(super) async fn full(
        name: &str,
        shards: u32,
        master: &Endpoint,
        directory: &Path,
        seed: u64,
    ) -> Result<Self, RegionsError> {
        let kinesis_shards = i32::try_from(shards).unwrap_or(i32::MAX);
        let options = WorldOptions { kinesis_shards, ..WorldOptions::default() };
        let mut region = world::Region::start(name, &options, master, directory).await?;
        let faults = FaultProxy::start(&region.kinesis().url(), seed).await?;
        region.cache_writer_mut().start()?;
        let target = Target::Full { region: Box::new(region), connection: None };
        Ok(Self { name: name.to_owned(), faults, target, next: 0 })
    }

    /// The region's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The proxy between the aggregator and its Kinesis.
    #[must_use]
    pub fn faults(&self) -> &FaultProxy {
        &self.faults
    }

    /// Where the aggregator puts.
    pub(super) fn endpoint(&self) -> Endpoint {
        Endpoint::new(&self.name, &self.faults.url())
    }

    /// Changes that were news in this region.
    #[must_use]
    pub fn applied(&self) -> u64 {
        match &self.target {
            Target::Sink(sink) => sink.cache().counts().applied,
            Target::Full { region, .. } => {
                let stats = region.cache_writer().stats();
                stats.total("changes_applied") + stats.total("changes_coalesced")
            }
        }
    }

    /// Records and changes that were not understood.
    #[must_use]
    pub fn undecodable(&self) -> u64 {
        match &self.target {
            Target::Sink(sink) => {
                let Counts { undecodable, .. } = sink.cache().counts();
                undecodable
            }
            Target::Full { region, .. } => region.cache_writer().stats().total("dead_letters"),
        }
    }

    /// How far the region is behind: the age of the oldest update that it has neither got nor got a newer one of its
    /// key. `None`: it has everything that was put.
    ///
    /// Of a region with a Redis one update of each moment is asked for, not every one.
    ///
    /// # Errors
    /// Its Redis does not answer.
    pub async fn lag(&mut self, source: &Source) -> Result<Option<Duration>, RegionsError> {
        match &mut self.target {
            Target::Sink(sink) => {
                let (ledger, cache) = (source.ledger(), sink.cache());
                while let Some((key, order)) = ledger.update(self.next)
                    && cache.covers(key, order)
                {
                    self.next += 1;
                }
            }
            Target::Full { region, connection } => {
                let connection = match connection {
                    Some(connection) => connection,
                    none => none.insert(region.redis().connect().await?),
                };
                while let Some(next) = look(connection, source, self.next).await? {
                    self.next = next;
                }
            }
        }
        Ok(source.ledger().put_at(self.next).map(|at| Instant::now().saturating_duration_since(at)))
    }

    /// Compares what it has of every key with what was put.
    ///
    /// # Errors
    /// Its Redis does not answer.
    pub async fn compare(&self, source: &Source) -> Result<Comparison, RegionsError> {
        match &self.target {
            Target::Sink(sink) => {
                let (ledger, cache) = (source.ledger(), sink.cache());
                Ok(ledger.compare(|key| cache.held(key)))
            }
            Target::Full { region, .. } => {
                let mut connection = region.redis().connect().await?;
                Ok(compare_cache(&mut connection, source).await?)
            }
        }
    }

    /// Which part of it has ended by itself.
    pub(super) fn ended(&mut self) -> Option<String> {
        match &mut self.target {
            Target::Sink(_) => None,
            Target::Full { region, .. } => region.ended(),
        }
    }

    pub(super) async fn stop(self) -> Result<(), RegionsError> {
        match self.target {
            Target::Sink(sink) => sink.stop().await,
            Target::Full { region, .. } => region.stop().await?,
        }
        Ok(())
    }
}

/// Asks for the first update of each of the next moments; returns up to where the region has them, if that is further
/// than `next`.
async fn look(
    connection: &mut MultiplexedConnection,
    source: &Source,
    next: usize,
) -> Result<Option<usize>, RegionsError> {
    let (probes, first_sequence) = {
        let ledger = source.ledger();
        let mut at = next;
        let mut probes = Vec::new();
        while let Some((key, order)) = ledger.update(at)
            && probes.len() < PROBES_PER_LOOK
        {
            probes.push((at, key, order));
            at = ledger.next_moment(at);
        }
        (probes, ledger.first_sequence())
    };
    let keys: Vec<Vec<u8>> =
        probes.iter().map(|(_, key, _)| entry::redis_key(TABLE, &key_text(*key))).collect();
    let entries = entry::get_many(connection, &keys).await?;
    let is_covered =
        |order, entry: Entry| held(Some(entry), first_sequence).order.is_some_and(|of| of >= order);
    let covered =
        probes.iter().zip(entries).take_while(|((_, _, order), entry)| is_covered(*order, entry.clone()));
    let last = covered.last().map(|((at, _, _), _)| *at);
    Ok(last.map(|at| source.ledger().next_moment(at)))
}

/// Compares what a region's Redis has of each key with what was put.
pub(crate) async fn compare_cache(
    connection: &mut MultiplexedConnection,
    source: &Source,
) -> redis::RedisResult<Comparison> {
    let (keys, first_sequence) = {
        let ledger = source.ledger();
        (ledger.keys(), ledger.first_sequence())
    };
    let keys: Vec<Vec<u8>> = (0..keys).map(|key| entry::redis_key(TABLE, &key_text(key))).collect();
    let entries = entry::get_many(connection, &keys).await?;
    // By key: those that were never put are not asked for.
    let of = |key: u32| usize::try_from(key).ok().and_then(|place| entries.get(place).cloned());
    Ok(source.ledger().compare(|key| held(of(key), first_sequence)))
}

/// What an entry says, in terms of the ledger.
pub(crate) fn held(entry: Option<Entry>, first_sequence: u128) -> Held {
    let Some(entry) = entry.filter(|entry| !entry.is_miss()) else { return Held::default() };
    let order = entry.floor().map(|position| Ledger::order(first_sequence, position));
    Held { order, row: entry.row().cloned() }
}
