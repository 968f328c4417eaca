//! A region stays parked across whatever happens to the shard and to the aggregator.

use warmcast_sandbox::regions::RigOptions;

use crate::steps::Fail::Refused;
use crate::steps::Step::{Back, Fail, HaveEverything, IsParked, KillAndRestart, Load, RollOver, Start, Stop};
use crate::steps::{Step, options, play};

const OTHERS: &[usize] = &[0, 1, 2];
const GONE: Step = Fail(&[3], Refused);
/// More than the region's share of the queue.
const MORE_THAN_ITS_SHARE: Step = Load { updates: 300, ms: 1_000 };

/// Until the region is parked, and the others have everything.
const PARKED: [Step; 4] = [GONE, MORE_THAN_ITS_SHARE, HaveEverything(OTHERS), IsParked(3)];

fn after_it_is_parked(steps: &[Step]) -> Vec<Step> {
    [&PARKED, steps].concat()
}

#[tokio::test]
async fn parked_across_the_ends_of_the_shards() {
    let steps = [RollOver, MORE_THAN_ITS_SHARE, HaveEverything(OTHERS), RollOver, MORE_THAN_ITS_SHARE];
    let steps =
        after_it_is_parked(&[&steps[..], &[HaveEverything(OTHERS), IsParked(3), Back(&[3])]].concat());
    play(options(), &steps).await;
}

#[tokio::test]
async fn parked_across_a_restart_of_the_aggregator() {
    let steps = [Stop(0), Start, MORE_THAN_ITS_SHARE, HaveEverything(OTHERS), IsParked(3), Back(&[3])];
    play(options(), &after_it_is_parked(&steps)).await;
}

#[tokio::test]
async fn parked_across_kill_9_of_the_aggregator() {
    let steps = [KillAndRestart(0), MORE_THAN_ITS_SHARE, HaveEverything(OTHERS), IsParked(3), Back(&[3])];
    play(options(), &after_it_is_parked(&steps)).await;
}

#[tokio::test]
async fn kill_9_while_it_catches_up() {
    let steps = [MORE_THAN_ITS_SHARE, HaveEverything(OTHERS), Back(&[3]), KillAndRestart(0)];
    play(options(), &after_it_is_parked(&steps)).await;
}

#[tokio::test]
async fn parked_across_a_rebalance() {
    let two = RigOptions { aggregators: 2, ..options() };
    let steps = [
        Stop(0),
        MORE_THAN_ITS_SHARE,
        HaveEverything(OTHERS),
        Start,
        MORE_THAN_ITS_SHARE,
        HaveEverything(OTHERS),
        IsParked(3),
        Back(&[3]),
    ];
    play(two, &after_it_is_parked(&steps)).await;
}
