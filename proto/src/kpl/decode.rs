//! Reading aggregated records. Nothing is trusted, the digest comes first, and user records share the record's bytes.

use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use md5::{Digest as _, Md5};
use prost::DecodeError;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use super::{DIGEST_LEN, KEYS_MAX, MAGIC, RECORD_BYTES_MAX, USER_RECORDS_MAX, is_aggregated};

/// One user record of an aggregated record. Its place in the list is what the KCL calls its sub-sequence number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserRecord {
    /// Its partition key.
    pub partition_key: Arc<str>,
    /// Its explicit hash key, if it has one: decimal text.
    pub explicit_hash_key: Option<Arc<str>>,
    /// What it carries.
    pub data: Bytes,
}

/// Why bytes are not an aggregated record. No user record can be had of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KplError {
    /// They do not begin with [`MAGIC`]: a record that is not aggregated.
    #[error("record does not begin with {MAGIC:02x?}: it is not aggregated")]
    NotAggregated,
    /// No room for a message and its digest.
    #[error("aggregated record has {len} bytes, too few for a message and its MD5")]
    Truncated {
        /// Bytes given.
        len: usize,
    },
    /// Longer than any Kinesis record.
    #[error("aggregated record has {len} bytes, above {RECORD_BYTES_MAX}")]
    TooLong {
        /// Bytes given.
        len: usize,
    },
    /// Damaged or cut off; or a user record by itself that happens to begin with [`MAGIC`].
    #[error("aggregated record of {len} bytes does not have the MD5 that it ends with")]
    ChecksumMismatch {
        /// Bytes given.
        len: usize,
    },
    /// The message is not protobuf.
    #[error("decode an aggregated record: {0}")]
    Protobuf(#[from] DecodeError),
    /// A field says that it is longer than what is left of its message.
    #[error("decode an aggregated record: a field of {len} bytes where {remaining} bytes are left")]
    FieldBeyondMessage {
        /// The field's length.
        len: u64,
        /// Bytes left.
        remaining: usize,
    },
    /// A key is not UTF-8.
    #[error("decode an aggregated record: a {table} key is not UTF-8")]
    KeyText {
        /// Which table it is in.
        table: &'static str,
    },
    /// A user record lacks a required field.
    #[error("user record {index} has no {field}")]
    Missing {
        /// Index of the user record.
        index: usize,
        /// The field.
        field: &'static str,
    },
    /// A user record points to a key that is not there.
    #[error("user record {index} has the {table} key number {key}, and there are {keys}")]
    KeyIndex {
        /// Index of the user record.
        index: usize,
        /// Which table it points to.
        table: &'static str,
        /// The number given.
        key: u64,
        /// How many keys the table has.
        keys: usize,
    },
    /// More user records than [`USER_RECORDS_MAX`], or more keys than [`KEYS_MAX`].
    #[error("aggregated record has more than {USER_RECORDS_MAX} user records or {KEYS_MAX} keys")]
    TooMany,
}

/// Takes an aggregated record apart.
///
/// # Errors
/// The bytes are not a whole, undamaged aggregated record.
pub fn decode(record: Bytes) -> Result<Vec<UserRecord>, KplError> {
    let len = record.len();
    if !is_aggregated(&record) {
        return Err(KplError::NotAggregated);
    }
    // AWS' own readers take a record without a message for one that is not aggregated.
    if len <= MAGIC.len() + DIGEST_LEN {
        return Err(KplError::Truncated { len });
    }
    if len > RECORD_BYTES_MAX {
        return Err(KplError::TooLong { len });
    }
    let mut message = record;
    message.advance(MAGIC.len());
    let digest = message.split_off(message.len() - DIGEST_LEN);
    if Md5::digest(&message).as_slice() != digest.as_ref() {
        return Err(KplError::ChecksumMismatch { len });
    }
    Message::split(message)?.user_records()
}

/// The fields of the message. Tables may come after the records that point to them.
#[derive(Default)]
struct Message {
    partition_keys: Vec<Arc<str>>,
    explicit_hash_keys: Vec<Arc<str>>,
    records: Vec<Record>,
}

#[derive(Default)]
struct Record {
    partition_key: Option<u64>,
    explicit_hash_key: Option<u64>,
    data: Option<Bytes>,
}

impl Message {
    fn split(mut message: Bytes) -> Result<Self, KplError> {
        let mut fields = Self::default();
        while message.has_remaining() {
            match decode_key(&mut message)? {
                (1, WireType::LengthDelimited) => {
                    fields.partition_keys.push(key_text("partition", &take_delimited(&mut message)?)?);
                }
                (2, WireType::LengthDelimited) => {
                    fields
                        .explicit_hash_keys
                        .push(key_text("explicit hash", &take_delimited(&mut message)?)?);
                }
                (3, WireType::LengthDelimited) => {
                    fields.records.push(Record::read(take_delimited(&mut message)?)?);
                }
                (tag, wire_type) => skip_field(wire_type, tag, &mut message, DecodeContext::default())?,
            }
            let keys = fields.partition_keys.len().max(fields.explicit_hash_keys.len());
            if keys > KEYS_MAX || fields.records.len() > USER_RECORDS_MAX {
                return Err(KplError::TooMany);
            }
        }
        Ok(fields)
    }

    fn user_records(self) -> Result<Vec<UserRecord>, KplError> {
        let Self { partition_keys, explicit_hash_keys, records } = self;
        let resolve = |(index, record): (usize, Record)| {
            let missing = |field| KplError::Missing { index, field };
            let partition_key = record.partition_key.ok_or_else(|| missing("partition key"))?;
            let explicit = record.explicit_hash_key;
            Ok(UserRecord {
                partition_key: key_at(&partition_keys, partition_key, index, "partition")?,
                explicit_hash_key: explicit
                    .map(|key| key_at(&explicit_hash_keys, key, index, "explicit hash"))
                    .transpose()?,
                data: record.data.ok_or_else(|| missing("data"))?,
            })
        };
        records.into_iter().enumerate().map(resolve).collect()
    }
}

impl Record {
    /// Of a field that is there more than once the last counts, as protobuf wants it.
    fn read(mut content: Bytes) -> Result<Self, KplError> {
        let mut record = Self::default();
        while content.has_remaining() {
            match decode_key(&mut content)? {
                (1, WireType::Varint) => record.partition_key = Some(decode_varint(&mut content)?),
                (2, WireType::Varint) => record.explicit_hash_key = Some(decode_varint(&mut content)?),
                (3, WireType::LengthDelimited) => record.data = Some(take_delimited(&mut content)?),
                (tag, wire_type) => skip_field(wire_type, tag, &mut content, DecodeContext::default())?,
            }
        }
        Ok(record)
    }
}

fn key_text(table: &'static str, bytes: &[u8]) -> Result<Arc<str>, KplError> {
    str::from_utf8(bytes).map(Arc::from).map_err(|_| KplError::KeyText { table })
}

fn key_at(keys: &[Arc<str>], key: u64, index: usize, table: &'static str) -> Result<Arc<str>, KplError> {
    let found = usize::try_from(key).ok().and_then(|key| keys.get(key));
    found.cloned().ok_or(KplError::KeyIndex { index, table, key, keys: keys.len() })
}

fn take_delimited(message: &mut Bytes) -> Result<Bytes, KplError> {
    let len = decode_varint(message)?;
    match usize::try_from(len) {
        Ok(len) if len <= message.len() => Ok(message.split_to(len)),
        _ => Err(KplError::FieldBeyondMessage { len, remaining: message.len() }),
    }
}
