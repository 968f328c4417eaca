//! Kinesis in, Redis out.
//!
//! The modules stand in the order in which an update meets them:
//!
//! ```text
//! source ─KinesisRecord+Ack→ unpack ─Change+Ack→ reducer ─newest per key→ apply (CAS) → Redis
//!                                                        └─keys whose items are not known→ fill from the master
//! ```
//!
//! [`run`] wires them. A change is done, and its shard's checkpoint may pass it, when the cache has it or has
//! something newer.

pub mod config;
pub mod stats;
pub mod metrics;
pub mod source;
pub mod unpack;
pub mod reducer;
pub mod freshness;
pub mod verify;
pub mod run;
pub mod import;
pub mod status;
pub mod upgrade;
mod attend;
pub mod refill;
pub mod redrive;
pub mod named;
pub mod explain;
pub mod replay;

pub use config::Config;
pub use run::run;
