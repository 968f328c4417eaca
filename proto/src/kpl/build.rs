//! Writing aggregated records.
//!
//! Elements of the message's repeated fields may be written in any order, so each user record goes straight into the
//! buffer, after its keys if they are new; and the record's length is always known exactly.

use std::collections::HashMap;

use bytes::{BufMut as _, Bytes};
use md5::{Digest as _, Md5};
use prost::encoding::{encode_varint, encoded_len_varint};

use super::{DIGEST_LEN, KEYS_MAX, MAGIC, USER_RECORDS_MAX};

// Keys of the wire format: field number times 8, plus 0 for a varint or 2 for length-delimited.
const PARTITION_KEYS: u8 = 1 << 3 | 2;
const EXPLICIT_HASH_KEYS: u8 = 2 << 3 | 2;
const RECORDS: u8 = 3 << 3 | 2;
const PARTITION_KEY_INDEX: u8 = 1 << 3;
const EXPLICIT_HASH_KEY_INDEX: u8 = 2 << 3;
const DATA: u8 = 3 << 3 | 2;

/// Collects user records into one Kinesis record. Finishing leaves it empty.
#[derive(Debug)]
pub struct AggregateBuilder {
    bytes_max: usize,
    /// The magic and the message so far.
    record: Vec<u8>,
    partition_keys: KeyTable,
    explicit_hash_keys: KeyTable,
    user_records: usize,
}

impl AggregateBuilder {
    /// An empty one, for records of at most so many bytes, magic and MD5 included.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            record: MAGIC.to_vec(),
            partition_keys: KeyTable::new(PARTITION_KEYS),
            explicit_hash_keys: KeyTable::new(EXPLICIT_HASH_KEYS),
            user_records: 0,
        }
    }

    /// How many user records were pushed since the last record.
    #[must_use]
    pub fn user_records(&self) -> usize {
        self.user_records
    }

    /// The exact length that the record would have with this user record pushed.
    #[must_use]
    pub fn len_with(&self, partition_key: &str, explicit_hash_key: Option<&str>, data_len: usize) -> usize {
        let partition = self.partition_keys.place(partition_key);
        let explicit = explicit_hash_key.map(|key| self.explicit_hash_keys.place(key));
        let content = content_len(partition.index, explicit.as_ref().map(|place| place.index), data_len);
        let keys = partition.added_len + explicit.map_or(0, |place| place.added_len);
        self.record.len() + keys + delimited_len(content) + DIGEST_LEN
    }

    /// Adds a user record if it fits; whether it does. One that does not fit an empty record fits none.
    #[must_use = "it may not have been added"]
    pub fn push(&mut self, partition_key: &str, explicit_hash_key: Option<&str>, data: &[u8]) -> bool {
        let has_room = self.user_records < USER_RECORDS_MAX
            && self.partition_keys.has_room()
            && self.explicit_hash_keys.has_room();
        if !has_room || self.len_with(partition_key, explicit_hash_key, data.len()) > self.bytes_max {
            return false;
        }
        let partition = self.partition_keys.add(partition_key, &mut self.record);
        let explicit = explicit_hash_key.map(|key| self.explicit_hash_keys.add(key, &mut self.record));
        put_len(&mut self.record, RECORDS, content_len(partition, explicit, data.len()));
        // Required, and written also when it is 0: this is proto2.
        put_varint(&mut self.record, PARTITION_KEY_INDEX, partition);
        if let Some(explicit) = explicit {
            put_varint(&mut self.record, EXPLICIT_HASH_KEY_INDEX, explicit);
        }
        put_len(&mut self.record, DATA, data.len());
        self.record.put_slice(data);
        self.user_records += 1;
        true
    }

    /// Makes the record of what was pushed, if anything was, and leaves the builder empty.
    pub fn finish(&mut self) -> Option<Bytes> {
        if self.user_records == 0 {
            return None;
        }
        let mut record = std::mem::replace(&mut self.record, MAGIC.to_vec());
        let digest = Md5::digest(record.get(MAGIC.len()..).unwrap_or_default());
        record.extend_from_slice(&digest);
        self.partition_keys.clear();
        self.explicit_hash_keys.clear();
        self.user_records = 0;
        Some(record.into())
    }
}

/// The keys of one table that were written, by their index.
#[derive(Debug)]
struct KeyTable {
    field: u8,
    keys: HashMap<Box<str>, usize>,
}

/// Where a key stands in its table, or would.
struct Place {
    index: usize,
    /// What adding it takes; nothing if it is there.
    added_len: usize,
}

impl KeyTable {
    fn new(field: u8) -> Self {
        Self { field, keys: HashMap::new() }
    }

    fn has_room(&self) -> bool {
        self.keys.len() < KEYS_MAX
    }

    fn place(&self, key: &str) -> Place {
        match self.keys.get(key) {
            Some(&index) => Place { index, added_len: 0 },
            None => Place { index: self.keys.len(), added_len: delimited_len(key.len()) },
        }
    }

    fn add(&mut self, key: &str, record: &mut Vec<u8>) -> usize {
        let Place { index, added_len } = self.place(key);
        if added_len > 0 {
            put_len(record, self.field, key.len());
            record.put_slice(key.as_bytes());
            self.keys.insert(key.into(), index);
        }
        index
    }

    fn clear(&mut self) {
        self.keys.clear();
    }
}

fn content_len(partition: usize, explicit: Option<usize>, data_len: usize) -> usize {
    varint_len(partition) + explicit.map_or(0, varint_len) + delimited_len(data_len)
}

fn varint_len(value: usize) -> usize {
    1 + encoded_len_varint(value as u64)
}

fn delimited_len(len: usize) -> usize {
    varint_len(len) + len
}

fn put_varint(record: &mut Vec<u8>, field: u8, value: usize) {
    record.put_u8(field);
    encode_varint(value as u64, record);
}

fn put_len(record: &mut Vec<u8>, field: u8, len: usize) {
    put_varint(record, field, len);
}
