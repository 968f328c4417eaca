//! Finds out which servers a cache has: from sentinels, or from any node of a cluster.
//!
//! It has connections of its own, so that a question is not queued behind entries. Nobody in particular is needed:
//! whoever is dead is passed over.

mod sentinel;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use redis::Value;
use tokio::time::sleep;

use crate::{
    config::{Address, Servers},
    connection::{ConnectError, Connection, Connector, Peer},
    reply::describe,
    topology::{Topology, read_cluster_slots},
};

/// How long one node is waited for before the next is asked as well.
const STAGGER: Duration = Duration::from_millis(100);

/// The most nodes that are asked in one look-up.
const ASKED_MAX: usize = 8;

pub(crate) struct Directory {
    servers: Servers,
    connector: Arc<Connector>,
    /// To those that were asked before.
    connections: Mutex<BTreeMap<Address, Connection>>,
}

impl Directory {
    pub(crate) fn new(servers: Servers, connector: Arc<Connector>) -> Self {
        Self { servers, connector, connections: Mutex::default() }
    }

    /// The topology as it is now, asked of the seeds and of the nodes that are known beside them.
    pub(crate) async fn look_up(&self, known: &[Address]) -> Result<Topology, ConnectError> {
        match &self.servers {
            Servers::Standalone(address) => Ok(Topology::single(address.clone(), Vec::new())),
            Servers::Cluster(seeds) => self.ask_nodes(seeds, known).await,
            Servers::Sentinel { addresses, master, .. } => sentinel::ask(self, addresses, master).await,
        }
    }

    /// The first node that answers is believed. In random order, so that one with old news is not asked each
    /// time; those with an open connection before the others.
    async fn ask_nodes(&self, seeds: &[Address], known: &[Address]) -> Result<Topology, ConnectError> {
        let mut candidates = known.to_vec();
        candidates.extend(seeds.iter().filter(|seed| !known.contains(seed)).cloned());
        fastrand::shuffle(&mut candidates);
        candidates.sort_by_key(|candidate| self.connected(candidate).is_none());
        candidates.truncate(ASKED_MAX);
        let topology = first_answer(candidates.iter().map(|candidate| self.ask_node(candidate))).await?;
        self.forget_all_but(|address| topology.addresses().contains(address) || seeds.contains(address));
        Ok(topology)
    }

    async fn ask_node(&self, address: &Address) -> Result<Topology, ConnectError> {
        let mut command = redis::cmd("CLUSTER");
        command.arg("SLOTS");
        let answer = self.ask(address, Peer::Server, &command).await?;
        read_cluster_slots(&answer, address).ok_or_else(|| ConnectError::Setup {
            address: address.to_string(),
            reason: "it knows of no slots; is it a node of the cluster?".to_owned(),
        })
    }

    /// One question, over the connection of before if there is one.
    async fn ask(&self, address: &Address, peer: Peer, command: &redis::Cmd) -> Result<Value, ConnectError> {
        let connection = match self.connected(address) {
            Some(connection) => connection,
            None => {
                let connection = self.connector.open(address, peer).await?;
                self.lock().insert(address.clone(), connection.clone());
                connection
            }
        };
        let answer = tokio::time::timeout(self.connector.step_timeout(), connection.ask(command)).await;
        let failed = match answer {
            Ok(Ok(Value::ServerError(error))) if error.code() == "ERR" => ConnectError::Topology {
                servers: self.servers.to_string(),
                reason: format!("{address} says: {}", describe(&error)),
            },
            Ok(Ok(Value::ServerError(error))) => return Err(ConnectError::from_answer(&error, address)),
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(reason)) => ConnectError::Unreachable { address: address.to_string(), reason },
            Err(_) => {
                ConnectError::Timeout { address: address.to_string(), waited: self.connector.step_timeout() }
            }
        };
        self.lock().remove(address);
        Err(failed)
    }

    fn connected(&self, address: &Address) -> Option<Connection> {
        self.lock()
            .get(address)
            .filter(|connection| !connection.is_closed() && !connection.is_worn())
            .cloned()
    }

    fn forget_all_but(&self, is_kept: impl Fn(&Address) -> bool) {
        self.lock().retain(|address, connection| is_kept(address) && !connection.is_closed());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Address, Connection>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks one after the other, the next when the one before has failed or is slow. The first failure that somebody
/// has to do something about is the one that is told.
async fn first_answer<T>(
    questions: impl ExactSizeIterator<Item = impl Future<Output = Result<T, ConnectError>>>,
) -> Result<T, ConnectError> {
    let mut waiting = questions;
    let mut asked = FuturesUnordered::new();
    let mut failure: Option<ConnectError> = None;
    asked.extend(waiting.next());
    loop {
        tokio::select! {
            answer = asked.next() => match answer {
                Some(Ok(answer)) => return Ok(answer),
                Some(Err(error)) => {
                    failure = Some(failure.filter(|first| !first.is_retryable()).unwrap_or(error));
                    asked.extend(waiting.next());
                }
                None => break,
            },
            () = sleep(STAGGER), if waiting.len() > 0 => asked.extend(waiting.next()),
        }
    }
    Err(failure.unwrap_or_else(|| ConnectError::Settings {
        address: "an empty list".to_owned(),
        reason: "the cache has no addresses".to_owned(),
    }))
}
