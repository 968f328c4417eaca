//! What the fake has seen: calls, readers, and the reads of each shard.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::calls::Operation;
use super::error::ScriptError;
use super::fake::FakeStreams;
use super::reads::{ReadLog, ShardReads};
use super::shard::Shard;

/// Observation.
impl FakeStreams {
    /// Waits until `holds`, which is asked now and after each answer. It is for tests: with thousands of calls a
    /// second, ask at intervals instead.
    pub async fn until(&self, mut holds: impl FnMut(&Self) -> bool) {
        loop {
            let answered = self.answered();
            tokio::pin!(answered);
            answered.as_mut().enable();
            if holds(self) {
                return;
            }
            answered.await;
        }
    }

    /// Calls of an operation, refused ones included.
    #[must_use]
    pub fn calls(&self, operation: Operation) -> u64 {
        self.service().counts.of(operation)
    }

    /// Calls of an operation that were signed with this access key id.
    #[must_use]
    pub fn calls_by(&self, reader: &str, operation: Operation) -> u64 {
        let service = self.service();
        service.readers.find(reader).map_or(0, |reader| service.counts.by(operation, reader))
    }

    /// The most DescribeStream calls for this stream in any one second, refused ones included, since the last
    /// [`reset_describe_rate`](Self::reset_describe_rate).
    ///
    /// # Errors
    /// There is no such stream.
    pub fn describes_per_second_max(&self, arn: &str) -> Result<usize, ScriptError> {
        self.with_stream(arn, |watched, _| watched.describes.per_second_max())
    }

    /// Forgets the rate so far.
    ///
    /// # Errors
    /// There is no such stream.
    pub fn reset_describe_rate(&self, arn: &str) -> Result<(), ScriptError> {
        self.with_stream(arn, |watched, _| watched.describes.reset())
    }

    /// Records delivered of all shards, and how many of these were repetitions.
    ///
    /// # Errors
    /// There is no such stream.
    pub fn delivered(&self, arn: &str) -> Result<(u64, u64), ScriptError> {
        self.with_stream(arn, |watched, _| (watched.delivered, watched.delivered_again))
    }

    /// What was read of one shard; `None` if it was never read.
    ///
    /// # Errors
    /// There is no such stream or shard.
    pub fn reads(&self, arn: &str, shard: &str) -> Result<Option<ShardReads>, ScriptError> {
        self.with_service(arn, |service, now_ms| {
            let stream = &service.watched(arn, now_ms)?.stream;
            let log = stream.index(shard).and_then(|index| stream.shard(index)).map(log_of);
            Some(log.map(|log| log.map(|log| log.report(|reader| service.readers.name(reader)))))
        })?
        .ok_or_else(|| ScriptError::NoShard { stream: arn.to_owned(), shard: shard.to_owned() })
    }

    /// What was read of each open shard that was ever read.
    ///
    /// # Errors
    /// There is no such stream.
    pub fn live_reads(&self, arn: &str) -> Result<Vec<ShardReads>, ScriptError> {
        self.with_service(arn, |service, now_ms| {
            let stream = &service.watched(arn, now_ms)?.stream;
            let logs: Vec<_> = stream.open_shards().filter_map(|(_, shard)| log_of(shard)).collect();
            Some(logs.into_iter().map(|log| log.report(|reader| service.readers.name(reader))).collect())
        })
    }

    /// How many open shards were read at `since` or later. Cheap: a pass over the open shards.
    ///
    /// # Errors
    /// There is no such stream.
    pub fn live_shards_read_since(&self, arn: &str, since: Instant) -> Result<usize, ScriptError> {
        self.with_stream(arn, |watched, _| {
            watched
                .stream
                .open_shards()
                .filter_map(|(_, shard)| shard.reads.as_ref()?.last_read_at())
                .filter(|at| *at >= since)
                .count()
        })
    }

    /// The open shards with the access key id of who read them last. Shards never read are left out.
    ///
    /// # Errors
    /// There is no such stream.
    pub fn last_readers(&self, arn: &str) -> Result<BTreeMap<Arc<str>, Arc<str>>, ScriptError> {
        self.with_service(arn, |service, now_ms| {
            let pairs: Vec<_> = service
                .watched(arn, now_ms)?
                .stream
                .open_shards()
                .filter_map(|(_, shard)| Some((Arc::clone(&shard.id), shard.reads.as_ref()?.last_reader()?)))
                .collect();
            Some(pairs.into_iter().map(|(shard, reader)| (shard, service.readers.name(reader))).collect())
        })
    }

    /// For each open shard that was ever read, the longest time between two reads that follow each other, of those
    /// that ended since [`reset_pauses`](Self::reset_pauses) or have not ended.
    ///
    /// # Errors
    /// There is no such stream.
    pub fn pauses(&self, arn: &str) -> Result<Vec<(Arc<str>, Duration)>, ScriptError> {
        let now = Instant::now();
        self.with_stream(arn, |watched, _| {
            watched
                .stream
                .open_shards()
                .filter_map(|(_, shard)| Some((Arc::clone(&shard.id), shard.reads.as_ref()?.pause_at(now))))
                .collect()
        })
    }

    /// Forgets the pauses that have ended.
    ///
    /// # Errors
    /// There is no such stream.
    pub fn reset_pauses(&self, arn: &str) -> Result<(), ScriptError> {
        self.with_stream(arn, |watched, _| {
            for reads in watched.stream.all_shards_mut().filter_map(|shard| shard.reads.as_mut()) {
                reads.reset_pause();
            }
        })
    }
}

/// A shard's log, to be told when the shard is no longer borrowed.
struct ShardLog {
    shard: Arc<str>,
    open: bool,
    log: ReadLog,
}

impl ShardLog {
    fn report(&self, name: impl Fn(u16) -> Arc<str>) -> ShardReads {
        self.log.report(Arc::clone(&self.shard), self.open, name)
    }
}

fn log_of(shard: &Shard) -> Option<ShardLog> {
    let log = shard.reads.as_deref()?.clone();
    Some(ShardLog { shard: Arc::clone(&shard.id), open: shard.is_open(), log })
}
