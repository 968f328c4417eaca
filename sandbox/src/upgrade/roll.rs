//! One worker after another is restarted with the present version, by the operators' command.
//!
//! In the place of systemd is this process: what the command runs asks for the restart by a file, and waits for another.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::UpgradeError;
use super::rig::Rig;
use super::verdict::Rolled;
use crate::daemon::{CommandOutput, Daemon, DaemonError};
use crate::report::Report;

/// Between two looks whether the restart is asked for.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// How long the command waits before the restart, and after it: a small machine may be busy otherwise.
const PATIENCE: &str = "4m";
/// What the command runs: it asks for the restart, and waits until that is made.
const SCRIPT: &str = r#"touch "$1"; while ! [ -e "$2" ]; do sleep 0.05; done"#;

/// Restarts every daemon.
pub(super) async fn all(
    rig: &mut Rig,
    report: &mut Report,
    together: bool,
) -> Result<Vec<Rolled>, UpgradeError> {
    let directory = rig.directory().to_owned();
    let mut rolled = Vec::new();
    if together {
        for (aggregator, cache_writer) in rig.aggregators.iter_mut().zip(&mut rig.cache_writers) {
            let (one, other) =
                tokio::join!(restart(aggregator, &directory), restart(cache_writer, &directory));
            rolled.extend([one?, other?]);
        }
        return Ok(rolled);
    }
    for daemon in rig.aggregators.iter_mut().chain(&mut rig.cache_writers) {
        let of = restart(daemon, &directory).await?;
        report.line(&of.in_words())?;
        rolled.push(of);
    }
    Ok(rolled)
}

/// Restarts one, and returns when the command says that all is settled.
async fn restart(daemon: &mut Daemon, directory: &Path) -> Result<Rolled, UpgradeError> {
    let name = daemon.name().to_owned();
    let file = |what: &str| directory.join(format!("{name}.{what}"));
    let (wanted, done) = (file("restart-wanted"), file("restart-done"));
    let mut command = daemon.command_line(&["upgrade", "--wait", PATIENCE, "--back", PATIENCE])?;
    command.args(["--", "sh", "-c", SCRIPT, "sh"]).arg(&wanted).arg(&done);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let line = format!("{} upgrade", daemon.program());
    let failed = |source| DaemonError::Command { command: line.clone(), source };

    let began = Instant::now();
    let running = command.spawn().map_err(failed)?.wait_with_output();
    tokio::pin!(running);
    let asked = async {
        while !wanted.exists() {
            sleep(LOOK_INTERVAL).await;
        }
    };
    tokio::select! {
        () = asked => {}
        ended = &mut running => {
            let output = CommandOutput::new(line.clone(), ended.map_err(failed)?);
            return Err(UpgradeError::Refused { worker: name, output: Box::new(output) });
        }
    }
    let stopping = Instant::now();
    let status = daemon.terminate().await?;
    let stopped = Instant::now();
    if status.is_none_or(|status| !status.success()) {
        return Err(UpgradeError::Ended { worker: name, status });
    }
    daemon.run_as(None);
    daemon.start()?;
    tokio::fs::write(&done, "").await?;
    let output = CommandOutput::new(line.clone(), running.await.map_err(failed)?);
    if output.code != Some(0) {
        return Err(UpgradeError::Refused { worker: name, output: Box::new(output) });
    }
    Ok(Rolled { name, began, stopping, stopped, ended: Instant::now() })
}
