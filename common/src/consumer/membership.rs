//! What a worker sees of the others: who lives, who is dead, who can read which stream. Pure.
//!
//! Judged by the observer's monotonic clock alone: a worker is dead when its heartbeat was *seen* to stand still
//! for `lease_duration`. No two machines' clocks are ever compared.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use tokio::time::Instant;

use super::assignment::Member;
use super::compatibility::{Build, Compatibility};
use super::coverage::Coverage;
use super::store::{Heartbeat, Report};

/// Every worker's heartbeat, as it was last seen to change.
#[derive(Debug, Default)]
pub struct Membership {
    workers: HashMap<String, Seen>,
    /// When heartbeats were last read. What came after is not known: a process that was held up, or could not
    /// reach the table, must not take its own absence for that of the others.
    last: Option<Instant>,
    /// What the others are told apart by when something changed: who lives, and what they did.
    digest: BTreeSet<(String, u64, usize)>,
}

#[derive(Debug)]
struct Seen {
    /// `None` for an owner of leases whose heartbeat was not read yet, or was removed.
    heartbeat: Option<Heartbeat>,
    /// Its heartbeat was removed: it has stopped, and what it still owns was given to it as it did.
    left: bool,
    /// When it was last seen to change.
    at: Instant,
    /// When the process, or what it can read, was last seen to change.
    streams_at: Instant,
}

/// A worker that is to be forgotten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dead {
    /// Its name.
    pub worker: String,
    /// The process.
    pub instance: String,
}

impl Membership {
    /// Takes in what was read. Returns whether others should be looked at more closely: somebody came, went, or
    /// did something to leases.
    pub fn observe(&mut self, heartbeats: &[Heartbeat], now: Instant, lease_duration: Duration) -> bool {
        self.last = Some(now);
        let present: BTreeSet<&str> = heartbeats.iter().map(|beat| beat.worker.as_str()).collect();
        for (worker, seen) in &mut self.workers {
            if seen.heartbeat.is_some() && !present.contains(worker.as_str()) {
                *seen = Seen { heartbeat: None, left: true, at: now, streams_at: now };
            }
        }
        for beat in heartbeats {
            let fresh = || Seen { heartbeat: Some(beat.clone()), left: false, at: now, streams_at: now };
            let seen = self.workers.entry(beat.worker.clone()).or_insert_with(fresh);
            let Some(last) = &seen.heartbeat else {
                *seen = fresh();
                continue;
            };
            if last.instance != beat.instance || last.report.streams != beat.report.streams {
                seen.streams_at = now;
            }
            if last.instance != beat.instance || last.counter != beat.counter {
                seen.at = now;
                seen.heartbeat = Some(beat.clone());
            }
        }
        let digest = self.digest(lease_duration);
        let changed = digest != self.digest;
        self.digest = digest;
        changed
    }

    fn digest(&self, lease_duration: Duration) -> BTreeSet<(String, u64, usize)> {
        let living = self.living(lease_duration);
        living.map(|(id, report)| (id.to_owned(), report.changes, report.streams.len())).collect()
    }

    /// Whether a worker's heartbeat was seen to stand still for `lease_duration`, or to be removed. An owner that was
    /// never seen may have been announced after the last look, so its time begins now.
    pub fn is_expired(&mut self, worker: &str, now: Instant, lease_duration: Duration) -> bool {
        let unseen = Seen { heartbeat: None, left: false, at: now, streams_at: now };
        let seen = self.workers.entry(worker.to_owned()).or_insert(unseen);
        seen.left || self.last.is_some_and(|last| last.saturating_duration_since(seen.at) >= lease_duration)
    }

    /// Whether a worker lives but was seen for `lease_duration` not to read `stream`: its configuration lacks it.
    pub fn neglects(&self, worker: &str, stream: &str, lease_duration: Duration) -> bool {
        let Some(seen) = self.workers.get(worker) else { return false };
        let lacks = |report: &Report| !report.is_newer && !report.streams.contains(stream);
        seen.heartbeat.as_ref().is_some_and(|beat| lacks(&beat.report))
            && self.last.is_some_and(|last| last.saturating_duration_since(seen.streams_at) >= lease_duration)
    }

    /// The members of the fleet. `me` is as it reports now, whatever was read of it.
    pub fn members(&self, me: &str, report: &Report, lease_duration: Duration) -> Vec<Member> {
        let others = self.living(lease_duration).filter(|(id, _)| *id != me);
        let mut members: Vec<Member> =
            others.chain(std::iter::once((me, report))).map(|(id, report)| member(id, report)).collect();
        members.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        members
    }

    /// What each worker that lives says of its leases, by its name.
    pub fn coverages(&self, lease_duration: Duration) -> BTreeMap<String, Option<Coverage>> {
        self.living(lease_duration).map(|(id, report)| (id.to_owned(), report.coverage.clone())).collect()
    }

    /// The versions of the workers that live, and of `mine`, which is this one's.
    pub fn compatibility(&self, me: &str, mine: &Build, lease_duration: Duration) -> Compatibility {
        let others = self.living(lease_duration).filter(|(id, _)| *id != me);
        Compatibility::of(others.map(|(id, report)| (id, &report.build)).chain([(me, mine)]))
    }

    /// Workers that have a heartbeat, dead or alive.
    pub fn workers(&self) -> usize {
        self.workers.values().filter(|seen| seen.heartbeat.is_some()).count()
    }

    fn living(&self, lease_duration: Duration) -> impl Iterator<Item = (&str, &Report)> {
        self.workers.iter().filter_map(move |(id, seen)| {
            let last = self.last?;
            let beat = seen.heartbeat.as_ref()?;
            let lives = last.saturating_duration_since(seen.at) < lease_duration;
            lives.then_some((id.as_str(), &beat.report))
        })
    }

    /// Workers that were seen dead for `after`: their heartbeats can go when they own nothing.
    pub fn long_dead(&self, after: Duration) -> Vec<Dead> {
        let Some(last) = self.last else { return Vec::new() };
        let dead = self.workers.values().filter(|seen| last.saturating_duration_since(seen.at) >= after);
        dead.filter_map(|seen| seen.heartbeat.as_ref())
            .map(|beat| Dead { worker: beat.worker.clone(), instance: beat.instance.clone() })
            .collect()
    }
}

fn member(id: &str, report: &Report) -> Member {
    Member {
        id: id.to_owned(),
        capacity: report.capacity.max(1),
        leases_max: report.leases_max,
        leases: report.leases,
        bytes_per_s: report.bytes_per_s,
        streams: report.streams.clone(),
        leaving: report.leaving,
    }
}

#[cfg(test)]
mod tests {
    use super::super::compatibility::Feature;
    use super::*;

    const LEASE: Duration = Duration::from_secs(15);

    fn beat(worker: &str, counter: u64) -> Heartbeat {
        let report = Report { streams: ["s".to_owned()].into(), ..Report::default() };
        Heartbeat { worker: worker.to_owned(), instance: "i".to_owned(), counter, report }
    }

    struct Observer {
        start: Instant,
        membership: Membership,
    }

    impl Observer {
        fn new() -> Self {
            Self { start: Instant::now(), membership: Membership::default() }
        }

        fn sees(&mut self, second: u64, beats: &[Heartbeat]) -> bool {
            self.membership.observe(beats, self.start + Duration::from_secs(second), LEASE)
        }

        fn expired(&mut self, second: u64) -> bool {
            self.membership.is_expired("w", self.start + Duration::from_secs(second), LEASE)
        }

        fn members(&self) -> Vec<String> {
            let members = self.membership.members("me", &Report::default(), LEASE);
            members.into_iter().map(|member| member.id).collect()
        }
    }

    #[test]
    fn a_worker_expires_when_its_heartbeat_stands_still_on_our_clock() {
        let mut observer = Observer::new();
        for (second, counter) in [(0, 7), (10, 8), (20, 8), (24, 8)] {
            observer.sees(second, &[beat("w", counter)]);
        }
        assert!(!observer.expired(24));
        assert_eq!(observer.members(), ["me", "w"]);
        assert!(observer.sees(25, &[beat("w", 8)]), "its death is news");
        assert!(observer.expired(25));
        assert_eq!(observer.members(), ["me"]);
        assert!(observer.sees(26, &[beat("w", 9)]), "so is its return");
        assert!(!observer.expired(40));
    }

    #[test]
    fn an_observer_that_could_not_look_takes_nobody_for_dead() {
        let mut observer = Observer::new();
        observer.sees(0, &[beat("w", 7)]);
        assert!(!observer.expired(100), "nobody looked for a hundred seconds");
        observer.sees(101, &[beat("w", 8)]);
        assert!(!observer.expired(101));
    }

    #[test]
    fn an_owner_without_a_heartbeat_expires_too_but_not_at_once() {
        let mut observer = Observer::new();
        observer.sees(0, &[]);
        assert!(!observer.expired(1), "it may have been announced since");
        observer.sees(15, &[]);
        assert!(!observer.expired(15));
        observer.sees(16, &[]);
        assert!(observer.expired(16));
    }

    #[test]
    fn a_worker_that_removed_its_heartbeat_is_no_member_and_owns_nothing() {
        let mut observer = Observer::new();
        observer.sees(0, &[beat("w", 7)]);
        observer.sees(1, &[]);
        assert_eq!(observer.members(), ["me"]);
        assert!(observer.expired(1));
        observer.sees(2, &[beat("w", 1)]);
        assert!(!observer.expired(2), "it is back");
    }

    #[test]
    fn who_came_went_or_changed_leases_is_news_and_a_mere_beat_is_not() {
        let mut observer = Observer::new();
        assert!(observer.sees(0, &[beat("w", 7)]));
        assert!(!observer.sees(1, &[beat("w", 8)]));
        let mut changed = beat("w", 9);
        changed.report.changes = 1;
        assert!(observer.sees(2, &[changed]));
    }

    #[test]
    fn a_worker_whose_heartbeat_is_newer_lives_and_neglects_nothing() {
        let mut observer = Observer::new();
        let report = Report { is_newer: true, leaving: true, ..Report::default() };
        for second in [0, 14, 28] {
            observer.sees(second, &[Heartbeat { report: report.clone(), ..beat("w", second) }]);
        }
        assert!(!observer.expired(28) && !observer.membership.neglects("w", "s", LEASE));
        assert_eq!(observer.membership.coverages(LEASE)["w"], None, "so the watermark stands still");
    }

    #[test]
    fn a_dead_worker_of_an_old_version_is_in_nobodys_way() {
        let mut observer = Observer::new();
        let may_park = |observer: &Observer| {
            observer.membership.compatibility("me", &Build::this(), LEASE).allows(Feature::Parking)
        };
        observer.sees(0, &[beat("w", 7)]);
        assert!(!may_park(&observer), "it announces nothing");
        observer.sees(15, &[beat("w", 7)]);
        assert!(may_park(&observer));
    }

    #[test]
    fn a_stream_that_its_owner_does_not_read_is_neglected_after_a_while() {
        let mut observer = Observer::new();
        observer.sees(0, &[beat("w", 1)]);
        observer.sees(14, &[beat("w", 2)]);
        assert!(!observer.membership.neglects("w", "other", LEASE), "it may only have started");
        observer.sees(15, &[beat("w", 3)]);
        assert!(observer.membership.neglects("w", "other", LEASE));
        assert!(!observer.membership.neglects("w", "s", LEASE));
        assert!(!observer.membership.neglects("nobody", "s", LEASE));
        let restarted = Heartbeat { instance: "j".to_owned(), ..beat("w", 1) };
        observer.sees(16, &[restarted]);
        assert!(!observer.membership.neglects("w", "other", LEASE), "the process is new");
    }
}
