//! What can become of a change that is to be applied.

use std::sync::Arc;

use warmcast_proto::entry::EntryError;

/// What became of a change. Each of these is final: acknowledge it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Written.
    Applied,
    /// The cache already holds this position or a later one.
    Stale,
    /// Nothing with a floor was there and the change is older than [`AGE_MAX`](crate::config::AGE_MAX): the key is
    /// left absent, which is a miss and always safe.
    TooOld,
}

/// Why a change was not applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// The server could not be asked, did not answer, or is in a state that passes. It is not known whether the
    /// change was applied. Apply it again, after a while.
    #[error("the cache at {address} is unavailable: {reason}")]
    Unavailable {
        /// The server.
        address: Arc<str>,
        /// What happened.
        reason: Arc<str>,
    },
    /// The change reached the server after its deadline and was not applied. The server is slow, or this process
    /// was stopped for a while: so make sure that you still hold your lease before you apply it again. It is not
    /// done here, because then a writer that lost its lease while it was stopped would pass the fence.
    #[error("the change reached the cache at {address} after its deadline")]
    PastDeadline {
        /// The server.
        address: Arc<str>,
    },
    /// This change will never be applied as it is: set it aside.
    #[error("the cache at {address} cannot take the change: {refusal}")]
    Refused {
        /// The server.
        address: Arc<str>,
        /// Why.
        refusal: Refusal,
    },
}

/// Why a change will never be applied as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The key holds something that is not an entry of this version: a list, a foreign text, or the entry of a
    /// newer version. It is not overwritten, because it is not ours, or its floor cannot be read.
    #[error(
        "its key holds a value that is not an entry of this version; is the key prefix shared with others?"
    )]
    ForeignValue,
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
    /// The server's own words.
    #[error("{0}")]
    Server(String),
}

impl ApplyError {
    /// Applying the change again may succeed. Otherwise it never will: set it aside.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Unavailable { .. } | Self::PastDeadline { .. } => true,
            Self::Refused { .. } => false,
        }
    }
}
