//! Fills in the background: for keys that became invalid.

use warmcast_cache::{
    Cache, ItemId,
    filler::{Filler, FillerConfig},
    master::Master,
};
use warmcast_proto::{change::ChangeKind, entry::EntryKind};

use crate::{
    fake::{Step, TABLE},
    world::{World, until},
};

fn filler(world: &World, config: FillerConfig) -> Filler {
    let fallback = world.fallback();
    let cache: Cache = world.cache.clone();
    Filler::new(cache, Master::new(fallback.client, fallback.master), config)
}

fn ids(names: &[&str]) -> Vec<ItemId> {
    names.iter().map(|name| ItemId::new(TABLE, (*name).to_owned())).collect()
}

#[tokio::test]
async fn keys_that_became_invalid_are_filled_without_anybody_waiting() {
    let world = World::start().await;
    for name in ["u1", "u2"] {
        world.apply(name, 1, ChangeKind::Invalidate, "").await;
    }
    let filler = filler(&world, world.fallback().filler);
    assert_eq!(filler.offer(ids(&["u1", "u2"])), 2);
    filler.idle().await;
    assert_eq!(world.entry("u1").await.unwrap().0, EntryKind::Filled);
    assert_eq!(world.entry("u2").await.unwrap().0, EntryKind::Filled);
    assert_eq!(filler.stats().installed, 2);
}

#[tokio::test]
async fn what_is_too_much_is_shed_and_counted() {
    let world = World::start().await;
    world.dynamodb.then(&[Step::Hold]);
    let filler = filler(&world, FillerConfig { keys_max: 2, ..world.fallback().filler });
    assert_eq!(filler.offer(ids(&["u1", "u2", "u3"])), 2);
    assert_eq!(filler.stats().shed, 1);
    world.dynamodb.release();
    filler.idle().await;
    assert_eq!(filler.offer(ids(&["u3"])), 1);
    filler.idle().await;
    assert_eq!(world.entry("u3").await.unwrap().0, EntryKind::Filled);
}

#[tokio::test]
async fn a_key_that_becomes_invalid_again_during_its_fill_is_filled_again() {
    let world = World::start().await;
    world.dynamodb.then(&[Step::Hold]);
    let filler = filler(&world, world.fallback().filler);
    world.apply("u1", 1, ChangeKind::Invalidate, "").await;
    filler.offer(ids(&["u1"]));
    world.dynamodb.until_calls(1).await;
    world.dynamodb.set_version(2);
    world.apply("u1", 2, ChangeKind::Invalidate, "").await;
    filler.offer(ids(&["u1"]));
    world.dynamodb.release();
    until("it is filled again", async || filler.stats().installed == 1).await;
    filler.idle().await;
    assert_eq!((filler.stats().refused, world.dynamodb.calls().len()), (1, 2));
    let payload = world.entry("u1").await.unwrap().1;
    assert_eq!(crate::world::version(&warmcast_proto::item::decode(payload.into()).unwrap()), 2);
}
