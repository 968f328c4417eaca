//! Everything that a state of the model holds.

use crate::protocol::{Server, Slot};

/// When it begins: a change can be made, and rounded down, after the time zero that stands for never.
pub(crate) const BEGUN: u64 = 2;
pub(crate) const KEYS: usize = 2;
pub(crate) const OLD: usize = 0;
pub(crate) const NEW: usize = 1;
pub(crate) const WRITERS: usize = 2;
pub(crate) const READERS: usize = 2;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct World {
    pub(crate) now: u64,
    /// What was written to the master table. A change's position is its index plus one.
    pub(crate) history: Vec<Change>,
    /// How many of them were delivered to the log.
    pub(crate) delivered: usize,
    /// One Kinesis shard, from the oldest record that anybody may still read.
    pub(crate) log: Vec<Record>,
    pub(crate) lease: Lease,
    pub(crate) writers: [Writer; WRITERS],
    /// A call whose writer has given it up; it may still land.
    pub(crate) stray: Option<Call>,
    pub(crate) readers: [Option<Hold>; READERS],
    pub(crate) page: Option<Page>,
    pub(crate) pager: View,
    pub(crate) cache: Cache,
    /// Per key, the newest change that was acked since data was last lost. Readers must not see anything older.
    pub(crate) acked: [u64; KEYS],
    /// Data was lost, and what was lost is not applied again yet.
    pub(crate) is_recovering: bool,
    /// Data was lost that nobody can know of.
    pub(crate) lost_unknown: bool,
    /// An entry went wrong and was not verified since.
    pub(crate) is_corrupt: bool,
    pub(crate) used: Used,
    pub(crate) flaw: Option<Flaw>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Change {
    pub(crate) key: u8,
    pub(crate) kind: ChangeKind,
    pub(crate) committed: u64,
    pub(crate) created: u64,
    /// The stamp of its first record.
    pub(crate) stamp: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ChangeKind {
    Put,
    /// The item is in the master table, but the stream does not have it.
    Incomplete,
    Delete,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Record {
    /// Index in the history.
    pub(crate) change: usize,
    /// When its frame was made: a time at which its aggregator surely held the lease of the table's shard.
    pub(crate) stamp: u64,
    pub(crate) arrived: u64,
    pub(crate) acked: Option<u64>,
}

/// The lease of the shard, in the state table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Lease {
    pub(crate) owner: usize,
    pub(crate) checkpoint: usize,
    /// The cache's epoch that the checkpoint was made in.
    pub(crate) epoch: u64,
    pub(crate) rewind: Rewind,
    pub(crate) create_after: u64,
}

/// Where a shard begins again when data was lost. It is written to the lease with the checkpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Rewind {
    pub(crate) checkpoint: usize,
    /// When the last record before it arrived; zero: there is none.
    pub(crate) arrived: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Writer {
    pub(crate) fate: Fate,
    /// The next record to apply: all before it are acked.
    pub(crate) cursor: usize,
    pub(crate) call: Option<Call>,
    pub(crate) view: View,
    pub(crate) rewind: Rewind,
    /// Records that arrived up to here may be duplicates of what was superseded before the rewind began: they do
    /// not create. Zero: there was no rewind.
    pub(crate) create_after: u64,
    /// When it last proved that it holds its lease.
    pub(crate) renewed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Fate {
    NotStarted,
    Running,
    /// Stopped in the middle. Once another has its lease it may wake and send one more call before it notices.
    Paused,
    Gone,
}

/// What a process knows of the server, and what the marker says to all of them. A marker of another epoch is one that
/// is not there, or of the server that had the data before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct View {
    pub(crate) epoch: u64,
    pub(crate) evicted_keys: u64,
    pub(crate) horizon: u64,
}

/// A pipeline of applies, one for each key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Call {
    pub(crate) from: usize,
    pub(crate) to: usize,
    /// Per key, the record that has not landed yet.
    pub(crate) under_way: [Option<usize>; KEYS],
    pub(crate) deadline: u64,
    pub(crate) view: View,
    pub(crate) create_after: u64,
}

/// A reader's right to fill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Hold {
    pub(crate) key: u8,
    pub(crate) token: u64,
    pub(crate) taken_at: u64,
    /// The key's newest position when the token was taken: the read finds this or newer.
    pub(crate) oldest: u64,
}

/// A page of a backfill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Page {
    pub(crate) key: u8,
    pub(crate) read_at: u64,
    pub(crate) oldest: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Cache {
    pub(crate) slots: [Slot; KEYS],
    pub(crate) evicted_keys: u64,
    /// Which data this is: another after each loss.
    pub(crate) epoch: u64,
    pub(crate) marker: View,
    pub(crate) replica: [Slot; KEYS],
    pub(crate) marker_of_replica: View,
    /// Since when the replica lacks a write.
    pub(crate) behind_since: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Used {
    pub(crate) deletes: u8,
    pub(crate) incomplete: u8,
    pub(crate) duplicates: u8,
    pub(crate) replays: u8,
    pub(crate) restarts: u8,
    pub(crate) answers_lost: u8,
    pub(crate) fills: u8,
    pub(crate) pages: u8,
    pub(crate) corruptions: u8,
    pub(crate) invalidations: u8,
    pub(crate) evictions: u8,
    pub(crate) flushes: u8,
    pub(crate) failovers: u8,
    pub(crate) deletions_by_hand: u8,
}

/// What a single step must never do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Flaw {
    FloorWentBack,
    RefusedFillInstalled,
}

impl Writer {
    pub(crate) const NOT_STARTED: Self = Self {
        fate: Fate::NotStarted,
        cursor: 0,
        call: None,
        view: View { epoch: 0, evicted_keys: 0, horizon: 0 },
        rewind: Rewind { checkpoint: 0, arrived: 0 },
        create_after: 0,
        renewed: 0,
    };
}

impl World {
    pub(crate) fn new() -> Self {
        Self {
            now: BEGUN,
            history: Vec::new(),
            delivered: 0,
            log: Vec::new(),
            lease: Lease { owner: OLD, checkpoint: 0, epoch: 0, rewind: Rewind::default(), create_after: 0 },
            writers: [
                Writer { fate: Fate::Running, renewed: BEGUN, ..Writer::NOT_STARTED },
                Writer::NOT_STARTED,
            ],
            stray: None,
            readers: [None; READERS],
            page: None,
            pager: View::default(),
            cache: Cache {
                slots: [Slot::Empty; KEYS],
                evicted_keys: 0,
                epoch: 0,
                marker: View::default(),
                marker_of_replica: View::default(),
                replica: [Slot::Empty; KEYS],
                behind_since: None,
            },
            acked: [0; KEYS],
            is_recovering: false,
            lost_unknown: false,
            is_corrupt: false,
            used: Used::default(),
            flaw: None,
        }
    }

    pub(crate) fn server(&self) -> Server {
        Server { now: self.now, evicted_keys: self.cache.evicted_keys }
    }

    /// The position of the key's newest change; zero: there was none.
    pub(crate) fn newest(&self, key: u8) -> u64 {
        self.history.iter().rposition(|change| change.key == key).map_or(0, |index| index as u64 + 1)
    }

    /// Whether the master table has the key's item in the state of this position.
    pub(crate) fn has_item(&self, position: u64) -> bool {
        position > 0 && self.history[position as usize - 1].kind != ChangeKind::Delete
    }

    /// The positions of the key's states from this one on.
    pub(crate) fn states_since(&self, key: u8, oldest: u64) -> Vec<u64> {
        let later = (oldest + 1..=self.history.len() as u64)
            .filter(|position| self.history[*position as usize - 1].key == key);
        std::iter::once(oldest).chain(later).collect()
    }

    pub(crate) fn owner(&self) -> &Writer {
        &self.writers[self.lease.owner]
    }

    /// Everything was delivered and applied, and nothing is under way.
    pub(crate) fn is_quiet(&self) -> bool {
        let owner = self.owner();
        let calls = self.writers.iter().map(|writer| writer.call).chain([self.stray]);
        owner.fate == Fate::Running
            && self.delivered == self.history.len()
            && owner.cursor == self.log.len()
            && owner.view.epoch == self.cache.epoch
            && calls.flatten().all(|call| call.deadline <= self.now)
            && self.readers.iter().all(Option::is_none)
            && self.page.is_none()
            && !self.is_corrupt
    }
}

// How it is told.
impl World {
    /// The cache's entries in one line.
    pub(crate) fn told(&self) -> String {
        let slots = self.cache.slots.iter().filter(|slot| **slot != Slot::Empty).map(told_slot);
        let slots: Vec<_> = slots.collect();
        let slots = if slots.is_empty() { "nothing".to_owned() } else { slots.join(", ") };
        format!("t={} master={} cache: {slots}", self.now, self.told_master())
    }

    fn told_master(&self) -> String {
        let state = |key| match self.newest(key) {
            0 => "-".to_owned(),
            position if self.has_item(position) => format!("v{position}"),
            position => format!("deleted@{position}"),
        };
        let other = if self.history.iter().any(|change| change.key > 0) { state(1) } else { String::new() };
        format!("{} {other}", state(0)).trim_end().to_owned()
    }
}

fn told_slot(slot: &Slot) -> String {
    match slot {
        Slot::Entry(entry) => {
            format!("{:?}(state {}, floor {}, time {})", entry.kind, entry.payload, entry.floor, entry.time)
        }
        other => format!("{other:?}"),
    }
}
