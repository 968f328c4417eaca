//! Everything that touches Redis: connections and the scripts of the cache protocol.
//!
//! The server is Redis 6.2 or later, or Valkey. Modules in the order in which a change meets them: the [`config`]
//! says which server and which bounds; a `command` is made of each change, and an `outcome` of each `reply` (pure);
//! a `connection` carries them; [`apply`] sends commands in pipelines and gives each change an outcome of its own.
//! [`snapshot`] reads entries back in bulk.

pub mod config;
mod outcome;
mod command;
mod reply;
mod server_clock;
mod connection;
pub mod apply;
pub mod snapshot;

pub use apply::Applier;
pub use config::{Address, CacheConfig, Secret, UrlError};
pub use connection::ConnectError;
pub use outcome::{ApplyError, Outcome, Refusal};
pub use snapshot::{Snapshot, SnapshotError};
