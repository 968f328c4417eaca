//! A stand-in for systemd, for one service: what the unit's lines make of a process.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use tokio::net::UnixDatagram;
use tokio::process::Command;
use tokio::time::{sleep, timeout};
use warmcast_sandbox::log::Log;
use warmcast_sandbox::process::Process;

use crate::support::PATIENCE;

/// A service of a package that is installed below a root.
pub(super) struct Service {
    name: String,
    root: PathBuf,
    unit: Unit,
    log: Arc<Log>,
    notified: UnixDatagram,
    notify_path: PathBuf,
    /// What the process has told and nobody has asked for.
    waiting: VecDeque<String>,
    process: Option<Process>,
}

impl Service {
    /// The unit `warmcast-NAME.service`. Its socket and its log are in `directory`.
    pub(super) fn installed(root: &Path, name: &str, directory: &Path) -> Self {
        let file = root.join(format!("usr/lib/systemd/system/warmcast-{name}.service"));
        let unit = Unit(std::fs::read_to_string(file).unwrap());
        assert_eq!(unit.value("Type"), Some("notify"));
        let notify_path = directory.join(format!("{name}.notify"));
        Self {
            name: name.to_owned(),
            root: root.to_owned(),
            unit,
            log: Log::create(&format!("packaged-{name}"), directory).unwrap(),
            notified: UnixDatagram::bind(&notify_path).unwrap(),
            notify_path,
            waiting: VecDeque::new(),
            process: None,
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn log(&self) -> &Log {
        &self.log
    }

    pub(super) fn start(&mut self) {
        let line = self.unit.value("ExecStart").unwrap();
        let mut words = line.split_whitespace().map(|word| match word.strip_prefix('/') {
            Some(inner) => self.root.join(inner),
            None => PathBuf::from(word),
        });
        let mut command = Command::new(words.next().unwrap());
        command.args(words).env_clear();
        for line in self.environment_file().lines().filter(|line| !line.is_empty() && !line.starts_with('#'))
        {
            let (name, value) = line.split_once('=').unwrap();
            command.env(name, value);
        }
        let watchdog = Duration::from_secs(self.unit.seconds("WatchdogSec"));
        command
            .env("NOTIFY_SOCKET", &self.notify_path)
            .env("WATCHDOG_USEC", watchdog.as_micros().to_string());
        self.waiting.clear();
        self.process = Some(Process::spawn("a packaged daemon", command, &self.log).unwrap());
    }

    fn environment_file(&self) -> String {
        let path = self.unit.value("EnvironmentFile").unwrap().trim_start_matches("-/");
        std::fs::read_to_string(self.root.join(path)).unwrap()
    }

    /// Waits until the process tells something that begins so.
    pub(super) async fn told(&mut self, beginning: &str) {
        let telling = async {
            let mut datagram = [0; 4_096];
            loop {
                while let Some(line) = self.waiting.pop_front() {
                    if line.starts_with(beginning) {
                        return;
                    }
                }
                let length = self.notified.recv(&mut datagram).await.unwrap();
                let lines = String::from_utf8_lossy(&datagram[..length]).into_owned();
                self.waiting.extend(lines.lines().map(str::to_owned));
            }
        };
        let heard = timeout(PATIENCE, telling).await;
        assert!(heard.is_ok(), "not told {beginning} within {PATIENCE:?}: {:#?}", self.log.tail());
    }

    pub(super) fn signal(&self, signal: Signal) {
        self.process.as_ref().unwrap().signal(signal).unwrap();
    }

    /// Waits until the process has ended, as long as systemd would wait after a stop.
    pub(super) async fn ended(&mut self) -> ExitStatus {
        let mut process = self.process.take().unwrap();
        let patience = Duration::from_secs(self.unit.seconds("TimeoutStopSec"));
        let ending = async {
            loop {
                match process.exit_status() {
                    Some(status) => return status,
                    None => sleep(Duration::from_millis(10)).await,
                }
            }
        };
        timeout(patience, ending)
            .await
            .unwrap_or_else(|_| panic!("runs after {patience:?}: {:#?}", self.log.tail()))
    }

    /// Whether systemd would start it again after this end, which nobody asked it for; also after a thousand of them.
    pub(super) fn is_restarted(&self, ended: ExitStatus) -> bool {
        assert_eq!(
            (self.unit.value("Restart"), self.unit.value("StartLimitIntervalSec")),
            (Some("always"), Some("0"))
        );
        let prevented = self.unit.value("RestartPreventExitStatus").unwrap_or_default();
        let is_prevented = |code: i32| prevented.split_whitespace().any(|each| each == code.to_string());
        !ended.code().is_some_and(is_prevented)
    }
}

/// A unit file.
struct Unit(String);

impl Unit {
    /// The last assignment is the one that counts.
    fn value(&self, key: &str) -> Option<&str> {
        let mut assigned = self.0.lines().filter_map(|line| line.split_once('='));
        assigned.rfind(|(name, _)| *name == key).map(|(_, value)| value)
    }

    fn seconds(&self, key: &str) -> u64 {
        self.value(key).and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{key}"))
    }
}
