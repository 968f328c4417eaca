//! The repository's history: which commit was before, and a work tree of it.

use std::path::Path;

use tokio::process::Command;

use super::PreviousError;
use super::command::run;

/// A commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Commit {
    pub(super) id: String,
    /// What people call it.
    pub(super) subject: String,
}

/// The revision to upgrade from, or why there is none: a copy without a history, or with the last commit alone.
pub(super) async fn before(repository: &Path) -> Result<&'static str, String> {
    let changed = git(repository, &["status", "--porcelain", "--untracked-files=no"]).await;
    let changed = changed.map_err(|error| format!("there is no git history: {error}"))?;
    let revision = if changed.is_empty() { "HEAD^" } else { "HEAD" };
    let known = git(repository, &["rev-parse", "--verify", "--quiet", revision]).await;
    known.map(|_| revision).map_err(|_| format!("the git history has no {revision}"))
}

pub(super) async fn commit(repository: &Path, revision: &str) -> Result<Commit, PreviousError> {
    let id = git(repository, &["rev-parse", "--verify", &format!("{revision}^{{commit}}")]).await?;
    let subject = git(repository, &["log", "-1", "--format=%h, %s", &id]).await?;
    Ok(Commit { id, subject })
}

/// Makes the work tree that of `commit`. What is the same keeps its times, so that it is not built again.
pub(super) async fn check_out(
    repository: &Path,
    source: &Path,
    commit: &Commit,
) -> Result<(), PreviousError> {
    let id = &commit.id;
    if source.join(".git").exists()
        && git(source, &["checkout", "--quiet", "--force", "--detach", id]).await.is_ok()
    {
        return Ok(());
    }
    let at = source.to_string_lossy();
    // What a copied or moved target directory left behind.
    let _none = tokio::fs::remove_dir_all(source).await;
    git(repository, &["worktree", "prune"]).await?;
    git(repository, &["worktree", "add", "--quiet", "--force", "--force", "--detach", &at, id]).await?;
    Ok(())
}

pub(super) async fn git(directory: &Path, arguments: &[&str]) -> Result<String, PreviousError> {
    let mut command = Command::new("git");
    command.arg("-C").arg(directory).args(arguments);
    Ok(run("git", command).await?.trim().to_owned())
}
