//! DynamoDB Streams in, one Kinesis stream per region out.
//!
//! The modules stand in the order in which an update meets them:
//!
//! ```text
//! source ─StreamRecord+Ack→ change, filter ─Change+Ack→ batch ─Batch→ fanout ─one copy per region→ producer ─frame→ Kinesis
//! ```
//!
//! [`run`] wires them. A change is done, and its shard's checkpoint may pass it, when the Kinesis stream of
//! every region has it. Beside the frames, [`heartbeat`] tells every shard of the regions' streams how far the fleet
//! is.

pub mod config;
pub mod record_format;
pub mod stats;
pub mod table;
pub mod pace;
pub mod describes;
pub mod source;
pub mod change;
pub mod filter;
pub mod stream_record;
pub mod intake;
pub mod tables;
pub mod linger;
pub mod readiness;
pub mod batch;
pub mod kpl;
pub mod trace;
pub mod fanout;
pub mod refused;
pub mod cbor;
pub mod target;
pub mod producer;
pub mod heartbeat;
pub mod metrics;
pub mod run;
pub mod dispatch;
pub mod backfill;
pub mod replay;
pub mod import;
pub mod regions;
pub mod status;
pub mod upgrade;
mod attend;
pub mod redrive;
pub mod cost;

pub use config::Config;
pub use run::run;
