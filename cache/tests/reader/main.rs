//! The bidders' reader, against a real Redis and a DynamoDB that does what the test says.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking, also in its helpers"
)]

#[path = "../master/fake.rs"]
mod fake;
#[path = "../support/cluster.rs"]
#[expect(dead_code, reason = "other tests need more of it")]
mod cluster;
#[path = "../support/sentinel.rs"]
#[expect(dead_code, reason = "other tests need more of it")]
mod sentinel;
#[path = "../support/mod.rs"]
mod support;
mod world;
mod answers;
mod deadlines;
mod fills;
mod first_level;
mod offers;
mod servers;
mod staleness;
