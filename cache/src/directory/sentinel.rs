//! Asking sentinels for the primary.

use std::collections::BTreeMap;

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use redis::{FromRedisValue as _, Value};
use tokio::time::{Instant, timeout_at};

use super::Directory;
use crate::{
    config::Address,
    connection::{ConnectError, Peer},
    topology::Topology,
};

/// What a sentinel says of the primary.
struct Opinion {
    primary: Address,
    /// Counts the failovers that the sentinels agreed on: the highest is the newest.
    epoch: u64,
    said_by: Address,
}

/// Asks all sentinels at once and takes the newest opinion once more than half have answered: one that was cut off
/// from the others may still name the primary of before.
pub(super) async fn ask(
    directory: &Directory,
    sentinels: &[Address],
    master: &str,
) -> Result<Topology, ConnectError> {
    let mut asked: FuturesUnordered<_> =
        sentinels.iter().map(|sentinel| ask_for_primary(directory, sentinel, master)).collect();
    let deadline = Instant::now() + directory.connector.step_timeout();
    let mut opinions: Vec<Opinion> = Vec::new();
    let mut failure = None;
    while opinions.len() * 2 <= sentinels.len() {
        match timeout_at(deadline, asked.next()).await {
            Ok(Some(Ok(opinion))) => opinions.push(opinion),
            Ok(Some(Err(error))) => failure = Some(error),
            Ok(None) | Err(_) => break,
        }
    }
    let Some(newest) = opinions.into_iter().max_by_key(|opinion| opinion.epoch) else {
        return Err(failure.unwrap_or_else(|| ConnectError::Topology {
            servers: directory.servers.to_string(),
            reason: "no sentinel answered in time".to_owned(),
        }));
    };
    let replicas = ask_for_replicas(directory, &newest.said_by, master).await.unwrap_or_default();
    Ok(Topology::single(newest.primary, replicas))
}

/// While a failover is going on, the address is already that of the new primary, and that is the only answer which
/// says so (Redis: SENTINEL GET-MASTER-ADDR-BY-NAME).
async fn ask_for_primary(
    directory: &Directory,
    sentinel: &Address,
    master: &str,
) -> Result<Opinion, ConnectError> {
    let unknown = || ConnectError::Topology {
        servers: directory.servers.to_string(),
        reason: format!("the sentinel at {sentinel} knows no primary of the name {master}"),
    };
    let mut command = redis::cmd("SENTINEL");
    command.arg("GET-MASTER-ADDR-BY-NAME").arg(master);
    let answer = directory.ask(sentinel, Peer::Sentinel, &command).await?;
    let (host, port): (String, String) = redis::from_redis_value(answer).map_err(|_| unknown())?;
    let port = port.parse().map_err(|_| unknown())?;
    let mut command = redis::cmd("SENTINEL");
    command.arg("MASTER").arg(master);
    let fields = read_fields(directory.ask(sentinel, Peer::Sentinel, &command).await?).ok_or_else(unknown)?;
    Ok(Opinion {
        primary: Address::Tcp { host, port },
        epoch: fields.get("config-epoch").and_then(|epoch| epoch.parse().ok()).unwrap_or_default(),
        said_by: sentinel.clone(),
    })
}

/// Those that can be read from.
async fn ask_for_replicas(
    directory: &Directory,
    sentinel: &Address,
    master: &str,
) -> Result<Vec<Address>, ConnectError> {
    let mut command = redis::cmd("SENTINEL");
    command.arg("REPLICAS").arg(master);
    let Value::Array(replicas) = directory.ask(sentinel, Peer::Sentinel, &command).await? else {
        return Ok(Vec::new());
    };
    let replicas = replicas.into_iter().filter_map(read_fields).filter(is_usable);
    Ok(replicas.filter_map(|fields| address(&fields)).collect())
}

fn is_usable(replica: &BTreeMap<String, String>) -> bool {
    let flags = replica.get("flags").map_or("", String::as_str);
    let is_linked = replica.get("master-link-status").is_none_or(|status| status == "ok");
    is_linked && !flags.split(',').any(|flag| matches!(flag, "s_down" | "o_down" | "disconnected"))
}

fn read_fields(answer: Value) -> Option<BTreeMap<String, String>> {
    BTreeMap::from_redis_value(answer).ok()
}

fn address(fields: &BTreeMap<String, String>) -> Option<Address> {
    let port = fields.get("port")?.parse().ok().filter(|port| *port > 0)?;
    Some(Address::Tcp { host: fields.get("ip").filter(|host| !host.is_empty())?.clone(), port })
}
