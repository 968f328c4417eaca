//! A run under way: what every scenario does between its faults. It looks once a second, tells, and keeps what it saw.

use std::ops::Range;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::rig::Rig;
use super::source::Load;
use super::verdict::Finding;
use super::watch::{self, Phase, Sample};
use super::{RegionsError, RegionsOptions};
use crate::report::{Report, Target};

const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// A region that is no further behind is live.
pub(super) const LIVE_LAG_MS: u64 = 1_000;
/// It must stay so for this many looks.
const LIVE_LOOKS: usize = 3;
/// Everything must be read and sent at the rate asked for within this time, or it never will.
const WARM_UP_PATIENCE: Duration = Duration::from_secs(60);
/// After the last update everything must be everywhere within this time.
const SETTLE_PATIENCE: Duration = Duration::from_secs(300);

/// A run of one scenario.
pub(super) struct Run<'a> {
    pub(super) rig: &'a mut Rig,
    pub(super) report: &'a mut Report,
    pub(super) names: Vec<String>,
    samples: Vec<Sample>,
    load: Load,
}

/// The looks of a part of the run.
#[derive(Clone, Debug)]
pub(super) struct Looks(Range<usize>);

impl Looks {
    /// These and the next ones.
    pub(super) fn and(self, next: Self) -> Self {
        Self(self.0.start..next.0.end)
    }
}

impl<'a> Run<'a> {
    /// Starts the aggregator and the load, and waits until every region is live.
    pub(super) async fn start(
        rig: &'a mut Rig,
        report: &'a mut Report,
        options: &RegionsOptions,
    ) -> Result<Self, RegionsError> {
        rig.start_aggregators()?;
        // What the first connections, leases and listings take is none of the load's.
        rig.source().put(1)?;
        let all: Vec<usize> = (0..rig.regions().len()).collect();
        rig.have_everything(&all, WARM_UP_PATIENCE).await?;
        let names = rig.regions().iter().map(|region| region.name().to_owned()).collect();
        rig.begin();
        let load = rig.source().start_load(options.rate);
        let mut run = Self { rig, report, names, samples: Vec::new(), load };
        if run.until_live(&all, WARM_UP_PATIENCE).await?.is_none() {
            run.report.note(format!("the regions are not live {WARM_UP_PATIENCE:?} after the load began"))?;
        }
        Ok(run)
    }

    /// Looks for this long. The last look before is the first of these.
    pub(super) async fn watch(&mut self, how_long: Duration) -> Result<Looks, RegionsError> {
        let end = Instant::now() + how_long;
        let from = self.samples.len().saturating_sub(1);
        while Instant::now() < end {
            self.pause().await;
            self.look().await?;
        }
        Ok(Looks(from..self.samples.len()))
    }

    /// Looks until these regions are live and stay so; returns after how long they were, or `None` if they do not
    /// become so.
    pub(super) async fn until_live(
        &mut self,
        regions: &[usize],
        patience: Duration,
    ) -> Result<Option<Duration>, RegionsError> {
        let since = Instant::now();
        let mut live = None;
        let mut looks = 0;
        while since.elapsed() < patience {
            self.pause().await;
            let sample = self.look().await?;
            let lag_ms = |index: &usize| sample.regions.get(*index).map_or(u64::MAX, |region| region.lag_ms);
            if regions.iter().all(|region| lag_ms(region) <= LIVE_LAG_MS) {
                live.get_or_insert_with(|| since.elapsed());
                looks += 1;
            } else {
                (live, looks) = (None, 0);
            }
            if looks >= LIVE_LOOKS {
                return Ok(live);
            }
        }
        Ok(None)
    }

    async fn pause(&self) {
        // On the second of the run, however long a look takes.
        let at_s = self.samples.last().map_or(0.0, |sample| sample.at_s);
        let behind = Duration::from_secs_f64(at_s.fract());
        sleep_until(Instant::now() + LOOK_INTERVAL.saturating_sub(behind).max(LOOK_INTERVAL / 4)).await;
    }

    async fn look(&mut self) -> Result<Sample, RegionsError> {
        let sample = self.rig.sample().await?;
        if let Some(before) = self.samples.last() {
            self.report.second(&watch::line(&self.names, before, &sample), &sample)?;
        }
        self.samples.push(sample.clone());
        Ok(sample)
    }

    pub(super) fn phase(&self, looks: &Looks) -> Phase<'_> {
        Phase(self.samples.get(looks.0.clone()).unwrap_or_default())
    }

    pub(super) fn tell(&mut self, findings: Vec<Finding>) -> Result<(), RegionsError> {
        for Finding { name, unit, value, target } in findings {
            let values = if value.is_nan() { Vec::new() } else { vec![value] };
            self.report.figure(&name, unit, values, target)?;
        }
        Ok(())
    }

    /// Ends the load, waits until every region has everything, and compares every row.
    pub(super) async fn finish(self) -> Result<(), RegionsError> {
        let Self { rig, report, names, load, .. } = self;
        load.stop().await?;
        let all: Vec<usize> = (0..rig.regions().len()).collect();
        match rig.have_everything(&all, SETTLE_PATIENCE).await {
            Ok(took) => report.figure(
                "from the last update until every region had everything",
                "s",
                vec![took.as_secs_f64()],
                None,
            )?,
            // What is missing is counted below.
            Err(behind @ RegionsError::Behind { .. }) => report.violation(behind.to_string())?,
            Err(error) => return Err(error),
        }
        let none = Some(Target::AtMost(0.0));
        for (name, comparison) in names.iter().zip(rig.compare().await?) {
            report.figure(&format!("{name}: rows compared"), "rows", vec![comparison.keys as f64], None)?;
            report.figure(
                &format!("{name}: mismatches"),
                "rows",
                vec![comparison.mismatches as f64],
                none,
            )?;
            report.figure(&format!("{name}: rows missing"), "rows", vec![comparison.missing as f64], none)?;
            for explained in comparison.explained {
                report.note(format!("{name}: {explained}"))?;
            }
        }
        let undecodable = rig.regions().iter().map(|region| region.undecodable() as f64).sum();
        report.figure("records that were not understood", "records", vec![undecodable], none)?;
        Ok(())
    }
}
