//! The split of the free leases over the fleet, computed by every worker alike.
//!
//! The heaviest lease goes first, each to the worker that would be used least: busy leases by throughput, idle
//! ones by count. When that runs out of room for a stream, leases of other streams are shifted among workers that
//! can read both, so a lease is left over only if no split at all has room for it.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};

use super::{Member, busy_bytes_per_s_min, lot, mix};

/// A lease that nobody has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FreeLease<'a> {
    /// Its stream.
    pub stream: &'a str,
    /// Its shard.
    pub shard: &'a str,
    /// Its last known rate, in bytes a second. 0 if it never had one.
    pub bytes_per_s: u64,
}

/// Which of the free leases `me` takes now, as indexes into `free`, at most `claims_max`.
///
/// Every member computes the same split when it sees the same, whatever the order of the arguments, so that few
/// claims collide; views may differ, and the store decides.
///
/// A lease with `overdue[i]` has been free for so long that whoever it was meant for does not take it: any member
/// with room that reads the stream may. Each member tries these in an order of its own, after those of its part.
pub fn claim(
    me: &str,
    members: &[Member],
    free: &[FreeLease<'_>],
    overdue: &[bool],
    claims_max: usize,
) -> Vec<usize> {
    let split = Split::new(members, free);
    let Some(mine) = split.takers.iter().position(|taker| taker.member.id == me) else { return Vec::new() };
    let mut claims: Vec<usize> =
        split.leases.iter().filter(|lease| lease.taker == Some(mine)).map(|lease| lease.index).collect();
    // What the split left of the room.
    let room = split.takers.get(mine).map_or(0, |taker| taker.room);
    if claims.len() < claims_max && room > 0 {
        claims.extend(split.overdue_of_others(mine, overdue).into_iter().take(room));
    }
    claims.truncate(claims_max);
    claims
}

/// For whom each of the free leases is meant; `None` where nobody has room.
pub fn takers(members: &[Member], free: &[FreeLease<'_>]) -> Vec<Option<String>> {
    let mut takers = vec![None; free.len()];
    let split = Split::new(members, free);
    for lease in &split.leases {
        let taker = lease.taker.and_then(|taker| split.takers.get(taker));
        if let Some(place) = takers.get_mut(lease.index) {
            *place = taker.map(|taker| taker.member.id.clone());
        }
    }
    takers
}

/// Free leases that no member has room for, by the streams they read and their `leases_max`: how many. They stay
/// unowned until someone gives the fleet more room, so the caller alarms.
pub fn without_room(members: &[Member], free: &[FreeLease<'_>]) -> usize {
    Split::new(members, free).leases.iter().filter(|lease| lease.taker.is_none()).count()
}

/// A free lease and the member it is meant for. Takers and kinds of streams go by their place in [`Split`].
#[derive(Debug)]
struct Meant<'a> {
    index: usize,
    free: FreeLease<'a>,
    kind: usize,
    taker: Option<usize>,
}

/// A member that may claim, as the split loads it.
#[derive(Debug)]
struct Taker<'a> {
    member: &'a Member,
    room: usize,
    leases: f64,
    bytes_per_s: f64,
}

/// How used a taker is. The least used has the best bid.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Bid {
    used: f64,
    then: f64,
    taker: usize,
}

impl Eq for Bid {}

impl PartialOrd for Bid {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Bid {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_use = self.used.total_cmp(&other.used).then(self.then.total_cmp(&other.then));
        by_use.then(self.taker.cmp(&other.taker))
    }
}

#[derive(Clone, Copy, Debug)]
enum By {
    Throughput,
    Count,
}

impl Taker<'_> {
    fn bid(&self, by: By, taker: usize) -> Bid {
        let bytes_per_s = self.bytes_per_s / self.member.weight();
        let leases = self.leases / self.member.weight();
        match by {
            By::Throughput => Bid { used: bytes_per_s, then: leases, taker },
            By::Count => Bid { used: leases, then: bytes_per_s, taker },
        }
    }
}

/// The split: takers by name, leases by rate (the highest first), stream and shard.
#[derive(Debug)]
struct Split<'a> {
    takers: Vec<Taker<'a>>,
    leases: Vec<Meant<'a>>,
    /// Of each kind of stream, the takers that read it.
    readers: Vec<Vec<usize>>,
}

impl<'a> Split<'a> {
    fn new(members: &'a [Member], free: &[FreeLease<'a>]) -> Self {
        let mut takers: Vec<Taker<'a>> =
            members.iter().filter(|member| !member.leaving).map(Taker::new).collect();
        takers.sort_unstable_by(|a, b| a.member.id.cmp(&b.member.id));
        let kinds = Kinds::new(&takers, free);
        let mut split = Split { takers, leases: in_order(free, &kinds), readers: kinds.readers };
        split.run(members);
        split
    }

    fn run(&mut self, members: &[Member]) {
        let rates = members.iter().map(|member| member.bytes_per_s);
        let bytes_per_s: f64 =
            rates.chain(self.leases.iter().map(|lease| lease.free.bytes_per_s)).map(float).sum();
        let leases =
            members.iter().map(|member| member.leases as f64).sum::<f64>() + self.leases.len() as f64;
        let busy = busy_bytes_per_s_min(bytes_per_s, leases).map_or(0, |busy_min| {
            self.leases.partition_point(|lease| float(lease.free.bytes_per_s) >= busy_min)
        });
        let mut leases = std::mem::take(&mut self.leases);
        let (busy, idle) = leases.split_at_mut(busy);
        self.spread(busy, By::Throughput);
        self.spread(idle, By::Count);
        self.deal(idle);
        if leases.iter().any(|lease| lease.taker.is_none()) {
            Shift::new(self, &mut leases).run();
        }
        self.leases = leases;
    }

    /// Gives each lease to the reader of its stream that is used least and has room.
    fn spread(&mut self, leases: &mut [Meant<'a>], by: By) {
        let mut heaps: Vec<BinaryHeap<Reverse<Bid>>> = Vec::with_capacity(self.readers.len());
        for readers in &self.readers {
            let bid = |reader: &usize| self.takers.get(*reader).map(|taker| Reverse(taker.bid(by, *reader)));
            heaps.push(readers.iter().filter_map(bid).collect());
        }
        for lease in leases {
            if let Some(bids) = heaps.get_mut(lease.kind) {
                lease.taker = self.next_taker(bids, by, float(lease.free.bytes_per_s));
            }
        }
    }

    /// Deals leases anew, to each taker as many of each kind as it was given: each lease to the one with the highest
    /// lot for it that has not got its number yet.
    ///
    /// Views of different moments lack some of the leases. Were they dealt in turn, each that is lacking would
    /// shift all that follow, and everybody would claim what is meant for another.
    fn deal(&self, leases: &mut [Meant<'a>]) {
        let mut numbers: BTreeMap<(usize, usize), usize> = BTreeMap::new();
        for lease in leases.iter() {
            if let Some(taker) = lease.taker {
                *numbers.entry((lease.kind, taker)).or_default() += 1;
            }
        }
        let lots: Vec<u64> = self.takers.iter().map(|taker| lot([taker.member.id.as_bytes()])).collect();
        for lease in leases.iter_mut().filter(|lease| lease.taker.is_some()) {
            let drawn = lot([lease.free.stream, lease.free.shard].map(str::as_bytes));
            let open = numbers.range_mut((lease.kind, 0)..=(lease.kind, usize::MAX));
            let highest = open
                .filter(|(_, number)| **number > 0)
                .max_by_key(|((_, taker), _)| mix(drawn ^ lots.get(*taker).copied().unwrap_or_default()));
            if let Some(((_, taker), number)) = highest {
                *number -= 1;
                lease.taker = Some(*taker);
            }
        }
    }

    /// The best bid that still holds. A taker bids in the heap of each kind that it reads, and what it took of another
    /// kind makes its bid here too good: then it bids anew. Use only grows, so no better bid is passed over.
    fn next_taker(&mut self, bids: &mut BinaryHeap<Reverse<Bid>>, by: By, bytes_per_s: f64) -> Option<usize> {
        while let Some(mut top) = bids.peek_mut() {
            let Reverse(bid) = *top;
            let taker = self.takers.get_mut(bid.taker)?;
            let now = taker.bid(by, bid.taker);
            if taker.room == 0 {
                std::collections::binary_heap::PeekMut::pop(top);
            } else if bid != now {
                *top = Reverse(now);
            } else {
                taker.take(bytes_per_s);
                *top = Reverse(taker.bid(by, bid.taker));
                return Some(bid.taker);
            }
        }
        None
    }

    /// The overdue leases that are meant for others and that `mine` can read, in an order of its own.
    fn overdue_of_others(&self, mine: usize, overdue: &[bool]) -> Vec<usize> {
        let Some(taker) = self.takers.get(mine) else { return Vec::new() };
        let is_overdue = |index: usize| overdue.get(index).is_some_and(|overdue| *overdue);
        let mut others: Vec<(u64, usize)> = self
            .leases
            .iter()
            .filter(|lease| lease.taker != Some(mine) && is_overdue(lease.index))
            .filter(|lease| taker.member.streams.contains(lease.free.stream))
            .map(|lease| {
                let words = [&taker.member.id, lease.free.stream, lease.free.shard].map(str::as_bytes);
                (lot(words), lease.index)
            })
            .collect();
        others.sort_unstable();
        others.into_iter().map(|(_, index)| index).collect()
    }
}

impl<'a> Taker<'a> {
    fn new(member: &'a Member) -> Self {
        let leases = member.leases as f64;
        Taker { member, room: member.room(), leases, bytes_per_s: float(member.bytes_per_s) }
    }

    fn take(&mut self, bytes_per_s: f64) {
        self.room -= 1;
        self.leases += 1.0;
        self.bytes_per_s += bytes_per_s;
    }
}

/// The streams of free leases, and their kinds: those that the same takers read are one to the split.
#[derive(Debug)]
struct Kinds<'a> {
    /// Of each stream, its place among the streams, and its kind.
    streams: BTreeMap<&'a str, (usize, usize)>,
    readers: Vec<Vec<usize>>,
}

impl<'a> Kinds<'a> {
    fn new(takers: &[Taker<'_>], free: &[FreeLease<'a>]) -> Self {
        let names: BTreeSet<&str> = free.iter().map(|lease| lease.stream).collect();
        let mut kinds = Kinds { streams: BTreeMap::new(), readers: Vec::new() };
        for (place, name) in names.into_iter().enumerate() {
            let reads = |(_, taker): &(usize, &Taker<'_>)| taker.member.streams.contains(name);
            let readers: Vec<usize> =
                takers.iter().enumerate().filter(reads).map(|(reader, _)| reader).collect();
            let known = kinds.readers.iter().position(|known| *known == readers);
            let kind = known.unwrap_or(kinds.readers.len());
            if known.is_none() {
                kinds.readers.push(readers);
            }
            kinds.streams.insert(name, (place, kind));
        }
        kinds
    }
}

/// The free leases in the order in which they are split, which is the same for everybody.
fn in_order<'a>(free: &[FreeLease<'a>], kinds: &Kinds<'a>) -> Vec<Meant<'a>> {
    let mut order: Vec<(Reverse<u64>, usize, &str, Meant<'a>)> = Vec::with_capacity(free.len());
    for (index, lease) in free.iter().enumerate() {
        let (place, kind) = kinds.streams.get(lease.stream).copied().unwrap_or_default();
        let meant = Meant { index, free: *lease, kind, taker: None };
        order.push((Reverse(lease.bytes_per_s), place, lease.shard, meant));
    }
    order.sort_unstable_by(|(a_rate, a_stream, a_shard, _), (b_rate, b_stream, b_shard, _)| {
        (a_rate, a_stream, a_shard).cmp(&(b_rate, b_stream, b_shard))
    });
    order.into_iter().map(|(.., meant)| meant).collect()
}

/// Room found by shifting: a full taker takes the left-over lease and passes a lease of another kind on to a
/// reader of that one, which may pass one on in turn. These are the augmenting paths of a bipartite matching, so
/// what is left over in the end is left over in every split.
#[derive(Debug)]
struct Shift<'s, 'a> {
    split: &'s mut Split<'a>,
    leases: &'s mut [Meant<'a>],
    /// The leases meant for a taker, of each kind, by their place in `leases`.
    meant: BTreeMap<(usize, usize), Vec<usize>>,
}

impl<'s, 'a> Shift<'s, 'a> {
    fn new(split: &'s mut Split<'a>, leases: &'s mut [Meant<'a>]) -> Self {
        let mut meant: BTreeMap<_, Vec<usize>> = BTreeMap::new();
        for (place, lease) in leases.iter().enumerate() {
            if let Some(taker) = lease.taker {
                meant.entry((taker, lease.kind)).or_default().push(place);
            }
        }
        Shift { split, leases, meant }
    }

    fn run(mut self) {
        // A kind that no path leads on from never gets one: paths only use room up.
        let mut stuck = BTreeSet::new();
        let left: Vec<(usize, usize)> = self
            .leases
            .iter()
            .enumerate()
            .filter(|(_, lease)| lease.taker.is_none())
            .map(|(place, lease)| (place, lease.kind))
            .collect();
        for (place, kind) in left {
            if !stuck.contains(&kind) && !self.place(place, kind) {
                stuck.insert(kind);
            }
        }
    }

    /// Finds room for a lease of a kind, breadth first: the fewest shifts.
    fn place(&mut self, lease: usize, kind: usize) -> bool {
        // How the search came to a kind: a taker, reached as a reader of another kind, has a lease of it.
        let mut came: BTreeMap<usize, (usize, usize)> = BTreeMap::new();
        let mut queue = VecDeque::from([kind]);
        while let Some(at) = queue.pop_front() {
            for reader in self.split.readers.get(at).into_iter().flatten().copied() {
                if let Some(taker) = self.split.takers.get_mut(reader)
                    && taker.room > 0
                {
                    taker.room -= 1;
                    self.shift(lease, at, reader, &came);
                    return true;
                }
                for (&(_, next), leases) in self.meant.range((reader, 0)..=(reader, usize::MAX)) {
                    if next != kind && !leases.is_empty() && !came.contains_key(&next) {
                        came.insert(next, (at, reader));
                        queue.push_back(next);
                    }
                }
            }
        }
        false
    }

    /// Walks a path back from the taker with room, passing a lease on at each step, to the lease it is for.
    fn shift(
        &mut self,
        lease: usize,
        mut kind: usize,
        mut to: usize,
        came: &BTreeMap<usize, (usize, usize)>,
    ) {
        while let Some(&(before, from)) = came.get(&kind) {
            if let Some(passed) = self.meant.get_mut(&(from, kind)).and_then(Vec::pop) {
                self.assign(passed, kind, to);
            }
            (kind, to) = (before, from);
        }
        self.assign(lease, kind, to);
    }

    fn assign(&mut self, lease: usize, kind: usize, taker: usize) {
        if let Some(lease) = self.leases.get_mut(lease) {
            lease.taker = Some(taker);
        }
        self.meant.entry((taker, kind)).or_default().push(lease);
    }
}

fn float(bytes_per_s: u64) -> f64 {
    bytes_per_s as f64
}
