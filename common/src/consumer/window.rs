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

use std::collections::VecDeque;

use super::budget::BytePermit;
use super::history::Arrivals;
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
}

/// A record in the window.
#[derive(Debug)]
struct Slot {
    sequence: Option<SequenceNumber>,
    /// When it came into the stream; 0 if that is not known.
    arrived_ms: u64,
    /// Parts that are not done: a record may be split into copies for regions or into sub-records.
    parts: u32,
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
        }
    }

    /// Takes a record in, in the shard's order, and gives it its number. `arrived_ms` is when it came into the
    /// stream, 0 if that is not known; `permit` are the bytes it holds.
    ///
    /// # Errors
    /// When the window is full.
    pub fn push(
        &mut self,
        sequence: Option<SequenceNumber>,
        arrived_ms: u64,
        permit: BytePermit,
    ) -> Result<u64, WindowFull> {
        if self.is_full() {
            return Err(WindowFull);
        }
        let number = self.first + self.slots.len() as u64;
        self.slots.push_back(Slot {
            sequence,
            arrived_ms,
            parts: 1,
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
        if slot.parts == 0 {
            slot.permits = Vec::new();
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
        while self.slots.front().is_some_and(|slot| slot.parts == 0 && !slot.lost) {
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
        let numbers: Vec<u64> =
            (0..5).map(|i| window.push(Some(n(i)), 10 + i, permit(&budget, 1)).unwrap()).collect();
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
        let first = window.push(None, 5, permit(&budget, 0)).unwrap();
        let second = window.push(Some(n(7)), 0, permit(&budget, 0)).unwrap();
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
                        let pushed = window.push(Some(n(parts_left.len() as u64)), arrived_ms, permit(&budget, bytes));
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
}
