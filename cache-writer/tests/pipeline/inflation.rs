//! Frames that are small as records and large when inflated.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use warmcast_cache_writer::stats::Stats;
use warmcast_cache_writer::unpack::{Routed, Unpack};
use warmcast_common::consumer::ack::ShardAcks;
use warmcast_common::consumer::{Asked, ByteBudget, Delivery, Processor as _, SequenceNumber, SourceRecord};
use warmcast_common::otlp::Tracer;
use warmcast_proto::change::ChangeKind;
use warmcast_proto::frame::FRAME_BODY_BYTES_MAX;

use super::poison::quarantine;
use super::world::{CacheWriter, World, change, frame};

const CHANGES: u32 = 10;
const PAYLOAD_BYTES: usize = 390_000;

/// 3.9 MB in a few hundred bytes.
fn bomb(number: u32) -> Vec<u8> {
    let payload = Bytes::from(vec![7; PAYLOAD_BYTES]);
    let changes: Vec<_> = (0..CHANGES)
        .map(|key| change(&format!("key-{key}"), number, ChangeKind::Put, payload.clone()))
        .collect();
    let frame = frame(&changes);
    assert!(frame.len() < 10_000, "{}", frame.len());
    frame
}

#[tokio::test]
async fn no_more_is_inflated_than_the_budget_allows() {
    let directory = tempfile::tempdir().unwrap();
    let (quarantine, _keeper) = quarantine(directory.path());
    let inflated = ByteBudget::new(2 * FRAME_BODY_BYTES_MAX);
    let (to_first, first) = mpsc::channel(64);
    let (to_second, second) = mpsc::channel(64);
    let unpack = Unpack {
        reducers: vec![to_first, to_second],
        inflated: inflated.clone(),
        quarantine,
        stats: Arc::new(Stats::default()),
        tracer: Tracer::default(),
    };
    let (acks, read) = (ShardAcks::new(100), ByteBudget::new(1 << 20));
    let mut deliveries = Vec::new();
    for number in 1..=10 {
        let (sequence, body) = (SequenceNumber::new(number.to_string()).ok(), Bytes::from(bomb(number)));
        let ack = acks.track(sequence.clone(), 0, read.reserve(body.len()).await).await;
        let record = SourceRecord { sequence, created_ms: 1, bytes: body.len(), body };
        deliveries.push(Delivery { record, ack, asked: Asked::now(), settling: false });
    }
    let mut unpacking = JoinSet::new();
    unpacking.spawn(async move { unpack.process("stream", "shard", deliveries).await });
    let mut queues = [first, second];
    let mut held: Vec<Routed> = Vec::new();
    for _ in 0..5 {
        // In a runtime of one thread the unpacker goes on until it must wait.
        for _ in 0..100 {
            tokio::task::yield_now().await;
            for queue in &mut queues {
                while let Ok(routed) = queue.try_recv() {
                    held.extend(routed);
                }
            }
        }
        assert_eq!(held.len(), 2 * CHANGES as usize, "two frames fit the budget");
        assert!(inflated.bytes_in_use() <= inflated.bytes_max());
        held.drain(..).for_each(|routed| routed.ack.done());
    }
    unpacking.join_next().await.unwrap().unwrap();
    assert_eq!(acks.status().checkpoint.unwrap().as_str(), "10");
    assert_eq!((inflated.bytes_in_use(), read.bytes_in_use()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_of_one_frame_is_enough_for_many_shards() {
    let world = World::new(3).await;
    let mut config = world.config();
    config.queue.inflated_bytes_max = FRAME_BODY_BYTES_MAX;
    let mut number = 0;
    for _ in 0..5 {
        for hash_key in [0, u128::MAX / 2, u128::MAX] {
            number += 1;
            world.put_at(hash_key, bomb(number)).await;
        }
    }
    let writer = CacheWriter::start(config);
    for key in 0..CHANGES {
        let (_, payload) = world.until_entry(&format!("key-{key}"), number).await;
        assert_eq!(payload.len(), PAYLOAD_BYTES);
    }
    writer.stop().await;
    assert!(world.letters().await.is_empty());
}
