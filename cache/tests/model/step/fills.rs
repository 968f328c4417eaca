//! Readers that fill, the backfill, invalidation and verification.

use super::{Situation, Step, weakened};
use crate::{
    protocol::{self, Acquire, Acquired, Backfill, Fill, Kind, Seen, Slot},
    scenario::Without,
    world::{Flaw, Hold, Page},
};

impl Step<'_> {
    pub(super) fn acquire(&mut self, reader: usize, key: u8) {
        let token = u64::from(self.world.used.fills) + 1;
        let args = Acquire {
            token,
            hold: self.scenario.hold,
            ttl: self.scenario.hold + 1,
            floor_ttl: self.scenario.floor_ttl,
        };
        let before = self.world.cache.slots[usize::from(key)];
        match self.on_key(key, |slot, server| protocol::acquire(slot, server, &args)) {
            Acquired::Taken { now } => {
                self.world.used.fills += 1;
                let oldest = self.world.newest(key);
                self.world.readers[reader] = Some(Hold { key, token, taken_at: now, oldest });
                if matches!(before, Slot::Entry(entry) if entry.kind == Kind::Held) {
                    self.met.note(Situation::HoldTakenOver);
                }
            }
            Acquired::Busy => self.met.note(Situation::BusyReader),
            Acquired::Present(_) | Acquired::Foreign => {}
        }
    }

    pub(super) fn fill(&mut self, reader: usize, state: u64) {
        let Some(hold) = self.world.readers[reader].take() else { return };
        let scenario = self.scenario;
        let has_item = self.world.has_item(state);
        let expires = match has_item {
            true => self.item_expiry(self.world.history[state as usize - 1].committed),
            false => Some(self.world.now + scenario.negative_ttl),
        };
        let floor_ttl =
            if scenario.lacks(Without::FloorOfNegative) { scenario.negative_ttl } else { scenario.floor_ttl };
        let item_ttl = self.item_ttl(expires, scenario.live_ttl);
        let args = Fill {
            token: hold.token,
            kind: if has_item { Kind::Filled } else { Kind::Negative },
            read_at: hold.taken_at,
            expires,
            payload: state,
            ttl: if has_item { item_ttl } else { scenario.negative_ttl },
            ttl_with_floor: if has_item { item_ttl } else { floor_ttl },
        };
        let before = self.world.cache.slots[usize::from(hold.key)];
        let answer = self.on_key(hold.key, |slot, server| match scenario.lacks(Without::TokenCheck) {
            true => weakened::fill_without_token(slot, server, args),
            false => protocol::fill(slot, server, &args),
        });
        let after = self.world.cache.slots[usize::from(hold.key)];
        if answer == protocol::FILLED {
            self.met.note(Situation::FillInstalled);
            if !has_item {
                self.met.note(Situation::FillFoundNothing);
            }
            if matches!(after, Slot::Entry(entry) if entry.floor > 0) {
                self.met.note(Situation::FillOverFloor);
            }
        } else {
            self.met.note(Situation::FillRefused);
            if after != before {
                self.world.flaw = Some(Flaw::RefusedFillInstalled);
            }
        }
    }

    pub(super) fn read_page(&mut self, key: u8) {
        self.world.used.pages += 1;
        let oldest = self.world.newest(key);
        self.world.page = Some(Page { key, read_at: self.world.now, oldest });
    }

    pub(super) fn backfill(&mut self, state: u64) {
        let Some(page) = self.world.page.take() else { return };
        if !self.world.has_item(state) {
            return;
        }
        let scenario = self.scenario;
        let expires = self.item_expiry(self.world.history[state as usize - 1].committed);
        let looks_at_evictions = scenario.evicts() && !scenario.lacks(Without::PageHorizon);
        let view = self.world.pager;
        let args = Backfill {
            read_at: page.read_at,
            expires,
            payload: state,
            ttl: self.item_ttl(expires, scenario.live_ttl),
            age_max: scenario.page_age_max,
            horizon: match looks_at_evictions && view.horizon > 0 {
                true => view.horizon + scenario.page_margin,
                false => 0,
            },
            evicted_keys: looks_at_evictions.then_some(view.evicted_keys),
        };
        let answer = self.on_key(page.key, |slot, server| protocol::backfill(slot, server, &args));
        self.met.note(match answer {
            protocol::BACKFILLED => Situation::Backfilled,
            protocol::SOMETHING_THERE => Situation::BackfillFoundEntry,
            _ => Situation::BackfillTooLate,
        });
    }

    pub(super) fn invalidate(&mut self, key: u8) {
        let floor_ttl = self.scenario.floor_ttl;
        if self.on_key(key, |slot, server| protocol::invalidate(slot, server, floor_ttl))
            == protocol::INVALIDATED
        {
            self.met.note(Situation::Invalidated);
        }
    }

    /// A readable entry goes wrong: it shows an older state, at the newest position.
    pub(super) fn corrupt(&mut self, key: u8) {
        let newest = self.world.newest(key);
        let states = self.world.states_since(key, 0);
        let older = states.into_iter().rev().find(|state| *state < newest && self.world.has_item(*state));
        if let (Slot::Entry(entry), Some(older)) = (&mut self.world.cache.slots[usize::from(key)], older)
            && entry.kind == Kind::Live
        {
            entry.payload = older;
            self.world.used.corruptions += 1;
            self.world.is_corrupt = true;
        }
    }

    /// The verification compares an entry with the master table, and repairs.
    pub(super) fn verify(&mut self, key: u8) {
        let newest = self.world.newest(key);
        let slot = self.world.cache.slots[usize::from(key)];
        if let (Slot::Entry(entry), Seen::Item(state)) = (slot, protocol::read(&slot, self.world.now))
            && state != newest
            && (entry.floor < newest || !self.scenario.lacks(Without::UnconditionalInvalidate))
        {
            self.invalidate(key);
        }
        self.world.is_corrupt = false;
    }
}
