//! The cache entry: what one Redis string holds.
//!
//! Readers in any language use this: one `GET`, then look at the first 40 bytes, all of them ASCII.
//!
//! | bytes | what | content |
//! |---|---|---|
//! | 0 | version | `1`. Anything else is written by another version: treat the key as a miss. |
//! | 1 | kind | one letter, see below |
//! | 2..32 | position | 30 base-36 digits `[0-9a-z]`: 4 of generation, 26 of sequence number. The entry reflects every change of the item up to here (its *floor*). 30 times `0`: no floor. |
//! | 32..40 | time | 8 base-36 digits: milliseconds since the Unix epoch |
//! | 40.. | payload | depends on the kind |
//!
//! | kind | meaning | a reader sees | time | payload |
//! |---|---|---|---|---|
//! | `l` live | the item's state | the item | when the change was made in the master table (by stream), or when the master was read (by fill) | the item: an encoded protobuf `warmcast.v1.Item` |
//! | `t` tombstone | deleted | known absent | when the deletion was made in the master table | empty |
//! | `n` negative | a fill found nothing | known absent | when the master was read | empty |
//! | `i` invalid | state unknown, the floor is kept | a miss | when the change that made it unknown was made in the master table | empty |
//! | `h` held | somebody is filling it, the floor is kept | a miss, being filled | the deadline of the fill, on the Redis server's clock | the fill's token |
//!
//! A value shorter than 40 bytes, of another version, of an unknown kind, or with other characters in
//! the position or the time is not an entry: treat it as a miss. Positions of equal width compare byte by byte.
//! Eight digits of time end in the year 2059.

use crate::{
    base36,
    position::{self, Position, PositionError},
};

/// The length of the header.
pub const HEADER_LEN: usize = 40;

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
    /// The item's state is the payload.
    Live,
    /// Deleted at its position.
    Tombstone,
    /// A fill found nothing.
    Negative,
    /// State unknown, floor kept.
    Invalid,
    /// Being filled by the holder of the token in the payload, floor kept.
    Held,
}

/// The first 40 bytes of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryHeader {
    kind: EntryKind,
    position: Position,
    time_ms: u64,
}

/// Why bytes are not an entry (a reader treats them as a miss), or a header cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// Shorter than a header.
    #[error("entry has {len} bytes, fewer than the {HEADER_LEN} of its header")]
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
    /// The kind is none of `l t n i h`.
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
}

impl EntryKind {
    const fn to_byte(self) -> u8 {
        match self {
            Self::Live => b'l',
            Self::Tombstone => b't',
            Self::Negative => b'n',
            Self::Invalid => b'i',
            Self::Held => b'h',
        }
    }

    const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            b'l' => Some(Self::Live),
            b't' => Some(Self::Tombstone),
            b'n' => Some(Self::Negative),
            b'i' => Some(Self::Invalid),
            b'h' => Some(Self::Held),
            _ => None,
        }
    }
}

impl EntryHeader {
    /// Joins the parts. What `time_ms` means depends on the kind: see the module's table.
    ///
    /// # Errors
    /// A time above [`TIME_MS_MAX`].
    pub const fn new(kind: EntryKind, position: Position, time_ms: u64) -> Result<Self, EntryError> {
        if time_ms > TIME_MS_MAX {
            return Err(EntryError::TimeTooLarge { time_ms });
        }
        Ok(Self { kind, position, time_ms })
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

    /// The header's bytes; the payload follows them.
    #[must_use]
    pub fn encode(self) -> [u8; HEADER_LEN] {
        let mut header = [VERSION; HEADER_LEN];
        let (prefix, rest) = header.split_at_mut(POSITION_RANGE.start);
        let (position, time) = rest.split_at_mut(position::TEXT_LEN);
        prefix.copy_from_slice(&[VERSION, self.kind.to_byte()]);
        position.copy_from_slice(&self.position.to_text());
        base36::encode(self.time_ms, time);
        header
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
        let kind = EntryKind::from_byte(kind).ok_or(EntryError::UnknownKind { kind })?;
        let (position, time) = fields.split_at(position::TEXT_LEN);
        let position = Position::from_text(position)?;
        let time_ms = base36::decode(time).map_err(|index| EntryError::TimeNotADigit { index })?;
        Ok((Self { kind, position, time_ms }, payload))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::position::tests::any_position;

    fn any_header() -> impl Strategy<Value = EntryHeader> {
        let kind = prop_oneof![
            Just(EntryKind::Live),
            Just(EntryKind::Tombstone),
            Just(EntryKind::Negative),
            Just(EntryKind::Invalid),
            Just(EntryKind::Held)
        ];
        (kind, any_position(), 0..=TIME_MS_MAX)
            .prop_map(|(kind, position, time_ms)| EntryHeader::new(kind, position, time_ms).unwrap())
    }

    proptest! {
        #[test]
        fn entries_read_back(header in any_header(), payload in prop::collection::vec(any::<u8>(), 0..100)) {
            let mut entry = header.encode().to_vec();
            entry.extend_from_slice(&payload);
            prop_assert!(entry[..HEADER_LEN].is_ascii());
            prop_assert_eq!(EntryHeader::decode(&entry), Ok((header, payload.as_slice())));
        }

        #[test]
        fn the_position_of_an_encoded_header_sorts_as_positions_do(a in any_header(), b in any_header()) {
            prop_assert_eq!(a.encode()[POSITION_RANGE].cmp(&b.encode()[POSITION_RANGE]), a.position().cmp(&b.position()));
        }

        #[test]
        fn every_truncated_header_is_refused(header in any_header(), len in 0..HEADER_LEN) {
            let entry = header.encode();
            prop_assert_eq!(EntryHeader::decode(&entry[..len]), Err(EntryError::Truncated { len }));
        }

        #[test]
        fn a_damaged_header_is_refused_or_reads_back(header in any_header(), index in 0..HEADER_LEN, byte in any::<u8>()) {
            let mut entry = header.encode();
            entry[index] = byte;
            if let Ok((header, _)) = EntryHeader::decode(&entry) {
                prop_assert_eq!(header.encode(), entry);
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
        assert_eq!(str::from_utf8(&header.encode()).unwrap(), "1l000100000000ec36hl3hrkye850877mrk3jdvk",);
    }

    #[test]
    fn each_field_out_of_range_has_its_own_error() {
        let header = EntryHeader::new(EntryKind::Held, Position::MAX, TIME_MS_MAX).unwrap().encode();
        let with = |index: usize, byte| {
            let mut entry = header;
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
