//! How a letter's bytes are stored in a table: compressed if that is smaller, in parts that fit an item.

use crate::limits::{DEAD_LETTER_BYTES_MAX, DEAD_LETTER_PART_BYTES_MAX};

/// Letters are rare: smaller is worth more than faster.
const LEVEL: i32 = 6;

/// A letter's bytes as a table has them.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) encoding: Encoding,
    pub(super) content: Vec<u8>,
}

/// What was done to the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    None,
    Zstd,
}

impl Encoding {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Zstd => "zstd",
        }
    }

    pub(super) fn named(name: &str) -> Option<Self> {
        [Self::None, Self::Zstd].into_iter().find(|encoding| encoding.as_str() == name)
    }
}

impl Stored {
    /// Compresses what is kept of the bytes.
    pub(super) fn of(bytes: &[u8]) -> Self {
        let kept = kept(bytes);
        match zstd::bulk::compress(kept, LEVEL) {
            Ok(content) if content.len() < kept.len() => Self { encoding: Encoding::Zstd, content },
            _ => Self { encoding: Encoding::None, content: kept.to_vec() },
        }
    }

    /// The content in pieces that each fit an item; at least one.
    pub(super) fn parts(&self) -> Vec<&[u8]> {
        if self.content.is_empty() {
            return vec![&[]];
        }
        self.content.chunks(DEAD_LETTER_PART_BYTES_MAX).collect()
    }
}

/// The bytes again.
pub(super) fn decode(encoding: Encoding, content: Vec<u8>) -> Result<Vec<u8>, String> {
    match encoding {
        Encoding::None => Ok(content),
        Encoding::Zstd => {
            zstd::bulk::decompress(&content, DEAD_LETTER_BYTES_MAX).map_err(|error| error.to_string())
        }
    }
}

/// What is kept of a letter's bytes: all, but of what no service can hold.
pub(super) fn kept(bytes: &[u8]) -> &[u8] {
    bytes.get(..DEAD_LETTER_BYTES_MAX).unwrap_or(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bytes_come_back_whether_they_compress_or_not(bytes in prop::collection::vec(any::<u8>(), 0..3_000), times in 1usize..50) {
            for bytes in [bytes.repeat(times), bytes] {
                let stored = Stored::of(&bytes);
                prop_assert!(stored.content.len() <= bytes.len());
                let content = stored.parts().concat();
                prop_assert_eq!(decode(stored.encoding, content).unwrap(), bytes);
            }
        }
    }

    #[test]
    fn content_is_split_where_an_item_is_full_and_not_before() {
        let stored = |len| Stored { encoding: Encoding::None, content: vec![7; len] };
        let lens = |len| stored(len).parts().iter().map(|part| part.len()).collect::<Vec<_>>();
        let max = DEAD_LETTER_PART_BYTES_MAX;
        assert_eq!(lens(0), [0]);
        assert_eq!(lens(max), [max]);
        assert_eq!(lens(max + 1), [max, 1]);
        assert_eq!(lens(2 * max + 1), [max, max, 1]);
    }

    #[test]
    fn what_no_service_can_hold_is_cut() {
        let bytes = vec![0; DEAD_LETTER_BYTES_MAX + 1];
        assert_eq!(kept(&bytes).len(), DEAD_LETTER_BYTES_MAX);
        assert_eq!(kept(&bytes[1..]).len(), DEAD_LETTER_BYTES_MAX);
        let stored = Stored::of(&bytes);
        assert_eq!(decode(stored.encoding, stored.content).unwrap().len(), DEAD_LETTER_BYTES_MAX);
    }
}
