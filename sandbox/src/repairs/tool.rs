//! The commands as the scenarios run them: told, timed, and held to the exit code that they should have.

use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::RepairsError;
use super::run::Run;
use crate::daemon::{CommandOutput, Daemon};

/// Whose command it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Program {
    Aggregator,
    /// Of the region that something happened to.
    CacheWriter,
}

/// A command that ended as it should, or did not and is a violation.
pub(super) struct Ran {
    pub(super) took: Duration,
    pub(super) output: CommandOutput,
}

/// The exit code of a command that did what it was asked.
pub(super) const DONE: i32 = 0;
/// The exit code of one that found something to look at.
pub(super) const PROBLEMS: i32 = 1;

impl Run<'_> {
    fn daemon(&self, program: Program) -> Result<&Daemon, RepairsError> {
        Ok(match program {
            Program::Aggregator => self.world.aggregator(),
            Program::CacheWriter => self.region()?.cache_writer(),
        })
    }

    /// Runs a command to its end. An exit code other than `code` is a violation.
    pub(super) async fn tool(
        &mut self,
        program: Program,
        arguments: &[&str],
        code: i32,
    ) -> Result<Ran, RepairsError> {
        let began = Instant::now();
        let output = self.daemon(program)?.command(arguments).await?;
        let took = began.elapsed();
        let ended = output.code.map_or_else(|| "a signal".to_owned(), |code| format!("exit code {code}"));
        self.report.line(&format!("$ {}   ({ended}, {:.1} s)", output.command, took.as_secs_f64()))?;
        if output.code != Some(code) {
            let words = arguments.first().copied().unwrap_or_default();
            self.report.violation(format!("{words} ended with {ended}, not with {code}"))?;
            self.report.note(output.to_string())?;
        }
        Ok(Ran { took, output })
    }
}

impl Ran {
    /// Its report, as far as it is looked at.
    pub(super) fn report<T: DeserializeOwned>(&self) -> Result<T, RepairsError> {
        let not_understood =
            |error| RepairsError::Tool { reason: format!("{error}"), shown: self.output.to_string() };
        serde_json::from_str(&self.output.stdout).map_err(not_understood)
    }
}
