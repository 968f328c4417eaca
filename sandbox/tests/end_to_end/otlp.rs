//! What the daemons export to an OpenTelemetry collector: traces across both of them, and their metrics.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use warmcast_sandbox::daemon::Daemon;
use warmcast_sandbox::world::{World, WorldOptions};

use crate::support::*;

const SECRET: &str = "hunter2";

/// A collector: it keeps what it is sent, until it is told to hang.
#[derive(Clone, Default)]
struct Collector(Arc<Collected>);

#[derive(Default)]
struct Collected {
    /// Each with the service that it is from.
    spans: Mutex<Vec<(String, Span)>>,
    /// By service and name: the sum of the latest counters.
    sums: Mutex<BTreeMap<(String, String), f64>>,
    hangs: AtomicBool,
    requests_while_hanging: AtomicUsize,
}

fn text_of(attributes: &[KeyValue], name: &str) -> Option<String> {
    let value = attributes.iter().find(|of| of.key == name)?.value.clone()?.value?;
    if let Value::StringValue(text) = value { Some(text) } else { None }
}

impl Collector {
    async fn start(&self) -> (String, JoinSet<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let routes = Router::new().route("/v1/traces", post(traces)).route("/v1/metrics", post(metrics));
        let mut server = JoinSet::new();
        let app = routes.with_state(self.clone());
        server.spawn(async move { axum::serve(listener, app).await.unwrap() });
        (url, server)
    }

    async fn meet(&self, headers: &HeaderMap) {
        assert_eq!(headers["content-type"], "application/x-protobuf");
        assert_eq!(headers["x-api-key"], SECRET);
        if self.0.hangs.load(Relaxed) {
            self.0.requests_while_hanging.fetch_add(1, Relaxed);
            std::future::pending::<()>().await;
        }
    }

    /// The spans of one trace, if one has all of them: by service, region and name.
    async fn whole_trace(&self, regions: usize) -> Option<Vec<(String, Span)>> {
        let mut traces: BTreeMap<Vec<u8>, Vec<(String, Span)>> = BTreeMap::new();
        for (service, span) in self.0.spans.lock().await.iter() {
            traces.entry(span.trace_id.clone()).or_default().push((service.clone(), span.clone()));
        }
        traces.into_values().find(|spans| spans.len() == 2 + 3 * regions)
    }
}

async fn traces(State(collector): State<Collector>, headers: HeaderMap, body: Bytes) -> StatusCode {
    collector.meet(&headers).await;
    let request = ExportTraceServiceRequest::decode(body).unwrap();
    for of in request.resource_spans {
        let service = text_of(&of.resource.unwrap().attributes, "service.name").unwrap();
        let spans = of.scope_spans.into_iter().flat_map(|scope| scope.spans);
        collector.0.spans.lock().await.extend(spans.map(|span| (service.clone(), span)));
    }
    StatusCode::OK
}

async fn metrics(State(collector): State<Collector>, headers: HeaderMap, body: Bytes) -> StatusCode {
    collector.meet(&headers).await;
    let request = ExportMetricsServiceRequest::decode(body).unwrap();
    for of in request.resource_metrics {
        let resource = of.resource.unwrap();
        let service = text_of(&resource.attributes, "service.name").unwrap();
        assert_eq!(text_of(&resource.attributes, "deployment.environment").as_deref(), Some("a test"));
        for metric in of.scope_metrics.into_iter().flat_map(|scope| scope.metrics) {
            let Some(Data::Sum(sum)) = metric.data else { continue };
            assert!(sum.data_points.iter().all(|point| point.start_time_unix_nano < point.time_unix_nano));
            let value = |point: &number_data_point::Value| match point {
                number_data_point::Value::AsDouble(value) => *value,
                number_data_point::Value::AsInt(value) => *value as f64,
            };
            let total = sum.data_points.iter().filter_map(|point| point.value.as_ref()).map(value).sum();
            collector.0.sums.lock().await.insert((service.clone(), metric.name), total);
        }
    }
    StatusCode::OK
}

fn export_to(daemon: &mut Daemon, url: &str) {
    for (name, value) in [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", url),
        ("OTEL_EXPORTER_OTLP_HEADERS", &format!("x-api-key={SECRET}")),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=a%20test"),
        ("OTEL_TRACES_SAMPLER", "parentbased_always_on"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "300"),
    ] {
        daemon.set_variable(name, value);
    }
}

/// The parents of a trace's spans are as they should be, and nothing in it is about a key.
fn assert_is_one_change(trace: &[(String, Span)], regions: usize, keys: &[&str]) {
    let named =
        |name: &str| -> Vec<&(String, Span)> { trace.iter().filter(|(_, span)| span.name == name).collect() };
    let [(_, read)] = named("read")[..] else { panic!("{trace:#?}") };
    let [(_, batch)] = named("batch")[..] else { panic!("{trace:#?}") };
    assert!(read.parent_span_id.is_empty(), "{read:#?}");
    assert_eq!(text_of(&read.attributes, "aws.dynamodb.table_names").as_deref(), Some(TABLE));
    assert_eq!(batch.parent_span_id, read.span_id);
    let (puts, receives, applies) = (named("put"), named("receive"), named("apply"));
    assert_eq!((puts.len(), receives.len(), applies.len()), (regions, regions, regions), "{trace:#?}");
    for (_, span) in puts.iter().chain(&receives) {
        assert_eq!(span.parent_span_id, batch.span_id);
    }
    for (_, span) in &applies {
        assert!(receives.iter().any(|(_, receive)| receive.span_id == span.parent_span_id));
        assert_eq!(text_of(&span.attributes, "warmcast.outcome").as_deref(), Some("applied"));
    }
    for (service, span) in trace {
        let is_writers = matches!(&*span.name, "receive" | "apply");
        assert_eq!(service, if is_writers { "warmcast-cache-writer" } else { "warmcast-aggregator" });
        assert!(span.start_time_unix_nano <= span.end_time_unix_nano, "{span:#?}");
        let shown = format!("{span:?}");
        assert!(keys.iter().all(|key| !shown.contains(key)), "{shown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_gets_whole_traces_and_the_metrics_and_one_that_hangs_holds_up_nothing() {
    let options = WorldOptions::default();
    let mut world = World::start_servers(&options).await.unwrap_or_else(|error| panic!("{error}"));
    let collector = Collector::default();
    let (url, _server) = collector.start().await;
    export_to(world.aggregator_mut(), &url);
    world.regions_mut().iter_mut().for_each(|region| export_to(region.cache_writer_mut(), &url));
    world.start_daemons().unwrap();
    world.wait_until_ready().await.unwrap_or_else(|error| panic!("{error}"));
    let keys = ["traced-1", "traced-2"];
    put(&world, TABLE, Default::default(), keys[0]).await;
    wait_in_every_region(&world, keys[0], is_live).await;
    let trace = eventually("a whole trace", || collector.whole_trace(options.regions)).await;
    assert_is_one_change(&trace, options.regions, &keys);
    let page = eventually("the aggregator's metrics", || async {
        let url = world.aggregator().admin_url()?;
        let text = get(&format!("{url}/metrics")).await?;
        let name = "warmcast_records_read_total ";
        text.lines().find_map(|line| line.strip_prefix(name)?.parse::<f64>().ok())
    })
    .await;
    eventually("the same counter by OTLP", || async {
        let name = ("warmcast-aggregator".to_owned(), "warmcast_records_read".to_owned());
        let sum = collector.0.sums.lock().await.get(&name).copied()?;
        // It may have gone on since.
        (page > 0.0 && sum >= page).then_some(())
    })
    .await;

    collector.0.hangs.store(true, Relaxed);
    put(&world, TABLE, Default::default(), keys[1]).await;
    wait_in_every_region(&world, keys[1], is_live).await;
    let hanging = || async { (collector.0.requests_while_hanging.load(Relaxed) >= 3).then_some(()) };
    eventually("every daemon waits for the collector", hanging).await;
    let written: Vec<String> = world.daemons().flat_map(|daemon| daemon.log().tail()).collect();
    assert!(!written.iter().any(|line| line.contains(SECRET)), "{}", world.tails());
    // It fails when one does not stop by itself, with exit code 0.
    stop(world).await;
}
