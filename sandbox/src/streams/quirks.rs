//! Deviations of listings from the truth, and how long they last.
//!
//! The service's listings lag behind and contradict themselves (the adapter of the Kinesis Client Library mends
//! them): children appear late, a parent looks open while its child is listed, shards are missing. A script says
//! which of these happens to which shard, and for how long.

use std::collections::HashMap;
use std::time::Duration;

use super::clock::millis;
use super::shard::ShardIndex;

/// How long a listing stays wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// For so many answers of DescribeStream that it changes.
    Describes(u32),
    /// Until the fake's clock has moved so far from now.
    Elapsed(Duration),
    /// Until the script says `settle_listings`.
    Settled,
}

/// An [`Until`] that has begun.
#[derive(Clone, Copy, Debug)]
enum Lasting {
    Describes(u32),
    UntilMs(u64),
    Forever,
}

/// The deviations that are in force.
#[derive(Debug, Default)]
pub(super) struct Quirks {
    children_hidden: HashMap<ShardIndex, Lasting>,
    omitted: HashMap<ShardIndex, Lasting>,
    shown_open: HashMap<ShardIndex, Lasting>,
}

impl Quirks {
    /// The children of `parent`, those to come included, are in no listing.
    pub(super) fn hide_children(&mut self, parent: ShardIndex, until: Until, now_ms: u64) {
        self.children_hidden.insert(parent, begin(until, now_ms));
    }

    /// The shard is in no listing of all shards; asking for its parent's children finds it.
    pub(super) fn omit(&mut self, shard: ShardIndex, until: Until, now_ms: u64) {
        self.omitted.insert(shard, begin(until, now_ms));
    }

    /// The shard looks open though it is closed.
    pub(super) fn show_open(&mut self, shard: ShardIndex, until: Until, now_ms: u64) {
        self.shown_open.insert(shard, begin(until, now_ms));
    }

    /// Whether there are hidden children at all.
    pub(super) fn hide_any_children(&self) -> bool {
        !self.children_hidden.is_empty()
    }

    /// Asked once for each answer that would show a child.
    pub(super) fn are_children_hidden(&mut self, parent: ShardIndex, now_ms: u64) -> bool {
        in_force(&mut self.children_hidden, parent, now_ms)
    }

    /// Asked once for each answer that would show the shard.
    pub(super) fn is_omitted(&mut self, shard: ShardIndex, now_ms: u64) -> bool {
        in_force(&mut self.omitted, shard, now_ms)
    }

    /// Asked once for each answer that shows the shard.
    pub(super) fn is_shown_open(&mut self, shard: ShardIndex, now_ms: u64) -> bool {
        in_force(&mut self.shown_open, shard, now_ms)
    }

    pub(super) fn settle(&mut self) {
        *self = Self::default();
    }

    pub(super) fn forget(&mut self, shard: ShardIndex) {
        self.children_hidden.remove(&shard);
        self.omitted.remove(&shard);
        self.shown_open.remove(&shard);
    }
}

fn begin(until: Until, now_ms: u64) -> Lasting {
    match until {
        Until::Describes(count) => Lasting::Describes(count),
        Until::Elapsed(time) => Lasting::UntilMs(now_ms.saturating_add(millis(time))),
        Until::Settled => Lasting::Forever,
    }
}

/// Whether the deviation is still in force; one that counts answers is counted down.
fn in_force(deviations: &mut HashMap<ShardIndex, Lasting>, of: ShardIndex, now_ms: u64) -> bool {
    let Some(lasting) = deviations.get_mut(&of) else { return false };
    let holds = match lasting {
        Lasting::Describes(left) => {
            let holds = *left > 0;
            *left = left.saturating_sub(1);
            holds
        }
        Lasting::UntilMs(end_ms) => now_ms < *end_ms,
        Lasting::Forever => true,
    };
    if !holds {
        deviations.remove(&of);
    }
    holds
}
