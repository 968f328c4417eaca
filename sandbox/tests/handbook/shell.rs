//! The operator's shell: in a directory with `aggregator.toml` and `cache-writer.toml`, and with the programs in its path.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::timeout;
use warmcast_sandbox::daemon::{CommandOutput, clean_environment};
use warmcast_sandbox::world::World;

/// No command of the handbook takes longer on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// When a difference is looked at again: the sandbox has seconds for what a production system has minutes for. The last
/// is beyond the lag of its watermark: what is not known to be applied by then is not judged.
const LOOKS: &str = "1s,6s";

pub(crate) struct Shell {
    directory: TempDir,
    path: String,
    variables: BTreeMap<&'static str, String>,
}

impl Shell {
    /// That of an operator who looks after the aggregator, and after a region.
    pub(crate) fn new(world: &World, region: usize) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (aggregator, region) = (world.aggregator(), &world.regions()[region]);
        symlink(aggregator.config(), directory.path().join("aggregator.toml")).unwrap();
        symlink(region.cache_writer().config(), directory.path().join("cache-writer.toml")).unwrap();
        let binaries = aggregator.binaries().unwrap();
        let own = directory.path().join("bin");
        fs::create_dir(&own).unwrap();
        let writer = binaries.join("cache-writer");
        let hurried = format!(
            "#!/bin/sh\nif [ \"$1\" = verify ]; then set -- \"$@\" --looks {LOOKS}; fi\nexec {} \"$@\"\n",
            writer.display()
        );
        executable(&own.join("cache-writer"), &hurried);
        let inherited = std::env::var("PATH").unwrap();
        let path = format!("{}:{}:{inherited}", own.display(), binaries.display());
        let variables = BTreeMap::from([("REDIS_URL", region.redis().url())]);
        Self { directory, path, variables }
    }

    /// What `$NAME` stands for from now on.
    pub(crate) fn set(&mut self, name: &'static str, value: &str) {
        self.variables.insert(name, value.to_owned());
    }

    /// Writes a file that commands name.
    pub(crate) fn write(&self, file: &str, text: &str) {
        fs::write(self.directory.path().join(file), text).unwrap();
    }

    /// Runs a command line to its end.
    pub(crate) async fn run(&self, line: &str) -> CommandOutput {
        let mut command = Command::new("sh");
        clean_environment(&mut command);
        command.arg("-euc").arg(line).current_dir(self.directory.path());
        command.env("PATH", &self.path).envs(&self.variables);
        command.stdin(Stdio::null()).kill_on_drop(true);
        let output = timeout(PATIENCE, command.output()).await;
        let output = output.unwrap_or_else(|_| panic!("not done within {PATIENCE:?}: {line}"));
        CommandOutput::new(line.to_owned(), output.unwrap())
    }
}

fn executable(file: &Path, text: &str) {
    fs::write(file, text).unwrap();
    fs::set_permissions(file, fs::Permissions::from_mode(0o755)).unwrap();
}
