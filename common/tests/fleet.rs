//! Fleets of workers, each a process of its own with its own way to a real state table, that share scripted
//! streams: how they divide the shards, hand them over, lose and find them.
//!
//! The modules from [`wait`] to [`world`] are the parts; the others are the tests.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    reason = "the parts of a test fail by panicking, and then show what happened"
)]

#[path = "support/wait.rs"]
#[expect(dead_code, reason = "a fleet has its own deadline")]
mod support;
#[path = "consumer/table.rs"]
mod table;
#[path = "consumer/script.rs"]
#[expect(dead_code, reason = "the consumer's tests need more of it")]
mod script;
#[path = "fleet/journal.rs"]
mod journal;
#[path = "fleet/wire.rs"]
mod wire;
#[path = "fleet/view.rs"]
mod view;
#[path = "fleet/sink.rs"]
mod sink;
#[path = "fleet/process.rs"]
mod process;
#[path = "fleet/world.rs"]
mod world;

#[path = "fleet/sharing.rs"]
mod sharing;
#[path = "fleet/balance.rs"]
mod balance;
#[path = "fleet/watchdog.rs"]
mod watchdog;
#[path = "fleet/streams.rs"]
mod streams;
#[path = "fleet/lineage.rs"]
mod lineage;
#[path = "fleet/traces.rs"]
mod traces;
#[path = "fleet/watermarks.rs"]
mod watermarks;
#[path = "fleet/simulation.rs"]
mod simulation;
