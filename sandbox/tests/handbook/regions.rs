//! What happens to a region on its way: gone, gone for too long, throttled, robbed, stuck.

use aws_sdk_dynamodb::types::AttributeValue;
use warmcast_sandbox::entry::now_ms;
use warmcast_sandbox::faults::{Capacity, Faults};
use warmcast_sandbox::world::{World, WorldOptions};

use crate::ground::*;
use crate::shell::Shell;
use crate::walk::{Chapter, DONE, PROBLEMS};

pub(crate) const RECIPES: &[&str] = &[
    "What to look at first",
    "A region was down for 3 hours",
    "A region was down for 30 hours",
    "Changes were lost on their way",
    "A target throttles",
    "A shard is stuck",
];

/// The region that the handbook speaks of, and another one.
const REGION: usize = 0;
const OTHER: usize = 1;

#[tokio::test(flavor = "multi_thread")]
async fn recipes_for_a_region_that_fails() {
    let mut world = servers(WorldOptions { fault_proxies: true, ..WorldOptions::default() }).await;
    // Hours pass in no time: what holds up the others is parked at once.
    world.aggregator_mut().set("parking.after_ms=500");
    start(&mut world).await;
    put_all(&world, TABLE, 1).await;
    let mut shell = Shell::new(&world, REGION);
    let mut chapter = Chapter::new(RECIPES);

    look_first(&mut chapter, &mut shell, &world).await;
    down_for_3_hours(&mut chapter, &mut shell, &world).await;
    lost_on_their_way(&mut chapter, &mut shell, &world).await;
    down_for_30_hours(&mut chapter, &mut shell, &world).await;
    throttles(&mut chapter, &mut shell, &world).await;
    stuck(&mut chapter, &mut shell, &mut world).await;

    chapter.finish();
    world.stop().await.unwrap();
}

async fn look_first(chapter: &mut Chapter, shell: &mut Shell, world: &World) {
    is_current(world, REGION).await;
    let mut walk = chapter.recipe("What to look at first", shell);
    let aggregator = walk.run_until("aggregator status", DONE).await;
    assert!(aggregator.stdout.contains(TABLE) && aggregator.stdout.contains("eu-west-1"), "{aggregator}");
    walk.run_until("cache-writer status", DONE).await;
    walk.done();
}

async fn down_for_3_hours(chapter: &mut Chapter, shell: &mut Shell, world: &World) {
    let mut walk = chapter.recipe("A region was down for 3 hours", shell);
    fail(world, REGION, Faults { refused: true, ..Faults::default() });
    change_some(world, 2).await;
    has(world, OTHER, &user(0), 2).await;
    let listed = walk.run_until("aggregator regions list", PROBLEMS).await;
    assert!(listed.stdout.contains("parked on"), "{listed}");
    fail(world, REGION, Faults::default());
    walk.again_until(DONE).await;
    is_current(world, REGION).await;
    walk.run("cache-writer verify", DONE).await;
    walk.done();
    all_is_well(world).await;
}

async fn lost_on_their_way(chapter: &mut Chapter, shell: &mut Shell, world: &World) {
    let mut walk = chapter.recipe("Changes were lost on their way", shell);
    fail(world, REGION, Faults::losing_records());
    change_some(world, 3).await;
    has(world, OTHER, &user(0), 3).await;
    fail(world, REGION, Faults::default());
    is_current(world, REGION).await;
    walk.run("aggregator replay", DONE).await;
    is_current(world, REGION).await;
    has(world, REGION, &user(0), 2).await;
    walk.run("aggregator replay", DONE).await;
    has(world, REGION, &user(0), 3).await;
    all_is_well(world).await;

    // Now only the cache lacks something: an entry that somebody deleted by hand.
    let mut connection = world.regions()[REGION].redis().connect().await.unwrap();
    let key = warmcast_sandbox::entry::redis_key(TABLE, &user(0));
    let () = redis::cmd("DEL").arg(key).query_async(&mut connection).await.unwrap();
    walk.run("cache-writer replay", DONE).await;
    has(world, REGION, &user(0), 3).await;
    walk.run("cache-writer verify", DONE).await;
    walk.done();
    all_is_well(world).await;
}

/// What a gap leaves: changes that never come, in the state table a backfill that is asked for, and a watermark that
/// stands still. The daemon's own way there is tested with a stream that can be trimmed (`tests/stream_life`).
async fn gap(world: &World, version: u64) {
    fail(world, REGION, Faults::losing_records());
    change_some(world, version).await;
    has(world, OTHER, &user(0), version).await;
    let stream = stream_arn(world).await;
    let number = |number: u64| AttributeValue::N(number.to_string());
    let asked = world.dynamodb().put_item().table_name(world.aggregator().state_table());
    let asked = asked.item("pk", text("lanes")).item("sk", text(&format!("backfill#eu-west-1#{stream}")));
    let asked = asked.item("format", number(1)).item("asked_ms", number(now_ms()));
    let asked = asked.item("lane", text("eu-west-1")).item("stream", text(&stream));
    asked.item("why", text("trimmed")).send().await.unwrap();
    fail(world, REGION, Faults::default());
}

async fn down_for_30_hours(chapter: &mut Chapter, shell: &mut Shell, world: &World) {
    let mut walk = chapter.recipe("A region was down for 30 hours", shell);
    gap(world, 4).await;
    let listed = walk.run("aggregator regions list", PROBLEMS).await;
    assert!(listed.stdout.contains("waits for 1 backfill"), "{listed}");
    walk.run("redis-cli", DONE).await;
    walk.run("aggregator backfill", DONE).await;
    walk.run("aggregator regions wait", DONE).await;
    is_current(world, REGION).await;
    all_is_well(world).await;
    walk.run_until("cache-writer verify", DONE).await;
    walk.done();
}

async fn throttles(chapter: &mut Chapter, shell: &mut Shell, world: &World) {
    let mut walk = chapter.recipe("A target throttles", shell);
    // Less than the heartbeats take.
    let capacity = Some(Capacity { bytes_per_second: 20, records_per_second: 1 });
    fail(world, REGION, Faults { capacity, ..Faults::default() });
    change_some(world, 6).await;
    has(world, OTHER, &user(0), 6).await;
    walk.run_until("aggregator status", PROBLEMS).await;
    fail(world, REGION, Faults::default());
    walk.run_until("aggregator regions list", DONE).await;
    is_current(world, REGION).await;
    walk.done();
    all_is_well(world).await;
}

async fn stuck(chapter: &mut Chapter, shell: &mut Shell, world: &mut World) {
    let mut walk = chapter.recipe("A shard is stuck", shell);
    world.aggregator().freeze().unwrap();
    change_some(world, 7).await;
    walk.run_until("aggregator status", PROBLEMS).await;
    world.aggregator_mut().kill().await.unwrap();
    world.aggregator_mut().start().unwrap();
    walk.again_until(DONE).await;
    walk.run_until("cache-writer status", DONE).await;
    walk.done();
    all_is_well(world).await;
}
