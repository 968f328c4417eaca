//! Answers that are errors, late, broken, or none.

use std::time::Duration;

use aws_sdk_dynamodbstreams::error::ProvideErrorMetadata as _;
use aws_sdk_dynamodbstreams::operation::RequestId as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use warmcast_sandbox::streams::{Calls, ErrorCode, Fault, Operation, When};

use crate::support::*;

async fn with_shard() -> (Fake, String) {
    let fake = Fake::start().await;
    let shard = fake.script().add_shard(&fake.arn, None).unwrap();
    fake.script().put_items(&fake.arn, &shard, 10, 300).unwrap();
    (fake, shard)
}

#[tokio::test]
async fn each_error_reaches_the_caller_as_what_it_is() {
    let (fake, shard) = with_shard().await;
    let at = fake.iterator(&shard).await;
    for (error, name) in [
        (ErrorCode::LimitExceeded, "LimitExceededException"),
        (ErrorCode::Throttling, "ThrottlingException"),
        (ErrorCode::ExpiredIterator, "ExpiredIteratorException"),
        (ErrorCode::TrimmedDataAccess, "TrimmedDataAccessException"),
        (ErrorCode::ResourceNotFound, "ResourceNotFoundException"),
        (ErrorCode::InternalServer, "InternalServerError"),
    ] {
        fake.script().inject(Fault::Error(error), Calls::of(Operation::GetRecords), When::Next(1));
        let refused = fake.client.get_records().shard_iterator(&at).send().await.unwrap_err();
        let status = refused.raw_response().unwrap().status().as_u16();
        assert_eq!(status, if error == ErrorCode::InternalServer { 500 } else { 400 }, "{name}");
        let refused = refused.into_service_error();
        assert_eq!(refused.code(), Some(name));
        assert!(refused.message().is_some_and(|message| !message.is_empty()), "{name}");
        assert!(refused.request_id().is_some(), "{name}");
        // All but one have a type in the SDK.
        let is_typed = refused.is_limit_exceeded_exception()
            || refused.is_expired_iterator_exception()
            || refused.is_trimmed_data_access_exception()
            || refused.is_resource_not_found_exception()
            || refused.is_internal_server_error();
        assert_eq!(is_typed, error != ErrorCode::Throttling, "{refused:?}");
        read(&fake.client, &at).await.unwrap();
    }
    fake.server.stop().await;
}

#[tokio::test]
async fn a_fault_hits_the_shard_and_the_reader_it_names() {
    let (fake, shard) = with_shard().await;
    let other = fake.script().add_shard(&fake.arn, None).unwrap();
    let (first, second) = (fake.reader("worker-1"), fake.reader("worker-2"));
    let calls = Calls::of(Operation::GetRecords).stream(&fake.arn).shard(&shard).reader("worker-1");
    fake.script().inject(Fault::Error(ErrorCode::LimitExceeded), calls, When::Always);
    let (at, at_other) = (fake.iterator(&shard).await, fake.iterator(&other).await);
    assert_eq!(read(&first, &at).await.unwrap_err(), "LimitExceededException");
    read(&first, &at_other).await.unwrap();
    read(&second, &at).await.unwrap();
    fake.script().clear_faults();
    read(&first, &at).await.unwrap();
    fake.server.stop().await;
}

#[tokio::test]
async fn describing_and_iterators_can_fail_too() {
    let (fake, shard) = with_shard().await;
    fake.script().inject(Fault::Error(ErrorCode::LimitExceeded), Calls::any(), When::Next(3));
    assert_eq!(all_shards(&fake.client, &fake.arn).await.unwrap_err(), "LimitExceededException");
    assert_eq!(children(&fake.client, &fake.arn, &shard).await.unwrap_err(), "LimitExceededException");
    let kind = aws_sdk_dynamodbstreams::types::ShardIteratorType::Latest;
    let refused = iterator(&fake.client, &fake.arn, &shard, kind, None).await;
    assert_eq!(refused.unwrap_err(), "LimitExceededException");
    assert_eq!(fake.listed_ids().await, [shard]);
    fake.server.stop().await;
}

#[tokio::test]
async fn a_share_of_calls_fails() {
    let (fake, shard) = with_shard().await;
    let at = fake.iterator(&shard).await;
    let share = When::Share { probability: 0.5, seed: 42 };
    fake.script().inject(Fault::Error(ErrorCode::Throttling), Calls::of(Operation::GetRecords), share);
    let mut failed = 0;
    for _ in 0..100 {
        failed += u32::from(read(&fake.client, &at).await.is_err());
    }
    // The seed decides: it is the same number each time.
    assert!((30..70).contains(&failed), "{failed}");
    fake.server.stop().await;
}

#[tokio::test]
async fn a_delayed_answer_comes_later() {
    let (fake, shard) = with_shard().await;
    let at = fake.iterator(&shard).await;
    let delay = Duration::from_millis(300);
    fake.script().inject(Fault::Delay(delay), Calls::of(Operation::GetRecords), When::Next(1));
    let start = Instant::now();
    assert_eq!(read(&fake.client, &at).await.unwrap().records().len(), 10);
    assert!(start.elapsed() >= delay);
    fake.server.stop().await;
}

#[tokio::test]
async fn broken_answers_are_no_answers_and_the_next_call_works() {
    let (fake, shard) = with_shard().await;
    let at = fake.iterator(&shard).await;
    for fault in [Fault::Cut, Fault::CutBody, Fault::Garbage] {
        fake.script().inject(fault, Calls::of(Operation::GetRecords), When::Next(1));
        let error = read(&fake.client, &at).await.unwrap_err();
        assert!(error.starts_with('('), "{fault:?} looks like an error of the service: {error}");
        // Nothing of it was delivered.
        assert_eq!(fake.script().delivered(&fake.arn).unwrap(), (0, 0), "{fault:?}");
    }
    assert_eq!(read(&fake.client, &at).await.unwrap().records().len(), 10);
    fake.server.stop().await;
}

/// The bytes of the answer to a read, until the connection ends or the body is whole.
async fn raw_answer(fake: &Fake, at: &str) -> Vec<u8> {
    let body = format!(r#"{{"ShardIterator":"{at}"}}"#);
    let request = format!(
        "POST / HTTP/1.1\r\nhost: localhost\r\nx-amz-target: DynamoDBStreams_20120810.GetRecords\r\n\
         content-type: application/x-amz-json-1.0\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let url = fake.server.url();
    let mut connection = TcpStream::connect(url.strip_prefix("http://").unwrap()).await.unwrap();
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // A connection that is cut may end with a reset.
    let _ = timeout(PATIENCE, connection.read_to_end(&mut answer)).await.unwrap();
    answer
}

#[tokio::test]
async fn a_cut_connection_has_no_byte_of_the_answer_and_a_cut_body_a_part() {
    let (fake, shard) = with_shard().await;
    let at = fake.iterator(&shard).await;
    let whole = raw_answer(&fake, &at).await;
    assert!(whole.ends_with(b"}"));
    fake.script().inject(Fault::Cut, Calls::any(), When::Next(1));
    assert!(raw_answer(&fake, &at).await.is_empty());
    fake.script().inject(Fault::CutBody, Calls::any(), When::Next(1));
    let half = raw_answer(&fake, &at).await;
    assert!(half.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&half));
    assert!(
        half.len() > whole.len() / 3 && half.len() < whole.len() * 2 / 3,
        "{} of {}",
        half.len(),
        whole.len()
    );
    fake.server.stop().await;
}

#[tokio::test]
async fn a_call_hangs_until_its_handle_is_dropped() {
    let (fake, shard) = with_shard().await;
    let at = fake.iterator(&shard).await;
    let hang = fake.script().hang(Calls::of(Operation::GetRecords).shard(&shard), When::Next(1));
    let mut calls = JoinSet::new();
    let (client, from) = (fake.client.clone(), at.clone());
    calls.spawn(async move { read(&client, &from).await });
    let arrived = fake.script().until(|streams| streams.calls(Operation::GetRecords) == 1);
    timeout(PATIENCE, arrived).await.unwrap();
    // Others are answered meanwhile.
    read(&fake.client, &at).await.unwrap();
    assert!(calls.try_join_next().is_none());
    drop(hang);
    let ended = timeout(PATIENCE, calls.join_next()).await.unwrap().unwrap().unwrap();
    assert_eq!(ended.unwrap_err(), "(no answer)");
    fake.server.stop().await;
}

#[tokio::test]
async fn a_fake_stops_while_a_call_hangs() {
    let (fake, shard) = with_shard().await;
    let at = fake.iterator(&shard).await;
    let _hang = fake.script().hang(Calls::any(), When::Always);
    let mut calls = JoinSet::new();
    let client = fake.client.clone();
    calls.spawn(async move { read(&client, &at).await });
    let arrived = fake.script().until(|streams| streams.calls(Operation::GetRecords) == 1);
    timeout(PATIENCE, arrived).await.unwrap();
    fake.server.stop().await;
    let ended = timeout(PATIENCE, calls.join_next()).await.unwrap().unwrap().unwrap();
    assert_eq!(ended.unwrap_err(), "(no answer)");
}

#[tokio::test]
async fn a_dropped_fake_answers_no_more() {
    let (fake, shard) = with_shard().await;
    let at = fake.iterator(&shard).await;
    let client = fake.client.clone();
    drop(fake);
    // A connection that was open may serve one more call; then it ends.
    let ends = async { while read(&client, &at).await.is_ok() {} };
    timeout(PATIENCE, ends).await.unwrap();
}

#[tokio::test]
async fn an_operation_that_is_not_there_is_said_to_be_unknown() {
    let fake = Fake::start().await;
    let url = fake.server.url();
    let mut connection = TcpStream::connect(url.strip_prefix("http://").unwrap()).await.unwrap();
    let request = "POST / HTTP/1.1\r\nhost: localhost\r\nx-amz-target: DynamoDB_20120810.PutItem\r\n\
                   connection: close\r\ncontent-length: 2\r\n\r\n{}";
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, connection.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("UnknownOperationException"), "{answer}");
    fake.server.stop().await;
}
