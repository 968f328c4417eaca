//! Which target shard a bucket's frames land in, and whether a stream keeps to that. Pure.
//!
//! The answers to PutRecords name the shard of every entry that was taken (and the message of a throttled one does),
//! so nothing is listed, and a stream that is resharded is followed with the first answer. A bucket between two
//! others of the same shard is in that shard as well: shards have ranges of hash keys. What is not known, or not true
//! any more, costs some pacing and nothing else.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

/// The name of a target shard. Cheap to clone.
pub type ShardId = Arc<str>;

/// A shard that took nothing for so long is forgotten.
const FORGET_AFTER: Duration = Duration::from_secs(600);
/// Entries that no reshard explains before the stream is said to distribute records by itself.
const STRAYS_MIN: u32 = 3;

/// The shards of one target stream, as its answers tell.
#[derive(Debug, Default)]
pub struct Routes {
    learned: BTreeMap<u32, Learned>,
    /// By shard: when it took something last.
    seen: BTreeMap<ShardId, Instant>,
    /// Shards that a bucket has left, and when the answer came that told. A shard loses keys only by being closed.
    left: BTreeMap<ShardId, Instant>,
    /// Entries taken by a shard that had been left.
    strays: u32,
    is_self_distributing: bool,
}

/// Where a bucket's entries were taken last.
#[derive(Debug)]
struct Learned {
    shard: ShardId,
    /// When the newest request was sent that ended there.
    sent: Instant,
    /// When the first answer came that told.
    known: Instant,
}

impl Routes {
    /// Where a bucket's frames land, if that is known.
    pub fn shard(&self, bucket: u32) -> Option<&ShardId> {
        if self.is_self_distributing {
            return None;
        }
        let (at, Learned { shard, .. }) = self.learned.range(..=bucket).next_back()?;
        if *at == bucket {
            return Some(shard);
        }
        let (_, above) = self.learned.range(bucket..).next()?;
        (*shard == above.shard).then_some(shard)
    }

    /// Whose rate an entry counts for that was taken or throttled: the shard that the service named, or the one that its
    /// bucket is in. `None`: no shard of its own.
    pub fn paced(&self, named: Option<&str>, bucket: u32) -> Option<ShardId> {
        match named {
            _ if self.is_self_distributing => None,
            Some(named) => Some(self.intern(named)),
            None => self.shard(bucket).cloned(),
        }
    }

    /// An entry of this bucket, in a request sent at `sent`, was taken by this shard. Whether that is news.
    pub fn learn(&mut self, bucket: u32, shard: &str, sent: Instant, now: Instant) -> bool {
        let shard = self.intern(shard);
        self.seen.insert(shard.clone(), now);
        if self.is_self_distributing {
            return false;
        }
        // Left before the request was sent, and yet it took the entry: no split and no merge does that.
        if self.left.get(&shard).is_some_and(|left| *left < sent) {
            self.strays += 1;
            if self.strays >= STRAYS_MIN {
                self.set_self_distributing(true);
                return true;
            }
        }
        let is_news = self.shard(bucket) != Some(&shard);
        let mut known = now;
        match self.learned.get(&bucket) {
            // Answers overtake each other.
            Some(old) if old.sent > sent => return false,
            Some(old) if old.shard == shard => known = old.known,
            // Requests that are under way together overtake each other too: of two such, none tells which shard came
            // first.
            Some(old) if old.known < sent => self.close(&old.shard.clone(), now),
            _ => {}
        }
        self.learned.insert(bucket, Learned { shard, sent, known });
        is_news
    }

    /// Shards that took something lately, and at least one.
    pub fn shards(&self) -> usize {
        self.seen.keys().filter(|shard| !self.left.contains_key(*shard)).count().max(1)
    }

    /// Whether the stream was seen to distribute records by itself (AWS: `RecordDistributionStrategy` AUTO, which
    /// ignores hash keys).
    pub fn is_self_distributing(&self) -> bool {
        self.is_self_distributing
    }

    /// The service says whether the stream does. If that is news, what was learned before is void.
    pub fn set_self_distributing(&mut self, is_self_distributing: bool) {
        self.strays = 0;
        self.left.clear();
        if self.is_self_distributing != is_self_distributing {
            self.is_self_distributing = is_self_distributing;
            self.learned.clear();
        }
    }

    /// Forgets what has not been seen for long.
    pub fn forget(&mut self, now: Instant) {
        let is_old = |at: &Instant| now.saturating_duration_since(*at) >= FORGET_AFTER;
        self.seen.retain(|_, at| !is_old(at));
        self.left.retain(|_, at| !is_old(at));
        self.learned.retain(|_, learned| self.seen.contains_key(&learned.shard));
    }

    /// Whether this shard took something lately.
    pub fn knows(&self, shard: &ShardId) -> bool {
        self.seen.contains_key(shard)
    }

    /// The shard lost a bucket, so it was closed: all its buckets are elsewhere now.
    fn close(&mut self, shard: &ShardId, now: Instant) {
        self.left.entry(shard.clone()).or_insert(now);
        self.learned.retain(|_, learned| learned.shard != *shard);
    }

    fn intern(&self, shard: &str) -> ShardId {
        self.seen.get_key_value(shard).map_or_else(|| shard.into(), |(known, _)| known.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BUCKETS: u32 = 64;

    fn at(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    /// The shard of a bucket in a stream whose shards begin at these buckets, beside the first, which begins at 0.
    fn shard_of(cuts: &[u32], bucket: u32, generation: usize) -> String {
        let number = cuts.iter().filter(|cut| **cut <= bucket).count();
        format!("shardId-{generation:03}{number:09}")
    }

    #[test]
    fn a_bucket_between_two_of_one_shard_needs_no_answer_of_its_own() {
        let (mut routes, start) = (Routes::default(), Instant::now());
        assert!(routes.learn(10, "a", start, at(start, 1)));
        assert_eq!(routes.shard(15), None);
        assert!(routes.learn(20, "a", start, at(start, 1)));
        assert!(!routes.learn(15, "a", start, at(start, 1)), "that was known");
        assert_eq!(routes.shard(17).map(|shard| &**shard), Some("a"));
        assert!(routes.learn(30, "b", start, at(start, 1)));
        assert_eq!(routes.shard(25), None);
        assert_eq!((routes.shard(9), routes.shard(31)), (None, None));
    }

    #[test]
    fn an_answer_that_was_overtaken_teaches_nothing() {
        let (mut routes, start) = (Routes::default(), Instant::now());
        routes.learn(1, "child", at(start, 10), at(start, 20));
        assert!(!routes.learn(1, "parent", at(start, 5), at(start, 30)));
        assert_eq!(routes.shard(1).map(|shard| &**shard), Some("child"));
        assert!(!routes.is_self_distributing());
    }

    #[test]
    fn a_shard_that_took_nothing_for_long_is_forgotten() {
        let (mut routes, start) = (Routes::default(), Instant::now());
        routes.learn(1, "a", start, start);
        routes.learn(9, "b", start, start + FORGET_AFTER / 2);
        routes.forget(start + FORGET_AFTER);
        assert_eq!((routes.shard(1), routes.shard(9).is_some()), (None, true));
        assert!(!routes.knows(&"a".into()) && routes.knows(&"b".into()));
        assert_eq!(routes.shards(), 1);
    }

    #[test]
    fn a_stream_that_distributes_by_itself_is_found_out_and_the_service_has_the_last_word() {
        let (mut routes, start) = (Routes::default(), Instant::now());
        for step in 0..20 {
            let shard = ["a", "b", "c"][step as usize % 3];
            routes.learn(
                step % 4,
                shard,
                at(start, 10 * u64::from(step)),
                at(start, 10 * u64::from(step) + 5),
            );
        }
        assert!(routes.is_self_distributing());
        assert_eq!(routes.shard(1), None, "a key says nothing there");
        assert_eq!(routes.shards(), 3, "all of them are open");
        routes.set_self_distributing(false);
        assert!(!routes.is_self_distributing());
    }

    proptest! {
        /// Splits and merges at any time, with answers that overtake each other: never taken for a stream that
        /// distributes by itself, and after one answer for each bucket everything is right.
        #[test]
        fn a_resharded_stream_is_followed_and_not_suspected(
            generations in prop::collection::vec(prop::collection::vec(1u32..BUCKETS, 0..6), 1..6),
            sends in prop::collection::vec((0u32..BUCKETS, 1usize..200), 50..300),
        ) {
            let (mut routes, start) = (Routes::default(), Instant::now());
            // Requests are taken after some time, by the shards of then; answers take as long again.
            let every = (sends.len() * 10).div_ceil(generations.len());
            let mut answers: Vec<_> = sends.iter().enumerate().map(|(number, &(bucket, way_ms))| {
                let sent = number * 10;
                let generation = ((sent + way_ms) / every).min(generations.len() - 1);
                (sent + 2 * way_ms, sent, bucket, shard_of(&generations[generation], bucket, generation))
            }).collect();
            answers.sort();
            for (back, sent, bucket, shard) in &answers {
                routes.learn(*bucket, shard, at(start, *sent as u64), at(start, *back as u64));
            }
            prop_assert!(!routes.is_self_distributing());
            let last = generations.len() - 1;
            let end = 10 * sends.len() as u64 + 1_000;
            for round in 0..2 {
                for bucket in 0..BUCKETS {
                    let shard = shard_of(&generations[last], bucket, last);
                    routes.learn(bucket, &shard, at(start, end + round), at(start, end + round));
                }
            }
            for bucket in 0..BUCKETS {
                let expected = shard_of(&generations[last], bucket, last);
                prop_assert_eq!(routes.shard(bucket).map(|shard| shard.to_string()), Some(expected));
            }
        }
    }
}
