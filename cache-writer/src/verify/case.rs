//! A key that differed, and what later looks at it say. Pure.
//!
//! The question of each later look is: does the entry have everything that was made before the *first* look? It has
//! if it equals what the master has now, or had at any look since; or if it was made from something newer than the
//! first look, which is what its time tells. So a key that changes all the time, and is always a moment behind, is
//! no mismatch.

use warmcast_proto::entry::{EntryHeader, EntryKind};

use super::judge::{Difference, Digest, Expected, Miss, Seen, Verdict, judge};

/// How far the clocks of DynamoDB, of the cache and of this machine may differ, with the second to which creation
/// times are rounded down: the margin of the cache protocol's rule 4.
const CLOCKS_MS: u64 = 3_000;

/// What one look at a key found.
#[derive(Clone, Debug)]
pub struct Look {
    /// Just before the master was read, ms since the Unix epoch on this machine's clock.
    pub read_ms: u64,
    /// When everything was read: what the master had was made before.
    pub done_ms: u64,
    /// What the master had.
    pub expected: Expected,
    /// What the cache showed after that.
    pub seen: Seen,
    /// The header of the entry, if it has one.
    pub header: Option<EntryHeader>,
    /// What the master had after that; none: it was not read again.
    pub expected_after: Option<Expected>,
}

/// What is kept of a key's first look.
#[derive(Clone, Debug)]
pub struct First {
    /// What it says.
    pub verdict: Verdict,
    /// What later looks are held against, if it differs.
    pub case: Option<Case>,
}

/// A key that differed at its first look.
#[derive(Clone, Debug)]
pub struct Case {
    first_read_ms: u64,
    first_done_ms: u64,
    /// What the entry was at the first look.
    first_entry: EntryState,
    /// What the master had at the first look, and whatever else it had since.
    states: Vec<Digest>,
}

/// What is kept of an entry: its header, and what it showed.
type EntryState = (Option<EntryHeader>, Option<Digest>);

/// What a later look says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Later {
    /// The entry has everything that was made before the first look.
    Consistent(Proof),
    /// Readers see nothing now, and ask the master.
    Missing(Miss),
    /// It differs still.
    Different(Difference),
}

/// How it is known that an entry has everything that was made before the first look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// It is what the master has, or had since.
    Equal,
    /// It is newer than the first look, and the key has changed since: it changes too often to be met equal.
    Newer,
}

/// What a key that differs at the last look, too, comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lasting {
    /// The region has applied every change made before the first look: the entry is wrong.
    Mismatch,
    /// The region is behind, and the changes that make it right may still be on their way.
    Behind,
}

impl Look {
    /// What it says by itself: the cache was read between two reads of the master, so what equals either of them
    /// was right.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        match judge(&self.seen, &self.expected) {
            Verdict::Different(difference) => match &self.expected_after {
                Some(after) => judge(&self.seen, after),
                None => Verdict::Different(difference),
            },
            verdict => verdict,
        }
    }

    fn states(&self) -> impl Iterator<Item = Digest> {
        std::iter::once(&self.expected).chain(&self.expected_after).filter_map(Expected::digest)
    }

    /// What is kept of it, if it is the first look at its key.
    #[must_use]
    pub fn first(&self) -> First {
        let verdict = self.verdict();
        let case = matches!(verdict, Verdict::Different(_)).then(|| Case::new(self));
        First { verdict, case }
    }

    /// What the entry shows was so in the master at `since_ms` or later, as far as clocks can tell.
    #[must_use]
    pub fn is_as_of(&self, since_ms: u64) -> bool {
        // Nothing was made in the future: such a time proves nothing.
        let is_past = |made_ms: u64| made_ms <= self.read_ms.saturating_add(CLOCKS_MS);
        self.made_ms().is_some_and(|made_ms| is_past(made_ms) && made_ms + CLOCKS_MS >= since_ms)
    }

    fn entry(&self) -> EntryState {
        (self.header, self.seen.digest())
    }

    /// When what the entry shows was so in the master.
    fn made_ms(&self) -> Option<u64> {
        let header = self.header?;
        let is_state = matches!(
            header.kind(),
            EntryKind::Live | EntryKind::Filled | EntryKind::Tombstone | EntryKind::Negative
        );
        is_state.then(|| header.time_ms())
    }
}

impl Case {
    /// For a key that differs at its first look.
    #[must_use]
    pub fn new(first: &Look) -> Self {
        let mut case = Self {
            first_read_ms: first.read_ms,
            first_done_ms: first.done_ms,
            first_entry: first.entry(),
            states: Vec::new(),
        };
        case.remember(first);
        case
    }

    /// Just before the master was first read, ms since the Unix epoch.
    #[must_use]
    pub const fn first_read_ms(&self) -> u64 {
        self.first_read_ms
    }

    /// What a later look says.
    pub fn look_again(&mut self, look: &Look) -> Later {
        self.remember(look);
        let difference = match look.verdict() {
            Verdict::Consistent => return Later::Consistent(Proof::Equal),
            Verdict::Missing(miss) => return Later::Missing(miss),
            Verdict::Different(difference) => difference,
        };
        if look.seen.digest().is_some_and(|seen| self.states.contains(&seen)) {
            Later::Consistent(Proof::Equal)
        } else if self.is_newer(look) {
            Later::Consistent(Proof::Newer)
        } else {
            Later::Different(difference)
        }
    }

    /// What a key comes to that differs still. `watermark_ms`: every change made before it is applied in this
    /// region; none: it is not known, and whoever waited the longest age has waited long enough.
    #[must_use]
    pub fn lasting(&self, watermark_ms: Option<u64>) -> Lasting {
        match watermark_ms {
            Some(watermark_ms) if watermark_ms < self.first_done_ms => Lasting::Behind,
            _ => Lasting::Mismatch,
        }
    }

    /// Whether the entry was made from something newer than the first look.
    fn is_newer(&self, look: &Look) -> bool {
        // What stands still is not on its way, whatever its time says.
        let has_changed = self.states.len() > 1 || look.entry() != self.first_entry;
        has_changed && look.is_as_of(self.first_read_ms)
    }

    fn remember(&mut self, look: &Look) {
        for state in look.states() {
            if !self.states.contains(&state) {
                self.states.push(state);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use warmcast_proto::item::{self, Item};

    use super::super::judge::tests::{NOW_MS, an_item, entry, rules};
    use super::*;

    fn look(read_ms: u64, master: [Option<&Item>; 2], cached: Option<Bytes>) -> Look {
        let rules = rules();
        Look {
            read_ms,
            done_ms: read_ms,
            expected: rules.expected(master[0], read_ms),
            seen: rules.seen(cached.as_ref(), read_ms),
            header: cached.as_ref().and_then(|entry| Some(EntryHeader::decode(entry).ok()?.0)),
            expected_after: Some(rules.expected(master[1], read_ms)),
        }
    }

    fn live(color: &str, time_ms: u64) -> Option<Bytes> {
        Some(entry(EntryKind::Live, time_ms, None, &item::encode(&an_item(color))))
    }

    fn mark(kind: EntryKind, time_ms: u64) -> Option<Bytes> {
        Some(entry(kind, time_ms, None, b""))
    }

    const LATER_MS: u64 = NOW_MS + 60_000;

    #[test]
    fn a_change_between_the_two_reads_is_no_difference() {
        let (red, blue) = (an_item("red"), an_item("blue"));
        let verdict = look(NOW_MS, [Some(&red), Some(&blue)], live("blue", NOW_MS)).verdict();
        assert_eq!(verdict, Verdict::Consistent);
        let verdict = look(NOW_MS, [Some(&red), Some(&red)], live("blue", NOW_MS)).verdict();
        assert!(matches!(verdict, Verdict::Different(_)));
    }

    #[test]
    fn an_entry_that_catches_up_is_consistent_and_one_that_stays_is_not() {
        let (old, new, newer) = (an_item("old"), an_item("new"), an_item("newer"));
        let first = look(NOW_MS, [Some(&new); 2], live("old", NOW_MS - 90_000));
        let again = |master: [&Item; 2], cached| {
            Case::new(&first).look_again(&look(LATER_MS, master.map(Some), cached))
        };
        assert_eq!(again([&new; 2], live("new", NOW_MS - 500)), Later::Consistent(Proof::Equal));
        // The master has gone on, and the cache has what the master had at the first look.
        assert_eq!(again([&newer; 2], live("new", NOW_MS - 500)), Later::Consistent(Proof::Equal));
        let still = again([&new; 2], live("old", NOW_MS - 90_000));
        assert!(matches!(still, Later::Different(_)), "{still:?}");
        let still = again([&newer; 2], live("old", NOW_MS - 90_000));
        assert!(matches!(still, Later::Different(_)), "the master's changes are no excuse: {still:?}");
        assert_eq!(again([&old; 2], live("old", 0)), Later::Consistent(Proof::Equal), "it is right by now");
        assert_eq!(again([&new; 2], mark(EntryKind::Invalid, 0)), Later::Missing(Miss::Invalid));
        assert_eq!(again([&new; 2], None), Later::Missing(Miss::Unset));
    }

    #[test]
    fn a_key_that_changes_all_the_time_is_newer_than_the_first_look() {
        let states: Vec<Item> = (0..9).map(|number| an_item(&number.to_string())).collect();
        let first = look(NOW_MS, [Some(&states[1]), Some(&states[2])], live("0", NOW_MS - 2_000));
        let mut case = Case::new(&first);
        let second = look(LATER_MS, [Some(&states[7]), Some(&states[8])], live("6", LATER_MS - 1_000));
        assert_eq!(case.look_again(&second), Later::Consistent(Proof::Newer));
        // Deleted and written again and again.
        let deleted = look(LATER_MS, [Some(&states[7]); 2], mark(EntryKind::Tombstone, LATER_MS - 1_000));
        assert_eq!(case.look_again(&deleted), Later::Consistent(Proof::Newer));
    }

    #[test]
    fn times_that_prove_nothing_are_not_believed() {
        let (red, blue) = (an_item("red"), an_item("blue"));
        let first = look(NOW_MS, [Some(&red); 2], live("wrong", NOW_MS));
        let again = |master: &Item, time_ms| {
            Case::new(&first).look_again(&look(LATER_MS, [Some(master); 2], live("wrong", time_ms)))
        };
        assert!(matches!(again(&red, NOW_MS), Later::Different(_)), "nothing has changed since");
        let later = Case::new(&look(NOW_MS, [Some(&red); 2], live("wrong", LATER_MS))).look_again(&look(
            LATER_MS,
            [Some(&red); 2],
            live("wrong", LATER_MS),
        ));
        assert!(
            matches!(later, Later::Different(_)),
            "its time has come, but it was there before: {later:?}"
        );
        assert!(matches!(again(&red, LATER_MS + CLOCKS_MS + 1), Later::Different(_)), "of the future");
        assert!(matches!(again(&blue, NOW_MS - CLOCKS_MS - 1), Later::Different(_)));
        // Red, then wrong for a moment, then red again.
        assert_eq!(again(&red, LATER_MS - 1_000), Later::Consistent(Proof::Newer));
    }

    #[test]
    fn a_resurrected_row_and_foreign_values_stay_different() {
        let first = look(NOW_MS, [None; 2], live("back", NOW_MS - 5_000));
        let later = Case::new(&first).look_again(&look(LATER_MS, [None; 2], live("back", NOW_MS - 5_000)));
        assert_eq!(later, Later::Different(Difference::NotDeleted));
        let foreign = || Some(Bytes::from_static(b"theirs"));
        let later =
            Case::new(&look(NOW_MS, [None; 2], foreign())).look_again(&look(LATER_MS, [None; 2], foreign()));
        assert!(matches!(later, Later::Different(Difference::Foreign(_))), "{later:?}");
    }

    #[test]
    fn a_region_that_is_behind_is_not_called_wrong() {
        let case = Case::new(&look(NOW_MS, [None; 2], live("back", 0)));
        assert_eq!(case.lasting(Some(NOW_MS - 1)), Lasting::Behind);
        assert_eq!(case.lasting(Some(NOW_MS)), Lasting::Mismatch);
        assert_eq!(case.lasting(None), Lasting::Mismatch);
    }

    proptest! {
        /// An item that changes at random, and a cache that has each change after a delay: at no later look is it a
        /// mismatch, whenever the looks are.
        #[test]
        fn a_cache_that_is_behind_by_less_than_the_age_is_consistent(
            gaps_ms in prop::collection::vec(1_u64..20_000, 1..40),
            delay_ms in 0_u64..55_000,
            first_ms in 0_u64..200_000,
            looks_ms in prop::collection::vec(60_000_u64..400_000, 1..4),
            deleted in prop::collection::vec(any::<bool>(), 40),
        ) {
            // The state from each time on; none: deleted.
            let mut at_ms = 0;
            let mut states: Vec<(u64, Option<Item>)> = vec![(0, Some(an_item("first")))];
            for (gap_ms, is_deleted) in gaps_ms.iter().zip(deleted) {
                at_ms += gap_ms;
                // Few colours, so that states come back.
                states.push((at_ms, (!is_deleted).then(|| an_item(["a", "b"][usize::from(at_ms % 2 == 0)]))));
            }
            let at = |time_ms: u64| states.iter().rev().find(|(from_ms, _)| *from_ms <= time_ms).unwrap();
            let look_at = |time_ms: u64| {
                let (made_ms, cached) = at(time_ms.saturating_sub(delay_ms));
                // Creation times are whole seconds.
                let made_ms = (NOW_MS + made_ms) / 1_000 * 1_000;
                let cached = match cached {
                    Some(item) => entry(EntryKind::Live, made_ms, None, &item::encode(item)),
                    None => entry(EntryKind::Tombstone, made_ms, None, b""),
                };
                let master = at(time_ms).1.as_ref();
                look(NOW_MS + time_ms, [master; 2], Some(cached))
            };
            let first = look_at(first_ms);
            if let Verdict::Different(_) = first.verdict() {
                let mut case = Case::new(&first);
                for age_ms in looks_ms {
                    let later = case.look_again(&look_at(first_ms + age_ms));
                    prop_assert!(matches!(later, Later::Consistent(_)), "{later:?}");
                }
            }
        }

        /// A wrong entry that nothing mends is a mismatch at every look, however the master changes, unless the
        /// master comes to the same state.
        #[test]
        fn an_entry_that_stays_wrong_is_a_mismatch(
            colors in prop::collection::vec("[a-d]", 1..5),
            age_ms in 5_000_u64..1_000_000,
        ) {
            let wrong = live("wrong", NOW_MS - age_ms);
            let item = |color: &String| an_item(color);
            let mut case = Case::new(&look(NOW_MS, [Some(&item(&colors[0])); 2], wrong.clone()));
            for (number, color) in (1_u64..).zip(&colors) {
                let item = item(color);
                let later = case.look_again(&look(NOW_MS + number * 60_000, [Some(&item); 2], wrong.clone()));
                prop_assert!(matches!(later, Later::Different(_)), "{later:?}");
            }
        }
    }
}
