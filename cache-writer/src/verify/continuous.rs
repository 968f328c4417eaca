//! `verify` in the running daemon: keys at random, a few in a second, for as long as it runs.
//!
//! The two sides take turns. It reads only and mends nothing; what is wrong is counted and logged, for a person to look
//! at with the command. What it remembers is bounded.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use warmcast_cache::MasterError;
use warmcast_common::telemetry::LogLimiter;

use super::case::Lasting;
use super::docket::{Docket, Open, Settled, until_due};
use super::look::{Candidate, FirstLook, LOOK_KEYS_MAX, LookError, Looker};
use super::shown::show_cache;
use super::walk::segments_at_random;
use crate::config::VerifyConfig;
use crate::stats::Stats;

/// Keys of one look, if the rate has so many.
const LOOK_KEYS: u64 = 50;
/// Keys that differ and are followed: some megabytes at most.
const DIFFERENCES_MAX: usize = 10_000;
/// Tables that are remembered.
const TABLES_MAX: usize = 1_000;
/// How long it is believed how many items a table has.
const ITEM_COUNT_KEPT: Duration = Duration::from_hours(1);

/// Looks at keys of one region until it is stopped.
#[derive(Debug)]
pub struct Continuous {
    looker: Looker,
    config: VerifyConfig,
    docket: Docket,
    /// Tables that the cache was seen to have items of, and how many the master has, and when that was asked.
    tables: HashMap<Arc<str>, Option<(Instant, u64)>>,
    is_masters_turn: bool,
    stats: Arc<Stats>,
    complaints: LogLimiter,
}

impl Continuous {
    /// Looks at so many keys in a second as `config` says.
    #[must_use]
    pub fn new(looker: Looker, config: VerifyConfig, stats: Arc<Stats>) -> Self {
        let docket = Docket::new(config.ages.clone(), DIFFERENCES_MAX);
        let tables = looker.tables.named.keys().map(|table| (Arc::clone(table), None)).collect();
        let complaints = LogLimiter::default();
        Self { looker, config, docket, tables, is_masters_turn: false, stats, complaints }
    }

    /// Looks at keys until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let keys = self.config.keys_per_s.clamp(1, LOOK_KEYS);
        let mut ticks = self.ticks(keys);
        while shutdown.run_until_cancelled(self.step(&mut ticks, keys)).await.is_some() {
            self.count();
        }
    }

    async fn step(&mut self, ticks: &mut Interval, keys: u64) {
        let due = self.docket.next_due();
        tokio::select! {
            biased;
            () = until_due(due) => self.look_again().await,
            _ = ticks.tick() => {
                let first = match self.is_masters_turn {
                    true => self.look_at_master(keys).await,
                    false => self.look_at_cache(keys).await,
                };
                self.is_masters_turn = !self.is_masters_turn;
                self.note(first);
            }
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a pause need not be exact")]
    fn ticks(&self, keys: u64) -> Interval {
        let pause = Duration::from_secs_f64(keys as f64 / self.config.keys_per_s.max(1) as f64);
        let mut ticks = interval(pause.max(Duration::from_millis(1)));
        // What could not be looked at in time is not made up for.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks
    }

    async fn look_at_cache(&self, keys: u64) -> Result<FirstLook, LookError> {
        let draw = self.looker.reads.random(usize::try_from(keys).unwrap_or(LOOK_KEYS_MAX)).await?;
        let candidates = draw.items.into_iter().map(|id| Candidate::new(id, true)).collect();
        let mut looked = self.looker.first_look(candidates).await;
        looked.strangers += draw.strangers.len() as u64;
        Ok(looked)
    }

    async fn look_at_master(&mut self, keys: u64) -> Result<FirstLook, LookError> {
        let turn = fastrand::usize(..self.tables.len().max(1));
        let Some(table) = self.tables.keys().nth(turn).cloned() else {
            return self.look_at_cache(keys).await;
        };
        match self.look_at_table(&table, keys).await {
            Err(error) if error.is_no_item() => {
                // Named by the configuration, or gone.
                self.tables.remove(&table);
                Err(error)
            }
            looked => looked,
        }
    }

    async fn look_at_table(&mut self, table: &Arc<str>, keys: u64) -> Result<FirstLook, LookError> {
        let items = self.item_count(table).await?;
        let Some(segment) = segments_at_random(items).next() else { return self.look_at_cache(keys).await };
        let keys = usize::try_from(keys).unwrap_or(LOOK_KEYS_MAX);
        let (candidates, _) = self.looker.page(table, segment, None, keys).await?;
        Ok(self.looker.first_look(candidates).await)
    }

    async fn item_count(&mut self, table: &Arc<str>) -> Result<u64, MasterError> {
        if let Some(Some((at, items))) = self.tables.get(table)
            && at.elapsed() < ITEM_COUNT_KEPT
        {
            return Ok(*items);
        }
        let items = self.looker.master.item_count(table).await?;
        self.tables.insert(Arc::clone(table), Some((Instant::now(), items)));
        Ok(items)
    }

    fn note(&mut self, first: Result<FirstLook, LookError>) {
        let first = match first {
            Ok(first) => first,
            Err(error) => {
                tracing::debug!(%error, "keys could not be looked at");
                Stats::add(&self.stats.verify_failed, 1);
                return;
            }
        };
        let now = Instant::now();
        self.docket.count_strangers(first.strangers);
        for (id, check_type, first) in first.looked {
            if first.is_ok() && self.tables.len() < TABLES_MAX && !self.tables.contains_key(&id.table) {
                self.tables.insert(Arc::clone(&id.table), None);
            }
            self.docket.first_look(id, check_type, first, now);
        }
    }

    async fn look_again(&mut self) {
        let due = self.docket.take_due(Instant::now(), LOOK_KEYS_MAX);
        let watermark_ms = self.looker.reads.watermark_ms().await.ok().flatten();
        let looked = self.looker.look(due.iter().map(Open::candidate).collect()).await;
        for (open, (_, looked)) in due.into_iter().zip(looked) {
            let settled = self.docket.look_again(open, looked, watermark_ms, Instant::now());
            if let Some(settled) = settled.filter(|settled| settled.lasting == Lasting::Mismatch) {
                self.complain(&settled).await;
            }
        }
    }

    /// Names the key and how it differs. What the item holds is not for logs.
    async fn complain(&mut self, settled: &Settled) {
        let Some(repeats) = self.complaints.due(Instant::now()) else { return };
        let Settled { id, difference, evidence, .. } = settled;
        let key = match self.looker.master.key_shape(&id.table).await {
            Ok(shape) => shape.show(&id.key),
            Err(_) => String::from_utf8_lossy(&id.key).into_owned(),
        };
        let entry = show_cache(evidence, self.looker.tables.policy(&id.table));
        tracing::error!(
            table = &*id.table,
            key,
            %difference,
            entry = entry.as_ref().map(|entry| entry.kind),
            position = entry.as_ref().and_then(|entry| entry.position.as_deref()),
            time = entry.as_ref().and_then(|entry| entry.time.as_deref()),
            repeats,
            "an entry is wrong and stays so: look at it with `explain`, mend it with `verify --key ... --repair`"
        );
    }

    fn count(&self) {
        let (counts, stats) = (self.docket.counts(), &self.stats);
        stats.verify_looked_at.store(counts.looked_at, Relaxed);
        stats.verify_missing.store(counts.missing.values().sum(), Relaxed);
        stats.verify_different.store(counts.different.first().copied().unwrap_or_default(), Relaxed);
        stats.verify_mismatches.store(counts.mismatches, Relaxed);
        stats.verify_not_judged.store(counts.behind + counts.not_followed + counts.unread, Relaxed);
    }
}
