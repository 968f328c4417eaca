//! Every server version that is at hand: the one on the path, and those in `.tools/servers` (see
//! `sandbox/setup.sh servers`).

use std::{fs, path::Path};

use warmcast_cache::{Cache, EntryReads, Invalidated, ItemRef, Outcome, ReadFrom};

use crate::{
    acl::{as_user, rule, set_user},
    changes::{TABLE, apply, keys, payloads, put},
    cluster::RedisCluster,
    support::RedisServer,
};

fn binaries() -> Vec<String> {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/servers");
    let installed = fs::read_dir(tools).into_iter().flatten();
    let installed = installed.map(|entry| entry.unwrap().path().join("server")).filter(|path| path.exists());
    let mut binaries: Vec<String> = installed.map(|path| path.to_str().unwrap().to_owned()).collect();
    binaries.push("redis-server".to_owned());
    binaries
}

#[tokio::test]
async fn every_version_serves_alone_and_in_a_cluster() {
    futures_util::future::join_all(binaries().into_iter().map(serves)).await;
}

async fn serves(binary: String) {
    let server = RedisServer::start_on(crate::support::free_port, &binary, &[], &[]);
    let cluster = RedisCluster::start_binary(&binary, 2, 0, &[]).await;
    for node in std::iter::once(&server).chain(&cluster.nodes) {
        for user in ["warmcast-writer", "warmcast-reader"] {
            set_user(&mut node.admin().await, user, &rule(user, node.port != server.port)).await;
        }
    }
    for config in [server.config(), cluster.config()] {
        let cache = Cache::connect(as_user("warmcast-writer", config.clone())).await.unwrap();
        let keys = keys(100);
        let changes = |sequence| keys.iter().map(|key| put(key, sequence)).collect::<Vec<_>>();
        let answers = apply(&cache, &changes(2)).await;
        assert!(answers.iter().all(|answer| *answer == Ok(Outcome::Applied)), "{binary}: {answers:?}");
        let answers = apply(&cache, &changes(1)).await;
        assert!(answers.iter().all(|answer| *answer == Ok(Outcome::Stale)), "{binary}: {answers:?}");
        let item = ItemRef { table: TABLE, key: b"user-0" };
        assert!(cache.invalidate(&[item]).await == [Ok(Invalidated::Done)], "{binary}");
        let reads = EntryReads::connect(as_user("warmcast-reader", config), ReadFrom::Replica).await.unwrap();
        assert_eq!(payloads(&reads, &keys[1..2]).await, [Ok(Some("user-1 as of 2".to_owned()))], "{binary}");
        assert_eq!(*cache.failovers().borrow(), 0, "{binary}");
    }
    // A server out of memory: its error has the code that it has outside of scripts.
    let cache = Cache::connect(server.config()).await.unwrap();
    let mut admin = server.admin().await;
    let () = redis::cmd("CONFIG").arg(&["SET", "maxmemory", "1"]).query_async(&mut admin).await.unwrap();
    let answers = apply(&cache, &[put("other", 1)]).await;
    assert!(
        matches!(&answers[0], Err(error) if error.is_retryable() && error.to_string().contains("OOM")),
        "{binary}: {answers:?}"
    );
}
