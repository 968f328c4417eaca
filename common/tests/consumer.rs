//! The shard consumer against a real state table (an embedded DynamoDB on a free loopback port) and a scripted
//! stream.
//!
//! The modules from [`wait`] to [`world`] are the parts; the others are the tests.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "the parts of a test fail by panicking"
)]

#[path = "support/wait.rs"]
mod support;
#[path = "consumer/wait.rs"]
mod wait;
#[path = "consumer/table.rs"]
mod table;
#[path = "consumer/script.rs"]
mod script;
#[path = "consumer/recorder.rs"]
mod recorder;
#[path = "consumer/gate.rs"]
mod gate;
#[path = "consumer/world.rs"]
mod world;

#[path = "consumer/lane_recorder.rs"]
mod lane_recorder;

#[path = "consumer/state_store.rs"]
mod state_store;
#[path = "consumer/state_versions.rs"]
mod state_versions;
#[path = "consumer/state_lanes.rs"]
mod state_lanes;
#[path = "consumer/ordering.rs"]
mod ordering;
#[path = "consumer/checkpoints.rs"]
mod checkpoints;
#[path = "consumer/watermarks.rs"]
mod watermarks;
#[path = "consumer/rewinds.rs"]
mod rewinds;
#[path = "consumer/failures.rs"]
mod failures;
#[path = "consumer/leases.rs"]
mod leases;
#[path = "consumer/backpressure.rs"]
mod backpressure;
#[path = "consumer/lanes.rs"]
mod lanes;
#[path = "consumer/upgrades.rs"]
mod upgrades;
