//! The command: lock, wait, run, wait, release.

use std::collections::BTreeSet;
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::args::UpgradeArgs;
use super::lock::{Ending, HeldLock};
use super::looks::{Eyes, Fleet, Seen};
use super::restart::{self, Restart};
use super::tell::{Teller, join, tell};
use crate::clock::now_ms;
use crate::consumer::store::{Heartbeat, RestartLock, StateStore};
use crate::daemon::{Outcome, host_name, print};
use crate::status::{Criteria, Look, StreamName, ago};

/// Pause between two tries to take the lock.
const LOCK_INTERVAL: Duration = Duration::from_secs(1);

/// Who is restarted, and what its restart goes by.
struct Upgrade<S, C> {
    args: UpgradeArgs,
    worker: String,
    store: StateStore,
    eyes: Eyes<S, C>,
    shutdown: CancellationToken,
}

/// The parts of an upgrade, timed.
struct Times {
    began: Instant,
    settled: Instant,
    ran: Instant,
}

/// Carries out `upgrade`.
///
/// # Errors
/// When nothing was restarted: the lock or a settled fleet was not there in time, the lock was lost, the command cannot be
/// run, or a signal came.
pub async fn upgrade<S, C>(
    args: UpgradeArgs,
    fleet: Fleet<S, C>,
    shutdown: CancellationToken,
) -> Result<Outcome, anyhow::Error>
where
    S: AsyncFn(&StateStore, &[Heartbeat]) -> Result<Vec<StreamName>, anyhow::Error>,
    C: Fn(&Look) -> Criteria,
{
    let worker = args.worker.clone().unwrap_or_else(|| fleet.worker_id.clone());
    let (store, patience) = (fleet.store.clone(), fleet.lease_duration);
    let eyes = Eyes::of(fleet, args.watermark_bound);
    let mut upgrade = Upgrade { args, worker, store, eyes, shutdown: shutdown.clone() };
    if upgrade.args.dry_run {
        let looking = Box::pin(upgrade.dry_run(patience));
        return shutdown.run_until_cancelled(looking).await.context("stopped by a signal")?;
    }
    Box::pin(upgrade.carry_out()).await
}

impl<S, C> Upgrade<S, C>
where
    S: AsyncFn(&StateStore, &[Heartbeat]) -> Result<Vec<StreamName>, anyhow::Error>,
    C: Fn(&Look) -> Criteria,
{
    async fn carry_out(&mut self) -> Result<Outcome, anyhow::Error> {
        let began = Instant::now();
        let locking = self.shutdown.run_until_cancelled(self.lock(began + self.args.wait)).await;
        let mut held = locking.context("stopped by a signal; nothing was restarted")??;
        tell(&format!("has the restart lock for worker {}", self.worker));
        let wanted = self.wanted(held.unfinished());
        let (seen, settled, restart) = match self.restart(&mut held, &wanted, began).await {
            Ok(restarted) => restarted,
            Err(error) => {
                held.release(Ending::NotBegun).await;
                return Err(error);
            }
        };
        match restart {
            Restart::Ended(status) if status.success() => {}
            Restart::Ended(status) => {
                held.release(Ending::NotSeen).await;
                tell(&format!(
                    "the command ended with {status}; the restart of worker {} counts as not ended",
                    self.worker
                ));
                return Ok(failed_as(status));
            }
            // The lock stays until it ends by itself: a minute for the command.
            Restart::UnderWay(why) => {
                tell(&format!(
                    "{why}; the lock ends by itself, and who is next waits for worker {}",
                    self.worker
                ));
                return Ok(Outcome::Problems);
            }
        }
        let times = Times { began, settled, ran: Instant::now() };
        self.see_back(held, &wanted, &seen, &times).await
    }

    /// Waits for a settled fleet, which is what it returns first, and since when; then restarts the worker.
    ///
    /// # Errors
    /// Nothing was restarted, and why.
    async fn restart(
        &mut self,
        held: &mut HeldLock,
        wanted: &BTreeSet<String>,
        began: Instant,
    ) -> Result<(Seen, Instant, Restart), anyhow::Error> {
        let settling = Box::pin(self.eyes.settled(wanted, began + self.args.wait));
        let seen = self.shutdown.run_until_cancelled(held.during(settling)).await;
        let seen = seen.context("stopped by a signal; nothing was restarted")?;
        let seen = seen.context("nothing was restarted")?.map_err(|why| {
            anyhow!("the fleet was not settled in time, and nothing was restarted: {}", join(&why))
        })?;
        let settled = Instant::now();
        tell("the fleet is settled; running the command");
        let restart = restart::run(&self.args.command, held, &self.shutdown).await?;
        Ok((seen, settled, restart))
    }

    /// Waits until the worker is back, and gives the lock up.
    async fn see_back(
        &mut self,
        mut held: HeldLock,
        wanted: &BTreeSet<String>,
        seen: &Seen,
        times: &Times,
    ) -> Result<Outcome, anyhow::Error> {
        let worker = &self.worker;
        let before = seen.before(worker);
        let returning = Box::pin(self.eyes.back(worker, &before, wanted, times.ran + self.args.back));
        let why = match self.shutdown.run_until_cancelled(held.during(returning)).await {
            Some(Ok(Ok(seen))) => {
                held.release(Ending::Back(seen.living())).await;
                print(&times.report(worker)).context("write to standard output")?;
                return Ok(Outcome::Done);
            }
            Some(Ok(Err(why))) => join(&why),
            Some(Err(lost)) => lost.to_string(),
            None => "stopped by a signal".to_owned(),
        };
        held.release(Ending::NotSeen).await;
        tell(&format!("worker {worker} was restarted, and was not seen to be back: {why}"));
        Ok(Outcome::Problems)
    }

    async fn dry_run(&mut self, patience: Duration) -> Result<Outcome, anyhow::Error> {
        let worker = &self.worker;
        let lock = self.store.restart_lock().await?;
        let mut why = Vec::new();
        if let Some(holder) = lock.held_by(now_ms()) {
            why.push(format!("{} restarts worker {}", holder.owner, holder.worker));
        }
        let wanted = self.wanted(&lock.left_behind(now_ms()));
        let settled = self.eyes.settled(&wanted, Instant::now() + patience).await;
        why.extend(settled.err().unwrap_or_default());
        let text = match why.is_empty() {
            true => format!("worker {worker} could be restarted now\n"),
            false => format!("worker {worker} could not be restarted now:\n  {}\n", why.join("\n  ")),
        };
        print(&text).context("write to standard output")?;
        Ok(if why.is_empty() { Outcome::Done } else { Outcome::Problems })
    }

    /// Workers that must live: those whose restart was not seen to end, but for the one that is restarted and those given
    /// up.
    fn wanted(&self, unfinished: &BTreeSet<String>) -> BTreeSet<String> {
        let is_wanted = |name: &&String| **name != self.worker && !self.args.lost.contains(name);
        unfinished.iter().filter(is_wanted).cloned().collect()
    }

    async fn lock(&self, until: Instant) -> Result<HeldLock, anyhow::Error> {
        let owner = format!("{}/{}-{:08x}", host_name(), std::process::id(), fastrand::u32(..));
        let mut told = Teller::default();
        loop {
            let why = match HeldLock::take(&self.store, &owner, &self.worker, &self.args.lost).await {
                Ok(Ok(held)) => return Ok(held),
                Ok(Err(other)) => match in_the_way(&other) {
                    Some(why) => why,
                    // It was given up, or taken and given up, meanwhile.
                    None => continue,
                },
                // A state table that does not answer now may in a minute.
                Err(error) => error.to_string(),
            };
            if Instant::now() + LOCK_INTERVAL > until {
                bail!("did not get the restart lock in time: {why}; nothing was restarted");
            }
            told.wait("waits for the restart lock", &[why]);
            sleep(LOCK_INTERVAL).await;
        }
    }
}

fn in_the_way(lock: &RestartLock) -> Option<String> {
    lock.held_by(now_ms()).map(|holder| {
        let since = ago(now_ms().saturating_sub(holder.since_ms));
        format!("{} restarts worker {}, since {since}", holder.owner, holder.worker)
    })
}

/// A command that fails ends this one as it ended.
fn failed_as(status: ExitStatus) -> Outcome {
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    code.map_or(Outcome::Problems, Outcome::Code)
}

impl Times {
    fn report(&self, worker: &str) -> String {
        let Self { began, settled, ran } = self;
        format!(
            "worker {worker} is restarted: {:.1} s until the lock and a settled fleet, {:.1} s for the command, {:.1} s \
             until the fleet was settled again\n",
            (*settled - *began).as_secs_f64(),
            (*ran - *settled).as_secs_f64(),
            ran.elapsed().as_secs_f64()
        )
    }
}
