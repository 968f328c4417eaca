//! SDK clients for the local servers.

use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;

/// The access key id, and the secret, of every client in the sandbox. The local servers accept any.
pub const CREDENTIAL: &str = "sandbox";

/// A call that takes longer than this is tried again: the servers are on this machine.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);

/// A client for DynamoDB at `url`.
#[must_use]
pub fn dynamodb(url: &str, region: &str) -> aws_sdk_dynamodb::Client {
    aws_sdk_dynamodb::Client::new(&config(url, region))
}

/// The same for callers that send again by themselves what failed.
#[must_use]
pub fn dynamodb_without_retries(url: &str, region: &str) -> aws_sdk_dynamodb::Client {
    let config = config(url, region).into_builder().retry_config(RetryConfig::disabled()).build();
    aws_sdk_dynamodb::Client::new(&config)
}

/// A client for DynamoDB Streams at `url`.
#[must_use]
pub fn streams(url: &str, region: &str) -> aws_sdk_dynamodbstreams::Client {
    aws_sdk_dynamodbstreams::Client::new(&config(url, region))
}

/// A client for Kinesis at `url`.
#[must_use]
pub fn kinesis(url: &str, region: &str) -> aws_sdk_kinesis::Client {
    aws_sdk_kinesis::Client::new(&config(url, region))
}

/// The same for callers that send again by themselves what failed, or look at the failure.
#[must_use]
pub fn kinesis_without_retries(url: &str, region: &str) -> aws_sdk_kinesis::Client {
    let config = config(url, region).into_builder().retry_config(RetryConfig::disabled()).build();
    aws_sdk_kinesis::Client::new(&config)
}

fn config(url: &str, region: &str) -> SdkConfig {
    let credentials = Credentials::new(CREDENTIAL, CREDENTIAL, None, None, "sandbox");
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(region.to_owned()))
        .endpoint_url(url)
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .timeout_config(TimeoutConfig::builder().operation_attempt_timeout(ATTEMPT_TIMEOUT).build())
        .build()
}
