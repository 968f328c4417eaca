//! PutRecords in both encodings, against a Kinesis of another make that reads either.

use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::PutRecordsRequestEntry;
use axum::Router;
use axum::body::Bytes;
use axum::http::HeaderMap;
use axum::routing::post;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use warmcast_aggregator::cbor::{PutEncoding, with_encoding};
use warmcast_common::aws::{CallError, sdk_config};
use warmcast_common::retry::Class;

use super::servers::{Kinesis, service};

const ENCODINGS: [PutEncoding; 2] = [PutEncoding::Cbor, PutEncoding::Json];

fn entry(data: &[u8], hash_key: u128) -> PutRecordsRequestEntry {
    let entry = PutRecordsRequestEntry::builder().data(Blob::new(data)).partition_key("1");
    entry.explicit_hash_key(hash_key.to_string()).build().unwrap()
}

async fn client(url: &str, encoding: PutEncoding) -> aws_sdk_kinesis::Client {
    let config = aws_sdk_kinesis::config::Builder::from(&sdk_config(&service(url)).await);
    aws_sdk_kinesis::Client::from_conf(with_encoding(config, encoding).build())
}

#[tokio::test]
async fn records_land_as_they_are_in_their_shards_and_the_answer_is_read() {
    let kinesis = Kinesis::start().await;
    kinesis.create_stream("warmcast", 2).await;
    let every_byte: Vec<u8> = (0..=255).cycle().take(70_000).collect();
    for encoding in ENCODINGS {
        let client = client(&kinesis.url, encoding).await;
        let records = vec![entry(&every_byte, 0), entry(b"\xff", u128::MAX), entry(b"{}", 1)];
        let answer =
            client.put_records().stream_name("warmcast").set_records(Some(records)).send().await.unwrap();
        assert_eq!((answer.failed_record_count(), answer.records().len()), (Some(0), 3));
        let shards: Vec<_> = answer.records().iter().map(|record| record.shard_id().unwrap()).collect();
        assert!(shards[0] == shards[2] && shards[0] != shards[1], "{shards:?}");
        assert!(answer.records().iter().all(|record| record.sequence_number().is_some()));
    }
    let mut landed: Vec<Vec<u8>> = Vec::new();
    for shard in kinesis.shards("warmcast").await {
        let records = kinesis.records("warmcast", &shard.shard_id).await;
        landed.extend(records.into_iter().map(|record| record.data.into_inner()));
    }
    landed.sort();
    let mut expected = vec![every_byte, b"{}".to_vec(), b"\xff".to_vec()];
    expected = expected.into_iter().flat_map(|data| [data.clone(), data]).collect();
    expected.sort();
    assert!(landed == expected, "{} records", landed.len());
}

#[tokio::test]
async fn errors_have_their_codes_and_other_calls_stay_json() {
    let kinesis = Kinesis::start().await;
    for encoding in ENCODINGS {
        let client = client(&kinesis.url, encoding).await;
        let put =
            client.put_records().stream_name("missing").records(entry(b"x", 0)).send().await.unwrap_err();
        let error = CallError::new("PutRecords", "missing", put);
        assert!(error.is_code("ResourceNotFoundException"), "{encoding:?}: {error}");
        let described = client.describe_stream_summary().stream_name("missing").send().await.unwrap_err();
        let error = CallError::new("DescribeStreamSummary", "missing", described);
        assert!(error.is_code("ResourceNotFoundException"), "{encoding:?}: {error}");
    }
}

/// A server that answers everything in this way, and tells the length of each request's body.
async fn server(
    status: u16,
    kind: &'static str,
    answer: &'static [u8],
) -> (String, mpsc::Receiver<usize>, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (lengths, seen) = mpsc::channel(10);
    let handler = move |headers: HeaderMap, body: Bytes| async move {
        assert_eq!(headers["content-length"], body.len().to_string());
        assert_eq!(headers["x-amz-target"], "Kinesis_20131202.PutRecords");
        lengths.send(body.len()).await.unwrap();
        (axum::http::StatusCode::from_u16(status).unwrap(), [("content-type", kind)], answer)
    };
    let mut server = JoinSet::new();
    server
        .spawn(async move { axum::serve(listener, Router::new().route("/", post(handler))).await.unwrap() });
    (url, seen, server)
}

#[tokio::test]
async fn cbor_spares_the_third_that_base64_adds() {
    let mut lengths = Vec::new();
    for encoding in ENCODINGS {
        let (url, mut seen, _server) = server(200, "application/x-amz-json-1.1", b"{\"Records\":[]}").await;
        let client = client(&url, encoding).await;
        let put = client.put_records().stream_name("warmcast").records(entry(&[7; 90_000], 0));
        assert_eq!(put.send().await.unwrap().records(), []);
        lengths.push(seen.recv().await.unwrap());
    }
    assert!(
        (90_000..90_200).contains(&lengths[0]) && (120_000..120_300).contains(&lengths[1]),
        "{lengths:?}"
    );
}

#[tokio::test]
async fn what_is_no_answer_of_kinesis_is_an_error_that_passes() {
    let cbor = "application/x-amz-cbor-1.1";
    for (status, kind, answer) in [
        (502, "text/html", &b"<html>"[..]),
        (200, cbor, b"\xff\xff"),
        (200, cbor, b""),
        (500, cbor, b"\xa0"),
        (503, cbor, b""),
    ] {
        let (url, _seen, _server) = server(status, kind, answer).await;
        let client = client(&url, PutEncoding::Cbor).await;
        let put = client.put_records().stream_name("warmcast").records(entry(b"x", 0)).send().await;
        // An answer without anything in it is the SDK's to judge; the producer finds that it lacks the entries.
        if let Err(error) = put {
            let error = CallError::new("PutRecords", "warmcast", error);
            assert_eq!((error.class, error.code), (Class::Transient, None));
        } else {
            assert_eq!((status, answer), (200, &b""[..]));
        }
    }
}
