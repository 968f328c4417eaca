//! Reading the lease table, and telling whether its application runs.

use std::collections::HashMap;

use aws_sdk_dynamodb::Client;

use super::lease::{Decoded, KclLease, Unreadable, decode};
use super::stream::KclStream;
use crate::aws::CallError;

/// The lease table of a KCL application. It is only read.
#[derive(Clone, Debug)]
pub struct LeaseTable {
    client: Client,
    name: String,
}

/// What is in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// The leases.
    pub leases: Vec<KclLease>,
    /// Items that should be leases.
    pub unreadable: Vec<Unreadable>,
    /// How many items are something else.
    pub others: usize,
}

impl LeaseTable {
    /// The table of this name.
    pub fn new(client: Client, name: impl Into<String>) -> Self {
        Self { client, name: name.into() }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Reads all of it, strongly consistent.
    ///
    /// # Errors
    /// When a call fails, as it does when there is no such table.
    pub async fn read(&self) -> Result<Contents, CallError> {
        let mut contents = Contents::default();
        let mut from = None;
        loop {
            let answer = self
                .client
                .scan()
                .table_name(&self.name)
                .consistent_read(true)
                .set_exclusive_start_key(from)
                .send()
                .await
                .map_err(|e| CallError::new("Scan", format!("lease table {}", self.name), e))?;
            for item in answer.items.unwrap_or_default() {
                match decode(&item) {
                    Ok(Decoded::Lease(lease)) => contents.leases.push(lease),
                    Ok(Decoded::Other) => contents.others += 1,
                    Err(unreadable) => contents.unreadable.push(unreadable),
                }
            }
            match answer.last_evaluated_key {
                Some(key) if !key.is_empty() => from = Some(key),
                _ => return Ok(contents),
            }
        }
    }
}

/// The owners that were at work between two readings, each once: those of leases whose counter has changed. An
/// owner by itself tells nothing, for KCL leaves its name behind when it is killed.
pub fn at_work(before: &[KclLease], after: &[KclLease]) -> Vec<String> {
    let counters: HashMap<(&Option<KclStream>, &str), u64> =
        before.iter().map(|lease| ((&lease.stream, lease.shard.as_str()), lease.counter)).collect();
    let moved = |lease: &&KclLease| {
        counters.get(&(&lease.stream, lease.shard.as_str())).is_none_or(|counter| *counter != lease.counter)
    };
    let mut owners: Vec<String> =
        after.iter().filter(moved).filter_map(|lease| lease.owner.clone()).collect();
    owners.sort();
    owners.dedup();
    owners
}
