//! Fills, invalidations and backfills on a real server, and what changes do to them.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, also in its helpers")]

#[expect(dead_code, reason = "other tests need more of it")]
mod support;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use redis::AsyncCommands as _;
use support::RedisServer;
use warmcast_cache::{
    Acquired, Backfill, Backfilled, Cache, CacheConfig, CacheError, EntryReads, Fill, Filled, Invalidated,
    ItemRef, Outcome, ReadFrom, ReadStart, Refusal, TablePolicy, Tables, Token,
    policy::{FLOOR_TTL, WritePolicy},
    shape::Shaped,
};
use warmcast_proto::{
    change::{Change, ChangeKind},
    entry::{EntryHeader, EntryKind},
    key::cache_key,
    position::Position,
};

const TABLE: &str = "profiles";
const HOLD: Duration = Duration::from_secs(30);

struct World {
    server: RedisServer,
    cache: Cache,
    reads: EntryReads,
}

impl World {
    async fn new(policy: TablePolicy) -> Self {
        let server = RedisServer::start();
        let tables = Tables { default: policy, ..Tables::default() };
        let config = CacheConfig { tables, ..server.config() };
        let cache = Cache::connect(config.clone()).await.unwrap();
        let reads = EntryReads::connect(config, ReadFrom::Primary).await.unwrap();
        Self { server, cache, reads }
    }

    async fn entry(&self, key: &str) -> Option<(EntryHeader, Bytes)> {
        let [value] = self.reads.get_many(&[redis_key(key)]).await.try_into().unwrap();
        value.unwrap().map(|value| {
            let (header, payload) = EntryHeader::decode(&value).unwrap();
            (header, Bytes::copy_from_slice(payload))
        })
    }

    async fn kind_and_floor(&self, key: &str) -> Option<(EntryKind, Position)> {
        self.entry(key).await.map(|(header, _)| (header.kind(), header.position()))
    }

    async fn apply(&self, change: &Change) -> Result<Outcome, CacheError> {
        let [answer] = self.cache.apply(&[change]).await.try_into().unwrap();
        answer
    }

    async fn acquire(&self, key: &str, hold: Duration) -> Result<Acquired, CacheError> {
        let [answer] = self.cache.acquire(&[item(key)], hold).await.try_into().unwrap();
        answer
    }

    async fn take(&self, key: &str) -> Token {
        match self.acquire(key, HOLD).await {
            Ok(Acquired::Token(token)) => token,
            other => panic!("{key} was not taken: {other:?}"),
        }
    }

    async fn fill(&self, key: &str, token: &Token, found: Option<&str>) -> Result<Filled, CacheError> {
        let fill = Fill { item: item(key), token, found: found.map(shaped) };
        let [answer] = self.cache.fill(&[fill]).await.try_into().unwrap();
        answer
    }

    async fn invalidate(&self, key: &str) -> Result<Invalidated, CacheError> {
        let [answer] = self.cache.invalidate(&[item(key)]).await.try_into().unwrap();
        answer
    }

    async fn backfill(&self, key: &str, read: ReadStart) -> Result<Backfilled, CacheError> {
        let backfill = Backfill { item: item(key), found: shaped("of a page"), read };
        let [answer] = self.cache.backfill(&[backfill]).await.try_into().unwrap();
        answer
    }

    /// How long the server keeps the key; none: for ever.
    async fn left(&self, key: &str) -> Option<Duration> {
        let left_ms: i64 = self.server.admin().await.pttl(redis_key(key)).await.unwrap();
        u64::try_from(left_ms).ok().map(Duration::from_millis)
    }

    async fn assert_stays(&self, key: &str, ttl: Duration) {
        let left = self.left(key).await;
        let expected = ttl.saturating_sub(Duration::from_mins(1))..=ttl;
        assert!(left.is_some_and(|left| expected.contains(&left)), "{key}: {left:?} of {ttl:?}");
    }
}

fn item(key: &str) -> ItemRef<'_> {
    ItemRef { table: TABLE, key: key.as_bytes() }
}

fn shaped(payload: &str) -> Shaped {
    Shaped { payload: payload.to_owned().into(), expires_ms: None }
}

fn redis_key(key: &str) -> Vec<u8> {
    cache_key("wc:", TABLE, key.as_bytes())
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis().try_into().unwrap()
}

fn position(number: u64) -> Position {
    Position::new(1, number.to_string().parse().unwrap()).unwrap()
}

fn change(key: &str, number: u64, kind: ChangeKind) -> Change {
    let payload =
        if kind == ChangeKind::Put { Bytes::from(format!("item at {number}")) } else { Bytes::new() };
    let key = Bytes::from(key.to_owned());
    Change { table: TABLE.into(), key, position: position(number), kind, created_ms: now_ms(), payload }
}

fn put(key: &str, number: u64) -> Change {
    change(key, number, ChangeKind::Put)
}

fn created_before(age: Duration, change: Change) -> Change {
    Change { created_ms: change.created_ms - u64::try_from(age.as_millis()).unwrap(), ..change }
}

fn all() -> TablePolicy {
    TablePolicy::default()
}

#[tokio::test]
async fn one_caller_takes_a_missing_key_and_fills_it() {
    let world = World::new(TablePolicy { live_ttl: Some(Duration::from_mins(10)), ..all() }).await;
    let token = world.take("user").await;
    assert!(token.taken_ms().abs_diff(now_ms()) < 60_000);
    assert_eq!(world.kind_and_floor("user").await, Some((EntryKind::Held, Position::ZERO)));
    world.assert_stays("user", HOLD + Duration::from_secs(10)).await;
    assert_eq!(world.acquire("user", HOLD).await, Ok(Acquired::Busy));

    assert_eq!(world.fill("user", &token, Some("item")).await, Ok(Filled::Written));
    let (header, payload) = world.entry("user").await.unwrap();
    assert_eq!(
        (header.kind(), header.time_ms(), payload),
        (EntryKind::Filled, token.taken_ms(), "item".into())
    );
    world.assert_stays("user", Duration::from_mins(10)).await;
    // A token fills once.
    assert_eq!(world.fill("user", &token, Some("again")).await, Ok(Filled::Refused));
    let present = world.acquire("user", HOLD).await;
    assert!(matches!(present, Ok(Acquired::Present(entry)) if entry.ends_with(b"item")));
}

#[tokio::test]
async fn a_hold_that_is_over_is_taken_by_the_next_and_its_token_is_void() {
    let world = World::new(all()).await;
    let Ok(Acquired::Token(first)) = world.acquire("user", Duration::from_millis(1)).await else {
        panic!("not taken");
    };
    tokio::time::sleep(Duration::from_millis(5)).await;
    let second = world.take("user").await;
    assert_eq!(world.fill("user", &first, Some("old")).await, Ok(Filled::Refused));
    assert_eq!(world.fill("user", &second, Some("new")).await, Ok(Filled::Written));
}

#[tokio::test]
async fn whatever_comes_in_between_voids_the_token() {
    for between in [ChangeKind::Put, ChangeKind::Delete, ChangeKind::Invalidate] {
        let world = World::new(all()).await;
        let token = world.take("user").await;
        assert_eq!(world.apply(&change("user", 5, between)).await, Ok(Outcome::Applied));
        let left = world.kind_and_floor("user").await;
        assert_eq!(world.fill("user", &token, Some("old")).await, Ok(Filled::Refused));
        assert_eq!(world.kind_and_floor("user").await, left, "{between:?}");
    }
    let world = World::new(all()).await;
    let token = world.take("user").await;
    assert_eq!(world.invalidate("user").await, Ok(Invalidated::Done));
    assert_eq!(world.fill("user", &token, Some("old")).await, Ok(Filled::Refused));
    let token = world.take("user").await;
    let _: () = world.server.admin().await.del(redis_key("user")).await.unwrap();
    assert_eq!(world.fill("user", &token, Some("old")).await, Ok(Filled::Refused));
}

#[tokio::test]
async fn a_fill_keeps_the_floor_so_that_older_changes_stay_stale() {
    let world = World::new(all()).await;
    assert_eq!(world.apply(&put("user", 5)).await, Ok(Outcome::Applied));
    assert_eq!(world.invalidate("user").await, Ok(Invalidated::Done));
    assert_eq!(world.kind_and_floor("user").await, Some((EntryKind::Invalid, position(5))));
    world.assert_stays("user", FLOOR_TTL).await;
    let token = world.take("user").await;
    world.assert_stays("user", FLOOR_TTL).await;
    assert_eq!(world.fill("user", &token, Some("item")).await, Ok(Filled::Written));
    assert_eq!(world.kind_and_floor("user").await, Some((EntryKind::Filled, position(5))));
    assert_eq!(world.left("user").await, None);
    assert_eq!(world.apply(&put("user", 5)).await, Ok(Outcome::Stale));
    // Rule 4, plain: a change that the fill may have seen is applied all the same.
    assert_eq!(world.apply(&put("user", 6)).await, Ok(Outcome::Applied));
}

#[tokio::test]
async fn what_the_master_does_not_have_is_believed_for_a_while() {
    let world = World::new(TablePolicy { negative_ttl: Duration::from_secs(40), ..all() }).await;
    let token = world.take("user").await;
    assert_eq!(world.fill("user", &token, None).await, Ok(Filled::Written));
    let (header, payload) = world.entry("user").await.unwrap();
    assert_eq!((header.kind(), header.expires_ms()), (EntryKind::Negative, Some(token.taken_ms() + 40_000)));
    assert!(payload.is_empty());
    world.assert_stays("user", Duration::from_secs(40)).await;
    assert!(matches!(world.acquire("user", HOLD).await, Ok(Acquired::Present(_))));

    // Over a floor it stays for as long as the floor must, and gives way to the next fill when it is over.
    let world = World::new(TablePolicy { negative_ttl: Duration::from_millis(1), ..all() }).await;
    assert_eq!(world.apply(&put("user", 5)).await, Ok(Outcome::Applied));
    assert_eq!(world.invalidate("user").await, Ok(Invalidated::Done));
    let token = world.take("user").await;
    assert_eq!(world.fill("user", &token, None).await, Ok(Filled::Written));
    world.assert_stays("user", FLOOR_TTL).await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    let _ = world.take("user").await;
    assert_eq!(world.kind_and_floor("user").await, Some((EntryKind::Held, position(5))));
}

#[tokio::test]
async fn in_strict_mode_a_change_that_the_fill_saw_raises_the_floor_only() {
    let margin = Duration::from_secs(3);
    let world = World::new(TablePolicy { strict_margin: Some(margin), ..all() }).await;
    let minute = Duration::from_mins(1);
    let token = world.take("item").await;
    assert_eq!(world.fill("item", &token, Some("newest")).await, Ok(Filled::Written));
    assert_eq!(world.apply(&created_before(minute, put("item", 5))).await, Ok(Outcome::Covered));
    let (header, payload) = world.entry("item").await.unwrap();
    assert_eq!(
        (header.kind(), header.position(), payload),
        (EntryKind::Filled, position(5), "newest".into())
    );
    assert_eq!(world.apply(&created_before(minute, put("item", 4))).await, Ok(Outcome::Stale));
    assert_eq!(world.apply(&put("item", 6)).await, Ok(Outcome::Applied));

    // A floor stays, however short-lived the entry was that it is raised in.
    let token = world.take("nothing").await;
    assert_eq!(world.fill("nothing", &token, None).await, Ok(Filled::Written));
    let deleted = created_before(minute, change("nothing", 5, ChangeKind::Delete));
    assert_eq!(world.apply(&deleted).await, Ok(Outcome::Covered));
    world.assert_stays("nothing", FLOOR_TTL).await;
}

#[tokio::test]
async fn a_table_that_caches_what_is_read_keeps_it_current_and_skips_the_rest() {
    let world = World::new(TablePolicy { write: WritePolicy::Present, ..all() }).await;
    assert_eq!(world.apply(&put("user", 5)).await, Ok(Outcome::Skipped));
    assert_eq!(world.entry("user").await, None);

    // A change while the key is held: it may be an old one delivered again, so only its floor is kept.
    let token = world.take("user").await;
    assert_eq!(world.apply(&put("user", 4)).await, Ok(Outcome::Applied));
    assert_eq!(world.kind_and_floor("user").await, Some((EntryKind::Invalid, position(4))));
    assert_eq!(world.fill("user", &token, Some("old")).await, Ok(Filled::Refused));

    let token = world.take("user").await;
    assert_eq!(world.fill("user", &token, Some("item at 5")).await, Ok(Filled::Written));
    let minute = Duration::from_mins(1);
    assert_eq!(world.apply(&created_before(minute, put("user", 5))).await, Ok(Outcome::Covered));
    // About the time of the read: the fill may have seen it or not.
    assert_eq!(world.apply(&put("user", 6)).await, Ok(Outcome::Applied));
    assert_eq!(world.kind_and_floor("user").await, Some((EntryKind::Invalid, position(6))));

    let token = world.take("user").await;
    assert_eq!(world.fill("user", &token, Some("item at 6")).await, Ok(Filled::Written));
    let later = Change { created_ms: now_ms() + 10_000, ..put("user", 7) };
    assert_eq!(world.apply(&later).await, Ok(Outcome::Applied));
    assert_eq!(world.kind_and_floor("user").await, Some((EntryKind::Live, position(7))));
    assert_eq!(world.apply(&put("user", 8)).await, Ok(Outcome::Applied));
    assert_eq!(world.kind_and_floor("user").await, Some((EntryKind::Live, position(8))));
    let refused = world.backfill("other", ReadStart::now()).await;
    assert!(matches!(refused, Err(CacheError::Refused { refusal: Refusal::NotBackfilled, .. })));
}

#[tokio::test]
async fn a_backfill_writes_only_where_nothing_is() {
    let world = World::new(all()).await;
    let read = ReadStart::now();
    assert_eq!(world.backfill("user", read).await, Ok(Backfilled::Written));
    let (header, payload) = world.entry("user").await.unwrap();
    assert_eq!(
        (header.kind(), header.position(), payload),
        (EntryKind::Filled, Position::ZERO, "of a page".into())
    );
    assert!(header.time_ms() <= now_ms() && header.time_ms() + 60_000 > now_ms());
    assert_eq!(world.backfill("user", read).await, Ok(Backfilled::Occupied));
    assert_eq!(world.apply(&change("gone", 5, ChangeKind::Delete)).await, Ok(Outcome::Applied));
    assert_eq!(world.backfill("gone", read).await, Ok(Backfilled::Occupied));
    let _ = world.take("held").await;
    assert_eq!(world.backfill("held", read).await, Ok(Backfilled::Occupied));
}

#[tokio::test]
async fn invalidating_what_is_not_there_leaves_nothing() {
    let world = World::new(all()).await;
    assert_eq!(world.invalidate("user").await, Ok(Invalidated::Nothing));
    assert_eq!(world.entry("user").await, None);
}

#[tokio::test]
async fn values_that_are_not_ours_are_refused_by_every_operation() {
    let world = World::new(all()).await;
    let token = world.take("other").await;
    let mut admin = world.server.admin().await;
    let _: () = admin.set(redis_key("user"), "hello").await.unwrap();
    let is_foreign = |error| matches!(error, CacheError::Refused { refusal: Refusal::ForeignValue, .. });
    assert!(is_foreign(world.acquire("user", HOLD).await.unwrap_err()));
    assert!(is_foreign(world.fill("user", &token, None).await.unwrap_err()));
    assert!(is_foreign(world.invalidate("user").await.unwrap_err()));
    assert!(is_foreign(world.backfill("user", ReadStart::now()).await.unwrap_err()));
    assert_eq!(admin.get::<_, String>(redis_key("user")).await.unwrap(), "hello");
}

#[tokio::test]
async fn keys_that_no_item_can_have_are_refused_and_nothing_is_written() {
    let world = World::new(all()).await;
    let mut admin = world.server.admin().await;
    let before: Vec<String> = redis::cmd("KEYS").arg("*").query_async(&mut admin).await.unwrap();
    let long = vec![b'k'; 8_000];
    for (table, key) in [("warmcast", &b"watermark"[..]), ("warmcast", b"marker:{1}"), (TABLE, &long)] {
        let is_refused = |error: &CacheError| {
            matches!(error, CacheError::Refused { refusal: Refusal::OwnKey | Refusal::KeyTooLong { .. }, .. })
        };
        let change = Change {
            table: table.into(),
            key: Bytes::copy_from_slice(key),
            position: Position::new(1, "1".parse().unwrap()).unwrap(),
            kind: ChangeKind::Put,
            created_ms: now_ms(),
            payload: Bytes::from_static(b"x"),
        };
        let item = ItemRef { table, key };
        assert!(is_refused(&world.apply(&change).await.unwrap_err()));
        assert!(is_refused(world.cache.acquire(&[item], HOLD).await[0].as_ref().unwrap_err()));
        assert!(is_refused(world.cache.invalidate(&[item]).await[0].as_ref().unwrap_err()));
        let backfill = Backfill { item, found: shaped("x"), read: ReadStart::now() };
        assert!(is_refused(world.cache.backfill(&[backfill]).await[0].as_ref().unwrap_err()));
    }
    let after: Vec<String> = redis::cmd("KEYS").arg("*").query_async(&mut admin).await.unwrap();
    assert_eq!(after, before);
}

#[tokio::test]
async fn every_script_that_was_lost_is_loaded_again() {
    let world = World::new(all()).await;
    let mut admin = world.server.admin().await;
    let mut flush = async || {
        let _: () = redis::cmd("SCRIPT").arg("FLUSH").query_async(&mut admin).await.unwrap();
    };
    flush().await;
    let token = world.take("user").await;
    flush().await;
    assert_eq!(world.fill("user", &token, None).await, Ok(Filled::Written));
    flush().await;
    assert_eq!(world.invalidate("user").await, Ok(Invalidated::Done));
    flush().await;
    assert_eq!(world.backfill("user", ReadStart::now()).await, Ok(Backfilled::Occupied));
    flush().await;
    assert_eq!(world.cache.publish_watermark(7).await, Ok(()));
}
