//! The fleet's watermark at the worker that tells it: the first that lives, by name.
//!
//! What the others say of their leases is in their heartbeats, which are read anyway. The leases are as the last look
//! saw them, and are read again, at most once a second, when somebody's word is of others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

use crate::clock::now_ms;
use crate::limits::{CHILDREN_SETTLE, WATERMARK_INTERVAL};
use crate::telemetry::LogLimiter;

use super::super::coverage::{Coverage, LeaseSet};
use super::super::newcomers::late_on;
use super::super::processor::Processor;
use super::super::source::StreamSource;
use super::super::store::{StoreError, StreamState};
use super::super::watermark::{Hold, StreamLeases, Watermark, fleet_watermark, lanes_behind};
use super::Consumer;
use super::looks::{View, look_at};

/// A watermark that is not known for so long is worth a line.
const UNKNOWN_LOG_AFTER: Duration = Duration::from_secs(10);

/// A read of one stream's leases may take as long as a finished shard is kept, or this.
const READ_MAX: Duration = Duration::from_secs(1);

/// What was read for the watermark.
pub(super) enum FleetRead {
    /// The leases.
    Leases(Result<Result<View, StoreError>, JoinError>),
    /// Which lanes wait for a backfill.
    Lanes(Result<Result<Watermark, StoreError>, JoinError>),
}

/// What is known for it.
pub(super) struct FleetWatermark {
    told: watch::Sender<Option<Watermark>>,
    streams_min: usize,
    /// The leases as they were read last, while this worker tells the watermark.
    leases: Option<BTreeMap<Arc<str>, StreamState>>,
    /// Streams that nothing is left of, though others may not have noticed.
    over: BTreeSet<Arc<str>>,
    reads: JoinSet<Result<View, StoreError>>,
    /// Of a watermark that is told when it is known which lanes wait for a backfill.
    checks: JoinSet<Result<Watermark, StoreError>>,
    read_at: Option<Instant>,
    /// What leases the workers said they had when they were read last.
    read_for: BTreeMap<String, Option<LeaseSet>>,
    /// Before they are read again while the workers say the same.
    pause: Duration,
    unknown_since: Option<Instant>,
    complaints: LogLimiter,
}

impl FleetWatermark {
    pub(super) fn new() -> Self {
        Self {
            told: watch::Sender::new(None),
            streams_min: 1,
            leases: None,
            over: BTreeSet::new(),
            reads: JoinSet::new(),
            checks: JoinSet::new(),
            read_at: None,
            read_for: BTreeMap::new(),
            pause: WATERMARK_INTERVAL,
            unknown_since: None,
            complaints: LogLimiter::default(),
        }
    }

    pub(super) fn expect(&mut self, streams_min: usize) {
        self.streams_min = streams_min.max(1);
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Option<Watermark>> {
        self.told.subscribe()
    }

    /// Something was read; `None` while nothing is.
    pub(super) async fn join_next(&mut self) -> Option<FleetRead> {
        tokio::select! {
            Some(read) = self.reads.join_next() => Some(FleetRead::Leases(read)),
            Some(checked) = self.checks.join_next() => Some(FleetRead::Lanes(checked)),
            else => None,
        }
    }

    /// It is not this worker's to tell.
    pub(super) fn rest(&mut self) {
        self.tell(None);
        self.leases = None;
        self.reads.abort_all();
        self.checks.abort_all();
        self.unknown_since = None;
    }

    /// A stream was listed: its state may say more than before.
    pub(super) fn audited(&mut self, stream: &Arc<str>, over: bool) {
        self.pause = WATERMARK_INTERVAL;
        if over {
            self.over.insert(Arc::clone(stream));
        }
    }

    fn tell(&self, watermark: Option<Watermark>) {
        self.told.send_if_modified(|told| {
            let is_new = *told != watermark;
            *told = watermark;
            is_new
        });
    }

    /// The lanes that a watermark holds for are known.
    fn checked(&mut self, checked: Result<Result<Watermark, StoreError>, JoinError>) {
        match checked {
            Ok(Ok(watermark)) => self.tell(Some(watermark)),
            Ok(Err(error)) => {
                tracing::warn!(%error, "it cannot be told which lanes wait for a backfill; the watermark stands still");
                self.tell(None);
            }
            Err(stopped) if stopped.is_cancelled() => {}
            Err(panicked) => tracing::error!(error = %panicked, "the lanes could not be read"),
        }
    }

    /// Whether the leases are to be read again now: soon if the workers say they have others, and ever less often
    /// while they say the same.
    fn is_read_due(&mut self, coverages: &BTreeMap<String, Option<Coverage>>, pause_max: Duration) -> bool {
        let now = Instant::now();
        let sets: BTreeMap<String, Option<LeaseSet>> =
            coverages.iter().map(|(worker, of)| (worker.clone(), of.as_ref().map(|of| of.leases))).collect();
        let is_new = sets != self.read_for;
        let pause = if is_new { WATERMARK_INTERVAL } else { self.pause };
        let is_early = self.read_at.is_some_and(|at| now.duration_since(at) < pause);
        if is_early || !self.reads.is_empty() {
            return false;
        }
        self.pause = (2 * pause).min(pause_max.max(WATERMARK_INTERVAL));
        (self.read_at, self.read_for) = (Some(now), sets);
        true
    }

    fn complain(&mut self, hold: &Hold) {
        let now = Instant::now();
        let since = *self.unknown_since.get_or_insert(now);
        if now.duration_since(since) >= UNKNOWN_LOG_AFTER
            && let Some(repeats) = self.complaints.due(now)
        {
            let unknown_ms = now.duration_since(since).as_millis();
            tracing::warn!(reason = %hold, unknown_ms, repeats, "the fleet's watermark stands still");
        }
    }
}

impl<S, P> Consumer<S, P>
where
    S: StreamSource,
    P: Processor<Record = S::Record>,
{
    /// Tells the watermark, if that is this worker's to do.
    pub(super) fn reckon_watermark(&mut self) {
        let members = self.worker.members();
        if members.iter().find(|member| !member.leaving).is_none_or(|first| first.id != self.worker.id()) {
            self.lanes.backfills_are(|_| 0);
            return self.fleet.rest();
        }
        self.fleet.leases.get_or_insert_default();
        let coverages = self.worker.coverages();
        let others = members.iter().flat_map(|member| &member.streams).map(|stream| stream.as_str().into());
        let mut streams: BTreeSet<Arc<str>> = self.streams.keys().cloned().chain(others).collect();
        streams.retain(|stream| !self.fleet.over.contains(stream) || self.streams.contains_key(stream));
        match self.fleet_watermark(&streams, &coverages) {
            Ok(watermark) => {
                self.tell_of_lanes(watermark);
                self.fleet.unknown_since = None;
            }
            Err(hold) => {
                self.fleet.tell(None);
                self.fleet.complain(&hold);
                if hold.is_of_leases()
                    && self.fleet.is_read_due(&coverages, self.worker.config().sync_interval)
                {
                    let store = self.worker.store().clone();
                    self.fleet.reads.spawn(look_at(store, streams.into_iter().collect()));
                }
            }
        }
    }

    fn fleet_watermark(
        &self,
        streams: &BTreeSet<Arc<str>>,
        coverages: &BTreeMap<String, Option<Coverage>>,
    ) -> Result<Watermark, Hold> {
        let (found, expected) =
            (self.streams.values().filter(|of| !of.superseded).count(), self.fleet.streams_min);
        if found < expected {
            return Err(Hold::Streams { found, expected });
        }
        let mut read = Vec::with_capacity(streams.len());
        for stream in streams {
            let seen = self.fleet.leases.as_ref().and_then(|leases| leases.get(stream));
            let state = seen.ok_or_else(|| Hold::NotListed(stream.to_string()))?;
            let superseded = self.streams.get(stream).is_some_and(|of| of.superseded);
            read.push(StreamLeases { stream, state, superseded, settle: self.settle(stream) });
        }
        let ms = fleet_watermark(&read, coverages, self.rewinds.target().as_deref(), now_ms())?;
        let lanes = self.lanes.lanes.iter().map(|lane| &*lane.name);
        Ok(Watermark { ms, behind: lanes_behind(&read, coverages, lanes) })
    }

    /// Tells the watermark when it is known which lanes wait for a backfill. Whoever finds that one lacks something asks
    /// for it before its word says that the lane is not parked: so what is read after that word has it.
    fn tell_of_lanes(&mut self, mut watermark: Watermark) {
        if self.lanes.lanes.is_empty() {
            return self.fleet.tell(Some(watermark));
        }
        if !self.fleet.checks.is_empty() {
            return;
        }
        let (store, lanes) = (self.worker.store().clone(), Arc::clone(&self.lanes));
        let streams: Vec<Arc<str>> = self.streams.keys().cloned().collect();
        self.fleet.checks.spawn(async move {
            let known = store.lanes().await?;
            lanes.backfills_are(|lane| known.get(lane).map_or(0, |of| of.backfills.len()));
            let waiting = known.iter().filter(|(_, lane)| !lane.backfills.is_empty());
            watermark.behind.extend(waiting.map(|(name, _)| name.clone()));
            watermark.behind.extend(late_on(&streams, &lanes.lanes, &known));
            Ok(watermark)
        });
    }

    /// How long a finished shard's children may take to show.
    fn settle(&self, stream: &str) -> Duration {
        self.streams.get(stream).map_or(CHILDREN_SETTLE, |of| of.source.children_settle())
    }

    /// Something was read for the watermark.
    pub(super) fn fleet_read(&mut self, read: FleetRead) {
        match read {
            FleetRead::Leases(leases) => self.leases_read(leases),
            FleetRead::Lanes(lanes) => {
                self.fleet.checked(lanes);
                if let Some(watermark) = &*self.fleet.told.borrow() {
                    self.lanes.watermark_is(watermark);
                }
            }
        }
    }

    fn leases_read(&mut self, read: Result<Result<View, StoreError>, JoinError>) {
        match read {
            Ok(Ok(view)) => {
                self.see_leases(&view);
                self.reckon_watermark();
            }
            Ok(Err(error)) => tracing::warn!(%error, "leases could not be read; the watermark stands still"),
            Err(stopped) if stopped.is_cancelled() => {}
            Err(panicked) => tracing::error!(error = %panicked, "leases could not be read"),
        }
    }

    /// Takes in what was read of the leases, if it is of one time: of a shard that ends between two pages of a read
    /// both its lease and those of its children may be missing, if that is long enough for its lease to go.
    pub(super) fn see_leases(&mut self, view: &View) {
        for looked in view {
            let is_of_one_time = looked.took < self.settle(&looked.stream).max(READ_MAX);
            if let (true, Some(leases)) = (is_of_one_time, &mut self.fleet.leases) {
                leases.insert(Arc::clone(&looked.stream), looked.state.clone());
            }
        }
    }
}
