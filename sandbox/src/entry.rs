//! What the cache holds, as a bidder in another process reads it: plain `GET`s and the published formats.

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
    /// The row.
    Live {
        /// The floor.
        position: Position,
        /// The attributes.
        row: Row,
    },
    /// An entry without a row.
    Marker {
        /// Never `Live`.
        kind: EntryKind,
        /// The floor.
        position: Position,
    },
    /// Bytes that are no entry.
    Undecodable(String),
}

impl Entry {
    /// Reads what a `GET` answered.
    #[must_use]
    pub fn decode(stored: Option<Bytes>) -> Self {
        let Some(stored) = stored else { return Self::Absent };
        let (header, payload) = match EntryHeader::decode(&stored) {
            Ok((header, payload)) => (header, stored.slice_ref(payload)),
            Err(error) => return Self::Undecodable(error.to_string()),
        };
        match header.kind() {
            EntryKind::Live => match item::decode(payload) {
                Ok(item) => Self::Live { position: header.position(), row: row::from_cache(&item) },
                Err(error) => Self::Undecodable(error.to_string()),
            },
            kind => Self::Marker { kind, position: header.position() },
        }
    }

    /// The position up to which the entry reflects every change.
    #[must_use]
    pub fn floor(&self) -> Option<Position> {
        match self {
            Self::Live { position, .. } | Self::Marker { position, .. } => Some(*position),
            Self::Absent | Self::Undecodable(_) => None,
        }
    }

    /// Whether a deletion is what the entry shows.
    #[must_use]
    pub fn is_tombstone(&self) -> bool {
        matches!(self, Self::Marker { kind: EntryKind::Tombstone, .. })
    }

    /// A numeric attribute of a live row, where it is a whole number.
    #[must_use]
    pub fn number(&self, attribute: &str) -> Option<u64> {
        match self {
            Self::Live { row, .. } => match row.get(attribute)? {
                Value::Number(number) => number.as_u64(),
                _ => None,
            },
            _ => None,
        }
    }
}

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
    Ok(Entry::decode(stored))
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
        entries.extend(stored.into_iter().map(Entry::decode));
    }
    Ok(entries)
}

/// Every key that Redis has, each once.
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
        keys.extend(page);
        if next == 0 {
            return Ok(keys);
        }
        cursor = next;
    }
}

#[cfg(test)]
mod tests {
    use warmcast_proto::item::{Item, Value as Cached};

    use super::*;

    fn stored(kind: EntryKind, payload: &[u8]) -> Option<Bytes> {
        let position = Position::new(1, "77".parse().unwrap()).unwrap();
        let mut bytes = EntryHeader::new(kind, position, 5).unwrap().encode().to_vec();
        bytes.extend_from_slice(payload);
        Some(bytes.into())
    }

    #[test]
    fn a_live_entry_gives_its_row_and_floor() {
        let item = Item { attributes: [("version".to_owned(), Cached::N("12".to_owned()).into())].into() };
        let entry = Entry::decode(stored(EntryKind::Live, &item::encode(&item)));
        assert_eq!(entry.number("version"), Some(12));
        assert_eq!(entry.floor(), Some(Position::new(1, "77".parse().unwrap()).unwrap()));
        assert!(!entry.is_tombstone());
    }

    #[test]
    fn a_tombstone_is_no_row() {
        let entry = Entry::decode(stored(EntryKind::Tombstone, b""));
        assert!(entry.is_tombstone());
        assert_eq!(entry.number("version"), None);
    }

    #[test]
    fn what_is_no_entry_is_not_taken_for_a_miss() {
        assert_eq!(Entry::decode(None), Entry::Absent);
        assert!(matches!(Entry::decode(Some(Bytes::from_static(b"short"))), Entry::Undecodable(_)));
        let broken = Entry::decode(stored(EntryKind::Live, &[0xff; 7]));
        assert!(matches!(broken, Entry::Undecodable(_)), "{broken:?}");
    }
}
