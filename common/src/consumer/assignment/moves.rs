//! What a worker gives away for balance.
//!
//! First by throughput, with the busy leases; when it has nothing to give there, by count, with the idle ones. What
//! is out of balance is moved in two ways:
//!
//! 1. *By plan.* A giver fills its own parts of the [plan](super::balance) only, so that several givers do not flood
//!    one receiver.
//! 2. *By pairs.* The plan fails where leases are larger than its parts, or where a load that cannot be moved (one
//!    hot shard) makes everyone else look idle. Then a giver levels itself with one receiver after the other. Of
//!    those that would give to the same receiver each gives its part of the difference. A lease larger than that is
//!    given by one of them only, who is drawn by lot. The lot depends on the rates in the heartbeats, so it falls
//!    anew with each of them, and nobody waits for long for one that has nothing to give.
//!
//! Every move leaves its receiver used no more than its giver. So none is worth its way back, and with steady rates
//! the moves end.

use std::mem;

use super::balance::{BAND, Fleet, Part, Scale, Share, shares_stream};
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
/// A heartbeat tells of a move when it is done. Until then the caller counts the lease as its receiver's: in the
/// receiver's `leases` and `bytes_per_s`, and not in `held`; or else it is given twice. And free leases will change
/// the balance: while there are some that a member has room for, the answer is premature.
pub fn give(me: &str, members: &[Member], held: &[HeldLease<'_>]) -> Vec<Move> {
    let Some(fleet) = Fleet::around(me, members, held) else { return Vec::new() };
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
        for part in self.scale.parts() {
            self.fill(&part);
        }
        // Leases that are about to become free go to those that have least: no pair is leveled before.
        if self.moves.is_empty() && !self.fleet.is_shrinking() {
            self.level_pairs();
        }
        self.moves
    }

    /// Gives what fits into a part, the heaviest first; and then, perhaps, one lease that reaches out of it.
    fn fill(&mut self, part: &Part<'_, 'a>) {
        let mut receiver = self.receiver(part.to);
        receiver.share.load += part.from;
        let base = part.to.load;
        self.give_while_fits(&mut receiver, base + part.upto);
        let from = receiver.share.load - base;
        // Lay leases of this weight along the whole deficit: the giver in whose part the middle of one is gives it.
        // So all together give as many as fit, though each of them alone has room for a fraction of one.
        let rounded = |load: f64, offer: &Offer<'_>| (load / offer.load + 0.5).floor();
        let reaches_in = |offer: &Offer<'_>| rounded(from, offer) < rounded(part.upto, offer);
        let lightest =
            self.offers.iter().rposition(|offer| reaches_in(offer) && self.may_give(offer, &receiver));
        if let Some(lightest) = lightest {
            let offer = self.offers.remove(lightest);
            self.hand_over(&offer, &mut receiver);
        }
    }

    /// Levels `me` with each of the least used that is out of balance with it.
    fn level_pairs(&mut self) {
        let mut others: Vec<&Share<'a>> =
            self.scale.others.iter().filter(|it| it.member.room() > 0).collect();
        others.sort_by(|a, b| a.used().total_cmp(&b.used()).then_with(|| a.member.id.cmp(&b.member.id)));
        for other in others {
            if are_unequal(&self.me, other) {
                self.level_with(other);
            }
        }
    }

    fn level_with(&mut self, other: &Share<'a>) {
        let mine = self.fleet.lot(self.me.member, other.member);
        // One lease alone is never better with another.
        let (mut rivals, mut is_drawn) = (0.0, true);
        for rival in self.scale.others.iter().filter(|it| it.member.leases > 1 && are_unequal(it, other)) {
            rivals += 1.0;
            is_drawn &= mine < self.fleet.lot(rival.member, other.member);
        }
        let mut receiver = self.receiver(other);
        let (giving, taking) = (self.me.member.weight(), other.member.weight());
        let difference = (self.me.used() - other.used()) * giving * taking / (giving + taking);
        if is_drawn
            && let Some(heaviest) = self.offers.iter().position(|offer| self.may_give(offer, &receiver))
        {
            let offer = self.offers.remove(heaviest);
            self.hand_over(&offer, &mut receiver);
        }
        self.give_while_fits(&mut receiver, other.load + difference / (1.0 + rivals));
    }

    fn receiver(&self, share: &Share<'a>) -> Receiver<'a> {
        Receiver { share: share.clone(), room: self.fleet.room_for_me(share.member) }
    }

    /// Gives all that the receiver can take without its load passing `load_max`, the heaviest first.
    fn give_while_fits(&mut self, receiver: &mut Receiver<'a>, load_max: f64) {
        let lightest = self.offers.last().map_or(f64::INFINITY, |offer| offer.load);
        if receiver.room == 0 || receiver.share.load + lightest > load_max {
            return;
        }
        for offer in mem::take(&mut self.offers) {
            if receiver.share.load + offer.load <= load_max && self.may_give(&offer, receiver) {
                self.hand_over(&offer, receiver);
            } else {
                self.offers.push(offer);
            }
        }
    }

    /// Whether the receiver can read it and is then used no more than `me`.
    fn may_give(&self, offer: &Offer<'_>, receiver: &Receiver<'_>) -> bool {
        let Receiver { share: Share { member, load, bytes_per_s, .. }, room } = receiver;
        let is_better =
            (load + offer.load) / member.weight() <= (self.me.load - offer.load) / self.me.member.weight();
        let bytes_per_s = (bytes_per_s + offer.bytes_per_s) / member.weight();
        let is_calm = offer.bytes_per_s == 0.0 || bytes_per_s <= self.bytes_per_s_max;
        *room > 0 && is_better && is_calm && member.streams.contains(offer.stream)
    }

    fn hand_over(&mut self, offer: &Offer<'_>, receiver: &mut Receiver<'_>) {
        receiver.share.load += offer.load;
        receiver.share.bytes_per_s += offer.bytes_per_s;
        receiver.room -= 1;
        self.me.load -= offer.load;
        self.me.bytes_per_s -= offer.bytes_per_s;
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
