//! One region's producer: frames go into its Kinesis stream, at the rate that each of its shards takes.
//!
//! The decisions are pure and stand in the modules below, each for itself: [`rate`] how fast a shard is sent to,
//! [`routes`] which shard a bucket is in, [`queue`] what is sent next, [`health`] whether the region answers.
//! `sending` puts them together, and
//! [`Producer::run`] does the calls. What becomes of an entry depends on why it failed:
//!
//! | failed because | then |
//! |---|---|
//! | its shard is throttled | back to its place; the shard's rate goes down |
//! | something inside the service | back to its place, and sent again after a pause of its own |
//! | the call failed | back to its place; the region is held for a pause |
//! | the call was refused | its halves are sent by themselves; one entry that is refused alone is a dead letter |
//!
//! Entries may land out of order and twice (AWS: PutRecords guarantees neither order nor, after a timeout, that
//! nothing was written): the positions in the cache make that harmless. Nothing relies on the shard of a key.

pub mod rate;
pub mod routes;
pub mod queue;
pub mod health;
pub mod paced;
mod call;
mod sending;

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use warmcast_common::dead_letter::Quarantine;
use warmcast_proto::key::Buckets;

use crate::fanout::RegionFrame;
use crate::readiness::Readiness;
use crate::refused;
use crate::stats::{RegionStats, Stats};
use crate::target::TargetStream;
use rate::ShardLimits;
use sending::Sending;

/// Frames that one region may hold. The byte budget bounds what they weigh; this what they are beside their bytes.
/// More than a shard's worth of [`COPY_AGE_MAX`], so that a throttled shard does not fill it.
const QUEUE_FRAMES_MAX: usize = 1 << 16;
/// Frames taken in at once.
const INTAKE_FRAMES_MAX: usize = 512;
/// Refused frames that may wait for their letters to be stored.
const REFUSALS_MAX: usize = 64;

/// What one region's producer is allowed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProducerConfig {
    /// PutRecords calls that may be under way at a time.
    pub puts_in_flight_max: usize,
    /// Bytes of one PutRecords call.
    pub request_bytes_max: usize,
    /// The most that one shard of the stream is sent in a second.
    pub shard_limits: ShardLimits,
}

/// Puts frames into one region's stream.
#[derive(Debug)]
pub struct Producer {
    target: TargetStream,
    config: ProducerConfig,
    buckets: Buckets,
    quarantine: Quarantine,
    stats: Arc<RegionStats>,
    answers: watch::Sender<bool>,
    readiness: Readiness,
}

impl Producer {
    /// A producer for this stream. What the stream will never take goes to `quarantine`. The region is ready
    /// while it answers and has little in its queue: then there is room for more than what is new.
    pub fn new(
        target: TargetStream,
        config: ProducerConfig,
        buckets: Buckets,
        quarantine: Quarantine,
        totals: &Stats,
        readiness: Readiness,
    ) -> Self {
        let (stats, answers) = (totals.region(target.region()), watch::Sender::new(true));
        Self { target, config, buckets, quarantine, stats, answers, readiness }
    }

    /// Whether the region answers: its last call succeeded, or nothing is known against it.
    pub fn answers(&self) -> watch::Receiver<bool> {
        self.answers.subscribe()
    }

    /// Sends what comes from `frames` until it closes and all is sent or given up.
    pub async fn run(self, mut frames: mpsc::Receiver<RegionFrame>) {
        let mut sending = Sending::new(&self, Instant::now());
        let (mut puts, mut looks, mut received) = (JoinSet::new(), JoinSet::new(), Vec::new());
        let mut refusals = JoinSet::new();
        let mut is_open = true;
        loop {
            let now = Instant::now();
            sending.keep(now);
            if looks.is_empty() && sending.is_look_due(now) {
                let target = self.target.clone();
                looks.spawn(async move { target.summary().await });
            }
            for (frame, error) in sending.refused.drain(..) {
                let (quarantine, stream) = (self.quarantine.clone(), self.target.stream().to_owned());
                refusals.spawn(refused::set_aside(quarantine, stream, frame, error));
            }
            while refusals.len() < REFUSALS_MAX
                && let Some(call) = sending.next_call(puts.len(), now)
            {
                puts.spawn(call.make(self.target.clone(), self.buckets));
            }
            if !is_open && sending.paced.queue.is_empty() && puts.is_empty() && refusals.is_empty() {
                return;
            }
            let next_at = sending.next_at(puts.len(), now);
            tokio::select! {
                biased;
                Some(ended) = puts.join_next() => sending.on_call(ended, Instant::now()),
                Some(stand_in) = refusals.join_next() => {
                    // Of one that panicked the acks are gone: the records are read again.
                    sending.take_in(stand_in.into_iter().flatten(), Instant::now());
                }
                Some(ended) = looks.join_next() => sending.on_look(ended, Instant::now()),
                () = tokio::time::sleep_until(next_at) => {}
                count = frames.recv_many(&mut received, INTAKE_FRAMES_MAX),
                    if is_open && sending.paced.queue.len() < QUEUE_FRAMES_MAX =>
                {
                    is_open = count > 0;
                    sending.take_in(received.drain(..), Instant::now());
                }
            }
        }
    }
}
