//! The example configuration, and what a wrong one gets.

use std::path::Path;
use warmcast_aggregator::Config;
use warmcast_common::config::Document;
use warmcast_common::daemon::read;

#[path = "../../common/tests/support/configuration.rs"]
mod support;

use support::{assert_usage, assert_violations, check, stderr, uncommented};

const BINARY: &str = env!("CARGO_BIN_EXE_aggregator");
const EXAMPLE: &str = include_str!("../../config/aggregator.toml");

#[test]
fn the_example_is_good_and_its_commented_keys_show_the_defaults() {
    let given: Config = read(Document::parse(EXAMPLE).unwrap()).unwrap();
    assert_eq!(given.tables.len(), 1);
    assert_eq!(given.regions.len(), 2);
    let full = uncommented(EXAMPLE);
    assert!(
        full.contains("\nlinger_ms = 50\n") && full.contains("\n[regions.eu-west-1.kinesis]\n"),
        "{full}"
    );
    let full: Config = read(Document::parse(&full).unwrap()).unwrap();
    assert_eq!((full.batch, &full.worker, &full.state), (given.batch, &given.worker, &given.state));
    assert_eq!(full.queue_bytes_max, given.queue_bytes_max);
    assert_eq!((&full.dead_letters, &full.log), (&given.dead_letters, &given.log));
    assert_eq!(full.watermark_interval, given.watermark_interval);
    assert_eq!(full.shutdown_deadline, given.shutdown_deadline);
    assert_eq!(full.tables, given.tables);
    assert_eq!(full.regions[0], given.regions[0]);
}

#[test]
fn every_file_in_config_is_parsed_by_a_test() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config");
    let mut names: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(
        names,
        ["aggregator.toml", "cache-writer.toml"],
        "add a test for a new file, then its name here"
    );
}

#[test]
fn a_good_configuration_exits_with_0() {
    let output = check(BINARY, EXAMPLE, &[]);
    assert!(output.status.success(), "{}", stderr(&output));
}

#[test]
fn a_wrong_configuration_exits_with_64_and_names_every_violation() {
    let wrong = "
        surprise = 1
        [dynamodb]
        endpoint = 'localhost'
        access_key_id = 'a'
        [regions.eu-west-1]
        connections = 0
        request_bytes_max = 20000000
        [batch]
        buckets = 3
        linger_ms = 'soon'
        [watermark]
        interval_ms = 0
        [worker]
        heartbeat_interval_ms = 10000
        ";
    let output = check(BINARY, wrong, &["--set", "log.level=loud"]);
    let expected = [
        "surprise: unknown key",
        "dynamodb.endpoint: ",
        "dynamodb.secret_access_key: ",
        "tables: at least one [tables.NAME]",
        "regions.eu-west-1.stream: is required",
        "regions.eu-west-1.connections: ",
        "regions.eu-west-1.request_bytes_max: ",
        "batch.buckets: must be a power of two, found 3",
        "batch.linger_ms: ",
        "watermark.interval_ms: ",
        "worker.lease_duration_ms: ",
        "log.level: ",
    ];
    assert_violations(&output, &expected);
}

#[test]
fn a_wrong_command_line_or_file_exits_with_64() {
    assert_usage(BINARY);
}
