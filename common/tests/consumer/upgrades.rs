//! `upgrade` of a worker that runs, and what the restart lock says when it ended, however it did.

use std::cell::Cell;
use std::time::Duration;

use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use warmcast_common::clock::now_ms;
use warmcast_common::consumer::store::{Heartbeat, LockHolder, RestartLock, StateStore};
use warmcast_common::daemon::{ConfigArgs, Outcome};
use warmcast_common::status::{Criteria, StreamName};
use warmcast_common::upgrade::{Fleet, UpgradeArgs, upgrade};

use super::script::STREAM;
use super::wait::until;
use super::world::{Running, World};

/// How old the watermark may be: no matter here.
const BOUND: Duration = Duration::from_secs(3600);
/// What the command does: it says that it runs, and ends when it is told to, or when the test is over however it ended.
const SCRIPT: &str = r#"touch "$1/runs"; while [ -d "$1" ] && ! [ -e "$1/end" ]; do sleep 0.02; done"#;

/// A fleet of one worker, `w1`, and who restarts it.
struct Operator {
    world: World,
    directory: TempDir,
    stop: CancellationToken,
}

/// Whether somebody else takes the lock when the fleet is looked at.
#[derive(Clone, Copy, PartialEq)]
enum Others {
    Rest,
    TakeTheLock,
}

impl Operator {
    async fn new() -> (Self, Running) {
        let world = World::new().await;
        world.script.shard("a", &[]);
        let running = world.run().await;
        let directory = TempDir::new().unwrap();
        (Self { world, directory, stop: CancellationToken::new() }, running)
    }

    fn args(&self, wait: Duration, lost: &[&str], command: &[&str]) -> UpgradeArgs {
        UpgradeArgs {
            config: ConfigArgs { config: "none.toml".into(), set: Vec::new() },
            worker: None,
            wait,
            back: Duration::from_secs(20),
            watermark_bound: BOUND,
            lost: lost.iter().map(|name| (*name).to_owned()).collect(),
            dry_run: false,
            command: command.iter().map(Into::into).collect(),
        }
    }

    /// Restarts `w1` by the script.
    async fn restarts(&self, lost: &[&str], others: Others) -> Result<Outcome, anyhow::Error> {
        let directory = self.directory.path().to_str().unwrap();
        let command = ["sh", "-c", SCRIPT, "sh", directory];
        self.runs(self.args(Duration::from_secs(20), lost, &command), others).await
    }

    async fn runs(&self, args: UpgradeArgs, others: Others) -> Result<Outcome, anyhow::Error> {
        let is_taken = Cell::new(others == Others::Rest);
        let fleet = Fleet {
            store: self.world.table.store.clone(),
            worker_id: "w1".to_owned(),
            lease_duration: Duration::from_secs(60),
            streams: async |store: &StateStore, _: &[Heartbeat]| {
                if !is_taken.replace(true) {
                    take_over(store).await;
                }
                Ok(vec![StreamName::of(STREAM)])
            },
            criteria: |_: &_| Criteria::new(now_ms(), BOUND),
        };
        upgrade(args, fleet, self.stop.clone()).await
    }

    fn has(&self, file: &str) -> bool {
        self.directory.path().join(file).exists()
    }

    fn end_the_command(&self) {
        std::fs::write(self.directory.path().join("end"), "").unwrap();
    }

    async fn lock(&self) -> RestartLock {
        self.world.table.store.restart_lock().await.unwrap()
    }

    /// Workers that the lock names, and whether somebody has it.
    async fn left(&self) -> (Vec<String>, bool) {
        let lock = self.lock().await;
        (lock.unfinished.iter().cloned().collect(), lock.held_by(now_ms()).is_some())
    }

    /// As an upgrade of `worker` left the lock that was not seen to end well.
    async fn failed(&self, worker: &str) {
        let before = self.lock().await;
        let begun = before.taken("earlier", worker, now_ms()).unwrap();
        let store = &self.world.table.store;
        assert!(store.change_restart_lock(&before, &begun).await.unwrap());
        assert!(store.change_restart_lock(&begun, &begun.released(false, &[].into())).await.unwrap());
    }
}

/// What another does who finds that the lock has ended.
async fn take_over(store: &StateStore) {
    let before = store.restart_lock().await.unwrap();
    let holder = LockHolder {
        owner: "another".to_owned(),
        worker: "w2".to_owned(),
        since_ms: now_ms(),
        until_ms: now_ms() + 50_000,
    };
    let taken = RestartLock { fence: before.fence + 1, holder: Some(holder), ..before.clone() };
    assert!(store.change_restart_lock(&before, &taken).await.unwrap());
}

fn names(of: &[&str]) -> Vec<String> {
    of.iter().map(|name| (*name).to_owned()).collect()
}

#[tokio::test]
async fn a_worker_that_is_back_and_one_that_is_given_up_are_named_no_more() {
    let (operator, running) = Operator::new().await;
    operator.failed("w1").await;
    operator.failed("gone").await;
    let restart = async {
        until("the command runs", async || operator.has("runs")).await;
        running.stop().await;
        let again = operator.world.run().await;
        operator.end_the_command();
        again
    };
    let (outcome, again) = tokio::join!(operator.restarts(&["gone"], Others::Rest), restart);
    assert_eq!(outcome.unwrap(), Outcome::Done);
    assert_eq!(operator.left().await, (names(&[]), false));
    again.stop().await;
}

#[tokio::test]
async fn a_second_attempt_at_a_worker_that_is_stopped_before_it_began_leaves_it_named() {
    let (operator, running) = Operator::new().await;
    operator.failed("w1").await;
    operator.failed("w2").await;
    let stopping = async {
        until("it has the lock", async || operator.left().await.1).await;
        operator.stop.cancel();
    };
    let (outcome, ()) = tokio::join!(operator.restarts(&[], Others::Rest), stopping);
    let error = format!("{:#}", outcome.unwrap_err());
    assert!(error.contains("signal") && error.contains("nothing was restarted"), "{error}");
    assert_eq!(operator.left().await, (names(&["w1", "w2"]), false));
    assert!(!operator.has("runs"));
    running.stop().await;
}

#[tokio::test]
async fn a_fleet_that_is_not_settled_in_time_leaves_every_worker_named_that_was() {
    let (operator, running) = Operator::new().await;
    operator.failed("w1").await;
    operator.failed("w2").await;
    let args = operator.args(Duration::from_millis(100), &[], &["true"]);
    let error = format!("{:#}", operator.runs(args, Others::Rest).await.unwrap_err());
    assert!(error.contains("--lost w2") && error.contains("nothing was restarted"), "{error}");
    assert_eq!(operator.left().await, (names(&["w1", "w2"]), false));
    running.stop().await;
}

#[tokio::test]
async fn nothing_is_restarted_when_another_took_the_lock_while_this_process_stood_still() {
    let (operator, running) = Operator::new().await;
    operator.end_the_command();
    let error = format!("{:#}", operator.restarts(&[], Others::TakeTheLock).await.unwrap_err());
    assert!(error.contains("nothing was restarted") && error.contains("lock was lost"), "{error}");
    assert!(!operator.has("runs"), "the command was run");
    let holder = operator.lock().await.holder.unwrap();
    assert_eq!(holder.owner, "another", "it is the other's still");
    running.stop().await;
}

#[tokio::test]
async fn a_signal_while_the_command_runs_is_no_refusal_and_who_is_next_waits_for_the_worker() {
    let (operator, running) = Operator::new().await;
    let stopping = async {
        until("the command runs", async || operator.has("runs")).await;
        operator.stop.cancel();
    };
    let (outcome, ()) = tokio::join!(operator.restarts(&[], Others::Rest), stopping);
    assert_eq!(outcome.unwrap(), Outcome::Problems, "exit code 2 says that nothing was restarted");
    operator.end_the_command();
    let lock = operator.lock().await;
    assert!(lock.left_behind(now_ms() + 3_600_000).contains("w1"));
    running.stop().await;
}

#[tokio::test]
async fn a_command_that_cannot_be_run_leaves_nothing_behind() {
    let (operator, running) = Operator::new().await;
    let missing = "/no/such/program";
    let args = operator.args(Duration::from_secs(20), &[], &[missing]);
    let error = format!("{:#}", operator.runs(args, Others::Rest).await.unwrap_err());
    assert!(error.contains("nothing was restarted") && error.contains("/no/such/program"), "{error}");
    assert_eq!(operator.left().await, (names(&[]), false));
    running.stop().await;
}

#[tokio::test]
async fn a_command_that_fails_leaves_its_worker_named_and_its_exit_code_is_ours() {
    let (operator, running) = Operator::new().await;
    let args = operator.args(Duration::from_secs(20), &[], &["sh", "-c", "exit 7"]);
    assert_eq!(operator.runs(args, Others::Rest).await.unwrap(), Outcome::Code(7));
    assert_eq!(operator.left().await, (names(&["w1"]), false));
    running.stop().await;
}
