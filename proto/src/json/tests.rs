use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;
use crate::change::tests::any_change;
use crate::item::tests::any_item;
use crate::item::{AttributeValue, Item, Map, Value};

fn change() -> Change {
    Change {
        table: "profiles".into(),
        key: Bytes::from_static(b"user-1"),
        position: Position::new(1, "4107372200000000044281155203".parse().unwrap()).unwrap(),
        kind: ChangeKind::Put,
        created_ms: 1_784_000_000_000,
        payload: encode_item(&Item {
            attributes: BTreeMap::from([("age".to_owned(), Value::N("42".to_owned()).into())]),
        }),
    }
}

fn written(change: &Change, read_ms: u64) -> Json {
    serde_json::from_slice(&encode(change, read_ms).unwrap()).unwrap()
}

/// What is read when the members are these instead.
fn read_with(members: Json) -> Result<Document, JsonError> {
    let mut document = written(&change(), 5);
    for (name, value) in members.as_object().unwrap() {
        match value {
            Json::String(text) if text == "(left out)" => {
                drop(document.as_object_mut().unwrap().remove(name))
            }
            value => document[name] = value.clone(),
        }
    }
    decode(document.to_string().as_bytes())
}

proptest! {
    #[test]
    fn changes_read_back_byte_by_byte(change in any_change(), item in any_item(), read_ms in any::<u64>()) {
        let payload = if change.kind.has_item() { encode_item(&item) } else { Bytes::new() };
        let change = Change { payload, ..change };
        let document = decode(&encode(&change, read_ms).unwrap()).unwrap();
        let read_ms = Some(read_ms).filter(|&at_ms| at_ms > 0);
        prop_assert_eq!(document, Document { change: Some(change), read_ms, watermark_ms: None });
    }

    #[test]
    fn damaged_documents_never_panic(
        item in any_item(),
        at in any::<prop::sample::Index>(),
        replaced in prop::collection::vec(any::<u8>(), 0..4),
        cut in 0usize..4,
    ) {
        let mut document = encode(&Change { payload: encode_item(&item), ..change() }, 1).unwrap();
        let at = at.index(document.len());
        let end = (at + cut).min(document.len());
        document.splice(at..end, replaced);
        let _ = decode(&document);
    }

    #[test]
    fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(decode(&bytes).is_err());
    }

    #[test]
    fn a_partition_key_is_one_that_kinesis_takes(key in prop::collection::vec(any::<u8>(), 0..400), text in ".{0,300}") {
        for key in [key.as_slice(), text.as_bytes()] {
            let chars = partition_key(key).chars().count();
            prop_assert!((1..=PARTITION_KEY_CHARS_MAX).contains(&chars), "{}", chars);
        }
    }
}

#[test]
fn the_document_is_what_the_documentation_says() {
    let expected = r#"{"warmcast":1,"table":"profiles","key":"user-1","kind":"put","generation":1,"sequence":"4107372200000000044281155203","created_ms":1784000000000,"read_ms":1784000000123,"item":{"age":{"N":"42"}}}"#;
    let document = String::from_utf8(encode(&change(), 1_784_000_000_123).unwrap()).unwrap();
    assert_eq!(document, expected);
    let docs = include_str!("../../../docs/kpl.md");
    let minified: String = docs.split_whitespace().collect();
    assert!(minified.contains(expected), "docs/kpl.md has this example: {expected}");
}

#[test]
fn a_key_that_is_no_text_is_base64_and_a_deletion_has_no_item() {
    let change = Change {
        key: Bytes::from_static(b"\xff"),
        kind: ChangeKind::Expire,
        payload: Bytes::new(),
        ..change()
    };
    let expected = json!({
        "warmcast": 1, "table": "profiles", "key_base64": "/w==", "kind": "expire", "generation": 1,
        "sequence": "4107372200000000044281155203", "created_ms": 1_784_000_000_000_u64,
    });
    assert_eq!(written(&change, 0), expected);
}

#[test]
fn a_backfill_has_an_item_and_no_position() {
    let backfill = Change { kind: ChangeKind::Backfill, position: Position::ZERO, ..change() };
    let document = written(&backfill, 5);
    assert_eq!((&document["kind"], &document["sequence"]), (&json!("backfill"), &json!("0")));
    assert_eq!((&document["generation"], &document["item"]), (&json!(0), &json!({"age": {"N": "42"}})));
    assert_eq!(decode(document.to_string().as_bytes()).unwrap().change, Some(backfill));
}

#[test]
fn a_heartbeat_has_a_watermark_and_no_change() {
    assert_eq!(&heartbeat(7)[..], br#"{"warmcast":1,"watermark_ms":7}"#);
    assert_eq!(decode(&heartbeat(7)), Ok(Document { change: None, read_ms: None, watermark_ms: Some(7) }));
    assert_eq!(
        decode(&heartbeat(0)),
        Ok(Document { change: None, read_ms: None, watermark_ms: None }),
        "0 says nothing"
    );
}

#[test]
fn what_is_wrong_is_said_without_saying_the_data() {
    let left_out = "(left out)";
    assert_eq!(read_with(json!({ "warmcast": left_out })), Err(JsonError::Foreign));
    assert_eq!(read_with(json!({ "warmcast": 2 })), Err(JsonError::UnsupportedVersion { version: 2 }));
    for name in ["table", "key", "kind", "generation", "sequence", "created_ms", "item"] {
        assert_eq!(read_with(json!({ name: left_out })), Err(JsonError::Missing(name)));
    }
    assert_eq!(read_with(json!({ "key_base64": "aa" })), Err(JsonError::Missing("key")), "two keys");
    assert_eq!(read_with(json!({ "key": left_out, "key_base64": "secret!" })), Err(JsonError::Key));
    assert_eq!(read_with(json!({ "kind": "secret" })), Err(JsonError::UnknownKind));
    assert!(matches!(read_with(json!({ "sequence": "-1" })), Err(JsonError::Sequence(_))));
    assert!(matches!(read_with(json!({ "generation": u32::MAX })), Err(JsonError::Position(_))));
    for item in [
        json!({ "a": { "X": "secret" } }),
        json!({ "a": { "S": "secret", "N": "1" } }),
        json!({ "a": { "B": "secret!" } }),
        json!({ "a": { "N": 12 } }),
        json!({ "a": "secret" }),
        json!(["secret"]),
    ] {
        let error = read_with(json!({ "item": item })).unwrap_err();
        assert!(matches!(error, JsonError::Item { .. }), "{error:?}");
    }
    for wrong in [json!({ "table": 5 }), json!({ "created_ms": "secret" })] {
        let error = read_with(wrong).unwrap_err();
        assert!(matches!(error, JsonError::Json { is_syntax: false, .. }), "{error:?}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
    let error = decode(b"{\"warmcast\":secret}").unwrap_err();
    assert!(matches!(error, JsonError::Json { is_syntax: true, .. }), "{error:?}");
    assert!(!error.to_string().contains("secret"), "{error}");
}

#[test]
fn members_that_are_not_known_are_passed_over() {
    let document = read_with(json!({ "later": { "deep": [1, 2] } })).unwrap();
    assert_eq!(document.change, Some(change()));
}

#[test]
fn the_deepest_nesting_that_dynamodb_allows_reads_back_and_far_beyond_is_an_error() {
    let nested = |levels| {
        let innermost = AttributeValue::from(Value::S("innermost".to_owned()));
        let value = (0..levels).fold(innermost, |value, _| {
            Value::M(Map { attributes: BTreeMap::from([("m".to_owned(), value)]) }).into()
        });
        Item { attributes: BTreeMap::from([("a".to_owned(), value)]) }
    };
    // AWS: DynamoDB quotas, nested attribute depth: 32 levels.
    let deep = Change { payload: encode_item(&nested(32)), ..change() };
    assert_eq!(decode(&encode(&deep, 0).unwrap()).unwrap().change, Some(deep));
    let deeper = format!("{}{{}}{}", "{\"m\":{\"M\":".repeat(10_000), "}}".repeat(10_000));
    let document = format!(r#"{{"warmcast":1,"item":{{"a":{{"M":{deeper}}}}}}}"#);
    assert_eq!(decode(document.as_bytes()), Err(JsonError::Missing("table")), "an item is read last");
    assert!(encode(&Change { payload: encode_item(&nested(1_000)), ..change() }, 0).is_err());
    let raw = RawValue::from_string(deeper).unwrap();
    assert!(matches!(read_item(&raw), Err(JsonError::Item { .. })));
}
