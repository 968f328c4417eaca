//! Where dead letters are kept, and what can be done with them there.

use std::path::PathBuf;
use std::sync::Arc;

use aws_sdk_dynamodb::Client;

use super::config::{DeadLetterConfig, StoreConfig};
use super::directory::DirectoryStore;
use super::filter::Filter;
use super::letter::{Kept, Letter, LetterId, LetterIdError, cut};
use super::table::TableStore;
use crate::aws::CallError;
use crate::clock::now_ms;
use crate::retry::Class;

/// A store of dead letters. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LetterStore(Kind);

#[derive(Clone, Debug)]
enum Kind {
    Table(TableStore),
    Directory(Arc<DirectoryStore>),
}

/// Some letters of a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Those that are meant; there may be none on a page that is not the last.
    pub letters: Vec<Kept>,
    /// Where to go on; `None`: these were the last.
    pub next: Option<String>,
}

/// Why a store of dead letters could not be used.
#[derive(Debug, thiserror::Error)]
pub enum LetterError {
    /// A call of DynamoDB failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// There is no such table, and it may not be created.
    #[error(
        "dead-letter table {table} is missing: create it (keys `pk` and `sk`, strings), or set dead_letters.create = true"
    )]
    TableMissing {
        /// The table.
        table: String,
    },
    /// A directory or a file in it cannot be used.
    #[error("dead letters in {path}: {source} (set dead_letters.directory to one that can be written)")]
    Directory {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A letter that this version cannot read.
    #[error("letter {id} of {place}: {reason} (written by another version, or by hand)")]
    Letter {
        /// The table or directory.
        place: String,
        /// The letter.
        id: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Not a letter's name.
    #[error(transparent)]
    Id(#[from] LetterIdError),
}

impl LetterError {
    /// Whether it will stay like this until somebody mends it.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Call(error) => {
                matches!(error.class, Class::Denied | Class::NotFound | Class::Permanent)
            }
            Self::TableMissing { .. } | Self::Directory { .. } | Self::Letter { .. } | Self::Id(_) => true,
        }
    }
}

impl LetterStore {
    /// The configured store. `dynamodb` is the DynamoDB of the state table. A directory is opened; a table is not
    /// looked for yet.
    ///
    /// # Errors
    /// When the directory cannot be created or read.
    pub fn open(config: &DeadLetterConfig, dynamodb: Client) -> Result<Self, LetterError> {
        let kind = match &config.store {
            StoreConfig::Table { table, create, retention } => Kind::Table(TableStore {
                client: dynamodb,
                table: table.clone(),
                create: *create,
                retention: *retention,
            }),
            StoreConfig::Directory { directory, bytes_max } => {
                Kind::Directory(Arc::new(DirectoryStore::open(directory, *bytes_max)?))
            }
        };
        Ok(Self(kind))
    }

    /// Makes sure that letters can be stored, so that what is wrong is said before there is one: creates the table and
    /// switches its Time to Live on, where the configuration allows that.
    ///
    /// # Errors
    /// When the table cannot be used.
    pub async fn prepare(&self) -> Result<(), LetterError> {
        match &self.0 {
            Kind::Table(table) => table.prepare().await,
            Kind::Directory(_) => Ok(()),
        }
    }

    /// Stores a letter that was met at `at_ms`. One that is there already keeps its first attempt, and has one attempt
    /// more.
    ///
    /// # Errors
    /// When it may not be stored.
    pub async fn set_aside(&self, letter: &Letter, at_ms: u64) -> Result<Kept, LetterError> {
        match &self.0 {
            Kind::Table(table) => table.set_aside(letter, at_ms).await,
            Kind::Directory(directory) => {
                let letter = letter.clone();
                blocking(directory, move |directory| directory.set_aside(&letter, at_ms)).await
            }
        }
    }

    /// One page of the letters that are meant, in no order, without their bytes. Begin with no `from`, and go on with
    /// [`Page::next`]. A table is scanned: every page is billed as what was read.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn list(&self, filter: &Filter, from: Option<&str>) -> Result<Page, LetterError> {
        match &self.0 {
            Kind::Table(table) => table.list(filter, from).await,
            Kind::Directory(directory) => {
                let (filter, from) = (filter.clone(), from.map(str::to_owned));
                blocking(directory, move |directory| directory.list(&filter, from.as_deref())).await
            }
        }
    }

    /// A letter with its bytes; `None` if it is not there.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn get(&self, id: LetterId) -> Result<Option<(Kept, Letter)>, LetterError> {
        match &self.0 {
            Kind::Table(table) => table.get(id).await,
            Kind::Directory(directory) => blocking(directory, move |directory| directory.get(id)).await,
        }
    }

    /// Deletes a letter that was put to use; one that is not there is deleted already.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn delete(&self, id: LetterId) -> Result<(), LetterError> {
        match &self.0 {
            Kind::Table(table) => table.delete(id).await,
            Kind::Directory(directory) => blocking(directory, move |directory| directory.delete(id)).await,
        }
    }

    /// Notes that a letter was tried again, in vain, and why. `None`: it is not there any more.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn failed_again(&self, id: LetterId, reason: &str) -> Result<Option<Kept>, LetterError> {
        let reason = cut(reason);
        match &self.0 {
            Kind::Table(table) => table.failed_again(id, reason, now_ms()).await,
            Kind::Directory(directory) => {
                let reason = reason.to_owned();
                blocking(directory, move |directory| directory.failed_again(id, &reason, now_ms())).await
            }
        }
    }

    /// Where it is, for logs.
    pub fn place(&self) -> String {
        match &self.0 {
            Kind::Table(table) => table.target(),
            Kind::Directory(directory) => directory.place(),
        }
    }
}

/// Does what blocks on a thread that may.
async fn blocking<T: Send + 'static>(
    directory: &Arc<DirectoryStore>,
    work: impl FnOnce(&DirectoryStore) -> Result<T, LetterError> + Send + 'static,
) -> Result<T, LetterError> {
    let (directory, place) = (Arc::clone(directory), directory.place());
    let done = tokio::task::spawn_blocking(move || work(&directory)).await;
    done.unwrap_or_else(|error| {
        Err(LetterError::Directory { path: place.into(), source: std::io::Error::other(error) })
    })
}
