//! DynamoDB's numbers, compared exactly: up to 38 digits, which no machine's number holds. Pure.

use std::cmp::Ordering;

/// A decimal number: `digits` (without zeros at either end; none is zero) times ten to the power of `exponent`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Number {
    negative: bool,
    digits: String,
    /// Of the first digit, not of the last: that is what decides between two numbers of unlike size.
    exponent: i64,
}

impl Number {
    /// Reads a number as DynamoDB and people write it: `7`, `-0.50`, `1.5E-100`. None of anything else.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (negative, unsigned) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let (mantissa, power) = match unsigned.split_once(['e', 'E']) {
            Some((mantissa, power)) => (mantissa, i64::from(power.parse::<i32>().ok()?)),
            None => (unsigned, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = format!("{whole}{fraction}");
        if all.is_empty() || !all.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let significant = all.trim_start_matches('0');
        let leading_zeros = i64::try_from(all.len() - significant.len()).ok()?;
        let digits = significant.trim_end_matches('0').to_owned();
        if digits.is_empty() {
            return Some(Self { negative: false, digits, exponent: 0 });
        }
        let exponent = power + i64::try_from(whole.len()).ok()? - leading_zeros;
        Some(Self { negative, digits, exponent })
    }

    /// The number as a place in a list, where it is one.
    pub(super) fn as_index(&self) -> Option<usize> {
        if self.digits.is_empty() {
            return Some(0);
        }
        let zeros = usize::try_from(self.exponent).ok()?.checked_sub(self.digits.len())?;
        // Far beyond any list; the bound keeps the text short.
        if self.negative || zeros > 6 {
            None
        } else {
            format!("{}{}", self.digits, "0".repeat(zeros)).parse().ok()
        }
    }

    fn sign(&self) -> i8 {
        match (self.digits.is_empty(), self.negative) {
            (true, _) => 0,
            (false, true) => -1,
            (false, false) => 1,
        }
    }
}

impl Ord for Number {
    fn cmp(&self, other: &Self) -> Ordering {
        // Without zeros at the ends, digits compare as the fractions 0.DIGITS do: by text.
        let magnitude = || (self.exponent, &self.digits).cmp(&(other.exponent, &other.digits));
        self.sign()
            .cmp(&other.sign())
            .then_with(|| if self.negative { magnitude().reverse() } else { magnitude() })
    }
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn number(text: &str) -> Number {
        Number::parse(text).unwrap()
    }

    #[test]
    fn numbers_are_equal_however_they_are_written() {
        for (a, b) in [("1.50", "1.5"), ("0", "-0.00"), ("100", "1E2"), ("0.05", "5e-2"), ("007", "+7")] {
            assert_eq!(number(a), number(b), "{a} {b}");
        }
    }

    #[test]
    fn thirty_eight_digits_are_told_apart() {
        let (a, b) = (format!("{}1", "9".repeat(37)), format!("{}2", "9".repeat(37)));
        assert!(number(&a) < number(&b) && number(&format!("-{a}")) > number(&format!("-{b}")));
        assert!(number("-9.9E-120") < number("0") && number("0") < number("1E-130"));
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for text in ["", "-", ".", "1e", "x", "1.2.3", "0x10", "1 ", "NaN", "1e99999999999"] {
            assert_eq!(Number::parse(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn the_order_is_that_of_the_numbers(a in -2_000_000_i64..2_000_000, b in -2_000_000_i64..2_000_000, scale in 0_usize..6) {
            let text = |value: i64| {
                let digits = format!("{:07}", value.abs());
                let (whole, fraction) = digits.split_at(7 - scale);
                format!("{}{whole}.{fraction}", if value < 0 { "-" } else { "" })
            };
            prop_assert_eq!(number(&text(a)).cmp(&number(&text(b))), a.cmp(&b));
        }

        #[test]
        fn garbage_never_panics(text in ".{0,12}") {
            let _ = Number::parse(&text);
        }
    }
}
