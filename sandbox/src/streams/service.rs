//! The service: what each operation answers, given the streams and the time.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use tokio::time::Instant;

use super::calls::{CallCounts, Operation, Rate, Readers, TokenBucket};
use super::error::{ApiError, ErrorCode};
use super::fault::{Effect, Faults};
use super::iterator::{LIFE_MS, ShardIterator};
use super::listing::{self, ListedShard};
use super::record::Sequence;
use super::request::{From, Request};
use super::shard::{NoPosition, Trimmed};
use super::stream::Stream;

/// The limits that are enforced.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Limits {
    pub(super) describes_per_second: Option<u32>,
    pub(super) readers_per_shard: Option<usize>,
}

/// All there is.
#[derive(Debug, Default)]
pub(super) struct Service {
    limits: Limits,
    streams: BTreeMap<Arc<str>, Watched>,
    pub(super) faults: Faults,
    pub(super) readers: Readers,
    pub(super) counts: CallCounts,
}

/// A stream and what was seen of its use.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) stream: Stream,
    pub(super) describes: Rate,
    describe_limit: Option<TokenBucket>,
    pub(super) delivered: u64,
    pub(super) delivered_again: u64,
}

/// Who calls, and when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caller {
    pub(super) reader: u16,
    pub(super) now_ms: u64,
    pub(super) at: Instant,
}

/// An answer that is not an error.
#[derive(Debug)]
pub(super) enum Answer {
    Json(Vec<u8>),
    Records { records: Vec<Bytes>, next: Option<String> },
}

impl Service {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// `false` if the stream is there already.
    pub(super) fn create(&mut self, stream: Stream, now_ms: u64) -> bool {
        if self.streams.contains_key(&stream.arn) {
            return false;
        }
        let describe_limit = self.limits.describes_per_second.map(|limit| TokenBucket::new(limit, now_ms));
        self.streams.insert(
            Arc::clone(&stream.arn),
            Watched { stream, describes: Rate::default(), describe_limit, delivered: 0, delivered_again: 0 },
        );
        true
    }

    pub(super) fn delete(&mut self, arn: &str) -> bool {
        self.streams.remove(arn).is_some()
    }

    /// The stream without what has aged out of it.
    pub(super) fn watched(&mut self, arn: &str, now_ms: u64) -> Option<&mut Watched> {
        if self.streams.get(arn).is_some_and(|watched| watched.stream.is_gone(now_ms)) {
            self.streams.remove(arn);
        }
        let watched = self.streams.get_mut(arn)?;
        watched.stream.expire(now_ms);
        Some(watched)
    }

    /// Counts a call and says what the faults do to it.
    pub(super) fn admit(
        &mut self,
        operation: Operation,
        reader: &str,
        request: Option<&Request>,
    ) -> (u16, Option<Effect>) {
        let number = self.readers.number(reader);
        self.counts.note(operation, number);
        (number, request.and_then(|request| self.faults.strike(&request.target(reader))))
    }

    /// Answers a request. With `deliver` false the answer will not arrive: its records do not count as delivered.
    pub(super) fn answer(
        &mut self,
        request: &Request,
        caller: Caller,
        deliver: bool,
    ) -> Result<Answer, ApiError> {
        match request {
            Request::ListStreams { table, after, limit } => {
                Ok(Answer::Json(self.list(table.as_deref(), after.as_deref(), *limit, caller.now_ms)))
            }
            Request::DescribeStream { stream, children_of, after, limit } => self
                .describe(stream, children_of.as_deref(), after.as_deref(), *limit, caller)
                .map(Answer::Json),
            Request::GetShardIterator { stream, shard, from } => {
                self.iterator(stream, shard, *from, caller.now_ms).map(Answer::Json)
            }
            Request::GetRecords { iterator, limit } => self.read(iterator, *limit, caller, deliver),
        }
    }

    fn list(&self, table: Option<&str>, after: Option<&str>, limit: usize, now_ms: u64) -> Vec<u8> {
        let mut fitting = self.streams.values().map(|watched| &watched.stream).filter(|stream| {
            table.is_none_or(|table| stream.table == table)
                && after.is_none_or(|after| &*stream.arn > after)
                && !stream.is_gone(now_ms)
        });
        let streams: Vec<_> = fitting
            .by_ref()
            .take(limit)
            .map(|stream| StreamJson {
                stream_arn: &stream.arn,
                table_name: &stream.table,
                stream_label: &stream.label,
            })
            .collect();
        let more = fitting.next().is_some();
        let last_evaluated_stream_arn =
            if more { streams.last().map(|stream| stream.stream_arn) } else { None };
        json(&ListStreamsJson { streams, last_evaluated_stream_arn })
    }

    fn describe(
        &mut self,
        arn: &str,
        children_of: Option<&str>,
        after: Option<&str>,
        limit: usize,
        caller: Caller,
    ) -> Result<Vec<u8>, ApiError> {
        let now_ms = caller.now_ms;
        let watched = self.watched(arn, now_ms).ok_or_else(|| ApiError::no_stream(arn))?;
        watched.describes.note(caller.at);
        if watched.describe_limit.as_mut().is_some_and(|bucket| !bucket.take(now_ms)) {
            return Err(ErrorCode::LimitExceeded.into());
        }
        let listing = listing::list(&mut watched.stream, children_of, after, limit, now_ms);
        let stream = &watched.stream;
        let last = if listing.more { listing.shards.last().map(|shard| &*shard.id) } else { None };
        Ok(json(&DescribeStreamJson {
            stream_description: StreamDescriptionJson {
                stream_arn: &stream.arn,
                stream_label: &stream.label,
                stream_status: if stream.disabled_ms.is_some() { "DISABLED" } else { "ENABLED" },
                stream_view_type: "NEW_AND_OLD_IMAGES",
                creation_request_date_time: stream.created_ms as f64 / 1000.0,
                table_name: &stream.table,
                key_schema: [KeySchemaJson { attribute_name: "id", key_type: "HASH" }],
                shards: listing.shards.iter().map(shard_json).collect(),
                last_evaluated_shard_id: last,
            },
        }))
    }

    fn iterator(&mut self, arn: &str, shard: &str, from: From, now_ms: u64) -> Result<Vec<u8>, ApiError> {
        let stream = &mut self.watched(arn, now_ms).ok_or_else(|| ApiError::no_stream(arn))?.stream;
        let index = stream.index(shard).ok_or_else(ApiError::no_shard)?;
        let shard = stream.shard_mut(index, now_ms).ok_or_else(ApiError::no_shard)?;
        let known = |sequence| shard.position_at(sequence).map_err(no_position);
        let position = match from {
            From::TrimHorizon => shard.horizon(),
            From::Latest => shard.last_sequence().saturating_add(1),
            From::At(sequence) => known(sequence)?,
            From::After(sequence) => known(sequence)?.saturating_add(1),
            From::AtTimeMs(at_ms) if at_ms > now_ms => {
                return Err(ApiError::new(ErrorCode::Validation, "The timestamp is in the future"));
            }
            From::AtTimeMs(at_ms) => shard.position_at_time(at_ms),
        };
        let token = encode_iterator(arn, &shard.id, position, now_ms);
        Ok(json(&GetShardIteratorJson { shard_iterator: &token }))
    }

    fn read(
        &mut self,
        iterator: &ShardIterator,
        limit: usize,
        caller: Caller,
        deliver: bool,
    ) -> Result<Answer, ApiError> {
        let now_ms = caller.now_ms;
        let readers_max = self.limits.readers_per_shard;
        let arn = &iterator.stream;
        let watched = self.watched(arn, now_ms).ok_or_else(|| ApiError::no_stream(arn))?;
        if iterator.made_ms.saturating_add(LIFE_MS) <= now_ms {
            return Err(ErrorCode::ExpiredIterator.into());
        }
        let index = watched.stream.index(&iterator.shard).ok_or_else(ApiError::no_shard)?;
        let shard = watched.stream.shard_mut(index, now_ms).ok_or_else(ApiError::no_shard)?;
        if let (Some(max), Some(reads)) = (readers_max, &shard.reads)
            && !reads.is_reading(caller.reader, caller.at)
            && reads.readers_at_once(caller.at) >= max
        {
            return Err(ErrorCode::LimitExceeded.into());
        }
        let page = shard.read(iterator.position, limit).map_err(trimmed)?;
        let reads = shard.reads.get_or_insert_default();
        reads.note(caller.reader, caller.at);
        if deliver {
            watched.delivered_again += reads.deliver(page.records.iter().map(|record| record.sequence));
            watched.delivered += page.records.len() as u64;
        }
        Ok(Answer::Records {
            records: page.records.into_iter().map(|record| record.json).collect(),
            next: page.next.map(|position| encode_iterator(arn, &iterator.shard, position, now_ms)),
        })
    }
}

fn encode_iterator(arn: &str, shard: &str, position: Sequence, made_ms: u64) -> String {
    ShardIterator { stream: arn.to_owned(), shard: shard.to_owned(), position, made_ms }.encode()
}

fn no_position(reason: NoPosition) -> ApiError {
    match reason {
        NoPosition::Trimmed => ErrorCode::TrimmedDataAccess.into(),
        // In the words of DynamoDB Local.
        NoPosition::NotOfShard => {
            ApiError::new(ErrorCode::Validation, "Invalid SequenceNumber for the shard")
        }
    }
}

fn trimmed(Trimmed: Trimmed) -> ApiError {
    ErrorCode::TrimmedDataAccess.into()
}

impl Answer {
    /// The body. It is made without holding the service's lock.
    pub(super) fn into_body(self) -> Vec<u8> {
        const HEAD: &[u8] = br#"{"Records":["#;
        const FRAME_BYTES: usize = 64;
        match self {
            Self::Json(body) => body,
            Self::Records { records, next } => {
                let records_bytes: usize = records.iter().map(|record| record.len() + 1).sum();
                let next_bytes = next.as_ref().map_or(0, String::len);
                let mut body = Vec::with_capacity(records_bytes + next_bytes + FRAME_BYTES);
                body.extend_from_slice(HEAD);
                for (n, record) in records.iter().enumerate() {
                    if n > 0 {
                        body.push(b',');
                    }
                    body.extend_from_slice(record);
                }
                body.push(b']');
                if let Some(next) = next {
                    body.extend_from_slice(br#","NextShardIterator":"#);
                    body.extend_from_slice(&json(&next));
                }
                body.push(b'}');
                body
            }
        }
    }
}

fn json(value: &impl Serialize) -> Vec<u8> {
    // Nothing here has keys that are not text, which is all that could fail.
    serde_json::to_vec(value).unwrap_or_default()
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ListStreamsJson<'a> {
    streams: Vec<StreamJson<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_evaluated_stream_arn: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct StreamJson<'a> {
    stream_arn: &'a str,
    table_name: &'a str,
    stream_label: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct DescribeStreamJson<'a> {
    stream_description: StreamDescriptionJson<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct StreamDescriptionJson<'a> {
    stream_arn: &'a str,
    stream_label: &'a str,
    stream_status: &'a str,
    stream_view_type: &'a str,
    creation_request_date_time: f64,
    table_name: &'a str,
    key_schema: [KeySchemaJson; 1],
    shards: Vec<ShardJson<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_evaluated_shard_id: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct KeySchemaJson {
    attribute_name: &'static str,
    key_type: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ShardJson<'a> {
    shard_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_shard_id: Option<&'a str>,
    sequence_number_range: SequenceNumberRangeJson,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct SequenceNumberRangeJson {
    starting_sequence_number: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    ending_sequence_number: Option<String>,
}

fn shard_json(shard: &ListedShard) -> ShardJson<'_> {
    ShardJson {
        shard_id: &shard.id,
        parent_shard_id: shard.parent.as_deref(),
        sequence_number_range: SequenceNumberRangeJson {
            starting_sequence_number: shard.start.to_string(),
            ending_sequence_number: shard.end.map(|end| end.to_string()),
        },
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct GetShardIteratorJson<'a> {
    shard_iterator: &'a str,
}
