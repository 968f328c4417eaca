//! Whether a checkpoint is ahead of its effects: the one promise that a crash must not break.
//!
//! After `kill -9` of a daemon its state table says how far each shard is done. Everything at or below that
//! must have had its effect: for a cache-writer, every change is reflected by its Redis; for the aggregator,
//! every record is in every region's stream. The sources are read again from the very start, by the SDK.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use aws_sdk_dynamodb::error::DisplayErrorContext;
use aws_sdk_dynamodb::types::AttributeValue;
use bytes::Bytes;
use redis::aio::MultiplexedConnection;
use warmcast_proto::change::Change;
use warmcast_proto::frame::{self, FRAME_BODY_BYTES_MAX};
use warmcast_proto::key::cache_key;
use warmcast_proto::sequence::Sequence;

use crate::daemon::STREAM;
use crate::entry;
use crate::kinesis::Kinesis;
use crate::world::{KEY_ATTRIBUTE, Region, World};

/// Answers of GetRecords in a row without a record, after which a shard's end is reached. The embedded servers
/// answer with records whenever there are any; DynamoDB's real ones do not promise it.
const EMPTY_ANSWERS_MAX: u32 = 3;

/// Why the check could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// A service refused.
    #[error("cannot {action}: {reason}")]
    Service {
        /// What was tried.
        action: String,
        /// The answer.
        reason: String,
    },
    /// A checkpoint in a form that is not known.
    #[error("the checkpoint {0:?} is none of trim-horizon, at-time:<ms>, after:<sequence number>, shard-end")]
    UnknownCheckpoint(String),
    /// A record in a stream that is no frame, though nothing but the aggregator wrote to it.
    #[error("record {record} of shard {shard} is no sound frame: {reason}")]
    Frame {
        /// Its shard.
        shard: String,
        /// Its sequence number.
        record: String,
        /// What the decoder says.
        reason: String,
    },
    /// Redis does not answer.
    #[error("cannot read Redis: {0}")]
    Redis(#[from] redis::RedisError),
}

fn service<E: std::error::Error>(action: &str) -> impl Fn(E) -> CheckError {
    move |error| CheckError::Service {
        action: action.to_owned(),
        reason: DisplayErrorContext(&error).to_string(),
    }
}

/// How far a shard is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Checkpoint {
    /// Nothing is claimed to be done (`trim-horizon`, `at-time:MS`).
    Nothing,
    /// Everything up to and with this sequence number.
    After(DecimalSequence),
    /// Everything.
    ShardEnd,
}

impl Checkpoint {
    /// Reads the attribute `checkpoint` of a lease.
    ///
    /// # Errors
    /// A form that is not known.
    pub fn parse(text: &str) -> Result<Self, CheckError> {
        match text {
            "trim-horizon" => Ok(Self::Nothing),
            _ if text.starts_with("at-time:") => Ok(Self::Nothing),
            "shard-end" => Ok(Self::ShardEnd),
            _ => {
                let sequence = text.strip_prefix("after:").and_then(DecimalSequence::parse);
                sequence.map(Self::After).ok_or_else(|| CheckError::UnknownCheckpoint(text.to_owned()))
            }
        }
    }

    /// Whether it claims that the record is done.
    #[must_use]
    pub fn covers(&self, record: &DecimalSequence) -> bool {
        match self {
            Self::Nothing => false,
            Self::After(last) => record <= last,
            Self::ShardEnd => true,
        }
    }
}

/// A sequence number of any length as a decimal text (AWS: Kinesis allows up to 129 digits), in numeric order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecimalSequence(String);

impl DecimalSequence {
    /// Reads decimal digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let is_decimal = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        is_decimal.then(|| Self(text.trim_start_matches('0').to_owned()))
    }
}

impl Ord for DecimalSequence {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.len().cmp(&other.0.len()).then_with(|| self.0.cmp(&other.0))
    }
}

impl PartialOrd for DecimalSequence {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A record of a stream and what must have become of it: `T` names its effects.
#[derive(Clone, Debug)]
pub struct Source<T> {
    /// The record's shard.
    pub shard: String,
    /// Its sequence number in the shard.
    pub sequence: DecimalSequence,
    /// What must be there once a checkpoint covers the record.
    pub effects: Vec<T>,
}

/// A checkpoint that is ahead of an effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The shard.
    pub shard: String,
    /// Its checkpoint.
    pub checkpoint: Checkpoint,
    /// The record that is covered.
    pub record: DecimalSequence,
    /// The effect that is missing.
    pub missing: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { shard, checkpoint, record, missing } = self;
        write!(f, "shard {shard}: checkpoint {checkpoint:?} covers record {record:?}, but {missing}")
    }
}

/// What the check saw; a check that covered nothing proves nothing.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Records read.
    pub records: usize,
    /// Of these, records that a checkpoint covers.
    pub covered: usize,
    /// Checkpoints ahead of an effect.
    pub violations: Vec<Violation>,
}

/// The rule itself: every record that its shard's checkpoint covers must have all its effects.
/// `missing` says what is wrong with an effect, if anything.
pub fn check<T>(
    checkpoints: &BTreeMap<String, Checkpoint>,
    records: &[Source<T>],
    missing: impl Fn(&T) -> Option<String>,
) -> Report {
    let mut report = Report { records: records.len(), ..Report::default() };
    for record in records {
        let Some(checkpoint) = checkpoints.get(&record.shard) else { continue };
        if checkpoint.covers(&record.sequence) {
            report.covered += 1;
            report.violations.extend(record.effects.iter().filter_map(&missing).map(|missing| Violation {
                shard: record.shard.clone(),
                checkpoint: checkpoint.clone(),
                record: record.sequence.clone(),
                missing,
            }));
        }
    }
    report
}

/// Checks a region's cache-writer: every change that a checkpoint covers is reflected by Redis.
///
/// # Errors
/// A service does not answer, or a stream holds what the aggregator cannot have written.
pub async fn check_cache_writer(world: &World, region: &Region) -> Result<Report, CheckError> {
    let checkpoints = read_checkpoints(&world.dynamodb(), region.cache_writer().state_table()).await?;
    // Records past the checkpoint claim nothing, and while there is traffic they would never end.
    let is_claimed = |shard: &str, record: &DecimalSequence| {
        checkpoints.get(shard).is_some_and(|checkpoint| checkpoint.covers(record))
    };
    let records = read_kinesis(region, is_claimed).await?;
    let mut connection = region.redis().connect().await?;
    let floors = read_floors(&mut connection, &records).await?;
    Ok(check(&checkpoints, &records, |change| unreflected(&floors, change)))
}

/// Checks the aggregator: every stream record that a checkpoint covers is in every region's Kinesis.
///
/// # Errors
/// A service does not answer, or a stream holds what the aggregator cannot have written.
pub async fn check_aggregator(world: &World) -> Result<Report, CheckError> {
    let checkpoints = read_checkpoints(&world.dynamodb(), world.aggregator().state_table()).await?;
    let mut delivered = Vec::new();
    for region in world.regions() {
        // The aggregator is down: the stream has an end.
        let records = read_kinesis(region, |_, _| true).await?;
        let changes = records.into_iter().flat_map(|record| record.effects);
        let positions = changes
            .map(|change| (change.table.to_string(), change.key, change.position.sequence()))
            .collect();
        delivered.push((region.name().to_owned(), positions));
    }
    let records = read_streams(world, &checkpoints).await?;
    Ok(check(&checkpoints, &records, |effect| undelivered(&delivered, effect)))
}

type Floors = HashMap<Vec<u8>, Option<warmcast_proto::position::Position>>;

fn unreflected(floors: &Floors, change: &Change) -> Option<String> {
    let floor = floors.get(&redis_key(change)).copied().flatten();
    (floor < Some(change.position)).then(|| {
        let key = String::from_utf8_lossy(&change.key);
        format!("the change of {key} at {} is not in Redis, which is at {floor:?}", change.position)
    })
}

fn redis_key(change: &Change) -> Vec<u8> {
    cache_key("", &change.table, &change.key)
}

/// A change in a table's stream: table, key and sequence number.
type StreamChange = (String, Bytes, Sequence);

fn undelivered(delivered: &[(String, BTreeSet<StreamChange>)], effect: &StreamChange) -> Option<String> {
    let without = delivered.iter().find(|(_, positions)| !positions.contains(effect));
    without.map(|(region, _)| {
        let (table, key, sequence) = effect;
        let key = String::from_utf8_lossy(key);
        format!("the change of {key} in {table} at {sequence:?} is not in the stream of {region}")
    })
}

async fn read_floors(
    connection: &mut MultiplexedConnection,
    records: &[Source<Change>],
) -> Result<Floors, CheckError> {
    let keys: BTreeSet<Vec<u8>> = records.iter().flat_map(|record| &record.effects).map(redis_key).collect();
    let keys: Vec<Vec<u8>> = keys.into_iter().collect();
    let entries = entry::get_many(connection, &keys).await?;
    Ok(keys.into_iter().zip(entries.iter().map(entry::Entry::floor)).collect())
}

/// The checkpoint of every shard that has a lease, by shard id.
///
/// # Errors
/// DynamoDB refuses, or a checkpoint cannot be read.
pub async fn read_checkpoints(
    client: &aws_sdk_dynamodb::Client,
    state_table: &str,
) -> Result<BTreeMap<String, Checkpoint>, CheckError> {
    let mut checkpoints = BTreeMap::new();
    let scan = client.scan().table_name(state_table).consistent_read(true);
    let mut items = scan.into_paginator().items().send();
    while let Some(item) = items.next().await {
        let item = item.map_err(service(&format!("scan {state_table}")))?;
        let text = |name: &str| item.get(name).and_then(|value| value.as_s().ok());
        let shard = text("sk").and_then(|sort| sort.strip_prefix("shard#"));
        let is_lease = text("pk").is_some_and(|partition| partition.starts_with("stream#"));
        if let (true, Some(shard), Some(checkpoint)) = (is_lease, shard, text("checkpoint")) {
            checkpoints.insert(shard.to_owned(), Checkpoint::parse(checkpoint)?);
        }
    }
    Ok(checkpoints)
}

/// Every record of a region's stream, unpacked; a shard is read until a record is not `wanted`.
///
/// # Errors
/// Kinesis refuses, or a record is no frame.
pub async fn read_kinesis(
    region: &Region,
    wanted: impl Fn(&str, &DecimalSequence) -> bool,
) -> Result<Vec<Source<Change>>, CheckError> {
    read_frames(region.kinesis(), wanted).await
}

/// Every record of the sandbox's stream in a Kinesis, unpacked; a shard is read until a record is not `wanted`.
///
/// # Errors
/// Kinesis refuses, or a record is no frame.
pub async fn read_frames(
    kinesis: &Kinesis,
    wanted: impl Fn(&str, &DecimalSequence) -> bool,
) -> Result<Vec<Source<Change>>, CheckError> {
    let client = kinesis.client();
    let shards = client.list_shards().stream_name(STREAM).send().await.map_err(service("list shards"))?;
    let mut records = Vec::new();
    'shards: for shard in shards.shards() {
        let iterator = client
            .get_shard_iterator()
            .stream_name(STREAM)
            .shard_id(&shard.shard_id)
            .shard_iterator_type(aws_sdk_kinesis::types::ShardIteratorType::TrimHorizon)
            .send()
            .await
            .map_err(service("get a shard iterator"))?;
        let mut iterator = iterator.shard_iterator;
        let mut empty = 0;
        while let (Some(next), true) = (iterator, empty < EMPTY_ANSWERS_MAX) {
            let answer = client.get_records().shard_iterator(next).send().await;
            let answer = answer.map_err(service("get records"))?;
            empty = if answer.records.is_empty() { empty + 1 } else { 0 };
            for record in answer.records {
                let data = Bytes::from(record.data.into_inner());
                let record = unpack(&shard.shard_id, &record.sequence_number, data)?;
                if !wanted(&record.shard, &record.sequence) {
                    continue 'shards;
                }
                records.push(record);
            }
            iterator = answer.next_shard_iterator;
        }
    }
    Ok(records)
}

fn unpack(shard: &str, sequence: &str, data: Bytes) -> Result<Source<Change>, CheckError> {
    let broken =
        |reason: String| CheckError::Frame { shard: shard.to_owned(), record: sequence.to_owned(), reason };
    let frame = frame::decode(data, FRAME_BODY_BYTES_MAX).map_err(|error| broken(error.to_string()))?;
    let effects: Result<Vec<Change>, _> = frame.changes.into_iter().collect();
    Ok(Source {
        shard: shard.to_owned(),
        sequence: DecimalSequence::parse(sequence).ok_or_else(|| broken("its number is none".to_owned()))?,
        effects: effects.map_err(|error| broken(format!("{error:?}")))?,
    })
}

/// The records of the streams of the world's tables that the checkpoints cover.
async fn read_streams(
    world: &World,
    checkpoints: &BTreeMap<String, Checkpoint>,
) -> Result<Vec<Source<StreamChange>>, CheckError> {
    let client = world.streams();
    let mut records = Vec::new();
    for table in world.tables() {
        let described = world.dynamodb().describe_table().table_name(table).send().await;
        let described = described.map_err(service("describe a table"))?.table;
        let arn = described.and_then(|table| table.latest_stream_arn);
        let arn = arn.unwrap_or_default();
        let stream = client.describe_stream().stream_arn(&arn).send().await;
        let shards = stream.map_err(service("describe a stream"))?.stream_description;
        for shard in shards.iter().flat_map(|stream| stream.shards()) {
            let shard = shard.shard_id().unwrap_or_default();
            if let Some(checkpoint) = checkpoints.get(shard) {
                records.extend(read_stream_shard(&client, table, (&arn, shard), checkpoint).await?);
            }
        }
    }
    Ok(records)
}

async fn read_stream_shard(
    client: &aws_sdk_dynamodbstreams::Client,
    table: &str,
    (arn, shard): (&str, &str),
    checkpoint: &Checkpoint,
) -> Result<Vec<Source<StreamChange>>, CheckError> {
    let iterator = client
        .get_shard_iterator()
        .stream_arn(arn)
        .shard_id(shard)
        .shard_iterator_type(aws_sdk_dynamodbstreams::types::ShardIteratorType::TrimHorizon)
        .send()
        .await
        .map_err(service("get a shard iterator"))?;
    let mut iterator = iterator.shard_iterator;
    let mut records = Vec::new();
    let mut empty = 0;
    while let (Some(next), true) = (iterator, empty < EMPTY_ANSWERS_MAX) {
        let answer = client.get_records().shard_iterator(next).send().await;
        let answer = answer.map_err(service("get records"))?;
        empty = if answer.records().is_empty() { empty + 1 } else { 0 };
        for record in answer.records() {
            let change = record.dynamodb().and_then(|record| stream_change(table, shard, record));
            let change = change.ok_or_else(|| CheckError::Service {
                action: format!("read a record of {table}"),
                reason: format!("{record:?} lacks its key or its sequence number"),
            })?;
            if !checkpoint.covers(&change.sequence) {
                return Ok(records);
            }
            records.push(change);
        }
        iterator = answer.next_shard_iterator;
    }
    Ok(records)
}

fn stream_change(
    table: &str,
    shard: &str,
    record: &aws_sdk_dynamodbstreams::types::StreamRecord,
) -> Option<Source<StreamChange>> {
    let number = record.sequence_number()?;
    let key = record.keys()?.get(KEY_ATTRIBUTE)?.as_s().ok()?;
    let effect = (table.to_owned(), Bytes::copy_from_slice(key.as_bytes()), number.parse().ok()?);
    let sequence = DecimalSequence::parse(number)?;
    Some(Source { shard: shard.to_owned(), sequence, effects: vec![effect] })
}

/// Sets a shard's checkpoint by hand, so that a test can see the check fail.
///
/// # Errors
/// DynamoDB refuses.
pub async fn forge_checkpoint(
    client: &aws_sdk_dynamodb::Client,
    state_table: &str,
    checkpoint: &str,
) -> Result<usize, CheckError> {
    let scan = client.scan().table_name(state_table).consistent_read(true).send().await;
    let leases = scan.map_err(service("scan the state table"))?;
    let mut forged = 0;
    for lease in leases.items().iter().filter(|item| item.contains_key("checkpoint")) {
        let mut lease = lease.clone();
        lease.insert("checkpoint".to_owned(), AttributeValue::S(checkpoint.to_owned()));
        let put = client.put_item().table_name(state_table).set_item(Some(lease)).send().await;
        put.map_err(service("forge a checkpoint"))?;
        forged += 1;
    }
    Ok(forged)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequence(text: &str) -> DecimalSequence {
        DecimalSequence::parse(text).unwrap()
    }

    fn record(shard: &str, number: &str, effect: &'static str) -> Source<&'static str> {
        Source { shard: shard.to_owned(), sequence: sequence(number), effects: vec![effect] }
    }

    fn lost(effect: &&'static str) -> Option<String> {
        effect.starts_with("lost").then(|| (*effect).to_owned())
    }

    #[test]
    fn sequences_are_ordered_as_numbers() {
        assert!(sequence("9") < sequence("10"));
        assert!(sequence("0009") < sequence("10"));
        assert!(sequence(&format!("1{}", "0".repeat(100))) > sequence(&"9".repeat(100)));
        assert_eq!(DecimalSequence::parse(""), None);
        assert_eq!(DecimalSequence::parse("12a"), None);
    }

    #[test]
    fn checkpoints_are_read() {
        assert_eq!(Checkpoint::parse("trim-horizon").unwrap(), Checkpoint::Nothing);
        assert_eq!(Checkpoint::parse("at-time:1700000000000").unwrap(), Checkpoint::Nothing);
        assert_eq!(Checkpoint::parse("shard-end").unwrap(), Checkpoint::ShardEnd);
        assert_eq!(Checkpoint::parse("after:42").unwrap(), Checkpoint::After(sequence("42")));
        assert!(Checkpoint::parse("after:").is_err());
        assert!(Checkpoint::parse("42").is_err());
    }

    #[test]
    fn a_lost_effect_above_the_checkpoint_is_allowed() {
        let checkpoints = [("s".to_owned(), Checkpoint::After(sequence("9")))].into();
        let records = [record("s", "9", "there"), record("s", "10", "lost"), record("other", "1", "lost")];
        let report = check(&checkpoints, &records, lost);
        assert_eq!((report.records, report.covered), (3, 1));
        assert!(report.violations.is_empty());
    }

    #[test]
    fn a_forged_checkpoint_is_found_out() {
        let records = [record("s", "9", "there"), record("s", "10", "lost")];
        for forged in
            [Checkpoint::After(sequence("10")), Checkpoint::After(sequence("11")), Checkpoint::ShardEnd]
        {
            let report = check(&[("s".to_owned(), forged)].into(), &records, lost);
            assert_eq!(report.violations.len(), 1);
            assert_eq!(report.violations[0].record, sequence("10"));
        }
    }
}
