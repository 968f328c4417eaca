//! Requests as they arrive, checked as the service checks them.
//!
//! Bounds and error codes follow the API's reference and what Alternator's tests saw of the service.

use serde::Deserialize;

use super::calls::Operation;
use super::error::{ApiError, ErrorCode};
use super::fault::CallTarget;
use super::iterator::ShardIterator;
use super::record::Sequence;

const PAGE_SHARDS_MAX: i64 = 100;
const PAGE_STREAMS_MAX: i64 = 100;
const PAGE_RECORDS_MAX: i64 = 1_000;
const ARN_LENGTH: (usize, usize) = (37, 1_024);
const SHARD_LENGTH: (usize, usize) = (28, 65);
const SEQUENCE_LENGTH: (usize, usize) = (21, 40);
const ITERATOR_LENGTH: (usize, usize) = (1, 2_048);

/// A valid request.
#[derive(Debug)]
pub(super) enum Request {
    ListStreams { table: Option<String>, after: Option<String>, limit: usize },
    DescribeStream { stream: String, children_of: Option<String>, after: Option<String>, limit: usize },
    GetShardIterator { stream: String, shard: String, from: From },
    GetRecords { iterator: ShardIterator, limit: usize },
}

/// Where an iterator is to start.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum From {
    TrimHorizon,
    Latest,
    At(Sequence),
    After(Sequence),
    AtTimeMs(u64),
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListStreams {
    table_name: Option<String>,
    exclusive_start_stream_arn: Option<String>,
    limit: Option<i64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DescribeStream {
    stream_arn: Option<String>,
    exclusive_start_shard_id: Option<String>,
    limit: Option<i64>,
    shard_filter: Option<ShardFilter>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ShardFilter {
    r#type: Option<String>,
    shard_id: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct GetShardIterator {
    stream_arn: Option<String>,
    shard_id: Option<String>,
    shard_iterator_type: Option<String>,
    sequence_number: Option<String>,
    timestamp: Option<f64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct GetRecords {
    shard_iterator: Option<String>,
    limit: Option<i64>,
}

impl Request {
    pub(super) fn parse(operation: Operation, body: &[u8]) -> Result<Self, ApiError> {
        match operation {
            Operation::ListStreams => list_streams(json(body)?),
            Operation::DescribeStream => describe_stream(json(body)?),
            Operation::GetShardIterator => get_shard_iterator(json(body)?),
            Operation::GetRecords => get_records(&json(body)?),
        }
    }

    /// What the request is about, for the faults.
    pub(super) fn target<'a>(&'a self, reader: &'a str) -> CallTarget<'a> {
        let (operation, stream, shard) = match self {
            Self::ListStreams { .. } => (Operation::ListStreams, None, None),
            Self::DescribeStream { stream, children_of, .. } => {
                (Operation::DescribeStream, Some(stream), children_of.as_ref())
            }
            Self::GetShardIterator { stream, shard, .. } => {
                (Operation::GetShardIterator, Some(stream), Some(shard))
            }
            Self::GetRecords { iterator, .. } => {
                (Operation::GetRecords, Some(&iterator.stream), Some(&iterator.shard))
            }
        };
        CallTarget { operation, stream: stream.map(String::as_str), shard: shard.map(String::as_str), reader }
    }
}

fn json<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body)
        .map_err(|error| ApiError::new(ErrorCode::Serialization, format!("cannot read the request: {error}")))
}

fn list_streams(request: ListStreams) -> Result<Request, ApiError> {
    let after = request.exclusive_start_stream_arn;
    if let Some(arn) = &after {
        within("exclusiveStartStreamArn", arn, ARN_LENGTH)?;
    }
    let limit = limit(request.limit, PAGE_STREAMS_MAX)?;
    Ok(Request::ListStreams { table: request.table_name, after, limit })
}

fn describe_stream(request: DescribeStream) -> Result<Request, ApiError> {
    let stream = stream_arn(request.stream_arn)?;
    let after = request.exclusive_start_shard_id;
    if let Some(id) = &after {
        within("exclusiveStartShardId", id, SHARD_LENGTH)?;
    }
    let children_of = request.shard_filter.map(shard_filter).transpose()?;
    Ok(Request::DescribeStream { stream, children_of, after, limit: limit(request.limit, PAGE_SHARDS_MAX)? })
}

fn shard_filter(filter: ShardFilter) -> Result<String, ApiError> {
    let kind = required("shardFilter.type", filter.r#type)?;
    if kind != "CHILD_SHARDS" {
        return Err(refused(&kind, "shardFilter.type", "Member must satisfy enum value set: [CHILD_SHARDS]"));
    }
    bounded("shardFilter.shardId", filter.shard_id, SHARD_LENGTH)
}

fn get_shard_iterator(request: GetShardIterator) -> Result<Request, ApiError> {
    let stream = stream_arn(request.stream_arn)?;
    let shard = bounded("shardId", request.shard_id, SHARD_LENGTH)?;
    let kind = required("shardIteratorType", request.shard_iterator_type)?;
    let with_sequence = || sequence(required("sequenceNumber", request.sequence_number.clone())?);
    let without_sequence = |from| match &request.sequence_number {
        None => Ok(from),
        Some(_) => Err(invalid(format!("SequenceNumber must not be given with {kind}"))),
    };
    let from = match kind.as_str() {
        "TRIM_HORIZON" => without_sequence(From::TrimHorizon)?,
        "LATEST" => without_sequence(From::Latest)?,
        "AT_SEQUENCE_NUMBER" => From::At(with_sequence()?),
        "AFTER_SEQUENCE_NUMBER" => From::After(with_sequence()?),
        "AT_TIMESTAMP" => without_sequence(From::AtTimeMs(timestamp_ms(request.timestamp)?))?,
        other => {
            let allowed = "Member must satisfy enum value set: [AFTER_SEQUENCE_NUMBER, LATEST, \
                           AT_SEQUENCE_NUMBER, TRIM_HORIZON, AT_TIMESTAMP]";
            return Err(refused(other, "shardIteratorType", allowed));
        }
    };
    Ok(Request::GetShardIterator { stream, shard, from })
}

fn get_records(request: &GetRecords) -> Result<Request, ApiError> {
    let token = bounded("shardIterator", request.shard_iterator.clone(), ITERATOR_LENGTH)?;
    let limit = limit(request.limit, PAGE_RECORDS_MAX)?;
    let iterator = ShardIterator::decode(&token).ok_or_else(|| invalid("Invalid ShardIterator"))?;
    Ok(Request::GetRecords { iterator, limit })
}

fn stream_arn(arn: Option<String>) -> Result<String, ApiError> {
    let arn = bounded("streamArn", arn, ARN_LENGTH)?;
    let is_stream = arn.starts_with("arn:") && arn.contains(":table/") && arn.contains("/stream/");
    if is_stream { Ok(arn) } else { Err(invalid("Invalid StreamArn")) }
}

fn sequence(text: String) -> Result<Sequence, ApiError> {
    within("sequenceNumber", &text, SEQUENCE_LENGTH)?;
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(invalid("Invalid SequenceNumber"));
    }
    // More digits than ours have: behind everything.
    Ok(text.parse().unwrap_or(Sequence::MAX))
}

fn timestamp_ms(seconds: Option<f64>) -> Result<u64, ApiError> {
    let seconds =
        seconds.ok_or_else(|| invalid("Timestamp must be given with the iterator type AT_TIMESTAMP"))?;
    let at = std::time::Duration::try_from_secs_f64(seconds).map_err(|_| invalid("Invalid Timestamp"))?;
    // Milliseconds in a double are not exact.
    Ok(super::clock::millis(at.saturating_add(std::time::Duration::from_micros(500))))
}

fn limit(limit: Option<i64>, max: i64) -> Result<usize, ApiError> {
    let value = limit.unwrap_or(max);
    let bound = if value < 1 {
        "Member must have value greater than or equal to 1".to_owned()
    } else if value > max {
        format!("Member must have value less than or equal to {max}")
    } else {
        return Ok(usize::try_from(value).unwrap_or(1));
    };
    Err(refused(&value.to_string(), "limit", &bound))
}

fn required(field: &str, value: Option<String>) -> Result<String, ApiError> {
    value.ok_or_else(|| {
        invalid(format!(
            "1 validation error detected: Value null at '{field}' failed to satisfy constraint: \
             Member must not be null"
        ))
    })
}

fn bounded(field: &str, value: Option<String>, length: (usize, usize)) -> Result<String, ApiError> {
    let value = required(field, value)?;
    within(field, &value, length)?;
    Ok(value)
}

fn within(field: &str, value: &str, (min, max): (usize, usize)) -> Result<(), ApiError> {
    if value.len() < min {
        return Err(refused(
            value,
            field,
            &format!("Member must have length greater than or equal to {min}"),
        ));
    }
    if value.len() > max {
        return Err(refused(value, field, &format!("Member must have length less than or equal to {max}")));
    }
    Ok(())
}

fn refused(value: &str, field: &str, constraint: &str) -> ApiError {
    invalid(format!(
        "1 validation error detected: Value '{value}' at '{field}' failed to satisfy constraint: {constraint}"
    ))
}

fn invalid(message: impl Into<std::borrow::Cow<'static, str>>) -> ApiError {
    ApiError::new(ErrorCode::Validation, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARN: &str = "arn:aws:dynamodb:us-east-1:123456789012:table/bids/stream/2026-01-01T00:00:00.000";
    const SHARD: &str = "shardId-00000001700000000000-0badcafe";
    const SEQUENCE: &str = "100000000000000000000";

    fn parse(operation: Operation, json: &serde_json::Value) -> Result<Request, ErrorCode> {
        Request::parse(operation, json.to_string().as_bytes()).map_err(|error| error.code)
    }

    fn from(kind: &str, extra: &serde_json::Value) -> Result<From, ErrorCode> {
        let mut json = serde_json::json!({ "StreamArn": ARN, "ShardId": SHARD, "ShardIteratorType": kind });
        json.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        match parse(Operation::GetShardIterator, &json)? {
            Request::GetShardIterator { from, .. } => Ok(from),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn iterator_types_take_what_belongs_to_them() {
        let sequence = 10_u128.pow(20);
        let with = serde_json::json!({ "SequenceNumber": SEQUENCE });
        let none = serde_json::json!({});
        assert_eq!(from("TRIM_HORIZON", &none), Ok(From::TrimHorizon));
        assert_eq!(from("LATEST", &none), Ok(From::Latest));
        assert_eq!(from("AT_SEQUENCE_NUMBER", &with), Ok(From::At(sequence)));
        assert_eq!(from("AFTER_SEQUENCE_NUMBER", &with), Ok(From::After(sequence)));
        let time = serde_json::json!({ "Timestamp": 1_791_316_726.48 });
        assert_eq!(from("AT_TIMESTAMP", &time), Ok(From::AtTimeMs(1_791_316_726_480)));
        for (kind, extra) in
            [("AT_SEQUENCE_NUMBER", &none), ("LATEST", &with), ("AT_TIMESTAMP", &none), ("bulle", &none)]
        {
            assert_eq!(from(kind, extra), Err(ErrorCode::Validation), "{kind}");
        }
        let short = serde_json::json!({ "SequenceNumber": "123" });
        assert_eq!(from("AT_SEQUENCE_NUMBER", &short), Err(ErrorCode::Validation));
    }

    #[test]
    fn missing_and_malformed_fields_are_refused() {
        use Operation::*;
        let cases = [
            (DescribeStream, serde_json::json!({})),
            (DescribeStream, serde_json::json!({ "StreamArn": "no arn, but long enough to be one, nearly" })),
            (DescribeStream, serde_json::json!({ "StreamArn": ARN, "Limit": 101 })),
            (
                DescribeStream,
                serde_json::json!({ "StreamArn": ARN, "ShardFilter": { "Type": "CHILD_SHARDS" } }),
            ),
            (DescribeStream, serde_json::json!({ "StreamArn": ARN, "ShardFilter": { "ShardId": SHARD } })),
            (
                DescribeStream,
                serde_json::json!({ "StreamArn": ARN, "ShardFilter": { "Type": "foo", "ShardId": SHARD } }),
            ),
            (GetRecords, serde_json::json!({})),
            (GetRecords, serde_json::json!({ "ShardIterator": "garbage" })),
            (GetShardIterator, serde_json::json!({ "StreamArn": ARN, "ShardIteratorType": "LATEST" })),
            (ListStreams, serde_json::json!({ "Limit": 0 })),
        ];
        for (operation, json) in cases {
            assert_eq!(parse(operation, &json).err(), Some(ErrorCode::Validation), "{operation:?} {json}");
        }
        assert_eq!(
            Request::parse(GetRecords, b"{").err().map(|error| error.code),
            Some(ErrorCode::Serialization)
        );
    }

    #[test]
    fn limits_default_to_the_highest() {
        let json = serde_json::json!({ "StreamArn": ARN });
        assert!(matches!(
            parse(Operation::DescribeStream, &json),
            Ok(Request::DescribeStream { limit: 100, .. })
        ));
    }
}
