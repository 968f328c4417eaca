//! The server's keys of one call, in one piece of memory.

use warmcast_proto::key::{ItemKey, cache_key};

pub(crate) struct Keys {
    bytes: Vec<u8>,
    /// Empty: there is one key.
    ends: Vec<usize>,
}

impl Keys {
    pub(crate) fn new(prefix: &str, table: &str, keys: &[ItemKey]) -> Self {
        let names_len = keys.len() * (prefix.len() + table.len() + 1);
        let keys_len: usize = keys.iter().map(|key| key.as_bytes().len()).sum();
        let (mut bytes, mut ends) =
            (Vec::with_capacity(names_len + keys_len), Vec::with_capacity(keys.len()));
        for key in keys {
            bytes.extend_from_slice(prefix.as_bytes());
            bytes.extend_from_slice(table.as_bytes());
            bytes.push(b':');
            bytes.extend_from_slice(key.as_bytes());
            ends.push(bytes.len());
        }
        Self { bytes, ends }
    }

    pub(crate) fn one(prefix: &str, table: &str, key: &ItemKey) -> Self {
        Self { bytes: cache_key(prefix, table, key.as_bytes()), ends: Vec::new() }
    }

    /// The key at this place in the call.
    pub(crate) fn get(&self, index: usize) -> &[u8] {
        if self.ends.is_empty() {
            return &self.bytes;
        }
        let start = index.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
        self.ends.get(index).and_then(|end| self.bytes.get(start..*end)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_what_writers_write() {
        let keys = [ItemKey::partition("user-1"), ItemKey::partition(""), ItemKey::composite(b"a:b", b"c")];
        let found = Keys::new("wc:", "profiles", &keys);
        for (index, key) in keys.iter().enumerate() {
            assert_eq!(found.get(index), cache_key("wc:", "profiles", key.as_bytes()));
            assert_eq!(Keys::one("wc:", "profiles", key).get(0), found.get(index));
        }
    }
}
