//! The demo: bring up the world, make traffic, show it, and compare every row at the end.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::measure::{self, Lags, Probes};
use crate::rate::Rate;
use crate::screen::{self, Mode, RegionSnapshot, Screen, Snapshot};
use crate::verify::{self, Comparison, VerifyError};
use crate::workload::{self, Ledger, Progress, WorkloadError, WorkloadOptions, Written};
use crate::world::{World, WorldError, WorldOptions};

const SCREEN_INTERVAL: Duration = Duration::from_millis(250);

/// What to run.
#[derive(Clone, Debug)]
pub struct DemoOptions {
    /// What to bring up. The traffic goes to its first table.
    pub world: WorldOptions,
    /// The traffic.
    pub workload: WorkloadOptions,
    /// The screen.
    pub screen: Mode,
}

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The world did not come up.
    #[error(transparent)]
    World(#[from] WorldError),
    /// The traffic failed.
    #[error(transparent)]
    Workload(#[from] WorkloadError),
    /// The comparison failed.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// The histograms could not be made.
    #[error("cannot create a histogram: {0}")]
    Histogram(#[from] hdrhistogram::CreationError),
    /// A part of the world ended by itself.
    #[error("{what}; logs are in {}\n{tails}", directory.display())]
    Ended {
        /// What ended, and how.
        what: String,
        /// Kept for the reader.
        directory: PathBuf,
        /// The last lines of the daemons.
        tails: String,
    },
    /// A task of the sandbox itself ended by a panic.
    #[error("a task of the sandbox failed: {0}")]
    Task(#[from] tokio::task::JoinError),
    /// The output is closed.
    #[error("cannot write to the standard output: {0}")]
    Output(#[from] io::Error),
    /// A signal came before the end.
    #[error("interrupted; everything is stopped")]
    Interrupted,
}

/// What the run showed.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// Acknowledged writes.
    pub written: Written,
    /// How long the traffic lasted.
    pub lasted: Duration,
    /// From the start of the traffic until every region had everything.
    pub settled: Duration,
    /// What the run asked for at least: writes and distinct keys.
    pub wanted: (u64, u64),
    /// Each region against the table.
    pub comparisons: Vec<Comparison>,
    /// Where the table itself is not as it was written: a fault of the sandbox's DynamoDB.
    pub table_findings: Vec<String>,
    /// The last picture.
    pub last: Snapshot,
}

impl Verdict {
    /// Zero mismatches, deletions among the writes, and as many writes and keys as were asked for.
    #[must_use]
    pub fn passes(&self) -> bool {
        self.shortfalls().is_empty()
    }

    /// What is missing to pass.
    #[must_use]
    pub fn shortfalls(&self) -> Vec<String> {
        let mut shortfalls = Vec::new();
        let (writes, keys) = self.wanted;
        if self.written.total() < writes || self.written.keys < keys {
            shortfalls.push(format!(
                "{} writes to {} keys, fewer than the {writes} to {keys} asked for",
                self.written.total(),
                self.written.keys
            ));
        }
        if self.written.deletes == 0 {
            shortfalls.push("nothing was deleted".to_owned());
        }
        if !self.table_findings.is_empty() {
            shortfalls.push(format!("{} rows are not as they were written", self.table_findings.len()));
        }
        if self.comparisons.is_empty() {
            shortfalls.push("no region was compared".to_owned());
        }
        for region in self.comparisons.iter().filter(|region| !region.agrees()) {
            shortfalls.push(format!("{} mismatches in {}", region.mismatches, region.region));
        }
        shortfalls
    }

    /// The end of the demo's output.
    #[must_use]
    pub fn report(&self) -> String {
        let Written { creates, updates, deletes, keys, .. } = self.written;
        let mut lines = vec![
            format!(
                "{} writes to {keys} keys in {:.1} s: {creates} created, {updates} updated, {deletes} deleted",
                self.written.total(),
                self.lasted.as_secs_f64()
            ),
            String::new(),
            "every row against every region:".to_owned(),
        ];
        for region in &self.comparisons {
            let Comparison { region: name, rows, equal, tombstones, mismatches, .. } = region;
            lines.push(format!(
                "  {name:<15} {equal} of {rows} rows equal, {tombstones} tombstones, {mismatches} mismatches"
            ));
            lines.extend(region.explained.iter().map(|mismatch| format!("    {mismatch}")));
        }
        lines.extend(self.table_findings.iter().take(5).map(|finding| format!("  table: {finding}")));
        lines.push(String::new());
        lines.push(self.headline());
        let shortfalls = self.shortfalls();
        if shortfalls.is_empty() {
            lines.push("verdict: PASS, zero mismatches".to_owned());
        } else {
            lines.push(format!("verdict: FAIL, {}", shortfalls.join("; ")));
        }
        lines.join("\n")
    }

    /// Updates per second, and the lag of each region.
    #[must_use]
    pub fn headline(&self) -> String {
        let updates = self.written.total() as f64 / self.settled.as_secs_f64().max(0.001);
        let mut line = format!("{updates:.0} updates per second");
        for region in &self.last.regions {
            let (p50, p99) = (screen::milliseconds(region.lag.p50), screen::milliseconds(region.lag.p99));
            line.push_str(&format!("\n  {:<15} lag p50 {p50}, p99 {p99}", region.name));
        }
        line
    }
}

/// Runs the demo. `stop` ends it early, with everything stopped.
///
/// # Errors
/// See [`DemoError`]; every child process is stopped in any case.
pub async fn run(options: DemoOptions, stop: CancellationToken) -> Result<Verdict, DemoError> {
    let mut screen = Screen::new(options.screen);
    screen.print(&format!("seed {}; starting the servers and the daemons", options.workload.seed))?;
    let mut world = tokio::select! {
        world = World::start(&options.world) => world?,
        () = stop.cancelled() => return Err(DemoError::Interrupted),
    };
    let outcome = tokio::select! {
        outcome = run_in(&mut world, &options, &mut screen) => outcome,
        () = stop.cancelled() => Err(DemoError::Interrupted),
    };
    let failed = !matches!(&outcome, Ok(verdict) if verdict.passes());
    if failed && !stop.is_cancelled() {
        world.keep_directory();
        screen.print(&format!("logs are kept in {}", world.directory().display()))?;
    }
    let stopped = world.stop().await;
    let verdict = outcome?;
    stopped?;
    screen.print(&verdict.report())?;
    Ok(verdict)
}

async fn run_in(world: &mut World, options: &DemoOptions, screen: &mut Screen) -> Result<Verdict, DemoError> {
    let lags: Vec<Arc<Lags>> =
        world.regions().iter().map(|_| Lags::new().map(Arc::new)).collect::<Result<_, _>>()?;
    let (probes, receivers) = Probes::channels(lags.len());
    let mut measuring = JoinSet::new();
    for ((region, receiver), lags) in world.regions().iter().zip(receivers).zip(&lags) {
        let table = options.workload.table.clone();
        measuring.spawn(measure::run(region.redis().url(), table, receiver, Arc::clone(lags)));
    }
    let progress = Arc::new(Progress::default());
    // Dropped with this future when a signal comes: the writers end with it.
    let mut writing = JoinSet::new();
    writing.spawn(workload::run(
        world.dynamodb(),
        options.workload.clone(),
        Arc::clone(&progress),
        probes,
        CancellationToken::new(),
    ));
    let mut run = Run { started: Instant::now(), progress, lags, rates: Rates::new(world) };

    let ledger = run.watch("writing user profiles", world, screen, &mut writing).await?;
    let ledger = ledger.into_iter().next().transpose()?.unwrap_or_default();
    let lasted = run.started.elapsed();
    run.watch("waiting for the last changes", world, screen, &mut measuring).await?;
    run.verdict(world, options, &ledger, lasted, screen).await
}

/// A run under way.
struct Run {
    started: Instant,
    progress: Arc<Progress>,
    lags: Vec<Arc<Lags>>,
    rates: Rates,
}

struct Rates {
    written: Rate,
    applied: Vec<Rate>,
}

impl Rates {
    fn new(world: &World) -> Self {
        Self { written: Rate::default(), applied: world.regions().iter().map(|_| Rate::default()).collect() }
    }
}

impl Run {
    /// Shows the run until every task of the set has ended, and gives what they returned.
    async fn watch<T: 'static>(
        &mut self,
        phase: &str,
        world: &mut World,
        screen: &mut Screen,
        tasks: &mut JoinSet<T>,
    ) -> Result<Vec<T>, DemoError> {
        let mut ticks = interval(SCREEN_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut results = Vec::new();
        loop {
            tokio::select! {
                ended = tasks.join_next() => match ended {
                    Some(result) => results.push(result?),
                    None => return Ok(results),
                },
                _ = ticks.tick() => {
                    if let Some(what) = world.ended() {
                        world.keep_directory();
                        let directory = world.directory().to_owned();
                        return Err(DemoError::Ended { what, directory, tails: world.tails() });
                    }
                    let snapshot = self.snapshot(phase, world);
                    screen.show(&snapshot)?;
                }
            }
        }
    }

    async fn verdict(
        &mut self,
        world: &mut World,
        options: &DemoOptions,
        ledger: &Ledger,
        lasted: Duration,
        screen: &mut Screen,
    ) -> Result<Verdict, DemoError> {
        let snapshot = self.snapshot("comparing every row with every region", world);
        screen.show(&snapshot)?;
        let settled = self.started.elapsed();
        let rows = verify::read_tables(&world.dynamodb(), world.tables()).await?;
        let comparisons = verify::compare_rows(world, &rows, ledger).await?;
        let last = self.snapshot("done", world);
        screen.show(&last)?;
        Ok(Verdict {
            written: self.progress.written(),
            lasted,
            settled,
            wanted: (options.workload.writes_min, options.workload.keys_min),
            comparisons,
            table_findings: verify::check_ledger(&options.workload.table, ledger, &rows),
            last,
        })
    }

    fn snapshot(&mut self, phase: &str, world: &World) -> Snapshot {
        let now = Instant::now();
        let written = self.progress.written();
        let aggregator = world.aggregator();
        let regions = world.regions().iter().zip(&self.lags).zip(&mut self.rates.applied);
        let regions = regions.map(|((region, lags), rate)| {
            let daemon = region.cache_writer();
            let stats = daemon.stats();
            let applied = stats.total("changes_applied");
            RegionSnapshot {
                name: region.name().to_owned(),
                applied,
                rate: rate.observe(now, applied),
                lag: lags.summary(),
                stale: stats.total("changes_stale"),
                failed: stats.total("changes_failed") + stats.total("dead_letters"),
                warnings: daemon.log().warnings() + daemon.log().errors(),
            }
        });
        Snapshot {
            phase: phase.to_owned(),
            elapsed: now - self.started,
            written,
            write_rate: self.rates.written.observe(now, written.total()),
            aggregator_warnings: aggregator.log().warnings() + aggregator.log().errors(),
            aggregator_retries: aggregator.stats().total("retries"),
            regions: regions.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict() -> Verdict {
        let written = Written { creates: 60, updates: 30, deletes: 10, keys: 50, retries: 0 };
        let comparison =
            Comparison { region: "eu-west-1".to_owned(), rows: 40, equal: 40, ..Comparison::default() };
        Verdict {
            written,
            lasted: Duration::from_secs(1),
            settled: Duration::from_secs(2),
            wanted: (100, 50),
            comparisons: vec![comparison],
            table_findings: Vec::new(),
            last: Snapshot::default(),
        }
    }

    #[test]
    fn a_sound_run_passes() {
        assert!(verdict().passes());
        assert!(verdict().report().ends_with("verdict: PASS, zero mismatches"), "{}", verdict().report());
        assert!(verdict().headline().starts_with("50 updates per second"));
    }

    #[test]
    fn each_shortfall_fails() {
        let mut few = verdict();
        few.wanted = (101, 50);
        let mut keys = verdict();
        keys.wanted = (100, 51);
        let mut undeleted = verdict();
        undeleted.written = Written { deletes: 0, updates: 40, ..undeleted.written };
        let mut mismatch = verdict();
        mismatch.comparisons[0].mismatches = 1;
        let mut unsound = verdict();
        unsound.table_findings.push("x".to_owned());
        let mut nothing = verdict();
        nothing.comparisons.clear();
        for failing in [few, keys, undeleted, mismatch, unsound, nothing] {
            assert!(!failing.passes());
            assert!(failing.report().contains("verdict: FAIL"), "{}", failing.report());
        }
    }
}
