//! A real cluster for one test: three primaries with a replica each, or fewer.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, TcpListener},
    time::Duration,
};

use redis::{Value, aio::MultiplexedConnection};
use tokio::time::{Instant, sleep};
use warmcast_cache::{CacheConfig, Servers};

use crate::support::{RedisServer, patient};

/// How long a cluster may take to agree on something, on a busy machine.
const AGREED_WITHIN: Duration = Duration::from_secs(30);

const SLOTS: usize = 16_384;

/// What the nodes are started with.
const ARGUMENTS: [&str; 10] = [
    "--cluster-enabled",
    "yes",
    "--cluster-node-timeout",
    "2000",
    "--cluster-require-full-coverage",
    "no",
    "--repl-diskless-sync",
    "yes",
    "--repl-diskless-sync-delay",
    "0",
];

pub(crate) struct RedisCluster {
    /// The primaries, then their replicas in the same order.
    pub(crate) nodes: Vec<RedisServer>,
    primaries: usize,
}

impl RedisCluster {
    pub(crate) async fn start(primaries: usize, replicas_each: usize) -> Self {
        Self::start_binary("redis-server", primaries, replicas_each, &[]).await
    }

    pub(crate) async fn start_binary(
        binary: &str,
        primaries: usize,
        replicas_each: usize,
        more: &[&str],
    ) -> Self {
        let mut arguments = ARGUMENTS.to_vec();
        arguments.extend(more);
        let nodes: Vec<RedisServer> = std::thread::scope(|scope| {
            let starting: Vec<_> = (0..primaries * (1 + replicas_each))
                .map(|_| scope.spawn(|| RedisServer::start_on(cluster_port, binary, &arguments, &[])))
                .collect();
            starting.into_iter().map(|node| node.join().unwrap()).collect()
        });
        let cluster = Self { nodes, primaries };
        cluster.join().await;
        cluster
    }

    /// Gives the slots out, makes the nodes know each other, and the last ones replicas.
    async fn join(&self) {
        let mut ids = Vec::new();
        let first_port = self.nodes[0].port;
        for (index, node) in self.nodes.iter().enumerate() {
            let mut admin = node.admin().await;
            ids.push(text(&mut admin, &["MYID"]).await);
            text(&mut admin, &["SET-CONFIG-EPOCH", &(index + 1).to_string()]).await;
            if index < self.primaries {
                let slots = (index * SLOTS / self.primaries)..((index + 1) * SLOTS / self.primaries);
                let slots: Vec<String> = slots.map(|slot| slot.to_string()).collect();
                let mut command = vec!["ADDSLOTS"];
                command.extend(slots.iter().map(String::as_str));
                text(&mut admin, &command).await;
            }
            if index > 0 {
                text(&mut admin, &["MEET", "127.0.0.1", &first_port.to_string()]).await;
            }
        }
        self.wait_until_agreed().await;
        for (index, node) in self.nodes.iter().enumerate().skip(self.primaries) {
            let primary = &ids[index % self.primaries];
            text(&mut node.admin().await, &["REPLICATE", primary]).await;
        }
        self.wait_until("replicas are in step and known", async |admin| {
            let replication: String = redis::cmd("INFO").arg("replication").query_async(admin).await.unwrap();
            let is_in_step =
                replication.contains("role:master") || replication.contains("master_link_status:up");
            let replicas = text(admin, &["NODES"]).await.matches("slave").count();
            is_in_step && replicas == self.nodes.len() - self.primaries
        })
        .await;
    }

    async fn wait_until_agreed(&self) {
        self.wait_until("the nodes know each other", async |admin| {
            let nodes = text(admin, &["NODES"]).await;
            let info = text(admin, &["INFO"]).await;
            nodes.lines().filter(|line| !line.contains("handshake")).count() == self.nodes.len()
                && info.contains("cluster_slots_ok:16384")
                && info.contains("cluster_state:ok")
        })
        .await;
    }

    /// One more node, which has no slots; its index.
    pub(crate) async fn add_node(&mut self) -> usize {
        let node = RedisServer::start_on(cluster_port, "redis-server", &ARGUMENTS, &[]);
        let mut admin = node.admin().await;
        let epoch = self.nodes.len() + 1;
        text(&mut admin, &["SET-CONFIG-EPOCH", &epoch.to_string()]).await;
        text(&mut admin, &["MEET", "127.0.0.1", &self.nodes[0].port.to_string()]).await;
        self.nodes.push(node);
        self.wait_until_agreed().await;
        self.nodes.len() - 1
    }

    /// Waits until every node that runs says yes.
    pub(crate) async fn wait_until(
        &self,
        what: &str,
        is_so: impl AsyncFn(&mut MultiplexedConnection) -> bool,
    ) {
        let deadline = Instant::now() + AGREED_WITHIN;
        for node in self.nodes.iter().filter(|node| node.is_running()) {
            let mut admin = node.admin().await;
            while !is_so(&mut admin).await {
                assert!(
                    Instant::now() < deadline,
                    "waited {AGREED_WITHIN:?} at port {} until {what}",
                    node.port
                );
                sleep(Duration::from_millis(20)).await;
            }
        }
    }

    /// Waits until every node that runs says that this one is the primary of the slot.
    pub(crate) async fn wait_for_owner(&self, slot: u16, owner: &RedisServer) {
        self.wait_until("the slot has its new owner", async |admin| {
            owner_of(admin, slot).await == owner.port
        })
        .await;
    }

    /// The primary of a slot, as the first node that runs sees it.
    pub(crate) async fn owner(&self, slot: u16) -> usize {
        let node = self.nodes.iter().find(|node| node.is_running()).unwrap();
        let port = owner_of(&mut node.admin().await, slot).await;
        self.nodes.iter().position(|node| node.port == port).unwrap()
    }

    /// Moves a slot's keys and then the slot, as `redis-cli --cluster reshard` does; `begun` is awaited between the
    /// two halves of the keys.
    pub(crate) async fn move_slot(&self, slot: u16, from: usize, to: usize, begun: impl Future<Output = ()>) {
        let (mut source, mut target) = (self.nodes[from].admin().await, self.nodes[to].admin().await);
        let (source_id, target_id) = (text(&mut source, &["MYID"]).await, text(&mut target, &["MYID"]).await);
        let slot = slot.to_string();
        text(&mut target, &["SETSLOT", &slot, "IMPORTING", &source_id]).await;
        text(&mut source, &["SETSLOT", &slot, "MIGRATING", &target_id]).await;
        let keys = |count: usize| {
            let mut command = redis::cmd("CLUSTER");
            command.arg("GETKEYSINSLOT").arg(&slot).arg(count);
            command
        };
        let all: Vec<Vec<u8>> = keys(1_000_000).query_async(&mut source).await.unwrap();
        self.migrate(&mut source, to, &all[..all.len() / 2]).await;
        begun.await;
        loop {
            let rest: Vec<Vec<u8>> = keys(100).query_async(&mut source).await.unwrap();
            if rest.is_empty() {
                break;
            }
            self.migrate(&mut source, to, &rest).await;
        }
        text(&mut target, &["SETSLOT", &slot, "NODE", &target_id]).await;
        text(&mut source, &["SETSLOT", &slot, "NODE", &target_id]).await;
    }

    async fn migrate(&self, source: &mut MultiplexedConnection, to: usize, keys: &[Vec<u8>]) {
        if keys.is_empty() {
            return;
        }
        let mut command = redis::cmd("MIGRATE");
        command.arg("127.0.0.1").arg(self.nodes[to].port).arg("").arg(0).arg(5_000).arg("KEYS").arg(keys);
        let moved: String = command.query_async(source).await.unwrap();
        assert!(moved == "OK" || moved == "NOKEY", "{moved}");
    }

    pub(crate) fn config(&self) -> CacheConfig {
        let seeds = self.nodes.iter().map(RedisServer::address).collect();
        patient(CacheConfig::new(Servers::Cluster(seeds)))
    }
}

async fn owner_of(admin: &mut MultiplexedConnection, slot: u16) -> u16 {
    let mut command = redis::cmd("CLUSTER");
    let slots: Vec<Vec<Value>> = command.arg("SLOTS").query_async(admin).await.unwrap();
    let owner = slots.into_iter().find_map(|mut range| {
        let (first, last): (u16, u16) = (
            redis::from_redis_value(range.remove(0)).unwrap(),
            redis::from_redis_value(range.remove(0)).unwrap(),
        );
        let node: Vec<Value> = redis::from_redis_value(range.remove(0)).unwrap();
        let port: u16 = redis::from_redis_value(node[1].clone()).unwrap();
        (first..=last).contains(&slot).then_some(port)
    });
    owner.unwrap_or_default()
}

/// A `CLUSTER` command whose answer is a text.
pub(crate) async fn text(admin: &mut MultiplexedConnection, arguments: &[&str]) -> String {
    let mut command = redis::cmd("CLUSTER");
    command.arg(arguments).query_async(admin).await.unwrap()
}

/// A port that is free, and so is the one that cluster nodes talk to each other on: 10,000 above.
fn cluster_port() -> u16 {
    let free = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    std::iter::repeat_with(|| fastrand::u16(10_000..22_000))
        .find(|port| free(*port) && free(port + 10_000))
        .unwrap()
}

/// For tests that look at one server after another.
pub(crate) async fn info(server: &RedisServer, section: &str) -> BTreeMap<String, String> {
    let info: String = redis::cmd("INFO").arg(section).query_async(&mut server.admin().await).await.unwrap();
    let fields = info.lines().filter_map(|line| line.split_once(':'));
    fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}
