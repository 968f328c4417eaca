//! `status` of a region: its fleet, and the watermark that its readers see.

use std::path::Path;
use std::process::Stdio;

use redis::AsyncCommands as _;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;
use warmcast_proto::frame::FrameBuilder;

use super::wait::until;
use super::world::{CacheWriter, World, config_text, frame, now_ms, put_change};

fn command(config: &Path, flags: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cache-writer"));
    command.args(["status", "--config"]).arg(config).args(flags);
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

async fn json(config: &Path) -> (i32, serde_json::Value) {
    let output = command(config, &["--output", "json"]).output().await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let value = serde_json::from_str(&text);
    let stderr = String::from_utf8_lossy(&output.stderr);
    (output.status.code().unwrap(), value.unwrap_or_else(|error| panic!("{error}: {text} {stderr}")))
}

/// Looks again and again until a report has everything that is expected, and stops it then; its exit code.
async fn watch(config: &Path, expected: &[&str]) -> i32 {
    let mut watching = command(config, &["--watch", "1"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines();
    let mut missing = expected.to_vec();
    while !missing.is_empty() {
        let line = lines.next_line().await.unwrap().expect("it goes on until it is stopped");
        missing.retain(|expected| !line.contains(expected));
    }
    let process = Pid::from_raw(i32::try_from(watching.id().unwrap()).unwrap()).unwrap();
    kill_process(process, Signal::INT).unwrap();
    watching.wait().await.unwrap().code().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_is_as_fresh_as_the_watermark_that_readers_see() {
    let mut world = World::new(1).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("cache-writer.toml");
    std::fs::write(&file, config_text(&world.kinesis.url, &world.dynamodb.url, &world.redis.url())).unwrap();
    let cache_writer = CacheWriter::start(world.config());
    world.put(frame(&[put_change("a", 1)])).await;
    world.put("not a frame").await;
    until("what cannot be read is set aside", async || world.letters().await.len() == 1).await;
    world.put(FrameBuilder::heartbeat(now_ms()).to_vec()).await;
    until("readers see a watermark", async || {
        world.admin.clone().exists::<_, bool>("wc:warmcast:watermark").await.unwrap()
    })
    .await;
    let (exit_code, status) = json(&file).await;
    assert_eq!((exit_code, &status["problems"]), (0, &serde_json::json!([])), "{status:#}");
    assert_eq!((&status["workers"][0]["state"], &status["streams"][0]["held"]), (&"alive".into(), &1.into()));
    assert_eq!(status["cache"]["watermark"]["ms"], status["watermark"]["ms"]);
    let letters = &status["dead_letters"];
    assert_eq!((&letters["letters"], &letters["is_all"]), (&1.into(), &true.into()));
    let expected = serde_json::json!([
        {"source": "cache-writer/eu-west-1", "class": "undecodable-record", "letters": 1}
    ]);
    assert_eq!(letters["groups"], expected);

    world.redis.kill();
    let expected = ["the cache cannot be read", "1 thing needs a look", "w1      alive"];
    assert_eq!(watch(&file, &expected).await, 1);
    drop(cache_writer);
}
