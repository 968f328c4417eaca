//! PutRecords as CBOR: records travel as they are.
//!
//! The SDK speaks JSON with Kinesis, where a record's data is base64: a third more bytes, on the way between two regions,
//! where each costs. Kinesis takes `application/x-amz-cbor-1.1` as well, the same fields as CBOR (RFC 8949), and answers
//! in it; it is what AWS' own SDK for Java sends to Kinesis unless it is told otherwise (`AWS_CBOR_DISABLE`). So PutRecords
//! requests are written here, and their answers are handed to the SDK as the JSON that it expects. Every other call stays
//! as it is.

use aws_sdk_kinesis::config::{Builder, SharedInterceptor};
use aws_sdk_kinesis::operation::put_records::{PutRecords, PutRecordsInput};
use aws_sdk_kinesis::types::PutRecordsRequestEntry;
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::{
    BeforeSerializationInterceptorContextMut, Error, Input, Output,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse, OrchestratorError};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_runtime_api::client::runtime_plugin::RuntimePlugin as _;
use aws_smithy_runtime_api::client::ser_de::{
    DeserializeResponse, SerializeRequest, SharedRequestSerializer, SharedResponseDeserializer,
};
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::config_bag::{ConfigBag, FrozenLayer};
use serde::ser::{Serialize, SerializeMap, Serializer};

const CONTENT_TYPE: &str = "application/x-amz-cbor-1.1";

/// How a region's PutRecords calls are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PutEncoding {
    /// Data as it is.
    #[default]
    Cbor,
    /// Data as base64: for what is no Kinesis and knows no CBOR.
    Json,
}

/// The configuration of clients whose PutRecords calls are written like this.
#[must_use]
pub fn with_encoding(mut config: Builder, encoding: PutEncoding) -> Builder {
    if encoding == PutEncoding::Cbor {
        config.push_interceptor(SharedInterceptor::new(CborPuts));
    }
    config
}

/// Has PutRecords calls written as CBOR.
#[derive(Debug)]
struct CborPuts;

impl Intercept for CborPuts {
    fn name(&self) -> &'static str {
        "CborPuts"
    }

    fn modify_before_serialization(
        &self,
        context: &mut BeforeSerializationInterceptorContextMut<'_>,
        _components: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if context.input().downcast_ref::<PutRecordsInput>().is_none() {
            return Ok(());
        }
        // The operation's own ways, which stay in use for what is not the body.
        let json = PutRecords::new().config().ok_or("PutRecords comes without a configuration")?;
        let state = config.interceptor_state();
        state.store_put(SharedRequestSerializer::new(Request { json: json.clone() }));
        state.store_put(SharedResponseDeserializer::new(Answer { json }));
        Ok(())
    }
}

/// Writes the request.
#[derive(Debug)]
struct Request {
    json: FrozenLayer,
}

impl SerializeRequest for Request {
    fn serialize_input(&self, input: Input, config: &mut ConfigBag) -> Result<HttpRequest, BoxError> {
        let mut put = input.downcast::<PutRecordsInput>().map_err(|_| "not a PutRecords call")?;
        let mut body = Vec::new();
        ciborium::into_writer(&Put(&put), &mut body)?;
        // What is around the body is the same, and cheap without the records.
        put.records = Some(Vec::new());
        let json = self.json.load::<SharedRequestSerializer>().ok_or("no serializer")?;
        let mut request = json.serialize_input(Input::erase(put), config)?;
        let headers = request.headers_mut();
        headers.insert("content-type", CONTENT_TYPE);
        headers.insert("content-length", body.len().to_string());
        *request.body_mut() = SdkBody::from(body);
        Ok(request)
    }
}

/// Reads the answer.
#[derive(Debug)]
struct Answer {
    json: FrozenLayer,
}

impl DeserializeResponse for Answer {
    fn deserialize_nonstreaming_with_config(
        &self,
        response: &HttpResponse,
        config: &ConfigBag,
    ) -> Result<Output, OrchestratorError<Error>> {
        let json = self.json.load::<SharedResponseDeserializer>();
        let json = json.ok_or_else(|| OrchestratorError::other("no deserializer"))?;
        // Who stands between us and Kinesis answers as it likes, in HTML say: that is not ours to read.
        let is_cbor =
            response.headers().get("content-type").is_some_and(|kind| kind.starts_with(CONTENT_TYPE));
        let Some(body) = response.body().bytes().filter(|body| is_cbor && !body.is_empty()) else {
            return json.deserialize_nonstreaming_with_config(response, config);
        };
        let value: serde_json::Value = ciborium::from_reader(body).map_err(OrchestratorError::other)?;
        let mut translated = HttpResponse::new(response.status(), SdkBody::from(value.to_string()));
        for (name, value) in response.headers() {
            translated.headers_mut().append(name.to_owned(), value.to_owned());
        }
        translated.headers_mut().insert("content-type", "application/x-amz-json-1.1");
        json.deserialize_nonstreaming_with_config(&translated, config)
    }
}

/// AWS: Kinesis Data Streams API, PutRecords, request syntax.
struct Put<'a>(&'a PutRecordsInput);

impl Serialize for Put<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(put) = self;
        let texts = [
            ("StreamName", put.stream_name()),
            ("StreamARN", put.stream_arn()),
            ("StreamId", put.stream_id()),
        ];
        let given = texts.iter().filter(|(_, text)| text.is_some()).count();
        let mut map = serializer.serialize_map(Some(1 + given + usize::from(put.dry_run().is_some())))?;
        map.serialize_entry("Records", &put.records().iter().map(Entry).collect::<Vec<_>>())?;
        put_texts(&mut map, &texts)?;
        if let Some(dry_run) = put.dry_run() {
            map.serialize_entry("DryRun", &dry_run)?;
        }
        map.end()
    }
}

/// AWS: Kinesis Data Streams API, PutRecordsRequestEntry.
struct Entry<'a>(&'a PutRecordsRequestEntry);

impl Serialize for Entry<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(entry) = self;
        let texts = [("ExplicitHashKey", entry.explicit_hash_key()), ("PartitionKey", entry.partition_key())];
        let given = texts.iter().filter(|(_, text)| text.is_some()).count();
        let mut map = serializer.serialize_map(Some(1 + given))?;
        map.serialize_entry("Data", &Data(entry.data().as_ref()))?;
        put_texts(&mut map, &texts)?;
        map.end()
    }
}

fn put_texts<M: SerializeMap>(map: &mut M, texts: &[(&str, Option<&str>)]) -> Result<(), M::Error> {
    for (name, text) in texts {
        if let Some(text) = text {
            map.serialize_entry(name, text)?;
        }
    }
    Ok(())
}

/// A byte string, not an array of numbers.
struct Data<'a>(&'a [u8]);

impl Serialize for Data<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}
