//! What happens to a region's cache: emptied, wrong in a row, fed with what nobody can use, behind a table that went back.

use aws_sdk_dynamodb::types::{StreamSpecification, StreamViewType};
use aws_sdk_kinesis::primitives::Blob;
use warmcast_proto::entry::{EntryHeader, EntryKind};
use warmcast_sandbox::daemon::STREAM;
use warmcast_sandbox::entry::redis_key;
use warmcast_sandbox::world::{World, WorldOptions};

use crate::ground::*;
use crate::shell::Shell;
use crate::walk::{Chapter, DONE, PROBLEMS};

pub(crate) const RECIPES: &[&str] = &[
    "Redis lost its data",
    "One row looks wrong",
    "A bad deploy wrote wrong rows",
    "A poison record",
    "A table was restored from a backup",
];

const REGION: usize = 0;

#[tokio::test(flavor = "multi_thread")]
async fn recipes_for_a_cache_that_is_wrong() {
    let mut world = servers(WorldOptions { regions: 1, ..WorldOptions::default() }).await;
    // Rows that are in no stream, as if they were old.
    set_stream(&world, false).await;
    put_all(&world, TABLE, 1).await;
    set_stream(&world, true).await;
    start(&mut world).await;
    let mut shell = Shell::new(&world, REGION);
    let mut chapter = Chapter::new(RECIPES);

    lost_data(&mut chapter, &mut shell, &world).await;
    wrong_row(&mut chapter, &mut shell, &world).await;
    bad_deploy(&mut chapter, &mut shell, &world).await;
    poison(&mut chapter, &mut shell, &world).await;
    restored(&mut chapter, &mut shell, &world).await;

    chapter.finish();
    world.stop().await.unwrap();
}

async fn lost_data(chapter: &mut Chapter, shell: &mut Shell, world: &World) {
    let mut walk = chapter.recipe("Redis lost its data", shell);
    assert!(get(world, REGION, &user(0)).await.unwrap().is_miss(), "a backfill of nothing proves nothing");
    let traffic = Traffic::start(world);
    world.regions()[REGION].redis().flush().await.unwrap();
    walk.run("aggregator backfill", DONE).await;
    traffic.finish().await;
    walk.run_until("cache-writer verify", DONE).await;
    walk.done();
    all_is_well(world).await;
}

/// Gives the first row's entry the payload of the second's: wrong, at the newest position.
async fn plant(world: &World) {
    let mut connection = world.regions()[REGION].redis().connect().await.unwrap();
    let mut stored = Vec::new();
    for key in [user(1), user(2)] {
        let entry: Vec<u8> =
            redis::cmd("GET").arg(redis_key(TABLE, &key)).query_async(&mut connection).await.unwrap();
        stored.push(entry);
    }
    let (own, _) = EntryHeader::decode(&stored[0]).unwrap();
    let (_, payload) = EntryHeader::decode(&stored[1]).unwrap();
    let header = EntryHeader::new(EntryKind::Live, own.position(), own.time_ms()).unwrap();
    let wrong = [header.encode().as_ref(), payload].concat();
    let set = redis::cmd("SET").arg(redis_key(TABLE, &user(1))).arg(wrong).exec_async(&mut connection).await;
    set.unwrap();
}

async fn wrong_row(chapter: &mut Chapter, shell: &mut Shell, world: &World) {
    let mut walk = chapter.recipe("One row looks wrong", shell);
    plant(world).await;
    let explained = walk.run("cache-writer explain", PROBLEMS).await;
    assert!(explained.stdout.contains("WRONG"), "{explained}");
    walk.run("cache-writer verify", DONE).await;
    walk.run("cache-writer explain", DONE).await;
    walk.done();
    all_is_well(world).await;
}

async fn bad_deploy(chapter: &mut Chapter, shell: &mut Shell, world: &World) {
    let mut walk = chapter.recipe("A bad deploy wrote wrong rows", shell);
    let keys: Vec<String> = (0..20).map(user).collect();
    for version in [99, 2] {
        for key in &keys {
            put(world, TABLE, key, version).await;
        }
    }
    walk.shell.write("corrected.txt", &keys.join("\n"));
    is_current(world, REGION).await;
    walk.run("cache-writer verify", DONE).await;

    plant(world).await;
    walk.run("aggregator config check", DONE).await;
    let shown = walk.run("cache-writer config show", DONE).await;
    assert!(
        shown.stdout.contains("redis") && !shown.stdout.contains("secret_access_key = \"sandbox\""),
        "{shown}"
    );
    walk.run("cache-writer verify", DONE).await;
    walk.done();
    all_is_well(world).await;
}

async fn poison(chapter: &mut Chapter, shell: &mut Shell, world: &World) {
    let mut walk = chapter.recipe("A poison record", shell);
    let client = world.regions()[REGION].kinesis().client();
    let put = client.put_record().stream_name(STREAM).partition_key("by hand");
    put.data(Blob::new(*b"no frame at all")).send().await.unwrap();
    let stats = || world.regions()[REGION].cache_writer().stats();
    eventually(world, "a dead letter", || async { (stats().total("dead_letters") > 0).then_some(()) }).await;
    let listed = walk.run("cache-writer redrive list", DONE).await;
    let letter = letter_of(&listed.stdout);
    walk.shell.set("LETTER", &letter);
    let shown = walk.run("cache-writer redrive show", DONE).await;
    assert!(shown.stdout.contains(&letter), "{shown}");
    // Nobody will ever be able to use it.
    let sent = walk.run("cache-writer redrive send", PROBLEMS).await;
    assert!(sent.stdout.contains(&letter), "{sent}");
    walk.run("aggregator redrive list", DONE).await;
    walk.run("aggregator redrive send", DONE).await;
    walk.done();
    all_is_well(world).await;
}

/// The name of the first letter of a list.
fn letter_of(listed: &str) -> String {
    let is_id = |word: &&str| word.len() == 32 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    listed.split_whitespace().find(is_id).unwrap_or_else(|| panic!("{listed}")).to_owned()
}

/// Switches the table's stream off, or a new one on.
async fn set_stream(world: &World, enabled: bool) {
    let images = enabled.then_some(StreamViewType::NewAndOldImages);
    let stream = StreamSpecification::builder().stream_enabled(enabled).set_stream_view_type(images);
    let update = world.dynamodb().update_table().table_name(TABLE);
    update.stream_specification(stream.build().unwrap()).send().await.unwrap();
}

async fn restored(chapter: &mut Chapter, shell: &mut Shell, world: &World) {
    let mut walk = chapter.recipe("A table was restored from a backup", shell);
    // Since the backup: another version, a new row, a deletion.
    change_some(world, 9).await;
    is_current(world, REGION).await;
    let dynamodb = world.dynamodb();
    dynamodb.delete_table().table_name(TABLE).send().await.unwrap();
    warmcast_sandbox::dynamodb::create_table(&dynamodb, TABLE, warmcast_sandbox::world::KEY_ATTRIBUTE)
        .await
        .unwrap();
    set_stream(world, false).await;
    put_all(world, TABLE, 1).await;
    set_stream(world, true).await;

    // The fleet follows the new stream.
    put(world, TABLE, "after", 1).await;
    has(world, REGION, "after", 1).await;
    walk.run_until("aggregator status", DONE).await;
    walk.run("cache-writer verify", DONE).await;
    walk.done();
    all_is_well(world).await;
}
