//! Where records leave their shard: each frame is inflated, and its changes go to the reducers of their keys.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::Instant;
use warmcast_common::consumer::{Ack, ByteBudget, Delivery, Processor};
use warmcast_common::dead_letter::{Envelope, Form, Letter, Origin, Quarantine, ReasonClass};
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
    /// Where it came from.
    pub place: Place,
    /// Done when the cache has it, or something newer.
    pub ack: A,
}

/// Where a change came from.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its record.
    pub origin: Arc<Origin>,
    /// Which change of its frame it is, counted from zero.
    pub index: u32,
}

/// Bad changes of one frame that have a letter each. If there are more, one letter has the whole record: a frame can
/// have tens of thousands.
const LETTERS_OF_FRAME_MAX: usize = 8;

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
            match self.inflate(&record.body, &ack).await {
                Ok(frame) => {
                    // It counts when everything before this record is done, and this record with it.
                    if let Some(watermark_ms) = frame.watermark_ms {
                        ack.watermark(watermark_ms);
                    }
                    // Where a shard is read again, what came before is not known to be in the cache.
                    let late = settling || is_late(record.created_ms, frame.read_ms);
                    let bad = self.route(frame.changes, (late, asked.at), ack, &origin).await;
                    self.set_aside_changes(bad, &origin, &record.body).await;
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
    /// Reserves what the frame's header says before it is inflated. The changes share the inflated bytes, which
    /// are held until the last of them is done.
    async fn inflate(&self, frame: &Bytes, ack: &Ack) -> Result<Frame, FrameError> {
        let header = FrameHeader::peek(frame)?;
        let body_bytes = usize::try_from(header.body_len).unwrap_or(usize::MAX).min(FRAME_BODY_BYTES_MAX);
        ack.hold(self.inflated.reserve(body_bytes).await);
        decode(frame.clone(), FRAME_BODY_BYTES_MAX)
    }

    /// Hands the changes on, and gives back those that cannot be read: of these, what can still be said is handed on.
    async fn route(
        &self,
        changes: Vec<Result<Change, ChangeError>>,
        (late, asked): (bool, Instant),
        ack: Ack,
        origin: &Arc<Origin>,
    ) -> Vec<(ChangeError, Ack)> {
        Stats::add(&self.stats.changes_received, changes.len());
        let mut queues: Vec<Vec<Routed>> = self.reducers.iter().map(|_| Vec::new()).collect();
        let mut enqueue = |change: Change, index: u32, ack: Ack| {
            let reducer = reducer_of(&change.key, queues.len());
            if let Some(queue) = queues.get_mut(reducer) {
                let place = Place { origin: Arc::clone(origin), index };
                queue.push(Routed { change, late, asked, place, ack });
            }
        };
        let acks = ack.split(changes.len());
        let mut bad = Vec::new();
        for ((change, ack), index) in changes.into_iter().zip(acks).zip(0..) {
            match change {
                Ok(change) => enqueue(change, index, ack),
                Err(error) => {
                    let Some(invalidation) = error.remains.invalidation() else {
                        bad.push((error, ack));
                        continue;
                    };
                    // Done when the letter is stored and the key is invalid.
                    let mut acks = ack.split(2).into_iter();
                    if let (Some(ack), Some(of_letter)) = (acks.next(), acks.next()) {
                        enqueue(invalidation, index, ack);
                        bad.push((error, of_letter));
                    }
                }
            }
        }
        for (reducer, queue) in self.reducers.iter().zip(queues).filter(|(_, queue)| !queue.is_empty()) {
            // Reducers outlive the shards; were one gone, the dropped acks would have the records read again.
            let _reducer_gone = reducer.send(queue).await;
        }
        bad
    }

    async fn set_aside_changes(&self, bad: Vec<(ChangeError, Ack)>, origin: &Arc<Origin>, record: &[u8]) {
        Stats::add(&self.stats.changes_failed, bad.len());
        if let Some(((first, _), others)) = bad.split_first()
            && bad.len() > LETTERS_OF_FRAME_MAX
        {
            let reason = format!("{first} (and {} more of its changes)", others.len());
            let mut letter = letter_of_record(origin, record, reason);
            letter.envelope.class = ReasonClass::UndecodableChange;
            let stored = || bad.into_iter().for_each(|(_, ack)| ack.done());
            return self.quarantine.set_aside(letter, stored).await;
        }
        for (error, ack) in bad {
            self.quarantine.set_aside(letter_of_change(origin, &error), || ack.done()).await;
        }
    }
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

fn letter_of_change(origin: &Origin, error: &ChangeError) -> Letter {
    let remains = &error.remains;
    let envelope = Envelope {
        origin: origin.clone(),
        index: u32::try_from(error.index).ok(),
        table: remains.table.clone(),
        key: remains.key.as_ref().map(|key| key.to_vec()),
        class: ReasonClass::UndecodableChange,
        reason: error.to_string(),
        form: Form::Change,
    };
    Letter::new(envelope, &remains.content)
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
