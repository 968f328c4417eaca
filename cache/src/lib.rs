//! Everything that touches Redis: connections and the scripts of the cache protocol.
//!
//! The servers are Redis 6.2 or later, or Valkey: one alone, one that sentinels watch over, or a cluster. Modules in
//! the order in which data flows through them.

pub mod config;
pub mod policy;
pub mod shape;
mod outcome;
mod script;
mod call;
mod reply;
mod server_clock;
mod round_trips;
mod transport;
#[cfg(feature = "iam")]
pub mod token;
mod login;
#[cfg(feature = "iam")]
mod renewal;
mod connection;
mod topology;
mod directory;
mod sample;
mod node;
mod nodes;
mod watch;
mod exchange;
mod item_id;
mod key_space;
pub mod read;
mod cache;
mod apply;
mod leases;
mod backfill;
mod watermark;
pub mod scan;
#[cfg(feature = "master")]
mod backoff;
#[cfg(feature = "master")]
mod table_queue;
#[cfg(feature = "master")]
pub mod master;
#[cfg(feature = "master")]
pub mod filler;
pub mod reader;

pub use backfill::{Backfill, Backfilled, ReadStart};
pub use cache::{Cache, ItemRef};
#[cfg(feature = "iam")]
pub use config::Iam;
pub use config::{Address, CacheConfig, ClientCertificate, Password, Secret, Servers, TlsConfig, UrlError};
pub use connection::ConnectError;
#[cfg(feature = "master")]
pub use filler::{FillAnswer, FillError, Filler, FillerConfig};
pub use item_id::ItemId;
pub use key_space::WATERMARK_KEY;
pub use leases::{Acquired, Fill, Filled, Invalidated, Token};
#[cfg(feature = "master")]
pub use master::{Master, MasterConfig, MasterError};
pub use outcome::{CacheError, Outcome, Refusal};
pub use policy::{TablePolicy, Tables};
pub use read::{EntryReads, ReadFrom};
pub use reader::{Answer, ReadError, Reader, ReaderConfig, ReaderError, Row};
pub use round_trips::{RoundTrip, RoundTrips};
pub use scan::{Entries, EntryScan};
