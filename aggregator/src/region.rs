//! One region's producer: frames go into its Kinesis stream, failed entries alone are sent again.
//!
//! Entries may land out of order and twice (AWS: PutRecords guarantees neither order nor, after a timeout,
//! that nothing was written): the positions in the cache make that harmless.

use std::collections::VecDeque;
use std::sync::Arc;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::operation::put_records::PutRecordsOutput;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::PutRecordsRequestEntry;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use warmcast_common::aws::CallError;
use warmcast_common::dead_letter::{DeadLetter, DeadLetters};
use warmcast_common::limits::{PARTITION_KEY_BYTES_MAX, PUT_RECORDS_BYTES_MAX, PUT_RECORDS_ENTRIES_MAX};
use warmcast_common::retry::{Backoff, Class};
use warmcast_common::telemetry::LogLimiter;
use warmcast_proto::key::{Buckets, explicit_hash_key};

use crate::fanout::RegionFrame;
use crate::readiness::Readiness;
use crate::stats::Stats;

/// Puts frames to one region's stream. Cheap to clone: each call under way has one.
#[derive(Clone, Debug)]
pub struct Producer {
    /// The region's Kinesis.
    pub client: Client,
    /// The region's name, for logs.
    pub region: Arc<str>,
    /// Its stream.
    pub stream: Arc<str>,
    /// How many buckets there are.
    pub buckets: Buckets,
    /// Where frames go that the stream will never take.
    pub dead_letters: Arc<DeadLetters>,
    /// What is counted.
    pub stats: Arc<Stats>,
    /// Whether the region can take more.
    pub readiness: Readiness,
}

impl Producer {
    /// Logs what is wrong with the stream, if anything is. It may be created later: the puts go on trying.
    pub async fn check_stream(&self) {
        if let Err(error) = self.describe_stream().await {
            tracing::error!(region = &*self.region, %error, "the target stream cannot be used yet; puts are tried until it can");
        }
    }

    async fn describe_stream(&self) -> Result<(), CallError> {
        let described = self.client.describe_stream_summary().stream_name(&*self.stream).send().await;
        described.map(drop).map_err(|error| CallError::new("DescribeStreamSummary", self.target(), error))
    }

    /// Sends what comes from `frames` until it closes and all is sent.
    pub async fn run(self, mut frames: mpsc::Receiver<RegionFrame>, puts_in_flight_max: usize) {
        self.readiness.set(true);
        let mut queue = VecDeque::new();
        let mut puts = JoinSet::new();
        let mut open = true;
        while open || !queue.is_empty() || !puts.is_empty() {
            while puts.len() < puts_in_flight_max && !queue.is_empty() {
                puts.spawn(self.clone().put_all(next_request(&mut queue)));
            }
            tokio::select! {
                biased;
                Some(ended) = puts.join_next() => {
                    if let Err(panicked) = ended {
                        // Its acks are gone with it: the records are read again.
                        tracing::error!(region = &*self.region, error = %panicked, "put task panicked");
                    }
                }
                // Calls are filled while earlier ones are under way, up to one more than can be under way.
                frame = frames.recv(), if open && queue.len() < PUT_RECORDS_ENTRIES_MAX => match frame {
                    Some(frame) => {
                        queue.push_back(frame);
                        while queue.len() < PUT_RECORDS_ENTRIES_MAX && let Ok(frame) = frames.try_recv() {
                            queue.push_back(frame);
                        }
                    }
                    None => open = false,
                },
            }
        }
    }

    /// Sends these frames until the stream has each of them, or never will.
    async fn put_all(self, mut frames: Vec<RegionFrame>) {
        let (mut pauses, mut complaints) = (Backoff::default(), LogLimiter::default());
        let mut usable = false;
        while !frames.is_empty() {
            let trouble = match self.put(&frames).await {
                Ok(answer) => {
                    let (failed, trouble) = self.settle(frames, &answer);
                    frames = failed;
                    trouble
                }
                Err(error) if error.class == Class::Permanent && frames.len() == 1 && usable => {
                    return self.set_aside(frames, &error);
                }
                Err(error) if error.class == Class::Permanent && frames.len() == 1 => {
                    // A wrong endpoint or stream name has every call refused: that is no reason to give up frames.
                    // Only what is refused after the stream was seen to be there is refused for what it is.
                    match self.describe_stream().await {
                        Ok(()) => {
                            usable = true;
                            continue;
                        }
                        Err(unusable) => Some(format!("{error}; {unusable}")),
                    }
                }
                // One of several is refused: which shows when each half is sent by itself.
                Err(error) if error.class == Class::Permanent => {
                    tracing::warn!(region = &*self.region, %error, frames = frames.len(), "call refused; its halves are sent");
                    let second = frames.split_off(frames.len() / 2);
                    Box::pin(self.clone().put_all(frames)).await;
                    frames = second;
                    continue;
                }
                Err(error) => Some(error.to_string()),
            };
            let Some(trouble) = trouble else { continue };
            usable = false;
            Stats::add(&self.stats.retries, frames.len());
            if let Some(repeats) = complaints.due(Instant::now()) {
                tracing::warn!(
                    region = &*self.region,
                    frames = frames.len(),
                    repeats,
                    error = trouble,
                    "frames are sent again"
                );
            }
            tokio::time::sleep(pauses.next_pause()).await;
        }
    }

    async fn put(&self, frames: &[RegionFrame]) -> Result<PutRecordsOutput, CallError> {
        let entries = frames.iter().filter_map(|frame| {
            let entry = PutRecordsRequestEntry::builder()
                .data(Blob::new(frame.bytes.as_ref()))
                .partition_key(frame.bucket.to_string())
                .explicit_hash_key(explicit_hash_key(frame.bucket, self.buckets).to_string());
            // Every required field is set above.
            entry.build().ok()
        });
        self.client
            .put_records()
            .stream_name(&*self.stream)
            .set_records(Some(entries.collect()))
            .send()
            .await
            .map_err(|error| CallError::new("PutRecords", self.target(), error))
    }

    /// Acks what the stream took; gives back what it did not, with the first reason.
    fn settle(
        &self,
        frames: Vec<RegionFrame>,
        answer: &PutRecordsOutput,
    ) -> (Vec<RegionFrame>, Option<String>) {
        if answer.records.len() != frames.len() {
            let reason = format!("{} answers to {} entries", answer.records.len(), frames.len());
            return (frames, Some(reason));
        }
        let mut failed = Vec::new();
        let mut trouble = None;
        for (frame, result) in frames.into_iter().zip(&answer.records) {
            match &result.error_code {
                None => self.landed(frame),
                Some(code) => {
                    trouble.get_or_insert_with(|| {
                        format!("{code}: {}", result.error_message.as_deref().unwrap_or_default())
                    });
                    failed.push(frame);
                }
            }
        }
        (failed, trouble)
    }

    fn landed(&self, frame: RegionFrame) {
        Stats::add(&self.stats.frames_sent, 1);
        Stats::add(&self.stats.bytes_sent, frame.bytes.len());
        Stats::add(&self.stats.changes_sent, frame.acks.len());
        frame.done();
    }

    fn set_aside(&self, frames: Vec<RegionFrame>, error: &CallError) {
        for frame in frames {
            Stats::add(&self.stats.dead_letters, 1);
            self.dead_letters.set_aside(&DeadLetter {
                stream: &self.target(),
                shard: None,
                sequence: None,
                reason: &error.to_string(),
                bytes: &frame.bytes,
                form: "frame",
            });
            frame.done();
        }
    }

    fn target(&self) -> String {
        format!("stream {} in {}", self.stream, self.region)
    }
}

/// As many frames as one call takes, oldest first.
fn next_request(queue: &mut VecDeque<RegionFrame>) -> Vec<RegionFrame> {
    let fit = entries_that_fit(queue.iter().map(|frame| frame.bytes.len()));
    queue.drain(..fit).collect()
}

/// How many of these frames, in order, one PutRecords call takes; at least one if there is one.
fn entries_that_fit(frame_bytes: impl Iterator<Item = usize>) -> usize {
    let mut bytes = 0;
    frame_bytes
        .take(PUT_RECORDS_ENTRIES_MAX)
        .enumerate()
        .take_while(|(index, frame)| {
            bytes += frame + PARTITION_KEY_BYTES_MAX;
            *index == 0 || bytes <= PUT_RECORDS_BYTES_MAX
        })
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use warmcast_common::limits::FRAME_BYTES_MAX;

    proptest! {
        #[test]
        fn a_call_is_filled_to_the_services_limits_and_never_beyond(
            frames in prop::collection::vec(1usize..=FRAME_BYTES_MAX, 1..40),
            small in prop::collection::vec(1usize..100, 0..1_000),
        ) {
            for sizes in [frames, small] {
                let fit = entries_that_fit(sizes.iter().copied());
                let bytes = |n: usize| sizes[..n].iter().map(|size| size + PARTITION_KEY_BYTES_MAX).sum::<usize>();
                prop_assert!(fit <= PUT_RECORDS_ENTRIES_MAX && bytes(fit) <= PUT_RECORDS_BYTES_MAX);
                let filled = fit == sizes.len() || fit == PUT_RECORDS_ENTRIES_MAX || bytes(fit + 1) > PUT_RECORDS_BYTES_MAX;
                prop_assert!(filled);
            }
        }
    }
}
