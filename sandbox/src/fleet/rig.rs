//! The fleet and its world: the fake of DynamoDB Streams, a DynamoDB, a Kinesis, and the workers as processes.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::{FleetError, FleetOptions};
use crate::daemon::{Daemon, Endpoint, FleetWorker, STREAM, WorkerTiming};
use crate::dynamodb::MASTER_REGION;
use crate::kinesis::Kinesis;
use crate::master;
use crate::metered::MeteredDynamoDb;
use crate::streams::{FakeStreams, FakeStreamsServer, Operation, Options};
use crate::usage::Usage;

pub(super) const TABLE: &str = "profiles";
const KEY: &str = "id";
const TARGET_REGION: &str = "eu-west-1";
const KINESIS_SHARDS: i32 = 4;
/// AWS: DescribeStream, ten calls a second.
pub(super) const DESCRIBES_PER_SECOND: u32 = 10;
/// As by default: the counters cost nothing that production does not have.
const STATS_INTERVAL_MS: u64 = 10_000;
/// The resolution of what is timed here. A look is a pass over the live shards.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// A look at all leases is a query of the same database that the fleet uses.
const LEASES_INTERVAL: Duration = Duration::from_secs(1);
/// A fleet that is not balanced after this long is not going to be.
const BALANCE_PATIENCE: Duration = Duration::from_secs(180);

/// Of a worker that ended, so many last lines are shown.
const TAIL_LINES: usize = 20;

/// A fleet. Dropping it kills its processes.
pub(super) struct Rig {
    pub(super) options: FleetOptions,
    pub(super) arn: String,
    pub(super) workers: Vec<Daemon>,
    pub(super) dynamodb: MeteredDynamoDb,
    pub(super) kinesis: Kinesis,
    streams: FakeStreamsServer,
    directory: TempDir,
}

/// Who has the leases of unfinished shards.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Shares {
    /// Leases by owner; every worker that runs is there.
    pub(super) owned: BTreeMap<String, usize>,
    /// Leases of nobody, or of a worker that does not run.
    pub(super) unowned: usize,
}

impl Shares {
    /// Whether every lease has an owner that runs, and each has its part, give or take a tenth or one lease.
    pub(super) fn are_balanced(&self) -> bool {
        let mean = self.owned.values().sum::<usize>() as f64 / self.owned.len().max(1) as f64;
        let slack = (mean / 10.0).max(1.0);
        self.unowned == 0 && self.owned.values().all(|owned| (*owned as f64 - mean).abs() <= slack)
    }
}

impl Rig {
    /// Starts the servers with the stream in them, and prepares the workers. None of them runs yet.
    pub(super) async fn start(options: &FleetOptions) -> Result<Self, FleetError> {
        let directory = tempfile::Builder::new().prefix("warmcast-fleet-").tempdir()?;
        let dynamodb = MeteredDynamoDb::start().await?;
        let (streams, arn) = start_streams(options, &dynamodb.url()).await?;
        let kinesis = Kinesis::start(TARGET_REGION).await?;
        kinesis.create_stream(STREAM, KINESIS_SHARDS).await?;
        let workers = (1..=options.workers)
            .map(|number| {
                let worker_id = worker_id(number);
                let worker = FleetWorker {
                    worker_id: worker_id.clone(),
                    streams_endpoint: Some(streams.url()),
                    from_trim_horizon: false,
                    timing: WorkerTiming {
                        lease_duration_ms: Some(options.lease_duration_ms),
                        heartbeat_interval_ms: Some(options.heartbeat_interval_ms),
                        sync_interval_ms: Some(options.sync_interval_ms),
                        idle_poll_max_ms: Some(options.idle_poll_max_ms),
                        ..WorkerTiming::default()
                    },
                    watermark_interval_ms: None,
                    stats_interval_ms: STATS_INTERVAL_MS,
                    settings: Vec::new(),
                };
                let master = Endpoint::new(MASTER_REGION, &dynamodb.url()).signed_by(&worker_id);
                let region = Endpoint::new(TARGET_REGION, &kinesis.url());
                Daemon::fleet_aggregator(directory.path(), master, &[TABLE.to_owned()], &[region], worker)
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { options: options.clone(), arn, workers, dynamodb, kinesis, streams, directory })
    }

    pub(super) fn fake(&self) -> &FakeStreams {
        self.streams.streams()
    }

    pub(super) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Keeps the logs for the reader of a failure.
    pub(super) fn keep_directory(&mut self) {
        self.directory.disable_cleanup(true);
    }

    /// Starts every worker that does not run. Returns when the first was spawned.
    pub(super) fn start_workers(&mut self) -> Result<Instant, FleetError> {
        let at = Instant::now();
        for worker in &mut self.workers {
            worker.start()?;
        }
        Ok(at)
    }

    /// Stops all workers together, as a deploy of the whole fleet would.
    pub(super) async fn stop_workers(&mut self) -> Result<(), FleetError> {
        let mut stopping = JoinSet::new();
        for mut worker in self.workers.drain(..) {
            stopping.spawn(async move {
                let ended = worker.terminate().await;
                (worker, ended)
            });
        }
        let mut outcome = Ok(());
        while let Some(stopped) = stopping.join_next().await {
            let (worker, ended) = stopped?;
            let ended = clean_end(&worker, ended);
            outcome = outcome.and(ended);
            self.workers.push(worker);
        }
        self.workers.sort_by(|a, b| a.name().cmp(b.name()));
        outcome
    }

    /// The worker with this index; indexes go round.
    pub(super) fn worker(&mut self, index: usize) -> Result<&mut Daemon, FleetError> {
        let count = self.workers.len().max(1);
        self.workers.get_mut(index % count).ok_or(FleetError::NoWorkers)
    }

    /// Waits until every live shard was read since `since`. Returns how long after `since` that was.
    pub(super) async fn all_read(
        &mut self,
        since: Instant,
        patience: Duration,
    ) -> Result<Duration, FleetError> {
        let what = "every live shard is read";
        self.until(what, since, patience, |rig| {
            let read = rig.fake().live_shards_read_since(&rig.arn, since)?;
            Ok(read == rig.fake().live_shards(&rig.arn)?.len())
        })
        .await
    }

    /// The live shards that this worker was the last to read.
    pub(super) fn read_by(&self, worker: &str) -> Result<HashSet<Arc<str>>, FleetError> {
        let last = self.fake().last_readers(&self.arn)?;
        Ok(last.into_iter().filter(|(_, reader)| **reader == *worker).map(|(shard, _)| shard).collect())
    }

    /// Waits until others than this worker have read all these shards.
    pub(super) async fn taken_over(
        &mut self,
        shards: &HashSet<Arc<str>>,
        from: &str,
        since: Instant,
        patience: Duration,
    ) -> Result<Duration, FleetError> {
        let what = format!("the shards of {from} are read by others");
        self.until(&what, since, patience, |rig| {
            let last = rig.fake().last_readers(&rig.arn)?;
            let left = last.iter().filter(|(shard, reader)| ***reader == *from && shards.contains(*shard));
            Ok(left.count() == 0)
        })
        .await
    }

    /// Waits until this worker reads, from a moment on when it had made `before` reads.
    pub(super) async fn reads(&mut self, worker: &str, before: u64) -> Result<Duration, FleetError> {
        let what = format!("{worker} reads");
        self.until(&what, Instant::now(), BALANCE_PATIENCE, |rig| {
            Ok(rig.fake().calls_by(worker, Operation::GetRecords) > before)
        })
        .await
    }

    /// Waits until it holds, and returns how long after `since` that was. There is no event for what other
    /// processes do; the looks are short apart.
    async fn until(
        &mut self,
        what: &str,
        since: Instant,
        patience: Duration,
        holds: impl Fn(&Self) -> Result<bool, FleetError>,
    ) -> Result<Duration, FleetError> {
        loop {
            let now = Instant::now();
            if holds(self)? {
                return Ok(now - since);
            }
            self.check_running()?;
            if now - since > patience {
                return Err(FleetError::NotSeen { what: what.to_owned(), waited: patience });
            }
            sleep(LOOK_INTERVAL).await;
        }
    }

    /// A worker that ended by itself is an error.
    pub(super) fn check_running(&mut self) -> Result<(), FleetError> {
        for worker in &mut self.workers {
            if let Some(status) = worker.exit_status() {
                return Err(ended(worker, status));
            }
        }
        Ok(())
    }

    /// Who has what now.
    pub(super) async fn shares(&self) -> Result<Shares, FleetError> {
        let running = self.workers.iter().filter(|worker| worker.pid().is_some());
        let mut shares =
            Shares { owned: running.map(|worker| (worker.name().to_owned(), 0)).collect(), unowned: 0 };
        let Some(table) = self.workers.first().map(Daemon::state_table) else { return Ok(shares) };
        let partition = format!("stream#{}", self.arn);
        for lease in self.dynamodb.partition(table, &partition, ["sk", "owner", "checkpoint"]).await? {
            let [sort, owner, checkpoint] = lease;
            let is_lease = sort.is_some_and(|sort| sort.starts_with("shard#"));
            if !is_lease || checkpoint.as_deref() == Some("shard-end") {
                continue;
            }
            match owner.and_then(|owner| shares.owned.get_mut(&owner)) {
                Some(owned) => *owned += 1,
                None => shares.unowned += 1,
            }
        }
        Ok(shares)
    }

    /// Waits until every lease is owned by a running worker and each has its part; `None` if that does not come.
    pub(super) async fn balanced(&mut self) -> Result<(Option<Duration>, Shares), FleetError> {
        let since = Instant::now();
        loop {
            let now = Instant::now();
            let shares = self.shares().await?;
            if shares.are_balanced() {
                return Ok((Some(now - since), shares));
            }
            self.check_running()?;
            if now - since > BALANCE_PATIENCE {
                return Ok((None, shares));
            }
            sleep(LEASES_INTERVAL).await;
        }
    }

    /// Waits until an idle fleet polls as seldom as it ever will: the pauses double up to the longest.
    pub(super) async fn calm(&mut self) -> Result<(), FleetError> {
        sleep(2 * Duration::from_millis(self.options.idle_poll_max_ms)).await;
        self.check_running()
    }

    /// The CPU time of the workers since their starts.
    pub(super) fn workers_cpu(&self) -> Duration {
        self.usages().iter().map(|usage| usage.cpu).sum()
    }

    /// What each worker that runs uses now.
    pub(super) fn usages(&self) -> Vec<Usage> {
        self.workers.iter().filter_map(|worker| Usage::of(worker.pid()?)).collect()
    }

    /// Lines of level ERROR and WARN of all workers.
    pub(super) fn complaints(&self) -> (u64, u64) {
        let logs = self.workers.iter().map(|worker| (worker.log().errors(), worker.log().warnings()));
        logs.fold((0, 0), |sum, log| (sum.0 + log.0, sum.1 + log.1))
    }

    /// Stops everything.
    pub(super) async fn stop(mut self) -> Result<(), FleetError> {
        let stopped = self.stop_workers().await;
        self.streams.stop().await;
        self.dynamodb.stop().await;
        self.kinesis.stop().await;
        stopped
    }
}

/// The ending of a worker that was told to end.
pub(super) fn clean_end(
    worker: &Daemon,
    ended: Result<Option<std::process::ExitStatus>, crate::ProcessError>,
) -> Result<(), FleetError> {
    match ended? {
        Some(status) if !status.success() => Err(self::ended(worker, status)),
        _ => Ok(()),
    }
}

fn ended(worker: &Daemon, status: std::process::ExitStatus) -> FleetError {
    let tail = worker.log().tail();
    let tail: Vec<String> = tail.iter().skip(tail.len().saturating_sub(TAIL_LINES)).cloned().collect();
    FleetError::Ended { worker: worker.name().to_owned(), status: status.to_string(), tail: tail.join("\n") }
}

fn worker_id(number: usize) -> String {
    format!("worker-{number}")
}

async fn start_streams(
    options: &FleetOptions,
    dynamodb_url: &str,
) -> Result<(FakeStreamsServer, String), FleetError> {
    let limits = Options { describes_per_second: Some(DESCRIBES_PER_SECOND), ..Options::default() };
    let (streams, arn) = master::start_table(TABLE, KEY, dynamodb_url, limits).await?;
    streams.streams().grow(&arn, options.live, options.generations)?;
    Ok((streams, arn))
}

/// The ids of the workers that own leases, for a report.
pub(super) fn tell(shares: &Shares) -> String {
    let counts: BTreeSet<String> =
        shares.owned.iter().map(|(worker, owned)| format!("{worker} {owned}")).collect();
    let counts = counts.into_iter().collect::<Vec<_>>().join(", ");
    format!("{counts}; unowned {}", shares.unowned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(owned: &[usize], unowned: usize) -> Shares {
        let owned = owned.iter().enumerate().map(|(n, owned)| (worker_id(n), *owned)).collect();
        Shares { owned, unowned }
    }

    #[test]
    fn balanced_is_within_a_tenth_and_nothing_unowned() {
        assert!(shares(&[1250, 1250, 1130, 1370], 0).are_balanced());
        assert!(!shares(&[1250, 1250, 1120, 1380], 0).are_balanced());
        assert!(!shares(&[1250, 1250, 1250, 1249], 1).are_balanced());
        assert!(!shares(&[1700, 1700, 1600, 0], 0).are_balanced());
    }

    #[test]
    fn a_few_leases_are_balanced_within_one() {
        assert!(shares(&[3, 2], 0).are_balanced());
        assert!(!shares(&[4, 1], 0).are_balanced());
    }
}
