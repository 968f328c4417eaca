//! A run under way: the table's rows, the load, and what every scenario does before and after.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{RepairsError, RepairsOptions};
use crate::entry;
use crate::measure::Probes;
use crate::report::{Report, Target};
use crate::verify::{self, Comparison};
use crate::workload::{self, Ledger, Progress, WorkloadError, WorkloadOptions};
use crate::world::{Region, World};

const WRITERS: usize = 8;
/// Without more rows for this long, those that are missing do not come.
const ARRIVAL_PATIENCE: Duration = Duration::from_secs(60);
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// A load that is further below what was asked for is another one.
const RATE_SHARE_MIN: f64 = 0.9;

/// A run of one scenario.
pub(super) struct Run<'a> {
    pub(super) world: &'a mut World,
    pub(super) report: &'a mut Report,
    pub(super) options: &'a RepairsOptions,
    /// The table that everything is about.
    pub(super) table: String,
    traffic: Option<Traffic>,
}

impl<'a> Run<'a> {
    /// Writes the rows, waits until every region has them, and starts the load.
    pub(super) async fn start(
        world: &'a mut World,
        report: &'a mut Report,
        options: &'a RepairsOptions,
        baseline: Duration,
    ) -> Result<Self, RepairsError> {
        let table = world.tables().first().cloned().unwrap_or_default();
        report.line(&format!("{} rows are written", options.rows))?;
        workload::load(&world.dynamodb(), &table, options.rows, options.seed).await?;
        let mut run = Self { world, report, options, table, traffic: None };
        for region in 0..options.regions {
            run.wait_for_rows(region).await?;
        }
        run.traffic = Some(Traffic::start(run.world, &run.table, options));
        run.passes(baseline).await?;
        Ok(run)
    }

    /// The region that something happens to: the last, so that the order of the regions helps nobody.
    pub(super) fn region(&self) -> Result<&Region, RepairsError> {
        self.world.regions().last().ok_or_else(|| self.late("there is a region", Duration::ZERO))
    }

    async fn wait_for_rows(&mut self, region: usize) -> Result<(), RepairsError> {
        let Some(region) = self.world.regions().get(region) else { return Ok(()) };
        let mut most = 0;
        let mut progress = Instant::now();
        // The rows pass through three other processes: there is no event to wait for.
        while most < self.options.rows {
            let size = size(region).await?;
            if size > most {
                (most, progress) = (size, Instant::now());
            }
            if progress.elapsed() > ARRIVAL_PATIENCE {
                let what = format!("{} has more than {most} entries", region.name());
                return Err(self.late(&what, ARRIVAL_PATIENCE));
            }
            sleep(LOOK_INTERVAL).await;
        }
        Ok(())
    }

    /// Lets so much time pass. A daemon that ends meanwhile is an error.
    pub(super) async fn passes(&mut self, how_long: Duration) -> Result<(), RepairsError> {
        let end = Instant::now() + how_long;
        while Instant::now() < end {
            sleep(LOOK_INTERVAL.min(end - Instant::now())).await;
            if let Some(what) = self.world.ended() {
                return Err(RepairsError::Ended { what, tails: self.world.tails() });
            }
        }
        Ok(())
    }

    /// Waits until the region has everything that was put to its stream by now.
    pub(super) async fn caught_up(&mut self) -> Result<(), RepairsError> {
        let mut connection = self.region()?.redis().connect().await?;
        let (now_ms, began) = (entry::now_ms(), Instant::now());
        // The watermark comes through every shard, behind whatever was put there before.
        while entry::watermark_ms(&mut connection).await?.is_none_or(|watermark_ms| watermark_ms < now_ms) {
            if began.elapsed() > ARRIVAL_PATIENCE {
                return Err(self.late("the region's watermark goes on", ARRIVAL_PATIENCE));
            }
            sleep(LOOK_INTERVAL).await;
        }
        Ok(())
    }

    pub(super) fn late(&self, what: &str, waited: Duration) -> RepairsError {
        RepairsError::Late { what: what.to_owned(), waited, tails: self.world.tails() }
    }

    pub(super) fn figure(
        &mut self,
        name: &str,
        unit: &'static str,
        value: f64,
        target: Option<Target>,
    ) -> Result<(), RepairsError> {
        Ok(self.report.figure(name, unit, vec![value], target)?)
    }

    /// Ends the load and compares every row of every region with the table.
    pub(super) async fn settle(&mut self) -> Result<(), RepairsError> {
        let Some(traffic) = self.traffic.take() else { return Ok(()) };
        let (ledger, rate) = traffic.finish().await?;
        let least = RATE_SHARE_MIN * f64::from(self.options.rate);
        self.figure("writes a second", "/s", rate, Some(Target::AtLeast(least)))?;
        let rows = verify::read_tables(&self.world.dynamodb(), self.world.tables()).await?;
        for finding in verify::check_ledger(&self.table, &ledger, &rows).iter().take(5) {
            self.report.violation(format!("the table itself is not as it was written: {finding}"))?;
        }
        for comparison in verify::compare_rows(self.world, &rows, &ledger).await? {
            self.tell(&comparison)?;
        }
        Ok(())
    }

    fn tell(&mut self, comparison: &Comparison) -> Result<(), RepairsError> {
        let Comparison { region, rows, mismatches, missing, filled, .. } = comparison;
        let none = Some(Target::AtMost(0.0));
        self.figure(&format!("{region}: rows compared"), "rows", *rows as f64, None)?;
        self.figure(&format!("{region}: of these not from the stream"), "rows", *filled as f64, None)?;
        self.figure(&format!("{region}: mismatches"), "rows", *mismatches as f64, none)?;
        self.figure(&format!("{region}: rows missing"), "rows", *missing as f64, none)?;
        for explained in &comparison.explained {
            self.report.note(format!("{region}: {explained}"))?;
        }
        Ok(())
    }
}

/// How many keys a region's Redis has.
pub(super) async fn size(region: &Region) -> redis::RedisResult<u64> {
    redis::cmd("DBSIZE").query_async(&mut region.redis().connect().await?).await
}

/// Writes until it is told to stop.
struct Traffic {
    writing: JoinSet<Result<Ledger, WorkloadError>>,
    progress: Arc<Progress>,
    stop: CancellationToken,
    began: Instant,
}

impl Traffic {
    fn start(world: &World, table: &str, options: &RepairsOptions) -> Self {
        let options = WorkloadOptions {
            table: table.to_owned(),
            writers: WRITERS,
            duration: Duration::MAX,
            writes_min: u64::MAX,
            keys_min: u64::MAX,
            keys_max: options.rows.max(WRITERS as u64),
            keys_loaded: options.rows,
            rate: options.rate,
            ceiling: Duration::MAX,
            seed: options.seed,
        };
        let progress = Arc::new(Progress::default());
        let stop = CancellationToken::new();
        let mut writing = JoinSet::new();
        let (probes, _) = Probes::channels(0);
        writing.spawn(workload::run(world.dynamodb(), options, Arc::clone(&progress), probes, stop.clone()));
        Self { writing, progress, stop, began: Instant::now() }
    }

    /// What the table must hold now, and how many writes there were a second.
    async fn finish(mut self) -> Result<(Ledger, f64), RepairsError> {
        let rate = self.progress.written().total() as f64 / self.began.elapsed().as_secs_f64();
        self.stop.cancel();
        let ledger = self.writing.join_next().await.transpose()?.transpose()?.unwrap_or_default();
        Ok((ledger, rate))
    }
}
