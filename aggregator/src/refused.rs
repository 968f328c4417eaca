//! Frames that a region's stream will never take for what they are: each is kept as a dead letter, and a frame without
//! any payload goes in its place, so that its keys are invalid in the region. A miss is always safe.

use bytes::Bytes;
use tokio::sync::oneshot;
use warmcast_common::dead_letter::{Envelope, Form, Letter, Origin, Quarantine, ReasonClass};
use warmcast_common::limits::FRAME_BYTES_MAX;
use warmcast_proto::change::{Change, ChangeKind};
use warmcast_proto::frame::{Compression, Compressor, FrameBuilder};
use warmcast_proto::kpl;
use warmcast_proto::record::{self, Part};

use crate::fanout::RegionFrame;
use crate::kpl::aggregate;

/// The letter of a frame that `stream` refused.
pub fn letter(quarantine: &Quarantine, stream: &str, frame: &[u8], reason: String) -> Letter {
    let origin = Origin { source: quarantine.source(), stream: stream.into(), shard: None, position: None };
    let envelope = Envelope {
        origin,
        index: None,
        table: None,
        key: None,
        class: ReasonClass::Refused,
        reason,
        form: Form::Frame,
    };
    Letter::new(envelope, frame)
}

/// The record to send in place of a refused one, in the same format: of each of its changes it only says that the key's
/// item is not known. `None`: there is nothing to say, or the refused record says no more itself.
pub fn stand_in(refused: &Bytes) -> Option<Bytes> {
    let parts = record::read(refused.clone()).ok()?.parts;
    let says_more = |part: &Part| part.change.as_ref().map_or(true, |c| c.kind != ChangeKind::Invalidate);
    let more = parts.iter().any(says_more);
    let invalidation = |Part { read_ms, change }| {
        let change = match change {
            Ok(change) => Change { kind: ChangeKind::Invalidate, payload: Bytes::new(), ..change },
            Err(error) => error.invalidation()?,
        };
        Some((change, read_ms.unwrap_or_default()))
    };
    let invalidations: Vec<(Change, u64)> = parts.into_iter().filter_map(invalidation).collect();
    if invalidations.is_empty() || !more {
        return None;
    }
    if kpl::is_aggregated(refused) { aggregated(&invalidations, refused) } else { frame(&invalidations) }
}

fn frame(invalidations: &[(Change, u64)]) -> Option<Bytes> {
    let mut builder = FrameBuilder::new();
    for (change, read_ms) in invalidations {
        builder.push(change);
        if *read_ms > 0 {
            builder.read_at(*read_ms);
        }
    }
    let mut compressor = Compressor::new(Compression::Zstd { level: 3 }).ok()?;
    builder.finish(&mut compressor).ok()
}

/// One record, because it is shorter than the refused one; with the same hash key.
fn aggregated(invalidations: &[(Change, u64)], refused: &Bytes) -> Option<Bytes> {
    let user_records = kpl::decode(refused.clone()).ok()?;
    let hash_key = user_records.first()?.explicit_hash_key.as_deref()?.parse().ok()?;
    let records = aggregate(invalidations, hash_key, FRAME_BYTES_MAX).ok()?.records;
    <[_; 1]>::try_from(records).ok().map(|[record]| record.bytes)
}

/// Keeps a refused frame as a dead letter. Gives its stand-in back, which makes its keys invalid and carries its acks
/// on; without one the frame is done when the letter is stored.
pub async fn set_aside(
    quarantine: Quarantine,
    stream: String,
    frame: RegionFrame,
    reason: String,
) -> Option<RegionFrame> {
    let letter = letter(&quarantine, &stream, &frame.bytes, reason);
    let Some(bytes) = stand_in(&frame.bytes) else {
        quarantine.set_aside(letter, || frame.done()).await;
        return None;
    };
    let (stored, is_stored) = oneshot::channel();
    let stored = || {
        // If nobody waits any more, the acks are gone as well.
        let _nobody_waits = stored.send(());
    };
    quarantine.set_aside(letter, stored).await;
    is_stored.await.ok().map(|()| RegionFrame { bytes, ..frame })
}

#[cfg(test)]
mod tests {
    use super::*;
    use warmcast_proto::position::Position;

    fn frame(kinds: &[ChangeKind]) -> Bytes {
        let mut builder = FrameBuilder::new();
        for (key, &kind) in kinds.iter().enumerate() {
            let payload = if kind == ChangeKind::Put { Bytes::from_static(b"item") } else { Bytes::new() };
            let position = Position::new(1, (key + 1).to_string().parse().unwrap()).unwrap();
            let key = Bytes::from(key.to_string());
            builder.push(&Change { table: "profiles".into(), key, position, kind, created_ms: 7, payload });
        }
        builder.read_at(5);
        builder.finish(&mut Compressor::new(Compression::None).unwrap()).unwrap()
    }

    #[test]
    fn the_keys_of_a_refused_frame_are_made_invalid_at_their_positions() {
        let refused = frame(&[ChangeKind::Put, ChangeKind::Delete, ChangeKind::Invalidate]);
        let invalid = frame(&[ChangeKind::Invalidate; 3]);
        let stand_in = stand_in(&refused).unwrap();
        assert_eq!(record::read(stand_in.clone()), record::read(invalid.clone()));
        assert_eq!(super::stand_in(&stand_in), None, "it would be refused as well");
        assert_eq!(super::stand_in(&invalid), None);
    }

    #[test]
    fn an_aggregated_record_has_a_stand_in_that_others_can_read() {
        let refused = record::read(frame(&[ChangeKind::Delete, ChangeKind::Expire])).unwrap();
        let changes: Vec<_> = refused.parts.into_iter().map(|part| (part.change.unwrap(), 5)).collect();
        let refused = aggregate(&changes, 7, 1_000).unwrap().records.remove(0).bytes;
        let stand_in = stand_in(&refused).unwrap();
        let invalid = record::read(frame(&[ChangeKind::Invalidate; 2])).unwrap();
        assert_eq!(record::read(stand_in.clone()).unwrap(), invalid);
        let user_records = kpl::decode(stand_in.clone()).unwrap();
        assert!(user_records.iter().all(|record| record.explicit_hash_key.as_deref() == Some("7")));
        assert_eq!(super::stand_in(&stand_in), None);
    }

    #[test]
    fn what_has_no_key_has_no_stand_in() {
        assert_eq!(stand_in(&Bytes::from_static(b"poison")), None);
        assert_eq!(stand_in(&FrameBuilder::heartbeat(7)), None);
        assert_eq!(stand_in(&warmcast_proto::json::heartbeat(7)), None);
    }
}
