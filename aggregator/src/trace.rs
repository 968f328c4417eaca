//! The spans of a frame that was sampled: when its first change was read and batched, and when each region had it.
//!
//! Whether a frame is traced is decided when it is made: until then a change costs nothing.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use warmcast_common::consumer::LaneAck;
use warmcast_common::otlp::{Role, Span, SpanIds, Tracer};
use warmcast_proto::frame::TRACE_LEN;
use warmcast_proto::trace::TraceContext;

use crate::batch::Batch;
use crate::config::BODY_BYTES_MAX;

/// The span of making this batch's frame, below that of reading its first change, if it is sampled. The frame then tells
/// its readers.
pub fn begin(tracer: &Tracer, batch: &mut Batch<LaneAck>) -> Option<Span> {
    let opened = SystemTime::now().checked_sub(batch.opened.elapsed())?;
    let asked = UNIX_EPOCH + Duration::from_millis(batch.frame.read_ms());
    let mut read = tracer.root("read", Role::Consumer, asked.min(opened))?;
    if let Some(table) = batch.frame.tables().first() {
        read.set("aws.dynamodb.table_names", table.to_string());
    }
    let mut span = read.child("batch", Role::Internal, opened)?;
    read.end(opened);
    span.set("warmcast.bucket", i64::from(batch.bucket));
    span.set("messaging.batch.message_count", count(batch.acks.len()));
    // A frame that has no room for it is told of to here.
    if batch.frame.body_len() + TRACE_LEN <= BODY_BYTES_MAX {
        let SpanIds { trace_id, span_id, flags } = span.ids();
        batch.frame.trace(TraceContext { trace_id, span_id, flags });
    }
    Some(span)
}

/// A region has its copy.
pub fn landed(mut put: Span, region: &str, stream: &str) {
    put.set("warmcast.region", region.to_owned());
    put.set("aws.kinesis.stream_name", stream.to_owned());
    put.end(SystemTime::now());
}

/// A number of things, as spans have it.
pub fn count(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
