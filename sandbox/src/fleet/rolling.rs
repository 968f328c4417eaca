//! A rolling restart of the whole fleet under load: what is lost, repeated, and held up.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::load::{Load, LoadOptions, Written};
use super::rig::{Rig, clean_end};
use super::{FleetError, expect_balance};
use crate::checkpoints::read_frames;
use crate::report::{Report, Target};
use crate::streams::Operation;

/// A steady load, before and after, if the idle fleet is not watched for less.
const STEADY_MAX: Duration = Duration::from_secs(5);
/// The shards of a worker that was stopped must be with others within this time.
const TAKE_OVER_PATIENCE: Duration = Duration::from_secs(120);
/// After the last record everything must be in Kinesis within this time, or it counts as lost. The child of a shard that
/// ended while its worker stopped may have to wait for a listing of all shards.
const ARRIVAL_PATIENCE: Duration = Duration::from_secs(300);
const ARRIVAL_INTERVAL: Duration = Duration::from_millis(500);

/// Restarts one worker after the other while records come in.
pub(super) async fn run(rig: &mut Rig, report: &mut Report) -> Result<(), FleetError> {
    report.scenario("rolling restart")?;
    let load = LoadOptions {
        records_per_second: rig.options.records_per_second,
        shards: rig.options.loaded_shards,
        image_bytes: rig.options.image_bytes,
    };
    let mut figures = Figures::default();
    for run in 0..rig.options.runs {
        let since = Instant::now();
        once(rig, report, load, &mut figures).await?;
        report.progress(run, since.elapsed())?;
        expect_balance(rig, report).await?;
    }
    report.note(format!(
        "{} records a second of about {} bytes into {} shards, one rollover every 0.5 s",
        load.records_per_second, load.image_bytes, load.shards
    ))?;
    report.figure("records put", "records", figures.put, None)?;
    report.figure("rollovers meanwhile", "shards", figures.rollovers, None)?;
    report.figure("records lost", "records", figures.lost, Some(Target::AtMost(0.0)))?;
    report.figure("records read twice", "records", figures.read_twice, None)?;
    report.figure("records in Kinesis twice", "records", figures.sent_twice, None)?;
    report.figure("restarting all of them", "s", figures.restarting, None)?;
    report.figure("largest pause of any loaded shard", "s", figures.pause, None)?;
    report.figure("the same before the restarts", "s", figures.pause_before, None)?;
    let name = "longest time from a rollover until the child was read first";
    report.figure(name, "s", figures.child_wait, None)?;
    report.figure("from the last record until all were in Kinesis", "s", figures.arrival, None)?;
    Ok(())
}

#[derive(Debug, Default)]
struct Figures {
    put: Vec<f64>,
    rollovers: Vec<f64>,
    lost: Vec<f64>,
    read_twice: Vec<f64>,
    sent_twice: Vec<f64>,
    restarting: Vec<f64>,
    pause: Vec<f64>,
    pause_before: Vec<f64>,
    child_wait: Vec<f64>,
    arrival: Vec<f64>,
}

async fn once(
    rig: &mut Rig,
    report: &mut Report,
    options: LoadOptions,
    figures: &mut Figures,
) -> Result<(), FleetError> {
    let steady = rig.options.idle.min(STEADY_MAX);
    let (delivered_before, again_before) = rig.fake().delivered(&rig.arn)?;
    let load = Load::start(rig.fake(), &rig.arn, options)?;
    // A shard that was idle is read often again when its owner has found the first record.
    rig.calm().await?;
    rig.fake().reset_pauses(&rig.arn)?;
    sleep(steady).await;
    let before = rig.fake().pauses(&rig.arn)?;
    rig.fake().reset_pauses(&rig.arn)?;
    let since = Instant::now();
    for index in 0..rig.workers.len() {
        restart(rig, index).await?;
    }
    figures.restarting.push(since.elapsed().as_secs_f64());
    sleep(steady).await;
    let pauses = rig.fake().pauses(&rig.arn)?;
    let written = load.stop().await?;
    let loaded = |pauses: Vec<(Arc<str>, Duration)>| {
        let of_loaded = pauses.into_iter().filter(|(shard, _)| written.shards.contains(shard));
        of_loaded.map(|(_, pause)| pause.as_secs_f64()).fold(0.0, f64::max)
    };
    figures.pause_before.push(loaded(before));
    figures.pause.push(loaded(pauses).max(ended_pause(rig, &written)?));
    let Arrived { lost, sent_twice, took } = arrived(rig, &written, delivered_before - again_before).await?;
    figures.arrival.push(took.as_secs_f64());
    let (unread, child_wait) = child_wait(rig, &written)?;
    figures.child_wait.push(child_wait.as_secs_f64());
    if unread > 0 {
        report.violation(format!("{unread} of {} child shards were never read", written.children.len()))?;
    }
    if lost > 0 {
        report
            .violation(format!("{lost} of {} records are not in Kinesis", written.items.clone().count()))?;
    }
    let (_, again) = rig.fake().delivered(&rig.arn)?;
    figures.put.push(written.items.clone().count() as f64);
    figures.rollovers.push(written.children.len() as f64);
    figures.lost.push(lost as f64);
    figures.sent_twice.push(sent_twice as f64);
    figures.read_twice.push(again.saturating_sub(again_before) as f64);
    Ok(())
}

/// As an orchestrator does it: the next one when this one works. That is not so quick that the worker finds its
/// own shards still free: others have them first.
async fn restart(rig: &mut Rig, index: usize) -> Result<(), FleetError> {
    let name = rig.worker(index)?.name().to_owned();
    let shards = rig.read_by(&name)?;
    let since = Instant::now();
    let worker = rig.worker(index)?;
    let ended = worker.terminate().await;
    clean_end(worker, ended)?;
    rig.taken_over(&shards, &name, since, TAKE_OVER_PATIENCE).await?;
    let before = rig.fake().calls_by(&name, Operation::GetRecords);
    rig.worker(index)?.start()?;
    rig.reads(&name, before).await.map(|_| ())
}

/// The largest pause of the loaded shards that ended meanwhile.
fn ended_pause(rig: &Rig, written: &Written) -> Result<f64, FleetError> {
    let mut most: f64 = 0.0;
    for shard in &written.shards {
        let reads = rig.fake().reads(&rig.arn, shard)?;
        if let Some(reads) = reads.filter(|reads| !reads.open) {
            most = most.max(reads.pause_max.as_secs_f64());
        }
    }
    Ok(most)
}

/// How many children were never read, and the longest that one was not.
fn child_wait(rig: &Rig, written: &Written) -> Result<(usize, Duration), FleetError> {
    let (mut unread, mut most) = (0, Duration::ZERO);
    for (child, since) in &written.children {
        match rig.fake().reads(&rig.arn, child)?.and_then(|reads| reads.first_read_at) {
            Some(at) => most = most.max(at.saturating_duration_since(*since)),
            None => unread += 1,
        }
    }
    Ok((unread, most))
}

struct Arrived {
    /// Records that are not in Kinesis.
    lost: usize,
    /// Records that are there more than once.
    sent_twice: usize,
    took: Duration,
}

/// Waits until every record is in Kinesis.
async fn arrived(rig: &mut Rig, written: &Written, read_before: u64) -> Result<Arrived, FleetError> {
    let since = Instant::now();
    let expected: BTreeSet<Vec<u8>> =
        written.items.clone().map(|n| format!("item-{n}").into_bytes()).collect();
    loop {
        rig.check_running()?;
        let (delivered, again) = rig.fake().delivered(&rig.arn)?;
        let read = delivered.saturating_sub(again).saturating_sub(read_before);
        if read < expected.len() as u64 && since.elapsed() < ARRIVAL_PATIENCE {
            // Not even read yet: no need to look through Kinesis, which takes a while.
            sleep(ARRIVAL_INTERVAL).await;
            continue;
        }
        let mut seen: HashMap<Vec<u8>, usize> = HashMap::with_capacity(expected.len());
        for change in
            read_frames(&rig.kinesis, |_, _| true).await?.into_iter().flat_map(|frame| frame.effects)
        {
            *seen.entry(change.key.to_vec()).or_default() += 1;
        }
        let lost = expected.iter().filter(|key| !seen.contains_key(*key)).count();
        if lost == 0 || since.elapsed() > ARRIVAL_PATIENCE {
            let twice = seen.iter().filter(|(key, count)| **count > 1 && expected.contains(*key)).count();
            return Ok(Arrived { lost, sent_twice: twice, took: since.elapsed() });
        }
        // Kinesis tells of what has come only when asked.
        sleep(ARRIVAL_INTERVAL).await;
    }
}
