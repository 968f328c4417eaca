//! Replicas: reading from them, and what becomes of writers when a primary is made one.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use tokio::time::{Instant, sleep};
use warmcast_cache::{Cache, ConnectError, EntryReads, Outcome, ReadFrom};

use crate::{
    changes::{apply, keys, payloads, payloads_at_last, put},
    cluster::info,
    sentinel::nobody,
    support::RedisServer,
};

async fn replicate(replica: &mut MultiplexedConnection, primary: u16) {
    let () = redis::cmd("REPLICAOF").arg("127.0.0.1").arg(primary).query_async(replica).await.unwrap();
}

#[tokio::test]
async fn a_primary_that_becomes_a_replica_is_unavailable_until_it_is_a_primary_again_which_is_a_failover() {
    let server = RedisServer::start();
    let primary = RedisServer::start_with(&["--repl-diskless-sync-delay", "0"], &[]);
    let cache = Cache::connect(server.config()).await.unwrap();
    assert_eq!(apply(&cache, &[put("user", 1)]).await, [Ok(Outcome::Applied)]);

    let mut admin = server.admin().await;
    replicate(&mut admin, primary.port).await;
    for _ in 0..2 {
        let answers = apply(&cache, &[put("user", 2)]).await;
        assert!(matches!(&answers[0], Err(error) if error.is_retryable()), "{answers:?}");
    }
    let error = Cache::connect(server.config()).await.unwrap_err();
    assert!(matches!(&error, ConnectError::Replica { .. }) && error.is_retryable(), "{error}");

    let deadline = Instant::now() + Duration::from_secs(20);
    while info(&server, "replication").await["master_link_status"] != "up" {
        assert!(Instant::now() < deadline, "the replica is not in step");
        sleep(Duration::from_millis(20)).await;
    }
    // The same process, with the other's data: what was applied before is gone.
    let () = redis::cmd("REPLICAOF").arg("NO").arg("ONE").query_async(&mut admin).await.unwrap();
    let outcomes = crate::changes::apply_at_last(&cache, &[put("user", 2)]).await;
    assert_eq!(*cache.failovers().borrow(), 1, "{outcomes:?}");
}

#[tokio::test]
async fn a_replica_that_has_nothing_to_say_is_passed_over_for_its_primary() {
    // Its primary is unreachable, and it answers nothing but MASTERDOWN.
    let warmcast_cache::Address::Tcp { port, .. } = nobody() else { panic!("a port") };
    let port = port.to_string();
    let stale = ["--replicaof", "127.0.0.1", &port, "--replica-serve-stale-data", "no"];
    let server = RedisServer::start_with(&stale, &[]);
    let reads = EntryReads::connect(server.config(), ReadFrom::Replica).await;
    let answers = match &reads {
        Ok(reads) => payloads(reads, &keys(2)).await,
        Err(error) => panic!("{error}"),
    };
    for answer in answers {
        assert!(
            matches!(&answer, Err(error) if error.is_retryable() && error.to_string().contains("MASTERDOWN")),
            "{answer:?}"
        );
    }
}

#[tokio::test]
async fn any_number_of_keys_is_read_in_their_order_and_what_is_no_text_is_nothing() {
    let server = RedisServer::start();
    let cache = Cache::connect(server.config()).await.unwrap();
    let keys = keys(300);
    let changes: Vec<_> = keys.iter().step_by(2).map(|key| put(key, 1)).collect();
    assert!(apply(&cache, &changes).await.iter().all(Result::is_ok));
    let () = redis::cmd("LPUSH")
        .arg(crate::changes::redis_key(&keys[1]))
        .arg("a list")
        .query_async(&mut server.admin().await)
        .await
        .unwrap();
    for from in [ReadFrom::Primary, ReadFrom::Replica] {
        let reads = EntryReads::connect(server.config(), from).await.unwrap();
        for (index, found) in payloads_at_last(&reads, &keys).await.into_iter().enumerate() {
            let expected = (index % 2 == 0).then(|| format!("user-{index} as of 1"));
            assert_eq!(found, expected);
        }
        assert_eq!(payloads_at_last(&reads, &keys[1..2]).await, [None]);
        assert_eq!(payloads_at_last(&reads, &[]).await, []);
    }
}
