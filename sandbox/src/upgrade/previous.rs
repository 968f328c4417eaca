//! The previous version's programs, built from the repository's history.
//!
//! It has a work tree of its own below the target directory, which stays: the next build is of what differs. The
//! dependencies are those that are built already, if both versions have the same: intermediate files go to the same
//! place (`build.build-dir`), the programs to another, and our own crates are kept apart from the present ones by a
//! wrapper that does nothing (Cargo: a workspace wrapper is part of a member's identity, for clippy's sake).

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use super::UpgradeError;
use crate::daemon::{Daemon, OtherProgram, clean_environment};

/// The variable that names the previous version, as a revision.
const VARIABLE: &str = "WARMCAST_PREVIOUS";
/// The daemons' programs.
const PROGRAMS: [&str; 2] = ["aggregator", "cache-writer"];
/// A wrapper of the compiler that changes nothing: it runs what it is given.
const WRAPPER: &str = "env";

/// How long it may take, unless it was asked for. Its libraries are there, or it had others, and they take many minutes.
const BUILD_PATIENCE: Duration = Duration::from_secs(240);

/// Which version is upgraded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// What `WARMCAST_PREVIOUS` says; else the commit before the last one, or the last one if something was changed
    /// since.
    #[default]
    Default,
    /// This revision.
    Revision(String),
    /// The present version: nothing is built, and nothing is learned about mixed versions.
    Present,
}

/// The programs to upgrade from.
#[derive(Clone, Debug)]
pub(super) struct Previous {
    /// Where they are; `None`: they are the present ones.
    pub(super) programs: Option<PathBuf>,
    words: String,
    /// It was asked for by name: another one does not do.
    is_required: bool,
}

/// Why the previous version could not be built.
#[derive(Debug, thiserror::Error)]
pub enum PreviousError {
    /// A program could not be run.
    #[error("cannot run {program}: {source}")]
    Run {
        /// Which.
        program: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// A command failed.
    #[error("`{command}` failed:\n{output}")]
    Failed {
        /// Its line.
        command: String,
        /// What it said.
        output: String,
    },
    /// It takes long.
    #[error("it is not built within {BUILD_PATIENCE:?}: its libraries are others, most likely")]
    Late,
    /// The sandbox does not know where it is.
    #[error("cannot tell the target directory of {}", executable.display())]
    Target {
        /// The sandbox.
        executable: PathBuf,
    },
}

impl Previous {
    fn present(why: &str) -> Self {
        let words = format!("the previous version is the PRESENT one: {why}");
        Self { programs: None, words, is_required: false }
    }

    /// How it runs in a daemon's place; `None`: it is the present program. One that does not know what to do with its
    /// configuration is given up, unless it was asked for: the commit before may have been broken.
    pub(super) async fn in_place_of(
        &mut self,
        daemon: &Daemon,
    ) -> Result<Option<OtherProgram>, UpgradeError> {
        let Some(programs) = &self.programs else { return Ok(None) };
        match as_previous(programs, daemon).await {
            Err(error) if !self.is_required => {
                *self = Self::present(&format!("{}, but: {error}", self.words));
                Ok(None)
            }
            answer => answer.map(Some),
        }
    }

    /// What is upgraded, for people.
    pub(super) fn in_words(&self) -> String {
        self.words.clone()
    }
}

/// Builds what is to be upgraded, if there is a history to build it from.
pub(super) async fn prepare(choice: &Choice) -> Result<Previous, PreviousError> {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or_else(|| Path::new("/"));
    let revision = match (choice, std::env::var(VARIABLE)) {
        (Choice::Present, _) => return Ok(Previous::present("as asked for")),
        (Choice::Revision(revision), _) => revision.clone(),
        (Choice::Default, Ok(revision)) => revision,
        (Choice::Default, Err(_)) => match before(repository).await {
            Ok(revision) => revision,
            Err(why) => return Ok(Previous::present(&why)),
        },
    };
    let commit = git(repository, &["rev-parse", "--verify", &format!("{revision}^{{commit}}")]).await?;
    let subject = git(repository, &["log", "-1", "--format=%h, %s", &commit]).await?;
    let target = target_directory()?;
    let place = target.parent().unwrap_or(&target).join("previous");
    check_out(repository, &place.join("source"), &commit).await?;
    let is_required = *choice != Choice::Default || std::env::var_os(VARIABLE).is_some();
    let building = build(&place, &target);
    let built = match is_required {
        true => building.await,
        false => timeout(BUILD_PATIENCE, building).await.unwrap_or(Err(PreviousError::Late)),
    };
    match built {
        Ok(programs) => {
            let words = format!("the previous version is {subject}");
            Ok(Previous { programs: Some(programs), words, is_required })
        }
        Err(error) if !is_required => Ok(Previous::present(&format!("{subject}, does not build: {error}"))),
        Err(error) => Err(error),
    }
}

/// The commit to upgrade from, or why there is none.
async fn before(repository: &Path) -> Result<String, String> {
    let of = |arguments: &'static [&'static str]| async {
        git(repository, arguments).await.map_err(|_| "there is no git history".to_owned())
    };
    let changed = of(&["status", "--porcelain", "--untracked-files=no"]).await?;
    let revision = if changed.is_empty() { "HEAD^" } else { "HEAD" };
    let known = git(repository, &["rev-parse", "--verify", "--quiet", revision]).await;
    known.map(|_| revision.to_owned()).map_err(|_| format!("the git history has no {revision}"))
}

/// `TARGET/debug` or `TARGET/release`: tests run from its `deps`.
fn target_directory() -> Result<PathBuf, PreviousError> {
    let executable =
        std::env::current_exe().map_err(|source| PreviousError::Run { program: "the sandbox", source })?;
    let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
    let found = executable.ancestors().find(|path| path.ends_with(profile)).map(Path::to_owned);
    found.ok_or(PreviousError::Target { executable })
}

/// Makes the work tree that of `commit`. What is the same keeps its times, so that it is not built again.
async fn check_out(repository: &Path, source: &Path, commit: &str) -> Result<(), PreviousError> {
    if source.join(".git").exists()
        && git(source, &["checkout", "--quiet", "--force", "--detach", commit]).await.is_ok()
    {
        return Ok(());
    }
    let at = source.to_string_lossy();
    // What a copied or moved target directory left behind.
    let _none = tokio::fs::remove_dir_all(source).await;
    git(repository, &["worktree", "prune"]).await?;
    git(repository, &["worktree", "add", "--quiet", "--force", "--force", "--detach", &at, commit]).await?;
    Ok(())
}

async fn build(place: &Path, target: &Path) -> Result<PathBuf, PreviousError> {
    let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // With --examples, of which there are none, the libraries have the features that they have in the tests.
    cargo.args(["build", "--locked", "--quiet", "--workspace", "--examples"]);
    cargo.args(PROGRAMS.iter().flat_map(|program| ["--bin", program]));
    if profile == "release" {
        cargo.arg("--release");
    }
    cargo
        .current_dir(place.join("source"))
        .env("CARGO_TARGET_DIR", place)
        .env("CARGO_BUILD_BUILD_DIR", target.parent().unwrap_or(target))
        .env("RUSTC_WORKSPACE_WRAPPER", WRAPPER)
        .env_remove("CLIPPY_ARGS");
    run("cargo", cargo).await?;
    Ok(place.join(profile))
}

async fn git(directory: &Path, arguments: &[&str]) -> Result<String, PreviousError> {
    let mut command = Command::new("git");
    command.arg("-C").arg(directory).args(arguments);
    Ok(run("git", command).await?.trim().to_owned())
}

async fn run(program: &'static str, mut command: Command) -> Result<String, PreviousError> {
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

/// Rounds of asking: keys of a section show when the section's parents are known.
const ROUNDS_MAX: usize = 5;

/// How the previous program runs in a daemon's place: with its configuration, less the keys that are newer.
async fn as_previous(programs: &Path, daemon: &Daemon) -> Result<OtherProgram, UpgradeError> {
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
            return Ok(OtherProgram { directory: programs.to_owned(), config });
        }
        said = String::from_utf8_lossy(&output.stderr).into_owned();
        said.lines().filter_map(unknown_key).for_each(|path| remove(&mut table, path));
    }
    let command = format!("{} run --check-config", program.display());
    Err(PreviousError::Failed { command, output: said }.into())
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
