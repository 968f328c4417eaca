//! A stream record as the service's JSON and back, for dead letters: what was read can be read again. Pure.
//!
//! AWS: DynamoDB Streams API reference, `Record`. Binary values are base64; attributes are in the order of their names,
//! so that equal records are equal texts. A value of a type that the SDK does not know has lost its content before it
//! came here: it is written as `{"UNKNOWN": true}`, which
//! cannot be read.

use std::collections::HashMap;

use aws_sdk_dynamodbstreams::primitives::{Blob, DateTime};
use aws_sdk_dynamodbstreams::types::{AttributeValue, Identity, Record, StreamRecord};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value, json};

type Image = HashMap<String, AttributeValue>;

/// In place of the type of a value that the SDK did not know.
const UNKNOWN: &str = "UNKNOWN";

/// DynamoDB nests 32 levels deep (AWS: DynamoDB quotas).
const DEPTH_MAX: usize = 40;

/// Why a text is not a stream record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a stream record: {0}")]
pub struct DecodeError(String);

/// Writes a record.
pub fn encode(record: &Record) -> Vec<u8> {
    let Record { event_id, event_name, event_version, event_source, aws_region, .. } = record;
    let mut fields = Map::new();
    put(&mut fields, "eventID", event_id.as_deref());
    put(&mut fields, "eventName", event_name.as_ref().map(|name| name.as_str()));
    put(&mut fields, "eventVersion", event_version.as_deref());
    put(&mut fields, "eventSource", event_source.as_deref());
    put(&mut fields, "awsRegion", aws_region.as_deref());
    put(&mut fields, "dynamodb", record.dynamodb.as_ref().map(body));
    put(
        &mut fields,
        "userIdentity",
        record.user_identity.as_ref().map(|identity| {
            let mut fields = Map::new();
            put(&mut fields, "PrincipalId", identity.principal_id.as_deref());
            put(&mut fields, "Type", identity.r#type.as_deref());
            Value::Object(fields)
        }),
    );
    Value::Object(fields).to_string().into_bytes()
}

fn body(body: &StreamRecord) -> Value {
    let mut fields = Map::new();
    // The service tells whole seconds; a fraction stays a fraction.
    let created = body.approximate_creation_date_time.map(|at| match at.subsec_nanos() {
        0 => json!(at.secs()),
        _ => json!(at.as_secs_f64()),
    });
    put(&mut fields, "ApproximateCreationDateTime", created);
    put(&mut fields, "Keys", body.keys.as_ref().map(image));
    put(&mut fields, "NewImage", body.new_image.as_ref().map(image));
    put(&mut fields, "OldImage", body.old_image.as_ref().map(image));
    put(&mut fields, "SequenceNumber", body.sequence_number.as_deref());
    put(&mut fields, "SizeBytes", body.size_bytes);
    put(&mut fields, "StreamViewType", body.stream_view_type.as_ref().map(|view| view.as_str()));
    Value::Object(fields)
}

fn put(fields: &mut Map<String, Value>, name: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        fields.insert(name.to_owned(), value.into());
    }
}

fn image(image: &Image) -> Value {
    Value::Object(image.iter().map(|(name, attribute)| (name.clone(), value(attribute))).collect())
}

fn value(attribute: &AttributeValue) -> Value {
    let blob = |blob: &Blob| BASE64_STANDARD.encode(blob.as_ref());
    match attribute {
        AttributeValue::S(text) => json!({ "S": text }),
        AttributeValue::N(digits) => json!({ "N": digits }),
        AttributeValue::B(bytes) => json!({ "B": blob(bytes) }),
        AttributeValue::Bool(truth) => json!({ "BOOL": truth }),
        AttributeValue::Null(null) => json!({ "NULL": *null }),
        AttributeValue::Ss(texts) => json!({ "SS": texts }),
        AttributeValue::Ns(numbers) => json!({ "NS": numbers }),
        AttributeValue::Bs(blobs) => json!({ "BS": blobs.iter().map(blob).collect::<Vec<_>>() }),
        AttributeValue::L(values) => json!({ "L": values.iter().map(value).collect::<Vec<_>>() }),
        AttributeValue::M(map) => json!({ "M": image(map) }),
        _ => json!({ UNKNOWN: true }),
    }
}

/// Reads what [`encode`] wrote, or what the service answers with.
///
/// # Errors
/// The bytes are not a record.
pub fn decode(bytes: &[u8]) -> Result<Record, DecodeError> {
    let value: Value = serde_json::from_slice(bytes).map_err(|error| DecodeError(error.to_string()))?;
    let fields = Fields { path: "record", value: &value };
    let record = Record::builder()
        .set_event_id(fields.text("eventID")?)
        .set_event_name(fields.text("eventName")?.map(|name| name.as_str().into()))
        .set_event_version(fields.text("eventVersion")?)
        .set_event_source(fields.text("eventSource")?)
        .set_aws_region(fields.text("awsRegion")?)
        .set_dynamodb(fields.object("dynamodb")?.map(|body| decode_body(&body)).transpose()?)
        .set_user_identity(match fields.object("userIdentity")? {
            None => None,
            Some(identity) => Some(
                Identity::builder()
                    .set_principal_id(identity.text("PrincipalId")?)
                    .set_type(identity.text("Type")?)
                    .build(),
            ),
        });
    Ok(record.build())
}

fn decode_body(fields: &Fields<'_>) -> Result<StreamRecord, DecodeError> {
    let image = |name| match fields.value.get(name) {
        None => Ok(None),
        Some(image) => decode_image(name, image, 0).map(Some),
    };
    let created = match fields.value.get("ApproximateCreationDateTime") {
        None => None,
        Some(at) => {
            let wrong = || DecodeError("ApproximateCreationDateTime is not a number".to_owned());
            Some(match at.as_i64() {
                Some(secs) => DateTime::from_secs(secs),
                None => DateTime::from_secs_f64(at.as_f64().ok_or_else(wrong)?),
            })
        }
    };
    let body = StreamRecord::builder()
        .set_approximate_creation_date_time(created)
        .set_keys(image("Keys")?)
        .set_new_image(image("NewImage")?)
        .set_old_image(image("OldImage")?)
        .set_sequence_number(fields.text("SequenceNumber")?)
        .set_size_bytes(fields.value.get("SizeBytes").and_then(Value::as_i64))
        .set_stream_view_type(fields.text("StreamViewType")?.map(|view| view.as_str().into()));
    Ok(body.build())
}

struct Fields<'a> {
    path: &'static str,
    value: &'a Value,
}

impl<'a> Fields<'a> {
    fn text(&self, name: &str) -> Result<Option<String>, DecodeError> {
        match self.value.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(DecodeError(format!("{name} of the {} is not a text", self.path))),
        }
    }

    fn object(&self, name: &'static str) -> Result<Option<Fields<'a>>, DecodeError> {
        match self.value.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value @ Value::Object(_)) => Ok(Some(Fields { path: name, value })),
            Some(_) => Err(DecodeError(format!("{name} is not an object"))),
        }
    }
}

fn decode_image(name: &str, image: &Value, depth: usize) -> Result<Image, DecodeError> {
    let Value::Object(attributes) = image else {
        return Err(DecodeError(format!("{name} is not an object")));
    };
    let attribute = |(name, value): (&String, &Value)| Ok((name.clone(), decode_value(name, value, depth)?));
    attributes.iter().map(attribute).collect()
}

fn decode_value(name: &str, value: &Value, depth: usize) -> Result<AttributeValue, DecodeError> {
    let wrong = || DecodeError(format!("attribute {name} is not a value with its type"));
    let typed = value.as_object().filter(|object| object.len() == 1 && depth < DEPTH_MAX);
    let (kind, value) = typed.and_then(|object| object.iter().next()).ok_or_else(wrong)?;
    let text = |value: &Value| value.as_str().map(str::to_owned).ok_or_else(wrong);
    let blob = |value: &Value| {
        let bytes = value.as_str().and_then(|text| BASE64_STANDARD.decode(text).ok());
        bytes.map(Blob::new).ok_or_else(wrong)
    };
    let list = || value.as_array().ok_or_else(wrong);
    Ok(match kind.as_str() {
        "S" => AttributeValue::S(text(value)?),
        "N" => AttributeValue::N(text(value)?),
        "B" => AttributeValue::B(blob(value)?),
        "BOOL" => AttributeValue::Bool(value.as_bool().ok_or_else(wrong)?),
        "NULL" => AttributeValue::Null(value.as_bool().ok_or_else(wrong)?),
        "SS" => AttributeValue::Ss(list()?.iter().map(text).collect::<Result<_, _>>()?),
        "NS" => AttributeValue::Ns(list()?.iter().map(text).collect::<Result<_, _>>()?),
        "BS" => AttributeValue::Bs(list()?.iter().map(blob).collect::<Result<_, _>>()?),
        "L" => {
            let values = list()?.iter().map(|value| decode_value(name, value, depth + 1));
            AttributeValue::L(values.collect::<Result<_, _>>()?)
        }
        "M" => AttributeValue::M(decode_image(name, value, depth + 1)?),
        UNKNOWN => {
            return Err(DecodeError(format!("attribute {name} was of a type that its reader did not know")));
        }
        _ => return Err(wrong()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_dynamodbstreams::types::{OperationType, StreamViewType};
    use proptest::prelude::*;

    fn any_value() -> impl Strategy<Value = AttributeValue> {
        let blob = || prop::collection::vec(any::<u8>(), 0..20).prop_map(Blob::new);
        let leaf = prop_oneof![
            any::<String>().prop_map(AttributeValue::S),
            "-?[0-9]{1,38}".prop_map(AttributeValue::N),
            blob().prop_map(AttributeValue::B),
            any::<bool>().prop_map(AttributeValue::Bool),
            Just(AttributeValue::Null(true)),
            prop::collection::vec(any::<String>(), 0..4).prop_map(AttributeValue::Ss),
            prop::collection::vec("[0-9]{1,5}", 0..4).prop_map(AttributeValue::Ns),
            prop::collection::vec(blob(), 0..4).prop_map(AttributeValue::Bs),
        ];
        leaf.prop_recursive(4, 20, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(AttributeValue::L),
                prop::collection::hash_map(any::<String>(), inner, 0..4).prop_map(AttributeValue::M),
            ]
        })
    }

    fn any_record() -> impl Strategy<Value = Record> {
        let image = || prop::option::of(prop::collection::hash_map(any::<String>(), any_value(), 0..4));
        let text = || prop::option::of(any::<String>());
        let body =
            (image(), image(), image(), text(), prop::option::of(any::<i64>()), 0i64..1 << 40, 0u32..1_000);
        let body = body.prop_map(|(keys, new, old, sequence, size, secs, millis)| {
            StreamRecord::builder()
                .set_keys(keys)
                .set_new_image(new)
                .set_old_image(old)
                .set_sequence_number(sequence)
                .set_size_bytes(size)
                .approximate_creation_date_time(DateTime::from_secs_and_nanos(
                    secs,
                    if millis < 500 { 0 } else { 500_000_000 },
                ))
                .stream_view_type(StreamViewType::NewAndOldImages)
                .build()
        });
        (prop::option::of(body), text(), text(), any::<bool>()).prop_map(
            |(body, id, principal, has_identity)| {
                let identity = Identity::builder().set_principal_id(principal).r#type("Service").build();
                Record::builder()
                    .set_dynamodb(body)
                    .set_event_id(id)
                    .event_name(OperationType::from("ARCHIVE"))
                    .set_user_identity(has_identity.then_some(identity))
                    .build()
            },
        )
    }

    proptest! {
        #[test]
        fn a_record_reads_as_it_was_written_and_equal_records_are_equal_texts(record in any_record()) {
            let text = encode(&record);
            let read = decode(&text).unwrap();
            prop_assert_eq!(&read, &record);
            prop_assert_eq!(encode(&read), text);
        }

        #[test]
        fn what_is_no_record_is_an_error_and_never_a_panic(text in ".{0,60}") {
            let nested = format!(r#"{{"dynamodb":{{"Keys":{{"id":{text}}}}}}}"#);
            let _either = (decode(text.as_bytes()), decode(nested.as_bytes()));
        }
    }

    #[test]
    fn the_form_is_the_services_own() {
        // AWS: the example answer of GetRecords in the DynamoDB Streams API reference, shortened.
        let text = r#"{"awsRegion":"us-west-2","dynamodb":{"ApproximateCreationDateTime":1480642020,"Keys":{"Id":{"N":"101"}},"NewImage":{"Blob":{"B":"AP8="},"Id":{"N":"101"}},"SequenceNumber":"400000000000000499660","SizeBytes":41,"StreamViewType":"NEW_IMAGE"},"eventID":"e2fd9c34eff2d779b297b26f5fef4206","eventName":"INSERT","eventSource":"aws:dynamodb","eventVersion":"1.0"}"#;
        let record = decode(text.as_bytes()).unwrap();
        let body = record.dynamodb.as_ref().unwrap();
        assert_eq!(body.new_image.as_ref().unwrap()["Blob"], AttributeValue::B(Blob::new(b"\x00\xff")));
        assert_eq!(String::from_utf8(encode(&record)).unwrap(), text);
    }

    #[test]
    fn a_value_that_was_not_known_is_not_made_up() {
        let text = br#"{"dynamodb":{"NewImage":{"odd":{"UNKNOWN":true}}}}"#;
        assert!(decode(text).unwrap_err().to_string().contains("attribute odd"));
    }

    #[test]
    fn nesting_beyond_what_the_service_has_is_refused() {
        let deep = |levels: usize| {
            let value = format!("{}{}{}", r#"{"L":["#.repeat(levels), r#"{"S":"x"}"#, "]}".repeat(levels));
            decode(format!(r#"{{"dynamodb":{{"NewImage":{{"a":{value}}}}}}}"#).as_bytes())
        };
        assert!(deep(32).is_ok());
        assert!(deep(DEPTH_MAX).is_err());
    }
}
