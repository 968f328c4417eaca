//! What a replay reads: every stream of its tables that is still there, by the generations that the fleet has given them,
//! and every shard of them, closed ones included.
//!
//! Changes are sent with the positions that they had, so the generation of a stream has to be the fleet's. A stream that
//! the state table does not know has none, and none is made up: with a wrong state table everything would be generation 1,
//! and the cache would take nothing, or everything.

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use warmcast_common::aws::CallError;
use warmcast_common::consumer::store::{Generation, Lease, StateStore};
use warmcast_common::consumer::{Lanes, StreamSource};
use warmcast_common::daemon::ConfigError;
use warmcast_common::retry::Class;
use warmcast_proto::key_text::KeyShape;

use super::ReplayError;
use super::ask::{Ask, Scope};
use super::wanted::Wanted;
use crate::change::ChangeMaker;
use crate::config::Config;
use crate::describes::Describes;
use crate::filter::Feeds;
use crate::source::DynamoDbStream;
use crate::table::{TableStream, describe, key_shape, stream_of};

/// A table, as it is described.
pub(super) struct Table {
    pub(super) found: TableStream,
    /// Its keys that are wanted; `None`: all.
    keys: Option<HashSet<Bytes>>,
}

/// A stream that is read.
pub(super) struct Stream {
    pub(super) table: String,
    pub(super) generation: Generation,
    pub(super) source: DynamoDbStream,
    pub(super) maker: ChangeMaker,
    pub(super) feeds: Feeds,
    pub(super) lanes: Lanes,
    pub(super) wanted: Wanted,
    pub(super) shards: Vec<Shard>,
}

/// A shard that is read.
#[derive(Clone, Debug)]
pub(super) struct Shard {
    pub(super) id: String,
    /// Its lease, if it has one: a shard that was finished long ago has none.
    pub(super) lease: Option<Lease>,
}

/// Where a table's streams are looked for.
pub(super) struct Services<'a> {
    pub(super) streams: &'a aws_sdk_dynamodbstreams::Client,
    pub(super) store: &'a StateStore,
}

impl Table {
    /// Describes a table, and reads the keys that are wanted of it.
    pub(super) async fn find(
        dynamodb: &aws_sdk_dynamodb::Client,
        name: &str,
        keys: Option<&[String]>,
    ) -> Result<Self, ReplayError> {
        let described = describe(dynamodb, name).await?;
        let shape = key_shape(&described);
        let found = stream_of(name, described)?;
        let keys = match (keys, shape) {
            (None, _) => None,
            (Some(texts), Some(shape)) => Some(read_keys(&shape, texts)?),
            (Some(_), None) => return Err(ReplayError::NoKeyShape { table: name.to_owned() }),
        };
        Ok(Self { found, keys })
    }
}

/// The most problems with keys that are told at once.
const KEY_PROBLEMS_MAX: usize = 10;

/// Reads keys as people write them.
fn read_keys(shape: &KeyShape, texts: &[String]) -> Result<HashSet<Bytes>, ConfigError> {
    let (mut keys, mut problems) = (HashSet::with_capacity(texts.len()), Vec::new());
    for text in texts {
        match shape.parse(text) {
            Ok(key) => drop(keys.insert(key.into_bytes())),
            Err(error) => problems.push(error.to_string()),
        }
    }
    if problems.is_empty() {
        return Ok(keys);
    }
    let more = problems.len().saturating_sub(KEY_PROBLEMS_MAX);
    problems.truncate(KEY_PROBLEMS_MAX);
    if more > 0 {
        problems.push(format!("and {more} more keys like these"));
    }
    Err(ConfigError { problems })
}

/// Finds the streams of a table, and their shards. Streams that are gone are told by name.
pub(super) async fn find(
    services: &Services<'_>,
    config: &Config,
    ask: &Ask,
    scope: &Scope,
    table: &Table,
    times: (Option<u64>, u64),
) -> Result<(Vec<Stream>, Vec<String>), ReplayError> {
    let name = &table.found.table;
    let mut generations = services.store.generations(name).await?;
    generations.sort_by_key(|generation| generation.number);
    if generations.is_empty() {
        let state = config.state.table.clone();
        return Err(ReplayError::NeverRead { table: name.clone(), state });
    }
    if ask.from.is_some() {
        // A sequence number says nothing of another stream.
        generations.drain(..generations.len() - 1);
    }
    let describes = Describes::beside_a_fleet();
    let (mut streams, mut gone) = (Vec::new(), Vec::new());
    for generation in generations {
        let source = DynamoDbStream::new(services.streams.clone(), &generation.stream, describes.clone());
        let Some(shards) = shards(services.store, &source).await? else {
            gone.push(generation.stream);
            continue;
        };
        let key = table.found.key.clone();
        let (since_ms, until_ms) = times;
        streams.push(Stream {
            table: name.clone(),
            maker: ChangeMaker::new(name, generation.number, key.clone()),
            feeds: Feeds::new(&key, config.regions.iter().map(|region| region.filters.get(name))),
            lanes: scope.lanes,
            wanted: Wanted { since_ms, from: ask.from.clone(), until_ms, keys: table.keys.clone() },
            source,
            generation,
            shards,
        });
    }
    Ok((streams, gone))
}

/// Every shard of a stream with its lease; `None`: the stream is gone.
async fn shards(store: &StateStore, source: &DynamoDbStream) -> Result<Option<Vec<Shard>>, ReplayError> {
    let listing = match source.shards().await {
        Ok(listing) => listing,
        Err(CallError { class: Class::NotFound, .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let leases = store.leases(source.stream()).await?;
    let mut leases: BTreeMap<String, Lease> =
        leases.into_iter().map(|lease| (lease.shard.to_string(), lease)).collect();
    let shards =
        listing.shards.into_iter().map(|shard| Shard { lease: leases.remove(&shard.id), id: shard.id });
    Ok(Some(shards.collect()))
}

impl Shard {
    /// Whether everything in it is too old: the fleet was done with it before.
    pub(super) fn is_too_old(&self, wanted: &Wanted) -> bool {
        let ended = self.lease.as_ref().and_then(|lease| lease.ended);
        ended
            .zip(wanted.since_ms)
            .is_some_and(|(ended, since_ms)| ended.at_ms.saturating_add(CLOCKS_MS) < since_ms)
    }

    /// The bytes that are to be read, by the rate at which the fleet has read the shard; `None`: that is not known.
    pub(super) fn bytes_estimated(&self, wanted: &Wanted, retention_ms: u64) -> Option<u64> {
        let lease = self.lease.as_ref().filter(|lease| lease.bytes_per_s > 0)?;
        let until_ms = lease.ended.map_or(wanted.until_ms, |ended| ended.at_ms.min(wanted.until_ms));
        let oldest_ms = wanted.until_ms.saturating_sub(retention_ms);
        let since_ms =
            wanted.since_ms.unwrap_or(oldest_ms).max(oldest_ms).max(opened_ms(&self.id).unwrap_or(0));
        Some(until_ms.saturating_sub(since_ms) / 1_000 * lease.bytes_per_s)
    }
}

/// How far the clocks of services and of this fleet may be apart, and a record's way be long.
const CLOCKS_MS: u64 = 120_000;

/// When a shard was opened, as its name tells (`shardId-MILLISECONDS-HASH`). The service promises no such form: it is good
/// for estimates only.
fn opened_ms(shard: &str) -> Option<u64> {
    shard.strip_prefix("shardId-")?.split('-').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use warmcast_common::consumer::Checkpoint;
    use warmcast_common::consumer::store::Ended;
    use warmcast_proto::key_text::{KeyKind, KeyPart};

    const DAY_MS: u64 = 86_400_000;
    const NOW_MS: u64 = 1_795_341_600_000;

    fn shard(id: &str, bytes_per_s: u64, ended_ms: Option<u64>) -> Shard {
        let ended = ended_ms.map(|at_ms| Ended { at_ms, watermark_ms: None });
        let lease = Lease { bytes_per_s, ended, ..Lease::new("s", id, 1, Checkpoint::TrimHorizon) };
        Shard { id: id.to_owned(), lease: Some(lease) }
    }

    fn since(ago_ms: u64) -> Wanted {
        Wanted { since_ms: Some(NOW_MS - ago_ms), until_ms: NOW_MS, ..Wanted::default() }
    }

    #[test]
    fn a_shard_that_was_done_before_the_time_is_not_read() {
        let hour = 3_600_000;
        let ended = |ago_ms: u64| shard("a", 1, Some(NOW_MS - ago_ms));
        assert!(ended(2 * hour).is_too_old(&since(hour)));
        assert!(!ended(hour + 1_000).is_too_old(&since(hour)), "clocks differ");
        assert!(!shard("a", 1, None).is_too_old(&since(hour)));
        let all = Wanted { until_ms: NOW_MS, ..Wanted::default() };
        assert!(!ended(2 * hour).is_too_old(&all));
    }

    #[test]
    fn the_bytes_are_estimated_by_the_rate_and_the_time_that_is_read() {
        let bytes = |shard: &Shard, wanted: &Wanted| shard.bytes_estimated(wanted, DAY_MS);
        assert_eq!(bytes(&shard("a", 10, None), &since(60_000)), Some(600));
        let all = Wanted { until_ms: NOW_MS, ..Wanted::default() };
        assert_eq!(bytes(&shard("a", 10, None), &all), Some(864_000));
        let opened = format!("shardId-{:020}-abc", NOW_MS - 10_000);
        assert_eq!(bytes(&shard(&opened, 10, None), &all), Some(100));
        assert_eq!(bytes(&shard("a", 10, Some(NOW_MS - 30_000)), &since(60_000)), Some(300));
        assert_eq!(bytes(&shard("a", 0, None), &all), None);
        assert_eq!(bytes(&Shard { id: "a".to_owned(), lease: None }, &all), None);
    }

    #[test]
    fn keys_are_read_as_the_table_has_them_and_all_that_are_wrong_are_told() {
        let partition = KeyPart { name: "id".to_owned(), kind: KeyKind::Number };
        let shape = KeyShape { partition, sort: None };
        let own = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let keys = read_keys(&shape, &own(&["5", "7", "5"])).unwrap();
        assert_eq!(keys, HashSet::from([Bytes::from_static(b"5"), Bytes::from_static(b"7")]));
        let mut texts = vec!["five".to_owned(); KEY_PROBLEMS_MAX + 3];
        texts.push("5".to_owned());
        let error = read_keys(&shape, &texts).unwrap_err();
        assert_eq!(error.problems.len(), KEY_PROBLEMS_MAX + 1);
        assert!(error.problems[0].contains("\"five\"") && error.problems[0].contains("id"), "{error}");
        assert_eq!(error.problems[KEY_PROBLEMS_MAX], "and 3 more keys like these");
    }
}
