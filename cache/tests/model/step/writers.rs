//! The cache-writers: calls, acks, looks at the server, rewinds.

use super::{Situation, Step, weakened};
use crate::{
    protocol::{self, Apply, Kind, Slot},
    scenario::Without,
    world::{Call, ChangeKind, Fate, KEYS, NEW, Record, Rewind, View, Writer},
};

impl Step<'_> {
    pub(super) fn send(&mut self, index: usize, records: usize) {
        let writer = self.world.writers[index];
        let to = writer.cursor + records;
        let mut under_way = [None; KEYS];
        for record in writer.cursor..to {
            let change = self.world.log[record].change;
            let newest = &mut under_way[usize::from(self.world.history[change].key)];
            if newest.is_none_or(|other: usize| self.world.log[other].change < change) {
                *newest = Some(record);
            }
        }
        let of_the_call = self.world.now + self.scenario.deadline;
        let deadline = match self.scenario.without {
            Some(Without::Deadline) => u64::MAX,
            Some(Without::DeadlineOfTheLease) => of_the_call,
            _ if !self.scenario.pauses => of_the_call,
            _ => of_the_call.min(writer.renewed + self.scenario.lease),
        };
        let create_after = writer.create_after;
        let call = Call { from: writer.cursor, to, under_way, deadline, view: writer.view, create_after };
        self.world.writers[index].call = Some(call);
    }

    pub(super) fn land(&mut self, index: usize, key: u8) {
        let Some(mut call) = self.world.writers[index].call else { return };
        let Some(record) = call.under_way[usize::from(key)].take() else { return };
        let answer = self.apply(record, &call);
        let is_woken = self.world.writers[index].fate == Fate::Paused && self.world.lease.owner != index;
        if answer == protocol::PAST_DEADLINE {
            self.met.note(if is_woken { Situation::WokenPastDeadline } else { Situation::PastDeadline });
        }
        let is_first_of_several = call.under_way != [None; KEYS] && answer != protocol::PAST_DEADLINE;
        if is_first_of_several && !self.scenario.lacks(Without::WholePipeline) {
            self.met.note(Situation::PartlyLanded);
            self.world.writers[index].call = Some(call);
            return;
        }
        self.world.writers[index].call = None;
        match self.world.writers[index].fate {
            Fate::Running if answer != protocol::PAST_DEADLINE => self.ack(index, call.from, call.to),
            // It proves its lease and sends again.
            Fate::Running => {}
            // The lease is not its own any more: its ack counts for nothing, and it learns so.
            _ if is_woken => {
                self.world.writers[index] = Writer { fate: Fate::Gone, ..Writer::NOT_STARTED };
            }
            _ => {}
        }
    }

    pub(super) fn land_stray(&mut self, key: u8) {
        let Some(mut call) = self.world.stray else { return };
        let Some(record) = call.under_way[usize::from(key)].take() else { return };
        self.met.note(Situation::StrayLanded);
        self.apply(record, &call);
        self.world.stray = Some(call).filter(|call| call.under_way != [None; KEYS]);
    }

    pub(super) fn apply(&mut self, record: usize, call: &Call) -> u8 {
        let scenario = self.scenario;
        let record = self.world.log[record];
        let change = self.world.history[record.change];
        let args = self.apply_args(&record, call);
        let before = self.world.cache.slots[usize::from(change.key)];
        let answer = self.on_key(change.key, |slot, server| {
            let held = matches!(slot, Slot::Entry(entry) if entry.kind == Kind::Held).then_some(*slot);
            if scenario.lacks(Without::VoidBySkipped) && held.is_some() && args.present {
                return protocol::SKIPPED;
            }
            let answer = match scenario.without {
                Some(Without::DoubtUnderPresent) => weakened::apply_without_doubt(slot, server, &args),
                Some(Without::ProofByStream) => weakened::apply_over_any_floor(slot, server, &args),
                Some(Without::FloorOfCovered) => weakened::apply_keeping_ttl_of_covered(slot, server, &args),
                _ => protocol::apply(slot, server, &args),
            };
            if scenario.lacks(Without::VoidByLeftAbsent)
                && answer == protocol::LEFT_ABSENT
                && let Some(held) = held
            {
                *slot = held;
            }
            if scenario.lacks(Without::Tombstones)
                && args.kind == Kind::Tombstone
                && answer == protocol::WRITTEN
            {
                *slot = Slot::Empty;
            }
            answer
        });
        self.note_answer(answer, &args, before, change.key);
        answer
    }

    pub(super) fn apply_args(&self, record: &Record, call: &Call) -> Apply {
        let scenario = self.scenario;
        let change = self.world.history[record.change];
        // What may be a duplicate of something superseded that nobody remembers is not written, only remembered.
        let is_late =
            record.arrived > record.stamp + scenario.late_after && !scenario.lacks(Without::LateBound);
        let is_doubtful = (is_late || (call.create_after > 0 && record.arrived <= call.create_after))
            && !(scenario.lacks(Without::DoubtOfLate) && self.floor(change.key) > 0);
        let (kind, ttl) = match change.kind {
            _ if is_doubtful => (Kind::Invalid, scenario.floor_ttl),
            ChangeKind::Put => (Kind::Live, scenario.live_ttl),
            ChangeKind::Incomplete => (Kind::Invalid, scenario.floor_ttl),
            ChangeKind::Delete => (Kind::Tombstone, scenario.floor_ttl),
        };
        if is_doubtful {
            self.met.note(if is_late { Situation::Late } else { Situation::DoubtedAfterRewind });
        }
        let expires = (kind == Kind::Live).then(|| self.item_expiry(change.committed)).flatten();
        let looks_at_evictions = scenario.evicts() && !scenario.lacks(Without::LossHorizon);
        Apply {
            kind,
            position: record.change as u64 + 1,
            created: change.created,
            expires,
            payload: record.change as u64 + 1,
            ttl: self.item_ttl(expires, ttl),
            deadline: call.deadline,
            floor_ttl: scenario.floor_ttl,
            present: scenario.present,
            margin: scenario.margin,
            create_age_max: match scenario.lacks(Without::AgeBound) {
                true => u64::MAX,
                false => scenario.create_age_max,
            },
            horizon: match call.view.horizon {
                0 => 0,
                _ if !looks_at_evictions || scenario.lacks(Without::HorizonOfTheLastLook) => 0,
                horizon => horizon + scenario.horizon_margin,
            },
            evicted_keys: (looks_at_evictions && !scenario.lacks(Without::EvictionCount))
                .then_some(call.view.evicted_keys),
        }
    }

    pub(super) fn floor(&self, key: u8) -> u64 {
        match self.world.cache.slots[usize::from(key)] {
            Slot::Entry(entry) => entry.floor,
            Slot::Empty | Slot::Foreign => 0,
        }
    }

    pub(super) fn item_expiry(&self, committed: u64) -> Option<u64> {
        self.scenario.items_expire.then_some(committed + 1)
    }

    /// An entry whose item has an expiry stays for its floor beyond it.
    pub(super) fn item_ttl(&self, expires: Option<u64>, live_ttl: u64) -> u64 {
        match expires {
            None => live_ttl,
            Some(expires) => {
                let ttl = expires.saturating_sub(self.world.now) + self.scenario.floor_ttl;
                if live_ttl > 0 { ttl.min(live_ttl) } else { ttl }
            }
        }
    }

    pub(super) fn note_answer(&self, answer: u8, args: &Apply, before: Slot, key: u8) {
        let was_held = matches!(before, Slot::Entry(entry) if entry.kind == Kind::Held);
        let after = self.world.cache.slots[usize::from(key)];
        match answer {
            protocol::WRITTEN => {
                let is_doubted = matches!(after, Slot::Entry(entry) if entry.kind == Kind::Invalid)
                    && args.kind != Kind::Invalid;
                self.met.note(if is_doubted { Situation::Doubted } else { Situation::ChangeApplied });
                if was_held {
                    self.met.note(Situation::ChangeVoidsToken);
                }
            }
            protocol::STALE => self.met.note(Situation::StaleChange),
            protocol::LEFT_ABSENT => {
                let is_too_old = self.world.now > args.created.saturating_add(args.create_age_max);
                self.met.note(match is_too_old {
                    true => Situation::LeftAbsentForItsAge,
                    false => Situation::LeftAbsentForEvictions,
                });
                if was_held {
                    self.met.note(Situation::LeftAbsentVoidsToken);
                }
            }
            protocol::COVERED => self.met.note(Situation::Covered),
            protocol::SKIPPED => self.met.note(Situation::Skipped),
            _ => {}
        }
    }

    pub(super) fn ack(&mut self, index: usize, from: usize, to: usize) {
        if self.world.lease.owner != index {
            return;
        }
        let now = self.world.now;
        self.world.writers[index].cursor = to;
        for record in from..to {
            let change = self.world.log[record].change;
            if self.scenario.loses_data() {
                self.world.log[record].acked = Some(now);
            }
            if !self.world.is_recovering {
                let acked = &mut self.world.acked[usize::from(self.world.history[change].key)];
                *acked = (*acked).max(change as u64 + 1);
            }
        }
        if !self.scenario.checkpoints_lag {
            self.write_checkpoint();
        }
    }

    pub(super) fn write_checkpoint(&mut self) {
        let owner = *self.world.owner();
        let lease = &mut self.world.lease;
        lease.checkpoint = match self.scenario.lacks(Without::RewindWrittenFirst) {
            true => lease.checkpoint.max(owner.cursor),
            false => owner.cursor,
        };
        lease.epoch = owner.view.epoch;
        lease.rewind = owner.rewind;
        lease.create_after = owner.create_after;
    }

    /// What a process that knew this knows after a look. What it finds out it tells the others by the marker.
    pub(super) fn view_after(&mut self, view: View) -> View {
        let (now, evicts) = (self.world.now, self.scenario.evicts());
        let cache = &mut self.world.cache;
        let known = if self.scenario.lacks(Without::HorizonInMarker) { view } else { cache.marker };
        // In another epoch the rewind makes up for what was evicted.
        let has_evicted = known.epoch == cache.epoch && known.evicted_keys != cache.evicted_keys;
        let horizon = if evicts && has_evicted { now } else { known.horizon.max(view.horizon) };
        let view = View { epoch: cache.epoch, evicted_keys: cache.evicted_keys, horizon };
        if evicts {
            cache.marker = view;
        }
        view
    }

    /// The owner looks at the server: it rewinds if data was lost, or lets the rewind checkpoint follow.
    pub(super) fn look(&mut self, index: usize) {
        let before = self.world.writers[index].view;
        let view = self.view_after(before);
        self.world.writers[index].view = view;
        if view.epoch != before.epoch {
            if !self.scenario.lacks(Without::Rewind) {
                self.rewind(index);
            }
        } else if self.scenario.loses_data() {
            self.world.writers[index].rewind = self.rewind_that_follows(index);
        }
    }

    pub(super) fn rewind(&mut self, index: usize) {
        self.met.note(Situation::Rewound);
        let writer = &mut self.world.writers[index];
        writer.cursor = writer.rewind.checkpoint;
        if writer.rewind.arrived > 0 && !self.scenario.lacks(Without::FloorsAfterRewind) {
            writer.create_after = writer.rewind.arrived + self.scenario.late_after;
        }
        // A call that is still under way was sent before this unit of time: it is past its deadline.
        if let Some(call) = writer.call.take().filter(|_| self.scenario.calls_stray) {
            self.world.stray.get_or_insert(call);
        }
        // Before anything is read again: who takes over in the middle begins there too.
        self.write_checkpoint();
    }

    /// Up to the first record that may have been lost, or that may be superseded by a record whose duplicate can
    /// create. The look has just found that all before it was still there.
    pub(super) fn rewind_that_follows(&self, index: usize) -> Rewind {
        let world = &self.world;
        let Writer { cursor, rewind, .. } = world.writers[index];
        let Some(last) = cursor.checked_sub(1).map(|last| world.log[last]) else { return rewind };
        let is_needed = |record: &Record| {
            let was_applied_lately =
                record.acked.is_none_or(|acked| acked + self.scenario.rewind >= world.now);
            let arrived_lately = record.arrived + self.scenario.late_after >= last.arrived;
            was_applied_lately || (arrived_lately && !self.scenario.lacks(Without::RewindByArrival))
        };
        let needed = (rewind.checkpoint..cursor).find(|index| is_needed(&world.log[*index]));
        let checkpoint = needed.unwrap_or_else(|| cursor.max(rewind.checkpoint));
        match checkpoint.checked_sub(1).filter(|_| checkpoint > rewind.checkpoint) {
            Some(last) => Rewind { checkpoint, arrived: world.log[last].arrived },
            None => rewind,
        }
    }

    /// The owner begins again at its checkpoint, in the same process or another.
    pub(super) fn restart(&mut self) {
        self.world.used.restarts += 1;
        let owner = self.world.lease.owner;
        let writer = self.world.writers[owner];
        if let Some(call) = writer.call {
            self.world.stray.get_or_insert(call);
        }
        self.start(owner);
    }

    pub(super) fn take_over(&mut self) {
        self.met.note(Situation::TakenOver);
        self.world.lease.owner = NEW;
        self.start(NEW);
    }

    pub(super) fn start(&mut self, index: usize) {
        let (lease, now) = (self.world.lease, self.world.now);
        self.world.writers[index] = Writer {
            fate: Fate::Running,
            cursor: lease.checkpoint,
            call: None,
            view: View { epoch: lease.epoch, evicted_keys: self.world.cache.evicted_keys, horizon: 0 },
            rewind: lease.rewind,
            create_after: lease.create_after,
            renewed: if self.scenario.pauses { now } else { 0 },
        };
        if lease.epoch != self.world.cache.epoch {
            if self.scenario.lacks(Without::EpochOfCheckpoint) {
                self.world.writers[index].view.epoch = self.world.cache.epoch;
            } else {
                self.met.note(Situation::TakenOverInAnotherEpoch);
            }
        }
        self.look(index);
    }
}
