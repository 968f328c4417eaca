//! The fleet's turns for DescribeStream, of which the service allows ten a second (AWS, DescribeStream).
//!
//! One worker of a fleet lists a stream and has most of them; all of them ask for the children of shards that end,
//! and share the rest. When many shards end at once the turns do not suffice for asking shard by shard: then the
//! next listing, which tells of a hundred shards a call, finds the children.

use std::sync::Arc;
use std::time::Duration;

use warmcast_common::consumer::Worker;
use warmcast_common::limits::{
    CHILD_SHARDS_INTERVAL_MIN, CHILD_SHARDS_WAIT_MAX, DESCRIBE_STREAM_INTERVAL_MIN,
};

use crate::pace::Pace;

/// The turns of this process. Cheap to clone; clones share them.
#[derive(Clone, Debug)]
pub struct Describes {
    listings: Pace,
    children: Pace,
    worker: Option<Arc<Worker>>,
    listing_interval: Duration,
}

impl Default for Describes {
    /// The turns of a process that is alone.
    fn default() -> Self {
        let (listings, children) = (Pace::new(), Pace::new());
        Self { listings, children, worker: None, listing_interval: DESCRIBE_STREAM_INTERVAL_MIN }
    }
}

impl Describes {
    /// The turns of `worker` in its fleet.
    pub fn of(worker: Arc<Worker>) -> Self {
        Self { worker: Some(worker), ..Self::default() }
    }

    /// The turns of a command while a fleet is at work, which has two thirds of what the service allows.
    pub fn beside_a_fleet() -> Self {
        Self { listing_interval: 3 * DESCRIBE_STREAM_INTERVAL_MIN, ..Self::default() }
    }

    /// Waits for a turn to list a page of shards.
    pub async fn listing(&self) {
        self.listings.turn(self.listing_interval).await;
    }

    /// Waits for a turn to ask for a shard's children, unless too many wait for one.
    pub async fn children(&self) -> bool {
        let workers = self.worker.as_ref().map_or(1, |worker| worker.members().len().max(1));
        let interval = CHILD_SHARDS_INTERVAL_MIN.saturating_mul(u32::try_from(workers).unwrap_or(u32::MAX));
        self.children.turn_within(interval, CHILD_SHARDS_WAIT_MAX).await
    }
}
