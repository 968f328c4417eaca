//! Batches become frames, once, and every region gets a copy.

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use warmcast_common::consumer::Ack;
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
    /// Done when this region has it.
    pub acks: Vec<Ack>,
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
            fanout.send(batch).await;
        }
        tokio::select! {
            biased;
            () = sleep_until(batcher.next_due()) => {}
            () = shutdown.cancelled(), if !draining => {}
            pending = intake.recv() => {
                let Some(pending) = pending else { break };
                for Pending { change, read_ms, ack } in pending {
                    if let Some(batch) = batcher.push(&change, read_ms, ack, Instant::now()) {
                        fanout.send(batch).await;
                    }
                }
            }
        }
    }
    while let Some(batch) = batcher.pop() {
        fanout.send(batch).await;
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
    async fn send(&mut self, mut batch: Batch<Ack>) {
        let bytes = match batch.frame.finish(&mut self.compressor) {
            Ok(bytes) => bytes,
            Err(error) => {
                // The acks go with the batch: its records are read again.
                tracing::error!(bucket = batch.bucket, %error, "frame could not be built");
                return;
            }
        };
        for (region, acks) in self.regions.iter().zip(copies(batch.acks, self.regions.len())) {
            let frame = RegionFrame { bucket: batch.bucket, bytes: bytes.clone(), acks };
            // A region's producer outlives the fanout; were it gone, the records would be read again.
            let _producer_gone = region.send(frame).await;
        }
    }
}

/// Splits each ack into one for each region, and puts a region's acks together.
fn copies(acks: Vec<Ack>, regions: usize) -> Vec<Vec<Ack>> {
    let mut copies: Vec<Vec<Ack>> = (0..regions).map(|_| Vec::with_capacity(acks.len())).collect();
    for ack in acks {
        for (copy, part) in copies.iter_mut().zip(ack.split(regions)) {
            copy.push(part);
        }
    }
    copies
}
