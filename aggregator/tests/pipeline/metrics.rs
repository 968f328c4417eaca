//! What `/metrics` says of an aggregator at work, and that docs/metrics.md says the same.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use aws_sdk_dynamodb::types::StreamViewType;

use super::endpoint::{address, ask};
use super::fake_kinesis::{Answer, FakeKinesis};
use super::servers::DynamoDb;
use super::wait::until;
use super::world::{Aggregator, changes, config, directory, region};

const CATALOGUE: &str = include_str!("../../../docs/metrics.md");
const SECRET: &str = "key-of-a-user";

/// The metrics as text; empty while nobody listens.
async fn scrape(address: SocketAddr) -> String {
    let Some(answer) = ask(address, "/metrics", &[("accept", "application/openmetrics-text")]).await else {
        return String::new();
    };
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body
}

/// Each sample's value, by its name with its labels.
fn samples(text: &str) -> BTreeMap<&str, f64> {
    let samples = text.lines().filter(|line| line.starts_with("warmcast_"));
    samples
        .filter_map(|line| line.rsplit_once(' '))
        .map(|(name, value)| (name, value.parse().unwrap()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metrics_tell_what_became_of_changes_at_every_stage() {
    let throttled = Answer::Entries(vec![(0, "ProvisionedThroughputExceededException")]);
    let (dynamodb, near, far, letters) =
        (DynamoDb::start().await, region(1).await, FakeKinesis::start([throttled]).await, directory());
    dynamodb.create_table("profiles", StreamViewType::NewImage).await;
    let mut config = config(&dynamodb.url, &["profiles"], &[&near.url, &far.url], letters.path());
    let address = address(0);
    config.admin.listen = Some(address);
    let aggregator = Aggregator::start(config);
    for number in 0..3 {
        dynamodb.put("profiles", &format!("{SECRET}-{number}"), "text").await;
    }
    until("the far region has the changes", async || {
        far.landed().into_iter().map(|frame| changes(frame).len()).sum::<usize>() >= 3
    })
    .await;
    let mut text = String::new();
    until("everything is counted, and the watermark is told", async || {
        text = scrape(address).await;
        let samples = samples(&text);
        let is = |name: &str, least: f64| samples.get(name).is_some_and(|value| *value >= least);
        is("warmcast_changes_sent_total{region=\"region-0\"}", 3.0)
            && is("warmcast_changes_sent_total{region=\"region-1\"}", 3.0)
            && is("warmcast_checkpoints_total", 1.0)
            && is("warmcast_leases{state=\"own\"}", 1.0)
            && is("warmcast_watermark_seconds{region=\"region-1\"}", 1.0)
    })
    .await;
    let samples = samples(&text);
    let is = |name: &str, value: f64| {
        assert_eq!(samples.get(name), Some(&value), "{name}\n{text}");
    };
    let at_least = |name: &str, least: f64| {
        assert!(samples.get(name).is_some_and(|value| *value >= least), "{name} < {least}\n{text}");
    };
    is("warmcast_records_read_total", 3.0);
    is("warmcast_read_lag_seconds_count", 3.0);
    is("warmcast_read_lag_seconds_bucket{le=\"+Inf\"}", 3.0);
    at_least("warmcast_read_calls_total{result=\"ok\"}", 1.0);
    is("warmcast_frame_changes_sum", 3.0);
    let frames = samples["warmcast_frame_changes_count"];
    is("warmcast_batch_wait_seconds_count", frames);
    is("warmcast_frame_bytes_count", frames);
    at_least("warmcast_frame_body_bytes_total", 1.0);
    for region in ["region-0", "region-1"] {
        let of = |name: &str| format!("warmcast_{name}{{region=\"{region}\"}}");
        is(&of("changes_sent_total"), 3.0);
        is(&of("frames_sent_total"), frames);
        is(&of("sent_bytes_total"), samples["warmcast_frame_bytes_sum"]);
        is(&of("send_lag_seconds_count"), 3.0);
        is(&of("region_up"), 1.0);
        is(&of("region_queue_bytes"), 0.0);
        is(&of("region_parked_shards"), 0.0);
        is(&of("region_gaps_total"), 0.0);
        at_least(&of("put_seconds_count"), 1.0);
        is(&format!("warmcast_put_entries_total{{region=\"{region}\",result=\"ok\"}}"), frames);
    }
    is("warmcast_put_entries_total{region=\"region-1\",result=\"throttled\"}", 1.0);
    is("warmcast_retries_total{region=\"region-1\",class=\"throttled\"}", 1.0);
    is("warmcast_retries_total{region=\"region-0\",class=\"throttled\"}", 0.0);
    is("warmcast_lease_changes_total{kind=\"taken\"}", 1.0);
    is("warmcast_shards_owned", 1.0);
    is("warmcast_workers", 1.0);
    is("warmcast_worker_share_ratio", 1.0);
    at_least("warmcast_heartbeats_total{result=\"ok\"}", 1.0);
    at_least("warmcast_state_calls_total{call=\"Query\",result=\"ok\"}", 1.0);
    is("warmcast_budget_max_bytes{budget=\"queue\"}", 268_435_456.0);
    is("warmcast_dead_letters_total{reason=\"refused\"}", 0.0);
    at_least("warmcast_dollars_per_million_changes", 0.000_001);
    // The look reads the restart lock, which nothing else does here.
    let reads = "warmcast_state_calls_total{call=\"GetItem\",result=\"ok\"}";
    let before = samples[reads];
    assert_eq!(ask(address, "/status", &[]).await.unwrap().status, 200);
    until("the look at the fleet is counted", async || {
        self::samples(&scrape(address).await).get(reads).is_some_and(|now| *now > before)
    })
    .await;
    aggregator.stop().await.unwrap();
}

/// A metric as docs/metrics.md has it: its type, its labels, and the words of the column of labels that are in code.
struct Documented {
    kind: String,
    words: BTreeSet<String>,
}

/// Every metric of these sections of the catalogue.
fn documented(sections: &[&str]) -> BTreeMap<String, Documented> {
    let mut found = BTreeMap::new();
    for section in CATALOGUE.split("\n## ").filter(|text| sections.iter().any(|of| text.starts_with(of))) {
        for line in section.lines().filter(|line| line.starts_with("| `warmcast_")) {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            let words = cells[3].split('`').skip(1).step_by(2).map(str::to_owned).collect();
            let documented = Documented { kind: cells[2].to_owned(), words };
            assert!(
                found.insert(cells[1].trim_matches('`').to_owned(), documented).is_none(),
                "twice: {line}"
            );
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_is_in_the_catalogue_and_no_label_comes_from_data() {
    let (dynamodb, near, letters) = (DynamoDb::start().await, region(1).await, directory());
    dynamodb.create_table("profiles", StreamViewType::NewImage).await;
    let mut config = config(&dynamodb.url, &["profiles"], &[&near.url], letters.path());
    let address = address(1);
    config.admin.listen = Some(address);
    let per_shard = Aggregator::start({
        let mut config = config.clone();
        config.metrics.per_shard = true;
        config
    });
    dynamodb.put("profiles", SECRET, "text of a user").await;
    let mut text = String::new();
    until("the change is counted, and the shard has its series", async || {
        text = scrape(address).await;
        text.contains("changes_sent_total{region=\"region-0\"} 1\n") && text.contains("shard=\"shardId-")
    })
    .await;
    per_shard.stop().await.unwrap();
    let documented = documented(&["Both daemons", "Aggregator"]);
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let types: Vec<(String, &str)> = types
        .map(|(name, kind)| match kind {
            "counter" => (format!("{name}_total"), "counter"),
            "info" => (format!("{name}_info"), "gauge"),
            kind => (name.to_owned(), kind),
        })
        .collect();
    let registered: BTreeSet<&str> = types.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(registered.len(), types.len(), "a family is there twice");
    assert_eq!(
        registered,
        documented.keys().map(String::as_str).collect(),
        "in /metrics, and in the catalogue"
    );
    for (name, kind) in &types {
        assert_eq!(*kind, documented[name].kind, "{name}");
    }

    assert!(!text.contains(SECRET) && !text.contains("text of a user"));
    let configured = ["region-0", "profiles", env!("CARGO_PKG_VERSION")];
    for line in text.lines().filter(|line| line.starts_with("warmcast_") && line.contains('{')) {
        let (name, rest) = line.split_once('{').unwrap();
        let name = ["_bucket", "_sum", "_count"].iter().find_map(|of| name.strip_suffix(of)).unwrap_or(name);
        let words = &documented[name].words;
        for (label, value) in
            rest.split_once('}').unwrap().0.split("\",").filter_map(|of| of.split_once("=\""))
        {
            let value = value.trim_end_matches('"');
            if label == "le" {
                continue;
            }
            assert!(words.contains(label), "{label} is not in the catalogue: {line}");
            let is_of_a_shard = name == "warmcast_shard_lag_seconds";
            let is_known = words.contains(value) || configured.contains(&value) || is_of_a_shard;
            assert!(is_known, "{value} is neither in the catalogue nor configured: {line}");
        }
    }

    let bounded = Aggregator::start(config);
    until("the shard is read", async || {
        text = scrape(address).await;
        text.contains("warmcast_shards_owned 1\n")
    })
    .await;
    assert!(!text.contains("shardId-") && !text.contains("shard_lag"), "{text}");
    bounded.stop().await.unwrap();
}
