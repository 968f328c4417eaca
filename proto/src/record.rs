//! What one Kinesis record carries, whichever way it was written: a frame, a JSON document, or an aggregated record with
//! any number of either.
//!
//! Reading has two steps, so that the memory can be reserved between them: [`Record::open`] checks and takes apart without
//! inflating anything, [`Record::decode`] makes the changes.

use std::sync::Arc;

use bytes::Bytes;

use crate::change::Change;
use crate::frame::{
    self, ChangeError, FRAME_BODY_BYTES_MAX, FRAME_CHANGES_MAX, Frame, FrameError, FrameHeader,
};
use crate::json::{self, Document, JsonError};
use crate::kpl::{self, KplError};
use crate::trace::TraceContext;

/// A record that was taken apart and is not yet decoded.
#[derive(Clone, Debug)]
pub struct Record {
    user_records: Vec<Bytes>,
    aggregated: bool,
}

/// What a record says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// As of a [`Frame`]; the latest, if more than one of its user records has one.
    pub watermark_ms: Option<u64>,
    /// As of the first [`Frame`] that has one.
    pub trace: Option<TraceContext>,
    /// The changes, in their order. Whatever cannot be read is an error in its own place.
    pub parts: Vec<Part>,
}

/// A change, or what should have been one or more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// As of the [`Frame`] that it is from.
    pub read_ms: Option<u64>,
    /// The change.
    pub change: Result<Change, PartError>,
}

/// Nothing can be read from a record: set it aside.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// It begins as an aggregated record and is none.
    #[error(transparent)]
    Kpl(#[from] KplError),
    /// It is not aggregated, and what it carries is wrong.
    #[error(transparent)]
    Content(#[from] ContentError),
}

/// Something in a record cannot be read; its neighbours can.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{reason}", user_record.map(|index| format!("user record {index}: ")).unwrap_or_default())]
pub struct PartError {
    /// Which user record it is, or is in, counted from zero. None if the record is not aggregated.
    pub user_record: Option<usize>,
    /// What is wrong.
    pub reason: PartErrorReason,
}

impl PartError {
    /// What cannot be read: one change of a frame, as its `remains` have it, or a whole user record.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        match &self.reason {
            PartErrorReason::Change(error) => &error.remains.content,
            PartErrorReason::Content { bytes, .. } => bytes,
        }
    }

    /// The table, if that can be read.
    #[must_use]
    pub fn table(&self) -> Option<Arc<str>> {
        match &self.reason {
            PartErrorReason::Change(error) => error.remains.table.clone(),
            PartErrorReason::Content { bytes, .. } => json::invalidation(bytes).map(|change| change.table),
        }
    }

    /// The key, if that can be read.
    #[must_use]
    pub fn key(&self) -> Option<Bytes> {
        match &self.reason {
            PartErrorReason::Change(error) => error.remains.key.clone(),
            PartErrorReason::Content { bytes, .. } => json::invalidation(bytes).map(|change| change.key),
        }
    }

    /// What can still be said of the change: the state of its key is not known. `None` where the key or the position is
    /// not known either.
    #[must_use]
    pub fn invalidation(&self) -> Option<Change> {
        match &self.reason {
            PartErrorReason::Change(error) => error.remains.invalidation(),
            PartErrorReason::Content { bytes, .. } => json::invalidation(bytes),
        }
    }
}

/// What is wrong with a part of a record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PartErrorReason {
    /// One change of a frame.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// A whole user record; or a JSON document by itself, of which at least the key can be read.
    #[error("{error}")]
    Content {
        /// What is wrong with it.
        error: ContentError,
        /// The user record.
        bytes: Bytes,
    },
}

/// What a user record carries, or a record that is not aggregated, cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ContentError {
    /// It should be a frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// It begins as a JSON document.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// The user records before it have as many changes as one record may have.
    #[error("the record has more than {FRAME_CHANGES_MAX} changes")]
    TooManyChanges,
}

/// Takes a record apart and makes its changes, for those who need not reserve the memory first.
///
/// # Errors
/// See [`Record::open`] and [`Record::decode`].
pub fn read(record: Bytes) -> Result<Contents, RecordError> {
    Record::open(record)?.decode()
}

impl Record {
    /// Takes a record apart.
    ///
    /// # Errors
    /// It is neither a frame nor a JSON document nor a sound aggregated record.
    pub fn open(record: Bytes) -> Result<Self, RecordError> {
        if kpl::is_aggregated(&record) {
            let user_records = kpl::decode(record)?.into_iter().map(|of| of.data).collect();
            return Ok(Self { user_records, aggregated: true });
        }
        if !is_json(&record) {
            FrameHeader::peek(&record).map_err(ContentError::from)?;
        }
        Ok(Self { user_records: vec![record], aggregated: false })
    }

    /// The most bytes that decoding makes, keys and payloads of the changes; at most [`FRAME_BODY_BYTES_MAX`]. The record
    /// itself is not counted.
    #[must_use]
    pub fn body_len(&self) -> usize {
        let total = self.user_records.iter().map(body_len).fold(0, usize::saturating_add);
        total.min(FRAME_BODY_BYTES_MAX)
    }

    /// Makes the changes. All that is inflated or made of JSON takes at most [`body_len`](Self::body_len), and there are
    /// no more changes than a frame may have: user records beyond either are errors.
    ///
    /// # Errors
    /// A record that is not aggregated cannot be read, and not even whose it is.
    pub fn decode(self) -> Result<Contents, RecordError> {
        let Self { user_records, aggregated } = self;
        let (mut bytes_left, mut changes_left) = (FRAME_BODY_BYTES_MAX, FRAME_CHANGES_MAX);
        let mut contents = Contents::default();
        for (index, user_record) in user_records.into_iter().enumerate() {
            let len = body_len(&user_record);
            let decoded = decode_one(user_record.clone(), bytes_left).and_then(|frame| {
                let left = changes_left.checked_sub(frame.changes.len());
                changes_left = left.ok_or(ContentError::TooManyChanges)?;
                bytes_left = bytes_left.saturating_sub(len);
                Ok(frame)
            });
            match decoded {
                Ok(frame) => contents.add(frame, aggregated.then_some(index)),
                Err(error) if aggregated || json::invalidation(&user_record).is_some() => {
                    let reason = PartErrorReason::Content { error, bytes: user_record };
                    let error = PartError { user_record: aggregated.then_some(index), reason };
                    contents.parts.push(Part { read_ms: None, change: Err(error) });
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(contents)
    }
}

impl Contents {
    fn add(&mut self, frame: Frame, user_record: Option<usize>) {
        let Frame { watermark_ms, read_ms, trace, changes } = frame;
        self.trace = self.trace.or(trace);
        self.watermark_ms = self.watermark_ms.max(watermark_ms);
        self.parts.extend(changes.into_iter().map(|change| {
            let change = change.map_err(|error| PartError { user_record, reason: error.into() });
            Part { read_ms, change }
        }));
    }
}

/// What decoding makes of it at most; nothing of what cannot be read. Every value of a JSON document is shorter as
/// protobuf.
fn body_len(user_record: &Bytes) -> usize {
    if is_json(user_record) {
        return user_record.len();
    }
    let header = FrameHeader::peek(user_record);
    header.map_or(0, |header| usize::try_from(header.body_len).unwrap_or(usize::MAX))
}

fn decode_one(user_record: Bytes, bytes_max: usize) -> Result<Frame, ContentError> {
    if !is_json(&user_record) {
        return Ok(frame::decode(user_record, bytes_max)?);
    }
    let len = user_record.len();
    if len > bytes_max {
        let body_len = u32::try_from(len).unwrap_or(u32::MAX);
        return Err(FrameError::BodyTooLarge { body_len, body_bytes_max: bytes_max }.into());
    }
    let Document { change, read_ms, watermark_ms } = json::decode(&user_record)?;
    Ok(Frame { watermark_ms, read_ms, trace: None, changes: change.into_iter().map(Ok).collect() })
}

/// What does not begin so is a frame, or damaged, or somebody else's: the frame's header tells.
fn is_json(user_record: &[u8]) -> bool {
    user_record.first() == Some(&b'{')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::{Change, ChangeKind};
    use crate::frame::wire::{Change as WireChange, FrameBody};
    use crate::frame::{Compression, Compressor, FrameBuilder};
    use crate::item::tests::any_item;
    use crate::kpl::AggregateBuilder;
    use crate::position::Position;
    use proptest::prelude::*;
    use prost::Message as _;

    fn change(key: &str, payload: Bytes) -> Change {
        Change {
            table: "profiles".into(),
            key: key.to_owned().into(),
            position: Position::ZERO,
            kind: if payload.is_empty() { ChangeKind::Delete } else { ChangeKind::Put },
            created_ms: 1,
            payload,
        }
    }

    fn frame_of(changes: &[Change]) -> Bytes {
        let mut builder = FrameBuilder::new();
        changes.iter().for_each(|change| builder.push(change));
        builder.read_at(9);
        builder.finish(&mut Compressor::new(Compression::Zstd { level: 1 }).unwrap()).unwrap()
    }

    /// A frame of a body as it stands.
    fn frame_with(body: &[u8]) -> Bytes {
        let mut frame = [frame::MAGIC.as_slice(), &[frame::VERSION, 0, 0, 0]].concat();
        frame.extend(u32::try_from(body.len()).unwrap().to_be_bytes());
        frame.extend(crc32c::crc32c_append(crc32c::crc32c(&frame), body).to_be_bytes());
        frame.extend(body);
        frame.into()
    }

    fn json_of(change: &Change) -> Bytes {
        json::encode(change, 8).unwrap().into()
    }

    fn aggregated(user_records: &[Bytes]) -> Bytes {
        let mut builder = AggregateBuilder::new(kpl::RECORD_BYTES_MAX);
        assert!(user_records.iter().all(|data| builder.push("key", None, data)));
        builder.finish().unwrap()
    }

    fn read(record: Bytes) -> Contents {
        super::read(record).unwrap()
    }

    /// The key of each change; what of a user record that cannot be read.
    fn shown(contents: &Contents) -> Vec<String> {
        let shown = |part: &Part| match &part.change {
            Ok(change) => String::from_utf8(change.key.to_vec()).unwrap(),
            Err(error) => error.to_string(),
        };
        contents.parts.iter().map(shown).collect()
    }

    #[test]
    fn every_way_of_writing_is_read() {
        let (a, b, c) = (change("a", Bytes::new()), change("b", Bytes::new()), change("c", Bytes::new()));
        assert_eq!(shown(&read(frame_of(&[a.clone(), b.clone()]))), ["a", "b"]);
        assert_eq!(shown(&read(json_of(&a))), ["a"]);
        let user_records = [json::heartbeat(5), frame_of(&[a, b]), json_of(&c), FrameBuilder::heartbeat(4)];
        let contents = read(aggregated(&user_records));
        assert_eq!(shown(&contents), ["a", "b", "c"]);
        let read_ms: Vec<_> = contents.parts.iter().map(|part| part.read_ms).collect();
        assert_eq!(read_ms, [Some(9), Some(9), Some(8)]);
        assert_eq!(contents.watermark_ms, Some(5));
        assert_eq!(read(json::heartbeat(5)), Contents { watermark_ms: Some(5), ..Contents::default() });
    }

    #[test]
    fn a_user_record_of_somebody_else_leaves_its_neighbours_readable() {
        let (a, b) = (json_of(&change("a", Bytes::new())), json_of(&change("b", Bytes::new())));
        let theirs = [Bytes::from_static(b"theirs"), Bytes::from_static(b"{}"), Bytes::new()];
        let [text, object, empty] = theirs.clone();
        let expected = [
            "a",
            "user record 1: frame has 6 bytes, fewer than the 16 of its header",
            "user record 2: JSON without the member \"warmcast\": something else writes to the stream",
            "user record 3: frame has 0 bytes, fewer than the 16 of its header",
            "b",
        ];
        assert_eq!(shown(&read(aggregated(&[a, text, object, empty, b]))), expected);
        for theirs in theirs {
            assert!(Record::open(theirs).and_then(Record::decode).is_err());
        }
    }

    #[test]
    fn a_bad_change_of_a_frame_says_which_it_is_and_where() {
        let tables = Vec::new();
        let body = FrameBody { tables, changes: vec![WireChange::default(); 2], ..FrameBody::default() };
        let frame = frame_with(&body.encode_to_vec());
        assert!(shown(&read(frame.clone()))[1].starts_with("change 1 of the frame: "));
        let contents = read(aggregated(&[json::heartbeat(1), frame]));
        assert!(shown(&contents)[1].starts_with("user record 1: change 1 of the frame: "));
    }

    #[test]
    fn of_a_document_with_an_item_that_cannot_be_read_the_key_is_told() {
        let bad = br#"{"warmcast":1,"table":"t","key":"k","kind":"put","generation":1,"sequence":"7","created_ms":3,
            "item":{"a":{"later":"type"}}}"#;
        let bad = Bytes::from_static(bad);
        for (record, user_record) in [(bad.clone(), None), (aggregated(std::slice::from_ref(&bad)), Some(0))]
        {
            let contents = read(record);
            let error = contents.parts[0].change.as_ref().unwrap_err();
            assert_eq!((error.user_record, error.bytes()), (user_record, &bad));
            let invalidation = error.invalidation().unwrap();
            assert_eq!((invalidation.kind, &invalidation.key[..]), (ChangeKind::Invalidate, b"k".as_slice()));
            assert_eq!((error.table(), error.key()), (Some("t".into()), Some(invalidation.key)));
        }
    }

    #[test]
    fn a_damaged_aggregated_record_is_no_record_at_all() {
        let mut record = aggregated(&[json_of(&change("a", Bytes::new()))]).to_vec();
        let len = record.len();
        record[len / 2] ^= 1;
        let error = Record::open(record.into()).unwrap_err();
        assert_eq!(error, RecordError::Kpl(KplError::ChecksumMismatch { len }));
    }

    #[test]
    fn no_more_is_inflated_than_was_announced() {
        let bomb = frame_of(&[change("a", vec![7; 3 << 20].into())]);
        let record =
            Record::open(aggregated(&[bomb.clone(), json_of(&change("b", Bytes::new())), bomb])).unwrap();
        assert_eq!(record.body_len(), FRAME_BODY_BYTES_MAX);
        let shown = shown(&record.decode().unwrap());
        assert_eq!(shown[..2], ["a", "b"]);
        assert!(shown[2].starts_with("user record 2: frame body has 3145"), "{shown:?}");
        assert_eq!(shown.len(), 3);
    }

    #[test]
    fn there_are_no_more_changes_than_a_frame_may_have() {
        let many = vec![change("a", Bytes::new()); FRAME_CHANGES_MAX];
        let contents = read(aggregated(&[frame_of(&many), json_of(&many[0])]));
        assert_eq!(contents.parts.len(), FRAME_CHANGES_MAX + 1);
        let error = ContentError::TooManyChanges;
        let reason = PartErrorReason::Content { error, bytes: json_of(&many[0]) };
        let expected = PartError { user_record: Some(1), reason };
        assert_eq!(contents.parts[FRAME_CHANGES_MAX].change, Err(expected));
    }

    proptest! {
        #[test]
        fn json_never_makes_more_bytes_than_it_has(item in any_item()) {
            let payload = crate::item::encode(&item);
            let json = json_of(&Change { kind: ChangeKind::Put, ..change("a", payload.clone()) });
            prop_assert!(payload.len() <= json.len(), "{} above {}", payload.len(), json.len());
        }

        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = Record::open(bytes.into()).and_then(Record::decode);
        }
    }
}
