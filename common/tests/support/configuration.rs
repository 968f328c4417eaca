//! What the tests of the daemons' example configurations share.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::process::{Command, Output};

/// Runs a daemon's `run --check-config` on this configuration.
pub(crate) fn check(binary: &str, configuration: &str, arguments: &[&str]) -> Output {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), configuration).unwrap();
    Command::new(binary)
        .args(["run", "--check-config", "--config"])
        .arg(file.path())
        .args(arguments)
        .output()
        .unwrap()
}

/// What the daemon said.
pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Asserts exit code 64 and exactly these violations.
pub(crate) fn assert_violations(output: &Output, expected: &[&str]) {
    let text = stderr(output);
    assert_eq!(output.status.code(), Some(64), "{text}");
    for violation in expected {
        assert!(text.contains(violation), "{violation:?} is not in:\n{text}");
    }
    assert_eq!(text.lines().count(), expected.len(), "{text}");
}

/// Asserts that wrong command lines exit with 64, and help with 0.
pub(crate) fn assert_usage(binary: &str) {
    let daemon = || Command::new(binary);
    for arguments in [&["run"][..], &["walk"], &[], &["run", "--config", "/does/not/exist.toml"]] {
        let output = daemon().args(arguments).env_remove("WARMCAST_CONFIG").output().unwrap();
        assert_eq!(output.status.code(), Some(64), "{arguments:?}: {}", stderr(&output));
    }
    assert!(daemon().arg("--help").output().unwrap().status.success());
}

/// An example with the comment sign removed from the keys that show a default.
pub(crate) fn uncommented(example: &str) -> String {
    let setting = |line: &str| {
        let (name, _) = line.split_once('=')?;
        let plain = |c: char| c.is_ascii_lowercase() || c == '_';
        name.trim_end().chars().all(plain).then(|| line.to_owned())
    };
    let line = |line: &str| match line.strip_prefix("# ") {
        Some(rest) if rest.starts_with('[') => Some(rest.to_owned()),
        // An empty value is no value: the key is shown for its name.
        Some(rest) => setting(rest).filter(|setting| !setting.ends_with("\"\"")),
        None => Some(line.to_owned()),
    };
    example.lines().filter_map(line).collect::<Vec<_>>().join("\n")
}
