//! Canonical key bytes back into the key attributes of a table, and the other way. Pure.
//!
//! The bytes are [`ItemKey`](warmcast_proto::key::ItemKey)'s. What can be no key of the table is refused here:
//! DynamoDB would refuse the whole call for it, with the keys of others in it.

use std::collections::HashMap;

use aws_sdk_dynamodb::{
    primitives::Blob,
    types::{AttributeValue as Attribute, KeyType, ScalarAttributeType, TableDescription},
};
use bytes::Bytes;
use warmcast_proto::key::{ItemKey, SplitError, is_plain_number, split_composite};
use warmcast_proto::key_text::{KeyKind, KeyPart, KeyShape};

/// The longest partition key and the longest sort key (AWS: DynamoDB quotas, partition keys and sort keys).
const PARTITION_BYTES_MAX: usize = 2_048;
const SORT_BYTES_MAX: usize = 1_024;

/// A table's primary key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeySchema {
    pub(crate) partition: KeyAttribute,
    pub(crate) sort: Option<KeyAttribute>,
}

/// One attribute of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyAttribute {
    pub(crate) name: String,
    pub(crate) form: KeyForm,
}

/// The types that a key attribute can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyForm {
    Text,
    Number,
    Binary,
}

/// Why bytes are no key of the table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// They are not those of a partition and a sort value.
    #[error(transparent)]
    Split(#[from] SplitError),
    /// DynamoDB has no empty key values.
    #[error("the value of key attribute {attribute} is empty")]
    Empty {
        /// The attribute.
        attribute: String,
    },
    /// Longer than DynamoDB's keys.
    #[error("the value of key attribute {attribute} has {len} bytes, above {len_max}")]
    TooLong {
        /// The attribute.
        attribute: String,
        /// Bytes given.
        len: usize,
        /// The bound.
        len_max: usize,
    },
    /// A string that is not UTF-8.
    #[error("the value of key attribute {attribute}, a string, is not UTF-8")]
    Utf8 {
        /// The attribute.
        attribute: String,
    },
    /// A number that is not written as DynamoDB writes it: changes of the item come under another key, so a cache
    /// entry under this one would never change.
    #[error(
        "the value of key attribute {attribute} is not a number as DynamoDB writes it: no exponent, no plus sign, \
         no zeros that do not count, at most 38 digits"
    )]
    Number {
        /// The attribute.
        attribute: String,
    },
}

impl KeySchema {
    /// The schema of a described table; nothing if the description lacks it.
    pub(crate) fn of(table: &TableDescription) -> Option<Self> {
        let attribute = |role: &KeyType| {
            let element = table.key_schema().iter().find(|element| element.key_type() == role)?;
            let name = element.attribute_name();
            let definitions = table.attribute_definitions();
            let definition = definitions.iter().find(|definition| definition.attribute_name() == name)?;
            let form = match definition.attribute_type() {
                ScalarAttributeType::S => KeyForm::Text,
                ScalarAttributeType::N => KeyForm::Number,
                ScalarAttributeType::B => KeyForm::Binary,
                _ => return None,
            };
            Some(KeyAttribute { name: name.to_owned(), form })
        };
        let has_sort = table.key_schema().iter().any(|element| *element.key_type() == KeyType::Range);
        let sort = attribute(&KeyType::Range);
        let is_whole = sort.is_some() == has_sort;
        attribute(&KeyType::Hash).filter(|_| is_whole).map(|partition| Self { partition, sort })
    }

    /// How people write its keys.
    pub(crate) fn shape(&self) -> KeyShape {
        let part = |attribute: &KeyAttribute| {
            let kind = match attribute.form {
                KeyForm::Text => KeyKind::Text,
                KeyForm::Number => KeyKind::Number,
                KeyForm::Binary => KeyKind::Binary,
            };
            KeyPart { name: attribute.name.clone(), kind }
        };
        KeyShape { partition: part(&self.partition), sort: self.sort.as_ref().map(part) }
    }

    /// The names of the key attributes' values in a key, as a call has them.
    pub(crate) fn attributes(&self, key: &[u8]) -> Result<HashMap<String, Attribute>, KeyError> {
        let Some(sort) = &self.sort else {
            let value = self.partition.value(key, PARTITION_BYTES_MAX)?;
            return Ok(HashMap::from([(self.partition.name.clone(), value)]));
        };
        let (partition, value) = split_composite(key)?;
        let partition = self.partition.value(&partition, PARTITION_BYTES_MAX)?;
        let value = sort.value(value, SORT_BYTES_MAX)?;
        Ok(HashMap::from([(self.partition.name.clone(), partition), (sort.name.clone(), value)]))
    }

    /// The canonical bytes of a row's key; nothing if the row lacks it.
    pub(crate) fn canonical(&self, row: &HashMap<String, Attribute>) -> Option<Bytes> {
        let partition = self.partition.bytes(row)?;
        let key = match &self.sort {
            None => ItemKey::partition(Bytes::copy_from_slice(partition)),
            Some(sort) => ItemKey::composite(partition, sort.bytes(row)?),
        };
        Some(key.into_bytes())
    }
}

impl KeyAttribute {
    fn value(&self, bytes: &[u8], len_max: usize) -> Result<Attribute, KeyError> {
        let attribute = || self.name.clone();
        if bytes.is_empty() {
            return Err(KeyError::Empty { attribute: attribute() });
        }
        if bytes.len() > len_max {
            return Err(KeyError::TooLong { attribute: attribute(), len: bytes.len(), len_max });
        }
        let text = || std::str::from_utf8(bytes).map(str::to_owned);
        match self.form {
            KeyForm::Text => text().map(Attribute::S).map_err(|_| KeyError::Utf8 { attribute: attribute() }),
            KeyForm::Binary => Ok(Attribute::B(Blob::new(bytes))),
            KeyForm::Number => {
                let number = text().ok().filter(|text| is_plain_number(text));
                number.map(Attribute::N).ok_or_else(|| KeyError::Number { attribute: attribute() })
            }
        }
    }

    fn bytes<'a>(&self, row: &'a HashMap<String, Attribute>) -> Option<&'a [u8]> {
        match row.get(&self.name)? {
            Attribute::S(text) | Attribute::N(text) => Some(text.as_bytes()),
            Attribute::B(blob) => Some(blob.as_ref()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn schema(partition: KeyForm, sort: Option<KeyForm>) -> KeySchema {
        let attribute = |name: &str, form| KeyAttribute { name: name.to_owned(), form };
        KeySchema { partition: attribute("p", partition), sort: sort.map(|form| attribute("s", form)) }
    }

    fn any_form() -> impl Strategy<Value = KeyForm> {
        prop_oneof![Just(KeyForm::Text), Just(KeyForm::Number), Just(KeyForm::Binary)]
    }

    /// Values in which the separator and the escapes are frequent.
    fn value(form: KeyForm) -> BoxedStrategy<Attribute> {
        match form {
            KeyForm::Text => prop_oneof!["[:%253A]{1,8}", ".{1,8}"].prop_map(Attribute::S).boxed(),
            KeyForm::Number => "-?(0\\.[0-9]{0,6}[1-9]|[1-9][0-9]{0,20}(\\.[0-9]{0,10}[1-9])?)"
                .prop_map(Attribute::N)
                .boxed(),
            KeyForm::Binary => prop_oneof![
                "[:%253A]{1,8}".prop_map(String::into_bytes),
                prop::collection::vec(any::<u8>(), 1..12)
            ]
            .prop_map(|bytes| Attribute::B(Blob::new(bytes)))
            .boxed(),
        }
    }

    proptest! {
        #[test]
        fn a_key_with_its_attributes_reads_back(
            (partition, sort) in (any_form(), prop::option::of(any_form())).prop_flat_map(|(partition, sort)| {
                let sort = sort.map_or(Just(None).boxed(), |form| value(form).prop_map(move |v| Some((form, v))).boxed());
                (value(partition).prop_map(move |value| (partition, value)), sort)
            })
        ) {
            let schema = schema(partition.0, sort.as_ref().map(|(form, _)| *form));
            let mut key = HashMap::from([("p".to_owned(), partition.1)]);
            key.extend(sort.map(|(_, value)| ("s".to_owned(), value)));
            let canonical = schema.canonical(&key).unwrap();
            prop_assert_eq!(schema.attributes(&canonical), Ok(key));
        }

        #[test]
        fn what_reads_as_a_key_gives_the_same_bytes_back(
            partition in any_form(), sort in prop::option::of(any_form()), bytes in prop::collection::vec(any::<u8>(), 0..20)
        ) {
            let schema = schema(partition, sort);
            if let Ok(key) = schema.attributes(&bytes) {
                prop_assert_eq!(schema.canonical(&key).unwrap(), bytes);
            }
        }
    }

    #[test]
    fn what_can_be_no_key_is_refused() {
        let text = schema(KeyForm::Text, None);
        assert_eq!(text.attributes(b""), Err(KeyError::Empty { attribute: "p".to_owned() }));
        assert_eq!(text.attributes(b"\xff"), Err(KeyError::Utf8 { attribute: "p".to_owned() }));
        assert!(matches!(text.attributes(&[b'a'; 2_049]), Err(KeyError::TooLong { len: 2_049, .. })));
        assert!(text.attributes(&[b'a'; 2_048]).is_ok());
        let both = schema(KeyForm::Text, Some(KeyForm::Text));
        assert_eq!(both.attributes(b"a"), Err(KeyError::Split(SplitError::NoSort)));
        assert_eq!(both.attributes(b"a%:b"), Err(KeyError::Split(SplitError::Escape)));
        assert_eq!(both.attributes(b"a:"), Err(KeyError::Empty { attribute: "s".to_owned() }));
        assert!(matches!(
            both.attributes(&[b"a:", [b'b'; 1_025].as_slice()].concat()),
            Err(KeyError::TooLong { .. })
        ));
    }

    #[test]
    fn numbers_are_as_dynamodb_writes_them() {
        for right in [
            "0",
            "1",
            "-1",
            "10",
            "0.5",
            "-0.05",
            "123.456",
            &"9".repeat(38),
            &format!("1{}", "0".repeat(125)),
        ] {
            assert!(is_plain_number(right), "{right}");
        }
        for wrong in [
            "",
            "-",
            "01",
            "1.0",
            "1.",
            ".5",
            "+1",
            "-0",
            "1E2",
            "1e2",
            "0x1",
            "1 ",
            "NaN",
            "1.2.3",
            &"9".repeat(39),
        ] {
            assert!(!is_plain_number(wrong), "{wrong}");
        }
    }
}
