//! The explorations in which everything must hold.

use crate::{
    checker::{holds, holds_on_walks},
    protocol::{self, Acquire, Acquired, Apply, Backfill, Fill, Kind, Seen, Server, Slot},
    scenario::Scenario,
    step::Situation::{self, *},
};

/// The bound of an optimised build, or the smaller one of a build that is not.
const fn deep(optimised: u8, debug: u8) -> u8 {
    if cfg!(debug_assertions) { debug } else { optimised }
}

pub(crate) const DELIVERY: Scenario = Scenario {
    calls_linger: true,
    calls_stray: true,
    writes_max: 3,
    deletes_max: 2,
    duplicates_max: 1,
    replays_max: 1,
    call_max: 2,
    restarts_max: 1,
    checkpoints_lag: true,
    answers_lost_max: deep(1, 0),
    ..Scenario::quiet("delivery at least once")
};

#[test]
fn delivery_at_least_once() {
    holds(DELIVERY, &[ChangeApplied, StaleChange, StrayLanded]);
}

pub(crate) const OWNERS: Scenario = Scenario {
    calls_linger: true,
    time_max: 3,
    writes_max: deep(3, 2),
    duplicates_max: 1,
    call_max: 2,
    pauses: true,
    checkpoints_lag: true,
    ..Scenario::quiet("an old owner and a new one")
};

#[test]
fn an_old_owner_and_a_new_one() {
    holds(OWNERS, &[TakenOver, WokenPastDeadline, PastDeadline, StaleChange]);
}

pub(crate) const TWO_KEYS: Scenario = Scenario {
    calls_linger: true,
    calls_stray: true,
    keys: 2,
    writes_max: 3,
    duplicates_max: 1,
    call_max: 3,
    restarts_max: deep(1, 0),
    checkpoints_lag: true,
    answers_lost_max: 1,
    ..Scenario::quiet("two keys in one pipeline")
};

#[test]
fn two_keys_in_one_pipeline() {
    holds(TWO_KEYS, &[PartlyLanded, StaleChange]);
}

const FILLS: Scenario = Scenario {
    time_max: 2,
    writes_max: deep(3, 2),
    incomplete_max: 1,
    duplicates_max: 1,
    readers: 2,
    fills_max: 3,
    ..Scenario::quiet("fills by two readers")
};

#[test]
fn fills_by_two_readers() {
    let situations: &[Situation] = &[
        FillInstalled,
        FillRefused,
        FillFoundNothing,
        FillOverFloor,
        ChangeVoidsToken,
        BusyReader,
        HoldTakenOver,
    ];
    holds(FILLS, situations);
}

pub(crate) const STRICT: Scenario = Scenario {
    time_max: 4,
    creation_rounds: true,
    duplicates_max: 1,
    margin: Some(1),
    readers: 1,
    fills_max: 2,
    evictions_max: deep(1, 0),
    ..Scenario::quiet("strict")
};

#[test]
fn strict() {
    holds(STRICT, &[Covered, FillInstalled, FillRefused, StaleChange]);
}

// Two duplicates of a change that a fill has read, one of them covered.
pub(crate) const STRICT_AND_EVICTIONS: Scenario = Scenario {
    time_max: deep(3, 2) as u64,
    writes_max: 3,
    deletes_max: 0,
    duplicates_max: 2,
    margin: Some(0),
    readers: 1,
    fills_max: 1,
    evictions_max: 1,
    ..Scenario::quiet("strict and evictions")
};

#[test]
fn strict_and_evictions() {
    holds(STRICT_AND_EVICTIONS, &[Covered, FillInstalled, LeftAbsentForEvictions]);
}

pub(crate) const EXPIRY: Scenario = Scenario {
    time_max: deep(6, 5) as u64,
    duplicates_max: 1,
    items_expire: true,
    readers: 1,
    fills_max: 2,
    invalidations_max: 1,
    margin: Some(0),
    live_ttl: 3,
    floor_ttl: 4,
    create_age_max: 2,
    ..Scenario::quiet("expiry of every kind of entry")
};

#[test]
fn expiry_of_every_kind_of_entry() {
    holds(EXPIRY, &[FloorExpired, LeftAbsentForItsAge, FillFoundNothing, Covered, LeftAbsentVoidsToken]);
}

pub(crate) const EVICTIONS: Scenario = Scenario {
    time_max: 3,
    duplicates_max: 1,
    restarts_max: 1,
    readers: 1,
    fills_max: 2,
    evictions_max: deep(2, 1),
    ..Scenario::quiet("evictions at any moment")
};

#[test]
fn evictions_at_any_moment() {
    holds(EVICTIONS, &[LeftAbsentForEvictions, LeftAbsentVoidsToken, FillInstalled, FillRefused]);
}

pub(crate) const EVICTIONS_AND_OWNERS: Scenario = Scenario {
    calls_linger: true,
    time_max: 3,
    duplicates_max: 1,
    pauses: true,
    readers: deep(1, 0),
    fills_max: 1,
    evictions_max: 1,
    ..Scenario::quiet("evictions, an old owner and a new one")
};

#[test]
fn evictions_an_old_owner_and_a_new_one() {
    holds(EVICTIONS_AND_OWNERS, &[LeftAbsentForEvictions, TakenOver, WokenPastDeadline]);
}

pub(crate) const PRESENT: Scenario = Scenario {
    time_max: 3,
    creation_rounds: true,
    duplicates_max: deep(2, 1),
    present: true,
    margin: Some(1),
    readers: 1,
    fills_max: 2,
    deletions_by_hand_max: 1,
    ..Scenario::quiet("write policy present")
};

#[test]
fn write_policy_present() {
    holds(PRESENT, &[Skipped, Doubted, Covered, ChangeVoidsToken, FillInstalled, FillRefused, ChangeApplied]);
}

const PRESENT_AND_FAILOVER: Scenario = Scenario {
    time_max: 2,
    duplicates_max: 1,
    present: true,
    margin: Some(1),
    readers: 1,
    fills_max: deep(2, 1),
    failovers_max: 1,
    ..Scenario::quiet("write policy present and a failover")
};

#[test]
fn write_policy_present_and_a_failover() {
    holds(
        PRESENT_AND_FAILOVER,
        &[Skipped, Doubted, ChangeVoidsToken, FillInstalled, Rewound, RecoveredFromLoss],
    );
}

pub(crate) const BACKFILL: Scenario = Scenario {
    time_max: 4,
    duplicates_max: deep(1, 0),
    restarts_max: deep(1, 0),
    readers: 1,
    fills_max: deep(1, 0),
    pages_max: deep(2, 1),
    evictions_max: 1,
    ..Scenario::quiet("a backfill and evictions")
};

#[test]
fn a_backfill_and_evictions() {
    holds(BACKFILL, &[Backfilled, BackfillFoundEntry, BackfillTooLate, LeftAbsentForEvictions]);
}

const BACKFILL_AND_LOSS: Scenario = Scenario {
    time_max: 3,
    duplicates_max: 1,
    pages_max: 1,
    flushes_max: 1,
    failovers_max: deep(1, 0),
    ..Scenario::quiet("a backfill and losses of data")
};

#[test]
fn a_backfill_and_losses_of_data() {
    holds(BACKFILL_AND_LOSS, &[Backfilled, BackfillFoundEntry, BackfillTooLate, Rewound]);
}

pub(crate) const FAILOVER: Scenario = Scenario {
    calls_linger: true,
    calls_stray: true,
    time_max: deep(3, 2) as u64,
    duplicates_max: deep(1, 0),
    restarts_max: 1,
    checkpoints_lag: true,
    failovers_max: 1,
    ..Scenario::quiet("a failover that loses the latest writes")
};

#[test]
fn a_failover_that_loses_the_latest_writes() {
    holds(FAILOVER, &[Rewound, RecoveredFromLoss, TakenOverInAnotherEpoch, StrayLanded]);
}

const FAILOVERS_AND_FILLS: Scenario = Scenario {
    time_max: 2,
    duplicates_max: 1,
    readers: 1,
    fills_max: 1,
    failovers_max: deep(2, 1),
    ..Scenario::quiet("failovers and fills")
};

#[test]
fn failovers_and_fills() {
    holds(FAILOVERS_AND_FILLS, &[Rewound, RecoveredFromLoss, FillInstalled, FillRefused, ChangeVoidsToken]);
}

pub(crate) const FAILOVER_AND_EVICTIONS: Scenario = Scenario {
    calls_linger: true,
    time_max: 3,
    duplicates_max: 1,
    restarts_max: deep(1, 0),
    evictions_max: 1,
    failovers_max: 1,
    late_after: 2,
    deletes_max: deep(1, 0),
    ..Scenario::quiet("a failover and evictions")
};

#[test]
fn a_failover_and_evictions() {
    holds(FAILOVER_AND_EVICTIONS, &[Rewound, LeftAbsentForEvictions, RecoveredFromLoss]);
}

pub(crate) const TOTAL_LOSS: Scenario = Scenario {
    time_max: 3,
    writes_max: 2,
    duplicates_max: 2,
    restarts_max: deep(1, 0),
    checkpoints_lag: !cfg!(debug_assertions),
    flushes_max: deep(2, 1),
    deletes_max: deep(1, 0),
    ..Scenario::quiet("total losses")
};

#[test]
fn total_losses() {
    holds(TOTAL_LOSS, &[Rewound, RecoveredFromLoss, Late, DoubtedAfterRewind]);
}

const TOTAL_LOSS_AND_FILLS: Scenario = Scenario {
    time_max: 3,
    duplicates_max: 1,
    held_up: true,
    readers: 1,
    fills_max: deep(1, 0),
    flushes_max: 1,
    ..Scenario::quiet("a total loss, fills, first deliveries held up")
};

#[test]
fn a_total_loss_and_fills() {
    holds(TOTAL_LOSS_AND_FILLS, &[Rewound, RecoveredFromLoss, Late]);
}

const TOTAL_LOSS_AND_REPLAY: Scenario = Scenario {
    time_max: 3,
    keys: deep(2, 1),
    writes_max: 3,
    deletes_max: 0,
    replays_max: 1,
    flushes_max: 1,
    late_after: 0,
    rewind: 0,
    ..Scenario::quiet("a total loss and an aggregator's replay")
};

#[test]
fn a_total_loss_and_an_aggregators_replay() {
    holds(TOTAL_LOSS_AND_REPLAY, &[Rewound, RecoveredFromLoss]);
}

// The second key makes the log go on: what was superseded long ago is then before the rewind checkpoint.
pub(crate) const LOSS_AND_OLD_OWNER: Scenario = Scenario {
    calls_linger: true,
    time_max: deep(3, 2) as u64,
    keys: 2,
    writes_max: 3,
    deletes_max: 0,
    pauses: true,
    flushes_max: 1,
    lease: 1,
    late_after: 0,
    rewind: 0,
    ..Scenario::quiet("a total loss and an old owner")
};

#[test]
fn a_total_loss_and_an_old_owner() {
    holds(LOSS_AND_OLD_OWNER, &[Rewound, TakenOver, WokenPastDeadline]);
}

pub(crate) const BY_HAND: Scenario = Scenario {
    calls_linger: true,
    time_max: 3,
    replays_max: deep(1, 0),
    pauses: true,
    readers: 1,
    fills_max: deep(1, 0),
    deletions_by_hand_max: 1,
    ..Scenario::quiet("keys deleted by hand, replays contiguous")
};

#[test]
fn keys_deleted_by_hand() {
    holds(BY_HAND, &[TakenOver, WokenPastDeadline]);
}

pub(crate) const VERIFICATION: Scenario = Scenario {
    time_max: 1,
    duplicates_max: 1,
    readers: 1,
    fills_max: 1,
    corruptions_max: 1,
    invalidations_max: 1,
    ..Scenario::quiet("verification and invalidation")
};

#[test]
fn verification_and_invalidation() {
    holds(VERIFICATION, &[Invalidated, FillOverFloor]);
}

/// No function of the protocol touches a value that is not an entry.
#[test]
fn foreign_values_stay() {
    let server = Server { now: 1, evicted_keys: 0 };
    let mut slot = Slot::Foreign;
    let change = Apply {
        kind: Kind::Live,
        position: 1,
        created: 1,
        expires: None,
        payload: 1,
        ttl: 0,
        deadline: 2,
        floor_ttl: 1,
        present: false,
        margin: None,
        create_age_max: 1,
        horizon: 0,
        evicted_keys: None,
    };
    let filled = Fill {
        token: 1,
        kind: Kind::Filled,
        read_at: 1,
        expires: None,
        payload: 1,
        ttl: 0,
        ttl_with_floor: 0,
    };
    let page = Backfill {
        read_at: 1,
        expires: None,
        payload: 1,
        ttl: 0,
        age_max: 1,
        horizon: 0,
        evicted_keys: None,
    };
    let taking = Acquire { token: 1, hold: 1, ttl: 1, floor_ttl: 1 };
    assert_eq!(protocol::apply(&mut slot, server, &change), protocol::FOREIGN);
    assert_eq!(protocol::acquire(&mut slot, server, &taking), Acquired::Foreign);
    assert_eq!(protocol::fill(&mut slot, server, &filled), protocol::FOREIGN);
    assert_eq!(protocol::invalidate(&mut slot, server, 1), protocol::FOREIGN);
    assert_eq!(protocol::backfill(&mut slot, server, &page), protocol::FOREIGN);
    assert_eq!((slot, protocol::read(&slot, 1)), (Slot::Foreign, Seen::Miss));
}

// Too much for every order to be tried: random walks.

pub(crate) const EVERYTHING: Scenario = Scenario {
    time_max: 10,
    keys: 2,
    writes_max: 5,
    deletes_max: 2,
    incomplete_max: 1,
    items_expire: true,
    creation_rounds: true,
    duplicates_max: 3,
    held_up: true,
    calls_linger: true,
    call_max: 2,
    pauses: true,
    restarts_max: 1,
    checkpoints_lag: true,
    answers_lost_max: 1,
    readers: 2,
    fills_max: 4,
    pages_max: 2,
    invalidations_max: 1,
    evictions_max: 1,
    flushes_max: 1,
    failovers_max: 1,
    live_ttl: 6,
    floor_ttl: 7,
    create_age_max: 4,
    late_after: 2,
    rewind: 2,
    page_margin: 2,
    page_age_max: 2,
    ..Scenario::quiet("everything at once")
};

const STEPS: usize = if cfg!(debug_assertions) { 200_000 } else { 5_000_000 };

#[test]
fn everything_at_once() {
    holds_on_walks(EVERYTHING, STEPS, &[Rewound, TakenOver, Late, LeftAbsentForEvictions, FillInstalled]);
}

#[test]
fn everything_at_once_but_evictions() {
    let scenario = Scenario { name: "everything at once but evictions", evictions_max: 0, ..EVERYTHING };
    holds_on_walks(scenario, STEPS, &[Rewound, TakenOver, Late, Backfilled]);
}

#[test]
fn everything_at_once_on_one_key() {
    let scenario = Scenario { name: "everything at once, on one key", keys: 1, ..EVERYTHING };
    holds_on_walks(scenario, STEPS, &[Rewound, TakenOver, Late, FillRefused, StaleChange]);
}

#[test]
fn everything_at_once_strict() {
    let scenario = Scenario { name: "everything at once, strict", margin: Some(1), ..EVERYTHING };
    holds_on_walks(scenario, STEPS, &[Rewound, TakenOver, Covered, FillInstalled]);
}

#[test]
fn everything_at_once_under_present() {
    let name = "everything at once, write policy present";
    let scenario = Scenario { name, present: true, margin: Some(1), pages_max: 0, ..EVERYTHING };
    holds_on_walks(scenario, STEPS, &[Rewound, TakenOver, Covered, Doubted, Skipped]);
}
