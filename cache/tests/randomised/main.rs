//! The whole protocol on real servers that fail: a table changes at random; its changes are delivered with late
//! duplicates, applied by a writer that rewinds after failovers and is now and then replaced by another; readers
//! fill what they miss, pages are backfilled, entries are invalidated, scripts are lost, servers die. Then all goes
//! quiet, and what the cache knows must be what the table has.
//!
//! `WARMCAST_SEED` repeats a run's choices (not its timing), `WARMCAST_RANDOMISED_MS` makes the runs longer. All
//! that takes minutes in production is shorter here: see `log.rs` and `writer.rs`.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, also in its helpers, and tells what it did"
)]

#[path = "../support/cluster.rs"]
#[expect(dead_code, reason = "other tests need more of it")]
mod cluster;
mod faults;
mod fillers;
mod log;
mod run;
#[path = "../support/sentinel.rs"]
#[expect(dead_code, reason = "other tests need more of it")]
mod sentinel;
#[path = "../support/mod.rs"]
mod support;
mod writer;

use cluster::RedisCluster;
use faults::{Fault, Servers};
use sentinel::SentinelSetup;
use support::RedisServer;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_server_that_restarts_empty_and_is_emptied() {
    let servers = Servers::Standalone(RedisServer::start());
    run::run(servers, &[Fault::Kill, Fault::Empty, Fault::ForgetScripts, Fault::Takeover]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_server_that_evicts() {
    let limits = ["--maxmemory", "6mb", "--maxmemory-policy", "allkeys-random"];
    let servers = Servers::Standalone(RedisServer::start_with(&limits, &[]));
    run::run(servers, &[Fault::Evict, Fault::ForgetScripts, Fault::Evict, Fault::Takeover]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_fails_over() {
    let servers = Servers::Cluster(RedisCluster::start(3, 1).await);
    run::run(servers, &[Fault::Kill, Fault::FailOver, Fault::ForgetScripts, Fault::Takeover]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_under_sentinels_that_fails_over() {
    let servers = Servers::Sentinel(SentinelSetup::start().await);
    run::run(servers, &[Fault::Kill, Fault::FailOver, Fault::ForgetScripts, Fault::Takeover]).await;
}
