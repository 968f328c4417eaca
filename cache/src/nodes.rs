//! All servers of a cache, and which of them has which key.
//!
//! The topology is looked up when something shows that it has changed: a redirection, a dead server, a primary that
//! takes no writes. Look-ups are made by whoever meets the trouble, one at a time, and not more often than every
//! 100 ms; all others go on with what is known.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use tokio::{sync::watch, time::Instant};
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    config::{Address, CacheConfig, Servers},
    connection::{ConnectError, Connector},
    directory::Directory,
    node::{Link, Node, Purpose},
    round_trips::RoundTrips,
    topology::Topology,
};

/// The shortest time between two look-ups of the topology.
const LOOK_UP_PAUSE: Duration = Duration::from_millis(100);

/// How long a server is kept that the topology does not name: one that is being given its first slots.
const UNLISTED_KEPT: Duration = Duration::from_mins(1);

/// The servers of one cache. Clones share them.
#[derive(Clone)]
pub(crate) struct Nodes(Arc<Shared>);

struct Shared {
    config: Arc<CacheConfig>,
    purpose: Purpose,
    round_trips: RoundTrips,
    connector: Arc<Connector>,
    directory: Directory,
    map: RwLock<Arc<Map>>,
    /// Every server that is known, in the map or not.
    known: Mutex<BTreeMap<Address, Arc<Node>>>,
    /// Something shows that the map is out of date.
    is_stale: AtomicBool,
    /// When the last look-up began.
    looked_up: tokio::sync::Mutex<Option<Instant>>,
    failovers: watch::Sender<u64>,
    /// The epochs of all primaries in one word; empty until all are known.
    epoch: watch::Sender<String>,
    /// The latest loss horizon of any primary: keys move between them.
    loss_ms: AtomicU64,
    /// It was said that a server does not tell what is needed.
    pub(crate) told_of_silence: AtomicBool,
}

/// Which server has which key.
pub(crate) struct Map {
    /// Counts the maps.
    version: u64,
    topology: Topology,
    /// In the topology's order.
    shards: Vec<Shard>,
}

/// A primary and its replicas.
pub(crate) struct Shard {
    pub(crate) primary: Arc<Node>,
    pub(crate) replicas: Vec<Arc<Node>>,
}

impl Map {
    pub(crate) const fn version(&self) -> u64 {
        self.version
    }

    pub(crate) const fn topology(&self) -> &Topology {
        &self.topology
    }

    pub(crate) fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// The shard that has a key; none: nobody has it.
    pub(crate) fn shard_of(&self, key: &[u8]) -> Option<&Shard> {
        self.shards.get(self.topology.shard_of(key)?)
    }
}

impl Nodes {
    /// Finds the servers and connects to every primary. One that cannot be reached is an error only if none can,
    /// or if somebody has to do something about it.
    pub(crate) async fn connect(config: CacheConfig, round_trips: RoundTrips) -> Result<Self, ConnectError> {
        Self::connect_for(config, Purpose::Write, round_trips).await
    }

    pub(crate) async fn connect_for(
        config: CacheConfig,
        purpose: Purpose,
        round_trips: RoundTrips,
    ) -> Result<Self, ConnectError> {
        let config = Arc::new(config);
        let connector = Arc::new(Connector::new(&config)?);
        let directory = Directory::new(config.servers.clone(), Arc::clone(&connector));
        let topology = directory.look_up(&[]).await?;
        let (failovers, _) = watch::channel(0);
        let (epoch, _) = watch::channel(String::new());
        let empty = Map { version: 0, topology: topology.clone(), shards: Vec::new() };
        let nodes = Self(Arc::new(Shared {
            config,
            purpose,
            round_trips,
            connector,
            directory,
            map: RwLock::new(Arc::new(empty)),
            known: Mutex::default(),
            is_stale: AtomicBool::new(false),
            looked_up: tokio::sync::Mutex::default(),
            failovers,
            epoch,
            loss_ms: AtomicU64::new(0),
            told_of_silence: AtomicBool::new(false),
        }));
        nodes.install(topology);
        nodes.meet().await?;
        Ok(nodes)
    }

    /// Opens the first connections.
    async fn meet(&self) -> Result<(), ConnectError> {
        let map = self.map();
        if self.purpose() == Purpose::Write && map.shards.len() > 1 {
            // All identities are known before the first marker is judged, which may name any of them.
            join_all(map.shards.iter().map(|shard| self.introduce(&shard.primary))).await;
        }
        let met = join_all(map.shards.iter().map(|shard| self.link(&shard.primary))).await;
        let any_met = met.iter().any(Result::is_ok);
        let mut failures = met.into_iter().filter_map(Result::err).collect::<Vec<_>>();
        let fatal = failures.iter().position(|error| !error.is_retryable());
        match (fatal, any_met) {
            (None, true) => Ok(()),
            (fatal, _) if !failures.is_empty() => Err(failures.swap_remove(fatal.unwrap_or_default())),
            _ => Err(ConnectError::Topology {
                servers: self.config().servers.to_string(),
                reason: "it has no servers".to_owned(),
            }),
        }
    }

    pub(crate) fn config(&self) -> &Arc<CacheConfig> {
        &self.0.config
    }

    pub(crate) fn purpose(&self) -> Purpose {
        self.0.purpose
    }

    pub(crate) fn map(&self) -> Arc<Map> {
        Arc::clone(&self.0.map.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// A connection to a server that may be used: on one for writing, its server was sampled.
    pub(crate) async fn link(&self, node: &Arc<Node>) -> Result<Arc<Link>, ConnectError> {
        let opened = self.open(node).await;
        if opened.is_err() {
            self.suspect();
        }
        opened
    }

    async fn open(&self, node: &Arc<Node>) -> Result<Arc<Link>, ConnectError> {
        let link = node.open().await?;
        if self.purpose() == Purpose::Write
            && let Err(error) = link.judged.get_or_try_init(|| self.sample(node, &link)).await
        {
            node.give_up(&link);
            return Err(error);
        }
        Ok(link)
    }

    /// How often a primary was found whose data may have gone back.
    pub(crate) fn failovers(&self) -> watch::Receiver<u64> {
        self.0.failovers.subscribe()
    }

    /// The epochs of all primaries in one word. It is another one when the data of one of them may have gone back, or
    /// when others have the keys; empty until all were looked at.
    pub(crate) fn epoch(&self) -> watch::Receiver<String> {
        self.0.epoch.subscribe()
    }

    /// The latest loss horizon that is known of any primary.
    pub(crate) fn loss_ms(&self) -> u64 {
        self.0.loss_ms.load(Ordering::Relaxed)
    }

    /// A primary was looked at: what follows for the cache as a whole.
    pub(crate) fn reckon(&self, loss_ms: u64, is_new_epoch: bool) {
        self.0.loss_ms.fetch_max(loss_ms, Ordering::Relaxed);
        let map = self.map();
        // A set: a primary that was given slots by another one has its epoch, too.
        let epochs: Option<BTreeSet<String>> =
            map.shards().iter().map(|shard| shard.primary.epoch()).collect();
        let mut is_other = false;
        if let Some(epochs) = epochs {
            let epochs: Vec<String> = epochs.into_iter().collect();
            let digest = format!("{:016x}", xxh3_64(epochs.join(" ").as_bytes()));
            self.0.epoch.send_if_modified(|epoch| {
                let is_changed = *epoch != digest;
                is_other = is_changed && !epoch.is_empty();
                *epoch = digest;
                is_changed
            });
        }
        if is_other || is_new_epoch {
            self.0.failovers.send_modify(|count| *count += 1);
        }
    }

    /// Now on the clock of the primary that has a key, not later than it truly is; none: there is no connection to
    /// it.
    pub(crate) fn server_now_ms(&self, key: &[u8]) -> Option<u64> {
        self.map().shard_of(key)?.primary.now_ms()
    }

    /// Something shows that the map may be out of date.
    pub(crate) fn suspect(&self) {
        self.0.is_stale.store(true, Ordering::Relaxed);
    }

    /// Whether this is the first time that a server kept silent about what is needed.
    pub(crate) fn is_first_silence(&self) -> bool {
        !self.0.told_of_silence.swap(true, Ordering::Relaxed)
    }

    /// The map, looked up anew if something showed that it is out of date.
    pub(crate) async fn current_map(&self) -> Arc<Map> {
        let map = self.map();
        if !self.0.is_stale.load(Ordering::Relaxed) {
            return map;
        }
        self.look_up(map.version).await;
        self.map()
    }

    /// Looks the topology up, unless there is a newer map than this one, or somebody did just now.
    pub(crate) async fn look_up(&self, version: u64) {
        if matches!(self.config().servers, Servers::Standalone(_)) {
            self.0.is_stale.store(false, Ordering::Relaxed);
            return;
        }
        let mut looked_up = self.0.looked_up.lock().await;
        let is_recent = looked_up.is_some_and(|began| began.elapsed() < LOOK_UP_PAUSE);
        if is_recent || self.map().version != version {
            return;
        }
        *looked_up = Some(Instant::now());
        self.0.is_stale.store(false, Ordering::Relaxed);
        let known: Vec<Address> = self.map().topology.addresses().into_iter().cloned().collect();
        match self.0.directory.look_up(&known).await {
            Ok(topology) => self.install(topology),
            Err(error) => {
                self.suspect();
                tracing::debug!(%error, "the cache's servers are not known anew");
            }
        }
    }

    /// A server that the map may not have yet, because another one named it.
    pub(crate) fn node(&self, address: &Address) -> Arc<Node> {
        let mut known = self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(known.entry(address.clone()).or_insert_with(|| self.new_node(address)))
    }

    fn new_node(&self, address: &Address) -> Arc<Node> {
        let Shared { config, connector, purpose, round_trips, .. } = &*self.0;
        let (connector, config) = (Arc::clone(connector), Arc::clone(config));
        Arc::new(Node::new(address.clone(), connector, config, *purpose, round_trips.clone()))
    }

    fn install(&self, topology: Topology) {
        let mut map = self.0.map.write().unwrap_or_else(PoisonError::into_inner);
        let is_first = map.version == 0;
        if map.topology == topology && !is_first {
            return;
        }
        let shards = topology.shards().iter().enumerate().map(|(index, shard)| {
            let primary = self.node(&shard.primary);
            if !map.topology.is_primary(&shard.primary) {
                primary.set_given_epoch(self.givers_epoch(&topology, &map, index));
            }
            let replicas = shard.replicas.iter().map(|replica| self.node(replica));
            Shard { primary, replicas: replicas.collect() }
        });
        let shards = shards.collect();
        let listed = topology.addresses();
        let mut known = self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|address, node| listed.contains(address) || node.idle() < UNLISTED_KEPT);
        drop(known);
        let version = map.version + 1;
        if !is_first {
            let primaries: Vec<String> =
                topology.shards().iter().map(|shard| shard.primary.to_string()).collect();
            tracing::info!(?primaries, "the cache's servers have changed");
        }
        *map = Arc::new(Map { version, topology, shards });
    }

    /// The epoch of those that gave a primary its slots, if all of them are primaries still.
    fn givers_epoch(&self, topology: &Topology, before: &Map, shard: usize) -> Option<String> {
        let givers = topology.predecessors(&before.topology, shard);
        let epochs = givers.into_iter().map(|giver| {
            let is_still_there = topology.is_primary(giver);
            is_still_there.then(|| self.node(giver).epoch())?
        });
        epochs.collect::<Option<BTreeSet<String>>>()?.into_iter().next()
    }
}
