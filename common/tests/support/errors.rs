//! What a daemon's binary says while it cannot reach what it needs.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;
use tokio::time::{Instant, timeout_at};

/// The errors that the binary logs within two seconds, each a line of JSON; it must still run then, and no line may
/// show `secret`.
///
/// # Panics
/// When the process ends by itself, or shows the secret.
pub(crate) async fn errors_at_start(binary: &str, config: &Path, secret: &str) -> Vec<String> {
    let mut process = Command::new(binary)
        .args(["run", "--config"])
        .arg(config)
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
    let mut errors = Vec::new();
    let end = Instant::now() + Duration::from_secs(2);
    while let Ok(line) = timeout_at(end, lines.next_line()).await {
        let line = line.unwrap().expect("the process goes on");
        assert!(!line.contains(secret), "{line}");
        let parsed: Value = serde_json::from_str(&line).unwrap();
        if parsed["level"] == "ERROR" {
            errors.push(line);
        }
    }
    assert!(process.try_wait().unwrap().is_none(), "the process goes on");
    process.kill().await.unwrap();
    errors
}
