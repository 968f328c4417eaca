//! `cost`: what this system costs a month, line by line, against DynamoDB global tables and against reading the master.
//!
//! Pure arithmetic, but for the files and the endpoint that it is told to read: a [`Workload`](workload::Workload) and
//! [`Prices`] become [`System`](model::System)s of lines, and these a [`Report`]. It needs neither AWS nor a
//! configuration. Every assumption is a line of the report, and most can be given.

pub mod workload;
pub mod measured;
pub mod model;
pub mod report;

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, ValueEnum};
use tokio_util::sync::CancellationToken;
use warmcast_common::config::{Document, Section, Violations};
use warmcast_common::daemon::{ConfigError, Outcome, OutputFormat};
use warmcast_common::prices::Prices;
use warmcast_common::tool;

use self::measured::Measured;
use self::report::Report;
use self::workload::{StreamMode, Workload};

/// The flags of `cost`.
#[derive(Args, Clone, Debug, Default)]
pub struct CostArgs {
    /// Begin with this workload; the other flags change it.
    #[arg(long, value_enum, value_name = "NAME")]
    pub scenario: Option<Scenario>,
    /// Rates and sizes as a running aggregator measured them: http://HOST:PORT/metrics, or a file with what that answered.
    #[arg(long, value_name = "URL_OR_FILE")]
    pub from_metrics: Option<String>,
    /// Rates and sizes from a file (TOML): the names of these flags, with _ for -, and `regions`, a list.
    #[arg(long, value_name = "FILE")]
    pub given: Option<PathBuf>,
    /// A price file like config/prices.toml. Default: the list prices of that file, built in.
    #[arg(long, value_name = "FILE")]
    pub prices: Option<PathBuf>,
    /// Writes to the tables in a second.
    #[arg(long, value_name = "NUMBER")]
    pub writes_per_s: Option<f64>,
    /// Bytes of an item, as DynamoDB counts them.
    #[arg(long, value_name = "NUMBER")]
    pub item_bytes: Option<f64>,
    /// Reads in a second in each region.
    #[arg(long, value_name = "NUMBER")]
    pub reads_per_s: Option<f64>,
    /// Reads that the region's cache answers, in percent.
    #[arg(long, value_name = "PERCENT")]
    pub hit_percent: Option<f64>,
    /// The region of the tables.
    #[arg(long, value_name = "REGION")]
    pub master: Option<String>,
    /// A region that reads; may be the master's. May be repeated.
    #[arg(long = "region", value_name = "REGION")]
    pub regions: Vec<String>,
    /// Changes of a frame: docs/wire-size.md.
    #[arg(long, value_name = "NUMBER")]
    pub changes_per_frame: Option<f64>,
    /// Bytes of a change in a region's stream: docs/wire-size.md.
    #[arg(long, value_name = "NUMBER")]
    pub wire_bytes: Option<f64>,
    /// How the regions' streams are bought. Terraform's module makes them on demand, unless it is given a number of shards.
    #[arg(long, value_enum, value_name = "MODE")]
    pub stream_mode: Option<StreamMode>,
    /// No bytes pass a NAT gateway: the daemons' subnets are public, or have another way to other regions.
    #[arg(long)]
    pub without_nat: bool,
    /// Open shards of the tables' streams.
    #[arg(long, value_name = "NUMBER")]
    pub table_shards: Option<f64>,
    /// Bytes of the items that a region caches.
    #[arg(long, value_name = "NUMBER")]
    pub working_set_bytes: Option<f64>,
    /// Replicas of each primary of the cache.
    #[arg(long, value_name = "NUMBER")]
    pub replicas: Option<f64>,
    /// The form of the report.
    #[arg(long, value_enum, default_value_t)]
    pub output: OutputFormat,
}

/// Workloads that docs/cost.md shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// A bidder's profiles in January 2018, at that time's prices: AdRoll published that it saved over 75 %.
    #[value(name = "adroll-2018")]
    Adroll2018,
    /// The same at today's prices, on demand.
    Today,
}

/// Prints what the workload costs.
///
/// # Errors
/// When a file or the endpoint cannot be read, or something given is wrong.
pub async fn cost(args: CostArgs, shutdown: CancellationToken) -> Result<Outcome, anyhow::Error> {
    let measured = match &args.from_metrics {
        None => None,
        Some(from) => {
            let reading = shutdown.run_until_cancelled(measured::read(from)).await;
            Some(reading.context("stopped by a signal")?.with_context(|| format!("--from-metrics {from}"))?)
        }
    };
    let report = args.report(measured.as_ref())?;
    tool::report(args.output, &report, || report.lines())?;
    Ok(Outcome::Done)
}

impl CostArgs {
    /// The report on what is given.
    ///
    /// # Errors
    /// When a file cannot be read, or with everything that is wrong.
    pub fn report(&self, measured: Option<&Measured>) -> Result<Report, anyhow::Error> {
        let (mut base, prices) = match self.scenario {
            None => (Workload::default(), Prices::built_in()),
            Some(Scenario::Adroll2018) => (Workload::adroll(true), Prices::built_in_2018()),
            Some(Scenario::Today) => (Workload::adroll(false), Prices::built_in()),
        };
        if let Some(measured) = measured {
            base.take(measured);
        }
        let prices = self.prices.as_deref().map_or(prices, Prices::load);
        let prices = prices.map_err(|error| ConfigError { problems: vec![error.to_string()] })?;
        let violations = Violations::default();
        let workload = Workload::read(Section::root(self.document()?.into_root(), &violations), &base);
        let workload = violations.into_result(workload).map_err(ConfigError::from)?;
        Ok(Report::new(workload, measured, &prices))
    }

    /// The file with the flags over it.
    fn document(&self) -> Result<Document, anyhow::Error> {
        let numbers = [
            ("writes_per_s", self.writes_per_s),
            ("item_bytes", self.item_bytes),
            ("reads_per_s", self.reads_per_s),
            ("hit_percent", self.hit_percent),
            ("changes_per_frame", self.changes_per_frame),
            ("wire_bytes", self.wire_bytes),
            ("table_shards", self.table_shards),
            ("working_set_bytes", self.working_set_bytes),
            ("replicas", self.replicas),
        ];
        let numbers = numbers.into_iter().filter_map(|(name, value)| Some((name, format!("{:?}", value?))));
        let master = self.master.iter().map(|master| ("master", format!("{master:?}")));
        let regions = (!self.regions.is_empty()).then(|| ("regions", format!("{:?}", self.regions)));
        let stream_mode = self.stream_mode.iter().map(|mode| ("stream_mode", format!("{:?}", mode.name())));
        let nat = self.without_nat.then(|| ("nat", false.to_string()));
        let given = numbers.chain(master).chain(regions).chain(stream_mode).chain(nat);
        let flags: Vec<String> = given.map(|(name, value)| format!("{name}={value}")).collect();
        match &self.given {
            None => Document::parse(&flags.join("\n")).context("the flags"),
            Some(file) => Ok(Document::load(file, [], &flags)?),
        }
    }
}

#[cfg(test)]
mod tests;
