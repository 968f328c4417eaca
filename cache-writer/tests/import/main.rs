//! `cache-writer import-kcl` as a process, against an embedded DynamoDB and an embedded Kinesis.

#![expect(clippy::unwrap_used, reason = "the parts of a test fail by panicking")]

#[path = "../../../common/tests/support/wait.rs"]
mod wait;
#[path = "../../../aggregator/tests/pipeline/servers.rs"]
#[expect(dead_code, reason = "an import needs little of the servers")]
mod servers;

mod command;
