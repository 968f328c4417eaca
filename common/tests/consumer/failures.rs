//! What goes wrong with a shard: its own reads, the records downstream, the processor.

use std::sync::Arc;
use std::time::Duration;

use warmcast_common::consumer::SourceError;
use warmcast_common::consumer::store::StateStore;
use warmcast_common::retry::Class;

use super::gate::Gate;
use super::script::{STREAM, error};
use super::table::client;
use super::wait::until;
use super::world::{Start, World, fast, tells, text};

#[tokio::test]
async fn a_dropped_ack_restarts_its_shard_alone_from_its_checkpoint() {
    let world = World::new().await;
    world.script.shard("a", &[]);
    world.script.shard("b", &[]);
    world.script.put("a", 1..=3);
    world.script.put("b", 1..=3);
    let running = world.run().await;
    world.until_checkpoint("a", "after:3").await;
    world.until_checkpoint("b", "after:3").await;
    world.recorder.lose_once("a", 5);
    world.script.put("a", 4..=6);
    world.script.put("b", 4..=6);
    until("a is at its end", async || world.checkpoint("a").await == "after:6").await;
    // Record 4 was done: whether its checkpoint was written before record 5 was lost is open.
    let again = world.recorder.got("a")[6..].to_vec();
    assert!(again == [4, 5, 6] || again == [5, 6], "{again:?}");
    assert_eq!(world.recorder.got("a")[..6], [1, 2, 3, 4, 5, 6]);
    world.until_checkpoint("b", "after:6").await;
    assert_eq!(world.recorder.got("b"), [1, 2, 3, 4, 5, 6]);
    assert_eq!(world.script.with("b", |shard| shard.iterators.len()), 1, "b was not restarted");
    assert_eq!(running.budget.bytes_in_use(), 0);
    running.stop().await;
}

#[tokio::test]
async fn a_panicking_processor_takes_down_no_other_shard() {
    let world = World::new().await;
    world.script.shard("a", &[]);
    world.script.shard("b", &[]);
    world.recorder.panic_once("a", 2);
    world.script.put("a", 1..=3);
    world.script.put("b", 1..=3);
    let running = world.run().await;
    world.until_checkpoint("a", "after:3").await;
    world.until_checkpoint("b", "after:3").await;
    assert_eq!(world.recorder.got("b"), [1, 2, 3]);
    let got = world.recorder.got("a");
    assert!(got.ends_with(&[2, 3]), "the record is delivered again: {got:?}");
    assert_eq!(world.script.with("b", |shard| shard.iterators.len()), 1, "b was not restarted");
    until("the budget is free", async || running.budget.bytes_in_use() == 0).await;
    running.stop().await;
}

#[tokio::test]
async fn an_expired_iterator_is_made_anew_after_the_last_record_that_was_handed_on() {
    let world = World::new().await;
    world.script.shard("a", &[]);
    world.script.put("a", 1..=3);
    world.recorder.withhold("a");
    let running = world.run().await;
    world.until_got("a", 1..=3).await;
    world.script.expire_iterators("a");
    world.script.put("a", 4..=5);
    world.until_got("a", 1..=5).await;
    assert_eq!(world.checkpoint("a").await, "trim-horizon", "nothing was done yet");
    let from: Vec<String> =
        world.script.with("a", |shard| shard.iterators.iter().map(ToString::to_string).collect());
    assert_eq!(from, ["trim-horizon", "after:3"]);
    world.recorder.release("a");
    running.stop().await;
}

#[tokio::test]
async fn an_iterator_that_expires_before_the_first_record_is_made_anew_at_the_start() {
    let world = World::new().await;
    world.script.shard("a", &[]);
    let running = world.run().await;
    until("the shard is read", async || world.script.with("a", |shard| shard.reads) > 1).await;
    world.script.expire_iterators("a");
    world.script.put("a", [1]);
    world.until_got("a", [1]).await;
    let from: Vec<String> =
        world.script.with("a", |shard| shard.iterators.iter().map(ToString::to_string).collect());
    assert_eq!(from, ["trim-horizon", "trim-horizon"]);
    running.stop().await;
}

#[tokio::test]
async fn throttled_and_transient_reads_are_tried_again_in_place() {
    let world = World::new().await;
    world.script.shard("a", &[]);
    let throttled = || SourceError::from_call(error(Class::Throttled, "LimitExceededException"));
    let transient = || SourceError::from_call(error(Class::Transient, "InternalServerError"));
    let denied = || SourceError::from_call(error(Class::Denied, "ExpiredTokenException"));
    world.script.fail_reads("a", [throttled(), throttled(), throttled(), transient(), denied()]);
    world.script.put("a", [1]);
    let running = world.run().await;
    world.until_got("a", [1]).await;
    assert_eq!(world.script.with("a", |shard| shard.iterators.len()), 1, "with the iterator it has");
    let reads = ["read_calls_total{result=\"throttled\"} 3", "read_calls_total{result=\"failed\"} 2"];
    assert!(tells(&running.metrics, &reads), "{}", text(&running.metrics));
    running.stop().await;
}

#[tokio::test]
async fn a_failed_listing_is_tried_again_and_stops_no_running_shard() {
    let world = World::new().await;
    world.script.shard("a", &[]);
    let running = world.run().await;
    until("the shard is read", async || world.script.with("a", |shard| shard.reads) > 1).await;
    world.script.fail_listings((0..3).map(|_| error(Class::Throttled, "LimitExceededException")));
    world.script.put("a", [1]);
    world.script.shard("b", &[]);
    world.script.put("b", [1]);
    world.until_got("a", [1]).await;
    world.until_got("b", [1]).await;
    assert_eq!(world.script.with("a", |shard| shard.iterators.len()), 1);
    running.stop().await;
}

#[tokio::test]
async fn trimmed_records_are_a_gap_and_reading_goes_on_from_the_oldest() {
    let world = World::new().await;
    world.script.shard("a", &[]);
    world.script.put("a", 1..=3);
    let running = world.run().await;
    world.until_checkpoint("a", "after:3").await;
    running.stop().await;
    world.script.put("a", 4..=9);
    world.script.with("a", |shard| shard.horizon = 7);
    let running = world.run().await;
    world.until_checkpoint("a", "after:9").await;
    assert_eq!(world.recorder.got("a"), [1, 2, 3, 7, 8, 9]);
    assert_eq!(world.table.gaps(STREAM).await, [("a".to_owned(), "after:3".to_owned())]);
    let told = ["gaps_total 1", "read_calls_total{result=\"trimmed\"} 1", "records_read_total 3"];
    assert!(tells(&running.metrics, &told), "{}", text(&running.metrics));
    running.stop().await;
}

#[tokio::test]
async fn a_gap_that_cannot_be_recorded_is_not_passed_over() {
    let world = World::new().await;
    let gate = Gate::start(world.table.address).await;
    let store = StateStore::new(client(gate.address).await, "state");
    world.script.shard("a", &[]);
    world.script.put("a", 1..=3);
    let running = world.start_with(Start::default(), store, Arc::clone(&world.recorder)).await;
    world.until_checkpoint("a", "after:3").await;
    gate.cut("gap#");
    world.script.with("a", |shard| {
        shard.horizon = 6;
        for sequence in 4..=7 {
            shard.put(sequence);
        }
    });
    world.until_checkpoint("a", "after:7").await;
    assert!(gate.has_met_it(), "the first attempt failed");
    assert_eq!(world.table.gaps(STREAM).await, [("a".to_owned(), "after:3".to_owned())]);
    assert_eq!(world.recorder.got("a"), [1, 2, 3, 6, 7]);
    running.stop().await;
}

#[tokio::test]
async fn a_failed_shard_does_not_wait_for_the_next_regular_look() {
    let world = World::new().await;
    world.script.shard("a", &[]);
    world.script.put("a", 1..=3);
    world.recorder.lose_once("a", 2);
    let mut config = fast();
    config.sync_interval = Duration::from_secs(3_600);
    let running = world.start(Start { config, ..Start::default() }).await;
    world.until_checkpoint("a", "after:3").await;
    running.stop().await;
}

#[tokio::test]
async fn records_that_are_trimmed_under_the_reader_are_a_gap_after_the_last_one_handed_on() {
    let world = World::new().await;
    world.script.shard("a", &[]);
    world.script.put("a", 1..=3);
    world.recorder.withhold("a");
    let running = world.run().await;
    world.until_got("a", 1..=3).await;
    // In one step: no read comes between.
    world.script.with("a", |shard| {
        shard.horizon = 6;
        for sequence in 4..=7 {
            shard.put(sequence);
        }
    });
    world.until_got("a", [1, 2, 3, 6, 7]).await;
    assert_eq!(world.table.gaps(STREAM).await, [("a".to_owned(), "after:3".to_owned())]);
    world.recorder.release("a");
    world.until_checkpoint("a", "after:7").await;
    running.stop().await;
}

#[tokio::test]
async fn a_shard_that_is_gone_is_a_gap_and_its_children_are_read() {
    let world = World::new().await;
    world.script.shard("a", &[]);
    world.script.put("a", 1..=3);
    let running = world.run().await;
    world.until_checkpoint("a", "after:3").await;
    world.script.shard("child", &["a"]);
    world.script.put("child", [4]);
    world.script.with("a", |shard| (shard.gone, shard.unlisted) = (true, true));
    world.until_got("child", [4]).await;
    assert_eq!(world.table.gaps(STREAM).await, [("a".to_owned(), "after:3".to_owned())]);
    running.stop().await;
}

#[tokio::test]
async fn a_shard_that_is_not_found_but_listed_is_tried_again_and_never_ended() {
    let world = World::new().await;
    world.script.shard("a", &[]);
    world.script.shard("child", &["a"]);
    world.script.put("a", 1..=3);
    let running = world.run().await;
    world.until_checkpoint("a", "after:3").await;
    world.script.with("a", |shard| (shard.gone, shard.iterators) = (true, Vec::new()));
    until("it was tried twice again", async || world.script.with("a", |a| a.iterators.len()) >= 2).await;
    assert_eq!(world.checkpoint("a").await, "after:3");
    world.script.with("a", |shard| shard.gone = false);
    world.script.put("a", [4]);
    world.until_checkpoint("a", "after:4").await;
    assert_eq!(world.recorder.got("a"), [1, 2, 3, 4]);
    assert!(world.table.gaps(STREAM).await.is_empty());
    assert!(world.recorder.got("child").is_empty());
    running.stop().await;
}
