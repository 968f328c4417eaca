//! From DynamoDB's attribute values to the item that entries hold. Pure.
//!
//! The same item read from the table and from its stream must give the same bytes: the other way in is the
//! aggregator's, from the stream's attribute values.

use std::collections::{BTreeMap, HashMap};

use aws_sdk_dynamodb::{primitives::Blob, types::AttributeValue as Attribute};
use bytes::Bytes;
use warmcast_proto::item::{AttributeValue, BinarySet, Item, List, Map, NumberSet, StringSet, Value};

/// An attribute has a type that this version does not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UnknownType {
    /// The attribute, or the one that it is nested in.
    pub(crate) attribute: String,
}

/// The item of a row.
pub(crate) fn item(row: HashMap<String, Attribute>) -> Result<Item, UnknownType> {
    Ok(Item { attributes: attributes(row)? })
}

fn attributes(row: HashMap<String, Attribute>) -> Result<BTreeMap<String, AttributeValue>, UnknownType> {
    let attribute = |(name, attribute): (String, Attribute)| match value(attribute) {
        Some(value) => Ok((name, value?)),
        None => Err(UnknownType { attribute: name }),
    };
    row.into_iter().map(attribute).collect()
}

/// DynamoDB nests at most 32 levels deep (AWS: DynamoDB quotas), so the recursion is bounded. Nothing: the
/// attribute's own type is unknown, and its name is the caller's to tell.
fn value(attribute: Attribute) -> Option<Result<AttributeValue, UnknownType>> {
    let blob = |blob: Blob| Bytes::from(blob.into_inner());
    let value = match attribute {
        Attribute::S(text) => Value::S(text),
        Attribute::N(digits) => Value::N(digits),
        Attribute::B(bytes) => Value::B(blob(bytes)),
        Attribute::Bool(truth) => Value::Bool(truth),
        Attribute::Null(null) => Value::Null(null),
        Attribute::Ss(values) => Value::Ss(StringSet { values }),
        Attribute::Ns(values) => Value::Ns(NumberSet { values }),
        Attribute::Bs(values) => Value::Bs(BinarySet { values: values.into_iter().map(blob).collect() }),
        Attribute::L(values) => match values.into_iter().map(value).collect::<Option<Result<_, _>>>()? {
            Ok(values) => Value::L(List { values }),
            Err(unknown) => return Some(Err(unknown)),
        },
        Attribute::M(map) => match attributes(map) {
            Ok(attributes) => Value::M(Map { attributes }),
            Err(unknown) => return Some(Err(unknown)),
        },
        _ => return None,
    };
    Some(Ok(value.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(attributes: &[(&str, Attribute)]) -> HashMap<String, Attribute> {
        attributes.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
    }

    #[test]
    fn every_type_survives() {
        let s = |text: &str| Attribute::S(text.to_owned());
        let nested = row(&[("x", Attribute::L(vec![s("a"), Attribute::Bool(false)]))]);
        let item = item(row(&[
            ("s", s("text")),
            ("n", Attribute::N("-1.5".to_owned())),
            ("b", Attribute::B(Blob::new(b"\x00\xff"))),
            ("bool", Attribute::Bool(true)),
            ("null", Attribute::Null(true)),
            ("m", Attribute::M(nested)),
            ("ss", Attribute::Ss(vec!["a".to_owned(), "b".to_owned()])),
            ("ns", Attribute::Ns(vec!["1".to_owned(), "2".to_owned()])),
            ("bs", Attribute::Bs(vec![Blob::new(b"1"), Blob::new(b"2")])),
        ]))
        .unwrap();
        let list = List { values: vec![Value::S("a".to_owned()).into(), Value::Bool(false).into()] };
        let expected = [
            ("s", Value::S("text".to_owned())),
            ("n", Value::N("-1.5".to_owned())),
            ("b", Value::B(Bytes::from_static(b"\x00\xff"))),
            ("bool", Value::Bool(true)),
            ("null", Value::Null(true)),
            ("m", Value::M(Map { attributes: [("x".to_owned(), Value::L(list).into())].into() })),
            ("ss", Value::Ss(StringSet { values: vec!["a".to_owned(), "b".to_owned()] })),
            ("ns", Value::Ns(NumberSet { values: vec!["1".to_owned(), "2".to_owned()] })),
            ("bs", Value::Bs(BinarySet { values: vec![Bytes::from_static(b"1"), Bytes::from_static(b"2")] })),
        ];
        let expected = expected.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
        assert_eq!(item, Item { attributes: expected });
    }
}
