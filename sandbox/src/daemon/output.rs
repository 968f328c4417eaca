//! What a command printed, and how it ended.

use std::fmt;
use std::process::Output;

/// A command that ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandOutput {
    /// The command line.
    pub command: String,
    /// Its exit code; `None`: a signal ended it.
    pub code: Option<i32>,
    /// Its results.
    pub stdout: String,
    /// Its progress, its log and what it complains of.
    pub stderr: String,
}

impl CommandOutput {
    /// Of a process that ran as `command`.
    #[must_use]
    pub fn new(command: String, output: Output) -> Self {
        Self {
            command,
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// For a failure report: what a terminal would have shown.
impl fmt::Display for CommandOutput {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { command, code, stdout, stderr } = self;
        let code = code.map_or_else(|| "a signal".to_owned(), |code| format!("exit code {code}"));
        write!(formatter, "$ {command}\n{stdout}{stderr}({code})")
    }
}
