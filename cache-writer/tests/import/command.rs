//! The command line, for a stream whose shards have the names that the shards of every stream have.

use std::process::Output;

use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
};
use tokio::process::Command;

use super::servers::{DynamoDb, Kinesis};

const STREAM: &str = "updates";
const SHARD: &str = "shardId-000000000000";

/// A stream, and an empty lease table of an application with several streams.
struct World {
    dynamodb: DynamoDb,
    kinesis: Kinesis,
    config: tempfile::NamedTempFile,
}

impl World {
    async fn start() -> Self {
        let (dynamodb, kinesis) = (DynamoDb::start().await, Kinesis::start().await);
        kinesis.create_stream(STREAM, 2).await;
        let (key, text) = ("leaseKey", ScalarAttributeType::S);
        let attribute = AttributeDefinition::builder().attribute_name(key).attribute_type(text).build();
        let schema = KeySchemaElement::builder().attribute_name(key).key_type(KeyType::Hash).build();
        let create = dynamodb.client.create_table().table_name("consumers");
        let create = create.attribute_definitions(attribute.unwrap()).key_schema(schema.unwrap());
        create.billing_mode(BillingMode::PayPerRequest).send().await.unwrap();
        let config = tempfile::NamedTempFile::new().unwrap();
        let text = format!(
            "[kinesis]
            stream = '{STREAM}'
            region = 'eu-west-1'
            endpoint = '{}'
            access_key_id = 'test'
            secret_access_key = 'test'
            [dynamodb]
            region = 'eu-west-1'
            endpoint = '{}'
            access_key_id = 'test'
            secret_access_key = 'test'
            [state]
            table = 'state'
            create = true
            [redis]
            url = 'redis://127.0.0.1:1'
            ",
            kinesis.url, dynamodb.url
        );
        std::fs::write(config.path(), text).unwrap();
        Self { dynamodb, kinesis, config }
    }

    /// The stream as KCL names it: with another creation time if `later_s` is not 0.
    async fn kcl_stream(&self, later_s: i64) -> String {
        let answer = self.kinesis.client.describe_stream_summary().stream_name(STREAM).send().await.unwrap();
        let summary = answer.stream_description_summary.unwrap();
        let account = summary.stream_arn.split(':').nth(4).unwrap();
        format!("{account}:{STREAM}:{}", summary.stream_creation_timestamp.secs() + later_s)
    }

    /// Writes a lease of KCL.
    async fn lease(&self, stream: &str, checkpoint: &str) {
        let s = |text: &str| AttributeValue::S(text.to_owned());
        let put = self.dynamodb.client.put_item().table_name("consumers");
        put.item("leaseKey", s(&format!("{stream}:{SHARD}")))
            .item("streamName", s(stream))
            .item("shardId", s(SHARD))
            .item("entityType", s("LEASE"))
            .item("checkpoint", s(checkpoint))
            .item("checkpointSubSequenceNumber", AttributeValue::N("0".to_owned()))
            .item("leaseCounter", AttributeValue::N("3".to_owned()))
            .send()
            .await
            .unwrap();
    }

    /// Runs `import-kcl` with these flags.
    async fn import(&self, flags: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cache-writer"));
        command.args(["import-kcl", "--kcl-table", "consumers", "--config"]).arg(self.config.path());
        command.args(flags).kill_on_drop(true).output().await.unwrap()
    }
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn the_configured_stream_of_an_application_with_several_is_imported() {
    let world = World::start().await;
    let ours = world.kcl_stream(0).await;
    world.lease(&ours, "12345").await;
    let several = ours.replace(STREAM, "clicks");
    world.lease(&several, "999").await;

    let unnamed = world.import(&[]).await;
    assert_eq!(unnamed.status.code(), Some(2));
    assert!(stderr(&unnamed).contains(&ours) && stderr(&unnamed).contains(&several), "{}", stderr(&unnamed));
    let other = world.import(&["--kcl-stream", "clicks"]).await;
    assert_eq!(other.status.code(), Some(2));
    assert!(stderr(&other).contains("mean nothing in another"), "{}", stderr(&other));
    assert!(world.dynamodb.checkpoints(STREAM).await.is_empty());

    let done = world.import(&["--kcl-stream", STREAM]).await;
    assert_eq!(done.status.code(), Some(0), "{}{}", stdout(&done), stderr(&done));
    let expected = [(SHARD.to_owned(), "after:12345".to_owned())];
    assert_eq!(world.dynamodb.checkpoints(STREAM).await, expected);
}

#[tokio::test]
async fn a_stream_with_another_time_of_creation_is_imported_with_a_warning() {
    let world = World::start().await;
    world.lease(&world.kcl_stream(60).await, "TRIM_HORIZON").await;
    let output = world.import(&[]).await;
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stdout(&output).contains("told another time of creation"), "{}", stdout(&output));
    let expected = [(SHARD.to_owned(), "trim-horizon".to_owned())];
    assert_eq!(world.dynamodb.checkpoints(STREAM).await, expected);
}
