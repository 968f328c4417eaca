//! A scenario is a list of steps. Whatever they were, in the end the faults are gone and every region catches up.

use std::time::Duration;

use tokio::time::sleep;
use warmcast_sandbox::daemon::WorkerTiming;
use warmcast_sandbox::faults::{CallError, CallErrors, Capacity, Faults, Loss};
use warmcast_sandbox::regions::{RegionsError, Rig, RigOptions};

/// Beyond what a loaded machine needs for anything here; a condition that takes longer is a failure.
const PATIENCE: Duration = Duration::from_secs(60);
/// One image is so large that the share of a region is filled by some dozens.
const IMAGE_BYTES: usize = 20_000;

/// Something that happens.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// So many updates, evenly over so many milliseconds.
    Load { updates: u64, ms: u64 },
    /// These regions fail like this.
    Fail(&'static [usize], Fail),
    /// They are back.
    Back(&'static [usize]),
    /// They get everything that was put so far, whatever the others do.
    HaveEverything(&'static [usize]),
    /// This region is parked on a shard at least.
    IsParked(usize),
    /// Every shard of the table's stream ends and has a child.
    RollOver,
    /// kill -9 of an aggregator, and it is started again.
    KillAndRestart(usize),
    /// SIGTERM to an aggregator, which must end well.
    Stop(usize),
    /// Every aggregator that does not run is started.
    Start,
}

/// How a region fails.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fail {
    /// Nothing is answered.
    BlackHole,
    /// Connections are refused.
    Refused,
    /// A part of everything that there is, at random.
    Moody,
    /// Each of its shards takes what it was sent in a second of the load so far, and no more.
    ExactlyItsShare,
    /// Each of its shards takes so many bytes a second.
    Throttled(u64),
}

/// What is brought up: the regions' shares of the queue are small, and they are parked soon.
pub(crate) fn options() -> RigOptions {
    RigOptions {
        regions: 4,
        image_bytes: IMAGE_BYTES,
        keys: 200,
        timing: WorkerTiming {
            lease_duration_ms: Some(3_000),
            heartbeat_interval_ms: Some(500),
            idle_poll_max_ms: Some(100),
            ..WorkerTiming::of_a_short_life()
        },
        settings: ["queue.bytes_max=16777216", "parking.after_ms=1000", "parking.queue_bytes_max=4194304"]
            .map(str::to_owned)
            .into(),
        ..RigOptions::default()
    }
}

/// Goes through the steps, and then expects that every region gets everything, that nobody stays parked, and that
/// every row is what it should be. Of a failure the logs are kept.
pub(crate) async fn play(options: RigOptions, steps: &[Step]) {
    let mut rig = Rig::start(&options).await.unwrap();
    if let Err(failure) = go_through(&mut rig, steps).await {
        rig.keep_directory();
        panic!("{failure}\nof {steps:?}; logs are in {}", rig.directory().display());
    }
    rig.stop().await.unwrap();
}

async fn go_through(rig: &mut Rig, steps: &[Step]) -> Result<(), String> {
    let failed = |step: &str, error: RegionsError| format!("{step}: {error}");
    rig.start_aggregators().map_err(|error| failed("start", error))?;
    for step in steps {
        take(rig, step).await.map_err(|error| failed(&format!("{step:?}"), error))?;
    }
    let all: Vec<usize> = (0..rig.regions().len()).collect();
    all.iter().for_each(|region| back(rig, *region));
    rig.have_everything(&all, PATIENCE).await.map_err(|error| failed("in the end", error))?;
    for region in &all {
        rig.is_parked(*region, false, PATIENCE).await.map_err(|error| failed("in the end", error))?;
    }
    for comparison in rig.compare().await.map_err(|error| failed("compare", error))? {
        if !comparison.agrees() || comparison.keys == 0 {
            return Err(format!("a region has other rows than it should: {comparison:?}"));
        }
    }
    let undecodable: u64 = rig.regions().iter().map(|region| region.undecodable()).sum();
    if undecodable == 0 { Ok(()) } else { Err(format!("{undecodable} records were not understood")) }
}

async fn take(rig: &mut Rig, step: &Step) -> Result<(), RegionsError> {
    match step {
        Step::Load { updates, ms } => {
            let load = rig.source().start_load(updates * 1_000 / ms);
            // As long as the load lasts.
            sleep(Duration::from_millis(*ms)).await;
            load.stop().await?;
        }
        Step::Fail(regions, how) => regions.iter().for_each(|region| fail(rig, *region, *how)),
        Step::Back(regions) => regions.iter().for_each(|region| back(rig, *region)),
        Step::HaveEverything(regions) => {
            rig.have_everything(regions, PATIENCE).await?;
        }
        Step::IsParked(region) => rig.is_parked(*region, true, PATIENCE).await?,
        Step::RollOver => rig.source().roll_over()?,
        Step::KillAndRestart(number) => {
            let aggregator = &mut rig.aggregators_mut()[*number];
            aggregator.kill().await?;
            aggregator.start()?;
        }
        Step::Stop(number) => {
            rig.stop_aggregator(*number).await?;
        }
        Step::Start => rig.start_aggregators()?,
    }
    Ok(())
}

fn fail(rig: &Rig, region: usize, how: Fail) {
    let proxy = rig.regions()[region].faults();
    proxy.set(match how {
        Fail::BlackHole => Faults::black_hole(),
        Fail::Refused => Faults { refused: true, ..Faults::default() },
        Fail::Moody => Faults {
            resets: Some(Loss { share: 0.1, reaching: 0.5 }),
            call_errors: Some(CallErrors { share: 0.1, error: CallError::InternalFailure }),
            entry_failures: 0.1,
            ..Faults::default()
        },
        Fail::ExactlyItsShare => {
            let busiest = proxy.seconds().iter().map(|second| second.entry_bytes).max().unwrap_or_default();
            throttled(busiest / 4)
        }
        Fail::Throttled(bytes) => throttled(bytes),
    });
}

fn throttled(bytes_per_second: u64) -> Faults {
    Faults { capacity: Some(Capacity { bytes_per_second, ..Capacity::OF_A_SHARD }), ..Faults::default() }
}

/// The connections that hang are ended first, so that nobody waits for their timeouts.
fn back(rig: &Rig, region: usize) {
    let proxy = rig.regions()[region].faults();
    proxy.cut_connections();
    proxy.clear();
}
