//! Commands that are run to their end.

use std::process::{Output, Stdio};

use tokio::process::Command;

use super::PreviousError;

/// What it printed.
pub(super) async fn run(program: &'static str, mut command: Command) -> Result<String, PreviousError> {
    command.stdin(Stdio::null()).kill_on_drop(true);
    let line = format!("{:?}", command.as_std());
    let output = command.output().await.map_err(|source| PreviousError::Run { program, source })?;
    let Output { status, stdout, stderr } = output;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    match status.success() {
        true => Ok(text(stdout)),
        false => Err(PreviousError::Failed { command: line, output: text(stdout) + &text(stderr) }),
    }
}
