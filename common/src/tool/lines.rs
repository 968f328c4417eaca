//! Lists in files: keys, one on a line.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};

/// The longest line: a key in DynamoDB's JSON, with names and escapes (AWS: keys of 2,048 and 1,024 bytes).
const LINE_BYTES_MAX: usize = 32 << 10;

/// Why a list could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LinesError {
    /// The file.
    #[error("read {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A line that no key can be.
    #[error("{path}, line {line}: longer than {LINE_BYTES_MAX} bytes")]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Counted from one.
        line: usize,
    },
    /// More lines than are taken at once.
    #[error("{path} has more than {lines_max} lines: split it")]
    TooMany {
        /// The file.
        path: PathBuf,
        /// The bound.
        lines_max: usize,
    },
}

/// The lines of a file, or of standard input for `-`, without spaces around them, empty ones and those that begin with
/// `#` left out. Blocks.
///
/// # Errors
/// The file cannot be read as text, a line is too long, or there are more than `lines_max`.
pub fn read_lines(path: &Path, lines_max: usize) -> Result<Vec<String>, LinesError> {
    let failed = |source| LinesError::File { path: path.to_owned(), source };
    if path.as_os_str() == "-" {
        return read(io::stdin().lock(), path, lines_max);
    }
    read(BufReader::new(File::open(path).map_err(failed)?), path, lines_max)
}

fn read(mut input: impl BufRead, path: &Path, lines_max: usize) -> Result<Vec<String>, LinesError> {
    let mut lines = Vec::new();
    let mut text = String::new();
    for line in 1.. {
        text.clear();
        let read = input.by_ref().take(LINE_BYTES_MAX as u64 + 1).read_line(&mut text);
        let read = read.map_err(|source| LinesError::File { path: path.to_owned(), source })?;
        if read == 0 {
            break;
        }
        if read > LINE_BYTES_MAX {
            return Err(LinesError::TooLong { path: path.to_owned(), line });
        }
        let trimmed = text.trim();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            continue;
        }
        if lines.len() == lines_max {
            return Err(LinesError::TooMany { path: path.to_owned(), lines_max });
        }
        lines.push(trimmed.to_owned());
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str, lines_max: usize) -> Result<Vec<String>, LinesError> {
        read(text.as_bytes(), Path::new("keys"), lines_max)
    }

    #[test]
    fn lines_are_trimmed_and_comments_left_out() {
        assert_eq!(lines("a\n\n# no\n  b c \r\nd", 3).unwrap(), ["a", "b c", "d"]);
        assert!(lines("", 0).unwrap().is_empty());
    }

    #[test]
    fn too_much_is_refused_with_where() {
        assert_eq!(lines("a\nb\n", 1).unwrap_err().to_string(), "keys has more than 1 lines: split it");
        let long = format!("a\n{}", "x".repeat(LINE_BYTES_MAX + 1));
        assert_eq!(lines(&long, 9).unwrap_err().to_string(), "keys, line 2: longer than 32768 bytes");
        assert!(lines(&"x".repeat(LINE_BYTES_MAX), 9).is_ok());
        assert!(matches!(read([0xff_u8].as_slice(), Path::new("k"), 9), Err(LinesError::File { .. })));
        assert!(matches!(read_lines(Path::new("/nonexistent"), 1), Err(LinesError::File { .. })));
    }
}
