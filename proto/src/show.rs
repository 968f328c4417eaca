//! What records, changes and entries hold, as JSON for people and for scripts: the operators' commands show it.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::{
    change::Change,
    item::{self, Item},
    json,
    key_text::KeyShape,
    record::{self, Part},
};

/// Bytes that are shown of what cannot be read.
const BYTES_SHOWN_MAX: usize = 256;

/// An item in DynamoDB's JSON: `{"id": {"S": "user-1"}}`.
#[must_use]
pub fn item(item: &Item) -> Value {
    // Maps have text for keys: nothing can fail.
    serde_json::to_value(json::ItemJson(item)).unwrap_or_default()
}

/// A change as the documents of aggregated records have it ([`json::encode`]), but for their version.
#[must_use]
pub fn change(change: &Change) -> Value {
    let document = json::encode(change, 0).ok().and_then(|document| serde_json::from_slice(&document).ok());
    match document {
        Some(Value::Object(mut members)) => {
            members.remove("warmcast");
            Value::Object(members)
        }
        // The payload is no item.
        _ => json!({
            "table": &*change.table,
            "key": text_of(&change.key),
            "kind": format!("{:?}", change.kind).to_lowercase(),
            "generation": change.position.generation(),
            "sequence": change.position.sequence().to_string(),
            "created_ms": change.created_ms,
            "payload": bytes(&change.payload),
        }),
    }
}

/// Everything that can be read of a Kinesis record: its changes, and what is wrong with those that cannot be read.
#[must_use]
pub fn record(bytes_of: Bytes) -> Value {
    let contents = match record::read(bytes_of.clone()) {
        Ok(contents) => contents,
        Err(error) => return json!({ "error": error.to_string(), "bytes": bytes(&bytes_of) }),
    };
    let mut shown = serde_json::Map::new();
    if let Some(watermark_ms) = contents.watermark_ms {
        shown.insert("watermark_ms".to_owned(), watermark_ms.into());
    }
    shown.insert("changes".to_owned(), contents.parts.iter().map(part).collect());
    Value::Object(shown)
}

fn part(part: &Part) -> Value {
    let mut shown = match &part.change {
        Ok(of) => change(of),
        Err(error) => json!({
            "error": error.to_string(),
            "table": error.table().as_deref(),
            "key": error.key().as_deref().map(text_of),
            "bytes": bytes(error.bytes()),
        }),
    };
    if let (Value::Object(members), Some(read_ms)) = (&mut shown, part.read_ms) {
        members.insert("read_ms".to_owned(), read_ms.into());
    }
    shown
}

/// The payload of an entry: the item, or, where a table's payload is one attribute, its text or its bytes.
#[must_use]
pub fn payload(payload: &Bytes, is_item: bool) -> Value {
    match item::decode(payload.clone()) {
        Ok(of) if is_item => item(&of),
        _ => bytes(payload),
    }
}

/// Bytes: their text if they are text, else hexadecimal; a long one is cut, and says so.
#[must_use]
pub fn bytes(of: &[u8]) -> Value {
    let shown = of.get(..BYTES_SHOWN_MAX).unwrap_or(of);
    let mut members = serde_json::Map::new();
    match str::from_utf8(of) {
        Ok(text) if of.len() == shown.len() => return text.into(),
        _ => {
            let hex = shown.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
            members.insert("hex".to_owned(), hex.into());
        }
    }
    members.insert("len".to_owned(), of.len().into());
    Value::Object(members)
}

fn text_of(key: &[u8]) -> String {
    key.escape_ascii().to_string()
}

/// The key as people write it, where the shape of its table's keys is known; else with what is no plain text as `\xNN`.
#[must_use]
pub fn key(shape: Option<&KeyShape>, key: &[u8]) -> String {
    shape.map_or_else(|| text_of(key), |shape| shape.show(key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::ChangeKind;
    use crate::frame::{Compression, Compressor, FrameBuilder};
    use crate::item::Value as Attribute;
    use crate::position::Position;

    fn a_change(payload: Bytes) -> Change {
        Change {
            table: "profiles".into(),
            key: Bytes::from_static(b"user-1"),
            position: Position::new(2, "17".parse().unwrap()).unwrap(),
            kind: ChangeKind::Put,
            created_ms: 3,
            payload,
        }
    }

    fn an_item() -> Bytes {
        let attributes = [("id".to_owned(), Attribute::S("user-1".to_owned()).into())];
        item::encode(&Item { attributes: attributes.into() })
    }

    #[test]
    fn a_record_is_shown_with_its_items() {
        let mut builder = FrameBuilder::new();
        builder.push(&a_change(an_item()));
        builder.push(&a_change(Bytes::from_static(b"\xff")));
        builder.read_at(9);
        let frame = builder.finish(&mut Compressor::new(Compression::None).unwrap()).unwrap();
        let common = |mut of: Value, name: &str, value: Value| {
            of[name] = value;
            of
        };
        let change = json!({"table": "profiles", "key": "user-1", "kind": "put", "generation": 2, "sequence": "17",
            "created_ms": 3, "read_ms": 9});
        assert_eq!(
            record(frame),
            json!({"changes": [
                common(change.clone(), "item", json!({"id": {"S": "user-1"}})),
                common(change, "payload", json!({"hex": "ff", "len": 1})),
            ]})
        );
        assert_eq!(record(FrameBuilder::heartbeat(5)), json!({"watermark_ms": 5, "changes": []}));
    }

    #[test]
    fn what_cannot_be_read_is_shown_as_bytes() {
        let shown = record(Bytes::from_static(b"garbage"));
        assert!(shown["error"].as_str().unwrap().contains("fewer than"), "{shown}");
        assert_eq!(shown["bytes"], "garbage");
        assert_eq!(bytes(&[0; 300]), json!({"hex": "00".repeat(256), "len": 300}));
        assert_eq!(payload(&an_item(), true), json!({"id": {"S": "user-1"}}));
        assert_eq!(payload(&Bytes::from_static(b"red"), false), "red");
    }
}
