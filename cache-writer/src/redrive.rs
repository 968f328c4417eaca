//! Dead letters of the cache-writer, tried again: a record is unpacked and its changes are applied, if this version can
//! read them and the cache takes them.
//!
//! Positions are kept, so a cache that has something newer does not take it. What was read more than
//! [`LATE_AFTER`](crate::unpack::LATE_AFTER) ago is late, as if its record had arrived late: nobody knows whether the
//! cache has lost something newer since, so the key is made invalid at the change's position, and its item is asked for
//! from the master.

mod command;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use warmcast_cache::{Cache, CacheError, ItemId};
use warmcast_common::clock::now_ms;
use warmcast_common::dead_letter::{
    Form, Kept, Letter, LetterError, LetterId, LetterStore, ReasonClass, Redriven,
};
use warmcast_proto::change::{Change, ChangeKind};
use warmcast_proto::frame::decode_change;
use warmcast_proto::record;

pub use command::{Report, redrive_command, redrive_letters};

use crate::refill::{Refill, Refilled};
use crate::unpack::LATE_AFTER;

/// Changes that one call applies.
const CALL_CHANGES_MAX: usize = 1_024;

/// Why a letter could not be tried to the end. It stays as it was; try it again.
#[derive(Debug, thiserror::Error)]
pub enum RedriveError {
    /// The store of dead letters.
    #[error(transparent)]
    Letters(#[from] LetterError),
    /// The cache.
    #[error("apply what letter {id} has: {error}")]
    Cache {
        /// The letter.
        id: LetterId,
        /// What the cache said.
        error: CacheError,
    },
}

/// Tries a letter again: it is done when the cache has each of its changes, or the key is invalid, or has something newer.
/// Items that are not known are filled by `refill`, and told with the outcome; without one they stay misses until a reader
/// fills them.
///
/// # Errors
/// The store, or a cache that cannot be reached.
pub async fn redrive(
    store: &LetterStore,
    id: LetterId,
    cache: &Cache,
    refill: Option<&Refill>,
) -> Result<(Redriven, Refilled), RedriveError> {
    let nothing = |redriven| Ok((redriven, Refilled::default()));
    let Some((kept, letter)) = store.get(id).await? else { return nothing(Redriven::Gone) };
    let Unpacked { changes, mut failure } = unpack(&kept, &letter);
    let keys: BTreeSet<ItemId> =
        changes.iter().map(|change| ItemId::new(change.table.clone(), change.key.clone())).collect();
    let count = changes.len();
    // A row of a backfill has no position, and is too old by now: its key is filled, if nothing is there.
    let changes: Vec<Change> =
        changes.into_iter().filter(|change| change.kind != ChangeKind::Backfill).collect();
    let age = Duration::from_millis(now_ms().saturating_sub(kept.first_attempt_ms));
    let sound: Vec<Change> =
        if age > LATE_AFTER { changes.iter().map(invalidation).collect() } else { changes.clone() };
    let refusal = apply(cache, &sound).await.map_err(|error| RedriveError::Cache { id, error })?;
    failure = failure.or(refusal);
    if failure.is_none() && letter.envelope.class == ReasonClass::Refused {
        // The key is invalid at its position or newer by now, so this changes nothing. It tells whether the change
        // would be taken today.
        failure = apply(cache, &changes).await.map_err(|error| RedriveError::Cache { id, error })?;
    }
    let refilled = match refill {
        None => Refilled::default(),
        Some(refill) => refill.fill(keys.into_iter().collect()).await,
    };
    let redriven = match failure {
        None => {
            store.delete(id).await?;
            Redriven::Done(count)
        }
        Some(reason) => match store.failed_again(id, &reason).await? {
            Some(_) => Redriven::FailedAgain(reason),
            None => Redriven::Gone,
        },
    };
    Ok((redriven, refilled))
}

/// What can be read of a letter.
struct Unpacked {
    changes: Vec<Change>,
    /// Why something cannot, or all of it.
    failure: Option<String>,
}

fn unpack(kept: &Kept, letter: &Letter) -> Unpacked {
    let none = |reason: String| Unpacked { changes: Vec::new(), failure: Some(reason) };
    if kept.bytes_len > letter.bytes.len() as u64 {
        return none(format!("only {} of its {} bytes were kept", letter.bytes.len(), kept.bytes_len));
    }
    let bytes = Bytes::copy_from_slice(&letter.bytes);
    match (letter.envelope.form, &letter.envelope.table) {
        (Form::KinesisRecord | Form::Frame, _) => match record::read(bytes) {
            Ok(contents) => {
                let changes = contents.parts.into_iter().map(|part| part.change);
                let (sound, bad): (Vec<_>, Vec<_>) = changes.partition(Result::is_ok);
                Unpacked {
                    changes: sound.into_iter().flatten().collect(),
                    failure: bad.into_iter().find_map(Result::err).map(|error| error.to_string()),
                }
            }
            Err(error) => none(error.to_string()),
        },
        (Form::Change, Some(table)) => match decode_change(bytes, &Arc::clone(table)) {
            Ok(change) => Unpacked { changes: vec![change], failure: None },
            Err(error) => none(error.to_string()),
        },
        (Form::Change, None) => none("its frame did not say of which table it is".to_owned()),
        (Form::DynamodbStreamRecord, _) => {
            none("a stream record is the aggregator's: try it again with the aggregator".to_owned())
        }
    }
}

/// Applies changes; the first refusal, if there was one.
async fn apply(cache: &Cache, changes: &[Change]) -> Result<Option<String>, CacheError> {
    let mut refusal = None;
    for changes in changes.chunks(CALL_CHANGES_MAX) {
        let changes: Vec<&Change> = changes.iter().collect();
        for answer in cache.apply(&changes).await {
            match answer {
                Ok(_) => {}
                Err(CacheError::Refused { refusal: reason, .. }) => {
                    refusal.get_or_insert_with(|| reason.to_string());
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(refusal)
}

fn invalidation(change: &Change) -> Change {
    Change { kind: ChangeKind::Invalidate, payload: Bytes::new(), ..change.clone() }
}
