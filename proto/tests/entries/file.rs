//! The form of the file: what a test in any language reads.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};
use warmcast_proto::item::{AttributeValue, Value};

/// The whole file.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Vectors {
    pub(crate) about: String,
    /// Redis keys of items.
    pub(crate) keys: Vec<KeyVector>,
    /// Entries that are in order.
    pub(crate) entries: Vec<EntryVector>,
    /// Values that are no entries: a reader sees a miss.
    pub(crate) misses: Vec<MissVector>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct KeyVector {
    pub(crate) prefix: String,
    pub(crate) table: String,
    /// The partition key's bytes.
    pub(crate) partition_hex: String,
    /// The sort key's, if the table has one.
    pub(crate) sort_hex: Option<String>,
    pub(crate) key_hex: String,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct EntryVector {
    pub(crate) name: String,
    pub(crate) entry_hex: String,
    /// The letter.
    pub(crate) kind: String,
    pub(crate) generation: u32,
    /// Decimal: it does not fit any machine's numbers.
    pub(crate) sequence: String,
    pub(crate) time_ms: u64,
    pub(crate) expires_ms: Option<u64>,
    pub(crate) payload_hex: String,
    /// The payload in DynamoDB's JSON, where it is an `Item`.
    pub(crate) item: Option<Json>,
    pub(crate) reads: Vec<Read>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Read {
    pub(crate) now_ms: u64,
    pub(crate) sees: Sees,
}

/// What a reader sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Sees {
    /// The item, which is the payload.
    Item,
    /// It is known that there is no such item.
    Absent,
    /// Nothing is known.
    Miss,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct MissVector {
    pub(crate) name: String,
    pub(crate) entry_hex: String,
}

/// The folder of the file.
pub(crate) fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata")
}

/// The file's path.
pub(crate) fn path() -> PathBuf {
    testdata().join("entries.json")
}

/// The file as it is checked in.
pub(crate) fn checked_in() -> Vectors {
    let text = std::fs::read_to_string(path()).expect("the vectors are there");
    serde_json::from_str(&text).expect("the vectors are in the form of this module")
}

pub(crate) fn hex(bytes: impl AsRef<[u8]>) -> String {
    bytes.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        text.chars().map(|digit| u8::try_from(digit.to_digit(16).expect("hex")).unwrap()).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// Attributes in DynamoDB's JSON, binary values in base64.
pub(crate) fn json_of_attributes(attributes: &BTreeMap<String, AttributeValue>) -> Json {
    attributes.iter().map(|(name, value)| (name.clone(), json_of_value(value))).collect()
}

fn json_of_value(value: &AttributeValue) -> Json {
    let base64 = |bytes: &bytes::Bytes| BASE64_STANDARD.encode(bytes);
    match value.value.as_ref().expect("a value") {
        Value::S(text) => json!({ "S": text }),
        Value::N(digits) => json!({ "N": digits }),
        Value::B(bytes) => json!({ "B": base64(bytes) }),
        Value::Bool(truth) => json!({ "BOOL": truth }),
        Value::Null(is_null) => json!({ "NULL": is_null }),
        Value::L(list) => json!({ "L": list.values.iter().map(json_of_value).collect::<Vec<_>>() }),
        Value::M(map) => json!({ "M": json_of_attributes(&map.attributes) }),
        Value::Ss(set) => json!({ "SS": set.values }),
        Value::Ns(set) => json!({ "NS": set.values }),
        Value::Bs(set) => json!({ "BS": set.values.iter().map(base64).collect::<Vec<_>>() }),
    }
}
