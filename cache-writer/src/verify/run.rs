//! `verify`: the command.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use warmcast_cache::master::{FailureClass, Segment};
use warmcast_cache::{
    Cache, ConnectError, EntryReads, Filler, ItemId, Master, MasterConfig, MasterError, ReadFrom,
};
use warmcast_common::aws::sdk_config;
use warmcast_common::clock::now_ms;
use warmcast_common::daemon::{ConfigError, Outcome};
use warmcast_common::tool::{Moment, Progress, Throttle, read_lines, report};
use warmcast_proto::key_text::KeyShape;

use super::args::Verify;
use super::case::Lasting;
use super::docket::{Docket, Settled, until_due};
use super::look::{FirstLook, LOOK_KEYS_MAX, LookError, Looker};
use super::repair::{Repair, Repairer};
use super::report::{Finding, Repaired, Report, Watermark, verdict};
use super::shown::{show_cache, show_item};
use super::walk::{Seen, Source, Walker};
use crate::config::{Config, FallbackConfig};

/// Walks side by side.
const WALKS_MAX: u32 = 4;
/// Looks that may wait to be judged, of up to a hundred keys each.
const LOOKS_WAITING_MAX: usize = 16;
/// Keys in a file.
const KEYS_MAX: usize = 1_000_000;
/// Lasting differences that are told with both sides; all are counted.
const FINDINGS_MAX: usize = 1_000;
/// How often keys are tried again that the master sheds: with the pauses, half a minute.
const SHED_RETRIES: usize = 60;
/// Draws from the cache in which its tables are found.
const TABLE_DRAWS: usize = 5;
const TABLE_DRAW_KEYS: usize = 200;
/// Tables that are found so, at most: where the prefix is shared, any word may look like one.
const TABLES_MAX: usize = 100;

/// Compares the cache with the master.
///
/// # Errors
/// When it was refused, or cannot be done.
pub async fn verify(args: Verify, shutdown: CancellationToken) -> Result<Outcome, anyhow::Error> {
    let config: Config = args.config.load()?;
    let Some(fallback) = config.fallback.clone() else {
        let problem = "master: is required: verify compares the cache with the master tables".to_owned();
        return Err(ConfigError { problems: vec![problem] }.into());
    };
    let run = match shutdown.run_until_cancelled(Box::pin(Run::prepare(&args, &config, &fallback))).await {
        Some(run) => run?,
        None => return Err(anyhow!("stopped by a signal, before anything was looked at")),
    };
    Box::pin(run.run(&args, &shutdown)).await
}

/// What a run has to do.
struct Run<'c> {
    config: &'c Config,
    fallback: &'c FallbackConfig,
    dynamodb: aws_sdk_dynamodb::Client,
    looker: Looker,
    throttle: Throttle,
    /// The tables asked for, or found, and their keys' shapes.
    shapes: BTreeMap<Arc<str>, KeyShape>,
    /// One group after the other; the sources of a group side by side.
    groups: Vec<Vec<Source>>,
    keys: Option<u64>,
}

impl<'c> Run<'c> {
    /// Everything that can be refused is refused here, before a key is looked at.
    async fn prepare(
        args: &Verify,
        config: &'c Config,
        fallback: &'c FallbackConfig,
    ) -> Result<Self, anyhow::Error> {
        let dynamodb = aws_sdk_dynamodb::Client::new(&sdk_config(&fallback.dynamodb).await);
        let units_per_s = u32::try_from(args.read_units_per_s.get()).unwrap_or(u32::MAX);
        let master = MasterConfig {
            read_units_per_second_max: f64::from(units_per_s),
            // The units may come so slowly that the keys of a look wait for long.
            read_timeout: Duration::from_secs(30) + Duration::from_secs(200) / units_per_s,
            ..fallback.master.clone()
        };
        let looker = Looker {
            reads: EntryReads::connect(config.redis.clone(), ReadFrom::Primary).await?,
            master: Master::new(dynamodb.clone(), master),
            tables: Arc::new(config.redis.tables.clone()),
            only: args.attributes.clone(),
            is_filtered: args.filtered,
            shed_retries: SHED_RETRIES,
        };
        let mut run = Self {
            config,
            fallback,
            dynamodb,
            looker,
            throttle: Throttle::per_s(args.keys_per_s),
            shapes: BTreeMap::new(),
            groups: Vec::new(),
            keys: None,
        };
        run.find_tables(args).await?;
        let given = run.given_keys(args)?;
        if !given.is_empty() {
            run.keys = Some(given.len() as u64);
            run.groups.push(vec![Source::Given(given)]);
        } else if args.all {
            run.plan_all().await?;
        } else {
            run.plan_sample(args).await?;
        }
        Ok(run)
    }

    /// The tables asked for; else those that the configuration names and those that the cache has keys of, as far as
    /// the master has them.
    async fn find_tables(&mut self, args: &Verify) -> Result<(), anyhow::Error> {
        let mut found: BTreeSet<Arc<str>> = self.looker.tables.named.keys().cloned().collect();
        for _ in 0..TABLE_DRAWS {
            let draw = self.looker.reads.random(TABLE_DRAW_KEYS).await?;
            let left = TABLES_MAX.saturating_sub(found.len());
            found.extend(draw.items.into_iter().map(|id| id.table).take(left));
        }
        let mut problems = Vec::new();
        let asked: BTreeSet<Arc<str>> = args.table.iter().map(|table| Arc::from(table.as_str())).collect();
        let candidates = if asked.is_empty() { found.clone() } else { asked.clone() };
        for table in candidates {
            match self.looker.master.key_shape(&table).await {
                Ok(shape) => {
                    self.shapes.insert(table, shape);
                }
                Err(MasterError::Call { failure, .. }) if failure.class == FailureClass::NotFound => {
                    if asked.contains(&table) {
                        problems.push(format!("--table {table}: the master has no such table"));
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        if !problems.is_empty() {
            let mut there = Vec::new();
            for table in found {
                if self.looker.master.key_shape(&table).await.is_ok() {
                    there.push(table.to_string());
                }
            }
            let there = if there.is_empty() { "none".to_owned() } else { there.join(", ") };
            problems.push(format!("tables that the cache or the configuration names: {there}"));
            return Err(ConfigError { problems }.into());
        }
        Ok(())
    }

    /// The keys of `--key` and `--keys-file`; everything that is wrong with them at once.
    fn given_keys(&self, args: &Verify) -> Result<Vec<ItemId>, ConfigError> {
        let mut texts = args.key.clone();
        let mut problems = Vec::new();
        if let Some(path) = &args.keys_file {
            match read_lines(path, KEYS_MAX) {
                Ok(lines) => texts.extend(lines),
                Err(error) => problems.push(format!("--keys-file: {error}")),
            }
        }
        let is_asked = !args.key.is_empty() || args.keys_file.is_some();
        if is_asked && args.table.len() != 1 {
            problems.push("--table: name one table, which the keys are of".to_owned());
        }
        let mut keys = Vec::with_capacity(texts.len());
        if let Some((table, shape)) = self.shapes.iter().next().filter(|_| args.table.len() == 1) {
            for text in texts {
                match shape.parse(&text) {
                    Ok(key) => keys.push(ItemId::new(Arc::clone(table), key.into_bytes())),
                    Err(error) => problems.push(format!("--key: {error}")),
                }
            }
        }
        if is_asked && keys.is_empty() && problems.is_empty() {
            problems.push("--keys-file: there are no keys in it".to_owned());
        }
        keys.sort_unstable();
        keys.dedup();
        if problems.is_empty() { Ok(keys) } else { Err(ConfigError { problems }) }
    }

    async fn plan_all(&mut self) -> Result<(), anyhow::Error> {
        let mut items = 0;
        for table in self.shapes.keys() {
            items += self.looker.master.item_count(table).await?;
            let seen = Arc::new(Seen::default());
            let segment = |index| Source::Segment {
                table: Arc::clone(table),
                segment: Segment { index, total: WALKS_MAX },
                seen: Arc::clone(&seen),
            };
            self.groups.push((0..WALKS_MAX).map(segment).collect());
            let table = Arc::clone(table);
            self.groups.push(vec![Source::CacheOf { table, seen }]);
        }
        // DynamoDB counts every six hours: a new table may have been counted as empty.
        self.keys = (items > 0).then_some(items);
        Ok(())
    }

    /// Half from the master's side, divided by the tables' sizes, half from the cache's.
    async fn plan_sample(&mut self, args: &Verify) -> Result<(), anyhow::Error> {
        let mut sizes = Vec::new();
        for table in self.shapes.keys() {
            // None is left out because it was counted hours ago.
            sizes.push((Arc::clone(table), self.looker.master.item_count(table).await?.max(1)));
        }
        let (all, half) = (sizes.iter().map(|(_, size)| size).sum::<u64>(), args.sample.div_ceil(2));
        let of_table = |(table, size): (Arc<str>, u64)| {
            let share = u128::from(half) * u128::from(size) / u128::from(all.max(1));
            Source::SampleOfMaster { table, count: u64::try_from(share).unwrap_or(half).max(1) }
        };
        let mut sources: Vec<Source> = sizes.into_iter().map(of_table).collect();
        let tables: HashSet<Arc<str>> = self.shapes.keys().cloned().collect();
        let tables = (!args.table.is_empty()).then_some(tables);
        sources.push(Source::SampleOfCache { tables, count: args.sample - half.min(args.sample - 1) });
        self.groups.push(sources);
        self.keys = Some(args.sample);
        Ok(())
    }

    async fn run(mut self, args: &Verify, shutdown: &CancellationToken) -> Result<Outcome, anyhow::Error> {
        let began = Instant::now();
        let mut docket =
            Docket::new(args.ages(), usize::try_from(args.differences_max).unwrap_or(usize::MAX));
        let progress = Progress::start("verify", "keys", self.keys);
        let mut lasting = Lasted::default();
        let walked = self.look_at_all(&mut docket, &mut lasting, &progress, shutdown).await;
        progress.finish();
        let is_stopped = walked.as_ref().is_ok_and(|is_complete| !is_complete);
        let mut found = Report::new(docket.counts(), docket.ages(), began.elapsed());
        found.is_complete = matches!(walked, Ok(true));
        if let Ok(Some(watermark_ms)) = self.looker.reads.watermark_ms().await {
            found.watermark = Some(Watermark::new(watermark_ms, now_ms()));
        }
        let repairs = match args.repair && !is_stopped && walked.is_ok() {
            true => self.repair(args, &lasting.mismatches, &mut found).await,
            false => Ok(HashMap::new()),
        };
        let no_repairs = HashMap::new();
        found.lasting = lasting.findings(repairs.as_ref().unwrap_or(&no_repairs));
        report(args.output, &found, || found.human())?;
        repairs.context("repair; nothing was changed")?;
        walked.context("look at everything; the report is of what was looked at until then")?;
        if is_stopped {
            return Err(anyhow!("stopped by a signal; the report is of what was looked at until then"));
        }
        if found.unread > 0 && found.looked_at == 0 {
            return Err(anyhow!("no key could be looked at: {}", found.unread_because.unwrap_or_default()));
        }
        Ok(if found.is_clean() { Outcome::Done } else { Outcome::Problems })
    }

    /// Whether it came to its end.
    async fn look_at_all(
        &mut self,
        docket: &mut Docket,
        lasting: &mut Lasted,
        progress: &Progress,
        shutdown: &CancellationToken,
    ) -> Result<bool, LookError> {
        let mut groups = std::mem::take(&mut self.groups).into_iter();
        let mut walks: JoinSet<Result<(), LookError>> = JoinSet::new();
        let (to, mut from) = mpsc::channel(LOOKS_WAITING_MAX);
        let mut is_walking = true;
        loop {
            if is_walking && walks.is_empty() {
                match groups.next() {
                    Some(sources) => {
                        for source in sources {
                            let walker = Walker {
                                looker: self.looker.clone(),
                                throttle: self.throttle.clone(),
                                to: to.clone(),
                            };
                            walks.spawn(walker.walk(source));
                        }
                    }
                    None => {
                        is_walking = false;
                        if docket.is_empty() {
                            continue;
                        }
                        progress.note(&format!("{} keys differ and are looked at again", docket.len()));
                    }
                }
            }
            if !is_walking && docket.is_empty() {
                return Ok(true);
            }
            let next_due = docket.next_due();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(false),
                () = until_due(next_due) => {
                    if shutdown.run_until_cancelled(self.look_again(docket, lasting)).await.is_none() {
                        return Ok(false);
                    }
                }
                Some(first) = from.recv() => note_first_look(first, docket, progress),
                Some(ended) = walks.join_next() => {
                    // A walk that panicked ends the process by its message; here it is as one that was stopped.
                    ended.unwrap_or(Err(LookError::Master(MasterError::Stopped)))?;
                    while let Ok(first) = from.try_recv() {
                        note_first_look(first, docket, progress);
                    }
                }
            }
        }
    }

    async fn look_again(&self, docket: &mut Docket, lasting: &mut Lasted) {
        let due = docket.take_due(Instant::now(), LOOK_KEYS_MAX);
        // Before the cache is read: what it says is in there already.
        let watermark_ms = self.looker.reads.watermark_ms().await.ok().flatten();
        let looked = self.looker.look(due.iter().map(super::docket::Open::candidate).collect()).await;
        for (open, (_, looked)) in due.into_iter().zip(looked) {
            if let Some(settled) = docket.look_again(open, looked, watermark_ms, Instant::now()) {
                lasting.add(settled, &self.looker, &self.shapes).await;
            }
        }
    }

    /// Mends what is wrong; what became of each.
    async fn repair(
        &self,
        args: &Verify,
        mismatches: &[ItemId],
        found: &mut Report,
    ) -> Result<HashMap<ItemId, Option<Repair>>, ConnectError> {
        if args.dry_run || mismatches.is_empty() {
            found.repair = Some(Repaired { is_dry_run: args.dry_run, ..Repaired::default() });
            return Ok(mismatches.iter().map(|id| (id.clone(), None)).collect());
        }
        let cache = Cache::connect(self.config.redis.clone()).await?;
        let master = Master::new(self.dynamodb.clone(), self.fallback.master.clone());
        let repairer = Repairer {
            filler: Filler::new(cache.clone(), master, self.fallback.filler.clone()),
            cache,
            looker: self.looker.clone(),
            throttle: self.throttle.clone(),
        };
        let repairs = repairer.repair(mismatches).await;
        let failed = repairs.values().filter(|repair| matches!(repair, Repair::Failed(_))).count() as u64;
        found.repair = Some(Repaired { is_dry_run: false, mended: repairs.len() as u64 - failed, failed });
        Ok(repairs.into_iter().map(|(id, repair)| (id, Some(repair))).collect())
    }
}

/// What differs after the last look.
#[derive(Default)]
struct Lasted {
    /// Everything that is wrong.
    mismatches: Vec<ItemId>,
    /// The first of what is wrong, or not judged.
    findings: Vec<(ItemId, Finding)>,
}

impl Lasted {
    async fn add(&mut self, settled: Settled, looker: &Looker, shapes: &BTreeMap<Arc<str>, KeyShape>) {
        let Settled { id, lasting, difference, first_read_ms, evidence } = settled;
        if lasting == Lasting::Mismatch {
            self.mismatches.push(id.clone());
        }
        if self.findings.len() >= FINDINGS_MAX {
            return;
        }
        let key = match shapes.get(&id.table) {
            Some(shape) => shape.show(&id.key),
            None => match looker.master.key_shape(&id.table).await {
                Ok(shape) => shape.show(&id.key),
                Err(_) => String::from_utf8_lossy(&id.key).into_owned(),
            },
        };
        let policy = looker.tables.policy(&id.table);
        let finding = Finding {
            verdict: verdict(lasting),
            table: id.table.to_string(),
            key,
            difference: difference.to_string(),
            since: Moment::at_ms(first_read_ms).to_string(),
            cache: show_cache(&evidence, policy),
            master: evidence.item.as_ref().map(show_item),
            repair: None,
        };
        self.findings.push((id, finding));
    }

    fn findings(self, repairs: &HashMap<ItemId, Option<Repair>>) -> Vec<Finding> {
        let with_repair = |(id, mut finding): (ItemId, Finding)| {
            finding.repair = repairs.get(&id).map(|repair| match repair {
                Some(repair) => repair.to_string(),
                None => "would be invalidated and filled".to_owned(),
            });
            finding
        };
        self.findings.into_iter().map(with_repair).collect()
    }
}

fn note_first_look(first: FirstLook, docket: &mut Docket, progress: &Progress) {
    progress.add(first.looked.len() as u64);
    docket.count_strangers(first.strangers);
    let now = Instant::now();
    for (id, check_type, first) in first.looked {
        docket.first_look(id, check_type, first, now);
    }
}
