//! Everybody else who writes: readers that fill what they miss, backfills, invalidations.

use std::{sync::Arc, time::Duration};

use fastrand::Rng;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use warmcast_cache::{
    Acquired, Backfill, Cache, CacheError, EntryReads, Fill, Filled, ItemRef, ReadFrom, ReadStart, Refusal,
};
use warmcast_proto::{
    entry::{EntryHeader, EntryKind},
    key::cache_key,
};

use crate::log::{Master, Name, all_names};

pub(crate) fn redis_key((table, key): &Name) -> Vec<u8> {
    cache_key("wc:", table, key)
}

fn item((table, key): &Name) -> ItemRef<'_> {
    ItemRef { table, key }
}

/// Waits up to so long; not at all every other time.
async fn dawdle(rng: &mut Rng, ms_max: u64) {
    if rng.bool() {
        sleep(Duration::from_millis(rng.u64(0..=ms_max))).await;
    }
}

/// What is not there passes; what is wrong does not.
fn passes<T>(answer: Result<T, CacheError>) -> Option<T> {
    match answer {
        Ok(answer) => Some(answer),
        Err(CacheError::Unavailable { .. } | CacheError::PastDeadline { .. }) => None,
        Err(error) => panic!("{error}"),
    }
}

/// Reads at random, and fills what it misses. Gives how many fills were written, and how many were refused.
pub(crate) async fn read_and_fill(
    cache: Cache,
    reads: EntryReads,
    master: Arc<Master>,
    mut rng: Rng,
    stop: CancellationToken,
) -> (u32, u32) {
    let (mut written, mut refused) = (0, 0);
    while !stop.is_cancelled() {
        sleep(Duration::from_millis(rng.u64(1..8))).await;
        let name = master.any_name(&mut rng);
        let [entry] = reads.get_many(&[redis_key(&name)]).await.try_into().unwrap();
        let kind = passes(entry).flatten().map(|entry| EntryHeader::decode(&entry).unwrap().0.kind());
        if !matches!(kind, None | Some(EntryKind::Invalid | EntryKind::Held | EntryKind::Negative)) {
            continue;
        }
        let hold = Duration::from_millis(rng.u64(20..600));
        let [acquired] = cache.acquire(&[item(&name)], hold).await.try_into().unwrap();
        let Some(Acquired::Token(token)) = passes(acquired) else { continue };
        dawdle(&mut rng, 100).await;
        let found = master.get(&name);
        dawdle(&mut rng, 400).await;
        let [filled] =
            cache.fill(&[Fill { item: item(&name), token: &token, found }]).await.try_into().unwrap();
        match passes(filled) {
            Some(Filled::Written) => written += 1,
            Some(Filled::Refused) => refused += 1,
            None => {}
        }
    }
    (written, refused)
}

/// Reads pages of the tables and backfills them; a table that caches what is read does not take it.
pub(crate) async fn backfill(cache: Cache, master: Arc<Master>, mut rng: Rng, stop: CancellationToken) {
    while !stop.is_cancelled() {
        sleep(Duration::from_millis(rng.u64(20..200))).await;
        let names: Vec<Name> = all_names().filter(|_| rng.u32(0..30) == 0).collect();
        let read = ReadStart::now();
        let found: Vec<_> = names.iter().map(|name| master.get(name)).collect();
        dawdle(&mut rng, 1_500).await;
        let page = names.iter().zip(found);
        let page = page.filter_map(|(name, found)| Some(Backfill { item: item(name), found: found?, read }));
        let page: Vec<Backfill<'_>> = page.collect();
        for (backfill, answer) in page.iter().zip(cache.backfill(&page).await) {
            match answer {
                Err(CacheError::Refused { refusal: Refusal::NotBackfilled, .. })
                    if backfill.item.table == "present" => {}
                other => {
                    let _ = passes(other);
                }
            }
        }
    }
}

pub(crate) async fn invalidate(cache: Cache, master: Arc<Master>, mut rng: Rng, stop: CancellationToken) {
    while !stop.is_cancelled() {
        sleep(Duration::from_millis(rng.u64(20..200))).await;
        let name = master.any_name(&mut rng);
        let [answer] = cache.invalidate(&[item(&name)]).await.try_into().unwrap();
        let _ = passes(answer);
    }
}

/// A reader's connection: half of the readers ask replicas.
pub(crate) async fn reads(cache: &Cache, number: usize) -> EntryReads {
    let from = if number.is_multiple_of(2) { ReadFrom::Primary } else { ReadFrom::Replica };
    EntryReads::connect(cache.config().clone(), from).await.unwrap()
}
