use proptest::prelude::*;

use super::super::checkpoint::Checkpoint;
use super::*;

fn shard(id: &str, parents: &[&str]) -> Shard {
    Shard { id: id.to_owned(), parents: parents.iter().map(|p| (*p).to_owned()).collect() }
}

fn lease(id: &str, parents: &[&str], epoch: u64, checkpoint: &str) -> Lease {
    Lease {
        stream: "stream".into(),
        shard: id.into(),
        parents: parents.iter().map(|p| (*p).to_owned()).collect(),
        owner: None,
        epoch,
        checkpoint: checkpoint.parse().unwrap(),
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

fn fresh(id: &str, parents: &[&str]) -> Lease {
    lease(id, parents, 0, "trim-horizon")
}

fn begun(id: &str, parents: &[&str]) -> Lease {
    lease(id, parents, 1, "after:7")
}

fn ended(id: &str, parents: &[&str]) -> Lease {
    lease(id, parents, 1, "shard-end")
}

fn ids(shards: &[Shard]) -> Vec<&str> {
    shards.iter().map(|shard| shard.id.as_str()).collect()
}

#[test]
fn a_child_waits_for_every_parents_end() {
    let tree = |a: Lease, b: Lease| Lineage::of(&[a, b, fresh("merged", &["a", "b"])]);
    assert!(!tree(fresh("a", &[]), fresh("b", &[])).may_start("merged"));
    assert!(tree(fresh("a", &[]), fresh("b", &[])).may_start("a"));
    assert!(!tree(ended("a", &[]), begun("b", &[])).may_start("merged"));
    assert!(!tree(ended("a", &[]), begun("b", &[])).may_start("a"), "it is finished");
    assert!(tree(ended("a", &[]), ended("b", &[])).may_start("merged"));
}

#[test]
fn a_shard_that_was_begun_goes_on_whatever_became_of_its_parents() {
    assert!(Lineage::of(&[begun("child", &["gone"])]).may_start("child"));
}

#[test]
fn at_first_contact_everything_is_new_and_parents_come_first() {
    let listing = [shard("a-child", &["parent"]), shard("parent", &["trimmed"]), shard("b", &[])];
    let news = Lineage::default().news(&listing, Unconnected::New);
    assert_eq!(ids(&news.new), ["parent", "a-child", "b"]);
    assert_eq!(news.missing_parents.iter().collect::<Vec<_>>(), ["trimmed"]);
    assert_eq!(news.unconnected, 0);
}

#[test]
fn the_ancestors_of_a_begun_shard_are_not_read_again() {
    let listing = [shard("1", &[]), shard("2", &["1"]), shard("3", &["2"]), shard("4", &["3"])];
    let lineage = Lineage::of(&[begun("3", &["2"])]);
    assert_eq!(ids(&lineage.news(&listing, Unconnected::Unknown).new), ["4"]);
    let unbegun = Lineage::of(&[fresh("3", &["2"]), begun("1", &[])]);
    assert_eq!(ids(&unbegun.news(&listing, Unconnected::Unknown).new), ["2", "4"]);
}

#[test]
fn a_second_child_that_shows_late_is_read_though_its_parents_lease_is_gone() {
    let listing = [shard("p", &[]), shard("early", &["p"]), shard("late", &["p"])];
    let lineage = Lineage::of(&[begun("early", &["p"])]);
    assert_eq!(ids(&lineage.news(&listing, Unconnected::Unknown).new), ["late"]);
}

#[test]
fn what_nothing_connects_is_read_when_the_next_listing_has_nothing_either() {
    let lineage = Lineage::of(&[begun("new", &["middle"])]);
    let lacking = [shard("old", &[]), shard("new", &["middle"])];
    assert_eq!(lineage.news(&lacking, Unconnected::Unknown), News { unconnected: 1, ..News::default() });
    let both = [shard("old", &[]), shard("middle", &["old"]), shard("new", &["middle"])];
    assert_eq!(lineage.news(&both, Unconnected::New), News::default(), "it was finished with");
    assert_eq!(ids(&lineage.news(&lacking, Unconnected::New).new), ["old"]);
}

#[test]
fn from_now_begins_with_the_shards_that_have_no_child() {
    let listing = [shard("1", &[]), shard("2", &["1"]), shard("a", &[]), shard("m", &["2", "a"])];
    assert_eq!(ids(&Lineage::leaves(&listing)), ["m"]);
}

#[test]
fn a_finished_lease_goes_when_its_children_have_begun() {
    let listing = [shard("a", &[]), shard("b", &["a"]), shard("c", &["a"])];
    let of = |b: Lease, c: Option<Lease>| {
        let leases: Vec<Lease> = [ended("a", &[]), b].into_iter().chain(c).collect();
        Lineage::of(&leases).obsolete(&listing)
    };
    let none_over: [&str; 0] = [];
    assert_eq!(of(fresh("b", &["a"]), Some(begun("c", &["a"]))), none_over);
    assert_eq!(of(begun("b", &["a"]), None), none_over, "c has no lease yet");
    assert_eq!(of(begun("b", &["a"]), Some(begun("c", &["a"]))), ["a"]);
    let childless = Lineage::of(&[ended("a", &[])]);
    assert_eq!(childless.obsolete(&[shard("a", &[])]), none_over, "its children may show yet");
    assert_eq!(childless.obsolete(&[]), none_over, "the listing may lack it");
    let left_over = [shard("a", &[]), shard("b", &["a"]), shard("c", &["b"])];
    assert_eq!(Lineage::of(&[ended("a", &[]), begun("c", &["b"])]).obsolete(&left_over), ["a"]);
}

#[test]
fn finished_shards_without_children_are_named() {
    let lineage = Lineage::of(&[ended("a", &[]), fresh("b", &["a"]), ended("c", &[]), begun("d", &[])]);
    assert_eq!(lineage.without_children().collect::<Vec<_>>(), ["c"]);
}

#[test]
fn a_listing_that_is_a_circle_is_survived() {
    let listing = [shard("a", &["b"]), shard("b", &["a"])];
    assert_eq!(Lineage::default().news(&listing, Unconnected::New).new.len(), 2);
}

/// A random tree: shard `i` has parents among those before it.
fn trees() -> impl Strategy<Value = Vec<Shard>> {
    prop::collection::vec(prop::collection::vec(any::<prop::sample::Index>(), 0..3), 1..30).prop_map(
        |parents| {
            let parent_names = |i: usize, of: &[prop::sample::Index]| -> Vec<String> {
                let names: BTreeSet<String> = of.iter().map(|p| format!("{:02}", p.index(i))).collect();
                names.into_iter().collect()
            };
            let make = |(i, of): (usize, &Vec<prop::sample::Index>)| Shard {
                id: format!("{i:02}"),
                parents: if i == 0 { Vec::new() } else { parent_names(i, of) },
            };
            parents.iter().enumerate().map(make).collect()
        },
    )
}

/// What a fleet does with the lineage, step by step.
struct Fleet {
    tree: Vec<Shard>,
    leases: Vec<Lease>,
    last: Option<Vec<Shard>>,
    read: Vec<String>,
    lacked: Vec<usize>,
}

impl Fleet {
    /// The first so many shards, without those that are `lacking`: what one listing lacked, the next has.
    fn listing(&mut self, lacking: &[prop::sample::Index], shown: usize) -> Vec<Shard> {
        let lacking = lacking.iter().map(|index| index.index(self.tree.len()));
        let lacking: Vec<usize> = lacking.filter(|shard| !self.lacked.contains(shard)).collect();
        self.lacked.clone_from(&lacking);
        let shown = self.tree.iter().take(shown).enumerate().filter(|(i, _)| !lacking.contains(i));
        shown.map(|(_, shard)| shard.clone()).collect()
    }

    fn audit(&mut self, listing: &[Shard]) {
        let lineage = Lineage::of(&self.leases);
        let unconnected = match self.leases.is_empty() || self.last.is_some() {
            true => Unconnected::New,
            false => Unconnected::Unknown,
        };
        let mut shards = listing.to_vec();
        let last = self.last.replace(listing.to_vec()).unwrap_or_default();
        shards.extend(last.into_iter().filter(|shard| !listing.contains(shard)));
        let news = lineage.news(&shards, unconnected);
        // What a probe of the service would find.
        let missing = self.tree.iter().filter(|shard| news.missing_parents.contains(&shard.id));
        let created: Vec<Shard> = missing.cloned().chain(news.new).collect();
        for shard in created {
            let parents: Vec<&str> = shard.parents.iter().map(String::as_str).collect();
            if !self.leases.iter().any(|lease| *lease.shard == *shard.id) {
                self.leases.push(fresh(&shard.id, &parents));
            }
        }
        let obsolete = Lineage::of(&self.leases).obsolete(&shards);
        self.leases.retain(|lease| !obsolete.contains(&lease.shard.to_string()));
    }

    /// Reads one startable shard to its end.
    fn read_one(&mut self, pick: prop::sample::Index) -> bool {
        let lineage = Lineage::of(&self.leases);
        let startable: Vec<usize> =
            (0..self.leases.len()).filter(|&i| lineage.may_start(&self.leases[i].shard)).collect();
        if startable.is_empty() {
            return false;
        }
        let lease = &mut self.leases[startable[pick.index(startable.len())]];
        lease.epoch += 1;
        lease.checkpoint = Checkpoint::ShardEnd;
        self.read.push(lease.shard.to_string());
        true
    }
}

proptest! {
    /// Whatever the tree, the order of reading, and what listings lack for a while: no shard is read before its
    /// parents, none twice, and in the end all are read.
    #[test]
    fn every_shard_is_read_once_and_after_its_parents(
        tree in trees(),
        steps in prop::collection::vec((any::<prop::sample::Index>(), prop::collection::vec(any::<prop::sample::Index>(), 0..3), 0usize..4), 120),
        last in any::<prop::sample::Index>(),
    ) {
        let total = tree.len();
        let mut fleet = Fleet { tree, leases: vec![], last: None, read: vec![], lacked: vec![] };
        // The service adds shards over time; at first contact half of them are there.
        let mut shown = total.div_ceil(2);
        let listing = fleet.listing(&[], shown);
        fleet.audit(&listing);
        for (pick, lacking, reads) in steps {
            for _ in 0..reads {
                fleet.read_one(pick);
            }
            shown = (shown + 1).min(total);
            let listing = fleet.listing(&lacking, shown);
            fleet.audit(&listing);
        }
        for _ in 0..2 * total {
            fleet.read_one(last);
            let listing = fleet.listing(&[], total);
            fleet.audit(&listing);
            fleet.audit(&listing);
        }
        let position = |id: &str| fleet.read.iter().position(|read| read == id);
        for shard in &fleet.tree {
            let read = fleet.read.iter().filter(|read| **read == shard.id).count();
            prop_assert_eq!(read, 1, "{} in {:?}", shard.id, fleet.read);
            for parent in &shard.parents {
                prop_assert!(position(parent) < position(&shard.id), "{} before {}", shard.id, parent);
            }
        }
    }
}
