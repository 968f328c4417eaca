//! The example configuration, and what a wrong one gets.

use warmcast_cache_writer::Config;
use warmcast_common::config::Document;
use warmcast_common::daemon::read;

#[path = "../../common/tests/support/configuration.rs"]
mod support;

use support::{assert_usage, assert_violations, check, stderr, uncommented};

const BINARY: &str = env!("CARGO_BIN_EXE_cache-writer");
const EXAMPLE: &str = include_str!("../../config/cache-writer.toml");

#[test]
fn the_example_is_good_and_its_commented_keys_show_the_defaults() {
    let given: Config = read(Document::parse(EXAMPLE).unwrap()).unwrap();
    assert_eq!(given.kinesis.stream, "warmcast");
    let full = uncommented(EXAMPLE);
    assert!(full.contains("\ncount = 8\n") && full.contains("\nread_bytes_max = "), "{full}");
    let full: Config = read(Document::parse(&full).unwrap()).unwrap();
    assert_eq!((full.reducers, full.queue), (given.reducers, given.queue));
    assert_eq!((&full.worker, &full.state), (&given.worker, &given.state));
    assert_eq!((&full.dead_letters, &full.log), (&given.dead_letters, &given.log));
    assert_eq!(full.shutdown_deadline, given.shutdown_deadline);
    assert_eq!(full.kinesis.from_trim_horizon, given.kinesis.from_trim_horizon);
    let redis = |config: Config| {
        let redis = config.redis;
        (
            redis.connections,
            redis.pipeline_entries_max,
            redis.live_ttl,
            redis.connect_timeout,
            redis.response_timeout,
        )
    };
    assert_eq!(redis(full), redis(given));
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
        [kinesis]
        endpoint = 'localhost'
        [dynamodb]
        access_key_id = 'a'
        [redis]
        url = 'rediss://:hunter2@cache'
        [reducers]
        count = 0
        [queue]
        read_bytes_max = 1
        ";
    let output = check(BINARY, wrong, &["--set", "log.level=loud"]);
    let expected = [
        "surprise: unknown key",
        "kinesis.endpoint: ",
        "kinesis.stream: is required",
        "dynamodb.secret_access_key: ",
        "redis.url: ",
        "reducers.count: ",
        "queue.read_bytes_max: ",
        "log.level: ",
    ];
    assert_violations(&output, &expected);
    assert!(!stderr(&output).contains("hunter2"));
}

#[test]
fn a_wrong_command_line_or_file_exits_with_64() {
    assert_usage(BINARY);
}
