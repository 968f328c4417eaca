//! What a child process prints: its last lines, its warnings, and the daemons' counters.
//!
//! The daemons write JSON lines. The line whose message is `stats` carries counters since the daemon's start;
//! they are added up across restarts here. Every other line goes to a file, which is rotated once, so a sandbox
//! that runs for a week fills no disk.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader};
use tokio::sync::watch;
use tokio::time::timeout;

/// Lines kept in memory for each child.
const TAIL_LINES_MAX: usize = 200;
/// A longer line is cut here, and its rest counts as the next line.
const LINE_BYTES_MAX: u64 = 64 * 1024;
/// A log file that reaches this size becomes `<name>.log.1`, replacing an older one.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The log of one child, across its restarts.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    state: Mutex<State>,
    /// Number of lines seen; changes tell waiters to look again.
    lines: watch::Sender<u64>,
}

#[derive(Debug)]
struct State {
    tail: VecDeque<String>,
    file: File,
    file_bytes: u64,
    warnings: u64,
    errors: u64,
    stats: Stats,
}

/// A daemon's counters, added up across restarts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// The sums of the runs that have ended.
    ended: BTreeMap<String, u64>,
    /// The latest line of the current run.
    current: BTreeMap<String, u64>,
}

impl Stats {
    /// A cumulative counter; 0 when the daemon has not named it yet.
    #[must_use]
    pub fn total(&self, counter: &str) -> u64 {
        let value = |run: &BTreeMap<String, u64>| run.get(counter).copied().unwrap_or(0);
        value(&self.ended).saturating_add(value(&self.current))
    }

    /// What the current run reported last, for what is no counter; `None` when it has not named it yet.
    #[must_use]
    pub fn now(&self, gauge: &str) -> Option<u64> {
        self.current.get(gauge).copied()
    }

    /// Whether the current run has reported at all.
    #[must_use]
    pub fn is_reported(&self) -> bool {
        !self.current.is_empty()
    }

    fn report(&mut self, counters: BTreeMap<String, u64>) {
        self.current = counters;
    }

    fn end_run(&mut self) {
        for (counter, value) in std::mem::take(&mut self.current) {
            let sum = self.ended.entry(counter).or_default();
            *sum = sum.saturating_add(value);
        }
    }
}

/// A condition on the log did not come true in time.
#[derive(Debug, thiserror::Error)]
#[error("no such line in {} within {waited:?}", path.display())]
pub struct LineMissing {
    path: PathBuf,
    waited: Duration,
}

impl Log {
    /// Opens `<name>.log` in `directory`.
    ///
    /// # Errors
    /// The file cannot be created.
    pub fn create(name: &str, directory: &Path) -> io::Result<Arc<Self>> {
        let path = directory.join(format!("{name}.log"));
        let state = State {
            tail: VecDeque::with_capacity(TAIL_LINES_MAX),
            file: File::create(&path)?,
            file_bytes: 0,
            warnings: 0,
            errors: 0,
            stats: Stats::default(),
        };
        Ok(Arc::new(Self { path, state: Mutex::new(state), lines: watch::Sender::new(0) }))
    }

    /// Where the lines are written.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The last lines, oldest first, without the statistics.
    #[must_use]
    pub fn tail(&self) -> Vec<String> {
        self.state().tail.iter().cloned().collect()
    }

    /// Lines of level WARN so far.
    #[must_use]
    pub fn warnings(&self) -> u64 {
        self.state().warnings
    }

    /// Lines of level ERROR so far.
    #[must_use]
    pub fn errors(&self) -> u64 {
        self.state().errors
    }

    /// The counters as last reported.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.state().stats.clone()
    }

    /// Tells that the child has ended: the next one's counters start at 0 again.
    pub fn end_run(&self) {
        self.state().stats.end_run();
    }

    /// Waits until a line that meets the condition is among the last ones.
    ///
    /// # Errors
    /// There is none within `patience`.
    pub async fn wait_for_line(
        &self,
        is_it: impl Fn(&str) -> bool,
        patience: Duration,
    ) -> Result<(), LineMissing> {
        let mut lines = self.lines.subscribe();
        let found = async {
            loop {
                lines.mark_unchanged();
                if self.state().tail.iter().any(|line| is_it(line)) {
                    return;
                }
                // The sender lives in `self`, so this cannot fail while we wait.
                if lines.changed().await.is_err() {
                    return;
                }
            }
        };
        timeout(patience, found).await.map_err(|_| LineMissing { path: self.path.clone(), waited: patience })
    }

    fn push(&self, line: String) {
        self.state().push(line, &self.path);
        self.lines.send_modify(|count| *count += 1);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic while the lock was held leaves at worst a line unwritten.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn push(&mut self, line: String, path: &Path) {
        match Line::parse(&line) {
            Line::Stats(counters) => return self.stats.report(counters),
            Line::Warning => self.warnings += 1,
            Line::Error => self.errors += 1,
            Line::Other => {}
        }
        // A full disk must not stop the daemons: the lines are still in the tail.
        let _ = self.write(&line, path);
        if self.tail.len() == TAIL_LINES_MAX {
            self.tail.pop_front();
        }
        self.tail.push_back(line);
    }

    fn write(&mut self, line: &str, path: &Path) -> io::Result<()> {
        if self.file_bytes >= FILE_BYTES_MAX {
            std::fs::rename(path, path.with_extension("log.1"))?;
            self.file = File::create(path)?;
            self.file_bytes = 0;
        }
        writeln!(self.file, "{line}")?;
        self.file_bytes += line.len() as u64 + 1;
        Ok(())
    }
}

/// What a line means to us.
#[derive(Debug, PartialEq, Eq)]
enum Line {
    Stats(BTreeMap<String, u64>),
    Warning,
    Error,
    Other,
}

impl Line {
    fn parse(line: &str) -> Self {
        let Ok(serde_json::Value::Object(fields)) = serde_json::from_str(line) else { return Self::Other };
        if fields.get("message").and_then(|message| message.as_str()) == Some("stats") {
            let counters =
                fields.iter().filter_map(|(name, value)| Some((name.clone(), value.as_u64()?))).collect();
            return Self::Stats(counters);
        }
        match fields.get("level").and_then(|level| level.as_str()) {
            Some("WARN") => Self::Warning,
            Some("ERROR") => Self::Error,
            _ => Self::Other,
        }
    }
}

/// Copies a child's output to its log until the child closes it.
pub(crate) async fn copy(output: impl AsyncRead + Unpin, log: Arc<Log>) {
    let mut reader = BufReader::new(output);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut reader).take(LINE_BYTES_MAX).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => log.push(String::from_utf8_lossy(&line).trim_end().to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(applied: u64) -> String {
        format!(
            r#"{{"timestamp":"t","level":"INFO","message":"stats","changes_applied":{applied},"lag_ms":3}}"#
        )
    }

    #[test]
    fn counters_are_added_across_restarts() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::create("daemon", dir.path()).unwrap();
        log.push(stats(5));
        log.push(stats(7));
        log.end_run();
        assert!(!log.stats().is_reported());
        log.push(stats(2));
        assert_eq!(log.stats().total("changes_applied"), 9);
        assert_eq!(log.stats().total("unknown"), 0);
        assert_eq!((log.stats().now("lag_ms"), log.stats().now("unknown")), (Some(3), None));
        assert!(log.tail().is_empty(), "statistics stay out of the tail");
    }

    #[test]
    fn warnings_and_errors_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::create("daemon", dir.path()).unwrap();
        log.push(r#"{"level":"WARN","message":"throttled"}"#.to_owned());
        log.push(r#"{"level":"ERROR","message":"lost"}"#.to_owned());
        log.push("{not json WARN".to_owned());
        assert_eq!((log.warnings(), log.errors()), (1, 1));
    }

    #[test]
    fn the_tail_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::create("daemon", dir.path()).unwrap();
        for index in 0..TAIL_LINES_MAX + 10 {
            log.push(format!("line {index}"));
        }
        let tail = log.tail();
        assert_eq!(tail.len(), TAIL_LINES_MAX);
        assert_eq!(tail.first().unwrap(), "line 10");
        let written = std::fs::read_to_string(log.path()).unwrap();
        assert_eq!(written.lines().count(), TAIL_LINES_MAX + 10);
    }

    #[tokio::test]
    async fn a_line_without_end_is_cut() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::create("daemon", dir.path()).unwrap();
        let endless = vec![b'x'; usize::try_from(LINE_BYTES_MAX).unwrap() + 1];
        copy(endless.as_slice(), Arc::clone(&log)).await;
        assert_eq!(log.tail().iter().map(String::len).collect::<Vec<_>>(), [65536, 1]);
    }
}
