//! Batches become frames, once, and every region gets a copy.

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use warmcast_common::consumer::{LaneAck, Lanes, ParkReason};
use warmcast_proto::frame::{BuildError, Compressor};

use crate::batch::{Batch, Batcher};
use crate::config::BatchConfig;
use crate::intake::Pending;

/// A frame on its way to one region.
#[derive(Debug)]
pub struct RegionFrame {
    /// The bucket of its keys.
    pub bucket: u32,
    /// The frame; all regions share the bytes.
    pub bytes: Bytes,
    /// When the oldest of its changes was asked for: milliseconds since the Unix epoch.
    pub read_ms: u64,
    /// Done when this region has it.
    pub acks: Vec<LaneAck>,
}

impl RegionFrame {
    /// How many changes it has.
    pub fn changes(&self) -> usize {
        self.acks.len()
    }

    /// The region has it.
    pub fn done(self) {
        self.acks.into_iter().for_each(LaneAck::done);
    }

    /// Whether nobody waits for any of it: the region was parked on every shard that it comes from.
    pub fn is_worthless(&self) -> bool {
        self.acks.iter().all(LaneAck::is_worthless)
    }

    /// The region will not get this copy: it is parked on the shards that it comes from, and gets its changes again.
    pub fn give_up(self, why: ParkReason) {
        self.acks.into_iter().for_each(|ack| ack.park(why));
    }
}

/// Batches what comes from `intake` and sends frames to `regions` until `intake` closes and all is sent. After
/// `shutdown` nothing lingers: the shards that are drained wait for their changes.
///
/// # Errors
/// When the compressor cannot be set up.
pub async fn run(
    config: BatchConfig,
    mut intake: mpsc::Receiver<Vec<Pending>>,
    regions: Vec<mpsc::Sender<RegionFrame>>,
    shutdown: CancellationToken,
) -> Result<(), BuildError> {
    let mut fanout = Fanout { compressor: Compressor::new(config.compression)?, regions };
    let mut batcher = Batcher::new(config);
    loop {
        let draining = shutdown.is_cancelled();
        while let Some(batch) = if draining { batcher.pop() } else { batcher.pop_due(Instant::now()) } {
            fanout.send(batch);
        }
        tokio::select! {
            biased;
            () = sleep_until(batcher.next_due()) => {}
            () = shutdown.cancelled(), if !draining => {}
            pending = intake.recv() => {
                let Some(pending) = pending else { break };
                for Pending { change, read_ms, ack } in pending {
                    let (lanes, now) = (ack.lanes(), Instant::now());
                    if let Some(batch) = batcher.push(lanes, &change, read_ms, ack, now) {
                        fanout.send(batch);
                    }
                }
            }
        }
    }
    while let Some(batch) = batcher.pop() {
        fanout.send(batch);
    }
    Ok(())
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

struct Fanout {
    compressor: Compressor,
    regions: Vec<mpsc::Sender<RegionFrame>>,
}

impl Fanout {
    /// Never waits: a region that has no room is no reason for the others to wait.
    fn send(&mut self, mut batch: Batch<LaneAck>) {
        let read_ms = batch.frame.read_ms();
        let bytes = match batch.frame.finish(&mut self.compressor) {
            Ok(bytes) => bytes,
            Err(error) => {
                // The acks go with the batch: its records are read again.
                tracing::error!(bucket = batch.bucket, %error, "frame could not be built");
                return;
            }
        };
        for lane in batch.lanes.iter() {
            let Some(region) = self.regions.get(lane) else { continue };
            let acks = batch.acks.iter_mut().map(|ack| ack.split_off(Lanes::one(lane))).collect();
            let frame = RegionFrame { bucket: batch.bucket, bytes: bytes.clone(), read_ms, acks };
            match region.try_send(frame) {
                Ok(()) => {}
                Err(TrySendError::Full(frame)) => frame.give_up(ParkReason::QueueFull),
                // A region's producer outlives the fanout; were it gone, the records would be read again.
                Err(TrySendError::Closed(_)) => {}
            }
        }
    }
}
