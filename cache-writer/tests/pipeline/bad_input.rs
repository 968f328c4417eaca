//! Input that cannot be used is set aside with its position, and its neighbours are applied.

use prost::Message as _;
use redis::AsyncCommands as _;
use warmcast_common::dead_letter::Form;
use warmcast_proto::change::ChangeKind;
use warmcast_proto::entry::EntryKind;
use warmcast_proto::frame::wire::{Change as WireChange, FrameBody, Kind};
use warmcast_proto::frame::{MAGIC, VERSION, decode_change};

use super::world::{CacheWriter, World, change, frame, now_ms, position, put_change, redis_key, shown};

/// A frame of a body as it stands, with a good header.
pub(crate) fn frame_of(body: &FrameBody) -> Vec<u8> {
    let body = body.encode_to_vec();
    let mut frame = MAGIC.to_vec();
    frame.extend([VERSION, 0, 0, 0]);
    frame.extend(u32::try_from(body.len()).unwrap().to_be_bytes());
    frame.extend(crc32c::crc32c_append(crc32c::crc32c(&frame), &body).to_be_bytes());
    frame.extend(body);
    frame
}

pub(crate) fn wire(key: &str, kind: Kind, table: u32) -> WireChange {
    WireChange {
        table,
        key: key.as_bytes().to_vec().into(),
        generation: 1,
        sequence: vec![9].into(),
        kind: kind.into(),
        created_ms: now_ms(),
        payload: Default::default(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_are_no_frames_and_bad_changes_are_set_aside_and_the_shard_goes_on() {
    let world = World::new(1).await;
    let writer = CacheWriter::start(world.config());
    let garbage = world.put("garbage").await;
    let good = frame(&[put_change("cut", 1)]);
    let cut = good[..good.len() - 1].to_vec();
    let truncated = world.put(cut.clone()).await;
    let changes = vec![
        wire("before", Kind::Delete, 0),
        wire("bad", Kind::Unspecified, 0),
        wire("between", Kind::Delete, 0),
        wire("bad", Kind::Delete, 7),
        wire("after", Kind::Delete, 0),
    ];
    let mixed_frame =
        frame_of(&FrameBody { tables: vec!["profiles".to_owned()], changes, ..FrameBody::default() });
    let mixed = world.put(mixed_frame).await;
    let last = world.put(frame(&[put_change("a", 1)])).await;
    world.until_checkpoint(&last).await;
    for key in ["before", "between", "after"] {
        assert_eq!(shown(&world.until_entry(key, 9).await), (EntryKind::Tombstone, ""));
    }
    world.until_entry("a", 1).await;
    assert!(world.entry("cut").await.is_none());
    // Of two bad changes of a key, the one whose table is known says that its item is not.
    assert_eq!(shown(&world.until_entry("bad", 9).await), (EntryKind::Invalid, ""));
    let letters = world.letters().await;
    let [first, second, unspecified, elsewhere] = letters.as_slice() else { panic!("{letters:?}") };
    for ((kept, letter), (position, bytes)) in
        [(first, (garbage, b"garbage".to_vec())), (second, (truncated, cut))]
    {
        let envelope = &kept.envelope;
        assert_eq!((envelope.origin.position.as_deref(), &*letter.bytes), (Some(&*position), &*bytes));
        assert_eq!((envelope.form, envelope.index), (Form::KinesisRecord, None));
        assert_eq!(&*envelope.origin.source, "cache-writer/eu-west-1");
        assert_eq!(envelope.origin.shard.as_deref(), Some("shardId-000000000000"));
    }
    for ((kept, letter), (index, table, reason)) in
        [(unspecified, (1, Some("profiles"), "unknown kind")), (elsewhere, (3, None, "table index 7"))]
    {
        let envelope = &kept.envelope;
        assert_eq!((envelope.index, envelope.table.as_deref()), (Some(index), table));
        assert_eq!((envelope.form, envelope.key.as_deref()), (Form::Change, Some(b"bad".as_slice())));
        assert_eq!(envelope.origin.position.as_deref(), Some(&*mixed));
        assert!(envelope.reason.contains(reason), "{envelope:?}");
        assert_eq!(WireChange::decode(&*letter.bytes).unwrap().key, "bad");
    }
    writer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_holds_something_else_keeps_it_and_the_shard_goes_on() {
    let world = World::new(1).await;
    let mut admin = world.admin.clone();
    let _: () = admin.lpush(redis_key("foreign"), "theirs").await.unwrap();
    let writer = CacheWriter::start(world.config());
    let changes = [put_change("a", 1), put_change("foreign", 2), put_change("b", 3)];
    let record = world.put(frame(&changes)).await;
    world.until_checkpoint(&record).await;
    world.until_entry("a", 1).await;
    world.until_entry("b", 3).await;
    let theirs: Vec<String> = admin.lrange(redis_key("foreign"), 0, -1).await.unwrap();
    assert_eq!(theirs, ["theirs"]);
    let letters = world.letters().await;
    let [(kept, letter)] = letters.as_slice() else { panic!("{letters:?}") };
    let envelope = &kept.envelope;
    assert_eq!((envelope.form, envelope.index), (Form::Change, Some(1)));
    assert_eq!(envelope.origin.position.as_deref(), Some(&*record));
    assert!(envelope.reason.contains("not an entry"), "{envelope:?}");
    let change = decode_change(letter.bytes.to_vec().into(), envelope.table.as_ref().unwrap());
    assert_eq!(change, Ok(changes[1].clone()));
    writer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_item_too_large_for_the_cache_is_set_aside_and_its_key_is_invalid() {
    let world = World::new(1).await;
    let mut config = world.config();
    config.redis.value_bytes_max = 1_000;
    let writer = CacheWriter::start(config);
    world.put(frame(&[put_change("a", 1)])).await;
    world.until_entry("a", 1).await;
    let large = change("a", 2, ChangeKind::Put, vec![7; 1_000]);
    let record = world.put(frame(&[large, put_change("b", 1)])).await;
    world.until_checkpoint(&record).await;
    let entry = world.until_entry("a", 2).await;
    assert_eq!((entry.0.kind(), entry.0.position()), (EntryKind::Invalid, position(2)));
    world.until_entry("b", 1).await;
    let letters = world.letters().await;
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert!(letters[0].0.envelope.reason.contains("above 1000"), "{letters:?}");
    writer.stop().await;
}
