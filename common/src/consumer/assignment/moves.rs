//! What a worker gives away for balance.
//!
//! First by throughput, with the busy leases; when it has nothing to give there, by count, with the idle ones. What
//! is out of balance is moved in two ways:
//!
//! 1. *By plan.* A giver fills its own parts of the [plan](super::balance) only, so that several givers do not flood
//!    one receiver.
//! 2. *By pairs.* The plan fails where leases are larger than its parts, or where a load that cannot be moved (one
//!    hot shard) makes everyone else look idle. So a giver that the plan has nothing for levels itself with one
//!    receiver after the other. Of those that would give to the same receiver each gives its part of the difference
//!    that the plan leaves. And one of them, drawn by lot, gives a lease whatever the plan says and however large
//!    its part is. The lot depends on the rates in the heartbeats, so it falls anew with each of them, and nobody
//!    waits for long for a plan that is not carried out or for one that has nothing to give.
//!
//! Every move leaves its receiver used no more than its giver. So none is worth its way back, and with steady rates
//! the moves end.

use std::mem;

use super::balance::{BAND, Fleet, Part, Plan, Scale, Share, shares_stream};
use super::{Member, busy_bytes_per_s_min};

/// A lease of the worker that decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldLease<'a> {
    /// Its stream.
    pub stream: &'a str,
    /// Its shard.
    pub shard: &'a str,
    /// Its rate, in bytes a second (a decaying average).
    pub bytes_per_s: u64,
    /// Whether it may be given away: not if it was moved a short while ago.
    pub may_move: bool,
}

/// A voluntary move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// An index into the leases held.
    pub lease: usize,
    /// The member that becomes its owner.
    pub to: String,
}

/// Spreading idle leases brings nobody's throughput over this, inside the band: it must not cause moves of busy ones.
const IDLE_BAND: f64 = BAND / 2.0;

/// What `me` gives away now, for balance. Nothing if `me` is not among the members or is leaving.
///
/// A heartbeat tells of a move when it is done. Until then the caller waits, or counts the lease as its receiver's (in
/// the receiver's `leases` and `bytes_per_s`, and not in `held`); or else the same excess is given twice. And free
/// leases will change the balance: while there are some that a member has room for, the answer is premature.
pub fn give(me: &str, members: &[Member], held: &[HeldLease<'_>]) -> Vec<Move> {
    let rates: Vec<u64> = held.iter().map(|lease| lease.bytes_per_s).collect();
    let Some(fleet) = Fleet::around(me, members, &rates) else { return Vec::new() };
    let busy_min = busy_bytes_per_s_min(fleet.bytes_per_s(), fleet.leases());
    let is_busy =
        |lease: &HeldLease<'_>| busy_min.is_some_and(|busy_min| lease.bytes_per_s as f64 >= busy_min);
    let mut bytes_per_s_max = f64::INFINITY;
    if busy_min.is_some() {
        let scale = Scale::throughput(&fleet);
        let busy = offers(held, is_busy, |lease| lease.bytes_per_s as f64);
        let moves = Giver::new(&fleet, &scale, busy, f64::INFINITY).give();
        if !moves.is_empty() {
            return moves;
        }
        bytes_per_s_max = scale.me.used().max(scale.level * (1.0 + IDLE_BAND));
    }
    let idle = offers(held, |lease| !is_busy(lease), |_| 1.0);
    Giver::new(&fleet, &Scale::count(&fleet), idle, bytes_per_s_max).give()
}

/// A lease that may be given away.
#[derive(Clone, Copy, Debug)]
struct Offer<'h> {
    lease: usize,
    stream: &'h str,
    bytes_per_s: f64,
    /// What it weighs on the scale.
    load: f64,
}

/// The leases that may be given away, the heaviest first.
fn offers<'h>(
    held: &[HeldLease<'h>],
    is_offered: impl Fn(&HeldLease<'h>) -> bool,
    load: impl Fn(&HeldLease<'h>) -> f64,
) -> Vec<Offer<'h>> {
    let offered = held.iter().enumerate().filter(|(_, held)| held.may_move && is_offered(held));
    let offer = |(lease, held): (usize, &HeldLease<'h>)| {
        let bytes_per_s = held.bytes_per_s as f64;
        Offer { lease, stream: held.stream, bytes_per_s, load: load(held) }
    };
    let mut offers: Vec<Offer<'h>> = offered.map(offer).collect();
    offers.sort_by(|a, b| b.load.total_cmp(&a.load));
    offers
}

/// The worker that decides, as its gifts change it.
#[derive(Debug)]
struct Giver<'s, 'a, 'h> {
    fleet: &'s Fleet<'a>,
    scale: &'s Scale<'a>,
    me: Share<'a>,
    offers: Vec<Offer<'h>>,
    /// The most throughput, for each unit of capacity, that a gift may bring its receiver to.
    bytes_per_s_max: f64,
    moves: Vec<Move>,
}

/// A receiver, as the gifts of `me` change it.
#[derive(Debug)]
struct Receiver<'a> {
    share: Share<'a>,
    given: f64,
    /// The part of its room that is for `me`.
    room: usize,
}

impl<'s, 'a, 'h> Giver<'s, 'a, 'h> {
    fn new(fleet: &'s Fleet<'a>, scale: &'s Scale<'a>, offers: Vec<Offer<'h>>, bytes_per_s_max: f64) -> Self {
        Giver { fleet, scale, me: scale.me.clone(), offers, bytes_per_s_max, moves: Vec::new() }
    }

    fn give(mut self) -> Vec<Move> {
        if self.offers.is_empty() {
            return self.moves;
        }
        let plan = self.scale.plan();
        self.fill_parts(&plan.parts);
        // Leases that are about to become free go to those that have least: no pair is leveled before.
        if self.moves.is_empty() && !self.fleet.is_shrinking() {
            self.level_pairs(&plan);
        }
        self.moves
    }

    /// Gives what fits into the parts of the plan, the heaviest first and to whoever is used least, so that all get
    /// theirs alike if it is not enough for all. Then perhaps one lease for each that reaches out of its part.
    fn fill_parts(&mut self, parts: &[Part<'_, 'a>]) {
        let mut parts: Vec<(&Part<'_, 'a>, Receiver<'a>)> =
            parts.iter().map(|part| (part, self.receiver(part.to, part.from))).collect();
        for offer in mem::take(&mut self.offers) {
            let fits =
                |part: &Part<'_, '_>, to: &Receiver<'_>| to.given + offer.load <= part.upto - part.from;
            let fitting = parts
                .iter_mut()
                .filter(|(part, receiver)| fits(part, receiver) && self.may_give(&offer, receiver));
            match fitting.min_by(|(_, a), (_, b)| a.share.used().total_cmp(&b.share.used())) {
                Some((_, receiver)) => self.hand_over(&offer, receiver),
                None => self.offers.push(offer),
            }
        }
        for (part, mut receiver) in parts {
            self.round_up(part, &mut receiver);
        }
    }

    /// Lay leases of one weight along the whole deficit of a receiver: the giver in whose part the middle of one is
    /// gives it. So all together give as many as fit, though none of them has room for more than a fraction of one.
    fn round_up(&mut self, part: &Part<'_, 'a>, receiver: &mut Receiver<'a>) {
        let count = |load: f64, offer: &Offer<'_>| (load / offer.load + 0.5).floor();
        let from = part.from + receiver.given;
        let reaches_in = |offer: &Offer<'_>| count(from, offer) < count(part.upto, offer);
        let lightest =
            self.offers.iter().rposition(|offer| reaches_in(offer) && self.may_give(offer, receiver));
        if let Some(lightest) = lightest {
            let offer = self.offers.remove(lightest);
            self.hand_over(&offer, receiver);
        }
    }

    /// Levels `me` with each of the least used that is out of balance with it.
    fn level_pairs(&mut self, plan: &Plan<'_, 'a>) {
        let mut others: Vec<&Share<'a>> =
            self.scale.others.iter().filter(|it| it.member.room() > 0).collect();
        others.sort_by(|a, b| a.used().total_cmp(&b.used()).then_with(|| a.member.id.cmp(&b.member.id)));
        for other in others {
            if are_unequal(&self.me, other) {
                self.level_with(other, plan.filled(other.member));
            }
        }
    }

    /// By the plan the other gets `planned`. If that leaves a difference, each of those that would give to it gives
    /// its part of the difference. The one that is drawn among them does not rely on the plan, and gives a lease.
    fn level_with(&mut self, other: &Share<'a>, planned: f64) {
        let mine = self.fleet.lot(self.me.member, other.member);
        let (mut rivals, mut is_drawn) = (0.0, true);
        for rival in self.scale.others.iter().filter(|it| it.member.leases > 1 && are_unequal(it, other)) {
            rivals += 1.0;
            is_drawn &= mine < self.fleet.lot(rival.member, other.member);
        }
        let mut receiver = self.receiver(other, 0.0);
        if is_drawn
            && let Some(heaviest) = self.offers.iter().position(|offer| self.may_give(offer, &receiver))
        {
            let offer = self.offers.remove(heaviest);
            self.hand_over(&offer, &mut receiver);
        }
        let (giving, taking) = (self.me.member.weight(), other.member.weight());
        let difference = self.me.used() - (receiver.share.load + planned) / taking;
        let leveling = difference * giving * taking / (giving + taking);
        self.give_up_to(leveling / (1.0 + rivals), &mut receiver);
    }

    /// A receiver that others give `by_others` to.
    fn receiver(&self, share: &Share<'a>, by_others: f64) -> Receiver<'a> {
        let room = self.fleet.room_for_me(share.member);
        let mut share = share.clone();
        share.load += by_others;
        Receiver { share, room, given: 0.0 }
    }

    /// Gives what fits into `load`, the heaviest first.
    fn give_up_to(&mut self, mut load: f64, receiver: &mut Receiver<'a>) {
        for offer in mem::take(&mut self.offers) {
            if offer.load <= load && self.may_give(&offer, receiver) {
                load -= offer.load;
                self.hand_over(&offer, receiver);
            } else {
                self.offers.push(offer);
            }
        }
    }

    /// Whether the receiver can read it and is then used no more than `me`.
    fn may_give(&self, offer: &Offer<'_>, receiver: &Receiver<'_>) -> bool {
        let Receiver { share: Share { member, load, bytes_per_s, .. }, room, .. } = receiver;
        let is_better =
            (load + offer.load) / member.weight() <= (self.me.load - offer.load) / self.me.member.weight();
        let bytes_per_s = (bytes_per_s + offer.bytes_per_s) / member.weight();
        let is_calm = offer.bytes_per_s == 0.0 || bytes_per_s <= self.bytes_per_s_max;
        *room > 0 && is_better && is_calm && member.streams.contains(offer.stream)
    }

    fn hand_over(&mut self, offer: &Offer<'_>, receiver: &mut Receiver<'_>) {
        receiver.given += offer.load;
        receiver.share.load += offer.load;
        receiver.share.bytes_per_s += offer.bytes_per_s;
        receiver.room -= 1;
        self.me.load -= offer.load;
        self.moves.push(Move { lease: offer.lease, to: receiver.share.member.id.clone() });
    }
}

/// Whether one should give to the other though no plan says so: one of them is out of the band, and they are from
/// each other as well. Without the latter, rates that vary would move leases among those that one hot shard, which
/// cannot be moved, makes look idle all together.
fn are_unequal(giver: &Share<'_>, receiver: &Share<'_>) -> bool {
    (giver.is_over() || receiver.is_under())
        && giver.used() > receiver.used() * (1.0 + BAND)
        && shares_stream(giver.member, receiver.member)
}
