//! What a reader answers.

use std::time::Duration;

use bytes::Bytes;
use warmcast_proto::item::{self, Item, ItemError};

use crate::outcome::CacheError;

/// What is known of an item.
///
/// ```
/// use warmcast_cache::reader::Answer;
///
/// fn bid_with(answer: &Answer) -> Option<&[u8]> {
///     match answer {
///         Answer::Fresh(profile) => Some(profile.bytes()),
///         // The region is this far behind the master: good enough for this bidder.
///         Answer::Stale(profile, lag) if lag.as_secs() < 60 => Some(profile.bytes()),
///         Answer::Stale(..) | Answer::Absent | Answer::Missing { .. } => None,
///     }
/// }
/// assert_eq!(bid_with(&Answer::Absent), None);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The item, at most as far behind the master as the caller allows.
    Fresh(Row),
    /// The item, and how far it may be behind the master: the region's watermark stands, or is late. Every change
    /// made before that is in it.
    Stale(Row, Duration),
    /// There is no such item: it was deleted, has expired, or the master had none when it was asked.
    Absent,
    /// Nothing is known of it here.
    Missing {
        /// Somebody is filling it, or will in a moment: ask again later.
        filling: bool,
    },
}

impl Answer {
    /// The item, fresh or stale.
    #[must_use]
    pub const fn row(&self) -> Option<&Row> {
        match self {
            Self::Fresh(row) | Self::Stale(row, _) => Some(row),
            Self::Absent | Self::Missing { .. } => None,
        }
    }
}

/// An item as it is cached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub(crate) payload: Bytes,
    pub(crate) time_ms: u64,
    pub(crate) expires_ms: Option<u64>,
}

impl Row {
    /// The payload: an encoded [`Item`], or the bytes of one attribute, as the table's policy says.
    #[must_use]
    pub const fn bytes(&self) -> &Bytes {
        &self.payload
    }

    /// The payload, without a copy.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.payload
    }

    /// Decodes the payload; binary attributes share its bytes.
    ///
    /// # Errors
    /// It is not an encoded item: the table's payload is one attribute, say.
    pub fn item(&self) -> Result<Item, ItemError> {
        item::decode(self.payload.clone())
    }

    /// A time at which the item was this, ms since the Unix epoch: when the change was made in the master table, or
    /// when the read of it began that filled the cache.
    #[must_use]
    pub const fn time_ms(&self) -> u64 {
        self.time_ms
    }

    /// The item's own expiry, ms since the Unix epoch.
    #[must_use]
    pub const fn expires_ms(&self) -> Option<u64> {
        self.expires_ms
    }
}

/// Why nothing could be answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The cache did not answer within the call's deadline.
    #[error("the cache did not answer within {deadline:?}")]
    Deadline {
        /// The call's deadline.
        deadline: Duration,
    },
    /// The cache could not be read.
    #[error(transparent)]
    Cache(#[from] CacheError),
}
