//! What a daemon's binary says while it cannot reach what it needs.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;
use tokio::time::{Instant, timeout_at};

/// The warnings and errors that the binary logs within two seconds. It must still run then; each line that it writes,
/// those for developers too, must be a whole line of JSON and must not show `secret`.
///
/// # Panics
/// When the process ends by itself, shows the secret, or writes something else.
pub(crate) async fn complaints_at_start(binary: &str, config: &Path, secret: &str) -> Vec<String> {
    let mut process = Command::new(binary)
        .args(["run", "--config"])
        .arg(config)
        // Tests run side by side.
        .args(["--set", "admin.listen=127.0.0.1:0"])
        .env("RUST_LOG", "debug")
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
    let (mut complaints, mut debug_lines) = (Vec::new(), 0);
    let end = Instant::now() + Duration::from_secs(2);
    while let Ok(line) = timeout_at(end, lines.next_line()).await {
        let line = line.unwrap().expect("the process goes on");
        assert!(!line.contains(secret), "{line}");
        let parsed: Value = serde_json::from_str(&line).unwrap();
        for name in ["timestamp", "level", "target", "message", "service", "version", "worker_id"] {
            assert!(parsed[name].is_string(), "no {name} in {line}");
        }
        match parsed["level"].as_str() {
            Some("WARN" | "ERROR") => complaints.push(line),
            Some("DEBUG") => debug_lines += 1,
            _ => {}
        }
    }
    assert!(debug_lines > 0, "secrets were looked for in debug lines too");
    assert!(process.try_wait().unwrap().is_none(), "the process goes on");
    process.kill().await.unwrap();
    complaints
}
