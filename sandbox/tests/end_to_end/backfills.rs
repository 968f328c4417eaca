//! `aggregator backfill` with the real daemons: a region whose cache lost everything has all of it again, under live
//! writes, also when the command was stopped or killed half-way.

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value as Json;
use tokio::process::{Child, Command};
use tokio::time::{Instant, timeout};
use warmcast_sandbox::world::World;
use warmcast_sandbox::{entry, verify};

use crate::support::*;

/// Rows that nobody changes any more. They are taken out of the caches: only a backfill brings them back.
const QUIET_ROWS: usize = 300;

fn aggregator(world: &World, arguments: &[&str]) -> Command {
    let program = Path::new(env!("CARGO_BIN_EXE_sandbox")).with_file_name("aggregator");
    let mut command = Command::new(program);
    let config = world.directory().join("aggregator.toml");
    command.args(arguments).arg("--config").arg(config);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

fn backfill(world: &World, more: &[&str]) -> Child {
    let mut arguments = vec!["backfill", "--output", "json"];
    arguments.extend(world.regions().iter().flat_map(|region| ["--region", region.name()]));
    arguments.extend(more);
    aggregator(world, &arguments).spawn().unwrap()
}

async fn ended(child: Child) -> Output {
    timeout(PATIENCE, child.wait_with_output()).await.expect("the command ends").unwrap()
}

async fn report(child: Child) -> Json {
    let output = ended(child).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// So slow that there is time to stop it: some rows a second.
const SLOW: [&str; 4] = ["--segments", "2", "--bytes-per-s", "4000"];
const FAST: [&str; 4] = ["--segments", "2", "--bytes-per-s", "10000000"];

/// Rows of backfills that the first region has got.
fn got(world: &World) -> u64 {
    let stats = world.regions()[0].cache_writer().stats();
    ["written", "occupied", "too_late"].map(|what| stats.total(&format!("backfills_{what}"))).iter().sum()
}

/// Waits until it has got more than so many, while the command is at work.
async fn some_rows(world: &World, command: &mut Child, more_than: u64) {
    let deadline = Instant::now() + PATIENCE;
    while got(world) <= more_than {
        let ended = command.try_wait().unwrap();
        assert!(
            ended.is_none() && Instant::now() < deadline,
            "{} rows, {ended:?}\n{}",
            got(world),
            world.tails()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn signal(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_whose_cache_was_flushed_under_live_writes_has_every_row_again() {
    let mut world = world().await;
    let quiet: Vec<String> = (0..QUIET_ROWS).map(|row| format!("quiet-{row}")).collect();
    for key in &quiet {
        let filler = [("text".to_owned(), text(&"quiet ".repeat(40)))];
        put(&world, TABLE, filler.into(), key).await;
    }
    for key in &quiet {
        wait_in_every_region(&world, key, is_live).await;
    }
    for region in world.regions() {
        let mut connection = region.redis().connect().await.unwrap();
        let keys: Vec<Vec<u8>> = quiet.iter().map(|key| entry::redis_key(TABLE, key)).collect();
        let gone: usize = redis::cmd("DEL").arg(keys).query_async(&mut connection).await.unwrap();
        assert_eq!(gone, QUIET_ROWS);
    }
    let traffic = Traffic::start(&world);
    traffic.more(300).await;

    // Killed half-way, then stopped half-way: each leaves what the next goes on with.
    let mut killed = backfill(&world, &SLOW);
    some_rows(&world, &mut killed, 0).await;
    signal(&killed, Signal::KILL);
    assert!(!ended(killed).await.status.success());
    let so_far = got(&world);
    let mut stopped = backfill(&world, &SLOW);
    some_rows(&world, &mut stopped, so_far).await;
    signal(&stopped, Signal::TERM);
    let output = ended(stopped).await;
    assert_eq!(output.status.code(), Some(2));
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(errors.contains("the same command goes on where it was"), "{errors}");
    let whole = report(backfill(&world, &FAST)).await;
    assert!(whole["resumed_from_ms"].is_u64(), "{whole:#}");
    assert!(whole["rows_per_s"].as_f64().unwrap() > 0.0, "{whole:#}");
    eventually("every quiet row has come", || async {
        let written = world.regions()[0].cache_writer().stats().total("backfills_written");
        (written >= QUIET_ROWS as u64).then_some(())
    })
    .await;

    // Now it has everything, and loses it.
    world.regions()[0].redis().flush().await.unwrap();
    traffic.more(100).await;
    let again = report(backfill(&world, &FAST)).await;
    assert!(again["resumed_from_ms"].is_null(), "{again:#}");
    traffic.more(100).await;
    let ledger = traffic.finish().await;

    // The sandbox's own comparison: no mismatch, and nothing is missing, though nobody has read anything since.
    eventually("nothing is missing", || async {
        let comparisons = verify::compare_world(&world, &ledger).await.unwrap();
        comparisons.iter().all(|region| region.missing == 0).then_some(())
    })
    .await;
    assert_regions_equal(&mut world, &ledger).await;
    let stats = world.regions()[0].cache_writer().stats();
    assert_eq!((stats.total("dead_letters"), stats.total("backfills_refused")), (0, 0));
    stop(world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_is_waited_for_until_it_is_warm() {
    let world = world().await;
    let region = world.regions()[0].name().to_owned();
    let wait =
        ["regions", "wait", &region, "--watermark-bound", "60s", "--timeout", "50s", "--output", "json"];
    let warm = ended(aggregator(&world, &wait).spawn().unwrap()).await;
    assert!(warm.status.success(), "{}", String::from_utf8_lossy(&warm.stderr));
    let report: Json = serde_json::from_slice(&warm.stdout).unwrap();
    assert_eq!(report["warmth"]["is_warm"], true, "{report:#}");
    let unknown = ended(aggregator(&world, &["backfill", "--region", "mars-1"]).spawn().unwrap()).await;
    assert_eq!(unknown.status.code(), Some(64));
    let errors = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert!(errors.contains("there is no region mars-1") && errors.contains(&region), "{errors}");
    let not_in_time = ["regions", "wait", &region, "--watermark-bound", "1ms", "--timeout", "1ms"];
    let cold = ended(aggregator(&world, &not_in_time).spawn().unwrap()).await;
    assert_eq!(cold.status.code(), Some(1), "{}", String::from_utf8_lossy(&cold.stderr));
    stop(world).await;
}
