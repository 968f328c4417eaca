use std::slice;

use proptest::prelude::*;

use super::super::checkpoint::Checkpoint;
use super::super::store::Ended;
use super::*;

const NOW: u64 = 100_000;
const SETTLE: Duration = Duration::from_millis(1_000);
const SETTLE_MS: u64 = 1_000;

fn lease(shard: &str, parents: &[&str], owner: Option<&str>, epoch: u64) -> Lease {
    Lease {
        stream: "s".into(),
        shard: shard.into(),
        parents: parents.iter().map(|parent| (*parent).to_owned()).collect(),
        owner: owner.map(str::to_owned),
        epoch,
        checkpoint: Checkpoint::TrimHorizon,
        bytes_per_s: 0,
        seen_ms: 0,
        given: false,
        rewind: None,
        target: None,
        settling_ms: None,
        ended: None,
        lanes: Default::default(),
        parked: Default::default(),
        guest: None,
        format: 1,
    }
}

fn ended(shard: &str, parents: &[&str], at_ms: u64, watermark_ms: Option<u64>) -> Lease {
    let lease = lease(shard, parents, Some("w1"), 1);
    Lease { checkpoint: Checkpoint::ShardEnd, ended: Some(Ended { at_ms, watermark_ms }), ..lease }
}

/// Says of these leases what their owner would.
fn says(watermark_ms: Option<u64>, leases: &[&Lease]) -> Option<Coverage> {
    let mut set = LeaseSet::default();
    leases.iter().for_each(|lease| set.add(&lease.stream, &lease.shard, lease.epoch));
    Some(Coverage { leases: set, watermark_ms, parked: Default::default() })
}

fn reckon(leases: &[Lease], members: &[(&str, Option<Coverage>)]) -> Result<u64, Hold> {
    let state = StreamState { start: Some(Checkpoint::TrimHorizon), listed: true, leases: leases.to_vec() };
    reckon_state(&state, false, members)
}

fn reckon_state(
    state: &StreamState,
    superseded: bool,
    members: &[(&str, Option<Coverage>)],
) -> Result<u64, Hold> {
    reckon_target(state, superseded, members, None)
}

fn reckon_target(
    state: &StreamState,
    superseded: bool,
    members: &[(&str, Option<Coverage>)],
    target: Option<&str>,
) -> Result<u64, Hold> {
    let members = members.iter().map(|(worker, of)| ((*worker).to_owned(), of.clone())).collect();
    fleet_watermark(&[StreamLeases { stream: "s", state, superseded, settle: SETTLE }], &members, target, NOW)
}

#[test]
fn the_least_of_the_workers_counts_and_one_without_leases_does_not() {
    let (a, b) = (lease("a", &[], Some("w1"), 3), lease("b", &[], Some("w2"), 1));
    let leases = [a.clone(), b.clone()];
    let members = [("w1", says(Some(70), &[&a])), ("w2", says(Some(50), &[&b])), ("w3", says(None, &[]))];
    assert_eq!(reckon(&leases, &members), Ok(50));
    let unknown = [("w1", says(Some(70), &[&a])), ("w2", says(None, &[&b]))];
    assert_eq!(reckon(&leases, &unknown), Err(Hold::Unknown("w2".to_owned())));
}

#[test]
fn a_word_of_other_leases_or_tenures_does_not_count() {
    let (a, b) = (lease("a", &[], Some("w1"), 3), lease("b", &[], Some("w1"), 1));
    let leases = [a.clone(), b.clone()];
    let changed = Err(Hold::Changed("w1".to_owned()));
    assert_eq!(reckon(&leases, &[("w1", says(Some(70), &[&a]))]), changed);
    let earlier = Lease { epoch: 2, ..a.clone() };
    assert_eq!(reckon(&leases, &[("w1", says(Some(70), &[&earlier, &b]))]), changed);
    assert_eq!(reckon(&leases, &[("w1", says(Some(70), &[&b, &a]))]), Ok(70));
    assert_eq!(reckon(&leases, &[("w2", says(Some(70), &[]))]), Err(Hold::Dead("w1".to_owned())));
    assert_eq!(reckon(&leases, &[("w1", None)]), Err(Hold::Silent("w1".to_owned())));
}

#[test]
fn a_lease_that_nobody_has_holds_it_unless_its_shard_waits_for_parents_that_count() {
    let parent = lease("p", &[], Some("w1"), 1);
    let word = [("w1", says(Some(70), &[&parent]))];
    let free = [parent.clone(), lease("a", &[], None, 1)];
    assert_eq!(reckon(&free, &word), Err(Hold::Unowned(free[1].name())));
    let waiting = [parent.clone(), lease("a", &["p"], None, 0)];
    assert_eq!(reckon(&waiting, &word), Ok(70));
    let begun = [parent.clone(), lease("a", &["p"], None, 1)];
    assert_eq!(reckon(&begun, &word), Err(Hold::Unowned(begun[1].name())));
    let root = [parent, lease("a", &["long gone"], None, 0)];
    assert_eq!(reckon(&root, &word), Err(Hold::Unowned(root[1].name())));
}

#[test]
fn a_finished_shard_holds_it_at_its_end_until_its_children_have_begun_and_none_can_be_late() {
    let other = lease("o", &[], Some("w1"), 1);
    let word = [("w1", says(Some(700), &[&other]))];
    let (long_ago, lately) = (NOW - SETTLE_MS, NOW - SETTLE_MS + 1);
    let childless = |at_ms, watermark_ms| [other.clone(), ended("p", &[], at_ms, watermark_ms)];
    assert_eq!(reckon(&childless(long_ago, Some(70)), &word), Ok(70));
    let unknown = childless(long_ago, None);
    assert_eq!(reckon(&unknown, &word), Err(Hold::Finished(unknown[1].name())));

    let child = lease("c", &["p"], Some("w1"), 1);
    let word = [("w1", says(Some(700), &[&other, &child]))];
    let begun = |at_ms| [other.clone(), ended("p", &[], at_ms, Some(70)), child.clone()];
    assert_eq!(reckon(&begun(lately), &word), Ok(70), "another child may be late");
    assert_eq!(reckon(&begun(long_ago), &word), Ok(700));

    let waiting = lease("d", &["p"], None, 0);
    let one_waits = [other.clone(), ended("p", &[], long_ago, Some(70)), child.clone(), waiting];
    assert_eq!(reckon(&one_waits, &word), Ok(70));
}

#[test]
fn a_shard_that_was_gone_before_its_end_or_whose_stream_was_superseded_has_no_children_to_wait_for() {
    let other = lease("o", &[], Some("w1"), 1);
    let word = [("w1", says(Some(700), &[&other]))];
    let gone = Lease { ended: None, ..ended("p", &[], 0, None) };
    assert_eq!(reckon(&[other.clone(), gone], &word), Ok(700));
    let over = StreamState { start: None, listed: true, leases: vec![other, ended("p", &[], 0, None)] };
    assert_eq!(reckon_state(&over, true, &word), Ok(700));
    assert!(reckon_state(&over, false, &word).is_err(), "a stream that was only disabled");
}

#[test]
fn a_stream_that_was_not_listed_or_has_no_lease_holds_it() {
    let a = lease("a", &[], Some("w1"), 1);
    let word = [("w1", says(Some(70), &[&a]))];
    let not_listed = StreamState { start: None, listed: false, leases: vec![a] };
    let held = Err(Hold::NotListed("s".to_owned()));
    assert_eq!(reckon_state(&not_listed, false, &word), held);
    assert_eq!(reckon_state(&not_listed, true, &word), held, "superseded or not");
    let empty = StreamState { listed: true, ..StreamState::default() };
    assert_eq!(reckon_state(&empty, false, &[("w1", says(None, &[]))]), held);
    assert!(reckon_state(&empty, true, &[("w1", says(None, &[]))]).is_err(), "nothing at all is known");
}

#[test]
fn a_lease_that_is_not_over_and_was_done_into_something_else_holds_it() {
    let done_into = |target: &str, lease: Lease| Lease { target: Some(target.to_owned()), ..lease };
    let a = done_into("now", lease("a", &[], Some("w1"), 1));
    let word = [("w1", says(Some(70), &[&a]))];
    let state = |leases: &[Lease]| StreamState { start: None, listed: true, leases: leases.to_vec() };
    let reckon = |leases: &[Lease], target| reckon_target(&state(leases), false, &word, Some(target));
    assert_eq!(reckon(slice::from_ref(&a), "now"), Ok(70));
    let not_rewound = reckon(slice::from_ref(&a), "later");
    assert_eq!(not_rewound, Err(Hold::NotRewound(a.name())));
    assert!(not_rewound.unwrap_err().is_of_leases());
    assert_eq!(reckon_state(&state(slice::from_ref(&a)), false, &word), Ok(70), "nothing is ever lost");

    let (long_ago, lately) = (NOW - SETTLE_MS, NOW - SETTLE_MS + 1);
    let child = Lease { parents: vec!["p".to_owned()], ..a };
    let parent = |at_ms| done_into("before", ended("p", &[], at_ms, Some(50)));
    assert_eq!(reckon(&[parent(lately), child.clone()], "now"), Err(Hold::NotRewound(parent(lately).name())));
    assert_eq!(reckon(&[parent(long_ago), child.clone()], "now"), Ok(70), "it is over");
    let never_begun = lease("b", &["p"], None, 0);
    let waiting = [done_into("now", ended("p", &[], long_ago, Some(50))), child, never_begun];
    assert_eq!(reckon(&waiting, "now"), Ok(50));
}

/// A fleet and its stream, as they are.
#[derive(Default)]
struct World {
    now_ms: u64,
    shards: Vec<Shard>,
    /// The table as it was at some times.
    views: Vec<StreamState>,
    /// What each worker said at some times.
    words: Vec<Vec<Coverage>>,
    /// How often what was done lately was lost.
    losses: u32,
}

#[derive(Clone)]
struct Shard {
    created_ms: Vec<u64>,
    done: usize,
    /// Whether each record is where it should be: done, and not lost since.
    there: Vec<bool>,
    /// Whatever was done before this is not lost.
    rewind: usize,
    closed: bool,
    /// As its owner knows it.
    watermark_ms: Option<u64>,
    lease: Lease,
    deleted: bool,
}

const WORKERS: usize = 3;
/// So many records that were done last may be lost.
const REWIND: usize = 2;

fn worker(number: usize) -> String {
    format!("w{}", number % WORKERS)
}

impl World {
    fn new() -> Self {
        let mut world = Self { now_ms: NOW, words: vec![Vec::new(); WORKERS], ..Self::default() };
        (0..2).for_each(|_| world.add(&[]));
        world
    }

    fn add(&mut self, parents: &[usize]) {
        let names: Vec<String> = parents.iter().map(usize::to_string).collect();
        let parents: Vec<&str> = names.iter().map(String::as_str).collect();
        let lease = lease(&self.shards.len().to_string(), &parents, None, 0);
        self.shards.push(Shard {
            created_ms: Vec::new(),
            done: 0,
            there: Vec::new(),
            rewind: 0,
            closed: false,
            watermark_ms: None,
            // Its lease is there when its parents have ended, at the earliest.
            deleted: !parents.is_empty(),
            lease,
        });
    }

    fn parents(&self, shard: usize) -> Vec<usize> {
        self.shards[shard].lease.parents.iter().map(|parent| parent.parse().unwrap()).collect()
    }

    fn children(&self, shard: usize) -> Vec<usize> {
        (0..self.shards.len()).filter(|child| self.parents(*child).contains(&shard)).collect()
    }

    fn step(&mut self, action: u8, pick: usize) {
        let shard = pick % self.shards.len();
        let is_over = self.shards[shard].lease.checkpoint.is_end();
        let is_open = !self.shards[shard].closed;
        let is_read = self.shards[shard].lease.owner.is_some() && !is_over;
        match action {
            0..=2 => self.now_ms += (pick % 500) as u64,
            3..=4 if is_open => {
                let now_ms = self.now_ms;
                self.shards[shard].created_ms.push(now_ms);
                self.shards[shard].there.push(false);
            }
            5..=7 if is_read => self.read(shard),
            8 if is_read => self.end(shard),
            9 if is_open && self.shards.len() < 40 => {
                self.shards[shard].closed = true;
                (0..=pick % 2).for_each(|_| self.add(&[shard]));
            }
            10 => self.merge(shard, pick / 7),
            11..=12 => self.take(shard, pick),
            13 if is_read => {
                let shard = &mut self.shards[shard];
                (shard.lease.owner, shard.watermark_ms) = (None, None);
            }
            14 if is_over => self.clean(shard),
            15..=16 => {
                let coverage = self.word(pick);
                self.words[pick % WORKERS].push(coverage);
            }
            17 => self.views.push(self.table()),
            18 => self.list(shard),
            19 if pick.is_multiple_of(4) => self.lose(),
            20..=21 if is_read => self.rewind(shard),
            _ => {}
        }
    }

    fn read(&mut self, shard: usize) {
        let (now_ms, target, shard) = (self.now_ms, self.target(), &mut self.shards[shard]);
        match shard.created_ms.get(shard.done) {
            Some(created_ms) => {
                shard.watermark_ms = shard.watermark_ms.max(Some(*created_ms));
                shard.there[shard.done] = true;
                shard.done += 1;
                // Who has not noticed a loss yet goes on for much less than shards go back.
                if shard.lease.target == Some(target) {
                    shard.rewind = shard.rewind.max(shard.done.saturating_sub(REWIND));
                }
            }
            None if !shard.closed => shard.watermark_ms = Some(now_ms),
            None => {}
        }
    }

    fn end(&mut self, shard: usize) {
        let (at_ms, shard) = (self.now_ms, &mut self.shards[shard]);
        if shard.closed && shard.done == shard.created_ms.len() {
            shard.lease.checkpoint = Checkpoint::ShardEnd;
            shard.lease.ended = Some(Ended { at_ms, watermark_ms: shard.watermark_ms });
            // What it has lost by now is not done again: that is told otherwise.
            shard.there.fill(true);
        }
    }

    fn merge(&mut self, one: usize, other: usize) {
        let other = other % self.shards.len();
        if one != other && !self.shards[one].closed && !self.shards[other].closed {
            self.shards[one].closed = true;
            self.shards[other].closed = true;
            self.add(&[one, other]);
        }
    }

    /// The children of a finished shard get leases, all in one.
    fn list(&mut self, shard: usize) {
        if self.shards[shard].lease.checkpoint.is_end() && !self.shards[shard].deleted {
            for child in self.children(shard) {
                if !self.shards[child].lease.checkpoint.is_end() {
                    self.shards[child].deleted = false;
                }
            }
        }
    }

    fn take(&mut self, shard: usize, pick: usize) {
        let parents: Vec<&Shard> =
            self.parents(shard).into_iter().map(|parent| &self.shards[parent]).collect();
        let may_begin = parents.iter().all(|parent| parent.lease.checkpoint.is_end());
        let last =
            |parent: &&Shard| parent.lease.ended.filter(|_| !parent.deleted).and_then(|of| of.watermark_ms);
        let since = parents.iter().map(last).reduce(|a, b| Some(a?.min(b?))).flatten();
        let target = self.target();
        let taken = &mut self.shards[shard];
        if may_begin && !taken.deleted && !taken.lease.checkpoint.is_end() {
            taken.watermark_ms = if taken.lease.epoch == 0 { since } else { None };
            if taken.lease.target.as_ref().is_some_and(|into| *into != target) {
                taken.done = taken.rewind;
            }
            taken.lease.target = Some(target);
            taken.lease.owner = Some(worker(pick));
            taken.lease.epoch += 1;
        }
    }

    fn target(&self) -> String {
        self.losses.to_string()
    }

    /// What was done lately is not there any more. What is finished is not done again, and none of this.
    fn lose(&mut self) {
        self.losses += 1;
        for shard in self.shards.iter_mut().filter(|shard| !shard.lease.checkpoint.is_end()) {
            shard.there[shard.rewind..].fill(false);
        }
    }

    /// Its owner has noticed.
    fn rewind(&mut self, shard: usize) {
        let (target, shard) = (self.target(), &mut self.shards[shard]);
        if shard.lease.target.as_ref() != Some(&target) {
            (shard.done, shard.watermark_ms, shard.lease.target) = (shard.rewind, None, Some(target));
            shard.lease.epoch += 1;
        }
    }

    /// The lease of a finished shard goes when its children have begun and it has settled.
    fn clean(&mut self, shard: usize) {
        let children = self.children(shard);
        let begun = |child: &usize| self.shards[*child].lease.has_started();
        let ended = self.shards[shard].lease.ended.unwrap();
        if !children.is_empty() && children.iter().all(begun) && ended.is_settled(self.now_ms, SETTLE) {
            self.shards[shard].deleted = true;
        }
    }

    fn table(&self) -> StreamState {
        let there = self.shards.iter().filter(|shard| !shard.deleted);
        let leases = there.map(|shard| shard.lease.clone()).collect();
        StreamState { start: Some(Checkpoint::TrimHorizon), listed: true, leases }
    }

    fn word(&self, number: usize) -> Coverage {
        let is_mine = |shard: &&Shard| {
            shard.lease.owner == Some(worker(number)) && !shard.lease.checkpoint.is_end() && !shard.deleted
        };
        let mine: Vec<&Shard> = self.shards.iter().filter(is_mine).collect();
        let leases: Vec<&Lease> = mine.iter().map(|shard| &shard.lease).collect();
        let least = mine.iter().map(|shard| shard.watermark_ms).reduce(|a, b| Some(a?.min(b?))).flatten();
        says(least, &leases).unwrap()
    }

    /// Everything that was created before `watermark_ms` is done.
    fn is_true(&self, watermark_ms: u64) -> bool {
        watermark_ms <= self.now_ms
            && self.shards.iter().all(|shard| {
                let mut records = shard.created_ms.iter().zip(&shard.there);
                records.all(|(created_ms, is_there)| *is_there || *created_ms >= watermark_ms)
            })
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever table was seen and whatever each worker said, however long ago: what follows is true now.
    #[test]
    fn any_view_of_the_leases_and_any_words_of_just_these_leases_make_a_true_watermark(
        steps in prop::collection::vec((0u8..22, any::<u16>()), 50..400),
        picks in prop::collection::vec(any::<prop::sample::Index>(), 20 * (WORKERS + 1)),
        ends_with_a_loss in any::<bool>(),
    ) {
        let mut world = World::new();
        for (action, pick) in steps {
            world.step(action, usize::from(pick));
        }
        if ends_with_a_loss {
            world.lose();
        }
        // The latest as well, so that something is known.
        world.views.push(world.table());
        for number in 0..WORKERS {
            let word = world.word(number);
            world.words[number].push(word);
        }
        let target = world.target();
        let picked = picks.chunks_exact(WORKERS + 1).map(|picks| {
            let words = world.words.iter().zip(picks).map(|(words, pick)| pick.get(words).clone());
            (picks[WORKERS].get(&world.views), words.collect::<Vec<_>>())
        });
        let latest = world.words.iter().filter_map(|words| words.last().cloned()).collect();
        for (state, words) in picked.chain(world.views.last().map(|state| (state, latest))) {
            let members = (0..WORKERS).map(worker).zip(words.into_iter().map(Some)).collect();
            let stream = StreamLeases { stream: "s", state, superseded: false, settle: SETTLE };
            if let Ok(watermark_ms) = fleet_watermark(&[stream], &members, Some(&target), world.now_ms) {
                prop_assert!(world.is_true(watermark_ms), "{watermark_ms} at {}", world.now_ms);
            }
        }
    }
}

#[test]
fn it_does_not_hold_for_a_lane_that_is_parked_or_that_a_shard_is_not_read_for() {
    let lanes = |of: &[&str]| of.iter().map(|lane| (*lane).to_owned()).collect::<BTreeSet<String>>();
    let parked = |of: &[&str]| {
        let place = || super::super::parked::Parked {
            checkpoint: Checkpoint::TrimHorizon,
            since_ms: 1,
            why: String::new(),
        };
        of.iter().map(|lane| ((*lane).to_owned(), place())).collect()
    };
    let open = Lease { lanes: lanes(&["x", "y", "z"]), ..Lease::new("s", "a", 2, Checkpoint::TrimHorizon) };
    let finished = Lease {
        lanes: lanes(&["x", "y"]),
        parked: parked(&["y"]),
        ..Lease::new("s", "b", 2, Checkpoint::ShardEnd)
    };
    // Its owner's word, not what was read of it, says what is parked on an open one.
    let stale = Lease { parked: parked(&["z"]), ..open.clone() };
    let behind = |leases: &[&Lease], word: &[&str]| {
        let leases = leases.iter().map(|lease| (*lease).clone()).collect();
        let state = StreamState { leases, ..StreamState::default() };
        let streams =
            [StreamLeases { stream: "s", state: &state, superseded: false, settle: Duration::ZERO }];
        let coverage = Coverage { parked: lanes(word), ..Coverage::default() };
        lanes_behind(&streams, &[("w1".to_owned(), Some(coverage))].into(), ["x", "y", "z"])
    };
    assert_eq!(behind(&[&open], &[]), lanes(&[]));
    assert_eq!(behind(&[&stale], &[]), lanes(&[]));
    assert_eq!(behind(&[&open], &["z"]), lanes(&["z"]));
    assert_eq!(behind(&[&open, &finished], &[]), lanes(&["y"]));
    let old = Lease { lanes: lanes(&["x"]), ..open.clone() };
    assert_eq!(behind(&[&open, &old], &[]), lanes(&["y", "z"]), "it is not read for them");
}

#[test]
fn a_lease_of_a_newer_version_holds_it_whatever_else_is_known() {
    let (a, b) = (lease("a", &[], Some("w1"), 3), lease("b", &[], Some("w1"), 1));
    let word = [("w1", says(Some(70), &[&a, &b]))];
    let newer = Lease { format: u64::MAX, ..b.clone() };
    assert_eq!(reckon(&[a.clone(), b], &word), Ok(70));
    let held = reckon(&[a, newer.clone()], &word).unwrap_err();
    assert_eq!((&held, held.is_of_leases()), (&Hold::Newer(newer.name()), true));
}
