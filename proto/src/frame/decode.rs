//! Reading frames.
//!
//! Nothing is trusted: the checksum comes before inflation, inflation has a bound, and the body is walked
//! change by change, so that one bad change leaves its neighbours readable.

use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use prost::{
    DecodeError, Message as _,
    encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field},
};

use super::{
    FRAME_CHANGES_MAX, FRAME_TABLES_MAX, FrameHeader, HEADER_LEN, MAGIC, StoredCompression, VERSION, checksum,
};
use crate::{
    change::{Change, ChangeKind},
    generated,
    position::{Position, PositionError},
    sequence::{Sequence, SequenceError},
    trace::TraceContext,
};

/// What a frame says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Heartbeats have it: every change of any table with a `created_ms` below this (milliseconds since the Unix
    /// epoch) was put into the Kinesis stream before this frame's record.
    pub watermark_ms: Option<u64>,
    /// When the first of the changes was asked for, by the clock of the frame's writer: milliseconds since the Unix
    /// epoch.
    pub read_ms: Option<u64>,
    /// What it is part of, if it was sampled for tracing.
    pub trace: Option<TraceContext>,
    /// The changes, in their order. One that cannot be read is an error in its own place.
    pub changes: Vec<Result<Change, ChangeError>>,
}

/// Why bytes are not a frame. No change can be read from it: set the record aside.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Shorter than a header.
    #[error("frame has {len} bytes, fewer than the {HEADER_LEN} of its header")]
    Truncated {
        /// Bytes given.
        len: usize,
    },
    /// Not a frame: something else writes to the stream.
    #[error("frame starts with {magic:02x?}, not with {MAGIC:02x?}")]
    BadMagic {
        /// The first four bytes.
        magic: [u8; 4],
    },
    /// Written by a newer version: upgrade the readers before the writers.
    #[error("frame has version {version}, this reader knows {VERSION}: upgrade it")]
    UnsupportedVersion {
        /// The version given.
        version: u8,
    },
    /// Written by a newer version, or damaged.
    #[error("frame has unknown compression {compression}")]
    UnknownCompression {
        /// The compression given.
        compression: u8,
    },
    /// Written by a newer version, or damaged.
    #[error("frame has {reserved:#06x} in its reserved bytes, which this reader does not know")]
    Reserved {
        /// The reserved bytes.
        reserved: u16,
    },
    /// The body is larger than the reader allows; nothing was inflated.
    #[error("frame body has {body_len} bytes, above the reader's {body_bytes_max}")]
    BodyTooLarge {
        /// The length that the header announces.
        body_len: u32,
        /// The reader's bound.
        body_bytes_max: usize,
    },
    /// Damaged or cut off.
    #[error("frame has checksum {actual:#010x}, its header says {expected:#010x}")]
    ChecksumMismatch {
        /// What the header says.
        expected: u32,
        /// What the bytes give.
        actual: u32,
    },
    /// The stored body is not what its compression makes, or it inflates beyond the announced length.
    #[error("inflate a frame body of {body_len} bytes: {reason}")]
    Inflate {
        /// The length that the header announces.
        body_len: u32,
        /// What the decompressor says.
        reason: String,
    },
    /// The body has another length than announced.
    #[error("frame body has {actual} bytes, its header says {body_len}")]
    BodyLength {
        /// The length that the header announces.
        body_len: u32,
        /// The length it has.
        actual: usize,
    },
    /// The body is not a `FrameBody`.
    #[error("decode a frame body: {0}")]
    Protobuf(#[from] DecodeError),
    /// A field of the body says that it is longer than what is left of the body.
    #[error("decode a frame body: a field of {len} bytes where {remaining} bytes are left")]
    FieldBeyondBody {
        /// The field's length.
        len: u64,
        /// Bytes left in the body.
        remaining: usize,
    },
    /// A table's name is not UTF-8.
    #[error("frame table {index} has a name that is not UTF-8")]
    TableName {
        /// Index of the table.
        index: usize,
    },
    /// More changes than [`FRAME_CHANGES_MAX`], or more tables than [`FRAME_TABLES_MAX`].
    #[error("frame has more than {FRAME_CHANGES_MAX} changes or {FRAME_TABLES_MAX} tables")]
    TooMany,
}

/// One change of a frame cannot be read; its neighbours can.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("change {index} of the frame: {reason}")]
pub struct ChangeError {
    /// Index of the change in its frame.
    pub index: usize,
    /// What is wrong with it.
    pub reason: ChangeErrorReason,
    /// What is left of it.
    pub remains: Box<Remains>,
}

/// What is left of a change that cannot be read: its bytes, and what can be read of whose they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remains {
    /// The change as the frame has it: a `Change` of the schema. [`decode_change`] reads it with its table's name.
    pub content: Bytes,
    /// Its table's name, if the frame has it.
    pub table: Option<Arc<str>>,
    /// Its key.
    pub key: Option<Bytes>,
    /// Its position, if that is a position.
    pub position: Option<Position>,
    /// When it was made, in milliseconds since the Unix epoch; 0 if that cannot be read.
    pub created_ms: u64,
}

impl Remains {
    /// What can still be said of the change: the state of its key is not known. `None` where the key or the position
    /// is not known either.
    #[must_use]
    pub fn invalidation(&self) -> Option<Change> {
        Some(Change {
            table: self.table.clone()?,
            key: self.key.clone()?,
            position: self.position?,
            kind: ChangeKind::Invalidate,
            created_ms: self.created_ms,
            payload: Bytes::new(),
        })
    }
}

/// What is wrong with a change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeErrorReason {
    /// The bytes are not a `Change`.
    #[error(transparent)]
    Protobuf(#[from] DecodeError),
    /// A kind that this reader does not know, or none.
    #[error("unknown kind {kind}")]
    UnknownKind {
        /// The kind's number.
        kind: i32,
    },
    /// The frame has no such table.
    #[error("table index {table} is not below {tables}, the number of tables")]
    TableIndex {
        /// The index given.
        table: u32,
        /// The number of tables in the frame.
        tables: usize,
    },
    /// The sequence number has more than 17 bytes, a leading zero byte, or is above 10^40 - 1.
    #[error(transparent)]
    Sequence(#[from] SequenceError),
    /// The generation does not fit.
    #[error(transparent)]
    Position(#[from] PositionError),
}

/// Reads a frame. Inflating takes at most `body_bytes_max` bytes; keys and payloads share the inflated body.
///
/// # Errors
/// The bytes are not a whole, undamaged frame within the bound. A change that cannot be read is an error in
/// its own place.
pub fn decode(frame: Bytes, body_bytes_max: usize) -> Result<Frame, FrameError> {
    let header = FrameHeader::peek(&frame)?;
    let mut stored_body = frame;
    stored_body.advance(HEADER_LEN);
    let checked_bytes = FrameHeader::checked_bytes(header.compression, header.body_len);
    let actual = checksum(&checked_bytes, &stored_body);
    if actual != header.checksum {
        return Err(FrameError::ChecksumMismatch { expected: header.checksum, actual });
    }
    let body = inflate(stored_body, header, body_bytes_max)?;
    let fields = split(body)?;
    let decode_at = |(index, content): (usize, Bytes)| {
        let change = read_change(content.clone(), |index| table_at(&fields.tables, index));
        change.map_err(|reason| ChangeError {
            index,
            reason,
            remains: Box::new(remains(content, &fields.tables)),
        })
    };
    let changes = fields.changes.into_iter().enumerate().map(decode_at).collect();
    Ok(Frame { watermark_ms: fields.watermark_ms, read_ms: fields.read_ms, trace: fields.trace, changes })
}

fn inflate(stored_body: Bytes, header: FrameHeader, body_bytes_max: usize) -> Result<Bytes, FrameError> {
    let FrameHeader { body_len, compression, .. } = header;
    let len = match usize::try_from(body_len) {
        Ok(len) if len <= body_bytes_max => len,
        _ => return Err(FrameError::BodyTooLarge { body_len, body_bytes_max }),
    };
    // Both decompressors stop with an error at the end of the slice they write to.
    let (body, actual) = match compression {
        StoredCompression::None => {
            let actual = stored_body.len();
            (stored_body, actual)
        }
        StoredCompression::Zstd => {
            let mut body = vec![0; len];
            let actual = zstd::bulk::decompress_to_buffer(&stored_body, body.as_mut_slice())
                .map_err(|error| FrameError::Inflate { body_len, reason: error.to_string() })?;
            (body.into(), actual)
        }
        StoredCompression::Lz4 => {
            let mut body = vec![0; len];
            let actual = lz4_flex::block::decompress_into(&stored_body, &mut body)
                .map_err(|error| FrameError::Inflate { body_len, reason: error.to_string() })?;
            (body.into(), actual)
        }
    };
    if actual == len { Ok(body) } else { Err(FrameError::BodyLength { body_len, actual }) }
}

struct Fields {
    tables: Vec<Arc<str>>,
    changes: Vec<Bytes>,
    watermark_ms: Option<u64>,
    read_ms: Option<u64>,
    trace: Option<TraceContext>,
}

/// Splits a body into its fields, the changes still encoded. Unknown fields are skipped, as protobuf wants it.
fn split(mut body: Bytes) -> Result<Fields, FrameError> {
    let mut fields =
        Fields { tables: Vec::new(), changes: Vec::new(), watermark_ms: None, read_ms: None, trace: None };
    while body.has_remaining() {
        let (tag, wire_type) = decode_key(&mut body)?;
        match (tag, wire_type) {
            (1, WireType::LengthDelimited) => {
                let index = fields.tables.len();
                let name = take_delimited(&mut body)?;
                let name = str::from_utf8(&name).map_err(|_| FrameError::TableName { index })?;
                fields.tables.push(name.into());
            }
            (2, WireType::LengthDelimited) => fields.changes.push(take_delimited(&mut body)?),
            // Of a field that is there more than once the last counts, as protobuf wants it; 0 is none.
            (3, WireType::Varint) => {
                fields.watermark_ms = Some(decode_varint(&mut body)?).filter(|&at_ms| at_ms > 0);
            }
            (4, WireType::Varint) => {
                fields.read_ms = Some(decode_varint(&mut body)?).filter(|&at_ms| at_ms > 0);
            }
            (5, WireType::LengthDelimited) => {
                fields.trace = TraceContext::from_bytes(&take_delimited(&mut body)?);
            }
            _ => skip_field(wire_type, tag, &mut body, DecodeContext::default())?,
        }
        if fields.changes.len() > FRAME_CHANGES_MAX || fields.tables.len() > FRAME_TABLES_MAX {
            return Err(FrameError::TooMany);
        }
    }
    Ok(fields)
}

fn take_delimited(body: &mut Bytes) -> Result<Bytes, FrameError> {
    let len = decode_varint(body)?;
    match usize::try_from(len) {
        Ok(len) if len <= body.len() => Ok(body.split_to(len)),
        _ => Err(FrameError::FieldBeyondBody { len, remaining: body.len() }),
    }
}

/// Reads a change that stands alone, as [`super::encode_change`] and [`Remains::content`] have it. It is a change of this
/// table, whatever number its frame had for it.
///
/// # Errors
/// The bytes are not a change that this version can read.
pub fn decode_change(content: Bytes, table: &Arc<str>) -> Result<Change, ChangeErrorReason> {
    read_change(content, |_| Ok(Arc::clone(table)))
}

fn read_change(
    content: Bytes,
    table_at: impl FnOnce(u32) -> Result<Arc<str>, ChangeErrorReason>,
) -> Result<Change, ChangeErrorReason> {
    let wire = generated::Change::decode(content)?;
    let kind = match wire.kind() {
        generated::Kind::Put => ChangeKind::Put,
        generated::Kind::Delete => ChangeKind::Delete,
        generated::Kind::Expire => ChangeKind::Expire,
        generated::Kind::Invalidate => ChangeKind::Invalidate,
        generated::Kind::Backfill => ChangeKind::Backfill,
        // What the enum does not know reads as unspecified.
        generated::Kind::Unspecified => return Err(ChangeErrorReason::UnknownKind { kind: wire.kind }),
    };
    let table = table_at(wire.table)?;
    let position = Position::new(wire.generation, Sequence::from_be_bytes(&wire.sequence)?)?;
    Ok(Change { table, key: wire.key, position, kind, created_ms: wire.created_ms, payload: wire.payload })
}

fn table_at(tables: &[Arc<str>], index: u32) -> Result<Arc<str>, ChangeErrorReason> {
    let found = usize::try_from(index).ok().and_then(|index| tables.get(index));
    found.cloned().ok_or(ChangeErrorReason::TableIndex { table: index, tables: tables.len() })
}

/// What can be told of a bad change: nothing unless its bytes are fields to their end, because what was cut off may
/// have been the key's last byte.
fn remains(content: Bytes, tables: &[Arc<str>]) -> Remains {
    let mut remains = Remains { content: content.clone(), ..Remains::default() };
    if let Ok(fields) = ChangeFields::split(content) {
        remains.table = u32::try_from(fields.table).ok().and_then(|index| table_at(tables, index).ok());
        let sequence = Sequence::from_be_bytes(&fields.sequence).ok();
        let generation = u32::try_from(fields.generation).ok();
        remains.position = generation.zip(sequence).and_then(|(g, s)| Position::new(g, s).ok());
        remains.created_ms = fields.created_ms;
        remains.key = fields.key;
    }
    remains
}

/// The fields that say whose change it is. One that is there in another form than the schema's is passed over.
#[derive(Default)]
struct ChangeFields {
    table: u64,
    key: Option<Bytes>,
    generation: u64,
    sequence: Bytes,
    created_ms: u64,
}

impl ChangeFields {
    fn split(mut content: Bytes) -> Result<Self, FrameError> {
        let mut fields = Self::default();
        while content.has_remaining() {
            match decode_key(&mut content)? {
                (1, WireType::Varint) => fields.table = decode_varint(&mut content)?,
                (2, WireType::LengthDelimited) => fields.key = Some(take_delimited(&mut content)?),
                (3, WireType::Varint) => fields.generation = decode_varint(&mut content)?,
                (4, WireType::LengthDelimited) => fields.sequence = take_delimited(&mut content)?,
                (6, WireType::Varint) => fields.created_ms = decode_varint(&mut content)?,
                (tag, wire_type) => skip_field(wire_type, tag, &mut content, DecodeContext::default())?,
            }
        }
        Ok(fields)
    }
}
