//! The server's keys of items, and the way back: from a key that a server has to the item whose entry it is. Pure.
//!
//! `PREFIX TABLE ":" KEY`, where a table's policy may have another prefix. What does not read back to the very same
//! key is nobody's that we know.

use warmcast_proto::key::cache_key;

use crate::{config::CacheConfig, item_id::ItemId, policy::Tables};

/// The watermark's key, after the cache's key prefix. Its value: milliseconds since the epoch, in decimal digits.
pub const WATERMARK_KEY: &str = "warmcast:watermark";

/// The lengths of a table's name (AWS: DynamoDB naming rules and data types, naming rules).
const TABLE_NAME_LEN: std::ops::RangeInclusive<usize> = 3..=255;

/// Which keys a cache's items have.
#[derive(Clone, Debug)]
pub(crate) struct KeySpace {
    prefix: String,
    tables: Tables,
}

/// Whose key it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// An item's.
    Item(ItemId),
    /// The cache's own: a marker, the watermark.
    Cache,
    /// Somebody else's.
    Stranger,
}

impl KeySpace {
    pub(crate) fn new(config: &CacheConfig) -> Self {
        Self { prefix: config.key_prefix.clone(), tables: config.tables.clone() }
    }

    /// The server's key of an item.
    pub(crate) fn key(&self, table: &str, key: &[u8]) -> Vec<u8> {
        cache_key(self.prefix(table), table, key)
    }

    /// The server's key of the watermark.
    pub(crate) fn watermark_key(&self) -> Vec<u8> {
        [&self.prefix, WATERMARK_KEY].concat().into_bytes()
    }

    /// Whose key this is.
    pub(crate) fn owner(&self, key: &[u8]) -> Owner {
        if is_own(&self.prefix, key) {
            return Owner::Cache;
        }
        let named = self.tables.named.keys().filter_map(|table| {
            let prefix = self.prefix(table);
            split(key, prefix).filter(|(found, _)| *found == &**table)
        });
        let others = split(key, &self.prefix).filter(|(table, _)| self.prefix(table) == self.prefix);
        match named.chain(others).next() {
            Some((table, key)) => Owner::Item(ItemId::new(table, key.to_vec())),
            None => Owner::Stranger,
        }
    }

    /// A glob-style pattern that all keys of a table match, or of all tables (Redis: KEYS, supported patterns).
    pub(crate) fn pattern(&self, table: Option<&str>) -> Vec<u8> {
        let start = match table {
            Some(table) => self.key(table, b""),
            None => self.common_prefix().to_vec(),
        };
        let mut pattern = Vec::with_capacity(start.len() + 1);
        for byte in start {
            if matches!(byte, b'*' | b'?' | b'[' | b']' | b'\\') {
                pattern.push(b'\\');
            }
            pattern.push(byte);
        }
        pattern.push(b'*');
        pattern
    }

    fn prefix(&self, table: &str) -> &str {
        self.tables.policy(table).key_prefix.as_ref().unwrap_or(&self.prefix)
    }

    /// What all tables' prefixes begin with.
    fn common_prefix(&self) -> &[u8] {
        let mut common = self.prefix("").as_bytes();
        for table in self.tables.named.keys() {
            let prefix = self.prefix(table).as_bytes();
            let len = common.iter().zip(prefix).take_while(|(a, b)| a == b).count();
            common = common.get(..len).unwrap_or_default();
        }
        common
    }
}

/// Whether this is a key of the cache's own, a marker or the watermark, where keys have this prefix. An item whose key it
/// would be (of a table of the name `warmcast`) is never written.
pub(crate) fn is_own(prefix: &str, key: &[u8]) -> bool {
    let own = key.strip_prefix(prefix.as_bytes());
    let is_marker = |own: &[u8]| {
        let number = own.strip_prefix(b"warmcast:marker:{").and_then(|rest| rest.strip_suffix(b"}"));
        number.is_some_and(|digits| digits.iter().all(u8::is_ascii_digit))
    };
    own.is_some_and(|own| own == WATERMARK_KEY.as_bytes() || is_marker(own))
}

/// The table and the rest of a key that begins with this prefix.
fn split<'k>(key: &'k [u8], prefix: &str) -> Option<(&'k str, &'k [u8])> {
    let rest = key.strip_prefix(prefix.as_bytes())?;
    let colon = rest.iter().position(|byte| *byte == b':')?;
    let (table, rest) = rest.split_at(colon);
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    let table = str::from_utf8(table).ok()?;
    let is_table = TABLE_NAME_LEN.contains(&table.len()) && table.bytes().all(|byte| is_name(&byte));
    is_table.then(|| (table, rest.get(1..).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::policy::TablePolicy;

    fn space(prefix: &str, named: &[(&str, &str)]) -> KeySpace {
        let policy =
            |prefix: &str| TablePolicy { key_prefix: Some(prefix.to_owned()), ..TablePolicy::default() };
        let named = named.iter().map(|(table, prefix)| ((*table).into(), policy(prefix))).collect();
        KeySpace { prefix: prefix.to_owned(), tables: Tables { default: TablePolicy::default(), named } }
    }

    #[test]
    fn keys_are_their_items_or_the_caches_own_or_strangers() {
        let space = space("wc:", &[("orders", ""), ("users", "wc:x:")]);
        let item = |table: &str, key: &str| Owner::Item(ItemId::new(table, key.to_owned()));
        for (key, owner) in [
            ("wc:profiles:a:b", item("profiles", "a:b")),
            ("wc:profiles:", item("profiles", "")),
            ("orders:7", item("orders", "7")),
            ("wc:x:users:1", item("users", "1")),
            ("wc:warmcast:watermark", Owner::Cache),
            ("wc:warmcast:marker:{17}", Owner::Cache),
            ("wc:warmcast:other", item("warmcast", "other")),
            ("warmcast:watermark", Owner::Stranger),
            ("wc:orders:7", Owner::Stranger),
            ("profiles:a", Owner::Stranger),
            ("wc:users:1", Owner::Stranger),
            ("wc:no table:1", Owner::Stranger),
            ("wc:ab:1", Owner::Stranger),
            ("wc:profiles", Owner::Stranger),
            ("", Owner::Stranger),
        ] {
            assert_eq!(space.owner(key.as_bytes()), owner, "{key}");
        }
    }

    #[test]
    fn patterns_match_what_they_say_and_nothing_is_special() {
        let plain = space("wc:", &[]);
        assert_eq!(plain.pattern(None), b"wc:*");
        assert_eq!(plain.pattern(Some("profiles")), b"wc:profiles:*");
        assert_eq!(space("a*[b]?\\", &[]).pattern(None), b"a\\*\\[b\\]\\?\\\\*");
        assert_eq!(space("wc:a:", &[("orders", "wc:b:")]).pattern(None), b"wc:*");
        assert_eq!(space("wc:", &[("orders", "")]).pattern(None), b"*");
        assert_eq!(space("wc:", &[("orders", "")]).pattern(Some("orders")), b"orders:*");
    }

    proptest! {
        #[test]
        fn every_items_key_reads_back(
            prefix in "[a-z:]{0,4}", other in "[a-z:]{0,4}", table in "(orders|users|profiles)", key in prop::collection::vec(any::<u8>(), 0..20)
        ) {
            let space = space(&prefix, &[("orders", &other)]);
            let found = space.owner(&space.key(&table, &key));
            // A prefix may look like a table's name with its colon: then the key may be that table's as well.
            match found {
                Owner::Item(id) if *id.table == *table => prop_assert_eq!(id.key, key),
                Owner::Item(id) => {
                    prop_assert_eq!(
                        space.key(&id.table, &id.key),
                        space.key(&table, &key)
                    );
                }
                Owner::Cache | Owner::Stranger => prop_assert!(false, "{found:?}"),
            }
        }
    }
}
