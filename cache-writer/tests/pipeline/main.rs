//! The cache-writer against real servers: an embedded Kinesis and DynamoDB inside this process, and a Redis of its
//! own for each test.
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
#[path = "../../../aggregator/tests/pipeline/servers.rs"]
#[expect(dead_code, reason = "the aggregator's tests need more of it")]
mod servers;
#[path = "../../../cache/tests/support/mod.rs"]
#[expect(dead_code, reason = "the tests of the cache need more of it")]
mod redis_server;
mod world;

mod running;
mod metrics;
mod readiness;
mod status;
mod bad_input;
mod outages;
mod resharding;
mod inflation;
mod poison;
mod redrive;
mod replays;
mod explains;
mod protocol;
mod backfills;
mod aggregated;
mod verify;
