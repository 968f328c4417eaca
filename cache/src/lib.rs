//! Everything that touches Redis: connections and the scripts of the cache protocol.
//!
//! The server is Redis 6.2 or later, or Valkey. Modules in the order in which a change meets them: the
//! [`config`] says which server and which bounds, a `command` is made of each change (pure), a `connection`
//! carries it, [`apply`] sends commands in pipelines and turns each answer into an outcome of its own.
//! [`snapshot`] reads entries back in bulk.

pub mod config;
mod command;
mod server_clock;
mod connection;
mod reply;
pub mod apply;
pub mod snapshot;

pub use apply::{Applier, ApplyError, Outcome, Refusal};
pub use config::{Address, CacheConfig, Secret, UrlError};
pub use connection::ConnectError;
pub use snapshot::{Snapshot, SnapshotError};
