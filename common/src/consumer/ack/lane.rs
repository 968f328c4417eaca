//! Acks of records that go to several lanes, and the lanes of a shard: parked, caught up, joined again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::Instant;

use super::super::checkpoint::Checkpoint;
use super::super::lanes::Lanes;
use super::super::parked::{ParkReason, Parked};
use super::super::sequence_number::SequenceNumber;
use super::super::window::LaneLoad;
use super::{ShardAcks, Shared, State};
use crate::clock::now_ms;

/// The duty to report a record as done on one lane, or on several that have the same copy.
#[must_use = "dropping it makes the shard start again from its checkpoint, unless the lanes are parked"]
pub struct LaneAck {
    shared: Arc<Shared>,
    number: u64,
    arrived_ms: u64,
    lanes: Lanes,
}

impl LaneAck {
    pub(super) const fn new(shared: Arc<Shared>, number: u64, arrived_ms: u64, lanes: Lanes) -> Self {
        Self { shared, number, arrived_ms, lanes }
    }

    /// When the record came into its stream: milliseconds since the epoch; 0 if that is not known.
    pub const fn arrived_ms(&self) -> u64 {
        self.arrived_ms
    }

    /// The lanes.
    pub const fn lanes(&self) -> Lanes {
        self.lanes
    }

    /// The record is where it should be on these lanes. Of those that were parked meanwhile nothing changes: they get
    /// it again.
    pub fn done(mut self) {
        let lanes = std::mem::take(&mut self.lanes);
        if self.shared.state.lock().window.done_on(self.number, lanes) {
            self.shared.changed.notify_waiters();
        }
    }

    /// Splits the duty for `lanes` off.
    pub fn split_off(&mut self, lanes: Lanes) -> Self {
        let off = self.lanes.and(lanes);
        self.lanes = self.lanes.without(off);
        Self::new(Arc::clone(&self.shared), self.number, self.arrived_ms, off)
    }

    /// Whether nobody waits for the copy any more: every lane of it was parked since.
    pub fn is_worthless(&self) -> bool {
        self.shared.state.lock().window.lanes(self.number).and(self.lanes).is_empty()
    }

    /// The copy is given up: its lanes are parked on the shard, and get it, and what comes after it, by being caught up.
    /// While nothing may be parked the shard starts again from its checkpoint.
    pub fn park(mut self, why: ParkReason) {
        if !self.shared.may_park.load(Relaxed) {
            return;
        }
        let lanes = std::mem::take(&mut self.lanes);
        let mut state = self.shared.state.lock();
        let waiting = state.window.lanes(self.number).and(lanes);
        waiting.iter().for_each(|lane| state.park(lane, why));
        drop(state);
        self.shared.changed.notify_waiters();
    }
}

impl Drop for LaneAck {
    fn drop(&mut self) {
        if !self.lanes.is_empty() {
            let mut state = self.shared.state.lock();
            state.lost |= state.window.lose_on(self.number, self.lanes);
            drop(state);
            self.shared.changed.notify_waiters();
        }
    }
}

impl std::fmt::Debug for LaneAck {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LaneAck").field("record", &self.number).field("lanes", &self.lanes).finish()
    }
}

impl State {
    /// One that was joining stays parked where it was.
    fn park(&mut self, lane: usize, why: ParkReason) {
        if !self.attached.contains(lane) {
            return;
        }
        self.attached = self.attached.without(Lanes::one(lane));
        let (place, arrived_ms) = self.window.park(lane);
        let (now_ms, start) = (now_ms(), &self.start);
        self.parked.entry(lane).or_insert_with(|| Parked {
            checkpoint: place.map_or_else(|| start.clone(), Checkpoint::After),
            since_ms: arrived_ms.map_or(now_ms, |arrived_ms| arrived_ms.min(now_ms)),
            why: why.to_string(),
        });
    }

    fn has_reached(&self, read: &Checkpoint) -> bool {
        match (read, self.window.last()) {
            (Checkpoint::ShardEnd, _) => true,
            (Checkpoint::After(read), Some(last)) => read >= last,
            (_, Some(_)) => false,
            (read, None) => is_at_or_after(read, &self.start),
        }
    }
}

/// Whether everything up to `other` is before `place` as well.
fn is_at_or_after(place: &Checkpoint, other: &Checkpoint) -> bool {
    match (place, other) {
        (Checkpoint::ShardEnd, _) | (_, Checkpoint::TrimHorizon) => true,
        (Checkpoint::After(place), Checkpoint::After(other)) => place >= other,
        (place, other) => place == other,
    }
}

/// The earlier of two places in a shard; where that cannot be told, the one that is surely not after the other.
pub(in super::super) fn earlier(one: Checkpoint, other: Checkpoint) -> Checkpoint {
    let order = |place: &Checkpoint| match place {
        Checkpoint::TrimHorizon => 0,
        Checkpoint::AtTime(_) => 1,
        Checkpoint::After(_) => 2,
        Checkpoint::ShardEnd => 3,
    };
    match (&one, &other) {
        (Checkpoint::After(a), Checkpoint::After(b)) => {
            if a <= b {
                one
            } else {
                other
            }
        }
        (Checkpoint::AtTime(a), Checkpoint::AtTime(b)) => {
            if a <= b {
                one
            } else {
                other
            }
        }
        _ => {
            if order(&one) <= order(&other) {
                one
            } else {
                other
            }
        }
    }
}

/// How the lanes of a shard are, as somebody who looks now and then sees it.
#[derive(Debug, Default)]
pub(in super::super) struct LaneWatch {
    /// The record that each lane waited for when that was first seen.
    waits: BTreeMap<usize, (u64, Instant)>,
}

/// What waits for a lane of a shard, and for how long nothing of it was done.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct LaneStanding {
    pub(in super::super) lane: usize,
    pub(in super::super) load: LaneLoad,
    pub(in super::super) stalled: Duration,
}

impl ShardAcks {
    /// The lanes that records are read for.
    pub(in super::super) fn attached(&self) -> Lanes {
        self.0.state.lock().attached
    }

    /// The lanes that lack something.
    pub(in super::super) fn parked(&self) -> Lanes {
        self.0.state.lock().parked.keys().copied().collect()
    }

    /// Up to where a parked lane has everything.
    pub(in super::super) fn parked_at(&self, lane: usize) -> Option<Checkpoint> {
        self.0.state.lock().parked.get(&lane).map(|parked| parked.checkpoint.clone())
    }

    /// Takes a lane out; its records are read again for it.
    pub(in super::super) fn park(&self, lane: usize, why: ParkReason) {
        self.0.state.lock().park(lane, why);
        self.0.changed.notify_waiters();
    }

    /// Nobody reads the shard by this window any more: whatever is on its way is worthless.
    pub(in super::super) fn abandon(&self) {
        let mut state = self.0.state.lock();
        state.attached = Lanes::NONE;
        state.window.abandon();
        drop(state);
        self.0.changed.notify_waiters();
    }

    /// These parked lanes have everything up to this record.
    pub(in super::super) fn advance_parked(&self, lanes: Lanes, to: &SequenceNumber) {
        let mut state = self.0.state.lock();
        let to = Checkpoint::After(to.clone());
        let mut moved = false;
        for lane in lanes.iter() {
            if let Some(parked) = state.parked.get_mut(&lane)
                && !is_at_or_after(&parked.checkpoint, &to)
            {
                parked.checkpoint = to.clone();
                moved = true;
            }
        }
        drop(state);
        if moved {
            self.0.changed.notify_waiters();
        }
    }

    /// These parked lanes go on with the oldest record there is; what was before that is recorded as missed.
    pub(in super::super) fn missed(&self, lanes: Lanes) {
        let mut state = self.0.state.lock();
        for lane in lanes.iter() {
            if let Some(parked) = state.parked.get_mut(&lane) {
                (parked.checkpoint, parked.since_ms) = (Checkpoint::TrimHorizon, now_ms());
            }
        }
        drop(state);
        self.0.changed.notify_waiters();
    }

    /// What is read from now on is read for these lanes as well, if everything up to `read` is on its way to them and
    /// nothing behind it was read for the others. They stay parked until [`ShardAcks::caught_up`].
    pub(in super::super) fn join(&self, lanes: Lanes, read: &Checkpoint) -> bool {
        let mut state = self.0.state.lock();
        let joins = state.has_reached(read);
        if joins {
            state.attached = state.attached.or(lanes);
        }
        joins
    }

    /// The same where there is nothing behind `read`, and nobody has read a record since `number` was the next
    /// ([`ShardAcks::next_number`]). It says nothing once a record was read: that one must be reached.
    pub(in super::super) fn join_at_tip(&self, lanes: Lanes, number: u64, is_gap: bool) -> bool {
        let mut state = self.0.state.lock();
        // Everything up to the record that the window began after is there, or is missed as a gap: what looks like the
        // tip before it is none.
        let is_unread = number == 0 && !matches!(state.start, Checkpoint::After(_));
        let joins = state.window.next_number() == number && (is_unread || is_gap);
        if joins {
            state.attached = state.attached.or(lanes);
        }
        joins
    }

    /// The number of the next record.
    pub(in super::super) fn next_number(&self) -> u64 {
        self.0.state.lock().window.next_number()
    }

    /// What these lanes lacked when they joined is done. Those that were taken out again meanwhile stay parked.
    pub(in super::super) fn caught_up(&self, lanes: Lanes) -> Lanes {
        let mut state = self.0.state.lock();
        let lanes = lanes.and(state.attached);
        lanes.iter().for_each(|lane| drop(state.parked.remove(&lane)));
        drop(state);
        self.0.changed.notify_waiters();
        lanes
    }

    /// How the attached lanes are.
    pub(in super::super) fn standings(&self, watch: &mut LaneWatch, now: Instant) -> Vec<LaneStanding> {
        let mut state = self.0.state.lock();
        let attached = state.attached;
        let loads: Vec<(usize, LaneLoad)> =
            attached.iter().filter_map(|lane| Some((lane, state.window.load(lane, attached)?))).collect();
        drop(state);
        watch
            .waits
            .retain(|lane, (first, _)| loads.iter().any(|(of, load)| of == lane && load.first == *first));
        let standing = |(lane, load): (usize, LaneLoad)| {
            let (_, since) = *watch.waits.entry(lane).or_insert((load.first, now));
            LaneStanding { lane, load, stalled: now.duration_since(since) }
        };
        loads.into_iter().map(standing).collect()
    }
}

#[cfg(test)]
mod tests;
