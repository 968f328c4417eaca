//! Reads one shard page by page and hands the records on.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::clock::now_ms;
use crate::fence::Fence;
use crate::log_trouble;
use crate::retry::{Backoff, Class};
use crate::telemetry::Trouble;

use super::ack::ShardAcks;
use super::budget::{ByteBudget, BytePermit};
use super::catch_up::LaneContext;
use super::checkpoint::Checkpoint;
use super::lag::{ShardLag, behind};
use super::orders::Orders;
use super::outcome::ShardFailure;
use super::processor::{Asked, Delivery, Processor};
use super::progress::{Progress, Stage};
use super::settling::Settling;
use super::source::{Page, Shard, SourceError, SourceRecord, StreamSource, WatermarkRule};
use super::store::Lease;
use super::tip::Tip;
use super::worker::Worker;

/// Everything that reading one shard needs.
pub(super) struct Reader<'a, S, P> {
    pub(super) source: &'a S,
    pub(super) processor: &'a P,
    pub(super) worker: &'a Worker,
    pub(super) budget: &'a ByteBudget,
    pub(super) lag: ShardLag,
    pub(super) lease: &'a Lease,
    pub(super) orders: &'a Orders,
    pub(super) progress: &'a Arc<Progress>,
    pub(super) acks: &'a ShardAcks,
    pub(super) lanes: &'a LaneContext,
    /// When all that had come was last known to be done ([`Lease::seen_ms`]).
    pub(super) seen_ms: &'a Mutex<u64>,
    /// Whether the process stood still, if somebody looks after that, and since when it must not have.
    pub(super) fence: Option<&'a Fence>,
    pub(super) begun: Instant,
    /// Which records are settling, if shards are rewound.
    pub(super) settling: Option<&'a Mutex<Settling>>,
}

/// Why the reader stopped.
pub(super) enum ReadEnd {
    /// The shard is closed and read to its end. Its children, if the service told them.
    ShardEnd(Vec<Shard>),
    /// The shard is to drain.
    Drain,
}

impl<S, P> Reader<'_, S, P>
where
    S: StreamSource,
    P: Processor<Record = S::Record>,
{
    /// Reads until the shard ends or is to drain.
    pub(super) async fn read(&self) -> Result<ReadEnd, ShardFailure> {
        let mut place = Place { checkpoint: self.lease.checkpoint.clone(), iterator: None };
        let mut errors = Backoff::default();
        let mut trouble = Trouble::default();
        let mut idle = Idle::new(self.source, self.worker);
        let mut tip = Tip::default();
        self.look_for_silent_gap().await;
        loop {
            // Boxed: a shard is idle most of the time, and then only its pause takes memory.
            let Some(answer) = self.orders.unless_draining(Box::pin(self.next_page(&mut place))).await else {
                return Ok(ReadEnd::Drain);
            };
            let pause = match answer {
                Ok(Answer { page, permit, asked }) => {
                    if let Some(fence) = self.fence
                        && !fence.is_awake_since(self.begun).await
                    {
                        return Err(ShardFailure::StoodStill);
                    }
                    errors.reset();
                    trouble.over();
                    self.worker.counters().observe_lags(&page);
                    let next = page.next.clone();
                    let at_tip = tip.is_found(&page);
                    if page.records.is_empty() && behind(&page).is_zero() && self.acks.status().pending == 0 {
                        *self.seen_ms.lock() = now_ms();
                    }
                    let pause = idle.after(page.records.len());
                    self.lag.read(behind(&page), pause);
                    let children = Box::pin(self.hand_on(&mut place, page, permit, asked)).await;
                    let Some(next) = next else { return Ok(ReadEnd::ShardEnd(children)) };
                    if let (true, WatermarkRule::Created { tip_margin }) =
                        (at_tip, self.source.watermark_rule())
                    {
                        let margin_ms = u64::try_from(tip_margin.as_millis()).unwrap_or(u64::MAX);
                        self.acks.mark_all(asked.ms.saturating_sub(margin_ms));
                    }
                    place.iterator = Some(next);
                    pause
                }
                Err(error) => {
                    Box::pin(self.recover(&mut place, error, &mut trouble)).await?;
                    errors.next_pause()
                }
            };
            self.progress.enter(Stage::Pausing(Instant::now() + pause));
            if self.orders.unless_draining(tokio::time::sleep(pause)).await.is_none() {
                return Ok(ReadEnd::Drain);
            }
        }
    }

    /// The room that a page may need, and then the page.
    async fn next_page(&self, place: &mut Place) -> Result<Answer<S::Record>, SourceError> {
        self.progress.enter(Stage::Room);
        let permit = self.budget.reserve(self.source.pace().page_bytes_max).await;
        let shard = &self.lease.shard;
        let iterator = match place.iterator.take() {
            Some(iterator) => iterator,
            None => {
                self.progress.enter(Stage::Seeking);
                let found = self.source.iterator(shard, &place.checkpoint).await;
                found.inspect_err(|error| self.worker.counters().read_failed(error))?
            }
        };
        self.progress.enter(Stage::Reading);
        let asked = Asked::now();
        let answer = self.source.read(shard, &iterator).await;
        self.worker.counters().read(&answer);
        // Kept for the next try; an answer brings the next one.
        place.iterator = Some(iterator);
        answer.map(|page| Answer { page, permit, asked })
    }

    /// Hands a page on. Once begun it is not interrupted: a record without its ack would be lost.
    async fn hand_on(
        &self,
        place: &mut Place,
        page: Page<S::Record>,
        mut permit: BytePermit,
        asked: Asked,
    ) -> Vec<Shard> {
        self.progress.enter(Stage::HandingOn);
        self.progress.read(page.records.iter().map(|record| record.bytes).sum());
        let mut deliveries = Vec::with_capacity(page.records.len());
        for record in page.records {
            if let Some(sequence) = &record.sequence {
                place.checkpoint = Checkpoint::After(sequence.clone());
            }
            let (sequence, permit) = (record.sequence.clone(), permit.take(record.bytes));
            let ack = self.acks.track(sequence, record.created_ms, permit).await;
            if record.created_ms > 0 && matches!(self.source.watermark_rule(), WatermarkRule::Created { .. })
            {
                ack.watermark(record.created_ms);
            }
            if self.is_before_start(&record) {
                ack.done();
            } else {
                let settling = self.settling.is_some_and(|of| of.lock().includes(record.created_ms));
                deliveries.push(Delivery { record, ack, asked, settling });
            }
        }
        drop(permit);
        if !deliveries.is_empty() {
            self.processor.process(self.source.stream(), &self.lease.shard, deliveries).await;
        }
        page.children
    }

    /// Not every source can seek by time: what comes too early is passed over. A record whose time is not known
    /// (0) is not.
    fn is_before_start(&self, record: &SourceRecord<S::Record>) -> bool {
        matches!(self.lease.checkpoint, Checkpoint::AtTime(start_ms)
            if (1..start_ms).contains(&record.created_ms))
    }

    /// What to do about a failed read; an error ends the shard's task.
    async fn recover(
        &self,
        place: &mut Place,
        error: SourceError,
        trouble: &mut Trouble,
    ) -> Result<(), ShardFailure> {
        let (stream, shard) = (self.source.stream(), &*self.lease.shard);
        match &error {
            SourceError::IteratorExpired(_) => {
                tracing::info!(stream, shard, from = %place.checkpoint, "iterator expired; a new one is made");
                place.iterator = None;
            }
            SourceError::Trimmed(_) => {
                if self.record_gap(&place.checkpoint, "records were trimmed before they were read").await {
                    *place = Place { checkpoint: Checkpoint::TrimHorizon, iterator: None };
                }
            }
            SourceError::Call(call) => match call.class {
                Class::Throttled | Class::Transient | Class::Denied => {
                    if let Some(told) = trouble.again(Instant::now()) {
                        let class = call.class.as_str();
                        log_trouble!(told, stream, shard, %error, class, "read failed; it is tried again");
                    }
                }
                Class::NotFound | Class::Permanent => return Err(error.into()),
            },
        }
        Ok(())
    }

    /// A service that begins at its oldest record without a word, when the position is older than that, leaves it
    /// to us to notice.
    async fn look_for_silent_gap(&self) {
        let Some(retention) = self.source.silent_retention() else { return };
        let seen_ms = self.lease.seen_ms;
        let kept_since_ms = now_ms().saturating_sub(u64::try_from(retention.as_millis()).unwrap_or(u64::MAX));
        let may_have_begun = matches!(self.lease.checkpoint, Checkpoint::After(_)) && seen_ms > 0;
        let mut pauses = Backoff::default();
        while may_have_begun
            && seen_ms < kept_since_ms
            && !self.orders.is_draining()
            && !self
                .record_gap(
                    &self.lease.checkpoint,
                    "nobody read the shard for longer than the stream keeps records",
                )
                .await
        {
            tokio::time::sleep(pauses.next_pause()).await;
        }
    }

    /// Records between the checkpoint and the oldest one there is are gone: never in silence. Returns whether it
    /// is on record; nothing is passed over before that.
    async fn record_gap(&self, after: &Checkpoint, why: &str) -> bool {
        let (stream, shard) = (self.source.stream(), &*self.lease.shard);
        tracing::error!(stream, shard, %after, "gap: {why}; the table needs a backfill");
        if let Some(settling) = self.settling {
            settling.lock().begin();
        }
        let recorded = self
            .worker
            .store()
            .record_gap(self.lease, &self.lanes.names(self.acks.attached()), after, now_ms())
            .await;
        if recorded.is_ok() {
            self.worker.counters().gaps.fetch_add(1, Relaxed);
            self.lanes.count_gap(self.acks.attached());
        }
        if let Err(error) = &recorded {
            tracing::error!(stream, shard, %error, "the gap could not be recorded in the state table; it is tried again");
        }
        recorded.is_ok()
    }
}

/// What a read was answered with.
struct Answer<R> {
    page: Page<R>,
    permit: BytePermit,
    asked: Asked,
}

/// Where the reader is.
struct Place {
    /// After the last record that was handed on.
    checkpoint: Checkpoint,
    /// Where to read on; made anew from the checkpoint when there is none.
    iterator: Option<String>,
}

/// An idle shard is read less and less often, a busy one as often as its service allows.
struct Idle {
    min: Duration,
    max: Duration,
    pause: Duration,
}

impl Idle {
    fn new<S: StreamSource>(source: &S, worker: &Worker) -> Self {
        let min = source.pace().interval_min;
        Self { min, max: worker.config().idle_poll_max.max(min), pause: min }
    }

    fn after(&mut self, records: usize) -> Duration {
        self.pause = if records > 0 { self.min } else { self.pause.saturating_mul(2).min(self.max) };
        self.pause
    }
}
