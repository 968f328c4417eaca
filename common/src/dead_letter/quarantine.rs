//! From whoever meets a dead letter to its store: a bounded queue, and a task that stores what comes, however long that
//! takes.
//!
//! What a letter acknowledges is acknowledged when it is stored, and not before. While the store cannot be used the
//! letters wait, and their shards read on until their windows or the queue are full; then they wait, too.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::counts::Counts;
use super::letter::{Kept, Letter};
use super::pace::Pace;
use super::store::{LetterError, LetterStore};
use crate::clock::now_ms;
use crate::consumer::budget::{ByteBudget, BytePermit};
use crate::limits::DEAD_LETTER_BYTES_MAX;
use crate::log_trouble;
use crate::retry::Backoff;
use crate::telemetry::{LogLimiter, Trouble};

/// Letters that may wait for the store.
const QUEUE_LETTERS_MAX: usize = 1_024;
/// Bytes of letters that may wait or be under way.
const QUEUE_BYTES_MAX: usize = 32 << 20;
/// Letters that are stored side by side.
const STORES_IN_FLIGHT_MAX: usize = 8;

/// Pauses between tries while the store is expected to come back, and while it needs somebody to mend it.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
const RETRY_PERMANENT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Takes letters in. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Quarantine {
    source: Arc<str>,
    letters: mpsc::Sender<Waiting>,
    budget: ByteBudget,
    counts: Arc<Counts>,
}

/// Stores what a [`Quarantine`] took in.
pub struct Keeper {
    store: LetterStore,
    letters: mpsc::Receiver<Waiting>,
    counts: Arc<Counts>,
}

/// A letter on its way.
struct Waiting {
    letter: Letter,
    at_ms: u64,
    stored: Box<dyn FnOnce() + Send>,
    _bytes: BytePermit,
}

impl Quarantine {
    /// A quarantine of `source` (see [`Origin::source`](super::Origin::source)), and what must run for it.
    pub fn new(store: LetterStore, source: impl Into<Arc<str>>, counts: Arc<Counts>) -> (Self, Keeper) {
        let (to_keeper, letters) = mpsc::channel(QUEUE_LETTERS_MAX);
        let quarantine = Self {
            source: source.into(),
            letters: to_keeper,
            budget: ByteBudget::new(QUEUE_BYTES_MAX),
            counts: Arc::clone(&counts),
        };
        (quarantine, Keeper { store, letters, counts })
    }

    /// What its letters have as their source.
    pub fn source(&self) -> Arc<str> {
        Arc::clone(&self.source)
    }

    /// The same quarantine, for what belongs to one region: the source is this one's, then a slash and the region.
    #[must_use]
    pub fn of_region(&self, region: &str) -> Self {
        Self { source: format!("{}/{region}", self.source).into(), ..self.clone() }
    }

    /// Takes a letter, and has `stored` called when it is stored. `stored` is dropped uncalled if it never will be,
    /// because the process ends: so let it own the acks, which then have their records read again.
    ///
    /// Returns at once while there is room in the queue, and waits for room otherwise.
    pub async fn set_aside(&self, letter: Letter, stored: impl FnOnce() + Send + 'static) {
        self.counts.count_set_aside(letter.envelope.class);
        let at_ms = now_ms();
        let bytes = self.budget.reserve(letter.bytes.len()).await;
        let waiting = Waiting { letter, at_ms, stored: Box::new(stored), _bytes: bytes };
        // The keeper outlives every handle; were it gone, `stored` would be dropped.
        let _keeper_gone = self.letters.send(waiting).await;
    }
}

impl std::fmt::Debug for Waiting {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Waiting").field("letter", &self.letter).finish_non_exhaustive()
    }
}

impl Keeper {
    /// Stores letters until every handle of the quarantine is gone and all of them are stored.
    pub async fn run(mut self) {
        let mut next = self.first().await;
        let (mut pace, mut hurries) = (Pace::new(Instant::now()), LogLimiter::default());
        let complaints = Arc::new(Mutex::new(LogLimiter::default()));
        let mut storing = JoinSet::new();
        while let Some(waiting) = next {
            let pause = pace.take(waiting.letter.bytes.len(), Instant::now());
            if !pause.is_zero() {
                if let Some(repeats) = hurries.due(Instant::now()) {
                    tracing::error!(
                        repeats,
                        waiting = self.counts.waiting(),
                        reason = waiting.letter.envelope.reason,
                        "dead letters come too fast: they wait, and their shards with them; is it something that was deployed?"
                    );
                }
                tokio::time::sleep(pause).await;
            }
            storing.spawn(keep(
                self.store.clone(),
                waiting,
                Arc::clone(&self.counts),
                Arc::clone(&complaints),
            ));
            while storing.len() >= STORES_IN_FLIGHT_MAX {
                note_panic(storing.join_next().await);
            }
            next = self.letters.recv().await;
        }
        while !storing.is_empty() {
            note_panic(storing.join_next().await);
        }
    }

    /// Waits for the first letter, and sees meanwhile whether the store can be used, so that an operator hears of it
    /// before a letter needs it.
    async fn first(&mut self) -> Option<Waiting> {
        let Self { store, letters, .. } = self;
        let preparing = async {
            let mut pauses = Backoff::new(RETRY_PERMANENT.0, RETRY_PERMANENT.1);
            let mut trouble = Trouble::default();
            while let Err(error) = store.prepare().await {
                if let Some(told) = trouble.again(Instant::now()) {
                    log_trouble!(told, %error, "dead letters cannot be stored yet; there are none");
                }
                tokio::time::sleep(pauses.next_pause()).await;
            }
            std::future::pending().await
        };
        tokio::select! {
            letter = letters.recv() => letter,
            () = preparing => None,
        }
    }
}

/// Stores one letter, however long that takes.
async fn keep(store: LetterStore, waiting: Waiting, counts: Arc<Counts>, complaints: Arc<Mutex<LogLimiter>>) {
    let Waiting { letter, at_ms, stored, _bytes } = waiting;
    let mut pauses = Backoff::new(RETRY.0, RETRY.1);
    let mut pauses_permanent = Backoff::new(RETRY_PERMANENT.0, RETRY_PERMANENT.1);
    loop {
        match store.set_aside(&letter, at_ms).await {
            Ok(kept) => {
                log_stored(&store, &kept);
                counts.count_stored();
                return stored();
            }
            Err(error) => {
                let due = complaints.lock().due(Instant::now());
                if let Some(repeats) = due {
                    log_waiting(&letter, &error, repeats, counts.waiting());
                }
                let pauses = if error.is_permanent() { &mut pauses_permanent } else { &mut pauses };
                tokio::time::sleep(pauses.next_pause()).await;
            }
        }
    }
}

fn log_stored(store: &LetterStore, kept: &Kept) {
    let envelope = &kept.envelope;
    tracing::error!(
        letter = %kept.id,
        source = &*envelope.origin.source,
        stream = &*envelope.origin.stream,
        shard = envelope.origin.shard.as_deref(),
        position = envelope.origin.position.as_deref(),
        index = envelope.index,
        table = envelope.table.as_deref(),
        class = envelope.class.as_str(),
        reason = envelope.reason,
        form = envelope.form.as_str(),
        bytes = kept.bytes_len,
        cut = kept.bytes_len > DEAD_LETTER_BYTES_MAX as u64,
        attempts = kept.attempts,
        first_attempt_ms = kept.first_attempt_ms,
        store = store.place(),
        "set aside as a dead letter"
    );
}

fn log_waiting(letter: &Letter, error: &LetterError, repeats: u64, waiting: u64) {
    let envelope = &letter.envelope;
    tracing::error!(
        %error,
        stream = &*envelope.origin.stream,
        shard = envelope.origin.shard.as_deref(),
        position = envelope.origin.position.as_deref(),
        index = envelope.index,
        reason = envelope.reason,
        waiting,
        repeats,
        "dead letters cannot be stored: they wait, and their checkpoints with them"
    );
}

fn note_panic(ended: Option<Result<(), tokio::task::JoinError>>) {
    if let Some(Err(panicked)) = ended {
        // What it was to acknowledge is lost with it: its record is read again.
        tracing::error!(error = %panicked, "a letter's task panicked");
    }
}
