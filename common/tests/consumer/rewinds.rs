//! Shards that are done into something that loses what was done lately: they are read again from a while ago.

use std::time::Duration;

use warmcast_common::consumer::store::{Begin, Lease, Onset, Progressed};
use warmcast_common::consumer::{Checkpoint, Shard, WatermarkRule};

use super::script::{RECORD_BYTES, STREAM};
use super::wait::{throughout, until};
use super::world::{SETTLE_MS, Start, World};

const REWIND: Duration = Duration::from_millis(100);
const REWIND_MS: u64 = 100;
/// Longer than any test.
const LONG: Duration = Duration::from_secs(600);
const QUIET: Duration = Duration::from_millis(200);
/// When the first records of a test arrive.
const T: u64 = 1_700_000_000_000;

fn rewindable(rewind: Duration) -> Start {
    Start { rewind: Some(rewind), ..Start::default() }
}

fn after(number: u64) -> Checkpoint {
    format!("after:{number}").parse().unwrap()
}

impl World {
    /// What was done lately is lost.
    fn lose(&self, target: &str) {
        self.target.send_replace(target.to_owned());
    }

    fn put_at(&self, shard: &str, arrived_ms: u64, sequences: impl IntoIterator<Item = u64>) {
        for sequence in sequences {
            self.script.put_one(shard, sequence, arrived_ms, RECORD_BYTES);
        }
    }

    async fn lease(&self, shard: &str) -> Lease {
        self.table.lease(STREAM, shard).await.expect("it has a lease")
    }

    async fn rewind_checkpoint(&self, shard: &str) -> Option<String> {
        self.lease(shard).await.rewind.map(|checkpoint| checkpoint.to_string())
    }

    /// A lease that nobody has, as one who read the shard left it.
    async fn leave_lease(
        &self,
        shard: &str,
        checkpoint: &Checkpoint,
        rewind: Option<Checkpoint>,
        target: Option<&str>,
    ) {
        let (store, shard) = (&self.table.store, Shard { id: shard.to_owned(), parents: Vec::new() });
        let start = &Checkpoint::TrimHorizon;
        store.begin_stream(STREAM, start).await.unwrap();
        let new = store.create_lease(STREAM, &shard, start, Begin::AfterParents).await.unwrap().unwrap();
        let onset = Onset { target, ..Onset::default() };
        let lease = store.begin_tenure(&new, "before", &onset).await.unwrap();
        let progressed = Progressed { rewind, ..Progressed::default() };
        store.release_lease(&lease, Some(checkpoint), progressed, None).await.unwrap();
    }
}

#[tokio::test]
async fn what_was_done_since_a_while_ago_comes_again_and_nothing_before_and_late_acks_say_nothing() {
    let world = World::new().await;
    world.script.watermark_rule_is(WatermarkRule::Carried);
    world.script.shard("a", &[]);
    let running = world.start(rewindable(REWIND)).await;
    // Each time the shard is busy for longer than it goes back, and its records arrive as much later.
    world.put_at("a", T, [1]);
    world.until_checkpoint("a", "after:1").await;
    tokio::time::sleep(REWIND).await;
    world.recorder.says("a", 2, 600);
    world.put_at("a", T + REWIND_MS, 2..=3);
    world.until_checkpoint("a", "after:3").await;
    tokio::time::sleep(REWIND).await;
    world.recorder.says("a", 5, 700);
    world.put_at("a", T + 2 * REWIND_MS, 4..=6);
    world.until_checkpoint("a", "after:6").await;
    running.until_watermark(Some(700)).await;
    assert_eq!(world.rewind_checkpoint("a").await.as_deref(), Some("after:3"), "in the same write");
    world.recorder.withhold("a");
    world.put_at("a", T + 2 * REWIND_MS, 7..=8);
    world.until_got("a", 1..=8).await;
    let late = [world.recorder.take("a", 7), world.recorder.take("a", 8)];
    let tenure = world.lease("a").await.epoch;

    world.lose("second");
    world.until_got("a", (1..=8).chain(4..=8)).await;
    late.into_iter().flatten().for_each(warmcast_common::consumer::Ack::done);
    running.until_watermark(None).await;
    throughout(QUIET, "the checkpoint is back and stays there", async || {
        world.checkpoint("a").await == "after:3" && running.watermark.borrow().is_none()
    })
    .await;
    let lease = world.lease("a").await;
    assert_eq!((lease.epoch, lease.target.as_deref()), (tenure + 1, Some("second")));
    assert_eq!(running.rewinds.shards_rewound(), 1);

    world.recorder.release("a");
    world.until_checkpoint("a", "after:8").await;
    running.until_watermark(Some(700)).await;
    assert_eq!(running.budget.bytes_in_use(), 0);
    running.stop().await;
    assert_eq!(world.recorder.got("a").len(), 8 + 5);
    assert_eq!(world.recorder.settling("a"), [4, 5, 6, 7, 8]);
}

#[tokio::test]
async fn every_loss_rewinds_every_shard_and_two_at_once_are_harmless() {
    let world = World::new().await;
    for shard in ["a", "b"] {
        world.script.shard(shard, &[]);
        world.script.put(shard, 1..=3);
    }
    let running = world.start(rewindable(LONG)).await;
    let all_done_into = async |target: &str| {
        for shard in ["a", "b"] {
            let what = format!("{shard} is done into {target}");
            until(&what, async || {
                let lease = world.table.lease(STREAM, shard).await;
                lease.is_some_and(|of| of.target.as_deref() == Some(target) && of.checkpoint == after(3))
            })
            .await;
        }
    };
    all_done_into("first").await;
    world.lose("second");
    world.lose("third");
    all_done_into("third").await;
    let before = running.rewinds.shards_rewound();
    assert!((2..=4).contains(&before), "{before}");
    world.lose("fourth");
    all_done_into("fourth").await;
    assert_eq!(running.rewinds.shards_rewound(), before + 2);
    assert!(world.recorder.got("a").ends_with(&[1, 2, 3, 1, 2, 3]));
    running.stop().await;
}

#[tokio::test]
async fn a_shard_is_begun_where_its_lease_says_for_what_it_was_done_into() {
    let cases = [(Some("long ago"), 4..=8, true), (Some("first"), 7..=8, false), (None, 7..=8, false)];
    for (target, expected, rewound) in cases {
        let world = World::new().await;
        world.script.shard("a", &[]);
        world.script.put("a", 1..=8);
        world.leave_lease("a", &after(6), Some(after(3)), target).await;
        let running = world.start(rewindable(LONG)).await;
        world.until_got("a", expected.clone()).await;
        world.until_checkpoint("a", "after:8").await;
        assert_eq!(running.rewinds.shards_rewound(), u64::from(rewound));
        assert_eq!(world.lease("a").await.target.as_deref(), Some("first"));
        // Nor is it known what one who did not tell has done it into.
        let settling: Vec<u64> = expected.filter(|_| target != Some("first")).collect();
        assert_eq!(world.recorder.settling("a"), settling);
        running.stop().await;
    }
}

#[tokio::test]
async fn a_lease_that_tells_no_older_checkpoint_is_rewound_to_its_beginning() {
    let world = World::new().await;
    world.script.shard("a", &[]);
    world.script.put("a", 1..=8);
    world.leave_lease("a", &after(6), None, Some("before")).await;
    let running = world.start(rewindable(LONG)).await;
    world.until_got("a", 1..=8).await;
    running.stop().await;
    assert!(world.recorder.settling("a").is_empty(), "nothing was before");
}

#[tokio::test]
async fn a_shard_that_fails_after_it_was_rewound_is_not_rewound_again() {
    let world = World::new().await;
    world.script.shard("a", &[]);
    world.script.put("a", 1..=8);
    world.leave_lease("a", &after(6), Some(after(3)), Some("before")).await;
    let running = world.start(rewindable(LONG)).await;
    world.until_checkpoint("a", "after:8").await;
    world.recorder.lose_once("a", 9);
    world.script.put("a", [9]);
    world.until_checkpoint("a", "after:9").await;
    assert_eq!(world.recorder.got("a"), (4..=8).chain([9, 9]).collect::<Vec<_>>());
    running.stop().await;
}

#[tokio::test]
async fn the_older_checkpoint_is_handed_over_with_the_lease_and_another_goes_back_to_it_however_late() {
    let world = World::new().await;
    world.script.shard("a", &[]);
    world.script.put("a", 1..=3);
    let running = world.start(rewindable(REWIND)).await;
    world.until_checkpoint("a", "after:3").await;
    running.stop().await;
    assert_eq!(world.rewind_checkpoint("a").await.as_deref(), Some("trim-horizon"));
    world.lose("second");
    tokio::time::sleep(2 * REWIND).await;
    let running = world.start(Start { id: "w2", ..rewindable(REWIND) }).await;
    world.until_got("a", (1..=3).chain(1..=3)).await;
    running.stop().await;
}

#[tokio::test]
async fn a_process_that_dies_in_mid_rewind_has_the_rest_read_from_where_it_went_back_to() {
    let world = World::new().await;
    world.script.shard("a", &[]);
    world.put_at("a", T, 1..=3);
    world.put_at("a", T + SETTLE_MS, 4..=6);
    world.leave_lease("a", &after(6), Some(after(3)), Some("first")).await;
    let running = world.start(rewindable(LONG)).await;
    until("it is begun", async || world.owner("a").await.as_deref() == Some("w1")).await;
    world.recorder.withhold("a");
    world.lose("second");
    world.until_got("a", 4..=6).await;
    world.recorder.done("a", 4);
    world.until_checkpoint("a", "after:4").await;
    running.kill().await;
    let other = World { recorder: std::sync::Arc::default(), ..world };
    other.put_at("a", T + 2 * SETTLE_MS, [7]);
    other.put_at("a", T + 2 * SETTLE_MS + 1, [8]);
    let running = other.start(rewindable(LONG)).await;
    other.until_got("a", 5..=8).await;
    assert_eq!(running.rewinds.shards_rewound(), 0, "it was");
    assert_eq!(other.recorder.settling("a"), [5, 6, 7]);
    running.stop().await;
}

#[tokio::test]
async fn the_older_checkpoint_of_an_idle_shard_stays_behind_and_an_aggregator_keeps_none() {
    let world = World::new().await;
    world.script.shard("a", &[]);
    world.script.put("a", 1..=3);
    let running = world.start(rewindable(REWIND)).await;
    world.until_checkpoint("a", "after:3").await;
    throughout(5 * REWIND, "it stays behind", async || {
        world.rewind_checkpoint("a").await.as_deref() == Some("trim-horizon")
    })
    .await;
    world.lose("second");
    world.until_got("a", (1..=3).chain(1..=3)).await;
    running.stop().await;

    let other = World::new().await;
    other.script.shard("a", &[]);
    other.script.trim();
    other.script.put("a", 1..=3);
    let running = other.run().await;
    other.until_checkpoint("a", "after:3").await;
    other.lose("second");
    throughout(QUIET, "nothing comes again", async || other.recorder.got("a") == [1, 2, 3]).await;
    running.stop().await;
    let lease = other.lease("a").await;
    assert_eq!((lease.rewind, lease.target, lease.settling_ms), (None, None, None));
    assert!(other.recorder.settling("a").is_empty());
}

#[tokio::test]
async fn a_child_is_rewound_to_its_beginning_and_a_shard_that_ended_is_not_read_again() {
    let world = World::new().await;
    world.script.shard("a", &[]);
    world.script.shard("b", &["a"]);
    world.script.put("a", 1..=2);
    world.script.put("b", 3..=4);
    world.script.close("a");
    let running = world.start(rewindable(LONG)).await;
    world.until_checkpoint("b", "after:4").await;
    assert!(world.recorder.settling("b").is_empty());
    world.lose("second");
    world.until_got("b", [3, 4, 3, 4]).await;
    assert_eq!(world.recorder.got("a"), [1, 2]);
    assert_eq!(running.rewinds.shards_rewound(), 1);
    running.stop().await;
    assert_eq!(world.recorder.settling("b"), [3, 4], "what was last in its parent is lost");
}

#[tokio::test]
async fn a_shard_that_drains_goes_back_as_well_and_drains_at_once() {
    let world = World::new().await;
    world.script.shard("a", &[]);
    world.script.put("a", 1..=3);
    let mut running = world.start(rewindable(LONG)).await;
    world.until_checkpoint("a", "after:3").await;
    world.recorder.withhold("a");
    world.script.put("a", [4]);
    world.until_got("a", 1..=4).await;
    running.ask_to_stop();
    throughout(QUIET, "it waits for its ack", async || !running.has_ended()).await;
    world.lose("second");
    until("it has drained", async || running.has_ended()).await;
    let lease = world.lease("a").await;
    assert_eq!((lease.owner, lease.checkpoint), (None, Checkpoint::TrimHorizon));
    assert_eq!(world.recorder.got("a"), [1, 2, 3, 4]);
}

#[tokio::test]
async fn the_first_records_of_a_stream_that_was_trimmed_are_settling_and_so_are_those_of_a_child() {
    for trimmed in [false, true] {
        let world = World::new().await;
        world.script.shard("a", &[]);
        world.script.shard("b", &["a"]);
        if trimmed {
            world.script.trim();
        }
        world.put_at("a", T, [1]);
        world.put_at("a", T + 10, [2]);
        world.script.close("a");
        world.put_at("b", T + SETTLE_MS, [3]);
        world.put_at("b", T + SETTLE_MS + 1, [4]);
        let running = world.start(rewindable(LONG)).await;
        world.until_checkpoint("b", "after:4").await;
        let settling = [world.recorder.settling("a"), world.recorder.settling("b")];
        assert_eq!(settling, if trimmed { [vec![1, 2], vec![3]] } else { [vec![], vec![]] });
        running.stop().await;
    }
}

#[tokio::test]
async fn the_first_records_of_a_stream_that_is_begun_from_now_are_settling() {
    let world = World::new().await;
    world.script.shard("a", &[]);
    let now_ms = warmcast_common::clock::now_ms();
    // Passed over.
    world.put_at("a", now_ms - 10 * SETTLE_MS, [1]);
    world.put_at("a", now_ms, [2]);
    world.put_at("a", now_ms + SETTLE_MS, [3]);
    world.put_at("a", now_ms + SETTLE_MS + 1, [4]);
    let running = world.start(Start { from_trim_horizon: false, ..rewindable(LONG) }).await;
    world.until_got("a", 2..=4).await;
    assert_eq!(world.recorder.settling("a"), [2, 3]);
    running.stop().await;
}

#[tokio::test]
async fn the_first_records_after_a_gap_are_settling() {
    let world = World::new().await;
    world.script.shard("a", &[]);
    world.put_at("a", T, 1..=6);
    world.put_at("a", T + SETTLE_MS + 1, [7]);
    world.script.with("a", |shard| shard.horizon = 5);
    world.leave_lease("a", &after(2), Some(after(2)), Some("first")).await;
    let running = world.start(rewindable(LONG)).await;
    world.until_got("a", 5..=7).await;
    assert_eq!(world.recorder.settling("a"), [5, 6]);
    running.stop().await;
}
