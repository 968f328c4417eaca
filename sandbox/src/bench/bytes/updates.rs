//! The updates that are measured: as changes, and as the plain JSON that they are held against.

use aws_sdk_dynamodb::types::AttributeValue;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Map as JsonMap, Value as Json, json};
use warmcast_proto::change::{Change, ChangeKind};
use warmcast_proto::item::{self, BinarySet, Item, List, Map, NumberSet, StringSet, Value};
use warmcast_proto::position::Position;

use super::BytesBenchError;
use crate::profile;
use crate::world::KEY_ATTRIBUTE;

const TABLE: &str = "profiles";
/// When the first update is made: any time will do.
const BEGIN_MS: u64 = 1_784_000_000_000;
/// Updates a second, for their times.
const RATE: u64 = 20_000;

/// An update, as two producers would send it.
pub(super) struct Update {
    /// As the aggregator makes it of the stream record.
    pub(super) change: Change,
    /// As DynamoDB JSON, with no more around the new image than what a consumer needs.
    pub(super) json: String,
}

/// Updates of so many users. The same seed gives the same ones.
pub(super) fn draw(seed: u64, count: usize) -> Result<Vec<Update>, BytesBenchError> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut sequence = 4_107_372_200_000_000_044_281_155_203_u128;
    (0..count as u64)
        .map(|index| {
            // Sequence numbers of one shard rise by small and irregular steps.
            sequence += rng.random_range(1..10_000_u128);
            let user = seed << 32 | index;
            let now_ms = BEGIN_MS + index * 1_000 / RATE;
            let cookie = profile::cookie_id(user);
            let version = rng.random_range(1..5_000);
            let item = profile::profile(&mut rng, &cookie, version, now_ms);
            let sequence = sequence.to_string();
            let created_s = now_ms / 1_000;
            let json = json!({
                "eventName": "MODIFY",
                "tableName": TABLE,
                "dynamodb": {
                    "ApproximateCreationDateTime": created_s,
                    "Keys": { KEY_ATTRIBUTE: { "S": cookie } },
                    "NewImage": json_image(&item)?,
                    "SequenceNumber": sequence,
                },
            });
            let failed = |error: &dyn std::fmt::Display| BytesBenchError::Update(error.to_string());
            let change = Change {
                table: TABLE.into(),
                key: Bytes::from(cookie),
                position: Position::new(1, sequence.parse().map_err(|error| failed(&error))?)
                    .map_err(|error| failed(&error))?,
                kind: ChangeKind::Put,
                created_ms: created_s * 1_000,
                payload: item::encode(&Item { attributes: attributes(&item)? }),
            };
            Ok(Update { change, json: json.to_string() })
        })
        .collect()
}

fn unknown(value: &AttributeValue) -> BytesBenchError {
    BytesBenchError::Update(format!("{value:?} has a type that is not known here"))
}

fn json_image(item: &profile::Item) -> Result<Json, BytesBenchError> {
    let members = item.iter().map(|(name, value)| Ok((name.clone(), json_value(value)?)));
    Ok(Json::Object(members.collect::<Result<JsonMap<_, _>, BytesBenchError>>()?))
}

/// A value as DynamoDB's API and its streams write it (AWS: AttributeValue).
fn json_value(value: &AttributeValue) -> Result<Json, BytesBenchError> {
    let base64 = |blob: &aws_sdk_dynamodb::primitives::Blob| STANDARD.encode(blob.as_ref());
    Ok(match value {
        AttributeValue::S(text) => json!({ "S": text }),
        AttributeValue::N(text) => json!({ "N": text }),
        AttributeValue::B(blob) => json!({ "B": base64(blob) }),
        AttributeValue::Bool(flag) => json!({ "BOOL": flag }),
        AttributeValue::Null(null) => json!({ "NULL": *null }),
        AttributeValue::L(values) => {
            json!({ "L": values.iter().map(json_value).collect::<Result<Vec<_>, _>>()? })
        }
        AttributeValue::M(map) => json!({ "M": json_image(map)? }),
        AttributeValue::Ss(values) => json!({ "SS": values }),
        AttributeValue::Ns(values) => json!({ "NS": values }),
        AttributeValue::Bs(values) => json!({ "BS": values.iter().map(base64).collect::<Vec<_>>() }),
        other => return Err(unknown(other)),
    })
}

fn attributes(
    item: &profile::Item,
) -> Result<std::collections::BTreeMap<String, item::AttributeValue>, BytesBenchError> {
    item.iter().map(|(name, value)| Ok((name.clone(), proto_value(value)?.into()))).collect()
}

fn proto_value(value: &AttributeValue) -> Result<Value, BytesBenchError> {
    let bytes = |blob: &aws_sdk_dynamodb::primitives::Blob| Bytes::copy_from_slice(blob.as_ref());
    Ok(match value {
        AttributeValue::S(text) => Value::S(text.clone()),
        AttributeValue::N(text) => Value::N(text.clone()),
        AttributeValue::B(blob) => Value::B(bytes(blob)),
        AttributeValue::Bool(flag) => Value::Bool(*flag),
        AttributeValue::Null(null) => Value::Null(*null),
        AttributeValue::L(values) => {
            let values = values.iter().map(|value| proto_value(value).map(Into::into));
            Value::L(List { values: values.collect::<Result<_, _>>()? })
        }
        AttributeValue::M(map) => Value::M(Map { attributes: attributes(map)? }),
        AttributeValue::Ss(values) => Value::Ss(StringSet { values: values.clone() }),
        AttributeValue::Ns(values) => Value::Ns(NumberSet { values: values.clone() }),
        AttributeValue::Bs(values) => Value::Bs(BinarySet { values: values.iter().map(bytes).collect() }),
        other => return Err(unknown(other)),
    })
}
