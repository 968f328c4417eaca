//! The routes, and what each of them answers.

use std::sync::{Arc, OnceLock};

use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Router, middleware};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::time::Instant;

use super::guard::{Guard, guard};
use super::page::{self, PAGE};
use super::plain;
use super::rates::{Figure, History, Reading, WATERMARK_AGE};
use super::report::{Identity, ProcessStatus, Readiness, Status, Verdict};
use super::surveys::Surveys;
use crate::clock::now_ms;
use crate::health::Health;
use crate::metrics::{self, Registry};
use crate::telemetry::Recent;

/// Everything that answers are made of.
pub(super) struct Shown {
    pub(super) identity: Identity,
    pub(super) started: Instant,
    pub(super) metrics: Arc<OnceLock<Arc<Registry>>>,
    pub(super) health: Health,
    pub(super) recent: Recent,
    pub(super) surveys: Surveys,
    pub(super) figures: Box<dyn Fn() -> Vec<Figure> + Send + Sync>,
    pub(super) history: Mutex<History>,
    pub(super) guard: Arc<Guard>,
}

type Handed = State<Arc<Shown>>;

pub(super) fn router(shown: Arc<Shown>) -> Router {
    let guarding = middleware::from_fn_with_state(Arc::clone(&shown.guard), guard);
    Router::new()
        .route("/", get(|| async { ([(header::CONTENT_TYPE, page::CONTENT_TYPE)], PAGE) }))
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/status", get(status))
        .route("/rates", get(rates))
        .fallback(|| async {
            (StatusCode::NOT_FOUND, "there are /, /metrics, /healthz, /readyz, /status, /rates\n")
        })
        .layer(guarding)
        .with_state(shown)
}

impl Shown {
    /// Takes a sample of the figures, and of a look at the fleet that was made after `sampled_ms`. When that was.
    pub(super) fn sample(&self, sampled_ms: Option<u64>) -> Option<u64> {
        let (mut figures, seen) = ((self.figures)(), self.surveys.latest());
        if seen.at_ms > sampled_ms {
            let ages = seen.ages().into_iter().map(|(region, age_s)| Figure {
                name: WATERMARK_AGE,
                region: region.map(Into::into),
                reading: Reading::Gauge(age_s),
            });
            // What the process knows by itself is newer.
            let known: Vec<Figure> =
                ages.filter(|age| !figures.iter().any(|of| of.is_of_the_series_of(age))).collect();
            figures.extend(known);
        }
        self.history.lock().sample(&figures, now_ms());
        seen.at_ms
    }
}

async fn metrics(State(shown): Handed, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    let text = match shown.metrics.get() {
        Some(registry) => metrics::text(registry),
        // The process starts.
        None => metrics::text(&metrics::registry()),
    };
    match text {
        Ok(text) if plain::wants_openmetrics(accept) => {
            ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response()
        }
        Ok(text) => {
            ([(header::CONTENT_TYPE, plain::CONTENT_TYPE)], plain::of_openmetrics(&text)).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("a metric cannot be collected: {error}\n"))
            .into_response(),
    }
}

async fn healthz(State(shown): Handed) -> Response {
    let alive = shown.health.is_alive();
    let why = (!alive).then_some("the runtime that does the work does not run its tasks");
    json(alive, &serde_json::json!({ "alive": alive, "why": why }))
}

async fn readyz(State(shown): Handed, headers: HeaderMap) -> Response {
    let readiness = Readiness::of(&shown.health, shown.guard.admits(&headers));
    json(readiness.ready, &readiness)
}

async fn status(State(shown): Handed) -> Response {
    // The look is made by the runtime that does the work.
    let fleet = shown.surveys.ask(shown.health.is_alive()).await;
    let (readiness, recent, now_ms) = (Readiness::of(&shown.health, true), shown.recent.lines(), now_ms());
    let process = ProcessStatus {
        identity: &shown.identity,
        uptime_s: shown.started.elapsed().as_secs(),
        rates: shown.history.lock().rates(),
        readiness: readiness.clone(),
    };
    let verdict = Verdict::of(&readiness, &fleet, &recent, now_ms);
    json(true, &Status { verdict, now_ms, process, fleet: &fleet, recent_errors: &recent })
}

/// `?after=MS`: the samples taken after that time.
async fn rates(State(shown): Handed, RawQuery(query): RawQuery) -> Response {
    let after = query.as_deref().and_then(|query| query.strip_prefix("after="));
    let newer = shown.history.lock().newer(after.and_then(|ms| ms.parse().ok()).unwrap_or(0));
    json(true, &newer)
}

fn json(is_well: bool, answer: &impl Serialize) -> Response {
    let status = if is_well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    match serde_json::to_string(answer) {
        Ok(text) => (status, [(header::CONTENT_TYPE, "application/json")], text + "\n").into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}
