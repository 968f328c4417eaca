//! The Redis of one region: a real `redis-server`, without persistence, on a loopback port.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use rustix::process::Signal;
use tokio::process::Command;
use tokio::time::{Instant, sleep};

use crate::log::Log;
use crate::process::{Process, ProcessError};
use crate::server::free_port;

const START_PATIENCE: Duration = Duration::from_secs(20);
const START_ATTEMPTS: u32 = 5;
const STOP_PATIENCE: Duration = Duration::from_secs(5);
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Why a Redis did not start or stop.
#[derive(Debug, thiserror::Error)]
pub enum RedisServerError {
    /// Its directory, its log or its port.
    #[error("cannot prepare the Redis of {region}: {source}")]
    Prepare {
        /// The region.
        region: String,
        /// What failed.
        source: io::Error,
    },
    /// The program is missing (Debian: package redis-server), or cannot be controlled.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// It ended, or did not answer in time.
    #[error("the Redis of {region} on port {port} does not answer: {reason}. Its last lines:\n{tail}")]
    NotReady {
        /// The region.
        region: String,
        /// Its port.
        port: u16,
        /// What was seen.
        reason: String,
        /// What it printed.
        tail: String,
    },
}

/// A Redis server and its place: it can be stopped and started again on the same port. Dropping it kills it.
#[derive(Debug)]
pub struct RedisServer {
    region: String,
    port: u16,
    directory: PathBuf,
    log: Arc<Log>,
    process: Option<Process>,
    flushed: AtomicBool,
}

impl RedisServer {
    /// Starts an empty Redis and waits until it answers. Its files go to `directory`.
    ///
    /// # Errors
    /// See [`RedisServerError`].
    pub async fn start(region: &str, directory: &Path) -> Result<Self, RedisServerError> {
        let prepare = |source| RedisServerError::Prepare { region: region.to_owned(), source };
        let log = Log::create(&format!("redis-{region}"), directory).map_err(prepare)?;
        let mut server = Self {
            region: region.to_owned(),
            port: 0,
            directory: directory.to_owned(),
            log,
            process: None,
            flushed: AtomicBool::new(false),
        };
        let mut attempts = START_ATTEMPTS;
        loop {
            attempts -= 1;
            server.port = free_port().map_err(prepare)?;
            match server.start_again().await {
                // The port may have been taken between our look and its start.
                Err(RedisServerError::NotReady { .. }) if attempts > 0 => {}
                outcome => return outcome.map(|()| server),
            }
        }
    }

    /// Starts a stopped or killed Redis again: the same port, no data.
    ///
    /// # Errors
    /// See [`RedisServerError`].
    pub async fn start_again(&mut self) -> Result<(), RedisServerError> {
        let mut command = Command::new("redis-server");
        command
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no"])
            .arg("--dir")
            .arg(&self.directory);
        let mut process = Process::spawn(&format!("Redis of {}", self.region), command, &self.log)?;
        let deadline = Instant::now() + START_PATIENCE;
        loop {
            if let Some(status) = process.exit_status() {
                return Err(self.not_ready(format!("it ended with {status}")));
            }
            if process.pid().is_some() && self.answering_pid().await == process.pid() {
                self.process = Some(process);
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(self.not_ready(format!("no answer within {START_PATIENCE:?}")));
            }
            // Another process starts: there is no event to wait for.
            sleep(POLL_INTERVAL).await;
        }
    }

    /// Which process answers on our port: it may be another's Redis.
    async fn answering_pid(&self) -> Option<u32> {
        let mut connection = self.connect().await.ok()?;
        let info: redis::InfoDict =
            redis::cmd("INFO").arg("server").query_async(&mut connection).await.ok()?;
        info.get("process_id")
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// Redis does not answer.
    pub async fn connect(&self) -> redis::RedisResult<MultiplexedConnection> {
        redis::Client::open(self.url())?.get_multiplexed_async_connection().await
    }

    /// `redis://127.0.0.1:<port>`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// The process id while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().and_then(Process::pid)
    }

    /// How it ended, if it has ended by itself.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        self.process.as_mut().and_then(Process::exit_status)
    }

    /// Makes it forget everything (FLUSHALL), as an operator's mistake would.
    ///
    /// # Errors
    /// Redis does not answer.
    pub async fn flush(&self) -> redis::RedisResult<()> {
        self.flushed.store(true, Ordering::Relaxed);
        redis::cmd("FLUSHALL").query_async(&mut self.connect().await?).await
    }

    /// Whether it was ever flushed: rows that nobody asked for since may be missing.
    #[must_use]
    pub fn was_flushed(&self) -> bool {
        self.flushed.load(Ordering::Relaxed)
    }

    /// Freezes it (SIGSTOP): connections stay open and nothing answers.
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn freeze(&self) -> Result<(), ProcessError> {
        self.signal(Signal::STOP)
    }

    /// Lets a frozen one go on (SIGCONT).
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn thaw(&self) -> Result<(), ProcessError> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<(), ProcessError> {
        self.process.as_ref().map_or(Ok(()), |process| process.signal(signal))
    }

    /// Kills it: all its data is lost.
    ///
    /// # Errors
    /// The operating system refuses.
    pub async fn kill(&mut self) -> Result<(), ProcessError> {
        if let Some(process) = self.process.take() {
            process.kill().await?;
        }
        Ok(())
    }

    /// Stops it.
    ///
    /// # Errors
    /// The operating system refuses.
    pub async fn stop(mut self) -> Result<(), ProcessError> {
        if let Some(process) = self.process.take() {
            process.terminate(STOP_PATIENCE).await?;
        }
        Ok(())
    }

    fn not_ready(&self, reason: String) -> RedisServerError {
        RedisServerError::NotReady {
            region: self.region.clone(),
            port: self.port,
            reason,
            tail: self.log.tail().join("\n"),
        }
    }
}
