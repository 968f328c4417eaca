//! The example configuration, and what a wrong one gets.

use std::path::Path;
use warmcast_aggregator::Config;
use warmcast_aggregator::config::RegionConfig;
use warmcast_aggregator::filter::Filters;
use warmcast_common::config::Document;
use warmcast_common::daemon::read;

#[path = "../../common/tests/support/configuration.rs"]
mod support;

use support::{
    assert_endpoint_variables, assert_shown, assert_usage, assert_violations, check, stderr, uncommented,
};

const BINARY: &str = env!("CARGO_BIN_EXE_aggregator");
const EXAMPLE: &str = include_str!("../../config/aggregator.toml");
/// What Terraform's module writes; its own test holds it against the same file.
const OF_TERRAFORM: &str = include_str!("../../terraform/modules/master/tests/expected/aggregator.toml");

#[test]
fn the_example_is_good_and_its_commented_keys_show_the_defaults() {
    let given: Config = read(Document::parse(EXAMPLE).unwrap()).unwrap();
    assert_eq!(given.tables.len(), 1);
    assert_eq!(given.regions.len(), 2);
    let full = uncommented(EXAMPLE);
    assert!(
        full.contains("\nlinger_ms = 100\n") && full.contains("\n[regions.eu-west-1.kinesis]\n"),
        "{full}"
    );
    let full: Config = read(Document::parse(&full).unwrap()).unwrap();
    assert_eq!((full.batch, &full.worker, &full.state), (given.batch, &given.worker, &given.state));
    assert_eq!(full.queue_bytes_max, given.queue_bytes_max);
    assert_eq!((&full.dead_letters, &full.log), (&given.dead_letters, &given.log));
    assert_eq!(full.watermark_interval, given.watermark_interval);
    assert_eq!(full.shutdown_deadline, given.shutdown_deadline);
    assert_eq!(full.tables, given.tables);
    // Its filter is an example: by default there is none.
    let unfiltered = RegionConfig { filters: Filters::new(), ..full.regions[0].clone() };
    assert_eq!(unfiltered, given.regions[0]);
}

#[test]
fn a_regions_filter_is_read_and_without_one_it_gets_everything() {
    let given: Config = read(Document::parse(EXAMPLE).unwrap()).unwrap();
    assert!(given.regions.iter().all(|region| region.filters.is_empty()));
    let full: Config = read(Document::parse(&uncommented(EXAMPLE)).unwrap()).unwrap();
    let asia = full.regions.iter().find(|region| region.name == "ap-northeast-1").unwrap();
    let filter = &asia.filters["profiles"];
    assert!(filter.condition.is_some() && !filter.suppress_unchanged && !filter.suppress_excluded);
    let kept: Vec<_> = filter.projection.iter().flatten().collect();
    assert_eq!(kept, ["country", "segments"]);
}

#[test]
fn every_file_in_config_is_parsed_by_a_test() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config");
    let mut names: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(Result::unwrap)
        // Directories have their own checks.
        .filter(|entry| entry.file_type().unwrap().is_file())
        .map(|file| file.file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(
        names,
        ["aggregator.toml", "cache-writer.toml", "prices-2018.toml", "prices.toml"],
        "add a test for a new file, then its name here"
    );
}

#[test]
fn the_sdks_variables_may_name_no_endpoint_in_the_clear() {
    let sections = ["dynamodb", "regions.ap-northeast-1.kinesis", "regions.eu-west-1.kinesis"];
    assert_endpoint_variables(BINARY, EXAMPLE, &sections);
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
        [dynamodb]
        endpoint = 'localhost'
        access_key_id = 'a'
        [regions.eu-west-1]
        record_format = 'json'
        connections = 0
        request_bytes_max = 20000000
        [regions.eu-west-1.tables.profiles]
        condition = 'age > AND'
        projection = []
        suppress_excluded = 1
        [regions.us-west-2]
        stream = 's'
        [regions.us-west-2.tables.segments]
        suppress_excluded = true
        [batch]
        buckets = 3
        linger_ms = 'soon'
        [watermark]
        interval_ms = 0
        [admin]
        listen = '0.0.0.0:9640'
        bearer_token = 'short'
        [worker]
        heartbeat_interval_ms = 10000
        [dead_letters]
        store = 'tape'
        table = 'warmcast-aggregator'
        retention_days = 0
        bytes_max = 1
        ";
    let output = check(BINARY, wrong, &["--set", "log.level=loud"]);
    let expected = [
        "surprise: unknown key",
        "dynamodb.endpoint: ",
        "dynamodb.secret_access_key: ",
        "tables: at least one [tables.NAME]",
        "regions.eu-west-1.tables: profiles is not one of the tables: there is no [tables.profiles]",
        "regions.eu-west-1.tables.profiles.condition: expected a 'text', a number, true or false, at character 7: \
         age > >>>AND",
        "regions.eu-west-1.tables.profiles.projection: expected a list of strings",
        "regions.eu-west-1.tables.profiles.suppress_excluded: expected true or false",
        "regions.eu-west-1.stream: is required",
        "regions.eu-west-1.connections: ",
        "regions.eu-west-1.record_format: ",
        "regions.eu-west-1.request_bytes_max: ",
        "regions.us-west-2.tables: segments is not one of the tables: there is no [tables.segments]",
        "regions.us-west-2.tables.segments.suppress_excluded: is of no use without a condition",
        "batch.buckets: must be a power of two, found 3",
        "batch.linger_ms: ",
        "watermark.interval_ms: ",
        "worker.lease_duration_ms: ",
        "dead_letters.store: ",
        "dead_letters.table: must not be the state table",
        "dead_letters.retention_days: ",
        "dead_letters.bytes_max: ",
        "log.level: ",
        "admin.listen: 0.0.0.0:9640 can be reached from other machines: that needs beyond_loopback = true",
        "admin.bearer_token: ",
    ];
    assert_violations(&output, &expected);
}

#[test]
fn a_taken_admin_port_ends_the_start_with_1_and_names_the_key() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), EXAMPLE).unwrap();
    let mut command = std::process::Command::new(BINARY);
    command.args(["run", "--config"]).arg(file.path()).arg("--set").arg(format!("admin.listen={address}"));
    let output = command.output().unwrap();
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("admin.listen: {address} cannot be listened on: ")), "{said}");
}

#[test]
fn every_key_is_shown_with_where_its_value_comes_from_and_no_secret_is() {
    let shown = assert_shown(BINARY, EXAMPLE, &["--set", "batch.linger_ms=7"]);
    let line = |start: &str| shown.lines().find(|line| line.starts_with(start)).unwrap_or_default();
    assert!(line("linger_ms = 7 ").ends_with(" # --set"), "{shown}");
    assert!(line("buckets = 64 ").ends_with(" # file"), "{shown}");
    assert!(line("secret_access_key = \"[redacted]\" ").ends_with(" # file"), "{shown}");
    assert!(shown.contains("\n[regions.ap-northeast-1.kinesis]\nregion = \"ap-northeast-1\" "), "{shown}");
}

#[test]
fn a_wrong_command_line_or_file_exits_with_64() {
    assert_usage(BINARY);
}

#[test]
fn a_replay_of_what_is_not_there_exits_with_64_and_says_what_there_is() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), EXAMPLE).unwrap();
    let replay = |arguments: &[&str]| {
        let mut command = std::process::Command::new(BINARY);
        command.arg("replay").arg("--config").arg(file.path()).args(arguments).output().unwrap()
    };
    let asked = ["--region", "mars", "--table", "profile", "--since", "25h", "--until", "26h"];
    assert_violations(
        &replay(&asked),
        &[
            "--table profile: the configuration has profiles",
            "--region mars: the configuration has ",
            "--since ",
            "--until ",
            " is after --until ",
        ],
    );
    for wrong in [&[][..], &["--region", "x", "--since", "soon"], &["--region", "x", "--shards", "0"]] {
        assert_eq!(replay(wrong).status.code(), Some(64), "{wrong:?}");
    }
    let both = ["--region", "x", "--since", "1h", "--from-sequence", "1"];
    assert_eq!(replay(&both).status.code(), Some(64));
}
