//! The build of the previous version's programs.
//!
//! The dependencies are those that are built already, if both versions have the same: intermediate files go to the same
//! place (`build.build-dir`), the programs to another, and our own crates are kept apart from the present ones by a
//! wrapper that does nothing (Cargo: a workspace wrapper is part of a member's identity, for clippy's sake).

use std::path::{Path, PathBuf};

use tokio::process::Command;

use super::PreviousError;
use super::command::run;

/// The daemons' programs.
const PROGRAMS: [&str; 2] = ["aggregator", "cache-writer"];
/// A wrapper of the compiler that changes nothing: it runs what it is given.
const WRAPPER: &str = "env";
const PROFILE: &str = if cfg!(debug_assertions) { "debug" } else { "release" };

/// The target directory of the present version: tests run from `debug/deps` or `release/deps` below it.
pub(super) fn target_directory() -> Result<PathBuf, PreviousError> {
    let executable =
        std::env::current_exe().map_err(|source| PreviousError::Run { program: "the sandbox", source })?;
    let profile = executable.ancestors().find(|path| path.ends_with(PROFILE));
    let target = profile.and_then(Path::parent).map(Path::to_owned);
    target.ok_or(PreviousError::Target { executable })
}

/// Builds what is in `source`, with `target` for the intermediate files. Returns the directory of the programs, below
/// `place`.
pub(super) async fn build(source: &Path, target: &Path, place: &Path) -> Result<PathBuf, PreviousError> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // With --examples, of which there are none, the libraries have the features that they have in the tests.
    cargo.args(["build", "--locked", "--quiet", "--workspace", "--examples"]);
    cargo.args(PROGRAMS.iter().flat_map(|program| ["--bin", program]));
    if PROFILE == "release" {
        cargo.arg("--release");
    }
    cargo
        .current_dir(source)
        .env("CARGO_TARGET_DIR", place)
        .env("CARGO_BUILD_BUILD_DIR", target)
        .env("RUSTC_WORKSPACE_WRAPPER", WRAPPER)
        .env_remove("CLIPPY_ARGS");
    run("cargo", cargo).await?;
    Ok(place.join(PROFILE))
}
