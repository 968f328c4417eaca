//! Building frames.
//!
//! A protobuf message may be written field by field, and a repeated field element by element: so each change
//! goes straight into the body's buffer, and the body's length is always known exactly.

use std::sync::Arc;

use bytes::{BufMut as _, Bytes};
use prost::encoding::{encode_varint, encoded_len_varint};

use super::{
    Compression, FRAME_BODY_BYTES_MAX, FRAME_CHANGES_MAX, FRAME_TABLES_MAX, FrameHeader, HEADER_LEN,
    StoredCompression, checksum,
};
use crate::{
    change::{Change, ChangeKind},
    generated,
    trace::TraceContext,
};

// Keys of the wire format: field number times 8, plus 0 for a varint or 2 for length-delimited.
// The schema's tests hold them against the generated types.
const BODY_TABLES: u8 = 1 << 3 | 2;
const BODY_CHANGES: u8 = 2 << 3 | 2;
const BODY_WATERMARK_MS: u8 = 3 << 3;
const BODY_READ_MS: u8 = 4 << 3;
const BODY_TRACE_CONTEXT: u8 = 5 << 3 | 2;
const CHANGE_TABLE: u8 = 1 << 3;
const CHANGE_KEY: u8 = 2 << 3 | 2;
const CHANGE_GENERATION: u8 = 3 << 3;
const CHANGE_SEQUENCE: u8 = 4 << 3 | 2;
const CHANGE_KIND: u8 = 5 << 3;
const CHANGE_CREATED_MS: u8 = 6 << 3;
const CHANGE_PAYLOAD: u8 = 7 << 3 | 2;

/// Why a frame could not be finished. Its changes are gone from the builder; whoever holds their acks replays.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The body is above [`FRAME_BODY_BYTES_MAX`]: close frames earlier, see [`FrameBuilder::len_with`].
    #[error("frame body has {len} bytes, above {FRAME_BODY_BYTES_MAX}")]
    BodyTooLarge {
        /// The body's length.
        len: usize,
    },
    /// More changes than [`FRAME_CHANGES_MAX`].
    #[error("frame has {changes} changes, above {FRAME_CHANGES_MAX}")]
    TooManyChanges {
        /// The number of changes.
        changes: usize,
    },
    /// More tables than [`FRAME_TABLES_MAX`].
    #[error("frame has {tables} tables, above {FRAME_TABLES_MAX}")]
    TooManyTables {
        /// The number of tables.
        tables: usize,
    },
    /// The compressor failed.
    #[error("compress a frame body of {len} bytes: {reason}")]
    Compress {
        /// The body's length.
        len: usize,
        /// What the compressor says.
        reason: String,
    },
}

/// Compresses bodies. Meant to be kept and shared by many builders: zstd's working memory is large.
pub struct Compressor {
    kind: Kind,
    compressed: Vec<u8>,
}

enum Kind {
    None,
    Zstd(Box<zstd::bulk::Compressor<'static>>),
    Lz4,
}

impl Compressor {
    /// A compressor of this kind.
    ///
    /// # Errors
    /// zstd could not be set up, for want of memory or because of its level.
    pub fn new(compression: Compression) -> Result<Self, BuildError> {
        let kind = match compression {
            Compression::None => Kind::None,
            Compression::Lz4 => Kind::Lz4,
            Compression::Zstd { level } => {
                let made = zstd::bulk::Compressor::new(level);
                Kind::Zstd(Box::new(
                    made.map_err(|e| BuildError::Compress { len: 0, reason: e.to_string() })?,
                ))
            }
        };
        Ok(Self { kind, compressed: Vec::new() })
    }

    /// The body as it is to be stored, and how: as it is when that is not longer.
    fn compress<'a>(&'a mut self, body: &'a [u8]) -> Result<(StoredCompression, &'a [u8]), BuildError> {
        let len = body.len();
        let failed = |reason: String| BuildError::Compress { len, reason };
        self.compressed.clear();
        let stored = match &mut self.kind {
            Kind::None => return Ok((StoredCompression::None, body)),
            Kind::Zstd(zstd) => {
                self.compressed.reserve(zstd::zstd_safe::compress_bound(len));
                zstd.compress_to_buffer(body, &mut self.compressed)
                    .map_err(|error| failed(error.to_string()))?;
                StoredCompression::Zstd
            }
            Kind::Lz4 => {
                self.compressed.resize(lz4_flex::block::get_maximum_output_size(len), 0);
                let compressed_len = lz4_flex::block::compress_into(body, &mut self.compressed)
                    .map_err(|error| failed(error.to_string()))?;
                self.compressed.truncate(compressed_len);
                StoredCompression::Lz4
            }
        };
        Ok(if self.compressed.len() < len {
            (stored, &self.compressed)
        } else {
            (StoredCompression::None, body)
        })
    }
}

/// Shows what it is, not its buffers.
impl std::fmt::Debug for Compressor {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self.kind {
            Kind::None => "none",
            Kind::Zstd(_) => "zstd",
            Kind::Lz4 => "lz4",
        };
        formatter.debug_struct("Compressor").field("kind", &kind).finish_non_exhaustive()
    }
}

/// Collects changes into a frame. Finishing leaves it empty, with its buffer.
#[derive(Default)]
pub struct FrameBuilder {
    body: Vec<u8>,
    // A few names at most: looking through them beats hashing.
    tables: Vec<Arc<str>>,
    changes: usize,
    /// 0: not told.
    read_ms: u64,
    trace: Option<TraceContext>,
}

impl FrameBuilder {
    /// A heartbeat: a frame with this watermark (milliseconds since the Unix epoch; 0 is none) and no changes. What
    /// it says: every change of any table with a `created_ms` below the watermark was put into the stream before it.
    #[must_use]
    pub fn heartbeat(watermark_ms: u64) -> Bytes {
        let mut body = Vec::with_capacity(varint_field_len(watermark_ms));
        put_varint(&mut body, BODY_WATERMARK_MS, watermark_ms);
        // A varint and its key: ten bytes or so.
        let body_len = u32::try_from(body.len()).unwrap_or(u32::MAX);
        frame_around(StoredCompression::None, body_len, &body)
    }

    /// An empty builder. Buffers are allocated with the first change.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The exact length of the body so far, before compression and without the time of [`read_at`](Self::read_at),
    /// which takes at most [`READ_MS_LEN_MAX`](super::READ_MS_LEN_MAX), and that of [`trace`](Self::trace), which takes
    /// [`TRACE_LEN`](super::TRACE_LEN). The frame is at most [`HEADER_LEN`] longer than all of them.
    #[must_use]
    pub fn body_len(&self) -> usize {
        self.body.len()
    }

    /// The exact length that the body would have with this change pushed, a new table's name included.
    #[must_use]
    pub fn len_with(&self, change: &Change) -> usize {
        let index = self.table_index(&change.table);
        let name_len = if index.is_some() { 0 } else { delimited_len(change.table.len()) };
        let table = index.unwrap_or(self.tables.len());
        self.body.len() + name_len + delimited_len(content_len(change, table))
    }

    /// The names of their tables, each once.
    #[must_use]
    pub fn tables(&self) -> &[Arc<str>] {
        &self.tables
    }

    /// How many changes were pushed since the last frame.
    #[must_use]
    pub fn changes(&self) -> usize {
        self.changes
    }

    /// Nothing was pushed since the last frame.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes == 0
    }

    /// Appends a change. Bounds are the caller's to keep before ([`len_with`](Self::len_with),
    /// [`changes`](Self::changes)); [`finish`](Self::finish) refuses what is beyond them.
    pub fn push(&mut self, change: &Change) {
        let table = self.table_index(&change.table).unwrap_or_else(|| {
            // An element of a repeated field is written even when it is empty.
            put_len(&mut self.body, BODY_TABLES, change.table.len());
            self.body.put_slice(change.table.as_bytes());
            self.tables.push(Arc::clone(&change.table));
            self.tables.len() - 1
        });
        put_len(&mut self.body, BODY_CHANGES, content_len(change, table));
        put_content(&mut self.body, change, table);
        self.changes += 1;
    }

    /// Some of the changes were asked for at this time (milliseconds since the Unix epoch, not 0). The frame tells the
    /// earliest.
    pub fn read_at(&mut self, read_ms: u64) {
        self.read_ms = if self.read_ms == 0 { read_ms } else { self.read_ms.min(read_ms) };
    }

    /// What was told by [`FrameBuilder::read_at`]; 0 if nothing was.
    pub const fn read_ms(&self) -> u64 {
        self.read_ms
    }

    /// The frame was sampled: its reader's spans are children of this one.
    pub fn trace(&mut self, context: TraceContext) {
        self.trace = Some(context);
    }

    /// Makes the frame of what was pushed, and leaves the builder empty whatever the outcome. A compression that
    /// does not shrink the body is not used. The frame's memory is exactly its length.
    ///
    /// # Errors
    /// A bound is exceeded, or the compressor failed.
    pub fn finish(&mut self, compressor: &mut Compressor) -> Result<Bytes, BuildError> {
        put_varint(&mut self.body, BODY_READ_MS, self.read_ms);
        if let Some(context) = self.trace.take() {
            put_bytes(&mut self.body, BODY_TRACE_CONTEXT, &context.to_bytes());
        }
        let frame = self.frame(compressor);
        self.read_ms = 0;
        self.body.clear();
        self.tables.clear();
        self.changes = 0;
        frame
    }

    fn frame(&self, compressor: &mut Compressor) -> Result<Bytes, BuildError> {
        let len = self.body.len();
        if len > FRAME_BODY_BYTES_MAX {
            return Err(BuildError::BodyTooLarge { len });
        }
        if self.changes > FRAME_CHANGES_MAX {
            return Err(BuildError::TooManyChanges { changes: self.changes });
        }
        if self.tables.len() > FRAME_TABLES_MAX {
            return Err(BuildError::TooManyTables { tables: self.tables.len() });
        }
        let body_len = u32::try_from(len).map_err(|_| BuildError::BodyTooLarge { len })?;
        let (stored, stored_body) = compressor.compress(&self.body)?;
        Ok(frame_around(stored, body_len, stored_body))
    }

    fn table_index(&self, table: &Arc<str>) -> Option<usize> {
        // Changes of one source share the name: a comparison of pointers usually finds it.
        self.tables
            .iter()
            .position(|known| Arc::ptr_eq(known, table))
            .or_else(|| self.tables.iter().position(|known| known == table))
    }
}

/// The frame of a body that is stored like this and has `body_len` bytes when it is inflated.
pub(super) fn frame_around(stored: StoredCompression, body_len: u32, stored_body: &[u8]) -> Bytes {
    let checked_bytes = FrameHeader::checked_bytes(stored, body_len);
    let mut frame = Vec::with_capacity(HEADER_LEN + stored_body.len());
    frame.extend_from_slice(&checked_bytes);
    frame.extend_from_slice(&checksum(&checked_bytes, stored_body).to_be_bytes());
    frame.extend_from_slice(stored_body);
    frame.into()
}

/// The exact length of a frame's body with this change alone in it, before compression.
#[must_use]
pub fn change_len(change: &Change) -> usize {
    delimited_len(change.table.len()) + delimited_len(content_len(change, 0))
}

/// The change by itself, outside of a frame and without its table's name: a `Change` of the schema, for where single
/// changes are kept. [`super::decode_change`] reads it.
#[must_use]
pub fn encode_change(change: &Change) -> Bytes {
    let mut content = Vec::with_capacity(content_len(change, 0));
    put_content(&mut content, change, 0);
    content.into()
}

/// The length of the change's own fields; a field that has its default value is not written.
fn content_len(change: &Change, table: usize) -> usize {
    varint_field_len(table as u64)
        + bytes_field_len(change.key.len())
        + varint_field_len(u64::from(change.position.generation()))
        + bytes_field_len(change.position.sequence().be_len())
        + varint_field_len(u64::from(wire_kind(change.kind)))
        + varint_field_len(change.created_ms)
        + bytes_field_len(change.payload.len())
}

fn put_content(body: &mut Vec<u8>, change: &Change, table: usize) {
    let sequence = change.position.sequence();
    put_varint(body, CHANGE_TABLE, table as u64);
    put_bytes(body, CHANGE_KEY, &change.key);
    put_varint(body, CHANGE_GENERATION, u64::from(change.position.generation()));
    let sequence_bytes = sequence.to_be_bytes();
    let (_, sequence_bytes) = sequence_bytes.split_at(sequence_bytes.len() - sequence.be_len());
    put_bytes(body, CHANGE_SEQUENCE, sequence_bytes);
    put_varint(body, CHANGE_KIND, u64::from(wire_kind(change.kind)));
    put_varint(body, CHANGE_CREATED_MS, change.created_ms);
    put_bytes(body, CHANGE_PAYLOAD, &change.payload);
}

fn put_varint(body: &mut Vec<u8>, key: u8, value: u64) {
    if value != 0 {
        body.put_u8(key);
        encode_varint(value, body);
    }
}

fn put_bytes(body: &mut Vec<u8>, key: u8, bytes: &[u8]) {
    if !bytes.is_empty() {
        put_len(body, key, bytes.len());
        body.put_slice(bytes);
    }
}

fn put_len(body: &mut Vec<u8>, key: u8, len: usize) {
    body.put_u8(key);
    encode_varint(len as u64, body);
}

fn varint_field_len(value: u64) -> usize {
    if value == 0 { 0 } else { 1 + encoded_len_varint(value) }
}

fn bytes_field_len(len: usize) -> usize {
    if len == 0 { 0 } else { delimited_len(len) }
}

fn delimited_len(len: usize) -> usize {
    1 + encoded_len_varint(len as u64) + len
}

fn wire_kind(kind: ChangeKind) -> u8 {
    let kind = match kind {
        ChangeKind::Put => generated::Kind::Put,
        ChangeKind::Delete => generated::Kind::Delete,
        ChangeKind::Expire => generated::Kind::Expire,
        ChangeKind::Invalidate => generated::Kind::Invalidate,
        ChangeKind::Backfill => generated::Kind::Backfill,
    };
    kind as u8
}
