//! The handle of a fake: shared by the server that answers and the test that scripts and watches.

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::Instant;

use super::calls::Operation;
use super::clock::Clock;
use super::error::{ApiError, ScriptError};
use super::fault::Effect;
use super::record::Sequence;
use super::request::Request;
use super::service::{Answer, Caller, Limits, Service, Watched};
use super::shard::ShardIndex;
use super::stream::Stream;
use crate::dynamodb::MASTER_REGION;

/// How the fake is to be. The default has the system's clock and enforces no limits.
#[derive(Clone, Debug)]
pub struct Options {
    /// The region in ARNs and records.
    pub region: String,
    /// The account in ARNs.
    pub account: String,
    /// Retention, iterators' lives, and limits go by it.
    pub clock: Clock,
    /// DescribeStream calls a second for each stream (AWS: 10); more are answered with `LimitExceededException`.
    pub describes_per_second: Option<u32>,
    /// Readers of a shard within one second (AWS: 2); more are answered with `LimitExceededException`.
    pub readers_per_shard: Option<usize>,
    /// The first sequence number of each stream; at least 21 digits, as the API demands.
    pub first_sequence: Sequence,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            region: MASTER_REGION.to_owned(),
            account: "123456789012".to_owned(),
            clock: Clock::system(),
            describes_per_second: None,
            readers_per_shard: None,
            // Like the service's own: 21 digits.
            first_sequence: 111_700_000_000_000_000_000,
        }
    }
}

/// A fake DynamoDB Streams. Clones are the same fake.
#[derive(Clone, Debug)]
pub struct FakeStreams {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    options: Options,
    service: Mutex<Service>,
    /// After each answer.
    answered: Notify,
}

impl FakeStreams {
    pub(super) fn new(options: Options) -> Self {
        let limits = Limits {
            describes_per_second: options.describes_per_second,
            readers_per_shard: options.readers_per_shard,
        };
        let service = Mutex::new(Service::new(limits));
        Self { shared: Arc::new(Shared { options, service, answered: Notify::new() }) }
    }

    /// The clock it goes by.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.shared.options.clock
    }

    pub(super) fn admit(
        &self,
        operation: Operation,
        reader: &str,
        request: Option<&Request>,
    ) -> (u16, Option<Effect>) {
        let admitted = self.shared.service.lock().admit(operation, reader, request);
        self.shared.answered.notify_waiters();
        admitted
    }

    pub(super) fn answer(&self, request: &Request, reader: u16, deliver: bool) -> Result<Answer, ApiError> {
        let caller = Caller { reader, now_ms: self.now_ms(), at: Instant::now() };
        let answer = self.shared.service.lock().answer(request, caller, deliver);
        self.shared.answered.notify_waiters();
        answer
    }

    pub(super) fn options(&self) -> &Options {
        &self.shared.options
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.shared.options.clock.now_ms()
    }

    pub(super) fn service(&self) -> MutexGuard<'_, Service> {
        self.shared.service.lock()
    }

    /// Ends with the next answer that is given after this call.
    pub(super) fn answered(&self) -> Notified<'_> {
        self.shared.answered.notified()
    }

    pub(super) fn with_service<T>(
        &self,
        arn: &str,
        act: impl FnOnce(&mut Service, u64) -> Option<T>,
    ) -> Result<T, ScriptError> {
        let now_ms = self.now_ms();
        act(&mut self.shared.service.lock(), now_ms).ok_or_else(|| ScriptError::NoStream(arn.to_owned()))
    }

    pub(super) fn with_stream<T>(
        &self,
        arn: &str,
        act: impl FnOnce(&mut Watched, u64) -> T,
    ) -> Result<T, ScriptError> {
        self.with_service(arn, |service, now_ms| {
            service.watched(arn, now_ms).map(|watched| act(watched, now_ms))
        })
    }

    pub(super) fn with_shard<T>(
        &self,
        arn: &str,
        shard: &str,
        act: impl FnOnce(&mut Stream, ShardIndex, u64) -> Result<T, ScriptError>,
    ) -> Result<T, ScriptError> {
        self.with_stream(arn, |watched, now_ms| match watched.stream.index(shard) {
            Some(index) => act(&mut watched.stream, index, now_ms),
            None => Err(ScriptError::NoShard { stream: arn.to_owned(), shard: shard.to_owned() }),
        })?
    }
}
