//! Coming from the Kinesis Client Library (KCL): its lease table is read once, and what it says becomes the
//! starting point of our consumer.
//!
//! ```text
//! table ─items→ lease ─KclLease→ stream (one of them) → plan (listing, our state) → report → import (write)
//! ```
//!
//! All but [`table`] and [`import`] is pure. What is known of KCL's items is from its source
//! (awslabs/amazon-kinesis-client 3.5.1: `leases/dynamodb/DynamoDBLeaseSerializer`,
//! `DynamoDBMultiStreamLeaseSerializer`, `leases/EntityType`, `common/StreamIdentifier`,
//! `leases/HierarchicalShardSyncer`) and that of its adapter for DynamoDB Streams
//! (awslabs/dynamodb-streams-kinesis-adapter 2.3.0: `util/KinesisMapperUtil`). A lease has looked the same since
//! KCL 1.x: later versions only added attributes.
//!
//! The rule of every decision here: reading something again is harmless, not reading it is not.

pub mod lease;
pub mod stream;
pub mod table;
pub mod plan;
pub mod report;
pub mod import;

use std::time::Duration;

use clap::Args;

use crate::config::ServiceConfig;
use crate::daemon::OutputFormat;

pub use import::{Import, ImportError};
pub use lease::{Decoded, KclCheckpoint, KclLease, Unreadable, decode};
pub use plan::{Action, Entry, Plan, Skip, plan};
pub use report::Report;
pub use stream::KclStream;
pub use table::LeaseTable;

/// The flags of `import-kcl` that are the same for every daemon.
#[derive(Args, Clone, Debug)]
pub struct ImportArgs {
    /// The lease table of the KCL application. KCL names it like the application.
    #[arg(long, value_name = "LEASE_TABLE")]
    pub kcl_table: String,
    /// Which of the application's streams, if it has several: the stream's name, the whole identifier
    /// ACCOUNT:STREAM:EPOCH, or for a DynamoDB stream the name of its table.
    #[arg(long, value_name = "NAME")]
    pub kcl_stream: Option<String>,
    /// The region of the lease table, if it is not that of [dynamodb].
    #[arg(long, value_name = "REGION")]
    pub kcl_region: Option<String>,
    /// The address of the lease table's DynamoDB, if it is not that of [dynamodb].
    #[arg(long, value_name = "URL")]
    pub kcl_endpoint: Option<String>,
    /// How long to look whether the application still renews its leases, in milliseconds. KCL renews each of them
    /// three times in failoverTimeMillis (10000 unless it was changed): give at least half of that.
    #[arg(long, value_name = "MS", default_value_t = 12_000, value_parser = clap::value_parser!(u64).range(1..=600_000))]
    pub watch_ms: u64,
    /// Import although the application runs. Both then read every shard, and what it does from now on is done again.
    #[arg(long)]
    pub force: bool,
    /// Write nothing, and print the same report.
    #[arg(long)]
    pub dry_run: bool,
    /// How the report is printed.
    #[arg(long, value_enum, default_value_t)]
    pub output: OutputFormat,
}

impl ImportArgs {
    /// How the DynamoDB of the lease table is reached, given that of the daemon's own state.
    pub fn service(&self, dynamodb: &ServiceConfig) -> ServiceConfig {
        ServiceConfig {
            region: self.kcl_region.clone().or_else(|| dynamodb.region.clone()),
            endpoint: self.kcl_endpoint.clone().or_else(|| dynamodb.endpoint.clone()),
            credentials: dynamodb.credentials.clone(),
        }
    }

    /// See `watch_ms`.
    pub fn watch(&self) -> Duration {
        Duration::from_millis(self.watch_ms)
    }
}
