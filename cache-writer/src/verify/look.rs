//! Looking at keys: the master, then the cache, then the master again where the two differ.
//!
//! The master comes first: what it had then was made before the cache was read, so a difference is either a change
//! on its way, or one that came in between, and that the second read of the master tells. The other way round every
//! change in between would look like a difference.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::sleep;
use warmcast_cache::master::{FailureClass, ScanPlace, Segment};
use warmcast_cache::policy::Tables;
use warmcast_cache::{CacheError, EntryReads, ItemId, Master, MasterError};
use warmcast_common::clock::now_ms;
use warmcast_proto::entry::EntryHeader;
use warmcast_proto::item::Item;

use super::case::{First, Look};
use super::judge::{Foreign, Rules, Seen, Verdict};

/// Keys of one look: what one read of the master takes.
pub const LOOK_KEYS_MAX: usize = 100;

/// Between tries of what the master sheds.
const SHED_PAUSE: Duration = Duration::from_millis(500);

/// Looks at keys of one region.
#[derive(Clone, Debug)]
pub struct Looker {
    /// The region's cache: on primaries, because replicas are behind by themselves.
    pub reads: EntryReads,
    /// The master tables.
    pub master: Master,
    /// How the tables are cached.
    pub tables: Arc<Tables>,
    /// Only these attributes are compared; none: all.
    pub only: Option<Vec<String>>,
    /// The region is sent only some of the items.
    pub is_filtered: bool,
    /// How often keys are read again that the master sheds to spare itself.
    pub shed_retries: usize,
}

/// A key to be looked at.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The item.
    pub id: ItemId,
    /// Where it reads as nothing, ask whether a value of another type is there.
    pub check_type: bool,
    /// What the master had, if that was read already, and when just before that read, ms since the Unix epoch.
    pub master: Option<(u64, Option<Item>)>,
}

/// A key that was looked at.
#[derive(Debug)]
pub struct Looked {
    /// What was found, to be judged.
    pub look: Look,
    /// What it was found in.
    pub evidence: Evidence,
}

/// A first look at some keys.
#[derive(Debug)]
pub struct FirstLook {
    /// The keys, whether their types were asked for, and what is kept of what was found.
    pub looked: Vec<(ItemId, bool, Result<First, LookError>)>,
    /// Keys that were met and are no item's.
    pub strangers: u64,
}

/// The two sides of a look.
#[derive(Clone, Debug, PartialEq)]
pub struct Evidence {
    /// What the cache has.
    pub entry: Option<Bytes>,
    /// What the master has.
    pub item: Option<Item>,
}

/// Why a key could not be looked at.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LookError {
    /// The cache.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The master.
    #[error(transparent)]
    Master(#[from] MasterError),
}

impl LookError {
    /// There can be no such item: no table, or no key of it.
    #[must_use]
    pub fn is_no_item(&self) -> bool {
        match self {
            Self::Cache(_) => false,
            Self::Master(MasterError::Key { .. }) => true,
            Self::Master(MasterError::Call { failure, .. }) => failure.class == FailureClass::NotFound,
            Self::Master(_) => false,
        }
    }
}

impl Candidate {
    /// A key of which nothing is known.
    #[must_use]
    pub const fn new(id: ItemId, check_type: bool) -> Self {
        Self { id, check_type, master: None }
    }
}

impl Looker {
    /// How a table's entries are held against its items.
    #[must_use]
    pub fn rules(&self, table: &str) -> Rules {
        let policy = self.tables.policy(table).clone();
        Rules::new(policy, self.only.clone()).filtered(self.is_filtered)
    }

    /// A page of a table, to be looked at: reading it was the first read of its items.
    ///
    /// # Errors
    /// The master cannot be walked through.
    pub async fn page(
        &self,
        table: &Arc<str>,
        segment: Segment,
        from: Option<ScanPlace>,
        items_max: usize,
    ) -> Result<(Vec<Candidate>, Option<ScanPlace>), MasterError> {
        let items_max = u32::try_from(items_max.clamp(1, LOOK_KEYS_MAX)).unwrap_or(1);
        // It may wait for the budget first, so the read can be later than this. That is the safe side: more is
        // called newer than the first look, nothing wrong is.
        let read_ms = now_ms();
        let page = self.master.scan(table, segment, from, items_max).await?;
        let candidate = |(id, item): (ItemId, Result<Item, MasterError>)| match item {
            Ok(item) => Candidate { id, check_type: false, master: Some((read_ms, Some(item))) },
            // It is read by itself, and fails by itself.
            Err(_) => Candidate::new(id, false),
        };
        Ok((page.items.into_iter().map(candidate).collect(), page.next))
    }

    /// A first look at keys.
    pub async fn first_look(&self, candidates: Vec<Candidate>) -> FirstLook {
        let check_types: Vec<bool> = candidates.iter().map(|candidate| candidate.check_type).collect();
        let looked = self.look(candidates).await;
        let looked = looked
            .into_iter()
            .zip(check_types)
            .map(|((id, looked), check)| (id, check, looked.map(|looked| looked.look.first())));
        FirstLook { looked: looked.collect(), strangers: 0 }
    }

    /// Looks at keys, about a hundred at a time. One answer for each, in their order.
    pub async fn look(&self, candidates: Vec<Candidate>) -> Vec<(ItemId, Result<Looked, LookError>)> {
        let ids: Vec<ItemId> = candidates.iter().map(|candidate| candidate.id.clone()).collect();
        let check_types: Vec<bool> = candidates.iter().map(|candidate| candidate.check_type).collect();
        let masters = self.read_master(candidates).await;
        let entries = self.read_cache(&ids, &check_types).await;
        let mut looked: Vec<(ItemId, Result<Looked, LookError>)> = ids
            .into_iter()
            .zip(masters.into_iter().zip(entries))
            .map(|(id, (master, entry))| {
                let looked = self.first_part(&id, master, entry);
                (id, looked)
            })
            .collect();
        self.read_differing_again(&mut looked).await;
        looked
    }

    fn first_part(
        &self,
        id: &ItemId,
        master: Result<(u64, Option<Item>), MasterError>,
        entry: Result<Value, CacheError>,
    ) -> Result<Looked, LookError> {
        let ((read_ms, item), value) = (master?, entry?);
        // The same moment for both sides, so that an expiry is past on both or on none.
        let (now_ms, rules) = (now_ms(), self.rules(&id.table));
        let seen = match value.is_no_string {
            true => Seen::Foreign(Foreign::NoString),
            false => rules.seen(value.entry.as_ref(), now_ms),
        };
        let header = value.entry.as_ref().and_then(|entry| Some(EntryHeader::decode(entry).ok()?.0));
        let look = Look {
            read_ms,
            done_ms: now_ms,
            expected: rules.expected(item.as_ref(), now_ms),
            seen,
            header,
            expected_after: None,
        };
        Ok(Looked { look, evidence: Evidence { entry: value.entry, item } })
    }

    /// What the master has; and when just before it was read.
    async fn read_master(&self, candidates: Vec<Candidate>) -> Vec<Result<(u64, Option<Item>), MasterError>> {
        let unread: Vec<ItemId> = candidates
            .iter()
            .filter(|candidate| candidate.master.is_none())
            .map(|candidate| candidate.id.clone())
            .collect();
        let mut read = self.read_items(&unread).await.into_iter();
        let answers = candidates.into_iter().map(|candidate| match candidate.master {
            Some(known) => Ok(known),
            // One for each that was not known.
            None => read.next().unwrap_or(Err(MasterError::Stopped)),
        });
        answers.collect()
    }

    async fn read_items(&self, ids: &[ItemId]) -> Vec<Result<(u64, Option<Item>), MasterError>> {
        let read_ms = now_ms();
        let read = self.master.read_many(ids).await;
        let mut answers: Vec<_> = read.into_iter().map(|answer| Ok((read_ms, answer?))).collect();
        for _ in 0..self.shed_retries {
            let shed: Vec<usize> = answers
                .iter()
                .enumerate()
                .filter(|(_, answer)| answer.as_ref().is_err_and(MasterError::is_shed))
                .map(|(place, _)| place)
                .collect();
            if shed.is_empty() {
                break;
            }
            sleep(SHED_PAUSE).await;
            let again: Vec<ItemId> = shed.iter().filter_map(|place| ids.get(*place).cloned()).collect();
            let read_ms = now_ms();
            for (place, answer) in shed.into_iter().zip(self.master.read_many(&again).await) {
                if let Some(kept) = answers.get_mut(place) {
                    *kept = answer.map(|item| (read_ms, item));
                }
            }
        }
        answers
    }

    async fn read_cache(&self, ids: &[ItemId], check_types: &[bool]) -> Vec<Result<Value, CacheError>> {
        let entries = self.reads.get_items(ids).await;
        let vanished: Vec<ItemId> = ids
            .iter()
            .zip(check_types)
            .zip(&entries)
            .filter(|((_, check_type), entry)| **check_type && matches!(entry, Ok(None)))
            .map(|((id, _), _)| id.clone())
            .collect();
        let no_strings: HashMap<ItemId, bool> = match self.reads.hold_no_string(&vanished).await {
            Ok(answers) => vanished.into_iter().zip(answers).collect(),
            // As if it were not there, which is what readers find.
            Err(_) => HashMap::new(),
        };
        let value = |(id, entry): (&ItemId, Result<Option<Bytes>, CacheError>)| {
            let is_no_string = no_strings.get(id).copied().unwrap_or_default();
            Ok(Value { entry: entry?, is_no_string })
        };
        ids.iter().zip(entries).map(value).collect()
    }

    async fn read_differing_again(&self, looked: &mut [(ItemId, Result<Looked, LookError>)]) {
        let mut differing: Vec<(&ItemId, &mut Looked)> = looked
            .iter_mut()
            .filter_map(|(id, looked)| Some((&*id, looked.as_mut().ok()?)))
            .filter(|(_, looked)| matches!(looked.look.verdict(), Verdict::Different(_)))
            .collect();
        let ids: Vec<ItemId> = differing.iter().map(|(id, _)| (*id).clone()).collect();
        let read = self.read_items(&ids).await;
        let now_ms = now_ms();
        for ((id, looked), answer) in differing.iter_mut().zip(read) {
            // Without an answer it is judged by the first one.
            if let Ok((_, item)) = answer {
                looked.look.done_ms = now_ms;
                looked.look.expected_after = Some(self.rules(&id.table).expected(item.as_ref(), now_ms));
                looked.evidence.item = item;
            }
        }
    }
}

/// What the cache has under a key.
struct Value {
    entry: Option<Bytes>,
    is_no_string: bool,
}
