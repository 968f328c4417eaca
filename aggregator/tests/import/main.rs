//! `aggregator import-kcl` as a process, against an embedded DynamoDB; and the aggregator after it.
//!
//! The modules from [`wait`] to [`application`] are the parts; the others are the tests.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "the parts of a test fail by panicking"
)]

#[path = "../../../common/tests/support/wait.rs"]
mod wait;
#[path = "../pipeline/servers.rs"]
#[expect(dead_code, reason = "the tests of the pipeline need more of it")]
mod servers;
#[path = "../pipeline/world.rs"]
#[expect(dead_code, reason = "the tests of the pipeline need more of it")]
mod world;
mod application;

mod command;
mod going_on;
