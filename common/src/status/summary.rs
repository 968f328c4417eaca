//! What follows from a look. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::letters::LetterCount;
use super::observer::{Liveness, Observer};
use super::problem::Problem;
use super::regions::{BackfillStatus, LanesLook, RegionStatus, regions};
use super::shards::{ShardStatus, StreamStatus, Words, shards, stream, worst};
use super::survey::{Look, StreamLook};
use super::text::{ago, count};
use super::versions::{LockStatus, VersionsStatus};
use crate::consumer::compatibility::Build;
use crate::consumer::coverage::Coverage;
use crate::consumer::store::{Heartbeat, Job};
use crate::consumer::watermark::{Hold, StreamLeases, fleet_watermark};
use crate::daemon::Outcome;

/// A gap that was recorded within this time needs a look, where nothing tells whether it was repaired.
const GAP_NEWS_MS: u64 = 24 * 3_600 * 1_000;

/// What a look is judged by.
#[derive(Clone, Debug)]
pub struct Criteria {
    /// This machine's clock: milliseconds since the epoch.
    pub now_ms: u64,
    /// The state of what shards are done into, if that may lose something.
    pub target: Option<String>,
    /// The streams that should be consumed, at least.
    pub streams_min: usize,
    /// The regions, in a fleet that feeds some.
    pub lanes: Option<LanesLook>,
    /// A watermark that is older needs a look: milliseconds.
    pub watermark_bound_ms: u64,
    /// How many shards are listed: the furthest behind. `None`: all.
    pub worst: Option<usize>,
}

impl Criteria {
    /// Of a fleet of one stream, without regions, whose shards are done into what loses nothing.
    pub fn new(now_ms: u64, watermark_bound: Duration) -> Self {
        Self {
            now_ms,
            target: None,
            streams_min: 1,
            lanes: None,
            watermark_bound_ms: u64::try_from(watermark_bound.as_millis()).unwrap_or(u64::MAX),
            worst: None,
        }
    }
}

/// A fleet.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// When it was looked at: milliseconds since the epoch.
    pub at_ms: u64,
    /// What needs a look.
    pub problems: Vec<Problem>,
    /// What programs they run.
    pub versions: VersionsStatus,
    /// Who restarts a worker, if somebody does or did not end well.
    pub restart_lock: Option<LockStatus>,
    /// The workers, and owners of leases without a heartbeat.
    pub workers: Vec<WorkerStatus>,
    /// The streams.
    pub streams: Vec<StreamStatus>,
    /// Shards: those that may be furthest behind, or all.
    pub shards: Vec<ShardStatus>,
    /// How far all of the fleet is.
    pub watermark: WatermarkStatus,
    /// The regions that it feeds.
    pub regions: Vec<RegionStatus>,
    /// Data that was lost before it was read.
    pub gaps: Vec<GapStatus>,
    /// Jobs of the operators' commands that are not done.
    pub jobs: Vec<JobStatus>,
    /// Dead letters, if they were counted.
    pub dead_letters: Option<LetterCount>,
}

/// A worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WorkerStatus {
    /// Its name.
    pub worker: String,
    /// `alive`, `watched` (not seen to beat yet), `silent` or `missing` (it has leases and no heartbeat).
    pub state: &'static str,
    /// For how long its heartbeat was seen to stand still, in milliseconds; `None` if it was seen to move.
    pub still_ms: Option<u64>,
    /// It is stopping.
    pub leaving: bool,
    /// Leases that it has in the state table.
    pub leases: usize,
    /// The most that it will have.
    pub leases_max: usize,
    /// Its share of the work relative to the others'.
    pub capacity: u32,
    /// Bytes a second that it reads.
    pub bytes_per_s: u64,
    /// Everything in its leases that is older than this is done, in milliseconds. `None`: it does not know, or has none.
    pub behind_ms: Option<u64>,
    /// The program that it runs; `None` of one without a heartbeat.
    pub build: Option<Build>,
}

/// A watermark.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct WatermarkStatus {
    /// Everything created before it is done: milliseconds since the epoch. `None`: it is not known.
    pub ms: Option<u64>,
    /// How old it is.
    pub age_ms: Option<u64>,
    /// Why it is not known.
    pub why: Option<String>,
}

/// Data that was lost before it was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GapStatus {
    /// What the stream is called.
    pub table: String,
    /// The shard.
    pub shard: String,
    /// What follows this is missing.
    pub after: String,
    /// When it was found: milliseconds since the epoch.
    pub at_ms: u64,
    /// It is repaired, as far as the state table tells, or long known.
    pub is_answered: bool,
}

/// A job of an operators' command that is not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct JobStatus {
    /// Its name.
    pub job: String,
    /// What it is.
    pub what: String,
    /// When it was begun: milliseconds since the epoch.
    pub began_ms: u64,
}

impl WatermarkStatus {
    /// A watermark that is known, or why it is not.
    pub fn of(watermark: Result<u64, String>, now_ms: u64) -> Self {
        match watermark {
            Ok(ms) => Self { ms: Some(ms), age_ms: Some(now_ms.saturating_sub(ms)), why: None },
            Err(why) => Self { ms: None, age_ms: None, why: Some(why) },
        }
    }

    /// What needs a look about it: `whose` is its subject.
    pub fn problem(&self, whose: &str, bound_ms: u64) -> Option<Problem> {
        let text = match (self.age_ms, &self.why) {
            (Some(age_ms), _) if age_ms > bound_ms => format!("{whose} is {} old", ago(age_ms)),
            (Some(_), _) => return None,
            (None, why) => format!("{whose} stands still: {}", why.as_deref().unwrap_or("it is not known")),
        };
        Some(Problem::new("watermark", text))
    }
}

/// The fleet's watermark, as its workers reckon it.
///
/// # Errors
/// Why it is not known.
pub fn watermark<'a>(look: &'a Look, observer: &Observer, criteria: &Criteria) -> Result<u64, Hold> {
    let found = look.streams.iter().filter(|of| of.name.is_read && !of.name.superseded).count();
    if found < criteria.streams_min {
        return Err(Hold::Streams { found, expected: criteria.streams_min });
    }
    let of_stream = |of: &'a StreamLook| StreamLeases {
        stream: &of.name.stream,
        state: &of.state,
        superseded: of.name.superseded,
        settle: of.name.settle,
    };
    let streams: Vec<StreamLeases<'_>> =
        look.streams.iter().filter(|of| of.name.is_read).map(of_stream).collect();
    let lives = |beat: &&Heartbeat| !matches!(observer.liveness(&beat.worker), Liveness::Silent(_));
    let coverages: BTreeMap<String, Option<Coverage>> = look
        .heartbeats
        .iter()
        .filter(lives)
        .map(|beat| (beat.worker.clone(), beat.report.coverage.clone()))
        .collect();
    fleet_watermark(&streams, &coverages, criteria.target.as_deref(), criteria.now_ms)
}

impl Summary {
    /// What follows from a look.
    pub fn of(look: &Look, observer: &Observer, criteria: &Criteria) -> Self {
        let fleet = watermark(look, observer, criteria).map_err(|hold| hold.to_string());
        let fleet = WatermarkStatus::of(fleet, criteria.now_ms);
        let words = Words::of_look(look);
        let (mut of_streams, mut of_shards) = (Vec::new(), Vec::new());
        for of in &look.streams {
            let shards = shards(of, &words, criteria.now_ms);
            of_streams.push(stream(of, &shards));
            of_shards.extend(shards);
        }
        if let Some(number) = criteria.worst {
            of_shards = worst(of_shards, number);
        }
        let lanes = criteria.lanes.as_ref();
        let mut summary = Self {
            at_ms: criteria.now_ms,
            problems: Vec::new(),
            versions: VersionsStatus::of(look, observer),
            restart_lock: LockStatus::of(&look.restart_lock, criteria.now_ms),
            workers: workers(look, observer, criteria.now_ms),
            streams: of_streams,
            shards: of_shards,
            regions: lanes.map(|lanes| regions(look, lanes, &fleet, criteria)).unwrap_or_default(),
            watermark: fleet,
            gaps: gaps(look, lanes.is_some(), criteria.now_ms),
            jobs: jobs(look),
            dead_letters: look.letters.clone(),
        };
        summary.problems = summary.find_problems(look, observer, criteria);
        summary
    }

    /// Whether something needs a look.
    pub fn outcome(&self) -> Outcome {
        if self.problems.is_empty() { Outcome::Done } else { Outcome::Problems }
    }

    fn find_problems(&self, look: &Look, observer: &Observer, criteria: &Criteria) -> Vec<Problem> {
        let mut problems = Vec::new();
        self.problems_of_workers(&mut problems);
        let free = observer.long_free();
        if free > 0 {
            problems.push(Problem::new(
                "free-leases",
                format!("{} without an owner, and nobody takes them", count(free, "lease")),
            ));
        }
        for gap in self.gaps.iter().filter(|gap| !gap.is_answered) {
            let GapStatus { table, shard, after, .. } = gap;
            problems.push(Problem::new(
                "gap",
                format!("{table}: records of {shard} after {after} were lost before they were read; backfill the table"),
            ));
        }
        if let Some(more) = look.streams.iter().find(|of| of.more_gaps) {
            problems.push(Problem::new(
                "gap",
                format!("{}: there are more gaps than are shown", more.name.label),
            ));
        }
        for region in &self.regions {
            region.problems(&mut problems, criteria.now_ms);
        }
        problems.extend(self.watermark.problem("the fleet's watermark", criteria.watermark_bound_ms));
        problems
    }

    fn problems_of_workers(&self, problems: &mut Vec<Problem>) {
        for worker in self.workers.iter().filter(|worker| worker.leases > 0) {
            let WorkerStatus { worker: name, still_ms, .. } = worker;
            let leases = count(worker.leases, "lease");
            let text = match worker.state {
                "silent" => {
                    let still = ago(still_ms.unwrap_or(0));
                    format!("worker {name} has {leases}, and its heartbeat stands still, seen for {still}")
                }
                "missing" => format!("worker {name} has {leases} and no heartbeat"),
                _ => continue,
            };
            problems.push(Problem::new("worker", text));
        }
        if !self.workers.iter().any(|worker| matches!(worker.state, "alive" | "watched")) {
            problems.push(Problem::new("worker", "no worker is alive"));
        }
    }
}

impl RegionStatus {
    fn problems(&self, problems: &mut Vec<Problem>, now_ms: u64) {
        let region = &self.region;
        if let Some(parked) = &self.parked {
            let (behind, kept) = (ago(parked.behind_ms), ago(parked.kept_for_ms));
            problems.push(Problem::new(
                "parked",
                format!(
                    "region {region} is parked on {} and up to {behind} behind; in {kept} what it lacks may begin to be gone",
                    count(parked.shards, "shard")
                ),
            ));
        }
        for backfill in &self.backfills {
            let asked = ago(now_ms.saturating_sub(backfill.asked_ms));
            let BackfillStatus { table, why, .. } = backfill;
            problems.push(Problem::new(
                "backfill",
                format!("region {region} waits for a backfill of {table}, asked for {asked} ago: {why}"),
            ));
        }
        if !self.configured && (self.parked.is_some() || !self.backfills.is_empty()) {
            problems.push(Problem::new(
                "parked",
                format!(
                    "region {region} is not configured: configure it again, or `regions forget {region}`"
                ),
            ));
        }
    }
}

fn workers(look: &Look, observer: &Observer, now_ms: u64) -> Vec<WorkerStatus> {
    let mut leases: BTreeMap<&str, usize> = BTreeMap::new();
    let owners = look.streams.iter().flat_map(|stream| &stream.state.leases);
    for owner in owners.filter(|lease| !lease.is_over()).filter_map(|lease| lease.owner.as_deref()) {
        *leases.entry(owner).or_default() += 1;
    }
    let mut workers = Vec::new();
    for beat in &look.heartbeats {
        let report = &beat.report;
        let (state, still) = match observer.liveness(&beat.worker) {
            Liveness::Alive => ("alive", None),
            Liveness::Watched(still) => ("watched", Some(still)),
            Liveness::Silent(still) => ("silent", Some(still)),
            Liveness::Missing => ("missing", None),
        };
        let of_leases = report.coverage.as_ref().filter(|coverage| coverage.leases.leases > 0);
        let watermark_ms = of_leases.and_then(|coverage| coverage.watermark_ms);
        workers.push(WorkerStatus {
            worker: beat.worker.clone(),
            state,
            still_ms: still.map(|still| u64::try_from(still.as_millis()).unwrap_or(u64::MAX)),
            leaving: report.leaving && !report.is_newer,
            leases: leases.remove(beat.worker.as_str()).unwrap_or(0),
            leases_max: report.leases_max,
            capacity: report.capacity,
            bytes_per_s: report.bytes_per_s,
            behind_ms: watermark_ms.map(|ms| now_ms.saturating_sub(ms)),
            build: Some(report.build.clone()),
        });
    }
    workers.extend(leases.into_iter().map(|(worker, leases)| WorkerStatus {
        worker: worker.to_owned(),
        state: "missing",
        still_ms: None,
        leaving: false,
        leases,
        leases_max: 0,
        capacity: 0,
        bytes_per_s: 0,
        behind_ms: None,
        build: None,
    }));
    workers
}

/// In a fleet with lanes each of them has a backfill asked for by a gap, until that is made.
fn gaps(look: &Look, has_lanes: bool, now_ms: u64) -> Vec<GapStatus> {
    let mut gaps = Vec::new();
    for of in &look.streams {
        let is_asked = || look.lanes.values().any(|lane| lane.backfills.contains_key(&of.name.stream));
        gaps.extend(of.gaps.iter().map(|gap| GapStatus {
            table: of.name.label.clone(),
            shard: gap.shard.clone(),
            after: gap.after.to_string(),
            at_ms: gap.at_ms,
            is_answered: if has_lanes { !is_asked() } else { now_ms.saturating_sub(gap.at_ms) > GAP_NEWS_MS },
        }));
    }
    gaps.sort_by_key(|gap| std::cmp::Reverse(gap.at_ms));
    gaps
}

fn jobs(look: &Look) -> Vec<JobStatus> {
    let status = |(job, of): (&String, &Job)| JobStatus {
        job: job.clone(),
        what: of.what.clone(),
        began_ms: of.began_ms,
    };
    look.jobs.iter().map(status).collect()
}

#[cfg(test)]
mod tests;
