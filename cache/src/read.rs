//! Reading entries in bulk, as they are.
//!
//! What readers stand on: no script, no deadline, no idea of freshness.

mod stay;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use redis::{Cmd, Pipeline, Value};
use tokio::time::Instant;

pub use stay::Stay;

use crate::{
    call::ServerView,
    config::CacheConfig,
    connection::ConnectError,
    exchange::Requests,
    item_id::ItemId,
    key_space::KeySpace,
    node::{Node, Purpose},
    nodes::{Map, Nodes},
    outcome::{CacheError, Refusal},
    round_trips::RoundTrips,
};

/// What a command takes beside its keys, and a key beside its bytes: RESP's framing. Rounded up.
const KEY_OVERHEAD_BYTES: usize = 64;

/// The most keys in one MGET: with items of 400 KiB its answer takes 25 MiB.
const MGET_KEYS_MAX: usize = 64;

/// Where entries are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum ReadFrom {
    /// On the primary of the key.
    #[default]
    Primary,
    /// On a replica of the key's primary, and on the primary where none has an answer. Replicas are behind by what
    /// replication takes. A server that was named alone is read from, whatever it is. A replica that is added is found when the topology is looked up next: after a failure, or a
    /// redirection.
    Replica,
}

/// Reads entries of one cache. Clones share its connections.
#[derive(Clone)]
pub struct EntryReads {
    nodes: Nodes,
    keys: Arc<KeySpace>,
    from: ReadFrom,
    turns: Arc<AtomicUsize>,
}

impl EntryReads {
    /// Connects.
    ///
    /// # Errors
    /// The cache cannot be used; the error says what to do about it.
    pub async fn connect(config: CacheConfig, from: ReadFrom) -> Result<Self, ConnectError> {
        let purpose = match from {
            ReadFrom::Primary => Purpose::ReadPrimaries,
            ReadFrom::Replica => Purpose::ReadReplicas,
        };
        let keys = Arc::new(KeySpace::new(&config));
        let nodes = Nodes::connect_for(config, purpose, RoundTrips::default()).await?;
        Ok(Self { nodes, keys, from, turns: Arc::default() })
    }

    /// The values of these keys (see [`warmcast_proto::key::cache_key`]), in their order; nothing where there is
    /// none, or no string. [`warmcast_proto::entry::EntryHeader::decode`] reads them. Each key has a result of its
    /// own: a dead server fails its own keys only, and the next call connects again.
    pub async fn get_many<K: AsRef<[u8]>>(&self, keys: &[K]) -> Vec<Result<Option<Bytes>, CacheError>> {
        let map = self.nodes.current_map().await;
        // A cluster takes only keys of one slot in one command.
        let keys_per_command = if map.topology().has_slots() { 1 } else { MGET_KEYS_MAX };
        let turn = self.turns.fetch_add(1, Ordering::Relaxed);
        let reads = Reads { keys, keys_per_command, from: self.from, turn };
        if reads.len() == 1
            && let Some(values) = self.get_at_once(&map, &reads).await
        {
            return values;
        }
        let answers = self.nodes.carry(&reads).await;
        let answers = keys.chunks(keys_per_command).zip(answers);
        answers.flat_map(|(keys, answer)| self.values(keys.len(), answer)).collect()
    }

    /// The values of these items' keys, in their order; as [`get_many`](Self::get_many).
    pub async fn get_items(&self, items: &[ItemId]) -> Vec<Result<Option<Bytes>, CacheError>> {
        let keys: Vec<Vec<u8>> = items.iter().map(|item| self.key(item)).collect();
        self.get_many(&keys).await
    }

    /// The server's key of an item.
    #[must_use]
    pub fn key(&self, item: &ItemId) -> Vec<u8> {
        self.keys.key(&item.table, &item.key)
    }

    /// The region's watermark, ms since the Unix epoch: every change made before it has been applied here. None: it
    /// was never published, or its key holds something else.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub async fn watermark_ms(&self) -> Result<Option<u64>, CacheError> {
        let value = self.get_many(&[self.keys.watermark_key()]).await.into_iter().next();
        let value = value.transpose()?.flatten();
        Ok(value.and_then(|digits| str::from_utf8(&digits).ok()?.parse().ok()))
    }

    pub(crate) const fn nodes(&self) -> &Nodes {
        &self.nodes
    }

    pub(crate) fn keys(&self) -> &KeySpace {
        &self.keys
    }

    /// One command to one server, which is what nearly every read is. None: the answer is to be had elsewhere, or
    /// needs a closer look.
    async fn get_at_once<K: AsRef<[u8]>>(
        &self,
        map: &Map,
        reads: &Reads<'_, K>,
    ) -> Option<Vec<Result<Option<Bytes>, CacheError>>> {
        let node = reads.target(map, 0, 0)?;
        let link = self.nodes.link(node).await.ok()?;
        let answer = match link.ask(&reads.command(0)).await {
            Ok(Value::ServerError(_)) => return None,
            Ok(answer) => Ok(answer),
            Err(reason) => {
                node.give_up(&link);
                self.nodes.suspect();
                if reads.has_other_target(0) {
                    return None;
                }
                let (address, reason) = (Arc::clone(node.name()), reason.into());
                Err(CacheError::Unavailable { address, reason })
            }
        };
        Some(self.values(reads.keys.len(), answer))
    }

    /// The values in the answer to one command for so many keys.
    fn values(
        &self,
        len: usize,
        answer: Result<Value, CacheError>,
    ) -> Vec<Result<Option<Bytes>, CacheError>> {
        match answer {
            Ok(Value::Array(answers)) if len > 1 && answers.len() == len => {
                answers.into_iter().map(|answer| Ok(bytes(answer))).collect()
            }
            Ok(answer) if len == 1 => vec![Ok(bytes(answer))],
            Ok(_) => vec![Err(self.misfit()); len],
            Err(CacheError::Refused { refusal: Refusal::Server(text), .. })
                if text.starts_with("WRONGTYPE") =>
            {
                vec![Ok(None); len]
            }
            Err(error) => vec![Err(error); len],
        }
    }

    fn misfit(&self) -> CacheError {
        CacheError::Unavailable {
            address: self.nodes.config().servers.to_string().into(),
            reason: "MGET was answered with something else than a value for each key".into(),
        }
    }
}

impl fmt::Debug for EntryReads {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let servers = self.nodes.config().servers.to_string();
        formatter.debug_struct("EntryReads").field("servers", &servers).field("from", &self.from).finish()
    }
}

/// The value in an answer. What is no string is nothing, as MGET has it.
fn bytes(answer: Value) -> Option<Bytes> {
    match answer {
        Value::BulkString(bytes) => Some(Bytes::from(bytes)),
        Value::SimpleString(text) => Some(Bytes::from(text)),
        // What `+OK` is read as: a server may answer so to GET, too.
        Value::Okay => Some(Bytes::from_static(b"OK")),
        _ => None,
    }
}

/// Commands that read one key, or several.
struct Reads<'k, K> {
    keys: &'k [K],
    keys_per_command: usize,
    from: ReadFrom,
    turn: usize,
}

impl<K: AsRef<[u8]>> Reads<'_, K> {
    fn keys(&self, index: usize) -> &[K] {
        self.keys.chunks(self.keys_per_command).nth(index).unwrap_or_default()
    }

    fn command(&self, index: usize) -> Cmd {
        let keys = self.keys(index);
        let mut command = Cmd::with_capacity(keys.len() + 1, self.len_max(index));
        command.arg(if keys.len() > 1 { "MGET" } else { "GET" });
        for key in keys {
            command.arg(key.as_ref());
        }
        command
    }
}

impl<K: AsRef<[u8]>> Requests for Reads<'_, K> {
    fn len(&self) -> usize {
        self.keys.len().div_ceil(self.keys_per_command)
    }

    fn key(&self, index: usize) -> &[u8] {
        self.keys(index).first().map_or(&[], AsRef::as_ref)
    }

    fn len_max(&self, index: usize) -> usize {
        self.keys(index).iter().map(|key| key.as_ref().len() + KEY_OVERHEAD_BYTES).sum()
    }

    fn write(&self, index: usize, _view: &ServerView, pipeline: &mut Pipeline) {
        pipeline.add_command(self.command(index));
    }

    fn deadline(&self) -> Option<Instant> {
        None
    }

    fn target<'m>(&self, map: &'m Map, index: usize, round: usize) -> Option<&'m Arc<Node>> {
        let shard = map.shard_of(self.key(index))?;
        if self.from == ReadFrom::Primary || round > 0 {
            return Some(&shard.primary);
        }
        let turn = self.turn % shard.replicas.len().max(1);
        Some(shard.replicas.get(turn).unwrap_or(&shard.primary))
    }

    fn has_other_target(&self, round: usize) -> bool {
        self.from == ReadFrom::Replica && round == 0
    }
}
