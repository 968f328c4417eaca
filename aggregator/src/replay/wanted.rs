//! Which records of a stream are replayed, where a shard is begun, and where its reading stops. Pure.

use std::collections::HashSet;

use bytes::Bytes;
use warmcast_common::consumer::{Checkpoint, SequenceNumber};
use warmcast_common::limits::TIP_EMPTY_READS_MIN;

/// Empty reads in a row after which a shard is taken to have no more, whatever else is known of it.
const EMPTY_READS_MAX: u32 = 15;

/// What is replayed of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Changes made at this time or later: milliseconds since the epoch. Their times are rounded down to the second
    /// (AWS: `ApproximateCreationDateTime`), and so is this.
    pub(super) since_ms: Option<u64>,
    /// Records with this sequence number or a higher one.
    pub(super) from: Option<SequenceNumber>,
    /// Changes made at this time or earlier, by the second.
    pub(super) until_ms: u64,
    /// Changes of these items; all if there is no list.
    pub(super) keys: Option<HashSet<Bytes>>,
}

/// What a record is to a replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// It is sent, if its key is wanted.
    Wanted,
    /// It came too early.
    Early,
    /// It and all that follow in its shard came too late.
    Beyond,
}

impl Wanted {
    /// Where a shard is begun that was not read before. Not every server can begin at a time: what comes too early is
    /// passed over.
    pub(super) fn start(&self) -> Checkpoint {
        self.since_second_ms().map_or(Checkpoint::TrimHorizon, Checkpoint::AtTime)
    }

    /// Looks at a record by its creation time (0: the service did not tell) and its sequence number.
    pub(super) fn look(&self, created_ms: u64, sequence: Option<&SequenceNumber>) -> Look {
        if created_ms > self.until_ms {
            return Look::Beyond;
        }
        let is_early = created_ms > 0 && self.since_second_ms().is_some_and(|since_ms| created_ms < since_ms);
        let is_below = self.from.as_ref().zip(sequence).is_some_and(|(from, sequence)| sequence < from);
        if is_early || is_below { Look::Early } else { Look::Wanted }
    }

    /// Whether changes of this item are wanted.
    pub(super) fn has_key(&self, key: &Bytes) -> bool {
        self.keys.as_ref().is_none_or(|keys| keys.contains(key))
    }

    fn since_second_ms(&self) -> Option<u64> {
        self.since_ms.map(|since_ms| since_ms - since_ms % 1_000)
    }
}

/// Whether an open shard has been read to its end for now. The service does not say: it may answer with nothing on the
/// way (AWS: GetRecords).
#[derive(Debug)]
pub(super) struct Tip {
    /// The shard is known to have records up to here.
    known: Option<SequenceNumber>,
    empty_reads: u32,
}

impl Tip {
    /// Of a shard that the fleet has read to this checkpoint, if it reads it.
    pub(super) fn new(checkpoint: Option<&Checkpoint>) -> Self {
        let known = match checkpoint {
            Some(Checkpoint::After(sequence)) => Some(sequence.clone()),
            _ => None,
        };
        Self { known, empty_reads: 0 }
    }

    /// Whether there is no more, after a page with so many records that was read up to `place`.
    pub(super) fn is_found(&mut self, records: usize, place: &Checkpoint) -> bool {
        self.empty_reads = if records == 0 { self.empty_reads.saturating_add(1) } else { 0 };
        let has_all_known = match (&self.known, place) {
            (Some(known), Checkpoint::After(place)) => place >= known,
            _ => false,
        };
        // What is known to be there may have been trimmed meanwhile.
        self.empty_reads >= if has_all_known { TIP_EMPTY_READS_MIN } else { EMPTY_READS_MAX }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(number: u64) -> SequenceNumber {
        number.to_string().parse().unwrap()
    }

    #[test]
    fn a_record_is_wanted_by_its_second_and_what_is_not_known_of_it_keeps_nothing_out() {
        let wanted = Wanted { since_ms: Some(5_700), until_ms: 9_300, ..Wanted::default() };
        let look = |created_ms| wanted.look(created_ms, None);
        assert_eq!([look(4_000), look(5_000), look(9_000)], [Look::Early, Look::Wanted, Look::Wanted]);
        assert_eq!([look(10_000), look(0)], [Look::Beyond, Look::Wanted]);
        assert_eq!(wanted.start(), Checkpoint::AtTime(5_000));
        assert_eq!(Wanted::default().start(), Checkpoint::TrimHorizon);
    }

    #[test]
    fn sequence_numbers_count_as_numbers_and_the_first_is_included() {
        let wanted = Wanted { from: Some(number(100)), until_ms: 9, ..Wanted::default() };
        let look = |of| wanted.look(1, Some(&number(of)));
        assert_eq!([look(99), look(100), look(1_000)], [Look::Early, Look::Wanted, Look::Wanted]);
        assert_eq!((wanted.look(1, None), wanted.start()), (Look::Wanted, Checkpoint::TrimHorizon));
    }

    #[test]
    fn keys_are_all_or_those_that_are_listed() {
        let some =
            |keys: &[&'static str]| keys.iter().map(|key| Bytes::from_static(key.as_bytes())).collect();
        let listed = Wanted { keys: Some(some(&["a", "b"])), ..Wanted::default() };
        let key = Bytes::from_static;
        assert!(listed.has_key(&key(b"a")) && !listed.has_key(&key(b"c")));
        assert!(Wanted::default().has_key(&key(b"c")));
    }

    #[test]
    fn a_tip_is_believed_sooner_once_everything_is_read_that_the_fleet_has_read() {
        let found = |known: Option<u64>, place: u64, reads: &[usize]| {
            let known = known.map(|of| Checkpoint::After(number(of)));
            let mut tip = Tip::new(known.as_ref());
            let place = Checkpoint::After(number(place));
            reads.iter().map(|records| tip.is_found(*records, &place)).collect::<Vec<_>>()
        };
        assert_eq!(found(Some(9), 9, &[0, 0, 1, 0, 0, 0]), [false, false, false, false, false, true]);
        let empty = [0; EMPTY_READS_MAX as usize];
        for (known, place) in [(Some(10), 9), (None, 9)] {
            let found = found(known, place, &empty);
            assert_eq!(found.iter().position(|found| *found), Some(empty.len() - 1));
        }
    }
}
