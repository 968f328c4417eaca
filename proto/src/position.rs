//! Where a change stands in the history of its item.
//!
//! The cache takes a change only if its position is higher than the one it holds. A table that gets a new
//! stream starts a new series of sequence numbers, which need not be above the old ones: the generation, which
//! grows with each stream, orders the two.

use std::{fmt, str::FromStr};

use crate::{
    base36,
    sequence::{self, Sequence, SequenceError},
};

/// The largest generation: what 4 base-36 digits hold.
pub const GENERATION_MAX: u32 = 36u32.pow(4) - 1;

/// The width of the text form: 4 digits of generation, then 26 of sequence.
pub const TEXT_LEN: usize = GENERATION_LEN + sequence::TEXT_LEN;

const GENERATION_LEN: usize = 4;

/// Generation, then sequence: that is also its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position {
    generation: u32,
    sequence: Sequence,
}

/// Why something is not a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PositionError {
    /// The generation does not fit its 4 digits.
    #[error("generation {generation} is above {GENERATION_MAX}")]
    GenerationTooLarge {
        /// The generation given.
        generation: u32,
    },
    /// A text that is not exactly [`TEXT_LEN`] long.
    #[error("position text has a length of {len}, not {TEXT_LEN}")]
    TextLength {
        /// Bytes given.
        len: usize,
    },
    /// A byte of the generation is outside `[0-9a-z]`.
    #[error("generation has no base-36 digit at index {index}")]
    NotADigit {
        /// Index of the first such byte.
        index: usize,
    },
    /// The sequence part is wrong.
    #[error(transparent)]
    Sequence(#[from] SequenceError),
}

impl Position {
    /// Below every position of a change: as a floor it means that there is none.
    pub const ZERO: Self = Self { generation: 0, sequence: Sequence::ZERO };

    /// The highest position.
    pub const MAX: Self = Self { generation: GENERATION_MAX, sequence: Sequence::MAX };

    /// Joins the two parts.
    ///
    /// # Errors
    /// A generation above [`GENERATION_MAX`].
    pub const fn new(generation: u32, sequence: Sequence) -> Result<Self, PositionError> {
        if generation > GENERATION_MAX {
            return Err(PositionError::GenerationTooLarge { generation });
        }
        Ok(Self { generation, sequence })
    }

    /// Grows each time the table gets a new stream.
    #[must_use]
    pub const fn generation(self) -> u32 {
        self.generation
    }

    /// The sequence number within the generation.
    #[must_use]
    pub const fn sequence(self) -> Sequence {
        self.sequence
    }

    /// 30 base-36 digits `[0-9a-z]`: bytewise order is the order of positions, in every locale.
    #[must_use]
    pub fn to_text(self) -> [u8; TEXT_LEN] {
        let mut text = [b'0'; TEXT_LEN];
        let (generation, sequence) = text.split_at_mut(GENERATION_LEN);
        base36::encode(u64::from(self.generation), generation);
        sequence.copy_from_slice(&self.sequence.to_text());
        text
    }

    /// Reads the form of [`to_text`](Self::to_text).
    ///
    /// # Errors
    /// Another length than [`TEXT_LEN`], a byte outside `[0-9a-z]`, or too large a sequence number.
    pub fn from_text(text: &[u8]) -> Result<Self, PositionError> {
        let (generation, sequence) = match text.split_at_checked(GENERATION_LEN) {
            Some(parts) if text.len() == TEXT_LEN => parts,
            _ => return Err(PositionError::TextLength { len: text.len() }),
        };
        let generation = base36::decode(generation).map_err(|index| PositionError::NotADigit { index })?;
        let generation = u32::try_from(generation).unwrap_or(u32::MAX);
        Self::new(generation, Sequence::from_text(sequence)?)
    }
}

/// The text form of [`Position::to_text`].
impl fmt::Display for Position {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.to_text();
        formatter.pad(str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

/// The text form of [`Position::to_text`].
impl FromStr for Position {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Self, PositionError> {
        Self::from_text(text.as_bytes())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sequence::tests::any_sequence;

    pub(crate) fn any_position() -> impl Strategy<Value = Position> {
        (0..=GENERATION_MAX, any_sequence())
            .prop_map(|(generation, sequence)| Position::new(generation, sequence).unwrap())
    }

    proptest! {
        #[test]
        fn text_reads_back_and_sorts_as_positions_do(a in any_position(), b in any_position()) {
            prop_assert_eq!(Position::from_text(&a.to_text()), Ok(a));
            prop_assert_eq!(a.to_string().parse(), Ok(a));
            prop_assert_eq!(a.to_text().cmp(&b.to_text()), a.cmp(&b));
        }

        #[test]
        fn within_a_generation_the_sequence_decides(generation in 0..=GENERATION_MAX, a in any_sequence(), b in any_sequence()) {
            let (x, y) = (Position::new(generation, a).unwrap(), Position::new(generation, b).unwrap());
            prop_assert_eq!(x.cmp(&y), a.cmp(&b));
            prop_assert_eq!(x.to_text().cmp(&y.to_text()), a.cmp(&b));
        }

        #[test]
        fn garbage_is_refused_or_reads_back(text in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(position) = Position::from_text(&text) {
                prop_assert_eq!(&position.to_text(), text.as_slice());
            }
        }
    }

    #[test]
    fn a_newer_generation_is_above_every_sequence_of_the_older() {
        let older = Position::new(7, Sequence::MAX).unwrap();
        let newer = Position::new(8, Sequence::ZERO).unwrap();
        assert!(older < newer);
        assert!(older.to_text() < newer.to_text());
    }

    #[test]
    fn a_generation_beyond_four_digits_is_refused() {
        assert_eq!(
            Position::new(GENERATION_MAX + 1, Sequence::ZERO),
            Err(PositionError::GenerationTooLarge { generation: GENERATION_MAX + 1 })
        );
        assert_eq!(Position::MAX.to_string(), "zzzzcde0suu7bcgsn5rimwenzyeepr");
        assert_eq!(Position::ZERO.to_string(), "0".repeat(30));
    }

    #[test]
    fn bad_texts_say_what_is_wrong() {
        assert_eq!("zz".parse::<Position>(), Err(PositionError::TextLength { len: 2 }));
        assert_eq!("0".repeat(31).parse::<Position>(), Err(PositionError::TextLength { len: 31 }));
        assert_eq!(
            "0-00cde0suu7bcgsn5rimwenzyeepr".parse::<Position>(),
            Err(PositionError::NotADigit { index: 1 })
        );
        assert_eq!(
            "0000zzzzzzzzzzzzzzzzzzzzzzzzzz".parse::<Position>(),
            Err(PositionError::Sequence(SequenceError::TooLarge))
        );
    }
}
