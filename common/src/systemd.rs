//! What systemd is told of this process (sd_notify(3)), and by that what `systemctl status` shows and when it restarts it.
//!
//! - `READY=1` once the process has joined its fleet. Not when it is ready in the sense of [`Health::is_ready`]: a region
//!   that is cut off, or a cache that is away, needs time, and no restart.
//! - `WATCHDOG=1` at a third of the unit's `WatchdogSec=`, as long as the runtime that does the work runs tasks.
//! - `EXTEND_TIMEOUT_USEC=` while it starts and cannot join yet, and while it drains within its own deadline: so neither
//!   `TimeoutStartSec=` nor a short `TimeoutStopSec=` ends a process that gets on.
//! - `STATUS=`, a line for people; `STOPPING=1`.
//!
//! `RELOADING=1` is not among them: the configuration is read once. It has a thread of its own: so a runtime that hangs is
//! not only restarted, the journal says why. Without `NOTIFY_SOCKET` in the environment there is no thread.

use std::io;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::consumer::Lags;
use crate::health::{Health, JOINED};

/// Pause between two looks, where systemd has no watchdog on this process.
const INTERVAL: Duration = Duration::from_secs(10);
/// How much longer systemd is asked to wait, each time. Three looks, at least.
const EXTENSION: Duration = Duration::from_secs(30);
/// Between the end of the deadline of a stop and that of the process.
const EXIT_MARGIN: Duration = Duration::from_secs(5);
/// The longest line of status, in characters. `systemctl status` shows one line.
const STATUS_CHARS_MAX: usize = 200;

/// What is told to systemd is taken from here.
#[derive(Clone, Debug)]
pub struct Systemd {
    /// The process' health.
    pub health: Health,
    /// How far behind it is.
    pub lags: Lags,
    /// Cancelled when the process is to stop.
    pub shutdown: CancellationToken,
    /// How long a stop may take: `shutdown.deadline_ms`.
    pub deadline: Duration,
}

/// Tells systemd from a thread of its own. Dropping it ends that.
#[derive(Debug)]
pub struct Notifier {
    end: DropGuard,
    thread: std::thread::JoinHandle<()>,
}

impl Systemd {
    /// Begins to tell systemd, if it asks for that. A process that cannot tell works all the same, until systemd ends it.
    #[must_use]
    pub fn start(self) -> Option<Notifier> {
        match self.start_thread() {
            Ok(notifier) => notifier,
            Err(error) => {
                tracing::error!(%error, "no thread to tell systemd how this process does: it will end it for that");
                None
            }
        }
    }

    fn start_thread(self) -> io::Result<Option<Notifier>> {
        if std::env::var_os("NOTIFY_SOCKET").is_none() {
            return Ok(None);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let end = CancellationToken::new();
        let until = end.clone();
        let telling = move || {
            runtime.block_on(self.tell(sd_notify::watchdog_enabled(), sd_notify::notify, &until));
        };
        let thread = std::thread::Builder::new().name("systemd".into()).spawn(telling)?;
        Ok(Some(Notifier { end: end.drop_guard(), thread }))
    }

    async fn tell(
        self,
        watchdog: Option<Duration>,
        mut send: impl FnMut(&[NotifyState<'_>]) -> io::Result<()>,
        end: &CancellationToken,
    ) {
        let pause = watchdog.map_or(INTERVAL, |within| within / 3).clamp(Duration::from_millis(10), INTERVAL);
        let (mut told, mut stop_at, mut is_heard) = (Told::default(), None, true);
        let mut looks = interval(pause);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = end.cancelled() => return,
                () = self.shutdown.cancelled(), if stop_at.is_none() => {
                    stop_at = Some(Instant::now() + self.deadline);
                }
                () = self.health.until_met(JOINED), if !told.is_ready && stop_at.is_none() => {}
                _ = looks.tick() => {}
            }
            let news = told.news(self.look(stop_at));
            let states: Vec<_> = news.iter().map(News::state).collect();
            match send(&states) {
                Ok(()) => is_heard = true,
                Err(error) if is_heard => {
                    is_heard = false;
                    tracing::warn!(%error, "systemd cannot be told how this process does; it may end it for that");
                }
                Err(_) => {}
            }
        }
    }

    fn look(&self, stop_at: Option<Instant>) -> Look {
        let is_alive = self.health.is_alive();
        let unmet = self.health.conditions().into_iter().filter_map(|(name, why)| Some((name, why?)));
        let phase = match stop_at {
            Some(at) => Phase::Stopping { left: at.saturating_duration_since(Instant::now()) },
            None if self.health.is_met(JOINED) => Phase::Running {
                shards: self.lags.shards(),
                behind: Duration::from_millis(self.lags.max_ms()),
            },
            None => Phase::Starting,
        };
        Look { phase, is_alive, unmet: unmet.collect() }
    }
}

impl Notifier {
    /// Ends it, when everything is drained: what is told takes no longer than a datagram to this machine.
    pub fn stop(self) {
        drop(self.end);
        if self.thread.join().is_err() {
            tracing::error!("the thread that tells systemd how this process does panicked");
        }
    }
}

/// The process as it is at a moment.
struct Look {
    phase: Phase,
    is_alive: bool,
    /// Conditions that are not met, and why.
    unmet: Vec<(&'static str, String)>,
}

enum Phase {
    /// It has not joined its fleet yet.
    Starting,
    /// It works.
    Running { shards: usize, behind: Duration },
    /// It drains, and has so long left for that.
    Stopping { left: Duration },
}

/// One thing to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
enum News {
    Ready,
    Stopping,
    Alive,
    Extend(Duration),
    Status(String),
}

impl News {
    fn state(&self) -> NotifyState<'_> {
        match self {
            Self::Ready => NotifyState::Ready,
            Self::Stopping => NotifyState::Stopping,
            Self::Alive => NotifyState::Watchdog,
            Self::Extend(by) => {
                NotifyState::ExtendTimeoutUsec(u32::try_from(by.as_micros()).unwrap_or(u32::MAX))
            }
            Self::Status(line) => NotifyState::Status(line),
        }
    }
}

/// What systemd knows already.
#[derive(Default)]
struct Told {
    is_ready: bool,
    is_stopping: bool,
    is_stuck: bool,
    status: String,
}

impl Told {
    fn news(&mut self, look: Look) -> Vec<News> {
        let mut news = Vec::new();
        if matches!(look.phase, Phase::Running { .. }) && !std::mem::replace(&mut self.is_ready, true) {
            news.push(News::Ready);
        }
        if matches!(look.phase, Phase::Stopping { .. }) && !std::mem::replace(&mut self.is_stopping, true) {
            news.push(News::Stopping);
        }
        if look.is_alive {
            news.push(News::Alive);
            news.extend(extension(&look.phase).map(News::Extend));
        } else if !self.is_stuck {
            tracing::error!(
                "this process runs no tasks any more; it is not shown as alive to systemd, which restarts it"
            );
        }
        self.is_stuck = !look.is_alive;
        let status = status(&look);
        if status != self.status {
            self.status.clone_from(&status);
            news.push(News::Status(status));
        }
        news
    }
}

/// How much longer systemd is asked to wait.
fn extension(phase: &Phase) -> Option<Duration> {
    match phase {
        Phase::Starting => Some(EXTENSION),
        Phase::Running { .. } => None,
        Phase::Stopping { left } if left.is_zero() => None,
        Phase::Stopping { left } => Some(EXTENSION.min(*left + EXIT_MARGIN)),
    }
}

fn status(look: &Look) -> String {
    let what = match look.phase {
        _ if !look.is_alive => "stuck: no task runs".to_owned(),
        Phase::Starting => "starting".to_owned(),
        Phase::Running { shards, behind } => {
            format!("running: shards {shards}, lag {:.1} s", behind.as_secs_f64())
        }
        Phase::Stopping { left } => format!("stopping: {} s left to drain", left.as_secs()),
    };
    let unmet = match look.phase {
        Phase::Stopping { .. } => &[][..],
        _ => &look.unmet,
    };
    let unmet = unmet.iter().map(|(name, why)| format!("; {name}: {why}"));
    // A line ends a message of the protocol: what others say must not.
    let line = what.chars().chain(unmet.flat_map(|part| part.chars().collect::<Vec<_>>()));
    line.map(|each| if each.is_control() { ' ' } else { each }).take(STATUS_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;

    type Sent = Arc<Mutex<Vec<String>>>;

    fn systemd(health: &Health) -> Systemd {
        Systemd {
            health: health.clone(),
            lags: Lags::default(),
            shutdown: CancellationToken::new(),
            deadline: Duration::from_secs(120),
        }
    }

    fn recorder(sent: &Sent) -> impl FnMut(&[NotifyState<'_>]) -> io::Result<()> + use<> {
        let sent = Arc::clone(sent);
        move |states| {
            sent.lock().extend(states.iter().map(ToString::to_string));
            Ok(())
        }
    }

    /// What was told since the last time.
    fn taken(sent: &Sent) -> Vec<String> {
        std::mem::take(&mut *sent.lock())
    }

    const WATCHDOG: Duration = Duration::from_secs(30);
    const EXTENDED: &str = "EXTEND_TIMEOUT_USEC=30000000";

    #[tokio::test(start_paused = true)]
    async fn systemd_is_told_the_start_the_life_and_the_stop() {
        let (health, sent, end) = (Health::default(), Sent::default(), CancellationToken::new());
        let systemd = systemd(&health);
        let shutdown = systemd.shutdown.clone();
        let (joined, leases) = (health.condition(JOINED), health.condition("leases"));
        let script = async {
            tokio::time::sleep(Duration::from_secs(25)).await;
            // At once, then every ten seconds.
            let start = "STATUS=starting; fleet: not known yet; leases: not known yet";
            let alive = ["WATCHDOG=1", EXTENDED];
            let expected = [&alive[..], &[start], &alive, &alive].concat();
            assert_eq!(taken(&sent), expected);
            leases.met();
            joined.met();
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert_eq!(taken(&sent), ["READY=1", "WATCHDOG=1", "STATUS=running: shards 0, lag 0.0 s"]);
            leases.unmet("none\nREADY=0");
            tokio::time::sleep(Duration::from_secs(10)).await;
            let status = "STATUS=running: shards 0, lag 0.0 s; leases: none READY=0";
            assert_eq!(taken(&sent), ["WATCHDOG=1", status]);
            shutdown.cancel();
            tokio::time::sleep(Duration::from_secs(1)).await;
            let status = "STATUS=stopping: 120 s left to drain";
            assert_eq!(taken(&sent), ["STOPPING=1", "WATCHDOG=1", EXTENDED, status]);
            // Beyond its deadline it gets no more time, and less and less before.
            tokio::time::sleep(Duration::from_secs(130)).await;
            let told = taken(&sent);
            let extended = told.iter().filter(|line| line.starts_with("EXTEND_TIMEOUT_USEC=")).count();
            assert_eq!(extended, 12, "{told:#?}");
            assert_eq!(told.last().unwrap(), "STATUS=stopping: 0 s left to drain");
            end.cancel();
        };
        let beating = CancellationToken::new();
        tokio::join!(systemd.tell(Some(WATCHDOG), recorder(&sent), &end), async {
            tokio::join!(health.pulse(&beating), async {
                script.await;
                beating.cancel();
            });
        });
    }

    #[tokio::test(start_paused = true)]
    async fn a_runtime_that_runs_no_tasks_is_not_shown_as_alive_and_gets_no_more_time() {
        let (health, sent, end) = (Health::default(), Sent::default(), CancellationToken::new());
        let systemd = systemd(&health);
        systemd.shutdown.cancel();
        // Nobody lets it pulse.
        let telling = systemd.tell(Some(WATCHDOG), recorder(&sent), &end);
        let _ = tokio::time::timeout(Duration::from_secs(60), telling).await;
        let told = taken(&sent);
        let count = |prefix: &str| told.iter().filter(|line| line.starts_with(prefix)).count();
        // At the stop, and at 0 and 10 seconds; the pulse is missed after 15.
        assert_eq!((count("WATCHDOG=1"), count("EXTEND")), (3, 3), "{told:#?}");
        assert_eq!(told.last().unwrap(), "STATUS=stuck: no task runs");
    }
}
