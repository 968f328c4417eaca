//! A body that is laid out by columns: the keys together, the sequence numbers as differences, and the values of each
//! attribute, at every depth, together. An experiment: only its length is of interest, and nothing reads it.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::encoding::encode_varint;
use warmcast_proto::frame;
use warmcast_proto::item::{self, AttributeValue, Value};

use super::BytesBenchError;
use crate::world::KEY_ATTRIBUTE;

/// What decodes of a frame that was just made.
const BODY_BYTES_MAX: usize = 4 << 20;

/// The columns of an uncompressed frame, one after the other. The key attribute is left out: the key has it.
pub(super) fn transpose(frame: Bytes) -> Result<Vec<u8>, BytesBenchError> {
    let failed = |error: &dyn std::fmt::Display| BytesBenchError::Update(error.to_string());
    let mut columns = Columns::default();
    let mut last = 0_u128;
    for change in frame::decode(frame, BODY_BYTES_MAX).map_err(|error| failed(&error))?.changes {
        let change = change.map_err(|error| failed(&error))?;
        let sequence: u128 = change.position.sequence().to_string().parse().map_err(|e| failed(&e))?;
        columns.put("key", &change.key);
        // The first is whole and would take some bytes more: once for each frame.
        columns.number("sequence", u64::try_from(sequence - last).unwrap_or(u64::MAX));
        last = sequence;
        for (name, value) in item::decode(change.payload).map_err(|error| failed(&error))?.attributes {
            if name != KEY_ATTRIBUTE {
                columns.value(&format!("item.{name}"), value);
            }
        }
    }
    Ok(columns.0.into_iter().flat_map(|(name, column)| [name.into_bytes(), column]).flatten().collect())
}

#[derive(Default)]
struct Columns(BTreeMap<String, Vec<u8>>);

impl Columns {
    fn number(&mut self, name: &str, number: u64) {
        encode_varint(number, self.0.entry(name.to_owned()).or_default());
    }

    fn put(&mut self, name: &str, bytes: &[u8]) {
        self.number(name, bytes.len() as u64);
        self.0.entry(name.to_owned()).or_default().extend_from_slice(bytes);
    }

    fn value(&mut self, name: &str, value: AttributeValue) {
        match value.value {
            None => self.number(&format!("{name} unknown"), 0),
            Some(Value::S(text)) => self.put(&format!("{name} S"), text.as_bytes()),
            Some(Value::N(digits)) => self.put(&format!("{name} N"), digits.as_bytes()),
            Some(Value::B(bytes)) => self.put(&format!("{name} B"), &bytes),
            Some(Value::Bool(flag)) => self.number(&format!("{name} BOOL"), u64::from(flag)),
            Some(Value::Null(_)) => self.number(&format!("{name} NULL"), 1),
            Some(Value::L(list)) => {
                self.number(&format!("{name} L"), list.values.len() as u64);
                list.values.into_iter().for_each(|value| self.value(&format!("{name}[]"), value));
            }
            Some(Value::M(map)) => {
                self.number(&format!("{name} M"), map.attributes.len() as u64);
                for (key, value) in map.attributes {
                    self.put(&format!("{name} keys"), key.as_bytes());
                    self.value(&format!("{name}.*"), value);
                }
            }
            Some(Value::Ss(set)) => self.set(name, set.values.iter().map(String::as_bytes)),
            Some(Value::Ns(set)) => self.set(name, set.values.iter().map(String::as_bytes)),
            Some(Value::Bs(set)) => self.set(name, set.values.iter().map(AsRef::as_ref)),
        }
    }

    fn set<'a>(&mut self, name: &str, members: impl ExactSizeIterator<Item = &'a [u8]>) {
        self.number(&format!("{name} set"), members.len() as u64);
        members.for_each(|member| self.put(&format!("{name} members"), member));
    }
}
