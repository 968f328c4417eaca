//! The frame: what one Kinesis record carries.
//!
//! A 16-byte header, then the body (a protobuf `warmcast.v1.FrameBody`, see `proto/schema`), stored as it is or
//! compressed. Numbers are big-endian. A frame has changes, or it is a heartbeat, which tells how far the stream is.
//!
//! | bytes | what | content |
//! |---|---|---|
//! | 0..4 | magic | `WCFR` |
//! | 4 | version | 1 |
//! | 5 | compression | 0 none, 1 zstd (one or more zstd frames), 2 LZ4 (a bare block) |
//! | 6..8 | reserved | 0; anything else was written by a newer version and is refused |
//! | 8..12 | body length | bytes of the body before compression |
//! | 12..16 | checksum | CRC-32C of bytes 0..12 and of the stored body |
//! | 16.. | stored body | |
//!
//! The header tells what inflating will cost before it is done, so a reader can reserve the memory first; the
//! checksum is checked before anything is inflated; and inflating stops at the announced length.

mod build;
mod decode;

pub use build::{BuildError, Compressor, FrameBuilder, change_len, encode_change};
pub use decode::{ChangeError, ChangeErrorReason, Frame, FrameError, Remains, decode, decode_change};

/// The schema's own types of a body. The codec here writes and reads the same bytes without them; they are for
/// tools and tests that want the schema's view.
pub mod wire {
    pub use crate::generated::{Change, FrameBody, Kind};
}

/// The first four bytes of every frame.
pub const MAGIC: [u8; 4] = *b"WCFR";

/// The version written, and the only one read.
pub const VERSION: u8 = 1;

/// The length of the header.
pub const HEADER_LEN: usize = 16;

/// The most bytes of a frame's body: a record of at most 1 MiB that compresses four to one. Larger is refused
/// by the builder.
pub const FRAME_BODY_BYTES_MAX: usize = 4 << 20;

/// The most bytes that [`FrameBuilder::read_at`] adds to a body.
pub const READ_MS_LEN_MAX: usize = 1 + 10;

/// The bytes that [`FrameBuilder::trace`] adds to a body: its key, its length, and the context.
pub const TRACE_LEN: usize = 2 + crate::trace::TRACE_CONTEXT_LEN;

/// The most changes in a frame. Decoding allocates per change, so without it 4 MiB of empty changes would take
/// hundreds of megabytes.
pub const FRAME_CHANGES_MAX: usize = 1 << 16;

/// The most tables in a frame, for the same reason.
pub const FRAME_TABLES_MAX: usize = 1 << 10;

/// A change alone in a frame takes at most this many bytes of body beside its key, its payload and its table's
/// name, as long as the body keeps to [`FRAME_BODY_BYTES_MAX`].
///
/// The largest payload that fits a body of `b` bytes is therefore at least
/// `b - CHANGE_OVERHEAD_BYTES_MAX - key - table name`; [`change_len`] gives the exact length.
pub const CHANGE_OVERHEAD_BYTES_MAX: usize = {
    const TAG: usize = 1;
    // A length below 2^28.
    const LEN: usize = 4;
    let table_name = TAG + LEN;
    let change = TAG + LEN;
    let key = TAG + LEN;
    let generation = TAG + 3;
    let sequence = TAG + 1 + crate::sequence::BE_BYTES_MAX;
    let kind = TAG + 1;
    let created_ms = TAG + 10;
    let payload = TAG + LEN;
    table_name + change + key + generation + sequence + kind + created_ms + payload
};

/// How to store a body. What does not shrink is stored as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// As it is.
    None,
    /// zstd: denser than LZ4.
    Zstd {
        /// zstd's level, -7 (fast) to 22 (small); 0 is zstd's default.
        level: i32,
    },
    /// LZ4 block: faster, less dense.
    Lz4,
}

/// How a body is stored, as the header says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredCompression {
    /// As it is.
    None,
    /// zstd.
    Zstd,
    /// LZ4 block.
    Lz4,
}

impl StoredCompression {
    const fn to_byte(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Zstd => 1,
            Self::Lz4 => 2,
        }
    }

    const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::None),
            1 => Some(Self::Zstd),
            2 => Some(Self::Lz4),
            _ => None,
        }
    }
}

/// What a frame says of itself. Not yet checked against the checksum: [`decode`] does that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// The format's version: always [`VERSION`], others are refused.
    pub version: u8,
    /// How the body is stored.
    pub compression: StoredCompression,
    /// Bytes of the body before compression.
    pub body_len: u32,
    /// CRC-32C of the header up to here and of the stored body.
    pub checksum: u32,
}

impl FrameHeader {
    /// Reads the header at the start of a frame, without inflating, so that the memory can be reserved first.
    ///
    /// # Errors
    /// The bytes do not start with a header of this version.
    pub fn peek(frame: &[u8]) -> Result<Self, FrameError> {
        let Some(&header) = frame.first_chunk::<HEADER_LEN>() else {
            return Err(FrameError::Truncated { len: frame.len() });
        };
        let [m0, m1, m2, m3, version, compression, r0, r1, l0, l1, l2, l3, c0, c1, c2, c3] = header;
        let magic = [m0, m1, m2, m3];
        if magic != MAGIC {
            return Err(FrameError::BadMagic { magic });
        }
        if version != VERSION {
            return Err(FrameError::UnsupportedVersion { version });
        }
        let compression = StoredCompression::from_byte(compression)
            .ok_or(FrameError::UnknownCompression { compression })?;
        let reserved = u16::from_be_bytes([r0, r1]);
        if reserved != 0 {
            return Err(FrameError::Reserved { reserved });
        }
        let body_len = u32::from_be_bytes([l0, l1, l2, l3]);
        let checksum = u32::from_be_bytes([c0, c1, c2, c3]);
        Ok(Self { version, compression, body_len, checksum })
    }

    /// The first 12 bytes, which the checksum covers.
    fn checked_bytes(compression: StoredCompression, body_len: u32) -> [u8; 12] {
        let [m0, m1, m2, m3] = MAGIC;
        let [l0, l1, l2, l3] = body_len.to_be_bytes();
        [m0, m1, m2, m3, VERSION, compression.to_byte(), 0, 0, l0, l1, l2, l3]
    }
}

fn checksum(checked_bytes: &[u8], stored_body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(checked_bytes), stored_body)
}

#[cfg(test)]
mod tests;
