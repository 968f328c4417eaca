//! The previous version's configuration: the present one's, less the keys that are newer.

use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;

use super::{PreviousError, UpgradeError};
use crate::daemon::{Daemon, OtherProgram, clean_environment};

/// Rounds of asking: keys of a section show when the section's parents are known.
const ROUNDS_MAX: usize = 5;

/// How the previous program runs in a daemon's place: with its configuration, less the keys that are newer. The other answer
/// is what it says of a configuration that it refuses.
pub(super) async fn as_previous(
    programs: &Path,
    daemon: &Daemon,
) -> Result<Result<OtherProgram, String>, UpgradeError> {
    let text = tokio::fs::read_to_string(daemon.config()).await?;
    let mut table: toml::Table = toml::from_str(&text).map_err(std::io::Error::other)?;
    let config = daemon.config().with_extension("previous.toml");
    let program = programs.join(daemon.program());
    let mut said = String::new();
    for _ in 0..ROUNDS_MAX {
        let text = toml::to_string(&table).map_err(std::io::Error::other)?;
        tokio::fs::write(&config, text).await?;
        let mut check = Command::new(&program);
        check
            .args(["run", "--check-config", "--config"])
            .arg(&config)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        clean_environment(&mut check);
        let output = check
            .output()
            .await
            .map_err(|source| PreviousError::Run { program: "the previous version", source })?;
        if output.status.success() {
            return Ok(Ok(OtherProgram { directory: programs.to_owned(), config }));
        }
        said = String::from_utf8_lossy(&output.stderr).into_owned();
        said.lines().filter_map(unknown_key).for_each(|path| remove(&mut table, path));
    }
    Ok(Err(said))
}

/// The key that a complaint is about: `aggregator: admin.enabled: unknown key; known here: ...`.
fn unknown_key(complaint: &str) -> Option<&str> {
    let (before, _) = complaint.split_once(": unknown key")?;
    before.rsplit(": ").next()
}

fn remove(table: &mut toml::Table, path: &str) {
    match path.split_once('.') {
        None => drop(table.remove(path)),
        Some((section, rest)) => {
            if let Some(section) = table.get_mut(section).and_then(toml::Value::as_table_mut) {
                remove(section, rest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_that_an_older_program_does_not_know_are_taken_out() {
        let complaint = "cache-writer: regions.eu.admin: unknown key; known here: stream";
        assert_eq!(unknown_key(complaint), Some("regions.eu.admin"));
        assert_eq!(unknown_key("cache-writer: log.level: expected one of a, b"), None);
        let mut table: toml::Table = toml::from_str("a = 1\n[b]\nc = 2\n[b.d]\ne = 3\n").unwrap();
        for path in ["b.d.e", "a", "x.y", "b.x"] {
            remove(&mut table, path);
        }
        assert_eq!(toml::to_string(&table).unwrap(), "[b]\nc = 2\n\n[b.d]\n");
    }
}
