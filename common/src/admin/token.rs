//! The bearer token: where it comes from, and whether a request has it.
//!
//! A file is read at the start, when it must be there, and again at most every [`REREAD_INTERVAL`] when somebody asks: so a
//! token can be changed without a restart, as secrets that are mounted into containers are. While it cannot be read the
//! one before holds.

use std::fmt;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use parking_lot::Mutex;
use subtle::ConstantTimeEq as _;
use tokio::time::Instant;

use super::config::TokenSource;
use crate::config::{Secret, SecretFileError};
use crate::telemetry::LogLimiter;

/// The least that a token has: what cannot be guessed.
pub(super) const TOKEN_BYTES_MIN: usize = 16;
/// More is no token.
const TOKEN_BYTES_MAX: u64 = 4_096;
/// Pause between two looks at the file.
const REREAD_INTERVAL: Duration = Duration::from_secs(10);

/// What a request has to show.
pub(super) struct Token {
    file: Option<PathBuf>,
    state: Mutex<State>,
}

struct State {
    token: Secret,
    read_at: Instant,
    complaints: LogLimiter,
}

/// A token file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// It cannot be read.
    #[error("admin.bearer_token_file: {} cannot be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It holds no token.
    #[error(
        "admin.bearer_token_file: {} has no token: one line of {TOKEN_BYTES_MIN} to {TOKEN_BYTES_MAX} characters, all of \
         them printable ASCII without spaces",
        path.display()
    )]
    NoToken {
        /// The file.
        path: PathBuf,
    },
}

impl Token {
    /// Reads it.
    pub(super) fn open(source: &TokenSource) -> Result<Self, TokenError> {
        let (token, file) = match source {
            TokenSource::Value(token) => (token.clone(), None),
            TokenSource::File(path) => (read(path)?, Some(path.clone())),
        };
        if let Some(path) = file.as_ref().filter(|path| is_world_readable(path)) {
            tracing::warn!(
                file = %path.display(),
                "every user of this machine can read the admin endpoint's token: chmod o-r"
            );
        }
        let state = State { token, read_at: Instant::now(), complaints: LogLimiter::default() };
        Ok(Self { file, state: Mutex::new(state) })
    }

    /// Whether this is the token. How long that takes tells no more of it than its length.
    pub(super) fn is(&self, shown: &[u8]) -> bool {
        let mut state = self.state.lock();
        if let Some(file) = &self.file {
            state.read_again(file);
        }
        state.token.expose().as_bytes().ct_eq(shown).into()
    }
}

impl State {
    fn read_again(&mut self, file: &Path) {
        let now = Instant::now();
        if now.duration_since(self.read_at) < REREAD_INTERVAL {
            return;
        }
        self.read_at = now;
        match read(file) {
            Ok(token) if token != self.token => {
                tracing::info!("the admin endpoint's token is another one now");
                self.token = token;
            }
            Ok(_) => {}
            Err(error) => {
                if let Some(repeats) = self.complaints.due(now) {
                    tracing::warn!(%error, repeats, "the token of before holds");
                }
            }
        }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Token").field("file", &self.file).finish_non_exhaustive()
    }
}

fn read(path: &Path) -> Result<Secret, TokenError> {
    let path = path.to_owned();
    let secret = match Secret::of_file(&path, TOKEN_BYTES_MAX) {
        Ok(secret) => secret,
        Err(SecretFileError::Unreadable(source)) => return Err(TokenError::Unreadable { path, source }),
        Err(SecretFileError::Empty | SecretFileError::TooLarge) => return Err(TokenError::NoToken { path }),
    };
    let token = secret.expose().trim();
    let is_token = token.len() >= TOKEN_BYTES_MIN && token.bytes().all(|byte| byte.is_ascii_graphic());
    if is_token { Ok(Secret::new(token)) } else { Err(TokenError::NoToken { path }) }
}

fn is_world_readable(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|file| file.permissions().mode() & 0o004 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = "first-0123456789";
    const SECOND: &str = "second-0123456789";

    #[tokio::test(start_paused = true)]
    async fn a_token_file_is_read_again_and_while_it_cannot_be_the_token_of_before_holds() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        std::fs::write(&path, format!("{FIRST}\n")).unwrap();
        let token = Token::open(&TokenSource::File(path.clone())).unwrap();
        assert!(token.is(FIRST.as_bytes()) && !token.is(b"") && !token.is(SECOND.as_bytes()));
        assert!(!format!("{token:?}").contains(FIRST));
        std::fs::write(&path, SECOND).unwrap();
        assert!(token.is(FIRST.as_bytes()), "it was just read");
        tokio::time::advance(REREAD_INTERVAL).await;
        assert!(token.is(SECOND.as_bytes()) && !token.is(FIRST.as_bytes()));
        std::fs::remove_file(&path).unwrap();
        tokio::time::advance(REREAD_INTERVAL).await;
        assert!(token.is(SECOND.as_bytes()));
    }

    #[test]
    fn a_file_without_a_token_is_refused_and_its_content_is_not_shown() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for text in ["", "hunter2", "hunter2 hunter2 hunter2", "hunter2-hünter2-hunter2"] {
            std::fs::write(file.path(), text).unwrap();
            let error = Token::open(&TokenSource::File(file.path().to_owned())).unwrap_err();
            let said = format!("{error} {error:?}");
            assert!(said.starts_with("admin.bearer_token_file: ") && !said.contains("hunter2"), "{said}");
        }
        std::fs::write(file.path(), "x".repeat(5_000)).unwrap();
        assert!(matches!(
            Token::open(&TokenSource::File(file.path().to_owned())),
            Err(TokenError::NoToken { .. })
        ));
        let missing = TokenSource::File("/does/not/exist".into());
        assert!(matches!(Token::open(&missing), Err(TokenError::Unreadable { .. })));
    }

    #[test]
    fn who_can_read_the_file_is_noticed() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let set =
            |mode| std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        set(0o640);
        assert!(!is_world_readable(file.path()));
        set(0o644);
        assert!(is_world_readable(file.path()));
    }
}
