//! The cache protocol's scripts as pure functions over one key.
//!
//! Each function does to a [`Slot`] what the script of the same name in `cache/scripts/` does to a Redis key, and
//! gives the same answer. The model checker explores them; the randomised test holds the scripts against them on
//! real servers. Whatever the scripts do, these say first.
//!
//! Times are milliseconds on the server's clock, or whatever unit the caller counts in. Positions are numbers, zero
//! for none. A payload is a number that stands for the bytes; a held entry's is its token.

/// What an entry says about its item: `EntryKind` of the entry format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// The item, by the stream.
    Live,
    /// The item, by a read of the master table.
    Filled,
    /// Deleted.
    Tombstone,
    /// A read of the master table found nothing.
    Negative,
    /// Unknown: a miss.
    Invalid,
    /// Unknown, and somebody is filling it: a miss.
    Held,
}

/// What one key holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Entry {
    pub(crate) kind: Kind,
    /// Every change up to this position is in the entry, or superseded by it. Zero: no floor.
    pub(crate) floor: u64,
    /// Live, tombstone: when the change was made. Filled, negative: when the read of the master began. Invalid:
    /// when the state became unknown. Held: until when it is held against others.
    pub(crate) time: u64,
    /// The item's own expiry, or how long a negative entry is believed. Readers judge it.
    pub(crate) expires: Option<u64>,
    /// The item, or a held entry's token.
    pub(crate) payload: u64,
    /// When the server drops the entry. None: it stays.
    pub(crate) gone_at: Option<u64>,
}

/// One key of the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Slot {
    #[default]
    Empty,
    Entry(Entry),
    /// A value that is not an entry of this version. No script touches it.
    Foreign,
}

/// What the scripts ask the server for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Server {
    /// `TIME`.
    pub(crate) now: u64,
    /// `evicted_keys` of `INFO stats`.
    pub(crate) evicted_keys: u64,
}

/// What a reader makes of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Seen {
    /// The item with this payload.
    Item(u64),
    /// Known absent.
    Absent,
    /// Nothing is known.
    Miss,
}

/// The arguments of `apply.lua`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Apply {
    /// `Live`, `Tombstone` or `Invalid`.
    pub(crate) kind: Kind,
    pub(crate) position: u64,
    pub(crate) created: u64,
    pub(crate) expires: Option<u64>,
    pub(crate) payload: u64,
    /// How long the entry stays; zero: for good.
    pub(crate) ttl: u64,
    pub(crate) deadline: u64,
    /// How long an entry stays that is kept for its floor alone.
    pub(crate) floor_ttl: u64,
    /// The write policy `present`; `margin` is given with it.
    pub(crate) present: bool,
    /// What was made so long before a fill's read is in what it read.
    pub(crate) margin: Option<u64>,
    /// The change may create an entry up to this age.
    pub(crate) create_age_max: u64,
    /// Only changes made after this time create: until then floors may have been evicted. Zero: none were.
    pub(crate) horizon: u64,
    /// ... and only while the server has evicted so many keys. None: it evicts nothing.
    pub(crate) evicted_keys: Option<u64>,
}

/// Answers of `apply`.
pub(crate) const WRITTEN: u8 = 1;
pub(crate) const STALE: u8 = 2;
pub(crate) const LEFT_ABSENT: u8 = 3;
pub(crate) const PAST_DEADLINE: u8 = 4;
pub(crate) const FOREIGN: u8 = 5;
pub(crate) const COVERED: u8 = 6;
pub(crate) const SKIPPED: u8 = 7;

/// Rules 1, 4, 5 and 6: writes the state after one change.
pub(crate) fn apply(slot: &mut Slot, server: Server, args: &Apply) -> u8 {
    if server.now >= args.deadline {
        return PAST_DEADLINE;
    }
    drop_expired(slot, server.now);
    let held = match slot {
        Slot::Foreign => return FOREIGN,
        Slot::Empty => None,
        Slot::Entry(entry) if entry.floor >= args.position => return STALE,
        Slot::Entry(entry) => Some(entry),
    };
    // The fill's read, if the entry is what a read of the master found.
    let read_at = held.as_ref().filter(|entry| entry.is_filled()).map(|entry| entry.time);
    let is_covered = |(read_at, margin): (u64, u64)| args.created.saturating_add(margin) < read_at;
    let covered = read_at.zip(args.margin).is_some_and(is_covered);
    match held {
        Some(entry) if covered => {
            entry.floor = args.position;
            if entry.kind == Kind::Negative {
                stay_at_least(entry, server.now + args.floor_ttl);
            }
            COVERED
        }
        None if args.present => SKIPPED,
        Some(entry) if args.present && !is_proven_news(entry, args) => {
            *slot = Slot::Entry(Entry {
                kind: Kind::Invalid,
                floor: args.position,
                time: args.created,
                expires: None,
                payload: 0,
                gone_at: Some(server.now + args.floor_ttl),
            });
            WRITTEN
        }
        entry
            if !args.present
                && entry.as_ref().is_none_or(|entry| !matches!(entry.kind, Kind::Live | Kind::Tombstone))
                && !creates(server, args) =>
        {
            *slot = Slot::Empty;
            LEFT_ABSENT
        }
        _ => {
            *slot = Slot::Entry(Entry {
                kind: args.kind,
                floor: args.position,
                time: args.created,
                expires: args.expires,
                payload: args.payload,
                gone_at: gone_at(server.now, args.ttl),
            });
            WRITTEN
        }
    }
}

/// Under `present`: whether no change that was skipped can be newer than this one. What was skipped came before the
/// entry was there, so before a fill's read.
fn is_proven_news(entry: &Entry, args: &Apply) -> bool {
    match entry.kind {
        Kind::Live | Kind::Tombstone => true,
        Kind::Filled | Kind::Negative => args.created > entry.time + args.margin.unwrap_or(u64::MAX / 2),
        Kind::Invalid | Kind::Held => false,
    }
}

/// Whether the change may be the first thing that is known of its item.
fn creates(server: Server, args: &Apply) -> bool {
    server.now <= args.created.saturating_add(args.create_age_max)
        && args.created > args.horizon
        && evicts_no_more(server, args.evicted_keys)
}

fn evicts_no_more(server: Server, evicted_keys: Option<u64>) -> bool {
    evicted_keys.is_none_or(|count| server.evicted_keys == count)
}

/// The arguments of `acquire.lua`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Acquire {
    pub(crate) token: u64,
    /// How long the key is held against others.
    pub(crate) hold: u64,
    /// How long the held entry stays without a floor, and with one.
    pub(crate) ttl: u64,
    pub(crate) floor_ttl: u64,
}

/// Answers of `acquire`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Acquired {
    /// 1, with the server's time: the master may be read now.
    Taken { now: u64 },
    /// 2: another is filling it.
    Busy,
    /// 3, with the entry.
    Present(Entry),
    /// 5.
    Foreign,
}

/// Rule 2: takes the right to fill a key after a miss.
pub(crate) fn acquire(slot: &mut Slot, server: Server, args: &Acquire) -> Acquired {
    drop_expired(slot, server.now);
    let floor = match *slot {
        Slot::Foreign => return Acquired::Foreign,
        Slot::Empty => 0,
        Slot::Entry(entry) => match entry.kind {
            Kind::Held if server.now < entry.time => return Acquired::Busy,
            Kind::Held | Kind::Invalid => entry.floor,
            Kind::Negative if entry.is_expired(server.now) => entry.floor,
            _ => return Acquired::Present(entry),
        },
    };
    *slot = Slot::Entry(Entry {
        kind: Kind::Held,
        floor,
        time: server.now + args.hold,
        expires: None,
        payload: args.token,
        gone_at: Some(server.now + if floor == 0 { args.ttl } else { args.floor_ttl }),
    });
    Acquired::Taken { now: server.now }
}

/// The arguments of `fill.lua`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Fill {
    pub(crate) token: u64,
    /// `Filled` or `Negative`.
    pub(crate) kind: Kind,
    /// When the token was taken.
    pub(crate) read_at: u64,
    pub(crate) expires: Option<u64>,
    pub(crate) payload: u64,
    /// How long the entry stays without a floor, and with one; zero: for good.
    pub(crate) ttl: u64,
    pub(crate) ttl_with_floor: u64,
}

/// Answers of `fill`; 5 as for `apply`.
pub(crate) const FILLED: u8 = 1;
pub(crate) const REFUSED: u8 = 0;

/// Rule 3: writes what the master table had, if no change came since the token was taken.
pub(crate) fn fill(slot: &mut Slot, server: Server, args: &Fill) -> u8 {
    drop_expired(slot, server.now);
    let floor = match *slot {
        Slot::Foreign => return FOREIGN,
        Slot::Entry(entry) if entry.kind == Kind::Held && entry.payload == args.token => entry.floor,
        _ => return REFUSED,
    };
    *slot = Slot::Entry(Entry {
        kind: args.kind,
        floor,
        time: args.read_at,
        expires: args.expires,
        payload: args.payload,
        gone_at: gone_at(server.now, if floor == 0 { args.ttl } else { args.ttl_with_floor }),
    });
    FILLED
}

/// Answers of `invalidate`; 5 as for `apply`.
pub(crate) const INVALIDATED: u8 = 1;
pub(crate) const NOTHING_THERE: u8 = 0;

/// Rule 7: makes readers miss, whatever is there.
pub(crate) fn invalidate(slot: &mut Slot, server: Server, floor_ttl: u64) -> u8 {
    drop_expired(slot, server.now);
    match slot {
        Slot::Foreign => FOREIGN,
        Slot::Empty => NOTHING_THERE,
        Slot::Entry(entry) => {
            *entry = Entry {
                kind: Kind::Invalid,
                floor: entry.floor,
                time: server.now,
                expires: None,
                payload: 0,
                gone_at: Some(server.now + floor_ttl),
            };
            INVALIDATED
        }
    }
}

/// The arguments of `backfill.lua`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Backfill {
    /// When the read of the page began.
    pub(crate) read_at: u64,
    pub(crate) expires: Option<u64>,
    pub(crate) payload: u64,
    /// How long the entry stays; zero: for good.
    pub(crate) ttl: u64,
    /// The page may be so old.
    pub(crate) age_max: u64,
    /// The page must have been read after this time: until then changes may have been left absent without a trace.
    pub(crate) horizon: u64,
    /// ... and the server must have evicted so many keys. None: it evicts nothing.
    pub(crate) evicted_keys: Option<u64>,
}

/// Answers of `backfill`; 5 as for `apply`.
pub(crate) const BACKFILLED: u8 = 1;
pub(crate) const SOMETHING_THERE: u8 = 2;
pub(crate) const TOO_LATE: u8 = 3;

/// Rule 8: writes an item of a page of the master table where nothing is there.
pub(crate) fn backfill(slot: &mut Slot, server: Server, args: &Backfill) -> u8 {
    drop_expired(slot, server.now);
    match slot {
        Slot::Foreign => return FOREIGN,
        Slot::Entry(_) => return SOMETHING_THERE,
        Slot::Empty => {}
    }
    let is_young = server.now.checked_sub(args.read_at).is_some_and(|age| age <= args.age_max);
    if !is_young || args.read_at <= args.horizon || !evicts_no_more(server, args.evicted_keys) {
        return TOO_LATE;
    }
    *slot = Slot::Entry(Entry {
        kind: Kind::Filled,
        floor: 0,
        time: args.read_at,
        expires: args.expires,
        payload: args.payload,
        gone_at: gone_at(server.now, args.ttl),
    });
    BACKFILLED
}

/// What a reader makes of a key: one `GET` and a look at the header.
pub(crate) fn read(slot: &Slot, now: u64) -> Seen {
    let Slot::Entry(entry) = slot else {
        return Seen::Miss;
    };
    match entry.kind {
        _ if entry.is_gone(now) => Seen::Miss,
        Kind::Live | Kind::Filled if !entry.is_expired(now) => Seen::Item(entry.payload),
        Kind::Negative if entry.is_expired(now) => Seen::Miss,
        Kind::Live | Kind::Filled | Kind::Tombstone | Kind::Negative => Seen::Absent,
        Kind::Invalid | Kind::Held => Seen::Miss,
    }
}

/// The server's own expiry.
pub(crate) fn drop_expired(slot: &mut Slot, now: u64) {
    if matches!(slot, Slot::Entry(entry) if entry.is_gone(now)) {
        *slot = Slot::Empty;
    }
}

impl Entry {
    fn is_filled(&self) -> bool {
        matches!(self.kind, Kind::Filled | Kind::Negative)
    }

    fn is_expired(&self, now: u64) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }

    fn is_gone(&self, now: u64) -> bool {
        self.gone_at.is_some_and(|gone_at| gone_at <= now)
    }
}

fn stay_at_least(entry: &mut Entry, until: u64) {
    entry.gone_at = entry.gone_at.map(|gone_at| gone_at.max(until));
}

fn gone_at(now: u64, ttl: u64) -> Option<u64> {
    (ttl > 0).then_some(now + ttl)
}
