//! How operators' commands send: changes become frames, or aggregated records, and go to the streams of chosen regions.
//!
//! The daemon's producer keeps what it was given until its region takes it, parks, or is given up by age, and lets no
//! region wait for another. A command has somebody who waits for it: [`Dispatch::send`] returns when every region has
//! everything, and gives up with an error that names the region. Both send by the same rules: [`Paced`].
//!
//! [`Paced`]: crate::producer::paced::Paced

mod delivery;

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;
use warmcast_common::aws::CallError;
use warmcast_common::consumer::Lanes;
use warmcast_common::limits::FRAME_BYTES_MAX;
use warmcast_common::tool::Throttle;
use warmcast_proto::change::{Change, ChangeKind};
use warmcast_proto::frame::{BuildError, Compressor, change_len};
use warmcast_proto::key::explicit_hash_key;
use warmcast_proto::position::Position;

use crate::batch::{Batch, Batcher};
use crate::config::{BatchConfig, Config};
use crate::kpl::{KeyTooLarge, aggregate};
use crate::record_format::RecordFormat;
use crate::target::TargetStream;
use delivery::{Delivery, Record};

pub use delivery::DeliveryError;

/// A region that takes nothing for so long fails the command.
const PATIENCE: Duration = Duration::from_secs(120);

/// Sends changes to chosen regions. Several may send at a time; in each region what waits goes together.
#[derive(Debug)]
pub struct Dispatch {
    batch: BatchConfig,
    compressor: Mutex<Compressor>,
    /// By lane: the region's place in the configuration.
    regions: BTreeMap<usize, Delivery>,
    /// The regions that want aggregated records.
    kpl: Lanes,
}

/// What was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Changes that at least one region got.
    pub changes: u64,
    /// Kinesis records, of all regions together.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Of the changes, those that no record can hold: sent as invalidations, or, where they have no position, not at all.
    pub too_large: u64,
}

/// Why not everything was sent. What was, is in the streams: sending it again does no harm.
#[derive(Debug, thiserror::Error)]
pub enum DispatchError {
    /// Found before anything was sent.
    #[error("nothing was sent: {}", list(.0))]
    Unusable(Vec<CallError>),
    /// A stream does not take everything.
    #[error(transparent)]
    Delivery(#[from] DeliveryError),
    /// A frame could not be built.
    #[error(transparent)]
    Frame(#[from] BuildError),
    /// An aggregated record could not be built.
    #[error(transparent)]
    Aggregated(#[from] KeyTooLarge),
}

fn list(errors: &[CallError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl Dispatch {
    /// To the regions at these places of the configuration. Nothing is called yet.
    ///
    /// # Errors
    /// When the compressor cannot be set up.
    pub async fn connect(config: &Config, regions: &[usize]) -> Result<Self, BuildError> {
        let (mut deliveries, mut kpl) = (BTreeMap::new(), Lanes::NONE);
        for &lane in regions {
            let Some(region) = config.regions.get(lane) else { continue };
            let target =
                TargetStream::new(&region.name, &region.stream, &region.kinesis, region.target).await;
            if region.target.record_format == RecordFormat::Kpl {
                kpl = kpl.or(Lanes::one(lane));
            }
            let delivery = Delivery::new(target, region.producer, config.batch.buckets, PATIENCE);
            deliveries.insert(lane, delivery);
        }
        let compressor = Mutex::new(Compressor::new(config.batch.compression)?);
        Ok(Self { batch: config.batch, compressor, regions: deliveries, kpl })
    }

    /// So many bytes a second to each region; `None`: as many as its stream takes.
    #[must_use]
    pub fn limited(mut self, bytes_per_s: Option<NonZeroU64>) -> Self {
        for delivery in self.regions.values_mut() {
            delivery.throttle = bytes_per_s.map_or(Throttle::unlimited(), Throttle::per_s);
        }
        self
    }

    /// Gives up when a region has taken nothing for so long, and not after two minutes.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        for delivery in self.regions.values_mut() {
            delivery.patience = patience;
        }
        self
    }

    /// The regions.
    pub fn lanes(&self) -> Lanes {
        self.regions.keys().copied().collect()
    }

    /// Looks whether every region's stream is there: before anything is sent.
    ///
    /// # Errors
    /// All streams that cannot be used.
    pub async fn check(&self) -> Result<(), DispatchError> {
        let looks = self.regions.values().map(Delivery::check);
        let answers = futures_util::future::join_all(looks).await;
        let errors: Vec<CallError> = answers.into_iter().filter_map(Result::err).collect();
        if errors.is_empty() { Ok(()) } else { Err(DispatchError::Unusable(errors)) }
    }

    /// Sends each change to its regions, as far as they are of those that were chosen, and returns when all have them.
    /// The changes were asked for at `read_ms` (milliseconds since the Unix epoch), or later. What one call is given is
    /// held in memory, in every form, until it returns.
    ///
    /// # Errors
    /// A region does not take it.
    pub async fn send(&self, changes: Vec<(Change, Lanes)>, read_ms: u64) -> Result<Sent, DispatchError> {
        let (records, mut sent) = self.records(changes, read_ms)?;
        let deliveries = records.into_iter().filter_map(|(lane, records)| {
            let delivery = self.regions.get(&lane)?;
            sent.records += records.len() as u64;
            sent.bytes += records.iter().map(|record| record.bytes.len() as u64).sum::<u64>();
            Some(delivery.send(records))
        });
        futures_util::future::try_join_all(deliveries.collect::<Vec<_>>()).await?;
        Ok(sent)
    }

    /// The records that each region gets.
    fn records(
        &self,
        changes: Vec<(Change, Lanes)>,
        read_ms: u64,
    ) -> Result<(BTreeMap<usize, Vec<Record>>, Sent), DispatchError> {
        let (mut sent, mut records) = (Sent::default(), Records::default());
        let (chosen, now) = (self.lanes(), Instant::now());
        let mut batcher = Batcher::new(self.batch, self.kpl);
        for (change, lanes) in changes {
            let lanes = lanes.and(chosen);
            if lanes.is_empty() {
                continue;
            }
            let Some(change) = self.fit(change, &mut sent) else { continue };
            sent.changes += 1;
            if let Some(batch) = batcher.push(lanes, &change, read_ms, (), now) {
                self.add(batch, &mut records, &mut sent)?;
            }
        }
        while let Some(batch) = batcher.pop() {
            self.add(batch, &mut records, &mut sent)?;
        }
        Ok((records.by_lane, sent))
    }

    /// A change that no frame can hold becomes an invalidation. Without a position that would say nothing.
    fn fit(&self, change: Change, sent: &mut Sent) -> Option<Change> {
        if change_len(&change) <= self.batch.body_bytes_max {
            return Some(change);
        }
        sent.too_large += 1;
        let has_position = change.position != Position::ZERO;
        has_position.then(|| Change { kind: ChangeKind::Invalidate, payload: Bytes::new(), ..change })
    }

    fn add(&self, mut batch: Batch<()>, records: &mut Records, sent: &mut Sent) -> Result<(), DispatchError> {
        let (framed, kpl, bucket) = (batch.lanes.without(self.kpl), batch.lanes.and(self.kpl), batch.bucket);
        if !framed.is_empty() {
            let bytes = batch.frame.finish(&mut self.compressor.lock())?;
            records.add(framed, &Record { bucket, bytes });
        }
        if !kpl.is_empty() {
            let hash_key = explicit_hash_key(bucket, self.batch.buckets);
            let aggregated = aggregate(&batch.changes, hash_key, FRAME_BYTES_MAX)?;
            sent.too_large += aggregated.invalidated as u64;
            for record in aggregated.records {
                records.add(kpl, &Record { bucket, bytes: record.bytes });
            }
        }
        Ok(())
    }
}

#[derive(Default)]
struct Records {
    by_lane: BTreeMap<usize, Vec<Record>>,
}

impl Records {
    /// The regions share the bytes.
    fn add(&mut self, lanes: Lanes, record: &Record) {
        for lane in lanes.iter() {
            self.by_lane.entry(lane).or_default().push(record.clone());
        }
    }
}
