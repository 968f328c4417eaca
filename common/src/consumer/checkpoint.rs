//! How far a shard has been processed, as it is written to the state table.

use std::fmt;
use std::str::FromStr;

use super::sequence_number::{SequenceNumber, SequenceNumberError};

/// Where a shard is read from next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Checkpoint {
    /// From the oldest record there is.
    TrimHorizon,
    /// From the first record that came in at this time or later, in milliseconds since the epoch. Unlike the
    /// services' LATEST it is a fixed place: a restart before the first record loses nothing.
    AtTime(u64),
    /// After this record: it and all before it are done.
    After(SequenceNumber),
    /// The shard was closed and everything in it is done: its children may start.
    ShardEnd,
}

impl Checkpoint {
    /// Whether the shard is finished.
    pub fn is_end(&self) -> bool {
        *self == Self::ShardEnd
    }
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TrimHorizon => f.write_str("trim-horizon"),
            Self::AtTime(at_ms) => write!(f, "at-time:{at_ms}"),
            Self::After(sequence) => write!(f, "after:{sequence}"),
            Self::ShardEnd => f.write_str("shard-end"),
        }
    }
}

/// A checkpoint in the state table is not one of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// Not one of the four forms.
    #[error("{0:?} is not a checkpoint: expected trim-horizon, at-time:MS, after:SEQUENCE or shard-end")]
    Form(String),
    /// `after:` something else.
    #[error(transparent)]
    Sequence(#[from] SequenceNumberError),
}

impl FromStr for Checkpoint {
    type Err = CheckpointError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let form = || CheckpointError::Form(text.chars().take(200).collect());
        match text.split_once(':') {
            None if text == "trim-horizon" => Ok(Self::TrimHorizon),
            None if text == "shard-end" => Ok(Self::ShardEnd),
            Some(("at-time", at_ms)) => at_ms.parse().map(Self::AtTime).map_err(|_| form()),
            Some(("after", sequence)) => Ok(Self::After(SequenceNumber::new(sequence)?)),
            _ => Err(form()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_survives_the_state_table() {
        for text in ["trim-horizon", "at-time:1700000000000", "after:400000000000000499660", "shard-end"] {
            assert_eq!(text.parse::<Checkpoint>().unwrap().to_string(), text);
        }
        for wrong in ["", "latest", "after:", "after:x", "at-time:-1", "shard-end:1", "after:1:2"] {
            assert!(wrong.parse::<Checkpoint>().is_err(), "{wrong}");
        }
    }
}
