//! The cache protocol, explored.
//!
//! A master table, the log of its changes, two cache-writers, two readers, a backfill, and a server that evicts,
//! expires, forgets and fails over take their steps in every order that the bounds of a scenario allow. Each step on
//! the server is one of the functions of `../protocol`, which the scripts are held against elsewhere. In every state
//! the properties of `properties.rs` must hold; each scenario also says which situations it must have met, so that
//! it cannot hold them by never getting there. `ablations.rs` takes the rules away one by one and wants the
//! counterexample.
//!
//! `docs/cache-protocol.md` tells what the rules are for. To see what is explored:
//! `cargo test -p warmcast-cache --release --test model -- --nocapture --test-threads 1`. Built without
//! optimisation, the bounds are smaller.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking, also in its helpers, and this one reports what it explored"
)]

#[path = "../protocol/mod.rs"]
mod protocol;

mod ablations;
mod actions;
mod checker;
mod properties;
mod scenario;
mod scenarios;
mod step;
mod world;
