//! After an import, the aggregator goes on where the application stopped.

use aws_sdk_dynamodb::types::StreamViewType;
use aws_sdk_dynamodbstreams::types::ShardIteratorType;
use warmcast_common::aws::sdk_config;

use super::application::Application;
use super::servers::{DynamoDb, Kinesis, service};
use super::wait::until;
use super::world::{Aggregator, STREAM, config, directory, text};

/// The sequence numbers of everything in the first shard of the table's stream.
async fn sequence_numbers(dynamodb: &DynamoDb, application: &Application) -> Vec<String> {
    let streams = aws_sdk_dynamodbstreams::Client::new(&sdk_config(&service(&dynamodb.url)).await);
    let from = streams.get_shard_iterator().stream_arn(&application.arn).shard_id(&application.shard);
    let from = from.shard_iterator_type(ShardIteratorType::TrimHorizon).send().await.unwrap();
    let page = streams.get_records().shard_iterator(from.shard_iterator.unwrap()).send().await.unwrap();
    let number =
        |record: aws_sdk_dynamodbstreams::types::Record| record.dynamodb.unwrap().sequence_number.unwrap();
    page.records.unwrap().into_iter().map(number).collect()
}

#[tokio::test]
async fn the_aggregator_goes_on_after_the_record_where_the_application_stopped() {
    let (dynamodb, kinesis, letters) = (DynamoDb::start().await, Kinesis::start().await, directory());
    kinesis.create_stream(STREAM, 1).await;
    dynamodb.create_table("profiles", StreamViewType::NewImage).await;
    for key in ["first", "second", "third"] {
        dynamodb.put("profiles", key, key).await;
    }
    let application = Application::of(&dynamodb).await;
    let numbers = sequence_numbers(&dynamodb, &application).await;
    application.lease(&application.shard, &numbers[1]).await;
    let config = config(&dynamodb.url, &["profiles"], &[&kinesis.url], letters.path());
    let file = application.config_file(&dynamodb.url);
    let output = application.import(file.path(), &[]).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let aggregator = Aggregator::start(config);
    dynamodb.put("profiles", "fourth", "fourth").await;
    until("the last change is there", async || kinesis.changes("profiles").await.contains_key("fourth"))
        .await;
    aggregator.stop().await.unwrap();
    let changes = kinesis.changes("profiles").await;
    let texts: Vec<String> = changes.values().flatten().map(text).collect();
    assert_eq!(texts, ["fourth", "third"], "what the application had done is not done again");
}
