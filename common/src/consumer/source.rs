//! What the consumer needs of a stream: its shards, and their records page by page.

use std::future::Future;
use std::time::Duration;

use crate::aws::CallError;
use crate::limits::CHILDREN_SETTLE;
use crate::retry::Class;

use super::checkpoint::Checkpoint;
use super::sequence_number::SequenceNumber;

/// One shard, as the stream's service lists it. Whether it is closed is not told: a parent may be listed as
/// open while its child exists, so only reading to its end tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    /// The service's name for it.
    pub id: String,
    /// The shards whose keys it took over: none, one, or (after a merge) two.
    pub parents: Vec<String>,
}

/// What a stream's service lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// The shards, closed ones included.
    pub shards: Vec<Shard>,
    /// The stream was disabled: no shard will be added.
    pub disabled: bool,
}

/// One record of a page.
#[derive(Debug)]
pub struct SourceRecord<R> {
    /// Its position; `None` if the service gave none that can be used, which moves no checkpoint.
    pub sequence: Option<SequenceNumber>,
    /// When it came into the stream, in milliseconds since the epoch; 0 if the service did not tell.
    pub created_ms: u64,
    /// What it weighs in memory, for the byte budget.
    pub bytes: usize,
    /// The record itself.
    pub body: R,
}

/// The answer to one read.
#[derive(Debug)]
pub struct Page<R> {
    /// The records, oldest first.
    pub records: Vec<SourceRecord<R>>,
    /// Where to read on; `None` when the shard is closed and read to its end.
    pub next: Option<String>,
    /// The shard's children, if the service tells them at its end.
    pub children: Vec<Shard>,
    /// How far the page's end is behind the shard's tip, if the service tells.
    pub behind: Option<Duration>,
}

/// How a shard of this stream may be read.
#[derive(Clone, Copy, Debug)]
pub struct ReadPace {
    /// The least time from one read to the next.
    pub interval_min: Duration,
    /// The most that one page can weigh in memory.
    pub page_bytes_max: usize,
}

/// How the low watermark of this stream's shards is known: a time such that everything created before it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatermarkRule {
    /// By the creation times of the records, which do not decrease along a shard (DynamoDB Streams, rounded down to
    /// the second). When all that was read is done and there was no more, everything is done that was created
    /// `tip_margin` before that was asked: the time covers the rounding, the stream's own delay and the clocks.
    Created {
        /// See above.
        tip_margin: Duration,
    },
    /// By what records say ([`Ack::watermark`](super::ack::Ack::watermark)): when they came into this stream says
    /// nothing of when their changes were made (Kinesis).
    Carried,
}

/// A stream that can be consumed: DynamoDB Streams in the aggregator, Kinesis in the cache-writer.
///
/// Calls are not retried inside, but for the pages of a long listing: the consumer owns the retries.
pub trait StreamSource: Send + Sync + 'static {
    /// What a record is.
    type Record: Send + 'static;

    /// The stream's name in leases, logs and dead letters: it changes when the stream is made anew.
    fn stream(&self) -> &str;

    /// How its shards may be read.
    fn pace(&self) -> ReadPace;

    /// How long records are kept, if the service does not tell when a position is older than that.
    fn silent_retention(&self) -> Option<Duration>;

    /// How long records are kept at the least; `None` if that is not known.
    fn retention(&self) -> Option<Duration> {
        None
    }

    /// How the watermark of its shards is known.
    fn watermark_rule(&self) -> WatermarkRule;

    /// After so long a shard that was read to its end shows all its children if it shows one. Until then its lease is
    /// kept, and holds the watermark.
    fn children_settle(&self) -> Duration {
        CHILDREN_SETTLE
    }

    /// Whether nothing that was ever in the stream has been trimmed: its oldest records are its first ones. `true` if
    /// that does not matter, as nothing is rewound ([`Rewind`](super::rewind::Rewind)).
    fn is_whole(&self) -> bool {
        true
    }

    /// Every shard that is listed.
    fn shards(&self) -> impl Future<Output = Result<Listing, CallError>> + Send;

    /// The children of a shard that was read to its end; none while they do not show yet.
    fn children(&self, parent: &str) -> impl Future<Output = Result<Listing, CallError>> + Send;

    /// A place to read from: after the checkpoint, or the shard's start.
    fn iterator(
        &self,
        shard: &str,
        from: &Checkpoint,
    ) -> impl Future<Output = Result<String, SourceError>> + Send;

    /// Reads one page.
    fn read(
        &self,
        shard: &str,
        iterator: &str,
    ) -> impl Future<Output = Result<Page<Self::Record>, SourceError>> + Send;
}

/// Why a shard could not be read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SourceError {
    /// The iterator is too old: make a new one from the last position.
    #[error("iterator expired: {0}")]
    IteratorExpired(CallError),
    /// The position is older than what the stream keeps: data is lost.
    #[error("position is no longer in the stream: {0}")]
    Trimmed(CallError),
    /// Anything else, by its class.
    #[error(transparent)]
    Call(#[from] CallError),
}

impl SourceError {
    /// Names the two endings of an iterator that the services report by their error codes.
    pub fn from_call(error: CallError) -> Self {
        match error.code.as_deref() {
            Some("ExpiredIteratorException") => Self::IteratorExpired(error),
            Some("TrimmedDataAccessException") => Self::Trimmed(error),
            _ => Self::Call(error),
        }
    }

    /// Whether the shard or its stream is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Call(error) if error.class == Class::NotFound)
    }
}
