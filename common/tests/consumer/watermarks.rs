//! The watermark of one worker: by the times of the records, and by what they say.

use std::time::Duration;

use warmcast_common::clock::now_ms;
use warmcast_common::consumer::WatermarkRule;

use super::script::{RECORD_BYTES, TIP_MARGIN};
use super::wait::{throughout, until};
use super::world::World;

const QUIET: Duration = Duration::from_millis(200);

#[tokio::test]
async fn what_records_say_counts_when_they_and_all_before_them_are_done_and_nothing_else_does() {
    let world = World::new().await;
    world.script.watermark_rule_is(WatermarkRule::Carried);
    world.script.shard("a", &[]);
    world.script.shard("b", &[]);
    for shard in ["a", "b"] {
        world.recorder.withhold(shard);
        world.recorder.says(shard, 2, 700);
        world.script.put(shard, 1..=3);
    }
    let running = world.run().await;
    world.until_got("a", 1..=3).await;
    world.recorder.release("b");
    world.recorder.done("a", 2);
    throughout(QUIET, "it is not known", async || running.watermark.borrow().is_none()).await;
    world.recorder.done("a", 1);
    running.until_watermark(Some(700)).await;
    world.recorder.says("a", 5, 900);
    world.recorder.says("b", 5, 800);
    world.script.put("a", 4..=5);
    world.script.put("b", 4..=5);
    world.recorder.release("a");
    running.until_watermark(Some(800)).await;
    running.stop().await;
}

#[tokio::test]
async fn a_shard_that_is_read_by_another_process_has_no_watermark_until_one_is_passed_again() {
    let world = World::new().await;
    world.script.watermark_rule_is(WatermarkRule::Carried);
    world.script.shard("a", &[]);
    world.recorder.says("a", 1, 700);
    world.recorder.says("a", 2, 800);
    world.script.put("a", [1]);
    let running = world.run().await;
    running.until_watermark(Some(700)).await;
    running.stop().await;
    let running = world.run().await;
    until("the shard is read", async || world.script.with("a", |shard| shard.iterators.len()) == 2).await;
    throughout(QUIET, "it is not known", async || running.watermark.borrow().is_none()).await;
    world.script.put("a", [2]);
    running.until_watermark(Some(800)).await;
    running.stop().await;
}

#[tokio::test]
async fn an_idle_shard_is_done_up_to_its_last_read_and_a_busy_one_up_to_its_last_record() {
    let world = World::new().await;
    world.script.shard("a", &[]);
    let running = world.run().await;
    let began = now_ms();
    until("it passes", async || running.watermark_ms().is_some_and(|ms| ms > began)).await;
    let told = running.watermark_ms().unwrap();
    assert!(told + u64::try_from(TIP_MARGIN.as_millis()).unwrap() <= now_ms());
    // Created in an hour: the tip comes before it.
    let later = now_ms() + 3_600_000;
    world.script.put_one("a", 1, later, RECORD_BYTES);
    running.until_watermark(Some(later)).await;
    running.stop().await;
}

#[tokio::test]
async fn what_a_child_is_begun_with_is_the_last_of_its_parents() {
    let world = World::new().await;
    world.script.watermark_rule_is(WatermarkRule::Carried);
    for shard in ["a", "b"] {
        world.script.shard(shard, &[]);
    }
    world.recorder.says("a", 1, 700);
    world.recorder.says("b", 1, 600);
    world.script.put("a", [1]);
    world.script.put("b", [1]);
    let running = world.run().await;
    running.until_watermark(Some(600)).await;
    world.script.shard("merged", &["a", "b"]);
    world.recorder.withhold("merged");
    world.script.put("merged", [2]);
    world.script.close("a");
    world.script.close("b");
    world.until_got("merged", [2]).await;
    running.until_watermark(Some(600)).await;
    world.recorder.says("merged", 3, 900);
    world.script.put("merged", [3]);
    world.recorder.release("merged");
    running.until_watermark(Some(900)).await;
    running.stop().await;
}
