//! How the reading of a shard ends.

use super::checkpoint::Checkpoint;
use super::source::SourceError;
use super::store::{Lease, StoreError};

/// How a shard's consumption ended well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShardExit {
    /// The lease was not to be had: somebody else took it, or the shard's parents are not finished after all.
    NotTaken,
    /// Somebody else has the lease: nothing was checkpointed after that.
    LeaseLost,
    /// The shard is closed and all of it is done and checkpointed.
    Ended(Children),
    /// The shard was finished before, and all that was parked on it is caught up.
    CaughtUp,
    /// Everything read is done and checkpointed, and the lease is released, or given to this worker.
    Drained(Option<String>),
    /// The shard is to be begun again at this checkpoint: what was read of it and not done is of no account.
    Rewinding(Box<Lease>, Checkpoint),
}

/// What became of an ended shard's children.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Children {
    /// Their names, as far as they show.
    pub names: Vec<String>,
    /// Leases that this worker took over with them, to go on without a pause.
    pub adopted: Vec<Adopted>,
}

/// A child whose lease its parent's reader has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adopted {
    /// The lease.
    pub lease: Lease,
    /// Nothing in the shard is older: the least of its parents' last watermarks, in milliseconds since the epoch.
    pub since_ms: Option<u64>,
}

/// Why a shard must be started again from its checkpoint.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ShardFailure {
    /// The lease could not be taken.
    #[error("the lease could not be taken: {0}")]
    NotTaken(StoreError),
    /// A record's ack was dropped.
    #[error("a record was lost on its way; the shard is read again from its checkpoint")]
    RecordLost,
    /// The shard cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The process stood still since it had the lease, which may be somebody else's by now.
    #[error("this process stood still; the lease is proven, and the shard read again from its checkpoint")]
    StoodStill,
    /// The watchdog ended it.
    #[error("stuck: it waited for {0}, which nothing should hold up")]
    Stuck(&'static str),
    /// A defect of ours.
    #[error("its task panicked")]
    Panicked,
}

impl ShardFailure {
    /// Whether it is a defect of ours: it does not heal.
    pub fn is_defect(&self) -> bool {
        matches!(self, Self::Stuck(_) | Self::Panicked)
    }

    /// Whether the service says that the shard, or its stream, is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Source(error) if error.is_not_found())
    }
}
