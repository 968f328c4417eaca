//! A region that costs little: a Kinesis, as far as an aggregator sees it, that applies each record at once to a
//! [`Cache`] and keeps none.
//!
//! With it a small machine has enough left for the aggregator at rates that real cache-writers and Redis servers for
//! four regions would not leave it.

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
use parking_lot::{Mutex, MutexGuard};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::cache::Cache;
use crate::faults::put_records::{Answer, Encoding, EntryAnswer, PutRecords};
use crate::server::EmbeddedServer;

/// A request of 10 MiB of records (AWS: PutRecords), also in base64, and what is around them.
const REQUEST_BYTES_MAX: usize = 16 << 20;

/// A sink that listens. Dropping it stops it.
#[derive(Debug)]
pub(super) struct Sink {
    shared: Arc<Shared>,
    server: EmbeddedServer,
}

#[derive(Debug)]
struct Shared {
    cache: Mutex<Cache>,
    shards: u32,
}

impl Sink {
    pub(super) async fn start(cache: Cache, shards: u32) -> io::Result<Self> {
        let shared = Arc::new(Shared { cache: Mutex::new(cache), shards: shards.max(1) });
        let served = Arc::clone(&shared);
        let server = EmbeddedServer::start(|listener, stop| serve(listener, served, stop)).await?;
        Ok(Self { shared, server })
    }

    pub(super) fn url(&self) -> String {
        self.server.url()
    }

    pub(super) fn cache(&self) -> MutexGuard<'_, Cache> {
        self.shared.cache.lock()
    }

    pub(super) async fn stop(self) {
        self.server.stop().await;
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>, stop: CancellationToken) {
    let limit = DefaultBodyLimit::max(REQUEST_BYTES_MAX);
    let app = Router::new().route("/", post(handle)).layer(limit).with_state(shared);
    // A small answer must not wait for the acknowledgement of the one before.
    let listener = listener.tap_io(|connection| {
        if let Err(error) = connection.set_nodelay(true) {
            tracing::debug!(%error, "a connection ended before it was served");
        }
    });
    let serving = axum::serve(listener, app).with_graceful_shutdown(stop.cancelled_owned());
    if let Err(error) = serving.await {
        tracing::error!(%error, "a region's sink ended");
    }
}

async fn handle(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let encoding = Encoding::of(header(CONTENT_TYPE.as_str())).unwrap_or(Encoding::Json);
    let operation = header("x-amz-target").rsplit('.').next().unwrap_or_default();
    match operation {
        "PutRecords" => shared.put(encoding, &body),
        "DescribeStreamSummary" => answer(StatusCode::OK, encoding, &shared.summary()),
        "ListShards" => answer(StatusCode::OK, encoding, &shared.listing()),
        _ => refusal(encoding, "UnknownOperationException"),
    }
}

impl Shared {
    fn put(&self, encoding: Encoding, body: &[u8]) -> Response {
        let Ok(call) = encoding.read::<PutRecords>(body) else {
            return refusal(encoding, "SerializationException");
        };
        let mut cache = self.cache.lock();
        let answers = call.entries.into_iter().map(|entry| {
            let shard = shard_id(entry.hash_key() / self.share());
            cache.apply(entry.into_data().into());
            EntryAnswer::taken(shard, "1".to_owned())
        });
        answer(StatusCode::OK, encoding, &Answer::new(answers.collect()))
    }

    /// The hash keys of one shard. With one shard it lacks the last, so that it is a number.
    fn share(&self) -> u128 {
        (u128::MAX / u128::from(self.shards)).saturating_add(1)
    }

    fn listing(&self) -> Value {
        let shard = |number: u32| {
            let first = u128::from(number) * self.share();
            let last = first.saturating_add(self.share() - 1);
            json!({
                "ShardId": shard_id(number.into()),
                "HashKeyRange": { "StartingHashKey": first.to_string(), "EndingHashKey": last.to_string() },
                "SequenceNumberRange": { "StartingSequenceNumber": "1" },
            })
        };
        json!({ "Shards": (0..self.shards).map(shard).collect::<Vec<_>>() })
    }

    fn summary(&self) -> Value {
        json!({ "StreamDescriptionSummary": {
            "StreamName": crate::daemon::STREAM,
            "StreamARN": format!("arn:aws:kinesis:sandbox:000000000000:stream/{}", crate::daemon::STREAM),
            "StreamStatus": "ACTIVE",
            "StreamModeDetails": { "StreamMode": "PROVISIONED" },
            "RetentionPeriodHours": 24,
            "StreamCreationTimestamp": 1.0,
            "EnhancedMonitoring": [],
            "OpenShardCount": self.shards,
        }})
    }
}

fn shard_id(number: u128) -> String {
    format!("shardId-{number:012}")
}

fn answer(status: StatusCode, encoding: Encoding, body: &impl Serialize) -> Response {
    match encoding.write(body) {
        Ok(body) => (status, [(CONTENT_TYPE, encoding.content_type())], body).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

fn refusal(encoding: Encoding, code: &str) -> Response {
    let body = json!({ "__type": code, "message": "not served here" });
    answer(StatusCode::BAD_REQUEST, encoding, &body)
}
