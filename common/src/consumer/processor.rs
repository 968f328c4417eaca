//! What a daemon makes of the records that the consumer reads.

use std::future::Future;

use super::ack::Ack;
use super::source::SourceRecord;

/// A record on its way, with the duty to report it done.
#[derive(Debug)]
pub struct Delivery<R> {
    /// The record.
    pub record: SourceRecord<R>,
    /// Consumed when the record is where it should be.
    pub ack: Ack,
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
