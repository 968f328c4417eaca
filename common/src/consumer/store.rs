//! The state table: leases with their checkpoints, workers with their heartbeats, stream generations, gaps.
//!
//! One DynamoDB table for each fleet of daemons, keys `pk` and `sk`, so that what belongs together is one query:
//!
//! | `pk` | `sk` | attributes |
//! |---|---|---|
//! | `stream#STREAM` | `begun` | the stream is consumed, begun at `start`; `listed` when two listings found no shard without a lease |
//! | `stream#STREAM` | `shard#SHARD` | a lease: `owner` (none: free), `epoch`, `checkpoint`, `parents`, `bytes_per_s`, `seen_ms`, `given`, `rewind`, `target_state`, `settling_ms`, `lanes`, `parked`, `guest`; of a finished shard `ended_ms`, `watermark_ms` |
//! | `workers` | `worker#WORKER` | a heartbeat: `instance`, `counter`, and what the worker reports of itself; `build`: what program it runs; `covers`, `covers_digest`, `watermark_ms`, `parked`: how far its leases are, and for which lanes not |
//! | `table#TABLE` | `generation#NUMBER` | the stream of that generation: `stream` |
//! | `lanes` | `lane#LANE#STREAM` | the stream goes to the lane: `added_ms`, `begun`: every listed shard has it |
//! | `lanes` | `backfill#LANE#STREAM` | the lane lacks something of the stream's table: `asked_ms` first, `latest_ms`, `why` |
//! | `jobs` | `JOB` | a command's work that is not done: `what`, `began_ms` |
//! | `job#JOB` | `part#PART` | up to where a part of it is done: `place` |
//! | `locks` | `restart` | who may restart a worker: `fence`, `owner`, `worker`, `since_ms`, `until_ms`, `unfinished` |
//! | `gap#STREAM` | `SHARD#TIME` | data that was trimmed before it was read: `after`, `at_ms` |
//!
//! Every item has `format`: the least version of this layout that reads it ([`compatibility`](super::compatibility); an item
//! without it is of the first). What takes a later version than ours is left alone: a lease is somebody's, a heartbeat is of
//! somebody who lives, and for anything else there is no answer. Writes to a lease are conditional on its owner, its
//! epoch, and a format that we know: an owner that lost the lease is refused, whatever it believes. Calls are not retried here.

mod gap;
mod generation;
mod calls;
mod item;
mod job;
mod lane;
mod parked;
mod lease;
mod guest;
mod restart_lock;
mod stream;
mod workers;

use std::sync::Arc;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::TableStatus;

use crate::aws::CallError;
use crate::config::Section;
use crate::own_table::{create_table, table_status};
use crate::retry::{Backoff, Class};

pub use calls::StateCalls;
pub use gap::Gap;
pub use generation::{Generation, next_generation};
pub use guest::{Claim, Guest};
pub use job::Job;
pub use lane::{Backfill, LaneState};
pub use lease::{Begin, Ended, Lease, Onset, Progressed, Recipient};
pub use restart_lock::{LockHolder, RestartLock};
pub use stream::StreamState;
pub use workers::{Heartbeat, Report};

/// The `[state]` section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateConfig {
    /// The table's name.
    pub table: String,
    /// Whether to create it if it is missing.
    pub create: bool,
}

impl StateConfig {
    /// Takes the section's fields.
    pub fn read(mut section: Section, default_table: &str) -> Self {
        let config = Self {
            table: section.text_or("table", || default_table.to_owned()),
            create: section.boolean("create", false),
        };
        section.finish();
        config
    }
}

/// The state table.
#[derive(Clone, Debug)]
pub struct StateStore {
    client: Client,
    table: String,
    /// Clones count together.
    calls: Arc<StateCalls>,
}

/// Why a write to the state table did not happen.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// Somebody else owns it now: whatever depended on owning it must stop.
    #[error("{what} is owned by somebody else")]
    Fenced {
        /// The lease or heartbeat.
        what: String,
    },
    /// The call failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// An item that this version cannot read.
    #[error("state table {table}, item {pk}/{sk}: {reason} (written by another version, or by hand)")]
    Item {
        /// The table.
        table: String,
        /// Its partition key.
        pk: String,
        /// Its sort key.
        sk: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl StoreError {
    /// Whether somebody else owns what was to be written.
    pub fn is_fenced(&self) -> bool {
        matches!(self, Self::Fenced { .. })
    }
}

impl StateStore {
    /// The table named in `config`, which [`StateStore::ensure_table`] makes sure of.
    pub fn new(client: Client, table: impl Into<String>) -> Self {
        Self { client, table: table.into(), calls: Arc::default() }
    }

    /// The table's name.
    pub fn table(&self) -> &str {
        &self.table
    }

    /// Waits until the table can be used; creates it first if it is missing and `create` says so.
    ///
    /// # Errors
    /// When a call fails, or the table is missing and may not be created.
    pub async fn ensure_table(&self, create: bool) -> Result<(), CallError> {
        let mut pauses =
            Backoff::new(std::time::Duration::from_millis(50), std::time::Duration::from_secs(2));
        loop {
            match table_status(&self.client, &self.table, self.target()).await {
                Ok(Some(TableStatus::Active)) => return Ok(()),
                Ok(_) => {}
                Err(error) if error.class == Class::NotFound && create => {
                    tracing::info!(table = self.table, "creating the state table");
                    create_table(&self.client, &self.table, self.target()).await?;
                }
                Err(error) => return Err(error),
            }
            tokio::time::sleep(pauses.next_pause()).await;
        }
    }

    fn target(&self) -> String {
        format!("state table {}", self.table)
    }
}
