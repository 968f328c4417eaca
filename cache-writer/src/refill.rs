//! Fills that are waited for: what an operator's command leaves invalid is read anew from the master, as fast as that
//! gives it. The daemon sheds fills when there are too many; a command that mends has time.

use std::time::Duration;

use serde::Serialize;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout};
use warmcast_cache::master::FailureClass;
use warmcast_cache::{Cache, FillAnswer, FillError, Filler, ItemId, Master, MasterError};
use warmcast_common::aws::sdk_config;
use warmcast_common::retry::Backoff;

use crate::config::FallbackConfig;

/// Keys that are asked for at once.
const KEYS_MAX: usize = 1_000;
/// When nothing was filled for so long, what is left stays missing. Longer than a key is held by somebody else.
const PATIENCE: Duration = Duration::from_secs(30);
/// The fills under way land within this, or are refused.
const LANDING_MAX: Duration = Duration::from_secs(10);

/// Fills keys, and waits for it. Its calls take turns, so that a fill never joins one that began before the key became
/// invalid.
#[derive(Debug)]
pub struct Refill {
    filler: Filler,
    turn: Mutex<()>,
}

/// What filling came to, in keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Refilled {
    /// Filled from the master: with an item, or with the knowledge that there is none.
    pub filled: u64,
    /// Somebody else had filled it by then, or a change had come.
    pub present: u64,
    /// Not filled: misses, until a reader or a change comes.
    pub left_missing: u64,
    /// Why one of those was not filled.
    pub why: Option<String>,
}

impl Refill {
    /// Fills from this master, whose bounds all that read it share.
    pub fn new(cache: Cache, master: Master, config: &FallbackConfig) -> Self {
        Self { filler: Filler::new(cache, master, config.filler.clone()), turn: Mutex::new(()) }
    }

    /// Fills keys; they are filled, or will not be, when this returns.
    pub async fn fill(&self, keys: Vec<ItemId>) -> Refilled {
        let _turn = self.turn.lock().await;
        let mut refilled = Refilled::default();
        for keys in keys.chunks(KEYS_MAX) {
            self.fill_some(keys.to_vec(), &mut refilled).await;
        }
        // What has not landed by then is refused, or lands as late as it may: a miss until then.
        let _elapsed = timeout(LANDING_MAX, self.filler.idle()).await;
        refilled
    }

    async fn fill_some(&self, mut keys: Vec<ItemId>, refilled: &mut Refilled) {
        let mut pauses = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
        let mut progress = Instant::now();
        while !keys.is_empty() {
            let answers = self.filler.fill_many(&keys).await;
            let asked = keys.len();
            let mut again = Vec::new();
            for (key, answer) in keys.into_iter().zip(answers) {
                match answer {
                    Ok(FillAnswer::Item(_) | FillAnswer::Absent) => refilled.filled += 1,
                    Ok(FillAnswer::Present(_)) => refilled.present += 1,
                    Ok(FillAnswer::Busy) => again.push((key, "another process is filling it".to_owned())),
                    Err(error) if passes(&error) => again.push((key, error.to_string())),
                    Err(error) => refilled.leave(1, &error.to_string()),
                }
            }
            if again.len() < asked {
                progress = Instant::now();
            } else if progress.elapsed() > PATIENCE {
                let why = again.first().map_or("", |(_, why)| why.as_str());
                return refilled.leave(again.len() as u64, why);
            }
            keys = again.into_iter().map(|(key, _)| key).collect();
            if !keys.is_empty() {
                sleep(pauses.next_pause()).await;
            }
        }
    }
}

impl Refilled {
    /// Adds what another call came to.
    pub fn add(&mut self, other: Self) {
        self.filled += other.filled;
        self.present += other.present;
        self.left_missing += other.left_missing;
        self.why = self.why.take().or(other.why);
    }

    /// For people.
    pub fn line(&self) -> String {
        let Self { filled, present, left_missing, why } = self;
        let why = why.as_ref().map_or_else(String::new, |why| format!(" ({why})"));
        format!(
            "filled from the master: {filled} keys, {present} had an entry by then, {left_missing} stay misses{why}\n"
        )
    }

    /// These keys stay missing.
    pub fn leave(&mut self, keys: u64, why: &str) {
        self.left_missing += keys;
        self.why.get_or_insert_with(|| why.to_owned());
    }
}

/// Whether it may be filled if it is asked for again.
fn passes(error: &FillError) -> bool {
    match error {
        FillError::Shed { .. } => true,
        FillError::Cache(error) => error.is_retryable(),
        FillError::Master(MasterError::Shed { .. } | MasterError::Timeout { .. }) => true,
        FillError::Master(MasterError::Call { failure, .. }) => {
            matches!(failure.class, FailureClass::Throttled | FailureClass::Transient)
        }
        FillError::Master(_) | FillError::Shape { .. } | FillError::Stopped => false,
    }
}

/// The master, as it is configured.
pub async fn master(fallback: &FallbackConfig) -> Master {
    let dynamodb = aws_sdk_dynamodb::Client::new(&sdk_config(&fallback.dynamodb).await);
    Master::new(dynamodb, fallback.master.clone())
}
