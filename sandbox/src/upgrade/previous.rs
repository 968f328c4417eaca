//! The previous version's programs, built from the repository's history.
//!
//! It has a work tree of its own below the target directory, which stays: the next build is of what differs. Where there
//! is no history, where its libraries take too long to build, or where it cannot do with what it is told, the present
//! version takes its place, and the report says so and why. One that does not build is an error: it may be that of
//! whoever broke it, and nothing is learned until it is known.

mod command;
mod history;
mod build;
mod configuration;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::UpgradeError;
use crate::daemon::{Daemon, OtherProgram};
use history::Commit;

/// The variable that names the previous version: a revision, or [`PRESENT`].
const VARIABLE: &str = "WARMCAST_PREVIOUS";
/// As the variable's value: the present version.
const PRESENT: &str = "present";

/// How long the build may take, unless the version was asked for. Its libraries are there, or it had others, and they take
/// many minutes.
const BUILD_PATIENCE: Duration = Duration::from_secs(600);

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

/// What is upgraded.
#[derive(Clone, Debug)]
pub(super) enum Previous {
    /// The programs of another version.
    Other(Built),
    /// The present version.
    Present {
        /// What kind of reason there is.
        why: Excuse,
        /// The reason.
        words: String,
    },
}

/// Why the present version is upgraded, instead of the one before. None of these is in the power of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Excuse {
    /// It was asked for.
    AskedFor,
    /// There is no commit before: a copy of the files, or a clone of the last commit alone.
    NoHistory,
    /// It was not built in time.
    Late,
    /// It refuses what the present version is told.
    Configuration,
}

/// Another version.
#[derive(Clone, Debug)]
pub(super) struct Built {
    programs: PathBuf,
    commit: Commit,
    /// It was asked for by name: another one does not do.
    is_required: bool,
}

/// Why the previous version could not be had.
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
    /// It does not build.
    #[error(
        "the previous version ({version}) does not build: {source}\n\
         {VARIABLE}=REVISION chooses another one, {VARIABLE}={PRESENT} none"
    )]
    Broken {
        /// Which it is.
        version: String,
        /// Why.
        source: Box<PreviousError>,
    },
    /// The version that was asked for cannot do with its configuration.
    #[error("the version that was asked for ({version}) refuses its configuration:\n{output}")]
    Refused {
        /// Which it is.
        version: String,
        /// What it said.
        output: String,
    },
    /// The sandbox does not know where it is.
    #[error("cannot tell the target directory of {}", executable.display())]
    Target {
        /// The sandbox.
        executable: PathBuf,
    },
}

impl Choice {
    /// With what the variable says.
    fn or(&self, variable: Option<String>) -> Self {
        match (self, variable.filter(|value| !value.is_empty())) {
            (Self::Default, Some(value)) if value == PRESENT => Self::Present,
            (Self::Default, Some(revision)) => Self::Revision(revision),
            _ => self.clone(),
        }
    }
}

impl Previous {
    fn present(why: Excuse, words: impl Into<String>) -> Self {
        Self::Present { why, words: words.into() }
    }

    /// Whether it is another version.
    pub(super) const fn is_other(&self) -> bool {
        matches!(self, Self::Other(_))
    }

    /// How it runs in a daemon's place; `None`: it is the present program. One that does not know what to do with its
    /// configuration is given up, unless it was asked for.
    pub(super) async fn in_place_of(
        &mut self,
        daemon: &Daemon,
    ) -> Result<Option<OtherProgram>, UpgradeError> {
        let Self::Other(built) = self else { return Ok(None) };
        let output = match configuration::as_previous(&built.programs, daemon).await? {
            Ok(other) => return Ok(Some(other)),
            Err(output) => output,
        };
        let version = built.commit.subject.clone();
        if built.is_required {
            return Err(PreviousError::Refused { version, output }.into());
        }
        let words = format!("{version}, refuses its configuration: {output}");
        *self = Self::present(Excuse::Configuration, words);
        Ok(None)
    }

    /// What is upgraded, for people.
    pub(super) fn in_words(&self) -> String {
        match self {
            Self::Other(built) => format!("the previous version is {}", built.commit.subject),
            Self::Present { words, .. } => format!("the previous version is the PRESENT one: {words}"),
        }
    }

    /// What is upgraded, for machines: the revision, or why it is none.
    pub(super) fn in_json(&self) -> Value {
        match self {
            Self::Other(built) => json!({ "revision": built.commit.id, "why": null }),
            Self::Present { why, words } => {
                json!({ "revision": null, "why": { "kind": why, "words": words } })
            }
        }
    }
}

/// Builds what is to be upgraded, if there is a history to build it from.
pub(super) async fn prepare(choice: &Choice) -> Result<Previous, PreviousError> {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or_else(|| Path::new("/"));
    let target = build::target_directory()?;
    prepare_of(repository, &target, &choice.or(std::env::var(VARIABLE).ok()), BUILD_PATIENCE).await
}

async fn prepare_of(
    repository: &Path,
    target: &Path,
    choice: &Choice,
    patience: Duration,
) -> Result<Previous, PreviousError> {
    let (revision, is_required) = match choice {
        Choice::Present => return Ok(Previous::present(Excuse::AskedFor, "as asked for")),
        Choice::Revision(revision) => (revision.as_str(), true),
        Choice::Default => match history::before(repository).await {
            Ok(revision) => (revision, false),
            Err(why) => return Ok(Previous::present(Excuse::NoHistory, why)),
        },
    };
    let commit = history::commit(repository, revision).await?;
    let place = target.join("previous");
    let source = place.join("source");
    history::check_out(repository, &source, &commit).await?;
    let building = build::build(&source, target, &place);
    let built = match is_required {
        true => Ok(building.await),
        false => timeout(patience, building).await,
    };
    let version = commit.subject.clone();
    match built {
        Ok(Ok(programs)) => Ok(Previous::Other(Built { programs, commit, is_required })),
        Ok(Err(source)) => Err(PreviousError::Broken { version, source: Box::new(source) }),
        Err(_late) => {
            let words =
                format!("{version}, is not built within {patience:?}: its libraries are others, most likely");
            Ok(Previous::present(Excuse::Late, words))
        }
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::history::git;
    use super::*;

    /// A repository, whose commit before the last one does not build, and a place for what is built.
    struct Repository {
        directory: TempDir,
        path: PathBuf,
    }

    impl Repository {
        async fn new() -> Self {
            let directory = TempDir::new().unwrap();
            let path = directory.path().join("repository");
            std::fs::create_dir(&path).unwrap();
            let of = Self { directory, path };
            of.git(&["init", "--quiet"]).await;
            for (subject, manifest) in [("broken", "this is no manifest"), ("mended", "[workspace]")] {
                std::fs::write(of.path.join("Cargo.toml"), manifest).unwrap();
                of.git(&["add", "Cargo.toml"]).await;
                let who = ["-c", "user.name=test", "-c", "user.email=test@example.com"];
                of.git(&[&who[..], &["commit", "--quiet", "--no-gpg-sign", "-m", subject]].concat()).await;
            }
            of
        }

        async fn git(&self, arguments: &[&str]) -> String {
            git(&self.path, arguments).await.unwrap()
        }

        async fn prepare(&self, choice: Choice, patience: Duration) -> Result<Previous, PreviousError> {
            prepare_of(&self.path, &self.directory.path().join("target"), &choice, patience).await
        }
    }

    const PATIENCE: Duration = Duration::from_secs(120);

    fn excuse(previous: &Previous) -> Option<Excuse> {
        match previous {
            Previous::Other(_) => None,
            Previous::Present { why, .. } => Some(*why),
        }
    }

    #[test]
    fn the_variable_says_what_is_upgraded_unless_that_was_said_otherwise() {
        let of = |choice: Choice, variable: Option<&str>| choice.or(variable.map(str::to_owned));
        let revision = |name: &str| Choice::Revision(name.to_owned());
        assert_eq!(of(Choice::Default, None), Choice::Default);
        assert_eq!(of(Choice::Default, Some("")), Choice::Default);
        assert_eq!(of(Choice::Default, Some("v1")), revision("v1"));
        assert_eq!(of(Choice::Default, Some("present")), Choice::Present);
        assert_eq!(of(Choice::Present, Some("v1")), Choice::Present);
        assert_eq!(of(revision("v2"), Some("present")), revision("v2"));
    }

    #[tokio::test]
    async fn a_version_that_does_not_build_is_an_error_that_names_the_way_out() {
        let repository = Repository::new().await;
        for choice in [Choice::Default, Choice::Revision("HEAD^".to_owned())] {
            let error = repository.prepare(choice, PATIENCE).await.unwrap_err();
            assert!(matches!(error, PreviousError::Broken { .. }), "{error}");
            let text = error.to_string();
            assert!(text.contains("broken") && text.contains("WARMCAST_PREVIOUS=present"), "{text}");
        }
    }

    #[tokio::test]
    async fn what_no_commit_can_help_is_told_as_its_kind_and_is_no_error() {
        let repository = Repository::new().await;
        let late = repository.prepare(Choice::Default, Duration::ZERO).await.unwrap();
        assert_eq!(excuse(&late), Some(Excuse::Late));
        let present = repository.prepare(Choice::Present, PATIENCE).await.unwrap();
        assert_eq!(excuse(&present), Some(Excuse::AskedFor));

        let (origin, shallow) = (format!("file://{}", repository.path.display()), "shallow");
        repository.git(&["clone", "--quiet", "--depth", "1", &origin, shallow]).await;
        let copy = repository.directory.path().join("copy");
        std::fs::create_dir(&copy).unwrap();
        for path in [repository.path.join(shallow), copy] {
            let of = prepare_of(&path, &path.join("target"), &Choice::Default, PATIENCE).await.unwrap();
            assert_eq!(excuse(&of), Some(Excuse::NoHistory), "{of:?}");
            let json = of.in_json();
            assert_eq!((&json["revision"], &json["why"]["kind"]), (&Value::Null, &json!("no_history")));
        }
    }
}
