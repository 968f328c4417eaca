//! What the cache holds, as a bidder in another process reads it: plain `GET`s and the published formats.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use redis::aio::ConnectionLike;
use warmcast_proto::entry::{EntryHeader, EntryKind};
use warmcast_proto::item;
use warmcast_proto::key::cache_key;
use warmcast_proto::position::Position;

use crate::row::{self, Row, Value};

/// Bytes asked of Redis at once, as keys: an answer of some megabytes.
const KEYS_PER_REQUEST: usize = 500;
/// A hint for SCAN.
const SCAN_COUNT: usize = 1000;

/// One cache entry. Anything that is not an entry of the known format is `Undecodable`: readers would treat it
/// as a miss, the sandbox treats it as a defect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Nothing is there.
    Absent,
    /// The row, by the table's stream.
    Live {
        /// The floor.
        position: Position,
        /// The attributes.
        row: Row,
    },
    /// The row, by a read of the master table.
    Filled {
        /// The floor.
        position: Position,
        /// The attributes.
        row: Row,
    },
    /// An entry without a row.
    Marker {
        /// Neither `Live` nor `Filled`.
        kind: EntryKind,
        /// The floor.
        position: Position,
    },
    /// An entry whose expiry is past. A row that expired is known absent; a negative entry says nothing any more.
    Expired {
        /// `Live`, `Filled` or `Negative`.
        kind: EntryKind,
        /// The floor.
        position: Position,
    },
    /// Bytes that are no entry.
    Undecodable(String),
}

impl Entry {
    /// Reads what a `GET` answered, as it is to be understood at `now_ms` (milliseconds since the Unix epoch).
    #[must_use]
    pub fn decode(stored: Option<Bytes>, now_ms: u64) -> Self {
        let Some(stored) = stored else { return Self::Absent };
        let (header, payload) = match EntryHeader::decode(&stored) {
            Ok((header, payload)) => (header, stored.slice_ref(payload)),
            Err(error) => return Self::Undecodable(error.to_string()),
        };
        let (kind, position) = (header.kind(), header.position());
        if header.is_expired(now_ms) {
            return Self::Expired { kind, position };
        }
        let row = || item::decode(payload).map(|item| row::from_cache(&item));
        match kind {
            EntryKind::Live => row().map(|row| Self::Live { position, row }),
            EntryKind::Filled => row().map(|row| Self::Filled { position, row }),
            kind => Ok(Self::Marker { kind, position }),
        }
        .unwrap_or_else(|error| Self::Undecodable(error.to_string()))
    }

    /// The position up to which the entry reflects every change.
    #[must_use]
    pub fn floor(&self) -> Option<Position> {
        match self {
            Self::Live { position, .. }
            | Self::Filled { position, .. }
            | Self::Marker { position, .. }
            | Self::Expired { position, .. } => Some(*position),
            Self::Absent | Self::Undecodable(_) => None,
        }
    }

    /// The row that a reader is given.
    #[must_use]
    pub fn row(&self) -> Option<&Row> {
        match self {
            Self::Live { row, .. } | Self::Filled { row, .. } => Some(row),
            _ => None,
        }
    }

    /// Whether a reader takes it for a miss: it says neither what the row is nor that there is none.
    #[must_use]
    pub fn is_miss(&self) -> bool {
        match self {
            Self::Absent => true,
            Self::Marker { kind, .. } => matches!(kind, EntryKind::Invalid | EntryKind::Held),
            Self::Expired { kind, .. } => *kind == EntryKind::Negative,
            Self::Live { .. } | Self::Filled { .. } | Self::Undecodable(_) => false,
        }
    }

    /// Whether a deletion is what the entry shows.
    #[must_use]
    pub fn is_tombstone(&self) -> bool {
        matches!(self, Self::Marker { kind: EntryKind::Tombstone, .. })
    }

    /// A numeric attribute of the row, where it is a whole number.
    #[must_use]
    pub fn number(&self, attribute: &str) -> Option<u64> {
        match self.row()?.get(attribute)? {
            Value::Number(number) => number.as_u64(),
            _ => None,
        }
    }
}

/// What stands before the names of the keys that are no entries: the watermark, and each server's marker.
const OWN_KEYS: &[u8] = b"warmcast:";

/// The key of a region's watermark, with the sandbox's empty key prefix: decimal milliseconds since the Unix epoch.
pub const WATERMARK_KEY: &str = "warmcast:watermark";

/// The Redis key of a row whose table has a text partition key alone, as the sandbox's tables have.
#[must_use]
pub fn redis_key(table: &str, key: &str) -> Vec<u8> {
    cache_key("", table, key.as_bytes())
}

/// Reads one entry.
///
/// # Errors
/// Redis does not answer.
pub async fn get(connection: &mut impl ConnectionLike, table: &str, key: &str) -> redis::RedisResult<Entry> {
    let stored = redis::cmd("GET").arg(redis_key(table, key)).query_async(connection).await?;
    Ok(Entry::decode(stored, now_ms()))
}

/// Reads many entries, in the order of the Redis keys.
///
/// # Errors
/// Redis does not answer.
pub async fn get_many(
    connection: &mut impl ConnectionLike,
    redis_keys: &[Vec<u8>],
) -> redis::RedisResult<Vec<Entry>> {
    let mut entries = Vec::with_capacity(redis_keys.len());
    for chunk in redis_keys.chunks(KEYS_PER_REQUEST) {
        let stored: Vec<Option<Bytes>> = redis::cmd("MGET").arg(chunk).query_async(connection).await?;
        let now_ms = now_ms();
        entries.extend(stored.into_iter().map(|stored| Entry::decode(stored, now_ms)));
    }
    Ok(entries)
}

/// Every key of an entry that Redis has, each once.
///
/// # Errors
/// Redis does not answer.
pub async fn all_redis_keys(
    connection: &mut impl ConnectionLike,
) -> redis::RedisResult<std::collections::BTreeSet<Vec<u8>>> {
    let mut keys = std::collections::BTreeSet::new();
    let mut cursor = 0_u64;
    loop {
        let (next, page): (u64, Vec<Vec<u8>>) =
            redis::cmd("SCAN").arg(cursor).arg("COUNT").arg(SCAN_COUNT).query_async(connection).await?;
        keys.extend(page.into_iter().filter(|key| !key.starts_with(OWN_KEYS)));
        if next == 0 {
            return Ok(keys);
        }
        cursor = next;
    }
}

/// The region's watermark; none: it has not been published yet.
///
/// # Errors
/// Redis does not answer, or holds something else there.
pub async fn watermark_ms(connection: &mut impl ConnectionLike) -> redis::RedisResult<Option<u64>> {
    redis::cmd("GET").arg(WATERMARK_KEY).query_async(connection).await
}

/// This machine's clock: milliseconds since the Unix epoch.
#[must_use]
pub fn now_ms() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use warmcast_proto::item::{Item, Value as Cached};

    use super::*;

    const NOW_MS: u64 = 1_000;

    fn position() -> Position {
        Position::new(1, "77".parse().unwrap()).unwrap()
    }

    fn stored(kind: EntryKind, payload: &[u8]) -> Option<Bytes> {
        let header = EntryHeader::new(kind, position(), 5).unwrap();
        Some([header.encode().as_ref(), payload].concat().into())
    }

    fn expiring(kind: EntryKind, expires_ms: u64, payload: &[u8]) -> Entry {
        let header = EntryHeader::expiring(kind, position(), 5, expires_ms).unwrap();
        Entry::decode(Some([header.encode().as_ref(), payload].concat().into()), NOW_MS)
    }

    fn payload() -> Bytes {
        item::encode(&Item { attributes: [("version".to_owned(), Cached::N("12".to_owned()).into())].into() })
    }

    #[test]
    fn a_live_or_filled_entry_gives_its_row_and_floor() {
        for kind in [EntryKind::Live, EntryKind::Filled] {
            let entry = Entry::decode(stored(kind, &payload()), NOW_MS);
            assert_eq!(entry.number("version"), Some(12));
            assert_eq!(entry.floor(), Some(position()));
            assert_eq!(matches!(entry, Entry::Filled { .. }), kind == EntryKind::Filled);
            assert!(!entry.is_tombstone() && !entry.is_miss());
        }
    }

    #[test]
    fn a_tombstone_is_no_row_and_no_miss() {
        let entry = Entry::decode(stored(EntryKind::Tombstone, b""), NOW_MS);
        assert!(entry.is_tombstone() && !entry.is_miss());
        assert_eq!(entry.number("version"), None);
    }

    #[test]
    fn an_expired_row_is_known_absent_and_an_expired_negative_entry_a_miss() {
        for kind in [EntryKind::Live, EntryKind::Filled] {
            assert_eq!(expiring(kind, NOW_MS + 1, &payload()).number("version"), Some(12));
            let expired = expiring(kind, NOW_MS, &payload());
            assert_eq!(expired, Entry::Expired { kind, position: position() });
            assert!(expired.row().is_none() && !expired.is_miss());
        }
        assert!(!expiring(EntryKind::Negative, NOW_MS + 1, b"").is_miss());
        assert!(expiring(EntryKind::Negative, NOW_MS, b"").is_miss());
    }

    #[test]
    fn what_says_nothing_of_the_row_is_a_miss() {
        for kind in [EntryKind::Invalid, EntryKind::Held] {
            assert!(Entry::decode(stored(kind, b""), NOW_MS).is_miss());
        }
        assert!(Entry::Absent.is_miss());
    }

    #[test]
    fn what_is_no_entry_is_not_taken_for_a_miss() {
        assert_eq!(Entry::decode(None, NOW_MS), Entry::Absent);
        for broken in [Some(Bytes::from_static(b"short")), stored(EntryKind::Live, &[0xff; 7])] {
            let broken = Entry::decode(broken, NOW_MS);
            assert!(matches!(broken, Entry::Undecodable(_)) && !broken.is_miss(), "{broken:?}");
        }
    }
}
