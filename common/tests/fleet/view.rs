//! The stream as one process sees it: the script, and what goes wrong on the way to it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use warmcast_common::aws::CallError;
use warmcast_common::consumer::source::ReadPace;
use warmcast_common::consumer::{Checkpoint, Listing, Page, Shard, SourceError, StreamSource, WatermarkRule};
use warmcast_common::retry::Class;

use super::journal::Journal;
use super::script::{Script, error};

/// One process's view of a stream.
pub(crate) struct View {
    pub(crate) stream: String,
    pub(crate) script: Script,
    pub(crate) process: String,
    pub(crate) journal: Journal,
    pub(crate) trouble: Trouble,
    /// What one listing lacked: the others have it.
    pub(crate) hidden: Mutex<HashSet<String>>,
}

/// What goes wrong between all processes and their streams. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Trouble(Arc<Mutex<State>>);

struct State {
    odds: Odds,
    random: fastrand::Rng,
    stalled_once: HashSet<String>,
    hidden_once: HashSet<String>,
    disabled: bool,
    forgotten: bool,
    silent_retention: Option<Duration>,
    children_settle: Duration,
}

/// Longer than any shard of the simulation is late, and than it takes to find it then.
const CHILDREN_SETTLE: Duration = Duration::from_secs(4);

/// How likely each is, from 0 to 1.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Odds {
    /// A read is throttled.
    pub(crate) throttled: f64,
    /// A call fails otherwise.
    pub(crate) failed: f64,
    /// An iterator has expired.
    pub(crate) expired: f64,
    /// A listing lacks a shard that it should have.
    pub(crate) hidden: f64,
}

impl Trouble {
    pub(crate) fn new(seed: u64) -> Self {
        let (odds, random) = (Odds::default(), fastrand::Rng::with_seed(seed));
        Self(Arc::new(Mutex::new(State {
            odds,
            random,
            stalled_once: HashSet::new(),
            hidden_once: HashSet::new(),
            disabled: false,
            forgotten: false,
            silent_retention: None,
            children_settle: CHILDREN_SETTLE,
        })))
    }

    pub(crate) fn odds(&self, odds: Odds) {
        self.0.lock().odds = odds;
    }

    /// The next read of the shard never returns.
    pub(crate) fn stall_once(&self, shard: &str) {
        self.0.lock().stalled_once.insert(shard.to_owned());
    }

    /// The next listing lacks the shard.
    pub(crate) fn hide_once(&self, shard: &str) {
        self.0.lock().hidden_once.insert(shard.to_owned());
    }

    /// Whether that listing was made.
    pub(crate) fn has_hidden(&self, shard: &str) -> bool {
        !self.0.lock().hidden_once.contains(shard)
    }

    fn hides(&self, shard: &str) -> bool {
        let once = self.0.lock().hidden_once.remove(shard);
        once || self.happens(|odds| odds.hidden)
    }

    /// The streams were disabled.
    pub(crate) fn disable(&self) {
        self.0.lock().disabled = true;
    }

    /// The service does not know the streams any more.
    pub(crate) fn forget(&self) {
        self.0.lock().forgotten = true;
    }

    /// A child may show so late that its parent is kept for so long.
    pub(crate) fn children_settle_within(&self, settle: Duration) {
        self.0.lock().children_settle = settle;
    }

    /// Records are kept for so long, and who asks for older ones is not told.
    pub(crate) fn retain_silently(&self, retention: Duration) {
        self.0.lock().silent_retention = Some(retention);
    }

    /// Whether that read has come.
    pub(crate) fn has_stalled(&self, shard: &str) -> bool {
        !self.0.lock().stalled_once.contains(shard)
    }

    fn happens(&self, odds: impl FnOnce(&Odds) -> f64) -> bool {
        let state = &mut *self.0.lock();
        state.random.f64() < odds(&state.odds)
    }

    fn call(&self) -> Result<(), CallError> {
        match () {
            () if self.0.lock().forgotten => Err(error(Class::NotFound, "ResourceNotFoundException")),
            () if self.happens(|odds| odds.throttled) => {
                Err(error(Class::Throttled, "LimitExceededException"))
            }
            () if self.happens(|odds| odds.failed) => Err(error(Class::Transient, "InternalServerError")),
            () => Ok(()),
        }
    }
}

impl View {
    /// Leaves shards out, but none that was left out before.
    fn inconsistent(&self, listing: Listing) -> Listing {
        let mut hidden = self.hidden.lock();
        let hides = |shard: &Shard| !hidden.contains(&shard.id) && self.trouble.hides(&shard.id);
        let (lacking, shards): (Vec<Shard>, Vec<Shard>) = listing.shards.into_iter().partition(hides);
        let lacking: Vec<String> = lacking.into_iter().map(|shard| shard.id).collect();
        if !lacking.is_empty() {
            self.journal.note(format!("{} lists all but {lacking:?}", self.process));
        }
        hidden.extend(lacking);
        Listing { shards, ..listing }
    }
}

impl StreamSource for View {
    type Record = u64;

    fn stream(&self) -> &str {
        &self.stream
    }

    fn pace(&self) -> ReadPace {
        self.script.pace()
    }

    fn silent_retention(&self) -> Option<Duration> {
        self.trouble.0.lock().silent_retention
    }

    fn watermark_rule(&self) -> WatermarkRule {
        self.script.watermark_rule()
    }

    fn children_settle(&self) -> Duration {
        self.trouble.0.lock().children_settle
    }

    async fn shards(&self) -> Result<Listing, CallError> {
        self.trouble.call()?;
        let shards = self.script.shards().await?.shards;
        let disabled = self.trouble.0.lock().disabled;
        Ok(self.inconsistent(Listing { shards, disabled }))
    }

    async fn children(&self, parent: &str) -> Result<Listing, CallError> {
        self.trouble.call()?;
        let mut listing = self.script.children(parent).await?;
        listing.disabled = self.trouble.0.lock().disabled;
        listing.shards.retain(|_: &Shard| !self.trouble.happens(|odds| odds.hidden));
        Ok(listing)
    }

    async fn iterator(&self, shard: &str, from: &Checkpoint) -> Result<String, SourceError> {
        self.trouble.call()?;
        self.journal.note(format!("{} asks for an iterator of {shard} from {from}", self.process));
        if from.is_end() {
            self.journal.violation(format!("{} reads {shard}, which is finished", self.process));
            return Err(error(Class::Permanent, "ValidationException").into());
        }
        self.script.with(shard, |scripted| scripted.iterator(shard, from))
    }

    async fn read(&self, shard: &str, iterator: &str) -> Result<Page<u64>, SourceError> {
        if self.trouble.0.lock().stalled_once.remove(shard) {
            std::future::pending::<()>().await;
        }
        self.trouble.call()?;
        if self.trouble.happens(|odds| odds.expired) {
            return Err(SourceError::from_call(error(Class::Transient, "ExpiredIteratorException")));
        }
        self.script.read(shard, iterator).await
    }
}
