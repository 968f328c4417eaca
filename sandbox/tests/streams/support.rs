//! What the tests share: clients, and short forms of calls.

use std::time::Duration;

use aws_sdk_dynamodbstreams::Client;
use aws_sdk_dynamodbstreams::config::retry::RetryConfig;
use aws_sdk_dynamodbstreams::config::timeout::TimeoutConfig;
use aws_sdk_dynamodbstreams::config::{Credentials, SharedCredentialsProvider};
use aws_sdk_dynamodbstreams::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodbstreams::operation::get_records::GetRecordsOutput;
use aws_sdk_dynamodbstreams::types::{Record, Shard, ShardFilter, ShardFilterType, ShardIteratorType};
use warmcast_sandbox::streams::{Clock, FakeStreams, FakeStreamsServer, Options};

/// Longer than anything here takes on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A fake with one stream, a clock that stands still, and a client that never tries again.
pub(crate) struct Fake {
    pub(crate) server: FakeStreamsServer,
    pub(crate) client: Client,
    pub(crate) arn: String,
}

impl Fake {
    pub(crate) async fn start() -> Self {
        Self::with(Options { clock: Clock::manual(), ..Options::default() }).await
    }

    pub(crate) async fn with(options: Options) -> Self {
        let server = FakeStreams::start(options).await.unwrap();
        let client = once(&server.client());
        let arn = server.streams().create_stream("bids", None).unwrap();
        Self { server, client, arn }
    }

    pub(crate) fn script(&self) -> &FakeStreams {
        self.server.streams()
    }

    /// A client that signs with this access key id.
    pub(crate) fn reader(&self, access_key_id: &str) -> Client {
        let credentials = Credentials::new(access_key_id, "secret", None, None, "test");
        let config = self
            .client
            .config()
            .to_builder()
            .credentials_provider(SharedCredentialsProvider::new(credentials));
        Client::from_conf(config.build())
    }

    pub(crate) async fn iterator(&self, shard: &str) -> String {
        iterator(&self.client, &self.arn, shard, ShardIteratorType::TrimHorizon, None).await.unwrap()
    }

    pub(crate) async fn listed(&self) -> Vec<Shard> {
        all_shards(&self.client, &self.arn).await.unwrap()
    }

    pub(crate) async fn listed_ids(&self) -> Vec<String> {
        self.listed().await.into_iter().filter_map(|shard| shard.shard_id).collect()
    }

    pub(crate) async fn children(&self, parent: &str) -> Vec<String> {
        children(&self.client, &self.arn, parent).await.unwrap()
    }
}

/// The same client without retries: a test sees each answer.
pub(crate) fn once(client: &Client) -> Client {
    let config = client
        .config()
        .to_builder()
        .retry_config(RetryConfig::disabled())
        .timeout_config(TimeoutConfig::builder().operation_attempt_timeout(PATIENCE).build());
    Client::from_conf(config.build())
}

/// The code of the service's error, or what else went wrong.
pub(crate) fn code<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> String {
    match error {
        SdkError::ServiceError(service) => service.err().code().unwrap_or("(no code)").to_owned(),
        SdkError::TimeoutError(_) => "(timeout)".to_owned(),
        SdkError::DispatchFailure(_) => "(no answer)".to_owned(),
        SdkError::ResponseError(_) => "(unreadable answer)".to_owned(),
        _ => "(other)".to_owned(),
    }
}

pub(crate) async fn iterator(
    client: &Client,
    arn: &str,
    shard: &str,
    kind: ShardIteratorType,
    sequence: Option<&str>,
) -> Result<String, String> {
    let answer = client
        .get_shard_iterator()
        .stream_arn(arn)
        .shard_id(shard)
        .shard_iterator_type(kind)
        .set_sequence_number(sequence.map(str::to_owned))
        .send()
        .await
        .map_err(|error| code(&error))?;
    answer.shard_iterator.ok_or_else(|| "(no iterator)".to_owned())
}

pub(crate) async fn read(client: &Client, iterator: &str) -> Result<GetRecordsOutput, String> {
    client.get_records().shard_iterator(iterator).send().await.map_err(|error| code(&error))
}

pub(crate) async fn children(client: &Client, arn: &str, parent: &str) -> Result<Vec<String>, String> {
    let filter = ShardFilter::builder().r#type(ShardFilterType::ChildShards).shard_id(parent).build();
    let answer = client
        .describe_stream()
        .stream_arn(arn)
        .shard_filter(filter)
        .send()
        .await
        .map_err(|error| code(&error))?;
    let shards = answer.stream_description.and_then(|described| described.shards).unwrap_or_default();
    Ok(shards.into_iter().filter_map(|shard| shard.shard_id).collect())
}

pub(crate) async fn all_shards(client: &Client, arn: &str) -> Result<Vec<Shard>, String> {
    let mut shards = Vec::new();
    let mut from = None;
    loop {
        let answer = client
            .describe_stream()
            .stream_arn(arn)
            .set_exclusive_start_shard_id(from)
            .send()
            .await
            .map_err(|error| code(&error))?;
        let described = answer.stream_description.ok_or("(no description)")?;
        shards.extend(described.shards.unwrap_or_default());
        from = described.last_evaluated_shard_id;
        if from.is_none() {
            return Ok(shards);
        }
    }
}

/// The sequence number of a record, or nothing.
pub(crate) fn sequence(record: &Record) -> &str {
    record.dynamodb().and_then(|change| change.sequence_number()).unwrap_or_default()
}
