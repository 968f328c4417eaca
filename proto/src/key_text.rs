//! Keys as people write them: in commands and in lists.
//!
//! A key of a partition key alone is written as its value: the text, the number, or base64 for binary. Every key can be
//! written as DynamoDB's JSON of its attributes: `{"id":{"S":"user-1"},"at":{"N":"5"}}`.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};

use crate::key::{ItemKey, is_plain_number, split_composite};

/// The primary key of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyShape {
    /// The partition key.
    pub partition: KeyPart,
    /// The sort key, if there is one.
    pub sort: Option<KeyPart>,
}

/// An attribute of a primary key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPart {
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: KeyKind,
}

/// The types that a key attribute can have (AWS: `ScalarAttributeType`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyKind {
    /// `S`.
    Text,
    /// `N`.
    Number,
    /// `B`.
    Binary,
}

/// Why a text is no key of the table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyTextError {
    /// The table has a sort key, so that a value alone names no item.
    #[error("{given:?} names no item, because the table has a sort key: write {expected}")]
    NeedsBoth {
        /// What was given.
        given: String,
        /// How it is written.
        expected: String,
    },
    /// It looks like JSON and is not the key's.
    #[error("{given:?} is no key of the table: write {expected}")]
    Json {
        /// What was given.
        given: String,
        /// How it is written.
        expected: String,
    },
    /// A value that its attribute cannot have.
    #[error("{given:?} is no value of the key attribute {attribute}: {reason}")]
    Value {
        /// What was given.
        given: String,
        /// The attribute.
        attribute: String,
        /// Why.
        reason: &'static str,
    },
}

impl KeyKind {
    /// The name that DynamoDB's JSON has for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "S",
            Self::Number => "N",
            Self::Binary => "B",
        }
    }
}

impl KeyShape {
    /// Reads a key.
    ///
    /// # Errors
    /// It is no key of a table with this shape; the error says how one is written.
    pub fn parse(&self, text: &str) -> Result<ItemKey, KeyTextError> {
        // A text key may begin with a brace itself; what is not JSON of attributes is a value.
        if text.starts_with('{') {
            match serde_json::from_str::<BTreeMap<String, BTreeMap<String, String>>>(text) {
                Ok(attributes) => return self.of_attributes(text, &attributes),
                Err(_) if self.sort.is_none() && self.partition.kind == KeyKind::Text => {}
                Err(_) => return Err(self.no_json(text)),
            }
        }
        match &self.sort {
            Some(_) => Err(KeyTextError::NeedsBoth { given: text.to_owned(), expected: self.example() }),
            None => Ok(ItemKey::partition(self.partition.bytes(text)?)),
        }
    }

    fn of_attributes(
        &self,
        text: &str,
        attributes: &BTreeMap<String, BTreeMap<String, String>>,
    ) -> Result<ItemKey, KeyTextError> {
        let parts = 1 + usize::from(self.sort.is_some());
        if attributes.len() != parts {
            return Err(self.no_json(text));
        }
        let value = |part: &KeyPart| {
            let typed = attributes.get(&part.name).filter(|typed| typed.len() == 1);
            let value = typed.and_then(|typed| typed.get(part.kind.as_str()));
            part.bytes(value.ok_or_else(|| self.no_json(text))?)
        };
        let partition = value(&self.partition)?;
        match &self.sort {
            None => Ok(ItemKey::partition(partition)),
            Some(sort) => Ok(ItemKey::composite(&partition, &value(sort)?)),
        }
    }

    /// A key as [`parse`](Self::parse) reads it. Bytes that are no key of the table are shown as text, as far as they are.
    #[must_use]
    pub fn show(&self, key: &[u8]) -> String {
        self.shown(key).unwrap_or_else(|| String::from_utf8_lossy(key).into_owned())
    }

    fn shown(&self, key: &[u8]) -> Option<String> {
        let Some(sort) = &self.sort else {
            let text = self.partition.text(key)?;
            // What would be read as JSON is written as JSON.
            return Some(if text.starts_with('{') { self.json(&[(&self.partition, text)]) } else { text });
        };
        let (partition, value) = split_composite(key).ok()?;
        Some(self.json(&[(&self.partition, self.partition.text(&partition)?), (sort, sort.text(value)?)]))
    }

    fn json(&self, values: &[(&KeyPart, String)]) -> String {
        let part = |(part, value): &(&KeyPart, String)| {
            let text = |text: &str| serde_json::Value::from(text).to_string();
            format!("{}:{{\"{}\":{}}}", text(&part.name), part.kind.as_str(), text(value))
        };
        format!("{{{}}}", values.iter().map(part).collect::<Vec<_>>().join(","))
    }

    /// How a key of this table is written.
    #[must_use]
    pub fn example(&self) -> String {
        let value = |part: &KeyPart| match part.kind {
            KeyKind::Text => "text".to_owned(),
            KeyKind::Number => "5".to_owned(),
            KeyKind::Binary => "base64==".to_owned(),
        };
        let parts: Vec<_> = [Some(&self.partition), self.sort.as_ref()]
            .into_iter()
            .flatten()
            .map(|part| (part, value(part)))
            .collect();
        self.json(&parts)
    }

    fn no_json(&self, given: &str) -> KeyTextError {
        KeyTextError::Json { given: given.to_owned(), expected: self.example() }
    }
}

impl KeyPart {
    fn bytes(&self, text: &str) -> Result<Vec<u8>, KeyTextError> {
        let wrong =
            |reason| KeyTextError::Value { given: text.to_owned(), attribute: self.name.clone(), reason };
        if text.is_empty() {
            return Err(wrong("key values are not empty"));
        }
        match self.kind {
            KeyKind::Text => Ok(text.as_bytes().to_vec()),
            KeyKind::Number if is_plain_number(text) => Ok(text.as_bytes().to_vec()),
            KeyKind::Number => Err(wrong(
                "not a number as DynamoDB writes it: no exponent, no plus sign, no zeros that do not count",
            )),
            KeyKind::Binary => BASE64.decode(text).map_err(|_| wrong("not base64")),
        }
    }

    fn text(&self, bytes: &[u8]) -> Option<String> {
        match self.kind {
            KeyKind::Text | KeyKind::Number => std::str::from_utf8(bytes).ok().map(str::to_owned),
            KeyKind::Binary => Some(BASE64.encode(bytes)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn part(name: &str, kind: KeyKind) -> KeyPart {
        KeyPart { name: name.to_owned(), kind }
    }

    fn shape(partition: KeyKind, sort: Option<KeyKind>) -> KeyShape {
        KeyShape { partition: part("id", partition), sort: sort.map(|kind| part("at", kind)) }
    }

    fn key(text: &str) -> ItemKey {
        ItemKey::partition(text.as_bytes().to_vec())
    }

    #[test]
    fn a_key_is_a_value_or_its_attributes() {
        let text = shape(KeyKind::Text, None);
        assert_eq!(text.parse("user-1"), Ok(key("user-1")));
        assert_eq!(text.parse("{odd}"), Ok(key("{odd}")));
        assert_eq!(text.parse(r#"{"id":{"S":"user-1"}}"#), Ok(key("user-1")));
        assert_eq!(shape(KeyKind::Number, None).parse("-5"), Ok(key("-5")));
        assert_eq!(shape(KeyKind::Binary, None).parse("/wA="), Ok(ItemKey::partition(vec![0xff, 0])));
        let both = shape(KeyKind::Text, Some(KeyKind::Number));
        assert_eq!(both.parse(r#"{"at":{"N":"5"},"id":{"S":"a:b"}}"#), Ok(ItemKey::composite(b"a:b", b"5")));
    }

    #[test]
    fn what_is_no_key_is_refused_with_how_one_is_written() {
        let both = shape(KeyKind::Text, Some(KeyKind::Number));
        for (shape, text, expected) in [
            (&both, "user-1", r#"write {"id":{"S":"text"},"at":{"N":"5"}}"#),
            (&both, r#"{"id":{"S":"a"}}"#, r#"write {"id":{"S":"text"},"at":{"N":"5"}}"#),
            (&both, r#"{"id":{"S":"a"},"at":{"S":"5"}}"#, "is no key of the table"),
            (&both, r#"{"id":{"S":"a"},"at":{"N":"05"}}"#, "key attribute at: not a number"),
            (&shape(KeyKind::Number, None), "abc", "key attribute id: not a number"),
            (&shape(KeyKind::Number, None), "{}", r#"write {"id":{"N":"5"}}"#),
            (&shape(KeyKind::Text, None), "", "key values are not empty"),
            (&shape(KeyKind::Text, None), r#"{"id":{"N":"5"}}"#, r#"write {"id":{"S":"text"}}"#),
            (&shape(KeyKind::Binary, None), "!", "not base64"),
        ] {
            let error = shape.parse(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn bytes_that_are_no_key_are_shown_as_they_are() {
        let both = shape(KeyKind::Text, Some(KeyKind::Number));
        assert_eq!(both.show(b"no colon"), "no colon");
        assert_eq!(shape(KeyKind::Text, None).show(b"\xff"), "\u{fffd}");
    }

    fn any_kind() -> impl Strategy<Value = KeyKind> {
        prop_oneof![Just(KeyKind::Text), Just(KeyKind::Number), Just(KeyKind::Binary)]
    }

    fn any_value(kind: KeyKind) -> BoxedStrategy<Vec<u8>> {
        match kind {
            KeyKind::Text => "[{}:%\"a]{1,6}|.{1,6}".prop_map(String::into_bytes).boxed(),
            KeyKind::Number => "-?[1-9][0-9]{0,20}".prop_map(String::into_bytes).boxed(),
            KeyKind::Binary => prop::collection::vec(any::<u8>(), 1..9).boxed(),
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(
            (partition, sort) in (any_kind(), prop::option::of(any_kind())).prop_flat_map(|(partition, sort)| {
                let sort = match sort {
                    None => Just(None).boxed(),
                    Some(kind) => any_value(kind).prop_map(move |value| Some((kind, value))).boxed(),
                };
                (any_value(partition).prop_map(move |value| (partition, value)), sort)
            })
        ) {
            let shape = shape(partition.0, sort.as_ref().map(|(kind, _)| *kind));
            let key = match &sort {
                None => ItemKey::partition(partition.1),
                Some((_, sort)) => ItemKey::composite(&partition.1, sort),
            };
            prop_assert_eq!(shape.parse(&shape.show(key.as_bytes())), Ok(key));
        }
    }
}
