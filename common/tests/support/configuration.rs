//! What the tests of the daemons' example configurations share.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::process::{Command, Output};

/// Runs a daemon's `run --check-config` on this configuration.
pub(crate) fn check(binary: &str, configuration: &str, arguments: &[&str]) -> Output {
    check_in(binary, configuration, arguments, &[])
}

/// As [`check`], with these variables in its environment.
pub(crate) fn check_in(
    binary: &str,
    configuration: &str,
    arguments: &[&str],
    environment: &[(&str, &str)],
) -> Output {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), configuration).unwrap();
    Command::new(binary)
        .args(["run", "--check-config", "--config"])
        .arg(file.path())
        .args(arguments)
        .envs(environment.iter().copied())
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

/// Asserts that what the SDK's variables say of where AWS is is looked at, with all else that is wrong: exit code 64, one
/// line for each of `sections`, which have neither an endpoint nor credentials.
pub(crate) fn assert_endpoint_variables(binary: &str, configuration: &str, sections: &[&str]) {
    let clear = [("AWS_ENDPOINT_URL", "http://10.0.0.1:8000")];
    let each = |section: &&str| {
        format!(
            "AWS_ENDPOINT_URL: expected https://HOST, or http:// with an address of this machine; or set insecure_endpoint = true in [{section}]"
        )
    };
    let lines: Vec<String> = sections.iter().map(each).chain(["surprise: unknown key".to_owned()]).collect();
    let output = check_in(binary, configuration, &["--set", "surprise=1"], &clear);
    assert_violations(&output, &lines.iter().map(String::as_str).collect::<Vec<_>>());
    let secure = [("AWS_ENDPOINT_URL", "https://vpce-1.kinesis.eu-west-1.vpce.amazonaws.com")];
    let output = check_in(binary, configuration, &[], &secure);
    assert!(output.status.success(), "{}", stderr(&output));
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

/// What a command prints that ends with this exit code.
pub(crate) fn assert_command(binary: &str, arguments: &[&str], exit_code: i32) -> String {
    let output = Command::new(binary).args(arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(exit_code), "{arguments:?}: {}", stderr(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// Asserts that `config show` of an example, with these flags, shows every key of it, and no secret. What is secret has
/// the value `hunter2` there. Returns what it prints as TOML.
pub(crate) fn assert_shown(binary: &str, example: &str, flags: &[&str]) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    let secrets = ["access_key = ", "token = ", "password = "];
    let line = |line: &str| match secrets.iter().find(|name| line.contains(**name)) {
        Some(_) => line.split('=').next().unwrap().to_owned() + "= 'hunter2'",
        None => line.to_owned(),
    };
    std::fs::write(file.path(), uncommented(example).lines().map(line).collect::<Vec<_>>().join("\n"))
        .unwrap();
    let show = |output: &str| {
        let show = ["config", "show", "--output", output, "--config", file.path().to_str().unwrap()];
        assert_command(binary, &[&show, flags].concat(), 0)
    };
    let (text, json) = (show("human"), show("json"));
    assert!(!text.contains("hunter2") && !json.contains("hunter2"), "{text}");
    assert!(text.parse::<toml::Table>().is_ok(), "{text}");
    let json: Vec<serde_json::Value> = serde_json::from_str(&json).unwrap();
    let shown: Vec<&str> = json.iter().map(|of| of["key"].as_str().unwrap()).collect();
    let keys = keys(example);
    assert!(keys.len() > 30, "{keys:?}");
    let missing: Vec<&String> = keys.iter().filter(|key| !shown.contains(&key.as_str())).collect();
    assert!(missing.is_empty(), "{missing:?} are not in\n{text}");
    text
}

/// The paths of an example's keys, those that are commented out included.
fn keys(example: &str) -> Vec<String> {
    let (mut section, mut keys) = (String::new(), Vec::new());
    for line in example.lines() {
        let line = line.strip_prefix("# ").unwrap_or(line);
        if let Some(header) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = format!("{header}.");
        } else if let Some((name, _)) = line.split_once(" = ")
            && name.chars().all(|c| c.is_ascii_lowercase() || c == '_')
        {
            keys.push(format!("{section}{name}"));
        }
    }
    keys
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
