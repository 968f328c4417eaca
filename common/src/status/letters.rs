//! How many dead letters there are, by where they come from and what kind of trouble they are.

use std::collections::BTreeMap;

use serde::Serialize;

use aws_sdk_dynamodb::Client;

use super::args::StatusArgs;
use crate::dead_letter::{DeadLetterConfig, Filter, Kept, LetterError, LetterStore, StoreConfig};

/// Pages that are read: of a table a page is 1 MB (AWS: Scan).
const PAGES_MAX: usize = 8;

/// Dead letters that were counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LetterCount {
    /// Where they are kept.
    pub place: String,
    /// How many were counted.
    pub letters: u64,
    /// Whether these are all there are.
    pub is_all: bool,
    /// When the last of them was met last, in milliseconds since the epoch.
    pub last_ms: Option<u64>,
    /// Why they could not be counted; `None`: they were.
    pub problem: Option<String>,
    /// How many there are of each source and class of reason.
    pub groups: Vec<LetterGroup>,
}

/// Letters of one source and one kind of trouble.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LetterGroup {
    /// Where they come from.
    pub source: String,
    /// What kind of trouble it is.
    pub class: &'static str,
    /// How many were counted.
    pub letters: u64,
}

/// Where a fleet's dead letters can be counted, if they are to be: in a table. A directory is of one machine, and belongs to
/// one process.
///
/// # Errors
/// When the store cannot be opened.
pub fn letter_store(
    args: &StatusArgs,
    config: &DeadLetterConfig,
    dynamodb: &Client,
) -> Result<Option<LetterStore>, LetterError> {
    match &config.store {
        StoreConfig::Table { .. } if !args.no_dead_letters => {
            LetterStore::open(config, dynamodb.clone()).map(Some)
        }
        StoreConfig::Table { .. } | StoreConfig::Directory { .. } => Ok(None),
    }
}

/// Counts the letters of the first pages.
pub(super) async fn count(store: &LetterStore) -> LetterCount {
    let counted = try_count(store).await;
    let counted = counted
        .unwrap_or_else(|error| LetterCount { problem: Some(error.to_string()), ..LetterCount::default() });
    LetterCount { place: store.place(), ..counted }
}

async fn try_count(store: &LetterStore) -> Result<LetterCount, LetterError> {
    let (mut letters, mut from) = (Vec::new(), None);
    for _ in 0..PAGES_MAX {
        let page = store.list(&Filter::default(), from.as_deref()).await?;
        letters.extend(page.letters);
        from = page.next;
        if from.is_none() {
            break;
        }
    }
    Ok(LetterCount { is_all: from.is_none(), ..of(&letters) })
}

fn of(letters: &[Kept]) -> LetterCount {
    let mut groups: BTreeMap<(&str, &'static str), u64> = BTreeMap::new();
    for letter in letters {
        let of = (&*letter.envelope.origin.source, letter.envelope.class.as_str());
        *groups.entry(of).or_default() += 1;
    }
    let group = |((source, class), letters): (&(&str, &'static str), &u64)| LetterGroup {
        source: (*source).to_owned(),
        class,
        letters: *letters,
    };
    LetterCount {
        letters: letters.len() as u64,
        last_ms: letters.iter().map(|letter| letter.last_attempt_ms).max(),
        groups: groups.iter().map(group).collect(),
        ..LetterCount::default()
    }
}
