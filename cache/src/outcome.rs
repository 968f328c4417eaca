//! What can become of a change that is to be applied, and why a call of the cache has no answer.

use std::sync::Arc;

use warmcast_proto::entry::EntryError;

use crate::shape::ShapeError;

/// What became of a change. Each of these is final: acknowledge it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Written. In a table that caches only what is read this may be as invalid: where it is not known whether the
    /// change is news, only its position is kept.
    Applied,
    /// The cache already holds this position or a later one.
    Stale,
    /// No entry of the stream was there, and nothing proves that the change is news: it is old, or floors may have
    /// been evicted since it was made. The key is left absent, which is a miss and always safe.
    LeftAbsent,
    /// The entry is from a fill that saw the change already: its floor was raised, its item stays.
    Covered,
    /// The table caches only what is read, and nothing is cached for the key.
    Skipped,
}

impl Outcome {
    /// As metrics and traces name it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Stale => "stale",
            Self::LeftAbsent => "left_absent",
            Self::Covered => "covered",
            Self::Skipped => "skipped",
        }
    }
}

/// Why a call of the cache has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CacheError {
    /// The server could not be asked, did not answer, or is in a state that passes. It is not known whether the
    /// call was carried out. Do it again, after a while.
    #[error("the cache at {address} is unavailable: {reason}")]
    Unavailable {
        /// The server.
        address: Arc<str>,
        /// What happened.
        reason: Arc<str>,
    },
    /// The call reached the server after its deadline and was not carried out. The server is slow, or this process
    /// was stopped for a while: so make sure that you still hold your lease before you do it again. It is not done
    /// here, because then a writer that lost its lease while it was stopped would pass the fence.
    #[error("the call reached the cache at {address} after its deadline")]
    PastDeadline {
        /// The server.
        address: Arc<str>,
    },
    /// This call will never be carried out as it is: set it aside.
    #[error("the cache at {address} cannot take this: {refusal}")]
    Refused {
        /// The server.
        address: Arc<str>,
        /// Why.
        refusal: Refusal,
    },
}

/// Why a call will never be carried out as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The key holds something that is not an entry of this version: a list, a foreign text, or the entry of a
    /// newer version. It is not overwritten, because it is not ours, or its floor cannot be read.
    #[error(
        "its key holds a value that is not an entry of this version; is the key prefix shared with others?"
    )]
    ForeignValue,
    /// Its key would be one that the cache keeps for itself: of its marker or its watermark.
    #[error("its key is one that the cache keeps for itself; a table must not be called so")]
    OwnKey,
    /// No item of DynamoDB has so long a key.
    #[error("its key would have {len} bytes, which is more than any item's")]
    KeyTooLong {
        /// Bytes of the server's key.
        len: usize,
    },
    /// The entry is larger than `value_bytes_max`.
    #[error("the entry has {len} bytes, above {len_max}")]
    TooLarge {
        /// Bytes of the entry.
        len: usize,
        /// The bound.
        len_max: usize,
    },
    /// The change does not fit an entry's header.
    #[error(transparent)]
    Header(EntryError),
    /// The item cannot be shaped as its table's policy says.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// What a read of the master found is no change: `Cache::backfill` takes it.
    #[error("a backfill is not a change, and is not applied as one")]
    IsBackfill,
    /// A backfill of a table that caches only what is read.
    #[error("its table caches only what is read, and is not backfilled")]
    NotBackfilled,
    /// The server's own words.
    #[error("{0}")]
    Server(String),
}

impl CacheError {
    /// Doing it again may succeed. Otherwise it never will: set it aside.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Unavailable { .. } | Self::PastDeadline { .. } => true,
            Self::Refused { .. } => false,
        }
    }
}
