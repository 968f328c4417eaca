//! Regions that are slower than the others.

use warmcast_sandbox::regions::RigOptions;

use crate::steps::Fail::{ExactlyItsShare, Throttled};
use crate::steps::Step::{Back, Fail, HaveEverything, Load};
use crate::steps::{options, play};

const OTHERS: &[usize] = &[0, 1, 2];
const ALL: &[usize] = &[0, 1, 2, 3];

#[tokio::test]
async fn a_region_slow_by_exactly_its_share_gets_everything() {
    let load = || Load { updates: 200, ms: 2_000 };
    let steps = [load(), HaveEverything(ALL), Fail(&[3], ExactlyItsShare), load(), HaveEverything(ALL)];
    play(options(), &steps).await;
}

#[tokio::test]
async fn a_region_that_takes_a_fraction_disturbs_nobody_and_gets_everything_in_the_end() {
    let load = || Load { updates: 300, ms: 1_500 };
    let steps = [
        // About a tenth of what it is sent.
        Fail(&[3], Throttled(80_000)),
        load(),
        HaveEverything(OTHERS),
        load(),
        HaveEverything(OTHERS),
        Back(&[3]),
    ];
    // What was cut off from a slow region is read again: it needs the time to take what it was sent.
    let patient = "parking.after_ms=3000".to_owned();
    let settings = [options().settings, vec![patient]].concat();
    play(RigOptions { settings, ..options() }, &steps).await;
}
