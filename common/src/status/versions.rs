//! Which programs the fleet runs, and who restarts a worker of it. Pure.

use serde::Serialize;

use super::observer::{Liveness, Observer};
use super::survey::Look;
use super::text::{ago, count};
use crate::consumer::compatibility::{Build, Compatibility, Feature};
use crate::consumer::store::{Heartbeat, RestartLock};

/// The programs in a fleet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct VersionsStatus {
    /// Each program that a living worker runs, the oldest first.
    pub builds: Vec<BuildStatus>,
    /// There is more than one: the fleet is being upgraded.
    pub mixed: bool,
    /// Regions that hold up others are parked: every worker knows what that is.
    pub parking: bool,
    /// Leases that a newer program than this one wrote.
    pub newer_leases: usize,
}

/// A program, and how many living workers run it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BuildStatus {
    /// The program.
    #[serde(flatten)]
    pub build: Build,
    /// Workers that run it.
    pub workers: usize,
}

/// Who has the restart lock, or left a restart behind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LockStatus {
    /// The process that has it; `None`: it is free.
    pub owner: Option<String>,
    /// The worker that it restarts.
    pub worker: Option<String>,
    /// Since when: milliseconds since the epoch.
    pub since_ms: Option<u64>,
    /// When it ends unless it is renewed: milliseconds since the epoch.
    pub until_ms: Option<u64>,
    /// Workers whose restart was not seen to end well, and who were not seen to live since.
    pub unfinished: Vec<String>,
}

impl VersionsStatus {
    pub(super) fn of(look: &Look, observer: &Observer) -> Self {
        let lives = |beat: &&Heartbeat| !matches!(observer.liveness(&beat.worker), Liveness::Silent(_));
        let living = look.heartbeats.iter().filter(lives);
        let fleet = Compatibility::of(living.map(|beat| (beat.worker.as_str(), &beat.report.build)));
        let leases = look.streams.iter().flat_map(|stream| &stream.state.leases);
        Self {
            builds: fleet
                .builds()
                .map(|(build, workers)| BuildStatus { build: build.clone(), workers })
                .collect(),
            mixed: fleet.is_mixed(),
            parking: fleet.allows(Feature::Parking),
            newer_leases: leases.filter(|lease| lease.is_newer()).count(),
        }
    }

    /// What people read; nothing of a fleet without workers.
    pub(super) fn to_text(&self, feeds_regions: bool) -> String {
        if self.builds.is_empty() {
            return String::new();
        }
        let of = |of: &BuildStatus| format!("{} on {}", of.build, count(of.workers, "worker"));
        let builds: Vec<String> = self.builds.iter().map(of).collect();
        let mixed = if self.mixed { "; MIXED: the fleet is being upgraded" } else { "" };
        let parking = match feeds_regions && !self.parking {
            true => "; no region is parked until every worker knows that",
            false => "",
        };
        format!("Versions: {}{mixed}{parking}\n", builds.join(", "))
    }
}

impl LockStatus {
    /// `None` if nobody has it and nothing was left behind.
    pub(super) fn of(lock: &RestartLock, now_ms: u64) -> Option<Self> {
        let holder = lock.held_by(now_ms);
        let unfinished = Vec::from_iter(lock.left_behind(now_ms));
        (holder.is_some() || !unfinished.is_empty()).then(|| Self {
            owner: holder.map(|holder| holder.owner.clone()),
            worker: holder.map(|holder| holder.worker.clone()),
            since_ms: holder.map(|holder| holder.since_ms),
            until_ms: holder.map(|holder| holder.until_ms),
            unfinished,
        })
    }

    /// What people read.
    pub(super) fn to_text(&self, now_ms: u64) -> String {
        let mut text = String::new();
        if let (Some(owner), Some(worker), Some(since_ms)) = (&self.owner, &self.worker, self.since_ms) {
            let since = ago(now_ms.saturating_sub(since_ms));
            text += &format!("Restart lock: {owner} restarts worker {worker}, since {since}\n");
        }
        if !self.unfinished.is_empty() {
            let workers = self.unfinished.join(", ");
            text += &format!("Restarts that were not seen to end well: {workers}\n");
        }
        text
    }
}
