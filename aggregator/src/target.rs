//! One region's stream as it is called: entries go in, each gets an answer.
//!
//! The SDK's HTTP client offers HTTP/2 and then keeps one connection to a host, which every call shares: one TCP
//! window for a whole ocean, and one lost packet holds up all. So there are several clients, each with a connection of
//! its own, used in turn. A connection whose other end is gone without a word keeps its place in the client (hyper
//! notices nothing while TCP sends again, for minutes): after a call without an answer its client is replaced.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::timeout::TimeoutConfig;
use aws_sdk_kinesis::operation::put_records::PutRecordsOutput;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{
    PutRecordsRequestEntry, PutRecordsResultEntry, RecordDistributionStrategy, Shard, ShardFilter,
    ShardFilterType, StreamDescriptionSummary, StreamMode,
};
use bytes::Bytes;
use parking_lot::Mutex;
use warmcast_common::aws::{CallError, class_of_code, sdk_config};
use warmcast_common::config::ServiceConfig;
use warmcast_common::retry::Class;

use crate::cbor::{PutEncoding, with_encoding};
use crate::record_format::RecordFormat;

/// Three tries of a SYN across an ocean.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// AWS: CreateStream: shard ids are this and a number.
const SHARD_ID_PREFIX: &str = "shardId-";

/// How a target stream is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TargetConfig {
    /// Connections to it, at least one.
    pub connections: usize,
    /// A call that takes longer is taken for lost.
    pub call_timeout: Duration,
    /// How its PutRecords calls are written.
    pub encoding: PutEncoding,
    /// How its records are written.
    pub record_format: RecordFormat,
}

/// A target stream. Cheap to clone; clones share the connections.
#[derive(Clone, Debug)]
pub struct TargetStream {
    region: Arc<str>,
    stream: Arc<str>,
    record_format: RecordFormat,
    clients: Arc<Clients>,
}

/// An entry of a PutRecords call.
#[derive(Clone, Debug)]
pub struct PutEntry {
    /// The record.
    pub data: Bytes,
    /// Required by the service, at most [`warmcast_common::limits::PARTITION_KEY_BYTES_MAX`] bytes, and overridden by
    /// the hash key.
    pub partition_key: String,
    /// Decides the shard.
    pub hash_key: u128,
}

/// What became of one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryAnswer {
    /// It is in the stream.
    Taken {
        /// In this shard.
        shard: String,
    },
    /// Its shard has enough for the moment.
    Throttled {
        /// The shard, if the service says which.
        shard: Option<String>,
        /// The service's code and message.
        error: String,
    },
    /// Something is wrong inside the service.
    Failed {
        /// The service's code and message.
        error: String,
    },
}

/// A stream as the service describes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamSummary {
    /// Whether the stream distributes records by itself, whatever their hash keys. `None`: the service does not say.
    pub is_self_distributing: Option<bool>,
    /// Whether it is billed by what goes through it, and not by its shards. `None`: the service does not say.
    pub is_on_demand: Option<bool>,
}

impl TargetStream {
    /// The stream of this name in this region.
    pub async fn new(region: &str, stream: &str, kinesis: &ServiceConfig, config: TargetConfig) -> Self {
        let TargetConfig { connections, call_timeout, encoding, record_format } = config;
        let sdk = sdk_config(kinesis).await;
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT_TIMEOUT.min(call_timeout))
            .read_timeout(call_timeout)
            .operation_timeout(call_timeout)
            .build();
        let config = aws_sdk_kinesis::config::Builder::from(&sdk).timeout_config(timeouts);
        let config = with_encoding(config, encoding).build();
        let clients = (0..connections.max(1)).map(|_| Client::from_conf(config.clone())).collect();
        let clients = Clients { config, turns: Mutex::new(Turns { clients, next: 0, replaced: 0 }) };
        Self { region: region.into(), stream: stream.into(), record_format, clients: Arc::new(clients) }
    }

    /// The region's name.
    pub fn region(&self) -> &str {
        &self.region
    }

    /// The stream's name.
    pub fn stream(&self) -> &str {
        &self.stream
    }

    /// The stream's full name, for errors and dead letters.
    pub fn name(&self) -> String {
        format!("stream {} in {}", self.stream, self.region)
    }

    /// A record that tells this watermark, as [`RecordFormat::heartbeat`], for this stream.
    pub fn heartbeat(&self, watermark_ms: u64) -> Bytes {
        self.record_format.heartbeat(watermark_ms)
    }

    /// Puts these entries. The answers are in their order, one for each.
    ///
    /// # Errors
    /// The call failed as a whole: perhaps before, perhaps after the stream took some of it.
    pub async fn put_records(
        &self,
        entries: impl Iterator<Item = PutEntry>,
    ) -> Result<Vec<EntryAnswer>, CallError> {
        let entries = entries.filter_map(|PutEntry { data, partition_key, hash_key }| {
            let entry = PutRecordsRequestEntry::builder().data(Blob::new(data.as_ref()));
            // Every required field is set.
            entry.partition_key(partition_key).explicit_hash_key(hash_key.to_string()).build().ok()
        });
        let entries: Vec<_> = entries.collect();
        let count = entries.len();
        let (turn, client) = self.clients.next();
        let put = client.put_records().stream_name(&*self.stream).set_records(Some(entries)).send().await;
        let put = put.map_err(|error| CallError::new("PutRecords", self.name(), error));
        if put.as_ref().is_err_and(|error| error.code.is_none()) {
            self.clients.replace(turn);
        }
        self.answers(count, put?)
    }

    fn answers(&self, entries: usize, put: PutRecordsOutput) -> Result<Vec<EntryAnswer>, CallError> {
        if put.records.len() != entries {
            return Err(CallError {
                operation: "PutRecords",
                target: self.name(),
                class: Class::Transient,
                code: None,
                message: format!("{} answers to {entries} entries", put.records.len()),
            });
        }
        Ok(put.records.into_iter().map(EntryAnswer::new).collect())
    }

    /// How the stream is set up.
    ///
    /// # Errors
    /// The call failed: the stream cannot be used, or not now.
    pub async fn summary(&self) -> Result<StreamSummary, CallError> {
        let (turn, client) = self.clients.next();
        let described = client.describe_stream_summary().stream_name(&*self.stream).send().await;
        let described =
            described.map_err(|error| CallError::new("DescribeStreamSummary", self.name(), error));
        if described.as_ref().is_err_and(|error| error.code.is_none()) {
            self.clients.replace(turn);
        }
        Ok(described?.stream_description_summary.map(StreamSummary::new).unwrap_or_default())
    }

    /// Every open shard.
    ///
    /// # Errors
    /// A call failed.
    pub async fn open_shards(&self) -> Result<Vec<Shard>, CallError> {
        let (mut shards, mut token) = (Vec::new(), None);
        loop {
            let (_, client) = self.clients.next();
            // AWS: ListShards takes either the stream's name and a filter, or a token to go on.
            let request = match token.take() {
                None => {
                    let open = ShardFilter::builder().r#type(ShardFilterType::AtLatest).build().ok();
                    client.list_shards().stream_name(&*self.stream).set_shard_filter(open)
                }
                Some(token) => client.list_shards().next_token(token),
            };
            let answer = request.send().await;
            let answer = answer.map_err(|error| CallError::new("ListShards", self.name(), error))?;
            shards.extend(answer.shards.unwrap_or_default());
            match answer.next_token {
                Some(next) => token = Some(next),
                None => return Ok(shards),
            }
        }
    }
}

impl StreamSummary {
    fn new(summary: StreamDescriptionSummary) -> Self {
        let strategy = summary.record_distribution_strategy;
        Self {
            is_self_distributing: strategy.map(|strategy| strategy == RecordDistributionStrategy::Auto),
            is_on_demand: summary.stream_mode_details.map(|mode| mode.stream_mode == StreamMode::OnDemand),
        }
    }
}

impl EntryAnswer {
    fn new(result: PutRecordsResultEntry) -> Self {
        let Some(code) = result.error_code else {
            return Self::Taken { shard: result.shard_id.unwrap_or_default() };
        };
        let message = result.error_message.unwrap_or_default();
        let error = format!("{code}: {message}");
        match class_of_code(&code) {
            Class::Throttled => Self::Throttled { shard: shard_in(&message), error },
            _ => Self::Failed { error },
        }
    }
}

/// The shard that a message names (AWS: PutRecordsResultEntry, the message of a throttled entry has the shard id).
fn shard_in(message: &str) -> Option<String> {
    let (_, id) = message.split_once(SHARD_ID_PREFIX)?;
    let number: String = id.chars().take_while(char::is_ascii_digit).collect();
    (!number.is_empty()).then(|| format!("{SHARD_ID_PREFIX}{number}"))
}

/// The clients of one stream.
struct Clients {
    config: aws_sdk_kinesis::Config,
    turns: Mutex<Turns>,
}

struct Turns {
    /// Never empty.
    clients: Vec<Client>,
    next: usize,
    /// How often one was replaced: several calls that fail together replace theirs once.
    replaced: u64,
}

/// Which client a call had.
struct Turn {
    index: usize,
    replaced: u64,
}

impl Clients {
    fn next(&self) -> (Turn, Client) {
        let mut turns = self.turns.lock();
        let index = turns.next % turns.clients.len().max(1);
        turns.next = index + 1;
        // The fallback is never needed: there is at least one.
        let client = turns.clients.get(index).cloned();
        let client = client.unwrap_or_else(|| Client::from_conf(self.config.clone()));
        (Turn { index, replaced: turns.replaced }, client)
    }

    /// A new client, and so a new connection, in the place of one whose call had no answer.
    fn replace(&self, turn: Turn) {
        let mut turns = self.turns.lock();
        let clients = turns.clients.len() as u64;
        // With as many replacements since, this place has a new one already.
        if turns.replaced < turn.replaced + clients
            && let Some(place) = turns.clients.get_mut(turn.index)
        {
            *place = Client::from_conf(self.config.clone());
            turns.replaced += 1;
        }
    }
}

impl std::fmt::Debug for Clients {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Clients").field("connections", &self.turns.lock().clients.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(code: Option<&str>, message: &str) -> EntryAnswer {
        let result = PutRecordsResultEntry::builder().set_error_code(code.map(str::to_owned));
        EntryAnswer::new(result.error_message(message).set_shard_id(None).build())
    }

    #[test]
    fn a_throttled_entry_tells_its_shard() {
        let message = "Rate exceeded for shard shardId-000000000007 in stream warmcast under account 1.";
        let code = "ProvisionedThroughputExceededException";
        let EntryAnswer::Throttled { shard, error } = answer(Some(code), message) else { panic!() };
        assert_eq!((shard.as_deref(), error), (Some("shardId-000000000007"), format!("{code}: {message}")));
        let unnamed = ["", "shardId-", "Rate exceeded", "shardId-x1"];
        for message in unnamed {
            assert!(
                matches!(answer(Some(code), message), EntryAnswer::Throttled { shard: None, .. }),
                "{message}"
            );
        }
    }

    #[test]
    fn an_entry_is_throttled_taken_or_failed_by_its_code() {
        assert!(matches!(answer(None, ""), EntryAnswer::Taken { .. }));
        assert!(matches!(answer(Some("KMSThrottlingException"), ""), EntryAnswer::Throttled { .. }));
        assert!(matches!(answer(Some("InternalFailure"), ""), EntryAnswer::Failed { .. }));
        assert!(matches!(answer(Some("SomethingNew"), ""), EntryAnswer::Failed { .. }));
    }
}
