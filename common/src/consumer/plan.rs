//! What this worker does about the leases as it sees them: take, let go, give away. Pure.
//!
//! Every worker decides for itself; the store's conditions decide between them. A view may be old: what it leads
//! to is then refused, and the next look is better.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::assignment::{FreeLease, HeldLease, Member, claim, give, without_room};
use super::counters::LeaseStates;
use super::lineage::Lineage;
use super::store::Lease;

/// A shard's name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShardKey {
    /// The stream.
    pub stream: Arc<str>,
    /// The shard.
    pub shard: Arc<str>,
}

impl ShardKey {
    /// The shard of a lease.
    pub fn of(lease: &Lease) -> Self {
        Self { stream: Arc::clone(&lease.stream), shard: Arc::clone(&lease.shard) }
    }
}

/// A shard that this worker reads, or is about to.
#[derive(Clone, Debug)]
pub struct Running {
    /// The lease's epoch as it is when this worker has it.
    pub epoch: u64,
    /// What is read of it.
    pub bytes_per_s: u64,
    /// Whether it may be moved for balance now.
    pub may_move: bool,
    /// It was read to its end, and is caught up for parked lanes.
    pub is_finished: bool,
}

/// What there is to decide on.
pub struct Situation<'a> {
    /// This worker.
    pub me: &'a str,
    /// The fleet.
    pub members: Vec<Member>,
    /// The leases of every stream that this worker reads.
    pub leases: &'a [Vec<Lease>],
    /// Whether an owner (first) is dead, or lives and does not read the stream (second).
    pub abandoned: &'a dyn Fn(&str, &str) -> bool,
    /// What this worker reads.
    pub running: &'a HashMap<ShardKey, Running>,
    /// Shards that failed here and wait.
    pub paused: &'a HashSet<ShardKey>,
    /// Now, on this worker's clock.
    pub now: Instant,
    /// A lease that stayed free for so long is anybody's.
    pub overdue_after: Duration,
    /// The most leases to claim at once.
    pub claims_max: usize,
    /// Whether leases may be given away now.
    pub may_give: bool,
}

/// What to do.
#[derive(Debug, Default)]
pub struct Plan {
    /// Leases to take and read.
    pub start: Vec<Lease>,
    /// Shards whose leases others have taken.
    pub lost: Vec<ShardKey>,
    /// Leases of ours beyond what we may have.
    pub surplus: Vec<Lease>,
    /// Shards to give to others.
    pub give: Vec<(ShardKey, String)>,
    /// Free leases that are left for others, or for later.
    pub left: usize,
    /// Free leases that no worker has room for.
    pub without_room: usize,
    /// How all leases stand to this worker.
    pub seen: LeaseStates,
}

/// Since when leases are seen to be free.
pub type FreeSince = HashMap<ShardKey, Instant>;

/// Decides. `free_since` is kept from one look to the next.
pub fn plan(mut situation: Situation<'_>, free_since: &mut FreeSince) -> Plan {
    let mut plan = Plan::default();
    let mut free: Vec<&Lease> = Vec::new();
    let mut mine: Vec<&Lease> = Vec::new();
    let mut owned: HashMap<&str, Owned> = HashMap::new();
    for leases in situation.leases {
        let lineage = Lineage::of(leases);
        leases.iter().for_each(|lease| plan.seen.add(lease, situation.me, &lineage));
        for lease in leases.iter().filter(|lease| !lease.is_over()) {
            if let Some(owner) = &lease.owner {
                let owned = owned.entry(owner).or_default();
                // A finished one takes no room: it would be that of a live one.
                owned.leases += usize::from(!lease.checkpoint.is_end());
                owned.given_bytes_per_s += if lease.given { lease.bytes_per_s } else { 0 };
            }
            match situation.standing(lease, &lineage) {
                Standing::Free => free.push(lease),
                Standing::Mine => mine.push(lease),
                Standing::Lost => plan.lost.push(ShardKey::of(lease)),
                Standing::Settled => {}
            }
        }
    }
    situation.count(&owned);
    situation.take_mine(&mine, &mut plan);
    situation.claim_free(&free, free_since, &mut plan);
    if situation.may_give && plan.start.is_empty() && plan.left <= plan.without_room {
        situation.balance(&mut plan);
    }
    plan
}

/// What the leases tell of their owner.
#[derive(Clone, Copy, Debug, Default)]
struct Owned {
    leases: usize,
    /// Of those that were given to it and that it has not begun.
    given_bytes_per_s: u64,
}

/// How a lease stands to this worker.
enum Standing {
    /// Anybody's to take.
    Free,
    /// Ours, and not running.
    Mine,
    /// Running here, and taken by another.
    Lost,
    /// As it should be, or not yet to be read.
    Settled,
}

impl Situation<'_> {
    fn standing(&self, lease: &Lease, lineage: &Lineage) -> Standing {
        let key = ShardKey::of(lease);
        if let Some(running) = self.running.get(&key) {
            let is_lost = lease.epoch > running.epoch || lease.is_newer();
            return if is_lost { Standing::Lost } else { Standing::Settled };
        }
        if lease.is_newer() {
            return Standing::Settled;
        }
        // One that is at its end is to be caught up, which waits for nothing.
        let may_start = lease.checkpoint.is_end() || lineage.may_start(&lease.shard);
        if self.paused.contains(&key) || !may_start {
            return Standing::Settled;
        }
        match &lease.owner {
            None => Standing::Free,
            Some(owner) if owner == self.me => Standing::Mine,
            Some(owner) if (self.abandoned)(owner, &lease.stream) => Standing::Free,
            Some(_) => Standing::Settled,
        }
    }

    /// The leases say better than the heartbeats who has how many. But of streams that this worker does not read
    /// only the heartbeats tell.
    fn count(&mut self, owned: &HashMap<&str, Owned>) {
        let mine = self.me().map(|me| me.streams.clone()).unwrap_or_default();
        for member in &mut self.members {
            let owned = owned.get(member.id.as_str()).copied().unwrap_or_default();
            member.leases = match member.id == self.me {
                true => self.running.values().filter(|running| !running.is_finished).count(),
                false if member.streams.is_subset(&mine) => owned.leases,
                false => owned.leases.max(member.leases),
            };
            // What it has not begun is not in its heartbeat.
            member.bytes_per_s = member.bytes_per_s.saturating_add(owned.given_bytes_per_s);
        }
    }

    fn me(&mut self) -> Option<&mut Member> {
        self.members.iter_mut().find(|member| member.id == self.me)
    }

    /// An earlier process of ours left them, or somebody gave them to us.
    fn take_mine(&mut self, mine: &[&Lease], plan: &mut Plan) {
        let Some(me) = self.me() else { return };
        let room = me.leases_max.saturating_sub(me.leases);
        let (finished, mine): (Vec<&Lease>, Vec<&Lease>) =
            mine.iter().partition(|lease| lease.checkpoint.is_end());
        plan.start.extend(finished.into_iter().cloned());
        let (taken, surplus) = mine.split_at(room.min(mine.len()));
        me.leases += taken.len();
        plan.start.extend(taken.iter().map(|lease| (*lease).clone()));
        plan.surplus.extend(surplus.iter().map(|lease| (*lease).clone()));
    }

    fn claim_free(&self, free: &[&Lease], free_since: &mut FreeSince, plan: &mut Plan) {
        let keys: HashSet<ShardKey> = free.iter().map(|lease| ShardKey::of(lease)).collect();
        free_since.retain(|key, _| keys.contains(key));
        let overdue: Vec<bool> = free
            .iter()
            .map(|lease| {
                let since = *free_since.entry(ShardKey::of(lease)).or_insert(self.now);
                self.now.saturating_duration_since(since) >= self.overdue_after
            })
            .collect();
        let offered: Vec<FreeLease<'_>> = free
            .iter()
            .map(|lease| FreeLease {
                stream: &lease.stream,
                shard: &lease.shard,
                bytes_per_s: lease.bytes_per_s,
            })
            .collect();
        let claims = claim(self.me, &self.members, &offered, &overdue, self.claims_max);
        plan.left = free.len() - claims.len();
        plan.without_room = without_room(&self.members, &offered);
        plan.start
            .extend(claims.iter().filter_map(|&claimed| free.get(claimed)).map(|lease| (*lease).clone()));
    }

    fn balance(&self, plan: &mut Plan) {
        let held: Vec<(&ShardKey, &Running)> =
            self.running.iter().filter(|(_, running)| !running.is_finished).collect();
        let offered: Vec<HeldLease<'_>> = held
            .iter()
            .map(|(key, running)| HeldLease {
                stream: &key.stream,
                shard: &key.shard,
                bytes_per_s: running.bytes_per_s,
                may_move: running.may_move,
            })
            .collect();
        for moved in give(self.me, &self.members, &offered) {
            if let Some((key, _)) = held.get(moved.lease) {
                plan.give.push(((*key).clone(), moved.to));
            }
        }
    }
}

#[cfg(test)]
mod tests;
