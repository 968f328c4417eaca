//! Where records leave their shard: each is taken apart and inflated, and its changes go to the reducers of their keys.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::Instant;
use warmcast_common::clock::now_ms;
use warmcast_common::consumer::{Ack, Asked, ByteBudget, Delivery, Processor};
use warmcast_common::dead_letter::{Envelope, Form, Letter, Origin, Quarantine, ReasonClass};
use warmcast_common::otlp::{Role, Span, SpanIds, Tracer};
use warmcast_proto::change::Change;
use warmcast_proto::record::{Contents, Part, PartError, PartErrorReason, Record, RecordError};
use warmcast_proto::trace::TraceContext;
use xxhash_rust::xxh3::xxh3_64;

use crate::stats::Stats;

/// A record that arrived so long after its changes were read from their tables' streams is late: PutRecords was tried
/// again for long, the aggregator waited for other regions, or it was stopped in between. Such a record may repeat
/// changes that were superseded long ago, beyond what is read again after the cache lost writes: see
/// docs/cache-protocol.md.
pub const LATE_AFTER: Duration = Duration::from_secs(60);

/// A change on its way to the cache.
#[derive(Debug)]
pub struct Routed<A = Ack> {
    /// The change.
    pub change: Change,
    /// Its record arrived late, or its shard is only just read again: it may repeat what was superseded and is no more
    /// known to be, so its item counts as not known.
    pub late: bool,
    /// When its record was asked for.
    pub asked: Instant,
    /// Where it came from.
    pub place: Place,
    /// Done when the cache has it, or something newer.
    pub ack: A,
    /// Its way into the cache, if it is traced.
    pub span: Option<Box<Span>>,
}

/// Where a change came from.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its record.
    pub origin: Arc<Origin>,
    /// Which change of its record it is, counted from zero.
    pub index: u32,
}

/// Bad parts of one record that have a letter each. If there are more, one letter has the whole record: it can have tens
/// of thousands.
const LETTERS_OF_RECORD_MAX: usize = 8;

/// Unpacks records and hands their changes to reducers.
#[derive(Debug)]
pub struct Unpack {
    /// One queue for each reducer.
    pub reducers: Vec<mpsc::Sender<Vec<Routed>>>,
    /// Bounds what is inflated and not yet applied.
    pub inflated: ByteBudget,
    /// Where records go that cannot be used.
    pub quarantine: Quarantine,
    /// What is counted.
    pub stats: Arc<Stats>,
    /// What traces the frames that their writer has traced.
    pub tracer: Tracer,
}

impl Processor for Unpack {
    type Record = Bytes;

    async fn process(&self, stream: &str, shard: &str, deliveries: Vec<Delivery<Bytes>>) {
        let (stream, shard): (Arc<str>, Arc<str>) = (stream.into(), shard.into());
        for Delivery { record, ack, asked, settling } in deliveries {
            let origin = Arc::new(Origin {
                source: self.quarantine.source(),
                stream: Arc::clone(&stream),
                shard: Some(Arc::clone(&shard)),
                position: record.sequence.as_ref().map(|sequence| sequence.as_str().into()),
            });
            Stats::add(&self.stats.received_bytes, record.body.len());
            match self.unpack(&record.body, &ack).await {
                Ok(Contents { watermark_ms, trace, parts }) => {
                    self.observe_lags(&parts);
                    // It counts when everything before this record is done, and this record with it.
                    if let Some(watermark_ms) = watermark_ms {
                        ack.watermark(watermark_ms);
                    }
                    // Where a shard is read again, what came before is not known to be in the cache.
                    let late = |part: &Part| settling || is_late(record.created_ms, part.read_ms);
                    let span = self.received(trace, &asked, &origin, parts.len());
                    let bad = self.route(parts, (late, asked.at), ack, &origin, span).await;
                    self.set_aside_parts(bad, &origin, &record.body).await;
                }
                Err(error) => {
                    let letter = letter_of_record(&origin, &record.body, error.to_string());
                    self.quarantine.set_aside(letter, || ack.done()).await;
                }
            }
        }
    }
}

impl Unpack {
    /// Reserves what the record says that it takes before it is inflated. The changes share the inflated bytes, which
    /// are held until the last of them is done.
    async fn unpack(&self, record: &Bytes, ack: &Ack) -> Result<Contents, RecordError> {
        let record = Record::open(record.clone())?;
        ack.hold(self.inflated.reserve(record.body_len()).await);
        record.decode()
    }

    /// Parts of one frame were asked for at the same time: it is one step for all of them.
    fn observe_lags(&self, parts: &[Part]) {
        let now_ms = now_ms();
        for same in parts.chunk_by(|a, b| a.read_ms == b.read_ms) {
            let read_ms = same.first().and_then(|part| part.read_ms).unwrap_or(0);
            self.stats.lags.receive.observe_lag(read_ms, now_ms, same.len() as u64);
        }
    }

    /// Hands the changes on, and gives back those that cannot be read: of these, what can still be said is handed on.
    async fn route(
        &self,
        parts: Vec<Part>,
        (late, asked): (impl Fn(&Part) -> bool, Instant),
        ack: Ack,
        origin: &Arc<Origin>,
        received: Option<Span>,
    ) -> Vec<BadPart> {
        Stats::add(&self.stats.changes_received, parts.len());
        let mut queues: Vec<Vec<Routed>> = self.reducers.iter().map(|_| Vec::new()).collect();
        // The trace is that of the frame's first change.
        let mut apply = received.as_ref().and_then(|of| of.child("apply", Role::Client, SystemTime::now()));
        let mut enqueue = |change: Change, late: bool, index: u32, ack: Ack| {
            let reducer = reducer_of(&change.key, queues.len());
            if let Some(queue) = queues.get_mut(reducer) {
                let place = Place { origin: Arc::clone(origin), index };
                let span = apply.take().map(Box::new);
                queue.push(Routed { change, late, asked, place, ack, span });
            }
        };
        let acks = ack.split(parts.len());
        let mut bad = Vec::new();
        for ((part, ack), index) in parts.into_iter().zip(acks).zip(0..) {
            let late = late(&part);
            match part.change {
                Ok(change) => enqueue(change, late, index, ack),
                Err(error) => {
                    let Some(invalidation) = error.invalidation() else {
                        bad.push(BadPart { index, error, ack });
                        continue;
                    };
                    // Done when the letter is stored and the key is invalid.
                    let mut acks = ack.split(2).into_iter();
                    if let (Some(ack), Some(of_letter)) = (acks.next(), acks.next()) {
                        enqueue(invalidation, late, index, ack);
                        bad.push(BadPart { index, error, ack: of_letter });
                    }
                }
            }
        }
        for (reducer, queue) in self.reducers.iter().zip(queues).filter(|(_, queue)| !queue.is_empty()) {
            // Reducers outlive the shards; were one gone, the dropped acks would have the records read again.
            let _reducer_gone = reducer.send(queue).await;
        }
        if let Some(span) = received {
            span.end(SystemTime::now());
        }
        bad
    }

    /// The span of a frame that its writer has traced.
    fn received(
        &self,
        trace: Option<TraceContext>,
        asked: &Asked,
        origin: &Origin,
        changes: usize,
    ) -> Option<Span> {
        let TraceContext { trace_id, span_id, flags } = trace?;
        let (parent, now) = (SpanIds { trace_id, span_id, flags }, SystemTime::now());
        let start = now.checked_sub(asked.at.elapsed()).unwrap_or(now);
        let mut span = self.tracer.continuing(parent, "receive", Role::Consumer, start)?;
        span.set("aws.kinesis.stream_name", origin.stream.to_string());
        if let Some(shard) = &origin.shard {
            span.set("warmcast.shard", shard.to_string());
        }
        span.set("messaging.batch.message_count", i64::try_from(changes).unwrap_or(i64::MAX));
        Some(span)
    }

    async fn set_aside_parts(&self, bad: Vec<BadPart>, origin: &Arc<Origin>, record: &[u8]) {
        Stats::add(&self.stats.changes_failed, bad.len());
        if let Some((first, others)) = bad.split_first()
            && bad.len() > LETTERS_OF_RECORD_MAX
        {
            let reason = format!("{} (and {} more of its changes)", first.error, others.len());
            let mut letter = letter_of_record(origin, record, reason);
            letter.envelope.class = ReasonClass::UndecodableChange;
            let stored = || bad.into_iter().for_each(|part| part.ack.done());
            return self.quarantine.set_aside(letter, stored).await;
        }
        for part in bad {
            self.quarantine.set_aside(letter_of_part(origin, &part), || part.ack.done()).await;
        }
    }
}

/// A part of a record that cannot be read.
struct BadPart {
    index: u32,
    error: PartError,
    ack: Ack,
}

fn letter_of_record(origin: &Origin, record: &[u8], reason: String) -> Letter {
    let envelope = Envelope {
        origin: origin.clone(),
        index: None,
        table: None,
        key: None,
        class: ReasonClass::UndecodableRecord,
        reason,
        form: Form::KinesisRecord,
    };
    Letter::new(envelope, record)
}

/// A letter of a change, or of a user record, by itself.
fn letter_of_part(origin: &Origin, BadPart { index, error, .. }: &BadPart) -> Letter {
    let envelope = Envelope {
        origin: origin.clone(),
        index: Some(*index),
        table: error.table(),
        key: error.key().map(|key| key.to_vec()),
        class: ReasonClass::UndecodableChange,
        reason: error.to_string(),
        form: match error.reason {
            PartErrorReason::Change(_) => Form::Change,
            // It could have been a Kinesis record by itself.
            PartErrorReason::Content { .. } => Form::KinesisRecord,
        },
    };
    Letter::new(envelope, error.bytes())
}

/// One key, one reducer: so the order of its changes is kept. The hash's low bits, because its high bits choose
/// the Kinesis shard, and a worker may have few of those.
fn reducer_of(key: &[u8], reducers: usize) -> usize {
    let reducers = (reducers as u64).max(1);
    usize::try_from(xxh3_64(key) % reducers).unwrap_or(0)
}

/// Whether a record arrived late, by the stream's clock and the aggregator's. What does not tell is not late.
fn is_late(arrived_ms: u64, read_ms: Option<u64>) -> bool {
    read_ms.is_some_and(|read_ms| u128::from(arrived_ms) > u128::from(read_ms) + LATE_AFTER.as_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_late_when_it_arrived_a_minute_after_its_changes_were_read() {
        for (arrived_ms, read_ms, late) in [
            (100_000, Some(100_000), false),
            (160_000, Some(100_000), false),
            (160_001, Some(100_000), true),
            (90_000, Some(100_000), false),
            (u64::MAX, None, false),
            (0, Some(u64::MAX), false),
        ] {
            assert_eq!(is_late(arrived_ms, read_ms), late, "{arrived_ms} {read_ms:?}");
        }
    }
}
