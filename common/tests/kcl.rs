//! Taking the lease table of a KCL application over: both tables are in an embedded DynamoDB on a free loopback
//! port.
//!
//! [`world`] is the parts; the others are the tests.

#![expect(clippy::expect_used, clippy::unwrap_used, reason = "the parts of a test fail by panicking")]

#[path = "kcl/world.rs"]
mod world;

#[path = "kcl/taken_over.rs"]
mod taken_over;
#[path = "kcl/refused.rs"]
mod refused;
