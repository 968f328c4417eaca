//! Nothing goes wrong: what verification says of a region under load.

use serde::Deserialize;

use super::RepairsError;
use super::run::Run;
use super::tool::{DONE, Program};
use crate::report::Target;

/// What is told of the command's report.
#[derive(Deserialize)]
struct Verified {
    looked_at: u64,
    missing: Missing,
    consistent: Vec<AtAge>,
    staleness: Vec<Staleness>,
    mismatches: u64,
    behind: u64,
    not_followed: u64,
    unread: u64,
}

#[derive(Deserialize)]
struct Missing {
    keys: u64,
}

#[derive(Deserialize)]
struct AtAge {
    age_s: f64,
    different: u64,
    of: u64,
    share: f64,
}

#[derive(Deserialize)]
struct Staleness {
    /// None: longer than the last look.
    up_to_s: Option<f64>,
    keys: u64,
}

pub(super) async fn run(mut run: Run<'_>) -> Result<(), RepairsError> {
    let (table, sample, looks) =
        (run.table.clone(), run.options.sample.to_string(), run.options.looks.clone());
    let arguments = ["verify", "--table", &table, "--sample", &sample, "--looks", &looks, "--output", "json"];
    let ran = run.tool(Program::CacheWriter, &arguments, DONE).await?;
    let verified: Verified = ran.report()?;
    tell(&mut run, &verified)?;
    run.settle().await
}

fn tell(run: &mut Run<'_>, verified: &Verified) -> Result<(), RepairsError> {
    run.figure("keys looked at", "keys", verified.looked_at as f64, Some(Target::AtLeast(1.0)))?;
    for AtAge { age_s, different, of, share } in &verified.consistent {
        run.figure(&format!("consistent at an age of {age_s} s"), "%", 100.0 * share, None)?;
        run.report.note(format!("{different} of {of} differ then, {:.4} % do not", 100.0 * share))?;
    }
    for Staleness { up_to_s, keys } in verified.staleness.iter().filter(|of| of.keys > 0) {
        let behind = match up_to_s {
            Some(up_to_s) => format!("behind by at most {up_to_s} s"),
            None => "behind by more than the last look".to_owned(),
        };
        run.figure(&behind, "keys", *keys as f64, None)?;
    }
    let none = Some(Target::AtMost(0.0));
    run.figure("keys that are misses", "keys", verified.missing.keys as f64, None)?;
    run.figure("lasting mismatches", "keys", verified.mismatches as f64, none)?;
    let unjudged = verified.behind + verified.not_followed + verified.unread;
    run.figure("keys that could not be judged", "keys", unjudged as f64, none)
}
