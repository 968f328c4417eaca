//! Keys as bytes, where nobody knows how the keys of their table are written.

use std::str::FromStr;

/// The canonical bytes of a key. Plain text is itself; every other byte is `\xNN`, and a backslash `\\`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawKey(pub Vec<u8>);

/// A text that has a backslash where no escape is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} has a backslash that is none of \\\\, \\xNN, \\n, \\r, \\t, \\', \\\"")]
pub struct RawKeyError {
    given: String,
}

impl RawKey {
    /// How the bytes are written.
    pub fn text(bytes: &[u8]) -> String {
        bytes.escape_ascii().to_string()
    }
}

impl FromStr for RawKey {
    type Err = RawKeyError;

    /// Characters that are not ASCII stand for their UTF-8.
    fn from_str(text: &str) -> Result<Self, RawKeyError> {
        let mut bytes = Vec::with_capacity(text.len());
        let mut rest = text.as_bytes();
        while let Some((&byte, after)) = rest.split_first() {
            let read = if byte == b'\\' { unescape(after) } else { Some((byte, after)) };
            let (byte, after) = read.ok_or_else(|| RawKeyError { given: text.to_owned() })?;
            bytes.push(byte);
            rest = after;
        }
        Ok(Self(bytes))
    }
}

/// The byte that stands after a backslash, and what follows it.
fn unescape(text: &[u8]) -> Option<(u8, &[u8])> {
    match text {
        [b'x', high, low, after @ ..] => {
            let digit = |digit: &u8| u8::try_from(char::from(*digit).to_digit(16)?).ok();
            Some((digit(high)? << 4 | digit(low)?, after))
        }
        [b'n', after @ ..] => Some((b'\n', after)),
        [b'r', after @ ..] => Some((b'\r', after)),
        [b't', after @ ..] => Some((b'\t', after)),
        [byte @ (b'\\' | b'\'' | b'"'), after @ ..] => Some((*byte, after)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_key_that_is_shown_reads_back(key in prop::collection::vec(any::<u8>(), 0..40)) {
            prop_assert_eq!(RawKey::text(&key).parse(), Ok(RawKey(key)));
        }
    }

    #[test]
    fn plain_text_is_itself_and_what_is_no_escape_is_refused() {
        assert_eq!("jürgen".parse(), Ok(RawKey("jürgen".as_bytes().to_vec())));
        for wrong in ["\\", "\\x1", "\\xg0", "\\q"] {
            let error = wrong.parse::<RawKey>().unwrap_err().to_string();
            assert!(error.contains("has a backslash that is none of \\\\, \\xNN"), "{error}");
        }
    }
}
