//! How many letters there were.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::letter::ReasonClass;

/// Letters since the process started.
#[derive(Debug, Default)]
pub struct Counts {
    undecodable_records: AtomicU64,
    undecodable_changes: AtomicU64,
    refused: AtomicU64,
    stored: AtomicU64,
}

impl Counts {
    /// Letters of this class that were set aside.
    pub fn of(&self, class: ReasonClass) -> u64 {
        self.counter(class).load(Relaxed)
    }

    /// All letters that were set aside.
    pub fn total(&self) -> u64 {
        ReasonClass::ALL.into_iter().map(|class| self.of(class)).sum()
    }

    /// Those of them that are not stored yet. While it stays above zero, their store needs a look.
    pub fn waiting(&self) -> u64 {
        self.total().saturating_sub(self.stored.load(Relaxed))
    }

    pub(super) fn count_set_aside(&self, class: ReasonClass) {
        self.counter(class).fetch_add(1, Relaxed);
    }

    pub(super) fn count_stored(&self) {
        self.stored.fetch_add(1, Relaxed);
    }

    const fn counter(&self, class: ReasonClass) -> &AtomicU64 {
        match class {
            ReasonClass::UndecodableRecord => &self.undecodable_records,
            ReasonClass::UndecodableChange => &self.undecodable_changes,
            ReasonClass::Refused => &self.refused,
        }
    }
}
