//! Rules taken away that the arguments of the scripts cannot express.

use crate::protocol::{self, Apply, Entry, Fill, Kind, Server, Slot};

pub(super) fn fill_without_token(slot: &mut Slot, server: Server, args: Fill) -> u8 {
    let floor = match *slot {
        Slot::Empty => 0,
        Slot::Entry(entry) if entry.kind == Kind::Held => entry.floor,
        Slot::Entry(_) | Slot::Foreign => return protocol::REFUSED,
    };
    let held = Entry { kind: Kind::Held, floor, time: 0, expires: None, payload: args.token, gone_at: None };
    *slot = Slot::Entry(held);
    protocol::fill(slot, server, &args)
}

/// Any entry with a lower floor is overwritten.
pub(super) fn apply_without_doubt(slot: &mut Slot, server: Server, args: &Apply) -> u8 {
    match slot {
        Slot::Empty => protocol::SKIPPED,
        _ => protocol::apply(slot, server, &Apply { present: false, margin: None, ..*args }),
    }
}

pub(super) fn apply_over_any_floor(slot: &mut Slot, server: Server, args: &Apply) -> u8 {
    match slot {
        Slot::Entry(entry) if entry.floor > 0 => {
            let unconditional = Apply { create_age_max: u64::MAX, horizon: 0, evicted_keys: None, ..*args };
            protocol::apply(slot, server, &unconditional)
        }
        _ => protocol::apply(slot, server, args),
    }
}

pub(super) fn apply_keeping_ttl_of_covered(slot: &mut Slot, server: Server, args: &Apply) -> u8 {
    let before = *slot;
    let answer = protocol::apply(slot, server, args);
    if let (protocol::COVERED, Slot::Entry(before), Slot::Entry(after)) = (answer, before, slot) {
        after.gone_at = before.gone_at;
    }
    answer
}
