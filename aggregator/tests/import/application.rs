//! The lease table of a KCL application that reads the stream of the table `profiles`, and the command that takes
//! it over.

use std::path::Path;
use std::process::Output;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
};
use tokio::process::Command;
use warmcast_common::aws::sdk_config;

use super::servers::{DynamoDb, service};

/// A stopped application.
pub(crate) struct Application {
    client: Client,
    /// The ARN of the table's stream.
    pub(crate) arn: String,
    /// Its first shard.
    pub(crate) shard: String,
}

impl Application {
    /// One that has no lease yet. The table must be there.
    pub(crate) async fn of(dynamodb: &DynamoDb) -> Self {
        let client = dynamodb.client.clone();
        let (key, text) = ("leaseKey", ScalarAttributeType::S);
        let attribute = AttributeDefinition::builder().attribute_name(key).attribute_type(text).build();
        let schema = KeySchemaElement::builder().attribute_name(key).key_type(KeyType::Hash).build();
        let create = client.create_table().table_name("consumer").billing_mode(BillingMode::PayPerRequest);
        let create = create.attribute_definitions(attribute.unwrap()).key_schema(schema.unwrap());
        create.send().await.unwrap();
        let described = client.describe_table().table_name("profiles").send().await.unwrap();
        let arn = described.table.unwrap().latest_stream_arn.unwrap();
        let streams = aws_sdk_dynamodbstreams::Client::new(&sdk_config(&service(&dynamodb.url)).await);
        let described = streams.describe_stream().stream_arn(&arn).send().await.unwrap();
        let shard = described.stream_description.unwrap().shards.unwrap().remove(0).shard_id.unwrap();
        Self { client, arn, shard }
    }

    /// Writes a lease, over what is there.
    pub(crate) async fn lease(&self, shard: &str, checkpoint: &str) {
        let s = |text: &str| AttributeValue::S(text.to_owned());
        let put = self.client.put_item().table_name("consumer");
        put.item("leaseKey", s(shard))
            .item("checkpoint", s(checkpoint))
            .item("checkpointSubSequenceNumber", AttributeValue::N("0".to_owned()))
            .item("leaseCounter", AttributeValue::N("3".to_owned()))
            .send()
            .await
            .unwrap();
    }

    /// A configuration of the aggregator.
    pub(crate) fn config_file(&self, dynamodb: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = format!(
            "[dynamodb]
            region = 'us-east-1'
            endpoint = '{dynamodb}'
            access_key_id = 'test'
            secret_access_key = 'hunter2'
            [state]
            table = 'state'
            create = true
            [tables.profiles]
            [regions.region-1]
            stream = 'warmcast'
            "
        );
        std::fs::write(file.path(), text).unwrap();
        file
    }

    /// Runs `import-kcl` with these flags.
    pub(crate) async fn import(&self, config: &Path, flags: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_aggregator"));
        command.args(["import-kcl", "--table", "profiles", "--kcl-table", "consumer", "--config"]);
        let output = command.arg(config).args(flags).kill_on_drop(true).output().await.unwrap();
        let shown = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
        assert!(!String::from_utf8_lossy(&shown).contains("hunter2"));
        output
    }
}
