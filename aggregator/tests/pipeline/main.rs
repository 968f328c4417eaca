//! The aggregator against real servers inside this process (an embedded DynamoDB, an embedded Kinesis), and its
//! producer against a Kinesis that follows a script.
//!
//! The modules from [`wait`] to [`world`] are the parts; the others are the tests.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "the parts of a test fail by panicking"
)]

#[path = "../../../common/tests/support/wait.rs"]
mod wait;
#[path = "../../../common/tests/support/errors.rs"]
mod errors;
#[path = "../../../common/tests/support/endpoint.rs"]
mod endpoint;
mod servers;
mod fake_kinesis;
mod world;

mod poison;
mod redrives;
mod producer;
mod dispatch;
mod backfills;
mod replay;
mod heartbeats;
mod expiry;
mod running;
mod status;
mod metrics;
mod readiness;
mod outages;
mod watermarks;
mod encodings;
mod filters;
mod conditions;
mod formats;
