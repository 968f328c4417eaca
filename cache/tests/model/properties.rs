//! What must hold in every state.

use stateright::Property;

use crate::{
    checker::Exploration,
    protocol::{self, Kind, Seen, Slot},
    scenario::Scenario,
    world::{Flaw, World},
};

pub(crate) const CONVERGES: &str = "when all is quiet, what readers see is what the master has";
pub(crate) const STAYS_DELETED: &str = "when all is quiet, a deleted item is not there";
pub(crate) const NEVER_OLDER: &str = "nobody sees anything older than a change that was acked";
pub(crate) const SEEN_IS_TRUE: &str = "what readers see was the master's state at some position";
pub(crate) const FLOOR_GOES_UP: &str = "no script lowers an entry's floor";
pub(crate) const REFUSED_IS_REFUSED: &str = "a refused fill changes nothing";

pub(crate) fn all() -> Vec<Property<Exploration>> {
    vec![
        Property::always(CONVERGES, |model, world| converges(&model.scenario, world)),
        Property::always(STAYS_DELETED, |model, world| stays_deleted(&model.scenario, world)),
        Property::always(NEVER_OLDER, |model, world| never_older(&model.scenario, world)),
        Property::always(SEEN_IS_TRUE, |model, world| seen_is_true(&model.scenario, world)),
        Property::always(FLOOR_GOES_UP, |_, world: &World| world.flaw != Some(Flaw::FloorWentBack)),
        Property::always(REFUSED_IS_REFUSED, |_, world: &World| {
            world.flaw != Some(Flaw::RefusedFillInstalled)
        }),
    ]
}

/// The position of the state that readers see; none: a miss. An item past its own expiry is seen as absent, from a
/// state that has it.
fn seen(world: &World, key: u8) -> Option<u64> {
    let slot = &world.cache.slots[usize::from(key)];
    match (protocol::read(slot, world.now), slot) {
        (Seen::Miss, _) | (_, Slot::Empty | Slot::Foreign) => None,
        (_, Slot::Entry(entry)) if entry.kind == Kind::Tombstone => Some(entry.floor),
        (_, Slot::Entry(entry)) => Some(entry.payload),
    }
}

fn every_key(scenario: &Scenario, holds: impl Fn(u8) -> bool) -> bool {
    (0..scenario.keys).all(holds)
}

fn converges(scenario: &Scenario, world: &World) -> bool {
    !world.is_quiet()
        || every_key(scenario, |key| seen(world, key).is_none_or(|state| state == world.newest(key)))
}

fn stays_deleted(scenario: &Scenario, world: &World) -> bool {
    !world.is_quiet()
        || every_key(scenario, |key| {
            world.has_item(world.newest(key))
                || !matches!(protocol::read(&world.cache.slots[usize::from(key)], world.now), Seen::Item(_))
        })
}

fn never_older(scenario: &Scenario, world: &World) -> bool {
    // An aggregator that starts again tells history once more, and a cache that lost everything believes it until
    // it has caught up.
    let history_is_told_again = world.used.flushes > 0 && world.used.replays > 0;
    world.is_recovering
        || history_is_told_again
        || world.lost_unknown
        || world.is_corrupt
        || every_key(scenario, |key| {
            seen(world, key).is_none_or(|state| state >= world.acked[usize::from(key)])
        })
}

fn seen_is_true(scenario: &Scenario, world: &World) -> bool {
    every_key(scenario, |key| {
        let slot = &world.cache.slots[usize::from(key)];
        match (protocol::read(slot, world.now), seen(world, key)) {
            (Seen::Item(_), Some(state)) => world.has_item(state),
            (Seen::Absent, Some(state)) => !world.has_item(state) || scenario.items_expire,
            _ => true,
        }
    })
}
