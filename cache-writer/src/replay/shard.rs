//! One shard of a replay: read page by page, at a modest pace, up to the time at which the replay ends.

use std::num::NonZeroU64;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use warmcast_common::clock::now_ms;
use warmcast_common::consumer::store::StateStore;
use warmcast_common::consumer::{Checkpoint, Page, SequenceNumber, SourceError, StreamSource as _};
use warmcast_common::retry::{Backoff, Class};
use warmcast_common::tool::{Progress, Throttle};

use super::DONE;
use super::mend::{Counts, Mend};
use super::plan::{From, ShardPlan, Span};
use crate::source::KinesisStream;

/// Records of one page at most.
const PAGE_RECORDS_MAX: u64 = 1_000;
/// What a record is taken to weigh before one was seen.
const RECORD_BYTES_GUESS: u64 = 64 << 10;
/// A shard that cannot be read for so long ends the replay.
const PATIENCE: Duration = Duration::from_secs(120);

/// How fast a shard is read.
#[derive(Debug)]
pub(super) struct Pace {
    interval: Duration,
    records: Throttle,
    bytes: Throttle,
    bytes_per_s: NonZeroU64,
}

/// Replays one shard.
pub(super) struct ShardReplay<'a> {
    pub(super) stream: &'a KinesisStream,
    pub(super) store: &'a StateStore,
    pub(super) job: &'a str,
    pub(super) mend: Mend<'a>,
    pub(super) pace: Pace,
    pub(super) span: Span,
    /// A run before was stopped.
    pub(super) goes_on: bool,
    pub(super) progress: Progress,
    pub(super) plan: ShardPlan,
}

/// How a shard ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// Everything that was asked for is applied.
    Done,
    /// It was stopped.
    Stopped,
}

/// Where a shard is.
struct Place {
    /// The last record that was applied.
    after: Option<SequenceNumber>,
    iterator: Option<String>,
    /// Up to which time it is told to be done.
    told_ms: u64,
    /// Records that a run before may have left half done.
    unsure_records: u64,
    mean_bytes: u64,
}

impl Pace {
    pub(super) fn new(reads_per_s: u32, records_per_s: NonZeroU64, bytes_per_s: NonZeroU64) -> Self {
        Self {
            interval: Duration::from_secs(1) / reads_per_s.max(1),
            records: Throttle::per_s(records_per_s),
            bytes: Throttle::per_s(bytes_per_s),
            bytes_per_s,
        }
    }

    /// How many records of this weight a page may have: what a second gives. A page of 10 MB would keep the shard from
    /// everybody for five seconds (AWS: GetRecords).
    fn page_records(&self, mean_bytes: u64) -> i32 {
        let records = (self.bytes_per_s.get() / mean_bytes.max(1)).clamp(1, PAGE_RECORDS_MAX);
        i32::try_from(records).unwrap_or(1)
    }
}

impl ShardReplay<'_> {
    /// Reads from where the run before stopped, or from where it was asked for.
    pub(super) async fn run(
        &self,
        place: Option<&str>,
        stop: &CancellationToken,
    ) -> (Counts, Result<Ended, String>) {
        let mut counts = Counts::default();
        if place == Some(DONE) {
            self.tell(&mut self.plan.from_ms.clone(), self.span.until_ms);
            return (counts, Ok(Ended::Done));
        }
        let after = match place.map(str::parse::<SequenceNumber>).transpose() {
            Ok(after) => after,
            Err(error) => {
                return (counts, Err(format!("job {}, shard {}: {error}", self.job, self.plan.shard)));
            }
        };
        let ended = self.read(after, &mut counts, stop).await;
        (counts, ended.map_err(|error| format!("shard {}: {error:#}", self.plan.shard)))
    }

    async fn read(
        &self,
        after: Option<SequenceNumber>,
        counts: &mut Counts,
        stop: &CancellationToken,
    ) -> Result<Ended, anyhow::Error> {
        let mut place = Place {
            after,
            iterator: None,
            told_ms: self.plan.from_ms,
            unsure_records: if self.goes_on { PAGE_RECORDS_MAX } else { 0 },
            mean_bytes: RECORD_BYTES_GUESS,
        };
        let mut pauses = Backoff::default();
        let mut progress = Instant::now();
        loop {
            let turn = Instant::now() + self.pace.interval;
            let answer = stop.run_until_cancelled(self.page(&mut place)).await;
            let Some(answer) = answer else { return Ok(Ended::Stopped) };
            let (page, asked_ms) = match answer {
                Ok(answer) => answer,
                Err(error) => {
                    let is_lasting = progress.elapsed() > PATIENCE;
                    self.recover(&mut place, error, is_lasting)?;
                    if stop.run_until_cancelled(sleep(pauses.next_pause())).await.is_none() {
                        return Ok(Ended::Stopped);
                    }
                    continue;
                }
            };
            (pauses, progress) = (Backoff::default(), Instant::now());
            let records = page.records.len() as u64;
            let bytes = page.records.iter().map(|record| record.body.len() as u64).sum();
            // What was read is applied, also when it is to stop: it takes a moment.
            if self.apply(&mut place, page, asked_ms, counts).await? {
                self.note_place(DONE).await;
                self.tell(&mut place.told_ms, self.span.until_ms);
                return Ok(Ended::Done);
            }
            if let Some(mean_bytes) = u64::checked_div(bytes, records) {
                place.mean_bytes = mean_bytes;
            }
            let Pace { records: of_records, bytes: of_bytes, .. } = &self.pace;
            let pausing = async {
                tokio::join!(of_records.take(records), of_bytes.take(bytes), sleep_until(turn));
            };
            if stop.run_until_cancelled(pausing).await.is_none() {
                return Ok(Ended::Stopped);
            }
        }
    }

    async fn page(&self, place: &mut Place) -> Result<(Page<Bytes>, u64), SourceError> {
        let shard = &self.plan.shard;
        let iterator = match &place.iterator {
            Some(iterator) => iterator.clone(),
            None => self.iterator(place).await?,
        };
        place.iterator = Some(iterator.clone());
        let asked_ms = now_ms();
        let page = self.stream.read_some(shard, &iterator, self.pace.page_records(place.mean_bytes)).await?;
        Ok((page, asked_ms))
    }

    async fn iterator(&self, place: &Place) -> Result<String, SourceError> {
        let shard = &self.plan.shard;
        match (&place.after, &self.plan.from) {
            (Some(after), _) => self.stream.iterator(shard, &Checkpoint::After(after.clone())).await,
            (None, From::Time(at_ms)) => self.stream.iterator(shard, &Checkpoint::AtTime(*at_ms)).await,
            (None, From::Record(sequence)) => self.stream.iterator_at(shard, sequence).await,
            (None, From::Horizon) => self.stream.iterator(shard, &Checkpoint::TrimHorizon).await,
        }
    }

    /// What to do about a read that failed; an error ends the replay.
    fn recover(&self, place: &mut Place, error: SourceError, is_lasting: bool) -> Result<(), SourceError> {
        match &error {
            SourceError::IteratorExpired(_) => place.iterator = None,
            SourceError::Call(call)
                if matches!(call.class, Class::Throttled | Class::Transient) && !is_lasting => {}
            SourceError::Trimmed(_) | SourceError::Call(_) => return Err(error),
        }
        Ok(())
    }

    /// Applies a page; whether it was the last one that is wanted.
    async fn apply(
        &self,
        place: &mut Place,
        page: Page<Bytes>,
        asked_ms: u64,
        counts: &mut Counts,
    ) -> Result<bool, anyhow::Error> {
        let is_empty = page.records.is_empty();
        let (mut records, mut is_past) = (Vec::new(), false);
        let (read, mut last, mut arrived_ms) = (page.records.len() as u64, None, 0);
        for record in page.records {
            // Later records came later. A time that is not known is 0, and is no reason to stop.
            is_past |= record.created_ms >= self.span.until_ms;
            if is_past {
                continue;
            }
            arrived_ms = arrived_ms.max(record.created_ms);
            last = record.sequence.or(last);
            // A server may know no iterator by time, and begin earlier.
            let is_early = self.span.by_time && (1..self.span.since_ms).contains(&record.created_ms);
            if !is_early {
                records.push(record.body);
            }
        }
        let is_unsure = place.unsure_records > 0;
        place.unsure_records = place.unsure_records.saturating_sub(read);
        counts.add(self.mend.apply(&records, is_unsure).await?);
        if let Some(last) = last {
            self.note_place(last.as_str()).await;
            place.after = Some(last);
        }
        // Nothing more came before the end, if nothing is left that came before it.
        let behind_ms = page.behind.map_or(0, |behind| u64::try_from(behind.as_millis()).unwrap_or(u64::MAX));
        let reached_ms = asked_ms.saturating_sub(behind_ms);
        let is_done = is_past || page.next.is_none() || (is_empty && reached_ms >= self.span.until_ms);
        if !is_done {
            self.tell(&mut place.told_ms, if is_empty { reached_ms } else { arrived_ms });
        }
        place.iterator = page.next;
        Ok(is_done)
    }

    /// Where it cannot be noted, a stopped run reads a little more again: no reason to end this one.
    async fn note_place(&self, place: &str) {
        if let Err(error) = self.store.job_place(self.job, &self.plan.shard, place).await {
            self.progress.note(&format!("the place in {} is not noted: {error}", self.plan.shard));
        }
    }

    /// It is done up to this time.
    fn tell(&self, told_ms: &mut u64, up_to_ms: u64) {
        let up_to_ms = up_to_ms.min(self.span.until_ms);
        if up_to_ms > *told_ms {
            self.progress.add(up_to_ms / 1_000 - *told_ms / 1_000);
            *told_ms = up_to_ms;
        }
    }
}
