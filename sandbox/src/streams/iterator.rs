//! Shard iterators: opaque to clients, and checked when they come back.
//!
//! An iterator is a token, not state: the fake forgets it as soon as it is handed out, so any number can be out.

use std::hash::{DefaultHasher, Hasher as _};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::record::Sequence;

/// How long an iterator is good for (AWS: 15 minutes after it is returned).
pub(super) const LIFE_MS: u64 = 15 * 60 * 1000;

const SEPARATOR: &str = "|1|";
const POSITION_BYTES: usize = size_of::<Sequence>();
const TIME_BYTES: usize = size_of::<u64>();
const CHECKSUM_BYTES: usize = size_of::<u64>();

/// Where in which shard the next read starts, and when that was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ShardIterator {
    pub(super) stream: String,
    pub(super) shard: String,
    /// The next record is the first with this sequence number or a higher one.
    pub(super) position: Sequence,
    pub(super) made_ms: u64,
}

impl ShardIterator {
    pub(super) fn encode(&self) -> String {
        let mut payload = Vec::with_capacity(POSITION_BYTES + TIME_BYTES + CHECKSUM_BYTES + self.shard.len());
        payload.extend_from_slice(&self.position.to_be_bytes());
        payload.extend_from_slice(&self.made_ms.to_be_bytes());
        payload.extend_from_slice(self.shard.as_bytes());
        payload.extend_from_slice(&checksum(&self.stream, &payload));
        format!("{}{SEPARATOR}{}", self.stream, BASE64.encode(payload))
    }

    /// `None` for anything that [`encode`](Self::encode) did not make.
    pub(super) fn decode(token: &str) -> Option<Self> {
        let (stream, payload) = token.split_once(SEPARATOR)?;
        let payload = BASE64.decode(payload).ok()?;
        let (signed, sum) = payload.split_last_chunk::<CHECKSUM_BYTES>()?;
        if checksum(stream, signed) != *sum {
            return None;
        }
        let (position, rest) = signed.split_first_chunk::<POSITION_BYTES>()?;
        let (made, shard) = rest.split_first_chunk::<TIME_BYTES>()?;
        Some(Self {
            stream: stream.to_owned(),
            shard: std::str::from_utf8(shard).ok()?.to_owned(),
            position: Sequence::from_be_bytes(*position),
            made_ms: u64::from_be_bytes(*made),
        })
    }
}

fn checksum(stream: &str, payload: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut hasher = DefaultHasher::new();
    hasher.write(stream.as_bytes());
    hasher.write_u8(0);
    hasher.write(payload);
    hasher.finish().to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn iterator() -> ShardIterator {
        ShardIterator {
            stream: "arn:aws:dynamodb:us-east-1:123456789012:table/bids/stream/2026-01-01T00:00:00.000"
                .into(),
            shard: "shardId-00000001700000000000-0badcafe".into(),
            position: 100_000_000_000_000_000_000,
            made_ms: 1_700_000_000_000,
        }
    }

    #[test]
    fn a_token_says_what_it_was_made_of() {
        assert_eq!(ShardIterator::decode(&iterator().encode()), Some(iterator()));
    }

    #[test]
    fn a_token_changed_anywhere_is_refused() {
        let token = iterator().encode();
        for at in 0..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert_eq!(ShardIterator::decode(&changed), None, "{changed}");
        }
        assert_eq!(ShardIterator::decode(""), None);
        assert_eq!(ShardIterator::decode("arn|1|"), None);
    }
}
