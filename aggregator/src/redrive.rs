//! Dead letters of the aggregator, tried again: a stream record becomes a change again, if this version can read it, and
//! goes to the regions.
//!
//! Its position is the one it had, so a cache that has something newer does not take it. And its time is that of the
//! first attempt: the changes were read that long ago, and go into frames that say so
//! ([`FrameBuilder::read_at`](warmcast_proto::frame::FrameBuilder::read_at)). Cache-writers then treat what is older than
//! a minute as late: the key is made invalid and filled from the master, because nobody knows whether a cache has lost
//! something newer since.

use bytes::Bytes;
use warmcast_common::dead_letter::{Envelope, Form, Kept, Letter, LetterError, LetterId, LetterStore};
use warmcast_proto::change::Change;
use warmcast_proto::record;

use crate::change::ChangeMaker;
use crate::source::created_ms;
use crate::stream_record;

/// What became of a letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Redriven {
    /// Its changes, so many, were sent. The letter is deleted.
    Sent(usize),
    /// It still cannot be used, for this reason. It stays, with one attempt more.
    FailedAgain(String),
    /// There is no such letter, or no more.
    Gone,
}

/// Why a letter could not be tried. It stays as it was.
#[derive(Debug, thiserror::Error)]
pub enum RedriveError<E> {
    /// The store of dead letters.
    #[error(transparent)]
    Letters(#[from] LetterError),
    /// The changes could not be sent.
    #[error("send what letter {id} has: {error}")]
    Send {
        /// The letter.
        id: LetterId,
        /// What the sender said.
        error: E,
    },
}

/// Changes to be sent: to every region, or, of a frame that one region refused
/// ([`Form::Frame`]), to the region that its source names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redrive {
    /// Where they come from.
    pub envelope: Envelope,
    /// The changes.
    pub changes: Vec<Change>,
    /// When they were read from their table's stream: milliseconds since the Unix epoch.
    pub read_ms: u64,
}

/// Tries a letter again. `maker` makes the changes of the letter's stream; `None`: that stream is none of ours. `send`
/// succeeds when the changes are where they should be; the letter is deleted after that.
///
/// # Errors
/// The store, or the sender.
pub async fn redrive<E>(
    store: &LetterStore,
    id: LetterId,
    maker: impl FnOnce(&Envelope) -> Option<ChangeMaker>,
    send: impl AsyncFnOnce(Redrive) -> Result<(), E>,
) -> Result<Redriven, RedriveError<E>> {
    let Some((kept, letter)) = store.get(id).await? else { return Ok(Redriven::Gone) };
    match changes(&kept, &letter, maker) {
        Ok(changes) => {
            let sent = changes.len();
            let redrive = Redrive { envelope: letter.envelope, changes, read_ms: kept.first_attempt_ms };
            send(redrive).await.map_err(|error| RedriveError::Send { id, error })?;
            store.delete(id).await?;
            Ok(Redriven::Sent(sent))
        }
        Err(reason) => match store.failed_again(id, &reason).await? {
            Some(_) => Ok(Redriven::FailedAgain(reason)),
            None => Ok(Redriven::Gone),
        },
    }
}

/// The changes that a letter has.
///
/// # Errors
/// Why they cannot be read.
pub fn changes(
    kept: &Kept,
    letter: &Letter,
    maker: impl FnOnce(&Envelope) -> Option<ChangeMaker>,
) -> Result<Vec<Change>, String> {
    if kept.bytes_len > letter.bytes.len() as u64 {
        return Err(format!("only {} of its {} bytes were kept", letter.bytes.len(), kept.bytes_len));
    }
    match letter.envelope.form {
        Form::DynamodbStreamRecord => {
            let record = stream_record::decode(&letter.bytes).map_err(|error| error.to_string())?;
            let maker = maker(&letter.envelope).ok_or("its stream is not one of those that are read")?;
            let change = maker.make(&record, created_ms(&record));
            Ok(vec![change.map_err(|undecodable| undecodable.reason.to_string())?])
        }
        Form::Frame => {
            let contents = record::read(Bytes::copy_from_slice(&letter.bytes));
            let parts = contents.map_err(|error| error.to_string())?.parts.into_iter();
            parts.map(|part| part.change).collect::<Result<_, _>>().map_err(|error| error.to_string())
        }
        form @ (Form::KinesisRecord | Form::Change) => {
            Err(format!("a {} is not the aggregator's: try it again with a cache-writer", form.as_str()))
        }
    }
}
