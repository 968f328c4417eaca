//! Aggregated records against another implementation: AWS' own Python modules (PyPI `aws-kinesis-agg`), in both
//! directions. What the daemons make of such records is tested where they are.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "the parts of a test fail by panicking"
)]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use serde::{Deserialize, Serialize};
use warmcast_proto::kpl::{self, AggregateBuilder, KplError, UserRecord};

const CASES: usize = 100;
const BYTES_MAX: usize = 3_000;

/// Takes records apart, and puts user records together.
const RUN: &str = r#"
import base64, json, sys
from aws_kinesis_agg.aggregator import RecordAggregator
from aws_kinesis_agg.deaggregator import deaggregate_records

def text(data):
    return base64.b64encode(data).decode()

def apart(record):  # as a Lambda function gets it
    of_lambda = {"kinesis": {"kinesisSchemaVersion": "1.0", "sequenceNumber": "7", "partitionKey": "outer",
                             "approximateArrivalTimestamp": 1.5, "data": record}}
    user_records = [each["kinesis"] for each in deaggregate_records([of_lambda])]
    return [{"aggregated": each.get("aggregated", False), "index": each.get("subSequenceNumber"),
             "partition_key": each["partitionKey"], "explicit_hash_key": each.get("explicitHashKey"),
             "data": text(base64.b64decode(each["data"]))} for each in user_records]

def together(user_records, bytes_max):
    aggregator, made = RecordAggregator(bytes_max), []
    for each in user_records:
        data = base64.b64decode(each["data"])
        made.append(aggregator.add_user_record(each["partition_key"], data, each["explicit_hash_key"]))
    made.append(aggregator.clear_and_get())
    return [text(record.get_contents()[2]) for record in made if record is not None]

given = json.load(sys.stdin)
json.dump({
    "apart": [apart(record) for record in given["apart"]],
    "together": [together(user_records, given["bytes_max"]) for user_records in given["together"]],
}, sys.stdout)
"#;

#[derive(Serialize)]
struct Given {
    bytes_max: usize,
    apart: Vec<String>,
    together: Vec<Vec<Theirs>>,
}

#[derive(Deserialize)]
struct Answer {
    apart: Vec<Vec<Theirs>>,
    together: Vec<Vec<String>>,
}

/// A user record, as they have it; data in base64.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Theirs {
    aggregated: bool,
    index: Option<usize>,
    partition_key: String,
    explicit_hash_key: Option<String>,
    data: String,
}

/// As we have them.
fn theirs(user_records: &[UserRecord]) -> Vec<Theirs> {
    let one = |(index, record): (usize, &UserRecord)| Theirs {
        aggregated: true,
        index: Some(index),
        partition_key: record.partition_key.to_string(),
        explicit_hash_key: record.explicit_hash_key.as_deref().map(str::to_owned),
        data: BASE64_STANDARD.encode(&record.data),
    };
    user_records.iter().enumerate().map(one).collect()
}

fn python() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/kinesis-agg/bin/python")
}

fn run(given: &Given) -> Answer {
    let mut python = Command::new(python());
    python
        .args(["-B", "-X", "utf8", "-c", RUN])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = python.spawn().unwrap_or_else(|error| {
        panic!(
            "aws-kinesis-agg cannot be run ({error}): run `sandbox/setup.sh kinesis-agg`, as `make test` does"
        )
    });
    // It reads all before it writes anything.
    child.stdin.take().unwrap().write_all(&serde_json::to_vec(given).unwrap()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "aws-kinesis-agg failed: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("the result")
}

/// Either all have an explicit hash key or none has: where only some have, the Python module gives the others the first.
fn any_user_records() -> impl Strategy<Value = Vec<UserRecord>> {
    let data = prop::collection::vec(any::<u8>(), 0..400).prop_map(Bytes::from);
    let one = ("[a-e\u{e4}\u{1f600}]{1,3}", 0u128..4, data);
    (any::<bool>(), prop::collection::vec(one, 1..40)).prop_map(|(explicit, records)| {
        let record = |(key, hash_key, data): (String, u128, Bytes)| UserRecord {
            partition_key: key.into(),
            explicit_hash_key: explicit.then(|| (u128::MAX / 4 * hash_key).to_string().into()),
            data,
        };
        records.into_iter().map(record).collect()
    })
}

fn ours(user_records: &[UserRecord]) -> Bytes {
    let mut builder = AggregateBuilder::new(1 << 20);
    for record in user_records {
        assert!(builder.push(&record.partition_key, record.explicit_hash_key.as_deref(), &record.data));
    }
    builder.finish().unwrap()
}

#[test]
fn aws_own_modules_read_what_we_write_and_we_read_what_they_write() {
    // Always the same cases.
    let mut runner = TestRunner::deterministic();
    let mut case = || any_user_records().new_tree(&mut runner).unwrap().current();
    let cases: Vec<_> = (0..CASES).map(|_| case()).collect();
    let records: Vec<Bytes> = cases.iter().map(|case| ours(case)).collect();
    let damaged = |record: &Bytes| {
        let mut record = record.to_vec();
        let middle = record.len() / 2;
        record[middle] ^= 1;
        Bytes::from(record)
    };
    let damaged: Vec<Bytes> = records.iter().take(3).map(damaged).collect();
    let apart = records.iter().chain(&damaged).map(|record| BASE64_STANDARD.encode(record)).collect();
    let together = cases.iter().map(|case| theirs(case)).collect();
    let answer = run(&Given { bytes_max: BYTES_MAX, apart, together });

    assert_eq!((answer.apart.len(), answer.together.len()), (CASES + damaged.len(), CASES));
    for (case, read) in cases.iter().zip(&answer.apart) {
        assert_eq!(*read, theirs(case));
    }
    for (record, read) in damaged.iter().zip(&answer.apart[CASES..]) {
        // They take it for a user record that is not aggregated. We tell.
        assert_eq!((read.len(), read[0].aggregated), (1, false));
        assert_eq!(read[0].data, BASE64_STANDARD.encode(record));
        assert_eq!(kpl::decode(record.clone()), Err(KplError::ChecksumMismatch { len: record.len() }));
    }
    let mut split = 0;
    for (case, made) in cases.iter().zip(&answer.together) {
        split += usize::from(made.len() > 1);
        let made = made.iter().map(|record| Bytes::from(BASE64_STANDARD.decode(record).unwrap()));
        let read: Vec<UserRecord> = made.flat_map(|record| kpl::decode(record).unwrap()).collect();
        assert_eq!(read, *case);
    }
    assert!(split > CASES / 4, "many of the cases take more than one record: {split}");
}
