//! The command that restarts the worker, run while the lock is held.

use std::ffi::OsString;
use std::process::{ExitStatus, Stdio};

use anyhow::Context;
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use super::lock::HeldLock;
use super::tell::tell;

/// What became of a command that was begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Restart {
    /// It ended.
    Ended(ExitStatus),
    /// It is not known whether it ended, and how: why that is so.
    UnderWay(String),
}

/// Runs the command to its end.
///
/// # Errors
/// When it was not begun, so that nothing was restarted: the lock was lost, or the command cannot be run.
pub(super) async fn run(
    command: &[OsString],
    held: &mut HeldLock,
    shutdown: &CancellationToken,
) -> Result<Restart, anyhow::Error> {
    let (program, arguments) = command.split_first().context("no command was given after --")?;
    let name = program.to_string_lossy();
    // This process may have stood still for longer than the lock lasts: a machine that was suspended. Whoever took it
    // meanwhile may be restarting another worker.
    held.renew().await.context("nothing was restarted")?;
    let child = Command::new(program).args(arguments).stdin(Stdio::null()).spawn();
    let mut child = child.with_context(|| format!("nothing was restarted: cannot run {name}"))?;
    let ending = async {
        match held.during(child.wait()).await {
            Ok(ended) => ended,
            // The restart is under way: another may begin, and this one cannot be taken back.
            Err(lost) => {
                tell(&format!("{lost}; waits for the command"));
                child.wait().await
            }
        }
    };
    Ok(match shutdown.run_until_cancelled(ending).await {
        Some(Ok(status)) => Restart::Ended(status),
        Some(Err(error)) => Restart::UnderWay(format!("cannot wait for {name}: {error}")),
        None => Restart::UnderWay(format!("stopped by a signal while {name} ran, which goes on")),
    })
}
