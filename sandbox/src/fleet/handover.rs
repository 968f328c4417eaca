//! One worker of a balanced, idle fleet goes: killed, or asked to stop.
//!
//! Idle shards are read only now and then, so what is timed is the first read by another worker than the one that
//! went: the new owner's first.

use std::time::Duration;

use tokio::time::Instant;

use super::rig::{Rig, clean_end};
use super::{FleetError, expect_balance};
use crate::report::{Report, Target};

const PATIENCE: Duration = Duration::from_secs(120);

/// How the worker goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Going {
    /// kill -9.
    Killed,
    /// SIGTERM.
    Stopped,
}

impl Going {
    fn scenario(self) -> &'static str {
        match self {
            Self::Killed => "kill",
            Self::Stopped => "stop",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Killed => "from kill -9 of one worker until others had read each of its shards",
            Self::Stopped => "from SIGTERM to one worker until others had read each of its shards",
        }
    }

    /// With leases of 10 s. A stop does not wait for a lease to expire.
    fn target_s(self) -> f64 {
        match self {
            Self::Killed => 15.0,
            Self::Stopped => 2.0,
        }
    }
}

/// Another worker goes in each run, and comes back after it.
pub(super) async fn run(rig: &mut Rig, report: &mut Report, going: Going) -> Result<(), FleetError> {
    report.scenario(going.scenario())?;
    let (mut taken_over, mut pauses, mut back) = (Vec::new(), Vec::new(), Vec::new());
    let mut shards = Vec::new();
    for run in 0..rig.options.runs {
        rig.calm().await?;
        let gone = once(rig, run, going).await?;
        report.progress(run, gone.taken_over)?;
        shards.push(gone.shards as f64);
        taken_over.push(gone.taken_over.as_secs_f64());
        pauses.push(gone.pause_max.as_secs_f64());
        // Those that stay have everything between them.
        expect_balance(rig, report).await?;
        rig.start_workers()?;
        back.extend(expect_balance(rig, report).await?.map(|took| took.as_secs_f64()));
    }
    report.figure("live shards of that worker", "shards", shards, None)?;
    report.figure(going.name(), "s", taken_over, Some(Target::AtMost(going.target_s())))?;
    report.figure("largest pause of any of these shards", "s", pauses, None)?;
    report.note(format!(
        "in that pause are up to {} ms that an idle shard is left alone in any case",
        rig.options.idle_poll_max_ms
    ))?;
    report.figure("from starting it again until the fleet was balanced", "s", back, None)?;
    Ok(())
}

struct Gone {
    shards: usize,
    taken_over: Duration,
    pause_max: Duration,
}

async fn once(rig: &mut Rig, run: usize, going: Going) -> Result<Gone, FleetError> {
    let name = rig.worker(run)?.name().to_owned();
    let shards = rig.read_by(&name)?;
    rig.fake().reset_pauses(&rig.arn)?;
    let since = Instant::now();
    let taken_over = match going {
        Going::Killed => {
            rig.worker(run)?.kill().await?;
            rig.taken_over(&shards, &name, since, PATIENCE).await?
        }
        Going::Stopped => {
            // It ends while its shards are watched.
            let index = run % rig.workers.len().max(1);
            let mut worker = rig.workers.remove(index);
            let (taken_over, ended) =
                tokio::join!(rig.taken_over(&shards, &name, since, PATIENCE), worker.terminate());
            let ended = clean_end(&worker, ended);
            rig.workers.insert(index, worker);
            ended?;
            taken_over?
        }
    };
    let pauses = rig.fake().pauses(&rig.arn)?;
    let pause_max = pauses.iter().filter(|(shard, _)| shards.contains(shard)).map(|(_, pause)| *pause).max();
    Ok(Gone { shards: shards.len(), taken_over, pause_max: pause_max.unwrap_or_default() })
}
