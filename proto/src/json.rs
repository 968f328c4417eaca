//! A change as JSON, for consumers without our codecs: one user record of an aggregated record has one change.
//!
//! `docs/kpl.md` describes the document for those who read it. The same document without a change is a heartbeat. An
//! item is in DynamoDB's JSON, in which every number is text, so nothing is rounded on the way.

mod item;

pub use item::Written as ItemJson;

use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::change::{Change, ChangeKind};
use crate::item::{ItemError, decode as decode_item, encode as encode_item};
use crate::position::{Position, PositionError};
use crate::sequence::SequenceError;

/// The version written, and the only one read: the value of the member `warmcast`.
pub const VERSION: u64 = 1;

/// The most characters of a partition key (AWS: PutRecords, PartitionKey: 1 to 256).
pub const PARTITION_KEY_CHARS_MAX: usize = 256;

/// What a document says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// The change, if it is not a heartbeat.
    pub change: Option<Change>,
    /// When the change was asked for, as of a [`Frame`](crate::frame::Frame).
    pub read_ms: Option<u64>,
    /// Of a heartbeat, as of a [`Frame`](crate::frame::Frame).
    pub watermark_ms: Option<u64>,
}

/// Why bytes are not a document. Says where, never what: the bytes are somebody's data.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// Not JSON, or a member has a value of another type.
    #[error("JSON of {len} bytes: {} at line {line}, column {column}", if *.is_syntax { "syntax error" } else { "unexpected value" })]
    Json {
        /// Bytes given.
        len: usize,
        /// Whether it is not JSON at all.
        is_syntax: bool,
        /// Where, counted from 1.
        line: usize,
        /// Where in the line, counted from 1.
        column: usize,
    },
    /// No member `warmcast`: somebody else's.
    #[error("JSON without the member \"warmcast\": something else writes to the stream")]
    Foreign,
    /// Written by a newer version: upgrade the readers before the writers.
    #[error("JSON has version {version}, this reader knows {VERSION}: upgrade it")]
    UnsupportedVersion {
        /// The version given.
        version: u64,
    },
    /// A member is missing.
    #[error("JSON has no member {0:?}")]
    Missing(&'static str),
    /// A kind that this reader does not know.
    #[error("JSON has a kind that this reader does not know")]
    UnknownKind,
    /// The key is not base64.
    #[error("JSON has a key that is not base64")]
    Key,
    /// The sequence number.
    #[error(transparent)]
    Sequence(#[from] SequenceError),
    /// The generation does not fit.
    #[error(transparent)]
    Position(#[from] PositionError),
    /// The item is not DynamoDB's JSON, or of a type that this reader does not know.
    #[error("JSON has an item that is not one, at line {line}, column {column} of it")]
    Item {
        /// Where, counted from 1.
        line: usize,
        /// Where in the line, counted from 1.
        column: usize,
    },
}

/// The members, in the order in which they are written.
#[derive(Serialize)]
struct Written<'a> {
    warmcast: u64,
    table: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    kind: &'static str,
    generation: u32,
    sequence: String,
    created_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    read_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    item: Option<item::Written<'a>>,
}

/// Members that are not known are passed over.
#[derive(Deserialize)]
struct Read<'a> {
    warmcast: Option<u64>,
    table: Option<String>,
    key: Option<String>,
    key_base64: Option<String>,
    kind: Option<String>,
    generation: Option<u32>,
    sequence: Option<String>,
    created_ms: Option<u64>,
    read_ms: Option<u64>,
    watermark_ms: Option<u64>,
    #[serde(borrow)]
    item: Option<&'a RawValue>,
}

/// The document of a change that was asked for at `read_ms` (milliseconds since the Unix epoch; 0: not known).
///
/// # Errors
/// The payload of a put or backfill is not an item.
pub fn encode(change: &Change, read_ms: u64) -> Result<Vec<u8>, ItemError> {
    let item = change.kind.has_item().then(|| decode_item(change.payload.clone())).transpose()?;
    let text = str::from_utf8(&change.key).ok();
    let written = Written {
        warmcast: VERSION,
        table: &change.table,
        key: text,
        key_base64: text.is_none().then(|| BASE64_STANDARD.encode(&change.key)),
        kind: kind_name(change.kind),
        generation: change.position.generation(),
        sequence: change.position.sequence().to_string(),
        created_ms: change.created_ms,
        read_ms: (read_ms > 0).then_some(read_ms),
        item: item.as_ref().map(item::Written),
    };
    // Twice the payload: most of JSON's punctuation is there, and the buffer seldom grows.
    let mut document = Vec::with_capacity(256 + 2 * change.payload.len());
    // Maps have text for keys and a buffer takes all that is written: nothing can fail.
    let _infallible = serde_json::to_writer(&mut document, &written);
    Ok(document)
}

/// A heartbeat as a document; what it says, says [`FrameBuilder::heartbeat`](crate::frame::FrameBuilder::heartbeat).
#[must_use]
pub fn heartbeat(watermark_ms: u64) -> Bytes {
    format!("{{\"warmcast\":{VERSION},\"watermark_ms\":{watermark_ms}}}").into()
}

/// The partition key of a change's user record: the item key's text, or base64 of its bytes where they are no text; cut
/// off after 256 characters. It is for logs and for consumers that spread work by it; the document has the key itself.
#[must_use]
pub fn partition_key(key: &[u8]) -> String {
    let cut = |text: &str| text.chars().take(PARTITION_KEY_CHARS_MAX).collect();
    match str::from_utf8(key) {
        // No item has an empty key, and no record may.
        Ok("") => "-".to_owned(),
        Ok(text) => cut(text),
        Err(_) => cut(&BASE64_STANDARD.encode(key)),
    }
}

/// Reads a document. The payload of a put or backfill is the encoded item, byte by byte what [`encode`] was given.
///
/// # Errors
/// The bytes are not a document of this version.
pub fn decode(document: &[u8]) -> Result<Document, JsonError> {
    let len = document.len();
    let read: Read<'_> = serde_json::from_slice(document).map_err(|error| JsonError::Json {
        len,
        is_syntax: !error.is_data(),
        line: error.line(),
        column: error.column(),
    })?;
    match read.warmcast {
        None => return Err(JsonError::Foreign),
        Some(VERSION) => {}
        Some(version) => return Err(JsonError::UnsupportedVersion { version }),
    }
    let not_zero = |at_ms: &u64| *at_ms > 0;
    let read_ms = read.read_ms.filter(not_zero);
    if let Some(watermark_ms) = read.watermark_ms {
        return Ok(Document { change: None, read_ms, watermark_ms: Some(watermark_ms).filter(not_zero) });
    }
    Ok(Document { change: Some(read.change()?), read_ms, watermark_ms: None })
}

/// What can still be said of a change whose document cannot be read to its end: the state of its key is not known. `None`
/// where the key or the position is not known either.
#[must_use]
pub fn invalidation(document: &[u8]) -> Option<Change> {
    let read: Read<'_> = serde_json::from_slice(document).ok()?;
    if read.warmcast == Some(VERSION) && read.watermark_ms.is_none() { read.identity().ok() } else { None }
}

impl Read<'_> {
    /// Whose change it is, as an invalidation.
    fn identity(&self) -> Result<Change, JsonError> {
        let missing = |name| JsonError::Missing(name);
        let table = self.table.as_deref().ok_or_else(|| missing("table"))?;
        let key = match (&self.key, &self.key_base64) {
            (Some(key), None) => Bytes::copy_from_slice(key.as_bytes()),
            (None, Some(key)) => BASE64_STANDARD.decode(key).map_err(|_| JsonError::Key)?.into(),
            _ => return Err(missing("key")),
        };
        let generation = self.generation.ok_or_else(|| missing("generation"))?;
        let sequence = self.sequence.as_deref().ok_or_else(|| missing("sequence"))?.parse()?;
        Ok(Change {
            table: Arc::from(table),
            key,
            position: Position::new(generation, sequence)?,
            kind: ChangeKind::Invalidate,
            created_ms: self.created_ms.ok_or_else(|| missing("created_ms"))?,
            payload: Bytes::new(),
        })
    }

    fn change(self) -> Result<Change, JsonError> {
        let identity = self.identity()?;
        let name = self.kind.ok_or(JsonError::Missing("kind"))?;
        let kind = kind_of(&name).ok_or(JsonError::UnknownKind)?;
        let payload = if kind.has_item() {
            encode_item(&read_item(self.item.ok_or(JsonError::Missing("item"))?)?)
        } else {
            Bytes::new()
        };
        Ok(Change { kind, payload, ..identity })
    }
}

fn read_item(raw: &RawValue) -> Result<crate::item::Item, JsonError> {
    let read: Result<item::Read, _> = serde_json::from_str(raw.get());
    read.map(|item::Read(item)| item)
        .map_err(|error| JsonError::Item { line: error.line(), column: error.column() })
}

fn kind_name(kind: ChangeKind) -> &'static str {
    match kind {
        ChangeKind::Put => "put",
        ChangeKind::Delete => "delete",
        ChangeKind::Expire => "expire",
        ChangeKind::Invalidate => "invalidate",
        ChangeKind::Backfill => "backfill",
    }
}

fn kind_of(name: &str) -> Option<ChangeKind> {
    use ChangeKind::{Backfill, Delete, Expire, Invalidate, Put};
    [Put, Delete, Expire, Invalidate, Backfill].into_iter().find(|kind| kind_name(*kind) == name)
}

#[cfg(test)]
mod tests;
