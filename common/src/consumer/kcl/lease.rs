//! One item of KCL's lease table.
//!
//! | attribute | type | what it is to us |
//! |---|---|---|
//! | `leaseKey` | S | the shard; `ACCOUNT:STREAM:EPOCH:SHARD` if the application has several streams |
//! | `streamName`, `shardId` | S | the key's two parts, only if the application has several streams |
//! | `checkpoint` | S | a sequence number, or `TRIM_HORIZON`, `LATEST`, `AT_TIMESTAMP`, `SHARD_END` |
//! | `checkpointSubSequenceNumber` | N | the place within a record that the Kinesis Producer Library aggregated |
//! | `parentShardId` | SS | the parents' shard ids, in both forms of the key |
//! | `leaseOwner`, `leaseCounter` | S, N | who has it, and what grows with each renewal |
//! | `entityType` | S | since 3.5, when other things may stand in the same table; `LEASE`, or something else |
//!
//! The others are of no use here: `pendingCheckpoint…` was never confirmed; `childShardIds`, the hash keys,
//! `throughputKBps`, `checkpointOwner` and `ownerSwitchesSinceCheckpoint` are KCL's own business.

use std::collections::HashMap;
use std::fmt;

use aws_sdk_dynamodb::types::AttributeValue;

use super::stream::KclStream;
use crate::consumer::SequenceNumber;

/// A lease as KCL wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KclLease {
    /// The stream, if the application has several; else the table does not say.
    pub stream: Option<KclStream>,
    /// The shard.
    pub shard: String,
    /// Its parents.
    pub parents: Vec<String>,
    /// The worker that has it, or had it when it was stopped.
    pub owner: Option<String>,
    /// Grows with each renewal and each checkpoint.
    pub counter: u64,
    /// How far it got.
    pub checkpoint: KclCheckpoint,
}

/// How far KCL got in a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KclCheckpoint {
    /// Nothing was checkpointed: to be read from its oldest record.
    TrimHorizon,
    /// Nothing was checkpointed: to be read from now on, whenever that is.
    Latest,
    /// Nothing was checkpointed: to be read from a time that only the application's configuration has.
    AtTimestamp,
    /// The record with this number is done.
    Record(SequenceNumber),
    /// Of the record with this number, which is an aggregate, the parts up to this one are done.
    Within(SequenceNumber, u64),
    /// The shard was closed and everything in it is done.
    ShardEnd,
}

impl KclCheckpoint {
    /// Whether KCL has begun to read the shard, which it does when it is done with the shard's parents.
    pub fn has_begun(&self) -> bool {
        matches!(self, Self::Record(_) | Self::Within(..) | Self::ShardEnd)
    }
}

impl fmt::Display for KclCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TrimHorizon => f.write_str("TRIM_HORIZON"),
            Self::Latest => f.write_str("LATEST"),
            Self::AtTimestamp => f.write_str("AT_TIMESTAMP"),
            Self::Record(sequence) => write!(f, "{sequence}"),
            Self::Within(sequence, part) => write!(f, "{sequence}/{part}"),
            Self::ShardEnd => f.write_str("SHARD_END"),
        }
    }
}

/// What an item of the table is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// A lease.
    Lease(KclLease),
    /// Something else that KCL keeps: a leader's lock, a worker's metrics, the state of a migration.
    Other,
}

/// An item that should be a lease and cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("item {key:?} of the lease table cannot be read: {reason}")]
pub struct Unreadable {
    /// Its `leaseKey`; empty if it has none.
    pub key: String,
    /// What is wrong.
    pub reason: String,
}

/// Keys of what KCL 3.x keeps beside leases: a coordinator's items, before they had an `entityType`.
const COORDINATOR_KEYS: [&str; 3] = ["Leader", "Migration3.0", "TableMigration3.5"];

/// Reads one item.
///
/// # Errors
/// When it should be a lease, and is not one.
pub fn decode(attributes: &HashMap<String, AttributeValue>) -> Result<Decoded, Unreadable> {
    let item = Item { attributes };
    match item.text("entityType")? {
        None | Some("LEASE") => {}
        Some(_) => return Ok(Decoded::Other),
    }
    let Some(key) = item.text("leaseKey")? else {
        return Err(item.wrong("it has no leaseKey: is this the lease table of a KCL application?"));
    };
    if COORDINATOR_KEYS.contains(&key) {
        return Ok(Decoded::Other);
    }
    let (stream, shard) = item.stream_and_shard(key)?;
    Ok(Decoded::Lease(KclLease {
        stream,
        shard,
        parents: item.texts("parentShardId")?,
        owner: item.text("leaseOwner")?.map(str::to_owned),
        counter: item.number("leaseCounter")?,
        checkpoint: item.checkpoint()?,
    }))
}

struct Item<'a> {
    attributes: &'a HashMap<String, AttributeValue>,
}

impl<'a> Item<'a> {
    fn stream_and_shard(&self, key: &str) -> Result<(Option<KclStream>, String), Unreadable> {
        let (stream, shard) = match (self.text("streamName")?, self.text("shardId")?) {
            (Some(stream), Some(shard)) if key.strip_suffix(shard) == Some(&format!("{stream}:")) => {
                (Some(stream), shard)
            }
            (None, None) => match key.rsplit_once(':') {
                Some((stream, shard)) => (Some(stream), shard),
                None => (None, key),
            },
            _ => return Err(self.wrong("leaseKey is not streamName:shardId")),
        };
        let parse = |text| {
            KclStream::parse(text).ok_or_else(|| self.wrong(&format!("{text:?} is not ACCOUNT:STREAM:EPOCH")))
        };
        if shard.is_empty() {
            return Err(self.wrong("it names no shard"));
        }
        Ok((stream.map(parse).transpose()?, shard.to_owned()))
    }

    fn checkpoint(&self) -> Result<KclCheckpoint, Unreadable> {
        let Some(text) = self.text("checkpoint")? else { return Err(self.wrong("it has no checkpoint")) };
        let part = match self.attributes.contains_key("checkpointSubSequenceNumber") {
            true => self.number("checkpointSubSequenceNumber")?,
            false => 0,
        };
        Ok(match text {
            "TRIM_HORIZON" => KclCheckpoint::TrimHorizon,
            "LATEST" => KclCheckpoint::Latest,
            "AT_TIMESTAMP" => KclCheckpoint::AtTimestamp,
            "SHARD_END" => KclCheckpoint::ShardEnd,
            digits => {
                let sequence = SequenceNumber::new(digits)
                    .map_err(|_| self.wrong(&format!("{digits:?} is not a checkpoint of KCL")))?;
                match part {
                    0 => KclCheckpoint::Record(sequence),
                    part => KclCheckpoint::Within(sequence, part),
                }
            }
        })
    }

    fn text(&self, name: &str) -> Result<Option<&'a str>, Unreadable> {
        match self.attributes.get(name) {
            None | Some(AttributeValue::Null(_)) => Ok(None),
            Some(AttributeValue::S(text)) => Ok(Some(text)),
            Some(_) => Err(self.wrong(&format!("{name} is not a string"))),
        }
    }

    fn texts(&self, name: &str) -> Result<Vec<String>, Unreadable> {
        match self.attributes.get(name) {
            None | Some(AttributeValue::Null(_)) => Ok(Vec::new()),
            Some(AttributeValue::Ss(texts)) => {
                let mut texts = texts.clone();
                texts.sort();
                Ok(texts)
            }
            Some(_) => Err(self.wrong(&format!("{name} is not a set of strings"))),
        }
    }

    fn number(&self, name: &str) -> Result<u64, Unreadable> {
        match self.attributes.get(name) {
            Some(AttributeValue::N(digits)) => {
                digits.parse().map_err(|_| self.wrong(&format!("{name} is not a whole number: {digits:?}")))
            }
            _ => Err(self.wrong(&format!("it has no number {name}"))),
        }
    }

    fn wrong(&self, reason: &str) -> Unreadable {
        let key = match self.attributes.get("leaseKey") {
            Some(AttributeValue::S(key)) => key.clone(),
            _ => String::new(),
        };
        Unreadable { key, reason: reason.to_owned() }
    }
}

#[cfg(test)]
mod tests;
