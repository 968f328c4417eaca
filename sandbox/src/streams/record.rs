//! Records of changes, turned into their final JSON once, when they are put.
//!
//! A page of GetRecords is then a concatenation of ready pieces: the fake must be faster than what it measures.

use std::fmt::Write as _;

use bytes::{Bytes, BytesMut};

/// A position in a stream. The service's numbers may be longer (21 to 40 digits); ours have 21 to 38.
pub type Sequence = u128;

/// What a change did to its item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventName {
    /// The item is new.
    Insert,
    /// The item was there and is different now.
    Modify,
    /// The item is gone.
    Remove,
}

impl EventName {
    /// As on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Insert => "INSERT",
            Self::Modify => "MODIFY",
            Self::Remove => "REMOVE",
        }
    }
}

/// A change to put into a shard. Keys and images are JSON texts in DynamoDB's form: `{"id":{"S":"a"}}`.
#[derive(Clone, Debug)]
pub struct Record {
    event: EventName,
    keys: String,
    new_image: Option<String>,
    old_image: Option<String>,
    created_ms: Option<u64>,
    by_ttl: bool,
}

impl Record {
    /// A change of the item with these keys.
    #[must_use]
    pub fn new(event: EventName, keys: impl Into<String>) -> Self {
        Self { event, keys: keys.into(), new_image: None, old_image: None, created_ms: None, by_ttl: false }
    }

    /// A new item.
    #[must_use]
    pub fn insert(keys: impl Into<String>, new_image: impl Into<String>) -> Self {
        Self::new(EventName::Insert, keys).new_image(new_image)
    }

    /// The item after the change.
    #[must_use]
    pub fn new_image(mut self, image: impl Into<String>) -> Self {
        self.new_image = Some(image.into());
        self
    }

    /// The item before the change.
    #[must_use]
    pub fn old_image(mut self, image: impl Into<String>) -> Self {
        self.old_image = Some(image.into());
        self
    }

    /// When the change was made, in milliseconds since the Unix epoch; without this, when it is put. The service
    /// tells it in whole seconds.
    #[must_use]
    pub fn created_ms(mut self, created_ms: u64) -> Self {
        self.created_ms = Some(created_ms);
        self
    }

    /// The change is a deletion by time to live: the record carries the service's `userIdentity`.
    #[must_use]
    pub fn by_ttl(mut self) -> Self {
        self.by_ttl = true;
        self
    }

    /// The record at its place in a stream.
    pub(super) fn store(
        &self,
        sequence: Sequence,
        now_ms: u64,
        region: &str,
        buffer: &mut BytesMut,
    ) -> StoredRecord {
        let created_ms = self.created_ms.unwrap_or(now_ms);
        let image_bytes = |image: &Option<String>| image.as_ref().map_or(0, String::len);
        let bytes = self.keys.len() + image_bytes(&self.new_image) + image_bytes(&self.old_image);
        // Writing to memory cannot fail.
        let _ = write!(
            buffer,
            concat!(
                r#"{{"awsRegion":"{region}","dynamodb":{{"ApproximateCreationDateTime":{created},"#,
                r#""Keys":{keys},"#
            ),
            region = region,
            created = created_ms / 1000,
            keys = self.keys,
        );
        for (name, image) in [("NewImage", &self.new_image), ("OldImage", &self.old_image)] {
            if let Some(image) = image {
                let _ = write!(buffer, r#""{name}":{image},"#);
            }
        }
        let _ = write!(
            buffer,
            concat!(
                r#""SequenceNumber":"{sequence}","SizeBytes":{bytes},"StreamViewType":"NEW_AND_OLD_IMAGES"}},"#,
                r#""eventID":"{sequence:032x}","eventName":"{event}","eventSource":"aws:dynamodb","#,
                r#""eventVersion":"1.1""#
            ),
            sequence = sequence,
            bytes = bytes,
            event = self.event.as_str(),
        );
        if self.by_ttl {
            let _ = buffer
                .write_str(r#","userIdentity":{"PrincipalId":"dynamodb.amazonaws.com","Type":"Service"}"#);
        }
        let _ = buffer.write_str("}");
        StoredRecord { sequence, created_ms, json: buffer.split().freeze() }
    }
}

/// The number of bytes around the padding of an item with a number of up to 20 digits.
const ITEM_FRAME_BYTES: usize = r#"{"id":{"S":"item-"},"n":{"N":""},"pad":{"S":""}}"#.len();

/// The item `{"id":{"S":"item-<n>"},"n":{"N":"<n>"},"pad":{"S":"..."}}` with an image of about `image_bytes`.
pub(super) fn item(n: u64, image_bytes: usize) -> Record {
    let number = n.to_string();
    let pad = image_bytes.saturating_sub(ITEM_FRAME_BYTES + 2 * number.len());
    let keys = format!(r#"{{"id":{{"S":"item-{number}"}}}}"#);
    let pad = "x".repeat(pad);
    let image = format!(r#"{{"id":{{"S":"item-{number}"}},"n":{{"N":"{number}"}},"pad":{{"S":"{pad}"}}}}"#);
    Record::insert(keys, image)
}

/// A record in a shard.
#[derive(Clone, Debug)]
pub(super) struct StoredRecord {
    pub(super) sequence: Sequence,
    pub(super) created_ms: u64,
    pub(super) json: Bytes,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(record: &Record) -> serde_json::Value {
        let stored =
            record.store(100_000_000_000_000_000_007, 1_700_000_000_999, "eu-west-1", &mut BytesMut::new());
        serde_json::from_slice(&stored.json).unwrap()
    }

    #[test]
    fn a_record_is_json_with_the_fields_of_the_service() {
        let json =
            parse(&Record::new(EventName::Modify, r#"{"id":{"S":"a"}}"#).new_image("{}").old_image("{}"));
        assert_eq!(json["eventName"], "MODIFY");
        assert_eq!(json["awsRegion"], "eu-west-1");
        assert_eq!(json["dynamodb"]["Keys"]["id"]["S"], "a");
        assert_eq!(json["dynamodb"]["SequenceNumber"], "100000000000000000007");
        assert_eq!(json["dynamodb"]["ApproximateCreationDateTime"], 1_700_000_000);
        assert!(json["dynamodb"]["OldImage"].is_object());
        assert!(json.get("userIdentity").is_none());
    }

    #[test]
    fn a_deletion_by_time_to_live_names_the_service() {
        let json = parse(&Record::new(EventName::Remove, "{}").by_ttl());
        assert_eq!(json["userIdentity"]["PrincipalId"], "dynamodb.amazonaws.com");
        assert!(json["dynamodb"].get("NewImage").is_none());
    }

    #[test]
    fn an_item_has_the_size_asked_for() {
        for n in [0, 12_345_678] {
            let record = item(n, 300);
            assert_eq!(record.new_image.as_ref().unwrap().len(), 300);
            assert_eq!(parse(&record)["dynamodb"]["NewImage"]["n"]["N"], n.to_string());
        }
    }
}
