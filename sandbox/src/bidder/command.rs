//! `sandbox bidder`: one bidder in the world of `sandbox up`, in a process of its own.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use super::{Bidder, BidderError, BidderOptions, Sources, Standing, Summary, Users};
use crate::report::Output;
use crate::up::Endpoints;

const LINE_INTERVAL: Duration = Duration::from_secs(1);

/// What to run.
#[derive(Clone, Debug)]
pub struct BidderCommand {
    /// The file that `sandbox up` wrote.
    pub endpoints: PathBuf,
    /// The region to read in; none: the first.
    pub region: Option<String>,
    /// How many users there are.
    pub users: u64,
    /// How long to bid.
    pub duration: Duration,
    /// How to bid; the table is that of the endpoints.
    pub options: BidderOptions,
    /// How to print.
    pub output: Output,
}

/// Why there is no summary.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The endpoints file.
    #[error("cannot read the endpoints from {}: {source}. `sandbox up --endpoints FILE` writes it", path.display())]
    Endpoints {
        /// The file.
        path: PathBuf,
        /// What failed.
        source: io::Error,
    },
    /// No such region.
    #[error("there is no region {wanted}: choose one of {}", known.join(", "))]
    Region {
        /// The region asked for.
        wanted: String,
        /// Those there are.
        known: Vec<String>,
    },
    /// The bidder.
    #[error(transparent)]
    Bidder(#[from] BidderError),
    /// The output is closed.
    #[error("cannot write to the standard output: {0}")]
    Output(#[from] io::Error),
}

/// Bids for the duration, or until `stop`, and prints what was seen.
///
/// # Errors
/// See [`CommandError`].
pub async fn run(command: BidderCommand, stop: CancellationToken) -> Result<Summary, CommandError> {
    let failed = |source| CommandError::Endpoints { path: command.endpoints.clone(), source };
    let text = std::fs::read(&command.endpoints).map_err(failed)?;
    let endpoints: Endpoints = serde_json::from_slice(&text).map_err(|error| failed(error.into()))?;
    let sources = sources(&endpoints, command.region.as_deref())?;
    let options = BidderOptions { table: endpoints.table, ..command.options };
    let bidder = Bidder::start(&sources, options, Users::Fixed(command.users)).await?;
    let start = bidder.standing();
    tokio::select! {
        shown = show(&bidder, &start, command.output) => shown?,
        () = sleep(command.duration) => {}
        () = stop.cancelled() => {}
    }
    let summary = bidder.stop().await.since(&start);
    print(&summary, command.output)?;
    Ok(summary)
}

fn sources(endpoints: &Endpoints, region: Option<&str>) -> Result<Sources, CommandError> {
    let is_it = |name: &str| region.is_none_or(|wanted| wanted == name);
    let found = endpoints.regions.iter().find(|region| is_it(&region.name));
    let found = found.ok_or_else(|| CommandError::Region {
        wanted: region.unwrap_or("at all").to_owned(),
        known: endpoints.regions.iter().map(|region| region.name.clone()).collect(),
    })?;
    Ok(Sources { redis: found.redis.clone(), dynamodb: endpoints.dynamodb.clone() })
}

/// A line a second; never ends by itself.
async fn show(bidder: &Bidder, start: &Standing, output: Output) -> io::Result<()> {
    let mut lines = interval(LINE_INTERVAL);
    lines.set_missed_tick_behavior(MissedTickBehavior::Delay);
    lines.tick().await;
    let mut last = start.clone();
    loop {
        lines.tick().await;
        let now = bidder.standing();
        let second = now.since(&last);
        if output == Output::Human {
            let elapsed = now.since(start).lasted_s;
            let line = format!(
                "{elapsed:>4.0} s  {:>6} auctions, {:>4} missed, hits {:>6.2} %, {}, {:>5} master reads",
                second.auctions,
                second.missed,
                second.hit_percent(),
                second.times(),
                second.master_reads
            );
            writeln!(io::stdout().lock(), "{line}")?;
        }
        last = now;
    }
}

fn print(summary: &Summary, output: Output) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match output {
        Output::Human => writeln!(stdout, "{}", summary.lines().join("\n")),
        Output::Json => {
            let mut object = serde_json::to_value(summary)?;
            if let Some(object) = object.as_object_mut() {
                object.insert("hit_percent".to_owned(), summary.hit_percent().into());
                object.insert("master_reads_per_second".to_owned(), summary.master_reads_per_second().into());
            }
            writeln!(stdout, "{object:#}")
        }
    }
}
