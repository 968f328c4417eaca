//! What the aggregator does while something is not well.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use aws_sdk_dynamodb::types::StreamViewType;
use axum::Router;
use axum::http::StatusCode;
use axum::routing::post;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::errors::complaints_at_start;
use super::fake_kinesis::FakeKinesis;
use super::servers::{DynamoDb, Kinesis};
use super::wait::until;
use super::world::{Aggregator, STREAM, changes, config, directory};

const MIB: usize = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_region_that_does_not_answer_stops_the_reading_at_the_bound_and_loses_nothing() {
    const ITEMS: usize = 400;
    const ITEM_BYTES: usize = 20_000;
    let (dynamodb, near, far, letters) =
        (DynamoDb::start().await, Kinesis::start().await, FakeKinesis::start([]).await, directory());
    near.create_stream(STREAM, 1).await;
    far.hold();
    dynamodb.create_table("profiles", StreamViewType::NewImage).await;
    let mut config = config(&dynamodb.url, &["profiles"], &[&near.url, &far.url], letters.path());
    config.queue_bytes_max = 4 * MIB;
    let aggregator = Aggregator::start(config);
    // The embedded DynamoDB knows no limit of a page's bytes: were all items there at the first read, one page would
    // have them all.
    dynamodb.put("profiles", "0", "").await;
    until("the stream is read", async || near.changes("profiles").await.len() == 1).await;
    let text = "x".repeat(ITEM_BYTES);
    for number in 1..ITEMS {
        dynamodb.put("profiles", &number.to_string(), &text).await;
    }
    // A page is read when its worst case, 2 MiB, is free.
    let near_bytes = async || near.changes("profiles").await.len() * ITEM_BYTES;
    until("half of the bound is read", async || near_bytes().await >= 2 * MIB - 100_000).await;
    let end = Instant::now() + Duration::from_millis(700);
    while Instant::now() < end {
        assert!(near_bytes().await <= 4 * MIB, "read beyond the bound");
    }
    far.release();
    until("the rest came", async || near.changes("profiles").await.len() == ITEMS).await;
    until("the rest came to the other region", async || {
        let landed: usize = far.landed().into_iter().map(|frame| changes(frame).len()).sum();
        landed == ITEMS
    })
    .await;
    aggregator.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_dies_ends_the_daemon() {
    let (dynamodb, kinesis, letters) = (DynamoDb::start().await, FakeKinesis::start([]).await, directory());
    dynamodb.create_table("profiles", StreamViewType::NewImage).await;
    let mut config = config(&dynamodb.url, &["profiles"], &[&kinesis.url], letters.path());
    // The configuration's reader refuses it: a timer without a period panics.
    config.watermark_interval = Duration::ZERO;
    let error = format!("{:#}", Aggregator::start(config).ended().await.unwrap_err());
    assert!(error.contains("panicked"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_waits_for_no_dynamodb_that_does_not_answer() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (kinesis, letters) = (FakeKinesis::start([]).await, directory());
    let url = format!("http://{}", silent.local_addr().unwrap());
    let aggregator = Aggregator::start(config(&url, &["profiles"], &[&kinesis.url], letters.path()));
    let (_connection, _) = silent.accept().await.unwrap();
    let began = Instant::now();
    aggregator.stop().await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}

/// A DynamoDB that answers every call with this error, and counts them.
async fn refusing(code: &'static str) -> (String, Arc<AtomicUsize>, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let body = format!(r#"{{"__type":"com.amazon.coral.service#{code}","message":"by the script"}}"#);
    let calls = Arc::new(AtomicUsize::default());
    let counted = Arc::clone(&calls);
    let answer = async move || {
        counted.fetch_add(1, Relaxed);
        (StatusCode::BAD_REQUEST, body.clone())
    };
    let app = Router::new().route("/", post(answer));
    let mut server = JoinSet::new();
    server.spawn(async move { axum::serve(listener, app).await.unwrap() });
    (url, calls, server)
}

/// The warnings and errors of an aggregator whose DynamoDB and Kinesis are at this address.
async fn errors_without(dynamodb: &str) -> Vec<String> {
    let letters = directory();
    let file = letters.path().join("aggregator.toml");
    let text = format!(
        "[dynamodb]
        region = 'us-east-1'
        endpoint = '{dynamodb}'
        access_key_id = 'test'
        secret_access_key = 'hunter2'
        [state]
        table = 'state'
        [tables.profiles]
        [regions.eu-west-1]
        stream = 'warmcast'
        kinesis = {{ endpoint = '{dynamodb}', access_key_id = 'test', secret_access_key = 'hunter2' }}
        [dead_letters]
        store = 'directory'
        directory = '{}'
        [log]
        format = 'json'
        ",
        letters.path().display()
    );
    std::fs::write(&file, text).unwrap();
    complaints_at_start(env!("CARGO_BIN_EXE_aggregator"), &file, "hunter2").await
}

#[tokio::test]
async fn wrong_credentials_are_said_with_the_remedy_and_tried_again_at_a_bounded_rate() {
    let (url, calls, _server) = refusing("UnrecognizedClientException").await;
    let errors = errors_without(&url).await;
    let first = errors.first().unwrap().to_string();
    for part in ["state table state", "DescribeTable", "UnrecognizedClientException", "check the credentials"]
    {
        assert!(first.contains(part), "{part} is not in {first}");
    }
    assert!(first.contains("WARN"), "it may heal: {first}");
    assert!((2..=40).contains(&calls.load(Relaxed)), "{} calls", calls.load(Relaxed));
    assert!(errors.len() <= 2, "one line for all of them: {errors:#?}");
}

#[tokio::test]
async fn an_endpoint_where_nothing_listens_is_named_and_told_once_in_a_while() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let errors = errors_without(&format!("http://{closed}")).await;
    let first = errors.first().unwrap().to_string();
    for part in ["state table state", "DescribeTable", "onnection refused"] {
        assert!(first.contains(part), "{part} is not in {first}");
    }
    assert!(errors.len() <= 2, "{errors:#?}");
}
