//! The looks at the state table.
//!
//! One look reads each partition once, eventually consistent where that is possible: half a read unit for each 4 KB.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::letters::{LetterCount, count};
use super::observer::Observer;
use crate::consumer::store::{
    Gap, Heartbeat, Job, LaneState, RestartLock, StateStore, StoreError, StreamState,
};
use crate::dead_letter::LetterStore;
use crate::limits::{CHILDREN_SETTLE, WATERMARK_INTERVAL};

/// Gaps of one stream that are read.
const GAPS_MAX: u16 = 1_000;
/// Pause between two looks at heartbeats while a worker has not been seen to beat.
const BEAT_PAUSE: Duration = Duration::from_millis(500);
/// Times that leases are read again for a watermark.
const LEASES_AGAIN_MAX: usize = 2;
/// Dead letters are counted so often while others are looked at: that reads megabytes.
const COUNT_INTERVAL: Duration = Duration::from_secs(60);

/// A stream that may have leases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamName {
    /// Its name in the state table.
    pub stream: String,
    /// What it is called for people: its table, or its own name.
    pub label: String,
    /// Another stream has taken its place.
    pub superseded: bool,
    /// The fleet is to read it: it is configured, or a worker says so. Of others only what is left of them is shown.
    pub is_read: bool,
    /// How long one child of a finished shard may show without the others.
    pub settle: Duration,
}

/// What was read of a stream.
#[derive(Clone, Debug)]
pub struct StreamLook {
    /// Which it is.
    pub name: StreamName,
    /// Its leases.
    pub state: StreamState,
    /// Data of it that was lost.
    pub gaps: Vec<Gap>,
    /// There are more of those.
    pub more_gaps: bool,
}

/// Everything that one look read.
#[derive(Clone, Debug, Default)]
pub struct Look {
    /// The workers.
    pub heartbeats: Vec<Heartbeat>,
    /// The streams that have leases, or should.
    pub streams: Vec<StreamLook>,
    /// The lanes, by name.
    pub lanes: BTreeMap<String, LaneState>,
    /// Jobs of the operators' commands that are not done.
    pub jobs: BTreeMap<String, Job>,
    /// Who may restart a worker.
    pub restart_lock: RestartLock,
    /// Dead letters; `None`: they were not counted.
    pub letters: Option<LetterCount>,
}

/// Looks at a fleet.
#[derive(Debug)]
pub struct Survey {
    store: StateStore,
    letters: Option<LetterStore>,
    observer: Observer,
    lease_duration: Duration,
    counted: Option<(Instant, LetterCount)>,
}

impl StreamName {
    /// A stream that goes by its own name.
    pub fn of(stream: &str) -> Self {
        Self {
            stream: stream.to_owned(),
            label: stream.to_owned(),
            superseded: false,
            is_read: true,
            settle: CHILDREN_SETTLE,
        }
    }
}

impl Survey {
    /// `letters`: where dead letters are counted.
    pub const fn new(store: StateStore, letters: Option<LetterStore>, lease_duration: Duration) -> Self {
        Self { store, letters, observer: Observer::new(lease_duration), lease_duration, counted: None }
    }

    /// The state table.
    pub const fn store(&self) -> &StateStore {
        &self.store
    }

    /// What the looks have seen to move.
    pub const fn observer(&self) -> &Observer {
        &self.observer
    }

    /// Looks at the workers.
    ///
    /// # Errors
    /// When the state table cannot be read.
    pub async fn heartbeats(&mut self) -> Result<Vec<Heartbeat>, StoreError> {
        let heartbeats = self.store.heartbeats().await?;
        self.observer.see_heartbeats(&heartbeats, Instant::now());
        Ok(heartbeats)
    }

    /// Looks at everything.
    ///
    /// # Errors
    /// When something cannot be read.
    pub async fn look(&mut self, streams: Vec<StreamName>) -> Result<Look, StoreError> {
        let mut look = Look { letters: self.letters().await, ..Look::default() };
        (look.lanes, look.jobs) = (self.store.lanes().await?, self.store.jobs().await?);
        look.restart_lock = self.store.restart_lock().await?;
        for name in streams {
            let (gaps, more_gaps) = self.store.gaps(&name.stream, GAPS_MAX).await?;
            look.streams.push(StreamLook { name, state: StreamState::default(), gaps, more_gaps });
        }
        self.leases(&mut look).await?;
        Ok(look)
    }

    /// Looks until it is known who lives and whether free leases stay free: for a lease duration at most.
    ///
    /// # Errors
    /// When something cannot be read.
    pub async fn settle(&mut self, look: &mut Look) -> Result<(), StoreError> {
        let mut leases_at = Instant::now();
        while !(self.observer.knows_workers() && self.observer.knows_free()) {
            sleep(BEAT_PAUSE.min(self.lease_duration / 2)).await;
            look.heartbeats = self.heartbeats().await?;
            if !self.observer.knows_free() && leases_at.elapsed() >= self.lease_duration / 2 {
                self.leases(look).await?;
                leases_at = Instant::now();
            }
        }
        Ok(())
    }

    /// Looks at the leases again, and then at what the workers say of theirs.
    ///
    /// # Errors
    /// When something cannot be read.
    pub async fn leases(&mut self, look: &mut Look) -> Result<(), StoreError> {
        for stream in &mut look.streams {
            stream.state = self.store.stream_state(&stream.name.stream, false).await?;
        }
        // What was superseded long ago is forgotten.
        let is_current = |of: &StreamLook| of.name.is_read && !of.name.superseded;
        look.streams.retain(|of| is_current(of) || !of.state.leases.is_empty());
        self.observer.see_leases(&look.streams, Instant::now());
        look.heartbeats = self.heartbeats().await?;
        Ok(())
    }

    /// Looks at the leases and the workers' words again, until a watermark is known or newer leases would tell no more.
    /// They change hands while they are read. `judge` says whether they would.
    ///
    /// # Errors
    /// When something cannot be read.
    pub async fn until_told(
        &mut self,
        look: &mut Look,
        judge: impl Fn(&Look, &Observer) -> bool,
    ) -> Result<(), StoreError> {
        for _ in 0..LEASES_AGAIN_MAX {
            if judge(look, &self.observer) {
                break;
            }
            sleep(WATERMARK_INTERVAL).await;
            self.leases(look).await?;
        }
        Ok(())
    }

    async fn letters(&mut self) -> Option<LetterCount> {
        let letters = self.letters.as_ref()?;
        if let Some((at, counted)) = &self.counted
            && at.elapsed() < COUNT_INTERVAL
        {
            return Some(counted.clone());
        }
        let counted = count(letters).await;
        self.counted = Some((Instant::now(), counted.clone()));
        Some(counted)
    }
}
