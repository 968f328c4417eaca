//! Which shards may be read, which are new, and which leases are over: parents before children, so that the
//! changes of a key keep their order. Pure.
//!
//! What was finished is known without keeping a lease of every shard that is still listed. A shard is only begun
//! when its parents are finished, so *an ancestor of a begun shard is finished*. That is why the lease of a
//! finished shard can go as soon as its children have begun, though the service lists the shard for hours more.
//!
//! Whether a listed shard is closed is never believed: a parent may be listed as open while its child is there
//! already. Only reading a shard to its end tells.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::source::Shard;
use super::store::Lease;

/// The shards of a stream that have a lease, and how they descend from each other.
#[derive(Clone, Debug, Default)]
pub struct Lineage {
    leases: HashMap<String, Known>,
    /// By parent.
    children: HashMap<String, Vec<String>>,
}

#[derive(Clone, Debug)]
struct Known {
    parents: Vec<String>,
    started: bool,
    ended: bool,
}

/// What a listing tells that the leases do not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// Shards that need a lease, parents before their children.
    pub new: Vec<Shard>,
    /// Parents of those that have no lease and are not listed: most likely older than what the stream keeps, but
    /// a listing can lack what is there.
    pub missing_parents: BTreeSet<String>,
    /// Listed shards without a lease and without a known relative: one more listing has to tell.
    pub unconnected: usize,
}

/// Whether a shard that nothing connects with the shards that are known may be new.
///
/// Once a stream is consumed every new shard descends from a known one. One that does not is either finished with,
/// and the listing lacks what connects them, or came after all that was known had been trimmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unconnected {
    /// It is new: nobody consumed the stream before, or two listings together have nothing that connects it.
    New,
    /// There was one listing only, which may lack something.
    Unknown,
}

impl Lineage {
    /// The lineage of these leases.
    pub fn of<'a>(leases: impl IntoIterator<Item = &'a Lease>) -> Self {
        let mut lineage = Self::default();
        for lease in leases {
            for parent in &lease.parents {
                lineage.children.entry(parent.clone()).or_default().push(lease.shard.to_string());
            }
            let known = Known {
                parents: lease.parents.clone(),
                started: lease.has_started(),
                ended: lease.checkpoint.is_end(),
            };
            lineage.leases.insert(lease.shard.to_string(), known);
        }
        lineage
    }

    /// Whether a shard may be read: it is not finished, and it was begun before or each parent is finished. A
    /// parent without a lease is finished or gone: leases are written for parents first, and kept until their
    /// children have begun.
    pub fn may_start(&self, shard: &str) -> bool {
        self.leases.get(shard).is_some_and(|known| {
            let finished = |parent: &String| self.leases.get(parent).is_none_or(|parent| parent.ended);
            !known.ended && (known.started || known.parents.iter().all(finished))
        })
    }

    /// Finished shards none of whose children has a lease: they are to be looked for.
    pub fn without_children(&self) -> impl Iterator<Item = &str> {
        self.leases
            .iter()
            .filter(|(shard, known)| known.ended && !self.children.contains_key(*shard))
            .map(|(shard, _)| shard.as_str())
    }

    /// What is new in a listing of the whole stream. It should have what the last listing had, too: one listing may
    /// lack what the next has.
    pub fn news(&self, listing: &[Shard], unconnected: Unconnected) -> News {
        let listed: HashMap<&str, &Shard> = listing.iter().map(|shard| (shard.id.as_str(), shard)).collect();
        let finished = self.finished(&listed);
        let mut news = News::default();
        let mut connected: HashSet<&str> = HashSet::new();
        for shard in parents_first(&listed) {
            if self.leases.contains_key(&shard.id) || finished.contains(shard.id.as_str()) {
                connected.insert(&shard.id);
                continue;
            }
            let descends = shard.parents.iter().any(|parent| {
                connected.contains(parent.as_str()) || self.leases.contains_key(parent.as_str())
            });
            if !descends && unconnected == Unconnected::Unknown {
                news.unconnected += 1;
                continue;
            }
            connected.insert(&shard.id);
            let known = |parent: &str| {
                self.leases.contains_key(parent) || listed.contains_key(parent) || finished.contains(parent)
            };
            news.missing_parents.extend(shard.parents.iter().filter(|parent| !known(parent)).cloned());
            news.new.push(shard.clone());
        }
        news
    }

    /// The listed shards without a lease that are finished.
    pub fn finished_shards(&self, listing: &[Shard]) -> Vec<Shard> {
        let listed: HashMap<&str, &Shard> = listing.iter().map(|shard| (shard.id.as_str(), shard)).collect();
        let finished = self.finished(&listed);
        listing.iter().filter(|shard| finished.contains(shard.id.as_str())).cloned().collect()
    }

    /// The shards that a stream which was never consumed is begun with "from now": those without a child. All
    /// others are closed, so that whatever is in them came before.
    pub fn leaves(listing: &[Shard]) -> Vec<Shard> {
        let parents: HashSet<&String> = listing.iter().flat_map(|shard| &shard.parents).collect();
        listing.iter().filter(|shard| !parents.contains(&shard.id)).cloned().collect()
    }

    /// Leases that nobody needs: of finished shards all of whose children have begun. One without a known child is
    /// kept, listed or not: a listing may lack what is there, and the lease is all that keeps the shard from being
    /// read again.
    pub fn obsolete(&self, listing: &[Shard]) -> Vec<String> {
        let listed: HashMap<&str, &Shard> = listing.iter().map(|shard| (shard.id.as_str(), shard)).collect();
        let finished = self.finished(&listed);
        let mut begun: HashSet<&str> = HashSet::new();
        let mut waiting: HashSet<&str> = HashSet::new();
        for shard in listing.iter().filter(|shard| !self.leases.contains_key(&shard.id)) {
            let of = if finished.contains(shard.id.as_str()) { &mut begun } else { &mut waiting };
            of.extend(shard.parents.iter().map(String::as_str));
        }
        for known in self.leases.values() {
            let of = if known.started || known.ended { &mut begun } else { &mut waiting };
            of.extend(known.parents.iter().map(String::as_str));
        }
        let ended = self.leases.iter().filter(|(_, known)| known.ended).map(|(shard, _)| shard);
        ended
            .filter(|shard| begun.contains(shard.as_str()) && !waiting.contains(shard.as_str()))
            .cloned()
            .collect()
    }

    /// The listed shards without a lease that are finished: the ancestors of those that were begun.
    fn finished<'a>(&'a self, listed: &HashMap<&'a str, &'a Shard>) -> HashSet<&'a str> {
        let mut finished: HashSet<&str> = HashSet::new();
        let begun = self.leases.values().filter(|known| known.started || known.ended);
        let mut pending: Vec<&str> =
            begun.flat_map(|known| known.parents.iter().map(String::as_str)).collect();
        while let Some(shard) = pending.pop() {
            if self.leases.contains_key(shard) || !finished.insert(shard) {
                continue;
            }
            if let Some(shard) = listed.get(shard) {
                pending.extend(shard.parents.iter().map(String::as_str));
            }
        }
        finished
    }
}

/// Every listed shard after those of its parents that are listed. A cycle, which no service should list, is cut.
fn parents_first<'a>(listed: &HashMap<&'a str, &'a Shard>) -> Vec<&'a Shard> {
    let mut ordered = Vec::with_capacity(listed.len());
    let mut seen: HashSet<&str> = HashSet::new();
    let mut roots: Vec<&str> = listed.keys().copied().collect();
    roots.sort_unstable();
    for root in roots {
        // Twice on the stack: once to put its parents above it, once to take it.
        let mut stack = vec![(root, false)];
        while let Some((id, parents_done)) = stack.pop() {
            let Some(shard) = listed.get(id).copied() else { continue };
            if parents_done {
                ordered.push(shard);
            } else if seen.insert(&shard.id) {
                stack.push((id, true));
                stack.extend(shard.parents.iter().map(|parent| (parent.as_str(), false)));
            }
        }
    }
    ordered
}

#[cfg(test)]
mod tests;
