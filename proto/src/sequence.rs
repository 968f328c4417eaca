//! The DynamoDB Streams SequenceNumber as a number.
//!
//! It has 1 to 40 decimal digits and no fixed width, so neither its text nor a double nor a `u128`
//! (38 digits) orders it. [`Sequence`] holds it exactly, orders it as a number, and writes it in three forms:
//! decimal (as AWS does), minimal big-endian bytes (in frames), and 26 base-36 digits (in cache entries and
//! checkpoints, where texts are compared byte by byte).

use std::{fmt, str::FromStr};

use crate::base36;

/// The most decimal digits of a sequence number (AWS: DynamoDB Streams, `StreamRecord.SequenceNumber`).
pub const DECIMAL_DIGITS_MAX: usize = 40;

/// The width of the base-36 text: 36^26 is the first power of 36 above 10^40.
pub const TEXT_LEN: usize = 26;

/// The most bytes of the big-endian form: 10^40 is below 2^136.
pub const BE_BYTES_MAX: usize = 17;

/// A DynamoDB Streams SequenceNumber: 0 to 10^40 - 1, in numeric order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Sequence {
    // The derived order compares the fields from the top: high first makes it numeric.
    high: u8,
    low: u128,
}

/// Why a text or bytes are not a sequence number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SequenceError {
    /// The text has no digits.
    #[error("sequence number is empty")]
    Empty,
    /// A character is not a digit of the form's base.
    #[error("sequence number has no digit at index {index}")]
    NotADigit {
        /// Index of the first such byte.
        index: usize,
    },
    /// More digits or bytes than the form allows.
    #[error("sequence number has a length of {len}, above {len_max}")]
    TooLong {
        /// Digits or bytes given.
        len: usize,
        /// The most that the form allows.
        len_max: usize,
    },
    /// A base-36 text that is not exactly [`TEXT_LEN`] long.
    #[error("sequence text has a length of {len}, not {TEXT_LEN}")]
    TextLength {
        /// Bytes given.
        len: usize,
    },
    /// Big-endian bytes that start with a zero byte: the same number would have two forms.
    #[error("sequence bytes start with a zero byte")]
    LeadingZeroByte,
    /// The number has more than 40 decimal digits.
    #[error("sequence number is above 10^40 - 1")]
    TooLarge,
}

impl Sequence {
    /// 0, below every sequence number that DynamoDB hands out.
    pub const ZERO: Self = Self { high: 0, low: 0 };

    /// 10^40 - 1.
    pub const MAX: Self = {
        const CHUNK: u64 = 10u64.pow(10);
        let mut value = Self::ZERO;
        let mut chunks = 0;
        while chunks < 4 {
            value = value.mul_add(CHUNK, CHUNK - 1);
            chunks += 1;
        }
        value
    };

    /// The minimal big-endian form is the last [`be_len`](Self::be_len) bytes of this array.
    #[must_use]
    pub fn to_be_bytes(self) -> [u8; BE_BYTES_MAX] {
        let mut bytes = [0; BE_BYTES_MAX];
        let (high, low) = bytes.split_at_mut(1);
        high.copy_from_slice(&[self.high]);
        low.copy_from_slice(&self.low.to_be_bytes());
        bytes
    }

    /// How many bytes the number takes without leading zero bytes: 0 to [`BE_BYTES_MAX`].
    #[must_use]
    pub fn be_len(self) -> usize {
        if self.high > 0 { BE_BYTES_MAX } else { 16 - self.low.leading_zeros() as usize / 8 }
    }

    /// Reads a big-endian number without leading zero bytes; no bytes are 0.
    ///
    /// # Errors
    /// More than [`BE_BYTES_MAX`] bytes, a leading zero byte, or a number above [`MAX`](Self::MAX).
    pub fn from_be_bytes(bytes: &[u8]) -> Result<Self, SequenceError> {
        if bytes.len() > BE_BYTES_MAX {
            return Err(SequenceError::TooLong { len: bytes.len(), len_max: BE_BYTES_MAX });
        }
        if bytes.first() == Some(&0) {
            return Err(SequenceError::LeadingZeroByte);
        }
        let mut value = Self::ZERO;
        for byte in bytes {
            value = value.mul_add(256, *byte as u64);
        }
        value.checked()
    }

    /// 26 base-36 digits `[0-9a-z]`, leading zeros included: bytewise order is numeric order.
    #[must_use]
    pub fn to_text(self) -> [u8; TEXT_LEN] {
        let mut text = [b'0'; TEXT_LEN];
        let mut rest = self;
        for chunk in text.rchunks_mut(base36::CHUNK_DIGITS) {
            let (quotient, remainder) = rest.div_rem(base36::CHUNK_RADIX);
            base36::encode(remainder, chunk);
            rest = quotient;
        }
        text
    }

    /// Reads the form of [`to_text`](Self::to_text).
    ///
    /// # Errors
    /// Another length than [`TEXT_LEN`], a byte outside `[0-9a-z]`, or a number above [`MAX`](Self::MAX).
    pub fn from_text(text: &[u8]) -> Result<Self, SequenceError> {
        if text.len() != TEXT_LEN {
            return Err(SequenceError::TextLength { len: text.len() });
        }
        let mut value = Self::ZERO;
        for (chunk_index, chunk) in text.chunks(base36::CHUNK_DIGITS).enumerate() {
            let digits = base36::decode(chunk).map_err(|index| SequenceError::NotADigit {
                index: chunk_index * base36::CHUNK_DIGITS + index,
            })?;
            let radix = if chunk.len() == base36::CHUNK_DIGITS { base36::CHUNK_RADIX } else { 36 * 36 };
            value = value.mul_add(radix, digits);
        }
        value.checked()
    }

    fn checked(self) -> Result<Self, SequenceError> {
        if self > Self::MAX { Err(SequenceError::TooLarge) } else { Ok(self) }
    }

    /// `self * factor + term`. Callers keep the result below 2^136: every form's width bounds it.
    #[expect(clippy::cast_possible_truncation, reason = "the callers' widths keep the result below 2^136")]
    const fn mul_add(self, factor: u64, term: u64) -> Self {
        const LOW_64: u128 = u64::MAX as u128;
        let bottom = (self.low & LOW_64) * factor as u128 + term as u128;
        let middle = (self.low >> 64) * factor as u128 + (bottom >> 64);
        let top = self.high as u128 * factor as u128 + (middle >> 64);
        debug_assert!(top <= u8::MAX as u128, "a sequence number overflows 136 bits");
        Self { high: top as u8, low: (middle << 64) | (bottom & LOW_64) }
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "remainders are below the u64 divisor, quotients shrink"
    )]
    const fn div_rem(self, divisor: u64) -> (Self, u64) {
        const LOW_64: u128 = u64::MAX as u128;
        let divisor = divisor as u128;
        let high = self.high as u128;
        let middle = ((high % divisor) << 64) | (self.low >> 64);
        let bottom = ((middle % divisor) << 64) | (self.low & LOW_64);
        let quotient =
            Self { high: (high / divisor) as u8, low: ((middle / divisor) << 64) | (bottom / divisor) };
        (quotient, (bottom % divisor) as u64)
    }
}

/// Decimal, as AWS writes it. Leading zeros are accepted and forgotten.
impl FromStr for Sequence {
    type Err = SequenceError;

    fn from_str(text: &str) -> Result<Self, SequenceError> {
        if text.is_empty() {
            return Err(SequenceError::Empty);
        }
        if let Some(index) = text.bytes().position(|byte| !byte.is_ascii_digit()) {
            return Err(SequenceError::NotADigit { index });
        }
        if text.len() > DECIMAL_DIGITS_MAX {
            return Err(SequenceError::TooLong { len: text.len(), len_max: DECIMAL_DIGITS_MAX });
        }
        let mut value = Self::ZERO;
        // 19 digits always fit a u64.
        for chunk in text.as_bytes().chunks(19) {
            let (radix, digits) = chunk
                .iter()
                .fold((1, 0), |(radix, digits), byte| (radix * 10, digits * 10 + u64::from(byte - b'0')));
            value = value.mul_add(radix, digits);
        }
        Ok(value)
    }
}

/// Decimal without leading zeros, as AWS writes it.
impl fmt::Display for Sequence {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        const CHUNK: u64 = 10u64.pow(19);
        let (rest, bottom) = self.div_rem(CHUNK);
        let (rest, middle) = rest.div_rem(CHUNK);
        let (_, top) = rest.div_rem(CHUNK);
        match (top, middle) {
            (0, 0) => write!(formatter, "{bottom}"),
            (0, _) => write!(formatter, "{middle}{bottom:019}"),
            (_, _) => write!(formatter, "{top}{middle:019}{bottom:019}"),
        }
    }
}

impl fmt::Debug for Sequence {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Sequence({self})")
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::cmp::Ordering;

    use proptest::prelude::*;

    use super::*;

    /// Decimal texts of every length, so that lengths differ as they do in real streams.
    fn decimal() -> impl Strategy<Value = String> {
        "[0-9]{1,40}"
    }

    pub(crate) fn any_sequence() -> impl Strategy<Value = Sequence> {
        decimal().prop_map(|text| text.parse().unwrap())
    }

    fn without_leading_zeros(text: &str) -> &str {
        let significant = text.trim_start_matches('0');
        if significant.is_empty() { "0" } else { significant }
    }

    /// The order of numbers, defined on their decimal texts alone.
    fn numeric_order(a: &str, b: &str) -> Ordering {
        let (a, b) = (without_leading_zeros(a), without_leading_zeros(b));
        a.len().cmp(&b.len()).then_with(|| a.cmp(b))
    }

    fn minimal_be(sequence: Sequence) -> Vec<u8> {
        sequence.to_be_bytes()[BE_BYTES_MAX - sequence.be_len()..].to_vec()
    }

    proptest! {
        #[test]
        fn decimal_reads_back_without_leading_zeros(text in decimal()) {
            let sequence: Sequence = text.parse().unwrap();
            prop_assert_eq!(sequence.to_string(), without_leading_zeros(&text));
        }

        #[test]
        fn order_is_numeric_in_every_form(a in decimal(), b in decimal()) {
            let order = numeric_order(&a, &b);
            let (a, b): (Sequence, Sequence) = (a.parse().unwrap(), b.parse().unwrap());
            prop_assert_eq!(a.cmp(&b), order);
            prop_assert_eq!(a.to_text().cmp(&b.to_text()), order);
            prop_assert_eq!(a.to_be_bytes().cmp(&b.to_be_bytes()), order);
        }

        #[test]
        fn bytes_and_text_read_back(sequence in any_sequence()) {
            let bytes = minimal_be(sequence);
            prop_assert_ne!(bytes.first(), Some(&0));
            prop_assert_eq!(Sequence::from_be_bytes(&bytes), Ok(sequence));
            prop_assert_eq!(Sequence::from_text(&sequence.to_text()), Ok(sequence));
        }

        #[test]
        fn garbage_is_refused_or_reads_back(bytes in prop::collection::vec(any::<u8>(), 0..20), text in "[0-9a-z]{26}") {
            if let Ok(sequence) = Sequence::from_be_bytes(&bytes) {
                prop_assert_eq!(minimal_be(sequence), bytes);
            }
            if let Ok(sequence) = Sequence::from_text(text.as_bytes()) {
                prop_assert!(sequence <= Sequence::MAX);
                prop_assert_eq!(&sequence.to_text(), text.as_bytes());
            }
        }
    }

    #[test]
    fn neighbours_that_a_double_cannot_tell_apart_are_ordered() {
        for (lower, upper) in [
            ("100000000000000000000", "100000000000000000001"),
            ("999999999999999999999", "1000000000000000000000"),
            ("340282366920938463463374607431768211455", "340282366920938463463374607431768211456"),
            ("9999999999999999999999999999999999999998", "9999999999999999999999999999999999999999"),
        ] {
            assert!(
                lower.parse::<Sequence>().unwrap() < upper.parse::<Sequence>().unwrap(),
                "{lower} < {upper}"
            );
        }
    }

    #[test]
    fn texts_are_what_other_implementations_compute() {
        for (decimal, text) in [
            ("0", "00000000000000000000000000"),
            ("100000000000000000001", "0000000000000l3r41ifs0q5tt"),
            ("4107372200000000044281155203", "00000000ec36hl3hrkye850877"),
            ("340282366920938463463374607431768211455", "0f5lxx1zz5pnorynqglhzmsp33"),
            ("340282366920938463463374607431768211456", "0f5lxx1zz5pnorynqglhzmsp34"),
            ("9999999999999999999999999999999999999999", "cde0suu7bcgsn5rimwenzyeepr"),
        ] {
            let sequence: Sequence = decimal.parse().unwrap();
            assert_eq!(str::from_utf8(&sequence.to_text()).unwrap(), text);
        }
    }

    #[test]
    fn max_has_forty_nines_and_one_more_is_refused() {
        assert_eq!(Sequence::MAX.to_string(), "9".repeat(40));
        assert_eq!(Sequence::from_text(b"cde0suu7bcgsn5rimwenzyeeps"), Err(SequenceError::TooLarge));
        assert_eq!(Sequence::from_text(b"zzzzzzzzzzzzzzzzzzzzzzzzzz"), Err(SequenceError::TooLarge));
        let (low, carry) = Sequence::MAX.low.overflowing_add(1);
        assert!(!carry);
        let mut above = [Sequence::MAX.high; BE_BYTES_MAX];
        above[1..].copy_from_slice(&low.to_be_bytes());
        assert_eq!(Sequence::from_be_bytes(&above), Err(SequenceError::TooLarge));
        assert_eq!(Sequence::from_be_bytes(&[0xff; BE_BYTES_MAX]), Err(SequenceError::TooLarge));
    }

    #[test]
    fn each_kind_of_bad_input_has_its_own_error() {
        assert_eq!("".parse::<Sequence>(), Err(SequenceError::Empty));
        assert_eq!("12x4".parse::<Sequence>(), Err(SequenceError::NotADigit { index: 2 }));
        assert_eq!("-1".parse::<Sequence>(), Err(SequenceError::NotADigit { index: 0 }));
        assert_eq!("1".repeat(41).parse::<Sequence>(), Err(SequenceError::TooLong { len: 41, len_max: 40 }));
        assert_eq!(Sequence::from_be_bytes(&[1; 18]), Err(SequenceError::TooLong { len: 18, len_max: 17 }));
        assert_eq!(Sequence::from_be_bytes(&[0, 1]), Err(SequenceError::LeadingZeroByte));
        assert_eq!(Sequence::from_text(b"1"), Err(SequenceError::TextLength { len: 1 }));
        assert_eq!(
            Sequence::from_text(b"0000000000000A000000000000"),
            Err(SequenceError::NotADigit { index: 13 })
        );
    }

    #[test]
    fn zero_takes_no_bytes() {
        assert_eq!(Sequence::ZERO.be_len(), 0);
        assert_eq!(Sequence::from_be_bytes(&[]), Ok(Sequence::ZERO));
        assert_eq!("000".parse(), Ok(Sequence::ZERO));
    }
}
