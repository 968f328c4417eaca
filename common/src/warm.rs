//! Whether a region is warm: whether its readers can be sent there. Pure.
//!
//! It is when it has what it needs of the time before (no backfill is asked for), what was made since reaches it on every
//! shard (it is parked nowhere), and soon (the watermark that it is told is within a bound). What its cache-writers have
//! done of that, their own watermark tells.

use std::time::Duration;

use serde::Serialize;

/// What the state table tells of a region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionState<'a> {
    /// Shards that it is parked on.
    pub parked: usize,
    /// Backfills that were asked for and are not made.
    pub backfills: usize,
    /// The watermark that it is told, in milliseconds since the epoch; or why there is none.
    pub watermark_ms: Result<u64, &'a str>,
}

/// Whether a region is warm, and why not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Warmth {
    /// It is.
    pub is_warm: bool,
    /// How old the watermark is that it is told, in milliseconds.
    pub watermark_age_ms: Option<u64>,
    /// What it waits for.
    pub waits_for: Vec<String>,
}

impl RegionState<'_> {
    /// Whether the region is warm at `now_ms`, if its watermark may be so old.
    pub fn warmth(&self, now_ms: u64, watermark_bound: Duration) -> Warmth {
        let mut waits_for = Vec::new();
        if self.backfills > 0 {
            waits_for.push(format!("{} backfills that were asked for", self.backfills));
        }
        if self.parked > 0 {
            waits_for.push(format!("{} shards that it is parked on", self.parked));
        }
        let age_ms = self.watermark_ms.map(|ms| now_ms.saturating_sub(ms));
        match age_ms {
            Ok(age_ms) if u128::from(age_ms) <= watermark_bound.as_millis() => {}
            Ok(age_ms) => waits_for.push(format!(
                "its watermark, which is {:.1} s old, above {:.1} s",
                Duration::from_millis(age_ms).as_secs_f64(),
                watermark_bound.as_secs_f64()
            )),
            // Of a region that is parked or not backfilled it is known why.
            Err(why) if waits_for.is_empty() => waits_for.push(format!("its watermark: {why}")),
            Err(_) => {}
        }
        Warmth { is_warm: waits_for.is_empty(), watermark_age_ms: age_ms.ok(), waits_for }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BOUND: Duration = Duration::from_secs(30);

    proptest! {
        #[test]
        fn a_region_is_warm_when_nothing_is_behind_and_its_watermark_is_young(
            parked in 0usize..3,
            backfills in 0usize..3,
            watermark_ms in prop::option::of(0u64..200_000),
        ) {
            let now_ms = 100_000;
            let state = RegionState { parked, backfills, watermark_ms: watermark_ms.ok_or("unknown") };
            let warmth = state.warmth(now_ms, BOUND);
            let is_young = watermark_ms.is_some_and(|ms| ms >= 70_000);
            prop_assert_eq!(warmth.is_warm, parked == 0 && backfills == 0 && is_young);
            prop_assert_eq!(warmth.is_warm, warmth.waits_for.is_empty());
            prop_assert_eq!(warmth.watermark_age_ms, watermark_ms.map(|ms| now_ms.saturating_sub(ms)));
        }
    }

    #[test]
    fn it_is_said_what_a_region_waits_for() {
        let state = |parked, backfills, watermark_ms| RegionState { parked, backfills, watermark_ms };
        let waits_for = |state: RegionState<'_>| state.warmth(100_000, BOUND).waits_for.join("; ");
        assert_eq!(waits_for(state(0, 0, Ok(60_000))), "its watermark, which is 40.0 s old, above 30.0 s");
        assert_eq!(waits_for(state(0, 0, Err("no worker lives"))), "its watermark: no worker lives");
        assert_eq!(
            waits_for(state(2, 1, Err("it is parked"))),
            "1 backfills that were asked for; 2 shards that it is parked on"
        );
    }
}
