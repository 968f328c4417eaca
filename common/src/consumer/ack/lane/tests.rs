use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::super::budget::ByteBudget;
use super::*;

fn n(number: u64) -> SequenceNumber {
    SequenceNumber::new(number.to_string()).unwrap()
}

fn after(number: u64) -> Checkpoint {
    Checkpoint::After(n(number))
}

fn shard(start: Checkpoint, lanes: usize) -> ShardAcks {
    ShardAcks::with_lanes(100, start, Lanes::first(lanes), BTreeMap::new())
}

async fn read(acks: &ShardAcks, budget: &ByteBudget, number: u64) -> LaneAck {
    let ack = acks.track(Some(n(number)), 0, budget.reserve(10).await).await;
    let lanes = ack.lanes();
    ack.route(&[lanes]).pop().unwrap()
}

fn checkpoint(acks: &ShardAcks) -> Option<SequenceNumber> {
    acks.status().checkpoint
}

#[tokio::test]
async fn a_record_is_done_when_every_lane_has_it_and_a_lost_copy_is_a_lost_record() {
    let (acks, budget) = (shard(Checkpoint::TrimHorizon, 3), ByteBudget::new(100));
    let mut ack = read(&acks, &budget, 1).await;
    ack.split_off(Lanes::one(1)).done();
    ack.split_off(Lanes::one(0)).done();
    assert_eq!((checkpoint(&acks), budget.bytes_in_use()), (None, 10));
    ack.done();
    assert_eq!((checkpoint(&acks), budget.bytes_in_use()), (Some(n(1)), 0));
    let mut ack = read(&acks, &budget, 2).await;
    ack.split_off(Lanes::one(1)).done();
    drop(ack);
    assert!(acks.status().lost && !acks.settled().await);
}

#[tokio::test]
async fn a_record_may_go_to_some_lanes_only_and_to_some_in_another_form() {
    let (acks, budget) = (shard(Checkpoint::TrimHorizon, 3), ByteBudget::new(100));
    let ack = acks.track(Some(n(1)), 0, budget.reserve(10).await).await;
    let forms = ack.route(&[Lanes::one(0), Lanes::one(2)]);
    assert_eq!(forms.iter().map(LaneAck::lanes).collect::<Vec<_>>(), [Lanes::one(0), Lanes::one(2)]);
    forms.into_iter().for_each(LaneAck::done);
    assert_eq!(checkpoint(&acks), Some(n(1)));
    let ack = acks.track(Some(n(2)), 0, budget.reserve(10).await).await;
    assert!(ack.route(&[]).is_empty());
    assert_eq!(checkpoint(&acks), Some(n(2)), "nobody was to have it");
}

#[tokio::test]
async fn a_parked_lane_holds_nobody_up_and_its_place_is_where_it_has_everything() {
    let (acks, budget) = (shard(after(7), 2), ByteBudget::new(1_000));
    let mut copies = Vec::new();
    for number in 8..12 {
        let mut ack = read(&acks, &budget, number).await;
        copies.push(ack.split_off(Lanes::one(1)));
        ack.done();
    }
    let last = copies.pop().unwrap();
    copies.remove(0).done();
    assert_eq!(checkpoint(&acks), Some(n(8)));
    last.park(ParkReason::TooOld);
    let status = acks.status();
    assert_eq!(status.checkpoint, Some(n(11)), "the others go on");
    assert_eq!(status.parked[&1].checkpoint, after(8));
    assert_eq!(status.parked[&1].why, "too-old");
    assert_eq!(budget.bytes_in_use(), 0);
    assert!(copies.iter().all(LaneAck::is_worthless));
    copies.remove(0).done();
    drop(copies);
    assert!(!acks.status().lost, "what is worthless is not missed");
    let next = read(&acks, &budget, 12).await;
    assert_eq!(next.lanes(), Lanes::one(0));
    next.done();
    assert_eq!(acks.status().parked[&1].checkpoint, after(8));
}

#[tokio::test]
async fn a_lane_that_has_nothing_yet_is_parked_where_the_shard_was_begun() {
    let (acks, budget) = (shard(after(7), 2), ByteBudget::new(1_000));
    let waiting = read(&acks, &budget, 8).await;
    acks.park(0, ParkReason::Stalled);
    assert_eq!(acks.parked_at(0), Some(after(7)));
    assert_eq!(acks.attached(), Lanes::one(1));
    assert_eq!(acks.word().1, Lanes::one(0));
    assert!(!waiting.is_worthless(), "one of its lanes is not parked");
    waiting.done();
}

#[tokio::test]
async fn a_lane_joins_when_it_has_reached_what_was_read_and_is_parked_until_that_is_done() {
    let (acks, budget) = (shard(after(7), 2), ByteBudget::new(1_000));
    acks.park(1, ParkReason::Stalled);
    read(&acks, &budget, 8).await.done();
    let second = read(&acks, &budget, 9).await;
    assert!(!acks.join(Lanes::one(1), &after(8)), "it lacks 9");
    acks.advance_parked(Lanes::one(1), &n(8));
    assert!(acks.join(Lanes::one(1), &after(9)));
    let third = read(&acks, &budget, 10).await;
    assert_eq!((second.lanes(), third.lanes()), (Lanes::one(0), Lanes::first(2)));
    assert_eq!(acks.parked_at(1), Some(after(8)), "what it was handed is not done");
    second.done();
    third.done();
    assert_eq!(checkpoint(&acks), Some(n(10)));
    assert_eq!(acks.caught_up(Lanes::one(1)), Lanes::one(1));
    assert_eq!(acks.parked(), Lanes::NONE);
}

#[tokio::test]
async fn a_lane_that_is_taken_out_while_it_joins_stays_where_it_was() {
    let (acks, budget) = (shard(after(7), 2), ByteBudget::new(1_000));
    acks.park(1, ParkReason::Stalled);
    read(&acks, &budget, 8).await.done();
    assert!(acks.join(Lanes::one(1), &after(8)));
    read(&acks, &budget, 9).await.park(ParkReason::TooOld);
    assert_eq!(acks.parked_at(1), Some(after(7)), "8 may not have landed");
    assert_eq!(acks.caught_up(Lanes::one(1)), Lanes::NONE);
    assert_eq!(acks.parked(), Lanes::first(2), "the other was parked with it");
}

#[tokio::test]
async fn at_the_tip_a_lane_joins_only_if_nothing_was_read_behind_its_back() {
    let lane = Lanes::one(1);
    let (acks, budget) = (shard(after(7), 2), ByteBudget::new(1_000));
    acks.park(1, ParkReason::Stalled);
    let asked = acks.next_number();
    read(&acks, &budget, 8).await.done();
    assert!(!acks.join_at_tip(lane, asked, true), "8 came after the lane looked");
    assert!(!acks.join_at_tip(lane, acks.next_number(), false), "it must get 8");
    assert!(acks.join_at_tip(lane, acks.next_number(), true), "unless 8 is gone");
    let idle = shard(Checkpoint::AtTime(5), 2);
    idle.park(1, ParkReason::New);
    assert!(!idle.join(lane, &Checkpoint::TrimHorizon));
    assert!(idle.join_at_tip(lane, idle.next_number(), false));
}

#[tokio::test(start_paused = true)]
async fn a_lane_stalls_from_when_it_is_first_seen_to_wait_for_the_same_record() {
    let (acks, budget) = (shard(after(7), 2), ByteBudget::new(1_000));
    let mut watch = LaneWatch::default();
    let mut copies = Vec::new();
    for number in 8..10 {
        let mut ack = read(&acks, &budget, number).await;
        copies.push(ack.split_off(Lanes::one(1)));
        ack.done();
    }
    let mut stalled = || {
        let standings = acks.standings(&mut watch, Instant::now());
        let of =
            |standing: &LaneStanding| (standing.lane, standing.stalled.as_secs(), standing.load.holds_up);
        standings.iter().map(of).collect::<Vec<_>>()
    };
    assert_eq!(stalled(), [(1, 0, true)]);
    tokio::time::advance(Duration::from_secs(5)).await;
    assert_eq!(stalled(), [(1, 5, true)]);
    copies.remove(0).done();
    assert_eq!(stalled(), [(1, 0, true)], "it goes on");
    copies.remove(0).done();
    assert_eq!(stalled(), []);
}

fn place() -> impl Strategy<Value = Checkpoint> {
    prop_oneof![
        Just(Checkpoint::TrimHorizon),
        (0u64..5).prop_map(Checkpoint::AtTime),
        (0u64..5).prop_map(after),
        Just(Checkpoint::ShardEnd),
    ]
}

proptest! {
    #[test]
    fn the_earlier_of_two_places_is_one_of_them_and_never_behind_the_other(a in place(), b in place()) {
        let first = earlier(a.clone(), b.clone());
        prop_assert!(first == a || first == b);
        prop_assert_eq!(&first, &earlier(b.clone(), a.clone()));
        for of in [&a, &b] {
            prop_assert!(!is_at_or_after(&first, of) || first == *of || is_at_or_after(of, &first));
        }
    }
}

#[tokio::test]
async fn while_nothing_may_be_parked_a_copy_that_is_given_up_is_lost_and_no_lane_is_parked() {
    let budget = ByteBudget::new(100);
    for may_park in [true, false] {
        let switch = Arc::new(std::sync::atomic::AtomicBool::new(may_park));
        let acks = ShardAcks::with_parking(100, after(7), Lanes::first(2), BTreeMap::new(), switch);
        let mut ack = read(&acks, &budget, 8).await;
        ack.split_off(Lanes::one(0)).done();
        ack.park(ParkReason::QueueFull);
        let status = acks.status();
        assert_eq!((status.lost, status.parked.is_empty()), (!may_park, !may_park));
        assert_eq!(status.checkpoint.is_some(), may_park);
    }
}
