//! The cache entry: what one Redis string holds.
//!
//! Readers in any language use this: one `GET`, then look at the first 40 bytes, all of them ASCII.
//! `docs/entry-format.md` has the same for readers of other languages, with test vectors.
//!
//! | bytes | what | content |
//! |---|---|---|
//! | 0 | version | `1`. Anything else is written by another version: treat the key as a miss. |
//! | 1 | kind | one letter, see below |
//! | 2..32 | position | 30 base-36 digits `[0-9a-z]`: 4 of generation, 26 of sequence number. The entry reflects every change of the item up to here (its *floor*). 30 times `0`: no floor. |
//! | 32..40 | time | 8 base-36 digits: milliseconds since the Unix epoch |
//! | 40..48 | expiry | of the kinds `x`, `y` and `n` only: 8 base-36 digits: milliseconds since the Unix epoch |
//! | then | payload | depends on the kind |
//!
//! | kind | meaning | a reader sees | time | payload |
//! |---|---|---|---|---|
//! | `l` live | the item's state, by the stream | the item | when the change was made in the master table | the item: an encoded protobuf `warmcast.v1.Item`, or one attribute's bytes, as the table's policy says |
//! | `x` live, with an expiry of the item's own | as `l` | the item; from the expiry on: known absent | as `l` | as `l` |
//! | `f` filled | the item's state, by a read of the master | the item | when that read began, on the Redis server's clock | as `l` |
//! | `y` filled, with an expiry of the item's own | as `f` | as `x` | as `f` | as `l` |
//! | `t` tombstone | deleted | known absent | when the deletion was made in the master table | empty |
//! | `n` negative | a fill found nothing | known absent; from the expiry on: a miss | as `f` | empty |
//! | `i` invalid | state unknown, the floor is kept | a miss | when the state became unknown | empty |
//! | `h` held | somebody is filling it, the floor is kept | a miss, being filled | the deadline of the fill, on the Redis server's clock | the fill's token |
//!
//! An expiry is the reader's to judge: an entry that holds a floor stays in the server beyond it. A value shorter
//! than its header, of another version, of an unknown kind, or with other characters in the position or a time is
//! not an entry: treat it as a miss. Positions of equal width compare byte by byte. Eight digits of time end in
//! the year 2059.

use crate::{
    base36,
    position::{self, Position, PositionError},
};

/// The length of the header of every kind; an expiry follows where the kind has one.
pub const HEADER_LEN: usize = 40;

/// The length of the header with an expiry.
pub const HEADER_LEN_MAX: usize = HEADER_LEN + TIME_LEN;

/// The first byte of every entry of this version.
pub const VERSION: u8 = b'1';

/// The latest time that the header holds: 36^8 - 1 ms, in the year 2059.
pub const TIME_MS_MAX: u64 = 36u64.pow(8) - 1;

/// Where the position stands in the header.
pub const POSITION_RANGE: std::ops::Range<usize> = 2..2 + position::TEXT_LEN;

const TIME_LEN: usize = 8;

const _: () = assert!(POSITION_RANGE.end + TIME_LEN == HEADER_LEN, "the fields fill the header");

/// What an entry says about its item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// The item's state is the payload, by the table's stream.
    Live,
    /// The item's state is the payload, by a read of the master table.
    Filled,
    /// Deleted at its position.
    Tombstone,
    /// A fill found nothing. It always has an expiry.
    Negative,
    /// State unknown, floor kept.
    Invalid,
    /// Being filled by the holder of the token in the payload, floor kept.
    Held,
}

/// What stands before an entry's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryHeader {
    kind: EntryKind,
    position: Position,
    time_ms: u64,
    expires_ms: Option<u64>,
}

/// The bytes of a header: 40, or 48 with an expiry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncodedHeader {
    bytes: [u8; HEADER_LEN_MAX],
    len: usize,
}

impl AsRef<[u8]> for EncodedHeader {
    fn as_ref(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&self.bytes)
    }
}

/// Why bytes are not an entry (a reader treats them as a miss), or a header cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// Shorter than a header.
    #[error("entry has {len} bytes, fewer than its header")]
    Truncated {
        /// Bytes given.
        len: usize,
    },
    /// Written by another version of this format, or not an entry at all.
    #[error("entry has version byte {version:#04x}, not {VERSION:#04x}")]
    UnsupportedVersion {
        /// The first byte.
        version: u8,
    },
    /// The kind is none of `l x f y t n i h`.
    #[error("entry has unknown kind byte {kind:#04x}")]
    UnknownKind {
        /// The second byte.
        kind: u8,
    },
    /// The position is not one.
    #[error("entry position: {0}")]
    Position(#[from] PositionError),
    /// The time has a character outside `[0-9a-z]`.
    #[error("entry time has no base-36 digit at index {index}")]
    TimeNotADigit {
        /// Index within the time.
        index: usize,
    },
    /// The time does not fit its 8 digits.
    #[error("entry time {time_ms} ms is above {TIME_MS_MAX} ms")]
    TimeTooLarge {
        /// The time given.
        time_ms: u64,
    },
    /// Only live, filled and negative entries have an expiry, and a negative one always has.
    #[error("an entry of kind {kind:?} has no form {} an expiry", if *with_expiry { "with" } else { "without" })]
    Expiry {
        /// The kind given.
        kind: EntryKind,
        /// Whether an expiry was given.
        with_expiry: bool,
    },
}

impl EntryKind {
    /// Its name, for people.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Filled => "filled",
            Self::Tombstone => "tombstone",
            Self::Negative => "negative",
            Self::Invalid => "invalid",
            Self::Held => "held",
        }
    }

    /// The letter of this kind, with or without an expiry; none: there is no such entry.
    const fn letter(self, with_expiry: bool) -> Option<u8> {
        Some(match (self, with_expiry) {
            (Self::Live, false) => b'l',
            (Self::Live, true) => b'x',
            (Self::Filled, false) => b'f',
            (Self::Filled, true) => b'y',
            (Self::Tombstone, false) => b't',
            (Self::Negative, true) => b'n',
            (Self::Invalid, false) => b'i',
            (Self::Held, false) => b'h',
            _ => return None,
        })
    }

    const fn from_letter(letter: u8) -> Option<(Self, bool)> {
        Some(match letter {
            b'l' => (Self::Live, false),
            b'x' => (Self::Live, true),
            b'f' => (Self::Filled, false),
            b'y' => (Self::Filled, true),
            b't' => (Self::Tombstone, false),
            b'n' => (Self::Negative, true),
            b'i' => (Self::Invalid, false),
            b'h' => (Self::Held, false),
            _ => return None,
        })
    }
}

impl EntryHeader {
    /// A header without an expiry. What `time_ms` means depends on the kind: see the module's table.
    ///
    /// # Errors
    /// A time above [`TIME_MS_MAX`], or a negative entry: it has an expiry.
    pub const fn new(kind: EntryKind, position: Position, time_ms: u64) -> Result<Self, EntryError> {
        Self::checked(Self { kind, position, time_ms, expires_ms: None })
    }

    /// The same header with an expiry.
    ///
    /// # Errors
    /// A time above [`TIME_MS_MAX`], or a kind that has no expiry.
    pub const fn expiring(
        kind: EntryKind,
        position: Position,
        time_ms: u64,
        expires_ms: u64,
    ) -> Result<Self, EntryError> {
        Self::checked(Self { kind, position, time_ms, expires_ms: Some(expires_ms) })
    }

    const fn checked(self) -> Result<Self, EntryError> {
        if self.time_ms > TIME_MS_MAX {
            return Err(EntryError::TimeTooLarge { time_ms: self.time_ms });
        }
        if let Some(time_ms) = self.expires_ms
            && time_ms > TIME_MS_MAX
        {
            return Err(EntryError::TimeTooLarge { time_ms });
        }
        let with_expiry = self.expires_ms.is_some();
        if self.kind.letter(with_expiry).is_none() {
            return Err(EntryError::Expiry { kind: self.kind, with_expiry });
        }
        Ok(self)
    }

    /// What the entry says about its item.
    #[must_use]
    pub const fn kind(self) -> EntryKind {
        self.kind
    }

    /// The floor: the entry reflects every change up to here. [`Position::ZERO`]: none.
    #[must_use]
    pub const fn position(self) -> Position {
        self.position
    }

    /// Milliseconds since the Unix epoch; what of, depends on the kind.
    #[must_use]
    pub const fn time_ms(self) -> u64 {
        self.time_ms
    }

    /// From when on the item is absent (live, filled) or the entry is no longer believed (negative), in
    /// milliseconds since the Unix epoch.
    #[must_use]
    pub const fn expires_ms(self) -> Option<u64> {
        self.expires_ms
    }

    /// Its expiry is past at `now_ms`.
    #[must_use]
    pub fn is_expired(self, now_ms: u64) -> bool {
        self.expires_ms.is_some_and(|expires_ms| expires_ms <= now_ms)
    }

    /// The header's bytes; the payload follows them.
    #[must_use]
    pub fn encode(self) -> EncodedHeader {
        let mut bytes = [VERSION; HEADER_LEN_MAX];
        let (prefix, rest) = bytes.split_at_mut(POSITION_RANGE.start);
        let (position, times) = rest.split_at_mut(position::TEXT_LEN);
        let (time, expiry) = times.split_at_mut(TIME_LEN);
        // Every header was checked to have a letter.
        let letter = self.kind.letter(self.expires_ms.is_some()).unwrap_or(b'i');
        prefix.copy_from_slice(&[VERSION, letter]);
        position.copy_from_slice(&self.position.to_text());
        base36::encode(self.time_ms, time);
        base36::encode(self.expires_ms.unwrap_or_default(), expiry);
        EncodedHeader { bytes, len: if self.expires_ms.is_some() { HEADER_LEN_MAX } else { HEADER_LEN } }
    }

    /// Splits an entry into its header and its payload.
    ///
    /// # Errors
    /// The bytes are not an entry of this version.
    pub fn decode(entry: &[u8]) -> Result<(Self, &[u8]), EntryError> {
        let Some((&[version, kind, ref fields @ ..], payload)) = entry.split_first_chunk::<HEADER_LEN>()
        else {
            return Err(EntryError::Truncated { len: entry.len() });
        };
        if version != VERSION {
            return Err(EntryError::UnsupportedVersion { version });
        }
        let (kind, with_expiry) = EntryKind::from_letter(kind).ok_or(EntryError::UnknownKind { kind })?;
        let (position, time) = fields.split_at(position::TEXT_LEN);
        let position = Position::from_text(position)?;
        let time_ms = decode_time(time)?;
        if !with_expiry {
            return Ok((Self { kind, position, time_ms, expires_ms: None }, payload));
        }
        let Some((expiry, payload)) = payload.split_first_chunk::<TIME_LEN>() else {
            return Err(EntryError::Truncated { len: entry.len() });
        };
        let expires_ms = Some(decode_time(expiry)?);
        Ok((Self { kind, position, time_ms, expires_ms }, payload))
    }
}

fn decode_time(digits: &[u8]) -> Result<u64, EntryError> {
    base36::decode(digits).map_err(|index| EntryError::TimeNotADigit { index })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::position::tests::any_position;

    fn any_header() -> impl Strategy<Value = EntryHeader> {
        let form = prop_oneof![
            Just((EntryKind::Live, false)),
            Just((EntryKind::Live, true)),
            Just((EntryKind::Filled, false)),
            Just((EntryKind::Filled, true)),
            Just((EntryKind::Tombstone, false)),
            Just((EntryKind::Negative, true)),
            Just((EntryKind::Invalid, false)),
            Just((EntryKind::Held, false))
        ];
        (form, any_position(), 0..=TIME_MS_MAX, 0..=TIME_MS_MAX).prop_map(
            |((kind, with_expiry), position, time_ms, expires_ms)| match with_expiry {
                false => EntryHeader::new(kind, position, time_ms).unwrap(),
                true => EntryHeader::expiring(kind, position, time_ms, expires_ms).unwrap(),
            },
        )
    }

    proptest! {
        #[test]
        fn entries_read_back(header in any_header(), payload in prop::collection::vec(any::<u8>(), 0..100)) {
            let mut entry = header.encode().as_ref().to_vec();
            prop_assert!(entry.is_ascii());
            entry.extend_from_slice(&payload);
            prop_assert_eq!(EntryHeader::decode(&entry), Ok((header, payload.as_slice())));
        }

        #[test]
        fn the_position_of_an_encoded_header_sorts_as_positions_do(a in any_header(), b in any_header()) {
            prop_assert_eq!(
                a.encode().as_ref()[POSITION_RANGE].cmp(&b.encode().as_ref()[POSITION_RANGE]),
                a.position().cmp(&b.position())
            );
        }

        #[test]
        fn every_truncated_header_is_refused(header in any_header(), cut in 1..=HEADER_LEN_MAX) {
            let entry = header.encode();
            let len = entry.as_ref().len().saturating_sub(cut);
            prop_assert_eq!(EntryHeader::decode(&entry.as_ref()[..len]), Err(EntryError::Truncated { len }));
        }

        #[test]
        fn a_damaged_header_is_refused_or_reads_back(header in any_header(), index in 0..HEADER_LEN, byte in any::<u8>()) {
            let mut entry = header.encode().as_ref().to_vec();
            entry[index] = byte;
            if let Ok((header, payload)) = EntryHeader::decode(&entry) {
                prop_assert_eq!([header.encode().as_ref(), payload].concat(), entry);
            }
        }

        #[test]
        fn garbage_never_panics(entry in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = EntryHeader::decode(&entry);
        }
    }

    #[test]
    fn entries_are_what_readers_in_other_languages_expect() {
        let position = Position::new(1, "4107372200000000044281155203".parse().unwrap()).unwrap();
        let header = EntryHeader::new(EntryKind::Live, position, 1_784_000_000_000).unwrap();
        let text = |header: EntryHeader| String::from_utf8(header.encode().as_ref().to_vec()).unwrap();
        assert_eq!(text(header), "1l000100000000ec36hl3hrkye850877mrk3jdvk");
        let expiring =
            EntryHeader::expiring(EntryKind::Live, position, 1_784_000_000_000, 1_784_000_000_001).unwrap();
        assert_eq!(text(expiring), "1x000100000000ec36hl3hrkye850877mrk3jdvkmrk3jdvl");
        assert!(!expiring.is_expired(1_784_000_000_000) && expiring.is_expired(1_784_000_000_001));
    }

    #[test]
    fn only_what_can_expire_has_an_expiry() {
        for kind in [EntryKind::Tombstone, EntryKind::Invalid, EntryKind::Held] {
            let error = EntryHeader::expiring(kind, Position::ZERO, 1, 1).unwrap_err();
            assert_eq!(error, EntryError::Expiry { kind, with_expiry: true });
        }
        assert!(EntryHeader::new(EntryKind::Negative, Position::ZERO, 1).is_err());
    }

    #[test]
    fn each_field_out_of_range_has_its_own_error() {
        let header = EntryHeader::new(EntryKind::Held, Position::MAX, TIME_MS_MAX).unwrap().encode();
        let with = |index: usize, byte| {
            let mut entry = header.as_ref().to_vec();
            entry[index] = byte;
            EntryHeader::decode(&entry).map(|_| ()).unwrap_err()
        };
        assert_eq!(with(0, b'2'), EntryError::UnsupportedVersion { version: b'2' });
        assert_eq!(with(1, b'L'), EntryError::UnknownKind { kind: b'L' });
        assert!(matches!(with(2, b'-'), EntryError::Position(_)));
        assert_eq!(with(39, b'Z'), EntryError::TimeNotADigit { index: 7 });
        assert_eq!(
            EntryHeader::new(EntryKind::Live, Position::ZERO, TIME_MS_MAX + 1),
            Err(EntryError::TimeTooLarge { time_ms: TIME_MS_MAX + 1 })
        );
    }
}
