//! What goes wrong with the servers.

use std::time::Duration;

use fastrand::Rng;
use redis::aio::MultiplexedConnection;
use tokio::time::{Instant, sleep};
use warmcast_cache::CacheConfig;

use crate::{
    cluster::{RedisCluster, info},
    sentinel::{MASTER, SentinelSetup, sentinel_admin},
    support::RedisServer,
};

/// How long servers may take to cope with a fault, on a busy machine.
const SETTLED_WITHIN: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A primary dies and comes back: empty where it stands alone, as a replica of the one that took its place
    /// elsewhere.
    Kill,
    /// Somebody asks for a failover.
    FailOver,
    /// All keys go.
    Empty,
    /// Memory is short.
    Evict,
    /// `SCRIPT FLUSH`.
    ForgetScripts,
    /// The shard gets another writer.
    Takeover,
}

pub(crate) enum Servers {
    Standalone(RedisServer),
    Cluster(RedisCluster),
    Sentinel(SentinelSetup),
}

async fn send(admin: &mut MultiplexedConnection, command: &[&str]) {
    let _: redis::Value = redis::cmd(command[0]).arg(&command[1..]).query_async(admin).await.unwrap();
}

impl Servers {
    pub(crate) fn config(&self) -> CacheConfig {
        let config = match self {
            Self::Standalone(server) => server.config(),
            Self::Cluster(cluster) => cluster.config(),
            Self::Sentinel(setup) => setup.config(),
        };
        let second = Duration::from_secs(1);
        CacheConfig { connect_timeout: second, response_timeout: second, apply_deadline: second, ..config }
    }

    fn all(&self) -> &[RedisServer] {
        match self {
            Self::Standalone(server) => std::slice::from_ref(server),
            Self::Cluster(cluster) => &cluster.nodes,
            Self::Sentinel(setup) => &setup.servers,
        }
    }

    /// Does it, and waits until the servers have coped with it; not until the cache has.
    pub(crate) async fn cause(&mut self, fault: Fault, rng: &mut Rng) {
        match fault {
            Fault::Kill => self.kill(rng).await,
            Fault::FailOver => self.fail_over(rng).await,
            Fault::Empty => send(&mut self.all()[0].admin().await, &["FLUSHALL"]).await,
            Fault::Evict => self.evict(rng).await,
            Fault::ForgetScripts => {
                for server in self.all() {
                    send(&mut server.admin().await, &["SCRIPT", "FLUSH"]).await;
                }
            }
            Fault::Takeover => unreachable!("not the servers' fault"),
        }
    }

    /// One of the primaries, and a slot of it in a cluster.
    async fn primary(&self, rng: &mut Rng) -> (usize, u16) {
        let slot = rng.u16(0..16_384);
        match self {
            Self::Standalone(_) => (0, slot),
            Self::Cluster(cluster) => (cluster.owner(slot).await, slot),
            Self::Sentinel(setup) => (primary_by_its_replicas(setup).await, slot),
        }
    }

    async fn kill(&mut self, rng: &mut Rng) {
        let (index, slot) = self.primary(rng).await;
        let heir = self.replica_of(index).await;
        // What is written from now on does not reach the replicas: they come back within a second.
        send(&mut self.all()[index].admin().await, &["CLIENT", "KILL", "TYPE", "replica"]).await;
        sleep(Duration::from_millis(rng.u64(100..700))).await;
        match self {
            Self::Standalone(server) => {
                server.kill();
                sleep(Duration::from_millis(rng.u64(0..500))).await;
                assert!(server.run());
            }
            Self::Cluster(cluster) => {
                cluster.nodes[index].kill();
                cluster.wait_for_owner(slot, &cluster.nodes[heir.unwrap()]).await;
                assert!(cluster.nodes[index].run());
            }
            Self::Sentinel(setup) => {
                let port = setup.servers[index].port;
                setup.servers[index].kill();
                let successor = setup.wait_for_another_primary(port).await;
                assert!(setup.servers[index].run());
                follow(setup, index, successor).await;
            }
        }
        self.settle().await;
    }

    async fn fail_over(&mut self, rng: &mut Rng) {
        let (index, slot) = self.primary(rng).await;
        let heir = self.replica_of(index).await.unwrap();
        match self {
            Self::Standalone(_) => unreachable!("it has no replicas"),
            Self::Cluster(cluster) => {
                // With the primary's consent, or without: then its latest writes are lost.
                let how: &[&str] =
                    if rng.bool() { &["CLUSTER", "FAILOVER"] } else { &["CLUSTER", "FAILOVER", "TAKEOVER"] };
                send(&mut cluster.nodes[heir].admin().await, how).await;
                cluster.wait_for_owner(slot, &cluster.nodes[heir]).await;
            }
            Self::Sentinel(setup) => {
                let mut command = redis::cmd("SENTINEL");
                command.arg("FAILOVER").arg(MASTER);
                let mut sentinel = sentinel_admin(&setup.sentinels[0]).await;
                let deadline = Instant::now() + SETTLED_WITHIN;
                // It may not know yet that the replicas are well.
                while let Err(error) = command.query_async::<()>(&mut sentinel).await {
                    assert!(Instant::now() < deadline, "no failover: {error}");
                    sleep(Duration::from_millis(100)).await;
                }
                let successor = setup.wait_for_another_primary(setup.servers[index].port).await;
                // The old primary goes on taking writes, until sentinels make it follow: that takes them 8 s.
                sleep(Duration::from_millis(rng.u64(0..1_000))).await;
                follow(setup, index, successor).await;
            }
        }
        self.settle().await;
    }

    async fn replica_of(&self, index: usize) -> Option<usize> {
        let replication = info(&self.all()[index], "replication").await;
        let port =
            replication.get("slave0")?.split(',').find_map(|field| field.strip_prefix("port="))?.parse().ok();
        self.all().iter().position(|server| Some(server.port) == port)
    }

    /// Writes until the server has evicted some more.
    async fn evict(&self, rng: &mut Rng) {
        let server = &self.all()[0];
        let mut admin = server.admin().await;
        let evicted = async || info(server, "stats").await["evicted_keys"].parse::<u64>().unwrap();
        let enough = evicted().await + rng.u64(1..500);
        while evicted().await < enough {
            let mut pipeline = redis::pipe();
            for _ in 0..100 {
                pipeline.cmd("SET").arg(format!("other:{}", rng.u64(..))).arg("x".repeat(1_000)).ignore();
            }
            let () = pipeline.query_async(&mut admin).await.unwrap();
        }
    }

    /// Waits until all servers are there, and replicas in step.
    pub(crate) async fn settle(&self) {
        match self {
            Self::Standalone(_) => {}
            Self::Cluster(cluster) => {
                for node in &cluster.nodes {
                    wait_until_in_step(node, "1").await;
                }
            }
            Self::Sentinel(setup) => {
                for server in &setup.servers {
                    wait_until_in_step(server, "2").await;
                }
            }
        }
    }
}

async fn wait_until_in_step(server: &RedisServer, replicas: &str) {
    let deadline = Instant::now() + SETTLED_WITHIN;
    loop {
        let replication = info(server, "replication").await;
        let is = |field: &str, value: &str| replication.get(field).is_some_and(|found| found == value);
        if is("master_link_status", "up") || (is("role", "master") && is("connected_slaves", replicas)) {
            return;
        }
        assert!(Instant::now() < deadline, "not in step: {replication:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

async fn primary_by_its_replicas(setup: &SentinelSetup) -> usize {
    for (index, server) in setup.servers.iter().enumerate() {
        let replication = info(server, "replication").await;
        if replication["role"] == "master" && replication["connected_slaves"] == "2" {
            return index;
        }
    }
    panic!("no primary with two replicas")
}

/// As an operator does it who does not wait for the sentinels.
async fn follow(setup: &SentinelSetup, index: usize, primary: usize) {
    let port = setup.servers[primary].port.to_string();
    send(&mut setup.servers[index].admin().await, &["REPLICAOF", "127.0.0.1", &port]).await;
}
