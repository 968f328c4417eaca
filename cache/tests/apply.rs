//! Changes applied to a real server.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking, also in its helpers"
)]

#[expect(dead_code, reason = "other tests need more of it")]
mod support;

use std::{
    collections::HashMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use redis::AsyncCommands as _;
use support::RedisServer;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinSet,
    time::Instant,
};
use warmcast_cache::{
    Address, Cache, CacheConfig, CacheError, ConnectError, EntryReads, Outcome, ReadFrom, Refusal, Servers,
    TablePolicy, Tables, WATERMARK_KEY,
    policy::{CREATE_AGE_MAX, FLOOR_TTL, PayloadForm},
};
use warmcast_proto::{
    change::{Change, ChangeKind},
    entry::{EntryHeader, EntryKind},
    item::{self, Item, Value},
    key::cache_key,
    position::Position,
    sequence::Sequence,
};

const PREFIX: &str = "wc:";
const TABLE: &str = "profiles";

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis().try_into().unwrap()
}

fn position(generation: u32, sequence: &str) -> Position {
    Position::new(generation, sequence.parse().unwrap()).unwrap()
}

fn at(position: Position, key: &str, kind: ChangeKind) -> Change {
    let payload =
        if kind == ChangeKind::Put { Bytes::from(format!("item at {position}")) } else { Bytes::new() };
    Change { table: TABLE.into(), key: key.to_owned().into(), position, kind, created_ms: now_ms(), payload }
}

fn put(key: &str, sequence: &str) -> Change {
    at(position(1, sequence), key, ChangeKind::Put)
}

fn delete(key: &str, sequence: &str) -> Change {
    at(position(1, sequence), key, ChangeKind::Delete)
}

fn redis_key(key: &str) -> Vec<u8> {
    cache_key(PREFIX, TABLE, key.as_bytes())
}

/// What a reader finds: kind, floor, payload.
async fn entry(reads: &EntryReads, key: &str) -> Option<(EntryKind, Position, Bytes)> {
    let [value] = reads.get_many(&[redis_key(key)]).await.try_into().unwrap();
    value.unwrap().map(|value| {
        let (header, payload) = EntryHeader::decode(&value).unwrap();
        (header.kind(), header.position(), Bytes::copy_from_slice(payload))
    })
}

/// All tables are cached like this.
fn with_policy(config: CacheConfig, policy: TablePolicy) -> CacheConfig {
    CacheConfig { tables: Tables { default: policy, ..Tables::default() }, ..config }
}

fn is_unavailable(answer: &Result<Outcome, CacheError>, because: &str) -> bool {
    matches!(answer, Err(error @ CacheError::Unavailable { reason, .. })
        if reason.contains(because) && error.is_retryable())
}

fn is_foreign(answer: &Result<Outcome, CacheError>) -> bool {
    matches!(answer, Err(error @ CacheError::Refused { refusal: Refusal::ForeignValue, .. }) if !error.is_retryable())
}

use Outcome::{Applied, LeftAbsent, Stale};

async fn apply(cache: &Cache, changes: &[Change]) -> Vec<Result<Outcome, CacheError>> {
    cache.apply(&changes.iter().collect::<Vec<_>>()).await
}

#[tokio::test]
async fn a_change_is_applied_once_and_only_over_older_ones() {
    let server = RedisServer::start();
    let cache = Cache::connect(server.config()).await.unwrap();
    let reads = EntryReads::connect(server.config(), ReadFrom::Primary).await.unwrap();
    let (first, second, third) = (put("user", "100"), put("user", "101"), put("user", "102"));

    assert_eq!(
        apply(&cache, &[second.clone(), second.clone(), first]).await,
        [Ok(Applied), Ok(Stale), Ok(Stale)]
    );
    assert_eq!(entry(&reads, "user").await, Some((EntryKind::Live, second.position, second.payload)));
    assert_eq!(apply(&cache, std::slice::from_ref(&third)).await, [Ok(Applied)]);
    assert_eq!(entry(&reads, "user").await, Some((EntryKind::Live, third.position, third.payload)));
    assert_eq!(apply(&cache, &[]).await, []);
}

#[tokio::test]
async fn a_tombstone_refuses_an_older_put_and_gives_way_to_a_newer_one() {
    let server = RedisServer::start();
    let cache = Cache::connect(server.config()).await.unwrap();
    let reads = EntryReads::connect(server.config(), ReadFrom::Primary).await.unwrap();
    let gone = delete("user", "200");

    assert_eq!(apply(&cache, &[gone.clone(), put("user", "199")]).await, [Ok(Applied), Ok(Stale)]);
    assert_eq!(entry(&reads, "user").await, Some((EntryKind::Tombstone, gone.position, Bytes::new())));
    let again = put("user", "201");
    assert_eq!(apply(&cache, std::slice::from_ref(&again)).await, [Ok(Applied)]);
    assert_eq!(entry(&reads, "user").await, Some((EntryKind::Live, again.position, again.payload)));
}

#[tokio::test]
async fn each_kind_of_change_leaves_its_entry_and_its_time_to_live() {
    let server = RedisServer::start();
    let policy = TablePolicy { live_ttl: Some(Duration::from_mins(10)), ..TablePolicy::default() };
    let config = with_policy(server.config(), policy);
    let cache = Cache::connect(config).await.unwrap();
    let forever = Cache::connect(server.config()).await.unwrap();
    let reads = EntryReads::connect(server.config(), ReadFrom::Primary).await.unwrap();
    let mut admin = server.admin().await;
    let p = position(1, "7");
    for (key, kind, expected, ttl) in [
        ("put", ChangeKind::Put, EntryKind::Live, Duration::from_mins(10)),
        ("delete", ChangeKind::Delete, EntryKind::Tombstone, FLOOR_TTL),
        ("expire", ChangeKind::Expire, EntryKind::Tombstone, FLOOR_TTL),
        ("invalidate", ChangeKind::Invalidate, EntryKind::Invalid, FLOOR_TTL),
    ] {
        let change = at(p, key, kind);
        assert_eq!(apply(&cache, std::slice::from_ref(&change)).await, [Ok(Applied)]);
        assert_eq!(entry(&reads, key).await, Some((expected, p, change.payload)));
        let left_ms: u64 = admin.pttl(redis_key(key)).await.unwrap();
        let ttl_ms = u64::try_from(ttl.as_millis()).unwrap();
        assert!(left_ms <= ttl_ms && left_ms > ttl_ms - 60_000, "{key}: {left_ms} of {ttl_ms} ms left");
    }
    // A tombstone's end must not become the end of the item that takes its place.
    assert_eq!(apply(&forever, &[put("delete", "8")]).await, [Ok(Applied)]);
    assert_eq!(admin.pttl::<_, i64>(redis_key("delete")).await.unwrap(), -1);
}

/// Positions that doubles, or texts of unequal width, get wrong.
const NEIGHBOURS: [&str; 9] = [
    "99999999999999999999",
    "100000000000000000000",
    "100000000000000000001",
    "100000000000000000002",
    "340282366920938463463374607431768211455",
    "340282366920938463463374607431768211456",
    "999999999999999999999999999999999999999",
    "9999999999999999999999999999999999999998",
    "9999999999999999999999999999999999999999",
];

async fn assert_neighbours_are_ordered(server: &RedisServer) {
    let cache = Cache::connect(server.config()).await.unwrap();
    for (index, [lower, upper]) in NEIGHBOURS.array_windows().enumerate() {
        let key = format!("user-{index}");
        let changes = [put(&key, lower), put(&key, upper), put(&key, lower), put(&key, upper)];
        assert_eq!(
            apply(&cache, &changes).await,
            [Ok(Applied), Ok(Applied), Ok(Stale), Ok(Stale)],
            "{lower} {upper}"
        );
    }
    let older = at(position(35, NEIGHBOURS[8]), "generations", ChangeKind::Put);
    let newer = at(position(36, NEIGHBOURS[0]), "generations", ChangeKind::Put);
    assert_eq!(apply(&cache, &[older.clone(), newer, older]).await, [Ok(Applied), Ok(Applied), Ok(Stale)]);
}

#[tokio::test]
async fn neighbouring_positions_are_told_apart() {
    assert_neighbours_are_ordered(&RedisServer::start()).await;
}

#[tokio::test]
async fn the_servers_locale_makes_no_difference() {
    // en_US sorts 'a' before 'B', unlike bytes. It is compiled here, because few machines have it.
    let locales = tempfile::tempdir().unwrap();
    let compiled = std::process::Command::new("localedef")
        .args(["-i", "en_US", "-f", "UTF-8"])
        .arg(locales.path().join("en_US.UTF-8"))
        .status()
        .is_ok_and(|status| status.success());
    let mut collations = vec!["C", "C.UTF-8"];
    if compiled {
        collations.push("en_US.UTF-8");
    } else {
        println!("without en_US.UTF-8: localedef or the package `locales` is not installed");
    }
    for collation in collations {
        let mut environment = vec![("LC_ALL", collation)];
        if collation == "en_US.UTF-8" {
            environment.push(("LOCPATH", locales.path().to_str().unwrap()));
        }
        let server = RedisServer::start_with(&[], &environment);
        let script = redis::Script::new("return ('a' < 'B') and 1 or 0");
        let sorts_as_words: bool = script.invoke_async(&mut server.admin().await).await.unwrap();
        assert_eq!(sorts_as_words, collation == "en_US.UTF-8", "the server does not use {collation}");
        assert_neighbours_are_ordered(&server).await;
    }
}

fn created_before(age: Duration, mut change: Change) -> Change {
    change.created_ms = now_ms() - u64::try_from(age.as_millis()).unwrap();
    change
}

#[tokio::test]
async fn a_change_too_old_creates_no_entry_but_updates_one_with_a_floor() {
    let server = RedisServer::start();
    let cache = Cache::connect(server.config()).await.unwrap();
    let reads = EntryReads::connect(server.config(), ReadFrom::Primary).await.unwrap();
    let minute = Duration::from_mins(1);
    let too_old = CREATE_AGE_MAX + minute;

    assert_eq!(apply(&cache, &[created_before(too_old, put("absent", "5"))]).await, [Ok(LeftAbsent)]);
    assert_eq!(entry(&reads, "absent").await, None);
    assert_eq!(
        apply(&cache, &[created_before(CREATE_AGE_MAX - minute, put("absent", "5"))]).await,
        [Ok(Applied)]
    );

    let older = created_before(too_old, put("present", "4"));
    let newer = created_before(too_old, put("present", "6"));
    assert_eq!(
        apply(&cache, &[put("present", "5"), older, newer]).await,
        [Ok(Applied), Ok(Stale), Ok(Applied)]
    );
}

#[tokio::test]
async fn a_change_too_old_removes_an_entry_without_a_floor_for_nothing_proves_which_is_newer() {
    let server = RedisServer::start();
    let cache = Cache::connect(server.config()).await.unwrap();
    let reads = EntryReads::connect(server.config(), ReadFrom::Primary).await.unwrap();
    let mut admin = server.admin().await;
    let now_ms = now_ms();
    let headers = [EntryKind::Held, EntryKind::Filled, EntryKind::Invalid]
        .map(|kind| EntryHeader::new(kind, Position::ZERO, now_ms).unwrap());
    let negative = EntryHeader::expiring(EntryKind::Negative, Position::ZERO, now_ms, now_ms).unwrap();
    for header in headers.into_iter().chain([negative]) {
        let kind = header.kind();
        let value = [header.encode().as_ref(), b"token"].concat();
        let _: () = admin.set(redis_key("filled"), &value).await.unwrap();
        assert_eq!(
            apply(&cache, &[created_before(CREATE_AGE_MAX * 2, put("filled", "5"))]).await,
            [Ok(LeftAbsent)]
        );
        assert_eq!(entry(&reads, "filled").await, None, "{kind:?}");

        let _: () = admin.set(redis_key("filled"), &value).await.unwrap();
        let change = put("filled", "6");
        assert_eq!(apply(&cache, std::slice::from_ref(&change)).await, [Ok(Applied)], "{kind:?}");
        assert_eq!(entry(&reads, "filled").await, Some((EntryKind::Live, change.position, change.payload)));
        let _: () = admin.del(redis_key("filled")).await.unwrap();
    }
}

#[tokio::test]
async fn a_lost_script_is_loaded_again() {
    let server = RedisServer::start();
    let cache = Cache::connect(server.config()).await.unwrap();
    let mut admin = server.admin().await;
    for sequence in 1..=3 {
        let _: () = redis::cmd("SCRIPT").arg("FLUSH").query_async(&mut admin).await.unwrap();
        let changes: Vec<Change> =
            (0..300).map(|user| put(&format!("user-{user}"), &sequence.to_string())).collect();
        assert!(apply(&cache, &changes).await.iter().all(|answer| *answer == Ok(Applied)));
    }
}

#[tokio::test]
async fn values_that_are_not_ours_are_left_alone_and_harm_no_neighbour() {
    let server = RedisServer::start();
    let cache = Cache::connect(server.config()).await.unwrap();
    let reads = EntryReads::connect(server.config(), ReadFrom::Primary).await.unwrap();
    let mut admin = server.admin().await;
    let entry_of_a_newer_version = format!("2l{}", "0".repeat(38));
    let almost_an_entry = format!("1l{}", "A".repeat(38));
    let _: () = admin.rpush(redis_key("list"), "element").await.unwrap();
    let _: () = admin.set(redis_key("text"), "hello").await.unwrap();
    let _: () = admin.set(redis_key("newer"), &entry_of_a_newer_version).await.unwrap();
    let _: () = admin.set(redis_key("almost"), &almost_an_entry).await.unwrap();

    let users = ["before", "list", "text", "between", "newer", "almost", "after"];
    let answers = apply(&cache, &users.map(|user| put(user, "5"))).await;
    for (user, answer) in users.iter().zip(&answers) {
        match *user {
            "before" | "between" | "after" => {
                assert_eq!(*answer, Ok(Applied), "{user}");
                assert!(entry(&reads, user).await.is_some());
            }
            _ => assert!(is_foreign(answer), "{user}: {answer:?}"),
        }
    }
    assert_eq!(admin.lrange::<_, Vec<String>>(redis_key("list"), 0, -1).await.unwrap(), ["element"]);
    assert_eq!(admin.get::<_, String>(redis_key("text")).await.unwrap(), "hello");
    assert_eq!(admin.get::<_, String>(redis_key("newer")).await.unwrap(), entry_of_a_newer_version);
    assert_eq!(admin.get::<_, String>(redis_key("almost")).await.unwrap(), almost_an_entry);
}

#[tokio::test]
async fn an_entry_above_the_bound_is_refused_and_harms_no_neighbour() {
    let server = RedisServer::start();
    let cache = Cache::connect(CacheConfig { value_bytes_max: 1_000, ..server.config() }).await.unwrap();
    let large = Change { payload: vec![7; 1_000].into(), ..put("large", "5") };
    let [first, refused, last] =
        apply(&cache, &[put("a", "5"), large, put("b", "5")]).await.try_into().unwrap();
    assert_eq!((first, last), (Ok(Applied), Ok(Applied)));
    assert!(matches!(
        refused,
        Err(CacheError::Refused { refusal: Refusal::TooLarge { len: 1_040, len_max: 1_000 }, .. })
    ));
}

#[tokio::test]
async fn large_payloads_of_any_bytes_arrive_whole() {
    let server = RedisServer::start();
    let cache = Cache::connect(server.config()).await.unwrap();
    let reads = EntryReads::connect(server.config(), ReadFrom::Primary).await.unwrap();
    let payload: Bytes = (0..400_000u32).map(|index| (index % 256) as u8).collect();
    let changes: Vec<Change> = (0..10)
        .map(|user| Change { payload: payload.clone(), ..put(&format!("user-{user}"), "5") })
        .collect();
    assert_eq!(apply(&cache, &changes).await, vec![Ok(Applied); 10]);
    for user in 0..10 {
        let (_, _, stored) = entry(&reads, &format!("user-{user}")).await.unwrap();
        assert!(stored == payload);
    }
}

#[tokio::test]
async fn a_change_past_its_deadline_is_not_applied() {
    let server = RedisServer::start();
    let late =
        Cache::connect(CacheConfig { apply_deadline: Duration::ZERO, ..server.config() }).await.unwrap();
    let reads = EntryReads::connect(server.config(), ReadFrom::Primary).await.unwrap();
    let answers = apply(&late, &[put("user", "5"), delete("user", "6")]).await;
    assert!(answers.iter().all(
        |answer| matches!(answer, Err(error @ CacheError::PastDeadline { .. }) if error.is_retryable())
    ));
    assert_eq!(entry(&reads, "user").await, None);
}

#[tokio::test]
async fn nothing_lands_after_the_leases_are_lost() {
    let server = RedisServer::start();
    let cache = Cache::connect(server.config()).await.unwrap();
    let reads = EntryReads::connect(server.config(), ReadFrom::Primary).await.unwrap();
    let mut admin = server.admin().await;

    cache.hold_until(Instant::now() + Duration::from_secs(10));
    assert_eq!(apply(&cache, &[put("user", "5")]).await, [Ok(Applied)]);
    // Held when the call begins, and no more when the server gets to it.
    let pause = redis::cmd("CLIENT").arg("PAUSE").arg(600).arg("ALL").to_owned();
    let _: () = pause.query_async(&mut admin).await.unwrap();
    cache.hold_until(Instant::now() + Duration::from_millis(200));
    let answers = apply(&cache, &[put("user", "6")]).await;
    assert!(matches!(answers.as_slice(), [Err(CacheError::PastDeadline { .. })]), "{answers:?}");
    // And not when the call begins: a process that was stopped before it called.
    let answers = apply(&cache, &[put("user", "7")]).await;
    assert!(matches!(answers.as_slice(), [Err(CacheError::PastDeadline { .. })]), "{answers:?}");
    assert!(matches!(cache.publish_watermark(1).await, Err(CacheError::PastDeadline { .. })));
    assert_eq!(entry(&reads, "user").await.unwrap().1, position(1, "5"));

    cache.hold_until(Instant::now() + Duration::from_secs(10));
    assert_eq!(apply(&cache, &[put("user", "6")]).await, [Ok(Applied)]);
}

#[tokio::test]
async fn the_watermark_is_where_readers_look_for_it() {
    let server = RedisServer::start();
    let cache = Cache::connect(server.config()).await.unwrap();
    let mut admin = server.admin().await;
    for watermark_ms in [1_784_000_000_000, 1_784_000_000_001] {
        cache.publish_watermark(watermark_ms).await.unwrap();
        let published: u64 = admin.get(format!("{PREFIX}{WATERMARK_KEY}")).await.unwrap();
        assert_eq!(published, watermark_ms);
    }
}

#[tokio::test]
async fn entries_are_shaped_as_their_tables_policies_say() {
    let server = RedisServer::start();
    let policy = TablePolicy {
        payload: PayloadForm::Attribute("blob".to_owned()),
        expiry_attribute: Some("ttl".to_owned()),
        key_prefix: Some("own:".to_owned()),
        ..TablePolicy::default()
    };
    let cache = Cache::connect(with_policy(server.config(), policy)).await.unwrap();
    let mut admin = server.admin().await;
    let item = |attributes: &[(&str, Value)]| {
        let attributes = attributes.iter().map(|(name, value)| ((*name).to_owned(), value.clone().into()));
        item::encode(&Item { attributes: attributes.collect() })
    };
    let blob = ("blob", Value::B(Bytes::from_static(b"\x00\xff")));
    let shaped =
        Change { payload: item(&[blob.clone(), ("ttl", Value::N("1".to_owned()))]), ..put("user", "5") };
    let without = Change { payload: item(&[]), ..put("user", "6") };
    let [applied, refused] = apply(&cache, &[shaped.clone(), without.clone()]).await.try_into().unwrap();
    assert_eq!(applied, Ok(Applied));
    assert!(matches!(refused, Err(CacheError::Refused { refusal: Refusal::Shape(_), .. })), "{refused:?}");
    // Expired long ago: written all the same, to refuse what is older, and only for as long as that takes.
    let key = cache_key("own:", TABLE, b"user");
    let value: Vec<u8> = admin.get(&key).await.unwrap();
    let (header, payload) = EntryHeader::decode(&value).unwrap();
    assert_eq!(
        (header.position(), header.expires_ms(), payload),
        (shaped.position, Some(1_000), [0, 255].as_slice())
    );
    let left_ms: u128 = admin.pttl::<_, u64>(&key).await.unwrap().into();
    assert!(left_ms <= FLOOR_TTL.as_millis() && left_ms > FLOOR_TTL.as_millis() - 60_000, "{left_ms}");

    let invalid = Change { kind: ChangeKind::Invalidate, payload: Bytes::new(), ..without };
    assert_eq!(apply(&cache, &[invalid]).await, [Ok(Applied)]);
}

#[tokio::test]
async fn a_change_that_a_slow_server_gets_to_after_the_deadline_is_not_applied() {
    let server = RedisServer::start();
    let config = CacheConfig { apply_deadline: Duration::from_millis(300), ..server.config() };
    let cache = Cache::connect(config).await.unwrap();
    let reads = EntryReads::connect(server.config(), ReadFrom::Primary).await.unwrap();
    let mut admin = server.admin().await;
    let _: () =
        redis::cmd("CLIENT").arg("PAUSE").arg(1_000).arg("ALL").query_async(&mut admin).await.unwrap();
    let change = put("user", "5");
    let answers = apply(&cache, std::slice::from_ref(&change)).await;
    assert!(matches!(answers.as_slice(), [Err(CacheError::PastDeadline { .. })]), "{answers:?}");
    assert_eq!(entry(&reads, "user").await, None);
    assert_eq!(apply(&cache, &[change]).await, [Ok(Applied)]);
}

#[tokio::test]
async fn a_server_that_does_not_answer_in_time_is_unavailable_and_then_used_again() {
    let server = RedisServer::start();
    let config =
        CacheConfig { response_timeout: Duration::from_millis(300), connections: 1, ..server.config() };
    let cache = Cache::connect(config).await.unwrap();
    let mut admin = server.admin().await;
    let _: () =
        redis::cmd("CLIENT").arg("PAUSE").arg(60_000).arg("WRITE").query_async(&mut admin).await.unwrap();
    let answers = apply(&cache, &[put("user", "5"), put("user", "6")]).await;
    assert!(answers.iter().all(|answer| is_unavailable(answer, "no answer in time")), "{answers:?}");
    let _: () = redis::cmd("CLIENT").arg("UNPAUSE").query_async(&mut admin).await.unwrap();
    // The first may have been executed when the pause ended: either way the second is the newest.
    assert_eq!(apply(&cache, &[put("user", "7")]).await, [Ok(Applied)]);
}

#[tokio::test]
async fn a_dead_server_is_unavailable_and_after_its_restart_used_again() {
    let mut server = RedisServer::start();
    let cache = Cache::connect(CacheConfig { connections: 2, ..server.config() }).await.unwrap();
    assert_eq!(apply(&cache, &[put("user", "5")]).await, [Ok(Applied)]);
    server.kill();
    for _ in 0..4 {
        let answers = apply(&cache, &[put("user", "6"), put("user", "7")]).await;
        assert!(answers.iter().all(|answer| is_unavailable(answer, "")), "{answers:?}");
    }
    assert!(server.run());
    // It has lost entries and scripts. One call may find a connection that broke without notice.
    let changes = [put("user", "6"), put("user", "7")];
    let mut answers = apply(&cache, &changes).await;
    if answers.iter().all(|answer| is_unavailable(answer, "")) {
        answers = apply(&cache, &changes).await;
    }
    assert_eq!(answers, [Ok(Applied), Ok(Applied)]);
}

/// Passes bytes on to the server. Once told so, it cuts the connection after so many bytes of answers more.
async fn serve_cut(listener: TcpListener, server_port: u16, mut cut: oneshot::Receiver<usize>) {
    let (mut client, _) = listener.accept().await.unwrap();
    let mut server = TcpStream::connect(("127.0.0.1", server_port)).await.unwrap();
    let (mut from_client, mut from_server) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut answer_bytes = None;
    loop {
        tokio::select! {
            bytes = &mut cut, if answer_bytes.is_none() => answer_bytes = Some(bytes.unwrap()),
            read = client.read(&mut from_client) => match read.unwrap() {
                0 => return,
                len => server.write_all(&from_client[..len]).await.unwrap(),
            },
            read = server.read(&mut from_server) => {
                let len = read.unwrap().min(answer_bytes.unwrap_or(usize::MAX));
                client.write_all(&from_server[..len]).await.unwrap();
                answer_bytes = answer_bytes.map(|bytes| bytes - len);
                if answer_bytes == Some(0) {
                    return;
                }
            }
        }
    }
}

#[tokio::test]
async fn a_pipeline_whose_answers_are_cut_off_is_never_taken_for_done() {
    let server = RedisServer::start();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut tasks = JoinSet::new();
    let (cut, told) = oneshot::channel();
    tasks.spawn(serve_cut(listener, server.port, told));
    let servers = Servers::Standalone(Address::Tcp { host: "127.0.0.1".to_owned(), port });
    let config = CacheConfig { servers, connections: 1, pipeline_entries_max: 50, ..server.config() };
    let through_proxy = Cache::connect(config).await.unwrap();
    let changes: Vec<Change> = (0..500).map(|user| put(&format!("user-{user}"), "5")).collect();

    // Some of the 50 answers of 4 bytes each, of the third pipeline at the latest.
    cut.send(500).unwrap();
    let answers = apply(&through_proxy, &changes).await;
    tasks.join_next().await.unwrap().unwrap();
    let answered = answers.iter().take_while(|answer| **answer == Ok(Applied)).count();
    assert!(answered % 50 == 0 && answered < 500, "{answered} answers");
    assert!(answers[answered..].iter().all(|answer| is_unavailable(answer, "")));

    let direct = Cache::connect(server.config()).await.unwrap();
    let again = apply(&direct, &changes).await;
    // The cut pipeline had been applied, although nobody heard of it.
    let stale = again.iter().take_while(|answer| **answer == Ok(Stale)).count();
    assert_eq!(stale, answered + 50);
    assert!(again[stale..].iter().all(|answer| *answer == Ok(Applied)));
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named() {
    let mut server = RedisServer::start();
    server.kill();
    let error = Cache::connect(server.config()).await.err().unwrap();
    assert!(matches!(error, ConnectError::Unreachable { .. }) && error.is_retryable(), "{error}");
    assert!(error.to_string().contains(&format!("127.0.0.1:{}", server.port)), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_the_order_and_however_often_the_newest_change_of_each_key_wins() {
    let server = RedisServer::start();
    let cache = Cache::connect(server.config()).await.unwrap();
    let reads = EntryReads::connect(server.config(), ReadFrom::Primary).await.unwrap();
    const USERS: usize = 20;
    const CHANGES: usize = 400;
    let changes: Vec<Change> = (0..CHANGES)
        .map(|index| {
            let kind = if index % 7 == 3 { ChangeKind::Delete } else { ChangeKind::Put };
            at(
                position(1, &format!("{}", 10_u128.pow(21) + index as u128)),
                &format!("user-{}", index % USERS),
                kind,
            )
        })
        .collect();
    let mut writers = JoinSet::new();
    for writer in 0..8 {
        let (cache, changes) = (cache.clone(), changes.clone());
        writers.spawn(async move {
            // Another order for each writer: strides that share no factor with the number of changes.
            let stride = [1, 3, 7, 9, 11, 13, 399, 397][writer];
            let mut shuffled = Vec::new();
            for index in 0..CHANGES {
                shuffled.push(changes[(index * stride + writer * 50) % CHANGES].clone());
            }
            let mut applied = 0;
            for batch in shuffled.chunks(17) {
                for answer in apply(&cache, batch).await {
                    applied += usize::from(answer.unwrap() == Applied);
                }
            }
            applied
        });
    }
    let applied: usize = writers.join_all().await.into_iter().sum();
    assert!((USERS..=CHANGES).contains(&applied), "no change is applied twice: {applied}");
    for user in 0..USERS {
        let newest = &changes[CHANGES - USERS + user];
        let (_, floor, payload) = entry(&reads, &format!("user-{user}")).await.unwrap();
        assert_eq!((floor, payload), (newest.position, newest.payload.clone()));
    }
}

/// One step of the model test.
#[derive(Clone, Debug)]
enum Step {
    Apply(Vec<Change>),
    Evict(String),
    FlushScripts,
}

fn any_step() -> impl Strategy<Value = Step> {
    let sequence = prop_oneof![
        prop::sample::select(NEIGHBOURS.as_slice()).prop_map(|text| text.parse::<Sequence>().unwrap()),
        (1..6u32).prop_map(|number| number.to_string().parse().unwrap()),
    ];
    let kind = prop::sample::select(vec![
        ChangeKind::Put,
        ChangeKind::Put,
        ChangeKind::Delete,
        ChangeKind::Expire,
        ChangeKind::Invalidate,
    ]);
    let user = "user-[0-2]";
    let change = (user, 0..3u32, sequence, kind, prop::bool::weighted(0.2)).prop_map(
        |(user, generation, sequence, kind, is_old)| {
            let change = at(Position::new(generation, sequence).unwrap(), &user, kind);
            if is_old { created_before(CREATE_AGE_MAX + Duration::from_mins(1), change) } else { change }
        },
    );
    prop_oneof![
        8 => prop::collection::vec(change, 1..8).prop_map(Step::Apply),
        1 => user.prop_map(Step::Evict),
        1 => Just(Step::FlushScripts),
    ]
}

/// The apply rule, as the protocol words it.
#[derive(Default)]
struct Model(HashMap<Bytes, Change>);

impl Model {
    fn apply(&mut self, change: &Change) -> Outcome {
        let is_old = u128::from(now_ms() - change.created_ms) > CREATE_AGE_MAX.as_millis();
        match self.0.get(&change.key) {
            Some(held) if held.position >= change.position => Stale,
            None if is_old => LeftAbsent,
            // Only what the stream wrote proves that a change above its floor is news.
            Some(held) if is_old && held.kind == ChangeKind::Invalidate => {
                self.0.remove(&change.key);
                LeftAbsent
            }
            _ => {
                self.0.insert(change.key.clone(), change.clone());
                Applied
            }
        }
    }
}

fn entry_kind(kind: ChangeKind) -> EntryKind {
    match kind {
        ChangeKind::Put => EntryKind::Live,
        ChangeKind::Delete | ChangeKind::Expire => EntryKind::Tombstone,
        ChangeKind::Invalidate | ChangeKind::Backfill => EntryKind::Invalid,
    }
}

async fn assert_as_the_model(server: &RedisServer, cache: &Cache, reads: &EntryReads, steps: Vec<Step>) {
    let mut admin = server.admin().await;
    let users = ["user-0", "user-1", "user-2"];
    let _: () = admin.del(users.map(redis_key).as_slice()).await.unwrap();
    let mut model = Model::default();
    for step in steps {
        match step {
            Step::Apply(changes) => {
                let expected: Vec<_> = changes.iter().map(|change| Ok(model.apply(change))).collect();
                assert_eq!(apply(cache, &changes).await, expected);
            }
            Step::Evict(user) => {
                let _: () = admin.del(redis_key(&user)).await.unwrap();
                model.0.remove(user.as_bytes());
            }
            Step::FlushScripts => {
                let _: () = redis::cmd("SCRIPT").arg("FLUSH").query_async(&mut admin).await.unwrap();
            }
        }
        for user in users {
            let expected = model.0.get(user.as_bytes());
            let expected =
                expected.map(|change| (entry_kind(change.kind), change.position, change.payload.clone()));
            assert_eq!(entry(reads, user).await, expected);
        }
    }
}

#[test]
fn random_histories_end_as_the_rule_says() {
    let server = RedisServer::start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let cache = runtime.block_on(Cache::connect(server.config())).unwrap();
    let reads = runtime.block_on(EntryReads::connect(server.config(), ReadFrom::Primary)).unwrap();
    // A failure prints the smallest history that fails, and its seed is kept beside this file.
    let mut runner = TestRunner::new(Config { cases: 100, ..Config::with_source_file(file!()) });
    runner
        .run(&prop::collection::vec(any_step(), 1..25), |steps| {
            runtime.block_on(assert_as_the_model(&server, &cache, &reads, steps));
            Ok(())
        })
        .unwrap();
}
