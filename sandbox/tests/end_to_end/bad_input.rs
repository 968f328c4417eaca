//! Records that nobody can decode are set aside, and the shard goes on.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_sdk_dynamodb::types::AttributeValue;
use aws_sdk_kinesis::primitives::Blob;
use bytes::Bytes;
use warmcast_proto::change::{Change, ChangeKind};
use warmcast_proto::frame::{Compression, Compressor, FrameBuilder};
use warmcast_proto::position::Position;
use warmcast_sandbox::daemon::STREAM;
use warmcast_sandbox::entry::Entry;
use warmcast_sandbox::workload::Ledger;
use warmcast_sandbox::world::World;

use crate::support::*;

/// How many dead letters the first region's cache-writer has; `None` before it has made their table.
async fn letters(world: &World) -> Option<usize> {
    let table = world.regions()[0].cache_writer().dead_letters();
    let answer = world.dynamodb().scan().table_name(table).consistent_read(true).send().await.ok()?;
    let is_letter = |sk: &AttributeValue| sk.as_s().is_ok_and(|sk| sk == "letter");
    Some(answer.items().iter().filter_map(|item| item.get("sk")).filter(|sk| is_letter(sk)).count())
}

async fn put_record(world: &World, data: Vec<u8>) {
    let client = world.regions()[0].kinesis().client();
    let put = client.put_record().stream_name(STREAM).partition_key("by hand").data(Blob::new(data));
    put.send().await.unwrap();
}

/// A change that is too old is left out where there is no entry: these are of now.
fn now_ms() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(since_epoch.as_millis()).unwrap()
}

/// A frame with one deletion, so that taking it for good would show.
fn frame(key: &'static str) -> Vec<u8> {
    let mut builder = FrameBuilder::new();
    builder.push(&Change {
        table: Arc::from(TABLE),
        key: Bytes::from_static(key.as_bytes()),
        position: Position::MAX,
        kind: ChangeKind::Delete,
        created_ms: now_ms(),
        payload: Bytes::new(),
    });
    builder.finish(&mut Compressor::new(Compression::None).unwrap()).unwrap().to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undecodable_record_is_set_aside_and_the_shard_goes_on() {
    let mut world = world().await;
    put(&world, TABLE, Default::default(), "victim").await;
    wait_in_every_region(&world, "victim", is_live).await;
    // The table is created when the daemon starts, before there is a letter.
    assert_eq!(eventually("the table of dead letters", || letters(&world)).await, 0);

    let mut corrupted = frame("victim");
    *corrupted.last_mut().unwrap() ^= 1;
    for (known, poison) in [b"no frame at all".to_vec(), corrupted, Vec::from(*b"WC")].into_iter().enumerate()
    {
        put_record(&world, poison).await;
        eventually("a dead letter", || async { letters(&world).await.filter(|&now| now > known) }).await;
    }
    assert_eq!(letters(&world).await, Some(3));

    let stats = || world.regions()[0].cache_writer().stats();
    eventually("three dead letters counted", || async { (stats().total("dead_letters") == 3).then_some(()) })
        .await;
    // Enough keys to have some in every shard.
    for index in 0..32 {
        put(&world, TABLE, Default::default(), &format!("after-{index}")).await;
    }
    assert_regions_equal(&mut world, &Ledger::new()).await;
    wait_for_entry(&world, 0, (TABLE, "victim"), |entry| !entry.is_tombstone()).await;
    stop(world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sound_record_by_hand_is_applied() {
    // Without this, the test above could pass because records put by hand are never read.
    let world = world().await;
    put_record(&world, frame("by-hand")).await;
    wait_for_entry(&world, 0, (TABLE, "by-hand"), Entry::is_tombstone).await;
    stop(world).await;
}
