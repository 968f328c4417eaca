//! What can happen next.

use crate::{
    protocol::Slot,
    scenario::{Scenario, Without},
    world::{BEGUN, Fate, KEYS, NEW, OLD, World},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    /// One unit of time passes; whoever runs renews its lease and looks at the server.
    Tick,

    Put {
        key: u8,
        rounded: bool,
    },
    PutIncomplete {
        key: u8,
    },
    Delete {
        key: u8,
        rounded: bool,
    },
    /// A change comes into the log; held up, its frame was made when it was committed. Where nothing is held up,
    /// changes come at once: that the writer takes its time is lag enough.
    Deliver {
        held_up: bool,
    },
    /// A change comes once more, in the frame of its first delivery.
    Duplicate {
        change: usize,
    },
    /// An aggregator that starts again delivers everything from this change on once more.
    Replay {
        from: usize,
    },

    Send {
        writer: usize,
        records: usize,
    },
    /// One entry of a call reaches the server. The last one acks the call.
    Land {
        writer: usize,
        key: u8,
    },
    LandStray {
        key: u8,
    },
    /// The answer is lost, and whatever of the call has not landed.
    LoseAnswer {
        writer: usize,
    },
    /// The writer looks at the server before its time.
    Look {
        writer: usize,
    },
    WriteCheckpoint,
    Restart,
    PauseOld,
    TakeOver,

    Acquire {
        reader: usize,
        key: u8,
    },
    /// The reader fills with a state that the master had since the token was taken.
    Fill {
        reader: usize,
        state: u64,
    },
    GiveUp {
        reader: usize,
    },
    ReadPage {
        key: u8,
    },
    Backfill {
        state: u64,
    },
    Invalidate {
        key: u8,
    },
    Corrupt {
        key: u8,
    },
    Verify {
        key: u8,
    },

    Evict {
        key: u8,
    },
    Flush,
    Replicate,
    FailOver,
    DeleteByHand {
        key: u8,
    },
}

pub(crate) fn enabled(scenario: &Scenario, world: &World, actions: &mut Vec<Action>) {
    if world.now < BEGUN + scenario.time_max {
        actions.push(Action::Tick);
    }
    master(scenario, world, actions);
    stream(scenario, world, actions);
    writers(scenario, world, actions);
    fills(scenario, world, actions);
    server(scenario, world, actions);
}

fn keys(scenario: &Scenario) -> std::ops::Range<u8> {
    0..scenario.keys
}

fn master(scenario: &Scenario, world: &World, actions: &mut Vec<Action>) {
    if world.history.len() >= usize::from(scenario.writes_max) {
        return;
    }
    let rounded = if scenario.creation_rounds { &[false, true][..] } else { &[false] };
    for key in keys(scenario) {
        actions.extend(rounded.iter().map(|&rounded| Action::Put { key, rounded }));
        if world.used.incomplete < scenario.incomplete_max {
            actions.push(Action::PutIncomplete { key });
        }
        if world.used.deletes < scenario.deletes_max && world.has_item(world.newest(key)) {
            actions.extend(rounded.iter().map(|&rounded| Action::Delete { key, rounded }));
        }
    }
}

fn stream(scenario: &Scenario, world: &World, actions: &mut Vec<Action>) {
    if let Some(change) = world.history.get(world.delivered) {
        actions.push(Action::Deliver { held_up: false });
        if change.committed < world.now {
            actions.push(Action::Deliver { held_up: true });
        }
    }
    if world.used.duplicates < scenario.duplicates_max {
        actions.extend((0..world.delivered).map(|change| Action::Duplicate { change }));
    }
    if world.used.replays < scenario.replays_max {
        actions.extend((0..world.delivered).map(|from| Action::Replay { from }));
    }
}

fn writers(scenario: &Scenario, world: &World, actions: &mut Vec<Action>) {
    for (index, writer) in world.writers.iter().enumerate() {
        let is_owner = world.lease.owner == index;
        let may_send = match writer.fate {
            Fate::Running => is_owner,
            // It wakes: it has not noticed yet.
            Fate::Paused => !is_owner,
            Fate::NotStarted | Fate::Gone => false,
        };
        if let Some(call) = writer.call {
            let under_way = (0..KEYS as u8).filter(|key| call.under_way[usize::from(*key)].is_some());
            actions.extend(under_way.map(|key| Action::Land { writer: index, key }));
            if world.used.answers_lost < scenario.answers_lost_max && writer.fate == Fate::Running {
                actions.push(Action::LoseAnswer { writer: index });
            }
        } else if may_send {
            let left = world.log.len().saturating_sub(writer.cursor);
            actions.extend(
                (1..=left.min(scenario.call_max)).map(|records| Action::Send { writer: index, records }),
            );
        }
        let view_is_old = writer.view.epoch != world.cache.epoch
            || (scenario.evicts() && writer.view.evicted_keys != world.cache.evicted_keys);
        let may_begin_again = writer.call.is_none() || scenario.calls_stray;
        if writer.fate == Fate::Running && is_owner && view_is_old && may_begin_again {
            actions.push(Action::Look { writer: index });
        }
    }
    if let Some(call) = world.stray {
        let under_way = (0..KEYS as u8).filter(|key| call.under_way[usize::from(*key)].is_some());
        actions.extend(under_way.map(|key| Action::LandStray { key }));
    }
    let owner = world.owner();
    if owner.fate == Fate::Running {
        if scenario.checkpoints_lag && world.lease.checkpoint < owner.cursor {
            actions.push(Action::WriteCheckpoint);
        }
        let may_begin_again = owner.call.is_none() || scenario.calls_stray;
        if world.used.restarts < scenario.restarts_max && may_begin_again {
            actions.push(Action::Restart);
        }
    }
    if scenario.pauses && world.lease.owner == OLD {
        if owner.fate == Fate::Running {
            actions.push(Action::PauseOld);
        } else if owner.fate == Fate::Paused && world.now >= owner.renewed + scenario.lease {
            actions.push(Action::TakeOver);
        }
    }
    debug_assert!(world.writers[NEW].fate != Fate::Paused, "only the old writer is paused");
}

fn fills(scenario: &Scenario, world: &World, actions: &mut Vec<Action>) {
    for reader in 0..usize::from(scenario.readers) {
        match world.readers[reader] {
            Some(hold) => {
                let states = world.states_since(hold.key, hold.oldest);
                actions.extend(states.into_iter().map(|state| Action::Fill { reader, state }));
                actions.push(Action::GiveUp { reader });
            }
            None if world.used.fills < scenario.fills_max => {
                actions.extend(keys(scenario).map(|key| Action::Acquire { reader, key }));
            }
            None => {}
        }
    }
    match world.page {
        Some(page) => {
            let states = world.states_since(page.key, page.oldest);
            actions.extend(states.into_iter().map(|state| Action::Backfill { state }));
        }
        None if world.used.pages < scenario.pages_max => {
            actions.extend(keys(scenario).map(|key| Action::ReadPage { key }));
        }
        None => {}
    }
    for key in keys(scenario) {
        let slot = world.cache.slots[usize::from(key)];
        if world.used.invalidations < scenario.invalidations_max && slot != Slot::Empty {
            actions.push(Action::Invalidate { key });
        }
        if world.used.corruptions < scenario.corruptions_max && matches!(slot, Slot::Entry(_)) {
            actions.push(Action::Corrupt { key });
        }
        if world.is_corrupt {
            actions.push(Action::Verify { key });
        }
    }
}

fn server(scenario: &Scenario, world: &World, actions: &mut Vec<Action>) {
    for key in keys(scenario) {
        if world.cache.slots[usize::from(key)] == Slot::Empty {
            continue;
        }
        if world.used.evictions < scenario.evictions_max {
            actions.push(Action::Evict { key });
        }
        if world.used.deletions_by_hand < scenario.deletions_by_hand_max {
            actions.push(Action::DeleteByHand { key });
        }
    }
    if world.used.flushes < scenario.flushes_max && world.cache.slots != [Slot::Empty; KEYS] {
        actions.push(Action::Flush);
    }
    if world.used.failovers < scenario.failovers_max
        && let Some(since) = world.cache.behind_since
    {
        actions.push(Action::Replicate);
        // A replica that is further behind is more than the rewind answers for.
        if world.now <= since + scenario.rewind || scenario.lacks(Without::Rewind) {
            actions.push(Action::FailOver);
        }
    }
}
