//! A deletion by Time to Live, in the service's own words: the embedded DynamoDB spells `userIdentity` otherwise than
//! the service's API model.

use axum::Router;
use axum::routing::post;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use warmcast_aggregator::change::ChangeMaker;
use warmcast_aggregator::describes::Describes;
use warmcast_aggregator::source::DynamoDbStream;
use warmcast_aggregator::table::KeySchema;
use warmcast_common::aws::sdk_config;
use warmcast_common::consumer::StreamSource as _;
use warmcast_proto::change::ChangeKind;

use super::servers::service;

const PAGE: &str = r#"{
    "NextShardIterator": "next",
    "Records": [
        {
            "eventName": "REMOVE",
            "dynamodb": {
                "ApproximateCreationDateTime": 1700000000,
                "Keys": { "id": { "S": "expired" } },
                "SequenceNumber": "400000000000000499660"
            },
            "userIdentity": { "PrincipalId": "dynamodb.amazonaws.com", "Type": "Service" }
        },
        {
            "eventName": "REMOVE",
            "dynamodb": {
                "ApproximateCreationDateTime": 1700000001,
                "Keys": { "id": { "S": "deleted" } },
                "SequenceNumber": "400000000000000499661"
            }
        }
    ]
}"#;

#[tokio::test]
async fn an_item_that_expires_is_told_from_one_that_is_deleted() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let app = Router::new().route("/", post(async || PAGE));
    let mut server = JoinSet::new();
    server.spawn(async move { axum::serve(listener, app).await.unwrap() });
    let client = aws_sdk_dynamodbstreams::Client::new(&sdk_config(&service(&url)).await);
    let page =
        DynamoDbStream::new(client, "arn", Describes::default()).read("shard", "iterator").await.unwrap();
    assert_eq!(page.next.as_deref(), Some("next"));
    let maker = ChangeMaker::new("profiles", 1, KeySchema { partition: "id".to_owned(), sort: None });
    let made = page.records.iter().map(|record| {
        let change = maker.make(&record.body, record.created_ms).unwrap();
        (String::from_utf8(change.key.to_vec()).unwrap(), change.kind, change.created_ms)
    });
    let expected = [
        ("expired".to_owned(), ChangeKind::Expire, 1_700_000_000_000),
        ("deleted".to_owned(), ChangeKind::Delete, 1_700_000_001_000),
    ];
    assert_eq!(made.collect::<Vec<_>>(), expected);
}
