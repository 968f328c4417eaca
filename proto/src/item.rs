//! A row of a DynamoDB table with its types, as readers get it from the cache.
//!
//! The types are generated from `proto/schema/warmcast/v1/item.proto`. An item is encoded once, where its
//! change is made, and decoded by the reader; everything between moves the bytes.

use bytes::Bytes;
use prost::Message as _;

pub use crate::generated::{
    AttributeValue, BinarySet, Item, List, Map, NumberSet, StringSet, attribute_value::Value,
};

/// The bytes are not an encoded [`Item`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("decode an item of {len} bytes: {source}")]
pub struct ItemError {
    len: usize,
    source: prost::DecodeError,
}

/// Encodes an item. Equal items give equal bytes: the maps are ordered.
#[must_use]
pub fn encode(item: &Item) -> Bytes {
    item.encode_to_vec().into()
}

/// Decodes an item; its binary values share the given bytes. Nesting as deep as DynamoDB allows (32) is decoded,
/// deeper than that is an error before the stack is at risk.
///
/// # Errors
/// The bytes are not an encoded [`Item`].
pub fn decode(bytes: Bytes) -> Result<Item, ItemError> {
    let len = bytes.len();
    Item::decode(bytes).map_err(|source| ItemError { len, source })
}

impl From<Value> for AttributeValue {
    fn from(value: Value) -> Self {
        Self { value: Some(value) }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn any_value() -> impl Strategy<Value = AttributeValue> {
        let bytes = || prop::collection::vec(any::<u8>(), 0..20).prop_map(Bytes::from);
        let leaf = prop_oneof![
            ".*".prop_map(Value::S),
            "-?[0-9]{1,38}".prop_map(Value::N),
            bytes().prop_map(Value::B),
            any::<bool>().prop_map(Value::Bool),
            Just(Value::Null(true)),
            prop::collection::vec(".*", 1..4).prop_map(|values| Value::Ss(StringSet { values })),
            prop::collection::vec("[0-9]+", 1..4).prop_map(|values| Value::Ns(NumberSet { values })),
            prop::collection::vec(bytes(), 1..4).prop_map(|values| Value::Bs(BinarySet { values })),
        ]
        .prop_map(AttributeValue::from);
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(|values| Value::L(List { values })),
                prop::collection::btree_map(".*", inner, 0..4)
                    .prop_map(|attributes| Value::M(Map { attributes })),
            ]
            .prop_map(AttributeValue::from)
        })
    }

    pub(crate) fn any_item() -> impl Strategy<Value = Item> {
        prop::collection::btree_map(".*", any_value(), 0..6).prop_map(|attributes| Item { attributes })
    }

    proptest! {
        #[test]
        fn items_of_every_type_read_back(item in any_item()) {
            prop_assert_eq!(decode(encode(&item)), Ok(item));
        }

        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(bytes.into());
        }
    }

    fn nested(levels: usize) -> Item {
        let mut value = AttributeValue::from(Value::S("innermost".into()));
        for level in 0..levels {
            value = AttributeValue::from(if level % 2 == 0 {
                Value::M(Map { attributes: BTreeMap::from([("m".to_owned(), value)]) })
            } else {
                Value::L(List { values: vec![value] })
            });
        }
        Item { attributes: BTreeMap::from([("a".to_owned(), value)]) }
    }

    fn nested_maps(levels: usize) -> Item {
        let mut value = AttributeValue::from(Value::S("innermost".into()));
        for _ in 0..levels {
            value =
                AttributeValue::from(Value::M(Map { attributes: BTreeMap::from([("m".to_owned(), value)]) }));
        }
        Item { attributes: BTreeMap::from([("a".to_owned(), value)]) }
    }

    #[test]
    fn the_deepest_nesting_that_dynamodb_allows_reads_back() {
        // AWS: DynamoDB quotas, nested attribute depth: 32 levels.
        for item in [nested(32), nested_maps(32)] {
            assert_eq!(decode(encode(&item)), Ok(item));
        }
    }

    #[test]
    fn nesting_far_beyond_is_an_error_and_no_stack_overflow() {
        let error = decode(encode(&nested_maps(1_000))).unwrap_err();
        assert!(error.to_string().contains("recursion"), "{error}");
    }

    #[test]
    fn binary_values_share_the_encoded_bytes() {
        let item = Item {
            attributes: BTreeMap::from([("b".to_owned(), Value::B(Bytes::from_static(&[7; 64])).into())]),
        };
        let bytes = encode(&item);
        let range = bytes.as_ptr_range();
        let decoded = decode(bytes).unwrap();
        let Some(AttributeValue { value: Some(Value::B(binary)) }) = decoded.attributes.get("b") else {
            panic!("not a binary value: {decoded:?}");
        };
        assert!(range.contains(&binary.as_ptr()));
    }
}
