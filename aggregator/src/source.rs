//! DynamoDB Streams as the consumer reads it.

use aws_sdk_dynamodbstreams::Client;
use aws_sdk_dynamodbstreams::types::{
    AttributeValue, Record, ShardFilter, ShardFilterType, ShardIteratorType,
};
use warmcast_common::aws::CallError;
use warmcast_common::consumer::source::ReadPace;
use warmcast_common::consumer::{
    Checkpoint, Page, SequenceNumber, Shard, SourceError, SourceRecord, StreamSource,
};
use warmcast_common::limits::{
    DYNAMODB_STREAMS_PAGE_BYTES_MAX, DYNAMODB_STREAMS_READ_INTERVAL_MIN, DYNAMODB_STREAMS_READ_RECORDS_MAX,
};

/// The stream of one table.
#[derive(Clone, Debug)]
pub struct DynamoDbStream {
    client: Client,
    arn: String,
}

impl DynamoDbStream {
    /// The stream with this ARN.
    pub fn new(client: Client, arn: impl Into<String>) -> Self {
        Self { client, arn: arn.into() }
    }

    /// Describes the stream page by page; with a parent, only its children.
    async fn describe(&self, parent: Option<&str>) -> Result<Vec<Shard>, CallError> {
        let filter = parent.map(|parent| {
            ShardFilter::builder().r#type(ShardFilterType::ChildShards).shard_id(parent).build()
        });
        let mut shards = Vec::new();
        let mut from = None;
        loop {
            let answer = self
                .client
                .describe_stream()
                .stream_arn(&self.arn)
                .set_shard_filter(filter.clone())
                .set_exclusive_start_shard_id(from)
                .send()
                .await
                .map_err(|error| CallError::new("DescribeStream", format!("stream {}", self.arn), error))?;
            let description = answer.stream_description;
            let (page, last) = description
                .map(|described| (described.shards.unwrap_or_default(), described.last_evaluated_shard_id))
                .unwrap_or_default();
            shards.extend(page.into_iter().filter_map(|shard| {
                Some(Shard { id: shard.shard_id?, parents: shard.parent_shard_id.into_iter().collect() })
            }));
            match last {
                Some(last) => from = Some(last),
                None => return Ok(shards),
            }
        }
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

    async fn shards(&self) -> Result<Vec<Shard>, CallError> {
        self.describe(None).await
    }

    /// Servers that do not know the filter answer with all shards, so the answer is filtered again.
    async fn children(&self, parent: &str) -> Result<Vec<Shard>, CallError> {
        let mut shards = self.describe(Some(parent)).await?;
        shards.retain(|shard| shard.parents.iter().any(|of| of == parent));
        Ok(shards)
    }

    /// The service has no iterator by time: for [`Checkpoint::AtTime`] the shard is read from its start, and the
    /// consumer passes over what came too early.
    async fn iterator(&self, shard: &str, from: &Checkpoint) -> Result<String, SourceError> {
        let request = self.client.get_shard_iterator().stream_arn(&self.arn).shard_id(shard);
        let request = match from {
            Checkpoint::After(sequence) => request
                .shard_iterator_type(ShardIteratorType::AfterSequenceNumber)
                .sequence_number(sequence.as_str()),
            _ => request.shard_iterator_type(ShardIteratorType::TrimHorizon),
        };
        let answer = request.send().await.map_err(|error| {
            SourceError::from_call(CallError::new("GetShardIterator", self.target(shard), error))
        })?;
        Ok(answer.shard_iterator.unwrap_or_default())
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
        Ok(Page { records, next: answer.next_shard_iterator, behind: None })
    }
}

fn source_record(body: Record) -> SourceRecord<Record> {
    let inner = body.dynamodb.as_ref();
    let created = inner.and_then(|record| record.approximate_creation_date_time);
    SourceRecord {
        sequence: inner
            .and_then(|record| record.sequence_number.as_deref())
            .and_then(|text| SequenceNumber::new(text).ok()),
        created_ms: created.and_then(|at| u64::try_from(at.to_millis().ok()?).ok()).unwrap_or(0),
        bytes: RECORD_BYTES + inner.and_then(|record| record.new_image.as_ref()).map_or(0, image_bytes),
        body,
    }
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
