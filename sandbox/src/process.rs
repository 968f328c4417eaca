//! Child processes that end with their owner.
//!
//! Each child gets its own process group, so the terminal's Ctrl-C reaches the sandbox alone and the sandbox
//! decides in which order things stop. A child is killed when its handle is dropped: an early return or a
//! panic leaves no orphan. What a child prints goes to its [`Log`].

use std::io;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

use crate::log::{self, Log};

/// Why a child process could not be started or controlled.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The program could not be executed.
    #[error(
        "cannot start {name} ({program}): {source}. Run `make demo` or `make test`: they install what is missing"
    )]
    Spawn {
        /// What the child is to the sandbox.
        name: String,
        /// The executable.
        program: String,
        /// The operating system's answer.
        source: io::Error,
    },
    /// A signal or a wait failed.
    #[error("cannot {action} {name}: {source}")]
    Control {
        /// What was tried.
        action: &'static str,
        /// What the child is to the sandbox.
        name: String,
        /// The operating system's answer.
        source: io::Error,
    },
}

/// A running child process. Dropping it kills the child.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    /// The tasks that copy the child's output to its log. They end with the child.
    readers: JoinSet<()>,
}

impl Process {
    /// Starts `command` with its output going to `log`.
    ///
    /// # Errors
    /// The program is missing or may not be executed.
    pub fn spawn(name: &str, mut command: Command, log: &Arc<Log>) -> Result<Self, ProcessError> {
        let program = command.as_std().get_program().to_string_lossy().into_owned();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| ProcessError::Spawn { name: name.to_owned(), program, source })?;
        let mut readers = JoinSet::new();
        if let Some(stdout) = child.stdout.take() {
            readers.spawn(log::copy(stdout, Arc::clone(log)));
        }
        if let Some(stderr) = child.stderr.take() {
            readers.spawn(log::copy(stderr, Arc::clone(log)));
        }
        Ok(Self { name: name.to_owned(), child, readers })
    }

    /// The process id, or `None` once the child has been waited for.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// How the child ended, if it has.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        // An error here means that the child cannot be waited for: it is gone as far as we can tell, but
        // without a status. The caller's own deadline covers it.
        self.child.try_wait().ok().flatten()
    }

    /// Sends a signal to the child. A child that has already been waited for is left alone: its id may
    /// belong to someone else by now.
    ///
    /// # Errors
    /// The operating system refuses the signal.
    pub fn signal(&self, signal: Signal) -> Result<(), ProcessError> {
        let Some(pid) = self.pid().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw) else {
            return Ok(());
        };
        kill_process(pid, signal).map_err(|errno| self.control_error("signal", errno.into()))
    }

    /// Asks the child to end (SIGTERM), and kills it when it has not ended after `patience`.
    ///
    /// # Errors
    /// The operating system refuses a signal or the wait.
    pub async fn terminate(mut self, patience: Duration) -> Result<ExitStatus, ProcessError> {
        self.signal(Signal::TERM)?;
        match tokio::time::timeout(patience, self.child.wait()).await {
            Ok(waited) => {
                let status = waited.map_err(|source| self.control_error("wait for", source))?;
                self.drain_output().await;
                Ok(status)
            }
            Err(_) => self.kill().await,
        }
    }

    /// Ends the child at once (SIGKILL).
    ///
    /// # Errors
    /// The operating system refuses the signal or the wait.
    pub async fn kill(mut self) -> Result<ExitStatus, ProcessError> {
        self.signal(Signal::KILL)?;
        let status = self.child.wait().await.map_err(|source| self.control_error("wait for", source))?;
        self.drain_output().await;
        Ok(status)
    }

    /// Waits until the last words of an ended child are in its log. Bounded, because a grandchild could keep
    /// the pipe open.
    async fn drain_output(&mut self) {
        let drained = async { while self.readers.join_next().await.is_some() {} };
        if tokio::time::timeout(Duration::from_secs(1), drained).await.is_err() {
            self.readers.abort_all();
        }
    }

    fn control_error(&self, action: &'static str, source: io::Error) -> ProcessError {
        ProcessError::Control { action, name: self.name.clone(), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.arg("-c").arg(script);
        command
    }

    fn is_running(pid: u32) -> bool {
        // A killed child that nobody has waited for yet is a zombie: ended, for our purpose.
        std::fs::read_to_string(format!("/proc/{pid}/stat"))
            .is_ok_and(|stat| !stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" Z")))
    }

    #[tokio::test]
    async fn output_of_an_ended_child_is_in_its_log() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::create("child", dir.path()).unwrap();
        let process = Process::spawn("child", shell("echo out; echo err >&2; exec sleep 60"), &log).unwrap();
        log.wait_for_line(|line| line == "err", Duration::from_secs(10)).await.unwrap();
        let status = process.terminate(Duration::from_secs(10)).await.unwrap();
        assert!(!status.success());
        let mut tail = log.tail();
        tail.sort();
        assert_eq!(tail, ["err", "out"]);
    }

    #[tokio::test]
    async fn a_child_that_ignores_sigterm_is_killed() {
        use std::os::unix::process::ExitStatusExt as _;
        let dir = tempfile::tempdir().unwrap();
        let log = Log::create("stubborn", dir.path()).unwrap();
        let script = "trap '' TERM; echo ready; while :; do sleep 0.1; done";
        let process = Process::spawn("stubborn", shell(script), &log).unwrap();
        log.wait_for_line(|line| line == "ready", Duration::from_secs(10)).await.unwrap();
        let status = process.terminate(Duration::from_millis(300)).await.unwrap();
        assert_eq!(status.signal(), Some(9));
    }

    #[tokio::test]
    async fn a_dropped_handle_kills_the_child() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::create("dropped", dir.path()).unwrap();
        let process = Process::spawn("dropped", shell("exec sleep 60"), &log).unwrap();
        let pid = process.pid().unwrap();
        assert!(is_running(pid));
        drop(process);
        let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
        while is_running(pid) {
            assert!(tokio::time::Instant::now() < deadline, "process {pid} outlives its handle");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn a_missing_program_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::create("none", dir.path()).unwrap();
        let error = Process::spawn("Redis", Command::new("no-such-program"), &log).unwrap_err();
        assert!(error.to_string().contains("no-such-program"), "{error}");
    }
}
