//! `status`, of a fleet that works and of one that died.

use std::process::Stdio;

use aws_sdk_dynamodb::types::StreamViewType;
use tokio::process::Command;
use warmcast_common::consumer::store::StateStore;

use super::servers::DynamoDb;
use super::wait::until;
use super::world::{Aggregator, config, config_text, directory, region};

/// A look at a fleet: the exit code and what was printed.
async fn look(config: &std::path::Path, flags: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_aggregator"));
    command.args(["status", "--config"]).arg(config).args(flags);
    let output = command.stdin(Stdio::null()).output().await.unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    (output.status.code().unwrap(), stdout + &String::from_utf8_lossy(&output.stderr))
}

/// `lease_duration_ms`: for how long a worker that is dead has to be watched.
async fn json(config: &std::path::Path, lease_duration_ms: u64) -> (i32, serde_json::Value) {
    let lease_duration = format!("worker.lease_duration_ms={lease_duration_ms}");
    let flags = ["--output", "json", "--set", "log.level=error", "--set", &lease_duration];
    let (exit_code, text) = look(config, &flags).await;
    (exit_code, serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")))
}

fn kinds(status: &serde_json::Value) -> Vec<&str> {
    status["problems"].as_array().unwrap().iter().map(|problem| problem["kind"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_that_works_is_fine_and_one_that_died_needs_a_look() {
    let (dynamodb, kinesis, letters) = (DynamoDb::start().await, region(1).await, directory());
    dynamodb.create_table("profiles", StreamViewType::NewImage).await;
    let text = config_text(&dynamodb.url, &["profiles"], &[&kinesis.url], letters.path());
    let file = letters.path().join("aggregator.toml");
    std::fs::write(&file, text).unwrap();
    let (exit_code, text) = look(&file, &[]).await;
    assert_eq!(exit_code, 2, "there is no state table yet: {text}");
    assert!(text.contains("state table state"), "{text}");

    let aggregator = Aggregator::start(config(&dynamodb.url, &["profiles"], &[&kinesis.url], letters.path()));
    dynamodb.put("profiles", "a", "1").await;
    until("the region is told a watermark", async || {
        kinesis.watermarks_by_shard().await.values().any(|told| told.len() > 1)
    })
    .await;
    let (exit_code, status) = json(&file, 10_000).await;
    assert_eq!((exit_code, kinds(&status)), (0, Vec::new()), "{status:#}");
    assert_eq!(status["workers"][0]["state"], "alive");
    assert_eq!(
        (&status["streams"][0]["table"], &status["regions"][0]["region"]),
        (&"profiles".into(), &"region-0".into())
    );
    assert!(status["streams"][0]["held"].as_u64().unwrap() > 0, "{status:#}");
    assert!(status["regions"][0]["watermark"]["age_ms"].as_u64().unwrap() < 60_000, "{status:#}");

    let store = StateStore::new(dynamodb.client.clone(), "state");
    let stream = status["streams"][0]["stream"].as_str().unwrap();
    let lease = store.leases(stream).await.unwrap().remove(0);
    let lanes = ["region-0".to_owned()].into();
    store.record_gap(&lease, &lanes, &"after:7".parse().unwrap(), 1_800_000_000_000).await.unwrap();
    store.begin_job("backfill#1", "backfill of profiles", 1).await.unwrap();
    let (exit_code, text) = look(&file, &["--shards"]).await;
    assert_eq!(exit_code, 1, "{text}");
    for expected in [
        "region region-0 waits for a backfill of profiles",
        "after after:7 were lost",
        "2027-01-15T08:00:00.000Z",
        "backfill#1",
        "shardId-",
        "alive",
    ] {
        assert!(text.contains(expected), "{expected} is not in {text}");
    }
    // So the gap is answered.
    store.backfilled("region-0", stream).await.unwrap();

    drop(aggregator);
    let (exit_code, status) = json(&file, 1_000).await;
    assert_eq!((exit_code, &status["workers"][0]["state"]), (1, &"silent".into()), "{status:#}");
    assert_eq!(kinds(&status), ["worker", "worker", "watermark"]);
}
