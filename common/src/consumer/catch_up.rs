//! Brings parked lanes of a shard up to the others: the second reader of the shard.
//!
//! One at a time on a shard (DynamoDB Streams lets two processes read one: the shard's own reader is the other), for the
//! parked lanes that can take more now. It has its own window and its own byte budget, so that it takes nothing from
//! those that are up to date. A command may have the second reader's place for a while (`store/guest.rs`): it leaves when
//! it learns that a lane is parked, and the pass begins then. When it has handed on all that the shard's reader has read, the lanes join that one; when
//! all it handed on is done they are parked no more.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use crate::clock::now_ms;
use crate::limits::{GUEST_LOOK_INTERVAL, WINDOW_RECORDS_MAX};
use crate::retry::Backoff;
use crate::telemetry::LogLimiter;

use super::ack::{AckStatus, LaneWatch, ShardAcks, earlier};
use super::budget::{ByteBudget, BytePermit};
use super::checkpoint::Checkpoint;
use super::compatibility::{Compatibility, Feature};
use super::lanes::Lanes;
use super::parked::{Lane, ParkReason};
use super::parking::{Parking, to_park, to_park_for_drain};
use super::processor::{Asked, Delivery, Processor};
use super::source::{Page, SourceError, StreamSource};
use super::store::Lease;
use super::tip::Tip;
use super::watermark::Watermark;
use super::worker::Worker;

/// What is nearly as old as the service keeps records is taken to be gone: clocks differ, and it goes while it is read.
const RETENTION_MARGIN: Duration = Duration::from_secs(600);

/// A lane that makes no progress for so long while its shard drains is parked there: the drain has a deadline.
const DRAIN_PATIENCE: Duration = Duration::from_secs(3);

/// What a consumer is told of its lanes.
#[derive(Clone, Debug)]
pub struct LaneConfig {
    /// The lanes.
    pub lanes: Vec<Lane>,
    /// Those that can take more now: they answer, and little waits for them.
    pub ready: watch::Receiver<Lanes>,
    /// When one is parked.
    pub parking: Parking,
    /// What catching up may hold of records that were read and are not done, in bytes.
    pub catch_up_bytes_max: usize,
    /// Shards that are caught up at a time.
    pub catch_ups_max: usize,
    /// Bytes that catching up reads in a second, on all shards together.
    pub catch_up_bytes_per_s: usize,
}

/// What the shards of a process share of their lanes.
#[derive(Debug)]
pub(super) struct LaneContext {
    pub(super) lanes: Vec<Lane>,
    pub(super) parking: Parking,
    ready: watch::Receiver<Lanes>,
    budget: ByteBudget,
    passes: Semaphore,
    bytes_per_s: usize,
    next_read: Mutex<Instant>,
    open: Mutex<Open>,
    may_park: Arc<AtomicBool>,
    complaints: Mutex<LogLimiter>,
    /// What is known of each lane, by its place.
    known: Box<[Known]>,
}

/// The shards that are read.
#[derive(Debug, Default)]
struct Open {
    next_id: u64,
    shards: HashMap<u64, (ShardAcks, LaneWatch)>,
    /// Those that were read to their end before, and are caught up.
    ended: HashMap<u64, ShardAcks>,
}

/// What is known of one lane, for whoever looks at it.
#[derive(Debug, Default)]
struct Known {
    gaps: AtomicU64,
    backfills_asked: AtomicU64,
    /// 0: none was told by this process.
    watermark_ms: AtomicU64,
}

/// How a lane is, for whoever looks at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneFigures {
    /// Its name.
    pub name: Arc<str>,
    /// Shards of this process on which it is parked.
    pub parked_shards: usize,
    /// Since when, on the one where that is longest: milliseconds since the epoch.
    pub parked_since_ms: Option<u64>,
    /// Gaps that this process recorded for it.
    pub gaps: u64,
    /// Streams of whose tables it waits for a backfill, if this process tells the watermark.
    pub backfills_asked: u64,
    /// The last watermark that this process told and that holds for it, in milliseconds since the epoch.
    pub watermark_ms: Option<u64>,
}

/// A shard that was read to its end and is caught up.
pub(super) struct Ended<'a> {
    context: &'a LaneContext,
    id: u64,
}

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.context.open.lock().ended.remove(&self.id);
    }
}

/// A shard whose lanes are looked after.
pub(super) struct Watched<'a> {
    context: &'a LaneContext,
    id: u64,
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        let watched = self.context.open.lock().shards.remove(&self.id);
        if let Some((acks, _)) = watched {
            acks.abandon();
        }
    }
}

impl Default for LaneContext {
    /// No lanes.
    fn default() -> Self {
        let (_, ready) = watch::channel(Lanes::NONE);
        let parking =
            Parking { after: Duration::MAX, lane_bytes_max: usize::MAX, lane_records_max: usize::MAX };
        let lanes = Vec::new();
        let config = LaneConfig {
            lanes,
            ready,
            parking,
            catch_up_bytes_max: 0,
            catch_ups_max: 0,
            catch_up_bytes_per_s: 0,
        };
        Self::new(config)
    }
}

impl LaneContext {
    pub(super) fn new(config: LaneConfig) -> Self {
        Self {
            known: config.lanes.iter().map(|_| Known::default()).collect(),
            lanes: config.lanes,
            parking: config.parking,
            ready: config.ready,
            budget: ByteBudget::new(config.catch_up_bytes_max),
            passes: Semaphore::new(config.catch_ups_max.max(1)),
            bytes_per_s: config.catch_up_bytes_per_s.max(1),
            next_read: Mutex::new(Instant::now()),
            open: Mutex::default(),
            may_park: Arc::new(AtomicBool::new(true)),
            complaints: Mutex::default(),
        }
    }

    /// Nothing is parked while a worker lives that does not know what that is ([`Feature::Parking`]).
    pub(super) fn heed(&self, fleet: &Compatibility) {
        self.may_park.store(fleet.allows(Feature::Parking), Relaxed);
    }

    /// Whether lanes may be parked; it changes with the fleet.
    pub(super) fn may_park(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.may_park)
    }

    /// The lanes of a shard are parked if they hold up the others, until the answer is dropped; then nothing that was
    /// read of it is waited for any more.
    pub(super) fn watch(&self, acks: &ShardAcks) -> Watched<'_> {
        let mut open = self.open.lock();
        let id = open.next_id;
        open.next_id += 1;
        open.shards.insert(id, (acks.clone(), LaneWatch::default()));
        Watched { context: self, id }
    }

    /// A shard that was read to its end is caught up until the answer is dropped.
    pub(super) fn watch_ended(&self, acks: &ShardAcks) -> Ended<'_> {
        let mut open = self.open.lock();
        let id = open.next_id;
        open.next_id += 1;
        open.ended.insert(id, acks.clone());
        Ended { context: self, id }
    }

    /// A gap was recorded for these lanes.
    pub(super) fn count_gap(&self, lanes: Lanes) {
        for known in lanes.iter().filter_map(|lane| self.known.get(lane)) {
            known.gaps.fetch_add(1, Relaxed);
        }
    }

    /// So many backfills are asked for of each lane, by its name.
    pub(super) fn backfills_are(&self, asked: impl Fn(&str) -> usize) {
        for (lane, known) in self.lanes.iter().zip(&self.known) {
            known.backfills_asked.store(asked(&lane.name) as u64, Relaxed);
        }
    }

    /// The watermark was told.
    pub(super) fn watermark_is(&self, watermark: &Watermark) {
        let of = self.lanes.iter().zip(&self.known);
        for (_, known) in of.filter(|(lane, _)| !watermark.behind.contains(&*lane.name)) {
            known.watermark_ms.fetch_max(watermark.ms, Relaxed);
        }
    }

    /// How the lanes are.
    pub(super) fn figures(&self) -> Vec<LaneFigures> {
        let mut parked: Vec<(usize, Option<u64>)> = vec![(0, None); self.lanes.len()];
        let shards: Vec<ShardAcks> = {
            let open = self.open.lock();
            open.shards.values().map(|(acks, _)| acks).chain(open.ended.values()).cloned().collect()
        };
        for (lane, since_ms) in shards.iter().flat_map(ShardAcks::parked_since) {
            if let Some((shards, since)) = parked.get_mut(lane) {
                *shards += 1;
                *since = Some(since.map_or(since_ms, |of: u64| of.min(since_ms)));
            }
        }
        let figures = |((lane, known), (parked_shards, parked_since_ms)): ((&Lane, &Known), _)| LaneFigures {
            name: Arc::clone(&lane.name),
            parked_shards,
            parked_since_ms,
            gaps: known.gaps.load(Relaxed),
            backfills_asked: known.backfills_asked.load(Relaxed),
            watermark_ms: Some(known.watermark_ms.load(Relaxed)).filter(|ms| *ms > 0),
        };
        self.lanes.iter().zip(&self.known).zip(parked).map(figures).collect()
    }

    /// What catching up holds, if there are lanes.
    pub(super) fn budget(&self) -> Option<&ByteBudget> {
        (!self.lanes.is_empty()).then_some(&self.budget)
    }

    /// Takes lanes out of the shards on which they hold up the others, or, when all is to be drained, the drain.
    pub(super) fn park_laggards(&self, now: Instant, is_draining: bool) {
        let mut open = self.open.lock();
        let (shards, standings): (Vec<ShardAcks>, Vec<_>) =
            open.shards.values_mut().map(|(acks, watch)| (acks.clone(), acks.standings(watch, now))).unzip();
        drop(open);
        let parks = match is_draining {
            false => to_park(&standings, &self.parking),
            true => to_park_for_drain(&standings, self.parking.after.min(DRAIN_PATIENCE)),
        };
        if !parks.is_empty() && !self.may_park.load(Relaxed) {
            if let Some(repeats) = self.complaints.lock().due(now) {
                tracing::warn!(
                    lanes = parks.len(),
                    repeats,
                    "regions hold up others and are not parked: a worker of an older version is alive; upgrade it"
                );
            }
            return;
        }
        for (shard, lane, reason) in parks {
            if let Some(acks) = shards.get(shard) {
                acks.park(lane, reason);
            }
        }
    }

    /// The names of these lanes.
    pub(super) fn names(&self, lanes: Lanes) -> BTreeSet<String> {
        lanes.iter().filter_map(|lane| self.lanes.get(lane)).map(|lane| lane.name.to_string()).collect()
    }

    /// Waits until one of `lanes` can take more, and tells which can.
    async fn any_ready(&self, lanes: Lanes) -> Lanes {
        let mut ready = self.ready.clone();
        let known = ready.wait_for(|ready| !ready.and(lanes).is_empty()).await.map(|ready| ready.and(lanes));
        match known {
            Ok(ready) => ready,
            // Whoever tells is gone: the process is about to end.
            Err(_) => std::future::pending().await,
        }
    }

    /// Those that can take more now.
    fn ready_now(&self) -> Lanes {
        *self.ready.borrow()
    }

    /// Waits until all of `lanes` can take more; `false` if that takes as long as parks one.
    async fn all_ready(&self, lanes: Lanes) -> bool {
        let mut ready = self.ready.clone();
        let all = async { ready.wait_for(|ready| lanes.without(*ready).is_empty()).await.is_ok() };
        tokio::time::timeout(self.parking.after, all).await == Ok(true)
    }

    /// Waits until one of `lanes` has taken no more for as long as parks one.
    async fn one_not_ready(&self, lanes: Lanes) {
        let mut ready = self.ready.clone();
        loop {
            let told = ready.wait_for(|ready| !lanes.without(*ready).is_empty()).await.is_ok();
            if !told || !self.all_ready(lanes).await {
                return;
            }
        }
    }

    /// Waits until as much may be read again, when `bytes` were.
    async fn after_bytes(&self, bytes: usize) {
        #[expect(clippy::cast_precision_loss, reason = "a pause need not be exact")]
        let takes = Duration::from_secs_f64(bytes as f64 / self.bytes_per_s as f64);
        let turn = {
            let mut next = self.next_read.lock();
            let turn = (*next).max(Instant::now());
            *next = turn + takes;
            turn
        };
        tokio::time::sleep_until(turn).await;
    }
}

/// Everything that catching up on one shard needs.
pub(super) struct CatchUp<'a, S, P> {
    pub(super) source: &'a S,
    pub(super) processor: &'a P,
    pub(super) worker: &'a Worker,
    pub(super) lanes: &'a LaneContext,
    pub(super) lease: &'a Lease,
    /// The shard's own.
    pub(super) acks: &'a ShardAcks,
    /// Whether lanes are parked on the shard that this process does not know.
    pub(super) has_others: bool,
}

/// Why a pass did not reach the live position. The lanes' places are kept.
#[derive(Debug, thiserror::Error)]
enum PassError {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error("a record was lost on its way, or given up after it had waited for too long")]
    RecordLost,
    #[error("they took no more for {0:?}")]
    NotReady(Duration),
}

impl Drop for Pass {
    /// What is on its way is worthless: the lanes get it again.
    fn drop(&mut self) {
        self.acks.abandon();
    }
}

impl Pass {
    fn check(&self) -> Result<(), PassError> {
        let AckStatus { lost, parked, .. } = self.acks.status();
        if lost || !parked.is_empty() { Err(PassError::RecordLost) } else { Ok(()) }
    }
}

/// Where a pass is.
struct Pass {
    lanes: Lanes,
    acks: ShardAcks,
    place: Checkpoint,
    iterator: Option<String>,
    tip: Tip,
    is_gap: bool,
}

impl<S, P> CatchUp<'_, S, P>
where
    S: StreamSource,
    P: Processor<Record = S::Record>,
{
    /// Catches up whatever is parked, for as long as it is polled. Ends when nothing is parked any more, if the shard
    /// is at its end.
    pub(super) async fn run(&self) {
        let mut pauses = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
        loop {
            let parked = self.acks.changed_until(|acks| self.parked_here(acks)).await;
            let Some(parked) = parked else { return };
            let others = |acks: &ShardAcks| (acks.parked().without(acks.attached()) != parked).then_some(());
            tokio::select! {
                _ = self.lanes.any_ready(parked) => {}
                // One that was parked since may be ready while these are not.
                () = self.acks.changed_until(others) => continue,
            }
            self.second_place().await;
            // The semaphore is never closed.
            let Ok(permit) = self.lanes.passes.acquire().await else { return };
            // A turn may have been long in coming: whoever is ready no more must not hold it up for the others.
            let ready = self.lanes.ready_now().and(self.acks.parked().without(self.acks.attached()));
            if ready.is_empty() {
                continue;
            }
            match Box::pin(self.pass(ready)).await {
                Ok(()) => pauses.reset(),
                Err(error) => {
                    let (stream, shard, regions) =
                        (&*self.lease.stream, &*self.lease.shard, self.lanes.names(ready));
                    tracing::warn!(stream, shard, ?regions, %error, "catching up was broken off; it goes on from where it was");
                }
            }
            drop(permit);
            tokio::time::sleep(pauses.next_pause()).await;
        }
    }

    /// Waits until no command reads the shard in the second reader's place. Without an answer nobody is waited for: lanes
    /// go first, and the state table may be gone for longer than any claim lasts.
    async fn second_place(&self) {
        let (store, mut is_told) = (self.worker.store(), false);
        while let Ok(Some(lease)) = store.lease(&self.lease.stream, &self.lease.shard).await
            && let Some(guest) = lease.guest.filter(|guest| guest.is_live(now_ms()))
        {
            if !std::mem::replace(&mut is_told, true) {
                let (stream, shard, guest) = (&*self.lease.stream, &*self.lease.shard, guest.name);
                tracing::info!(stream, shard, guest, "catching up waits for a command that reads the shard");
            }
            tokio::time::sleep(GUEST_LOOK_INTERVAL).await;
        }
    }

    /// The parked lanes that this process knows, once there are any; nothing in an ended shard that has none at all.
    fn parked_here(&self, acks: &ShardAcks) -> Option<Option<Lanes>> {
        let parked = acks.parked().without(acks.attached());
        match parked.is_empty() {
            false => Some(Some(parked)),
            true => (self.lease.checkpoint.is_end() && !self.has_others).then_some(None),
        }
    }

    /// Reads from the earliest of their places until they are done with all there is.
    async fn pass(&self, lanes: Lanes) -> Result<(), PassError> {
        let places = lanes.iter().filter_map(|lane| self.acks.parked_at(lane));
        let Some(place) = places.reduce(earlier) else { return Ok(()) };
        let (stream, shard, regions) = (&*self.lease.stream, &*self.lease.shard, self.lanes.names(lanes));
        tracing::info!(stream, shard, ?regions, from = %place, "catching up");
        let acks = ShardAcks::with_lanes(WINDOW_RECORDS_MAX, place.clone(), lanes, BTreeMap::new());
        let mut pass = Pass { lanes, acks, place, iterator: None, tip: Tip::default(), is_gap: false };
        self.look_for_silent_gap(&mut pass).await?;
        let reached = tokio::select! {
            reached = self.read_on(&mut pass) => reached,
            // Those that are ready must not wait for one that went away, until its copies are too old.
            () = self.lanes.one_not_ready(lanes) => Err(PassError::NotReady(self.lanes.parking.after)),
        };
        let done = match reached {
            Ok(()) => self.settle(&pass).await,
            Err(error) => Err(error),
        };
        self.advance(&pass);
        if done.is_err() {
            // Some may have joined; they are parked where they were until now.
            pass.lanes.iter().for_each(|lane| self.acks.park(lane, ParkReason::Stalled));
        }
        done
    }

    /// Where a lane has nothing yet the service begins with the oldest record there is, whatever was before that.
    async fn look_for_silent_gap(&self, pass: &mut Pass) -> Result<(), PassError> {
        let Some(retention) = self.source.retention() else { return Ok(()) };
        let parked = self.acks.status().parked;
        let is_trimmed = |lane: &usize| {
            parked
                .get(lane)
                .is_some_and(|of| of.may_be_trimmed(retention.saturating_sub(RETENTION_MARGIN), now_ms()))
        };
        let trimmed: Lanes = pass.lanes.iter().filter(is_trimmed).collect();
        if !trimmed.is_empty() {
            self.record_gap(trimmed, &pass.place).await?;
            (pass.place, pass.is_gap) = (Checkpoint::TrimHorizon, true);
        }
        Ok(())
    }

    /// Whoever repairs is asked to.
    async fn record_gap(&self, lanes: Lanes, after: &Checkpoint) -> Result<(), PassError> {
        let (stream, shard, names) = (self.source.stream(), &*self.lease.shard, self.lanes.names(lanes));
        tracing::error!(
            alarm = "parked-past-retention",
            stream,
            shard,
            regions = ?names,
            %after,
            "gap: records were trimmed before the parked lanes had them; the table needs a backfill there"
        );
        let recorded = self.worker.store().record_gap(self.lease, &names, after, now_ms()).await;
        recorded.map_err(SourceError::Call)?;
        self.worker.counters().gaps.fetch_add(1, Relaxed);
        self.lanes.count_gap(lanes);
        self.acks.missed(lanes);
        Ok(())
    }

    /// Hands on until the lanes have joined.
    async fn read_on(&self, pass: &mut Pass) -> Result<(), PassError> {
        loop {
            pass.check()?;
            if !self.lanes.all_ready(pass.lanes).await {
                return Err(PassError::NotReady(self.lanes.parking.after));
            }
            let next_number = self.acks.next_number();
            let permit = self.lanes.budget.reserve(self.source.pace().page_bytes_max).await;
            let Some((page, asked)) = self.next_page(pass).await? else { continue };
            let bytes = page.records.iter().map(|record| record.bytes).sum();
            let (is_tip, is_end) = (pass.tip.is_found(&page), page.next.is_none());
            pass.iterator.clone_from(&page.next);
            self.hand_on(pass, page, permit, asked).await;
            self.advance(pass);
            if is_end {
                pass.place = Checkpoint::ShardEnd;
            }
            if self.acks.join(pass.lanes, &pass.place)
                || (is_tip && self.acks.join_at_tip(pass.lanes, next_number, pass.is_gap))
            {
                return Ok(());
            }
            tokio::time::sleep(2 * self.source.pace().interval_min).await;
            self.lanes.after_bytes(bytes).await;
        }
    }

    /// The next page; nothing if its place had to be found anew.
    async fn next_page(&self, pass: &mut Pass) -> Result<Option<(Page<S::Record>, Asked)>, PassError> {
        let shard = &self.lease.shard;
        let asked = Asked::now();
        let answer = match &pass.iterator {
            Some(iterator) => {
                let answer = self.source.read(shard, iterator).await;
                self.worker.counters().read(&answer);
                answer
            }
            None => match self.source.iterator(shard, &pass.place).await {
                Ok(iterator) => {
                    pass.iterator = Some(iterator);
                    return Ok(None);
                }
                Err(error) => {
                    self.worker.counters().read_failed(&error);
                    Err(error)
                }
            },
        };
        match answer {
            Ok(page) => Ok(Some((page, asked))),
            Err(SourceError::IteratorExpired(_)) => {
                pass.iterator = None;
                Ok(None)
            }
            Err(error) if matches!(error, SourceError::Trimmed(_)) || error.is_not_found() => {
                self.miss(pass, error).await.map(|()| None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Records are gone that the lanes never got: they go on with what there is.
    async fn miss(&self, pass: &mut Pass, error: SourceError) -> Result<(), PassError> {
        let is_gone = error.is_not_found();
        if is_gone && !self.may_be_gone(pass.lanes) {
            // The shard's own reader, or a look at the configuration, tells more.
            return Err(error.into());
        }
        self.record_gap(pass.lanes, &pass.place).await?;
        (pass.place, pass.iterator, pass.is_gap) = (Checkpoint::TrimHorizon, None, true);
        if is_gone {
            // Nothing of the shard is left.
            self.acks.join(pass.lanes, &Checkpoint::ShardEnd);
            self.acks.caught_up(pass.lanes);
            pass.lanes = Lanes::NONE;
            return Err(error.into());
        }
        Ok(())
    }

    /// Whether a shard that is said not to be there is believed to be gone: it is finished, and so old that what the
    /// lanes lack is not kept any more. Else something else is wrong: an endpoint, a name.
    fn may_be_gone(&self, lanes: Lanes) -> bool {
        let old = self.source.retention().map_or(Duration::ZERO, |of| of.saturating_sub(RETENTION_MARGIN));
        let parked = self.acks.status().parked;
        let is_old =
            |lane: usize| parked.get(&lane).is_none_or(|of| of.is_new() || of.is_as_old_as(old, now_ms()));
        self.lease.checkpoint.is_end() && lanes.iter().all(is_old)
    }

    async fn hand_on(&self, pass: &mut Pass, page: Page<S::Record>, mut permit: BytePermit, asked: Asked) {
        let mut deliveries = Vec::with_capacity(page.records.len());
        for record in page.records {
            if let Some(sequence) = &record.sequence {
                pass.place = Checkpoint::After(sequence.clone());
            }
            let (sequence, permit) = (record.sequence.clone(), permit.take(record.bytes));
            let ack = pass.acks.track(sequence, record.created_ms, permit).await;
            deliveries.push(Delivery { record, ack, asked, settling: false });
        }
        drop(permit);
        if !deliveries.is_empty() {
            self.processor.process(self.source.stream(), &self.lease.shard, deliveries).await;
        }
    }

    /// The lanes' places follow what is done.
    fn advance(&self, pass: &Pass) {
        let AckStatus { checkpoint, parked, .. } = pass.acks.status();
        for lane in pass.lanes.iter() {
            // One that was given up on the way has nothing behind that place.
            let place = match parked.get(&lane) {
                Some(parked) => Some(parked.checkpoint.clone()),
                None => checkpoint.clone().map(Checkpoint::After),
            };
            if let Some(Checkpoint::After(done)) = place {
                self.acks.advance_parked(Lanes::one(lane), &done);
            }
        }
    }

    /// Everything was handed on: when it is done the lanes are as the others.
    async fn settle(&self, pass: &Pass) -> Result<(), PassError> {
        tokio::select! {
            _ = pass.acks.settled() => pass.check()?,
            () = self.lanes.one_not_ready(pass.lanes) => {
                return Err(PassError::NotReady(self.lanes.parking.after));
            }
        }
        let regions = self.lanes.names(self.acks.caught_up(pass.lanes));
        tracing::info!(stream = &*self.lease.stream, shard = &*self.lease.shard, ?regions, "caught up");
        Ok(())
    }
}
