use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// A free lease is overdue after so many rounds.
const OVERDUE_ROUNDS: usize = 3;
/// A lease that was moved stays for so many rounds.
const STAY_ROUNDS: usize = 3;
/// The heartbeats of a fleet vary by less than this, in bytes a second: nothing that matters, but never the same.
const NOISE_BYTES_PER_S: u64 = 3;
/// No move for so many rounds is the end of all moves.
const QUIET_ROUNDS: usize = 60;
const ROUNDS_MAX: usize = 1_000;

#[derive(Clone, Debug)]
struct Worker {
    member: Member,
    /// It has a heartbeat and does nothing.
    dead: bool,
}

#[derive(Clone, Debug)]
struct Lease {
    stream: String,
    shard: String,
    bytes_per_s: u64,
    owner: Option<String>,
    free_rounds: usize,
    moved: Option<usize>,
    moves: usize,
}

/// A fleet in which all see the same in each round, and act at once.
#[derive(Clone, Debug)]
struct Fleet {
    workers: Vec<Worker>,
    leases: Vec<Lease>,
    round: usize,
    noise: u64,
}

impl Fleet {
    fn new(workers: Vec<Worker>, leases: Vec<Lease>) -> Self {
        Fleet { workers, leases, round: 0, noise: 1 }
    }

    fn members(&mut self) -> Vec<Member> {
        let mut members: Vec<Member> = self.workers.iter().map(|worker| worker.member.clone()).collect();
        for member in &mut members {
            let own = self.leases.iter().filter(|lease| lease.owner.as_ref() == Some(&member.id));
            (member.leases, member.bytes_per_s) =
                own.fold((0, 0), |(count, sum), lease| (count + 1, sum + lease.bytes_per_s));
            self.noise =
                self.noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            member.bytes_per_s += (self.noise >> 33) % NOISE_BYTES_PER_S;
        }
        members
    }

    fn free(&self) -> Vec<usize> {
        (0..self.leases.len()).filter(|index| self.leases[*index].owner.is_none()).collect()
    }

    fn unplaceable(&mut self) -> usize {
        let members = self.members();
        let free = self.free();
        without_room(&members, &self.free_leases(&free))
    }

    fn free_leases(&self, free: &[usize]) -> Vec<FreeLease<'_>> {
        let lease = |index: &usize| {
            let Lease { stream, shard, bytes_per_s, .. } = &self.leases[*index];
            FreeLease { stream, shard, bytes_per_s: *bytes_per_s }
        };
        free.iter().map(lease).collect()
    }

    fn count(&self, id: &str) -> usize {
        self.leases.iter().filter(|lease| lease.owner.as_deref() == Some(id)).count()
    }

    fn bytes_per_s(&self, id: &str) -> u64 {
        let own = self.leases.iter().filter(|lease| lease.owner.as_deref() == Some(id));
        own.map(|lease| lease.bytes_per_s).sum()
    }

    fn worker(&self, id: &str) -> &Worker {
        self.workers.iter().find(|worker| worker.member.id == id).unwrap()
    }

    /// A round: claims, and moves once nothing can be claimed. Returns how many leases were moved.
    fn step(&mut self) -> usize {
        self.round += 1;
        self.claim_all();
        let moves = if self.unplaceable() == self.free().len() { self.give_all() } else { 0 };
        self.check_limits();
        moves
    }

    fn claim_all(&mut self) {
        let members = self.members();
        let free = self.free();
        let overdue: Vec<bool> =
            free.iter().map(|index| self.leases[*index].free_rounds >= OVERDUE_ROUNDS).collect();
        let mut claims: BTreeMap<usize, Vec<String>> = BTreeMap::new();
        for worker in self.workers.iter().filter(|worker| !worker.dead) {
            let id = &worker.member.id;
            let claimed = claim(id, &members, &self.free_leases(&free), &overdue, 50);
            assert!(claimed.len() <= 50);
            assert_eq!(claimed.iter().collect::<BTreeSet<_>>().len(), claimed.len(), "claimed twice");
            for index in claimed {
                claims.entry(index).or_default().push(id.clone());
            }
        }
        for (index, mut claimers) in claims {
            assert!(claimers.len() == 1 || overdue[index], "{claimers:?} claim the same lease");
            let winner = claimers.swap_remove(self.round % claimers.len());
            self.leases[free[index]].owner = Some(winner);
        }
        for lease in &mut self.leases {
            lease.free_rounds = if lease.owner.is_none() { lease.free_rounds + 1 } else { 0 };
        }
    }

    fn give_all(&mut self) -> usize {
        let members = self.members();
        let mut all: Vec<(usize, String)> = Vec::new();
        for worker in self.workers.iter().filter(|worker| !worker.dead) {
            let own: Vec<usize> = (0..self.leases.len())
                .filter(|index| self.leases[*index].owner.as_ref() == Some(&worker.member.id))
                .collect();
            let held: Vec<HeldLease<'_>> = own
                .iter()
                .map(|index| &self.leases[*index])
                .map(|lease| HeldLease {
                    stream: &lease.stream,
                    shard: &lease.shard,
                    bytes_per_s: lease.bytes_per_s,
                    may_move: lease.moved.is_none_or(|moved| moved + STAY_ROUNDS < self.round),
                })
                .collect();
            for Move { lease, to } in give(&worker.member.id, &members, &held) {
                assert!(held[lease].may_move, "moved too soon");
                assert_ne!(to, worker.member.id);
                all.push((own[lease], to));
            }
        }
        let moved: BTreeSet<usize> = all.iter().map(|(lease, _)| *lease).collect();
        assert_eq!(moved.len(), all.len(), "a lease given twice");
        for (lease, to) in &all {
            let lease = &mut self.leases[*lease];
            lease.owner = Some(to.clone());
            lease.moved = Some(self.round);
            lease.moves += 1;
        }
        all.len()
    }

    fn check_limits(&self) {
        for Worker { member, .. } in &self.workers {
            assert!(self.count(&member.id) <= member.leases_max, "{} has too many leases", member.id);
        }
        for lease in &self.leases {
            if let Some(owner) = &lease.owner {
                let owner = self.worker(owner);
                assert!(owner.member.streams.contains(&lease.stream), "a stream that its owner cannot read");
            }
        }
    }

    /// Goes on until nothing moves any more. Returns the moves.
    fn settle(&mut self) -> usize {
        let (mut moves, mut quiet) = (0, 0);
        for _ in 0..ROUNDS_MAX {
            let free = self.free().len();
            let moved = self.step();
            moves += moved;
            quiet = if moved == 0 && self.free().len() == free { quiet + 1 } else { 0 };
            if quiet == QUIET_ROUNDS {
                return moves;
            }
        }
        panic!("moves without an end");
    }

    /// Takes a worker out of the fleet. Its leases are free.
    fn remove(&mut self, id: &str) {
        self.workers.retain(|worker| worker.member.id != id);
        for lease in self.leases.iter_mut().filter(|lease| lease.owner.as_deref() == Some(id)) {
            lease.owner = None;
        }
    }

    /// Everyone's throughput, relative to its fair share of all.
    fn by_throughput(&self) -> Vec<f64> {
        self.relative(|id| self.bytes_per_s(id) as f64)
    }

    fn by_count(&self) -> Vec<f64> {
        self.relative(|id| self.count(id) as f64)
    }

    fn relative(&self, load: impl Fn(&str) -> f64) -> Vec<f64> {
        let total: f64 = self.workers.iter().map(|worker| load(&worker.member.id)).sum();
        let capacity: f64 = self.workers.iter().map(|worker| f64::from(worker.member.capacity)).sum();
        let fair = |worker: &Worker| total * f64::from(worker.member.capacity) / capacity;
        self.workers.iter().map(|worker| load(&worker.member.id) / fair(worker)).collect()
    }
}

/// The least level at which all together bear the total, found by halving.
fn level_by_halving(total: f64, limits: &[(f64, f64)]) -> f64 {
    let (mut low, mut high) = (0.0, total + 1.0);
    for _ in 0..100 {
        let level = (low + high) / 2.0;
        let borne: f64 = limits.iter().map(|(capacity, limit)| limit.min(capacity * level)).sum();
        if borne < total { low = level } else { high = level }
    }
    high
}

/// What is left to improve: a member out of its band and a lease whose move helps it.
fn improvement(fleet: &Fleet) -> Option<String> {
    let total: u64 =
        fleet.leases.iter().filter(|lease| lease.owner.is_some()).map(|lease| lease.bytes_per_s).sum();
    let owned = fleet.leases.iter().filter(|lease| lease.owner.is_some()).count();
    let has_throughput = total as f64 >= LEASE_BYTES_PER_S_MIN * owned as f64;
    let busy_min = if has_throughput { total as f64 / owned as f64 * IDLE_PART } else { f64::INFINITY };
    let by_throughput =
        |lease: &Lease| (lease.bytes_per_s as f64 >= busy_min).then_some(lease.bytes_per_s as f64);
    let by_count = |lease: &Lease| ((lease.bytes_per_s as f64) < busy_min).then_some(1.0);
    let noise = (NOISE_BYTES_PER_S * 100) as f64;
    improvement_on(fleet, |id| fleet.bytes_per_s(id) as f64, |_| f64::INFINITY, by_throughput, noise)
        .filter(|_| has_throughput)
        .or_else(|| {
            // With throughput the count comes second.
            let count = |id: &str| fleet.count(id) as f64;
            let limit = |member: &Member| member.leases_max as f64;
            improvement_on(fleet, count, limit, by_count, 1.0 + 1e-6).filter(|_| !has_throughput)
        })
}

fn improvement_on(
    fleet: &Fleet,
    load: impl Fn(&str) -> f64,
    limit: impl Fn(&Member) -> f64,
    weight: impl Fn(&Lease) -> Option<f64>,
    slack: f64,
) -> Option<String> {
    let room = |member: &Member| member.leases_max.saturating_sub(fleet.count(&member.id));
    for group in groups(fleet) {
        let total: f64 = group.iter().map(|member| load(&member.id)).sum();
        let limit = |member: &Member| if room(member) == 0 { load(&member.id) } else { limit(member) };
        let limits: Vec<(f64, f64)> =
            group.iter().map(|member| (f64::from(member.capacity), limit(member))).collect();
        let level = level_by_halving(total, &limits);
        let fair = |member: &Member| limit(member).min(level * f64::from(member.capacity));
        for giver in &group {
            for receiver in group.iter().filter(|receiver| room(receiver) > 0) {
                let (more, less) = (load(&giver.id), load(&receiver.id));
                let (giving, taking) = (f64::from(giver.capacity), f64::from(receiver.capacity));
                let is_over = more > fair(giver) * 1.1 + slack;
                let is_under = less < fair(receiver) * 0.9 - slack;
                if (!is_over && !is_under) || more / giving <= 1.1 * less / taking + slack {
                    continue;
                }
                for lease in fleet.leases.iter().filter(|lease| lease.owner.as_ref() == Some(&giver.id)) {
                    if let Some(weight) = weight(lease)
                        && receiver.streams.contains(&lease.stream)
                        && (less + weight) / taking < (more - weight) / giving - slack.min(1e-6)
                        && (weight == 1.0 || (less + weight) / taking < (more - weight) / giving - slack)
                    {
                        return Some(format!(
                            "{} of {} from {} ({more} of {}) to {} ({less} of {})",
                            weight,
                            lease.shard,
                            giver.id,
                            fair(giver),
                            receiver.id,
                            fair(receiver)
                        ));
                    }
                }
            }
        }
    }
    None
}

/// The members by the streams that connect them.
fn groups(fleet: &Fleet) -> Vec<Vec<Member>> {
    let mut groups: Vec<(BTreeSet<String>, Vec<Member>)> = Vec::new();
    for Worker { member, .. } in &fleet.workers {
        let (near, far) = groups.into_iter().partition(|(streams, _)| !streams.is_disjoint(&member.streams));
        groups = far;
        let mut joined = (member.streams.clone(), vec![member.clone()]);
        let near: Vec<(BTreeSet<String>, Vec<Member>)> = near;
        for (streams, members) in near {
            joined.0.extend(streams);
            joined.1.extend(members);
        }
        groups.push(joined);
    }
    groups.into_iter().map(|(_, members)| members).collect()
}

fn worker(number: usize, capacity: u32, leases_max: usize, streams: &[&str]) -> Worker {
    let streams = streams.iter().map(|stream| (*stream).to_owned()).collect();
    let id = format!("worker-{number}");
    let member = Member { id, capacity, leases_max, leases: 0, bytes_per_s: 0, streams, leaving: false };
    Worker { member, dead: false }
}

fn lease(number: usize, stream: &str, bytes_per_s: u64) -> Lease {
    let (stream, shard) = (stream.to_owned(), format!("shard-{number}"));
    Lease { stream, shard, bytes_per_s, owner: None, free_rounds: 0, moved: None, moves: 0 }
}

fn equal_workers(count: usize) -> Vec<Worker> {
    (0..count).map(|number| worker(number, 1, usize::MAX, &["s"])).collect()
}

fn leases_of(rates: impl IntoIterator<Item = u64>) -> Vec<Lease> {
    rates.into_iter().enumerate().map(|(number, rate)| lease(number, "s", rate)).collect()
}

fn assert_within(relative: &[f64], band: f64) {
    assert!(relative.iter().all(|part| (part - 1.0).abs() <= band), "{relative:?}");
}

const STREAMS: [&str; 3] = ["a", "b", "c"];

/// A lease's rate: idle, of the same order, or one of a few that are hot.
fn rate() -> impl Strategy<Value = u64> {
    prop_oneof![2 => Just(0), 1 => 0..2_000_u64, 5 => 10_000..100_000_u64, 1 => 100_000..5_000_000_u64]
}

fn some_streams() -> impl Strategy<Value = Vec<&'static str>> {
    prop_oneof![3 => Just(STREAMS.to_vec()), 1 => prop::sample::subsequence(STREAMS.to_vec(), 1..=3)]
}

fn some_worker(leases_max: impl Strategy<Value = usize>) -> impl Strategy<Value = Worker> {
    (1..=4_u32, leases_max, some_streams())
        .prop_map(|(capacity, leases_max, streams)| worker(0, capacity, leases_max, &streams))
}

fn some_fleet(
    leases_max: impl Strategy<Value = usize>,
    rate: impl Strategy<Value = u64>,
) -> impl Strategy<Value = Fleet> {
    let leases = prop::collection::vec(
        (prop::sample::select(&STREAMS[..]), rate, any::<prop::sample::Index>()),
        0..200,
    );
    (prop::collection::vec(some_worker(leases_max), 1..=12), leases, 0..4_usize).prop_map(
        |(mut workers, leases, owned)| {
            for (number, worker) in workers.iter_mut().enumerate() {
                worker.member.id = format!("worker-{number}");
            }
            let mut leases: Vec<(Lease, prop::sample::Index)> = leases
                .into_iter()
                .enumerate()
                .map(|(number, (stream, rate, owner))| (lease(number, stream, rate), owner))
                .collect();
            // Some start with owners, and badly spread ones: the first few workers have them all.
            for (lease, owner) in leases.iter_mut().filter(|_| owned > 0) {
                let candidate = &workers[owner.index(workers.len()) % owned.min(workers.len())].member;
                lease.owner = candidate.streams.contains(&lease.stream).then(|| candidate.id.clone());
            }
            let mut fleet = Fleet::new(workers, leases.into_iter().map(|(lease, _)| lease).collect());
            for number in 0..fleet.workers.len() {
                let Member { id, leases_max, .. } = fleet.workers[number].member.clone();
                let own = fleet.leases.iter_mut().filter(|lease| lease.owner.as_ref() == Some(&id));
                own.skip(leases_max).for_each(|lease| lease.owner = None);
            }
            fleet
        },
    )
}

fn any_fleet() -> impl Strategy<Value = Fleet> {
    some_fleet(prop_oneof![3 => Just(usize::MAX), 1 => 0..40_usize], rate())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn moves_end_and_leave_nothing_that_one_move_would_improve(mut fleet in any_fleet()) {
        fleet.settle();
        prop_assert_eq!(fleet.unplaceable(), fleet.free().len());
        prop_assert_eq!(improvement(&fleet), None);
    }
}
