//! A Kinesis stream as the consumer reads it, by polling.

use std::time::Duration;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::error::SdkError;
use aws_sdk_kinesis::operation::get_shard_iterator::{GetShardIteratorError, GetShardIteratorOutput};
use aws_sdk_kinesis::primitives::DateTime;
use aws_sdk_kinesis::types::{Record, ShardIteratorType, StreamMode};
use bytes::Bytes;
use warmcast_common::aws::CallError;
use warmcast_common::clock::now_ms;
use warmcast_common::consumer::source::{ReadPace, WatermarkRule};
use warmcast_common::consumer::{
    Checkpoint, Listing, Page, SequenceNumber, Shard, SourceError, SourceRecord, StreamSource,
};
use warmcast_common::limits::{
    KINESIS_PAGE_BYTES_MAX, KINESIS_READ_INTERVAL_MIN, KINESIS_READ_RECORDS_MAX, KINESIS_RETENTION_MIN,
};

/// A shard, as the stream lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedShard {
    /// Its name.
    pub id: String,
    /// The shards whose keys it took over.
    pub parents: Vec<String>,
    /// The hash keys that it has, or had: from, up to and including.
    pub hash_keys: (u128, u128),
    /// The first sequence number that it could have, and, if it is closed, the last.
    pub sequences: (Option<SequenceNumber>, Option<SequenceNumber>),
}

impl ListedShard {
    fn new(shard: aws_sdk_kinesis::types::Shard) -> Self {
        let hash_keys = shard.hash_key_range.map_or((1, 0), |range| {
            let key = |text: &str, unknown| text.parse().unwrap_or(unknown);
            // A range that cannot be read has no key.
            (key(&range.starting_hash_key, 1), key(&range.ending_hash_key, 0))
        });
        let sequences = shard.sequence_number_range.map_or((None, None), |range| {
            let last = range.ending_sequence_number.and_then(|last| SequenceNumber::new(last).ok());
            (SequenceNumber::new(range.starting_sequence_number).ok(), last)
        });
        let parents = shard.parent_shard_id.into_iter().chain(shard.adjacent_parent_shard_id).collect();
        Self { id: shard.shard_id, parents, hash_keys, sequences }
    }

    /// Whether records still come into it.
    pub const fn is_open(&self) -> bool {
        self.sequences.1.is_none()
    }

    /// Whether records with this hash key came into it.
    pub fn has(&self, hash_key: u128) -> bool {
        (self.hash_keys.0..=self.hash_keys.1).contains(&hash_key)
    }
}

/// One Kinesis stream.
#[derive(Clone, Debug)]
pub struct KinesisStream {
    client: Client,
    name: String,
    identity: String,
    retention: Option<Duration>,
    /// When it was created, in milliseconds since the epoch.
    created_ms: Option<u64>,
    is_on_demand: bool,
}

impl KinesisStream {
    /// Looks the stream up.
    ///
    /// # Errors
    /// When the call fails, as it does when there is no such stream.
    pub async fn find(client: Client, name: &str) -> Result<Self, CallError> {
        let answer = client
            .describe_stream_summary()
            .stream_name(name)
            .send()
            .await
            .map_err(|error| CallError::new("DescribeStreamSummary", format!("stream {name}"), error))?;
        let summary = answer.stream_description_summary;
        let mode = summary.as_ref().and_then(|summary| summary.stream_mode_details.as_ref());
        let is_on_demand = mode.is_some_and(|details| details.stream_mode == StreamMode::OnDemand);
        let retention =
            summary.as_ref().and_then(|summary| u64::try_from(summary.retention_period_hours).ok());
        let retention = retention.map(|hours| Duration::from_secs(hours * 3_600));
        let (arn, created) = summary.map_or_else(
            || (name.to_owned(), 0),
            |summary| (summary.stream_arn, summary.stream_creation_timestamp.secs()),
        );
        let created_ms = u64::try_from(created).ok().filter(|created| *created > 0).map(|s| s * 1_000);
        // A stream that was deleted and made again has the same name and ARN, but other positions.
        let identity = format!("{arn}@{created}");
        Ok(Self { client, name: name.to_owned(), identity, retention, created_ms, is_on_demand })
    }

    /// Every shard that is listed, closed ones included.
    ///
    /// # Errors
    /// When a call fails.
    pub async fn listed(&self) -> Result<Vec<ListedShard>, CallError> {
        let mut listed = Vec::new();
        let mut token = None;
        loop {
            // AWS: ListShards takes either the stream's name or a token to go on.
            let request = match token.take() {
                None => self.client.list_shards().stream_name(&self.name),
                Some(token) => self.client.list_shards().next_token(token),
            };
            let answer = request
                .send()
                .await
                .map_err(|error| CallError::new("ListShards", format!("stream {}", self.name), error))?;
            listed.extend(answer.shards.unwrap_or_default().into_iter().map(ListedShard::new));
            match answer.next_token {
                Some(next) => token = Some(next),
                None => return Ok(listed),
            }
        }
    }

    /// The stream's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether what is read of it is billed: its mode is on-demand.
    pub const fn is_on_demand(&self) -> bool {
        self.is_on_demand
    }

    /// How long records are kept, if the service told.
    pub const fn kept_for(&self) -> Option<Duration> {
        self.retention
    }

    /// A place to read from that begins with this very record.
    ///
    /// # Errors
    /// When the call fails, as it does for a number that is none of the shard's.
    pub async fn iterator_at(&self, shard: &str, sequence: &SequenceNumber) -> Result<String, SourceError> {
        let request = self.client.get_shard_iterator().stream_name(&self.name).shard_id(shard);
        let request = request
            .shard_iterator_type(ShardIteratorType::AtSequenceNumber)
            .starting_sequence_number(sequence.as_str());
        self.iterator_of(shard, request.send().await)
    }

    fn iterator_of(
        &self,
        shard: &str,
        answer: Result<GetShardIteratorOutput, SdkError<GetShardIteratorError>>,
    ) -> Result<String, SourceError> {
        let answer = answer.map_err(|error| {
            SourceError::from_call(CallError::new("GetShardIterator", self.target(shard), error))
        })?;
        Ok(answer.shard_iterator.unwrap_or_default())
    }

    /// Reads one page of at most so many records.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn read_some(
        &self,
        shard: &str,
        iterator: &str,
        records_max: i32,
    ) -> Result<Page<Bytes>, SourceError> {
        let request = self.client.get_records().shard_iterator(iterator).limit(records_max);
        let answer = request.send().await.map_err(|error| {
            SourceError::from_call(CallError::new("GetRecords", self.target(shard), error))
        })?;
        Ok(Page {
            records: answer.records.into_iter().map(source_record).collect(),
            next: answer.next_shard_iterator,
            children: answer
                .child_shards
                .unwrap_or_default()
                .into_iter()
                .map(|child| Shard { id: child.shard_id, parents: child.parent_shards })
                .collect(),
            behind: answer
                .millis_behind_latest
                .and_then(|ms| u64::try_from(ms).ok())
                .map(Duration::from_millis),
        })
    }

    fn target(&self, shard: &str) -> String {
        format!("{shard} of stream {}", self.name)
    }
}

impl StreamSource for KinesisStream {
    type Record = Bytes;

    fn stream(&self) -> &str {
        &self.identity
    }

    fn pace(&self) -> ReadPace {
        ReadPace { interval_min: KINESIS_READ_INTERVAL_MIN, page_bytes_max: KINESIS_PAGE_BYTES_MAX }
    }

    /// A position that is older than what the stream keeps begins at its oldest record, without a word.
    fn silent_retention(&self) -> Option<Duration> {
        self.retention
    }

    fn watermark_rule(&self) -> WatermarkRule {
        WatermarkRule::Carried
    }

    /// By its age: what the retention is now says nothing of what it was before.
    fn is_whole(&self) -> bool {
        self.created_ms.is_some_and(|created_ms| {
            let age = Duration::from_millis(now_ms().saturating_sub(created_ms));
            age + WHOLE_MARGIN < KINESIS_RETENTION_MIN
        })
    }

    async fn shards(&self) -> Result<Listing, CallError> {
        let shards = self.listed().await?.into_iter();
        let shards = shards.map(|ListedShard { id, parents, .. }| Shard { id, parents }).collect();
        Ok(Listing { shards, ..Listing::default() })
    }

    /// Asked for only where the last read did not tell them.
    async fn children(&self, parent: &str) -> Result<Listing, CallError> {
        let mut listing = self.shards().await?;
        listing.shards.retain(|shard| shard.parents.iter().any(|of| of == parent));
        Ok(listing)
    }

    async fn iterator(&self, shard: &str, from: &Checkpoint) -> Result<String, SourceError> {
        let request = self.client.get_shard_iterator().stream_name(&self.name).shard_id(shard);
        let request = match from {
            Checkpoint::After(sequence) => request
                .shard_iterator_type(ShardIteratorType::AfterSequenceNumber)
                .starting_sequence_number(sequence.as_str()),
            Checkpoint::AtTime(at_ms) => request
                .shard_iterator_type(ShardIteratorType::AtTimestamp)
                .timestamp(DateTime::from_millis(i64::try_from(*at_ms).unwrap_or(i64::MAX))),
            Checkpoint::TrimHorizon | Checkpoint::ShardEnd => {
                request.shard_iterator_type(ShardIteratorType::TrimHorizon)
            }
        };
        self.iterator_of(shard, request.send().await)
    }

    async fn read(&self, shard: &str, iterator: &str) -> Result<Page<Bytes>, SourceError> {
        self.read_some(shard, iterator, KINESIS_READ_RECORDS_MAX).await
    }
}

/// The clocks differ by less, and the creation is told in seconds.
const WHOLE_MARGIN: Duration = Duration::from_secs(60);

/// What a record weighs beside its data: its ack and its place in the window.
const RECORD_BYTES: usize = 256;

fn source_record(record: Record) -> SourceRecord<Bytes> {
    let arrived = record.approximate_arrival_timestamp.and_then(|at| at.to_millis().ok());
    let body = Bytes::from(record.data.into_inner());
    SourceRecord {
        sequence: SequenceNumber::new(record.sequence_number).ok(),
        created_ms: arrived.and_then(|ms| u64::try_from(ms).ok()).unwrap_or(0),
        bytes: RECORD_BYTES + body.len(),
        body,
    }
}
