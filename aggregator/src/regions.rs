//! `regions`: which regions the fleet feeds, where one is behind and why, whether it is warm, and how one is forgotten.

mod told;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::{Args, Subcommand};
use serde::Serialize;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use warmcast_common::aws::sdk_config;
use warmcast_common::clock::now_ms;
use warmcast_common::consumer::parked::Parked;
use warmcast_common::consumer::store::{Backfill, LaneState, StateStore, StoreError};
use warmcast_common::daemon::{ConfigArgs, ConfigError, Outcome, OutputFormat};
use warmcast_common::retry::Class;
use warmcast_common::tool;
use warmcast_common::warm::{RegionState, Warmth};

use crate::config::Config;
use told::{TableStreamState, watermark};

/// Pause between two looks at a region that is waited for.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The flags of `regions`.
#[derive(Args, Clone, Debug)]
pub struct Regions {
    /// What to do.
    #[command(subcommand)]
    pub command: RegionsCommand,
}

/// What to do about regions.
#[derive(Subcommand, Clone, Debug)]
pub enum RegionsCommand {
    /// List the regions, with the shards that each is parked on and the backfills that it waits for.
    List {
        /// Where the state table is.
        #[command(flatten)]
        config: ConfigArgs,
        /// A region is warm while its watermark is no older than this.
        #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
        watermark_bound: Duration,
        /// How to print it.
        #[arg(long, value_enum, default_value_t)]
        output: OutputFormat,
    },
    /// Wait until a region is warm: no backfill is asked for, it is parked nowhere, and its watermark is young.
    Wait {
        /// Where the state table is.
        #[command(flatten)]
        config: ConfigArgs,
        /// The region.
        #[arg(value_name = "REGION")]
        region: String,
        /// It is warm when its watermark is no older than this.
        #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
        watermark_bound: Duration,
        /// How long to wait.
        #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = humantime::parse_duration)]
        timeout: Duration,
        /// How to print it.
        #[arg(long, value_enum, default_value_t)]
        output: OutputFormat,
    },
    /// Forget a region that was removed from the configuration: what is kept for it is given up.
    Forget {
        /// Where the state table is.
        #[command(flatten)]
        config: ConfigArgs,
        /// The region.
        #[arg(value_name = "REGION")]
        region: String,
        /// Say what would be forgotten, and change nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// Say that a region has what it lacked of every table: its watermark goes on.
    Backfilled {
        /// Where the state table is.
        #[command(flatten)]
        config: ConfigArgs,
        /// The region.
        #[arg(value_name = "REGION")]
        region: String,
        /// Say what would be done, and change nothing.
        #[arg(long)]
        dry_run: bool,
    },
}

/// A region as the state table has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RegionReport {
    /// Its name.
    pub region: String,
    /// Whether the configuration has it.
    pub configured: bool,
    /// Where it is parked.
    pub parked: Vec<ParkedReport>,
    /// The backfills that it waits for.
    pub backfills: Vec<BackfillReport>,
    /// Whether it is warm.
    pub warmth: Warmth,
}

/// A region that is parked on a shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ParkedReport {
    /// The stream.
    pub stream: String,
    /// The shard.
    pub shard: String,
    /// Up to where the region has everything.
    pub checkpoint: String,
    /// Since when, in milliseconds since the epoch.
    pub since_ms: u64,
    /// Why.
    pub why: String,
}

/// A backfill that a region waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BackfillReport {
    /// Of which stream's table.
    pub stream: String,
    /// Since when, in milliseconds since the epoch.
    pub asked_ms: u64,
    /// Why.
    pub why: String,
}

/// Carries out `regions`.
///
/// # Errors
/// When it was refused, or cannot be done.
pub async fn regions(args: Regions, shutdown: CancellationToken) -> Result<Outcome, anyhow::Error> {
    let work = Box::pin(carry_out(args.command));
    shutdown.run_until_cancelled(work).await.context("stopped by a signal; it can be run again")?
}

async fn carry_out(command: RegionsCommand) -> Result<Outcome, anyhow::Error> {
    match command {
        RegionsCommand::List { config, watermark_bound, output } => {
            let config: Config = config.load()?;
            let reports = reports(&config, watermark_bound).await?;
            print(&reports, output)?;
            let is_behind = reports.iter().any(|of| !of.parked.is_empty() || !of.backfills.is_empty());
            Ok(if is_behind { Outcome::Problems } else { Outcome::Done })
        }
        RegionsCommand::Wait { config, region, watermark_bound, timeout, output } => {
            let config: Config = config.load()?;
            let known: Vec<&str> = config.regions.iter().map(|region| &*region.name).collect();
            if !known.contains(&&*region) {
                let known = known.join(", ");
                let problem = format!("there is no region {region} in the configuration; there is {known}");
                return Err(ConfigError { problems: vec![problem] }.into());
            }
            let report = wait(&config, &region, watermark_bound, timeout).await?;
            tool::report(output, &report, || lines(&report, now_ms()))?;
            Ok(if report.warmth.is_warm { Outcome::Done } else { Outcome::Problems })
        }
        RegionsCommand::Forget { config, region, dry_run } => {
            let config: Config = config.load()?;
            if config.regions.iter().any(|of| of.name == region) {
                return Err(anyhow!(
                    "{region} is in the configuration: remove [regions.{region}] on every aggregator first"
                ));
            }
            let store = store(&config).await;
            let report = known(&store, &config, &region).await?;
            print(std::slice::from_ref(&report), OutputFormat::Human)?;
            if !dry_run {
                let leases = store.forget_lane(&region).await?;
                tracing::info!(region, leases, "forgotten");
            }
            Ok(Outcome::Done)
        }
        RegionsCommand::Backfilled { config, region, dry_run } => {
            let config: Config = config.load()?;
            let store = store(&config).await;
            let report = known(&store, &config, &region).await?;
            print(std::slice::from_ref(&report), OutputFormat::Human)?;
            for backfill in report.backfills.iter().filter(|_| !dry_run) {
                store.backfilled(&region, &backfill.stream).await?;
            }
            Ok(Outcome::Done)
        }
    }
}

/// Every region as the state table has it now; it is warm if its watermark is no older than `watermark_bound`.
///
/// # Errors
/// When the state table cannot be read.
pub async fn reports(config: &Config, watermark_bound: Duration) -> Result<Vec<RegionReport>, StoreError> {
    look(&store(config).await, config, watermark_bound).await
}

async fn store(config: &Config) -> StateStore {
    let dynamodb = aws_sdk_dynamodb::Client::new(&sdk_config(&config.dynamodb).await);
    StateStore::new(dynamodb, &config.state.table)
}

async fn known(store: &StateStore, config: &Config, region: &str) -> Result<RegionReport, anyhow::Error> {
    let reports = look(store, config, Duration::MAX).await?;
    let names: Vec<String> = reports.iter().map(|report| report.region.clone()).collect();
    let found = reports.into_iter().find(|report| report.region == region);
    found.with_context(|| format!("the state table knows no region {region}; it knows {}", names.join(", ")))
}

/// Looks until the region is warm, or for `timeout`; how it is then.
async fn wait(
    config: &Config,
    region: &str,
    watermark_bound: Duration,
    timeout: Duration,
) -> Result<RegionReport, anyhow::Error> {
    let (store, began) = (store(config).await, Instant::now());
    let mut waits_for = Vec::new();
    loop {
        let looked = look(&store, config, watermark_bound).await;
        let is_over = began.elapsed() >= timeout;
        match looked {
            Ok(reports) => {
                let report = reports.into_iter().find(|report| report.region == region);
                let report = report.with_context(|| format!("{region} is not in the report"))?;
                if report.warmth.is_warm || is_over {
                    return Ok(report);
                }
                if waits_for != report.warmth.waits_for {
                    waits_for = report.warmth.waits_for;
                    tracing::info!(region, waits_for = waits_for.join("; "), "not warm yet");
                }
            }
            Err(error) if is_over || !passes(&error) => return Err(error.into()),
            Err(error) => tracing::warn!(%error, "looking again"),
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

fn passes(error: &StoreError) -> bool {
    // A fleet that begins makes its state table first.
    let heals = |class| matches!(class, Class::Throttled | Class::Transient | Class::NotFound);
    matches!(error, StoreError::Call(call) if heals(call.class))
}

/// The streams that the tables have and had, and whatever stream a region was ever fed from.
async fn streams(
    store: &StateStore,
    config: &Config,
    known: &BTreeMap<String, LaneState>,
) -> Result<(Vec<TableStreamState>, Vec<TableStreamState>), StoreError> {
    let (mut of_tables, mut others) = (Vec::new(), Vec::new());
    let read = async |stream: String, superseded: bool| {
        let state = store.stream_state(&stream, true).await?;
        Ok::<_, StoreError>(TableStreamState { stream, superseded, state })
    };
    for table in &config.tables {
        let generations = store.generations(&table.name).await?;
        let newest = generations.iter().map(|generation| generation.number).max();
        for generation in generations {
            of_tables.push(read(generation.stream, Some(generation.number) != newest).await?);
        }
    }
    let fed: BTreeSet<&String> = known.values().flat_map(|lane| lane.added_ms.keys()).collect();
    for stream in fed {
        if !of_tables.iter().any(|of| of.stream == *stream) {
            others.push(read(stream.clone(), true).await?);
        }
    }
    Ok((of_tables, others))
}

/// What the state table has of every region, and of those that are configured.
async fn look(
    store: &StateStore,
    config: &Config,
    watermark_bound: Duration,
) -> Result<Vec<RegionReport>, StoreError> {
    let known = store.lanes().await?;
    let (of_tables, others) = streams(store, config, &known).await?;
    let heartbeats = store.heartbeats().await?;
    let mut parked: BTreeMap<String, Vec<ParkedReport>> = BTreeMap::new();
    for of in of_tables.iter().chain(&others) {
        for lease in &of.state.leases {
            for (region, place) in &lease.parked {
                let report = parked_report(&of.stream, &lease.shard, place);
                parked.entry(region.clone()).or_default().push(report);
            }
        }
    }
    let now_ms = now_ms();
    let regions = config.regions.iter().map(|region| &*region.name);
    let told = watermark(&of_tables, &heartbeats, regions, config.tables.len(), now_ms);
    let told = told.map_err(|hold| hold.to_string());
    let warmth = |region: &str, parked: usize, backfills: usize| {
        let watermark_ms = match &told {
            Ok(told) if told.behind.contains(region) => Err("it is not on every shard"),
            Ok(told) => Ok(told.ms),
            Err(why) => Err(why.as_str()),
        };
        RegionState { parked, backfills, watermark_ms }.warmth(now_ms, watermark_bound)
    };
    let configured: BTreeSet<String> = config.regions.iter().map(|region| region.name.clone()).collect();
    let names: BTreeSet<String> = known.keys().chain(parked.keys()).chain(&configured).cloned().collect();
    let report = |region: String| {
        let backfills = known.get(&region).map(backfill_reports).unwrap_or_default();
        let parked = parked.remove(&region).unwrap_or_default();
        let warmth = warmth(&region, parked.len(), backfills.len());
        RegionReport { configured: configured.contains(&region), parked, backfills, warmth, region }
    };
    Ok(names.into_iter().map(report).collect())
}

fn parked_report(stream: &str, shard: &str, place: &Parked) -> ParkedReport {
    ParkedReport {
        stream: stream.to_owned(),
        shard: shard.to_owned(),
        checkpoint: place.checkpoint.to_string(),
        since_ms: place.since_ms,
        why: place.why.clone(),
    }
}

fn backfill_reports(lane: &LaneState) -> Vec<BackfillReport> {
    let report = |(stream, of): (&String, &Backfill)| BackfillReport {
        stream: stream.clone(),
        asked_ms: of.asked_ms,
        why: of.why.clone(),
    };
    lane.backfills.iter().map(report).collect()
}

fn print(reports: &[RegionReport], output: OutputFormat) -> Result<(), anyhow::Error> {
    let text = match output {
        OutputFormat::Json => serde_json::to_string_pretty(reports)? + "\n",
        OutputFormat::Human => reports.iter().map(|report| lines(report, now_ms())).collect(),
    };
    warmcast_common::daemon::print(&text).context("write to standard output")
}

/// A region for people.
fn lines(report: &RegionReport, now_ms: u64) -> String {
    let ago_s = |since_ms: u64| now_ms.saturating_sub(since_ms) / 1_000;
    let state = match (report.parked.len(), report.backfills.len()) {
        (0, 0) => "up to date".to_owned(),
        (shards, backfills) => format!("parked on {shards} shards, waits for {backfills} backfills"),
    };
    let configured = if report.configured { "" } else { " (not configured)" };
    let warmth = match &report.warmth {
        Warmth { is_warm: true, .. } => "warm".to_owned(),
        Warmth { waits_for, .. } => format!("not warm, waits for {}", waits_for.join("; ")),
    };
    let mut text = format!("{}{configured}: {state}; {warmth}\n", report.region);
    for of in &report.parked {
        let ParkedReport { shard, checkpoint, why, .. } = of;
        text += &format!("  parked on {shard} at {checkpoint} for {} s: {why}\n", ago_s(of.since_ms));
    }
    for of in &report.backfills {
        text += &format!("  backfill of {} asked for {} s ago: {}\n", of.stream, ago_s(of.asked_ms), of.why);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_is_told_with_where_it_is_behind_and_why() {
        let parked = ParkedReport {
            stream: "s".to_owned(),
            shard: "shard-1".to_owned(),
            checkpoint: "after:9".to_owned(),
            since_ms: 1_000,
            why: "stalled".to_owned(),
        };
        let backfill =
            BackfillReport { stream: "s".to_owned(), asked_ms: 6_000, why: "it is new".to_owned() };
        let report = RegionReport {
            region: "eu-west-1".to_owned(),
            configured: false,
            parked: vec![parked],
            backfills: vec![backfill],
            warmth: RegionState { parked: 1, backfills: 1, watermark_ms: Err("-") }.warmth(1, Duration::ZERO),
        };
        assert_eq!(
            lines(&report, 11_000),
            "eu-west-1 (not configured): parked on 1 shards, waits for 1 backfills; not warm, waits for 1 backfills \
             that were asked for; 1 shards that it is parked on\n  \
             parked on shard-1 at after:9 for 10 s: stalled\n  \
             backfill of s asked for 5 s ago: it is new\n"
        );
        let warmth = RegionState { parked: 0, backfills: 0, watermark_ms: Ok(1) }.warmth(1, Duration::ZERO);
        let fine =
            RegionReport { region: "x".to_owned(), configured: true, warmth, ..RegionReport::default() };
        assert_eq!(lines(&fine, 1), "x: up to date; warm\n");
    }
}
