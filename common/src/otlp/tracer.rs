//! Spans of the changes that are sampled.
//!
//! A span is made when its end is known, or held while it is under way: nothing here is entered or exited, and a
//! change that is not sampled costs one look at the clock for each frame.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use opentelemetry::trace::{
    Link, SamplingDecision, SamplingResult, Span as _, SpanBuilder, SpanContext, SpanId, SpanKind, Status,
    TraceContextExt as _, TraceFlags, TraceId, TraceState, Tracer as _,
};
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_sdk::trace::{Sampler, SdkTracer, ShouldSample};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::environment::Sampling;

/// Makes spans. Without a collector it makes none.
#[derive(Clone, Debug, Default)]
pub struct Tracer(Option<SdkTracer>);

/// A span that is under way. One that is dropped ends as failed: what it was about did not come to its end here.
#[derive(Debug)]
pub struct Span {
    span: opentelemetry_sdk::trace::Span,
    tracer: SdkTracer,
    is_over: bool,
}

/// A span as others refer to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanIds {
    /// The trace.
    pub trace_id: [u8; 16],
    /// The span.
    pub span_id: [u8; 8],
    /// W3C's flags: 1 is sampled.
    pub flags: u8,
}

/// What a span stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Takes something from a stream.
    Consumer,
    /// Puts something into a stream.
    Producer,
    /// Asks another service.
    Client,
    /// Does something by itself.
    Internal,
}

impl Tracer {
    pub(super) fn new(tracer: SdkTracer) -> Self {
        Self(Some(tracer))
    }

    /// The first span of a trace, if this one is sampled.
    #[must_use]
    pub fn root(&self, name: &'static str, role: Role, start: SystemTime) -> Option<Span> {
        Span::start(self.0.as_ref()?, &Context::new(), name, role, start)
    }

    /// A span that continues what began in another process, if it is sampled.
    #[must_use]
    pub fn continuing(
        &self,
        parent: SpanIds,
        name: &'static str,
        role: Role,
        start: SystemTime,
    ) -> Option<Span> {
        let tracer = self.0.as_ref()?;
        let SpanIds { trace_id, span_id, flags } = parent;
        let parent = SpanContext::new(
            TraceId::from_bytes(trace_id),
            SpanId::from_bytes(span_id),
            TraceFlags::new(flags),
            true,
            TraceState::NONE,
        );
        Span::start(tracer, &Context::new().with_remote_span_context(parent), name, role, start)
    }
}

impl Span {
    fn start(
        tracer: &SdkTracer,
        parent: &Context,
        name: &'static str,
        role: Role,
        start: SystemTime,
    ) -> Option<Self> {
        let kind = match role {
            Role::Consumer => SpanKind::Consumer,
            Role::Producer => SpanKind::Producer,
            Role::Client => SpanKind::Client,
            Role::Internal => SpanKind::Internal,
        };
        let builder = SpanBuilder::from_name(name).with_kind(kind).with_start_time(start);
        let span = tracer.build_with_context(builder, parent);
        span.is_recording().then(|| Self { span, tracer: tracer.clone(), is_over: false })
    }

    /// A span below this one, in this process.
    #[must_use]
    pub fn child(&self, name: &'static str, role: Role, start: SystemTime) -> Option<Self> {
        let parent = Context::new().with_remote_span_context(self.local_context());
        Self::start(&self.tracer, &parent, name, role, start)
    }

    fn local_context(&self) -> SpanContext {
        self.span.span_context().clone()
    }

    /// Tells something of it: never a key of an item, and nothing secret.
    pub fn set(&mut self, name: &'static str, value: impl Into<Value>) {
        self.span.set_attribute(KeyValue::new(name, value));
    }

    /// How others refer to it.
    #[must_use]
    pub fn ids(&self) -> SpanIds {
        let context = self.span.span_context();
        SpanIds {
            trace_id: context.trace_id().to_bytes(),
            span_id: context.span_id().to_bytes(),
            flags: context.trace_flags().to_u8(),
        }
    }

    /// It is done.
    pub fn end(mut self, at: SystemTime) {
        self.is_over = true;
        self.span.end_with_timestamp(at);
    }

    /// It is over, and what it was about did not happen.
    pub fn fail(mut self, why: &'static str) {
        self.is_over = true;
        self.span.set_status(Status::error(why));
        self.span.end();
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if !self.is_over {
            self.span.set_status(Status::error("dropped: it is read again"));
            self.span.end();
        }
    }
}

/// The sampler that was asked for.
pub(super) fn sampler(sampling: Sampling) -> Sampler {
    let share = |share: f64| match share {
        share if share <= 0.0 => Sampler::AlwaysOff,
        share if share >= 1.0 => Sampler::AlwaysOn,
        share => Sampler::TraceIdRatioBased(share),
    };
    match sampling {
        Sampling::OnePerSecond => Sampler::ParentBased(Box::new(RateLimit::default())),
        Sampling::Share(of) => share(of),
        Sampling::ParentBased(of) => Sampler::ParentBased(Box::new(share(of))),
    }
}

/// Pause between two traces that begin here.
const TRACE_INTERVAL: Duration = Duration::from_secs(1);

/// At most one trace a second. Clones share the measure.
#[derive(Clone, Debug, Default)]
struct RateLimit(Arc<Mutex<Option<Instant>>>);

impl RateLimit {
    fn take(&self, now: Instant) -> bool {
        let mut last = self.0.lock();
        let is_due = last.is_none_or(|last| now.saturating_duration_since(last) >= TRACE_INTERVAL);
        if is_due {
            *last = Some(now);
        }
        is_due
    }
}

impl ShouldSample for RateLimit {
    fn should_sample(
        &self,
        _parent: Option<&Context>,
        _trace: TraceId,
        _name: &str,
        _kind: &SpanKind,
        _attributes: &[KeyValue],
        _links: &[Link],
    ) -> SamplingResult {
        let decision = match self.take(Instant::now()) {
            true => SamplingDecision::RecordAndSample,
            false => SamplingDecision::Drop,
        };
        SamplingResult { decision, attributes: Vec::new(), trace_state: TraceState::NONE }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_most_one_trace_a_second_begins_here() {
        let (limit, start) = (RateLimit::default(), Instant::now());
        let other = limit.clone();
        let began = (0..10_000).filter(|ms| limit.take(start + Duration::from_millis(*ms)));
        assert_eq!(began.count(), 10);
        assert!(!other.take(start + Duration::from_millis(9_999)), "clones share the measure");
    }

    #[test]
    fn without_a_collector_there_are_no_spans() {
        assert!(Tracer::default().root("read", Role::Consumer, SystemTime::now()).is_none());
    }
}
