//! An entry's header as a reader needs it. Pure.
//!
//! Readers do not compare positions, so the position's digits are looked at and its number is left alone: that is most
//! of what [`EntryHeader::decode`](warmcast_proto::entry::EntryHeader::decode) costs, and a bidder's call decodes
//! dozens of headers. Readers in other languages do the same.

use warmcast_proto::entry::{EntryKind, HEADER_LEN, POSITION_RANGE, VERSION};

const TIME_LEN: usize = HEADER_LEN - POSITION_RANGE.end;

/// What stands before an entry's payload, but for the position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Glance {
    pub(crate) kind: EntryKind,
    pub(crate) time_ms: u64,
    pub(crate) expires_ms: Option<u64>,
    /// Where the payload begins.
    pub(crate) header_len: usize,
}

/// Nothing: it is not an entry of this version.
pub(crate) fn glance(entry: &[u8]) -> Option<Glance> {
    let (&[version, letter, ref fields @ ..], rest) = entry.split_first_chunk::<HEADER_LEN>()?;
    if version != VERSION {
        return None;
    }
    let (kind, with_expiry) = match letter {
        b'l' => (EntryKind::Live, false),
        b'x' => (EntryKind::Live, true),
        b'f' => (EntryKind::Filled, false),
        b'y' => (EntryKind::Filled, true),
        b't' => (EntryKind::Tombstone, false),
        b'n' => (EntryKind::Negative, true),
        b'i' => (EntryKind::Invalid, false),
        b'h' => (EntryKind::Held, false),
        _ => return None,
    };
    let (position, time) = fields.split_last_chunk::<TIME_LEN>()?;
    // No early end: it is all digits but for damage.
    if !position.iter().fold(true, |is_right, byte| is_right & is_digit(*byte)) {
        return None;
    }
    let time_ms = number(time)?;
    if !with_expiry {
        return Some(Glance { kind, time_ms, expires_ms: None, header_len: HEADER_LEN });
    }
    let expires_ms = Some(number(rest.first_chunk()?)?);
    Some(Glance { kind, time_ms, expires_ms, header_len: HEADER_LEN + TIME_LEN })
}

const fn is_digit(byte: u8) -> bool {
    byte.is_ascii_digit() | byte.is_ascii_lowercase()
}

/// Base 36.
fn number(digits: &[u8; TIME_LEN]) -> Option<u64> {
    digits.iter().try_fold(0, |value, byte| {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'z' => byte - b'a' + 10,
            _ => return None,
        };
        Some(value * 36 + u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use warmcast_proto::{
        entry::{EntryHeader, TIME_MS_MAX},
        position::Position,
    };

    use super::*;

    fn agrees(entry: &[u8]) -> Result<(), TestCaseError> {
        let glanced = glance(entry);
        match EntryHeader::decode(entry) {
            Ok((header, payload)) => {
                let expected = Glance {
                    kind: header.kind(),
                    time_ms: header.time_ms(),
                    expires_ms: header.expires_ms(),
                    header_len: entry.len() - payload.len(),
                };
                prop_assert_eq!(glanced, Some(expected));
            }
            // Of digits, but beyond the largest position: no writer makes it, and no reader compares it.
            Err(warmcast_proto::entry::EntryError::Position(error)) if glanced.is_some() => {
                prop_assert!(entry[POSITION_RANGE].iter().all(|byte| is_digit(*byte)), "{}", error);
            }
            Err(error) => prop_assert_eq!(glanced, None, "{}", error),
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn it_sees_what_the_whole_header_says_whatever_is_damaged(
            letter in prop::sample::select(b"lxfytnih".to_vec()),
            times in (0..=TIME_MS_MAX, 0..=TIME_MS_MAX),
            damage in prop::option::of((0..60usize, any::<u8>())),
            len in 0..60usize,
        ) {
            let header = EntryHeader::expiring(EntryKind::Live, Position::MAX, times.0, times.1).unwrap();
            let mut entry = [header.encode().as_ref(), b"payload-of-it"].concat();
            entry[1] = letter;
            agrees(&entry)?;
            agrees(&entry[..len.min(entry.len())])?;
            if let Some((index, byte)) = damage {
                let index = index.min(entry.len() - 1);
                entry[index] = byte;
            }
            agrees(&entry)?;
        }
    }
}
