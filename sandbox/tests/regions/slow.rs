//! Regions that are slower than the others.

use crate::steps::Fail::{ExactlyItsShare, Throttled};
use crate::steps::Step::{Back, Fail, HaveEverything, Load};
use crate::steps::{options, play};

const OTHERS: &[usize] = &[0, 1, 2];
const ALL: &[usize] = &[0, 1, 2, 3];

#[tokio::test]
async fn a_region_slow_by_exactly_its_share_gets_everything() {
    let load = || Load { updates: 300, ms: 3_000 };
    let steps = [load(), HaveEverything(ALL), Fail(&[3], ExactlyItsShare), load(), HaveEverything(ALL)];
    play(options(), &steps).await;
}

#[tokio::test]
async fn a_region_that_takes_a_fraction_disturbs_nobody_and_gets_everything_in_the_end() {
    let load = || Load { updates: 600, ms: 2_000 };
    let steps = [
        Fail(&[3], Throttled(20_000)),
        load(),
        HaveEverything(OTHERS),
        load(),
        HaveEverything(OTHERS),
        Back(&[3]),
    ];
    play(options(), &steps).await;
}
