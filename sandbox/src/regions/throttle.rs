//! One region's stream has a tenth of the capacity that it needs for a while, then enough again.

use super::outage::{catch_up, gone};
use super::rig::Rig;
use super::run::Run;
use super::verdict::{self, Finding};
use super::{RegionsError, RegionsOptions};
use crate::faults::{Capacity, Faults};
use crate::report::Report;

/// What is left of the capacity that is needed.
const SHARE_LEFT: f64 = 0.1;

pub(super) async fn run(
    rig: &mut Rig,
    report: &mut Report,
    options: &RegionsOptions,
) -> Result<(), RegionsError> {
    report.scenario("throttle")?;
    let slow = gone(options.regions);
    let mut run = Run::start(rig, report, options).await?;
    let baseline = run.watch(options.baseline).await?;
    let name = run.names.get(slow).cloned().unwrap_or_default();
    let (needed, capacity) = capacity_left(&run, slow, &baseline, options);
    if let Some(region) = run.rig.regions().get(slow) {
        run.report.line(&format!("{name} takes {capacity:?} for each shard for {:?}", options.throttle))?;
        region.faults().set(Faults { capacity: Some(capacity), ..Faults::default() });
    }
    let during = run.watch(options.throttle).await?;
    if let Some(region) = run.rig.regions().get(slow) {
        run.report.line(&format!("{name} takes everything again"))?;
        region.faults().clear();
    }
    catch_up(&mut run, slow, options.catch_up_patience()).await?;
    let allowed = options.allowance(options.throttle);
    let mut findings = verdict::load(run.phase(&baseline), allowed);
    findings.push(Finding::plain(format!("{name}: bytes that each shard needs"), "B/s", needed));
    findings.push(Finding::plain(
        format!("{name}: bytes that each shard takes"),
        "B/s",
        capacity.bytes_per_second as f64,
    ));
    findings.extend(verdict::throttled(&name, slow, run.phase(&during)));
    findings.extend(verdict::memory(run.phase(&baseline), run.phase(&during), allowed));
    run.tell(findings)?;
    run.finish().await
}

/// The bytes that each shard was sent in a second, and what is left to it.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate that was measured is not negative and far below 2^53"
)]
fn capacity_left(
    run: &Run<'_>,
    region: usize,
    baseline: &super::run::Looks,
    options: &RegionsOptions,
) -> (f64, Capacity) {
    let phase = run.phase(baseline);
    let shards = f64::from(options.rig.target_shards.max(1));
    let bytes = phase.traffic_rate(region, |traffic| traffic.entry_bytes) / shards;
    let records = phase.traffic_rate(region, |traffic| traffic.entries) / shards;
    let left = |needed: f64| (needed * SHARE_LEFT).max(1.0) as u64;
    (bytes, Capacity { bytes_per_second: left(bytes), records_per_second: left(records) })
}
