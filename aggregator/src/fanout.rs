//! Batches become frames, once, and every region gets a copy; or aggregated records, once for all regions that want those.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use warmcast_common::consumer::{LaneAck, Lanes, ParkReason};
use warmcast_common::limits::FRAME_BYTES_MAX;
use warmcast_common::otlp::{Role, Span, Tracer};
use warmcast_proto::frame::{BuildError, Compressor};
use warmcast_proto::key::{Buckets, explicit_hash_key};

use crate::batch::{Batch, Batcher};
use crate::config::BatchConfig;
use crate::intake::Pending;
use crate::kpl::{Aggregated, AggregatedRecord, aggregate};
use crate::record_format::RecordFormat;
use crate::stats::Stats;
use crate::trace;

/// Where one region's frames go.
#[derive(Debug)]
pub struct Region {
    /// Its producer.
    pub frames: mpsc::Sender<RegionFrame>,
    /// How its records are written.
    pub format: RecordFormat,
}

/// A frame, or an aggregated record, on its way to one region.
#[derive(Debug)]
pub struct RegionFrame {
    /// The bucket of its keys.
    pub bucket: u32,
    /// The record; all regions of the same format share the bytes.
    pub bytes: Bytes,
    /// When the oldest of its changes was asked for: milliseconds since the Unix epoch.
    pub read_ms: u64,
    /// Done when this region has it.
    pub acks: Vec<LaneAck>,
    /// Its way there, if it is traced.
    pub span: Option<Box<Span>>,
}

impl RegionFrame {
    /// How many changes it has.
    pub fn changes(&self) -> usize {
        self.acks.len()
    }

    /// When its changes were created (milliseconds since the Unix epoch; 0: not known), and how many of those that stand
    /// together were.
    pub fn created(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let runs = self.acks.chunk_by(|one, next| one.arrived_ms() == next.arrived_ms());
        runs.map(|run| (run.first().map_or(0, LaneAck::arrived_ms), run.len() as u64))
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
        if let Some(span) = self.span {
            span.fail("given up: the region is parked and gets it again");
        }
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
    regions: Vec<Region>,
    stats: Arc<Stats>,
    tracer: Tracer,
    shutdown: CancellationToken,
) -> Result<(), BuildError> {
    let kpl = regions.iter().enumerate().filter(|(_, region)| region.format == RecordFormat::Kpl);
    let kpl: Lanes = kpl.map(|(lane, _)| lane).collect();
    let compressor = Compressor::new(config.compression)?;
    let mut batcher = Batcher::new(config, kpl);
    let mut fanout = Fanout { compressor, buckets: config.buckets, regions, kpl, stats, tracer };
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
    buckets: Buckets,
    regions: Vec<Region>,
    /// Those that want aggregated records.
    kpl: Lanes,
    stats: Arc<Stats>,
    tracer: Tracer,
}

/// What every region of a format gets of a batch: the record with the next so many of its changes.
struct Copied {
    bytes: Bytes,
    changes: usize,
    read_ms: u64,
    /// The making of it, if it is traced.
    span: Option<Span>,
}

impl Fanout {
    /// Where a format cannot be built, the acks go with the batch: its records are read again.
    fn send(&mut self, mut batch: Batch<LaneAck>) {
        let (framed, kpl) = (batch.lanes.without(self.kpl), batch.lanes.and(self.kpl));
        self.stats.frames.waits.observe(batch.opened.elapsed().as_secs_f64());
        if !framed.is_empty()
            && let Some(frame) = self.frame(&mut batch)
        {
            self.distribute(&mut batch, framed, std::slice::from_ref(&frame));
            if let Some(span) = frame.span {
                span.end(SystemTime::now());
            }
        }
        if !kpl.is_empty()
            && let Some(records) = self.aggregated(&batch)
        {
            self.distribute(&mut batch, kpl, &records);
        }
    }

    fn frame(&mut self, batch: &mut Batch<LaneAck>) -> Option<Copied> {
        let (read_ms, body_bytes) = (batch.frame.read_ms(), batch.frame.body_len());
        let mut span = trace::begin(&self.tracer, batch);
        match batch.frame.finish(&mut self.compressor) {
            Ok(bytes) => {
                let (frames, changes) = (&self.stats.frames, batch.acks.len());
                frames.changes.observe(changes as f64);
                frames.bytes.observe(bytes.len() as f64);
                Stats::add(&frames.body_bytes, body_bytes);
                if let Some(span) = &mut span {
                    span.set("messaging.message.envelope.size", trace::count(bytes.len()));
                }
                Some(Copied { bytes, changes, read_ms, span })
            }
            Err(error) => {
                tracing::error!(bucket = batch.bucket, %error, "frame could not be built");
                None
            }
        }
    }

    fn aggregated(&self, batch: &Batch<LaneAck>) -> Option<Vec<Copied>> {
        let hash_key = explicit_hash_key(batch.bucket, self.buckets);
        match aggregate(&batch.changes, hash_key, FRAME_BYTES_MAX) {
            Ok(Aggregated { records, invalidated }) => {
                if invalidated > 0 {
                    Stats::add(&self.stats.oversize, invalidated);
                    tracing::warn!(
                        bucket = batch.bucket,
                        changes = invalidated,
                        "items too large for an aggregated record: sent as invalidations, so that readers go to the master"
                    );
                }
                let copied = |AggregatedRecord { bytes, changes, read_ms }| Copied {
                    bytes,
                    changes,
                    read_ms,
                    span: None,
                };
                Some(records.into_iter().map(copied).collect())
            }
            Err(error) => {
                tracing::error!(bucket = batch.bucket, %error, "aggregated records could not be built");
                None
            }
        }
    }

    /// Never waits: a region that has no room is no reason for the others to wait.
    fn distribute(&self, batch: &mut Batch<LaneAck>, lanes: Lanes, copies: &[Copied]) {
        for lane in lanes.iter() {
            let Some(region) = self.regions.get(lane) else { continue };
            let mut acks = batch.acks.iter_mut().map(|ack| ack.split_off(Lanes::one(lane)));
            for copy in copies {
                let acks = acks.by_ref().take(copy.changes).collect();
                let bytes = copy.bytes.clone();
                let put = |span: &Span| span.child("put", Role::Producer, SystemTime::now());
                let span = copy.span.as_ref().and_then(put).map(Box::new);
                let frame = RegionFrame { bucket: batch.bucket, bytes, read_ms: copy.read_ms, acks, span };
                match region.frames.try_send(frame) {
                    Ok(()) => {}
                    Err(TrySendError::Full(frame)) => frame.give_up(ParkReason::QueueFull),
                    // A region's producer outlives the fanout; were it gone, the records would be read again.
                    Err(TrySendError::Closed(_)) => {}
                }
            }
        }
    }
}
