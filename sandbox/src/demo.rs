//! The demo: bring up the world, make traffic, let a bidder read in every region, flush one region's cache half-way,
//! show all of it, and compare every row at the end.

mod bidding;
mod verdict;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

pub use bidding::BidderReport;
pub use verdict::Verdict;

use crate::bidder::BidderError;
use crate::measure::{self, Lags, Probes};
use crate::rate::Rate;
use crate::screen::{Mode, RegionSnapshot, Screen, Snapshot};
use crate::verify::{self, VerifyError};
use crate::workload::{self, Ledger, Progress, WorkloadError, WorkloadOptions};
use crate::world::{World, WorldError, WorldOptions};
use bidding::Bidding;

const SCREEN_INTERVAL: Duration = Duration::from_millis(250);

/// What to run.
#[derive(Clone, Debug)]
pub struct DemoOptions {
    /// What to bring up. The traffic goes to its first table.
    pub world: WorldOptions,
    /// The traffic.
    pub workload: WorkloadOptions,
    /// Auctions a second in each region; 0 for no bidders.
    pub auctions: u32,
    /// Whether the last region's cache is flushed half-way.
    pub flush: bool,
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
    /// A bidder did not start.
    #[error(transparent)]
    Bidder(#[from] BidderError),
    /// The cache that was to be flushed does not answer.
    #[error("cannot flush the cache of {region}: {source}")]
    Flush {
        /// The region.
        region: String,
        /// What Redis answered.
        source: redis::RedisError,
    },
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
    let bidding = Bidding::start(world, options, &progress).await?;
    // Dropped with this future when a signal comes: the writers end with it.
    let mut writing = JoinSet::new();
    writing.spawn(workload::run(
        world.dynamodb(),
        options.workload.clone(),
        Arc::clone(&progress),
        probes,
        CancellationToken::new(),
    ));
    let mut run =
        Run { started: Instant::now(), progress, lags, rates: Rates::new(world), bidding, flush: None };
    if options.flush {
        run.flush = Flush::half_way(world, options);
    }

    let ledger = run.watch("writing user profiles", world, screen, &mut writing).await?;
    let ledger = ledger.into_iter().next().transpose()?.unwrap_or_default();
    let lasted = run.started.elapsed();
    run.watch("waiting for the last changes", world, screen, &mut measuring).await?;
    run.verdict(world, options, &ledger, lasted, screen).await
}

/// A region whose cache is to be flushed, or was.
struct Flush {
    region: usize,
    name: String,
    after: Duration,
    after_writes: u64,
    is_done: bool,
}

impl Flush {
    /// The last region's, when half of what is asked for is done.
    fn half_way(world: &World, options: &DemoOptions) -> Option<Self> {
        let region = world.regions().len().checked_sub(1)?;
        Some(Self {
            region,
            name: world.regions().get(region)?.name().to_owned(),
            after: options.workload.duration / 2,
            after_writes: options.workload.writes_min / 2,
            is_done: false,
        })
    }
}

/// A run under way.
struct Run {
    started: Instant,
    progress: Arc<Progress>,
    lags: Vec<Arc<Lags>>,
    rates: Rates,
    bidding: Bidding,
    flush: Option<Flush>,
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
                    self.flush_if_due(world).await?;
                    let snapshot = self.snapshot(phase, world);
                    screen.show(&snapshot)?;
                }
            }
        }
    }

    async fn flush_if_due(&mut self, world: &World) -> Result<(), DemoError> {
        let (elapsed, writes) = (self.started.elapsed(), self.progress.written().total());
        let is_due =
            |flush: &&mut Flush| !flush.is_done && elapsed >= flush.after && writes >= flush.after_writes;
        let Some(flush) = self.flush.as_mut().filter(is_due) else { return Ok(()) };
        flush.is_done = true;
        self.bidding.note_flush(flush.region);
        let Some(region) = world.regions().get(flush.region) else { return Ok(()) };
        let failed = |source| DemoError::Flush { region: region.name().to_owned(), source };
        region.redis().flush().await.map_err(failed)?;
        if let Some(lags) = self.lags.get(flush.region) {
            lags.forget();
        }
        Ok(())
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
        // Nobody may be filling while the comparison looks.
        let bidders = self.bidding.stop().await;
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
            bidders,
            table_findings: verify::check_ledger(&options.workload.table, ledger, &rows),
            last,
        })
    }

    fn snapshot(&mut self, phase: &str, world: &World) -> Snapshot {
        let now = Instant::now();
        let written = self.progress.written();
        let aggregator = world.aggregator();
        let regions = world.regions().iter().zip(&self.lags).zip(&mut self.rates.applied);
        let bidders = self.bidding.snapshots(now);
        let regions = regions.zip(bidders).map(|(((region, lags), rate), bidder)| {
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
                bidder,
            }
        });
        let flushed = self.flush.as_ref().filter(|flush| flush.is_done);
        let flushed =
            flushed.map_or_else(String::new, |flush| format!("; the cache of {} was flushed", flush.name));
        Snapshot {
            phase: format!("{phase}{flushed}"),
            elapsed: now - self.started,
            written,
            write_rate: self.rates.written.observe(now, written.total()),
            aggregator_warnings: aggregator.log().warnings() + aggregator.log().errors(),
            aggregator_retries: aggregator.stats().total("retries"),
            regions: regions.collect(),
        }
    }
}
