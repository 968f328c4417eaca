//! Where records leave their shard: each frame is inflated, and its changes go to the reducers of their keys.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::Instant;
use warmcast_common::consumer::{Ack, ByteBudget, Delivery, Processor, SequenceNumber};
use warmcast_common::dead_letter::{DeadLetter, DeadLetters};
use warmcast_proto::change::Change;
use warmcast_proto::frame::{ChangeError, FRAME_BODY_BYTES_MAX, Frame, FrameError, FrameHeader, decode};
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
    /// Done when the cache has it, or something newer.
    pub ack: A,
}

/// Unpacks records and hands their changes to reducers.
#[derive(Debug)]
pub struct Unpack {
    /// One queue for each reducer.
    pub reducers: Vec<mpsc::Sender<Vec<Routed>>>,
    /// Bounds what is inflated and not yet applied.
    pub inflated: ByteBudget,
    /// Where records go that cannot be used.
    pub dead_letters: Arc<DeadLetters>,
    /// What is counted.
    pub stats: Arc<Stats>,
}

impl Processor for Unpack {
    type Record = Bytes;

    async fn process(&self, stream: &str, shard: &str, deliveries: Vec<Delivery<Bytes>>) {
        for Delivery { record, ack, asked, settling } in deliveries {
            let sequence = record.sequence.as_ref().map(SequenceNumber::as_str);
            match self.inflate(&record.body, &ack).await {
                Ok(frame) => {
                    // It counts when everything before this record is done, and this record with it.
                    if let Some(watermark_ms) = frame.watermark_ms {
                        ack.watermark(watermark_ms);
                    }
                    // Where a shard is read again, what came before is not known to be in the cache.
                    let late = settling || is_late(record.created_ms, frame.read_ms);
                    let set_aside =
                        |reason: &str| self.set_aside(stream, shard, sequence, reason, &record.body);
                    self.route(frame.changes, (late, asked.at), ack, set_aside).await;
                }
                Err(error) => {
                    self.set_aside(stream, shard, sequence, &error.to_string(), &record.body);
                    ack.done();
                }
            }
        }
    }
}

impl Unpack {
    /// Reserves what the frame's header says before it is inflated. The changes share the inflated bytes, which
    /// are held until the last of them is done.
    async fn inflate(&self, frame: &Bytes, ack: &Ack) -> Result<Frame, FrameError> {
        let header = FrameHeader::peek(frame)?;
        let body_bytes = usize::try_from(header.body_len).unwrap_or(usize::MAX).min(FRAME_BODY_BYTES_MAX);
        ack.hold(self.inflated.reserve(body_bytes).await);
        decode(frame.clone(), FRAME_BODY_BYTES_MAX)
    }

    async fn route(
        &self,
        changes: Vec<Result<Change, ChangeError>>,
        (late, asked): (bool, Instant),
        ack: Ack,
        set_aside: impl Fn(&str),
    ) {
        Stats::add(&self.stats.changes_received, changes.len());
        let mut queues: Vec<Vec<Routed>> = self.reducers.iter().map(|_| Vec::new()).collect();
        let acks = ack.split(changes.len());
        let mut bad = Vec::new();
        for (change, ack) in changes.into_iter().zip(acks) {
            match change {
                Ok(change) => {
                    let reducer = reducer_of(&change.key, queues.len());
                    if let Some(queue) = queues.get_mut(reducer) {
                        queue.push(Routed { change, late, asked, ack });
                    }
                }
                Err(error) => bad.push((error, ack)),
            }
        }
        // One letter for all of them: it has the whole record, and a frame can have tens of thousands.
        if let Some(((first, _), others)) = bad.split_first() {
            Stats::add(&self.stats.changes_failed, bad.len());
            match others.len() {
                0 => set_aside(&first.to_string()),
                others => set_aside(&format!("{first} (and {others} more of its changes)")),
            }
        }
        bad.into_iter().for_each(|(_, ack)| ack.done());
        for (reducer, queue) in self.reducers.iter().zip(queues).filter(|(_, queue)| !queue.is_empty()) {
            // Reducers outlive the shards; were one gone, the dropped acks would have the records read again.
            let _reducer_gone = reducer.send(queue).await;
        }
    }

    fn set_aside(&self, stream: &str, shard: &str, sequence: Option<&str>, reason: &str, bytes: &[u8]) {
        Stats::add(&self.stats.dead_letters, 1);
        self.dead_letters.set_aside(&DeadLetter {
            stream,
            shard: Some(shard),
            sequence,
            reason,
            bytes,
            form: "kinesis-record",
        });
    }
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
