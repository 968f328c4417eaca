//! One shard is read again, in the second reader's place, and what is wanted of it is sent.
//!
//! A lane that is parked on the shard needs that place: then the claim is not given, or not renewed, and the replay waits
//! and goes on where it was. Its place moves when every region has what is before it, and is noted in the job's item.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use aws_sdk_dynamodbstreams::types::Record;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use warmcast_common::clock::now_ms;
use warmcast_common::consumer::store::{Claim, StateStore, StoreError};
use warmcast_common::consumer::{Checkpoint, Lanes, Page, SourceError, SourceRecord, StreamSource};
use warmcast_common::retry::{Backoff, Class};
use warmcast_common::tool::{Progress, Throttle};
use warmcast_proto::change::Change;

use super::ReplayError;
use super::streams::{Shard, Stream};
use super::wanted::{Look, Tip};
use crate::dispatch::{Dispatch, Sent};

/// A shard that cannot be read for so long fails the command.
const PATIENCE: Duration = Duration::from_secs(120);
/// Pause between two notes of a place: what was sent since the last is sent again by the next run.
const NOTE_INTERVAL: Duration = Duration::from_secs(2);
/// Pause between two looks whether a parked lane has been caught up.
const PARKED_LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// Replayed changes are sent as if they were asked for so long ago, or when they were made, if that is longer ago. It is
/// twice what the cache-writer takes for late, for the clocks' sake: a replay may end between two changes of an item, so
/// none may create an entry. The cache takes one that it lacks as invalid, and fills it from the master.
const LATE_BY: Duration = Duration::from_secs(120);

/// What all shards of a replay share.
pub(super) struct Work<'a> {
    pub(super) job: &'a str,
    pub(super) store: &'a StateStore,
    pub(super) dispatch: &'a Dispatch,
    pub(super) records: Throttle,
    pub(super) progress: &'a Progress,
    pub(super) counts: Counts,
    pub(super) renewal_interval: Duration,
    pub(super) stop: CancellationToken,
}

/// What is counted, of all shards.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) records: AtomicU64,
    pub(super) wanted: AtomicU64,
    pub(super) changes: AtomicU64,
    pub(super) entries: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) too_large: AtomicU64,
    pub(super) undecodable: AtomicU64,
    pub(super) trimmed: AtomicU64,
    pub(super) gone: AtomicU64,
    pub(super) yielded: AtomicU64,
}

/// How the reading of a shard ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Everything that is wanted was sent.
    Done,
    /// The command is to stop.
    Stopped,
}

/// Where a shard's replay is.
struct Place {
    /// Everything before it was sent.
    at: Checkpoint,
    noted: Checkpoint,
    noted_at: Instant,
    /// What the fleet has read.
    tip: Tip,
}

/// Why a reading was given up.
enum Lost {
    /// A lane was parked, or another command has the place.
    Claim,
    Stopped,
}

/// One shard's replay.
pub(super) struct ShardReplay<'a> {
    pub(super) work: &'a Work<'a>,
    pub(super) stream: &'a Stream,
    pub(super) shard: &'a Shard,
}

impl ShardReplay<'_> {
    /// The part of the job that it is.
    pub(super) fn part(stream: &str, shard: &str) -> String {
        format!("{stream}/{shard}")
    }

    /// Replays from here on, until everything is sent or the command is to stop.
    pub(super) async fn run(self, from: Checkpoint) -> Result<End, ReplayError> {
        let known = self.shard.lease.as_ref().map(|lease| &lease.checkpoint);
        let tip = Tip::new(known);
        let mut place = Place { noted: from.clone(), at: from, noted_at: Instant::now(), tip };
        loop {
            if !self.claim().await? {
                return Ok(End::Stopped);
            }
            let read = tokio::select! {
                read = self.read_on(&mut place) => Ok(read),
                lost = self.hold() => Err(lost),
            };
            // Whatever becomes of it, the next run goes on here.
            self.note(&mut place).await;
            self.release().await;
            match read {
                Ok(read) => return read.map(|()| End::Done),
                Err(Lost::Stopped) => return Ok(End::Stopped),
                Err(Lost::Claim) => {}
            }
        }
    }

    /// Waits for the second reader's place; `false`: the command is to stop.
    async fn claim(&self) -> Result<bool, ReplayError> {
        let (mut is_told, mut failing, mut pauses) = (false, None, Backoff::default());
        loop {
            if self.work.stop.is_cancelled() {
                return Ok(false);
            }
            let answer = match self.claimed().await {
                Ok(answer) => answer,
                Err(error) => {
                    let since = *failing.get_or_insert_with(Instant::now);
                    if since.elapsed() >= PATIENCE
                        || !matches!(&error, StoreError::Call(of) if is_passing(of.class))
                    {
                        return Err(error.into());
                    }
                    tokio::time::sleep(pauses.next_pause()).await;
                    continue;
                }
            };
            let why = match answer {
                Claim::Held { .. } | Claim::NoLease => return Ok(true),
                Claim::Parked => "a region is parked there and is caught up first".to_owned(),
                Claim::Taken(guest) => format!("{} reads it", guest.name),
            };
            if !std::mem::replace(&mut is_told, true) {
                self.work.counts.yielded.fetch_add(1, Relaxed);
                self.work.progress.note(&format!("{} waits: {why}", self.shard.id));
            }
            tokio::select! {
                () = tokio::time::sleep(PARKED_LOOK_INTERVAL) => {}
                () = self.work.stop.cancelled() => {}
            }
        }
    }

    async fn claimed(&self) -> Result<Claim, StoreError> {
        let (stream, shard) = (self.stream.source.stream(), &self.shard.id);
        self.work.store.claim_guest(stream, shard, self.work.job, now_ms()).await
    }

    /// A claim that cannot be released ends by itself.
    async fn release(&self) {
        let (stream, shard) = (self.stream.source.stream(), &self.shard.id);
        if let Err(error) = self.work.store.release_guest(stream, shard, self.work.job).await {
            tracing::warn!(shard, %error, "the claim to a shard could not be released; it ends within a minute");
        }
    }

    /// Keeps the place until it is lost or the command is to stop. A renewal that fails for another reason is tried again:
    /// the claim outlasts several.
    async fn hold(&self) -> Lost {
        loop {
            tokio::select! {
                () = tokio::time::sleep(self.work.renewal_interval) => {}
                () = self.work.stop.cancelled() => return Lost::Stopped,
            }
            match self.claimed().await {
                Ok(Claim::Held { .. } | Claim::NoLease) => {}
                Ok(Claim::Parked | Claim::Taken(_)) => return Lost::Claim,
                Err(error) => {
                    tracing::warn!(shard = self.shard.id, %error, "the claim to a shard could not be renewed; it is tried again");
                }
            }
        }
    }

    /// Reads and sends until there is no more that is wanted.
    async fn read_on(&self, place: &mut Place) -> Result<(), ReplayError> {
        let (mut iterator, mut failing, mut pauses) = (None, None, Backoff::default());
        loop {
            match self.page(&mut iterator, &place.at).await {
                Ok(None) => {}
                Ok(Some(page)) => {
                    failing = None;
                    pauses.reset();
                    let (read, next) = (page.records.len(), page.next.clone());
                    let is_beyond = self.hand_on(page, place).await?;
                    if next.is_none() {
                        place.at = Checkpoint::ShardEnd;
                    }
                    if is_beyond || next.is_none() || place.tip.is_found(read, &place.at) {
                        return Ok(());
                    }
                    iterator = next;
                    // The fleet reads the shard as well.
                    tokio::time::sleep(2 * self.stream.source.pace().interval_min).await;
                }
                Err(SourceError::IteratorExpired(_)) => iterator = None,
                Err(SourceError::Trimmed(_)) => {
                    let had_begun = matches!(place.at, Checkpoint::After(_));
                    self.work.counts.trimmed.fetch_add(u64::from(had_begun), Relaxed);
                    (place.at, iterator) = (Checkpoint::TrimHorizon, None);
                    tokio::time::sleep(pauses.next_pause()).await;
                }
                Err(error) if error.is_not_found() => {
                    self.work.counts.gone.fetch_add(1, Relaxed);
                    place.at = Checkpoint::ShardEnd;
                    return Ok(());
                }
                Err(error) => {
                    let since = *failing.get_or_insert_with(Instant::now);
                    let is_passing = matches!(&error, SourceError::Call(of) if is_passing(of.class));
                    if !is_passing || since.elapsed() >= PATIENCE {
                        return Err(error.into());
                    }
                    tokio::time::sleep(pauses.next_pause()).await;
                }
            }
        }
    }

    /// The next page; nothing if its place had to be found first.
    async fn page(
        &self,
        iterator: &mut Option<String>,
        at: &Checkpoint,
    ) -> Result<Option<Page<Record>>, SourceError> {
        let (source, shard) = (&self.stream.source, &self.shard.id);
        match iterator {
            Some(iterator) => source.read(shard, iterator).await.map(Some),
            None => {
                *iterator = Some(source.iterator(shard, at).await?);
                Ok(None)
            }
        }
    }

    /// Sends what is wanted of a page, and moves on when the regions have it. Whether all that follows is beyond what is
    /// wanted.
    async fn hand_on(&self, page: Page<Record>, place: &mut Place) -> Result<bool, ReplayError> {
        let (mut chosen, mut read, mut last, mut is_beyond) = (Chosen::default(), 0, None, false);
        for record in page.records {
            let look = self.stream.wanted.look(record.created_ms, record.sequence.as_ref());
            if look == Look::Beyond {
                is_beyond = true;
                break;
            }
            read += 1;
            last = record.sequence.clone().or(last);
            if look == Look::Wanted {
                chosen.add(self.stream, &record);
            }
        }
        self.work.records.take(read).await;
        let read_ms = late(chosen.oldest_ms, now_ms());
        let sent = self.work.dispatch.send(chosen.changes, read_ms).await?;
        self.count(read, chosen.wanted, chosen.undecodable, sent);
        if let Some(last) = last {
            place.at = Checkpoint::After(last);
        }
        if place.noted_at.elapsed() >= NOTE_INTERVAL {
            self.note(place).await;
        }
        Ok(is_beyond)
    }

    fn count(&self, read: u64, wanted: u64, undecodable: u64, sent: Sent) {
        let counts = &self.work.counts;
        for (count, more) in [
            (&counts.records, read),
            (&counts.wanted, wanted),
            (&counts.undecodable, undecodable),
            (&counts.changes, sent.changes),
            (&counts.entries, sent.records),
            (&counts.bytes, sent.bytes),
            (&counts.too_large, sent.too_large),
        ] {
            count.fetch_add(more, Relaxed);
        }
        self.work.progress.add(read);
    }

    /// Notes the place, if it has moved. One that cannot be noted costs the next run some repetition.
    async fn note(&self, place: &mut Place) {
        if place.at == place.noted {
            return;
        }
        let part = Self::part(self.stream.source.stream(), &self.shard.id);
        place.noted_at = Instant::now();
        match self.work.store.job_place(self.work.job, &part, &place.at.to_string()).await {
            Ok(()) => place.noted = place.at.clone(),
            Err(error) => {
                let shard = &self.shard.id;
                tracing::warn!(shard, %error, "the place of a replay could not be noted; it is tried again");
            }
        }
    }
}

/// What is sent of a page.
#[derive(Default)]
struct Chosen {
    changes: Vec<(Change, Lanes)>,
    wanted: u64,
    undecodable: u64,
    /// When the first of them was made, as far as that is known.
    oldest_ms: Option<u64>,
}

impl Chosen {
    fn add(&mut self, stream: &Stream, record: &SourceRecord<Record>) {
        let change = match stream.maker.make(&record.body, record.created_ms) {
            Ok(change) => change,
            Err(undecodable) => {
                // It is one of the daemon's dead letters. What can be said of it, that its item is not known, is said again.
                let invalidation = undecodable.invalidation.map(|change| *change);
                if invalidation.as_ref().is_some_and(|change| !stream.wanted.has_key(&change.key)) {
                    return;
                }
                self.undecodable += 1;
                self.changes.extend(invalidation.map(|change| (change, stream.lanes)));
                return;
            }
        };
        if !stream.wanted.has_key(&change.key) {
            return;
        }
        self.wanted += 1;
        if record.created_ms > 0 {
            self.oldest_ms = Some(self.oldest_ms.map_or(record.created_ms, |of| of.min(record.created_ms)));
        }
        self.changes.extend(stream.feeds.route(&record.body, change, stream.lanes));
    }
}

/// When replayed changes are said to have been asked for: see [`LATE_BY`].
fn late(oldest_ms: Option<u64>, now_ms: u64) -> u64 {
    let late_ms = now_ms.saturating_sub(u64::try_from(LATE_BY.as_millis()).unwrap_or(u64::MAX));
    oldest_ms.map_or(late_ms, |oldest_ms| oldest_ms.min(late_ms))
}

/// Whether a call may succeed when it is tried again.
const fn is_passing(class: Class) -> bool {
    matches!(class, Class::Throttled | Class::Transient | Class::Denied)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replayed_changes_are_late_by_more_than_what_counts_as_late_and_by_their_age() {
        let now_ms = 1_795_341_600_000;
        assert_eq!(late(None, now_ms), now_ms - 120_000);
        assert_eq!(late(Some(now_ms - 1_000), now_ms), now_ms - 120_000);
        assert_eq!(late(Some(now_ms - 7_200_000), now_ms), now_ms - 7_200_000);
    }
}
