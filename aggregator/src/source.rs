//! DynamoDB Streams as the consumer reads it.

use std::time::Duration;

use aws_sdk_dynamodbstreams::Client;
use aws_sdk_dynamodbstreams::primitives::DateTime;
use aws_sdk_dynamodbstreams::types::{
    AttributeValue, Record, ShardFilter, ShardFilterType, ShardIteratorType, StreamDescription, StreamStatus,
};
use warmcast_common::aws::CallError;
use warmcast_common::consumer::source::{ReadPace, WatermarkRule};
use warmcast_common::consumer::{
    Checkpoint, Listing, Page, SequenceNumber, Shard, SourceError, SourceRecord, StreamSource,
};
use warmcast_common::limits::{
    DYNAMODB_STREAMS_PAGE_BYTES_MAX, DYNAMODB_STREAMS_READ_INTERVAL_MIN, DYNAMODB_STREAMS_READ_RECORDS_MAX,
    DYNAMODB_STREAMS_RETENTION, LISTING_PAGE_TRIES_MAX,
};
use warmcast_common::retry::{Backoff, Class};

use crate::describes::Describes;

/// The stream of one table.
#[derive(Clone, Debug)]
pub struct DynamoDbStream {
    client: Client,
    arn: String,
    describes: Describes,
}

impl DynamoDbStream {
    /// The stream with this ARN. `describes` are the turns for DescribeStream, shared by all streams.
    pub fn new(client: Client, arn: impl Into<String>, describes: Describes) -> Self {
        Self { client, arn: arn.into(), describes }
    }

    /// Describes the stream page by page; with a parent, only its children.
    async fn describe(&self, parent: Option<&str>) -> Result<Listing, CallError> {
        let filter = parent.map(|parent| {
            ShardFilter::builder().r#type(ShardFilterType::ChildShards).shard_id(parent).build()
        });
        let mut listing = Listing::default();
        let mut from = None;
        loop {
            let page = self.describe_page(filter.as_ref(), from.as_deref()).await?;
            listing.disabled =
                matches!(page.stream_status, Some(StreamStatus::Disabled | StreamStatus::Disabling));
            listing.shards.extend(page.shards.unwrap_or_default().into_iter().filter_map(|shard| {
                Some(Shard { id: shard.shard_id?, parents: shard.parent_shard_id.into_iter().collect() })
            }));
            match page.last_evaluated_shard_id {
                Some(last) => from = Some(last),
                None => return Ok(listing),
            }
        }
    }

    /// One page. What was listed before it is not thrown away for a call that is throttled or fails for a moment.
    async fn describe_page(
        &self,
        filter: Option<&ShardFilter>,
        from: Option<&str>,
    ) -> Result<StreamDescription, CallError> {
        let mut pauses = Backoff::default();
        let mut tries_left = LISTING_PAGE_TRIES_MAX;
        loop {
            match filter {
                None => self.describes.listing().await,
                // Nothing shows: it is asked for again, and at last left to a listing.
                Some(_) if !self.describes.children().await => {
                    return Ok(StreamDescription::builder().build());
                }
                Some(_) => {}
            }
            let request = self.client.describe_stream().stream_arn(&self.arn);
            let request = request
                .set_shard_filter(filter.cloned())
                .set_exclusive_start_shard_id(from.map(str::to_owned));
            let answer = request.send().await;
            let error = match answer {
                Ok(answer) => {
                    let nothing = || StreamDescription::builder().build();
                    return Ok(answer.stream_description.unwrap_or_else(nothing));
                }
                Err(error) => CallError::new("DescribeStream", format!("stream {}", self.arn), error),
            };
            tries_left -= 1;
            // The first page has its retries where the listing was asked for.
            let passing = matches!(error.class, Class::Throttled | Class::Transient);
            if tries_left == 0 || !passing || (from.is_none() && error.class != Class::Throttled) {
                return Err(error);
            }
            tokio::time::sleep(pauses.next_pause()).await;
        }
    }

    async fn seek(&self, shard: &str, from: &Checkpoint) -> Result<String, SourceError> {
        let request = self.client.get_shard_iterator().stream_arn(&self.arn).shard_id(shard);
        let request = match from {
            Checkpoint::After(sequence) => request
                .shard_iterator_type(ShardIteratorType::AfterSequenceNumber)
                .sequence_number(sequence.as_str()),
            Checkpoint::AtTime(at_ms) => request
                .shard_iterator_type(ShardIteratorType::AtTimestamp)
                .timestamp(DateTime::from_millis(i64::try_from(*at_ms).unwrap_or(i64::MAX))),
            Checkpoint::TrimHorizon | Checkpoint::ShardEnd => {
                request.shard_iterator_type(ShardIteratorType::TrimHorizon)
            }
        };
        let answer = request.send().await.map_err(|error| {
            SourceError::from_call(CallError::new("GetShardIterator", self.target(shard), error))
        })?;
        Ok(answer.shard_iterator.unwrap_or_default())
    }

    fn target(&self, shard: &str) -> String {
        format!("shard {shard} of {}", self.arn)
    }
}

impl StreamSource for DynamoDbStream {
    type Record = Record;

    fn stream(&self) -> &str {
        &self.arn
    }

    fn pace(&self) -> ReadPace {
        ReadPace {
            interval_min: DYNAMODB_STREAMS_READ_INTERVAL_MIN,
            page_bytes_max: DYNAMODB_STREAMS_PAGE_BYTES_MAX,
        }
    }

    /// The service says when a position is older than what it keeps.
    fn silent_retention(&self) -> Option<Duration> {
        None
    }

    fn retention(&self) -> Option<Duration> {
        Some(DYNAMODB_STREAMS_RETENTION)
    }

    fn watermark_rule(&self) -> WatermarkRule {
        WatermarkRule::Created { tip_margin: Duration::from_secs(2) }
    }

    async fn shards(&self) -> Result<Listing, CallError> {
        self.describe(None).await
    }

    /// Servers that do not know the filter answer with all shards, so the answer is filtered again.
    async fn children(&self, parent: &str) -> Result<Listing, CallError> {
        let mut listing = self.describe(Some(parent)).await?;
        listing.shards.retain(|shard| shard.parents.iter().any(|of| of == parent));
        Ok(listing)
    }

    /// A server that knows no iterator by time (local ones do not) is read from the shard's start; the consumer
    /// passes over what came too early.
    async fn iterator(&self, shard: &str, from: &Checkpoint) -> Result<String, SourceError> {
        match (self.seek(shard, from).await, from) {
            (Err(SourceError::Call(error)), Checkpoint::AtTime(_)) if error.class == Class::Permanent => {
                self.seek(shard, &Checkpoint::TrimHorizon).await
            }
            (answer, _) => answer,
        }
    }

    async fn read(&self, shard: &str, iterator: &str) -> Result<Page<Record>, SourceError> {
        let answer = self
            .client
            .get_records()
            .shard_iterator(iterator)
            .limit(DYNAMODB_STREAMS_READ_RECORDS_MAX)
            .send()
            .await
            .map_err(|error| {
                SourceError::from_call(CallError::new("GetRecords", self.target(shard), error))
            })?;
        let records = answer.records.unwrap_or_default().into_iter().map(source_record).collect();
        Ok(Page { records, next: answer.next_shard_iterator, children: Vec::new(), behind: None })
    }
}

fn source_record(body: Record) -> SourceRecord<Record> {
    let inner = body.dynamodb.as_ref();
    SourceRecord {
        sequence: inner
            .and_then(|record| record.sequence_number.as_deref())
            .and_then(|text| SequenceNumber::new(text).ok()),
        created_ms: created_ms(&body),
        bytes: RECORD_BYTES + inner.and_then(|record| record.new_image.as_ref()).map_or(0, image_bytes),
        body,
    }
}

/// When a record's change was made, in milliseconds since the epoch; 0 if the service did not tell.
pub fn created_ms(record: &Record) -> u64 {
    let created = record.dynamodb.as_ref().and_then(|body| body.approximate_creation_date_time);
    created.and_then(|at| u64::try_from(at.to_millis().ok()?).ok()).unwrap_or(0)
}

/// What a record weighs beside its image: the change, its ack, its place in the window.
const RECORD_BYTES: usize = 256;

fn image_bytes<'a>(image: impl IntoIterator<Item = (&'a String, &'a AttributeValue)>) -> usize {
    image.into_iter().map(|(name, value)| name.len() + value_bytes(value)).sum()
}

fn value_bytes(value: &AttributeValue) -> usize {
    8 + match value {
        AttributeValue::S(text) | AttributeValue::N(text) => text.len(),
        AttributeValue::B(blob) => blob.as_ref().len(),
        AttributeValue::Ss(texts) | AttributeValue::Ns(texts) => {
            texts.iter().map(|text| 8 + text.len()).sum()
        }
        AttributeValue::Bs(blobs) => blobs.iter().map(|blob| 8 + blob.as_ref().len()).sum(),
        AttributeValue::L(values) => values.iter().map(value_bytes).sum(),
        AttributeValue::M(map) => image_bytes(map),
        _ => 0,
    }
}
