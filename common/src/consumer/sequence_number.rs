//! A record's position in its shard, as the stream's service writes it.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// Digits of the longest sequence number (AWS: Kinesis, up to 129 digits; DynamoDB Streams, 21 to 40).
const DIGITS_MAX: usize = 129;

/// A sequence number: a whole number in decimal digits, not of fixed width, too wide for any machine integer.
/// Ordered as a number. Numbers of different shards are not comparable in general.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SequenceNumber(Box<str>);

/// The text is not a sequence number.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is not a sequence number: expected 1 to {DIGITS_MAX} decimal digits")]
pub struct SequenceNumberError {
    given: String,
}

impl SequenceNumber {
    /// Reads decimal digits; leading zeros are dropped.
    ///
    /// # Errors
    /// When the text is empty, too long, or has anything but digits.
    pub fn new(text: impl Into<String>) -> Result<Self, SequenceNumberError> {
        let text: String = text.into();
        if text.is_empty() || text.len() > DIGITS_MAX || !text.bytes().all(|b| b.is_ascii_digit()) {
            let given = text.chars().take(2 * DIGITS_MAX).collect();
            return Err(SequenceNumberError { given });
        }
        let significant = text.trim_start_matches('0');
        Ok(Self(match significant.len() {
            0 => "0".into(),
            n if n == text.len() => text.into_boxed_str(),
            _ => significant.into(),
        }))
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SequenceNumber {
    type Err = SequenceNumberError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::new(text)
    }
}

impl fmt::Display for SequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Ord for SequenceNumber {
    /// Without leading zeros, the longer number is the greater one.
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.len().cmp(&other.0.len()).then_with(|| self.0.cmp(&other.0))
    }
}

impl PartialOrd for SequenceNumber {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_of_different_width_and_neighbours_are_told_apart() {
        let n = |text: &str| SequenceNumber::new(text).unwrap();
        assert!(n("999999999999999999999") < n("1000000000000000000000"));
        assert!(n("400000000000000499660") < n("400000000000000499661"));
        assert_eq!(n("000"), n("0"));
        for wrong in ["", "-1", "1a", " 1", &"9".repeat(130)] {
            assert!(SequenceNumber::new(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn order_is_numeric_whatever_the_leading_zeros(a: u128, b: u128, zeros in 0usize..5) {
            let text = |n: u128| format!("{}{n}", "0".repeat(zeros));
            let (x, y) = (SequenceNumber::new(text(a)).unwrap(), SequenceNumber::new(b.to_string()).unwrap());
            prop_assert_eq!(x.cmp(&y), a.cmp(&b));
            prop_assert_eq!(x.as_str(), a.to_string());
        }
    }
}
