//! What was lost: evictions, after which an old change creates no entry; and data that went back, which is a new
//! epoch for everybody, now and later.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use warmcast_cache::{Cache, EntryReads, Outcome, ReadFrom};

use crate::{
    changes::{RECOVERED_WITHIN, Watching, apply, apply_at_last, payloads_at_last, put, wait_for_failovers},
    cluster::info,
    support::RedisServer,
};

fn epoch(cache: &Cache) -> String {
    cache.epoch().borrow().clone()
}

async fn wait_for_another_epoch(cache: &Cache, before: &str) -> String {
    let mut epoch = cache.epoch();
    let found = timeout(RECOVERED_WITHIN, epoch.wait_for(|epoch| epoch != before)).await;
    let Ok(found) = found else { panic!("the epoch is {before} for {RECOVERED_WITHIN:?}") };
    found.unwrap().clone()
}

#[tokio::test]
async fn a_new_server_is_used_at_once_and_everybody_sees_the_same_epoch() {
    let server = RedisServer::start();
    let cache = Cache::connect(server.config()).await.unwrap();
    assert!(!epoch(&cache).is_empty());
    assert_eq!(apply(&cache, &[put("user", 1)]).await, [Ok(Outcome::Applied)]);
    let other = Cache::connect(server.config()).await.unwrap();
    assert_eq!(epoch(&other), epoch(&cache));
    assert_eq!((*cache.failovers().borrow(), *other.failovers().borrow()), (0, 0));
}

#[tokio::test]
async fn a_server_that_is_emptied_is_a_new_epoch_for_all_who_watch_and_all_who_come_later() {
    let server = RedisServer::start();
    let config = server.config();
    let (cache, other) =
        (Cache::connect(config.clone()).await.unwrap(), Cache::connect(config.clone()).await.unwrap());
    let (watching, others) = (Watching::start(&cache), Watching::start(&other));
    let before = epoch(&cache);
    let () = redis::cmd("FLUSHALL").query_async(&mut server.admin().await).await.unwrap();
    let after = wait_for_another_epoch(&cache, &before).await;
    assert_eq!(wait_for_another_epoch(&other, &before).await, after);
    wait_for_failovers(&cache, 1).await;
    wait_for_failovers(&other, 1).await;
    let third = Cache::connect(config).await.unwrap();
    assert_eq!(epoch(&third), after);
    // It stays so.
    sleep(Duration::from_millis(2_100)).await;
    assert_eq!((epoch(&cache), epoch(&other)), (after.clone(), after));
    assert_eq!((*cache.failovers().borrow(), *other.failovers().borrow()), (1, 1));
    watching.finish().await;
    others.finish().await;
}

#[tokio::test]
async fn a_restart_is_known_before_anything_is_written() {
    let mut server = RedisServer::start();
    let cache = Cache::connect(server.config()).await.unwrap();
    let before = epoch(&cache);
    assert_eq!(apply(&cache, &[put("user", 1)]).await, [Ok(Outcome::Applied)]);
    server.kill();
    assert!(server.run());
    // Nobody watches: the call itself connects anew.
    assert_eq!(apply_at_last(&cache, &[put("user", 1)]).await, [Outcome::Applied]);
    assert_ne!(epoch(&cache), before);
    wait_for_failovers(&cache, 1).await;
}

#[tokio::test]
async fn a_restart_with_the_data_of_before_while_no_cache_was_connected_is_told_by_the_marker() {
    let directory = tempfile::tempdir().unwrap();
    let mut server = RedisServer::start_with(&["--dir", directory.path().to_str().unwrap()], &[]);
    let cache = Cache::connect(server.config()).await.unwrap();
    let before = epoch(&cache);
    assert_eq!(apply(&cache, &[put("user", 1)]).await, [Ok(Outcome::Applied)]);
    drop(cache);
    let () = redis::cmd("SAVE").query_async(&mut server.admin().await).await.unwrap();
    server.kill();
    assert!(server.run());

    let cache = Cache::connect(server.config()).await.unwrap();
    let after = epoch(&cache);
    assert_ne!(after, before);
    wait_for_failovers(&cache, 1).await;
    let other = Cache::connect(server.config()).await.unwrap();
    assert_eq!(epoch(&other), after);
    assert_eq!(apply(&cache, &[put("user", 2)]).await, [Ok(Outcome::Applied)]);
    let reads = EntryReads::connect(server.config(), ReadFrom::Primary).await.unwrap();
    let found = payloads_at_last(&reads, &["user".to_owned()]).await;
    assert_eq!(found, [Some("user as of 2".to_owned())]);
}

/// Lets the server evict something, and no more after that. The others' keys are the only ones that nobody uses, and
/// under a policy that looks at keys that expire, the marker stays.
async fn evict_some(server: &RedisServer) {
    let mut admin = server.admin().await;
    let () = redis::cmd("CONFIG").arg(&["SET", "maxmemory", "3mb"]).query_async(&mut admin).await.unwrap();
    let deadline = Instant::now() + RECOVERED_WITHIN;
    for number in 0.. {
        let (key, value) = (format!("other:{number}"), "x".repeat(4_096));
        let () =
            redis::cmd("SET").arg(key).arg(value).arg(&["EX", "600"]).query_async(&mut admin).await.unwrap();
        if number % 100 == 0 && info(server, "stats").await["evicted_keys"] != "0" {
            break;
        }
        assert!(Instant::now() < deadline, "nothing was evicted");
    }
    let () = redis::cmd("CONFIG").arg(&["SET", "maxmemory", "0"]).query_async(&mut admin).await.unwrap();
}

#[tokio::test]
async fn what_was_made_before_an_eviction_creates_nothing_by_whomever() {
    let server = RedisServer::start_with(&["--maxmemory-policy", "volatile-lru"], &[]);
    let cache = Cache::connect(server.config()).await.unwrap();
    let watching = Watching::start(&cache);
    assert_eq!(apply(&cache, &[put("user", 1)]).await, [Ok(Outcome::Applied)]);
    evict_some(&server).await;
    // At once the script sees that the count is another one; after the next look, the horizon has moved.
    assert_eq!(apply(&cache, &[put("new", 1)]).await, [Ok(Outcome::LeftAbsent)]);
    sleep(Duration::from_millis(1_500)).await;
    assert_eq!(apply(&cache, &[put("new", 2)]).await, [Ok(Outcome::LeftAbsent)]);
    // The marker tells others.
    let other = Cache::connect(server.config()).await.unwrap();
    assert_eq!(*cache.failovers().borrow(), 0);
    assert_eq!(apply(&other, &[put("new", 2)]).await, [Ok(Outcome::LeftAbsent)]);
    // A change that was made after the horizon and its margin is news.
    let mut later = put("new", 3);
    later.created_ms += 60_000;
    assert_eq!(apply(&cache, std::slice::from_ref(&later)).await, [Ok(Outcome::Applied)]);
    watching.finish().await;
}

#[tokio::test]
async fn a_full_server_is_unavailable_for_what_it_cannot_write_and_nothing_was_lost() {
    let server = RedisServer::start();
    let mut admin = server.admin().await;
    let () = redis::cmd("CONFIG").arg(&["SET", "maxmemory", "1"]).query_async(&mut admin).await.unwrap();
    // Not even its marker can be written.
    let cache = Cache::connect(server.config()).await.unwrap();
    let before = epoch(&cache);
    let watching = Watching::start(&cache);
    let answers = apply(&cache, &[put("user", 1)]).await;
    let is_full =
        |error: &warmcast_cache::CacheError| error.is_retryable() && error.to_string().contains("OOM");
    assert!(matches!(&answers[0], Err(error) if is_full(error)), "{answers:?}");
    sleep(Duration::from_millis(2_100)).await;
    let () = redis::cmd("CONFIG").arg(&["SET", "maxmemory", "0"]).query_async(&mut admin).await.unwrap();
    assert_eq!(apply(&cache, &[put("user", 1)]).await, [Ok(Outcome::Applied)]);
    sleep(Duration::from_millis(1_500)).await;
    assert_eq!(epoch(&cache), before);
    assert_eq!(*cache.failovers().borrow(), 0);
    // Now it is written, and others see the same.
    assert_eq!(epoch(&Cache::connect(server.config()).await.unwrap()), before);
    watching.finish().await;
}
