//! What each action does.

mod fills;
mod weakened;
mod writers;

use std::sync::atomic::{AtomicU64, Ordering};

use crate::{
    actions::Action,
    protocol::{self, Server, Slot},
    scenario::{Scenario, Without},
    world::{Call, Change, ChangeKind, Fate, Flaw, KEYS, OLD, Record, View, World},
};

/// A situation that a scenario is there for. What is never met proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Situation {
    ChangeApplied,
    StaleChange,
    LeftAbsentForItsAge,
    Late,
    DoubtedAfterRewind,
    LeftAbsentForEvictions,
    LeftAbsentVoidsToken,
    ChangeVoidsToken,
    Covered,
    Skipped,
    Doubted,
    PastDeadline,
    WokenPastDeadline,
    FillInstalled,
    FillRefused,
    FillOverFloor,
    FillFoundNothing,
    BusyReader,
    HoldTakenOver,
    Backfilled,
    BackfillFoundEntry,
    BackfillTooLate,
    Invalidated,
    FloorExpired,
    PartlyLanded,
    TakenOver,
    TakenOverInAnotherEpoch,
    Rewound,
    RecoveredFromLoss,
    StrayLanded,
}

/// The situations met so far, by all threads.
#[derive(Debug, Default)]
pub(crate) struct Met(AtomicU64);

impl Met {
    fn note(&self, situation: Situation) {
        self.0.fetch_or(1 << situation as u64, Ordering::Relaxed);
    }

    pub(crate) fn has(&self, situation: Situation) -> bool {
        self.0.load(Ordering::Relaxed) >> (situation as u64) & 1 == 1
    }
}

/// One step: the state is changed in place.
pub(crate) struct Step<'a> {
    pub(crate) scenario: &'a Scenario,
    pub(crate) met: &'a Met,
    pub(crate) world: World,
}

impl Step<'_> {
    pub(crate) fn take(&mut self, action: Action) {
        match action {
            Action::Tick => self.tick(),
            Action::Put { key, rounded } => self.write(key, ChangeKind::Put, rounded),
            Action::PutIncomplete { key } => self.write(key, ChangeKind::Incomplete, false),
            Action::Delete { key, rounded } => self.write(key, ChangeKind::Delete, rounded),
            Action::Deliver { held_up } => self.deliver(held_up),
            Action::Duplicate { change } => self.duplicate(change),
            Action::Replay { from } => {
                self.world.used.replays += 1;
                (from..self.world.delivered).for_each(|change| self.append(change, self.world.now));
            }
            Action::Send { writer, records } => {
                self.send(writer, records);
                if !self.scenario.calls_linger {
                    (0..KEYS as u8).for_each(|key| self.land(writer, key));
                }
            }
            Action::Land { writer, key } => self.land(writer, key),
            Action::LandStray { key } => self.land_stray(key),
            Action::LoseAnswer { writer } => {
                self.world.used.answers_lost += 1;
                self.world.writers[writer].call = None;
            }
            Action::Look { writer } => self.look(writer),
            Action::WriteCheckpoint => self.write_checkpoint(),
            Action::Restart => self.restart(),
            Action::PauseOld => self.world.writers[OLD].fate = Fate::Paused,
            Action::TakeOver => self.take_over(),
            Action::Acquire { reader, key } => self.acquire(reader, key),
            Action::Fill { reader, state } => self.fill(reader, state),
            Action::GiveUp { reader } => self.world.readers[reader] = None,
            Action::ReadPage { key } => self.read_page(key),
            Action::Backfill { state } => self.backfill(state),
            Action::Invalidate { key } => {
                self.world.used.invalidations += 1;
                self.invalidate(key);
            }
            Action::Corrupt { key } => self.corrupt(key),
            Action::Verify { key } => self.verify(key),
            Action::Evict { key } => {
                self.world.used.evictions += 1;
                self.world.cache.evicted_keys += 1;
                self.on_key(key, |slot, _| *slot = Slot::Empty);
            }
            Action::Flush => {
                self.world.used.flushes += 1;
                self.lose_data([Slot::Empty; KEYS], View::default());
            }
            Action::Replicate => {
                self.world.cache.replica = self.world.cache.slots;
                self.world.cache.marker_of_replica = self.world.cache.marker;
                self.world.cache.behind_since = None;
            }
            Action::FailOver => {
                self.world.used.failovers += 1;
                // The replica has evicted nothing itself.
                self.world.cache.evicted_keys = 0;
                self.lose_data(self.world.cache.replica, self.world.cache.marker_of_replica);
            }
            Action::DeleteByHand { key } => {
                self.world.used.deletions_by_hand += 1;
                self.world.lost_unknown = true;
                self.on_key(key, |slot, _| *slot = Slot::Empty);
            }
        }
        self.settle();
        self.trim();
    }

    /// Changes one key as a script would, and judges the step.
    fn on_key<T>(&mut self, key: u8, script: impl FnOnce(&mut Slot, Server) -> T) -> T {
        let server = self.world.server();
        let slot = &mut self.world.cache.slots[usize::from(key)];
        protocol::drop_expired(slot, server.now);
        let before = *slot;
        let answer = script(slot, server);
        if let (Slot::Entry(before), Slot::Entry(after)) = (before, *slot)
            && after.floor < before.floor
        {
            self.world.flaw = Some(Flaw::FloorWentBack);
        }
        if self.scenario.failovers_max > 0 && *slot != before && self.world.cache.behind_since.is_none() {
            self.world.cache.behind_since = Some(server.now);
        }
        answer
    }

    fn lose_data(&mut self, slots: [Slot; KEYS], marker: View) {
        let cache = &mut self.world.cache;
        (cache.slots, cache.replica) = (slots, slots);
        (cache.marker, cache.marker_of_replica) = (marker, marker);
        cache.behind_since = None;
        cache.epoch += 1;
        self.world.acked = [0; KEYS];
        self.world.is_recovering = true;
    }

    fn tick(&mut self) {
        self.world.now += 1;
        let now = self.world.now;
        for slot in self.world.cache.slots.iter_mut().chain(&mut self.world.cache.replica) {
            if matches!(slot, Slot::Entry(entry) if entry.floor > 0 && entry.gone_at.is_some_and(|at| at <= now))
            {
                self.met.note(Situation::FloorExpired);
            }
            protocol::drop_expired(slot, now);
        }
        for index in 0..self.world.writers.len() {
            if self.world.writers[index].fate == Fate::Running && self.world.lease.owner == index {
                if self.scenario.pauses {
                    self.world.writers[index].renewed = now;
                }
                self.look(index);
            }
        }
        if self.scenario.pages_max > 0 {
            self.world.pager = self.view_after(self.world.pager);
        }
    }

    // The master table and its stream.

    fn write(&mut self, key: u8, kind: ChangeKind, rounded: bool) {
        let now = self.world.now;
        match kind {
            ChangeKind::Put => {}
            ChangeKind::Incomplete => self.world.used.incomplete += 1,
            ChangeKind::Delete => self.world.used.deletes += 1,
        }
        // Creation times of one item do not go back.
        let last = self.world.history.iter().rev().find(|change| change.key == key);
        let created = now.saturating_sub(u64::from(rounded)).max(last.map_or(0, |change| change.created));
        self.world.history.push(Change { key, kind, committed: now, created, stamp: 0 });
        if !self.scenario.held_up {
            self.deliver(false);
        }
    }

    fn deliver(&mut self, held_up: bool) {
        let change = self.world.delivered;
        let now = self.world.now;
        let stamp = if held_up { self.world.history[change].committed } else { now };
        self.world.history[change].stamp = if self.scenario.tells_late() { stamp } else { 0 };
        self.append(change, stamp);
        self.world.delivered += 1;
    }

    fn duplicate(&mut self, change: usize) {
        self.world.used.duplicates += 1;
        let stamp = match self.scenario.lacks(Without::StampOfTheLease) {
            true => self.world.now,
            false => self.world.history[change].stamp,
        };
        self.append(change, stamp);
    }

    fn append(&mut self, change: usize, stamp: u64) {
        // What no rule of the scenario looks at would only tell equal states apart.
        let (stamp, arrived) = if self.scenario.tells_late() { (stamp, self.world.now) } else { (0, 0) };
        self.world.log.push(Record { change, stamp, arrived, acked: None });
    }

    /// Once the owner has seen the loss and applied everything again, what is acked counts again.
    fn settle(&mut self) {
        let world = &mut self.world;
        // Readers are all alike: states that differ only in who is who are one.
        world.readers[..usize::from(self.scenario.readers)].sort_unstable();
        let owner = world.owner();
        if !world.is_recovering || owner.view.epoch != world.cache.epoch || owner.cursor < world.log.len() {
            return;
        }
        self.met.note(Situation::RecoveredFromLoss);
        world.is_recovering = false;
        for (index, change) in world.history[..world.delivered].iter().enumerate() {
            world.acked[usize::from(change.key)] = index as u64 + 1;
        }
    }

    /// Forgets the records that nobody will read again.
    fn trim(&mut self) {
        let world = &mut self.world;
        let mut read_from = world.lease.checkpoint.min(world.owner().cursor);
        if self.scenario.loses_data() {
            read_from = read_from.min(world.lease.rewind.checkpoint).min(world.owner().rewind.checkpoint);
        }
        for (index, writer) in world.writers.iter().enumerate() {
            if writer.fate == Fate::Paused || index == world.lease.owner {
                read_from = read_from.min(writer.cursor);
            }
        }
        for call in world.writers.iter().map(|writer| writer.call).chain([world.stray]).flatten() {
            read_from = read_from.min(call.from);
        }
        if read_from == 0 {
            return;
        }
        world.log.drain(..read_from);
        let earlier = |index: &mut usize| *index = index.saturating_sub(read_from);
        [&mut world.lease.checkpoint, &mut world.lease.rewind.checkpoint].into_iter().for_each(earlier);
        for writer in &mut world.writers {
            [&mut writer.cursor, &mut writer.rewind.checkpoint].into_iter().for_each(earlier);
            writer.call.iter_mut().for_each(|call| call.shift(read_from));
        }
        world.stray.iter_mut().for_each(|call| call.shift(read_from));
    }
}

impl Call {
    fn shift(&mut self, records: usize) {
        self.from -= records;
        self.to -= records;
        self.under_way.iter_mut().flatten().for_each(|record| *record -= records);
    }
}
