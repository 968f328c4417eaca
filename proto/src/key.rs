//! Names of an item: its key in the cache, and the bucket that decides its Kinesis shard.
//!
//! Readers compute these by themselves, in any language, from the primary key they look for; so each is a
//! plain function of bytes, fixed by golden-value tests. A change here moves every key of every cache.

use std::borrow::Cow;

use bytes::Bytes;
use xxhash_rust::xxh3::Xxh3Default;

/// The canonical bytes of a DynamoDB primary key, within its table.
///
/// A key value's bytes are: S the UTF-8 text, N the number's text exactly as DynamoDB returns it, B the raw
/// bytes. A table with a partition key only uses them as they are. With a sort key: the partition value with
/// `%` written `%25` and `:` written `%3A`, then `:`, then the sort value as it is. Two items of one table
/// never share a key (a table's key schema and key types never change).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ItemKey(Bytes);

impl ItemKey {
    /// The key in a table whose primary key is a partition key alone.
    #[must_use]
    pub fn partition(partition: impl Into<Bytes>) -> Self {
        Self(partition.into())
    }

    /// The key in a table with a partition and a sort key.
    #[must_use]
    pub fn composite(partition: &[u8], sort: &[u8]) -> Self {
        let mut key = Vec::with_capacity(partition.len() + 1 + sort.len());
        for byte in partition {
            match byte {
                b'%' => key.extend_from_slice(b"%25"),
                b':' => key.extend_from_slice(b"%3A"),
                byte => key.push(*byte),
            }
        }
        key.push(b':');
        key.extend_from_slice(sort);
        Self(key.into())
    }

    /// The canonical bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The canonical bytes, without a copy.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

/// Why bytes are not those of a partition and a sort value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SplitError {
    /// There is no `:`.
    #[error("the table has a sort key, and the key has no `:` before one: use ItemKey::composite")]
    NoSort,
    /// A `%` in the partition value that is neither `%25` nor `%3A`.
    #[error("the partition value has a `%` that is not part of `%25` or `%3A`: use ItemKey::composite")]
    Escape,
}

/// The partition and the sort value in the bytes of [`ItemKey::composite`].
///
/// # Errors
/// They are not such bytes.
pub fn split_composite(key: &[u8]) -> Result<(Cow<'_, [u8]>, &[u8]), SplitError> {
    let colon = key.iter().position(|byte| *byte == b':').ok_or(SplitError::NoSort)?;
    let (escaped, rest) = key.split_at(colon);
    Ok((unescaped(escaped)?, rest.get(1..).unwrap_or_default()))
}

fn unescaped(escaped: &[u8]) -> Result<Cow<'_, [u8]>, SplitError> {
    if !escaped.contains(&b'%') {
        return Ok(Cow::Borrowed(escaped));
    }
    let mut value = Vec::with_capacity(escaped.len());
    let mut rest = escaped;
    while let Some((&byte, after)) = rest.split_first() {
        let (byte, after) = match (byte, after) {
            (b'%', [b'2', b'5', after @ ..]) => (b'%', after),
            (b'%', [b'3', b'A', after @ ..]) => (b':', after),
            (b'%', _) => return Err(SplitError::Escape),
            (byte, after) => (byte, after),
        };
        value.push(byte);
        rest = after;
    }
    Ok(Cow::Owned(value))
}

/// The most significant digits of a number (AWS: DynamoDB naming rules and data types, Number).
const DIGITS_MAX: usize = 38;

/// Whether a number is written as DynamoDB writes it: `-12`, `0`, `0.5`, without zeros that do not count. Written
/// otherwise it is another key.
#[must_use]
pub fn is_plain_number(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) =
        digits.split_once('.').map_or((digits, None), |(whole, part)| (whole, Some(part)));
    let is_digits = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let significant = digits.trim_start_matches(['0', '.']).trim_end_matches('0').bytes();
    is_digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && fraction.is_none_or(|fraction| is_digits(fraction) && !fraction.ends_with('0'))
        && text != "-0"
        && significant.filter(u8::is_ascii_digit).count() <= DIGITS_MAX
}

/// The Redis key of an item: prefix, table, `:`, item key. DynamoDB table names hold no `:`.
#[must_use]
pub fn cache_key(prefix: &str, table: &str, key: &[u8]) -> Vec<u8> {
    let mut cache_key = Vec::with_capacity(prefix.len() + table.len() + 1 + key.len());
    cache_key.extend_from_slice(prefix.as_bytes());
    cache_key.extend_from_slice(table.as_bytes());
    cache_key.push(b':');
    cache_key.extend_from_slice(key);
    cache_key
}

/// A number of buckets: a power of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buckets(u32);

/// The number is not a power of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} buckets: not a power of two")]
pub struct BucketsError(pub u32);

impl Buckets {
    /// One bucket for all keys.
    pub const ONE: Self = Self(1);

    /// Checks the number: 1, 2, 4, ... 2^31.
    ///
    /// # Errors
    /// 0 or another number that is no power of two.
    pub const fn new(count: u32) -> Result<Self, BucketsError> {
        if count.is_power_of_two() { Ok(Self(count)) } else { Err(BucketsError(count)) }
    }

    /// How many buckets there are.
    #[must_use]
    pub const fn count(self) -> u32 {
        self.0
    }
}

/// The bucket of a key: the top bits of XXH3-64 (seed 0) over the table's name, a zero byte and the item key.
///
/// The top bits, so that doubling the number of buckets splits each in two and moves no key elsewhere.
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "the product's upper half is below the u32 count")]
pub fn bucket(table: &str, key: &[u8], buckets: Buckets) -> u32 {
    let mut hasher = Xxh3Default::new();
    hasher.update(table.as_bytes());
    hasher.update(&[0]);
    hasher.update(key);
    // The upper half of a product with 2^n is the hash's top n bits, also for n = 0.
    ((u128::from(hasher.digest()) * u128::from(buckets.0)) >> 64) as u32
}

/// The ExplicitHashKey of a bucket: the middle of its share of Kinesis' 128-bit hash key space
/// (AWS: PutRecords, ExplicitHashKey, a decimal number of 0 to 2^128 - 1; `to_string` gives it).
///
/// A bucket number out of range counts modulo the number of buckets.
#[must_use]
pub fn explicit_hash_key(bucket: u32, buckets: Buckets) -> u128 {
    // Half a share, so that one bucket's share (2^128) needs no wider number.
    let half_share = (1u128 << 127) / u128::from(buckets.0);
    u128::from(bucket & (buckets.0 - 1)) * 2 * half_share + half_share
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Bytes in which the separators and their escapes are frequent.
    fn key_value() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(
            prop_oneof![
                3 => Just(b':'),
                3 => Just(b'%'),
                1 => Just(b'2'),
                1 => Just(b'5'),
                1 => Just(b'3'),
                1 => Just(b'A'),
                1 => any::<u8>()
            ],
            0..8,
        )
    }

    proptest! {
        #[test]
        fn different_primary_keys_have_different_keys(a in (key_value(), key_value()), b in (key_value(), key_value())) {
            let key = |(partition, sort): &(Vec<u8>, Vec<u8>)| ItemKey::composite(partition, sort);
            prop_assert_eq!(key(&a) == key(&b), a == b);
        }

        #[test]
        fn a_composite_key_reads_back(partition in key_value(), sort in key_value()) {
            // Injective, because both parts can be had back: the first colon ends the partition value.
            let key = ItemKey::composite(&partition, &sort).into_bytes();
            let colon = key.iter().position(|byte| *byte == b':').unwrap();
            prop_assert_eq!(&key[colon + 1..], &sort);
            let mut unescaped = Vec::new();
            let mut escaped = &key[..colon];
            while let Some((byte, rest)) = escaped.split_first() {
                escaped = rest;
                match (byte, rest.get(..2)) {
                    (b'%', Some(b"25")) => { unescaped.push(b'%'); escaped = &rest[2..]; }
                    (b'%', Some(b"3A")) => { unescaped.push(b':'); escaped = &rest[2..]; }
                    (b'%', _) => prop_assert!(false, "a lone percent sign"),
                    (byte, _) => unescaped.push(*byte),
                }
            }
            prop_assert_eq!(unescaped, partition);
        }

        #[test]
        fn doubling_the_buckets_splits_each_in_two(key in prop::collection::vec(any::<u8>(), 0..40), bits in 0..31u32) {
            let coarse = bucket("profiles", &key, Buckets::new(1 << bits).unwrap());
            let fine = bucket("profiles", &key, Buckets::new(1 << (bits + 1)).unwrap());
            prop_assert!(coarse < 1 << bits);
            prop_assert_eq!(fine / 2, coarse);
        }

        #[test]
        fn the_hash_key_is_the_middle_of_the_buckets_share(bits in 0..=31u32, seed in any::<u32>()) {
            let buckets = Buckets::new(1 << bits).unwrap();
            let bucket = seed & (buckets.count() - 1);
            let hash_key = explicit_hash_key(bucket, buckets);
            // A stream of as many shards gives shard i the keys with i in their top bits.
            prop_assert_eq!(hash_key.checked_shr(128 - bits).unwrap_or(0), u128::from(bucket));
            prop_assert_eq!(hash_key << bits, 1 << 127);
        }
    }

    // Golden values: others compute them too, and a change here moves every key of every cache. Never edit them.

    #[test]
    fn item_keys_are_what_readers_compute() {
        assert_eq!(ItemKey::partition("user%1:2").as_bytes(), b"user%1:2");
        assert_eq!(ItemKey::composite(b"user%1:2", b"seg:%9").as_bytes(), b"user%251%3A2:seg:%9");
        assert_eq!(ItemKey::composite(b"", b"").as_bytes(), b":");
        assert_eq!(cache_key("wc:", "profiles", b"user:1"), b"wc:profiles:user:1");
    }

    #[test]
    fn buckets_are_what_they_always_were() {
        // XXH3 works differently on inputs of up to 16, 128, 240 and more bytes: one of each. The values are
        // those of the reference implementation.
        let long = |len| "k".repeat(len);
        for (table, key, hash_top_32) in [
            ("profiles", String::new(), 0x576c_23d7_u32),
            ("profiles", "user-1".to_owned(), 0xb7d0_691e),
            ("segments", "user-1".to_owned(), 0x8021_7b9a),
            ("profiles", long(17), 0x4158_0115),
            ("profiles", long(130), 0xd694_6b8e),
            ("profiles", long(300), 0xff19_fc21),
        ] {
            let key = key.as_bytes();
            let top_31 = bucket(table, key, Buckets::new(1 << 31).unwrap());
            assert_eq!(top_31, hash_top_32 >> 1, "{table} {}", key.len());
            assert_eq!(bucket(table, key, Buckets::new(256).unwrap()), hash_top_32 >> 24);
            assert_eq!(bucket(table, key, Buckets::new(1).unwrap()), 0);
        }
    }

    #[test]
    fn explicit_hash_keys_are_what_they_always_were() {
        let hash_key =
            |bucket, buckets| explicit_hash_key(bucket, Buckets::new(buckets).unwrap()).to_string();
        assert_eq!(hash_key(0, 1), "170141183460469231731687303715884105728");
        assert_eq!(hash_key(0, 2), "85070591730234615865843651857942052864");
        assert_eq!(hash_key(1, 2), "255211775190703847597530955573826158592");
        assert_eq!(hash_key(255, 256), "339617752923046005526922703901628039168");
    }

    #[test]
    fn a_number_that_is_no_power_of_two_is_refused() {
        for count in [0, 3, 100, u32::MAX] {
            assert_eq!(Buckets::new(count), Err(BucketsError(count)));
        }
    }
}
