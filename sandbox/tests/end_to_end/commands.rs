//! The `sandbox` program itself: its exit codes, its endpoints file, and that it leaves no process behind.

use std::path::Path;
use std::process::{Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::timeout;
use warmcast_sandbox::up::Endpoints;

use crate::support::*;

fn sandbox(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sandbox"));
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    command
}

fn signal(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), signal).unwrap();
}

/// Process ids of the running children of a process.
fn children(parent: u32) -> Vec<u32> {
    let processes =
        std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let pids = processes.filter_map(|name| name.parse::<u32>().ok());
    pids.filter(|&pid| parent_of(pid) == Some(parent)).collect()
}

fn parent_of(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // After the command's name in parentheses: state, parent.
    stat.rsplit(')').next()?.split_whitespace().nth(1)?.parse().ok()
}

fn is_running(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().next()).is_some_and(|state| state != "Z")
}

async fn start_up(file: &Path) -> (Child, Vec<u32>) {
    let child = sandbox(&["up", "--endpoints", file.to_str().unwrap()])
        // Logs of a failed run are kept: here they go with the test.
        .env("TMPDIR", file.parent().unwrap())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    eventually("the endpoints file", || async { file.exists().then_some(()) }).await;
    let pids = children(child.id().unwrap());
    // The aggregator, and a cache-writer and a Redis for each of the two regions.
    assert_eq!(pids.len(), 5);
    assert!(pids.iter().all(|&pid| is_running(pid)));
    (child, pids)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bidder_bids_in_the_world_that_is_up() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("endpoints.json");
    let file = file.to_str().unwrap();
    let up = sandbox(&["up", "--endpoints", file, "--regions", "1", "--users", "60"])
        .env("TMPDIR", directory.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    eventually("the endpoints file", || async { Path::new(file).exists().then_some(()) }).await;
    let bid = |arguments: &str| {
        let mut command = sandbox(&["bidder", "--endpoints", file, "--users", "60", "--output", "json"]);
        command.args(arguments.split(' '));
        async move { timeout(PATIENCE, command.output()).await.unwrap().unwrap() }
    };
    let output = bid("--duration-s 1 --rate 100 --deadline-ms 5000 --region eu-west-1").await;
    assert!(output.status.success(), "{output:?}");
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let count = |name: &str| summary[name].as_u64().unwrap_or_else(|| panic!("{name}: {summary:#}"));
    assert!(count("fresh") > 0 && count("absent") > 0 && count("p999_us") >= count("p50_us"), "{summary:#}");
    assert_eq!(
        count("lookups"),
        count("fresh") + count("stale") + count("absent") + count("missing"),
        "{summary:#}"
    );
    assert_eq!(count("lookups"), 2 * (count("auctions") - count("unanswered")), "{summary:#}");

    let refused = bid("--region mars-1").await;
    let errors = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && errors.contains("choose one of eu-west-1"), "{errors}");
    signal(up.id().unwrap(), Signal::TERM);
    assert!(ended(up).await.status.success());
}

async fn ended(child: Child) -> Output {
    timeout(PATIENCE, child.wait_with_output()).await.expect("the sandbox ends").unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_stop_everything() {
    for stop in [Signal::INT, Signal::TERM] {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("endpoints.json");
        let (child, pids) = start_up(&file).await;
        let endpoints: Endpoints = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        assert_eq!((endpoints.table.as_str(), endpoints.regions.len()), (TABLE, 2));
        signal(child.id().unwrap(), stop);
        let output = ended(child).await;
        assert!(output.status.success(), "{output:?}");
        assert_eq!(pids.into_iter().filter(|&pid| is_running(pid)).collect::<Vec<_>>(), [0_u32; 0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_while_starting_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("endpoints.json");
    let child =
        sandbox(&["up", "--endpoints", file.to_str().unwrap()]).stdout(Stdio::null()).spawn().unwrap();
    let pid = child.id().unwrap();
    let pids =
        eventually("the first child", || async { Some(children(pid)).filter(|pids| !pids.is_empty()) }).await;
    signal(pid, Signal::INT);
    ended(child).await;
    eventually("no child runs", || async { (!pids.iter().any(|&pid| is_running(pid))).then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_dies_ends_the_sandbox_with_an_error_and_no_orphan() {
    let directory = tempfile::tempdir().unwrap();
    let (child, pids) = start_up(&directory.path().join("endpoints.json")).await;
    signal(*pids.first().unwrap(), Signal::KILL);
    let output = ended(child).await;
    assert!(!output.status.success());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("ended with signal: 9"), "{errors}");
    assert!(!pids.into_iter().any(is_running));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_passes_and_says_so() {
    let arguments =
        "demo --duration-s 3 --writes-min 1500 --keys 400 --rate 400 --writers 4 --seed 7 --screen never";
    let arguments: Vec<&str> = arguments.split(' ').collect();
    let output = timeout(2 * PATIENCE, sandbox(&arguments).output()).await.unwrap().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    assert!(printed.contains("seed 7"), "{printed}");
    let (_, last_lines) = printed.split_once(" updates per second\n").expect(&printed);
    for (line, region) in last_lines.lines().zip(["eu-west-1", "ap-northeast-1"]) {
        assert!(line.trim_start().starts_with(region) && line.contains(" lag p50 "), "{printed}");
    }
    assert!(printed.trim_end().ends_with("verdict: PASS, zero mismatches"), "{printed}");
    // The bidders: one line for the region that was left alone, two for the one that was flushed.
    let (_, bidders) = printed.split_once("\nbidders: ").expect(&printed);
    let lines: Vec<&str> = bidders.lines().skip(1).take(3).map(str::trim_start).collect();
    for (line, title) in lines.iter().zip(["eu-west-1", "ap-northeast-1", "after flush"]) {
        assert!(line.starts_with(title) && line.contains("p99.9"), "{printed}");
    }
    assert!(printed.contains("the cache of ap-northeast-1 was flushed"), "{printed}");
    assert!(printed.contains("missing: allowed after the flush"), "{printed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demo_that_writes_too_little_fails() {
    let arguments = "demo --duration-s 1 --ceiling-s 2 --rate 100 --writers 4 --screen never";
    let arguments: Vec<&str> = arguments.split(' ').collect();
    let directory = tempfile::tempdir().unwrap();
    let mut demo = sandbox(&arguments);
    demo.env("TMPDIR", directory.path());
    let output = timeout(2 * PATIENCE, demo.output()).await.unwrap().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{printed}");
    assert!(printed.contains("fewer than the 20000 to 5000 asked for"), "{printed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_in_the_demo_leaves_no_process() {
    let child = sandbox(&["demo", "--screen", "never"]).stdout(Stdio::null()).spawn().unwrap();
    let pid = child.id().unwrap();
    let pids =
        eventually("five children", || async { Some(children(pid)).filter(|pids| pids.len() == 5) }).await;
    signal(pid, Signal::INT);
    let output = ended(child).await;
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    eventually("no child runs", || async { (!pids.iter().any(|&pid| is_running(pid))).then_some(()) }).await;
}
