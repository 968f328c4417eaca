//! The shard consumer: reads every shard of a stream, parents before children, hands records on with an
//! [`Ack`], and checkpoints what is done.
//!
//! Records flow from [`source`] through [`shard`] to the daemon's [`Processor`]; the one edge that points
//! backward is the [`Ack`], by way of the [`window`] to the [`checkpoint`] in the [`store`].
//!
//! Invariants:
//! - A checkpoint never passes a record that is not done ([`window`]).
//! - A checkpoint is written only by the owner of the lease, judged by the store ([`store`]).
//! - A shard is read only when the end of every parent is checkpointed ([`lineage`]).
//! - Every lease that may be read ends up with an owner; nobody is taken for dead by another's clock ([`membership`]).
//! - Everything created before the fleet's watermark is done ([`coverage`], [`watermark`]).
//! - What is read and not done is bounded in bytes and in records ([`budget`], [`window`]).

pub mod sequence_number;
pub mod checkpoint;
pub mod compatibility;
pub mod lanes;
pub mod source;
pub mod budget;
pub mod history;
pub mod parked;
pub mod window;
pub mod ack;
pub mod processor;
pub mod settling;
pub mod lag;
pub mod coverage;
pub mod rewind;
pub mod store;
pub mod onset;
pub mod kcl;
pub mod lineage;
pub mod assignment;
pub mod membership;
pub mod watermark;
pub mod outcome;
pub mod counters;
pub mod worker;
pub mod parking;
pub mod progress;
mod orders;
mod tip;
mod catch_up;
mod reader;
mod kin;
mod shard;
mod concurrent;
mod orphans;
mod listings;
pub mod newcomers;
mod audit;
pub mod plan;
pub mod metrics;
pub mod supervisor;

pub use ack::{Ack, LaneAck};
pub use budget::ByteBudget;
pub use catch_up::{LaneConfig, LaneFigures};
pub use checkpoint::Checkpoint;
pub use lag::Lags;
pub use lanes::Lanes;
pub use metrics::ConsumerMetrics;
pub use outcome::ShardExit;
pub use parked::{Lane, LaneStart, ParkReason};
pub use parking::Parking;
pub use processor::{Asked, Delivery, Processor};
pub use rewind::{Rewind, Rewinds};
pub use sequence_number::SequenceNumber;
pub use source::{Listing, Page, Shard, SourceError, SourceRecord, StreamSource, WatermarkRule};
pub use supervisor::{Consumer, Subscription};
pub use watermark::Watermark;
pub use worker::{Worker, WorkerConfig};
