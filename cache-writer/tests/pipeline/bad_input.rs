//! Input that cannot be used is set aside with its position, and its neighbours are applied.

use prost::Message as _;
use redis::AsyncCommands as _;
use warmcast_proto::change::ChangeKind;
use warmcast_proto::entry::EntryKind;
use warmcast_proto::frame::wire::{Change as WireChange, FrameBody, Kind};
use warmcast_proto::frame::{FRAME_BODY_BYTES_MAX, MAGIC, VERSION, decode};

use super::world::{CacheWriter, World, change, frame, now_ms, position, put_change, redis_key, shown};

/// A frame of a body as it stands, with a good header.
fn frame_of(body: &FrameBody) -> Vec<u8> {
    let body = body.encode_to_vec();
    let mut frame = MAGIC.to_vec();
    frame.extend([VERSION, 0, 0, 0]);
    frame.extend(u32::try_from(body.len()).unwrap().to_be_bytes());
    frame.extend(crc32c::crc32c_append(crc32c::crc32c(&frame), &body).to_be_bytes());
    frame.extend(body);
    frame
}

fn wire(key: &str, kind: Kind, table: u32) -> WireChange {
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
    let mixed = world.put(mixed_frame.clone()).await;
    let last = world.put(frame(&[put_change("a", 1)])).await;
    world.until_checkpoint(&last).await;
    for key in ["before", "between", "after"] {
        assert_eq!(shown(&world.until_entry(key, 9).await), (EntryKind::Tombstone, ""));
    }
    world.until_entry("a", 1).await;
    for key in ["cut", "bad"] {
        assert!(world.entry(key).await.is_none(), "{key}");
    }
    let letters = world.letters();
    let expected = [(garbage, b"garbage".to_vec()), (truncated, cut), (mixed, mixed_frame)];
    let found: Vec<_> =
        letters.iter().map(|letter| (letter.sequence.clone(), letter.bytes.clone())).collect();
    assert_eq!(found, expected, "one letter for each record");
    assert!(letters.iter().all(|letter| letter.form == "kinesis-record"), "{letters:?}");
    assert!(letters[2].reason.contains("change 1 of the frame"), "{letters:?}");
    assert!(letters[2].reason.contains("1 more of its changes"), "{letters:?}");
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
    let letters = world.letters();
    assert_eq!(letters.len(), 1, "{letters:?}");
    let letter = &letters[0];
    assert_eq!((letter.form.as_str(), letter.sequence.as_str()), ("frame", "2"));
    assert!(letter.reason.contains("not an entry"), "{letter:?}");
    let kept = decode(letter.bytes.clone().into(), FRAME_BODY_BYTES_MAX).unwrap().changes;
    assert_eq!(kept, [Ok(changes[1].clone())]);
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
    let letters = world.letters();
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert!(letters[0].reason.contains("above 1000"), "{letters:?}");
    writer.stop().await;
}
