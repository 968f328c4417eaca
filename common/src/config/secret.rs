//! Secrets: values that are never printed, and the files that they are read from.

use std::io::Read as _;
use std::path::Path;

use zeroize::Zeroizing;

/// A value that must never be printed: its `Debug` does not show it. Its memory is overwritten when it is dropped (not
/// that of the copies which libraries make of it to send it).
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Wraps a value.
    pub fn new(value: impl Into<String>) -> Self {
        Self(Zeroizing::new(value.into()))
    }

    /// What a file has, without the end of its line. No more than `bytes_max` of it is read.
    ///
    /// # Errors
    /// When it cannot be read, or has nothing or more.
    pub fn of_file(path: &Path, bytes_max: u64) -> Result<Self, SecretFileError> {
        let file = std::fs::File::open(path)?;
        let mut text = Zeroizing::new(String::new());
        let bytes = file.take(bytes_max + 1).read_to_string(&mut text)?;
        let secret = text.strip_suffix('\n').unwrap_or(&text);
        let secret = secret.strip_suffix('\r').unwrap_or(secret);
        match secret {
            "" => Err(SecretFileError::Empty),
            _ if bytes as u64 > bytes_max => Err(SecretFileError::TooLarge),
            _ => Ok(Self::new(secret)),
        }
    }

    /// The value itself, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Why a file has no secret. What is in it is not told.
#[derive(Debug, thiserror::Error)]
pub enum SecretFileError {
    /// It cannot be read.
    #[error(transparent)]
    Unreadable(#[from] std::io::Error),
    /// There is nothing in it.
    #[error("it is empty")]
    Empty,
    /// There is more in it than a secret has.
    #[error("it is too large for a secret")]
    TooLarge,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secrets_file_has_one_line_of_bounded_length() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let read = |text: &str| {
            std::fs::write(file.path(), text).unwrap();
            Secret::of_file(file.path(), 8).map(|secret| secret.expose().to_owned())
        };
        assert_eq!(read("hunter2\n").unwrap(), "hunter2");
        assert_eq!(read(" h 2\r\n").unwrap(), " h 2");
        assert!(matches!(read("\n"), Err(SecretFileError::Empty)));
        assert!(matches!(read("hunter2hunter2"), Err(SecretFileError::TooLarge)));
        // A file without an end.
        assert!(matches!(Secret::of_file(Path::new("/dev/zero"), 8), Err(SecretFileError::TooLarge)));
        let missing = Secret::of_file(Path::new("/does/not/exist"), 8);
        assert!(matches!(missing, Err(SecretFileError::Unreadable(_))));
    }
}
