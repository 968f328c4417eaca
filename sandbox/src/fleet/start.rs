//! From starting all workers until every live shard is read: with nothing in the state table, and as after a stop
//! of the whole fleet.

use std::time::Duration;

use super::rig::{DESCRIBES_PER_SECOND, Rig};
use super::{FleetError, expect_balance};
use crate::report::{Report, Target};
use crate::streams::Operation;
use crate::usage::Usage;

/// Shards of one page of DescribeStream (AWS: at most 100).
const SHARDS_PER_PAGE: usize = 100;
/// Pages a second that the aggregator asks for: one in 150 ms, below the limit of 10 which it shares.
const PAGES_PER_SECOND: f64 = 1_000.0 / 150.0;
/// What it may take beside listing and reading.
const PATIENCE: Duration = Duration::from_secs(120);
/// AWS limits nothing about a warm start: it is ours.
const WARM_TARGET_S: f64 = 10.0;

/// The first start of a fleet: nobody ever consumed the stream. Leaves a balanced fleet.
pub(super) async fn cold(rig: &mut Rig, report: &mut Report) -> Result<(), FleetError> {
    report.scenario("cold start")?;
    let listed = rig.options.live * rig.options.generations;
    let pages = listed.div_ceil(SHARDS_PER_PAGE);
    let paced = Duration::from_secs_f64(pages as f64 / PAGES_PER_SECOND);
    let since = rig.start_workers()?;
    let elapsed = rig.all_read(since, PATIENCE + 2 * paced).await?;
    report.figure(
        "from starting the processes until every live shard was read",
        "s",
        vec![elapsed.as_secs_f64()],
        None,
    )?;
    let describes = rig.fake().calls(Operation::DescribeStream);
    let rate = rig.fake().describes_per_second_max(&rig.arn)?;
    report.note(format!(
        "{pages} pages list the {listed} shards: {:.1} s at the service's {DESCRIBES_PER_SECOND} DescribeStream a second, \
         {:.1} s at the {PAGES_PER_SECOND:.1} a second that a worker allows itself, with or without the limit; \
         {describes} calls were made, at most {rate} in any second",
        pages as f64 / f64::from(DESCRIBES_PER_SECOND),
        pages as f64 / PAGES_PER_SECOND,
    ))?;
    expect_balance(rig, report).await.map(|_| ())
}

/// Stops the fleet and starts it again, so often as asked for.
pub(super) async fn warm(rig: &mut Rig, report: &mut Report) -> Result<(), FleetError> {
    report.scenario("warm start")?;
    let (mut read, mut stopped) = (Vec::new(), Vec::new());
    let (mut balanced, mut writes, mut refused, mut reads) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut workers_cpu, mut servers_cpu) = (Vec::new(), Vec::new());
    for run in 0..rig.options.runs {
        let since = tokio::time::Instant::now();
        rig.stop_workers().await?;
        stopped.push(since.elapsed().as_secs_f64());
        let (calls, servers_before) = (rig.dynamodb.calls(), own_cpu());
        let since = rig.start_workers()?;
        let took = rig.all_read(since, PATIENCE).await?;
        report.progress(run, took)?;
        read.push(took.as_secs_f64());
        // What a busy machine does not change as much as it does the time.
        workers_cpu.push(rig.workers_cpu().as_secs_f64());
        servers_cpu.push(own_cpu().saturating_sub(servers_before).as_secs_f64());
        let calls = rig.dynamodb.calls().since(calls);
        writes.push(calls.writes as f64);
        refused.push(calls.refused as f64);
        reads.push(calls.read_units);
        balanced.extend(expect_balance(rig, report).await?.map(|took| took.as_secs_f64()));
    }
    let name = "from starting the processes until every live shard was read";
    report.figure(name, "s", read, Some(Target::AtMost(WARM_TARGET_S)))?;
    report.figure("CPU time of the workers for it", "s", workers_cpu, None)?;
    report.figure("CPU time of the servers they talk to", "s", servers_cpu, None)?;
    report.figure("writes to the state table for it", "calls", writes, None)?;
    report.figure("of these refused, because another worker was faster", "calls", refused, None)?;
    report.figure("reads of the state table for it", "read request units", reads, None)?;
    report.figure("from then until the fleet was balanced", "s", balanced, None)?;
    report.figure("stopping the whole fleet before it", "s", stopped, None)?;
    Ok(())
}

/// All servers are in this process.
fn own_cpu() -> Duration {
    Usage::of(std::process::id()).unwrap_or_default().cpu
}
