//! What a replay does with the changes that it reads: those that the cache lacks make their keys invalid, and those keys
//! are filled.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use tokio::time::{Instant, sleep};
use warmcast_cache::{Cache, CacheError, ItemId, Outcome};
use warmcast_common::retry::Backoff;
use warmcast_proto::change::{Change, ChangeKind};
use warmcast_proto::record;

use super::item_id;
use crate::refill::{Refill, Refilled};

/// Changes that one call applies.
const CALL_CHANGES_MAX: usize = 1_024;
/// A cache that takes nothing for so long ends the replay.
const PATIENCE: Duration = Duration::from_secs(120);

/// The changes that are wanted.
#[derive(Debug)]
pub(super) struct Wanted {
    /// Empty: of every table.
    tables: BTreeSet<Arc<str>>,
    /// None: of every key.
    keys: Option<HashSet<Bytes>>,
}

/// Applies changes again.
#[derive(Debug)]
pub(super) struct Mend<'a> {
    pub(super) cache: Cache,
    /// None without a master: what was lacking stays a miss.
    pub(super) refill: Option<Refill>,
    pub(super) wanted: &'a Wanted,
}

/// What applying came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Kinesis records that were read.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Changes in them.
    pub changes: u64,
    /// Of these, those that were wanted.
    pub wanted: u64,
    /// Records and changes that cannot be read; the daemon has set them aside.
    pub unreadable: u64,
    /// Keys whose newest change of a page the cache had, or something newer.
    pub had: u64,
    /// Keys that the cache lacked the change of: they became invalid.
    pub lacked: u64,
    /// Keys whose change could not be proven to be news; they are absent, which is a miss.
    pub left_absent: u64,
    /// Keys that hold what is no entry.
    pub refused: u64,
    /// What became of the keys that lacked something.
    pub refilled: Refilled,
}

impl Wanted {
    pub(super) fn new(tables: impl IntoIterator<Item = Arc<str>>, keys: Option<Vec<Bytes>>) -> Self {
        Self { tables: tables.into_iter().collect(), keys: keys.map(|keys| keys.into_iter().collect()) }
    }

    /// Rows of backfills say nothing of what changed.
    fn includes(&self, change: &Change) -> bool {
        change.kind != ChangeKind::Backfill
            && (self.tables.is_empty() || self.tables.contains(&change.table))
            && self.keys.as_ref().is_none_or(|keys| keys.contains(&change.key))
    }
}

impl Counts {
    pub(super) fn add(&mut self, other: Self) {
        self.records += other.records;
        self.bytes += other.bytes;
        self.changes += other.changes;
        self.wanted += other.wanted;
        self.unreadable += other.unreadable;
        self.had += other.had;
        self.lacked += other.lacked;
        self.left_absent += other.left_absent;
        self.refused += other.refused;
        self.refilled.add(other.refilled);
    }
}

impl Mend<'_> {
    /// Applies what these records have. `is_unsure`: a run before may have been stopped between making a key invalid and
    /// filling it, so what the cache has is asked for as well.
    pub(super) async fn apply(&self, records: &[Bytes], is_unsure: bool) -> Result<Counts, CacheError> {
        let mut counts = Counts::default();
        let changes = self.newest(records, &mut counts);
        let mut to_fill = Vec::new();
        for changes in changes.chunks(CALL_CHANGES_MAX) {
            self.invalidate(changes, is_unsure, &mut counts, &mut to_fill).await?;
        }
        match &self.refill {
            _ if to_fill.is_empty() => {}
            Some(refill) => counts.refilled = refill.fill(to_fill).await,
            None if counts.lacked == 0 => {}
            None => counts.refilled.leave(counts.lacked, "no [master] is configured"),
        }
        Ok(counts)
    }

    /// The newest change of each key, as an invalidation: those before it say nothing more.
    fn newest(&self, records: &[Bytes], counts: &mut Counts) -> Vec<Change> {
        let mut newest: BTreeMap<ItemId, Change> = BTreeMap::new();
        for bytes in records {
            counts.records += 1;
            counts.bytes += bytes.len() as u64;
            let Ok(contents) = record::read(bytes.clone()) else {
                counts.unreadable += 1;
                continue;
            };
            counts.changes += contents.parts.len() as u64;
            for part in contents.parts {
                // Of what cannot be read at least the key may be known, and its position.
                let change = match part.change {
                    Ok(change) => Some(change),
                    Err(error) => {
                        counts.unreadable += 1;
                        error.invalidation()
                    }
                };
                let Some(change) = change.filter(|change| self.wanted.includes(change)) else { continue };
                counts.wanted += 1;
                let held = newest.get(&item_id(&change));
                if held.is_none_or(|held| change.position > held.position) {
                    let (kind, payload) = (ChangeKind::Invalidate, Bytes::new());
                    newest.insert(item_id(&change), Change { kind, payload, ..change });
                }
            }
        }
        newest.into_values().collect()
    }

    /// Until the cache has answered for each.
    async fn invalidate(
        &self,
        changes: &[Change],
        is_unsure: bool,
        counts: &mut Counts,
        to_fill: &mut Vec<ItemId>,
    ) -> Result<(), CacheError> {
        let mut pauses = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
        let mut progress = Instant::now();
        let mut pending: Vec<&Change> = changes.iter().collect();
        while !pending.is_empty() {
            let answers = self.cache.apply(&pending).await;
            let (asked, mut again, mut unavailable) = (pending.len(), Vec::new(), None);
            for (change, answer) in pending.into_iter().zip(answers) {
                match answer {
                    Ok(Outcome::Applied) => {
                        counts.lacked += 1;
                        to_fill.push(item_id(change));
                    }
                    Ok(Outcome::Stale) => {
                        counts.had += 1;
                        if is_unsure {
                            to_fill.push(item_id(change));
                        }
                    }
                    Ok(Outcome::Covered | Outcome::Skipped) => counts.had += 1,
                    Ok(Outcome::LeftAbsent) => counts.left_absent += 1,
                    Err(CacheError::Refused { .. }) => counts.refused += 1,
                    // It holds no leases: the next try has a deadline of its own.
                    Err(error @ (CacheError::PastDeadline { .. } | CacheError::Unavailable { .. })) => {
                        again.push(change);
                        unavailable = Some(error);
                    }
                }
            }
            if again.len() < asked {
                progress = Instant::now();
            }
            if let Some(error) = unavailable {
                if progress.elapsed() > PATIENCE {
                    return Err(error);
                }
                sleep(pauses.next_pause()).await;
            }
            pending = again;
        }
        Ok(())
    }
}
