//! Frames that a region's stream will never take for what they are: each is kept as a dead letter, and a frame without
//! any payload goes in its place, so that its keys are invalid in the region. A miss is always safe.

use bytes::Bytes;
use tokio::sync::oneshot;
use warmcast_common::dead_letter::{Envelope, Form, Letter, Origin, Quarantine, ReasonClass};
use warmcast_proto::change::{Change, ChangeKind};
use warmcast_proto::frame::{Compression, Compressor, FRAME_BODY_BYTES_MAX, FrameBuilder, decode};

use crate::fanout::RegionFrame;

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

/// The frame to send in place of a refused one: of each of its changes it only says that the key's item is not known.
/// `None`: there is nothing to say, or the refused frame says no more itself.
pub fn stand_in(frame: &Bytes) -> Option<Bytes> {
    let frame = decode(frame.clone(), FRAME_BODY_BYTES_MAX).ok()?;
    let says_more = |change: &Change| change.kind != ChangeKind::Invalidate;
    let more = frame.changes.iter().any(|change| change.as_ref().map_or(true, says_more));
    let mut builder = FrameBuilder::new();
    for change in frame.changes {
        let invalidation = match change {
            Ok(change) => Some(Change { kind: ChangeKind::Invalidate, payload: Bytes::new(), ..change }),
            Err(error) => error.remains.invalidation(),
        };
        invalidation.iter().for_each(|change| builder.push(change));
    }
    if builder.is_empty() || !more {
        return None;
    }
    if let Some(read_ms) = frame.read_ms {
        builder.read_at(read_ms);
    }
    let mut compressor = Compressor::new(Compression::Zstd { level: 3 }).ok()?;
    builder.finish(&mut compressor).ok()
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
        assert_eq!(decode(stand_in.clone(), 1_000), decode(invalid.clone(), 1_000));
        assert_eq!(super::stand_in(&stand_in), None, "it would be refused as well");
        assert_eq!(super::stand_in(&invalid), None);
    }

    #[test]
    fn what_has_no_key_has_no_stand_in() {
        assert_eq!(stand_in(&Bytes::from_static(b"poison")), None);
        assert_eq!(stand_in(&FrameBuilder::heartbeat(7)), None);
    }
}
