//! Heartbeats: every open shard of a region's stream is told, once a second, how far the fleet is.
//!
//! Who reads the watermark W in a shard knows that every change made before W is in the stream before it. That holds
//! because W is known only when every region's stream has acknowledged those changes, and the record that says so is
//! put afterwards; a shard that is split or merged is read to its end before its children are. A watermark that is
//! put late, twice or out of order is still true, so nothing waits for a heartbeat and nothing repeats one: one that
//! fails is dropped, and the next has a newer value.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_kinesis::types::Shard;
use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use warmcast_common::aws::CallError;
use warmcast_common::consumer::Watermark;
use warmcast_common::limits::PUT_RECORDS_ENTRIES_MAX;
use warmcast_common::telemetry::LogLimiter;

use crate::stats::Stats;
use crate::target::{EntryAnswer, PutEntry, TargetStream};

/// Pause between two listings of a stream's shards while nothing surprises.
const LISTING_INTERVAL: Duration = Duration::from_secs(10);
/// Required by the service, and overridden by the explicit hash key.
const PARTITION_KEY: &str = "heartbeat";

/// Tells one region's stream the fleet's watermark.
#[derive(Clone, Debug)]
pub struct Heartbeats {
    /// The region's stream.
    pub target: TargetStream,
    /// Pause between two heartbeats.
    pub interval: Duration,
    /// What is counted.
    pub stats: Arc<Stats>,
}

/// Why a heartbeat did not reach every shard.
#[derive(Debug, thiserror::Error)]
enum HeartbeatError {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("shard {shard} is listed with the hash key range {range}, which is none")]
    Range { shard: String, range: String },
    #[error("{failed} of {sent} entries were refused, the first with {first}")]
    Refused { failed: usize, sent: usize, first: String },
    #[error("a heartbeat for {meant} landed in {landed}: the stream's shards have changed")]
    Moved { meant: String, landed: String },
}

impl Heartbeats {
    /// Sends a heartbeat in each interval in which `watermark` is known, holds for the region and has changed, until
    /// `shutdown`.
    pub async fn run(self, watermark: watch::Receiver<Option<Watermark>>, shutdown: CancellationToken) {
        shutdown.run_until_cancelled(self.beat(&watermark)).await;
    }

    async fn beat(&self, watermark: &watch::Receiver<Option<Watermark>>) {
        let (mut targets, mut complaints) = (Targets::default(), LogLimiter::default());
        let mut ticks = tokio::time::interval(self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let holds =
                |known: &Watermark| (!known.behind.contains(self.target.region())).then_some(known.ms);
            let known = watermark.borrow().as_ref().and_then(holds);
            let Some(watermark_ms) = known else { continue };
            if let Err(error) = self.tell(watermark_ms, &mut targets).await
                && let Some(repeats) = complaints.due(Instant::now())
            {
                tracing::warn!(
                    region = self.target.region(),
                    stream = self.target.stream(),
                    watermark_ms,
                    repeats,
                    %error,
                    "a heartbeat did not reach every shard; the next is sent when it is due"
                );
            }
        }
    }

    /// Tells every open shard that was not told yet. What goes wrong with some of them keeps nobody from telling the
    /// others; the first of it is returned.
    async fn tell(&self, watermark_ms: u64, targets: &mut Targets) -> Result<(), HeartbeatError> {
        let listed = if targets.is_listing_due(Instant::now()) { self.list(targets).await } else { Ok(()) };
        let frame = self.target.heartbeat(watermark_ms);
        let mut trouble = listed.err();
        let mut untold = targets.untold(watermark_ms);
        for call in untold.chunks_mut(PUT_RECORDS_ENTRIES_MAX) {
            let entries: Vec<_> = call.iter().map(|target| target.entry(&frame)).collect();
            let put = self.target.put_records(entries.into_iter()).await.map_err(HeartbeatError::from);
            if let Err(error) = put.and_then(|answers| self.settle(watermark_ms, call, answers)) {
                trouble.get_or_insert(error);
            }
        }
        // Whatever it was, the shards may be others now.
        match trouble {
            Some(error) => {
                targets.listed = None;
                Err(error)
            }
            None => Ok(()),
        }
    }

    async fn list(&self, targets: &mut Targets) -> Result<(), HeartbeatError> {
        targets.renew(&self.target.open_shards().await?)?;
        targets.listed = Some(Instant::now());
        Ok(())
    }

    fn settle(
        &self,
        watermark_ms: u64,
        targets: &mut [&mut Target],
        answers: Vec<EntryAnswer>,
    ) -> Result<(), HeartbeatError> {
        let sent = targets.len();
        let (mut refused, mut moved) = (Vec::new(), None);
        for (target, answer) in targets.iter_mut().zip(answers) {
            match answer {
                EntryAnswer::Taken { shard: landed } => {
                    target.told_ms = Some(watermark_ms);
                    if landed != target.shard {
                        moved = Some((target.shard.clone(), landed));
                    }
                }
                EntryAnswer::Throttled { error, .. } | EntryAnswer::Failed { error } => refused.push(error),
            }
        }
        Stats::add(&self.stats.heartbeats_sent, sent - refused.len());
        let failed = refused.len();
        match (refused.into_iter().next(), moved) {
            (Some(first), _) => Err(HeartbeatError::Refused { failed, sent, first }),
            (None, Some((meant, landed))) => Err(HeartbeatError::Moved { meant, landed }),
            (None, None) => Ok(()),
        }
    }
}

/// The open shards of a stream, as they were listed last.
#[derive(Debug, Default)]
struct Targets {
    open: Vec<Target>,
    /// None: they must be listed before the next heartbeat.
    listed: Option<Instant>,
}

/// An open shard.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    shard: String,
    /// A hash key that the shard has.
    hash_key: u128,
    /// The watermark that it was told last.
    told_ms: Option<u64>,
}

impl Target {
    fn entry(&self, frame: &Bytes) -> PutEntry {
        PutEntry { data: frame.clone(), partition_key: PARTITION_KEY.to_owned(), hash_key: self.hash_key }
    }
}

impl Targets {
    fn is_listing_due(&self, now: Instant) -> bool {
        self.listed.is_none_or(|listed| now.duration_since(listed) >= LISTING_INTERVAL)
    }

    /// Takes a new listing. A shard that was there before was told what it was told.
    fn renew(&mut self, listed: &[Shard]) -> Result<(), HeartbeatError> {
        let mut open = open_shards(listed)?;
        let told: HashMap<_, _> = self.open.drain(..).map(|target| (target.shard, target.told_ms)).collect();
        for target in &mut open {
            target.told_ms = told.get(&target.shard).copied().flatten();
        }
        self.open = open;
        Ok(())
    }

    fn untold(&mut self, watermark_ms: u64) -> Vec<&mut Target> {
        self.open.iter_mut().filter(|target| target.told_ms != Some(watermark_ms)).collect()
    }
}

/// The shards of a listing that take records, each with a hash key in the middle of its range.
fn open_shards(listed: &[Shard]) -> Result<Vec<Target>, HeartbeatError> {
    // AWS: SequenceNumberRange: shards that are open have no ending sequence number.
    let is_open = |shard: &&Shard| {
        shard.sequence_number_range.as_ref().is_none_or(|range| range.ending_sequence_number.is_none())
    };
    listed.iter().filter(is_open).map(open_shard).collect()
}

fn open_shard(shard: &Shard) -> Result<Target, HeartbeatError> {
    let range = shard.hash_key_range.as_ref();
    let bounds = range.and_then(|range| {
        let first = range.starting_hash_key.parse::<u128>().ok()?;
        let last = range.ending_hash_key.parse::<u128>().ok()?;
        Some((first, last.checked_sub(first)?))
    });
    let Some((first, span)) = bounds else {
        return Err(HeartbeatError::Range { shard: shard.shard_id.clone(), range: format!("{range:?}") });
    };
    Ok(Target { shard: shard.shard_id.clone(), hash_key: first + span / 2, told_ms: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_kinesis::types::{HashKeyRange, SequenceNumberRange};
    use proptest::prelude::*;

    fn shard(id: &str, first: &str, last: &str, end: Option<&str>) -> Shard {
        let keys = HashKeyRange::builder().starting_hash_key(first).ending_hash_key(last).build().unwrap();
        let sequence = SequenceNumberRange::builder().starting_sequence_number("1");
        let sequence = sequence.set_ending_sequence_number(end.map(str::to_owned)).build().unwrap();
        Shard::builder().shard_id(id).hash_key_range(keys).sequence_number_range(sequence).build().unwrap()
    }

    /// The ranges of a stream whose shards begin at these keys, beside the first, which begins at 0.
    fn ranges(cuts: &[u128]) -> Vec<(u128, u128)> {
        let mut firsts: Vec<u128> = [0].iter().chain(cuts).copied().collect();
        firsts.sort_unstable();
        firsts.dedup();
        let lasts = firsts.iter().skip(1).map(|next| next - 1).chain([u128::MAX]).collect::<Vec<_>>();
        firsts.into_iter().zip(lasts).collect()
    }

    proptest! {
        #[test]
        fn every_open_shard_and_no_other_gets_a_hash_key_of_its_own(
            cuts in prop::collection::vec(prop_oneof![any::<u128>(), 0..20u128, (u128::MAX - 20)..=u128::MAX], 0..40),
            closed in prop::collection::vec((any::<u128>(), any::<u128>()), 0..10),
        ) {
            let ranges = ranges(&cuts);
            let open = ranges.iter().enumerate().map(|(number, (first, last))| {
                shard(&format!("open-{number}"), &first.to_string(), &last.to_string(), None)
            });
            let closed = closed.iter().map(|(a, b)| {
                shard("closed", &a.min(b).to_string(), &a.max(b).to_string(), Some("2"))
            });
            let listed: Vec<_> = closed.chain(open).collect();
            let targets = open_shards(&listed).unwrap();
            prop_assert_eq!(targets.len(), ranges.len());
            for (number, (target, (first, last))) in targets.iter().zip(&ranges).enumerate() {
                prop_assert_eq!(&target.shard, &format!("open-{number}"));
                prop_assert!((*first..=*last).contains(&target.hash_key));
            }
        }
    }

    #[test]
    fn a_range_that_is_none_is_an_error_and_not_a_shard_left_out() {
        for (first, last) in [("5", "4"), ("", "4"), ("0", "340282366920938463463374607431768211456")] {
            let error = open_shards(&[shard("odd", first, last, None)]).unwrap_err().to_string();
            assert!(error.contains("shard odd"), "{error}");
        }
        assert_eq!(open_shards(&[shard("odd", "5", "4", Some("2"))]).unwrap(), []);
    }

    #[test]
    fn a_shard_is_told_a_watermark_once_and_a_new_shard_at_once() {
        let [left, right] =
            [("left", "0", "9"), ("right", "10", "20")].map(|(id, a, b)| shard(id, a, b, None));
        let names = |targets: Vec<&mut Target>| targets.iter().map(|of| of.shard.clone()).collect::<Vec<_>>();
        let mut targets = Targets::default();
        targets.renew(std::slice::from_ref(&left)).unwrap();
        targets.untold(7).iter_mut().for_each(|target| target.told_ms = Some(7));
        assert!(targets.untold(7).is_empty());
        targets.renew(&[left, right]).unwrap();
        assert_eq!(names(targets.untold(7)), ["right"]);
        assert_eq!(names(targets.untold(8)), ["left", "right"]);
    }

    #[test]
    fn shards_are_listed_before_the_first_heartbeat_and_then_at_intervals() {
        let now = Instant::now();
        let mut targets = Targets::default();
        assert!(targets.is_listing_due(now));
        targets.listed = Some(now);
        assert!(!targets.is_listing_due(now + LISTING_INTERVAL / 2));
        assert!(targets.is_listing_due(now + LISTING_INTERVAL));
    }
}
