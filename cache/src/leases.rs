//! Fills: after a miss, one caller takes the right to fill the key, reads the master table, and fills.
//!
//! What makes it safe without the master telling a position: whatever comes in between (a change, an invalidation,
//! another fill, an eviction) voids the token, and the fill is refused (rules 2 and 3 of the cache protocol).

use std::{fmt, time::Duration};

use bytes::Bytes;
use redis::Value;
use tokio::time::Instant;
use warmcast_proto::{
    entry::{EntryHeader, EntryKind},
    position::Position,
};

use crate::{
    apply::live_ttl,
    cache::{Cache, ItemRef},
    call::{Arguments, Call, Entry, duration_ms},
    outcome::{CacheError, Refusal},
    policy::{FLOOR_TTL, TablePolicy},
    shape::Shaped,
};

/// How much longer than it is held a held entry without a floor stays, so that a fill a little late still lands.
const HELD_LINGER: Duration = Duration::from_secs(10);

/// The right to fill one key.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    digits: [u8; 32],
    taken_ms: u64,
}

impl Token {
    /// When it was taken, on the clock of the key's server, ms since the epoch: before the master is read.
    #[must_use]
    pub const fn taken_ms(&self) -> u64 {
        self.taken_ms
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Token").field("taken_ms", &self.taken_ms).finish_non_exhaustive()
    }
}

/// What became of an attempt to take a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Acquired {
    /// It is taken: read the master table, then fill.
    Token(Token),
    /// Another is filling it.
    Busy,
    /// There is an entry to be read; these are its bytes.
    Present(Bytes),
}

/// What a read of the master table found for a key that was taken.
#[derive(Clone, Debug)]
pub struct Fill<'a> {
    /// The item.
    pub item: ItemRef<'a>,
    /// The token, taken before the read began.
    pub token: &'a Token,
    /// The item as its table's policy shapes it; none: the master has no such item.
    pub found: Option<Shaped>,
}

/// What became of a fill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Filled {
    /// Written.
    Written,
    /// Something came in between: what the cache has, if anything, is newer.
    Refused,
}

/// What became of an invalidation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Invalidated {
    /// The entry is invalid.
    Done,
    /// There was none, which is a miss already.
    Nothing,
}

impl Cache {
    /// Tries to take keys that readers missed, each for `hold` (at least a millisecond): for so long nobody else
    /// takes them. A fill may still land a little later.
    ///
    /// Then read the items with strong consistency (AWS: `ConsistentRead`) from the very tables whose streams feed
    /// this cache. A read begun before, an eventually consistent one, an index or a replica table would break what
    /// the token stands for.
    pub async fn acquire(&self, keys: &[ItemRef<'_>], hold: Duration) -> Vec<Result<Acquired, CacheError>> {
        let tokens: Vec<[u8; 32]> = keys.iter().map(|_| new_token()).collect();
        let calls = keys.iter().zip(&tokens).map(|(item, token)| {
            let arguments = Arguments::Acquire {
                token,
                hold_ms: duration_ms(hold).max(1),
                ttl_ms: duration_ms(hold + HELD_LINGER),
                floor_ttl_ms: duration_ms(FLOOR_TTL),
            };
            Ok(Call::new(self.key(self.policy(item.table), *item)?, arguments))
        });
        let read = |index: usize, value: &Value| acquired(tokens.get(index)?, value);
        self.send(calls, self.unfenced(), read).await
    }

    /// Fills keys that were taken, with what the master table had.
    ///
    /// An entry above `value_bytes_max` is answered with [`CacheError::Refused`]; the key is free again when its
    /// hold is over. A fill that was answered with [`CacheError::Unavailable`] may be sent again.
    pub async fn fill(&self, fills: &[Fill<'_>]) -> Vec<Result<Filled, CacheError>> {
        let calls = fills.iter().map(|fill| {
            let policy = self.policy(fill.item.table);
            let arguments = fill_arguments(policy, fill, self.config().value_bytes_max)?;
            Ok(Call::new(self.key(policy, fill.item)?, arguments))
        });
        let filled = |_, value: &Value| match value {
            Value::Int(1) => Some(Filled::Written),
            Value::Int(0) => Some(Filled::Refused),
            _ => None,
        };
        self.send(calls, self.unfenced(), filled).await
    }

    /// Makes readers miss these keys, whatever the cache holds for them; their floors stay. For operators, and for
    /// whoever doubts an entry.
    ///
    /// Not for a change that cannot be applied: where nothing is there, this leaves no trace of it, and a fill or a
    /// backfill under way would not see it. Apply that as [`ChangeKind::Invalidate`](warmcast_proto::change::ChangeKind::Invalidate).
    pub async fn invalidate(&self, keys: &[ItemRef<'_>]) -> Vec<Result<Invalidated, CacheError>> {
        let calls = keys.iter().map(|item| {
            let arguments = Arguments::Invalidate { ttl_ms: duration_ms(FLOOR_TTL) };
            Ok(Call::new(self.key(self.policy(item.table), *item)?, arguments))
        });
        let invalidated = |_, value: &Value| match value {
            Value::Int(1) => Some(Invalidated::Done),
            Value::Int(0) => Some(Invalidated::Nothing),
            _ => None,
        };
        self.send(calls, self.unfenced(), invalidated).await
    }

    /// A deadline for calls that need none: their scripts do not ask.
    pub(crate) fn unfenced(&self) -> Instant {
        Instant::now() + self.config().apply_deadline
    }
}

/// 16 random bytes in hex: nobody else has them.
fn new_token() -> [u8; 32] {
    let mut digits = [0; 32];
    for (pair, byte) in digits.as_chunks_mut::<2>().0.iter_mut().zip(rand::random::<[u8; 16]>()) {
        let digit = |value: u8| if value < 10 { b'0' + value } else { b'a' + value - 10 };
        *pair = [digit(byte >> 4), digit(byte & 15)];
    }
    digits
}

fn acquired(token: &[u8; 32], value: &Value) -> Option<Acquired> {
    let Value::Array(parts) = value else {
        return None;
    };
    match parts.as_slice() {
        [Value::Int(1), Value::Int(now_ms)] => {
            Some(Acquired::Token(Token { digits: *token, taken_ms: u64::try_from(*now_ms).ok()? }))
        }
        [Value::Int(2)] => Some(Acquired::Busy),
        [Value::Int(3), Value::BulkString(entry)] => Some(Acquired::Present(Bytes::copy_from_slice(entry))),
        _ => None,
    }
}

fn fill_arguments<'a>(
    policy: &TablePolicy,
    fill: &Fill<'a>,
    value_bytes_max: usize,
) -> Result<Arguments<'a>, Refusal> {
    let taken_ms = fill.token.taken_ms;
    let (header, payload, ttl, floored_ttl) = match &fill.found {
        Some(shaped) => {
            let ttl = live_ttl(policy, shaped);
            (filled_header(shaped, taken_ms)?, shaped.payload.clone(), ttl, ttl)
        }
        None => {
            let until_ms = taken_ms.saturating_add(duration_ms(policy.negative_ttl));
            let header = EntryHeader::expiring(EntryKind::Negative, Position::ZERO, taken_ms, until_ms);
            // One that is believed for no time at all goes at once.
            let ttl = policy.negative_ttl.max(Duration::from_millis(1));
            (header.map_err(Refusal::Header)?, Bytes::new(), Some(ttl), Some(FLOOR_TTL))
        }
    };
    Ok(Arguments::Fill {
        token: &fill.token.digits,
        entry: Entry::new(header, payload, value_bytes_max)?,
        ttl_ms: ttl.map_or(0, duration_ms),
        floored_ttl_ms: floored_ttl.map_or(0, duration_ms),
    })
}

/// The header of an item that a read of the master found, which began at `read_ms` on the server's clock.
pub(crate) fn filled_header(shaped: &Shaped, read_ms: u64) -> Result<EntryHeader, Refusal> {
    match shaped.expires_ms {
        Some(expires_ms) => EntryHeader::expiring(EntryKind::Filled, Position::ZERO, read_ms, expires_ms),
        None => EntryHeader::new(EntryKind::Filled, Position::ZERO, read_ms),
    }
    .map_err(Refusal::Header)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn tokens_are_hex_digits_and_differ() {
        let tokens: HashSet<[u8; 32]> = (0..1_000).map(|_| new_token()).collect();
        assert_eq!(tokens.len(), 1_000);
        assert!(tokens.iter().flatten().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')));
    }

    #[test]
    fn answers_that_the_script_does_not_give_are_none() {
        let digits = new_token();
        let number = |number| Value::Int(number);
        let taken = acquired(&digits, &Value::Array(vec![number(1), number(7)]));
        assert_eq!(taken, Some(Acquired::Token(Token { digits, taken_ms: 7 })));
        for parts in [vec![], vec![number(1)], vec![number(1), number(-1)], vec![number(3), number(1)]] {
            assert_eq!(acquired(&digits, &Value::Array(parts)), None);
        }
        assert_eq!(acquired(&digits, &number(1)), None);
    }

    #[test]
    fn a_token_is_not_shown() {
        let token = Token { digits: [b'f'; 32], taken_ms: 7 };
        assert_eq!(format!("{token:?}"), "Token { taken_ms: 7, .. }");
    }
}
