//! Evictions that really happen, counted by the server.

use redis::{Value, aio::MultiplexedConnection};

use crate::{
    calls::{Call, load_scripts},
    protocol::{self, Apply, Backfill, Kind},
    support::RedisServer,
};

const HOUR_MS: u64 = 3_600_000;

async fn info(connection: &mut MultiplexedConnection, name: &str) -> u64 {
    let text: String = redis::cmd("INFO").arg("stats").query_async(connection).await.unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
    line.parse().unwrap()
}

/// Writes until the server has evicted something more.
async fn evict_some(connection: &mut MultiplexedConnection, keys: &mut u64) -> u64 {
    let before = info(connection, "evicted_keys").await;
    for _ in 0..1_000 {
        let mut pipeline = redis::pipe();
        for _ in 0..50 {
            *keys += 1;
            pipeline.cmd("SET").arg(format!("other:{keys}")).arg("x".repeat(1_000));
        }
        let _: () = pipeline.query_async(connection).await.unwrap();
        let evicted = info(connection, "evicted_keys").await;
        if evicted > before {
            return evicted;
        }
    }
    panic!("the server evicts nothing");
}

fn change(now: u64, evicted_keys: u64) -> Apply {
    Apply {
        kind: Kind::Live,
        position: 1,
        created: now,
        expires: None,
        payload: 7,
        ttl: 0,
        deadline: now + HOUR_MS,
        floor_ttl: 26 * HOUR_MS,
        present: false,
        margin: None,
        create_age_max: 25 * HOUR_MS,
        horizon: 0,
        evicted_keys: Some(evicted_keys),
    }
}

fn page_item(now: u64, evicted_keys: u64) -> Backfill {
    Backfill {
        read_at: now,
        expires: None,
        payload: 7,
        ttl: 0,
        age_max: HOUR_MS,
        horizon: 0,
        evicted_keys: Some(evicted_keys),
    }
}

#[tokio::test]
async fn nothing_is_created_after_evictions_that_the_caller_has_not_seen() {
    let server = RedisServer::start_with(&["--maxmemory", "8mb", "--maxmemory-policy", "allkeys-lru"], &[]);
    let mut connection = server.admin().await;
    load_scripts(&mut connection).await;
    let (seconds, _): (u64, u64) = redis::cmd("TIME").query_async(&mut connection).await.unwrap();
    let now = seconds * 1_000;
    let mut keys = 0;
    let mut seen = evict_some(&mut connection, &mut keys).await;
    for round in 0..20 {
        let (applied, backfilled) = (format!("wc:a{round}"), format!("wc:b{round}"));
        let newer = evict_some(&mut connection, &mut keys).await;
        let answer = Call::apply(&change(now, seen)).run(&mut connection, &applied).await;
        assert_eq!(answer, Value::Int(protocol::LEFT_ABSENT.into()));
        let answer = Call::backfill(&page_item(now, seen)).run(&mut connection, &backfilled).await;
        assert_eq!(answer, Value::Int(protocol::TOO_LATE.into()));

        // The calls themselves may have evicted; then they would be refused again.
        let calls = [
            (Call::apply(&change(now, newer)), applied),
            (Call::backfill(&page_item(now, newer)), backfilled),
        ];
        for (call, key) in calls {
            let answer = call.run(&mut connection, &key).await;
            if info(&mut connection, "evicted_keys").await == newer {
                assert_eq!(answer, Value::Int(1), "nothing was evicted since");
            }
        }
        seen = info(&mut connection, "evicted_keys").await;
    }
}

#[tokio::test]
async fn a_key_that_was_evicted_is_no_longer_held() {
    let server = RedisServer::start_with(&["--maxmemory", "8mb", "--maxmemory-policy", "allkeys-lru"], &[]);
    let mut connection = server.admin().await;
    load_scripts(&mut connection).await;
    let (seconds, _): (u64, u64) = redis::cmd("TIME").query_async(&mut connection).await.unwrap();
    let acquire = protocol::Acquire { token: 5, hold: HOUR_MS, ttl: HOUR_MS, floor_ttl: 26 * HOUR_MS };
    let taken = Call::acquire(&acquire).run(&mut connection, "wc:held").await;
    assert!(matches!(&taken, Value::Array(parts) if parts[0] == Value::Int(1)), "{taken:?}");
    let mut keys = 0;
    while redis::cmd("EXISTS").arg("wc:held").query_async::<u64>(&mut connection).await.unwrap() == 1 {
        evict_some(&mut connection, &mut keys).await;
    }
    let fill = protocol::Fill {
        token: 5,
        kind: Kind::Filled,
        read_at: seconds * 1_000,
        expires: None,
        payload: 7,
        ttl: 0,
        ttl_with_floor: 0,
    };
    let answer = Call::fill(&fill).run(&mut connection, "wc:held").await;
    assert_eq!(answer, Value::Int(protocol::REFUSED.into()));
}
