//! One batch of fills: take the keys, read the master, answer who waits, fill.
//!
//! The order is what makes a fill safe: the read begins after the token was taken, and whatever changes the entry
//! after that voids the token (rules 2 and 3 of the cache protocol).

use std::sync::{Arc, atomic::Ordering};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use warmcast_proto::item::Item;

use super::{FillAnswer, FillError, Filling, Shared, flights::FillResult};
use crate::{
    cache::ItemRef,
    item_id::ItemId,
    leases::{Acquired, Fill, Filled, Token},
    master::MasterError,
    outcome::CacheError,
    shape::{self, Shaped},
};

/// The most keys of a batch: what one read of the master takes.
pub(super) const KEYS_MAX: usize = crate::master::KEYS_PER_CALL_MAX;

/// A key that was taken.
struct Taken {
    id: ItemId,
    token: Token,
}

/// A key that was read.
struct Found {
    taken: Taken,
    shaped: Option<Shaped>,
}

/// Fills keys of one table. Every one of them gets an answer.
pub(super) async fn run(shared: Arc<Shared>, table: Arc<str>, keys: Vec<Bytes>) {
    let ids: Vec<ItemId> = keys.into_iter().map(|key| ItemId { table: Arc::clone(&table), key }).collect();
    let taken = take(&shared, ids).await;
    let taken_ids: Vec<ItemId> = taken.iter().map(|taken| taken.id.clone()).collect();
    let reads = shared.master.begin(&taken_ids).await;
    let reads: FuturesUnordered<_> = taken
        .into_iter()
        .zip(reads)
        .map(|(taken, read)| async { (taken, shared.master.finish(read).await) })
        .collect();
    // What is there is filled; what has to be asked for again holds nobody up.
    let mut groups = reads.ready_chunks(KEYS_MAX);
    while let Some(group) = groups.next().await {
        let found = group.into_iter().filter_map(|(taken, read)| answer(&shared, taken, read)).collect();
        fill(&shared, found).await;
    }
}

async fn take(shared: &Shared, ids: Vec<ItemId>) -> Vec<Taken> {
    let items: Vec<ItemRef<'_>> = ids.iter().map(item_ref).collect();
    let acquired = shared.cache.acquire(&items, shared.config.hold).await;
    let mut taken = Vec::with_capacity(ids.len());
    for (id, acquired) in ids.into_iter().zip(acquired) {
        let counters = &shared.counters;
        match acquired {
            Ok(Acquired::Token(token)) => taken.push(Taken { id, token }),
            Ok(Acquired::Busy) => {
                counters.busy.fetch_add(1, Ordering::Relaxed);
                shared.settle(&id, &Ok(FillAnswer::Busy));
            }
            Ok(Acquired::Present(entry)) => {
                counters.present.fetch_add(1, Ordering::Relaxed);
                shared.settle(&id, &Ok(FillAnswer::Present(entry)));
            }
            Err(error) => {
                counters.failed.fetch_add(1, Ordering::Relaxed);
                shared.settle(&id, &Err(FillError::Cache(error)));
            }
        }
    }
    taken
}

/// Answers who waits; nothing if there is nothing to fill.
fn answer(shared: &Shared, taken: Taken, read: Result<Option<Item>, MasterError>) -> Option<Found> {
    let (result, found) = judge(shared, &taken, read);
    match found {
        Some(shaped) => {
            shared.flights.lock().answer(&taken.id, &result);
            Some(Found { taken, shaped })
        }
        None => {
            shared.counters.failed.fetch_add(1, Ordering::Relaxed);
            // Its hold runs out by itself, and until then nobody reads the master for this key.
            shared.settle(&taken.id, &result);
            None
        }
    }
}

/// What who waits is told, and what is to be filled.
fn judge(
    shared: &Shared,
    taken: &Taken,
    read: Result<Option<Item>, MasterError>,
) -> (FillResult, Option<Option<Shaped>>) {
    let item = match read {
        Ok(Some(item)) => item,
        Ok(None) => return (Ok(FillAnswer::Absent), Some(None)),
        Err(error) => return (Err(FillError::Master(error)), None),
    };
    match shape::shape(shared.cache.policy(&taken.id.table), item) {
        Ok(shaped) => {
            let filling = Filling {
                payload: shaped.payload.clone(),
                expires_ms: shaped.expires_ms,
                read_ms: taken.token.taken_ms(),
            };
            (Ok(FillAnswer::Item(filling)), Some(Some(shaped)))
        }
        Err(error) => (Err(FillError::Shape { table: Arc::clone(&taken.id.table), error }), None),
    }
}

async fn fill(shared: &Shared, found: Vec<Found>) {
    let fills: Vec<Fill<'_>> = found
        .iter()
        .map(|found| Fill {
            item: item_ref(&found.taken.id),
            token: &found.taken.token,
            found: found.shaped.clone(),
        })
        .collect();
    let answers = shared.cache.fill(&fills).await;
    for (found, answer) in found.iter().zip(answers) {
        land(shared, found, answer);
    }
}

fn land(shared: &Shared, found: &Found, answer: Result<Filled, CacheError>) {
    let counters = &shared.counters;
    let counter = match answer {
        Ok(Filled::Written) if found.shaped.is_none() => &counters.absent,
        Ok(Filled::Written) => &counters.installed,
        Ok(Filled::Refused) => &counters.refused,
        Err(error) => {
            tracing::debug!(table = &*found.taken.id.table, %error, "a fill did not land");
            &counters.failed
        }
    };
    counter.fetch_add(1, Ordering::Relaxed);
    shared.end(&found.taken.id);
}

fn item_ref(id: &ItemId) -> ItemRef<'_> {
    ItemRef { table: &id.table, key: &id.key }
}
