//! The master table's changes: the fake of DynamoDB Streams, and who puts updates into it at a steady rate.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{MappedMutexGuard, Mutex, MutexGuard};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::RegionsError;
use super::ledger::{Content, KEY, Ledger, key_text};
use crate::streams::{EventName, FakeStreams, Record, ScriptError};

/// Short against any lag that is measured here.
const TICK: Duration = Duration::from_millis(20);
/// Updates put at once: a load that has fallen behind catches up in pieces.
const BATCH_MAX: u64 = 5_000;

/// A table's stream. Clones are the same.
#[derive(Clone, Debug)]
pub struct Source {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    fake: FakeStreams,
    arn: String,
    /// The open shards. A key is always in the one with its place, or in that one's child.
    shards: Vec<String>,
    dice: StdRng,
    ledger: Ledger,
}

impl Source {
    pub(crate) fn new(
        fake: FakeStreams,
        arn: String,
        shards: usize,
        ledger: Ledger,
        seed: u64,
    ) -> Result<Self, ScriptError> {
        let shards = (0..shards.max(1)).map(|_| fake.add_shard(&arn, None)).collect::<Result<_, _>>()?;
        let dice = StdRng::seed_from_u64(seed);
        Ok(Self { inner: Arc::new(Mutex::new(Inner { fake, arn, shards, dice, ledger })) })
    }

    /// Puts so many updates of random keys now.
    ///
    /// # Errors
    /// The fake's script was changed by others.
    pub fn put(&self, count: u64) -> Result<(), ScriptError> {
        let mut inner = self.inner.lock();
        let Inner { fake, arn, shards, dice, ledger } = &mut *inner;
        ledger.begin(Instant::now());
        let mut batches: Vec<(Vec<u32>, Vec<Record>)> = shards.iter().map(|_| Default::default()).collect();
        // The numbers are those that the ledger will give them, shard by shard.
        let mut keys: Vec<Vec<u32>> = shards.iter().map(|_| Vec::new()).collect();
        for _ in 0..count {
            let key = dice.random_range(0..ledger.keys().max(1));
            let place = usize::try_from(key).unwrap_or_default() % shards.len().max(1);
            if let Some(keys) = keys.get_mut(place) {
                keys.push(key);
            }
        }
        let mut number = ledger.len();
        for (keys, (batch, records)) in keys.into_iter().zip(&mut batches) {
            for key in keys {
                batch.push(key);
                records.push(record(key, &ledger.content(number, key)));
                number += 1;
            }
        }
        for (shard, (keys, records)) in shards.iter().zip(batches) {
            for (key, sequence) in keys.into_iter().zip(fake.put(arn, shard, &records)?) {
                // The fake's own digits.
                ledger.push(key, sequence.parse().unwrap_or_default());
            }
        }
        Ok(())
    }

    /// Every open shard ends and has a child.
    ///
    /// # Errors
    /// The fake's script was changed by others.
    pub fn roll_over(&self) -> Result<(), ScriptError> {
        let mut inner = self.inner.lock();
        let Inner { fake, arn, shards, .. } = &mut *inner;
        for shard in shards {
            *shard = fake.rollover(arn, shard)?;
        }
        Ok(())
    }

    /// What was put so far.
    pub fn ledger(&self) -> MappedMutexGuard<'_, Ledger> {
        MutexGuard::map(self.inner.lock(), |inner| &mut inner.ledger)
    }

    /// The fake, to watch or to script it.
    #[must_use]
    pub fn fake(&self) -> FakeStreams {
        self.inner.lock().fake.clone()
    }

    /// The stream's ARN.
    #[must_use]
    pub fn arn(&self) -> String {
        self.inner.lock().arn.clone()
    }

    /// Puts `rate` updates a second from now on, whatever becomes of them.
    #[must_use]
    pub fn start_load(&self, rate: u64) -> Load {
        let stop = CancellationToken::new();
        let mut task = JoinSet::new();
        task.spawn(load(self.clone(), rate, stop.clone()));
        Load { stop, task }
    }
}

/// A load that runs. Dropping it stops it.
#[derive(Debug)]
pub struct Load {
    stop: CancellationToken,
    task: JoinSet<Result<(), ScriptError>>,
}

impl Load {
    /// Stops it.
    ///
    /// # Errors
    /// What stopped it before.
    pub async fn stop(mut self) -> Result<(), RegionsError> {
        self.stop.cancel();
        while let Some(ended) = self.task.join_next().await {
            ended??;
        }
        Ok(())
    }
}

async fn load(source: Source, rate: u64, stop: CancellationToken) -> Result<(), ScriptError> {
    let (since, mut put) = (Instant::now(), 0);
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let due = since.elapsed().as_millis().saturating_mul(rate.into()) / 1_000;
        let count = u64::try_from(due).unwrap_or(u64::MAX).saturating_sub(put).min(BATCH_MAX);
        source.put(count)?;
        put += count;
    }
    Ok(())
}

fn record(key: u32, content: &Content) -> Record {
    let keys = format!(r#"{{"{KEY}":{{"S":"{}"}}}}"#, key_text(key));
    match content.image() {
        Some(image) => Record::new(EventName::Modify, keys).new_image(image),
        None => Record::new(EventName::Remove, keys),
    }
}
