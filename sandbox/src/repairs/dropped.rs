//! For a while a region's records are lost on their way, and everybody is told that all is well; then they are replayed.

use super::RepairsError;
use super::contents::{contents, differences};
use super::run::Run;
use super::tool::{DONE, Program};
use crate::faults::Faults;
use crate::report::Target;

pub(super) async fn run(mut run: Run<'_>) -> Result<(), RepairsError> {
    let name = run.region()?.name().to_owned();
    let lost_for = run.options.drop;
    let since = format!("{}", crate::entry::now_ms());
    run.report.line(&format!("the records of {name} are lost for {lost_for:?}"))?;
    set(&run, Faults::losing_records())?;
    run.passes(lost_for).await?;
    set(&run, Faults::default())?;
    let lost = run.region()?.faults().map_or(0, |proxy| proxy.total().entries_lost);
    run.figure("records lost", "records", lost as f64, Some(Target::AtLeast(1.0)))?;

    let table = run.table.clone();
    let arguments = ["replay", "--table", &table, "--region", &name, "--since", &since, "--output", "json"];
    let replay = run.tool(Program::Aggregator, &arguments, DONE).await?;
    run.figure("the replay took", "s", replay.took.as_secs_f64(), None)?;
    run.settle().await?;

    let mut connection = run.region()?.redis().connect().await?;
    let before = contents(&mut connection).await?;
    run.tool(Program::Aggregator, &arguments, DONE).await?;
    run.caught_up().await?;
    let after = contents(&mut connection).await?;
    let changed = differences(&before, &after) as f64;
    run.figure(
        "entries that the same replay changes when it is run again",
        "entries",
        changed,
        Some(Target::AtMost(0.0)),
    )
}

fn set(run: &Run<'_>, faults: Faults) -> Result<(), RepairsError> {
    if let Some(proxy) = run.region()?.faults() {
        proxy.set(faults);
    }
    Ok(())
}
