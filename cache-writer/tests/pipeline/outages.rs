//! What the cache-writer does while something is not well.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::net::TcpListener;
use tokio::time::sleep;
use warmcast_proto::entry::EntryKind;

use super::errors::complaints_at_start;
use super::redis_server::RedisServer;
use super::world::{CacheWriter, World, config_text, frame, put_change, shown};

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_that_stands_still_for_a_while_loses_nothing() {
    let world = World::new(1).await;
    let mut config = world.config();
    config.redis.response_timeout = Duration::from_millis(200);
    config.redis.connect_timeout = Duration::from_millis(200);
    config.redis.apply_deadline = Duration::from_millis(500);
    let writer = CacheWriter::start(config);
    world.put(frame(&[put_change("a", 1), put_change("b", 1)])).await;
    world.until_entry("a", 1).await;
    let mut admin = world.admin.clone();
    let info: redis::InfoDict = redis::cmd("INFO").arg("server").query_async(&mut admin).await.unwrap();
    let pid = Pid::from_raw(info.get("process_id").unwrap()).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    for sequence in 2..30 {
        world.put(frame(&[put_change("a", sequence)])).await;
    }
    let last = world.put(frame(&[put_change("b", 2), put_change("c", 1)])).await;
    // Long enough for calls to time out and to pass their deadline.
    sleep(Duration::from_millis(900)).await;
    let checkpoints = world.dynamodb.checkpoints("warmcast").await;
    assert!(
        checkpoints.iter().all(|(_, checkpoint)| *checkpoint != format!("after:{last}")),
        "{checkpoints:?}"
    );
    kill_process(pid, Signal::CONT).unwrap();
    assert_eq!(shown(&world.until_entry("a", 29).await), (EntryKind::Live, "29"));
    world.until_entry("b", 2).await;
    world.until_entry("c", 1).await;
    world.until_checkpoint(&last).await;
    writer.stop().await;
    assert!(world.letters().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_that_restarts_empty_takes_what_comes() {
    let mut world = World::new(1).await;
    let mut config = world.config();
    config.redis.connect_timeout = Duration::from_millis(500);
    let writer = CacheWriter::start(config);
    world.put(frame(&[put_change("a", 1)])).await;
    world.until_entry("a", 1).await;
    world.redis.kill();
    let last = world.put(frame(&[put_change("a", 2)])).await;
    assert!(world.redis.run(), "the server comes up on its port again");
    world.admin = world.redis.admin().await;
    world.until_entry("a", 2).await;
    world.until_checkpoint(&last).await;
    writer.stop().await;
}

#[tokio::test]
async fn what_cannot_be_reached_at_the_start_is_named_and_told_once_in_a_while() {
    let redis = RedisServer::start_with(&["--requirepass", "right"], &[]);
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("cache-writer.toml");
    let closed = format!("http://{closed}");
    let url = format!("redis://:hunter2@127.0.0.1:{}", redis.port);
    std::fs::write(&file, config_text(&closed, &closed, &url)).unwrap();
    let errors = complaints_at_start(env!("CARGO_BIN_EXE_cache-writer"), &file, "hunter2").await;
    for parts in [
        ["the stream cannot be used", "DescribeStreamSummary on stream warmcast", "onnection refused"],
        ["state table state cannot be used", "DescribeTable", "onnection refused"],
        ["the cache cannot be used", &format!("127.0.0.1:{}", redis.port), "password"],
    ] {
        let of: Vec<_> = errors.iter().filter(|line| line.contains(parts[0])).collect();
        assert!((1..=2).contains(&of.len()), "{} lines of {parts:?}: {errors:#?}", of.len());
        assert!(parts.iter().all(|part| of[0].contains(part)), "{parts:?} are not in {}", of[0]);
    }
}
