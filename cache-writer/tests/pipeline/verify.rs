//! `cache-writer verify` as a process, and what the daemon does of it, against real servers.

use std::process::{Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use aws_sdk_dynamodb::types::{AttributeValue, StreamViewType};
use redis::AsyncCommands as _;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value as Json;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use warmcast_cache::{EntryReads, Master, MasterConfig, ReadFrom};
use warmcast_cache_writer::config::VerifyConfig;
use warmcast_cache_writer::stats::Stats;
use warmcast_cache_writer::verify::continuous::Continuous;
use warmcast_cache_writer::verify::look::Looker;
use warmcast_proto::change::ChangeKind;
use warmcast_proto::entry::{EntryHeader, EntryKind};
use warmcast_proto::item::{self, Item, Value};

use super::wait::until;
use super::world::{CacheWriter, World, change, config_text, frame, now_ms, position, redis_key};

const COLD: &str = "cold";

fn an_item(id: &str, color: &str) -> Item {
    let attributes = [("id", id), ("color", color)];
    let value = |text: &str| Value::S(text.to_owned()).into();
    Item { attributes: attributes.map(|(name, text)| (name.to_owned(), value(text))).into() }
}

impl World {
    /// Makes the table, and another one that the cache has nothing of.
    async fn create_tables(&self) {
        for table in ["profiles", COLD] {
            self.dynamodb.create_table(table, StreamViewType::NewImage).await;
        }
    }

    async fn put_item(&self, id: &str, color: &str) {
        let put = self.dynamodb.client.put_item().table_name("profiles");
        let put = put.item("id", AttributeValue::S(id.to_owned()));
        put.item("color", AttributeValue::S(color.to_owned())).send().await.unwrap();
    }

    /// An entry as nothing but a hand or an error would write it: with a position that no change has.
    async fn plant_row(&self, id: &str, color: &str) {
        let header = EntryHeader::new(EntryKind::Live, position(4_000_000_000), now_ms() - 60_000).unwrap();
        let entry = [header.encode().as_ref(), &item::encode(&an_item(id, color))].concat();
        let () = self.admin.clone().set(redis_key(id), entry).await.unwrap();
    }

    /// The configuration file, with `[master]`.
    fn config_file(&self) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = config_text(&self.kinesis.url, &self.dynamodb.url, &self.redis.url());
        let master = format!(
            "[master]
            region = 'eu-west-1'
            endpoint = '{}'
            access_key_id = 'test'
            secret_access_key = 'aws-hunter2'
            call_timeout_ms = 10000
            slow_after_ms = 10000",
            self.dynamodb.url
        );
        std::fs::write(file.path(), format!("{text}\n{master}\n")).unwrap();
        file
    }
}

async fn verify(config: &tempfile::NamedTempFile, flags: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cache-writer"));
    command.args(["verify", "--config"]).arg(config.path()).args(flags);
    command.kill_on_drop(true).output().await.unwrap()
}

/// The report of a run that ended with this code.
async fn report(config: &tempfile::NamedTempFile, code: i32, flags: &[&str]) -> Json {
    let output = verify(config, &[flags, &["--output", "json"]].concat()).await;
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        output.status.code(),
        Some(code),
        "{flags:?}: {stderr} {}",
        String::from_utf8_lossy(&output.stdout)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

fn keys(report: &Json) -> Vec<&str> {
    let mut keys: Vec<&str> = report["lasting"]
        .as_array()
        .unwrap()
        .iter()
        .map(|finding| finding["key"].as_str().unwrap())
        .collect();
    keys.sort_unstable();
    keys
}

const ALL: [&str; 3] = ["--table", "profiles", "--all"];
const SHORT: [&str; 2] = ["--looks", "50ms,200ms"];

#[tokio::test(flavor = "multi_thread")]
async fn an_old_payload_and_a_resurrected_row_are_found_by_every_source_and_mended() {
    let world = World::new(1).await;
    world.create_tables().await;
    let config = world.config_file();
    let writer = CacheWriter::start(world.config());
    let mut changes = Vec::new();
    for (sequence, id) in (1..).zip(["a", "b", "old"]) {
        world.put_item(id, "red").await;
        changes.push(change(id, sequence, ChangeKind::Put, item::encode(&an_item(id, "red"))));
    }
    changes.push(change("back", 9, ChangeKind::Delete, ""));
    world.put(frame(&changes)).await;
    world.until_entry("back", 9).await;
    world.put_item("absent", "red").await;
    let healthy = report(&config, 0, &[&ALL[..], &SHORT].concat()).await;
    assert_eq!((&healthy["looked_at"], &healthy["missing"]["absent"]), (&5.into(), &1.into()), "{healthy}");
    assert_eq!(healthy["consistent"][2]["share"], 1.0, "{healthy}");

    world.plant_row("old", "grey").await;
    world.plant_row("back", "red").await;
    for flags in [
        &ALL[..],
        &["--sample", "50"],
        &["--table", "profiles", "--sample", "50"],
        &["--table", "profiles", "--key", "old", "--key", r#"{"id":{"S":"back"}}"#, "--key", "a"],
    ] {
        let found = report(&config, 1, &[flags, &SHORT].concat()).await;
        assert_eq!(keys(&found), ["back", "old"], "{flags:?}: {found}");
        assert_eq!((&found["mismatches"], &found["is_complete"]), (&2.into(), &true.into()));
        let old = found["lasting"].as_array().unwrap().iter().find(|of| of["key"] == "old").unwrap();
        assert_eq!(old["difference"], "these attributes differ: color");
        assert_eq!(old["cache"]["payload"], r#"{"color":{"S":"grey"},"id":{"S":"old"}}"#);
        assert_eq!(old["master"], r#"{"color":{"S":"red"},"id":{"S":"old"}}"#);
    }
    let human = verify(&config, &[&ALL[..], &SHORT].concat()).await;
    let human = String::from_utf8(human.stdout).unwrap();
    for part in
        ["keys looked at", "\nlasting mismatches: 2\n", "profiles old: these attributes differ: color\n"]
    {
        assert!(human.contains(part), "{part}: {human}");
    }
    // Of a table that has nothing wrong, and by an attribute that is not.
    report(&config, 0, &["--table", COLD, "--all"]).await;
    let other = [&["--table", "profiles", "--key", "old", "--attributes", "id"][..], &SHORT].concat();
    report(&config, 0, &other).await;

    let planned = report(&config, 1, &[&ALL[..], &SHORT, &["--repair", "--dry-run"]].concat()).await;
    assert_eq!(planned["lasting"][0]["repair"], "would be invalidated and filled", "{planned}");
    assert_eq!(world.entry("old").await.unwrap().0.position(), position(4_000_000_000));
    let mended = report(&config, 0, &[&ALL[..], &SHORT, &["--repair"]].concat()).await;
    assert_eq!((&mended["repair"]["mended"], &mended["lasting"][0]["repair"]), (&2.into(), &"mended".into()));
    let (header, payload) = world.entry("old").await.unwrap();
    assert_eq!((header.kind(), header.position()), (EntryKind::Filled, position(4_000_000_000)));
    assert_eq!(item::decode(payload.into()).unwrap(), an_item("old", "red"));
    assert_eq!(world.entry("back").await.unwrap().0.kind(), EntryKind::Negative);
    let again = report(&config, 0, &[&ALL[..], &SHORT, &["--repair"]].concat()).await;
    assert_eq!(again["consistent"][0]["different"], 0, "{again}");
    writer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn values_that_are_no_entries_are_told_and_nobody_overwrites_them() {
    let world = World::new(1).await;
    world.create_tables().await;
    let config = world.config_file();
    world.put_item("text", "red").await;
    let mut admin = world.admin.clone();
    let () = admin.set(redis_key("text"), "theirs").await.unwrap();
    let () = admin.lpush(redis_key("list"), "theirs").await.unwrap();
    let () = admin.set("wc:unknown-table:x", "theirs").await.unwrap();
    let found = report(&config, 1, &[&ALL[..], &SHORT, &["--repair"]].concat()).await;
    assert_eq!(keys(&found), ["list", "text"], "{found}");
    for finding in found["lasting"].as_array().unwrap() {
        assert!(finding["difference"].as_str().unwrap().contains("no entry of this version"), "{finding}");
        assert!(finding["repair"].as_str().unwrap().starts_with("failed: "), "{finding}");
    }
    let text: String = admin.get(redis_key("text")).await.unwrap();
    assert_eq!(text, "theirs");
    let sampled = report(&config, 1, &[&["--sample", "20"][..], &SHORT].concat()).await;
    assert_eq!(sampled["strangers"], 1, "{sampled}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_under_writes_has_no_mismatch_though_it_is_always_behind() {
    let world = Arc::new(World::new(1).await);
    world.create_tables().await;
    let config = world.config_file();
    let writer = CacheWriter::start(world.config());
    let ids: Vec<String> = (0..12).map(|number| format!("hot-{number}")).collect();
    let stop = CancellationToken::new();
    let mut writing = JoinSet::new();
    let (theirs, stopped, hot) = (Arc::clone(&world), stop.clone(), ids.clone());
    writing.spawn(async move {
        for sequence in 1.. {
            let color = sequence.to_string();
            for id in &hot {
                theirs.put_item(id, &color).await;
            }
            let made =
                |id: &String| change(id, sequence, ChangeKind::Put, item::encode(&an_item(id, &color)));
            let changes: Vec<_> = hot.iter().map(made).collect();
            // Most of the time the master is ahead.
            sleep(Duration::from_millis(150)).await;
            theirs.put(frame(&changes)).await;
            if stopped.is_cancelled() {
                return sequence;
            }
        }
        0
    });
    until("the writes have begun", async || world.entry("hot-11").await.is_some()).await;
    let found = report(&config, 0, &[&ALL[..], &["--looks", "1s,3s,6s"]].concat()).await;
    assert_eq!((&found["mismatches"], &found["looked_at"]), (&0.into(), &12.into()), "{found}");
    assert_ne!(found["consistent"][0]["different"], 0, "it was behind: {found}");
    assert_eq!(found["consistent"][3]["share"], 1.0, "{found}");
    stop.cancel();
    let last = writing.join_next().await.unwrap().unwrap();
    world.until_entry("hot-11", last).await;
    writer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_stopped_reports_what_it_found_until_then() {
    let world = World::new(1).await;
    world.create_tables().await;
    world.plant_row("back", "red").await;
    let config = world.config_file();
    let mut command = Command::new(env!("CARGO_BIN_EXE_cache-writer"));
    command.args(["verify", "--output", "json", "--config"]).arg(config.path()).args(ALL);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut process = command.spawn().unwrap();
    let mut told = BufReader::new(process.stderr.take().unwrap()).lines();
    while let Some(line) = told.next_line().await.unwrap() {
        if line.contains("1 keys differ and are looked at again") {
            break;
        }
    }
    let pid = Pid::from_raw(process.id().unwrap().try_into().unwrap()).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    let output = process.wait_with_output().await.unwrap();
    assert_eq!(output.status.code(), Some(2));
    let report: Json = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["is_complete"], &report["consistent"][0]["different"]), (&false.into(), &1.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_or_makes_no_sense_is_refused() {
    let world = World::new(1).await;
    world.create_tables().await;
    world.plant_row("a", "red").await;
    let config = world.config_file();
    let without_master = tempfile::NamedTempFile::new().unwrap();
    let text = config_text(&world.kinesis.url, &world.dynamodb.url, &world.redis.url());
    std::fs::write(without_master.path(), text).unwrap();
    for (config, flags, parts) in [
        (
            &config,
            &["--table", "profils", "--all"][..],
            ["--table profils: the master has no such", "profiles"],
        ),
        (
            &config,
            &["--table", "profiles", "--key", r#"{"n":{"N":"5"}}"#],
            ["is no key of the table", "\"id\""],
        ),
        (&config, &["--table", "profiles", "--table", COLD, "--key", "a"], ["name one table", "--table"]),
        (&config, &["--table", "profiles", "--keys-file", "/nonexistent"], ["--keys-file", "/nonexistent"]),
        (&config, &["--key", "a"], ["required", "--table"]),
        (&config, &["--all"], ["required", "--table"]),
        (&config, &["--dry-run"], ["required", "--repair"]),
        (&config, &["--looks", "5"], ["--looks", "5"]),
        (&without_master, &[], ["master: is required", "verify"]),
    ] {
        let output = verify(config, flags).await;
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{flags:?}: {stderr}");
        assert!(parts.iter().all(|part| stderr.contains(part)), "{flags:?}: {stderr}");
        assert!(output.stdout.is_empty());
    }
    let nowhere = ["--set", "redis.url=redis://127.0.0.1:1"];
    assert_eq!(verify(&config, &nowhere).await.status.code(), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_finds_what_is_wrong_from_both_sides_and_mends_nothing() {
    let world = World::new(1).await;
    world.create_tables().await;
    world.put_item("old", "red").await;
    world.plant_row("old", "grey").await;
    world.plant_row("back", "red").await;
    let redis = world.config().redis;
    let looker = Looker {
        tables: Arc::new(redis.tables.clone()),
        reads: EntryReads::connect(redis, ReadFrom::Primary).await.unwrap(),
        master: Master::new(world.dynamodb.client.clone(), MasterConfig::default()),
        only: None,
        is_filtered: false,
        shed_retries: 0,
    };
    let config = VerifyConfig { keys_per_s: 400, is_filtered: false, ages: vec![Duration::from_millis(50)] };
    let (stats, shutdown) = (Arc::new(Stats::default()), CancellationToken::new());
    let mut verifying = JoinSet::new();
    verifying.spawn(Continuous::new(looker, config, Arc::clone(&stats)).run(shutdown.clone()));
    until("both are found", async || stats.verify_mismatches.load(Relaxed) >= 4).await;
    assert!(stats.verify_looked_at.load(Relaxed) >= 4);
    assert_eq!(stats.verify_failed.load(Relaxed), 0);
    shutdown.cancel();
    verifying.join_next().await.unwrap().unwrap();
    for id in ["old", "back"] {
        assert_eq!(world.entry(id).await.unwrap().0.position(), position(4_000_000_000));
    }
}
