//! What a connection logs in with: a password, what a file has at the time, or a token that is signed for it.

#[cfg(feature = "iam")]
mod tokens;

use std::path::Path;

use tokio::io::AsyncReadExt as _;
use zeroize::Zeroizing;

#[cfg(feature = "iam")]
pub(crate) use self::tokens::Tokens;
use crate::config::{Password, Secret};
#[cfg(feature = "iam")]
use crate::token::TokenError;

/// The largest file that is taken for one with a password. No more of one is read.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// Where the credentials of the connections to one kind of peer come from.
pub(crate) struct Login {
    pub(crate) username: Option<String>,
    source: Source,
}

enum Source {
    Nothing,
    Password(Password),
    #[cfg(feature = "iam")]
    Tokens(Box<Tokens>),
}

/// Why there are no credentials.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LoginError {
    #[error("read the password from {path}: {reason}")]
    File { path: String, reason: String },
    #[cfg(feature = "iam")]
    #[error(transparent)]
    Token(#[from] TokenError),
}

impl Login {
    pub(crate) fn new(username: Option<&str>, password: Option<&Password>) -> Self {
        let source = password.map_or(Source::Nothing, |password| Source::Password(password.clone()));
        Self { username: username.map(str::to_owned), source }
    }

    #[cfg(feature = "iam")]
    pub(crate) fn by_tokens(iam: &crate::config::Iam, user: &str) -> Self {
        Self {
            username: Some(user.to_owned()),
            source: Source::Tokens(Box::new(Tokens::new(iam.clone(), user))),
        }
    }

    /// The password for a new connection.
    pub(crate) async fn password(&self) -> Result<Option<Secret>, LoginError> {
        match &self.source {
            Source::Nothing => Ok(None),
            Source::Password(Password::Fixed(secret)) => Ok(Some(secret.clone())),
            Source::Password(Password::File(path)) => read(path).await.map(Some),
            #[cfg(feature = "iam")]
            Source::Tokens(tokens) => Ok(Some(tokens.get(None).await?)),
        }
    }

    /// The server did not accept what it was shown: the next connection shows something new, if there is any.
    pub(crate) async fn refused(&self) {
        #[cfg(feature = "iam")]
        if let Source::Tokens(tokens) = &self.source {
            tokens.forget().await;
        }
    }

    /// What has to be renewed, if anything has.
    #[cfg(feature = "iam")]
    pub(crate) fn tokens(&self) -> Option<&Tokens> {
        match &self.source {
            Source::Tokens(tokens) => Some(tokens),
            Source::Nothing | Source::Password(_) => None,
        }
    }
}

async fn read(path: &Path) -> Result<Secret, LoginError> {
    let failed = |reason: String| LoginError::File { path: path.display().to_string(), reason };
    let file = tokio::fs::File::open(path).await.map_err(|error| failed(error.to_string()))?;
    let mut text = Zeroizing::new(String::new());
    let read = file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).await;
    let bytes = read.map_err(|error| failed(error.to_string()))?;
    let password = text.strip_suffix('\n').unwrap_or(&text);
    let password = password.strip_suffix('\r').unwrap_or(password);
    match password {
        "" => Err(failed("it is empty".to_owned())),
        _ if bytes as u64 > FILE_BYTES_MAX => Err(failed("it is too large for a password".to_owned())),
        _ => Ok(Secret::new(password)),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::fd::AsRawFd as _;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_password_file_is_read_anew_and_without_the_end_of_its_line() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (text, password) in [("first\n", "first"), ("second\r\n", "second"), (" a b ", " a b ")] {
            std::fs::write(file.path(), text).unwrap();
            assert_eq!(read(file.path()).await.unwrap().expose(), password);
        }
        std::fs::write(file.path(), "\n").unwrap();
        assert!(read(file.path()).await.unwrap_err().to_string().ends_with("it is empty"));
    }

    #[tokio::test]
    async fn of_a_file_that_does_not_end_no_more_is_read_than_a_password_has() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let path = format!("/proc/self/fd/{}", reader.as_raw_fd());
        let text = "x".repeat(usize::try_from(FILE_BYTES_MAX).unwrap() + 1);
        // It stays open until the thread is joined.
        let writing = std::thread::spawn(move || writer.write_all(text.as_bytes()).map(|()| writer));
        let read = tokio::time::timeout(Duration::from_secs(30), read(Path::new(&path))).await;
        let error = read.expect("no more than that is read").unwrap_err();
        assert!(error.to_string().ends_with("it is too large for a password"), "{error}");
        drop(writing.join().unwrap().unwrap());
    }
}
