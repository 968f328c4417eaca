//! What a reader of the region sees: how late updates are, and where the watermark is.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::UpgradeError;
use crate::entry;
use crate::regions::{Source, TABLE, held, key_text};

/// A lag is known to within this, and how long an answer takes.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// So many updates of a second are watched.
const WATCHED_PER_SECOND: u64 = 250;
/// More are not watched at once: what is later than the first of these is late anyhow.
const WATCHED_MAX: usize = 10_000;

/// A probe that runs. Dropping it stops it.
#[derive(Debug)]
pub(super) struct Probe {
    stop: CancellationToken,
    task: JoinSet<Result<Seen, redis::RedisError>>,
}

/// What was seen.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// When an update was put, and how long it took until it was in the cache.
    pub(super) lags: Vec<(Instant, Duration)>,
    /// When the watermark was seen to be another one: where it was, and how old.
    pub(super) watermarks: Vec<(Instant, u64, Duration)>,
}

impl Probe {
    pub(super) fn start(connection: MultiplexedConnection, source: Source, rate: u64) -> Self {
        let stop = CancellationToken::new();
        let every = usize::try_from(rate / WATCHED_PER_SECOND).unwrap_or(1).max(1);
        let mut task = JoinSet::new();
        task.spawn(watch(connection, source, every, stop.clone()));
        Self { stop, task }
    }

    /// Stops when everything that was watched is there, and tells what was seen.
    pub(super) async fn stop(mut self) -> Result<Seen, UpgradeError> {
        self.stop.cancel();
        match self.task.join_next().await {
            Some(seen) => Ok(seen??),
            None => Ok(Seen::default()),
        }
    }
}

/// A Redis that does not answer for so long is gone.
const ANSWER_PATIENCE: Duration = Duration::from_secs(30);
/// What is not there when this time is over after the end counts as that late.
const END_PATIENCE: Duration = Duration::from_secs(60);

async fn watch(
    mut connection: MultiplexedConnection,
    source: Source,
    every: usize,
    stop: CancellationToken,
) -> Result<Seen, redis::RedisError> {
    let mut seen = Seen::default();
    let mut next = source.ledger().len();
    let mut waiting: Vec<usize> = Vec::new();
    let mut ticks = interval(LOOK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut ended: Option<Instant> = None;
    let mut answered = Instant::now();
    loop {
        ticks.tick().await;
        if stop.is_cancelled() {
            ended.get_or_insert_with(Instant::now);
        }
        let end = source.ledger().len();
        while ended.is_none() && next < end && waiting.len() < WATCHED_MAX {
            waiting.push(next);
            next += every;
        }
        let looked = look(&mut connection, &source, &waiting).await;
        let now = Instant::now();
        let (there, watermark_ms) = match looked {
            Ok(looked) => {
                answered = now;
                looked
            }
            // A machine that is busy otherwise is late with an answer now and then: that is a late look, and no more.
            Err(_) if answered.elapsed() < ANSWER_PATIENCE => continue,
            Err(error) => return Err(error),
        };
        let is_over = ended.is_some_and(|at| at.elapsed() > END_PATIENCE);
        let mut left = Vec::with_capacity(waiting.len());
        for (number, there) in waiting.into_iter().zip(there) {
            match source.ledger().put_at(number) {
                Some(put_at) if there || is_over => {
                    seen.lags.push((put_at, now.saturating_duration_since(put_at)));
                }
                _ => left.push(number),
            }
        }
        waiting = left;
        seen.see_watermark(watermark_ms, now);
        if ended.is_some() && (waiting.is_empty() || is_over) {
            return Ok(seen);
        }
    }
}

async fn look(
    connection: &mut MultiplexedConnection,
    source: &Source,
    waiting: &[usize],
) -> redis::RedisResult<(Vec<bool>, Option<u64>)> {
    Ok((is_there(connection, source, waiting).await?, entry::watermark_ms(connection).await?))
}

impl Seen {
    fn see_watermark(&mut self, watermark_ms: Option<u64>, now: Instant) {
        let Some(ms) = watermark_ms else { return };
        if self.watermarks.last().is_none_or(|(_, last, _)| *last != ms) {
            let age = Duration::from_millis(entry::now_ms().saturating_sub(ms));
            self.watermarks.push((now, ms, age));
        }
    }
}

/// Of each of these updates whether the region has it, or a newer one of its key.
pub(super) async fn is_there(
    connection: &mut MultiplexedConnection,
    source: &Source,
    numbers: &[usize],
) -> redis::RedisResult<Vec<bool>> {
    let (updates, first_sequence) = {
        let ledger = source.ledger();
        let updates: Vec<_> = numbers.iter().map(|number| ledger.update(*number)).collect();
        (updates, ledger.first_sequence())
    };
    let key =
        |update: &Option<(u32, _)>| entry::redis_key(TABLE, &key_text(update.map_or(0, |(key, _)| key)));
    let keys: Vec<Vec<u8>> = updates.iter().map(key).collect();
    let entries = entry::get_many(connection, &keys).await?;
    let has = |(update, entry): (Option<_>, entry::Entry)| {
        let order = held(Some(entry), first_sequence).order;
        update.is_some_and(|(_, wanted)| order.is_some_and(|order| order >= wanted))
    };
    Ok(updates.into_iter().zip(entries).map(has).collect())
}
