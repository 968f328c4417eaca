//! How far a fleet is from balance, seen from one of its workers, and the plan to get there.
//!
//! A [`Fleet`] is measured on a [`Scale`]: by throughput or by count. Each member's fair load is its part of the
//! total by capacity, and within ±10% of that it is balanced. Every worker computes the same plan from the same
//! heartbeats: the excess of the givers laid along the deficits of the receivers.
//!
//! ```text
//! excess   |  a   |    b    | c |
//! deficit  |    x    |    y     |     a gives to x; b to x and y; c to y
//! ```

use std::collections::BTreeSet;
use std::iter;

use super::{Member, lot};

/// How far from its fair load a member may be.
pub(super) const BAND: f64 = 0.1;

/// A member that bears a part of the load.
#[derive(Debug)]
pub(super) struct Bearer<'a> {
    member: &'a Member,
    leases: f64,
    bytes_per_s: f64,
}

/// The members that leases can get to from the worker that decides, over whatever chain of streams.
#[derive(Debug)]
pub(super) struct Fleet<'a> {
    me: Bearer<'a>,
    others: Vec<Bearer<'a>>,
    /// Those that are leaving: what they bear now, the others will have to.
    leaving: Vec<Bearer<'a>>,
    /// The same for everybody who sees the same, and another with the next heartbeats.
    seed: u64,
}

impl<'a> Fleet<'a> {
    /// None if `me` is not among the members or is leaving. `bytes_per_s` are the rates of the leases that it has.
    pub(super) fn around(me: &str, members: &'a [Member], bytes_per_s: &[u64]) -> Option<Self> {
        let me = members.iter().find(|member| member.id == me && !member.leaving)?;
        let mut near = connected(me, members);
        near.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        let seen = near.iter().flat_map(|member| [member.bytes_per_s, member.leases as u64]);
        let seed = lot(seen.map(u64::to_le_bytes).collect::<Vec<_>>().iter().map(<[u8; 8]>::as_slice));
        let (leaving, others) = near
            .into_iter()
            .filter(|member| member.id != me.id)
            .map(Bearer::new)
            .partition(|it| it.member.leaving);
        // The heartbeat is older than what the worker knows of itself.
        let leases = bytes_per_s.len() as f64;
        let bytes_per_s = bytes_per_s.iter().map(|rate| *rate as f64).sum();
        let me = Bearer { member: me, leases, bytes_per_s };
        Some(Fleet { me, others, leaving, seed })
    }

    pub(super) fn bytes_per_s(&self) -> f64 {
        self.total(|bearer| bearer.bytes_per_s)
    }

    pub(super) fn leases(&self) -> f64 {
        self.total(|bearer| bearer.leases)
    }

    fn bearers(&self) -> impl Iterator<Item = &Bearer<'a>> {
        iter::once(&self.me).chain(&self.others)
    }

    fn total(&self, load: impl Fn(&Bearer<'a>) -> f64) -> f64 {
        self.bearers().chain(&self.leaving).map(load).sum()
    }

    /// Whether leases are about to become free.
    pub(super) fn is_shrinking(&self) -> bool {
        self.leaving.iter().any(|bearer| bearer.leases > 0.0)
    }

    /// The lot of a giver, if only one may give to a receiver.
    pub(super) fn lot(&self, giver: &Member, receiver: &Member) -> u64 {
        lot([&self.seed.to_le_bytes(), receiver.id.as_bytes(), giver.id.as_bytes()])
    }

    /// The part of a receiver's room that `me` may use: the room is dealt out to all that might give, evenly and
    /// the rest by lot, so that givers who do not hear of each other stay below its `leases_max` together.
    pub(super) fn room_for_me(&self, receiver: &Member) -> usize {
        let mine = self.lot(self.me.member, receiver);
        let might_give = |it: &&Bearer<'_>| {
            it.member.id != receiver.id && it.leases > 0.0 && shares_stream(it.member, receiver)
        };
        let (mut givers, mut before_me) = (0, 0);
        for giver in self.bearers().filter(might_give) {
            givers += 1;
            before_me += usize::from(self.lot(giver.member, receiver) < mine);
        }
        let share = receiver.room().checked_div(givers).unwrap_or_default();
        let rest = receiver.room().checked_rem(givers).unwrap_or_default();
        share + usize::from(before_me < rest)
    }
}

impl<'a> Bearer<'a> {
    fn new(member: &'a Member) -> Self {
        Bearer { member, leases: member.leases as f64, bytes_per_s: member.bytes_per_s as f64 }
    }
}

/// The members that `me` shares a stream with, those that they share one with, and so on; `me` too.
fn connected<'a>(me: &'a Member, members: &'a [Member]) -> Vec<&'a Member> {
    let mut streams: BTreeSet<&str> = me.streams.iter().map(String::as_str).collect();
    let (mut near, mut far): (Vec<&Member>, Vec<&Member>) =
        members.iter().partition(|member| member.id == me.id);
    loop {
        let is_near =
            |member: &&Member| member.streams.iter().any(|stream| streams.contains(stream.as_str()));
        let (next, rest): (Vec<&Member>, Vec<&Member>) = far.into_iter().partition(is_near);
        if next.is_empty() {
            return near;
        }
        streams.extend(next.iter().flat_map(|member| &member.streams).map(String::as_str));
        near.extend(next);
        far = rest;
    }
}

pub(super) fn shares_stream(one: &Member, other: &Member) -> bool {
    !one.streams.is_disjoint(&other.streams)
}

/// A member's load on a scale.
#[derive(Clone, Debug)]
pub(super) struct Share<'a> {
    pub(super) member: &'a Member,
    pub(super) load: f64,
    pub(super) bytes_per_s: f64,
    /// The load that is right for it.
    fair: f64,
    /// What it may be off by and still be balanced.
    slack: f64,
}

impl Share<'_> {
    pub(super) fn used(&self) -> f64 {
        self.load / self.member.weight()
    }

    pub(super) fn is_over(&self) -> bool {
        self.load > self.fair + self.slack
    }

    /// Less than it ought to have, and room for more.
    pub(super) fn is_under(&self) -> bool {
        self.load < self.fair - self.slack && self.member.room() > 0
    }

    /// What it could do without. One lease alone is never better elsewhere.
    fn excess(&self) -> f64 {
        if self.member.leases > 1 { self.load - self.fair } else { 0.0 }
    }

    fn deficit(&self) -> f64 {
        if self.member.room() > 0 { self.fair - self.load } else { 0.0 }
    }

    /// The load relative to the fair one.
    fn ratio(&self) -> f64 {
        self.load / self.fair
    }
}

/// What is balanced: the throughput or the count of leases.
#[derive(Debug)]
pub(super) struct Scale<'a> {
    pub(super) me: Share<'a>,
    pub(super) others: Vec<Share<'a>>,
    /// The use that every member comes to that is not at a limit.
    pub(super) level: f64,
}

/// Who gives how much to whom.
#[derive(Debug)]
pub(super) struct Plan<'s, 'a> {
    /// What `me` gives.
    pub(super) parts: Vec<Part<'s, 'a>>,
    /// What each receiver gets from all together.
    filled: Vec<(&'s Share<'a>, f64)>,
}

/// A part of the plan: the stretch of a receiver's deficit that `me` fills.
#[derive(Debug)]
pub(super) struct Part<'s, 'a> {
    pub(super) to: &'s Share<'a>,
    pub(super) from: f64,
    pub(super) upto: f64,
}

impl Plan<'_, '_> {
    /// What the plan has for a receiver.
    pub(super) fn filled(&self, receiver: &Member) -> f64 {
        let filled = self.filled.iter().find(|(share, _)| share.member.id == receiver.id);
        filled.map_or(0.0, |(_, filled)| *filled)
    }
}

impl<'a> Scale<'a> {
    /// A member without room bears no more than it does.
    pub(super) fn throughput(fleet: &Fleet<'a>) -> Self {
        let limit = |bearer: &Bearer<'a>| match bearer.member.room() {
            0 => bearer.bytes_per_s,
            _ => f64::INFINITY,
        };
        Self::new(fleet, |bearer| bearer.bytes_per_s, limit, 0.0)
    }

    /// A lease is not cut in two: one more or less is balanced.
    pub(super) fn count(fleet: &Fleet<'a>) -> Self {
        Self::new(fleet, |bearer| bearer.leases, |bearer| bearer.member.leases_max as f64, 1.0)
    }

    fn new(
        fleet: &Fleet<'a>,
        load: impl Fn(&Bearer<'a>) -> f64,
        limit: impl Fn(&Bearer<'a>) -> f64,
        slack_min: f64,
    ) -> Self {
        let limits = fleet.bearers().map(|bearer| (bearer.member.weight(), limit(bearer))).collect();
        let level = level(fleet.total(&load), limits);
        let share = |bearer: &Bearer<'a>| {
            let fair = limit(bearer).min(level * bearer.member.weight());
            Share {
                member: bearer.member,
                load: load(bearer),
                bytes_per_s: bearer.bytes_per_s,
                fair,
                slack: slack_min.max(fair * BAND),
            }
        };
        Scale { me: share(&fleet.me), others: fleet.others.iter().map(share).collect(), level }
    }

    /// The plan. Whoever is furthest off comes first, and two that are both within the band leave each other alone.
    pub(super) fn plan(&self) -> Plan<'_, 'a> {
        let shares = || iter::once(&self.me).chain(&self.others);
        let by_ratio = |a: &Share<'_>, b: &Share<'_>| {
            a.ratio().total_cmp(&b.ratio()).then_with(|| a.member.id.cmp(&b.member.id))
        };
        let mut givers: Vec<&Share<'a>> = shares().filter(|share| share.excess() > 0.0).collect();
        givers.sort_by(|a, b| by_ratio(b, a));
        let mut filled: Vec<(&Share<'a>, f64)> =
            shares().filter(|share| share.deficit() > 0.0).map(|share| (share, 0.0)).collect();
        filled.sort_by(|(a, _), (b, _)| by_ratio(a, b));
        let mut parts = Vec::new();
        for giver in givers {
            let mut excess = giver.excess();
            for (receiver, filled) in &mut filled {
                let amount = excess.min(receiver.deficit() - *filled);
                let is_due = giver.is_over() || receiver.is_under();
                if amount > 0.0 && is_due && shares_stream(giver.member, receiver.member) {
                    if giver.member.id == self.me.member.id {
                        parts.push(Part { to: receiver, from: *filled, upto: *filled + amount });
                    }
                    excess -= amount;
                    *filled += amount;
                }
            }
        }
        Plan { parts, filled }
    }
}

/// The use at which the members bear `total` together, each up to its limit: water poured over them. `limits` are
/// their weights and limits.
fn level(total: f64, mut limits: Vec<(f64, f64)>) -> f64 {
    limits.sort_by(|(a, a_limit), (b, b_limit)| (a_limit / a).total_cmp(&(b_limit / b)));
    let mut weight: f64 = limits.iter().map(|(weight, _)| weight).sum();
    let (mut rest, mut level) = (total, 0.0);
    for (own, limit) in limits {
        level = rest / weight;
        if limit >= level * own {
            return level;
        }
        // It is full, and the others share the rest. If all are full, the level is that of the last.
        level = limit / own;
        rest -= limit;
        weight -= own;
    }
    level
}
