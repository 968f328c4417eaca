//! Each rule taken away: the exploration must find the race that the rule prevents. What it finds is printed, each
//! step with the entries that it left; `docs/cache-protocol.md` tells the same races in words.

use crate::{
    checker::{fails, holds},
    properties::{CONVERGES, NEVER_OLDER, STAYS_DELETED},
    scenario::{Scenario, Without},
    scenarios::{
        BACKFILL, BY_HAND, DELIVERY, EVICTIONS, EVICTIONS_AND_OWNERS, EXPIRY, FAILOVER,
        FAILOVER_AND_EVICTIONS, LOSS_AND_OLD_OWNER, OWNERS, PRESENT, STRICT, STRICT_AND_EVICTIONS,
        TOTAL_LOSS, TWO_KEYS, VERIFICATION,
    },
};

/// What needs several duplicates is found sooner where nothing else happens.
const LEAN_LOSS: Scenario =
    Scenario { deletes_max: 0, restarts_max: 0, checkpoints_lag: false, flushes_max: 1, ..TOTAL_LOSS };

#[test]
fn a_fill_whose_token_is_void_would_install_what_a_change_has_replaced() {
    fails(EVICTIONS.without(Without::TokenCheck), CONVERGES);
}

#[test]
fn a_fill_would_overtake_a_change_that_was_left_absent() {
    fails(EVICTIONS.without(Without::VoidByLeftAbsent), CONVERGES);
}

#[test]
fn without_tombstones_a_duplicate_would_bring_a_deleted_item_back() {
    fails(DELIVERY.without(Without::Tombstones), STAYS_DELETED);
}

// Rule 1: what may create.

#[test]
fn after_an_eviction_a_duplicate_would_bring_an_old_item_back() {
    fails(EVICTIONS.without(Without::LossHorizon), CONVERGES);
}

#[test]
fn an_eviction_since_the_last_look_would_not_be_seen() {
    fails(EVICTIONS.without(Without::EvictionCount), CONVERGES);
}

#[test]
fn an_eviction_before_the_last_look_would_be_forgotten() {
    fails(EVICTIONS.without(Without::HorizonOfTheLastLook), CONVERGES);
}

#[test]
fn a_writer_that_has_just_come_would_not_know_of_evictions() {
    fails(EVICTIONS.without(Without::HorizonInMarker), CONVERGES);
}

#[test]
fn an_old_change_would_create_where_a_floor_has_expired() {
    fails(EXPIRY.without(Without::AgeBound), CONVERGES);
}

#[test]
fn a_change_would_create_where_a_live_entry_has_expired() {
    let live_too_short = Scenario { live_ttl: 1, ..EXPIRY };
    fails(live_too_short, CONVERGES);
}

#[test]
fn a_negative_entry_would_lose_its_floor() {
    fails(EXPIRY.without(Without::FloorOfNegative), CONVERGES);
}

#[test]
fn a_covered_negative_entry_would_lose_its_floor() {
    fails(EXPIRY.without(Without::FloorOfCovered), CONVERGES);
}

#[test]
fn a_late_duplicate_would_create_after_a_total_loss() {
    fails(LEAN_LOSS.without(Without::LateBound), CONVERGES);
}

#[test]
fn a_late_duplicate_would_be_written_over_the_floor_of_another() {
    let three_states = Scenario { time_max: 2, writes_max: 3, late_after: 0, rewind: 0, ..LEAN_LOSS };
    fails(three_states.without(Without::DoubtOfLate), CONVERGES);
}

#[test]
fn a_paused_aggregator_would_pass_for_punctual() {
    fails(LEAN_LOSS.without(Without::StampOfTheLease), CONVERGES);
}

#[test]
fn a_duplicate_would_be_written_over_a_floor_that_a_covered_one_has_left() {
    fails(STRICT_AND_EVICTIONS.without(Without::ProofByStream), CONVERGES);
}

// The write policy `present`.

#[test]
fn a_skipped_change_would_leave_a_token_valid() {
    fails(PRESENT.without(Without::VoidBySkipped), CONVERGES);
}

#[test]
fn a_duplicate_of_a_skipped_change_would_be_taken_for_news() {
    fails(PRESENT.without(Without::DoubtUnderPresent), CONVERGES);
}

#[test]
fn a_backfill_would_overtake_a_skipped_change() {
    fails(Scenario { pages_max: 1, ..PRESENT }, CONVERGES);
}

// Rule 4.

#[test]
fn a_margin_of_zero_would_cover_what_the_fill_has_not_read() {
    fails(Scenario { margin: Some(0), ..STRICT }, CONVERGES);
}

// Rule 6.

#[test]
fn a_call_of_an_old_owner_would_land_on_an_emptied_server() {
    fails(LOSS_AND_OLD_OWNER.without(Without::Deadline), CONVERGES);
}

#[test]
fn a_call_of_an_old_owner_would_land_where_a_key_was_deleted_by_hand() {
    fails(BY_HAND.without(Without::Deadline), CONVERGES);
}

#[test]
fn an_old_owner_that_wakes_would_reckon_itself_a_new_deadline() {
    fails(BY_HAND.without(Without::DeadlineOfTheLease), CONVERGES);
}

#[test]
fn deadlines_are_not_needed_where_nothing_is_lost_unnoticed() {
    holds(OWNERS.without(Without::Deadline), &[]);
    holds(EVICTIONS_AND_OWNERS.without(Without::Deadline), &[]);
}

// Rule 7.

#[test]
fn a_wrong_entry_at_the_newest_position_would_stay() {
    fails(VERIFICATION.without(Without::UnconditionalInvalidate), CONVERGES);
}

// Rule 8.

#[test]
fn a_page_would_overtake_a_change_whose_entry_was_evicted() {
    fails(BACKFILL.without(Without::PageHorizon), CONVERGES);
}

#[test]
fn a_page_would_overtake_a_change_that_was_left_absent_for_evictions() {
    fails(Scenario { page_margin: 0, ..BACKFILL }, CONVERGES);
}

#[test]
fn a_page_would_overtake_a_change_that_was_left_absent_for_its_age() {
    let pages_too_old = Scenario { create_age_max: 0, page_age_max: 2, ..BACKFILL };
    fails(pages_too_old, CONVERGES);
}

// Rule 9.

#[test]
fn what_a_failover_loses_would_stay_lost() {
    fails(FAILOVER.without(Without::Rewind), CONVERGES);
}

#[test]
fn a_rewind_by_the_clock_would_begin_behind_what_it_is_for() {
    fails(LEAN_LOSS.without(Without::RewindByArrival), CONVERGES);
}

#[test]
fn a_duplicate_near_the_beginning_of_a_rewind_would_create() {
    fails(LEAN_LOSS.without(Without::FloorsAfterRewind), CONVERGES);
}

#[test]
fn a_call_of_before_the_rewind_would_land_with_an_old_horizon() {
    let calls_are_not_awaited =
        Scenario { calls_stray: true, restarts_max: 0, deletes_max: 0, ..FAILOVER_AND_EVICTIONS };
    fails(calls_are_not_awaited, CONVERGES);
}

#[test]
fn a_new_owner_would_trust_a_checkpoint_made_before_the_loss() {
    fails(FAILOVER.without(Without::EpochOfCheckpoint), CONVERGES);
}

#[test]
fn a_rewind_cut_short_would_not_be_made_up_for() {
    fails(FAILOVER.without(Without::RewindWrittenFirst), CONVERGES);
}

// Acks.

#[test]
fn a_pipeline_partly_applied_would_be_taken_for_done() {
    fails(TWO_KEYS.without(Without::WholePipeline), NEVER_OLDER);
}
