//! The master region's DynamoDB: the state table, and a table whose stream is what the test says.
//!
//! The embedded database is called inside the handler: so it is known exactly when the end of a shard was
//! checkpointed, and a test can hold that against when its children were first read.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use dynoxide::actions::query::QueryRequest;
use dynoxide::types::AttributeValue;
use dynoxide::{Database, DynoxideError};
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use warmcast_sandbox::EmbeddedServer;

/// The table that is tailed.
pub(crate) const TABLE: &str = "profiles";
/// Its partition key, as in the records of the fake.
pub(crate) const KEY: &str = "id";
/// The aggregators' state table.
pub(crate) const STATE_TABLE: &str = "warmcast-aggregator";

const SHARD_END: &str = "shard-end";

/// A DynamoDB that listens. Dropping it stops it.
pub(crate) struct Master {
    shared: Arc<Shared>,
    server: EmbeddedServer,
}

struct Shared {
    database: Database,
    /// The latest stream of [`TABLE`].
    stream: Mutex<String>,
    /// Partition and sort key of each lease whose end was checkpointed, and when that write came in first.
    ended: Mutex<HashMap<(String, String), Instant>>,
}

/// What the tests look at of a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lease {
    pub(crate) checkpoint: String,
    pub(crate) owner: Option<String>,
}

impl Lease {
    pub(crate) fn is_ended(&self) -> bool {
        self.checkpoint == SHARD_END
    }
}

impl Master {
    /// One with a table whose latest stream is `stream`.
    pub(crate) async fn start(stream: &str) -> Self {
        let shared = Arc::new(Shared {
            database: Database::memory().unwrap(),
            stream: Mutex::new(stream.to_owned()),
            ended: Mutex::default(),
        });
        let served = Arc::clone(&shared);
        let server = EmbeddedServer::start(|listener, stop| serve(listener, served, stop)).await.unwrap();
        Self { shared, server }
    }

    pub(crate) fn url(&self) -> String {
        self.server.url()
    }

    /// The table has a new stream.
    pub(crate) fn set_stream(&self, arn: &str) {
        arn.clone_into(&mut self.shared.stream.lock());
    }

    /// When the end of a shard was checkpointed; its lease may be gone since.
    pub(crate) fn ended_at(&self, arn: &str, shard: &str) -> Option<Instant> {
        self.shared.ended.lock().get(&lease_key(arn, shard)).copied()
    }

    /// The leases of a stream, by shard.
    pub(crate) async fn leases(&self, arn: &str) -> BTreeMap<String, Lease> {
        let items = self.partition(format!("stream#{arn}")).await;
        let lease = |item: &HashMap<String, AttributeValue>| {
            let checkpoint = text(item, "checkpoint")?;
            let shard = text(item, "sk")?.strip_prefix("shard#")?.to_owned();
            Some((shard, Lease { checkpoint, owner: text(item, "owner") }))
        };
        items.iter().filter_map(lease).collect()
    }

    /// The recorded gaps of a stream: shard and position.
    pub(crate) async fn gaps(&self, arn: &str) -> Vec<(String, String)> {
        let items = self.partition(format!("gap#{arn}")).await;
        let gap = |item: &HashMap<String, AttributeValue>| {
            let (shard, _time) =
                text(item, "sk")?.split_once('#').map(|(a, b)| (a.to_owned(), b.to_owned()))?;
            Some((shard, text(item, "after")?))
        };
        items.iter().filter_map(gap).collect()
    }

    async fn partition(&self, pk: String) -> Vec<HashMap<String, AttributeValue>> {
        let shared = Arc::clone(&self.shared);
        blocking(move || {
            let mut items = Vec::new();
            let mut from = None;
            loop {
                let page = shared.database.query(QueryRequest {
                    table_name: STATE_TABLE.to_owned(),
                    key_condition_expression: Some("pk = :pk".to_owned()),
                    expression_attribute_values: Some(
                        [(":pk".to_owned(), AttributeValue::S(pk.clone()))].into(),
                    ),
                    exclusive_start_key: from,
                    scan_index_forward: true,
                    ..QueryRequest::default()
                })?;
                items.extend(page.items.unwrap_or_default());
                from = page.last_evaluated_key;
                if from.is_none() {
                    return Ok(items);
                }
            }
        })
        .await
        // The aggregator has not created it yet.
        .unwrap_or_default()
    }

    pub(crate) async fn stop(self) {
        self.server.stop().await;
    }
}

fn text(item: &HashMap<String, AttributeValue>, name: &str) -> Option<String> {
    match item.get(name) {
        Some(AttributeValue::S(text)) => Some(text.clone()),
        _ => None,
    }
}

fn lease_key(arn: &str, shard: &str) -> (String, String) {
    (format!("stream#{arn}"), format!("shard#{shard}"))
}

async fn serve(listener: TcpListener, shared: Arc<Shared>, stop: CancellationToken) {
    let app = Router::new().route("/", post(handle)).with_state(shared);
    axum::serve(listener, app).with_graceful_shutdown(stop.cancelled_owned()).await.unwrap();
}

async fn handle(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    let target = headers.get("x-amz-target").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let operation = target.rsplit('.').next().unwrap_or_default().to_owned();
    let (status, body) = match blocking(move || shared.answer(&operation, &body)).await {
        Ok(body) => (StatusCode::OK, body),
        Err(error) => {
            let status = StatusCode::from_u16(error.status_code()).unwrap_or(StatusCode::BAD_REQUEST);
            (status, error.to_json())
        }
    };
    (status, [(CONTENT_TYPE, "application/x-amz-json-1.0")], body).into_response()
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, DynoxideError> + Send + 'static,
) -> Result<T, DynoxideError> {
    let done = tokio::task::spawn_blocking(work).await;
    // Cancelled when the test is over.
    done.unwrap_or_else(|ended| Err(DynoxideError::InternalServerError(ended.to_string())))
}

impl Shared {
    fn answer(&self, operation: &str, body: &[u8]) -> Result<String, DynoxideError> {
        let database = &self.database;
        match operation {
            "DescribeTable" if decode::<Value>(body)?["TableName"] == TABLE => encode(&self.describe()),
            "DescribeTable" => encode(&database.describe_table(decode(body)?)?),
            "CreateTable" => encode(&database.create_table(decode(body)?)?),
            "UpdateItem" => self.update(body),
            "PutItem" => encode(&database.put_item(decode(body)?)?),
            "DeleteItem" => encode(&database.delete_item(decode(body)?)?),
            "GetItem" => encode(&database.get_item(decode(body)?)?),
            "Query" => encode(&database.query(decode(body)?)?),
            other => Err(DynoxideError::ValidationException(format!("{other} is not served here"))),
        }
    }

    fn describe(&self) -> Value {
        json!({ "Table": {
            "TableName": TABLE,
            "TableStatus": "ACTIVE",
            "KeySchema": [{ "AttributeName": KEY, "KeyType": "HASH" }],
            "StreamSpecification": { "StreamEnabled": true, "StreamViewType": "NEW_AND_OLD_IMAGES" },
            "LatestStreamArn": *self.stream.lock(),
        }})
    }

    fn update(&self, body: &[u8]) -> Result<String, DynoxideError> {
        // Before the write: whoever sees it sees it later.
        let at = Instant::now();
        let answer = self.database.update_item(decode(body)?)?;
        let request: Value = decode(body)?;
        if request["ExpressionAttributeValues"][":checkpoint"]["S"] == SHARD_END {
            let key = |name: &str| request["Key"][name]["S"].as_str().unwrap_or_default().to_owned();
            self.ended.lock().entry((key("pk"), key("sk"))).or_insert(at);
        }
        encode(&answer)
    }
}

fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, DynoxideError> {
    serde_json::from_slice(body).map_err(|error| DynoxideError::ValidationException(error.to_string()))
}

fn encode<T: Serialize>(answer: &T) -> Result<String, DynoxideError> {
    serde_json::to_string(answer).map_err(|error| DynoxideError::InternalServerError(error.to_string()))
}
