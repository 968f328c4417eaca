//! What a command found or did, in the form that was asked for.

use std::io;

use serde::Serialize;

use crate::daemon::{OutputFormat, print};

/// Writes a report to standard output: as JSON, or as `human` puts it.
///
/// # Errors
/// When standard output does not take it.
pub fn report(
    output: OutputFormat,
    value: &impl Serialize,
    human: impl FnOnce() -> String,
) -> io::Result<()> {
    match output {
        OutputFormat::Json => print(&(serde_json::to_string_pretty(value)? + "\n")),
        OutputFormat::Human => print(&human()),
    }
}
