//! Mending lasting mismatches by the cache protocol: invalidate (rule 7), then fill (rules 2 and 3).
//!
//! What is there becomes invalid, whatever its position says, and its floor stays; the fill reads the master after
//! that. A reader may come first and fill by itself, which is as good. Stopped half-way, a key is a miss.

use std::collections::HashMap;

use warmcast_cache::{Cache, Filler, ItemId, ItemRef};
use warmcast_common::clock::now_ms;
use warmcast_common::tool::Throttle;

use super::judge::Verdict;
use super::look::{Candidate, LOOK_KEYS_MAX, Looker};

/// Mends keys of one region.
#[derive(Debug)]
pub struct Repairer {
    /// The region's cache.
    pub cache: Cache,
    /// What fills it.
    pub filler: Filler,
    /// Looks at what was mended.
    pub looker: Looker,
    /// Keys in a second.
    pub throttle: Throttle,
}

/// What became of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Repair {
    /// Looked at once more, it is consistent.
    Mended,
    /// Looked at once more, it is a miss: readers ask the master.
    Miss,
    /// Not mended, for this reason.
    Failed(String),
}

impl Repairer {
    /// Mends keys. One answer for each.
    pub async fn repair(&self, ids: &[ItemId]) -> HashMap<ItemId, Repair> {
        let mut repairs = HashMap::new();
        for ids in ids.chunks(LOOK_KEYS_MAX) {
            self.throttle.take(ids.len() as u64).await;
            self.repair_some(ids, &mut repairs).await;
        }
        repairs
    }

    async fn repair_some(&self, ids: &[ItemId], repairs: &mut HashMap<ItemId, Repair>) {
        let began_ms = now_ms();
        let items: Vec<ItemRef<'_>> =
            ids.iter().map(|id| ItemRef { table: &id.table, key: &id.key }).collect();
        let mut invalid = Vec::new();
        for (id, answer) in ids.iter().zip(self.cache.invalidate(&items).await) {
            match answer {
                Ok(_) => invalid.push(id.clone()),
                Err(error) => {
                    repairs.insert(id.clone(), Repair::Failed(format!("invalidate: {error}")));
                }
            }
        }
        // What they find is seen by looking. A fill that fails leaves a miss.
        let _ = self.filler.fill_many(&invalid).await;
        self.filler.idle().await;
        let candidates = invalid.into_iter().map(|id| Candidate::new(id, true)).collect();
        for (id, looked) in self.looker.look(candidates).await {
            let repair = match looked {
                Ok(looked) => match looked.look.verdict() {
                    Verdict::Consistent => Repair::Mended,
                    Verdict::Missing(_) => Repair::Miss,
                    // It was filled, and the master has changed since.
                    Verdict::Different(_) if looked.look.is_as_of(began_ms) => Repair::Mended,
                    Verdict::Different(difference) => {
                        Repair::Failed(format!("looked at again: {difference}"))
                    }
                },
                Err(error) => Repair::Failed(format!("invalid by now; look at it again: {error}")),
            };
            repairs.insert(id, repair);
        }
    }
}

impl std::fmt::Display for Repair {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Mended => formatter.write_str("mended"),
            Self::Miss => formatter.write_str("a miss now: readers ask the master"),
            Self::Failed(reason) => write!(formatter, "failed: {reason}"),
        }
    }
}
