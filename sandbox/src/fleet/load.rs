//! Records into some of the live shards, at a steady rate, while shards roll over.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::FleetError;
use crate::streams::{FakeStreams, ScriptError};

const TICKS_PER_SECOND: u64 = 50;
const TICK: Duration = Duration::from_millis(1_000 / TICKS_PER_SECOND);
/// One of the loaded shards ends and gets a child this often.
const ROLLOVER_EVERY: Duration = Duration::from_millis(500);

/// What to write.
#[derive(Clone, Copy, Debug)]
pub(super) struct LoadOptions {
    pub(super) records_per_second: u64,
    /// How many of the live shards get them, one after the other.
    pub(super) shards: usize,
    pub(super) image_bytes: usize,
}

/// What was written.
#[derive(Clone, Debug)]
pub(super) struct Written {
    /// The numbers of the items.
    pub(super) items: Range<u64>,
    /// Every shard that got records, those that ended included.
    pub(super) shards: BTreeSet<Arc<str>>,
    /// The children that shards got, and when.
    pub(super) children: Vec<(Arc<str>, Instant)>,
}

/// A writer that runs. Dropping it stops it.
pub(super) struct Load {
    stop: CancellationToken,
    task: JoinSet<Result<Written, ScriptError>>,
}

impl Load {
    /// Starts to write.
    pub(super) fn start(fake: &FakeStreams, arn: &str, options: LoadOptions) -> Result<Self, FleetError> {
        let mut shards = fake.live_shards(arn)?;
        // Spread over the whole fleet, whatever the order of the shards.
        let step = (shards.len() / options.shards.max(1)).max(1);
        shards = shards.into_iter().step_by(step).take(options.shards).collect();
        let writer = Writer { fake: fake.clone(), arn: arn.to_owned(), options, shards };
        let stop = CancellationToken::new();
        let mut task = JoinSet::new();
        task.spawn(writer.run(stop.clone()));
        Ok(Self { stop, task })
    }

    /// Stops, and tells what was written.
    pub(super) async fn stop(mut self) -> Result<Written, FleetError> {
        self.stop.cancel();
        match self.task.join_next().await {
            Some(written) => Ok(written??),
            // The one task is there until it is joined.
            None => Err(FleetError::Interrupted),
        }
    }
}

struct Writer {
    fake: FakeStreams,
    arn: String,
    options: LoadOptions,
    shards: Vec<Arc<str>>,
}

impl Writer {
    async fn run(mut self, stop: CancellationToken) -> Result<Written, ScriptError> {
        let mut written =
            Written { items: 0..0, shards: self.shards.iter().cloned().collect(), children: Vec::new() };
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut rollovers = interval(ROLLOVER_EVERY);
        rollovers.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let per_tick = self.options.records_per_second / TICKS_PER_SECOND;
        let mut at = 0;
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(written),
                _ = rollovers.tick() => self.roll_over(&mut written)?,
                _ = ticks.tick() => for _ in 0..per_tick.max(1) {
                    self.put(at, &mut written)?;
                    at += 1;
                },
            }
        }
    }

    fn put(&self, at: usize, written: &mut Written) -> Result<(), ScriptError> {
        let Some(shard) = self.shards.get(at % self.shards.len().max(1)) else { return Ok(()) };
        let items = self.fake.put_items(&self.arn, shard, 1, self.options.image_bytes)?;
        if written.items.is_empty() {
            written.items.start = items.start;
        }
        written.items.end = items.end;
        Ok(())
    }

    fn roll_over(&mut self, written: &mut Written) -> Result<(), ScriptError> {
        let at = written.children.len() % self.shards.len().max(1);
        let Some(shard) = self.shards.get_mut(at) else { return Ok(()) };
        *shard = self.fake.rollover(&self.arn, shard)?.into();
        written.shards.insert(Arc::clone(shard));
        written.children.push((Arc::clone(shard), Instant::now()));
        Ok(())
    }
}
