use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use prost::Message as _;

use super::{build::frame_around, *};
use crate::{
    change::{Change, ChangeKind, tests::any_change},
    generated,
    position::{GENERATION_MAX, Position},
    sequence::{BE_BYTES_MAX, Sequence},
    trace::TraceContext,
};

const MAX: usize = FRAME_BODY_BYTES_MAX;

fn any_changes() -> impl Strategy<Value = Vec<Change>> {
    prop::collection::vec(any_change(), 0..12)
}

fn any_compression() -> impl Strategy<Value = Compression> {
    prop_oneof![
        Just(Compression::None),
        (-7..=5i32).prop_map(|level| Compression::Zstd { level }),
        Just(Compression::Lz4)
    ]
}

fn build(changes: &[Change], compression: Compression) -> Bytes {
    let mut builder = FrameBuilder::new();
    for change in changes {
        builder.push(change);
    }
    builder.finish(&mut Compressor::new(compression).unwrap()).unwrap()
}

fn decode_all(frame: Bytes) -> Vec<Change> {
    decode(frame, MAX).unwrap().changes.into_iter().map(Result::unwrap).collect()
}

fn frame_of(body: &generated::FrameBody) -> Bytes {
    let body = body.encode_to_vec();
    frame_around(StoredCompression::None, body.len().try_into().unwrap(), &body)
}

/// The message as it was before frames had watermarks.
#[derive(Clone, PartialEq, prost::Message)]
struct BodyWithoutWatermark {
    #[prost(string, repeated, tag = "1")]
    tables: Vec<String>,
    #[prost(message, repeated, tag = "2")]
    changes: Vec<generated::Change>,
}

fn wire_change(change: &Change, table: usize) -> generated::Change {
    let sequence = change.position.sequence();
    generated::Change {
        table: table.try_into().unwrap(),
        key: change.key.clone(),
        generation: change.position.generation(),
        sequence: Bytes::copy_from_slice(&sequence.to_be_bytes()[BE_BYTES_MAX - sequence.be_len()..]),
        kind: match change.kind {
            ChangeKind::Put => generated::Kind::Put,
            ChangeKind::Delete => generated::Kind::Delete,
            ChangeKind::Expire => generated::Kind::Expire,
            ChangeKind::Invalidate => generated::Kind::Invalidate,
            ChangeKind::Backfill => generated::Kind::Backfill,
        }
        .into(),
        created_ms: change.created_ms,
        payload: change.payload.clone(),
    }
}

fn wire_body(changes: &[Change]) -> generated::FrameBody {
    let mut body = generated::FrameBody::default();
    for change in changes {
        let known = body.tables.iter().position(|table| **table == *change.table);
        let table = known.unwrap_or_else(|| {
            body.tables.push(change.table.to_string());
            body.tables.len() - 1
        });
        body.changes.push(wire_change(change, table));
    }
    body
}

fn change(kind: ChangeKind, payload: &[u8]) -> Change {
    Change {
        table: "profiles".into(),
        key: Bytes::from_static(b"user-1"),
        position: Position::new(1, "4107372200000000044281155203".parse().unwrap()).unwrap(),
        kind,
        created_ms: 1_784_000_000_000,
        payload: Bytes::copy_from_slice(payload),
    }
}

proptest! {
    #[test]
    fn changes_read_back_in_order(changes in any_changes(), compression in any_compression()) {
        prop_assert_eq!(decode_all(build(&changes, compression)), changes);
    }

    #[test]
    fn lengths_are_exact_at_each_step(changes in any_changes()) {
        let mut builder = FrameBuilder::new();
        for (index, change) in changes.iter().enumerate() {
            let announced = builder.len_with(change);
            builder.push(change);
            prop_assert_eq!(builder.body_len(), announced);
            prop_assert_eq!(builder.body_len(), wire_body(&changes[..=index]).encoded_len());
            prop_assert_eq!(builder.changes(), index + 1);

            let alone = change_len(change);
            prop_assert_eq!(alone, wire_body(std::slice::from_ref(change)).encoded_len());
            let variable = change.table.len() + change.key.len() + change.payload.len();
            prop_assert!(alone <= variable + CHANGE_OVERHEAD_BYTES_MAX);
        }
        let body_len = builder.body_len();
        let frame = builder.finish(&mut Compressor::new(Compression::None).unwrap()).unwrap();
        prop_assert_eq!(frame.len(), HEADER_LEN + body_len);
        prop_assert!(builder.is_empty());
        prop_assert_eq!(builder.body_len(), 0);
    }

    #[test]
    fn the_generated_types_read_the_body(changes in any_changes()) {
        let frame = build(&changes, Compression::None);
        prop_assert_eq!(generated::FrameBody::decode(frame.slice(HEADER_LEN..)).unwrap(), wire_body(&changes));
    }

    #[test]
    fn bodies_of_the_generated_types_are_read(changes in any_changes()) {
        prop_assert_eq!(decode_all(frame_of(&wire_body(&changes))), changes);
    }

    #[test]
    fn a_heartbeat_has_its_watermark_and_no_changes_whoever_reads_it(watermark_ms in any::<u64>()) {
        let frame = FrameBuilder::heartbeat(watermark_ms);
        let body = generated::FrameBody { watermark_ms, ..generated::FrameBody::default() };
        prop_assert_eq!(&frame, &frame_of(&body));
        let told = Some(watermark_ms).filter(|&at_ms| at_ms > 0);
        prop_assert_eq!(decode(frame, MAX), Ok(Frame { watermark_ms: told, read_ms: None, trace: None, changes: Vec::new() }));
    }

    #[test]
    fn changes_and_a_watermark_are_read_from_one_body(changes in any_changes(), watermark_ms in 1..=u64::MAX) {
        let frame = frame_of(&generated::FrameBody { watermark_ms, ..wire_body(&changes) });
        let changes = changes.into_iter().map(Ok).collect();
        prop_assert_eq!(decode(frame, MAX), Ok(Frame { watermark_ms: Some(watermark_ms), read_ms: None, trace: None, changes }));
    }

    #[test]
    fn a_frame_tells_when_the_first_of_its_changes_was_read(
        changes in any_changes(),
        reads in prop::collection::vec(1..=u64::MAX, 0..4),
        compression in any_compression(),
    ) {
        let mut builder = FrameBuilder::new();
        changes.iter().for_each(|change| builder.push(change));
        reads.iter().for_each(|read_ms| builder.read_at(*read_ms));
        let len_max = builder.body_len() + READ_MS_LEN_MAX;
        let mut compressor = Compressor::new(compression).unwrap();
        let frame = builder.finish(&mut compressor).unwrap();
        prop_assert!(FrameHeader::peek(&frame).unwrap().body_len as usize <= len_max);
        prop_assert_eq!(decode(frame, MAX).unwrap().read_ms, reads.iter().min().copied());
        // The next frame of the builder is another one.
        prop_assert_eq!(decode(builder.finish(&mut compressor).unwrap(), MAX).unwrap().read_ms, None);
    }

    #[test]
    fn a_sampled_frame_tells_its_trace_and_others_are_not_a_byte_longer(
        changes in any_changes(),
        compression in any_compression(),
    ) {
        let context = TraceContext { trace_id: [7; 16], span_id: [8; 8], flags: 1 };
        let mut compressor = Compressor::new(compression).unwrap();
        let mut builder = FrameBuilder::new();
        changes.iter().for_each(|change| builder.push(change));
        let body_len = builder.body_len();
        builder.trace(context);
        let sampled = builder.finish(&mut compressor).unwrap();
        prop_assert_eq!(FrameHeader::peek(&sampled).unwrap().body_len as usize, body_len + TRACE_LEN);
        let read = decode(sampled, MAX).unwrap();
        prop_assert_eq!((read.trace, read.changes.len()), (Some(context), changes.len()));
        // The next frame of the builder is another one.
        changes.iter().for_each(|change| builder.push(change));
        let other = builder.finish(&mut compressor).unwrap();
        prop_assert_eq!(&other, &build(&changes, compression));
        prop_assert_eq!(decode(other, MAX).unwrap().trace, None);
    }

    #[test]
    fn readers_that_know_no_trace_read_the_changes(changes in any_changes()) {
        let body = generated::FrameBody { trace_context: vec![1; 25].into(), ..wire_body(&changes) };
        let read = BodyWithoutWatermark::decode(body.encode_to_vec().as_slice()).unwrap();
        prop_assert_eq!(read.changes, wire_body(&changes).changes);
        let strange = generated::FrameBody { trace_context: vec![1; 3].into(), ..wire_body(&changes) };
        prop_assert_eq!(decode(frame_of(&strange), MAX).unwrap().trace, None);
    }

    #[test]
    fn readers_that_know_no_watermark_read_the_changes(changes in any_changes(), watermark_ms in any::<u64>()) {
        let body = generated::FrameBody { watermark_ms, ..wire_body(&changes) };
        let read = BodyWithoutWatermark::decode(body.encode_to_vec().as_slice()).unwrap();
        prop_assert_eq!((read.tables, read.changes), (body.tables, body.changes));
        // The builder writes none into a frame of changes.
        prop_assert_eq!(decode(build(&changes, Compression::None), MAX).unwrap().watermark_ms, None);
    }

    #[test]
    fn with_one_table_the_bytes_are_the_generated_types_own(mut changes in prop::collection::vec(any_change(), 1..6)) {
        let table: Arc<str> = "profiles".into();
        changes.iter_mut().for_each(|change| change.table = Arc::clone(&table));
        let frame = build(&changes, Compression::None);
        prop_assert_eq!(&frame[HEADER_LEN..], wire_body(&changes).encode_to_vec());
    }

    #[test]
    fn peek_tells_the_body_length(changes in any_changes(), compression in any_compression()) {
        let frame = build(&changes, compression);
        let header = FrameHeader::peek(&frame).unwrap();
        prop_assert_eq!(header.body_len as usize, wire_body(&changes).encoded_len());
        prop_assert_eq!(header.version, VERSION);
        if header.compression == StoredCompression::None {
            prop_assert_eq!(frame.len(), HEADER_LEN + header.body_len as usize);
        } else {
            prop_assert!(frame.len() < HEADER_LEN + header.body_len as usize);
        }
    }

    #[test]
    fn every_truncation_is_an_error(changes in any_changes(), compression in any_compression()) {
        let frame = build(&changes, compression);
        for len in 0..frame.len() {
            prop_assert!(decode(frame.slice(..len), MAX).is_err(), "cut to {} of {}", len, frame.len());
        }
    }

    #[test]
    fn every_damaged_byte_is_an_error(changes in any_changes(), compression in any_compression(), flip in 1..=u8::MAX) {
        let frame = build(&changes, compression).to_vec();
        for index in 0..frame.len() {
            let mut damaged = frame.clone();
            damaged[index] ^= flip;
            prop_assert!(decode(damaged.into(), MAX).is_err(), "byte {} of {}", index, frame.len());
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        prop_assert!(decode(bytes.into(), MAX).is_err());
    }

    #[test]
    fn random_bodies_behind_a_good_checksum_never_panic(
        body in prop::collection::vec(any::<u8>(), 0..100),
        body_len in 0..200u32,
        compression in prop_oneof![Just(StoredCompression::None), Just(StoredCompression::Zstd), Just(StoredCompression::Lz4)],
    ) {
        let _ = decode(frame_around(compression, body_len, &body), MAX);
        let _ = decode(frame_around(StoredCompression::None, body.len().try_into().unwrap(), &body), MAX);
    }
}

#[test]
fn compressible_bodies_shrink_and_others_are_stored_as_they_are() {
    let repetitive = change(ChangeKind::Put, &b"segment:42,".repeat(1_000));
    for compression in [Compression::Zstd { level: 1 }, Compression::Lz4] {
        let frame = build(std::slice::from_ref(&repetitive), compression);
        assert!(frame.len() < 1_000, "{compression:?}: {} bytes", frame.len());
        assert_eq!(decode_all(frame), std::slice::from_ref(&repetitive));
    }
    let tiny = change(ChangeKind::Delete, b"");
    for compression in [Compression::Zstd { level: 1 }, Compression::Lz4] {
        let header = FrameHeader::peek(&build(std::slice::from_ref(&tiny), compression)).unwrap();
        assert_eq!(header.compression, StoredCompression::None, "{compression:?}");
    }
}

#[test]
fn a_builder_makes_one_frame_after_the_other_at_changing_levels() {
    let mut builder = FrameBuilder::new();
    for level in [1, 1, 3, -5, 3] {
        let change = change(ChangeKind::Put, &vec![b'x'; 1_000]);
        builder.push(&change);
        let frame = builder.finish(&mut Compressor::new(Compression::Zstd { level }).unwrap()).unwrap();
        assert_eq!(decode_all(frame), [change]);
    }
}

#[test]
fn an_empty_frame_holds_no_changes() {
    assert_eq!(decode_all(build(&[], Compression::Zstd { level: 1 })), []);
}

#[test]
fn keys_and_payloads_share_the_frames_memory() {
    let frame = build(&[change(ChangeKind::Put, &[7; 500])], Compression::None);
    let range = frame.as_ptr_range();
    let [change] = decode_all(frame).try_into().unwrap();
    assert!(range.contains(&change.payload.as_ptr()));
    assert!(range.contains(&change.key.as_ptr()));
}

#[test]
fn a_frame_of_the_largest_body_is_made_and_one_byte_more_is_refused() {
    let overhead = change_len(&change(ChangeKind::Put, &vec![7; MAX / 2])) - MAX / 2;
    for (excess, fits) in [(0, true), (1, false)] {
        let mut builder = FrameBuilder::new();
        let largest = change(ChangeKind::Put, &vec![7; MAX - overhead + excess]);
        assert_eq!(builder.len_with(&largest), MAX + excess);
        builder.push(&largest);
        match builder.finish(&mut Compressor::new(Compression::Lz4).unwrap()) {
            Ok(frame) => assert!(fits && decode_all(frame) == [largest]),
            Err(BuildError::BodyTooLarge { len }) => assert!(!fits && len == MAX + 1),
            Err(other) => panic!("{other}"),
        }
        assert!(builder.is_empty());
    }
}

#[test]
fn too_many_changes_or_tables_are_refused_by_both_sides() {
    let mut builder = FrameBuilder::new();
    let tiny = change(ChangeKind::Delete, b"");
    for _ in 0..=FRAME_CHANGES_MAX {
        builder.push(&tiny);
    }
    assert!(matches!(
        builder.finish(&mut Compressor::new(Compression::Lz4).unwrap()),
        Err(BuildError::TooManyChanges { .. })
    ));
    for table in 0..=FRAME_TABLES_MAX {
        builder.push(&Change { table: format!("table-{table}").into(), ..tiny.clone() });
    }
    assert!(matches!(
        builder.finish(&mut Compressor::new(Compression::Lz4).unwrap()),
        Err(BuildError::TooManyTables { .. })
    ));

    // Two bytes per empty change: cheap to send, and dear to hold.
    let changes = b"\x12\x00".repeat(FRAME_CHANGES_MAX + 1);
    let frame = frame_around(StoredCompression::None, changes.len().try_into().unwrap(), &changes);
    assert_eq!(decode(frame, MAX), Err(FrameError::TooMany));
    let tables = b"\x0a\x00".repeat(FRAME_TABLES_MAX + 1);
    let frame = frame_around(StoredCompression::None, tables.len().try_into().unwrap(), &tables);
    assert_eq!(decode(frame, MAX), Err(FrameError::TooMany));
}

#[test]
fn a_body_above_the_readers_bound_is_refused_before_anything_is_inflated() {
    // The announced length would take 4 GiB: were it allocated, this test would be killed or crawl.
    let frame = frame_around(StoredCompression::Zstd, u32::MAX, b"never looked at");
    assert_eq!(
        decode(frame, 1_000),
        Err(FrameError::BodyTooLarge { body_len: u32::MAX, body_bytes_max: 1_000 })
    );
}

#[test]
fn a_bomb_inflates_no_further_than_the_announced_length() {
    let zeros = vec![0; 64 << 20];
    let zstd = zstd::bulk::compress(&zeros, 19).unwrap();
    let lz4 = lz4_flex::block::compress(&zeros);
    for (compression, bomb) in [(StoredCompression::Zstd, zstd), (StoredCompression::Lz4, lz4)] {
        let error = decode(frame_around(compression, 100, &bomb), MAX).unwrap_err();
        assert!(matches!(error, FrameError::Inflate { body_len: 100, .. }), "{compression:?}: {error}");
    }
}

#[test]
fn a_body_of_another_length_than_announced_is_refused() {
    let body = wire_body(&[change(ChangeKind::Put, &[1; 100])]).encode_to_vec();
    let len = u32::try_from(body.len()).unwrap();
    let zstd = zstd::bulk::compress(&body, 1).unwrap();
    let lz4 = lz4_flex::block::compress(&body);
    for (compression, stored) in
        [(StoredCompression::None, &body), (StoredCompression::Zstd, &zstd), (StoredCompression::Lz4, &lz4)]
    {
        assert!(decode(frame_around(compression, len, stored), MAX).is_ok());
        let error = decode(frame_around(compression, len + 1, stored), MAX).unwrap_err();
        assert_eq!(
            error,
            FrameError::BodyLength { body_len: len + 1, actual: body.len() },
            "{compression:?}"
        );
    }
}

#[test]
fn each_damage_to_a_header_has_its_own_error() {
    let frame = build(&[change(ChangeKind::Put, &[1; 10])], Compression::None).to_vec();
    let with = |index: usize, byte: u8| {
        let mut damaged = frame.clone();
        damaged[index] = byte;
        decode(damaged.into(), MAX).unwrap_err()
    };
    assert_eq!(with(0, b'X'), FrameError::BadMagic { magic: *b"XCFR" });
    assert_eq!(with(4, 2), FrameError::UnsupportedVersion { version: 2 });
    assert_eq!(with(5, 3), FrameError::UnknownCompression { compression: 3 });
    assert_eq!(with(6, 1), FrameError::Reserved { reserved: 0x100 });
    assert!(matches!(with(8, 1), FrameError::ChecksumMismatch { .. }));
    assert_eq!(decode(Bytes::from_static(b"WCFR"), MAX), Err(FrameError::Truncated { len: 4 }));
    // Aggregated records of the Kinesis Producer Library start like this.
    assert!(matches!(
        decode(Bytes::from_static(b"\xf3\x89\x9a\xc2aggregated record"), MAX),
        Err(FrameError::BadMagic { .. })
    ));
}

#[test]
fn a_body_that_is_no_protobuf_is_an_error() {
    for body in [b"\x12\x7f".as_slice(), b"\x12", b"\xff\xff", b"\x0a\x02\xff\xff", b"\x07"] {
        let frame = frame_around(StoredCompression::None, body.len().try_into().unwrap(), body);
        let error = decode(frame, MAX).unwrap_err();
        assert!(
            matches!(
                error,
                FrameError::Protobuf(_)
                    | FrameError::FieldBeyondBody { .. }
                    | FrameError::TableName { index: 0 }
            ),
            "{body:x?}: {error}"
        );
    }
}

#[test]
fn fields_of_a_later_version_are_skipped() {
    let mut body = wire_body(&[change(ChangeKind::Put, b"x")]).encode_to_vec();
    body.extend_from_slice(b"\x22\x03abc\x28\x07");
    let frame = frame_around(StoredCompression::None, body.len().try_into().unwrap(), &body);
    assert_eq!(decode_all(frame), [change(ChangeKind::Put, b"x")]);
}

#[test]
fn a_bad_change_leaves_its_neighbours_readable() {
    let good = change(ChangeKind::Put, b"good");
    let wire = wire_change(&good, 0);
    let bad = [
        generated::Change { kind: 0, ..wire.clone() },
        generated::Change { kind: 99, ..wire.clone() },
        generated::Change { table: 1, ..wire.clone() },
        generated::Change { sequence: Bytes::from_static(&[1; 18]), ..wire.clone() },
        generated::Change { sequence: Bytes::from_static(&[0xff; 17]), ..wire.clone() },
        generated::Change { sequence: Bytes::from_static(&[0, 1]), ..wire.clone() },
        generated::Change { generation: GENERATION_MAX + 1, ..wire.clone() },
    ];
    let mut changes = vec![wire.clone()];
    changes.extend(bad);
    changes.push(wire);
    let mut body = generated::FrameBody {
        tables: vec!["profiles".to_owned()],
        changes,
        ..generated::FrameBody::default()
    }
    .encode_to_vec();
    // A change whose bytes are no message: a key that says it is longer than the change.
    body.extend_from_slice(b"\x12\x02\x12\x7f");
    // One whose kind has another type than the schema's, and all else is in order.
    let mut odd = encode_change(&good).to_vec();
    odd.extend_from_slice(b"\x2a\x01x");
    body.extend_from_slice(&[0x12, odd.len().try_into().unwrap()]);
    body.extend_from_slice(&odd);
    let frame = frame_around(StoredCompression::None, body.len().try_into().unwrap(), &body);

    let decoded = decode(frame, MAX).unwrap().changes;
    assert_eq!(decoded.len(), 11);
    for (index, change) in decoded.into_iter().enumerate() {
        let reason = match change {
            Ok(change) => {
                assert!(matches!(index, 0 | 8), "change {index} is bad and was read");
                assert_eq!(change, good);
                continue;
            }
            Err(error) => {
                assert_eq!(error.index, index);
                let remains = error.remains;
                let known = (remains.table.is_some(), remains.key.is_some(), remains.position.is_some());
                let expected = match index {
                    1 | 2 | 10 => (true, true, true),
                    3 => (false, true, true),
                    4..=7 => (true, true, false),
                    _ => (false, false, false),
                };
                assert_eq!(known, expected, "change {index}");
                let payload = Bytes::new();
                let invalid = Change { kind: ChangeKind::Invalidate, payload, ..good.clone() };
                let invalidation = (known == (true, true, true)).then_some(invalid);
                assert_eq!(remains.invalidation(), invalidation, "change {index}");
                error.reason
            }
        };
        let expected = match index {
            1 => matches!(reason, ChangeErrorReason::UnknownKind { kind: 0 }),
            2 => matches!(reason, ChangeErrorReason::UnknownKind { kind: 99 }),
            3 => matches!(reason, ChangeErrorReason::TableIndex { table: 1, tables: 1 }),
            4..=6 => matches!(reason, ChangeErrorReason::Sequence(_)),
            7 => matches!(reason, ChangeErrorReason::Position(_)),
            9 | 10 => matches!(reason, ChangeErrorReason::Protobuf(_)),
            _ => false,
        };
        assert!(expected, "change {index}: {reason}");
    }
}

proptest! {
    #[test]
    fn a_change_by_itself_reads_as_it_was_written(change in any_change()) {
        prop_assert_eq!(decode_change(encode_change(&change), &change.table), Ok(change));
    }

    #[test]
    fn bytes_that_are_no_change_are_an_error_or_a_change_and_never_a_panic(
        content in prop::collection::vec(any::<u8>(), 0..60)
    ) {
        let mut body = vec![0x0a, 1, b't', 0x12, content.len().try_into().unwrap()];
        body.extend_from_slice(&content);
        let frame = frame_around(StoredCompression::None, body.len().try_into().unwrap(), &body);
        let change = decode(frame, MAX).unwrap().changes.remove(0);
        let alone = decode_change(content.into(), &"t".into());
        match change {
            Ok(change) => prop_assert_eq!(alone, Ok(change)),
            // A table that the frame does not have is no error where the table is given.
            Err(error) => prop_assert!(alone.is_err() || error.remains.table.is_none()),
        }
    }
}

#[test]
fn a_table_may_be_named_after_the_change_that_points_to_it() {
    let change = change(ChangeKind::Expire, b"");
    let changes = vec![wire_change(&change, 0)];
    let mut body = generated::FrameBody { changes, ..generated::FrameBody::default() }.encode_to_vec();
    body.extend_from_slice(b"\x0a\x08profiles");
    let frame = frame_around(StoredCompression::None, body.len().try_into().unwrap(), &body);
    assert_eq!(decode_all(frame), [change]);
}

#[test]
fn the_overhead_covers_the_longest_of_every_field() {
    let longest = Change {
        table: "t".repeat(255).into(),
        key: vec![b'k'; 3_072].into(),
        position: Position::new(GENERATION_MAX, Sequence::MAX).unwrap(),
        kind: ChangeKind::Invalidate,
        created_ms: u64::MAX,
        payload: vec![0; MAX - 4_096].into(),
    };
    let variable = longest.table.len() + longest.key.len() + longest.payload.len();
    assert!(change_len(&longest) <= variable + CHANGE_OVERHEAD_BYTES_MAX);
    // Not much less either: a loose bound would refuse payloads that fit.
    assert!(change_len(&longest) + 8 >= variable + CHANGE_OVERHEAD_BYTES_MAX);
}

#[test]
fn of_several_watermarks_the_last_counts() {
    for (body, watermark_ms) in [
        (b"\x18\x05\x18\x07".as_slice(), Some(7)),
        (b"\x18\x07\x18\x00", None),
        // Not a varint: a field that this version does not know.
        (b"\x1a\x01x", None),
    ] {
        let frame = frame_around(StoredCompression::None, body.len().try_into().unwrap(), body);
        assert_eq!(
            decode(frame, MAX),
            Ok(Frame { watermark_ms, read_ms: None, trace: None, changes: Vec::new() }),
            "{body:x?}"
        );
    }
}

/// Golden bytes: a frame that other implementations can test their readers with.
#[test]
fn the_bytes_of_a_frame_are_what_they_always_were() {
    let frame = build(&[change(ChangeKind::Put, b"item")], Compression::None);
    let hex: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
    // The header, then the body: its table, then its change.
    assert_eq!(
        hex,
        concat!(
            "5743465201000000000000332cb84f28",
            "0a0870726f66696c6573",
            "12271206757365722d311801220c0d4589e51f50e83280fcce8328013080e0bef5f5333a046974656d"
        )
    );
}

#[test]
fn the_bytes_of_a_backfill_are_what_they_always_were() {
    let backfill = Change { position: Position::ZERO, ..change(ChangeKind::Backfill, b"item") };
    let frame = build(std::slice::from_ref(&backfill), Compression::None);
    let hex: String = frame.iter().skip(HEADER_LEN).map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, concat!("0a0870726f66696c6573", "12171206757365722d3128053080e0bef5f5333a046974656d"));
    assert_eq!(decode_all(frame), [backfill]);
}

#[test]
fn the_bytes_of_a_heartbeat_are_what_they_always_were() {
    let frame = FrameBuilder::heartbeat(1_784_000_000_000);
    let hex: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
    // The header, then the watermark.
    assert_eq!(hex, concat!("57434652010000000000000764dd94e4", "1880e0bef5f533"));
}
