//! A cache: its connections, its configuration, and what every operation on it has in common.
//!
//! Each operation makes one call of a script for each of its keys, sends them all, and reads one answer for each.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use redis::Value;
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;
use warmcast_proto::key::cache_key;

use crate::{
    call::Call,
    config::CacheConfig,
    connection::ConnectError,
    key_space::is_own,
    nodes::Nodes,
    outcome::{CacheError, Refusal},
    policy::TablePolicy,
    round_trips::RoundTrips,
};

/// The longest item's key: a partition key of 2,048 bytes, of which each may be escaped as three, and a sort key of 1,024
/// (AWS: DynamoDB quotas). Only a forged change has a longer one.
const ITEM_KEY_BYTES_MAX: usize = 3 * 2_048 + 1 + 1_024;

/// The longest name of a table (AWS: DynamoDB, naming rules).
const TABLE_NAME_BYTES_MAX: usize = 255;

/// One cache, to be written. Clones share its connections; calls may be concurrent.
///
/// Every operation takes many keys, sends them in bounded pipelines to the primaries that have them, and answers
/// each by itself, in the order of the keys. [`CacheError::Unavailable`] is no answer: it is not known whether the
/// call was carried out. There is no retry inside, beyond what finding the right server takes; waiting between tries
/// is the caller's part. Dropping an operation's future may leave it carried out in part.
#[derive(Clone)]
pub struct Cache {
    shared: Arc<Shared>,
}

struct Shared {
    nodes: Nodes,
    config: Arc<CacheConfig>,
    /// What errors call the cache where no server of it was asked.
    name: Arc<str>,
    hold_until: Mutex<Option<Instant>>,
}

/// An item, by its table and its canonical key bytes ([`warmcast_proto::key::ItemKey`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ItemRef<'a> {
    /// The table's name.
    pub table: &'a str,
    /// The key within the table.
    pub key: &'a [u8],
}

impl Cache {
    /// Finds the cache's primaries, opens a connection to each, and finds out whether they can be used: addresses,
    /// credentials, rights, roles.
    ///
    /// # Errors
    /// The cache cannot be used; the error says what to do about it.
    pub async fn connect(config: CacheConfig) -> Result<Self, ConnectError> {
        Self::connect_told(config, RoundTrips::default()).await
    }

    /// The same; of each round trip is told.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub async fn connect_told(config: CacheConfig, round_trips: RoundTrips) -> Result<Self, ConnectError> {
        let name = config.servers.to_string().into();
        let nodes = Nodes::connect(config, round_trips).await?;
        let config = Arc::clone(nodes.config());
        Ok(Self { shared: Arc::new(Shared { nodes, config, name, hold_until: Mutex::default() }) })
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &CacheConfig {
        &self.shared.config
    }

    /// How often so far a primary was found whose data may have gone back: another server took its place, it
    /// restarted, or it was emptied. Changes applied in the last minutes before may be lost: apply them again. Only
    /// known while somebody runs [`watch`](Self::watch).
    #[must_use]
    pub fn failovers(&self) -> watch::Receiver<u64> {
        self.shared.nodes.failovers()
    }

    /// Which data the cache has: another word when the data of a primary may have gone back, or when the cache has other
    /// primaries. Every process sees the same word, whenever it looks: whoever keeps what it has applied keeps this
    /// with it, and knows later whether that is still there. Followed while [`watch`](Self::watch) runs.
    #[must_use]
    pub fn epoch(&self) -> watch::Receiver<String> {
        self.shared.nodes.epoch()
    }

    /// Samples every primary once a second until `shutdown`: its role, its identity, its evictions. Without this
    /// running, nothing is known of failovers, and what is known of evictions grows old.
    pub async fn watch(&self, shutdown: CancellationToken) {
        self.shared.nodes.watch(shutdown).await;
    }

    /// Says until when the caller surely holds the leases of what it applies. Nothing lands after it: changes (and the
    /// watermark) have a deadline of `apply_deadline` after their call, or this, whichever is earlier. A process that
    /// was stopped can so land nothing when it resumes, even if it was stopped before it called. Call it again and
    /// again, each time with a moment a little ahead. Never called: the caller needs no leases.
    pub fn hold_until(&self, until: Instant) {
        *self.shared.hold_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
    }

    /// The time after which a call that starts now may not land. None: it is past.
    pub(crate) fn fence(&self) -> Option<Instant> {
        let now = Instant::now();
        let deadline = now + self.shared.config.apply_deadline;
        match *self.shared.hold_until.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(until) if until <= now => None,
            Some(until) => Some(deadline.min(until)),
            None => Some(deadline),
        }
    }

    /// Now on the clock of the server that has this key, not later than it truly is, ms since the epoch. None: it
    /// is not known which server that is.
    pub(crate) fn server_now_ms(&self, key: &[u8]) -> Option<u64> {
        self.shared.nodes.server_now_ms(key)
    }

    pub(crate) fn policy(&self, table: &str) -> &TablePolicy {
        self.shared.config.tables.policy(table)
    }

    /// The server's key of an item, which is none of the cache's own.
    pub(crate) fn key(&self, policy: &TablePolicy, item: ItemRef<'_>) -> Result<Vec<u8>, Refusal> {
        let prefix = policy.key_prefix.as_ref().unwrap_or(&self.shared.config.key_prefix);
        let key = cache_key(prefix, item.table, item.key);
        if item.key.len() > ITEM_KEY_BYTES_MAX || item.table.len() > TABLE_NAME_BYTES_MAX {
            return Err(Refusal::KeyTooLong { len: key.len() });
        }
        if is_own(&self.shared.config.key_prefix, &key) {
            return Err(Refusal::OwnKey);
        }
        Ok(key)
    }

    /// Sends what can be sent and gives one answer for each call, in their order. `read` gets what a script
    /// answers, but for what all scripts answer alike; none: it is not one of its answers.
    pub(crate) async fn send<R>(
        &self,
        calls: impl Iterator<Item = Result<Call<'_>, Refusal>>,
        deadline: Instant,
        read: impl Fn(usize, &Value) -> Option<R>,
    ) -> Vec<Result<R, CacheError>> {
        let mut sendable = Vec::with_capacity(calls.size_hint().0);
        let unsendable: Vec<Option<Refusal>> = calls
            .map(|call| match call {
                Ok(call) => {
                    sendable.push(call);
                    None
                }
                Err(refusal) => Some(refusal),
            })
            .collect();
        let mut values = self.shared.nodes.send(&sendable, deadline).await.into_iter();
        let answer = |(index, refusal)| match refusal {
            Some(refusal) => Err(self.refused(refusal)),
            None => match values.next() {
                Some(Ok(Value::Int(4))) => Err(self.past_deadline()),
                Some(Ok(Value::Int(5))) => Err(self.refused(Refusal::ForeignValue)),
                Some(Ok(value)) => read(index, &value).ok_or_else(|| self.no_answer(&value)),
                Some(Err(error)) => Err(error),
                None => Err(self.no_answer(&Value::Nil)),
            },
        };
        unsendable.into_iter().enumerate().map(answer).collect()
    }

    pub(crate) fn past_deadline(&self) -> CacheError {
        CacheError::PastDeadline { address: Arc::clone(&self.shared.name) }
    }

    fn refused(&self, refusal: Refusal) -> CacheError {
        CacheError::Refused { address: Arc::clone(&self.shared.name), refusal }
    }

    /// Another script under this hash, or a proxy that makes up answers. Not taken for done.
    fn no_answer(&self, value: &Value) -> CacheError {
        let reason = match value {
            Value::Nil => "the script answered nothing".to_owned(),
            Value::Int(number) => format!("the script answered {number}, which is none of its answers"),
            // Its content may be anything, so it is not shown.
            _ => "the script answered with something that is none of its answers".to_owned(),
        };
        CacheError::Unavailable { address: Arc::clone(&self.shared.name), reason: reason.into() }
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Cache").field(&self.shared.name).finish()
    }
}
