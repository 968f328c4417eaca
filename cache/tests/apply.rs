//! The apply script and its client against a real server.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking, also in its helpers"
)]

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
    task::JoinSet,
};
use warmcast_cache::{
    Address, Applier, ApplyError, CacheConfig, ConnectError, Outcome, Refusal, Snapshot,
    config::{AGE_MAX, TOMBSTONE_TTL},
};
use warmcast_proto::{
    change::{Change, ChangeKind},
    entry::{EntryHeader, EntryKind},
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
async fn entry(snapshot: &Snapshot, key: &str) -> Option<(EntryKind, Position, Bytes)> {
    let [value] = snapshot.get_many(&[redis_key(key)]).await.unwrap().try_into().unwrap();
    value.map(|value| {
        let (header, payload) = EntryHeader::decode(&value).unwrap();
        (header.kind(), header.position(), Bytes::copy_from_slice(payload))
    })
}

fn is_unavailable(answer: &Result<Outcome, ApplyError>, because: &str) -> bool {
    matches!(answer, Err(error @ ApplyError::Unavailable { reason, .. })
        if reason.contains(because) && error.is_retryable())
}

fn is_foreign(answer: &Result<Outcome, ApplyError>) -> bool {
    matches!(answer, Err(error @ ApplyError::Refused { refusal: Refusal::ForeignValue, .. }) if !error.is_retryable())
}

use Outcome::{Applied, Stale, TooOld};

#[tokio::test]
async fn a_change_is_applied_once_and_only_over_older_ones() {
    let server = RedisServer::start();
    let applier = Applier::connect(server.config()).await.unwrap();
    let snapshot = Snapshot::connect(server.config()).await.unwrap();
    let (first, second, third) = (put("user", "100"), put("user", "101"), put("user", "102"));

    assert_eq!(
        applier.apply(&[second.clone(), second.clone(), first]).await,
        [Ok(Applied), Ok(Stale), Ok(Stale)]
    );
    assert_eq!(entry(&snapshot, "user").await, Some((EntryKind::Live, second.position, second.payload)));
    assert_eq!(applier.apply(std::slice::from_ref(&third)).await, [Ok(Applied)]);
    assert_eq!(entry(&snapshot, "user").await, Some((EntryKind::Live, third.position, third.payload)));
    assert_eq!(applier.apply(&[]).await, []);
}

#[tokio::test]
async fn a_tombstone_refuses_an_older_put_and_gives_way_to_a_newer_one() {
    let server = RedisServer::start();
    let applier = Applier::connect(server.config()).await.unwrap();
    let snapshot = Snapshot::connect(server.config()).await.unwrap();
    let gone = delete("user", "200");

    assert_eq!(applier.apply(&[gone.clone(), put("user", "199")]).await, [Ok(Applied), Ok(Stale)]);
    assert_eq!(entry(&snapshot, "user").await, Some((EntryKind::Tombstone, gone.position, Bytes::new())));
    let again = put("user", "201");
    assert_eq!(applier.apply(std::slice::from_ref(&again)).await, [Ok(Applied)]);
    assert_eq!(entry(&snapshot, "user").await, Some((EntryKind::Live, again.position, again.payload)));
}

#[tokio::test]
async fn each_kind_of_change_leaves_its_entry_and_its_time_to_live() {
    let server = RedisServer::start();
    let config = CacheConfig { live_ttl: Some(Duration::from_mins(10)), ..server.config() };
    let applier = Applier::connect(config).await.unwrap();
    let forever = Applier::connect(server.config()).await.unwrap();
    let snapshot = Snapshot::connect(server.config()).await.unwrap();
    let mut admin = server.admin().await;
    let p = position(1, "7");
    for (key, kind, expected, ttl) in [
        ("put", ChangeKind::Put, EntryKind::Live, Duration::from_mins(10)),
        ("delete", ChangeKind::Delete, EntryKind::Tombstone, TOMBSTONE_TTL),
        ("expire", ChangeKind::Expire, EntryKind::Tombstone, TOMBSTONE_TTL),
        ("invalidate", ChangeKind::Invalidate, EntryKind::Invalid, TOMBSTONE_TTL),
    ] {
        let change = at(p, key, kind);
        assert_eq!(applier.apply(std::slice::from_ref(&change)).await, [Ok(Applied)]);
        assert_eq!(entry(&snapshot, key).await, Some((expected, p, change.payload)));
        let left_ms: u64 = admin.pttl(redis_key(key)).await.unwrap();
        let ttl_ms = u64::try_from(ttl.as_millis()).unwrap();
        assert!(left_ms <= ttl_ms && left_ms > ttl_ms - 60_000, "{key}: {left_ms} of {ttl_ms} ms left");
    }
    // A tombstone's end must not become the end of the item that takes its place.
    assert_eq!(forever.apply(&[put("delete", "8")]).await, [Ok(Applied)]);
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
    let applier = Applier::connect(server.config()).await.unwrap();
    for (index, [lower, upper]) in NEIGHBOURS.array_windows().enumerate() {
        let key = format!("user-{index}");
        let changes = [put(&key, lower), put(&key, upper), put(&key, lower), put(&key, upper)];
        assert_eq!(
            applier.apply(&changes).await,
            [Ok(Applied), Ok(Applied), Ok(Stale), Ok(Stale)],
            "{lower} {upper}"
        );
    }
    let older = at(position(35, NEIGHBOURS[8]), "generations", ChangeKind::Put);
    let newer = at(position(36, NEIGHBOURS[0]), "generations", ChangeKind::Put);
    assert_eq!(applier.apply(&[older.clone(), newer, older]).await, [Ok(Applied), Ok(Applied), Ok(Stale)]);
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
    let applier = Applier::connect(server.config()).await.unwrap();
    let snapshot = Snapshot::connect(server.config()).await.unwrap();
    let minute = Duration::from_mins(1);
    let too_old = AGE_MAX + minute;

    assert_eq!(applier.apply(&[created_before(too_old, put("absent", "5"))]).await, [Ok(TooOld)]);
    assert_eq!(entry(&snapshot, "absent").await, None);
    assert_eq!(applier.apply(&[created_before(AGE_MAX - minute, put("absent", "5"))]).await, [Ok(Applied)]);

    let older = created_before(too_old, put("present", "4"));
    let newer = created_before(too_old, put("present", "6"));
    assert_eq!(
        applier.apply(&[put("present", "5"), older, newer]).await,
        [Ok(Applied), Ok(Stale), Ok(Applied)]
    );
}

#[tokio::test]
async fn a_change_too_old_removes_an_entry_without_a_floor_for_nothing_proves_which_is_newer() {
    let server = RedisServer::start();
    let applier = Applier::connect(server.config()).await.unwrap();
    let snapshot = Snapshot::connect(server.config()).await.unwrap();
    let mut admin = server.admin().await;
    for kind in [EntryKind::Held, EntryKind::Negative, EntryKind::Live] {
        let header = EntryHeader::new(kind, Position::ZERO, now_ms()).unwrap();
        let value = [header.encode().as_slice(), b"token"].concat();
        let _: () = admin.set(redis_key("filled"), &value).await.unwrap();
        assert_eq!(applier.apply(&[created_before(AGE_MAX * 2, put("filled", "5"))]).await, [Ok(TooOld)]);
        assert_eq!(entry(&snapshot, "filled").await, None, "{kind:?}");

        let _: () = admin.set(redis_key("filled"), &value).await.unwrap();
        let change = put("filled", "6");
        assert_eq!(applier.apply(std::slice::from_ref(&change)).await, [Ok(Applied)], "{kind:?}");
        assert_eq!(
            entry(&snapshot, "filled").await,
            Some((EntryKind::Live, change.position, change.payload))
        );
        let _: () = admin.del(redis_key("filled")).await.unwrap();
    }
}

#[tokio::test]
async fn a_lost_script_is_loaded_again() {
    let server = RedisServer::start();
    let applier = Applier::connect(server.config()).await.unwrap();
    let mut admin = server.admin().await;
    for sequence in 1..=3 {
        let _: () = redis::cmd("SCRIPT").arg("FLUSH").query_async(&mut admin).await.unwrap();
        let changes: Vec<Change> =
            (0..300).map(|user| put(&format!("user-{user}"), &sequence.to_string())).collect();
        assert!(applier.apply(&changes).await.iter().all(|answer| *answer == Ok(Applied)));
    }
}

#[tokio::test]
async fn values_that_are_not_ours_are_left_alone_and_harm_no_neighbour() {
    let server = RedisServer::start();
    let applier = Applier::connect(server.config()).await.unwrap();
    let snapshot = Snapshot::connect(server.config()).await.unwrap();
    let mut admin = server.admin().await;
    let entry_of_a_newer_version = format!("2l{}", "0".repeat(38));
    let almost_an_entry = format!("1l{}", "A".repeat(38));
    let _: () = admin.rpush(redis_key("list"), "element").await.unwrap();
    let _: () = admin.set(redis_key("text"), "hello").await.unwrap();
    let _: () = admin.set(redis_key("newer"), &entry_of_a_newer_version).await.unwrap();
    let _: () = admin.set(redis_key("almost"), &almost_an_entry).await.unwrap();

    let users = ["before", "list", "text", "between", "newer", "almost", "after"];
    let answers = applier.apply(&users.map(|user| put(user, "5"))).await;
    for (user, answer) in users.iter().zip(&answers) {
        match *user {
            "before" | "between" | "after" => {
                assert_eq!(*answer, Ok(Applied), "{user}");
                assert!(entry(&snapshot, user).await.is_some());
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
    let applier = Applier::connect(CacheConfig { value_bytes_max: 1_000, ..server.config() }).await.unwrap();
    let large = Change { payload: vec![7; 1_000].into(), ..put("large", "5") };
    let [first, refused, last] =
        applier.apply(&[put("a", "5"), large, put("b", "5")]).await.try_into().unwrap();
    assert_eq!((first, last), (Ok(Applied), Ok(Applied)));
    assert!(matches!(
        refused,
        Err(ApplyError::Refused { refusal: Refusal::TooLarge { len: 1_040, len_max: 1_000 }, .. })
    ));
}

#[tokio::test]
async fn large_payloads_of_any_bytes_arrive_whole() {
    let server = RedisServer::start();
    let applier = Applier::connect(server.config()).await.unwrap();
    let snapshot = Snapshot::connect(server.config()).await.unwrap();
    let payload: Bytes = (0..400_000u32).map(|index| (index % 256) as u8).collect();
    let changes: Vec<Change> = (0..10)
        .map(|user| Change { payload: payload.clone(), ..put(&format!("user-{user}"), "5") })
        .collect();
    assert_eq!(applier.apply(&changes).await, vec![Ok(Applied); 10]);
    for user in 0..10 {
        let (_, _, stored) = entry(&snapshot, &format!("user-{user}")).await.unwrap();
        assert!(stored == payload);
    }
}

#[tokio::test]
async fn a_change_past_its_deadline_is_not_applied() {
    let server = RedisServer::start();
    let late =
        Applier::connect(CacheConfig { apply_deadline: Duration::ZERO, ..server.config() }).await.unwrap();
    let snapshot = Snapshot::connect(server.config()).await.unwrap();
    let answers = late.apply(&[put("user", "5"), delete("user", "6")]).await;
    assert!(answers.iter().all(
        |answer| matches!(answer, Err(error @ ApplyError::PastDeadline { .. }) if error.is_retryable())
    ));
    assert_eq!(entry(&snapshot, "user").await, None);
}

#[tokio::test]
async fn a_change_that_a_slow_server_gets_to_after_the_deadline_is_not_applied() {
    let server = RedisServer::start();
    let config = CacheConfig { apply_deadline: Duration::from_millis(300), ..server.config() };
    let applier = Applier::connect(config).await.unwrap();
    let snapshot = Snapshot::connect(server.config()).await.unwrap();
    let mut admin = server.admin().await;
    let _: () =
        redis::cmd("CLIENT").arg("PAUSE").arg(1_000).arg("ALL").query_async(&mut admin).await.unwrap();
    let change = put("user", "5");
    let answers = applier.apply(std::slice::from_ref(&change)).await;
    assert!(matches!(answers.as_slice(), [Err(ApplyError::PastDeadline { .. })]), "{answers:?}");
    assert_eq!(entry(&snapshot, "user").await, None);
    assert_eq!(applier.apply(&[change]).await, [Ok(Applied)]);
}

#[tokio::test]
async fn a_server_that_does_not_answer_in_time_is_unavailable_and_then_used_again() {
    let server = RedisServer::start();
    let config =
        CacheConfig { response_timeout: Duration::from_millis(300), connections: 1, ..server.config() };
    let applier = Applier::connect(config).await.unwrap();
    let mut admin = server.admin().await;
    let _: () =
        redis::cmd("CLIENT").arg("PAUSE").arg(60_000).arg("WRITE").query_async(&mut admin).await.unwrap();
    let answers = applier.apply(&[put("user", "5"), put("user", "6")]).await;
    assert!(answers.iter().all(|answer| is_unavailable(answer, "no answer in time")), "{answers:?}");
    let _: () = redis::cmd("CLIENT").arg("UNPAUSE").query_async(&mut admin).await.unwrap();
    // The first may have been executed when the pause ended: either way the second is the newest.
    assert_eq!(applier.apply(&[put("user", "7")]).await, [Ok(Applied)]);
}

#[tokio::test]
async fn a_dead_server_is_unavailable_and_after_its_restart_used_again() {
    let mut server = RedisServer::start();
    let applier = Applier::connect(CacheConfig { connections: 2, ..server.config() }).await.unwrap();
    assert_eq!(applier.apply(&[put("user", "5")]).await, [Ok(Applied)]);
    server.kill();
    for _ in 0..4 {
        let answers = applier.apply(&[put("user", "6"), put("user", "7")]).await;
        assert!(answers.iter().all(|answer| is_unavailable(answer, "")), "{answers:?}");
    }
    assert!(server.run());
    // It has lost entries and scripts. One call may find a connection that broke without notice.
    let changes = [put("user", "6"), put("user", "7")];
    let mut answers = applier.apply(&changes).await;
    if answers.iter().all(|answer| is_unavailable(answer, "")) {
        answers = applier.apply(&changes).await;
    }
    assert_eq!(answers, [Ok(Applied), Ok(Applied)]);
}

/// Passes bytes on to the server, and cuts the connection after so many bytes of answers.
async fn serve_cut(listener: TcpListener, server_port: u16, mut answer_bytes: usize) {
    let (mut client, _) = listener.accept().await.unwrap();
    let mut server = TcpStream::connect(("127.0.0.1", server_port)).await.unwrap();
    let (mut from_client, mut from_server) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        tokio::select! {
            read = client.read(&mut from_client) => match read.unwrap() {
                0 => return,
                len => server.write_all(&from_client[..len]).await.unwrap(),
            },
            read = server.read(&mut from_server) => {
                let len = read.unwrap().min(answer_bytes);
                client.write_all(&from_server[..len]).await.unwrap();
                answer_bytes -= len;
                if answer_bytes == 0 {
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
    // What the setup of a connection takes, then some of the 50 answers of 4 bytes.
    tasks.spawn(serve_cut(listener, server.port, 400));
    let address = Address::Tcp { host: "127.0.0.1".to_owned(), port };
    let config = CacheConfig { address, connections: 1, pipeline_entries_max: 50, ..server.config() };
    let through_proxy = Applier::connect(config).await.unwrap();
    let changes: Vec<Change> = (0..500).map(|user| put(&format!("user-{user}"), "5")).collect();

    let answers = through_proxy.apply(&changes).await;
    tasks.join_next().await.unwrap().unwrap();
    let answered = answers.iter().take_while(|answer| **answer == Ok(Applied)).count();
    assert!(answered % 50 == 0 && answered < 500, "{answered} answers");
    assert!(answers[answered..].iter().all(|answer| is_unavailable(answer, "")));

    let direct = Applier::connect(server.config()).await.unwrap();
    let again = direct.apply(&changes).await;
    // The cut pipeline had been applied, although nobody heard of it.
    let stale = again.iter().take_while(|answer| **answer == Ok(Stale)).count();
    assert_eq!(stale, answered + 50);
    assert!(again[stale..].iter().all(|answer| *answer == Ok(Applied)));
}

#[tokio::test]
async fn a_server_out_of_memory_is_unavailable_for_what_it_cannot_write() {
    let server = RedisServer::start();
    let applier = Applier::connect(server.config()).await.unwrap();
    let mut admin = server.admin().await;
    assert_eq!(applier.apply(&[put("known", "5")]).await, [Ok(Applied)]);
    let set_maxmemory =
        |bytes: &'static str| redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg(bytes).to_owned();
    let _: () = set_maxmemory("1").query_async(&mut admin).await.unwrap();
    let [stale, refused] = applier.apply(&[put("known", "4"), put("new", "5")]).await.try_into().unwrap();
    assert_eq!(stale, Ok(Stale));
    assert!(is_unavailable(&refused, "OOM"), "{refused:?}");
    let _: () = set_maxmemory("0").query_async(&mut admin).await.unwrap();
    assert_eq!(applier.apply(&[put("new", "5")]).await, [Ok(Applied)]);
}

#[tokio::test]
async fn a_primary_that_becomes_a_replica_is_unavailable() {
    let primary = RedisServer::start();
    let server = RedisServer::start();
    let applier = Applier::connect(server.config()).await.unwrap();
    let mut admin = server.admin().await;
    let port = primary.port.to_string();
    let _: () = redis::cmd("REPLICAOF").arg("127.0.0.1").arg(&port).query_async(&mut admin).await.unwrap();
    let answers = applier.apply(&[put("user", "5")]).await;
    assert!(is_unavailable(&answers[0], "READONLY"), "{answers:?}");
    let error = Applier::connect(server.config()).await.err().unwrap();
    assert!(matches!(error, ConnectError::Replica { .. }) && error.is_retryable(), "{error}");
    assert!(Snapshot::connect(server.config()).await.is_ok());
}

#[tokio::test]
async fn wrong_credentials_are_named_without_being_shown() {
    let server = RedisServer::start_with(&["--requirepass", "right-secret"], &[]);
    let url = |password: &str| format!("redis://:{password}@127.0.0.1:{}", server.port);
    assert!(Applier::connect(CacheConfig::from_url(&url("right-secret")).unwrap()).await.is_ok());
    let without = server.config();
    let wrong = CacheConfig::from_url(&url("wrong-secret")).unwrap();
    for config in [without, wrong] {
        let error = Applier::connect(config).await.err().unwrap();
        let text = format!("{error} {error:?}");
        assert!(matches!(error, ConnectError::Credentials { .. }) && !error.is_retryable(), "{text}");
        assert!(text.contains(&format!("127.0.0.1:{}", server.port)), "{text}");
        assert!(!text.contains("secret"), "{text}");
    }
}

#[tokio::test]
async fn missing_rights_are_named() {
    let server = RedisServer::start();
    let mut admin = server.admin().await;
    let rules = ["SETUSER", "writer", "on", ">secret", "~*", "+@all", "-script"];
    let _: () = redis::cmd("ACL").arg(&rules).query_async(&mut admin).await.unwrap();
    let url = format!("redis://writer:secret@127.0.0.1:{}", server.port);
    let error = Applier::connect(CacheConfig::from_url(&url).unwrap()).await.err().unwrap();
    assert!(matches!(error, ConnectError::Permission { .. }) && !error.is_retryable(), "{error}");
    assert!(error.to_string().contains("script"), "{error}");

    // And the rights that the message asks for are enough.
    let rights = "+evalsha +script|load +time +role +getrange +set +del +mget";
    assert!(error.to_string().contains(rights), "{error}");
    let mut command = redis::cmd("ACL");
    command.arg(&["SETUSER", "least", "on", ">secret", "~wc:*", "-@all", "+ping"]);
    let _: () = command.arg(rights.split(' ').collect::<Vec<_>>()).query_async(&mut admin).await.unwrap();
    let url = format!("redis://least:secret@127.0.0.1:{}", server.port);
    let config = CacheConfig { key_prefix: PREFIX.to_owned(), ..CacheConfig::from_url(&url).unwrap() };
    let applier = Applier::connect(config.clone()).await.unwrap();
    assert_eq!(applier.apply(&[put("user", "5"), delete("user", "6")]).await, [Ok(Applied), Ok(Applied)]);
    assert!(Snapshot::connect(config).await.unwrap().get_many(&[redis_key("user")]).await.is_ok());
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named() {
    let mut server = RedisServer::start();
    server.kill();
    let error = Applier::connect(server.config()).await.err().unwrap();
    assert!(matches!(error, ConnectError::Unreachable { .. }) && error.is_retryable(), "{error}");
    assert!(error.to_string().contains(&format!("127.0.0.1:{}", server.port)), "{error}");
}

#[tokio::test]
async fn a_unix_socket_serves_as_well() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("redis.sock");
    let _server = RedisServer::start_with(&["--unixsocket", path.to_str().unwrap()], &[]);
    let config = CacheConfig::from_url(&format!("redis+unix://{}", path.display())).unwrap();
    let applier = Applier::connect(config).await.unwrap();
    assert_eq!(applier.apply(&[put("user", "5")]).await, [Ok(Applied)]);
}

#[tokio::test]
async fn snapshots_read_any_number_of_keys_in_order() {
    let server = RedisServer::start();
    let applier = Applier::connect(server.config()).await.unwrap();
    let snapshot = Snapshot::connect(server.config()).await.unwrap();
    let even = (0..1_000).step_by(2);
    let changes: Vec<Change> =
        even.map(|user| put(&format!("user-{user}"), &(user + 1).to_string())).collect();
    assert!(applier.apply(&changes).await.iter().all(Result::is_ok));
    let keys: Vec<Vec<u8>> = (0..1_000).map(|user| redis_key(&format!("user-{user}"))).collect();
    let values = snapshot.get_many(&keys).await.unwrap();
    assert_eq!(values.len(), 1_000);
    for (user, value) in values.iter().enumerate() {
        let position = value.as_ref().map(|value| EntryHeader::decode(value).unwrap().0.position());
        let expected = (user % 2 == 0).then(|| self::position(1, &(user + 1).to_string()));
        assert_eq!(position, expected, "user-{user}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_the_order_and_however_often_the_newest_change_of_each_key_wins() {
    let server = RedisServer::start();
    let applier = Applier::connect(server.config()).await.unwrap();
    let snapshot = Snapshot::connect(server.config()).await.unwrap();
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
        let (applier, changes) = (applier.clone(), changes.clone());
        writers.spawn(async move {
            // Another order for each writer: strides that share no factor with the number of changes.
            let stride = [1, 3, 7, 9, 11, 13, 399, 397][writer];
            let mut shuffled = Vec::new();
            for index in 0..CHANGES {
                shuffled.push(changes[(index * stride + writer * 50) % CHANGES].clone());
            }
            let mut applied = 0;
            for batch in shuffled.chunks(17) {
                for answer in applier.apply(batch).await {
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
        let (_, floor, payload) = entry(&snapshot, &format!("user-{user}")).await.unwrap();
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
            if is_old { created_before(AGE_MAX + Duration::from_mins(1), change) } else { change }
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
        let is_old = u128::from(now_ms() - change.created_ms) > AGE_MAX.as_millis();
        match self.0.get(&change.key) {
            Some(held) if held.position >= change.position => Stale,
            None if is_old => TooOld,
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
        ChangeKind::Invalidate => EntryKind::Invalid,
    }
}

async fn assert_as_the_model(server: &RedisServer, applier: &Applier, snapshot: &Snapshot, steps: Vec<Step>) {
    let mut admin = server.admin().await;
    let _: () = redis::cmd("FLUSHALL").query_async(&mut admin).await.unwrap();
    let mut model = Model::default();
    for step in steps {
        match step {
            Step::Apply(changes) => {
                let expected: Vec<_> = changes.iter().map(|change| Ok(model.apply(change))).collect();
                assert_eq!(applier.apply(&changes).await, expected);
            }
            Step::Evict(user) => {
                let _: () = admin.del(redis_key(&user)).await.unwrap();
                model.0.remove(user.as_bytes());
            }
            Step::FlushScripts => {
                let _: () = redis::cmd("SCRIPT").arg("FLUSH").query_async(&mut admin).await.unwrap();
            }
        }
        for user in ["user-0", "user-1", "user-2"] {
            let expected = model.0.get(user.as_bytes());
            let expected =
                expected.map(|change| (entry_kind(change.kind), change.position, change.payload.clone()));
            assert_eq!(entry(snapshot, user).await, expected);
        }
    }
}

#[test]
fn random_histories_end_as_the_rule_says() {
    let server = RedisServer::start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let applier = runtime.block_on(Applier::connect(server.config())).unwrap();
    let snapshot = runtime.block_on(Snapshot::connect(server.config())).unwrap();
    // A failure prints the smallest history that fails, and its seed is kept beside this file.
    let mut runner = TestRunner::new(Config { cases: 100, ..Config::with_source_file(file!()) });
    runner
        .run(&prop::collection::vec(any_step(), 1..25), |steps| {
            runtime.block_on(assert_as_the_model(&server, &applier, &snapshot, steps));
            Ok(())
        })
        .unwrap();
}
