//! Which shard of the target stream an entry is for: the server's own listing, asked for again when an answer names a
//! shard that was not in it.

use std::collections::{BTreeMap, HashMap};

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::error::DisplayErrorContext;
use parking_lot::Mutex;

use crate::clients;

/// The region in the signature; local servers accept any.
const REGION: &str = "us-east-1";
/// What entries are for while the listing is not known: they share one capacity.
const UNKNOWN: &str = "shardId-unknown";

/// The listings of a server's streams.
#[derive(Debug)]
pub(super) struct ShardMap {
    client: Client,
    streams: Mutex<HashMap<String, Shards>>,
}

/// The open shards of a stream by their first hash key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Shards(BTreeMap<u128, String>);

impl Shards {
    pub(super) fn shard_of(&self, hash_key: u128) -> &str {
        self.0.range(..=hash_key).next_back().map_or(UNKNOWN, |(_, shard)| shard)
    }

    fn has(&self, shard: &str) -> bool {
        self.0.values().any(|known| known == shard)
    }
}

impl ShardMap {
    pub(super) fn new(upstream: &str) -> Self {
        Self { client: clients::kinesis(upstream, REGION), streams: Mutex::default() }
    }

    /// The open shards of a stream. Asks the server if they are not known.
    pub(super) async fn of(&self, stream: &str) -> Shards {
        if let Some(shards) = self.streams.lock().get(stream) {
            return shards.clone();
        }
        match self.list(stream).await {
            Some(shards) => {
                self.streams.lock().insert(stream.to_owned(), shards.clone());
                shards
            }
            None => Shards::default(),
        }
    }

    /// Records landed in these shards. If one was not listed, the stream was resharded: the server is asked again.
    pub(super) fn check<'a>(&self, stream: &str, mut landed: impl Iterator<Item = &'a str>) {
        let mut streams = self.streams.lock();
        if streams.get(stream).is_some_and(|shards| landed.any(|shard| !shards.has(shard))) {
            streams.remove(stream);
        }
    }

    async fn list(&self, stream: &str) -> Option<Shards> {
        let listed = self.client.list_shards().stream_name(stream).send().await;
        let listed = match listed {
            Ok(listed) => listed.shards.unwrap_or_default(),
            Err(error) => {
                tracing::warn!(stream, error = %DisplayErrorContext(error), "cannot list the target's shards");
                return None;
            }
        };
        let open = listed.into_iter().filter(|shard| {
            shard.sequence_number_range.as_ref().is_none_or(|range| range.ending_sequence_number.is_none())
        });
        let open = open.filter_map(|shard| {
            Some((shard.hash_key_range?.starting_hash_key.parse().ok()?, shard.shard_id))
        });
        Some(Shards(open.collect())).filter(|shards| !shards.0.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_key_belongs_to_the_shard_whose_range_it_is_in() {
        let shards = Shards([(0, "a".to_owned()), (100, "b".to_owned())].into());
        let of = |key| shards.shard_of(key);
        assert_eq!([of(0), of(99), of(100), of(u128::MAX)], ["a", "a", "b", "b"]);
        assert!(shards.has("a") && !shards.has("c"));
        assert_eq!(Shards::default().shard_of(5), UNKNOWN);
    }
}
