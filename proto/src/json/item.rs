//! Items in DynamoDB's JSON, as its API, its exports and its streams have them: `{"name": {"S": "text"}}`, binaries in
//! base64 (AWS: DynamoDB API reference, AttributeValue).

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::display::Base64Display;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::item::{AttributeValue, BinarySet, Item, List, Map, NumberSet, StringSet, Value};

/// An item to write, in DynamoDB's JSON.
#[derive(Clone, Copy, Debug)]
pub struct Written<'a>(pub &'a Item);

impl Serialize for Written<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Attributes(&self.0.attributes).serialize(serializer)
    }
}

struct Attributes<'a>(&'a BTreeMap<String, AttributeValue>);

impl Serialize for Attributes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, Attribute(value))))
    }
}

struct Attribute<'a>(&'a AttributeValue);

impl Serialize for Attribute<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // An attribute without a value is of a type that is not known: an empty object, as read_entry.py has it.
        let Some(value) = &self.0.value else { return serializer.serialize_map(Some(0))?.end() };
        let mut map = serializer.serialize_map(Some(1))?;
        match value {
            Value::S(text) => map.serialize_entry("S", text)?,
            Value::N(number) => map.serialize_entry("N", number)?,
            Value::B(bytes) => map.serialize_entry("B", &Base64(bytes))?,
            Value::Bool(truth) => map.serialize_entry("BOOL", truth)?,
            Value::Null(is_null) => map.serialize_entry("NULL", is_null)?,
            Value::L(list) => map.serialize_entry("L", &Members(&list.values, Attribute))?,
            Value::M(of) => map.serialize_entry("M", &Attributes(&of.attributes))?,
            Value::Ss(set) => map.serialize_entry("SS", &set.values)?,
            Value::Ns(set) => map.serialize_entry("NS", &set.values)?,
            Value::Bs(set) => map.serialize_entry("BS", &Members(&set.values, Base64))?,
        }
        map.end()
    }
}

struct Members<'a, T, F>(&'a [T], F);

impl<'a, T, W: Serialize, F: Fn(&'a T) -> W> Serialize for Members<'a, T, F> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(&self.1))
    }
}

struct Base64<'a>(&'a Bytes);

impl Serialize for Base64<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&Base64Display::new(self.0, &BASE64_STANDARD))
    }
}

/// An item that was read.
#[derive(Deserialize)]
#[serde(transparent)]
pub(super) struct Read(#[serde(deserialize_with = "read_item")] pub(super) Item);

fn read_item<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Item, D::Error> {
    read_attributes(deserializer).map(|attributes| Item { attributes })
}

fn read_attributes<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, AttributeValue>, D::Error> {
    let read: BTreeMap<String, ReadAttribute> = Deserialize::deserialize(deserializer)?;
    Ok(read.into_iter().map(|(name, ReadAttribute(value))| (name, value)).collect())
}

struct ReadAttribute(AttributeValue);

impl<'de> Deserialize<'de> for ReadAttribute {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(AttributeVisitor)
    }
}

struct AttributeVisitor;

impl<'de> Visitor<'de> for AttributeVisitor {
    type Value = ReadAttribute;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an attribute value with one type")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ReadAttribute, A::Error> {
        let Some(kind) = map.next_key::<String>()? else {
            return Ok(ReadAttribute(AttributeValue { value: None }));
        };
        let value = match kind.as_str() {
            "S" => Value::S(map.next_value()?),
            "N" => Value::N(map.next_value()?),
            "B" => Value::B(map.next_value::<ReadBase64>()?.0),
            "BOOL" => Value::Bool(map.next_value()?),
            "NULL" => Value::Null(map.next_value()?),
            "L" => {
                let values: Vec<ReadAttribute> = map.next_value()?;
                Value::L(List { values: values.into_iter().map(|ReadAttribute(value)| value).collect() })
            }
            "M" => Value::M(Map { attributes: map.next_value::<ReadMap>()?.0 }),
            "SS" => Value::Ss(StringSet { values: map.next_value()? }),
            "NS" => Value::Ns(NumberSet { values: map.next_value()? }),
            "BS" => {
                let values: Vec<ReadBase64> = map.next_value()?;
                Value::Bs(BinarySet { values: values.into_iter().map(|ReadBase64(bytes)| bytes).collect() })
            }
            _ => return Err(A::Error::custom("a type that this version does not know")),
        };
        match map.next_key::<IgnoredAny>()? {
            None => Ok(ReadAttribute(value.into())),
            Some(_) => Err(A::Error::custom("more than one type")),
        }
    }
}

#[derive(Deserialize)]
#[serde(transparent)]
struct ReadMap(#[serde(deserialize_with = "read_attributes")] BTreeMap<String, AttributeValue>);

struct ReadBase64(Bytes);

impl<'de> Deserialize<'de> for ReadBase64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = BASE64_STANDARD.decode(text).map_err(|_| D::Error::custom("not base64"))?;
        Ok(Self(bytes.into()))
    }
}
