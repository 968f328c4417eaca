//! Regions that are gone: one, all, and one that comes and goes.

use crate::steps::Fail::{BlackHole, Moody, Refused};
use crate::steps::Step::{Back, Fail, HaveEverything, IsParked, Load};
use crate::steps::{Step, options, play};

const OTHERS: &[usize] = &[0, 1, 2];
const ALL: &[usize] = &[0, 1, 2, 3];

/// More than a region's share of the queue, and more than the whole queue.
const MORE_THAN_THE_QUEUE: Step = Load { updates: 900, ms: 3_000 };
const A_LITTLE: Step = Load { updates: 40, ms: 400 };

#[tokio::test]
async fn one_of_four_regions_is_gone_from_the_start_and_the_others_get_everything() {
    let steps = [Fail(&[3], BlackHole), MORE_THAN_THE_QUEUE, HaveEverything(OTHERS), IsParked(3), Back(&[3])];
    play(options(), &steps).await;
}

#[tokio::test]
async fn a_region_that_goes_away_in_the_middle_gets_what_it_missed() {
    let steps = [
        A_LITTLE,
        HaveEverything(ALL),
        Fail(&[0], Refused),
        MORE_THAN_THE_QUEUE,
        HaveEverything(&[1, 2, 3]),
        IsParked(0),
        Back(&[0]),
        A_LITTLE,
    ];
    play(options(), &steps).await;
}

#[tokio::test]
async fn all_regions_are_gone_and_come_back() {
    let steps = [A_LITTLE, Fail(ALL, Refused), MORE_THAN_THE_QUEUE, Back(ALL), A_LITTLE];
    play(options(), &steps).await;
}

#[tokio::test]
async fn all_regions_are_gone_and_come_back_one_after_the_other() {
    let steps = [
        A_LITTLE,
        Fail(ALL, BlackHole),
        MORE_THAN_THE_QUEUE,
        Back(&[2]),
        HaveEverything(&[2]),
        Back(&[0]),
        HaveEverything(&[0, 2]),
    ];
    play(options(), &steps).await;
}

#[tokio::test]
async fn a_region_that_comes_and_goes_loses_nothing_and_disturbs_nobody() {
    let mut steps = vec![A_LITTLE];
    for _ in 0..4 {
        steps.extend([Fail(&[1], Refused), Load { updates: 200, ms: 700 }, HaveEverything(&[0, 2, 3])]);
        steps.extend([Back(&[1]), Load { updates: 100, ms: 500 }]);
    }
    play(options(), &steps).await;
}

#[tokio::test]
async fn regions_that_answer_with_errors_now_and_then_get_everything() {
    let steps = [Fail(ALL, Moody), Load { updates: 400, ms: 2_000 }, HaveEverything(ALL)];
    play(options(), &steps).await;
}
