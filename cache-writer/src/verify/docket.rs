//! The keys that differ, until it is known what becomes of them; and what everything came to. Pure, but for waiting.
//!
//! It is bounded: keys that differ when it is full are counted and not followed.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use warmcast_cache::ItemId;

use super::case::{Case, First, Lasting, Later, Proof};
use super::judge::{Difference, Miss, Verdict};
use super::look::{Candidate, Evidence, LookError, Looked};

/// How often a look that could not be made is made again.
const TRIES_MAX: usize = 10;
/// How long after.
const TRY_PAUSE: Duration = Duration::from_secs(1);

/// What was found of all keys together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Keys that were looked at.
    pub looked_at: u64,
    /// Of these, at the first look: readers saw nothing, by why.
    pub missing: BTreeMap<Miss, u64>,
    /// Of these, at each look in turn: readers saw something else than they ought to.
    pub different: Vec<u64>,
    /// Differed at first; more differed than are followed, so it is not known what became of them.
    pub not_followed: u64,
    /// Settled by a later look, by which: the entry had everything that was made before the first look.
    pub caught_up: Vec<u64>,
    /// Of these, those that change too often to be met equal, and were newer than the first look.
    pub always_changing: u64,
    /// Settled by a later look: readers see nothing any more.
    pub became_missing: u64,
    /// Differ after the last look, and the region has everything that was made before the first one.
    pub mismatches: u64,
    /// Differ after the last look, and the region is behind.
    pub behind: u64,
    /// Could not be looked at, at first or later.
    pub unread: u64,
    /// The last reason why not.
    pub unread_because: Option<LookError>,
    /// Keys with the cache's prefix that are no item's: of no table of the master, or no key of its table.
    pub strangers: u64,
}

/// A key that differs after the last look.
#[derive(Clone, Debug)]
pub struct Settled {
    /// The item.
    pub id: ItemId,
    /// Wrong, or the region is behind.
    pub lasting: Lasting,
    /// How it differs.
    pub difference: Difference,
    /// Just before it was first looked at, ms since the Unix epoch.
    pub first_read_ms: u64,
    /// Both sides at the last look.
    pub evidence: Evidence,
}

/// A key to be looked at again.
#[derive(Debug)]
pub struct Open {
    id: ItemId,
    case: Case,
    check_type: bool,
    first_at: Instant,
    /// Which of the looks after the first is next.
    look: usize,
    tries: usize,
}

/// The keys that differ, and the counts.
#[derive(Debug)]
pub struct Docket {
    /// When keys that differ are looked at again, after their first look.
    ages: Vec<Duration>,
    keys_max: usize,
    /// By when they are due; the number tells those apart that are due at the same time.
    open: BTreeMap<(Instant, u64), Open>,
    /// In `open`, or being looked at.
    followed: HashSet<ItemId>,
    number: u64,
    counts: Counts,
}

impl Open {
    /// It is looked at so.
    #[must_use]
    pub fn candidate(&self) -> Candidate {
        Candidate::new(self.id.clone(), self.check_type)
    }
}

impl Docket {
    /// With looks at these ages, ascending, and at most so many keys that are followed.
    #[must_use]
    pub fn new(ages: Vec<Duration>, keys_max: usize) -> Self {
        let counts = Counts {
            different: vec![0; ages.len() + 1],
            caught_up: vec![0; ages.len()],
            ..Counts::default()
        };
        Self { ages, keys_max, open: BTreeMap::new(), followed: HashSet::new(), number: 0, counts }
    }

    /// What everything came to so far.
    #[must_use]
    pub const fn counts(&self) -> &Counts {
        &self.counts
    }

    /// When keys that differ are looked at again.
    #[must_use]
    pub fn ages(&self) -> &[Duration] {
        &self.ages
    }

    /// Keys that are followed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.followed.len()
    }

    /// Nothing is followed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.followed.is_empty()
    }

    /// When the next key is due.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        self.open.keys().next().map(|(due, _)| *due)
    }

    /// A key was looked at for the first time, at `now`.
    pub fn first_look(
        &mut self,
        id: ItemId,
        check_type: bool,
        first: Result<First, LookError>,
        now: Instant,
    ) {
        if self.followed.contains(&id) {
            return;
        }
        let First { verdict, case } = match first {
            Ok(first) => first,
            Err(error) if error.is_no_item() => {
                self.counts.strangers += 1;
                return;
            }
            Err(error) => {
                self.count_unread(error);
                return;
            }
        };
        self.counts.looked_at += 1;
        if let Verdict::Missing(miss) = verdict {
            *self.counts.missing.entry(miss).or_default() += 1;
        }
        let Some(case) = case else { return };
        self.count_different(0);
        if self.followed.len() >= self.keys_max {
            self.counts.not_followed += 1;
            return;
        }
        self.followed.insert(id.clone());
        self.wait(Open { id, case, check_type, first_at: now, look: 0, tries: 0 });
    }

    /// Up to `max` keys that are due; each is given back with [`look_again`](Self::look_again).
    pub fn take_due(&mut self, now: Instant, max: usize) -> Vec<Open> {
        let mut due = Vec::new();
        while due.len() < max
            && let Some(first) = self.open.first_entry()
            && first.key().0 <= now
        {
            due.push(first.remove());
        }
        due
    }

    /// A key that was due was looked at, at `now`. `watermark_ms`: every change made before it has been applied in
    /// this region. What differs after the last look is given out.
    pub fn look_again(
        &mut self,
        mut open: Open,
        looked: Result<Looked, LookError>,
        watermark_ms: Option<u64>,
        now: Instant,
    ) -> Option<Settled> {
        let looked = match looked {
            Ok(looked) => looked,
            Err(_) if open.tries < TRIES_MAX => {
                open.tries += 1;
                self.insert(now + TRY_PAUSE, open);
                return None;
            }
            Err(error) => {
                self.count_unread(error);
                self.followed.remove(&open.id);
                return None;
            }
        };
        let difference = match open.case.look_again(&looked.look) {
            Later::Different(difference) => difference,
            Later::Consistent(proof) => {
                if let Some(count) = self.counts.caught_up.get_mut(open.look) {
                    *count += 1;
                }
                self.counts.always_changing += u64::from(proof == Proof::Newer);
                self.followed.remove(&open.id);
                return None;
            }
            Later::Missing(_) => {
                self.counts.became_missing += 1;
                self.followed.remove(&open.id);
                return None;
            }
        };
        (open.look, open.tries) = (open.look + 1, 0);
        self.count_different(open.look);
        if open.look < self.ages.len() {
            self.wait(open);
            return None;
        }
        self.followed.remove(&open.id);
        let lasting = open.case.lasting(watermark_ms);
        match lasting {
            Lasting::Mismatch => self.counts.mismatches += 1,
            Lasting::Behind => self.counts.behind += 1,
        }
        let first_read_ms = open.case.first_read_ms();
        Some(Settled { id: open.id, lasting, difference, first_read_ms, evidence: looked.evidence })
    }

    /// Keys were met that are no item's.
    pub const fn count_strangers(&mut self, count: u64) {
        self.counts.strangers += count;
    }

    fn count_unread(&mut self, error: LookError) {
        self.counts.unread += 1;
        self.counts.unread_because = Some(error);
    }

    fn wait(&mut self, open: Open) {
        let age = self.ages.get(open.look).copied().unwrap_or_default();
        self.insert(open.first_at + age, open);
    }

    fn insert(&mut self, due: Instant, open: Open) {
        self.number += 1;
        self.open.insert((due, self.number), open);
    }

    fn count_different(&mut self, look: usize) {
        if let Some(count) = self.counts.different.get_mut(look) {
            *count += 1;
        }
    }
}

/// Waits until a key is due; without one, for ever.
pub async fn until_due(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use warmcast_cache::MasterError;
    use warmcast_proto::entry::{EntryHeader, EntryKind};
    use warmcast_proto::item::{self, Item};

    use super::super::case::Look;
    use super::super::judge::tests::{NOW_MS, an_item, entry, rules};
    use super::*;

    fn looked(read_ms: u64, master: Option<&Item>, cached: Option<Bytes>) -> Result<Looked, LookError> {
        let rules = rules();
        let look = Look {
            read_ms,
            done_ms: read_ms,
            expected: rules.expected(master, read_ms),
            seen: rules.seen(cached.as_ref(), read_ms),
            header: cached.as_ref().map(|entry| EntryHeader::decode(entry).unwrap().0),
            expected_after: None,
        };
        Ok(Looked { look, evidence: Evidence { entry: cached, item: master.cloned() } })
    }

    fn first(read_ms: u64, master: Option<&Item>, cached: Option<Bytes>) -> Result<First, LookError> {
        looked(read_ms, master, cached).map(|looked| looked.look.first())
    }

    fn live(color: &str) -> Option<Bytes> {
        Some(entry(EntryKind::Live, NOW_MS - 60_000, None, &item::encode(&an_item(color))))
    }

    fn id(key: &str) -> ItemId {
        ItemId::new("profiles", key.to_owned())
    }

    const AGES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(60)];

    fn take_one(docket: &mut Docket, now: Instant) -> Open {
        let mut due = docket.take_due(now, 9);
        assert_eq!(due.len(), 1, "{due:?}");
        due.remove(0)
    }

    #[test]
    fn a_key_that_differs_is_due_at_each_age_and_then_settled() {
        let (mut docket, start) = (Docket::new(AGES.to_vec(), 9), Instant::now());
        let red = an_item("red");
        docket.first_look(id("a"), true, first(NOW_MS, Some(&red), live("old")), start);
        docket.first_look(id("b"), true, first(NOW_MS, Some(&red), live("red")), start);
        docket.first_look(id("c"), true, first(NOW_MS, Some(&red), None), start);
        docket.first_look(id("a"), true, first(NOW_MS, Some(&red), live("old")), start);
        assert_eq!(docket.next_due(), Some(start + AGES[0]));
        assert!(docket.take_due(start, 9).is_empty());
        let open = take_one(&mut docket, start + AGES[0]);
        let again = looked(NOW_MS + 1_000, Some(&red), live("old"));
        assert!(docket.look_again(open, again, None, start + AGES[0]).is_none());
        assert_eq!(docket.next_due(), Some(start + AGES[1]));
        let open = take_one(&mut docket, start + AGES[1]);
        let again = looked(NOW_MS + 60_000, Some(&red), live("old"));
        let settled = docket.look_again(open, again, Some(NOW_MS), start + AGES[1]).unwrap();
        assert_eq!((&settled.id, settled.lasting), (&id("a"), Lasting::Mismatch));
        assert_eq!(settled.difference, Difference::Attributes(vec!["color".to_owned()]));
        assert!(docket.is_empty());
        let expected = Counts {
            looked_at: 3,
            missing: [(Miss::Unset, 1)].into(),
            different: vec![1, 1, 1],
            caught_up: vec![0, 0],
            mismatches: 1,
            ..Counts::default()
        };
        assert_eq!(docket.counts(), &expected);
    }

    #[test]
    fn what_catches_up_or_goes_is_settled_and_counted() {
        let (mut docket, start) = (Docket::new(AGES.to_vec(), 9), Instant::now());
        let red = an_item("red");
        for key in ["a", "b"] {
            docket.first_look(id(key), true, first(NOW_MS, Some(&red), live("old")), start);
        }
        for (open, cached) in docket.take_due(start + AGES[0], 9).into_iter().zip([live("red"), None]) {
            let again = looked(NOW_MS + 1_000, Some(&red), cached);
            assert!(docket.look_again(open, again, None, start + AGES[0]).is_none());
        }
        assert!(docket.is_empty());
        let counts = docket.counts();
        assert_eq!((&counts.different[..], &counts.caught_up[..]), (&[2, 0, 0][..], &[1, 0][..]));
        assert_eq!((counts.became_missing, counts.mismatches), (1, 0));
    }

    #[test]
    fn more_than_the_bound_are_counted_and_not_followed() {
        let (mut docket, start) = (Docket::new(AGES.to_vec(), 2), Instant::now());
        for key in ["a", "b", "c"] {
            docket.first_look(id(key), true, first(NOW_MS, None, live("back")), start);
        }
        assert_eq!((docket.len(), docket.counts().not_followed, docket.counts().different[0]), (2, 1, 3));
    }

    #[test]
    fn a_look_that_fails_is_made_again_and_given_up_in_the_end() {
        let (mut docket, mut now) = (Docket::new(AGES.to_vec(), 9), Instant::now());
        docket.first_look(id("a"), true, first(NOW_MS, None, live("back")), now);
        docket.first_look(id("b"), true, Err(MasterError::Stopped.into()), now);
        assert_eq!(docket.counts().unread, 1);
        let mut failures = 0;
        while let Some(due) = docket.next_due() {
            now = due;
            let open = take_one(&mut docket, now);
            assert!(docket.look_again(open, Err(MasterError::Stopped.into()), None, now).is_none());
            failures += 1;
        }
        assert_eq!((failures, docket.counts().unread), (TRIES_MAX + 1, 2));
    }
}
