//! Rates and sizes as a running aggregator has measured them, out of what its /metrics answered.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use anyhow::{anyhow, ensure};
use warmcast_common::http::{self, Bounds};

/// What a scrape may take, and how long.
const SCRAPE: Bounds = Bounds { body_bytes_max: 16 << 20, within: Duration::from_secs(10) };

/// What was measured since the process started.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// For how long, in seconds.
    pub elapsed_s: f64,
    /// The process' share of the fleet's leases.
    pub share: f64,
    /// Records of the tables' streams in a second, of the whole fleet.
    pub writes_per_s: f64,
    /// Changes of a frame.
    pub changes_per_frame: Option<f64>,
    /// Bytes of a change in a region's stream.
    pub wire_bytes: Option<f64>,
    /// Bytes of a change before compression.
    pub body_bytes: Option<f64>,
    /// Shards of the whole fleet that are open.
    pub table_shards: Option<f64>,
    /// Whether the regions' streams are on demand. None: some are.
    pub is_on_demand: Option<bool>,
    /// The regions, by the names that they have in the configuration.
    pub regions: Vec<String>,
}

/// Reads an address, or a file: it was written when it was asked for.
///
/// # Errors
/// When it cannot be read, or is not what an aggregator answers.
pub async fn read(from: &str) -> Result<Measured, anyhow::Error> {
    let (text, at) = match from.strip_prefix("http://") {
        Some(address) => (scrape(address).await?, SystemTime::now()),
        None => (tokio::fs::read_to_string(from).await?, tokio::fs::metadata(from).await?.modified()?),
    };
    Measured::of(&text, at.duration_since(SystemTime::UNIX_EPOCH)?.as_secs_f64())
}

/// What an endpoint answers at `HOST[:PORT]/PATH`; without a path at /metrics.
async fn scrape(address: &str) -> Result<String, anyhow::Error> {
    let path = if address.contains('/') { "" } else { "/metrics" };
    let url = format!("http://{address}{path}");
    let answer = http::get(&url, &[], SCRAPE).await?;
    ensure!(answer.status == 200, "{url} answered {}; with a bearer token, give a file", answer.status);
    Ok(answer.body)
}

impl Measured {
    /// What a scrape at this time says, in seconds since the Unix epoch.
    ///
    /// # Errors
    /// When something is missing that every aggregator tells, or nothing was read yet.
    pub fn of(text: &str, at_s: f64) -> Result<Self, anyhow::Error> {
        let series: Vec<(&str, f64)> = text.lines().filter_map(sample).collect();
        let sum = |name: &str| -> Option<f64> {
            let of = |series: &str| {
                series == name || series.strip_prefix(name).is_some_and(|rest| rest.starts_with('{'))
            };
            let mut found = series.iter().filter(|(series, _)| of(series)).peekable();
            found.peek().is_some().then(|| found.map(|(_, value)| value).sum())
        };
        let needed = |name: &str| {
            sum(name).ok_or_else(|| anyhow!("there is no {name}: is it an aggregator's /metrics?"))
        };
        let elapsed_s = at_s - needed("warmcast_start_time_seconds")?;
        let records = needed("warmcast_records_read_total")?;
        ensure!(elapsed_s > 0.0 && records > 0.0, "nothing was read yet since it started");
        let leases = |state: &str| sum(&format!("warmcast_leases{{state=\"{state}\"}}")).unwrap_or(0.0);
        let (own, others) = (leases("own"), leases("others"));
        let share = if own > 0.0 { own / (own + others) } else { 1.0 };
        let ratio =
            |of: &str, to: &str| sum(of).zip(sum(to)).filter(|(_, to)| *to > 0.0).map(|(of, to)| of / to);
        let changes = "warmcast_frame_changes_sum";
        Ok(Self {
            elapsed_s,
            share,
            writes_per_s: records / elapsed_s / share,
            changes_per_frame: ratio(changes, "warmcast_frame_changes_count").map(|changes| changes.max(1.0)),
            wire_bytes: ratio("warmcast_sent_bytes_total", "warmcast_changes_sent_total"),
            body_bytes: ratio("warmcast_frame_body_bytes_total", changes),
            table_shards: Some(own + others).filter(|shards| *shards > 0.0),
            is_on_demand: is_on_demand(&series),
            regions: labels(&series, "warmcast_changes_sent_total{region=\""),
        })
    }

    /// What it is, for people.
    pub(super) fn line(&self) -> String {
        format!(
            "measured since one aggregator started, {:.1} hours ago, which has {:.0} % of the leases: writes, sizes, shards, \
             regions, and how their streams are bought. An item counts with its bytes in a frame before compression",
            self.elapsed_s / 3_600.0,
            self.share * 100.0
        )
    }
}

/// A series with its labels, and its value; not comments.
fn sample(line: &str) -> Option<(&str, f64)> {
    let line = line.trim_end();
    let (series, value) = line.rsplit_once(' ').filter(|_| !line.starts_with('#'))?;
    Some((series, value.parse().ok()?))
}

/// What all regions' streams are; `None`: they differ, or nothing says.
fn is_on_demand(series: &[(&str, f64)]) -> Option<bool> {
    let told = series.iter().filter(|(series, _)| series.starts_with("warmcast_region_on_demand{"));
    let mut modes = told.map(|(_, value)| *value > 0.0);
    let first = modes.next()?;
    modes.all(|mode| mode == first).then_some(first)
}

fn labels(series: &[(&str, f64)], start: &str) -> Vec<String> {
    let named = series.iter().filter_map(|(series, _)| series.strip_prefix(start)?.split('"').next());
    named.collect::<BTreeSet<_>>().into_iter().map(str::to_owned).collect()
}
