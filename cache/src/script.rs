//! The scripts of the cache protocol: one for each of its rules, atomic on one key.
//!
//! Their files document arguments and answers. Parts that several of them need stand in files of their own, before
//! the script itself.

use std::sync::LazyLock;

/// A script.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Script {
    /// Writes a change, if it is newer than what is there.
    Apply,
    /// Takes the right to fill.
    Acquire,
    /// Fills what is held.
    Fill,
    /// Makes readers miss.
    Invalidate,
    /// Fills what is absent.
    Backfill,
    /// Sets the watermark.
    Publish,
}

macro_rules! source {
    ($($file:literal),+) => { concat!($(include_str!(concat!("../scripts/", $file))),+) };
}

impl Script {
    /// Every script.
    pub(crate) const ALL: [Self; 6] =
        [Self::Apply, Self::Acquire, Self::Fill, Self::Invalidate, Self::Backfill, Self::Publish];

    /// The text, for SCRIPT LOAD.
    pub(crate) const fn source(self) -> &'static str {
        match self {
            Self::Apply => source!("prelude.lua", "creation.lua", "apply.lua"),
            Self::Acquire => source!("prelude.lua", "time.lua", "acquire.lua"),
            Self::Fill => source!("prelude.lua", "fill.lua"),
            Self::Invalidate => source!("prelude.lua", "time.lua", "invalidate.lua"),
            Self::Backfill => source!("prelude.lua", "creation.lua", "backfill.lua"),
            Self::Publish => source!("prelude.lua", "publish.lua"),
        }
    }

    /// The text's SHA-1 in hex, for EVALSHA.
    pub(crate) fn sha(self) -> &'static str {
        static SHAS: LazyLock<[String; Script::ALL.len()]> = LazyLock::new(|| {
            Script::ALL.map(|script| redis::Script::new(script.source()).get_hash().to_owned())
        });
        let [apply, acquire, fill, invalidate, backfill, publish] = &*SHAS;
        match self {
            Self::Apply => apply,
            Self::Acquire => acquire,
            Self::Fill => fill,
            Self::Invalidate => invalidate,
            Self::Backfill => backfill,
            Self::Publish => publish,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_script_has_a_hash_of_its_own() {
        for script in Script::ALL {
            assert_eq!(script.sha(), redis::Script::new(script.source()).get_hash(), "{script:?}");
        }
    }
}
