//! The example configuration, and what a wrong one gets.

use warmcast_cache::FillerConfig;
use warmcast_cache::MasterConfig;
use warmcast_cache::policy::{TablePolicy, Tables};
use warmcast_cache_writer::Config;
use warmcast_common::config::Document;
use warmcast_common::daemon::read;

#[path = "../../common/tests/support/configuration.rs"]
mod support;

use support::{
    assert_command, assert_endpoint_variables, assert_shown, assert_usage, assert_violations, check, stderr,
    uncommented,
};

const BINARY: &str = env!("CARGO_BIN_EXE_cache-writer");
const CONFIG_FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../config/cache-writer.toml");
const EXAMPLE: &str = include_str!("../../config/cache-writer.toml");
/// What Terraform's module writes; its own test holds it against the same file.
const OF_TERRAFORM: &str = include_str!("../../terraform/modules/region/tests/expected/cache-writer.toml");

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
    assert_eq!(full.verify, given.verify);
    let redis = |config: &Config| {
        let redis = &config.redis;
        (
            redis.connections,
            redis.pipeline_entries_max,
            redis.connect_timeout,
            redis.response_timeout,
            config.rewind,
        )
    };
    assert_eq!(redis(&full), redis(&given));
    let attributes = Some(vec!["id".to_owned(), "segments".to_owned()]);
    let entries = TablePolicy { attributes, ..TablePolicy::default() };
    assert_eq!(
        full.redis.tables.default, entries,
        "all defaults, but for a list, which has no neutral example"
    );
    assert_eq!(given.redis.tables, Tables::default());
    let (fallback, master, filler) =
        (full.fallback.unwrap(), MasterConfig::default(), FillerConfig::default());
    assert_eq!((fallback.master.calls_max, fallback.filler.keys_max), (master.calls_max, filler.keys_max));
    assert_eq!(fallback.master.call_timeout, master.call_timeout);
    assert_eq!(fallback.master.breaker.slow_after, master.breaker.slow_after);
    assert!((fallback.master.read_units_per_second_max - master.read_units_per_second_max).abs() < 1e-9);
    assert!(given.fallback.is_none(), "the master is read by those who ask for it");
}

#[test]
fn the_sdks_variables_may_name_no_endpoint_in_the_clear() {
    assert_endpoint_variables(BINARY, EXAMPLE, &["kinesis", "dynamodb"]);
}

#[test]
fn a_good_configuration_exits_with_0() {
    for good in [EXAMPLE, OF_TERRAFORM] {
        let output = check(BINARY, good, &[]);
        assert!(output.status.success(), "{}", stderr(&output));
    }
}

#[test]
fn a_wrong_configuration_exits_with_64_and_names_every_violation() {
    let wrong = "
        surprise = 1
        [kinesis]
        endpoint = 'localhost'
        session_token_file = '/nowhere/token'
        [dynamodb]
        access_key_id = 'a'
        endpoint = 'http://10.0.0.1:8000'
        [redis]
        iam_cache_name = 'profiles'
        password = 'hunter2'
        password_file = '${CREDENTIALS_DIRECTORY}/redis'
        url = 'redis://:hunter2@cache:port'
        ca_file = 'ca.pem'
        sentinel_password = 'hunter2'
        [entries]
        live_ttl_ms = 1
        [reducers]
        count = 0
        [verify]
        keys_per_s = 5
        [queue]
        read_bytes_max = 1
        [dead_letters]
        store = 'tape'
        table = 'warmcast-cache-writer'
        retention_days = 0
        bytes_max = 1
        ";
    let output = check(BINARY, wrong, &["--set", "log.level=loud"]);
    let expected = [
        "surprise: unknown key",
        "kinesis.endpoint: ",
        "kinesis.session_token_file: /nowhere/token: ",
        "kinesis.stream: is required",
        "dynamodb.secret_access_key: ",
        "dynamodb.endpoint: http:// is for this machine's own addresses",
        "entries.live_ttl_ms: ",
        "verify.keys_per_s: ",
        "redis.url: ",
        "redis.password_file: CREDENTIALS_DIRECTORY is not set",
        "redis.iam_region: is required",
        "redis.sentinel_username: ",
        "redis.ca_file: ",
        "reducers.count: ",
        "queue.read_bytes_max: ",
        "dead_letters.store: ",
        "dead_letters.table: must not be the state table",
        "dead_letters.retention_days: ",
        "dead_letters.bytes_max: ",
        "log.level: ",
    ];
    assert_violations(&output, &expected);
    assert!(!stderr(&output).contains("hunter2"));
}

#[test]
fn iam_authentication_needs_tls_and_a_user_and_no_password() {
    let flags = |more: &[&'static str]| {
        let set = ["redis.iam_cache_name=profiles", "redis.url=rediss://cache", "redis.username=writer"];
        set.iter().chain(more).flat_map(|flag| ["--set", flag]).collect::<Vec<_>>()
    };
    let output = check(BINARY, EXAMPLE, &flags(&[]));
    assert!(output.status.success(), "{}", stderr(&output));
    for (more, expected) in [
        (vec!["redis.url=redis://cache"], "redis.iam_cache_name: IAM authentication needs TLS"),
        (vec!["redis.password=hunter2"], "redis.iam_cache_name: takes the place of a password"),
        (vec!["redis.password_file=/a"], "redis.iam_cache_name: takes the place of a password"),
    ] {
        assert_violations(&check(BINARY, EXAMPLE, &flags(&more)), &[expected]);
    }
}

#[test]
fn every_key_is_shown_with_where_its_value_comes_from_and_no_secret_is() {
    let url = "redis.url=rediss+sentinel://me:hunter2@a,b/main?db=1";
    let flags = ["--set", url, "--set", "redis.sentinel_password=hunter2"];
    let shown = assert_shown(BINARY, EXAMPLE, &flags);
    assert!(shown.contains("url = \"rediss+sentinel://me:[redacted]@a,b/main?db=[redacted]\""), "{shown}");
    assert!(shown.contains("sentinel_password = \"[redacted]\""), "{shown}");
    let without = assert_command(BINARY, &["config", "show", "--config", CONFIG_FILE], 0);
    assert!(without.contains("\n# [master] is not set\n\n"), "{without}");
    assert!(without.contains("\n# [tables.NAME]: there is none\n"), "{without}");
}

#[test]
fn the_configuration_is_checked_for_people_and_for_scripts() {
    let good = assert_command(BINARY, &["config", "check", "--config", CONFIG_FILE], 0);
    assert!(good.ends_with("configuration is good\n"), "{good}");
    let json = ["config", "check", "--output", "json", "--set", "reducers.count=0", "--config", CONFIG_FILE];
    let bad: serde_json::Value = serde_json::from_str(&assert_command(BINARY, &json, 64)).unwrap();
    assert_eq!(bad["good"], false);
    assert!(bad["problems"][0].as_str().unwrap().starts_with("reducers.count: "), "{bad}");
}

#[test]
fn shells_and_man_learn_the_command_line() {
    for shell in ["bash", "zsh", "fish"] {
        let script = assert_command(BINARY, &["completions", shell], 0);
        assert!(script.contains("import-kcl") && script.contains("check-config"), "{script}");
    }
    assert!(assert_command(BINARY, &["man"], 0).contains(".TH cache-writer 1"));
    let directory = tempfile::tempdir().unwrap();
    let pages = directory.path().join("man1");
    assert_command(BINARY, &["man", "--directory", pages.to_str().unwrap()], 0);
    let page = std::fs::read_to_string(pages.join("cache-writer-config-show.1")).unwrap();
    assert!(page.contains("Examples:") && page.contains("Exit codes:"), "{page}");
}

#[test]
fn a_wrong_command_line_or_file_exits_with_64() {
    assert_usage(BINARY);
}
