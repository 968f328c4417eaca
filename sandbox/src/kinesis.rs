//! The Kinesis of one region: embedded (ferrokinesis), with its puts one at a time.
//!
//! The server gives a record its sequence number before it stores it. Of two puts at a time the later number may be
//! stored first, and a reader that has seen it goes on behind it: the other record is never read (seen: three of
//! 20,000 changes lost in one region, on a busy machine). An empty read of a shard that never had a record goes on
//! from the time of the read, and may pass the first one likewise. The service promises that a reader sees every
//! record; so here a put excludes other puts, and reads.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_kinesis::error::DisplayErrorContext;
use aws_sdk_kinesis::types::StreamStatus;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use ferrokinesis::store::StoreOptions;
use tokio::sync::RwLock;
use tokio::time::{Instant, sleep};

use crate::clients;
use crate::server::EmbeddedServer;

/// A stream becomes active within this time.
const ACTIVE_PATIENCE: Duration = Duration::from_secs(20);
const POLL_INTERVAL: Duration = Duration::from_millis(10);
/// Open shards of a region (AWS: an account's default quota is 200 to 20,000 by region).
const SHARDS_MAX: u32 = 500;
/// What the server keeps of records. At 1 KB a change it is beyond any run of the sandbox; when it is reached
/// writes are refused, they are not lost.
const RETAINED_BYTES_MAX: u64 = 2 << 30;
/// A request: 5 MiB of records (AWS: PutRecords), in base64, and what is around them.
const REQUEST_BYTES_MAX: usize = 16 << 20;

/// Why the Kinesis of a region did not come up.
#[derive(Debug, thiserror::Error)]
pub enum KinesisError {
    /// No port.
    #[error("cannot start the Kinesis of {region}: {source}")]
    Start {
        /// The region.
        region: String,
        /// What failed.
        source: io::Error,
    },
    /// The stream was refused or did not become active.
    #[error("cannot create the stream {stream} in {region}: {reason}")]
    CreateStream {
        /// The stream's name.
        stream: String,
        /// The region.
        region: String,
        /// What Kinesis answered.
        reason: String,
    },
}

/// A running Kinesis. Dropping it stops it.
#[derive(Debug)]
pub struct Kinesis {
    region: String,
    server: EmbeddedServer,
}

impl Kinesis {
    /// Starts the Kinesis of `region` with no streams.
    ///
    /// # Errors
    /// No port could be bound.
    pub async fn start(region: &str) -> Result<Self, KinesisError> {
        let (app, _store) = ferrokinesis::create_app(StoreOptions {
            create_stream_ms: 1,
            delete_stream_ms: 1,
            update_stream_ms: 1,
            shard_limit: SHARDS_MAX,
            max_retained_bytes: Some(RETAINED_BYTES_MAX),
            aws_region: region.to_owned(),
            ..StoreOptions::default()
        });
        let app = app.layer(from_fn_with_state(Arc::new(RwLock::new(())), take_turns));
        let server = EmbeddedServer::start(|listener, stop| async move {
            let serving = ferrokinesis::serve_plain_http(listener, app, stop.cancelled_owned()).await;
            if let Err(error) = serving {
                tracing::error!(%error, "embedded Kinesis ended");
            }
        })
        .await
        .map_err(|source| KinesisError::Start { region: region.to_owned(), source })?;
        Ok(Self { region: region.to_owned(), server })
    }

    /// Where it listens.
    #[must_use]
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// A client for it.
    #[must_use]
    pub fn client(&self) -> aws_sdk_kinesis::Client {
        clients::kinesis(&self.url(), &self.region)
    }

    /// Creates a stream and waits until it is active.
    ///
    /// # Errors
    /// Kinesis refuses, or the stream does not become active.
    pub async fn create_stream(&self, stream: &str, shards: i32) -> Result<(), KinesisError> {
        let failed = |reason: String| KinesisError::CreateStream {
            stream: stream.to_owned(),
            region: self.region.clone(),
            reason,
        };
        let client = self.client();
        client
            .create_stream()
            .stream_name(stream)
            .shard_count(shards)
            .send()
            .await
            .map_err(|error| failed(DisplayErrorContext(error).to_string()))?;
        let deadline = Instant::now() + ACTIVE_PATIENCE;
        loop {
            let answer = client
                .describe_stream_summary()
                .stream_name(stream)
                .send()
                .await
                .map_err(|error| failed(DisplayErrorContext(error).to_string()))?;
            let status = answer.stream_description_summary.map(|summary| summary.stream_status);
            if status == Some(StreamStatus::Active) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(failed(format!("still {status:?} after {ACTIVE_PATIENCE:?}")));
            }
            // Kinesis tells of a stream's state only when asked.
            sleep(POLL_INTERVAL).await;
        }
    }

    /// Stops it.
    pub async fn stop(self) {
        self.server.stop().await;
    }
}

/// Lets a put in when nobody else puts or reads.
async fn take_turns(State(turns): State<Arc<RwLock<()>>>, request: Request, next: Next) -> Response {
    let target = request.headers().get("x-amz-target").and_then(|target| target.to_str().ok());
    let operation = target.and_then(|target| target.rsplit('.').next()).unwrap_or_default().to_owned();
    // A client that is slow to send must not keep the others waiting.
    let (head, body) = request.into_parts();
    let body = match to_bytes(body, REQUEST_BYTES_MAX).await {
        Ok(body) => body,
        Err(error) => return (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
    };
    let request = Request::from_parts(head, Body::from(body));
    match &*operation {
        "PutRecord" | "PutRecords" => {
            let _turn = turns.write().await;
            next.run(request).await
        }
        "GetRecords" => {
            let _turn = turns.read().await;
            next.run(request).await
        }
        _ => next.run(request).await,
    }
}
