//! The aggregation format of the Kinesis Producer Library: many user records in one Kinesis record.
//!
//! Consumers that use the Kinesis Client Library, and Lambda functions with one of AWS' deaggregation modules, take such
//! a record apart by themselves. The format (awslabs/amazon-kinesis-producer, `aggregation-format.md`):
//!
//! | bytes | what |
//! |---|---|
//! | 0..4 | magic `F3 89 9A C2` |
//! | 4..n-16 | a protobuf message (proto2) `AggregatedRecord`, never compressed |
//! | n-16..n | MD5 of the message |
//!
//! ```text
//! message AggregatedRecord {
//!   repeated string partition_key_table     = 1;
//!   repeated string explicit_hash_key_table = 2;
//!   repeated Record records                 = 3;
//! }
//! message Record {
//!   required uint64 partition_key_index     = 1;   // index into the table
//!   optional uint64 explicit_hash_key_index = 2;
//!   required bytes  data                    = 3;
//!   repeated Tag    tags                    = 4;   // in no API of the KPL or the KCL: not written, passed over
//! }
//! ```
//!
//! A record with the magic and a wrong MD5 is for the KCL a user record that happens to begin so. Here it is an error of
//! its own, [`KplError::ChecksumMismatch`]: nothing that belongs into our streams begins so, and what was damaged must
//! not be taken for something else. The KCL throws an aggregated record away, whole and without a word, if the hash key
//! of any of its user records is outside of the shard that it was read from (`AggregatorUtil.deaggregate`): give all of
//! them the explicit hash key of the Kinesis record.

mod build;
mod decode;

pub use build::AggregateBuilder;
pub use decode::{KplError, UserRecord, decode};

/// The first four bytes of every aggregated record.
pub const MAGIC: [u8; 4] = [0xF3, 0x89, 0x9A, 0xC2];

/// The length of the MD5 at the end.
pub const DIGEST_LEN: usize = 16;

/// The longest record that is read (AWS: Kinesis Data Streams quotas, 10 MiB where a stream allows that).
pub const RECORD_BYTES_MAX: usize = 10 << 20;

/// The most user records of one record, written or read. An empty one takes six bytes; without the bound reading could
/// take fifty times the record's memory.
pub const USER_RECORDS_MAX: usize = 1 << 16;

/// The most keys in either table, for the same reason.
pub const KEYS_MAX: usize = 1 << 16;

/// Whether these bytes say of themselves that they are an aggregated record.
#[must_use]
pub fn is_aggregated(record: &[u8]) -> bool {
    record.starts_with(&MAGIC)
}

#[cfg(test)]
mod tests;
