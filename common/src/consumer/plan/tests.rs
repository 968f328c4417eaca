use std::collections::BTreeSet;

use super::super::compatibility::STATE_VERSION;
use super::*;

const ME: &str = "b";
const OVERDUE_AFTER: Duration = Duration::from_secs(5);

fn lease(shard: &str, owner: Option<&str>, epoch: u64) -> Lease {
    Lease {
        stream: "stream".into(),
        shard: shard.into(),
        parents: Vec::new(),
        owner: owner.map(str::to_owned),
        epoch,
        checkpoint: "trim-horizon".parse().unwrap(),
        bytes_per_s: 0,
        seen_ms: 0,
        given: false,
        rewind: None,
        target: None,
        settling_ms: None,
        ended: None,
        lanes: Default::default(),
        parked: Default::default(),
        guest: None,
        format: 1,
    }
}

fn member(id: &str, leases_max: usize) -> Member {
    Member {
        id: id.to_owned(),
        capacity: 100,
        leases_max,
        leases: 0,
        bytes_per_s: 0,
        streams: BTreeSet::from(["stream".to_owned()]),
        leaving: false,
    }
}

fn key(shard: &str) -> ShardKey {
    ShardKey { stream: "stream".into(), shard: shard.into() }
}

/// A worker's state of mind from one look to the next.
struct Mind {
    members: Vec<Member>,
    dead: Vec<&'static str>,
    running: HashMap<ShardKey, Running>,
    paused: HashSet<ShardKey>,
    free_since: FreeSince,
    now: Instant,
}

impl Mind {
    fn new(members: Vec<Member>) -> Self {
        Self {
            members,
            dead: Vec::new(),
            running: HashMap::new(),
            paused: HashSet::new(),
            free_since: FreeSince::new(),
            now: Instant::now(),
        }
    }

    fn running(mut self, shards: &[(&str, u64)]) -> Self {
        for (shard, epoch) in shards {
            let running = Running { epoch: *epoch, bytes_per_s: 0, may_move: true, is_finished: false };
            self.running.insert(key(shard), running);
        }
        self
    }

    fn looks_at(&mut self, leases: Vec<Lease>) -> Plan {
        let situation = Situation {
            me: ME,
            members: self.members.clone(),
            leases: &[leases],
            abandoned: &|owner, _| self.dead.contains(&owner),
            running: &self.running,
            paused: &self.paused,
            now: self.now,
            overdue_after: OVERDUE_AFTER,
            claims_max: 100,
            may_give: true,
        };
        plan(situation, &mut self.free_since)
    }
}

fn shards(leases: &[Lease]) -> Vec<&str> {
    let mut shards: Vec<&str> = leases.iter().map(|lease| &*lease.shard).collect();
    shards.sort_unstable();
    shards
}

#[test]
fn alone_it_takes_what_is_free_its_own_or_a_dead_workers() {
    let mut mind = Mind::new(vec![member(ME, 10)]);
    mind.dead.push("gone");
    let leases = vec![
        lease("free", None, 3),
        lease("mine", Some(ME), 1),
        lease("theirs", Some("alive"), 1),
        lease("orphan", Some("gone"), 1),
    ];
    let plan = mind.looks_at(leases);
    assert_eq!(shards(&plan.start), ["free", "mine", "orphan"]);
    assert_eq!((plan.left, plan.without_room), (0, 0));
}

#[test]
fn what_runs_what_failed_and_what_waits_for_its_parents_is_left_alone() {
    let mut mind = Mind::new(vec![member(ME, 10)]).running(&[("runs", 2)]);
    mind.paused.insert(key("failed"));
    let mut child = lease("child", None, 0);
    child.parents.push("runs".to_owned());
    let leases = vec![lease("runs", Some(ME), 2), lease("failed", Some(ME), 1), child];
    let plan = mind.looks_at(leases);
    assert!(plan.start.is_empty() && plan.lost.is_empty() && plan.give.is_empty());
}

#[test]
fn a_running_shard_is_lost_when_its_lease_is_of_a_later_tenure_only() {
    let mut mind = Mind::new(vec![member(ME, 10)]).running(&[("old-view", 3), ("taken", 3)]);
    let plan = mind.looks_at(vec![lease("old-view", None, 2), lease("taken", Some("other"), 4)]);
    assert_eq!(plan.lost, [key("taken")]);
}

#[test]
fn beyond_its_room_its_own_leases_are_given_up_and_free_ones_are_reported() {
    let mut mind = Mind::new(vec![member(ME, 2)]).running(&[("runs", 1)]);
    let leases = vec![
        lease("runs", Some(ME), 1),
        lease("x", Some(ME), 1),
        lease("y", Some(ME), 1),
        lease("z", None, 0),
    ];
    let plan = mind.looks_at(leases);
    assert_eq!((plan.start.len(), plan.surplus.len()), (1, 1));
    assert_eq!((plan.left, plan.without_room), (1, 1));
}

#[test]
fn what_was_meant_for_another_is_taken_when_it_stays_free() {
    let mut mind = Mind::new(vec![member("a", 100), member(ME, 100)]);
    let free = || (0..10).map(|i| lease(&format!("{i}"), None, 1)).collect::<Vec<_>>();
    let first = mind.looks_at(free());
    assert_eq!(first.start.len(), 5, "the other half is the other's");
    assert_eq!(first.left, 5);
    mind.now += OVERDUE_AFTER;
    assert_eq!(mind.looks_at(free()).start.len(), 10);
}

#[test]
fn it_gives_for_balance_only_when_nothing_is_free() {
    let running: Vec<(String, u64)> = (0..40).map(|i| (format!("{i:02}"), 1)).collect();
    let running: Vec<(&str, u64)> = running.iter().map(|(shard, epoch)| (shard.as_str(), *epoch)).collect();
    let mut mind = Mind::new(vec![member("a", 100), member(ME, 100)]).running(&running);
    let held = || running.iter().map(|(shard, _)| lease(shard, Some(ME), 1)).collect::<Vec<_>>();
    let with_free = held().into_iter().chain([lease("free", None, 1)]).collect();
    assert!(mind.looks_at(with_free).give.is_empty());
    let given = mind.looks_at(held()).give;
    assert_eq!(given.len(), 20);
    assert!(given.iter().all(|(_, to)| to == "a"));
}

#[test]
fn a_lease_of_a_newer_version_is_not_taken_whoever_has_it_nor_is_what_descends_from_it() {
    let mut mind = Mind::new(vec![member(ME, 10)]).running(&[("runs", 2)]);
    mind.dead.push("gone");
    let newer = |lease: Lease| Lease { format: STATE_VERSION + 1, ..lease };
    let child = Lease { parents: vec!["free".to_owned()], ..lease("child", None, 0) };
    let leases = vec![
        newer(lease("free", None, 3)),
        newer(lease("mine", Some(ME), 1)),
        newer(lease("orphan", Some("gone"), 1)),
        newer(lease("runs", Some(ME), 2)),
        child,
    ];
    let plan = mind.looks_at(leases);
    assert!(plan.start.is_empty() && plan.surplus.is_empty() && plan.give.is_empty());
    assert_eq!(plan.lost, [key("runs")], "another process of ours, of a newer version, has it");
}
