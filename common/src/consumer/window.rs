//! Which records of a shard are done, and so how far its checkpoint and its watermark may go. Pure.
//!
//! Records are done in any order; the checkpoint follows the longest prefix that is:
//!
//! ```text
//! record      0  1  2  3  4        record      0  1  2  3  4
//! done        *  *     *           done        *  *  *  *
//! checkpoint     ^                 checkpoint           ^
//! ```
//!
//! With 0, 1 and 3 done the checkpoint is 1; when 2 is done too, it is 3. The watermark follows the same prefix: a
//! record may be marked with a time, before which everything is done as soon as the prefix has passed it. So do the
//! arrivals of the records below the checkpoint.
//!
//! Where records go to several *lanes*, one is done when it is done on each that it was read for. A lane can be taken
//! out at any time: the place up to which it has everything is told, and the records wait for it no more.

use std::collections::VecDeque;

use super::budget::BytePermit;
use super::history::Arrivals;
use super::lanes::{LANES_MAX, Lanes};
use super::sequence_number::SequenceNumber;

/// The records of one shard that were read and are not yet below the checkpoint. Bounded.
#[derive(Debug)]
pub struct AckWindow {
    slots: VecDeque<Slot>,
    /// The number of the first slot.
    first: u64,
    records_max: usize,
    checkpoint: Option<SequenceNumber>,
    arrivals: Option<Arrivals>,
    watermark_ms: Option<u64>,
    /// What waits for each lane, by its place.
    loads: Vec<Load>,
}

/// What waits for a lane.
#[derive(Clone, Copy, Debug, Default)]
struct Load {
    records: usize,
    bytes: usize,
    /// No record before this number waits for the lane.
    since: u64,
}

/// What of a window waits for one lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneLoad {
    /// Records.
    pub records: usize,
    /// What they weigh.
    pub bytes: usize,
    /// The number of the first of them.
    pub first: u64,
    /// That one is done for another lane, or was never meant for it: others go on.
    pub holds_up: bool,
}

/// A record in the window.
#[derive(Debug)]
struct Slot {
    sequence: Option<SequenceNumber>,
    /// When it came into the stream; 0 if that is not known.
    arrived_ms: u64,
    /// Parts that are not done: a record may be split into sub-records. One while it is not known what becomes of it.
    parts: u32,
    /// The lanes that it waits for.
    lanes: Lanes,
    /// It goes to its lanes, whatever becomes of its parts.
    routed: bool,
    /// What it weighs.
    bytes: usize,
    /// A part was lost: the record will never be done here, and no checkpoint may pass it.
    lost: bool,
    /// The bytes it holds, given back when the last part is done.
    permits: Vec<BytePermit>,
    /// What the watermark is at least when this record and all before it are done.
    watermark_ms: Option<u64>,
}

/// The window has as many records as it may: wait until one is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowFull;

impl AckWindow {
    /// An empty window for at most `records_max` records.
    pub fn new(records_max: usize) -> Self {
        Self {
            slots: VecDeque::new(),
            first: 0,
            records_max,
            checkpoint: None,
            arrivals: None,
            watermark_ms: None,
            loads: Vec::new(),
        }
    }

    /// Takes a record in, in the shard's order, and gives it its number. `arrived_ms` is when it came into the
    /// stream, 0 if that is not known; `permit` are the bytes it holds; `lanes` are those it is to be done on.
    ///
    /// # Errors
    /// When the window is full.
    pub fn push(
        &mut self,
        sequence: Option<SequenceNumber>,
        arrived_ms: u64,
        permit: BytePermit,
        lanes: Lanes,
    ) -> Result<u64, WindowFull> {
        if self.is_full() {
            return Err(WindowFull);
        }
        let number = self.first + self.slots.len() as u64;
        let bytes = permit.bytes();
        for lane in lanes.iter() {
            if self.loads.len() <= lane {
                self.loads.resize(lane + 1, Load::default());
            }
            if let Some(load) = self.loads.get_mut(lane) {
                load.records += 1;
                load.bytes += bytes;
            }
        }
        self.slots.push_back(Slot {
            sequence,
            arrived_ms,
            parts: 1,
            lanes,
            routed: false,
            bytes,
            lost: false,
            permits: vec![permit],
            watermark_ms: None,
        });
        Ok(number)
    }

    /// A part of record `number` becomes `parts` parts, each to be done by itself.
    pub fn split(&mut self, number: u64, parts: u32) {
        debug_assert!(parts > 0, "a part of nothing would never be done");
        if let Some(slot) = self.slot(number) {
            slot.parts += parts.saturating_sub(1);
        }
    }

    /// It is known what becomes of record `number`: it goes to `lanes`, of those that it still waits for, and to no
    /// other. Returns these. It must not have been split.
    pub fn route(&mut self, number: u64, lanes: Lanes) -> Lanes {
        if let Some(slot) = self.slot(number) {
            debug_assert!(slot.parts == 1, "a record is routed once and whole");
            slot.parts = 0;
        }
        self.route_beside(number, lanes)
    }

    /// The same, and its one part stays to be done beside.
    pub fn route_beside(&mut self, number: u64, lanes: Lanes) -> Lanes {
        let Some(slot) = self.slot(number) else { return Lanes::NONE };
        slot.routed = true;
        let (routed, others) = (slot.lanes.and(lanes), slot.lanes.without(lanes));
        self.take_off(number, others);
        self.advance();
        routed
    }

    /// The lanes that record `number` still waits for.
    pub fn lanes(&self, number: u64) -> Lanes {
        let index = number.checked_sub(self.first).and_then(|index| usize::try_from(index).ok());
        index.and_then(|index| self.slots.get(index)).map_or(Lanes::NONE, |slot| slot.lanes)
    }

    /// Record `number` is done on these lanes. Returns whether the window became smaller.
    pub fn done_on(&mut self, number: u64, lanes: Lanes) -> bool {
        self.take_off(number, lanes);
        self.advance()
    }

    /// Record `number` was lost on its way to these lanes. Returns whether it waits for one of them: then no checkpoint
    /// will pass it.
    pub fn lose_on(&mut self, number: u64, lanes: Lanes) -> bool {
        let Some(slot) = self.slot(number) else { return false };
        let is_missed = !slot.lanes.and(lanes).is_empty();
        slot.lost |= is_missed;
        self.done_on(number, lanes);
        is_missed
    }

    /// No record waits for this lane any more. Returns the place up to which it has everything, `None` if that is where
    /// the window began; and when the first record arrived that it lacks, `None` if that is not known or it lacks none.
    pub fn park(&mut self, lane: usize) -> (Option<SequenceNumber>, Option<u64>) {
        let waits = |slot: &&Slot| !slot.lanes.contains(lane) && !slot.lost;
        let passed = self.slots.iter().take_while(waits).filter_map(|slot| slot.sequence.as_ref()).last();
        let place = passed.or(self.checkpoint.as_ref()).cloned();
        let first = self.slots.iter().find(|slot| slot.lanes.contains(lane));
        let arrived_ms = first.map(|slot| slot.arrived_ms).filter(|ms| *ms > 0);
        for number in self.first..self.next_number() {
            self.take_off(number, Lanes::one(lane));
        }
        self.advance();
        (place, arrived_ms)
    }

    /// No record waits for any lane any more, and none counts as done.
    pub fn abandon(&mut self) {
        for number in self.first..self.next_number() {
            self.take_off(number, Lanes::first(LANES_MAX));
            if let Some(slot) = self.slot(number) {
                slot.lost = true;
            }
        }
    }

    /// What waits for a lane; `None` if nothing does.
    pub fn load(&mut self, lane: usize, attached: Lanes) -> Option<LaneLoad> {
        let (first, end) = (self.first, self.first + self.slots.len() as u64);
        let load = *self.loads.get(lane).filter(|load| load.records > 0)?;
        let number =
            (load.since.max(first)..end).find(|number| self.lanes(*number).contains(lane)).unwrap_or(end);
        if let Some(load) = self.loads.get_mut(lane) {
            load.since = number;
        }
        let others = attached.without(Lanes::one(lane));
        let slot = self.slot(number)?;
        let holds_up = slot.parts == 0 && others.without(slot.lanes) != Lanes::NONE;
        Some(LaneLoad { records: load.records, bytes: load.bytes, first: number, holds_up })
    }

    /// The last record that was taken in, or the one at the checkpoint.
    pub fn last(&self) -> Option<&SequenceNumber> {
        self.slots.iter().rev().find_map(|slot| slot.sequence.as_ref()).or(self.checkpoint.as_ref())
    }

    /// The number of the next record.
    pub fn next_number(&self) -> u64 {
        self.first + self.slots.len() as u64
    }

    fn take_off(&mut self, number: u64, lanes: Lanes) {
        let Some(slot) = self.slot(number) else { return };
        let off = slot.lanes.and(lanes);
        slot.lanes = slot.lanes.without(lanes);
        let bytes = slot.bytes;
        slot.give_back();
        for lane in off.iter() {
            if let Some(load) = self.loads.get_mut(lane) {
                load.records = load.records.saturating_sub(1);
                load.bytes = load.bytes.saturating_sub(bytes);
            }
        }
    }

    /// Record `number` holds more bytes than before: it was inflated.
    pub fn hold(&mut self, number: u64, permit: BytePermit) {
        if let Some(slot) = self.slot(number) {
            slot.permits.push(permit);
        }
    }

    /// When record `number` and all before it are done, the watermark is at least `watermark_ms`.
    pub fn mark(&mut self, number: u64, watermark_ms: u64) {
        if let Some(slot) = self.slot(number) {
            slot.watermark_ms = slot.watermark_ms.max(Some(watermark_ms));
        }
    }

    /// When everything that was taken in so far is done, the watermark is at least `watermark_ms`.
    pub fn mark_all(&mut self, watermark_ms: u64) {
        let of = self.slots.back_mut().map_or(&mut self.watermark_ms, |last| &mut last.watermark_ms);
        *of = (*of).max(Some(watermark_ms));
    }

    /// A part of record `number` is done. Returns whether the window became smaller.
    pub fn done(&mut self, number: u64) -> bool {
        self.finish_part(number, false)
    }

    /// A part of record `number` was lost: no checkpoint will pass the record.
    pub fn lose(&mut self, number: u64) {
        self.finish_part(number, true);
    }

    fn finish_part(&mut self, number: u64, lost: bool) -> bool {
        let Some(slot) = self.slot(number) else { return false };
        debug_assert!(slot.parts > 0, "a part was done twice");
        slot.parts = slot.parts.saturating_sub(1);
        slot.lost |= lost;
        slot.give_back();
        let is_whole = slot.parts == 0 && !slot.routed;
        if is_whole {
            // Nothing of it is on its way to any lane.
            self.take_off(number, Lanes::first(LANES_MAX));
        }
        self.advance()
    }

    /// The position below which everything is done; `None` until the first record is.
    pub fn checkpoint(&self) -> Option<&SequenceNumber> {
        self.checkpoint.as_ref()
    }

    /// When the first record that was done and the checkpoint's arrived; `None` until that is known of one. Of those
    /// that do not tell, the last that does counts.
    pub fn arrivals(&self) -> Option<Arrivals> {
        self.arrivals
    }

    /// Everything created before this is done, in milliseconds since the epoch; `None` until the done prefix has
    /// passed a mark. It never goes back.
    pub fn watermark_ms(&self) -> Option<u64> {
        self.watermark_ms
    }

    /// Whether every record that was taken in is done.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Whether a record must be done before the next can be taken in.
    pub fn is_full(&self) -> bool {
        self.slots.len() >= self.records_max
    }

    /// Records that are not below the checkpoint.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    fn slot(&mut self, number: u64) -> Option<&mut Slot> {
        let index = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.slots.get_mut(index)
    }

    fn advance(&mut self) -> bool {
        let before = self.first;
        while self.slots.front().is_some_and(|slot| slot.is_done() && !slot.lost) {
            self.first += 1;
            let Some(slot) = self.slots.pop_front() else { break };
            self.watermark_ms = self.watermark_ms.max(slot.watermark_ms);
            if let Some(sequence) = slot.sequence {
                self.checkpoint = Some(sequence);
                if slot.arrived_ms > 0 {
                    let first_ms = self.arrivals.map_or(slot.arrived_ms, |known| known.first_ms);
                    self.arrivals = Some(Arrivals { first_ms, last_ms: slot.arrived_ms });
                }
            }
        }
        self.first != before
    }
}

impl Slot {
    fn is_done(&self) -> bool {
        self.parts == 0 && self.lanes.is_empty()
    }

    fn give_back(&mut self) {
        if self.is_done() {
            self.permits = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::budget::ByteBudget;
    use super::*;
    use proptest::prelude::*;
    use proptest::sample::Index;

    fn n(number: u64) -> SequenceNumber {
        SequenceNumber::new(number.to_string()).unwrap()
    }

    fn permit(budget: &ByteBudget, bytes: usize) -> BytePermit {
        let mut reserve = Box::pin(budget.reserve(bytes));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match reserve.as_mut().poll(&mut context) {
            std::task::Poll::Ready(permit) => permit,
            std::task::Poll::Pending => panic!("the budget of the test is too small"),
        }
    }

    #[test]
    fn the_checkpoint_is_the_end_of_the_done_prefix() {
        let budget = ByteBudget::new(1_000);
        let mut window = AckWindow::new(10);
        let numbers: Vec<u64> = (0..5)
            .map(|i| window.push(Some(n(i)), 10 + i, permit(&budget, 1), Lanes::NONE).unwrap())
            .collect();
        for i in [0, 1, 3] {
            window.done(numbers[i]);
        }
        assert_eq!(window.checkpoint(), Some(&n(1)));
        window.done(numbers[2]);
        assert_eq!(window.checkpoint(), Some(&n(3)));
        assert_eq!(window.arrivals(), Some(Arrivals { first_ms: 10, last_ms: 13 }));
        assert_eq!(window.len(), 1);
        assert_eq!(budget.bytes_in_use(), 1);
    }

    #[test]
    fn a_record_without_a_position_moves_no_checkpoint_and_blocks_none() {
        let budget = ByteBudget::new(1_000);
        let mut window = AckWindow::new(10);
        let first = window.push(None, 5, permit(&budget, 0), Lanes::NONE).unwrap();
        let second = window.push(Some(n(7)), 0, permit(&budget, 0), Lanes::NONE).unwrap();
        window.done(second);
        assert_eq!(window.checkpoint(), None);
        window.done(first);
        assert_eq!(window.checkpoint(), Some(&n(7)));
        assert_eq!(window.arrivals(), None, "the checkpoint's record does not tell");
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push { bytes: usize, arrived_ms: u64 },
        Split { which: Index, parts: u32 },
        Hold { which: Index, bytes: usize },
        Done { which: Index },
        Lose { which: Index },
        Mark { which: Index, ms: u64 },
        MarkAll { ms: u64 },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (0usize..100, 0u64..3).prop_map(|(bytes, arrived_ms)| Step::Push { bytes, arrived_ms }),
            1 => (any::<Index>(), 1u32..5).prop_map(|(which, parts)| Step::Split { which, parts }),
            1 => (any::<Index>(), 0usize..100).prop_map(|(which, bytes)| Step::Hold { which, bytes }),
            8 => any::<Index>().prop_map(|which| Step::Done { which }),
            1 => any::<Index>().prop_map(|which| Step::Lose { which }),
            3 => (any::<Index>(), 0u64..1_000).prop_map(|(which, ms)| Step::Mark { which, ms }),
            2 => (0u64..1_000).prop_map(|ms| Step::MarkAll { ms }),
        ]
    }

    fn done_prefix(parts_left: &[u32], lost: &[bool]) -> usize {
        (0..parts_left.len()).find(|&i| parts_left[i] > 0 || lost[i]).unwrap_or(parts_left.len())
    }

    proptest! {
        /// Against the obvious model: a list of all records with the parts they have left.
        #[test]
        fn the_window_agrees_with_a_list_of_everything(steps in prop::collection::vec(step(), 1..200)) {
            const RECORDS_MAX: usize = 8;
            let budget = ByteBudget::new(1 << 20);
            let mut window = AckWindow::new(RECORDS_MAX);
            let mut parts_left: Vec<u32> = Vec::new();
            let mut bytes_held: Vec<usize> = Vec::new();
            let mut lost: Vec<bool> = Vec::new();
            let mut arrived: Vec<u64> = Vec::new();
            // With how many records each mark waits for.
            let mut marks: Vec<(usize, u64)> = Vec::new();
            for step in steps {
                let open: Vec<usize> = (0..parts_left.len()).filter(|&i| parts_left[i] > 0).collect();
                match step {
                    Step::Push { bytes, arrived_ms } => {
                        let full = parts_left.len() - done_prefix(&parts_left, &lost) >= RECORDS_MAX;
                        let pushed = window.push(Some(n(parts_left.len() as u64)), arrived_ms, permit(&budget, bytes), Lanes::NONE);
                        prop_assert_eq!(pushed.is_err(), full);
                        if !full {
                            prop_assert_eq!(pushed, Ok(parts_left.len() as u64));
                            parts_left.push(1);
                            bytes_held.push(bytes);
                            lost.push(false);
                            arrived.push(arrived_ms);
                        }
                    }
                    Step::Split { which, parts } if !open.is_empty() => {
                        let i = open[which.index(open.len())];
                        window.split(i as u64, parts);
                        parts_left[i] += parts - 1;
                    }
                    Step::Hold { which, bytes } if !open.is_empty() => {
                        let i = open[which.index(open.len())];
                        window.hold(i as u64, permit(&budget, bytes));
                        bytes_held[i] += bytes;
                    }
                    Step::Done { which } if !open.is_empty() => {
                        let i = open[which.index(open.len())];
                        window.done(i as u64);
                        parts_left[i] -= 1;
                    }
                    Step::Lose { which } if !open.is_empty() => {
                        let i = open[which.index(open.len())];
                        window.lose(i as u64);
                        parts_left[i] -= 1;
                        lost[i] = true;
                    }
                    Step::Mark { which, ms } if !open.is_empty() => {
                        let i = open[which.index(open.len())];
                        window.mark(i as u64, ms);
                        marks.push((i + 1, ms));
                    }
                    Step::MarkAll { ms } => {
                        window.mark_all(ms);
                        marks.push((parts_left.len(), ms));
                    }
                    _ => {}
                }
                let done = done_prefix(&parts_left, &lost);
                let expected = done.checked_sub(1).map(|i| n(i as u64));
                prop_assert_eq!(window.checkpoint(), expected.as_ref());
                let known = || arrived[..done].iter().copied().filter(|ms| *ms > 0);
                let arrivals = known().next().zip(known().next_back());
                prop_assert_eq!(window.arrivals().map(|of| (of.first_ms, of.last_ms)), arrivals);
                let passed = marks.iter().filter(|(records, _)| *records <= done).map(|(_, ms)| *ms).max();
                prop_assert_eq!(window.watermark_ms(), passed);
                prop_assert_eq!(window.len(), parts_left.len() - done);
                let held: usize = (0..parts_left.len()).filter(|&i| parts_left[i] > 0).map(|i| bytes_held[i]).sum();
                prop_assert_eq!(budget.bytes_in_use(), held);
            }
        }
    }

    #[derive(Clone, Debug)]
    enum LaneStep {
        Push { lanes: u8 },
        Route { which: Index, lanes: u8 },
        DoneWhole { which: Index },
        DoneOn { which: Index, lanes: u8 },
        LoseOn { which: Index, lanes: u8 },
        Park { lane: usize },
    }

    fn lane_step() -> impl Strategy<Value = LaneStep> {
        prop_oneof![
            6 => (0u8..8).prop_map(|lanes| LaneStep::Push { lanes }),
            6 => (any::<Index>(), 0u8..8).prop_map(|(which, lanes)| LaneStep::Route { which, lanes }),
            1 => any::<Index>().prop_map(|which| LaneStep::DoneWhole { which }),
            8 => (any::<Index>(), 1u8..8).prop_map(|(which, lanes)| LaneStep::DoneOn { which, lanes }),
            1 => (any::<Index>(), 1u8..8).prop_map(|(which, lanes)| LaneStep::LoseOn { which, lanes }),
            1 => (0usize..3).prop_map(|lane| LaneStep::Park { lane }),
        ]
    }

    fn lanes(bits: u8) -> Lanes {
        (0..3).filter(|lane| bits & (1 << lane) != 0).collect()
    }

    #[derive(Clone, Debug)]
    struct Modelled {
        routed: bool,
        waits: Lanes,
        lost: bool,
    }

    proptest! {
        /// Against a list of all records with the lanes that each waits for.
        #[test]
        fn lanes_agree_with_a_list_of_what_each_waits_for(steps in prop::collection::vec(lane_step(), 1..150)) {
            let budget = ByteBudget::new(1 << 20);
            let mut window = AckWindow::new(1_000);
            let mut all: Vec<Modelled> = Vec::new();
            for step in steps {
                let of = |which: Index| (!all.is_empty()).then(|| which.index(all.len().max(1)));
                match step {
                    LaneStep::Push { lanes: bits } => {
                        window.push(Some(n(all.len() as u64)), 0, permit(&budget, 10), lanes(bits)).unwrap();
                        all.push(Modelled { routed: false, waits: lanes(bits), lost: false });
                    }
                    LaneStep::Route { which, lanes: bits } => if let Some(i) = of(which).filter(|&i| !all[i].routed) {
                        let routed = window.route(i as u64, lanes(bits));
                        all[i].routed = true;
                        all[i].waits = all[i].waits.and(lanes(bits));
                        prop_assert_eq!(routed, all[i].waits);
                    },
                    LaneStep::DoneWhole { which } => if let Some(i) = of(which).filter(|&i| !all[i].routed) {
                        window.done(i as u64);
                        (all[i].routed, all[i].waits) = (true, Lanes::NONE);
                    },
                    LaneStep::DoneOn { which, lanes: bits } => if let Some(i) = of(which).filter(|&i| all[i].routed) {
                        window.done_on(i as u64, lanes(bits));
                        all[i].waits = all[i].waits.without(lanes(bits));
                    },
                    LaneStep::LoseOn { which, lanes: bits } => if let Some(i) = of(which).filter(|&i| all[i].routed) {
                        let is_missed = !all[i].waits.and(lanes(bits)).is_empty();
                        prop_assert_eq!(window.lose_on(i as u64, lanes(bits)), is_missed);
                        all[i].lost |= is_missed;
                        all[i].waits = all[i].waits.without(lanes(bits));
                    },
                    LaneStep::Park { lane } => {
                        let passed = all.iter().take_while(|of| !of.waits.contains(lane) && !of.lost).count();
                        let (place, _) = window.park(lane);
                        // Below the checkpoint everything is done for every lane that it was read for.
                        prop_assert_eq!(place, passed.checked_sub(1).map(|i| n(i as u64)));
                        all.iter_mut().for_each(|of| of.waits = of.waits.without(Lanes::one(lane)));
                    }
                }
                let done = |of: &Modelled| of.routed && of.waits.is_empty();
                let prefix = all.iter().take_while(|of| done(of) && !of.lost).count();
                prop_assert_eq!(window.checkpoint().cloned(), prefix.checked_sub(1).map(|i| n(i as u64)));
                let held = all.iter().filter(|of| !done(of)).count();
                prop_assert_eq!(budget.bytes_in_use(), 10 * held);
                for lane in 0..3 {
                    let waiting: Vec<usize> = (0..all.len()).filter(|&i| all[i].waits.contains(lane)).collect();
                    let load = window.load(lane, Lanes::first(3));
                    prop_assert_eq!(load.map_or(0, |load| load.records), waiting.len());
                    prop_assert_eq!(load.map_or(0, |load| load.bytes), 10 * waiting.len());
                    if let (Some(load), Some(&first)) = (load, waiting.first()) {
                        prop_assert_eq!(load.first, first as u64);
                        let ahead = Lanes::first(3).without(all[first].waits);
                        prop_assert_eq!(load.holds_up, all[first].routed && !ahead.is_empty());
                    }
                }
            }
        }
    }
}
