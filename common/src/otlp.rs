//! Export to an OpenTelemetry collector, by the standard `OTEL_*` environment: off unless an endpoint is named.
//!
//! Metrics are those of `/metrics`. Traces follow single changes from the stream of their table into the cache of each
//! region: see docs/opentelemetry.md. Nothing here holds up or fails what it tells of: what cannot be exported in time
//! is left out, and that is told once in a while.

mod environment;
mod client;
mod tracer;
mod metrics;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opentelemetry::trace::TracerProvider as _;
use opentelemetry::{Context, KeyValue};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceResponse;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::resource::v1::Resource as ProtoResource;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanProcessor};
use prost::Message;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use crate::metrics::Registry;
use crate::telemetry::{Identity, LogLimiter};
use client::Client;

pub use environment::{Endpoint, OtlpConfig, Sampling, read};
pub use tracer::{Role, Span, SpanIds, Tracer};

/// Spans that may wait to be exported. A trace has a handful; at the default rate this is minutes of them.
const SPANS_MAX: usize = 2_048;
/// Spans of one request.
const REQUEST_SPANS_MAX: usize = 512;
/// How long spans wait for others.
const SPANS_LINGER: Duration = Duration::from_secs(2);
/// What the last export may take when the process stops: a collector that hangs must not hold up a stop.
const FLUSH_MAX: Duration = Duration::from_secs(2);

/// Exports what is told of this process.
#[derive(Debug, Default)]
pub struct Exporter {
    spans: Option<Spans>,
    metrics: Option<Metrics>,
}

/// Starts telling: what makes spans, and what exports them and the metrics ([`Exporter::run`]).
pub fn start(config: Option<&OtlpConfig>, identity: &Identity) -> (Tracer, Exporter) {
    let Some(config) = config else { return Default::default() };
    let resource = resource(config, identity);
    let (mut tracer, mut exporter) = (Tracer::default(), Exporter::default());
    if let Some(endpoint) = &config.traces {
        let client = Client::new(endpoint.clone());
        let (sender, receiver) = mpsc::channel(SPANS_MAX);
        let left_out = Arc::new(AtomicU64::default());
        let provider = SdkTracerProvider::builder()
            .with_sampler(tracer::sampler(config.sampling))
            .with_resource(resource.clone())
            .with_span_processor(Hand { spans: sender, left_out: Arc::clone(&left_out) })
            .build();
        tracer = Tracer::new(provider.tracer("warmcast"));
        let resource = ResourceAttributesWithSchema::from(&resource);
        exporter.spans = Some(Spans { client, resource, receiver, left_out });
    }
    if let Some(endpoint) = &config.metrics {
        exporter.metrics = Some(Metrics {
            client: Client::new(endpoint.clone()),
            resource: ProtoResource {
                attributes: ResourceAttributesWithSchema::from(&resource).attributes.0,
                ..ProtoResource::default()
            },
            interval: config.metrics_interval,
            start_ns: now_ns(),
        });
    }
    (tracer, exporter)
}

/// Who tells. What the environment says wins.
fn resource(config: &OtlpConfig, identity: &Identity) -> Resource {
    let worker = identity.worker_id.clone().unwrap_or_default();
    let own = [
        KeyValue::new("service.name", identity.service),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", worker),
        KeyValue::new("telemetry.sdk.name", "opentelemetry"),
        KeyValue::new("telemetry.sdk.language", "rust"),
    ];
    let given = config.resource.iter().map(|(name, value)| KeyValue::new(name.clone(), value.clone()));
    let name = config.service_name.iter().map(|name| KeyValue::new("service.name", name.clone()));
    Resource::builder_empty().with_attributes(own.into_iter().chain(given).chain(name)).build()
}

impl Exporter {
    /// Exports until `end`, and once more then, for two seconds at most and no more than a tenth of what the stop may
    /// take as a whole. It does nothing when there is no collector.
    pub async fn run(self, registry: &Registry, end: &CancellationToken, stop_within: Duration) {
        let flush_within = FLUSH_MAX.min(stop_within / 10);
        let spans = async {
            if let Some(spans) = self.spans {
                spans.run(end, flush_within).await;
            }
        };
        let metrics = async {
            if let Some(metrics) = self.metrics {
                metrics.run(registry, end, flush_within).await;
            }
        };
        tokio::join!(spans, metrics);
    }
}

/// Takes finished spans from wherever they end, and never waits.
#[derive(Debug)]
struct Hand {
    spans: mpsc::Sender<SpanData>,
    left_out: Arc<AtomicU64>,
}

impl SpanProcessor for Hand {
    fn on_start(&self, _span: &mut opentelemetry_sdk::trace::Span, _context: &Context) {}

    fn on_end(&self, span: SpanData) {
        if self.spans.try_send(span).is_err() {
            self.left_out.fetch_add(1, Relaxed);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }
}

#[derive(Debug)]
struct Spans {
    client: Client,
    resource: ResourceAttributesWithSchema,
    receiver: mpsc::Receiver<SpanData>,
    left_out: Arc<AtomicU64>,
}

impl Spans {
    async fn run(mut self, end: &CancellationToken, flush_within: Duration) {
        let (mut gathered, mut complaints) = (Vec::new(), LogLimiter::default());
        while end.run_until_cancelled(self.gather(&mut gathered)).await.is_some() {
            let posting = self.post(std::mem::take(&mut gathered), &mut complaints);
            // At the end nothing waits for an answer that was long in coming.
            if end.run_until_cancelled(posting).await.is_none() {
                break;
            }
        }
        while let Ok(span) = self.receiver.try_recv() {
            gathered.push(span);
        }
        if !gathered.is_empty() {
            let _too_late = timeout(flush_within, self.post(gathered, &mut complaints)).await;
        }
    }

    /// Waits for the first, and then for others for a while. What was gathered stays when it is cancelled.
    async fn gather(&mut self, gathered: &mut Vec<SpanData>) {
        match self.receiver.recv().await {
            Some(span) => gathered.push(span),
            // The tracer is gone: there will be no more.
            None => std::future::pending().await,
        }
        let until = Instant::now() + SPANS_LINGER;
        while gathered.len() < REQUEST_SPANS_MAX
            && let Ok(Some(span)) = tokio::time::timeout_at(until, self.receiver.recv()).await
        {
            gathered.push(span);
        }
    }

    async fn post(&self, spans: Vec<SpanData>, complaints: &mut LogLimiter) {
        let count = spans.len();
        let resource_spans = group_spans_by_resource_and_scope(spans, &self.resource);
        let message = ExportTraceServiceRequest { resource_spans }.encode_to_vec();
        let posted = self.client.post(message).await;
        let error = match &posted {
            Ok(answer) => {
                let partial =
                    ExportTraceServiceResponse::decode(answer.clone()).ok().and_then(|of| of.partial_success);
                partial
                    .filter(|of| of.rejected_spans > 0)
                    .map(|of| refused(of.rejected_spans, &of.error_message))
            }
            Err(error) => Some(error.to_string()),
        };
        let left_out = self.left_out.swap(0, Relaxed);
        if error.is_none() && left_out == 0 {
            return;
        }
        if let Some(repeats) = complaints.due(Instant::now()) {
            tracing::warn!(
                error,
                spans = count,
                left_out,
                repeats,
                "spans were not exported; nothing else is affected"
            );
        }
    }
}

#[derive(Debug)]
struct Metrics {
    client: Client,
    resource: ProtoResource,
    interval: Duration,
    start_ns: u64,
}

impl Metrics {
    async fn run(self, registry: &Registry, end: &CancellationToken, flush_within: Duration) {
        let mut complaints = LogLimiter::default();
        let mut ticks = interval(self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first tick is at once: there is nothing to tell yet.
        ticks.tick().await;
        while end.run_until_cancelled(ticks.tick()).await.is_some() {
            if end.run_until_cancelled(self.post(registry, &mut complaints)).await.is_none() {
                break;
            }
        }
        // The last numbers of this process.
        let _too_late = timeout(flush_within, self.post(registry, &mut complaints)).await;
    }

    async fn post(&self, registry: &Registry, complaints: &mut LogLimiter) {
        let Some(error) = self.try_post(registry).await else { return };
        if let Some(repeats) = complaints.due(Instant::now()) {
            tracing::warn!(error, repeats, "metrics were not exported; nothing else is affected");
        }
    }

    /// Why it failed, if it did.
    async fn try_post(&self, registry: &Registry) -> Option<String> {
        let span = metrics::Span { start_ns: self.start_ns, now_ns: now_ns() };
        let scope = InstrumentationScope {
            name: "warmcast".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..InstrumentationScope::default()
        };
        let Ok(request) = metrics::request(registry, self.resource.clone(), scope, span) else {
            return Some("the metrics cannot be read".to_owned());
        };
        let answer = match self.client.post(request.encode_to_vec()).await {
            Ok(answer) => answer,
            Err(error) => return Some(error.to_string()),
        };
        let partial = ExportMetricsServiceResponse::decode(answer).ok()?.partial_success?;
        (partial.rejected_data_points > 0)
            .then(|| refused(partial.rejected_data_points, &partial.error_message))
    }
}

fn refused(count: i64, message: &str) -> String {
    format!("the collector refused {count} of them: {message}")
}

fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
