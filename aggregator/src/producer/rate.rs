//! How fast one target shard is sent to. Pure.
//!
//! A token bucket in bytes and one in records, both filled at the same share of the service's limits. The share is
//! found by additive increase and multiplicative decrease: it begins at the whole limits, is cut when the shard
//! throttles, and grows while the shard takes what it is sent. The step is a part of the share at which the shard
//! throttled last, so that a shard with a hundredth of the limits is felt for as gently as one with all of them; when
//! nothing was throttled for a while, the limit has moved and the step grows too.
//!
//! What was refused costs as much as what was taken: a try that is repeated waits for tokens again, so a shard that
//! refuses everything is tried at its rate, and never in a storm.

use std::time::Duration;

use tokio::time::Instant;

/// The least share of the limits. Small enough for many senders at one shard, large enough to find out within seconds
/// that it takes records again.
const SHARE_MIN: f64 = 0.02;
/// What may be sent at once after a pause: what comes in so much time. The service lets more through; several senders
/// share it.
const BURST: Duration = Duration::from_millis(250);
/// An empty bucket is used again when it holds what comes in so much time: entries then travel in company.
const REFILL: Duration = Duration::from_millis(20);
/// Of the share, after a request of which the shard took nothing.
const DECREASE_ALL: f64 = 0.5;
/// Of the share, after a request of which the shard took nearly all.
const DECREASE_SOME: f64 = 0.75;
/// After a throttle the bucket stays empty for a random time up to this: senders that were throttled together do not
/// come back together.
const PAUSE_MAX: Duration = Duration::from_millis(100);
/// Growth in a second, as a part of the share at which the shard throttled last.
const INCREASE: f64 = 0.04;
/// Growth is steady for so long, and then doubles in every [`DOUBLING`].
const STEADY: Duration = Duration::from_secs(10);
/// See [`STEADY`].
const DOUBLING: Duration = Duration::from_secs(5);
/// The most that one answer can vouch for: a shard that is sent little is not known well.
const VOUCH_MAX: Duration = Duration::from_secs(1);

/// What the service lets into one shard in a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ShardLimits {
    /// Bytes of data and partition keys.
    pub bytes_per_second: f64,
    /// Records.
    pub records_per_second: f64,
}

impl ShardLimits {
    /// So many bytes and records a second.
    #[expect(clippy::cast_precision_loss, reason = "a rate that is off by a part in 2^53 is the same")]
    pub fn of(bytes_per_second: u64, records_per_second: u64) -> Self {
        Self { bytes_per_second: bytes_per_second as f64, records_per_second: records_per_second as f64 }
    }

    /// The limits of so many shards together.
    pub fn of_shards(self, shards: usize) -> Self {
        let shards = f64::from(u32::try_from(shards.max(1)).unwrap_or(u32::MAX));
        Self {
            bytes_per_second: self.bytes_per_second * shards,
            records_per_second: self.records_per_second * shards,
        }
    }
}

/// The rate of one shard.
#[derive(Clone, Debug)]
pub struct Rate {
    limits: ShardLimits,
    /// After the last decrease, of the limits.
    base: f64,
    /// Before the last decrease.
    ceiling: f64,
    /// How long the shard has taken everything since the last decrease, as far as answers tell.
    taking: Duration,
    taken: Option<Instant>,
    decreased: Option<Instant>,
    bytes: f64,
    records: f64,
    filled: Instant,
    is_empty: bool,
}

impl Rate {
    /// At the limits, with full buckets.
    pub fn new(limits: ShardLimits, now: Instant) -> Self {
        let mut rate = Self {
            limits,
            base: 1.0,
            ceiling: 1.0,
            taking: Duration::ZERO,
            taken: None,
            decreased: None,
            bytes: f64::INFINITY,
            records: f64::INFINITY,
            filled: now,
            is_empty: false,
        };
        rate.fill(now);
        rate
    }

    /// The share of the limits that is used.
    pub fn share(&self) -> f64 {
        let steady = self.taking.min(STEADY).as_secs_f64();
        let beyond = self.taking.saturating_sub(STEADY).as_secs_f64() / DOUBLING.as_secs_f64();
        let doubling = DOUBLING.as_secs_f64() / std::f64::consts::LN_2 * (beyond.exp2() - 1.0);
        (self.base + self.ceiling * INCREASE * (steady + doubling)).min(1.0)
    }

    /// Other limits than before; the share stays.
    pub fn set_limits(&mut self, limits: ShardLimits) {
        self.limits = limits;
    }

    /// Whether an entry may be sent now.
    pub fn is_ready(&mut self, now: Instant) -> bool {
        self.fill(now);
        if self.is_empty {
            let (bytes, records) = self.arriving(REFILL);
            self.is_empty = self.bytes < bytes || self.records < records;
        }
        !self.is_empty
    }

    /// When an entry may be sent, if none is until then.
    pub fn ready_at(&self, now: Instant) -> Instant {
        if !self.is_empty {
            return now;
        }
        let ((bytes, records), (bytes_per_second, records_per_second)) =
            (self.arriving(REFILL), self.arriving(Duration::from_secs(1)));
        let seconds =
            ((bytes - self.bytes) / bytes_per_second).max((records - self.records) / records_per_second);
        // The nanosecond that rounding may have taken.
        self.filled.max(now) + Duration::from_secs_f64(seconds.max(0.0)) + Duration::from_nanos(1)
    }

    /// An entry of so many bytes is sent. The last of a burst may be larger than what is left; the next one waits.
    pub fn send(&mut self, bytes: usize) {
        self.bytes -= to_f64(bytes);
        self.records -= 1.0;
        self.is_empty = self.bytes <= 0.0 || self.records <= 0.0;
    }

    /// The shard took everything of a request.
    pub fn on_taken(&mut self, now: Instant) {
        self.fill(now);
        let since = [self.taken, self.decreased].into_iter().flatten().max();
        let vouched = since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        self.taking = self.taking.saturating_add(vouched.min(VOUCH_MAX));
        self.taken = Some(now);
    }

    /// The shard throttled entries of a request that was sent at `sent`; of the request's entries it took the part
    /// `taken`. Cuts the rate, unless the request was under way when it was cut last: it says nothing of the rate
    /// since.
    pub fn on_throttled(&mut self, sent: Instant, taken: f64, now: Instant) {
        if self.decreased.is_some_and(|decreased| sent <= decreased) {
            return;
        }
        self.fill(now);
        self.ceiling = self.share();
        let part = DECREASE_ALL + (DECREASE_SOME - DECREASE_ALL) * taken.clamp(0.0, 1.0);
        self.base = (self.ceiling * part).max(SHARE_MIN);
        self.taking = Duration::ZERO;
        self.decreased = Some(now);
        let (bytes, records) = self.arriving(PAUSE_MAX.mul_f64(fastrand::f64()));
        self.bytes = self.bytes.min(-bytes);
        self.records = self.records.min(-records);
        self.is_empty = true;
    }

    /// How long it takes to send this at the present rate.
    pub fn time_to_send(&self, bytes: usize, records: usize) -> Duration {
        let (bytes_per_second, records_per_second) = self.arriving(Duration::from_secs(1));
        let seconds = (to_f64(bytes) / bytes_per_second).max(to_f64(records) / records_per_second);
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }

    fn fill(&mut self, now: Instant) {
        let (bytes, records) = self.arriving(now.saturating_duration_since(self.filled));
        let (bytes_max, records_max) = self.arriving(BURST);
        self.bytes = (self.bytes + bytes).min(bytes_max);
        self.records = (self.records + records).min(records_max.max(1.0));
        self.filled = self.filled.max(now);
    }

    /// Bytes and records that come into the buckets in this time.
    fn arriving(&self, time: Duration) -> (f64, f64) {
        let part = self.share() * time.as_secs_f64();
        (self.limits.bytes_per_second * part, self.limits.records_per_second * part)
    }
}

/// Exact up to 2^53, far beyond any queue.
#[expect(clippy::cast_precision_loss, reason = "sizes of queues and frames are below 2^53")]
fn to_f64(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests;
