//! The world of one test: the fake service, the state table, a target region, and aggregators as processes.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};
use warmcast_sandbox::daemon::STREAM;
use warmcast_sandbox::dynamodb::MASTER_REGION;
use warmcast_sandbox::kinesis::Kinesis;
use warmcast_sandbox::streams::{FakeStreams, FakeStreamsServer, Operation, Options, Record, ShardReads};
use warmcast_sandbox::{Log, Process};

use crate::ledger::{Arrivals, Ledger};
use crate::master::{Master, STATE_TABLE, TABLE};

/// Beyond what a loaded machine needs for anything here; a condition that takes longer is a failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(50);
const TARGET_REGION: &str = "eu-west-1";
/// A daemon that drains needs seconds; longer than this is a hang.
const STOP_PATIENCE: Duration = Duration::from_secs(20);

/// What the tests vary of an aggregator's configuration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tuning {
    pub(crate) initial_position: &'static str,
    pub(crate) sync_interval_ms: u64,
    pub(crate) listing_interval_ms: u64,
    pub(crate) idle_poll_max_ms: u64,
    pub(crate) stuck_after_ms: u64,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            initial_position: "trim-horizon",
            sync_interval_ms: 300,
            listing_interval_ms: 500,
            idle_poll_max_ms: 100,
            stuck_after_ms: 60_000,
        }
    }
}

/// Servers with one stream, and whatever aggregators the test starts.
pub(crate) struct Life {
    // Dropped in this order: the aggregators before what they talk to, the directory last.
    workers: Vec<Worker>,
    pub(crate) master: Master,
    pub(crate) kinesis: Kinesis,
    server: FakeStreamsServer,
    /// The stream that the table begins with.
    pub(crate) arn: String,
    pub(crate) ledger: Ledger,
    /// Children with their parents, as far as the API can tell them.
    family: Vec<(String, String)>,
    directory: TempDir,
}

/// The servers.
impl Life {
    /// A stream without shards, and a target stream; no aggregator.
    pub(crate) async fn new() -> Self {
        let life = Self::without_target().await;
        life.create_target().await;
        life
    }

    /// The same without the target stream: nothing can arrive.
    pub(crate) async fn without_target() -> Self {
        Self::with(Options::default()).await
    }

    /// The same with a service that is so.
    pub(crate) async fn with(options: Options) -> Self {
        let server = FakeStreams::start(options).await.unwrap();
        let arn = server.streams().create_stream(TABLE, None).unwrap();
        Self {
            workers: Vec::new(),
            master: Master::start(&arn).await,
            kinesis: Kinesis::start(TARGET_REGION).await.unwrap(),
            server,
            arn,
            ledger: Ledger::default(),
            family: Vec::new(),
            directory: tempfile::Builder::new().prefix("warmcast-stream-life-").tempdir().unwrap(),
        }
    }

    /// One shard, so that the order of arrival is known.
    pub(crate) async fn create_target(&self) {
        self.kinesis.create_stream(STREAM, 1).await.unwrap();
    }

    pub(crate) fn fake(&self) -> &FakeStreams {
        self.server.streams()
    }

    /// Stops the aggregators, which must end well, and then the servers.
    pub(crate) async fn stop(mut self) {
        self.stop_workers().await;
        self.server.stop().await;
        self.master.stop().await;
        self.kinesis.stop().await;
    }
}

/// The stream and what is put into it.
impl Life {
    pub(crate) fn add_shard(&mut self, parent: Option<&str>) -> String {
        let shard = self.fake().add_shard(&self.arn, parent).unwrap();
        self.family.extend(parent.map(|parent| (shard.clone(), parent.to_owned())));
        shard
    }

    pub(crate) fn rollover(&mut self, shard: &str) -> String {
        let child = self.fake().rollover(&self.arn, shard).unwrap();
        self.family.push((child.clone(), shard.to_owned()));
        child
    }

    pub(crate) fn split(&mut self, shard: &str) -> [String; 2] {
        let children = self.fake().split(&self.arn, shard).unwrap();
        self.family.extend(children.iter().map(|child| (child.clone(), shard.to_owned())));
        children
    }

    /// Merges two shards. The API names one parent only: `a`.
    pub(crate) fn merge(&mut self, a: &str, b: &str) -> String {
        let child = self.fake().merge(&self.arn, a, b).unwrap();
        self.family.push((child.clone(), a.to_owned()));
        child
    }

    /// Puts one change of an item, which must arrive.
    pub(crate) fn put(&mut self, shard: &str, key: &str) {
        let sequences = self.fake().put(&self.arn, shard, &[change(key)]).unwrap();
        self.ledger.expect(key, 1, &sequences);
    }

    /// Puts `count` changes of each item.
    pub(crate) fn put_each(&mut self, shard: &str, keys: &[String], count: usize) {
        for _ in 0..count {
            for key in keys {
                self.put(shard, key);
            }
        }
    }
}

/// A change of the item with this key.
pub(crate) fn change(key: &str) -> Record {
    let keys = format!(r#"{{"id":{{"S":"{key}"}}}}"#);
    Record::insert(keys.clone(), keys)
}

/// `<prefix>-0` to `<prefix>-<count - 1>`.
pub(crate) fn keys(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{prefix}-{n}")).collect()
}

/// Waiting and what must hold.
impl Life {
    /// Asks until the answer is `Some`, and fails loudly when it never is.
    pub(crate) async fn eventually<T, F>(&self, what: &str, mut ask: impl FnMut() -> F) -> T
    where
        F: Future<Output = Option<T>>,
    {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}\n{}", self.tails());
            // Other processes do it: there is no event to wait for.
            sleep(POLL_INTERVAL).await;
        }
    }

    /// Waits for something that the fake sees.
    pub(crate) async fn until(&self, what: &str, holds: impl FnMut(&FakeStreams) -> bool) {
        let seen = timeout(PATIENCE, self.fake().until(holds)).await;
        assert!(seen.is_ok(), "not within {PATIENCE:?}: {what}\n{}", self.tails());
    }

    /// Waits until shards were listed so many times more.
    pub(crate) async fn listings(&self, more: u64) {
        let target = self.fake().calls(Operation::DescribeStream) + more;
        self.until("shards are listed", |fake| fake.calls(Operation::DescribeStream) >= target).await;
    }

    /// Waits until nothing that was put is missing.
    pub(crate) async fn arrivals(&self) -> Arrivals {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let arrivals = Arrivals::read(&self.kinesis).await;
            let missing = self.ledger.missing(&arrivals);
            if missing == 0 {
                return arrivals;
            }
            let all = self.ledger.len();
            assert!(Instant::now() < deadline, "{missing} of {all} changes are missing\n{}", self.tails());
            sleep(POLL_INTERVAL).await;
        }
    }

    /// Waits until everything has arrived: once, in order, and each shard was read once, after its parent.
    pub(crate) async fn assert_all_arrives_once(&self) {
        let arrivals = self.arrivals().await;
        let repeated = arrivals.repeated();
        assert!(repeated.is_empty(), "changes arrived twice: {repeated:?}\n{}", self.tails());
        self.ledger.assert_arrived(&arrivals);
        self.assert_parents_first();
        let (_, again) = self.fake().delivered(&self.arn).unwrap();
        // A shard that is handed to another worker may leave the answer to its last read unused.
        assert!(again == 0 || self.workers.len() > 1, "{again} records were read again\n{}", self.tails());
    }

    /// No shard was read before the end of its parent was checkpointed.
    pub(crate) fn assert_parents_first(&self) {
        for (child, parent) in &self.family {
            let Some(read) = self.reads(child).and_then(|reads| reads.first_read_at) else { continue };
            let ended = self.master.ended_at(&self.arn, parent);
            assert!(
                ended.is_some_and(|ended| ended < read),
                "{child} was read at {read:?}, the end of its parent {parent} written at {ended:?}\n{}",
                self.tails()
            );
        }
    }

    /// How many different records of a stream were read.
    pub(crate) fn records_read(&self, arn: &str) -> u64 {
        let (delivered, again) = self.fake().delivered(arn).unwrap();
        delivered - again
    }

    /// What was read of a shard of the table's first stream.
    pub(crate) fn reads(&self, shard: &str) -> Option<ShardReads> {
        self.fake().reads(&self.arn, shard).unwrap()
    }

    /// Waits until the leases of all other shards, which are finished, are gone.
    pub(crate) async fn only_lease_is_of(&self, shard: &str) {
        let is_alone = || async { self.master.leases(&self.arn).await.keys().eq([shard]).then_some(()) };
        self.eventually("the leases of finished shards go", is_alone).await;
    }

    /// Waits until the end of each of these shards is checkpointed.
    pub(crate) async fn ended(&self, shards: &[&str]) {
        let is_ended = |shard: &&str| self.master.ended_at(&self.arn, shard).is_some();
        self.eventually("shards end", || async { shards.iter().all(is_ended).then_some(()) }).await;
    }
}

/// The aggregators.
impl Life {
    /// Starts aggregators `worker-1` to `worker-<count>`.
    pub(crate) fn start_workers(&mut self, count: usize, tuning: Tuning) {
        for number in 1..=count {
            let worker = Worker::new(format!("worker-{number}"), self.directory.path());
            std::fs::write(&worker.config, self.config(&worker, tuning)).unwrap();
            self.workers.push(worker);
        }
        self.workers.iter_mut().for_each(Worker::start);
    }

    /// Starts the aggregators that were stopped.
    pub(crate) fn start_again(&mut self) {
        self.workers.iter_mut().for_each(Worker::start);
    }

    /// Runs `replay` to the target region with these arguments, beside the aggregators: its exit code, and what it printed.
    pub(crate) async fn replay(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let config = &self.workers.first().unwrap().config;
        let mut command = Command::new(program());
        command.arg("replay").arg("--config").arg(config).args(["--set", "dynamodb.access_key_id=replay"]);
        command.args(["--region", TARGET_REGION, "--output", "json"]).args(arguments);
        let output = timeout(PATIENCE, command.env_clear().kill_on_drop(true).output()).await;
        let output = output.expect("the replay ends").unwrap();
        let (said, report) = (output.stderr, output.stdout);
        let text = if report.is_empty() { said } else { report };
        (output.status.code(), String::from_utf8(text).unwrap())
    }

    pub(crate) async fn stop_workers(&mut self) {
        for worker in &mut self.workers {
            let Some(process) = worker.process.take() else { continue };
            let status = process.terminate(STOP_PATIENCE).await.unwrap();
            assert!(status.success(), "{} ended with {status}\n{}", worker.name, worker.tail());
        }
    }

    /// Fast intervals, but a lease duration that no busy machine can overrun. One put at a time keeps the order.
    fn config(&self, worker: &Worker, tuning: Tuning) -> String {
        let Worker { name, dead_letters, .. } = worker;
        let (dynamodb, streams, kinesis) = (self.master.url(), self.server.url(), self.kinesis.url());
        let Tuning { initial_position, sync_interval_ms, listing_interval_ms, .. } = tuning;
        let Tuning { idle_poll_max_ms, stuck_after_ms, .. } = tuning;
        format!(
            r#"
            worker_id = "{name}"
            [dynamodb]
            region = "{MASTER_REGION}"
            endpoint = "{dynamodb}"
            streams_endpoint = "{streams}"
            access_key_id = "{name}"
            secret_access_key = "secret"
            [admin]
            listen = "127.0.0.1:0"
            [state]
            table = "{STATE_TABLE}"
            create = true
            [tables.{TABLE}]
            initial_position = "{initial_position}"
            [regions.{TARGET_REGION}]
            stream = "{STREAM}"
            puts_in_flight_max = 1
            [regions.{TARGET_REGION}.kinesis]
            endpoint = "{kinesis}"
            access_key_id = "{name}"
            secret_access_key = "secret"
            [worker]
            heartbeat_interval_ms = 300
            lease_duration_ms = 30000
            sync_interval_ms = {sync_interval_ms}
            listing_interval_ms = {listing_interval_ms}
            checkpoint_interval_ms = 100
            move_interval_ms = 1000
            idle_poll_max_ms = {idle_poll_max_ms}
            stuck_after_ms = {stuck_after_ms}
            [batch]
            buckets = 16
            linger_ms = 5
            [dead_letters]
            store = "directory"
            directory = "{}"
            [log]
            format = "json"
            "#,
            dead_letters.display()
        )
    }

    /// Whether any aggregator has printed a line with all of these words.
    pub(crate) fn has_logged(&self, words: &[&str]) -> bool {
        let has_all = |line: &str| words.iter().all(|word| line.contains(word));
        self.workers.iter().any(|worker| worker.printed().lines().any(has_all))
    }

    /// The last lines of every aggregator, for a failure report.
    pub(crate) fn tails(&self) -> String {
        self.workers.iter().map(|worker| format!("--- {}\n{}\n", worker.name, worker.tail())).collect()
    }

    /// Which aggregator has ended by itself, and how.
    pub(crate) fn died(&mut self) -> Option<(String, ExitStatus)> {
        self.workers.iter_mut().find_map(|worker| {
            Some((worker.name.clone(), worker.process.as_mut().and_then(Process::exit_status)?))
        })
    }
}

/// The aggregator.
fn program() -> PathBuf {
    // Tests run from `deps`, one directory below the programs.
    let program = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join("aggregator");
    assert!(program.is_file(), "{} is missing: cargo build --workspace --bins", program.display());
    program
}

struct Worker {
    name: String,
    config: PathBuf,
    dead_letters: PathBuf,
    log: Arc<Log>,
    process: Option<Process>,
}

impl Worker {
    fn new(name: String, directory: &Path) -> Self {
        let config = directory.join(format!("{name}.toml"));
        let dead_letters = directory.join(format!("{name}-dead-letters"));
        std::fs::create_dir_all(&dead_letters).unwrap();
        let log = Log::create(&name, directory).unwrap();
        Self { name, config, dead_letters, log, process: None }
    }

    fn start(&mut self) {
        let mut command = Command::new(program());
        command.arg("run").arg("--config").arg(&self.config).env_clear();
        self.process = Some(Process::spawn(&self.name, command, &self.log).unwrap());
    }

    fn printed(&self) -> String {
        std::fs::read_to_string(self.log.path()).unwrap()
    }

    fn tail(&self) -> String {
        let tail = self.log.tail();
        tail.get(tail.len().saturating_sub(40)..).unwrap_or_default().join("\n")
    }
}
