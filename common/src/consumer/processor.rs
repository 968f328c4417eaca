//! What a daemon makes of the records that the consumer reads.

use std::future::Future;

use tokio::time::Instant;

use crate::clock::now_ms;

use super::ack::Ack;
use super::source::SourceRecord;

/// A record on its way, with the duty to report it done.
#[derive(Debug)]
pub struct Delivery<R> {
    /// The record.
    pub record: SourceRecord<R>,
    /// Consumed when the record is where it should be.
    pub ack: Ack,
    /// When its page was asked for.
    pub asked: Asked,
    /// What shortly preceded it is in doubt: its shard was rewound, or begun in the middle, and the record arrived
    /// soon after the first that was read then ([`Rewind::settle`](super::rewind::Rewind::settle)). It may repeat
    /// something older than what is not read. Always `false` without a rewind.
    pub settling: bool,
}

/// When something was asked for, just before it was. How old a record is that waited on its way, and whether the
/// process stood still meanwhile, is judged by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// On the clock that does not jump.
    pub at: Instant,
    /// On the wall's clock: milliseconds since the Unix epoch.
    pub ms: u64,
}

impl Asked {
    /// Now.
    pub fn now() -> Self {
        Self { at: Instant::now(), ms: now_ms() }
    }
}

/// What a daemon does with records.
pub trait Processor: Send + Sync + 'static {
    /// What a record is.
    type Record: Send + 'static;

    /// Takes records over, in their shard's order, and returns when it has room for more. It never fails: a
    /// record that cannot be used is set aside and done; one whose ack is dropped is read again.
    fn process(
        &self,
        stream: &str,
        shard: &str,
        deliveries: Vec<Delivery<Self::Record>>,
    ) -> impl Future<Output = ()> + Send;
}

impl<P: Processor> Processor for std::sync::Arc<P> {
    type Record = P::Record;

    async fn process(&self, stream: &str, shard: &str, deliveries: Vec<Delivery<Self::Record>>) {
        P::process(self, stream, shard, deliveries).await;
    }
}
