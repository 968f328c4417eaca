//! Which shards may be read: parents before children, so that the changes of a key keep their order. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::checkpoint::Checkpoint;
use super::source::Shard;

/// What is known of the shards of a stream: how they descend from each other, and how far each has been
/// processed.
#[derive(Clone, Debug, Default)]
pub struct Lineage {
    shards: BTreeMap<String, Known>,
}

#[derive(Clone, Debug)]
struct Known {
    parents: BTreeSet<String>,
    checkpoint: Checkpoint,
    listed: bool,
}

impl Lineage {
    /// Takes in a shard from the state table.
    pub fn restore(
        &mut self,
        id: impl Into<String>,
        parents: impl IntoIterator<Item = String>,
        checkpoint: Checkpoint,
    ) {
        let known = Known { parents: parents.into_iter().collect(), checkpoint, listed: false };
        self.shards.insert(id.into(), known);
    }

    /// Takes in a listing and returns the shards that are new. `whole` tells a listing of the stream from one
    /// of some shard's children: only the former can say that a shard is gone.
    ///
    /// A listing may be inconsistent: a shard that shows once without its parents shows with them later, so
    /// parents are added and never taken away.
    pub fn list(&mut self, listing: &[Shard], start: &Checkpoint, whole: bool) -> Vec<Shard> {
        if whole {
            for known in self.shards.values_mut() {
                known.listed = false;
            }
        }
        let mut new = Vec::new();
        for shard in listing {
            let known = self.shards.entry(shard.id.clone()).or_insert_with(|| {
                new.push(shard.clone());
                Known { parents: BTreeSet::new(), checkpoint: start.clone(), listed: true }
            });
            known.listed = true;
            known.parents.extend(shard.parents.iter().cloned());
        }
        new
    }

    /// A shard got this far.
    pub fn advance(&mut self, id: &str, checkpoint: Checkpoint) {
        if let Some(known) = self.shards.get_mut(id) {
            known.checkpoint = checkpoint;
        }
    }

    /// Whether a shard may be read: it is not finished, and each parent is finished or gone. A parent that
    /// nobody lists and nobody has a lease for is older than what the stream keeps.
    pub fn may_start(&self, id: &str) -> bool {
        self.shards.get(id).is_some_and(|known| {
            !known.checkpoint.is_end()
                && known.parents.iter().all(|parent| match self.shards.get(parent) {
                    Some(parent) => parent.checkpoint.is_end(),
                    None => true,
                })
        })
    }

    /// Whether the last whole listing had the shard.
    pub fn is_listed(&self, id: &str) -> bool {
        self.shards.get(id).is_some_and(|known| known.listed)
    }

    /// Finished shards that are no longer listed and whose children have all started: nobody needs them, and
    /// none can be listed again.
    pub fn obsolete(&self) -> Vec<String> {
        self.shards
            .iter()
            .filter(|(_, known)| known.checkpoint.is_end() && !known.listed)
            .filter(|(id, _)| {
                let untouched = |c: &Checkpoint| matches!(c, Checkpoint::TrimHorizon | Checkpoint::AtTime(_));
                !self.shards.values().any(|child| child.parents.contains(*id) && untouched(&child.checkpoint))
            })
            .map(|(id, _)| id.clone())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shard(id: &str, parents: &[&str]) -> Shard {
        Shard { id: id.to_owned(), parents: parents.iter().map(|p| (*p).to_owned()).collect() }
    }

    fn listed(shards: &[Shard]) -> Lineage {
        let mut lineage = Lineage::default();
        lineage.list(shards, &Checkpoint::TrimHorizon, true);
        lineage
    }

    #[test]
    fn a_child_waits_for_every_parents_end() {
        let mut lineage = listed(&[shard("a", &[]), shard("b", &[]), shard("merged", &["a", "b"])]);
        assert!(lineage.may_start("a") && lineage.may_start("b") && !lineage.may_start("merged"));
        lineage.advance("a", Checkpoint::ShardEnd);
        assert!(!lineage.may_start("merged") && !lineage.may_start("a"));
        lineage.advance("b", Checkpoint::ShardEnd);
        assert!(lineage.may_start("merged"));
    }

    #[test]
    fn a_parent_that_is_gone_holds_nobody_up() {
        assert!(listed(&[shard("child", &["trimmed"])]).may_start("child"));
    }

    #[test]
    fn a_parent_that_shows_late_is_still_waited_for() {
        let mut lineage = listed(&[shard("child", &["parent"])]);
        lineage.list(&[shard("parent", &[]), shard("child", &["parent"])], &Checkpoint::TrimHorizon, true);
        assert!(!lineage.may_start("child"));
    }

    #[test]
    fn a_finished_shard_is_kept_until_it_is_unlisted_and_its_children_have_started() {
        let mut lineage = listed(&[shard("a", &[]), shard("b", &["a"])]);
        lineage.advance("a", Checkpoint::ShardEnd);
        assert!(lineage.obsolete().is_empty(), "still listed: it would be taken for new");
        lineage.list(&[shard("b", &["a"])], &Checkpoint::TrimHorizon, true);
        assert!(lineage.obsolete().is_empty(), "its child has not started");
        lineage.advance("b", Checkpoint::After("7".parse().unwrap()));
        assert_eq!(lineage.obsolete(), ["a"]);
    }

    proptest! {
        /// Whatever the tree and the order in which shards end, none starts before its parents ended.
        #[test]
        fn reading_everything_that_may_start_respects_the_tree(
            parents in prop::collection::vec(prop::collection::vec(any::<prop::sample::Index>(), 0..3), 1..40),
            picks in prop::collection::vec(any::<prop::sample::Index>(), 40)
        ) {
            let shards: Vec<Shard> = parents.iter().enumerate().map(|(i, of)| Shard {
                id: i.to_string(),
                parents: if i == 0 { vec![] } else { of.iter().map(|p| p.index(i).to_string()).collect() },
            }).collect();
            let mut lineage = listed(&shards);
            let mut ended = BTreeSet::new();
            for pick in picks.iter().take(shards.len()) {
                let startable: Vec<&Shard> = shards.iter().filter(|s| lineage.may_start(&s.id)).collect();
                prop_assert!(!startable.is_empty(), "a tree always has a shard to read");
                let next = startable[pick.index(startable.len())];
                prop_assert!(next.parents.iter().all(|p| ended.contains(p)));
                prop_assert!(ended.insert(next.id.clone()), "no shard is read twice");
                lineage.advance(&next.id, Checkpoint::ShardEnd);
            }
            prop_assert_eq!(ended.len(), shards.len());
        }
    }
}
