//! A primary that sentinels watch over, failing over while it is written.

use warmcast_cache::{Cache, CacheConfig, ConnectError, EntryReads, Outcome, ReadFrom, Secret, Servers};

use crate::{
    changes::{Watching, Writer, apply, assert_complete, keys, payloads_at_last, put, wait_for_failovers},
    sentinel::{MASTER, SentinelSetup, nobody, sentinel_admin},
    walks::{items, walk},
};

fn with_servers(config: CacheConfig, change: impl FnOnce(&mut Servers)) -> CacheConfig {
    let mut config = config;
    change(&mut config.servers);
    config
}

/// Writes and watches while `fail_over` does, and checks that nothing is missing afterwards.
async fn writes_go_on(setup: &mut SentinelSetup, fail_over: impl AsyncFnOnce(&mut SentinelSetup)) {
    let cache = Cache::connect(setup.config()).await.unwrap();
    let reads = EntryReads::connect(setup.config(), ReadFrom::Replica).await.unwrap();
    let watching = Watching::start(&cache);
    let mut writer = Writer::start(&cache, keys(50));
    writer.wait_for_rounds(5).await;
    let first = setup.servers[0].port;
    fail_over(setup).await;
    setup.wait_for_another_primary(first).await;
    wait_for_failovers(&cache, 1).await;

    writer.wait_for_rounds(5).await;
    let written = writer.finish().await;
    watching.finish().await;
    let primaries = EntryReads::connect(setup.config(), ReadFrom::Primary).await.unwrap();
    assert_complete(&cache, &primaries, &written, true).await;
    assert_eq!(*cache.failovers().borrow(), 1);
    // Readers of replicas find somebody who answers.
    assert_eq!(payloads_at_last(&reads, &keys(3)).await.len(), 3);
}

#[tokio::test]
async fn writes_go_on_when_an_operator_fails_over_which_is_counted_once() {
    let mut setup = SentinelSetup::start().await;
    writes_go_on(&mut setup, async |setup| {
        let mut command = redis::cmd("SENTINEL");
        command.arg("FAILOVER").arg(MASTER);
        let () = command.query_async(&mut sentinel_admin(&setup.sentinels[0]).await).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn writes_go_on_when_the_primary_and_a_sentinel_crash_which_is_counted_once() {
    let mut setup = SentinelSetup::start().await;
    writes_go_on(&mut setup, async |setup| {
        setup.sentinels[0].kill();
        setup.servers[0].kill();
    })
    .await;
}

#[tokio::test]
async fn any_sentinel_may_be_dead_and_what_is_wrong_is_named() {
    let mut setup = SentinelSetup::start().await;
    let config = with_servers(setup.config(), |servers| {
        let Servers::Sentinel { addresses, .. } = servers else { panic!("sentinels") };
        addresses.insert(0, nobody());
    });
    setup.sentinels[0].kill();
    let reads = EntryReads::connect(config.clone(), ReadFrom::Primary).await.unwrap();
    let cache = Cache::connect(config).await.unwrap();
    assert_eq!(apply(&cache, &[put("user", 1)]).await, [Ok(Outcome::Applied)]);
    assert_eq!(walk(&reads, None).await.0, items(&["user".to_owned()]));

    let other = with_servers(setup.config(), |servers| {
        let Servers::Sentinel { master, .. } = servers else { panic!("sentinels") };
        "other".clone_into(master);
    });
    let error = Cache::connect(other).await.unwrap_err();
    assert!(matches!(&error, ConnectError::Topology { .. }) && error.is_retryable(), "{error}");
    assert!(error.to_string().contains("no primary of the name other"), "{error}");

    let stranger = with_servers(setup.config(), |servers| {
        let Servers::Sentinel { password, .. } = servers else { panic!("sentinels") };
        *password = Some(Secret::new("guess").into());
    });
    let error = Cache::connect(stranger).await.unwrap_err();
    assert!(matches!(&error, ConnectError::Credentials { .. }), "{error}");

    for sentinel in &mut setup.sentinels {
        sentinel.kill();
    }
    let error = Cache::connect(setup.config()).await.unwrap_err();
    assert!(matches!(&error, ConnectError::Unreachable { .. }) && error.is_retryable(), "{error}");
    // Who is connected goes on without them.
    assert_eq!(apply(&cache, &[put("user", 2)]).await, [Ok(Outcome::Applied)]);
}
