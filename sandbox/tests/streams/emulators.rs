//! ministack, an emulator of AWS in Python, as a child process.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::process::Command;
use tokio::time::{Instant, sleep};
use warmcast_sandbox::dynamodb::MASTER_REGION;
use warmcast_sandbox::{Log, Process, clients};

const START_PATIENCE: Duration = Duration::from_secs(60);
const START_ATTEMPTS: u32 = 3;
const STOP_PATIENCE: Duration = Duration::from_secs(5);
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// A running ministack. Dropping it kills it.
pub(crate) struct Ministack {
    url: String,
    process: Process,
}

impl Ministack {
    /// Starts one with nothing in it and waits until it answers. Its files go to `directory`.
    pub(crate) async fn start(directory: &Path) -> Result<Self> {
        let python = python();
        ensure!(python.is_file(), "ministack is not installed: there is no {}", python.display());
        let mut attempts = START_ATTEMPTS;
        loop {
            attempts -= 1;
            match Self::try_start(&python, directory).await {
                // The port may have been taken between our look and its start.
                Err(_) if attempts > 0 => {}
                outcome => return outcome,
            }
        }
    }

    async fn try_start(python: &Path, directory: &Path) -> Result<Self> {
        let port = std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let log = Log::create("ministack", directory)?;
        let mut command = Command::new(python);
        command
            .args(["-m", "ministack"])
            .env("GATEWAY_PORT", port.to_string())
            .env("BIND_HOST", "127.0.0.1")
            .env("SERVICES", "dynamodb,dynamodbstreams")
            .env("TMPDIR", directory)
            .current_dir(directory);
        let mut process = Process::spawn("ministack", command, &log)?;
        let url = format!("http://127.0.0.1:{port}");
        let client = clients::dynamodb(&url, MASTER_REGION);
        let deadline = Instant::now() + START_PATIENCE;
        loop {
            let ended = process.exit_status();
            ensure!(ended.is_none(), "ministack ended with {ended:?}:\n{}", log.tail().join("\n"));
            if client.list_tables().send().await.is_ok() {
                return Ok(Self { url, process });
            }
            ensure!(Instant::now() < deadline, "ministack does not answer:\n{}", log.tail().join("\n"));
            // Another process starts: there is no event to wait for.
            sleep(POLL_INTERVAL).await;
        }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) async fn stop(self) -> Result<()> {
        self.process.terminate(STOP_PATIENCE).await.context("ministack does not stop")?;
        Ok(())
    }
}

/// Where the set-up puts the Python that has it.
fn python() -> PathBuf {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or_else(|| Path::new("."));
    checkout.join(".tools/ministack/bin/python")
}
