//! From an item to what its entry holds, as the table's policy says. Pure.
//!
//! A table whose entries are its items as they are costs no decoding here.

use std::time::Duration;

use bytes::Bytes;
use warmcast_proto::{
    entry::TIME_MS_MAX,
    item::{self, AttributeValue, Item, ItemError, Value},
};

use crate::policy::{PayloadForm, TablePolicy};

/// What a live entry holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shaped {
    /// The payload.
    pub payload: Bytes,
    /// The item's own expiry.
    pub expires_ms: Option<u64>,
}

/// Why an item cannot be cached as its table's policy says. Its key is invalidated instead: a miss is always safe.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// The payload of the change is no item.
    #[error(transparent)]
    Item(#[from] ItemError),
    /// The item has no such attribute, or one of a type that has no bytes of its own.
    #[error("the item has no string, number or binary attribute {attribute}, which is its table's payload")]
    Attribute {
        /// The attribute that the policy names.
        attribute: String,
    },
}

/// The entry's content for an encoded item.
///
/// # Errors
/// The bytes are no item, or the item lacks the attribute that is to be its payload.
pub fn shape_encoded(policy: &TablePolicy, payload: &Bytes) -> Result<Shaped, ShapeError> {
    if policy.is_opaque() {
        return Ok(Shaped { payload: payload.clone(), expires_ms: None });
    }
    shape(policy, item::decode(payload.clone())?)
}

/// The entry's content for an item.
///
/// # Errors
/// The item lacks the attribute that is to be its payload.
pub fn shape(policy: &TablePolicy, mut item: Item) -> Result<Shaped, ShapeError> {
    let expires_ms = policy.expiry_attribute.as_ref().and_then(|name| expiry_ms(item.attributes.get(name)));
    let payload = match &policy.payload {
        PayloadForm::Item => {
            if let Some(kept) = &policy.attributes {
                item.attributes.retain(|name, _| kept.contains(name));
            }
            item::encode(&item)
        }
        PayloadForm::Attribute(attribute) => {
            let bytes = item.attributes.remove(attribute).and_then(raw_bytes);
            bytes.ok_or_else(|| ShapeError::Attribute { attribute: attribute.clone() })?
        }
    };
    Ok(Shaped { payload, expires_ms })
}

/// The time that a Time to Live attribute tells. What is no number is no expiry, as DynamoDB has it (AWS: Time to
/// Live: the attribute must be a number of seconds since the epoch; otherwise the item never expires), and so is
/// a time before the epoch or beyond what a header holds.
fn expiry_ms(attribute: Option<&AttributeValue>) -> Option<u64> {
    let Some(Value::N(digits)) = attribute.and_then(|attribute| attribute.value.as_ref()) else {
        return None;
    };
    let whole = digits.split_once('.').map_or(digits.as_str(), |(whole, _)| whole);
    let expires_ms = whole.parse::<u64>().ok().and_then(|seconds| seconds.checked_mul(1_000))?;
    (expires_ms <= TIME_MS_MAX).then_some(expires_ms)
}

fn raw_bytes(attribute: AttributeValue) -> Option<Bytes> {
    match attribute.value? {
        Value::S(text) | Value::N(text) => Some(text.into_bytes().into()),
        Value::B(bytes) => Some(bytes),
        _ => None,
    }
}

/// Now on this machine's clock, for judging items' expiries: milliseconds since the Unix epoch.
#[must_use]
pub(crate) fn wall_clock_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn an_item() -> Item {
        let attributes = [
            ("id", Value::S("u1".to_owned())),
            ("ttl", Value::N("1784000000".to_owned())),
            ("blob", Value::B(Bytes::from_static(b"\x00\xff"))),
            ("flag", Value::Bool(true)),
        ];
        Item {
            attributes: attributes
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value.into()))
                .collect::<BTreeMap<_, _>>(),
        }
    }

    #[test]
    fn an_item_as_it_is_is_not_looked_into() {
        let garbage = Bytes::from_static(b"\xff\xff");
        let shaped = shape_encoded(&TablePolicy::default(), &garbage).unwrap();
        assert_eq!(shaped, Shaped { payload: garbage.clone(), expires_ms: None });
        let looking = TablePolicy { expiry_attribute: Some("ttl".to_owned()), ..TablePolicy::default() };
        assert!(matches!(shape_encoded(&looking, &garbage), Err(ShapeError::Item(_))));
    }

    #[test]
    fn a_projection_keeps_the_named_attributes_and_the_expiry_is_read_before_it() {
        let policy = TablePolicy {
            attributes: Some(vec!["flag".to_owned(), "missing".to_owned()]),
            expiry_attribute: Some("ttl".to_owned()),
            ..TablePolicy::default()
        };
        let shaped = shape_encoded(&policy, &item::encode(&an_item())).unwrap();
        assert_eq!(shaped.expires_ms, Some(1_784_000_000_000));
        let item = item::decode(shaped.payload).unwrap();
        assert_eq!(item.attributes.keys().collect::<Vec<_>>(), ["flag"]);
    }

    #[test]
    fn one_attributes_bytes_are_the_payload() {
        let of = |attribute: &str| {
            let payload = PayloadForm::Attribute(attribute.to_owned());
            shape(&TablePolicy { payload, ..TablePolicy::default() }, an_item()).map(|shaped| shaped.payload)
        };
        assert_eq!(of("blob").unwrap(), Bytes::from_static(b"\x00\xff"));
        assert_eq!(of("id").unwrap(), "u1");
        assert_eq!(of("ttl").unwrap(), "1784000000");
        assert_eq!(of("flag"), Err(ShapeError::Attribute { attribute: "flag".to_owned() }));
        assert!(of("missing").is_err());
    }

    #[test]
    fn what_is_no_time_is_no_expiry() {
        let number = |digits: &str| Some(AttributeValue::from(Value::N(digits.to_owned())));
        assert_eq!(expiry_ms(number("1784000000.9").as_ref()), Some(1_784_000_000_000));
        for digits in ["-1", "1E10", "99999999999999999999", "9999999999"] {
            assert_eq!(expiry_ms(number(digits).as_ref()), None, "{digits}");
        }
        assert_eq!(expiry_ms(Some(&Value::S("1784000000".to_owned()).into())), None);
        assert_eq!(expiry_ms(None), None);
    }
}
