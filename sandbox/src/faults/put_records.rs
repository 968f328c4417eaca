//! A PutRecords call and its answer, taken apart and put together (AWS: Kinesis API, PutRecords): as JSON 1.1, which the
//! SDK writes, or as CBOR, which the service takes as well.

use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use md5::{Digest as _, Md5};
use serde::de::{DeserializeOwned, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How a body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    Json,
    Cbor,
}

/// A body is not what its content type says.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EncodingError {
    #[error("not the JSON that was expected: {0}")]
    Json(#[from] serde_json::Error),
    #[error("not the CBOR that was expected: {0}")]
    Read(#[from] ciborium::de::Error<std::io::Error>),
    #[error("cannot write CBOR: {0}")]
    Write(#[from] ciborium::ser::Error<std::io::Error>),
}

impl Encoding {
    /// That of a content type; `None` for any other.
    pub(crate) fn of(content_type: &str) -> Option<Self> {
        [Self::Json, Self::Cbor].into_iter().find(|encoding| encoding.content_type() == content_type)
    }

    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/x-amz-json-1.1",
            Self::Cbor => "application/x-amz-cbor-1.1",
        }
    }

    pub(crate) fn read<T: DeserializeOwned>(self, body: &[u8]) -> Result<T, EncodingError> {
        match self {
            Self::Json => Ok(serde_json::from_slice(body)?),
            Self::Cbor => Ok(ciborium::from_reader(body)?),
        }
    }

    pub(crate) fn write(self, value: &impl Serialize) -> Result<Vec<u8>, EncodingError> {
        match self {
            Self::Json => Ok(serde_json::to_vec(value)?),
            Self::Cbor => {
                let mut body = Vec::new();
                ciborium::into_writer(value, &mut body)?;
                Ok(body)
            }
        }
    }
}

/// A request. What is not named here is not passed on when entries are taken out of it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PutRecords {
    #[serde(rename = "StreamName", skip_serializing_if = "Option::is_none", default)]
    pub(crate) stream: Option<String>,
    #[serde(rename = "StreamARN", skip_serializing_if = "Option::is_none", default)]
    pub(crate) stream_arn: Option<String>,
    #[serde(rename = "Records")]
    pub(crate) entries: Vec<Entry>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Entry {
    #[serde(rename = "Data")]
    data: Data,
    #[serde(rename = "ExplicitHashKey", skip_serializing_if = "Option::is_none", default)]
    explicit_hash_key: Option<String>,
    #[serde(rename = "PartitionKey")]
    partition_key: String,
}

impl Entry {
    /// The record's bytes.
    pub(crate) fn into_data(self) -> Vec<u8> {
        self.data.0
    }

    /// What the service counts: the data and the partition key.
    pub(crate) fn bytes(&self) -> u64 {
        (self.data.0.len() + self.partition_key.len()) as u64
    }

    /// Where the entry is in the space of hash keys.
    pub(crate) fn hash_key(&self) -> u128 {
        let explicit = self.explicit_hash_key.as_ref().and_then(|key| key.parse().ok());
        explicit.unwrap_or_else(|| u128::from_be_bytes(Md5::digest(self.partition_key.as_bytes()).into()))
    }
}

/// Base64 in JSON, bytes in CBOR.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Data(Vec<u8>);

impl Serialize for Data {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match serializer.is_human_readable() {
            true => serializer.serialize_str(&BASE64_STANDARD.encode(&self.0)),
            false => serializer.serialize_bytes(&self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match deserializer.is_human_readable() {
            true => deserializer.deserialize_str(DataVisitor),
            false => deserializer.deserialize_byte_buf(DataVisitor),
        }
    }
}

struct DataVisitor;

impl Visitor<'_> for DataVisitor {
    type Value = Data;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("bytes, or base64")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Data, E> {
        BASE64_STANDARD.decode(text).map(Data).map_err(E::custom)
    }

    fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Data, E> {
        Ok(Data(bytes.to_vec()))
    }

    fn visit_byte_buf<E: serde::de::Error>(self, bytes: Vec<u8>) -> Result<Data, E> {
        Ok(Data(bytes))
    }
}

/// An answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Answer {
    #[serde(rename = "EncryptionType", skip_serializing_if = "Option::is_none", default)]
    encryption: Option<String>,
    #[serde(rename = "FailedRecordCount", default)]
    failed: usize,
    #[serde(rename = "Records")]
    pub(crate) entries: Vec<EntryAnswer>,
}

/// The answer to one entry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EntryAnswer {
    #[serde(rename = "SequenceNumber", skip_serializing_if = "Option::is_none", default)]
    sequence: Option<String>,
    #[serde(rename = "ShardId", skip_serializing_if = "Option::is_none", default)]
    pub(crate) shard: Option<String>,
    #[serde(rename = "ErrorCode", skip_serializing_if = "Option::is_none", default)]
    pub(crate) code: Option<String>,
    #[serde(rename = "ErrorMessage", skip_serializing_if = "Option::is_none", default)]
    message: Option<String>,
}

impl EntryAnswer {
    pub(crate) fn taken(shard: String, sequence: String) -> Self {
        Self { sequence: Some(sequence), shard: Some(shard), ..Self::default() }
    }

    /// In the service's words (AWS: PutRecords, `ErrorMessage` of a throttled record).
    pub(crate) fn throttled(shard: &str, stream: &str) -> Self {
        Self {
            code: Some("ProvisionedThroughputExceededException".to_owned()),
            message: Some(format!(
                "Rate exceeded for shard {shard} in stream {stream} under account 000000000000."
            )),
            ..Self::default()
        }
    }

    pub(crate) fn internal_failure() -> Self {
        Self {
            code: Some("InternalFailure".to_owned()),
            message: Some("Internal service failure.".to_owned()),
            ..Self::default()
        }
    }
}

impl Answer {
    pub(crate) fn new(entries: Vec<EntryAnswer>) -> Self {
        let failed = entries.iter().filter(|entry| entry.code.is_some()).count();
        Self { encryption: None, failed, entries }
    }
}

/// Puts the server's answers in the places of the entries that were not rejected.
///
/// `None`: the server did not answer each of them.
pub(crate) fn join(rejected: Vec<Option<EntryAnswer>>, answer: Answer) -> Option<Answer> {
    let mut of_server = answer.entries.into_iter();
    let entries: Vec<EntryAnswer> =
        rejected.into_iter().map(|answer| answer.or_else(|| of_server.next())).collect::<Option<_>>()?;
    if of_server.next().is_some() {
        return None;
    }
    Some(Answer { encryption: answer.encryption, ..Answer::new(entries) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn taken(shard: &str) -> EntryAnswer {
        EntryAnswer {
            sequence: Some("1".to_owned()),
            shard: Some(shard.to_owned()),
            ..EntryAnswer::default()
        }
    }

    proptest! {
        #[test]
        fn answers_come_in_the_order_of_the_entries(rejected in prop::collection::vec(any::<bool>(), 0..50)) {
            let answers: Vec<_> = rejected.iter().map(|is| is.then(EntryAnswer::internal_failure)).collect();
            let passed = (0..rejected.len()).filter(|index| !rejected[*index]);
            let of_server = Answer { entries: passed.map(|index| taken(&index.to_string())).collect(), ..Answer::default() };
            let joined = join(answers, of_server).unwrap();
            prop_assert_eq!(joined.failed, rejected.iter().filter(|is| **is).count());
            for (index, (entry, is_rejected)) in joined.entries.iter().zip(&rejected).enumerate() {
                prop_assert_eq!(entry.code.is_some(), *is_rejected);
                prop_assert_eq!(entry.shard.clone(), (!is_rejected).then(|| index.to_string()));
            }
        }

        #[test]
        fn a_call_is_the_same_in_either_encoding(
            data in prop::collection::vec(any::<u8>(), 0..50),
            key in "[a-z]{1,9}",
            explicit in prop::option::of(any::<u128>()),
        ) {
            for encoding in [Encoding::Json, Encoding::Cbor] {
                let call = PutRecords {
                    stream: Some("s".to_owned()),
                    stream_arn: None,
                    entries: vec![Entry {
                        data: Data(data.clone()),
                        explicit_hash_key: explicit.map(|key| key.to_string()),
                        partition_key: key.clone(),
                    }],
                };
                let read: PutRecords = encoding.read(&encoding.write(&call).unwrap()).unwrap();
                let [entry] = read.entries.try_into().unwrap();
                prop_assert_eq!(entry.bytes(), (data.len() + key.len()) as u64);
                prop_assert_eq!(entry.hash_key(), call.entries[0].hash_key());
                prop_assert_eq!(entry.into_data(), data.clone());
            }
        }
    }

    #[test]
    fn an_answer_is_the_same_in_either_encoding() {
        let answer = Answer::new(vec![taken("a"), EntryAnswer::throttled("b", "s")]);
        for encoding in [Encoding::Json, Encoding::Cbor] {
            let read: Answer = encoding.read(&encoding.write(&answer).unwrap()).unwrap();
            assert_eq!((&read, read.failed), (&answer, 1));
            assert_eq!(Encoding::of(encoding.content_type()), Some(encoding));
            encoding.read::<Answer>(b"<html>").unwrap_err();
        }
    }

    #[test]
    fn an_answer_to_too_few_or_too_many_entries_is_none() {
        let one = Answer { entries: vec![taken("a")], ..Answer::default() };
        assert_eq!(join(vec![None, None], one.clone()), None);
        assert_eq!(join(vec![Some(EntryAnswer::internal_failure())], one), None);
    }

    #[test]
    fn an_entry_without_a_hash_key_of_its_own_is_hashed_as_the_service_does() {
        let body = r#"{"StreamName":"s","Records":[
            {"Data":"YQ==","PartitionKey":"a"},
            {"Data":"YQ==","PartitionKey":"a","ExplicitHashKey":"17"}]}"#;
        let call: PutRecords = Encoding::Json.read(body.as_bytes()).unwrap();
        let keys: Vec<u128> = call.entries.iter().map(Entry::hash_key).collect();
        // md5("a") = 0cc175b9c0f1b6a831c399e269772661.
        assert_eq!(keys, [0x0cc1_75b9_c0f1_b6a8_31c3_99e2_6977_2661, 17]);
    }
}
