//! Shows a report once, or again and again: in place on a terminal.

use std::io::IsTerminal as _;
use std::time::Duration;

use anyhow::Context;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::args::StatusArgs;
use crate::daemon::{Outcome, OutputFormat, print, print_as_it_is};
use crate::plain::plain;

/// A report.
#[derive(Clone, Debug)]
pub struct Shown {
    /// For scripts.
    pub json: serde_json::Value,
    /// For people.
    pub text: String,
    /// Whether something needs a look.
    pub outcome: Outcome,
}

/// To the upper left corner.
const HOME: &str = "\x1b[H";
/// Clears the rest of the line.
const REST_OF_LINE: &str = "\x1b[K";
/// Clears everything below.
const REST_OF_SCREEN: &str = "\x1b[J";

/// Looks and shows what is found, as the flags say. The outcome is that of the last look.
///
/// # Errors
/// When the first look fails, or what it found cannot be printed. Later ones are shown as what they are, and made again.
pub async fn watch(
    args: &StatusArgs,
    shutdown: &CancellationToken,
    mut look: impl AsyncFnMut() -> Result<Shown, anyhow::Error>,
) -> Result<Outcome, anyhow::Error> {
    let look_once = shutdown.run_until_cancelled(Box::pin(look())).await;
    let mut outcome = show(args, &look_once.context("stopped by a signal before the look was made")??)?;
    let Some(seconds) = args.watch else { return Ok(outcome) };
    let mut ticks = interval(Duration::from_secs(seconds));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        let next = async {
            ticks.tick().await;
            look().await
        };
        match shutdown.run_until_cancelled(Box::pin(next)).await {
            None => return Ok(outcome),
            Some(Ok(shown)) => outcome = show(args, &shown)?,
            Some(Err(error)) => {
                let problem = format!("{error:#}");
                let json = serde_json::json!({ "error": problem });
                let text = format!("could not look, and looks again: {problem}\n");
                outcome = show(args, &Shown { json, text, outcome: Outcome::Problems })?;
            }
        }
    }
}

fn show(args: &StatusArgs, shown: &Shown) -> Result<Outcome, anyhow::Error> {
    let text = match (args.output, args.watch) {
        (OutputFormat::Json, None) => serde_json::to_string_pretty(&shown.json)? + "\n",
        // One line for each look.
        (OutputFormat::Json, Some(_)) => shown.json.to_string() + "\n",
        (OutputFormat::Human, Some(_)) if std::io::stdout().is_terminal() => {
            print_as_it_is(&in_place(&plain(&shown.text))).context("write to standard output")?;
            return Ok(shown.outcome);
        }
        (OutputFormat::Human, Some(_)) => format!("{}\n", shown.text),
        (OutputFormat::Human, None) => shown.text.clone(),
    };
    print(&text).context("write to standard output")?;
    Ok(shown.outcome)
}

/// Overwrites what the screen had, without clearing it first, which would flicker.
fn in_place(text: &str) -> String {
    let lines: String = text.lines().map(|line| format!("{line}{REST_OF_LINE}\n")).collect();
    format!("{HOME}{lines}{REST_OF_SCREEN}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_takes_the_place_of_the_one_before() {
        assert_eq!(in_place("a\nb\n"), "\x1b[Ha\x1b[K\nb\x1b[K\n\x1b[J");
    }
}
