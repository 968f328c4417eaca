//! Connections to real servers: alone, with sentinels, in a cluster; with TLS and rights; and what happens to
//! writers and readers while servers fail, fail over and give slots away.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking, also in its helpers"
)]

mod acl;
mod changes;
#[path = "../support/cluster.rs"]
mod cluster;
mod clusters;
mod iam;
mod login;
mod losses;
mod replicas;
#[path = "../support/sentinel.rs"]
mod sentinel;
mod sentinels;
#[path = "../support/mod.rs"]
mod support;
mod tls;
mod versions;
mod walks;
