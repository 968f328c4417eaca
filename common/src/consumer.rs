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
//! - What is read and not done is bounded in bytes and in records ([`budget`], [`window`]).

pub mod sequence_number;
pub mod source;
pub mod budget;
pub mod window;
pub mod ack;
pub mod checkpoint;
pub mod lag;
pub mod lineage;
pub mod store;
pub mod worker;
pub mod shard;
pub mod supervisor;

pub use ack::Ack;
pub use budget::ByteBudget;
pub use checkpoint::Checkpoint;
pub use lag::Lags;
pub use sequence_number::SequenceNumber;
pub use shard::{Delivery, Processor, ShardExit};
pub use source::{Page, Shard, SourceError, SourceRecord, StreamSource};
pub use supervisor::{Consumer, ConsumerConfig};
pub use worker::{Worker, WorkerConfig};
