//! What a Redis holds, byte by byte: to tell whether anything changed at all.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use bytes::Bytes;
use redis::aio::MultiplexedConnection;

use crate::entry;

/// Entries asked for at once.
const KEYS_PER_REQUEST: usize = 500;

/// A hash of each entry, by its Redis key.
pub(super) type Contents = BTreeMap<Vec<u8>, u64>;

/// Reads every entry.
pub(super) async fn contents(connection: &mut MultiplexedConnection) -> redis::RedisResult<Contents> {
    let keys: Vec<Vec<u8>> = entry::all_redis_keys(connection).await?.into_iter().collect();
    let mut contents = Contents::new();
    for chunk in keys.chunks(KEYS_PER_REQUEST) {
        let stored: Vec<Option<Bytes>> = redis::cmd("MGET").arg(chunk).query_async(connection).await?;
        let present =
            chunk.iter().zip(stored).filter_map(|(key, stored)| Some((key.clone(), hash(&stored?))));
        contents.extend(present);
    }
    Ok(contents)
}

fn hash(stored: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    stored.hash(&mut hasher);
    hasher.finish()
}

/// How many entries are in one and not the same in the other.
pub(super) fn differences(a: &Contents, b: &Contents) -> usize {
    let changed = a.iter().filter(|(key, hash)| b.get(*key) != Some(*hash)).count();
    changed + b.keys().filter(|key| !a.contains_key(*key)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_came_and_went_is_counted() {
        let of = |entries: &[(&str, u64)]| -> Contents {
            entries.iter().map(|(key, hash)| (key.as_bytes().to_vec(), *hash)).collect()
        };
        let before = of(&[("a", 1), ("b", 2), ("c", 3)]);
        assert_eq!(differences(&before, &before), 0);
        assert_eq!(differences(&before, &of(&[("a", 1), ("b", 9), ("d", 4)])), 3);
    }
}
