//! A DynamoDB for state tables: the embedded one in memory, with each call counted and weighed.
//!
//! It calls the embedded database inside the handler instead of putting a proxy before its server: the counting then
//! costs no connection, and the capacity units are the database's own, item by item, not guessed from bodies.

use std::io;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use axum::serve::ListenerExt as _;
use dynoxide::actions::query::QueryRequest;
use dynoxide::actions::{delete_item, get_item, put_item, query, transact_write_items, update_item};
use dynoxide::types::{AttributeValue, ConsumedCapacity};
use dynoxide::{Database, DynoxideError};
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::server::EmbeddedServer;

const JSON_TYPE: &str = "application/x-amz-json-1.0";
const TARGET_PREFIX: &str = "DynamoDB_20120810.";
/// AWS: a request of DynamoDB has at most 16 MiB.
const BODY_BYTES_MAX: usize = 16 << 20;

/// What a write costs though its condition failed (AWS: it is billed by the item's size, at least one unit).
const REFUSED_WRITE_UNITS: f64 = 1.0;

/// What calls came since the start, and what they weighed. Differences of two are of interest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Calls {
    /// PutItem, UpdateItem, DeleteItem, TransactWriteItems, refused ones included.
    pub(crate) writes: u64,
    /// Of these, those whose condition failed: somebody was faster.
    pub(crate) refused: u64,
    /// GetItem, and each page of a Query.
    pub(crate) reads: u64,
    /// Write request units.
    pub(crate) write_units: f64,
    /// Read request units.
    pub(crate) read_units: f64,
    /// Bytes of the answers to reads.
    pub(crate) read_bytes: u64,
}

impl Calls {
    /// What came since `earlier`.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            writes: self.writes.saturating_sub(earlier.writes),
            refused: self.refused.saturating_sub(earlier.refused),
            reads: self.reads.saturating_sub(earlier.reads),
            write_units: self.write_units - earlier.write_units,
            read_units: self.read_units - earlier.read_units,
            read_bytes: self.read_bytes.saturating_sub(earlier.read_bytes),
        }
    }
}

/// A DynamoDB in memory that listens. Dropping it stops it.
#[derive(Debug)]
pub(crate) struct MeteredDynamoDb {
    metered: Arc<Metered>,
    server: EmbeddedServer,
}

struct Metered {
    database: Database,
    calls: Mutex<Calls>,
}

impl std::fmt::Debug for Metered {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Metered").field("calls", &self.calls).finish_non_exhaustive()
    }
}

impl MeteredDynamoDb {
    /// Starts an empty one on a free loopback port.
    ///
    /// # Errors
    /// No database could be opened, or no port bound.
    pub(crate) async fn start() -> io::Result<Self> {
        let database = Database::memory().map_err(io::Error::other)?;
        let metered = Arc::new(Metered { database, calls: Mutex::default() });
        let served = Arc::clone(&metered);
        let server = EmbeddedServer::start(|listener, stop| serve(listener, served, stop)).await?;
        Ok(Self { metered, server })
    }

    /// Where it listens.
    pub(crate) fn url(&self) -> String {
        self.server.url()
    }

    /// What has been called so far.
    pub(crate) fn calls(&self) -> Calls {
        *self.metered.calls.lock()
    }

    /// The text attributes of every item of a partition. Not counted.
    ///
    /// # Errors
    /// The database refuses.
    pub(crate) async fn partition(
        &self,
        table: &str,
        pk: &str,
        attributes: [&'static str; 3],
    ) -> Result<Vec<[Option<String>; 3]>, DynoxideError> {
        let (metered, table, pk) = (Arc::clone(&self.metered), table.to_owned(), pk.to_owned());
        blocking(move || {
            let mut items = Vec::new();
            let mut from = None;
            loop {
                let page = metered.database.query(QueryRequest {
                    table_name: table.clone(),
                    key_condition_expression: Some("pk = :pk".to_owned()),
                    expression_attribute_values: Some(
                        [(":pk".to_owned(), AttributeValue::S(pk.clone()))].into(),
                    ),
                    exclusive_start_key: from,
                    scan_index_forward: true,
                    ..QueryRequest::default()
                })?;
                for item in page.items.unwrap_or_default() {
                    items.push(attributes.map(|name| match item.get(name) {
                        Some(AttributeValue::S(text)) => Some(text.clone()),
                        _ => None,
                    }));
                }
                match page.last_evaluated_key {
                    Some(key) => from = Some(key),
                    None => return Ok(items),
                }
            }
        })
        .await
    }

    /// Stops it.
    pub(crate) async fn stop(self) {
        self.server.stop().await;
    }
}

async fn serve(listener: TcpListener, metered: Arc<Metered>, stop: CancellationToken) {
    let limit = DefaultBodyLimit::max(BODY_BYTES_MAX);
    let app = Router::new().route("/", post(handle)).layer(limit).with_state(metered);
    // A small answer must not wait for the acknowledgement of the one before.
    let listener = listener.tap_io(|connection| {
        if let Err(error) = connection.set_nodelay(true) {
            tracing::debug!(%error, "a connection ended before it was served");
        }
    });
    let serving = axum::serve(listener, app).with_graceful_shutdown(stop.cancelled_owned());
    if let Err(error) = serving.await {
        tracing::error!(%error, "the metered DynamoDB ended");
    }
}

async fn handle(State(metered): State<Arc<Metered>>, headers: HeaderMap, body: Bytes) -> Response {
    let target = headers.get("x-amz-target").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let operation = target.strip_prefix(TARGET_PREFIX).unwrap_or_default().to_owned();
    // The database computes, and has one lock: the other servers must not wait for it.
    let answer = blocking(move || metered.answer(&operation, &body)).await;
    let (status, body) = match answer {
        Ok(body) => (StatusCode::OK, body),
        Err(error) => {
            let status = StatusCode::from_u16(error.status_code()).unwrap_or(StatusCode::BAD_REQUEST);
            (status, error.to_json())
        }
    };
    (status, [(CONTENT_TYPE, JSON_TYPE)], body).into_response()
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, DynoxideError> + Send + 'static,
) -> Result<T, DynoxideError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|panicked| Err(DynoxideError::InternalServerError(panicked.to_string())))
}

/// What a call weighs.
enum Weight {
    Nothing,
    Write(f64),
    Refused,
    Read(f64),
}

/// A request that can be asked to tell what it consumes.
trait Weighed: DeserializeOwned {
    /// Its answer.
    type Answer: Serialize;
    /// Asks for the units.
    fn weigh(&mut self);
    /// The units of an answer.
    fn consumed(answer: &Self::Answer) -> Option<&ConsumedCapacity>;
}

macro_rules! weighed {
    ($request:ty => $answer:ty) => {
        impl Weighed for $request {
            type Answer = $answer;
            fn weigh(&mut self) {
                self.return_consumed_capacity = Some("TOTAL".to_owned());
            }
            fn consumed(answer: &Self::Answer) -> Option<&ConsumedCapacity> {
                answer.consumed_capacity.as_ref()
            }
        }
    };
}

weighed!(put_item::PutItemRequest => put_item::PutItemResponse);
weighed!(update_item::UpdateItemRequest => update_item::UpdateItemResponse);
weighed!(delete_item::DeleteItemRequest => delete_item::DeleteItemResponse);
weighed!(get_item::GetItemRequest => get_item::GetItemResponse);
weighed!(query::QueryRequest => query::QueryResponse);

impl Metered {
    fn answer(&self, operation: &str, body: &[u8]) -> Result<String, DynoxideError> {
        let database = &self.database;
        match operation {
            "UpdateItem" => self.write(body, |request| database.update_item(request)),
            "PutItem" => self.write(body, |request| database.put_item(request)),
            "DeleteItem" => self.write(body, |request| database.delete_item(request)),
            "GetItem" => self.read(body, |request| database.get_item(request)),
            "Query" => self.read(body, |request| database.query(request)),
            "TransactWriteItems" => self.transact(body),
            "DescribeTable" => encode(&database.describe_table(decode(body)?)?),
            "CreateTable" => encode(&database.create_table(decode(body)?)?),
            other => Err(DynoxideError::ValidationException(format!("{other} is not served here"))),
        }
    }

    fn write<Q: Weighed>(
        &self,
        body: &[u8],
        run: impl FnOnce(Q) -> Result<Q::Answer, DynoxideError>,
    ) -> Result<String, DynoxideError> {
        let mut request: Q = decode(body)?;
        request.weigh();
        let answer = run(request);
        self.note(match &answer {
            Ok(answer) => Weight::Write(units::<Q>(answer)),
            Err(DynoxideError::ConditionalCheckFailedException(..)) => Weight::Refused,
            Err(_) => Weight::Nothing,
        });
        encode(&answer?)
    }

    /// Its units are those of all its tables together.
    fn transact(&self, body: &[u8]) -> Result<String, DynoxideError> {
        let mut request: transact_write_items::TransactWriteItemsRequest = decode(body)?;
        request.return_consumed_capacity = Some("TOTAL".to_owned());
        let answer = self.database.transact_write_items(request);
        self.note(match &answer {
            Ok(answer) => {
                let consumed = answer.consumed_capacity.iter().flatten();
                Weight::Write(consumed.map(|consumed| consumed.capacity_units).sum())
            }
            Err(DynoxideError::TransactionCanceledException(..)) => Weight::Refused,
            Err(_) => Weight::Nothing,
        });
        encode(&answer?)
    }

    fn read<Q: Weighed>(
        &self,
        body: &[u8],
        run: impl FnOnce(Q) -> Result<Q::Answer, DynoxideError>,
    ) -> Result<String, DynoxideError> {
        let mut request: Q = decode(body)?;
        request.weigh();
        let answer = run(request)?;
        self.note(Weight::Read(units::<Q>(&answer)));
        let body = encode(&answer)?;
        self.calls.lock().read_bytes += body.len() as u64;
        Ok(body)
    }

    fn note(&self, weight: Weight) {
        let mut calls = self.calls.lock();
        match weight {
            Weight::Nothing => {}
            Weight::Write(units) => {
                calls.writes += 1;
                calls.write_units += units;
            }
            Weight::Refused => {
                calls.writes += 1;
                calls.refused += 1;
                calls.write_units += REFUSED_WRITE_UNITS;
            }
            Weight::Read(units) => {
                calls.reads += 1;
                calls.read_units += units;
            }
        }
    }
}

fn units<Q: Weighed>(answer: &Q::Answer) -> f64 {
    Q::consumed(answer).map_or(0.0, |consumed| consumed.capacity_units)
}

fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, DynoxideError> {
    serde_json::from_slice(body).map_err(|error| DynoxideError::ValidationException(error.to_string()))
}

fn encode<T: Serialize>(answer: &T) -> Result<String, DynoxideError> {
    serde_json::to_string(answer).map_err(|error| DynoxideError::InternalServerError(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clients;
    use crate::dynamodb::{MASTER_REGION, create_table};
    use aws_sdk_dynamodb::types::AttributeValue as Value;

    fn text(text: &str) -> Value {
        Value::S(text.to_owned())
    }

    #[tokio::test]
    async fn writes_and_reads_are_counted_with_their_units() {
        let server = MeteredDynamoDb::start().await.unwrap();
        let client = clients::dynamodb(&server.url(), MASTER_REGION);
        create_table(&client, "table", "pk").await.unwrap();
        assert_eq!(server.calls(), Calls::default());

        let put = || {
            let item = client.put_item().table_name("table").item("pk", text("a"));
            item.item("owner", text("me")).item("pad", text(&"x".repeat(5_000)))
        };
        put().send().await.unwrap();
        put().condition_expression("attribute_not_exists(pk)").send().await.unwrap_err();
        let query = || {
            let query = client.query().table_name("table").key_condition_expression("pk = :pk");
            query.expression_attribute_values(":pk", text("a"))
        };
        assert_eq!(query().send().await.unwrap().count, 1);
        query().consistent_read(true).send().await.unwrap();

        let calls = server.calls();
        assert_eq!((calls.writes, calls.refused, calls.reads), (2, 1, 2));
        assert_eq!((calls.write_units, calls.read_units), (5.0 + 1.0, 1.0 + 2.0));
        assert!(calls.read_bytes > 10_000);
        let items = server.partition("table", "a", ["pk", "owner", "none"]).await.unwrap();
        assert_eq!(items, [[Some("a".to_owned()), Some("me".to_owned()), None]]);
        assert_eq!(server.calls(), calls, "a look from inside is not counted");
        server.stop().await;
    }
}
