//! Looks at every primary: when a connection for writing is opened, before the first call goes out on it, and once
//! a second. What follows from a look is decided in `sample`.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use redis::Value;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    config::Servers,
    connection::ConnectError,
    node::{Link, Node},
    nodes::Nodes,
    reply::describe,
    sample::{Known, Look, Marker, MarkerRead, Sample, judge},
    server_clock,
};

/// How often each primary is looked at.
const PERIOD: Duration = Duration::from_secs(1);

/// How often the topology of a cluster is looked up although nothing shows that it has changed. Sentinels are asked
/// in every period: a primary that was cut off from them goes on taking writes, which will be lost.
const CLUSTER_LOOK_UP: Duration = Duration::from_secs(5);

/// Changes a marker; its file documents its arguments and answers.
const MARK_SCRIPT: &str =
    concat!(include_str!("../scripts/prelude.lua"), include_str!("../scripts/mark.lua"));

/// The parts of INFO that are read. One command for each: more than one section in a command is new in Redis 7.0.
const SECTIONS: [&str; 4] = ["server", "replication", "stats", "memory"];

impl Nodes {
    /// Looks at every primary once a second until `shutdown`.
    pub(crate) async fn watch(&self, shutdown: CancellationToken) {
        let mut ticks = interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut looked_up = Instant::now();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let is_due = match self.config().servers {
                Servers::Standalone(_) => false,
                Servers::Sentinel { .. } => true,
                Servers::Cluster(_) => looked_up.elapsed() >= CLUSTER_LOOK_UP,
            };
            if is_due {
                looked_up = Instant::now();
                self.suspect();
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.look_at_all() => {}
            }
        }
    }

    async fn look_at_all(&self) {
        let map = self.current_map().await;
        join_all(map.shards().iter().map(|shard| self.look_at(&shard.primary))).await;
    }

    async fn look_at(&self, node: &Arc<Node>) {
        let began = Instant::now();
        // A connection that is opened for this is sampled by that.
        let looked = match self.link(node).await {
            Ok(link) if node.sampled_since(began) => Ok(link),
            Ok(link) => match self.sample(node, &link).await {
                Ok(_) => Ok(link),
                Err(error) => {
                    node.give_up(&link);
                    self.suspect();
                    Err(error)
                }
            },
            Err(error) => Err(error),
        };
        if let Err(error) = looked {
            tracing::debug!(%error, "a primary of the cache was not sampled");
        }
    }

    /// Looks at a primary and learns from it. Answers which tenure of the server the connection belongs to.
    ///
    /// # Errors
    /// It does not answer, or it is a replica.
    pub(crate) async fn sample(&self, node: &Arc<Node>, link: &Link) -> Result<u64, ConnectError> {
        let wait = self.config().response_timeout;
        let late = || ConnectError::Timeout { address: node.name().to_string(), waited: wait };
        let _turn = timeout(wait, node.sampling.lock()).await.map_err(|_| late())?;
        let marker_key = self.marker_key(node);
        let mut pipeline = redis::pipe();
        for section in SECTIONS {
            pipeline.cmd("INFO").arg(section);
        }
        // After the counts: what they do not tell of happened later than this.
        pipeline.cmd("TIME");
        if let Some(key) = &marker_key {
            pipeline.cmd("GET").arg(key);
        }
        let connections_lost = node.connections_lost();
        let unreachable = |reason| ConnectError::Unreachable { address: node.name().to_string(), reason };
        let answers = link.exchange(&pipeline).await.map_err(unreachable)?;
        let clock = answers.get(SECTIONS.len()).and_then(server_clock::Sample::read);
        let clock = clock.ok_or_else(|| unreachable("it does not tell the time".to_owned()))?;
        link.clock.record(clock);
        let info = texts(answers.get(..SECTIONS.len()).unwrap_or_default());
        let sample = Sample::read(&info, false, connections_lost, clock.server_ms());
        if sample.is_replica {
            node.distrust();
            return Err(ConnectError::Replica { address: node.name().to_string() });
        }
        let asked = answers.get(SECTIONS.len() + 1);
        let found = MarkerRead::read(asked);
        // Before it is known whose keys a server has, nothing that was seen of it tells of an epoch.
        let before = node.known().filter(|known| !known.epoch.is_empty());
        let (mut known, marker) = judge(Look {
            previous: before.as_ref(),
            sample,
            marker_key: marker_key.as_deref(),
            found: &found,
            given_epoch: self.given_epoch(node, &found),
            loss_ms: self.loss_ms(),
            new_epoch: format!("{:016x}", rand::random::<u64>()),
        });
        if let (Some(key), Some(marker)) = (marker_key, marker) {
            let text = match asked {
                Some(Value::BulkString(text)) => text.as_slice(),
                _ => &[],
            };
            known = self.mark(node, link, key, (text, &marker), known).await.map_err(unreachable)?;
        }
        if self.map().topology().shard_with_primary(node.address()).is_none() {
            known.epoch.clear();
        }
        let is_new_epoch = match (&before, &found) {
            (Some(before), _) => before.epoch != known.epoch,
            (None, MarkerRead::Found(found)) => found.epoch != known.epoch && !is_silent(&known),
            (None, MarkerRead::Missing | MarkerRead::Unread) => false,
        };
        let is_first = before.is_none();
        self.tell(node, &known, is_new_epoch);
        let loss_ms = known.loss_ms;
        let tenure = node.learn(known, is_new_epoch);
        self.reckon(loss_ms, is_new_epoch && is_first);
        Ok(tenure)
    }

    /// The epoch of another primary of now whose keys, or whose marker, have come to this one.
    fn given_epoch(&self, node: &Arc<Node>, found: &MarkerRead) -> Option<String> {
        let map = self.map();
        map.topology().shard_with_primary(node.address())?;
        match found {
            MarkerRead::Found(marker) => {
                let mut others = map.shards().iter().map(|shard| &shard.primary);
                let giver = others.any(|other| !Arc::ptr_eq(other, node) && other.is(&marker.identity));
                giver.then(|| marker.epoch.clone())
            }
            MarkerRead::Missing | MarkerRead::Unread => node.given_epoch(),
        }
    }

    /// The place of a primary's marker: that of before for as long as the primary has its slot.
    fn marker_key(&self, node: &Node) -> Option<Vec<u8>> {
        let map = self.map();
        let topology = map.topology();
        let shard = topology.shard_with_primary(node.address())?;
        let before = node.known().and_then(|known| known.marker_key);
        before.filter(|key| topology.shard_of(key) == Some(shard)).or_else(|| {
            Marker::key(&self.config().key_prefix, |slot| topology.shard_of_slot(slot) == Some(shard))
        })
    }

    /// Changes a marker from what was found. What is known then: another process may have been faster.
    async fn mark(
        &self,
        node: &Node,
        link: &Link,
        key: Vec<u8>,
        (found, marker): (&[u8], &Marker),
        known: Known,
    ) -> Result<Known, String> {
        let script = redis::Script::new(MARK_SCRIPT);
        let mut pipeline = redis::pipe();
        pipeline.cmd("SCRIPT").arg("LOAD").arg(MARK_SCRIPT);
        pipeline.cmd("EVALSHA").arg(script.get_hash()).arg(1).arg(&key).arg(found).arg(marker.write());
        let answers = link.exchange(&pipeline).await?;
        if let Some(Value::ServerError(error)) = answers.get(1) {
            // It is full, for example. It is tried again with the next look.
            let reason = describe(error);
            tracing::debug!(address = %node.name(), %reason, "the cache's marker cannot be written");
        }
        Ok(match MarkerRead::read(answers.get(1)) {
            MarkerRead::Found(there) if there.identity == marker.identity => Known {
                epoch: there.epoch,
                loss_ms: there.loss_ms.max(known.loss_ms),
                marker_key: Some(key),
                ..known
            },
            _ => known,
        })
    }

    fn tell(&self, node: &Node, known: &Known, is_new_epoch: bool) {
        let address = node.name();
        if is_new_epoch {
            tracing::warn!(
                %address,
                "the cache has another primary, or it restarted, or was emptied: its latest writes may be lost"
            );
        }
        if is_silent(known) && self.is_first_silence() {
            tracing::error!(
                %address,
                "the cache does not tell its run id or how much it evicted (INFO server, stats): changes create \
                 no entries, and failovers are known by lost connections only; permit INFO"
            );
        }
    }

    /// Finds out who a server is, without judging it.
    pub(crate) async fn introduce(&self, node: &Arc<Node>) {
        // Who cannot be asked now will be when the connection is used.
        let Ok(link) = node.open().await else { return };
        let mut pipeline = redis::pipe();
        for section in SECTIONS {
            pipeline.cmd("INFO").arg(section);
        }
        if let Ok(answers) = link.exchange(&pipeline).await {
            node.set_first_identity(Sample::read(&texts(&answers), false, 0, 0).identity);
        }
    }
}

/// The server does not tell what is needed.
fn is_silent(known: &Known) -> bool {
    known.sample.identity.is_none() || known.sample.evicted_keys.is_none()
}

/// The texts of INFO; what was refused is left out.
fn texts(answers: &[Value]) -> Vec<&str> {
    let mut texts = Vec::with_capacity(answers.len());
    for answer in answers {
        match answer {
            Value::BulkString(text) => texts.extend(str::from_utf8(text)),
            Value::SimpleString(text) | Value::VerbatimString { text, .. } => texts.push(text),
            _ => {}
        }
    }
    texts
}
