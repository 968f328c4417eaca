//! The Debian package: made of the programs that are tested here, installed into an empty root, run there as its units say,
//! and purged.
//!
//! A stand-in starts them as systemd would: it takes command line, environment, watchdog, restarts and limits from the
//! installed unit, and listens where the process tells how it does. The real systemd is a command of its own, because not
//! every machine can boot one: `make package-test`, whose output is in docs/deploying.md.

mod service;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use tempfile::TempDir;
use tokio::process::Command;
use warmcast_sandbox::daemon::Daemon;
use warmcast_sandbox::world::{World, WorldOptions};

use crate::support::*;
use service::Service;

/// `systemd-analyze security` judges from 0 (safe) to 10, and takes ten times that.
const EXPOSURE_MAX: &str = "20";
const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// An empty root, with nothing but an empty database of packages.
struct Root(TempDir);

impl Root {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        for directory in ["info", "updates", "triggers"] {
            std::fs::create_dir_all(root.path().join("var/lib/dpkg").join(directory)).unwrap();
        }
        std::fs::write(root.path().join("var/lib/dpkg/status"), "").unwrap();
        Self(root)
    }

    fn path(&self, of: &str) -> PathBuf {
        self.0.path().join(of)
    }

    /// Its maintainer scripts run here, on the files there. What it depends on is here, too.
    async fn dpkg(&self, arguments: &[&str]) {
        let mut dpkg = Command::new("dpkg");
        dpkg.arg("--root").arg(self.0.path()).arg("--log").arg(self.path("dpkg.log"));
        dpkg.args(["--force-script-chrootless", "--force-not-root", "--force-bad-path", "--force-depends"]);
        succeed(dpkg.args(arguments)).await;
    }

    /// Every file, directory and link; without the database.
    fn content(&self) -> BTreeSet<PathBuf> {
        let (mut found, mut waiting) = (BTreeSet::new(), vec![self.0.path().to_owned()]);
        while let Some(directory) = waiting.pop() {
            for entry in std::fs::read_dir(&directory).unwrap() {
                let path = entry.unwrap().path();
                let inner = path.strip_prefix(self.0.path()).unwrap().to_owned();
                if !inner.starts_with("var/lib/dpkg") && !inner.starts_with("dpkg.log") {
                    if path.is_dir() && !path.is_symlink() {
                        waiting.push(path);
                    }
                    found.insert(inner);
                }
            }
        }
        found
    }
}

/// What it prints; all of it if it fails.
async fn succeed(command: &mut Command) -> String {
    let output = command.kill_on_drop(true).output().await.unwrap();
    let printed = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(output.status.success(), "{command:?}: {}\n{}", output.status, printed.concat());
    printed.concat()
}

async fn package(programs: &Path, directory: &Path) -> PathBuf {
    let mut build = Command::new("config/package/build.sh");
    // Otherwise it asks git for the time of the latest commit, which a copy of the sources does not have.
    build.env("DRAFT", "yes").env("SOURCE_DATE_EPOCH", "1700000000");
    succeed(build.arg(programs).arg(directory).current_dir(REPOSITORY)).await;
    let mut made = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    made.find(|path| path.extension().is_some_and(|extension| extension == "deb")).unwrap()
}

/// What systemd itself says of a unit: that it is one, and how much of the machine it leaves to the process.
async fn assert_good_unit(root: &Root, name: &str) {
    let unit = std::fs::read_to_string(root.path("usr/lib/systemd/system").join(name)).unwrap();
    let programs = root.path("usr/bin/").display().to_string();
    let copy = root.path(name);
    std::fs::write(&copy, unit.replace("ExecStart=/usr/bin/", &format!("ExecStart={programs}"))).unwrap();
    let analyze = |arguments: &[&str]| {
        let mut command = Command::new("systemd-analyze");
        command.args(arguments).arg(&copy).env("SYSTEMD_COLORS", "0");
        command
    };
    assert_eq!(succeed(&mut analyze(&["--man=no", "verify"])).await, "");
    let threshold = format!("--threshold={EXPOSURE_MAX}");
    succeed(&mut analyze(&["--no-pager", "--offline=true", &threshold, "security"])).await;
    std::fs::remove_file(copy).unwrap();
}

/// The health check of a container: the program itself asks the daemon that runs.
async fn assert_healthy(root: &Root, service: &Service) {
    let lines = service.log().tail();
    let listens = |line: &&String| line.contains("the admin endpoint listens");
    let line: serde_json::Value = serde_json::from_str(lines.iter().rev().find(listens).unwrap()).unwrap();
    let address = line["address"].as_str().unwrap_or_else(|| panic!("{line}"));
    let mut health = Command::new(root.path("usr/bin").join(service.name()));
    let config = root.path("etc/warmcast").join(format!("{}.toml", service.name()));
    health.arg("health").arg("--config").arg(config).arg("--set").arg(format!("admin.listen={address}"));
    succeed(&mut health).await;
}

/// A daemon of the world, as the administrator of the root would configure it.
fn configure(root: &Root, daemon: &Daemon, program: &str) {
    std::fs::copy(daemon.config(), root.path("etc/warmcast").join(format!("{program}.toml"))).unwrap();
    // What the unit has systemd make.
    std::fs::create_dir_all(root.path("var/lib/warmcast").join(program)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_package_is_installed_runs_as_its_units_say_and_is_purged_without_a_trace() {
    let world = World::start_servers(&WorldOptions { regions: 1, ..Default::default() }).await.unwrap();
    let writer = world.regions()[0].cache_writer();
    let out = world.directory().join("package");
    let package = package(&world.aggregator().binaries().unwrap(), &out).await;
    let root = Root::new();
    let empty = root.content();
    root.dpkg(&["--install", package.to_str().unwrap()]).await;

    // Nothing is enabled, and there is no configuration to start with.
    let installed = root.content();
    assert!(!installed.iter().any(|path| path.to_string_lossy().contains(".wants/")), "{installed:#?}");
    assert!(
        !installed
            .iter()
            .any(|path| path.extension().is_some_and(|end| end == "toml") && path.starts_with("etc"))
    );
    for name in ["warmcast-aggregator.service", "warmcast-cache-writer.service"] {
        assert_good_unit(&root, name).await;
    }

    let mut aggregator = Service::installed(root.0.path(), "aggregator", world.directory());
    let mut cache_writer = Service::installed(root.0.path(), "cache-writer", world.directory());
    aggregator.start();
    let ended = aggregator.ended().await;
    assert_eq!(ended.code(), Some(64), "without a configuration: {:#?}", aggregator.log().tail());
    assert!(!aggregator.is_restarted(ended), "a configuration does not get better by itself");

    configure(&root, world.aggregator(), "aggregator");
    configure(&root, writer, "cache-writer");
    aggregator.start();
    cache_writer.start();
    for service in [&mut aggregator, &mut cache_writer] {
        service.told("READY=1").await;
        service.told("WATCHDOG=1").await;
        service.told("STATUS=running: ").await;
        assert_healthy(&root, service).await;
    }
    put(&world, TABLE, Default::default(), "row-1").await;
    wait_for_entry(&world, 0, (TABLE, "row-1"), is_live).await;

    for service in [&mut aggregator, &mut cache_writer] {
        service.signal(Signal::KILL);
        let ended = service.ended().await;
        assert!(service.is_restarted(ended), "{ended}");
        service.start();
        service.told("READY=1").await;
    }
    put(&world, TABLE, Default::default(), "row-2").await;
    wait_for_entry(&world, 0, (TABLE, "row-2"), is_live).await;

    for service in [&mut aggregator, &mut cache_writer] {
        service.signal(Signal::TERM);
        service.told("STOPPING=1").await;
        let ended = service.ended().await;
        assert!(ended.success(), "{ended}: {:#?}", service.log().tail());
        assert!(
            service.log().tail().iter().any(|line| line.contains("drained")),
            "{:#?}",
            service.log().tail()
        );
    }
    root.dpkg(&["--purge", "warmcast"]).await;
    // The directory of Debian's bookkeeping of units, which is empty, is not ours.
    let left = root.content();
    let traces: Vec<_> = left.difference(&empty).filter(|path| !path.ends_with("var/lib/systemd")).collect();
    assert_eq!(traces, Vec::<&PathBuf>::new());
    stop(world).await;
}
