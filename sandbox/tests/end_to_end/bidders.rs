//! Bidders read what the daemons wrote, and fill what is missing.

use std::time::Duration;

use warmcast_proto::entry::EntryKind;
use warmcast_sandbox::bidder::{Bidder, BidderOptions, Sources, Standing, Summary, Users};
use warmcast_sandbox::entry::{Entry, redis_key};
use warmcast_sandbox::profile::cookie_id;
use warmcast_sandbox::workload::Ledger;
use warmcast_sandbox::world::{World, WorldOptions};

use crate::support::*;

const USERS: u64 = 30;
/// Beyond what any lookup takes on a machine that runs other tests.
const LONG_DEADLINE: Duration = Duration::from_secs(5);

fn one_region() -> WorldOptions {
    WorldOptions { regions: 1, ..WorldOptions::default() }
}

/// A row for each user, in the table and in the cache.
async fn world_with_users() -> World {
    let world = World::start(&one_region()).await.unwrap_or_else(|error| panic!("{error}"));
    for user in 0..USERS {
        put(&world, TABLE, Default::default(), &cookie_id(user)).await;
    }
    for user in 0..USERS {
        wait_for_entry(&world, 0, (TABLE, &cookie_id(user)), is_live).await;
    }
    eventually("a watermark", || async {
        let mut redis = world.regions()[0].redis().connect().await.ok()?;
        warmcast_sandbox::entry::watermark_ms(&mut redis).await.ok()?
    })
    .await;
    world
}

fn options(deadline: Duration) -> BidderOptions {
    // Without a first level: each auction sees what the cache has.
    BidderOptions { deadline, first_level: false, rate: 100.0, ..BidderOptions::new(TABLE) }
}

async fn bidder(world: &World, options: BidderOptions) -> Bidder {
    let redis = world.regions()[0].redis().url();
    let sources = Sources { redis, dynamodb: world.dynamodb_url().to_owned() };
    Bidder::start(&sources, options, Users::Fixed(USERS)).await.unwrap()
}

/// Waits until what happened since `start` meets the condition.
async fn until(bidder: &Bidder, start: &Standing, what: &str, is_it: impl Fn(&Summary) -> bool) -> Summary {
    eventually(what, || async { Some(bidder.standing().since(start)).filter(|seen| is_it(seen)) }).await
}

fn is_filled(entry: &Entry) -> bool {
    matches!(entry, Entry::Filled { .. })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bidder_finds_what_is_there_and_fills_what_is_missing() {
    let mut world = world_with_users().await;
    let lost = cookie_id(0);
    let mut redis = world.regions()[0].redis().connect().await.unwrap();
    let () = redis::cmd("DEL").arg(redis_key(TABLE, &lost)).query_async(&mut redis).await.unwrap();

    let bidder = bidder(&world, BidderOptions { unknown_percent: 20, ..options(LONG_DEADLINE) }).await;
    let start = bidder.standing();
    wait_for_entry(&world, 0, (TABLE, &lost), is_filled).await;
    until(&bidder, &start, "hits, and users known not to exist", |seen| {
        seen.fresh > 100 && seen.absent > 0 && seen.watermark_lag_ms.is_some()
    })
    .await;
    let seen = bidder.stop().await.since(&start);
    assert_eq!((seen.unanswered, seen.missed, seen.stale), (0, 0, 0), "{seen:?}");
    assert!(seen.missing > 0 && seen.filling == seen.missing, "{seen:?}");
    assert!(seen.filled > 1 && seen.filled <= seen.master_reads, "{seen:?}");
    assert!(seen.master_reads <= seen.missing, "no key is read for more than one miss: {seen:?}");
    let keys = warmcast_sandbox::entry::all_redis_keys(&mut redis).await.unwrap().len();
    assert!(keys as u64 > USERS + 1, "unknown users are remembered beside the rows and the canary: {keys}");
    assert_regions_equal(&mut world, &Ledger::new()).await;
    stop(world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_comes_into_being_replaces_the_knowledge_that_there_is_none() {
    let world = world_with_users().await;
    let bidder = bidder(&world, BidderOptions { unknown_percent: 0, ..options(LONG_DEADLINE) }).await;
    // The user asked for most is deleted, and nothing in the cache tells of it.
    let key = cookie_id(0);
    delete(&world, TABLE, &key).await;
    wait_for_entry(&world, 0, (TABLE, &key), Entry::is_tombstone).await;
    let mut redis = world.regions()[0].redis().connect().await.unwrap();
    let () = redis::cmd("DEL").arg(redis_key(TABLE, &key)).query_async(&mut redis).await.unwrap();
    let is_negative = |entry: &Entry| matches!(entry, Entry::Marker { kind: EntryKind::Negative, .. });
    wait_for_entry(&world, 0, (TABLE, &key), is_negative).await;
    put(&world, TABLE, Default::default(), &key).await;
    wait_for_entry(&world, 0, (TABLE, &key), is_live).await;
    bidder.stop().await;
    stop(world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_that_hangs_costs_each_auction_its_deadline_and_no_more() {
    const DEADLINE: Duration = Duration::from_millis(100);
    let world = World::start_servers(&one_region()).await.unwrap();
    let bidder = bidder(&world, options(DEADLINE)).await;
    let start = bidder.standing();
    until(&bidder, &start, "auctions with answers", |seen| seen.absent > 0).await;
    world.regions()[0].redis().freeze().unwrap();
    // Those that were under way at the freeze are over.
    tokio::time::sleep(2 * DEADLINE).await;
    let frozen = bidder.standing();
    let seen = until(&bidder, &frozen, "auctions without answers", |seen| seen.auctions >= 50).await;
    assert_eq!((seen.missed, seen.lookups), (seen.auctions, 0), "{seen:?}");
    // Other tests share the machine: half of the auctions end in time, whatever happens to some.
    assert!((95_000..200_000).contains(&seen.p50_us), "{seen:?}");
    world.regions()[0].redis().thaw().unwrap();
    let thawed = bidder.standing();
    until(&bidder, &thawed, "auctions with answers again", |seen| seen.absent > 0).await;
    bidder.stop().await;
    stop(world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flushed_cache_is_filled_again_by_the_bidders_misses() {
    let mut world = world_with_users().await;
    let bidder = bidder(&world, BidderOptions { unknown_percent: 0, ..options(LONG_DEADLINE) }).await;
    let start = bidder.standing();
    let before = until(&bidder, &start, "hits", |seen| seen.lookups >= 100).await;
    assert_eq!((before.hit_percent(), before.master_reads), (100.0, 0), "{before:?}");

    // The stream is not to heal it.
    world.regions_mut()[0].cache_writer_mut().kill().await.unwrap();
    let flushed = bidder.standing();
    world.regions()[0].redis().flush().await.unwrap();
    for user in 0..USERS {
        wait_for_entry(&world, 0, (TABLE, &cookie_id(user)), is_filled).await;
    }
    let healing = until(&bidder, &flushed, "every fill is counted", |seen| seen.filled >= USERS).await;
    assert!(healing.missing > 0 && healing.hit_percent() < 100.0, "{healing:?}");
    assert_eq!((healing.master_reads, healing.filled), (USERS, USERS), "each key once: {healing:?}");
    let filled = bidder.standing();
    let healed = until(&bidder, &filled, "hits again", |seen| seen.lookups >= 100).await;
    // Those under way when the last fill landed may be counted after it.
    assert!(healed.hit_percent() > 95.0 && healed.master_reads == 0, "{healed:?}");

    // What changed meanwhile goes over what was filled, and what was written before does not.
    put(&world, TABLE, [("changed".to_owned(), text("yes"))].into(), &cookie_id(1)).await;
    delete(&world, TABLE, &cookie_id(2)).await;
    world.regions_mut()[0].cache_writer_mut().start().unwrap();
    wait_for_entry(&world, 0, (TABLE, &cookie_id(1)), |entry| {
        entry.row().is_some_and(|row| row.contains_key("changed"))
    })
    .await;
    wait_for_entry(&world, 0, (TABLE, &cookie_id(2)), Entry::is_tombstone).await;
    bidder.stop().await;
    assert_regions_equal(&mut world, &Ledger::new()).await;
    stop(world).await;
}
