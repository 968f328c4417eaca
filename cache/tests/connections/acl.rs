//! The rules for users in `docs/security.md`, as they stand there: each is enough for what it is for, every command in it
//! is needed, and a reader's user writes nothing.

use std::{collections::BTreeMap, fmt::Debug, time::Duration};

use bytes::Bytes;
use redis::Value;
use warmcast_cache::{
    Acquired, Backfill, Cache, CacheConfig, EntryReads, Fill, ItemId, ItemRef, ReadFrom, ReadStart, Secret,
    Servers, TablePolicy, Tables, shape::Shaped,
};
use warmcast_proto::change::{Change, ChangeKind};

use crate::{
    changes::{TABLE, apply, now_ms, put, redis_key},
    cluster::RedisCluster,
    sentinel::{MASTER, SENTINEL_PASSWORD, SentinelSetup, sentinel_admin},
    support::RedisServer,
};

const PAGE: &str = include_str!("../../../docs/security.md");
const PASSWORD: &str = "hunter2";

type Rules = BTreeMap<String, Vec<String>>;

/// The words after `ACL SETUSER NAME` below a heading of the page, by the name of the user.
fn rules(heading: &str) -> Rules {
    let section =
        PAGE.split("\n#").find(|section| section.trim_start_matches('#').trim().starts_with(heading));
    let lines = section.unwrap_or_else(|| panic!("no heading {heading:?}")).lines();
    let rules: Rules = lines
        .filter_map(|line| line.strip_prefix("    ACL SETUSER "))
        .map(|rule| {
            let mut words = rule.split(' ').map(str::to_owned);
            (words.next().unwrap(), words.collect())
        })
        .collect();
    assert!(!rules.is_empty(), "{heading:?} has no rules");
    rules
}

/// The words of a user alone, and with what it gets in a cluster.
pub(crate) fn rule(user: &str, in_cluster: bool) -> Vec<String> {
    let mut rule = rules("On every server")[user].clone();
    if in_cluster {
        rule.extend(rules("In a cluster, also")[user].clone());
    }
    rule
}

fn commands(rule: &[String]) -> Vec<String> {
    let commands: Vec<String> = rule.iter().filter(|word| word.starts_with('+')).cloned().collect();
    assert!(commands.len() > 1, "{rule:?}");
    commands
}

pub(crate) async fn set_user(admin: &mut redis::aio::MultiplexedConnection, user: &str, rule: &[String]) {
    let words = rule.iter().map(|word| match word.as_str() {
        ">PASSWORD" => format!(">{PASSWORD}"),
        word => word.replace("PREFIX", "wc:"),
    });
    let mut command = redis::cmd("ACL");
    command.arg("SETUSER").arg(user).arg("reset").arg(words.collect::<Vec<_>>());
    let () = command.query_async(admin).await.unwrap();
}

pub(crate) fn as_user(user: &str, config: CacheConfig) -> CacheConfig {
    let password = Some(Secret::new(PASSWORD).into());
    CacheConfig { username: Some(user.to_owned()), password, ..config }
}

fn item(key: &str) -> ItemRef<'_> {
    ItemRef { table: TABLE, key: key.as_bytes() }
}

fn shaped(text: &'static str) -> Shaped {
    Shaped { payload: Bytes::from_static(text.as_bytes()), expires_ms: None }
}

/// What came of each step: the same again with the same rights.
#[derive(Default)]
struct Transcript(Vec<String>);

impl Transcript {
    /// Whether it was a failure; what it says is not the same on all servers.
    fn note<T: Debug, E: std::fmt::Display>(&mut self, step: &str, answer: Result<T, E>) -> Option<T> {
        let shown = answer.as_ref().map_or_else(|_| "failed".to_owned(), |answer| format!("{answer:?}"));
        self.0.push(format!("{step}: {shown}"));
        answer.ok()
    }
}

/// Everything a cache-writer does to a server, by all branches of the scripts. The keys are new ones.
async fn write(config: &CacheConfig, run: &str) -> Vec<String> {
    let mut transcript = Transcript::default();
    // What a fill saw is told from what came after it: that has a branch of its own in the script.
    let policy = TablePolicy { strict_margin: Some(Duration::from_secs(1)), ..TablePolicy::default() };
    let tables = Tables { default: policy, ..Tables::default() };
    let cache = match Cache::connect(CacheConfig { tables, ..config.clone() }).await {
        Ok(cache) => cache,
        Err(error) => {
            transcript.note::<(), _>("connect", Err(error));
            return transcript.0;
        }
    };
    let key = |name: &str| format!("{run}-{name}");
    let made_ago =
        |name: &str, sequence, ago_ms| Change { created_ms: now_ms() - ago_ms, ..put(&key(name), sequence) };
    let changes = [
        put(&key("a"), 2),
        put(&key("a"), 1),
        Change { kind: ChangeKind::Delete, ..put(&key("a"), 3) },
        // Nothing proves that it is news.
        made_ago("old", 1, 172_800_000),
    ];
    for answer in apply(&cache, &changes).await {
        transcript.note("apply", answer);
    }
    // What a fill finds absent is believed for a while; a change that the fill saw leaves it so, with its floor.
    for (name, found) in [("b", Some(shaped("b"))), ("c", None)] {
        let name = key(name);
        let acquired = cache.acquire(&[item(&name)], Duration::from_secs(30)).await.remove(0);
        let token = acquired.map(|acquired| match acquired {
            Acquired::Token(token) => Some(token),
            Acquired::Busy | Acquired::Present(_) => None,
        });
        transcript.0.push(format!("acquire: {}", matches!(token, Ok(Some(_)))));
        let Ok(Some(token)) = token else { continue };
        let fill = Fill { item: item(&name), token: &token, found };
        transcript.note("fill", cache.fill(&[fill]).await.remove(0));
        let acquired = cache.acquire(&[item(&name)], Duration::from_secs(30)).await.remove(0);
        transcript.0.push(format!("acquire again: {}", matches!(acquired, Ok(Acquired::Present(_)))));
    }
    transcript.note("covered", apply(&cache, &[made_ago("c", 1, 60_000)]).await.remove(0));
    // An entry with a floor that is filled again keeps the floor.
    transcript.note("invalidate", cache.invalidate(&[item(&key("a"))]).await.remove(0));
    let name = key("a");
    if let Ok(Acquired::Token(token)) = cache.acquire(&[item(&name)], Duration::from_secs(30)).await.remove(0)
    {
        let fill = Fill { item: item(&name), token: &token, found: Some(shaped("a")) };
        transcript.note("fill with a floor", cache.fill(&[fill]).await.remove(0));
    }
    let name = key("d");
    let backfill = Backfill { item: item(&name), found: shaped("d"), read: ReadStart::now() };
    transcript.note("backfill", cache.backfill(&[backfill]).await.remove(0));
    transcript.note("watermark", cache.publish_watermark(now_ms()).await);
    // The marker by which a server is known again was written: without it, this is empty.
    transcript.0.push(format!("epoch: {}", !cache.epoch().borrow().is_empty()));
    transcript.0
}

/// Everything that is read.
async fn read(config: &CacheConfig, from: ReadFrom) -> Vec<String> {
    let mut transcript = Transcript::default();
    let reads = match EntryReads::connect(config.clone(), from).await {
        Ok(reads) => reads,
        Err(error) => {
            transcript.note::<(), _>("connect", Err(error));
            return transcript.0;
        }
    };
    for keys in [vec![redis_key("r")], vec![redis_key("r"), redis_key("s")]] {
        for answer in reads.get_many(&keys).await {
            transcript.note("get", answer.map(|value| value.is_some()));
        }
    }
    transcript.note("watermark", reads.watermark_ms().await.map(|found| found.is_some()));
    transcript.0
}

/// What the operators' commands, and the daemon's own comparison, do beside that.
async fn look(config: &CacheConfig) -> Vec<String> {
    let mut transcript = Transcript::default();
    let Ok(reads) = EntryReads::connect(config.clone(), ReadFrom::Primary).await else {
        return vec!["no reads".to_owned()];
    };
    transcript.note("random", reads.random(3).await.map(|found| !found.items.is_empty()));
    transcript.note("scan", reads.scan(Some(TABLE)).next().await.unwrap().map(|_| ()));
    let items = [ItemId::new(TABLE, "r"), ItemId::new(TABLE, "list")];
    transcript.note("type", reads.hold_no_string(&items).await);
    transcript.note("stay", reads.stay(&redis_key("r")).await);
    transcript.0
}

/// Tries a rule whole, then without each of its commands. Those without which nothing is other are not needed.
async fn needless(
    admin: &mut redis::aio::MultiplexedConnection,
    user: &str,
    rule: &[String],
    work: impl AsyncFn(String) -> Vec<String>,
) -> Vec<String> {
    set_user(admin, user, rule).await;
    let whole = work("whole".to_owned()).await;
    assert!(!whole.iter().any(|step| step.contains("failed")), "{user}: {whole:?}");
    let mut needless = Vec::new();
    for command in commands(rule) {
        let rest: Vec<String> = rule.iter().filter(|word| **word != command).cloned().collect();
        set_user(admin, user, &rest).await;
        if work(command.clone()).await == whole {
            needless.push(command);
        }
    }
    needless
}

#[tokio::test]
async fn every_command_of_the_rules_is_needed() {
    let server = RedisServer::start();
    let port = server.port.to_string();
    let replica = RedisServer::start_with(&["--replicaof", "127.0.0.1", &port], &[]);
    let mut admin = server.admin().await;
    // Everything is there to be found, and the server may evict: scripts look how much it did.
    let () = redis::cmd("CONFIG")
        .arg(&["SET", "maxmemory-policy", "allkeys-lru"])
        .query_async(&mut admin)
        .await
        .unwrap();
    let () = redis::cmd("SET").arg(redis_key("r")).arg("r").query_async(&mut admin).await.unwrap();
    let () = redis::cmd("RPUSH").arg(redis_key("list")).arg("x").query_async(&mut admin).await.unwrap();

    let user = "warmcast-writer";
    let config = as_user(user, server.config());
    let work = async |run: String| write(&config, &run).await;
    assert_eq!(needless(&mut admin, user, &rule(user, false), work).await, [""; 0]);

    let user = "warmcast-operator";
    let config = as_user(user, server.config());
    let work = async |run: String| {
        let mut steps = write(&config, &format!("o{run}")).await;
        steps.extend(look(&config).await);
        steps.extend(read(&config, ReadFrom::Primary).await);
        steps
    };
    assert_eq!(needless(&mut admin, user, &rule(user, false), work).await, [""; 0]);

    let user = "warmcast-reader";
    let (config, wrong) = (as_user(user, server.config()), as_user(user, replica.config()));
    set_user(&mut replica.admin().await, user, &rule(user, false)).await;
    let work = async |_| {
        let mut steps = read(&config, ReadFrom::Primary).await;
        steps.extend(read(&config, ReadFrom::Replica).await);
        steps
    };
    let needless = needless(&mut admin, user, &rule(user, false), work).await;
    // It is what tells a primary from a replica, where a primary is wanted.
    assert_eq!(needless, ["+role"]);
    assert_eq!(read(&wrong, ReadFrom::Primary).await, ["connect: failed"]);
    let without: Vec<String> = rule(user, false).into_iter().filter(|word| word != "+role").collect();
    set_user(&mut replica.admin().await, user, &without).await;
    assert!(read(&wrong, ReadFrom::Primary).await.len() > 1, "nothing told that it is a replica");
}

#[tokio::test]
async fn in_a_cluster_a_few_more_commands_are_needed_each_of_them() {
    let cluster = RedisCluster::start(2, 0).await;
    let (writer, reader) = ("warmcast-writer", "warmcast-reader");
    let set = async |user: &str, rule: &[String]| {
        for node in &cluster.nodes {
            set_user(&mut node.admin().await, user, rule).await;
        }
    };
    let work = async |user: &'static str, run: String| {
        let config = as_user(user, cluster.config());
        match user {
            "warmcast-reader" => read(&config, ReadFrom::Replica).await,
            _ => write(&config, &run).await,
        }
    };
    let asking = "+asking".to_owned();
    for user in [writer, reader, "warmcast-operator"] {
        let whole = rule(user, true);
        set(user, &whole).await;
        let expected = work(user, "whole".to_owned()).await;
        assert!(!expected.iter().any(|step| step.contains("failed")), "{user}: {expected:?}");
        for command in commands(&rules("In a cluster, also")[user]) {
            let rest: Vec<String> = whole.iter().filter(|word| **word != command).cloned().collect();
            set(user, &rest).await;
            let found = work(user, command.clone()).await;
            assert!(found != expected || command == asking, "{user} does not need {command}");
        }
    }

    // While a slot's keys move, half of them are asked for with ASKING.
    let keys: Vec<String> = (0..8).map(|number| format!("{{moved}}{number}")).collect();
    let changes = |sequence| keys.iter().map(|key| put(key, sequence)).collect::<Vec<_>>();
    let mut command = redis::cmd("CLUSTER");
    command.arg("KEYSLOT").arg(redis_key(&keys[0]));
    let slot: u16 = command.query_async(&mut cluster.nodes[0].admin().await).await.unwrap();
    for (sequence, may_ask) in [(1, true), (3, false)] {
        for user in [writer, reader] {
            let whole = rule(user, true);
            let given: Vec<String> = whole.into_iter().filter(|word| may_ask || *word != asking).collect();
            set(user, &given).await;
        }
        let cache = Cache::connect(as_user(writer, cluster.config())).await.unwrap();
        let reads = EntryReads::connect(as_user(reader, cluster.config()), ReadFrom::Primary).await.unwrap();
        assert!(apply(&cache, &changes(sequence)).await.iter().all(Result::is_ok));
        let redis_keys: Vec<Vec<u8>> = keys.iter().map(|key| redis_key(key)).collect();
        let from = cluster.owner(slot).await;
        let during = async {
            let found = reads.get_many(&redis_keys).await;
            let written = apply(&cache, &changes(sequence + 1)).await;
            assert_eq!(found.iter().all(Result::is_ok), may_ask, "{found:?}");
            assert_eq!(written.iter().all(Result::is_ok), may_ask, "{written:?}");
        };
        cluster.move_slot(slot, from, 1 - from, during).await;
    }
}

#[tokio::test]
async fn sentinels_need_three_commands() {
    let setup = SentinelSetup::start().await;
    let (name, rule) = rules("On sentinels").pop_first().unwrap();
    let set = async |rule: &[String]| {
        for sentinel in &setup.sentinels {
            set_user(&mut sentinel_admin(sentinel).await, &name, rule).await;
        }
    };
    let mut config = setup.config();
    let Servers::Sentinel { username, password, .. } = &mut config.servers else { unreachable!() };
    assert_ne!(
        *password,
        Some(Secret::new(PASSWORD).into()),
        "{SENTINEL_PASSWORD} is the operators', of {MASTER}"
    );
    (*username, *password) = (Some(name.clone()), Some(Secret::new(PASSWORD).into()));
    let reads_at_replicas = async || {
        let reads = EntryReads::connect(config.clone(), ReadFrom::Replica).await;
        let Ok(reads) = reads else { return None };
        let before = gets(&setup.servers[1..]).await;
        let found = reads.get_many(&[redis_key("r")]).await.remove(0);
        assert!(found.is_ok(), "{found:?}");
        Some(gets(&setup.servers[1..]).await > before)
    };
    set(&rule).await;
    assert_eq!(reads_at_replicas().await, Some(true));
    for command in commands(&rule) {
        let rest: Vec<String> = rule.iter().filter(|word| **word != command).cloned().collect();
        set(&rest).await;
        let expected = command.ends_with("replicas").then_some(false);
        assert_eq!(reads_at_replicas().await, expected, "{command}");
    }
}

/// How often GET was called on any of these.
async fn gets(servers: &[RedisServer]) -> u64 {
    let mut sum = 0;
    for server in servers {
        let mut command = redis::cmd("INFO");
        let stats: String = command.arg("commandstats").query_async(&mut server.admin().await).await.unwrap();
        let line = stats.lines().find_map(|line| line.strip_prefix("cmdstat_get:calls="));
        sum += line.map_or(0, |rest| rest.split(',').next().unwrap().parse::<u64>().unwrap());
    }
    sum
}

/// What no user of a bidder may do.
#[tokio::test]
async fn a_reader_writes_nothing_and_reads_no_other_keys() {
    let server = RedisServer::start();
    let user = "warmcast-reader";
    set_user(&mut server.admin().await, user, &rule(user, true)).await;
    let () = redis::cmd("SET").arg("other").arg("x").query_async(&mut server.admin().await).await.unwrap();
    assert!(Cache::connect(as_user(user, server.config())).await.is_err());
    let url = format!("redis://{user}:{PASSWORD}@127.0.0.1:{}", server.port);
    let mut reader = redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap();
    let mine = String::from_utf8(redis_key("r")).unwrap();
    for words in [
        &["SET", &mine, "x"][..],
        &["DEL", &mine],
        &["EVAL", "return redis.call('SET', KEYS[1], 'x')", "1", &mine],
        &["SCRIPT", "LOAD", "return 1"],
        &["EXPIRE", &mine, "1"],
        &["FLUSHALL"],
        &["CONFIG", "GET", "*"],
        &["ACL", "LIST"],
        &["KEYS", "*"],
        &["SCAN", "0"],
        &["PUBLISH", "channel", "x"],
        &["SUBSCRIBE", "channel"],
        &["MONITOR"],
        &["CLIENT", "KILL", "TYPE", "normal"],
        &["REPLICAOF", "NO", "ONE"],
        &["GET", "other"],
        &["MGET", &mine, "other"],
    ] {
        let mut command = redis::cmd(words[0]);
        let answer: redis::RedisResult<Value> = command.arg(&words[1..]).query_async(&mut reader).await;
        let code = answer.as_ref().err().and_then(redis::RedisError::code);
        assert_eq!(code, Some("NOPERM"), "{words:?}: {answer:?}");
    }
}
