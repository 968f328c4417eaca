//! Dead letters: records that cannot be used are set aside with everything needed to look into them and to
//! send them again, so that no record blocks a shard and none vanishes.
//!
//! They go to a local directory, one JSON object a line. The directory is bounded: when the current file has
//! half of the bound, it becomes `dead-letters.1.jsonl` and the file of that name before it goes.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use parking_lot::Mutex;

use crate::clock::now_ms;
use crate::config::Section;

/// The `[dead_letters]` section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetterConfig {
    /// Where the files are; it is created if it is missing.
    pub directory: PathBuf,
    /// The most that the files may have together, in bytes; at least 8 MiB, so that half of it holds any record.
    pub bytes_max: u64,
}

impl DeadLetterConfig {
    /// Takes the section's fields.
    pub fn read(mut section: Section, default_directory: &str) -> Self {
        let config = Self {
            directory: section.path("directory").unwrap_or_else(|| PathBuf::from(default_directory)),
            bytes_max: section.integer("bytes_max", 8 << 20..=1 << 40, 256 << 20),
        };
        section.finish();
        config
    }
}

/// One record set aside.
#[derive(Clone, Debug)]
pub struct DeadLetter<'a> {
    /// The stream that it came from.
    pub stream: &'a str,
    /// The shard, where it is known.
    pub shard: Option<&'a str>,
    /// Its position in the shard, if it had one.
    pub sequence: Option<&'a str>,
    /// Why it could not be used.
    pub reason: &'a str,
    /// What it was, in the form that [`DeadLetter::form`] names.
    pub bytes: &'a [u8],
    /// What the bytes are: `kinesis-record`, `frame`, `stream-record-text`.
    pub form: &'a str,
}

/// The directory could not be used.
#[derive(Debug, thiserror::Error)]
#[error(
    "dead-letter directory {directory}: {source} (set dead_letters.directory to one that can be written)"
)]
pub struct OpenError {
    directory: PathBuf,
    source: std::io::Error,
}

/// Writes dead letters. The writes block: they are rare, small and bounded.
#[derive(Debug)]
pub struct DeadLetters {
    directory: PathBuf,
    file_bytes_max: u64,
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    file: File,
    bytes: u64,
}

impl DeadLetters {
    /// Opens or creates the directory.
    ///
    /// # Errors
    /// When it cannot be created or written.
    pub fn open(config: &DeadLetterConfig) -> Result<Self, OpenError> {
        let failed = |source| OpenError { directory: config.directory.clone(), source };
        std::fs::create_dir_all(&config.directory).map_err(failed)?;
        let current = Current::open(&current_path(&config.directory)).map_err(failed)?;
        Ok(Self {
            directory: config.directory.clone(),
            file_bytes_max: config.bytes_max / 2,
            current: Mutex::new(current),
        })
    }

    /// Sets a record aside and logs it. If even that fails (a full disk), the log line has the position, and
    /// the record can be read again from the stream while it is kept there.
    pub fn set_aside(&self, letter: &DeadLetter<'_>) {
        let line = line(letter);
        match self.append(line.as_bytes()) {
            Ok(()) => tracing::error!(
                stream = letter.stream,
                shard = letter.shard,
                sequence = letter.sequence,
                reason = letter.reason,
                directory = %self.directory.display(),
                "record set aside as a dead letter"
            ),
            Err(error) => tracing::error!(
                stream = letter.stream,
                shard = letter.shard,
                sequence = letter.sequence,
                reason = letter.reason,
                %error,
                directory = %self.directory.display(),
                "record could not be used nor written to the dead letters; read it again from its position"
            ),
        }
    }

    fn append(&self, line: &[u8]) -> std::io::Result<()> {
        let mut current = self.current.lock();
        let bytes = line.len() as u64;
        if current.bytes > 0 && current.bytes + bytes > self.file_bytes_max {
            let path = current_path(&self.directory);
            std::fs::rename(&path, self.directory.join("dead-letters.1.jsonl"))?;
            *current = Current::open(&path)?;
            tracing::warn!(directory = %self.directory.display(), "dead letters rotated; the oldest are gone");
        }
        current.file.write_all(line)?;
        current.bytes += bytes;
        Ok(())
    }
}

impl Current {
    fn open(path: &Path) -> std::io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let bytes = file.metadata()?.len();
        Ok(Self { file, bytes })
    }
}

fn current_path(directory: &Path) -> PathBuf {
    directory.join("dead-letters.jsonl")
}

fn line(letter: &DeadLetter<'_>) -> String {
    let value = serde_json::json!({
        "at_ms": now_ms(),
        "stream": letter.stream,
        "shard": letter.shard,
        "sequence": letter.sequence,
        "reason": letter.reason,
        "form": letter.form,
        "bytes_base64": BASE64_STANDARD.encode(letter.bytes),
    });
    format!("{value}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(bytes: &[u8]) -> DeadLetter<'_> {
        DeadLetter {
            stream: "s",
            shard: Some("shard-1"),
            sequence: Some("42"),
            reason: "bad magic",
            bytes,
            form: "kinesis-record",
        }
    }

    #[test]
    fn a_letter_has_everything_needed_to_send_it_again() {
        let directory = tempfile::tempdir().unwrap();
        let config = DeadLetterConfig { directory: directory.path().join("new"), bytes_max: 1 << 20 };
        DeadLetters::open(&config).unwrap().set_aside(&letter(b"\xff\x00"));
        DeadLetters::open(&config).unwrap().set_aside(&letter(b"two"));
        let text = std::fs::read_to_string(config.directory.join("dead-letters.jsonl")).unwrap();
        let lines: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(lines.len(), 2, "a file is continued after a restart");
        assert_eq!(lines[0]["sequence"], "42");
        assert_eq!(lines[0]["reason"], "bad magic");
        assert_eq!(BASE64_STANDARD.decode(lines[0]["bytes_base64"].as_str().unwrap()).unwrap(), b"\xff\x00");
    }

    #[test]
    fn the_directory_never_outgrows_its_bound() {
        let directory = tempfile::tempdir().unwrap();
        let config = DeadLetterConfig { directory: directory.path().to_owned(), bytes_max: 65_536 };
        let letters = DeadLetters::open(&config).unwrap();
        for _ in 0..200 {
            letters.set_aside(&letter(&[7; 1_000]));
            let total: u64 = std::fs::read_dir(&config.directory)
                .unwrap()
                .map(|f| f.unwrap().metadata().unwrap().len())
                .sum();
            assert!(total <= config.bytes_max, "{total}");
        }
        assert!(directory.path().join("dead-letters.1.jsonl").exists());
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let config = DeadLetterConfig { directory: file.path().join("below"), bytes_max: 65_536 };
        let error = DeadLetters::open(&config).unwrap_err().to_string();
        assert!(error.contains("dead_letters.directory"), "{error}");
    }
}
