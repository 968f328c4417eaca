//! What a replay did, or would do.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::sync::Arc;

use anyhow::anyhow;
use serde::Serialize;
use warmcast_common::daemon::Outcome;
use warmcast_common::tool::Moment;

use super::mend::Counts;
use super::plan::{ShardPlan, Span};

/// What a replay did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReplayReport {
    /// The stream.
    pub stream: String,
    /// Records that came into it since then: milliseconds since the Unix epoch. None: all there are, or from given records
    /// on.
    pub since_ms: Option<u64>,
    /// And before then.
    pub until_ms: u64,
    /// It went on where a run before was stopped; the counts are of this run.
    pub went_on: bool,
    /// Whether what was lacking was read from the master.
    pub has_master: bool,
    /// Shards that were to be read.
    pub shards: u64,
    /// Shards that are done.
    pub shards_done: u64,
    /// What it came to.
    #[serde(flatten)]
    pub counts: Counts,
    /// Why it ended before it was done: run it again, and it goes on.
    pub ended_by: Option<String>,
}

/// What a replay would read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DryRun {
    /// The stream.
    pub stream: String,
    /// As of [`ReplayReport`].
    pub since_ms: Option<u64>,
    /// As of [`ReplayReport`].
    pub until_ms: u64,
    /// A run before was stopped: it would go on there.
    pub goes_on: bool,
    /// The shards.
    pub shards: Vec<ShardDryRun>,
    /// About the bytes of all of them, by the rates at which they were read lately; none if nobody knows.
    pub bytes_about: Option<u64>,
    /// About how long the slowest takes, in seconds.
    pub takes_s_about: Option<u64>,
}

/// A shard that would be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ShardDryRun {
    /// Its name.
    pub shard: String,
    /// Whether records still come into it.
    pub open: bool,
    /// Seconds of the stream's time that it has to be read through, at most.
    pub seconds_max: u64,
    /// About its bytes, if they are known.
    pub bytes_about: Option<u64>,
}

impl ReplayReport {
    pub(super) fn new(stream: &str, span: Span, went_on: bool, has_master: bool) -> Self {
        Self {
            stream: stream.to_owned(),
            since_ms: span.by_time.then_some(span.since_ms),
            until_ms: span.until_ms,
            went_on,
            has_master,
            shards: 0,
            shards_done: 0,
            counts: Counts::default(),
            ended_by: None,
        }
    }

    /// What one shard came to.
    pub(super) fn add(&mut self, counts: Counts, is_done: bool) {
        self.shards += 1;
        self.shards_done += u64::from(is_done);
        self.counts.add(counts);
    }

    /// What it means for whoever asked.
    ///
    /// # Errors
    /// It is not done.
    pub fn outcome(&self) -> Result<Outcome, anyhow::Error> {
        if let Some(why) = &self.ended_by {
            return Err(anyhow!("{why}; run the same command again, and it goes on"));
        }
        let counts = &self.counts;
        let needs_look = counts.unreadable + counts.refused + counts.refilled.left_missing > 0;
        Ok(if needs_look { Outcome::Problems } else { Outcome::Done })
    }

    /// For people.
    pub fn lines(&self) -> String {
        let Self { stream, shards, shards_done, counts, .. } = self;
        let Counts { records, changes, wanted, had, lacked, left_absent, .. } = counts;
        let mut text = format!("replay of {stream}, {}\n", times(self.since_ms, self.until_ms));
        if self.went_on {
            text += "went on where a run before was stopped; what follows is of this run\n";
        }
        text += &format!("shards       {shards_done} of {shards} done\n");
        text += &format!("read         {records} records, {changes} changes, {wanted} of them wanted\n");
        text += &format!("the cache    had {had} keys as new or newer, lacked {lacked}");
        text += &format!("; {left_absent} stay absent, because their changes are too old to be news\n");
        if self.has_master || *lacked == 0 {
            text += &counts.refilled.line();
        } else {
            text += &format!(
                "no [master] is configured: the {lacked} keys are misses until a reader or a change comes\n"
            );
        }
        if counts.unreadable > 0 {
            text += &format!("{} records or changes cannot be read: see `redrive list`\n", counts.unreadable);
        }
        if counts.refused > 0 {
            text += &format!(
                "{} keys hold what is no entry: is the key prefix shared with others?\n",
                counts.refused
            );
        }
        text
    }
}

impl DryRun {
    pub(super) fn new(
        stream: &str,
        span: Span,
        plans: &[ShardPlan],
        rates: &BTreeMap<Arc<str>, u64>,
        bytes_per_s: NonZeroU64,
        goes_on: bool,
    ) -> Self {
        let shards: Vec<ShardDryRun> = plans
            .iter()
            .map(|plan| {
                let seconds_max = span.until_ms.saturating_sub(plan.from_ms) / 1_000;
                let rate = rates.get(plan.shard.as_str()).filter(|rate| **rate > 0);
                let bytes_about = rate.map(|rate| rate.saturating_mul(seconds_max));
                ShardDryRun { shard: plan.shard.clone(), open: plan.is_open, seconds_max, bytes_about }
            })
            .collect();
        let known = || shards.iter().filter_map(|shard| shard.bytes_about);
        Self {
            stream: stream.to_owned(),
            since_ms: span.by_time.then_some(span.since_ms),
            until_ms: span.until_ms,
            goes_on,
            bytes_about: known().reduce(u64::saturating_add),
            takes_s_about: known().max().map(|bytes| bytes / bytes_per_s.get()),
            shards,
        }
    }

    /// For people.
    pub fn lines(&self) -> String {
        let mut text = format!("would replay {}, {}\n", self.stream, times(self.since_ms, self.until_ms));
        if self.goes_on {
            text += "a run before was stopped: it would go on there, with that run's times\n";
        }
        for ShardDryRun { shard, open, seconds_max, bytes_about } in &self.shards {
            let state = if *open { "open" } else { "closed" };
            let bytes = bytes_about.map_or_else(String::new, |bytes| format!(", about {bytes} bytes"));
            text += &format!("{shard} ({state}): up to {seconds_max} s of its time{bytes}\n");
        }
        text += &format!("{} shards", self.shards.len());
        if let (Some(bytes), Some(takes_s)) = (self.bytes_about, self.takes_s_about) {
            text +=
                &format!(", about {bytes} bytes by their present rates, about {takes_s} s for the slowest");
        }
        text + "; nothing was changed\n"
    }
}

fn times(since_ms: Option<u64>, until_ms: u64) -> String {
    let since = since_ms.map_or_else(String::new, |ms| format!("since {} ", Moment::at_ms(ms)));
    format!("{since}until {}", Moment::at_ms(until_ms))
}
