//! A region's Redis is flushed, and backfilled while the load goes on.

use std::time::Duration;

use serde::Deserialize;

use super::RepairsError;
use super::run::{Run, size};
use super::tool::{DONE, Program};
use crate::report::Target;

/// No operator is faster. Rows that were read sooner than 20 s after a loss of data are not believed (rule 8 of the cache
/// protocol): they are filled one by one.
const NOTICED: Duration = Duration::from_secs(25);
/// The cache-writers bring the last two minutes of the stream back by themselves (`redis.rewind_ms`): most rows must be
/// older than that.
pub(super) const BASELINE: Duration = Duration::from_secs(150);

/// What is told of the command's report.
#[derive(Deserialize)]
struct Backfilled {
    tables: Vec<Table>,
    elapsed_ms: u64,
    rows_per_s: f64,
}

#[derive(Deserialize)]
struct Table {
    rows_read: u64,
}

pub(super) async fn run(mut run: Run<'_>) -> Result<(), RepairsError> {
    let name = run.region()?.name().to_owned();
    run.report.line(&format!("the Redis of {name} is flushed"))?;
    run.region()?.redis().flush().await?;
    run.passes(NOTICED).await?;
    let gone = run.options.rows.saturating_sub(size(run.region()?).await?);
    run.figure("rows that are gone before the backfill", "rows", gone as f64, Some(Target::AtLeast(1.0)))?;
    let (table, options) = (run.table.clone(), run.options);
    let (units, bytes) = (options.read_units_per_s.to_string(), options.bytes_per_s.to_string());
    let arguments = ["backfill", "--table", &table, "--region", &name, "--output", "json"];
    let arguments = [&arguments[..], &["--read-units-per-s", &units, "--bytes-per-s", &bytes]].concat();
    let backfill = run.tool(Program::Aggregator, &arguments, DONE).await?;
    run.caught_up().await?;
    let backfilled: Backfilled = backfill.report()?;
    let rows: u64 = backfilled.tables.iter().map(|table| table.rows_read).sum();
    run.figure("rows that the backfill read", "rows", rows as f64, Some(Target::AtLeast(1.0)))?;
    run.figure("the backfill took", "s", backfilled.elapsed_ms as f64 / 1_000.0, None)?;
    run.figure("rows a second", "/s", backfilled.rows_per_s, None)?;
    let stats = run.region()?.cache_writer().stats();
    for (counter, what) in [
        ("backfills_written", "rows written"),
        ("backfills_occupied", "rows that the stream or a reader had brought back by then"),
        ("backfills_too_late", "rows that were read too early or came too late, and are filled"),
    ] {
        run.figure(what, "rows", stats.total(counter) as f64, None)?;
    }
    run.settle().await
}
