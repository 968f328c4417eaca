//! A stream record becomes a [`Change`]: its key in canonical form, its position, its item encoded once. Pure.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use aws_sdk_dynamodbstreams::types::{
    AttributeValue as Attribute, OperationType, Record, StreamRecord, StreamViewType,
};
use bytes::Bytes;
use warmcast_proto::change::{Change, ChangeKind};
use warmcast_proto::item::{self, AttributeValue, BinarySet, Item, List, Map, NumberSet, StringSet, Value};
use warmcast_proto::key::ItemKey;
use warmcast_proto::position::Position;
use warmcast_proto::sequence::Sequence;

use crate::table::KeySchema;

type Image = HashMap<String, Attribute>;

/// Makes the changes of one table's stream.
#[derive(Clone, Debug)]
pub struct ChangeMaker {
    table: Arc<str>,
    generation: u32,
    key: KeySchema,
}

/// A record that no change can be made of, for a reason that somebody should look into.
#[derive(Debug)]
pub struct Undecodable {
    /// Why.
    pub reason: Reason,
    /// What can still be said: the state of this key is unknown. A miss is always safe.
    pub invalidation: Option<Box<Change>>,
}

/// Why no change can be made of a record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// Without it nothing is known.
    #[error("the record has no {0}")]
    Missing(&'static str),
    /// It has no order.
    #[error("sequence number {0:?}: {1}")]
    Sequence(String, String),
    /// The generation is beyond what a position holds.
    #[error("{0}")]
    Generation(String),
    /// A key attribute is missing or of a type that keys cannot have.
    #[error("key attribute {0} is missing or not a string, number or binary")]
    Key(String),
    /// A newer service knows more types than we do.
    #[error("attribute {0} has a type that this version does not know")]
    Type(String),
    /// Neither INSERT, MODIFY nor REMOVE.
    #[error("event {0:?} is not known to this version")]
    Event(String),
}

impl ChangeMaker {
    /// For the stream of `table` that has this generation.
    pub fn new(table: &str, generation: u32, key: KeySchema) -> Self {
        Self { table: table.into(), generation, key }
    }

    /// The table.
    pub fn table(&self) -> Arc<str> {
        Arc::clone(&self.table)
    }

    /// The change that a record tells of: an invalidation where its stream has no new images, because then the
    /// item's state is not known here.
    ///
    /// # Errors
    /// When it cannot be told; the error has an invalidation of the key if at least that is known.
    pub fn make(&self, record: &Record, created_ms: u64) -> Result<Change, Undecodable> {
        let body =
            record.dynamodb.as_ref().ok_or(Reason::Missing("body")).map_err(Undecodable::without_key)?;
        let (key, position) = self.identify(body).map_err(Undecodable::without_key)?;
        let change =
            |kind, payload| Change { table: self.table.clone(), key, position, kind, created_ms, payload };
        match content(record, body) {
            Ok((kind, payload)) => Ok(change(kind, payload)),
            Err(reason) => {
                let invalidation = Some(Box::new(change(ChangeKind::Invalidate, Bytes::new())));
                Err(Undecodable { reason, invalidation })
            }
        }
    }

    fn identify(&self, body: &StreamRecord) -> Result<(Bytes, Position), Reason> {
        let text = body.sequence_number.as_deref().ok_or(Reason::Missing("sequence number"))?;
        let sequence: Sequence = text.parse().map_err(|e: warmcast_proto::sequence::SequenceError| {
            Reason::Sequence(text.to_owned(), e.to_string())
        })?;
        let position = Position::new(self.generation, sequence)
            .map_err(|error| Reason::Generation(error.to_string()))?;
        let keys = body.keys.as_ref().ok_or(Reason::Missing("key"))?;
        Ok((item_key(keys, &self.key)?, position))
    }
}

impl Undecodable {
    fn without_key(reason: Reason) -> Self {
        Self { reason, invalidation: None }
    }
}

/// The canonical bytes of an item's key.
pub(crate) fn item_key(item: &Image, key: &KeySchema) -> Result<Bytes, Reason> {
    let partition = key_bytes(item, &key.partition)?;
    let key = match &key.sort {
        None => ItemKey::partition(Bytes::copy_from_slice(partition)),
        Some(sort) => ItemKey::composite(partition, key_bytes(item, sort)?),
    };
    Ok(key.into_bytes())
}

fn key_bytes<'a>(keys: &'a Image, name: &str) -> Result<&'a [u8], Reason> {
    match keys.get(name) {
        Some(Attribute::S(text) | Attribute::N(text)) => Ok(text.as_bytes()),
        Some(Attribute::B(blob)) => Ok(blob.as_ref()),
        _ => Err(Reason::Key(name.to_owned())),
    }
}

fn content(record: &Record, body: &StreamRecord) -> Result<(ChangeKind, Bytes), Reason> {
    match record.event_name.as_ref() {
        Some(OperationType::Insert | OperationType::Modify) => match &body.new_image {
            Some(image) => Ok((ChangeKind::Put, item::encode(&Item { attributes: attributes(image)? }))),
            None if announces_new_images(body) => Err(Reason::Missing("new image")),
            None => Ok((ChangeKind::Invalidate, Bytes::new())),
        },
        Some(OperationType::Remove) if is_expiry(record) => Ok((ChangeKind::Expire, Bytes::new())),
        Some(OperationType::Remove) => Ok((ChangeKind::Delete, Bytes::new())),
        Some(other) => Err(Reason::Event(other.as_str().to_owned())),
        None => Err(Reason::Missing("event name")),
    }
}

/// Whether the record's stream promises new images (AWS: `StreamRecord.StreamViewType`). The record is asked, not the
/// table: what is left of a table's earlier stream can have another view type than its present one.
fn announces_new_images(body: &StreamRecord) -> bool {
    matches!(body.stream_view_type, Some(StreamViewType::NewImage | StreamViewType::NewAndOldImages))
}

/// Whether DynamoDB's TTL deleted the item (AWS: Streams Record, `userIdentity`).
fn is_expiry(record: &Record) -> bool {
    record.user_identity.as_ref().is_some_and(|identity| {
        identity.r#type.as_deref() == Some("Service")
            && identity.principal_id.as_deref() == Some("dynamodb.amazonaws.com")
    })
}

/// Attributes of a stream record as an item has them.
pub(crate) fn attributes<'a>(
    image: impl IntoIterator<Item = (&'a String, &'a Attribute)>,
) -> Result<BTreeMap<String, AttributeValue>, Reason> {
    image.into_iter().map(|(name, attribute)| Ok((name.clone(), value(name, attribute)?))).collect()
}

/// DynamoDB nests at most 32 levels deep, so the recursion is bounded.
fn value(name: &str, attribute: &Attribute) -> Result<AttributeValue, Reason> {
    let blob = |blob: &aws_smithy_types::Blob| Bytes::copy_from_slice(blob.as_ref());
    let value = match attribute {
        Attribute::S(text) => Value::S(text.clone()),
        Attribute::N(digits) => Value::N(digits.clone()),
        Attribute::B(bytes) => Value::B(blob(bytes)),
        Attribute::Bool(truth) => Value::Bool(*truth),
        Attribute::Null(null) => Value::Null(*null),
        Attribute::Ss(values) => Value::Ss(StringSet { values: values.clone() }),
        Attribute::Ns(values) => Value::Ns(NumberSet { values: values.clone() }),
        Attribute::Bs(values) => Value::Bs(BinarySet { values: values.iter().map(blob).collect() }),
        Attribute::L(values) => {
            Value::L(List { values: values.iter().map(|v| self::value(name, v)).collect::<Result<_, _>>()? })
        }
        Attribute::M(map) => Value::M(Map { attributes: attributes(map)? }),
        _ => return Err(Reason::Type(name.to_owned())),
    };
    Ok(value.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_dynamodbstreams::types::Identity;
    use aws_smithy_types::Blob;

    fn maker(sort: Option<&str>) -> ChangeMaker {
        ChangeMaker::new(
            "profiles",
            3,
            KeySchema { partition: "id".to_owned(), sort: sort.map(str::to_owned) },
        )
    }

    fn image(attributes: &[(&str, Attribute)]) -> Image {
        attributes.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
    }

    fn record(event: OperationType, keys: &[(&str, Attribute)], new: Option<Image>) -> Record {
        let body = StreamRecord::builder()
            .set_keys(Some(image(keys)))
            .set_new_image(new)
            .sequence_number("400000000000000499660")
            .build();
        Record::builder().event_name(event).dynamodb(body).build()
    }

    fn s(text: &str) -> Attribute {
        Attribute::S(text.to_owned())
    }

    #[test]
    fn every_attribute_type_survives() {
        let b = |bytes: &[u8]| Blob::new(bytes);
        let new = image(&[
            ("id", s("c1")),
            ("n", Attribute::N("-1.5E-100".to_owned())),
            ("b", Attribute::B(b(b"\x00\xff"))),
            ("bool", Attribute::Bool(true)),
            ("null", Attribute::Null(true)),
            ("m", Attribute::M(image(&[("x", Attribute::L(vec![s("a"), Attribute::Bool(false)]))]))),
            ("ss", Attribute::Ss(vec!["a".to_owned(), "b".to_owned()])),
            ("ns", Attribute::Ns(vec!["1".to_owned(), "2".to_owned()])),
            ("bs", Attribute::Bs(vec![b(b"1"), b(b"2")])),
        ]);
        let change =
            maker(None).make(&record(OperationType::Insert, &[("id", s("c1"))], Some(new)), 7).unwrap();
        assert_eq!((change.kind, &change.key[..], change.created_ms), (ChangeKind::Put, &b"c1"[..], 7));
        assert_eq!(change.position.generation(), 3);
        assert_eq!(change.position.sequence().to_string(), "400000000000000499660");
        let item = item::decode(change.payload).unwrap();
        let get = |name: &str| item.attributes.get(name).unwrap().value.clone().unwrap();
        assert_eq!(item.attributes.len(), 9);
        assert_eq!(get("n"), Value::N("-1.5E-100".to_owned()));
        assert_eq!(get("b"), Value::B(Bytes::from_static(b"\x00\xff")));
        assert_eq!(get("bool"), Value::Bool(true));
        assert_eq!(get("null"), Value::Null(true));
        assert_eq!(get("ss"), Value::Ss(StringSet { values: vec!["a".to_owned(), "b".to_owned()] }));
        assert_eq!(get("ns"), Value::Ns(NumberSet { values: vec!["1".to_owned(), "2".to_owned()] }));
        let two = vec![Bytes::from_static(b"1"), Bytes::from_static(b"2")];
        assert_eq!(get("bs"), Value::Bs(BinarySet { values: two }));
        let list = List { values: vec![Value::S("a".to_owned()).into(), Value::Bool(false).into()] };
        assert_eq!(get("m"), Value::M(Map { attributes: [("x".to_owned(), Value::L(list).into())].into() }));
    }

    #[test]
    fn removals_and_expiries_have_no_payload() {
        let mut removed = record(OperationType::Remove, &[("id", s("c1"))], None);
        assert_eq!(maker(None).make(&removed, 0).unwrap().kind, ChangeKind::Delete);
        let user = Identity::builder().r#type("Service").principal_id("dynamodb.amazonaws.com").build();
        removed.user_identity = Some(user);
        let expired = maker(None).make(&removed, 0).unwrap();
        assert_eq!(expired.kind, ChangeKind::Expire);
        assert!(expired.payload.is_empty());
    }

    #[test]
    fn composite_keys_cannot_be_confused() {
        let make = |partition: &str, sort: &str| {
            let keys = [("id", s(partition)), ("at", s(sort))];
            maker(Some("at")).make(&record(OperationType::Remove, &keys, None), 0).unwrap().key
        };
        assert_ne!(make("a:b", "c"), make("a", "b:c"));
    }

    #[test]
    fn a_change_without_its_new_image_is_an_invalidation_unless_its_stream_promises_one() {
        let without_image = |event, view: Option<StreamViewType>| {
            let mut record = record(event, &[("id", s("c1"))], None);
            let body = record.dynamodb.as_mut().unwrap();
            (body.stream_view_type, body.old_image) = (view, Some(image(&[("id", s("c1"))])));
            maker(None).make(&record, 7)
        };
        for view in [Some(StreamViewType::KeysOnly), Some(StreamViewType::OldImage), None] {
            for event in [OperationType::Insert, OperationType::Modify] {
                let change = without_image(event, view.clone()).unwrap();
                assert_eq!((change.kind, &change.key[..]), (ChangeKind::Invalidate, &b"c1"[..]));
                assert_eq!(change.position.sequence().to_string(), "400000000000000499660");
                assert_eq!((change.created_ms, change.payload.len()), (7, 0));
            }
            assert_eq!(without_image(OperationType::Remove, view).unwrap().kind, ChangeKind::Delete);
        }
        for view in [StreamViewType::NewImage, StreamViewType::NewAndOldImages] {
            let error = without_image(OperationType::Modify, Some(view)).unwrap_err();
            assert_eq!(error.reason, Reason::Missing("new image"));
            assert_eq!(error.invalidation.unwrap().kind, ChangeKind::Invalidate);
        }
    }

    #[test]
    fn what_cannot_be_decoded_invalidates_its_key_if_that_is_known() {
        let odd = record(OperationType::from("ARCHIVE"), &[("id", s("c1"))], None);
        let error = maker(None).make(&odd, 0).unwrap_err();
        assert_eq!(error.reason, Reason::Event("ARCHIVE".to_owned()));
        assert_eq!(error.invalidation.unwrap().kind, ChangeKind::Invalidate);
        let no_key = record(OperationType::Modify, &[("other", s("c1"))], None);
        let error = maker(None).make(&no_key, 0).unwrap_err();
        assert_eq!(error.reason, Reason::Key("id".to_owned()));
        assert!(error.invalidation.is_none());
        assert!(maker(None).make(&Record::builder().build(), 0).unwrap_err().invalidation.is_none());
    }
}
