//! What a fleet costs while nothing happens: calls to the state table, reads, memory, CPU.

use tokio::time::{Instant, sleep};

use super::rig::Rig;
use super::{FleetError, expect_balance};
use crate::report::{Report, Target};
use crate::streams::Operation;
use crate::usage::Usage;

/// Days of 24 hours, 30 of them.
const SECONDS_PER_MONTH: f64 = 30.0 * 24.0 * 3_600.0;
/// AWS, us-east-1, on demand: a million write request units of a standard table.
const WRITE_UNITS_DOLLARS: f64 = 0.625;
/// The same of read request units.
const READ_UNITS_DOLLARS: f64 = 0.125;
/// AWS, us-east-1: a million GetRecords calls of DynamoDB Streams ($0.02 for 100,000).
const STREAM_READS_DOLLARS: f64 = 0.20;

const WRITES_PER_SECOND_TARGET: f64 = 25.0;
const MEMORY_TARGET_MIB: f64 = 150.0;
const KIB_PER_MIB: f64 = 1024.0;

/// Watches a balanced fleet that has nothing to do.
pub(super) async fn run(rig: &mut Rig, report: &mut Report) -> Result<(), FleetError> {
    report.scenario("idle")?;
    rig.calm().await?;
    let (calls, reads) = (rig.dynamodb.calls(), rig.fake().calls(Operation::GetRecords));
    let (usages, since) = (rig.usages(), Instant::now());
    sleep(rig.options.idle).await;
    let seconds = since.elapsed().as_secs_f64();
    let (after, calls) = (rig.usages(), rig.dynamodb.calls().since(calls));
    let reads = rig.fake().calls(Operation::GetRecords).saturating_sub(reads);
    rig.check_running()?;

    report.note(format!("watched for {seconds:.0} s"))?;
    let rate = |count: f64| vec![count / seconds];
    let monthly = |count: f64, dollars: f64| vec![count / seconds * SECONDS_PER_MONTH / 1e6 * dollars];
    let writes = calls.writes as f64;
    report.figure(
        "writes to the state table",
        "/s",
        rate(writes),
        Some(Target::AtMost(WRITES_PER_SECOND_TARGET)),
    )?;
    report.figure("write request units", "/s", rate(calls.write_units), None)?;
    report.figure("reads of the state table, by page", "/s", rate(calls.reads as f64), None)?;
    report.figure("read request units", "/s", rate(calls.read_units), None)?;
    report.figure("bytes of these reads", "KiB/s", rate(calls.read_bytes as f64 / 1024.0), None)?;
    let (write_cost, read_cost) =
        (monthly(calls.write_units, WRITE_UNITS_DOLLARS), monthly(calls.read_units, READ_UNITS_DOLLARS));
    report.figure("cost of the writes", "$/month", write_cost, None)?;
    report.figure("cost of the reads", "$/month", read_cost, None)?;
    report.figure("GetRecords calls", "/s", rate(reads as f64), None)?;
    report.figure("cost of these", "$/month", monthly(reads as f64, STREAM_READS_DOLLARS), None)?;
    report.note(format!(
        "prices: us-east-1 on demand, ${WRITE_UNITS_DOLLARS} and ${READ_UNITS_DOLLARS} for a million write and read \
         request units, ${STREAM_READS_DOLLARS:.2} for a million GetRecords; a month has 30 days"
    ))?;
    let pairs: Vec<(Usage, Usage)> = usages.into_iter().zip(after).collect();
    let resident = pairs.iter().map(|(_, after)| after.resident_kib as f64 / KIB_PER_MIB).collect();
    let resident_max = |(_, after): &(Usage, Usage)| after.resident_max_kib as f64 / KIB_PER_MIB;
    let resident_max: Vec<f64> = pairs.iter().map(resident_max).collect();
    let most = resident_max.iter().copied().fold(f64::NAN, f64::max);
    let cpu = pairs
        .iter()
        .map(|(before, after)| 100.0 * after.cpu.saturating_sub(before.cpu).as_secs_f64() / seconds);
    report.figure("memory of each worker, resident", "MiB", resident, None)?;
    report.figure(
        "most memory of any worker since its start",
        "MiB",
        vec![most],
        Some(Target::AtMost(MEMORY_TARGET_MIB)),
    )?;
    report.figure("CPU of each worker", "% of a core", cpu.collect(), None)?;
    expect_balance(rig, report).await.map(|_| ())
}
