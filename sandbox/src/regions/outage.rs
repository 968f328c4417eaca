//! One region is black-holed for a while, and comes back: what the others notice, and how it catches up.

use std::time::Duration;

use super::rig::Rig;
use super::run::Run;
use super::verdict::{self, Finding};
use super::{RegionsError, RegionsOptions};
use crate::faults::Faults;
use crate::report::Report;

/// The region that is gone: the last, so that the order of the regions helps nobody.
pub(super) fn gone(regions: usize) -> usize {
    regions.saturating_sub(1)
}

/// Runs it, with or without a `kill -9` of the aggregator in the middle.
pub(super) async fn run(
    rig: &mut Rig,
    report: &mut Report,
    options: &RegionsOptions,
    killed: bool,
) -> Result<(), RegionsError> {
    report.scenario(if killed { "outage-kill" } else { "outage" })?;
    let gone = gone(options.regions);
    let mut run = Run::start(rig, report, options).await?;
    let baseline = run.watch(options.baseline).await?;
    if let Some(region) = run.rig.regions().get(gone) {
        run.report.line(&format!("{} is black-holed for {:?}", region.name(), options.outage))?;
        region.faults().set(Faults::black_hole());
    }
    let during = if killed {
        let before = run.watch(options.outage / 2).await?;
        kill(&mut run).await?;
        before.and(run.watch(options.outage / 2).await?)
    } else {
        run.watch(options.outage).await?
    };
    if let Some(region) = run.rig.regions().get(gone) {
        run.report.line(&format!("{} is back", region.name()))?;
        region.faults().clear();
    }
    catch_up(&mut run, gone, options.catch_up_patience()).await?;
    let allowed = options.allowance(if killed { RESTART } else { Duration::ZERO });
    let mut findings = verdict::load(run.phase(&baseline), allowed);
    findings.extend(verdict::outage(&run.names, gone, run.phase(&baseline), run.phase(&during), allowed));
    run.tell(findings)?;
    run.finish().await
}

/// What a killed aggregator needs until it has its leases again and reads on, on a busy machine.
const RESTART: Duration = Duration::from_secs(15);

async fn kill(run: &mut Run<'_>) -> Result<(), RegionsError> {
    run.report.line("kill -9 of the aggregator, and it is started again")?;
    for aggregator in run.rig.aggregators_mut() {
        aggregator.kill().await?;
        aggregator.start()?;
    }
    Ok(())
}

/// Waits until a region is live again, while the load goes on. That it does not come is a broken promise.
pub(super) async fn catch_up(
    run: &mut Run<'_>,
    region: usize,
    patience: Duration,
) -> Result<(), RegionsError> {
    let name = run.names.get(region).cloned().unwrap_or_default();
    match run.until_live(&[region], patience).await? {
        Some(took) => {
            let name = format!("{name}: from its return until its lag was that of a live region, under load");
            run.tell(vec![Finding::plain(name, "s", took.as_secs_f64())])
        }
        None => Ok(run.report.violation(format!("{name} is not live {patience:?} after its return"))?),
    }
}
