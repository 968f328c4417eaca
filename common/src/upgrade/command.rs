//! The command: lock, wait, run, wait, release.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::process::Command;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::args::UpgradeArgs;
use super::lock::HeldLock;
use super::settled::{Before, not_back, unsettled};
use crate::clock::now_ms;
use crate::consumer::store::{Heartbeat, StateStore};
use crate::daemon::{Outcome, host_name, print};
use crate::status::{Criteria, Look, StreamName, Summary, Survey, ago};

/// Pause between two looks at the fleet.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// Pause between two tries to take the lock.
const LOCK_INTERVAL: Duration = Duration::from_secs(1);
/// What is in the way is told again after so long.
const TELL_INTERVAL: Duration = Duration::from_secs(30);
/// So many reasons are told.
const REASONS_MAX: usize = 8;

/// The fleet that is upgraded, as its daemon knows it.
#[derive(Debug)]
pub struct Fleet<S, C> {
    /// Its state table.
    pub store: StateStore,
    /// The name of the worker that is configured.
    pub worker_id: String,
    /// How long a heartbeat may stand still.
    pub lease_duration: Duration,
    /// The streams that it reads, of what its workers say.
    pub streams: S,
    /// What a look is judged by.
    pub criteria: C,
}

/// The looks at a fleet.
struct Eyes<S, C> {
    survey: Survey,
    streams: S,
    criteria: C,
    watermark_bound_ms: u64,
}

/// What one look found.
struct Seen {
    look: Look,
    summary: Summary,
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
/// When nothing was restarted: the lock or a settled fleet was not there in time, something cannot be read, or a signal came.
pub async fn upgrade<S, C>(
    args: UpgradeArgs,
    fleet: Fleet<S, C>,
    shutdown: CancellationToken,
) -> Result<Outcome, anyhow::Error>
where
    S: AsyncFn(&StateStore, &[Heartbeat]) -> Result<Vec<StreamName>, anyhow::Error>,
    C: Fn(&Look) -> Criteria,
{
    let worker = args.worker.clone().unwrap_or(fleet.worker_id);
    let mut eyes = Eyes {
        survey: Survey::new(fleet.store.clone(), None, fleet.lease_duration),
        streams: fleet.streams,
        criteria: fleet.criteria,
        watermark_bound_ms: u64::try_from(args.watermark_bound.as_millis()).unwrap_or(u64::MAX),
    };
    if args.dry_run {
        let looking = Box::pin(dry_run(&args, &mut eyes, &fleet.store, &worker, fleet.lease_duration));
        return shutdown.run_until_cancelled(looking).await.context("stopped by a signal")?;
    }
    let began = Instant::now();
    let locking = lock(&fleet.store, &worker, began + args.wait);
    let mut held = shutdown.run_until_cancelled(locking).await.context("stopped by a signal")??;
    tell(&format!("has the restart lock for worker {worker}"));
    let wanted = wanted(held.unfinished(), &worker, &args.lost);
    let settling = Box::pin(eyes.until_settled(&wanted, began + args.wait));
    let settled = shutdown.run_until_cancelled(held.during(settling)).await;
    let before = match settled {
        Some(Ok(Ok(seen))) => seen,
        other => {
            // Nothing was done, so nobody need look after the worker.
            held.release(true, &BTreeSet::new()).await;
            match other {
                None => bail!("stopped by a signal; nothing was restarted"),
                Some(Err(lost)) => return Err(lost.into()),
                Some(Ok(result)) => return result.map(|_| Outcome::Problems),
            }
        }
    };
    let settled = Instant::now();
    tell("the fleet is settled; running the command");
    let status = run(&args, &mut held, &shutdown).await?;
    if !status.success() {
        held.release(false, &BTreeSet::new()).await;
        tell(&format!("the command ended with {status}; the restart of worker {worker} counts as not ended"));
        return Ok(status
            .code()
            .and_then(|code| u8::try_from(code).ok())
            .map_or(Outcome::Problems, Outcome::Code));
    }
    let times = Times { began, settled, ran: Instant::now() };
    let before = before.before(&worker);
    let returning = Box::pin(eyes.until_back(&worker, &before, &wanted, times.ran + args.back));
    match shutdown.run_until_cancelled(held.during(returning)).await {
        Some(Ok(Ok(seen))) => {
            held.release(true, &seen.living()).await;
            print(&times.report(&worker)).context("write to standard output")?;
            Ok(Outcome::Done)
        }
        Some(Err(lost)) => {
            tell(&format!("worker {worker} was restarted; {lost}"));
            Ok(Outcome::Problems)
        }
        other => {
            held.release(false, &BTreeSet::new()).await;
            let why = match other {
                Some(Ok(Err(error))) => format!("{error:#}"),
                _ => "stopped by a signal".to_owned(),
            };
            tell(&format!("worker {worker} was restarted, and was not seen to be back: {why}"));
            Ok(Outcome::Problems)
        }
    }
}

/// Workers that must live: those whose restart was not seen to end, but for the one that is restarted and those given up.
fn wanted(unfinished: &BTreeSet<String>, worker: &str, lost: &[String]) -> BTreeSet<String> {
    unfinished.iter().filter(|name| *name != worker && !lost.contains(name)).cloned().collect()
}

async fn lock(store: &StateStore, worker: &str, until: Instant) -> Result<HeldLock, anyhow::Error> {
    let owner = format!("{}/{}-{:08x}", host_name(), std::process::id(), fastrand::u32(..));
    let mut told = Teller::default();
    loop {
        let why = match HeldLock::take(store, &owner, worker).await {
            Ok(Ok(held)) => return Ok(held),
            Ok(Err(other)) => match other.held_by(now_ms()) {
                Some(holder) => format!(
                    "{} restarts worker {}, since {}",
                    holder.owner,
                    holder.worker,
                    ago(now_ms().saturating_sub(holder.since_ms))
                ),
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

/// Runs the command to its end.
async fn run(
    args: &UpgradeArgs,
    held: &mut HeldLock,
    shutdown: &CancellationToken,
) -> Result<std::process::ExitStatus, anyhow::Error> {
    let (program, arguments) = args.command.split_first().context("no command was given after --")?;
    let name = program.to_string_lossy().into_owned();
    let mut child = match Command::new(program).args(arguments).stdin(Stdio::null()).spawn() {
        Ok(child) => child,
        Err(error) => {
            // It is known that the worker was not touched; whether it lives, who is next sees.
            return Err(error).with_context(|| format!("run {name}; nothing was restarted"));
        }
    };
    let guarded = shutdown.run_until_cancelled(held.during(child.wait())).await;
    match guarded {
        Some(Ok(status)) => status.with_context(|| format!("wait for {name}")),
        // The restart is under way: another may begin, and this one cannot be taken back.
        Some(Err(lost)) => {
            tell(&format!("{lost}; waits for the command"));
            child.wait().await.with_context(|| format!("wait for {name}"))
        }
        None => bail!(
            "stopped by a signal while {name} ran, which goes on; the lock ends by itself, and who is next waits for the worker"
        ),
    }
}

async fn dry_run<S, C>(
    args: &UpgradeArgs,
    eyes: &mut Eyes<S, C>,
    store: &StateStore,
    worker: &str,
    patience: Duration,
) -> Result<Outcome, anyhow::Error>
where
    S: AsyncFn(&StateStore, &[Heartbeat]) -> Result<Vec<StreamName>, anyhow::Error>,
    C: Fn(&Look) -> Criteria,
{
    let lock = store.restart_lock().await?;
    let mut why = Vec::new();
    if let Some(holder) = lock.held_by(now_ms()) {
        why.push(format!("{} restarts worker {}", holder.owner, holder.worker));
    }
    let wanted = wanted(&lock.left_behind(now_ms()), worker, &args.lost);
    // Who lives shows by the next beats.
    why.extend(
        eyes.until(Instant::now() + patience, |seen, bound| unsettled(&seen.summary, &wanted, bound))
            .await?
            .err()
            .unwrap_or_default(),
    );
    let text = match why.is_empty() {
        true => format!("worker {worker} could be restarted now\n"),
        false => format!("worker {worker} could not be restarted now:\n  {}\n", why.join("\n  ")),
    };
    print(&text).context("write to standard output")?;
    Ok(if why.is_empty() { Outcome::Done } else { Outcome::Problems })
}

impl<S, C> Eyes<S, C>
where
    S: AsyncFn(&StateStore, &[Heartbeat]) -> Result<Vec<StreamName>, anyhow::Error>,
    C: Fn(&Look) -> Criteria,
{
    async fn look(&mut self) -> Result<Seen, anyhow::Error> {
        let heartbeats = self.survey.heartbeats().await?;
        let streams = (self.streams)(self.survey.store(), &heartbeats).await?;
        let look = self.survey.look(streams).await?;
        let summary = Summary::of(&look, self.survey.observer(), &(self.criteria)(&look));
        Ok(Seen { look, summary })
    }

    /// Looks until `judge` has nothing to say. The other answer is what it says last. A look that fails is made again.
    async fn until(
        &mut self,
        until: Instant,
        judge: impl Fn(&Seen, u64) -> Vec<String>,
    ) -> Result<Result<Seen, Vec<String>>, anyhow::Error> {
        let mut told = Teller::default();
        loop {
            let why = match Box::pin(self.look()).await {
                Ok(seen) => {
                    let why = judge(&seen, self.watermark_bound_ms);
                    if why.is_empty() {
                        return Ok(Ok(seen));
                    }
                    why
                }
                Err(error) => vec![format!("{error:#}")],
            };
            if Instant::now() + LOOK_INTERVAL > until {
                return Ok(Err(why));
            }
            told.wait("waits for the fleet", &why);
            sleep(LOOK_INTERVAL).await;
        }
    }

    async fn until_settled(
        &mut self,
        wanted: &BTreeSet<String>,
        until: Instant,
    ) -> Result<Seen, anyhow::Error> {
        let seen = self.until(until, |seen, bound| unsettled(&seen.summary, wanted, bound)).await?;
        seen.map_err(|why| {
            anyhow::anyhow!("the fleet was not settled in time, and nothing was restarted: {}", join(&why))
        })
    }

    async fn until_back(
        &mut self,
        worker: &str,
        before: &Before,
        wanted: &BTreeSet<String>,
        until: Instant,
    ) -> Result<Seen, anyhow::Error> {
        let judge = |seen: &Seen, bound| {
            let mut why = not_back(&seen.summary, &seen.look.heartbeats, worker, before);
            why.extend(unsettled(&seen.summary, wanted, bound));
            why
        };
        self.until(until, judge).await?.map_err(|why| anyhow::anyhow!(join(&why)))
    }
}

impl Seen {
    fn before(&self, worker: &str) -> Before {
        let beat = self.look.heartbeats.iter().find(|beat| beat.worker == worker);
        Before { instance: beat.map(|beat| beat.instance.clone()), watermark_ms: self.summary.watermark.ms }
    }

    fn living(&self) -> BTreeSet<String> {
        let alive = self.summary.workers.iter().filter(|worker| worker.state == "alive");
        alive.map(|worker| worker.worker.clone()).collect()
    }
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

fn join(why: &[String]) -> String {
    let more = why.len().saturating_sub(REASONS_MAX);
    let shown = why.iter().take(REASONS_MAX).cloned().collect::<Vec<_>>().join("; ");
    if more > 0 { format!("{shown}; and {more} more") } else { shown }
}

/// Says what is waited for when that is news, and again now and then.
#[derive(Default)]
struct Teller {
    told: Option<(Instant, Vec<String>)>,
}

impl Teller {
    fn wait(&mut self, what: &str, why: &[String]) {
        // Numbers change all the time.
        let words = |why: &[String]| -> Vec<String> {
            why.iter().map(|why| why.chars().filter(|c| !c.is_ascii_digit()).collect()).collect()
        };
        let is_told =
            self.told.as_ref().is_some_and(|(at, told)| *told == words(why) && at.elapsed() < TELL_INTERVAL);
        if !is_told {
            self.told = Some((Instant::now(), words(why)));
            tell(&format!("{what}: {}", join(why)));
        }
    }
}

#[expect(clippy::print_stderr, reason = "the progress of a command, to whoever typed it")]
fn tell(what: &str) {
    eprintln!("{what}");
}
