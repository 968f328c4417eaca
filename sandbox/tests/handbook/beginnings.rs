//! What is new: a fleet where a KCL application was, a region, a table.

use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
};
use warmcast_sandbox::daemon::STREAM;
use warmcast_sandbox::world::{World, WorldOptions};

use crate::ground::*;
use crate::shell::Shell;
use crate::walk::{Chapter, DONE, PROBLEMS};

pub(crate) const RECIPES: &[&str] = &["Moving from KCL", "Adding a region", "Adding a table"];

/// The region that is added.
const REGION: usize = 0;
const OTHER: usize = 1;

#[tokio::test(flavor = "multi_thread")]
async fn recipes_for_what_is_new() {
    let tables = vec![TABLE.to_owned(), OTHER_TABLE.to_owned()];
    let mut world = servers(WorldOptions { tables, ..WorldOptions::default() }).await;
    let whole = without(&world, &[("regions", "eu-west-1"), ("tables", OTHER_TABLE)]);
    let mut chapter = Chapter::new(RECIPES);

    moving_from_kcl(&mut chapter, &mut world).await;
    adding_a_region(&mut chapter, &mut world, &whole).await;
    adding_a_table(&mut chapter, &mut world, &whole).await;

    chapter.finish();
    world.stop().await.unwrap();
}

/// Takes sections out of the aggregator's configuration, and gives it back as it was.
fn without(world: &World, sections: &[(&str, &str)]) -> toml::Table {
    let whole: toml::Table = std::fs::read_to_string(world.aggregator().config()).unwrap().parse().unwrap();
    let mut less = whole.clone();
    for (of, name) in sections {
        less[*of].as_table_mut().unwrap().remove(*name).unwrap();
    }
    write(world, &less);
    whole
}

fn write(world: &World, config: &toml::Table) {
    std::fs::write(world.aggregator().config(), config.to_string()).unwrap();
}

/// The aggregator with another configuration, as after a rollout.
async fn restart(world: &mut World) {
    let status = world.aggregator_mut().terminate().await.unwrap().unwrap();
    assert!(status.success(), "{status}\n{}", world.tails());
    world.aggregator_mut().start().unwrap();
}

/// The lease table of a stopped KCL application that has read nothing yet of these shards.
async fn kcl_table(world: &World, table: &str, shards: &[String]) {
    let client = world.dynamodb();
    let (key, kind) = ("leaseKey", ScalarAttributeType::S);
    let attribute = AttributeDefinition::builder().attribute_name(key).attribute_type(kind).build().unwrap();
    let schema = KeySchemaElement::builder().attribute_name(key).key_type(KeyType::Hash).build().unwrap();
    let create = client.create_table().table_name(table).billing_mode(BillingMode::PayPerRequest);
    create.attribute_definitions(attribute).key_schema(schema).send().await.unwrap();
    for shard in shards {
        let put = client.put_item().table_name(table).item(key, text(shard));
        let put = put.item("checkpoint", text("TRIM_HORIZON"));
        let put = put.item("checkpointSubSequenceNumber", AttributeValue::N("0".to_owned()));
        put.item("leaseCounter", AttributeValue::N("3".to_owned())).send().await.unwrap();
    }
}

async fn shards_of_the_table(world: &World) -> Vec<String> {
    let arn = stream_arn(world).await;
    let described = world.streams().describe_stream().stream_arn(arn).send().await.unwrap();
    let shards = described.stream_description.unwrap().shards.unwrap();
    shards.into_iter().filter_map(|shard| shard.shard_id).collect()
}

async fn shards_of_the_region(world: &World, region: usize) -> Vec<String> {
    let client = world.regions()[region].kinesis().client();
    let listed = client.list_shards().stream_name(STREAM).send().await.unwrap();
    listed.shards.unwrap().into_iter().map(|shard| shard.shard_id).collect()
}

async fn moving_from_kcl(chapter: &mut Chapter, world: &mut World) {
    put_all(world, TABLE, 1).await;
    kcl_table(world, "profiles-consumer", &shards_of_the_table(world).await).await;
    kcl_table(world, "cache-consumer", &shards_of_the_region(world, OTHER).await).await;
    let mut shell = Shell::new(world, OTHER);
    let mut walk = chapter.recipe("Moving from KCL", &mut shell);
    for words in ["aggregator import-kcl", "cache-writer import-kcl"] {
        walk.run(words, DONE).await;
        let imported = walk.run(words, DONE).await;
        assert!(imported.stdout.contains("TRIM_HORIZON ->"), "{imported}");
    }
    walk.done();
    world.start_daemons().unwrap();
    has(world, OTHER, &user(0), 1).await;
    is_current(world, OTHER).await;
}

async fn adding_a_region(chapter: &mut Chapter, world: &mut World, whole: &toml::Table) {
    let mut with_it = whole.clone();
    let region = with_it["regions"]["eu-west-1"].as_table_mut().unwrap();
    region.insert("initial_position".to_owned(), "backfill".into());
    with_it["tables"].as_table_mut().unwrap().remove(OTHER_TABLE).unwrap();
    write(world, &with_it);
    let mut shell = Shell::new(world, REGION);
    let mut walk = chapter.recipe("Adding a region", &mut shell);
    walk.run("aggregator config check", DONE).await;
    restart(world).await;
    let listed = walk.run_until("aggregator regions list", PROBLEMS).await;
    assert!(listed.stdout.contains("backfill of"), "{listed}");
    // As soon as every shard is read for the region.
    walk.run_until("aggregator backfill", DONE).await;
    walk.run("aggregator regions wait", DONE).await;
    is_current(world, REGION).await;
    walk.run_until("cache-writer verify", DONE).await;
    walk.done();
    all_is_well(world).await;
}

async fn adding_a_table(chapter: &mut Chapter, world: &mut World, whole: &toml::Table) {
    // Some rows that its stream does not have.
    put_all(world, OTHER_TABLE, 1).await;
    let mut with_both = whole.clone();
    for (of, name) in [("tables", OTHER_TABLE), ("regions", "eu-west-1"), ("regions", "ap-northeast-1")] {
        let section = with_both[of][name].as_table_mut().unwrap();
        section.insert("initial_position".to_owned(), "latest".into());
    }
    write(world, &with_both);
    let mut shell = Shell::new(world, REGION);
    let mut walk = chapter.recipe("Adding a table", &mut shell);
    walk.run("aggregator config check", DONE).await;
    restart(world).await;
    walk.run_until("aggregator backfill", DONE).await;
    is_current(world, REGION).await;
    walk.run_until("cache-writer verify", DONE).await;
    walk.done();
    all_is_well(world).await;
}
