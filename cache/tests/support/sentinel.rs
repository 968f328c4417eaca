//! A primary, two replicas and three sentinels for one test.

use std::{fs, time::Duration};

use redis::aio::MultiplexedConnection;
use tokio::time::{Instant, sleep};
use warmcast_cache::{Address, CacheConfig, Secret, Servers};

use crate::support::{RedisServer, free_port, patient};

pub(crate) const MASTER: &str = "profiles";

/// What the sentinels ask for.
pub(crate) const SENTINEL_PASSWORD: &str = "watchword";

const AGREED_WITHIN: Duration = Duration::from_secs(30);

pub(crate) struct SentinelSetup {
    /// The first is the primary at the start.
    pub(crate) servers: Vec<RedisServer>,
    pub(crate) sentinels: Vec<RedisServer>,
}

impl SentinelSetup {
    pub(crate) async fn start() -> Self {
        let primary = RedisServer::start();
        let (host, port) = ("127.0.0.1", primary.port.to_string());
        let mut servers = vec![primary];
        for _ in 0..2 {
            let replica = [
                "--replicaof",
                host,
                &port,
                "--repl-diskless-sync",
                "yes",
                "--repl-diskless-sync-delay",
                "0",
            ];
            servers.push(RedisServer::start_with(&replica, &[]));
        }
        let mut sentinels: Vec<RedisServer> = Vec::new();
        for _ in 0..3 {
            sentinels.push(start_sentinel(&port));
        }
        let setup = Self { servers, sentinels };
        setup.wait_until_settled().await;
        setup
    }

    /// Waits until all replicas are in step and each sentinel knows all the others.
    pub(crate) async fn wait_until_settled(&self) {
        let deadline = Instant::now() + AGREED_WITHIN;
        for sentinel in &self.sentinels {
            let mut admin = sentinel_admin(sentinel).await;
            loop {
                let known: std::collections::HashMap<String, String> =
                    redis::cmd("SENTINEL").arg("MASTER").arg(MASTER).query_async(&mut admin).await.unwrap();
                let replicas: Vec<std::collections::HashMap<String, String>> =
                    redis::cmd("SENTINEL").arg("REPLICAS").arg(MASTER).query_async(&mut admin).await.unwrap();
                let in_step = replicas.iter().filter(|replica| replica["master-link-status"] == "ok").count();
                if known["num-other-sentinels"] == "2" && in_step == 2 {
                    break;
                }
                assert!(
                    Instant::now() < deadline,
                    "sentinels did not find each other: {known:?} {replicas:?}"
                );
                sleep(Duration::from_millis(50)).await;
            }
        }
    }

    /// Waits until most sentinels name another primary than this one, and says which.
    pub(crate) async fn wait_for_another_primary(&self, before: u16) -> usize {
        let deadline = Instant::now() + AGREED_WITHIN;
        loop {
            let mut named = Vec::new();
            for sentinel in self.sentinels.iter().filter(|sentinel| sentinel.is_running()) {
                named.push(named_primary(sentinel).await);
            }
            if named.iter().all(|port| *port == named[0] && *port != before) {
                return self.servers.iter().position(|server| server.port == named[0]).unwrap();
            }
            assert!(Instant::now() < deadline, "no failover from {before}: {named:?}");
            sleep(Duration::from_millis(50)).await;
        }
    }

    pub(crate) fn config(&self) -> CacheConfig {
        patient(CacheConfig::new(Servers::Sentinel {
            addresses: self.sentinels.iter().map(RedisServer::address).collect(),
            master: MASTER.to_owned(),
            username: None,
            password: Some(Secret::new(SENTINEL_PASSWORD).into()),
        }))
    }
}

fn start_sentinel(primary_port: &str) -> RedisServer {
    let configuration = format!(
        "requirepass {SENTINEL_PASSWORD}\n\
         sentinel monitor {MASTER} 127.0.0.1 {primary_port} 2\n\
         sentinel down-after-milliseconds {MASTER} 1000\n\
         sentinel failover-timeout {MASTER} 3000\n\
         sentinel parallel-syncs {MASTER} 2\n"
    );
    RedisServer::start_sentinel(|directory| {
        fs::write(directory.join("sentinel.conf"), &configuration).unwrap();
    })
}

pub(crate) async fn sentinel_admin(sentinel: &RedisServer) -> MultiplexedConnection {
    let url = format!("redis://:{SENTINEL_PASSWORD}@127.0.0.1:{}", sentinel.port);
    redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap()
}

async fn named_primary(sentinel: &RedisServer) -> u16 {
    let mut command = redis::cmd("SENTINEL");
    command.arg("GET-MASTER-ADDR-BY-NAME").arg(MASTER);
    let (_, port): (String, u16) = command.query_async(&mut sentinel_admin(sentinel).await).await.unwrap();
    port
}

/// An address at which nothing answers.
pub(crate) fn nobody() -> Address {
    Address::Tcp { host: "127.0.0.1".to_owned(), port: free_port() }
}
