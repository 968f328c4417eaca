//! One row in a form that two sources can be compared in: what DynamoDB answers and what the cache holds.
//!
//! Both are converted into the same small value type. Sets lose their order, and numbers are brought to one
//! form, because DynamoDB may write the same number in two ways (`1.50` and `1.5`).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use aws_sdk_dynamodb::types::AttributeValue;
use bytes::Bytes;
use warmcast_proto::item;

/// The attributes of one row by name.
pub type Row = BTreeMap<String, Value>;

/// One attribute's value. Equal values are equal to DynamoDB, too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// S.
    Text(String),
    /// N.
    Number(Number),
    /// B.
    Binary(Bytes),
    /// BOOL.
    Bool(bool),
    /// NULL.
    Null,
    /// L.
    List(Vec<Value>),
    /// M.
    Map(BTreeMap<String, Value>),
    /// SS.
    TextSet(BTreeSet<String>),
    /// NS.
    NumberSet(BTreeSet<Number>),
    /// BS.
    BinarySet(BTreeSet<Bytes>),
    /// A type that this program does not know. Equal to nothing but the same description, so it never passes
    /// for a known value.
    Unknown(String),
}

/// A decimal number in one form: no leading or trailing zeros, the exponent moved out, no negative zero.
/// A text that is no number keeps its text, and so is equal to itself only. The order is that of the parts
/// and has no meaning: it lets numbers be members of a set.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Number {
    /// `digits` times ten to the power of `exponent`.
    Decimal {
        /// Whether the number is below zero.
        negative: bool,
        /// Significant digits, empty for zero.
        digits: String,
        /// Power of ten of the last digit, 0 for zero.
        exponent: i64,
    },
    /// Not a number.
    Malformed(String),
}

impl Number {
    /// Brings DynamoDB's text of a number (N, at most 38 digits) to the one form.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        parse_decimal(text).unwrap_or_else(|| Self::Malformed(text.to_owned()))
    }

    /// The number as an unsigned integer, where it is one.
    #[must_use]
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Self::Decimal { negative: false, digits, exponent: 0 } if digits.is_empty() => Some(0),
            Self::Decimal { negative: false, digits, exponent } => {
                let scale = 10_u64.checked_pow(u32::try_from(*exponent).ok()?)?;
                digits.parse::<u64>().ok()?.checked_mul(scale)
            }
            _ => None,
        }
    }
}

fn parse_decimal(text: &str) -> Option<Number> {
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (mantissa, power) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, power)) => (mantissa, power.parse::<i64>().ok()?),
        None => (unsigned, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = format!("{whole}{fraction}");
    if all.is_empty() || !all.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let without_tail = all.trim_end_matches('0');
    let digits = without_tail.trim_start_matches('0').to_owned();
    if digits.is_empty() {
        return Some(Number::Decimal { negative: false, digits, exponent: 0 });
    }
    let dropped = i64::try_from(all.len() - without_tail.len()).ok()?;
    let exponent = power.checked_sub(i64::try_from(fraction.len()).ok()?)?.checked_add(dropped)?;
    Some(Number::Decimal { negative, digits, exponent })
}

impl fmt::Debug for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Decimal { digits, .. } if digits.is_empty() => f.write_str("0"),
            Self::Decimal { negative, digits, exponent } => {
                let sign = if *negative { "-" } else { "" };
                if *exponent == 0 {
                    write!(f, "{sign}{digits}")
                } else {
                    write!(f, "{sign}{digits}E{exponent}")
                }
            }
            Self::Malformed(text) => write!(f, "malformed {text:?}"),
        }
    }
}

/// A row as DynamoDB's API answers it.
#[must_use]
pub fn from_dynamodb(item: &HashMap<String, AttributeValue>) -> Row {
    item.iter().map(|(name, value)| (name.clone(), value_from_dynamodb(value))).collect()
}

fn value_from_dynamodb(value: &AttributeValue) -> Value {
    match value {
        AttributeValue::S(text) => Value::Text(text.clone()),
        AttributeValue::N(text) => Value::Number(Number::parse(text)),
        AttributeValue::B(blob) => Value::Binary(Bytes::copy_from_slice(blob.as_ref())),
        AttributeValue::Bool(flag) => Value::Bool(*flag),
        AttributeValue::Null(true) => Value::Null,
        AttributeValue::L(values) => Value::List(values.iter().map(value_from_dynamodb).collect()),
        AttributeValue::M(map) => Value::Map(from_dynamodb(map)),
        AttributeValue::Ss(texts) => Value::TextSet(texts.iter().cloned().collect()),
        AttributeValue::Ns(texts) => Value::NumberSet(texts.iter().map(|text| Number::parse(text)).collect()),
        AttributeValue::Bs(blobs) => {
            Value::BinarySet(blobs.iter().map(|blob| Bytes::copy_from_slice(blob.as_ref())).collect())
        }
        other => Value::Unknown(format!("from DynamoDB: {other:?}")),
    }
}

/// A row as the cache holds it.
#[must_use]
pub fn from_cache(item: &item::Item) -> Row {
    map_from_cache(&item.attributes)
}

fn map_from_cache(attributes: &BTreeMap<String, item::AttributeValue>) -> Row {
    attributes.iter().map(|(name, value)| (name.clone(), value_from_cache(value))).collect()
}

fn value_from_cache(value: &item::AttributeValue) -> Value {
    use item::Value as Cached;
    match &value.value {
        Some(Cached::S(text)) => Value::Text(text.clone()),
        Some(Cached::N(text)) => Value::Number(Number::parse(text)),
        Some(Cached::B(bytes)) => Value::Binary(bytes.clone()),
        Some(Cached::Bool(flag)) => Value::Bool(*flag),
        Some(Cached::Null(true)) => Value::Null,
        Some(Cached::L(list)) => Value::List(list.values.iter().map(value_from_cache).collect()),
        Some(Cached::M(map)) => Value::Map(map_from_cache(&map.attributes)),
        Some(Cached::Ss(set)) => Value::TextSet(set.values.iter().cloned().collect()),
        Some(Cached::Ns(set)) => {
            Value::NumberSet(set.values.iter().map(|text| Number::parse(text)).collect())
        }
        Some(Cached::Bs(set)) => Value::BinarySet(set.values.iter().cloned().collect()),
        other => Value::Unknown(format!("from the cache: {other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_dynamodb::primitives::Blob;

    use super::*;

    #[test]
    fn numbers_are_equal_when_their_values_are() {
        for (left, right) in [
            ("1.50", "1.5"),
            ("100", "1E2"),
            ("100", "1e+2"),
            ("-0", "0.000"),
            ("0.001", "1E-3"),
            ("007", "7"),
            ("+5", "5"),
            ("12345678901234567890123456789012345678", "12345678901234567890123456789012345678.0"),
        ] {
            assert_eq!(Number::parse(left), Number::parse(right), "{left} and {right}");
        }
    }

    #[test]
    fn numbers_differ_when_their_values_do() {
        for (left, right) in [
            ("1", "-1"),
            ("1", "10"),
            ("0.1", "0.01"),
            ("12345678901234567890123456789012345678", "12345678901234567890123456789012345679"),
            ("", "0"),
            ("abc", "0"),
            ("1.2.3", "1.23"),
        ] {
            assert_ne!(Number::parse(left), Number::parse(right), "{left} and {right}");
        }
    }

    #[test]
    fn whole_numbers_are_read_back() {
        assert_eq!(Number::parse("1200").as_u64(), Some(1200));
        assert_eq!(Number::parse("0").as_u64(), Some(0));
        assert_eq!(Number::parse("1.5").as_u64(), None);
        assert_eq!(Number::parse("-3").as_u64(), None);
        assert_eq!(Number::parse("1E400").as_u64(), None);
    }

    #[test]
    fn sets_are_equal_in_any_order() {
        let left = AttributeValue::Ss(vec!["a".into(), "b".into()]);
        let right = AttributeValue::Ss(vec!["b".into(), "a".into()]);
        assert_eq!(value_from_dynamodb(&left), value_from_dynamodb(&right));
    }

    #[test]
    fn types_with_the_same_text_are_different() {
        assert_ne!(
            value_from_dynamodb(&AttributeValue::S("1".into())),
            value_from_dynamodb(&AttributeValue::N("1".into()))
        );
        assert_ne!(
            value_from_dynamodb(&AttributeValue::B(Blob::new(*b"x"))),
            value_from_dynamodb(&AttributeValue::S("x".into()))
        );
        assert_ne!(
            value_from_dynamodb(&AttributeValue::L(vec![])),
            value_from_dynamodb(&AttributeValue::Ss(vec![]))
        );
    }

    #[test]
    fn a_value_of_no_known_type_equals_no_null() {
        let unset = value_from_cache(&item::AttributeValue { value: None });
        assert_ne!(unset, value_from_dynamodb(&AttributeValue::Null(true)));
    }
}
