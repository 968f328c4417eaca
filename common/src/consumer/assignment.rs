//! Who has which lease: what a worker claims and what it gives away, decided from everybody's heartbeats. Pure.
//!
//! There is no leader. Every worker reads the heartbeats of all and decides for itself:
//! - *Free leases are taken.* Each worker computes the whole [split](claims) of the free leases and claims its
//!   own part. Workers that see the same compute the same, so few claims collide; the store decides.
//! - *Held leases are given*, for [balance](moves), by their owner only. It knows their rates best, it can drain
//!   and checkpoint first, and one decider for each lease cannot contradict itself.
//!
//! A fleet is balanced by throughput. A lease with next to none says nothing there, so idle leases are spread by
//! count, and so is everything while the fleet has no throughput.

mod claims;
mod balance;
mod moves;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

pub use claims::{FreeLease, claim, takers, without_room};
pub use moves::{HeldLease, Move, give};

/// What a worker's heartbeat says about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The worker's name, different from every other's.
    pub id: String,
    /// Its share of the work relative to others'. At least 1; 0 counts as 1.
    pub capacity: u32,
    /// The most leases it may have.
    pub leases_max: usize,
    /// Leases it has.
    pub leases: usize,
    /// Bytes a second that it reads over all its leases (a decaying average).
    pub bytes_per_s: u64,
    /// The streams it can read.
    pub streams: BTreeSet<String>,
    /// It is stopping: nothing is given to it and it claims nothing.
    pub leaving: bool,
}

impl Member {
    fn room(&self) -> usize {
        self.leases_max.saturating_sub(self.leases)
    }

    fn weight(&self) -> f64 {
        f64::from(self.capacity.max(1))
    }
}

/// Below this mean, in bytes a second for each lease, a fleet has no throughput worth a balance: asking an idle
/// shard once a second whether it has something moves more bytes than that.
const LEASE_BYTES_PER_S_MIN: f64 = 100.0;

/// A lease is idle below this part of the fleet's mean. All idle leases together then carry less than this part of
/// the throughput, and spreading them by count leaves the balance by throughput as it is.
const IDLE_PART: f64 = 0.01;

/// The rate from which a lease is busy, in bytes a second; none is while the fleet has no throughput.
fn busy_bytes_per_s_min(bytes_per_s: f64, leases: f64) -> Option<f64> {
    (bytes_per_s > 0.0 && bytes_per_s >= leases * LEASE_BYTES_PER_S_MIN)
        .then_some(bytes_per_s / leases * IDLE_PART)
}

/// A number that every worker draws alike from the same words, whatever it was built with (FNV-1a, and the last
/// steps of SplitMix64, because FNV leaves the ends of similar words similar).
fn lot<'a>(words: impl IntoIterator<Item = &'a [u8]>) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for word in words {
        // 0xff is in no UTF-8 text, so it keeps ("ab", "c") and ("a", "bc") apart.
        for byte in word.iter().chain(&[0xff]) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    mix(hash)
}

/// Spreads what differs in any bit over all of them (the last steps of SplitMix64).
fn mix(mut hash: u64) -> u64 {
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}
