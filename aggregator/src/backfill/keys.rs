//! The keys of a file, each read anew from the master table by strongly consistent reads.

use std::collections::{HashMap, HashSet};

use anyhow::Context;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::{AttributeValue as Attribute, KeysAndAttributes, ReturnConsumedCapacity};
use tokio::task::JoinSet;
use tokio::time::Instant;
use warmcast_common::aws::CallError;
use warmcast_common::clock::now_ms;
use warmcast_common::retry::Class;
use warmcast_proto::key::{ItemKey, split_composite};
use warmcast_proto::key_text::{KeyKind, KeyPart, KeyShape};

use super::lines::{KeyFile, KeyLines, LinesError};
use super::page::{Page, read};
use super::place::At;

/// AWS: BatchGetItem, 100 items.
const BATCH_KEYS_MAX: usize = 100;

/// A key as a call has it.
type Key = HashMap<String, Attribute>;

/// The keys of a file that are still to be done.
pub(super) struct KeyList {
    pub(super) client: Client,
    pub(super) table: String,
    pub(super) shape: KeyShape,
    pub(super) file: KeyFile,
    reader: Option<KeyLines>,
    /// Lines whose keys are all done.
    done: u64,
    /// Keys of the lines behind these.
    pending: Vec<Key>,
    /// Keys that the last page has.
    asked: Vec<Key>,
}

impl KeyList {
    pub(super) fn new(client: Client, table: &str, shape: KeyShape, file: KeyFile, at: &At) -> Self {
        let done = if let At::Line(line) = at { *line } else { 0 };
        let (reader, pending, asked) = (None, Vec::new(), Vec::new());
        Self { client, table: table.to_owned(), shape, file, reader, done, pending, asked }
    }

    /// The page of the keys that are next, at most so many. None: there are no more. The same again until it is
    /// [`accept`](Self::accept)ed.
    pub(super) async fn page(&mut self, rows_max: usize) -> Result<Option<Page>, anyhow::Error> {
        if self.pending.is_empty() {
            self.fill().await?;
        }
        let asked = self.pending.get(..rows_max.min(self.pending.len())).unwrap_or_default().to_vec();
        if asked.is_empty() {
            return Ok(None);
        }
        let (page, processed) = read(|| self.get(&asked)).await?;
        self.asked = processed;
        Ok(Some(page))
    }

    /// The last page is done; where it goes on.
    pub(super) fn accept(&mut self) -> At {
        let asked = std::mem::take(&mut self.asked);
        self.pending.retain(|key| !asked.contains(key));
        if self.pending.is_empty() {
            self.done = self.reader.as_ref().map_or(self.done, KeyLines::line);
        }
        At::Line(self.done)
    }

    /// Reads the next keys of the file, each once: a call with a key twice is refused.
    async fn fill(&mut self) -> Result<(), anyhow::Error> {
        let (reader, file, shape, after) =
            (self.reader.take(), self.file.clone(), self.shape.clone(), self.done);
        let mut blocking = JoinSet::new();
        blocking.spawn_blocking(move || {
            let mut reader = match reader {
                Some(reader) => reader,
                None => KeyLines::open(&file, &shape, after)?,
            };
            let (mut known, mut keys) = (HashSet::new(), Vec::new());
            while keys.len() < BATCH_KEYS_MAX
                && let Some(key) = reader.next_key()?
            {
                if known.insert(key.as_bytes().to_vec()) {
                    keys.push(key);
                }
            }
            Ok::<_, LinesError>((reader, keys))
        });
        let read = blocking.join_next().await.context("the reader of the file was not started")?;
        let (reader, keys) = read.context("the reader of the file")??;
        self.reader = Some(reader);
        self.pending = keys.iter().map(|key| attributes(&self.shape, key)).collect();
        Ok(())
    }

    /// One call: what it found, and the keys that it is about.
    async fn get(&self, asked: &[Key]) -> Result<(Page, Vec<Key>), CallError> {
        let target = || format!("table {}", self.table);
        let keys = KeysAndAttributes::builder().consistent_read(true).set_keys(Some(asked.to_vec()));
        let (began, read_ms) = (Instant::now(), now_ms());
        let get = self
            .client
            .batch_get_item()
            .set_request_items(keys.build().ok().map(|keys| HashMap::from([(self.table.clone(), keys)])));
        let answer = get.return_consumed_capacity(ReturnConsumedCapacity::Total).send().await;
        let answer = answer.map_err(|error| CallError::new("BatchGetItem", target(), error))?;
        let unprocessed = answer.unprocessed_keys.unwrap_or_default().remove(&self.table);
        let unprocessed = unprocessed.map(|keys| keys.keys).unwrap_or_default();
        let processed: Vec<Key> = asked.iter().filter(|key| !unprocessed.contains(key)).cloned().collect();
        if processed.is_empty() {
            return Err(CallError {
                operation: "BatchGetItem",
                target: target(),
                class: Class::Throttled,
                code: None,
                message: "no key was processed".to_owned(),
            });
        }
        let rows = answer.responses.unwrap_or_default().remove(&self.table).unwrap_or_default();
        let absent = processed.len().saturating_sub(rows.len()) as u64;
        let used = answer.consumed_capacity.unwrap_or_default();
        let units = used.iter().filter_map(|used| used.capacity_units).sum();
        Ok((Page { rows, absent, read_ms, began, units, next: At::Line(self.done) }, processed))
    }
}

/// The key attributes of a key of this shape.
fn attributes(shape: &KeyShape, key: &ItemKey) -> Key {
    let value = |part: &KeyPart, bytes: &[u8]| {
        let text = || String::from_utf8_lossy(bytes).into_owned();
        let value = match part.kind {
            KeyKind::Text => Attribute::S(text()),
            KeyKind::Number => Attribute::N(text()),
            KeyKind::Binary => Attribute::B(Blob::new(bytes)),
        };
        (part.name.clone(), value)
    };
    match (&shape.sort, split_composite(key.as_bytes())) {
        (Some(sort), Ok((partition, bytes))) => {
            [value(&shape.partition, &partition), value(sort, bytes)].into()
        }
        _ => [value(&shape.partition, key.as_bytes())].into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_becomes_its_attributes() {
        let part = |name: &str, kind| KeyPart { name: name.to_owned(), kind };
        let simple = KeyShape { partition: part("id", KeyKind::Binary), sort: None };
        let key = simple.parse("/w==").unwrap();
        assert_eq!(attributes(&simple, &key), [("id".to_owned(), Attribute::B(Blob::new(b"\xff")))].into());
        let both = KeyShape { partition: part("id", KeyKind::Text), sort: Some(part("at", KeyKind::Number)) };
        let key = both.parse(r#"{"id":{"S":"a:b%"},"at":{"N":"-5"}}"#).unwrap();
        let expected = [
            ("id".to_owned(), Attribute::S("a:b%".to_owned())),
            ("at".to_owned(), Attribute::N("-5".to_owned())),
        ];
        assert_eq!(attributes(&both, &key), expected.into());
    }
}
