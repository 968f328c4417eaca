//! The acknowledgement that travels with a record.
//!
//! An [`Ack`] is born when a record is read and goes wherever the record goes: backpressure (it holds the
//! record's bytes), at-least-once (dropped without [`Ack::done`], the shard is read again from its checkpoint)
//! and checkpointing (the window it belongs to) are this one value. Where records go to several lanes it becomes a
//! [`LaneAck`] for each.

mod lane;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::budget::BytePermit;
use super::checkpoint::Checkpoint;
use super::history::Arrivals;
use super::lanes::Lanes;
use super::parked::Parked;
use super::sequence_number::SequenceNumber;
use super::window::AckWindow;

pub use lane::LaneAck;
pub(super) use lane::{LaneStanding, LaneWatch, earlier};

/// The window of a shard as its reader, its acks and its checkpointer share it.
#[derive(Clone, Debug)]
pub struct ShardAcks(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Something was done or lost, or a lane was parked or joined.
    changed: Notify,
    /// Whether a copy that is given up parks its lane; otherwise its record is lost.
    may_park: Arc<AtomicBool>,
}

#[derive(Debug)]
struct State {
    window: AckWindow,
    lost: bool,
    /// Where the window began.
    start: Checkpoint,
    /// The lanes that records are read for.
    attached: Lanes,
    /// The lanes that lack something, by their places. One that joins is attached as well.
    parked: BTreeMap<usize, Parked>,
}

/// What a shard's reader and checkpointer see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AckStatus {
    /// The position below which everything is done.
    pub checkpoint: Option<SequenceNumber>,
    /// When the first record that was done and the checkpoint's arrived, if that is known.
    pub arrivals: Option<Arrivals>,
    /// Records that are not.
    pub pending: usize,
    /// A record was dropped without being done: the checkpoint stays where it is, and the shard must be read
    /// again from there.
    pub lost: bool,
    /// The lanes that lack something below the checkpoint.
    pub parked: BTreeMap<usize, Parked>,
}

impl ShardAcks {
    /// Nothing read yet, and no lanes.
    pub fn new(records_max: usize) -> Self {
        Self::with_lanes(records_max, Checkpoint::TrimHorizon, Lanes::NONE, BTreeMap::new())
    }

    /// Nothing read yet; to be read from `start`, for the lanes that are attached.
    pub fn with_lanes(
        records_max: usize,
        start: Checkpoint,
        attached: Lanes,
        parked: BTreeMap<usize, Parked>,
    ) -> Self {
        let may_park = Arc::new(AtomicBool::new(true));
        Self::with_parking(records_max, start, attached, parked, may_park)
    }

    /// The same; a copy that is given up ([`LaneAck::park`]) parks its lane while `may_park`.
    pub(super) fn with_parking(
        records_max: usize,
        start: Checkpoint,
        attached: Lanes,
        parked: BTreeMap<usize, Parked>,
        may_park: Arc<AtomicBool>,
    ) -> Self {
        let state = State { window: AckWindow::new(records_max), lost: false, start, attached, parked };
        Self(Arc::new(Shared { state: Mutex::new(state), changed: Notify::new(), may_park }))
    }

    /// Takes a record in, which came into the stream at `arrived_ms` (0: not known), and gives out its ack; waits
    /// while the window is full. One reader per shard calls it.
    pub async fn track(&self, sequence: Option<SequenceNumber>, arrived_ms: u64, permit: BytePermit) -> Ack {
        loop {
            let changed = self.0.changed.notified();
            if !self.0.state.lock().window.is_full() {
                break;
            }
            changed.await;
        }
        let mut state = self.0.state.lock();
        let attached = state.attached;
        let pushed = state.window.push(sequence, arrived_ms, permit, attached);
        // Only this reader adds records, so the room cannot have gone. Were it gone, the record would be in no
        // window and a checkpoint could pass it: the shard is taken for lost and read again.
        state.lost |= pushed.is_err();
        let number = pushed.unwrap_or(u64::MAX);
        Ack { shared: Arc::clone(&self.0), number, arrived_ms, done: false }
    }

    /// How far the shard is.
    pub fn status(&self) -> AckStatus {
        let state = self.0.state.lock();
        AckStatus {
            checkpoint: state.window.checkpoint().cloned(),
            arrivals: state.window.arrivals(),
            pending: state.window.len(),
            lost: state.lost,
            parked: state.parked.clone(),
        }
    }

    /// The lanes that lack something, each with since when: milliseconds since the epoch.
    pub(super) fn parked_since(&self) -> Vec<(usize, u64)> {
        let state = self.0.state.lock();
        state.parked.iter().map(|(lane, parked)| (*lane, parked.since_ms)).collect()
    }

    /// Everything created before this is done, in milliseconds since the epoch; `None` while that is not known.
    pub fn watermark_ms(&self) -> Option<u64> {
        self.0.state.lock().window.watermark_ms()
    }

    /// The watermark, and the lanes that it does not hold for.
    pub(super) fn word(&self) -> (Option<u64>, Lanes) {
        let state = self.0.state.lock();
        (state.window.watermark_ms(), state.parked.keys().copied().collect())
    }

    /// When everything that was tracked so far is done, the shard's watermark is at least `watermark_ms`.
    pub fn mark_all(&self, watermark_ms: u64) {
        self.0.state.lock().window.mark_all(watermark_ms);
    }

    /// Waits until every record is done (`true`) or one was lost (`false`).
    pub async fn settled(&self) -> bool {
        loop {
            let changed = self.0.changed.notified();
            {
                let state = self.0.state.lock();
                if state.lost {
                    return false;
                }
                if state.window.is_empty() {
                    return true;
                }
            }
            changed.await;
        }
    }

    /// Waits until something changes after `seen` was true.
    pub(super) async fn changed_until<T>(&self, mut seen: impl FnMut(&Self) -> Option<T>) -> T {
        loop {
            let changed = self.0.changed.notified();
            if let Some(value) = seen(self) {
                return value;
            }
            changed.await;
        }
    }

    /// Waits until a record was lost.
    pub async fn lost(&self) {
        loop {
            let changed = self.0.changed.notified();
            if self.0.state.lock().lost {
                return;
            }
            changed.await;
        }
    }
}

/// The duty to report a record, or a part of it, as done.
///
/// Dropping it instead says that the record was lost on its way; its shard is then read again from the
/// checkpoint.
#[must_use = "dropping it makes the shard start again from its checkpoint"]
pub struct Ack {
    shared: Arc<Shared>,
    number: u64,
    arrived_ms: u64,
    done: bool,
}

impl Ack {
    /// The record, or this part of it, is where it should be.
    pub fn done(mut self) {
        self.done = true;
        if self.shared.state.lock().window.done(self.number) {
            self.shared.changed.notify_waiters();
        }
    }

    /// Splits the duty: the record is done when every part is. Nothing to split into means done at once, and
    /// gives nothing back.
    pub fn split(self, parts: usize) -> Vec<Ack> {
        let Ok(count @ 1..) = u32::try_from(parts) else {
            self.done();
            return Vec::new();
        };
        self.shared.state.lock().window.split(self.number, count);
        let mut acks = Vec::with_capacity(parts);
        for _ in 1..parts {
            let (number, arrived_ms) = (self.number, self.arrived_ms);
            acks.push(Self { shared: Arc::clone(&self.shared), number, arrived_ms, done: false });
        }
        acks.push(self);
        acks
    }

    /// The record says that everything created before `watermark_ms` (milliseconds since the epoch) came before it.
    /// When it and all records before it are done, that is the shard's watermark, unless that is later already.
    /// Called before [`Ack::done`], on the ack or on any part that it was split into. For streams whose rule is
    /// [`Carried`](super::source::WatermarkRule::Carried).
    pub fn watermark(&self, watermark_ms: u64) {
        self.shared.state.lock().window.mark(self.number, watermark_ms);
    }

    /// The lanes that the record is read for, and that were not parked since.
    pub fn lanes(&self) -> Lanes {
        self.shared.state.lock().window.lanes(self.number)
    }

    /// The record goes to these lanes, each set by itself, and is done on the others. The sets have no lane in common;
    /// those of their lanes that were parked meanwhile are left out. The record must not have been split.
    pub fn route(mut self, lanes: &[Lanes]) -> Vec<LaneAck> {
        self.done = true;
        let all = lanes.iter().fold(Lanes::NONE, |all, of| all.or(*of));
        let routed = self.shared.state.lock().window.route(self.number, all);
        if routed.is_empty() {
            self.shared.changed.notify_waiters();
        }
        let ack = |of: &Lanes| self.on(of.and(routed));
        lanes.iter().map(ack).collect()
    }

    /// The same, of a record of which something is to be done beside: it is done when the lanes have it and the ack
    /// that is given back is done.
    pub fn route_beside(self, lanes: &[Lanes]) -> (Vec<LaneAck>, Ack) {
        let all = lanes.iter().fold(Lanes::NONE, |all, of| all.or(*of));
        let routed = self.shared.state.lock().window.route_beside(self.number, all);
        let ack = |of: &Lanes| self.on(of.and(routed));
        (lanes.iter().map(ack).collect(), self)
    }

    fn on(&self, lanes: Lanes) -> LaneAck {
        LaneAck::new(Arc::clone(&self.shared), self.number, self.arrived_ms, lanes)
    }

    /// The record holds more bytes from now on, until it is done: it was inflated.
    pub fn hold(&self, permit: BytePermit) {
        self.shared.state.lock().window.hold(self.number, permit);
    }
}

impl Drop for Ack {
    fn drop(&mut self) {
        if !self.done {
            let mut state = self.shared.state.lock();
            state.window.lose(self.number);
            state.lost = true;
            drop(state);
            self.shared.changed.notify_waiters();
        }
    }
}

impl std::fmt::Debug for Ack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ack").field("record", &self.number).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::super::budget::ByteBudget;
    use super::*;

    fn n(number: u64) -> SequenceNumber {
        SequenceNumber::new(number.to_string()).unwrap()
    }

    async fn track(acks: &ShardAcks, budget: &ByteBudget, number: u64) -> Ack {
        acks.track(Some(n(number)), 0, budget.reserve(10).await).await
    }

    #[tokio::test]
    async fn a_split_record_is_done_when_every_part_is() {
        let (acks, budget) = (ShardAcks::new(10), ByteBudget::new(100));
        let mut parts = track(&acks, &budget, 1).await.split(3);
        parts.pop().unwrap().done();
        parts.pop().unwrap().done();
        assert_eq!(
            acks.status(),
            AckStatus { checkpoint: None, arrivals: None, pending: 1, ..AckStatus::default() }
        );
        assert_eq!(budget.bytes_in_use(), 10);
        parts.pop().unwrap().done();
        assert_eq!(
            acks.status(),
            AckStatus { checkpoint: Some(n(1)), arrivals: None, pending: 0, ..AckStatus::default() }
        );
        assert_eq!(budget.bytes_in_use(), 0);
        assert!(acks.settled().await);
    }

    #[tokio::test]
    async fn a_record_with_something_to_do_beside_is_done_when_that_and_every_lane_are() {
        for beside_first in [true, false] {
            let lanes = Lanes::first(2);
            let acks = ShardAcks::with_lanes(10, Checkpoint::TrimHorizon, lanes, BTreeMap::new());
            let budget = ByteBudget::new(100);
            let (mut of_lanes, beside) = track(&acks, &budget, 1).await.route_beside(&[lanes]);
            let of_lanes = of_lanes.pop().unwrap();
            let (mut beside, mut of_lanes) = (Some(beside), Some(of_lanes));
            for is_beside in [beside_first, !beside_first] {
                assert_eq!((acks.status().checkpoint, acks.status().pending), (None, 1));
                if is_beside {
                    beside.take().into_iter().for_each(Ack::done);
                } else {
                    of_lanes.take().into_iter().for_each(LaneAck::done);
                }
            }
            assert_eq!((acks.status().checkpoint, acks.status().pending), (Some(n(1)), 0));
            assert_eq!(budget.bytes_in_use(), 0);
        }
    }

    #[tokio::test]
    async fn what_was_to_be_done_beside_and_is_lost_loses_the_record() {
        let acks = ShardAcks::with_lanes(10, Checkpoint::TrimHorizon, Lanes::one(0), BTreeMap::new());
        let budget = ByteBudget::new(100);
        let (of_lanes, beside) = track(&acks, &budget, 1).await.route_beside(&[Lanes::one(0)]);
        drop(beside);
        of_lanes.into_iter().for_each(LaneAck::done);
        assert!(acks.status().lost);
        assert_eq!(acks.status().checkpoint, None);
    }

    #[tokio::test]
    async fn a_watermark_counts_when_every_part_of_its_record_and_all_before_it_are_done() {
        let (acks, budget) = (ShardAcks::new(10), ByteBudget::new(100));
        let (first, second) = (track(&acks, &budget, 1).await, track(&acks, &budget, 2).await);
        second.watermark(700);
        let mut parts = second.split(2);
        parts.pop().unwrap().done();
        first.done();
        assert_eq!(acks.watermark_ms(), None);
        parts.pop().unwrap().done();
        assert_eq!(acks.watermark_ms(), Some(700));
        let third = track(&acks, &budget, 3).await;
        third.watermark(600);
        third.done();
        assert_eq!(acks.watermark_ms(), Some(700), "what was said before still holds");
    }

    #[tokio::test]
    async fn a_lost_record_holds_the_watermark_for_ever() {
        let (acks, budget) = (ShardAcks::new(10), ByteBudget::new(100));
        let (first, second) = (track(&acks, &budget, 1).await, track(&acks, &budget, 2).await);
        second.watermark(700);
        drop(first);
        second.done();
        acks.mark_all(800);
        assert_eq!(acks.watermark_ms(), None);
    }

    #[tokio::test]
    async fn a_record_that_nothing_comes_of_is_done() {
        let (acks, budget) = (ShardAcks::new(10), ByteBudget::new(100));
        assert!(track(&acks, &budget, 1).await.split(0).is_empty());
        assert_eq!(acks.status().checkpoint, Some(n(1)));
    }

    #[tokio::test]
    async fn a_dropped_ack_freezes_the_checkpoint_and_frees_its_bytes() {
        let (acks, budget) = (ShardAcks::new(10), ByteBudget::new(100));
        let (first, second, third) =
            (track(&acks, &budget, 1).await, track(&acks, &budget, 2).await, track(&acks, &budget, 3).await);
        first.done();
        drop(second);
        third.done();
        assert_eq!(
            acks.status(),
            AckStatus {
                checkpoint: Some(n(1)),
                arrivals: None,
                pending: 2,
                lost: true,
                ..AckStatus::default()
            }
        );
        assert_eq!(budget.bytes_in_use(), 0);
        assert!(!acks.settled().await);
    }

    #[tokio::test]
    async fn the_reader_waits_while_the_window_is_full() {
        let (acks, budget) = (ShardAcks::new(2), ByteBudget::new(100));
        let first = track(&acks, &budget, 1).await;
        let _second = track(&acks, &budget, 2).await;
        let third = track(&acks, &budget, 3);
        tokio::pin!(third);
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(third.as_mut().poll(&mut context).is_pending());
        first.done();
        third.await.done();
    }
}
