use std::time::Duration;

use tokio::time::Instant;

use super::*;
use crate::consumer::compatibility::Build;
use crate::consumer::coverage::LeaseSet;
use crate::consumer::parked::{Lane, LaneStart, Parked};
use crate::consumer::store::{
    Backfill, Ended, Gap, Guest, LaneState, Lease, Report, RestartLock, StreamState,
};
use crate::status::{LetterCount, StreamName};

const LEASE_DURATION: Duration = Duration::from_secs(10);
const NOW_MS: u64 = 1_800_000_000_000;
const ARN: &str = "arn:profiles/1";

/// A fleet that is fine: `w1` has `a` and `b`; `c` waits for them, `old` is finished.
struct Fleet {
    look: Look,
    silent: Vec<&'static str>,
    criteria: Criteria,
}

fn lease(shard: &str, owner: Option<&str>, checkpoint: &str) -> Lease {
    Lease {
        owner: owner.map(str::to_owned),
        seen_ms: NOW_MS - 600_000,
        bytes_per_s: 1_000,
        lanes: ["eu".to_owned()].into(),
        ..Lease::new(ARN, shard, 2, checkpoint.parse().unwrap())
    }
}

fn build() -> Build {
    Build { knows: 2, software: Some("1.0.0".to_owned()) }
}

impl Fleet {
    fn new() -> Self {
        let child =
            Lease { parents: vec!["a".to_owned()], epoch: 0, seen_ms: 0, ..lease("c", None, "trim-horizon") };
        let ended = Some(Ended { at_ms: NOW_MS - 60_000, watermark_ms: Some(NOW_MS - 60_000) });
        let finished = Lease { ended, owner: None, ..lease("old", None, "shard-end") };
        let begun = Lease { parents: vec!["old".to_owned()], ..lease("a", Some("w1"), "after:7") };
        let leases = vec![begun, lease("b", Some("w1"), "after:9"), child, finished];
        let state = StreamState { start: None, listed: true, leases };
        let name = StreamName { label: "profiles".to_owned(), ..StreamName::of(ARN) };
        let lane = LaneState { begun: [ARN.to_owned()].into(), ..LaneState::default() };
        let look = Look {
            heartbeats: vec![Heartbeat {
                worker: "w1".to_owned(),
                instance: "i".to_owned(),
                counter: 1,
                report: Report {
                    capacity: 100,
                    leases_max: 10,
                    bytes_per_s: 2_000,
                    build: build(),
                    ..Report::default()
                },
            }],
            streams: vec![StreamLook { name, state, gaps: Vec::new(), more_gaps: false }],
            lanes: [("eu".to_owned(), lane)].into(),
            ..Look::default()
        };
        let lanes = vec![Lane { name: "eu".into(), start: LaneStart::TrimHorizon }];
        let criteria = Criteria {
            now_ms: NOW_MS,
            target: None,
            streams_min: 1,
            lanes: Some(LanesLook { lanes, retention: Duration::from_hours(24) }),
            watermark_bound_ms: 60_000,
            worst: Some(5),
        };
        let mut fleet = Self { look, silent: Vec::new(), criteria };
        fleet.tell(Some(NOW_MS - 3_000));
        fleet
    }

    fn leases(&mut self) -> &mut Vec<Lease> {
        &mut self.look.streams[0].state.leases
    }

    /// Its first worker says how far it is, over the leases that it has.
    fn tell(&mut self, watermark_ms: Option<u64>) {
        let mut set = LeaseSet::default();
        for lease in self
            .leases()
            .iter()
            .filter(|lease| lease.owner.as_deref() == Some("w1") && !lease.checkpoint.is_end())
        {
            set.add(&lease.stream, &lease.shard, lease.epoch);
        }
        let coverage = Coverage { leases: set, watermark_ms, ..Coverage::default() };
        self.look.heartbeats[0].report.coverage = Some(coverage);
    }

    fn summary(&self) -> Summary {
        let (start, mut observer) = (Instant::now(), Observer::new(LEASE_DURATION));
        observer.see_heartbeats(&self.look.heartbeats, start);
        observer.see_leases(&self.look.streams, start);
        let mut later = self.look.heartbeats.clone();
        for beat in later.iter_mut().filter(|beat| !self.silent.contains(&&*beat.worker)) {
            beat.counter += 1;
        }
        observer.see_heartbeats(&later, start + LEASE_DURATION);
        observer.see_leases(&self.look.streams, start + LEASE_DURATION);
        Summary::of(&self.look, &observer, &self.criteria)
    }

    /// What needs a look: kinds and texts.
    fn problems(&self) -> Vec<String> {
        let problems = self.summary().problems;
        problems.into_iter().map(|problem| format!("{}: {}", problem.kind, problem.text)).collect()
    }
}

/// A change to a fleet that is fine, and what then needs a look.
type Case = (&'static str, fn(&mut Fleet), &'static [&'static str]);

#[test]
fn what_needs_a_look_is_said_and_nothing_else() {
    let cases: &[Case] = &[
        ("fine", |_| {}, &[]),
        (
            "a silent worker with leases",
            |fleet| fleet.silent.push("w1"),
            &[
                "worker: worker w1 has 2 leases, and its heartbeat stands still, seen for 10 s",
                "worker: no worker is alive",
                "watermark: the fleet's watermark stands still: worker w1 has leases and is dead, or has not been seen yet",
            ],
        ),
        (
            "a silent worker without leases",
            |fleet| {
                let mut other = fleet.look.heartbeats[0].clone();
                other.worker = "w2".to_owned();
                other.report.coverage = Some(Coverage::default());
                fleet.look.heartbeats.push(other);
                fleet.silent.push("w2");
            },
            &[],
        ),
        (
            "an owner without a heartbeat",
            |fleet| {
                fleet.leases()[1].owner = Some("w9".to_owned());
                fleet.tell(Some(NOW_MS));
            },
            &[
                "worker: worker w9 has 1 lease and no heartbeat",
                "watermark: the fleet's watermark stands still: worker w9 has leases and is dead, or has not been seen yet",
            ],
        ),
        (
            "a free lease",
            |fleet| {
                fleet.leases()[1].owner = None;
                fleet.tell(Some(NOW_MS));
            },
            &[
                "free-leases: 1 lease without an owner, and nobody takes them",
                "watermark: the fleet's watermark stands still: lease of b in arn:profiles/1 has no owner",
            ],
        ),
        (
            "an old watermark",
            |fleet| fleet.tell(Some(NOW_MS - 61_000)),
            &["watermark: the fleet's watermark is 61 s old"],
        ),
        (
            "a shard that begins",
            |fleet| fleet.tell(None),
            &[
                "watermark: the fleet's watermark stands still: a shard that worker w1 reads has no watermark yet",
            ],
        ),
        (
            "a table without a stream",
            |fleet| fleet.criteria.streams_min = 2,
            &["watermark: the fleet's watermark stands still: 1 of at least 2 streams are consumed"],
        ),
        (
            "what is left of a table that is not configured any more",
            |fleet| {
                let name = StreamName { is_read: false, ..StreamName::of("gone") };
                let leases = vec![Lease { stream: "gone".into(), ..lease("z", None, "after:1") }];
                let state = StreamState { leases, ..StreamState::default() };
                fleet.look.streams.push(StreamLook { name, state, gaps: Vec::new(), more_gaps: false });
            },
            &[],
        ),
        (
            "a parked region",
            |fleet| {
                let checkpoint = "after:1".parse().unwrap();
                let parked = Parked { checkpoint, since_ms: NOW_MS - 7_200_000, why: "stalled".to_owned() };
                fleet.leases()[0].parked.insert("eu".to_owned(), parked);
            },
            &[
                "parked: region eu is parked on 1 shard and up to 2 h 0 min behind; in 22 h 0 min what it lacks may begin to be gone",
            ],
        ),
        ("a gap that was repaired", |fleet| fleet.look.streams[0].gaps.push(gap()), &[]),
        (
            "a gap",
            |fleet| {
                fleet.look.streams[0].gaps.push(gap());
                let backfill = Backfill {
                    asked_ms: NOW_MS - 60_000,
                    latest_ms: NOW_MS - 60_000,
                    why: "trimmed".to_owned(),
                };
                fleet.look.lanes.get_mut("eu").unwrap().backfills.insert(ARN.to_owned(), backfill);
            },
            &[
                "gap: profiles: records of a after after:3 were lost before they were read; backfill the table",
                "backfill: region eu waits for a backfill of profiles, asked for 60 s ago: trimmed",
            ],
        ),
        (
            "a new gap in a fleet without regions",
            |fleet| {
                fleet.criteria.lanes = None;
                fleet.look.streams[0].gaps.push(gap());
            },
            &[
                "gap: profiles: records of a after after:3 were lost before they were read; backfill the table",
            ],
        ),
        (
            "an old gap in a fleet without regions",
            |fleet| {
                fleet.criteria.lanes = None;
                fleet.look.streams[0].gaps.push(Gap { at_ms: NOW_MS - GAP_NEWS_MS - 1, ..gap() });
            },
            &[],
        ),
        (
            "a region that was removed and is parked",
            |fleet| {
                let checkpoint = "after:1".parse().unwrap();
                let parked = Parked { checkpoint, since_ms: NOW_MS, why: "not-configured".to_owned() };
                fleet.leases()[0].parked.insert("us".to_owned(), parked);
            },
            &[
                "parked: region us is parked on 1 shard and up to 0.0 s behind; in 24 h 0 min what it lacks may begin to be gone",
                "parked: region us is not configured: configure it again, or `regions forget us`",
            ],
        ),
    ];
    for (name, change, expected) in cases {
        let mut fleet = Fleet::new();
        change(&mut fleet);
        assert_eq!(fleet.problems(), *expected, "{name}");
    }
}

fn gap() -> Gap {
    Gap { shard: "a".to_owned(), after: "after:3".parse().unwrap(), at_ms: NOW_MS - 120_000 }
}

#[test]
fn the_later_of_lease_and_heartbeat_bounds_how_far_behind_a_shard_is() {
    let mut fleet = Fleet::new();
    let behind = |fleet: &Fleet| {
        let shards = fleet.summary().shards;
        shards.into_iter().map(|shard| (shard.shard, shard.behind_ms)).collect::<Vec<_>>()
    };
    let of = |shard: &str, ms: Option<u64>| (shard.to_owned(), ms);
    assert_eq!(behind(&fleet), [of("a", Some(3_000)), of("b", Some(3_000))]);
    fleet.leases()[1].seen_ms = NOW_MS - 1_000;
    assert_eq!(behind(&fleet), [of("a", Some(3_000)), of("b", Some(1_000))], "the furthest first");
    fleet.leases()[0].epoch = 3;
    assert_eq!(behind(&fleet), [of("a", Some(600_000)), of("b", Some(1_000))], "its word is of other leases");
    fleet.leases()[0].seen_ms = 0;
    assert_eq!(behind(&fleet), [of("a", None), of("b", Some(1_000))]);
    fleet.criteria.worst = Some(1);
    assert_eq!(behind(&fleet), [of("a", None)]);
    fleet.criteria.worst = None;
    assert_eq!(behind(&fleet).len(), 4, "all of them");
}

#[test]
fn a_region_is_told_the_fleets_watermark_unless_it_is_behind() {
    let eu =
        |fleet: &Fleet| fleet.summary().regions.into_iter().find(|of| of.region == "eu").unwrap().watermark;
    let mut fleet = Fleet::new();
    assert_eq!(eu(&fleet).age_ms, Some(3_000));
    assert!(fleet.summary().regions[0].warmth.is_warm);
    fleet.criteria.watermark_bound_ms = 2_999;
    assert!(!fleet.summary().regions[0].warmth.is_warm);
    fleet.leases()[0].lanes.clear();
    assert_eq!(eu(&fleet).why.unwrap(), "1 shard not read for it yet");
    let mut fleet = Fleet::new();
    fleet.look.lanes.clear();
    assert_eq!(eu(&fleet).why.unwrap(), "not on every shard yet that was finished before it was added");
    let mut fleet = Fleet::new();
    let said = fleet.look.heartbeats[0].report.coverage.as_mut().unwrap();
    said.parked.insert("eu".to_owned());
    assert_eq!(eu(&fleet).why.unwrap(), "a worker says that it is parked");
}

#[test]
fn a_shard_settles_until_more_is_done_than_came_by_then() {
    let mut fleet = Fleet::new();
    let settling = |fleet: &Fleet| fleet.summary().streams[0].settling;
    for (until_ms, expected) in [(0, 1), (NOW_MS - 3_001, 0), (NOW_MS - 2_999, 1)] {
        fleet.leases()[0].settling_ms = Some(until_ms);
        assert_eq!(settling(&fleet), expected, "{until_ms}");
    }
}

#[test]
fn a_report_for_people_says_what_needs_a_look_first() {
    let mut fleet = Fleet::new();
    let checkpoint = "after:1".parse().unwrap();
    let parked = Parked { checkpoint, since_ms: NOW_MS - 60_000, why: "stalled".to_owned() };
    fleet.leases()[0].parked.insert("eu".to_owned(), parked);
    fleet.leases()[1].guest = Some(Guest { name: "replay#1".to_owned(), until_ms: NOW_MS + 1 });
    fleet.leases()[2].guest = Some(Guest { name: "replay#0".to_owned(), until_ms: NOW_MS });
    fleet.look.streams[0].gaps.push(gap());
    fleet.leases()[1].seen_ms = NOW_MS - 1_000;
    fleet.criteria.worst = Some(1);
    let job =
        Job { began_ms: NOW_MS - 90_000, what: "backfill of profiles".to_owned(), places: BTreeMap::new() };
    fleet.look.jobs.insert("backfill#1".to_owned(), job);
    fleet.look.letters =
        Some(LetterCount { place: "table letters".to_owned(), is_all: true, ..LetterCount::default() });
    let expected = "\
fleet at 2027-01-15T08:00:00.000Z: 1 thing needs a look
  ! region eu is parked on 1 shard and up to 60 s behind; in 23 h 59 min what it lacks may begin to be gone

The fleet's watermark: 3.0 s ago
Versions: 1.0.0 (state 2) on 1 worker

WORKER  STATE  LEASES  READS     CAPACITY  BEHIND
w1      alive  2       2000 B/s  100       3.0 s

TABLE     HELD  FREE  WAITING  FINISHED  SETTLING  PARKED  READS     BEHIND AT MOST
profiles  2     0     1        1         0         1       2000 B/s  3.0 s

Of 2 shards, those that may be furthest behind:
SHARD  TABLE     OWNER  BEHIND AT MOST  CHECKPOINT
a      profiles  w1     3.0 s           after:7     eu parked at after:1: stalled

REGION  WARM  WATERMARK                        PARKED ON  BEHIND AT MOST  SINCE                     WHY
eu      no    stands still: parked on 1 shard  1 shard    60 s            2027-01-15T07:59:00.000Z  stalled (1)

GAP IN  TABLE     FOUND                     AFTER
a       profiles  2027-01-15T07:58:00.000Z  after:3  answered

UNFINISHED JOB  BEGAN     WHAT
backfill#1      90 s ago  backfill of profiles

0 dead letters in table letters
";
    assert_eq!(fleet.summary().to_text("fleet", ""), expected);
    fleet.criteria.worst = None;
    let shards = "
SHARD  TABLE     OWNER  BEHIND AT MOST  CHECKPOINT
a      profiles  w1     3.0 s           after:7       eu parked at after:1: stalled
b      profiles  w1     1.0 s           after:9       replay#1 reads it, too
c      profiles  -      -               trim-horizon  waits for its parents
old    profiles  -      -               shard-end     finished
";
    let all = fleet.summary().to_text("fleet", "");
    assert!(all.contains(shards), "{all}");
}

#[test]
fn a_fleet_that_is_being_upgraded_says_so_and_who_does_it() {
    let mut fleet = Fleet::new();
    let older = Report { build: Build::default(), coverage: Some(Coverage::default()), ..Report::default() };
    fleet.look.heartbeats.push(Heartbeat {
        worker: "w2".to_owned(),
        report: older,
        ..fleet.look.heartbeats[0].clone()
    });
    let begun = RestartLock::default().taken("host-1", "w0", NOW_MS - 90_000).unwrap();
    fleet.look.restart_lock = begun.taken("host-2", "w1", NOW_MS - 20_000).unwrap();
    let summary = fleet.summary();
    assert_eq!((summary.versions.mixed, summary.versions.parking), (true, false));
    let lines = "\
Versions: older (state 1) on 1 worker, 1.0.0 (state 2) on 1 worker; MIXED: the fleet is being upgraded; no region is \
parked until every worker knows that
Restart lock: host-2 restarts worker w1, since 20 s
Restarts that were not seen to end well: w0
";
    let text = summary.to_text("fleet", "");
    assert!(text.contains(lines), "{text}");
    fleet.silent.push("w2");
    assert!(!fleet.summary().versions.mixed, "a silent worker is of no account");
}

#[test]
fn a_lease_of_a_newer_version_is_told_and_is_nobodys_to_take() {
    let mut fleet = Fleet::new();
    let free = &mut fleet.leases()[1];
    (free.owner, free.format) = (None, u64::MAX);
    let summary = fleet.summary();
    assert_eq!((summary.versions.newer_leases, summary.streams[0].free), (1, 0));
    let why = summary.watermark.why.unwrap();
    assert!(why.contains("newer version"), "{why}");
}
