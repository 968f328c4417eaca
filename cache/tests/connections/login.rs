//! Users, rights, and sockets.

use warmcast_cache::{
    Address, Cache, CacheConfig, ConnectError, EntryReads, Outcome, ReadFrom, Secret, Servers,
};

use crate::{
    acl::{as_user, rule, set_user},
    changes::{Watching, apply, apply_at_last, keys, payloads, put},
    support::RedisServer,
};

/// A user with the rights of a writer, but for one of them.
async fn writer_without(right: &str, server: &RedisServer, name: &str) -> CacheConfig {
    let rule: Vec<String> = rule("warmcast-writer", false).into_iter().filter(|word| word != right).collect();
    set_user(&mut server.admin().await, name, &rule).await;
    as_user(name, server.config())
}

#[tokio::test]
async fn each_right_that_is_missing_is_found_when_connecting() {
    let server = RedisServer::start();
    for (user, right) in [("a", "+script|load"), ("b", "+time")] {
        let config = writer_without(right, &server, user).await;
        let error = Cache::connect(config).await.unwrap_err();
        assert!(matches!(&error, ConnectError::Permission { .. }) && !error.is_retryable(), "{error}");
        assert!(error.to_string().contains("docs/security.md"), "{error}");
    }
}

#[tokio::test]
async fn a_server_that_tells_nothing_of_itself_gets_no_new_entries_but_keeps_what_it_has_current() {
    let server = RedisServer::start();
    let cache = Cache::connect(server.config()).await.unwrap();
    assert_eq!(apply(&cache, &[put("old", 1)]).await, [Ok(Outcome::Applied)]);

    let config = writer_without("+info", &server, "mute").await;
    let cache = Cache::connect(config).await.unwrap();
    let watching = Watching::start(&cache);
    for sequence in 2..8 {
        let answers = apply(&cache, &[put("old", sequence), put("new", sequence)]).await;
        assert_eq!(answers, [Ok(Outcome::Applied), Ok(Outcome::LeftAbsent)]);
    }
    assert_eq!(*cache.failovers().borrow(), 0);
    // Whether it is another one after all connections were lost is not known: so it is.
    let mut command = redis::cmd("CLIENT");
    let killed: u64 =
        command.arg(&["KILL", "USER", "mute"]).query_async(&mut server.admin().await).await.unwrap();
    assert!(killed > 1, "{killed} connections");
    for sequence in 8..16 {
        let outcomes = apply_at_last(&cache, &[put("old", sequence)]).await;
        assert!(matches!(outcomes[..], [Outcome::Applied | Outcome::Stale]), "{outcomes:?}");
    }
    watching.finish().await;
    let failovers = *cache.failovers().borrow();
    // One for all of them, but for those that are not seen to be closed at the same time.
    assert!((1..=killed).contains(&failovers), "{failovers}");
}

#[tokio::test]
async fn a_unix_socket_serves_as_well_as_a_port() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("redis.sock");
    let server = RedisServer::start_with(&["--unixsocket", path.to_str().unwrap()], &[]);
    let config = CacheConfig { servers: Servers::Standalone(Address::Unix(path)), ..server.config() };
    let cache = Cache::connect(config.clone()).await.unwrap();
    assert_eq!(apply(&cache, &[put("user-0", 1)]).await, [Ok(Outcome::Applied)]);
    let reads = EntryReads::connect(config, ReadFrom::Replica).await.unwrap();
    assert_eq!(payloads(&reads, &keys(1)).await, [Ok(Some("user-0 as of 1".to_owned()))]);
}

#[tokio::test]
async fn a_wrong_password_is_told_and_not_shown() {
    let server = RedisServer::start_with(&["--requirepass", "right"], &[]);
    let config = CacheConfig { password: Some(Secret::new("hunter2").into()), ..server.config() };
    for error in [
        Cache::connect(config.clone()).await.unwrap_err(),
        EntryReads::connect(config, ReadFrom::Primary).await.unwrap_err(),
        Cache::connect(server.config()).await.unwrap_err(),
    ] {
        assert!(matches!(&error, ConnectError::Credentials { .. }) && !error.is_retryable(), "{error}");
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    }
}
