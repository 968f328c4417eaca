//! The whole world on one machine: the demo, the end-to-end tests, the benchmarks.
//!
//! The modules stand in the order in which they build on each other: child processes and servers first, then
//! the [`world`] made of them, the traffic into it, what is seen at its end, and the commands.

pub mod log;
pub mod process;
mod server;
pub mod relay;
pub mod clients;
pub mod faults;
pub mod dynamodb;
pub mod kinesis;
mod metered;
pub mod streams;
pub mod master;
pub mod redis_server;
pub mod daemon;
pub mod row;
pub mod entry;
pub mod world;
pub mod profile;
pub mod measure;
pub mod workload;
pub mod verify;
pub mod checkpoints;
mod rate;
mod usage;
pub mod report;
pub mod up;
pub mod browser;
pub mod screenshot;
pub mod bidder;
pub mod screen;
pub mod demo;
pub mod fleet;
pub mod regions;
pub mod repairs;
pub mod upgrade;
pub mod bench;

pub use log::{LineMissing, Log, Stats};
pub use process::{Process, ProcessError};
pub use server::EmbeddedServer;
