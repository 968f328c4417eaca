//! What looks have seen to move and to stand still. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::survey::StreamLook;
use crate::consumer::lineage::Lineage;
use crate::consumer::store::{Heartbeat, Lease};

/// What is remembered from look to look.
#[derive(Debug)]
pub struct Observer {
    lease_duration: Duration,
    workers: BTreeMap<String, Seen>,
    /// Free leases, in their epochs, with when each was first seen so.
    free: BTreeMap<(String, String, u64), Instant>,
    heartbeats_at: Option<Instant>,
    leases_at: Option<Instant>,
}

#[derive(Debug)]
struct Seen {
    instance: String,
    counter: u64,
    /// When it was last seen to be another than before, or first.
    at: Instant,
    has_moved: bool,
}

/// What is known of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// Its heartbeat was seen to move, and not to stand still for long since.
    Alive,
    /// It was not seen to move yet, nor watched for long enough.
    Watched(Duration),
    /// It was seen to stand still for as long as the fleet takes before it takes the worker for dead.
    Silent(Duration),
    /// It has no heartbeat.
    Missing,
}

/// Whether nobody owns a lease that somebody could read.
pub(super) fn is_free(lease: &Lease, lineage: &Lineage) -> bool {
    let is_startable = match lease.checkpoint.is_end() {
        true => !lease.parked.is_empty(),
        false => lineage.may_start(&lease.shard),
    };
    lease.owner.is_none() && is_startable && !lease.is_newer()
}

impl Observer {
    /// `lease_duration`: how long a heartbeat may stand still.
    pub const fn new(lease_duration: Duration) -> Self {
        Self {
            lease_duration,
            workers: BTreeMap::new(),
            free: BTreeMap::new(),
            heartbeats_at: None,
            leases_at: None,
        }
    }

    /// Heartbeats were read.
    pub fn see_heartbeats(&mut self, heartbeats: &[Heartbeat], now: Instant) {
        self.heartbeats_at = Some(now);
        let mut before = std::mem::take(&mut self.workers);
        for beat in heartbeats {
            let last = before.remove(&beat.worker);
            let has_moved = last
                .as_ref()
                .is_some_and(|last| last.instance != beat.instance || last.counter != beat.counter);
            let seen = match last {
                Some(last) if !has_moved => last,
                _ => Seen { instance: beat.instance.clone(), counter: beat.counter, at: now, has_moved },
            };
            self.workers.insert(beat.worker.clone(), seen);
        }
    }

    /// Leases were read.
    pub fn see_leases(&mut self, streams: &[StreamLook], now: Instant) {
        self.leases_at = Some(now);
        let mut before = std::mem::take(&mut self.free);
        for stream in streams.iter().filter(|stream| stream.name.is_read) {
            let lineage = Lineage::of(&stream.state.leases);
            for lease in stream.state.leases.iter().filter(|lease| is_free(lease, &lineage)) {
                let key = (lease.stream.to_string(), lease.shard.to_string(), lease.epoch);
                let since = before.remove(&key).unwrap_or(now);
                self.free.insert(key, since);
            }
        }
    }

    /// What is known of a worker.
    pub fn liveness(&self, worker: &str) -> Liveness {
        let Some((seen, last)) = self.workers.get(worker).zip(self.heartbeats_at) else {
            return Liveness::Missing;
        };
        let still = last.saturating_duration_since(seen.at);
        match (still >= self.lease_duration, seen.has_moved) {
            (true, _) => Liveness::Silent(still),
            (false, true) => Liveness::Alive,
            (false, false) => Liveness::Watched(still),
        }
    }

    /// Free leases that were seen so for as long as the fleet should take to give them an owner.
    pub fn long_free(&self) -> usize {
        let Some(last) = self.leases_at else { return 0 };
        let is_long = |since: &&Instant| last.saturating_duration_since(**since) >= self.lease_duration;
        self.free.values().filter(is_long).count()
    }

    /// Whether another look could tell no more of who lives.
    pub fn knows_workers(&self) -> bool {
        !self.workers.keys().any(|worker| matches!(self.liveness(worker), Liveness::Watched(_)))
    }

    /// Whether another look could tell no more of which leases are free for long.
    pub fn knows_free(&self) -> bool {
        self.free.len() == self.long_free()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consumer::store::{Report, StreamState};
    use crate::status::StreamName;

    const LEASE: Duration = Duration::from_secs(10);

    fn beat(worker: &str, counter: u64) -> Heartbeat {
        Heartbeat { worker: worker.to_owned(), instance: "i".to_owned(), counter, report: Report::default() }
    }

    #[test]
    fn a_worker_lives_when_it_is_seen_to_move_and_is_silent_when_it_stands_still_for_long() {
        let (start, mut observer) = (Instant::now(), Observer::new(LEASE));
        let at = |second| start + Duration::from_secs(second);
        observer.see_heartbeats(&[beat("a", 1), beat("b", 1)], at(0));
        assert_eq!(observer.liveness("a"), Liveness::Watched(Duration::ZERO));
        assert_eq!(observer.liveness("c"), Liveness::Missing);
        observer.see_heartbeats(&[beat("a", 2), beat("b", 1)], at(4));
        assert_eq!(observer.liveness("a"), Liveness::Alive);
        assert_eq!(observer.liveness("b"), Liveness::Watched(Duration::from_secs(4)));
        assert!(!observer.knows_workers());
        observer.see_heartbeats(&[beat("a", 2), beat("b", 1)], at(10));
        assert_eq!(observer.liveness("a"), Liveness::Alive, "it has missed one beat or two");
        assert_eq!(observer.liveness("b"), Liveness::Silent(LEASE));
        assert!(observer.knows_workers());
        let restarted = Heartbeat { instance: "j".to_owned(), ..beat("b", 1) };
        observer.see_heartbeats(&[restarted], at(11));
        assert_eq!((observer.liveness("b"), observer.liveness("a")), (Liveness::Alive, Liveness::Missing));
    }

    #[test]
    fn a_lease_is_free_for_long_when_it_was_seen_so_in_one_epoch() {
        let lease = |shard: &str, epoch, checkpoint: &str, owner: Option<&str>| Lease {
            owner: owner.map(str::to_owned),
            ..Lease::new("s", shard, epoch, checkpoint.parse().unwrap())
        };
        let waiting = Lease { parents: vec!["held".to_owned()], ..lease("child", 0, "trim-horizon", None) };
        let look = |epoch| {
            let leases = vec![
                lease("held", 2, "after:1", Some("w")),
                lease("free", epoch, "after:1", None),
                lease("ended", 2, "shard-end", None),
                waiting.clone(),
            ];
            let state = StreamState { leases, ..StreamState::default() };
            vec![StreamLook { name: StreamName::of("s"), state, gaps: Vec::new(), more_gaps: false }]
        };
        let (start, mut observer) = (Instant::now(), Observer::new(LEASE));
        observer.see_leases(&look(1), start);
        observer.see_leases(&look(1), start + LEASE / 2);
        assert_eq!((observer.free.len(), observer.long_free(), observer.knows_free()), (1, 0, false));
        observer.see_leases(&look(1), start + LEASE);
        assert_eq!((observer.long_free(), observer.knows_free()), (1, true));
        observer.see_leases(&look(2), start + 2 * LEASE);
        assert_eq!(observer.long_free(), 0, "somebody had it in between");
    }
}
