//! What this process keeps for a moment.

use std::time::Duration;

use warmcast_cache::{Answer, Reader, ReaderConfig, TablePolicy, reader::FirstLevelConfig};
use warmcast_proto::change::ChangeKind;

use crate::{
    fake::TABLE,
    world::{World, key, keys, until},
};

async fn reader(config: ReaderConfig, ttl: Duration) -> Reader {
    let first_level = Some(FirstLevelConfig { ttl, ..FirstLevelConfig::default() });
    Reader::connect(ReaderConfig { first_level, ..config }).await.unwrap()
}

#[tokio::test]
async fn a_hit_does_not_touch_the_server() {
    let mut world = World::start().await;
    world.apply("there", 1, ChangeKind::Put, "item").await;
    world.apply("deleted", 2, ChangeKind::Delete, "").await;
    let reader = reader(world.config(), Duration::from_secs(60)).await;
    let first = reader.get_many(TABLE, &keys(&["there", "deleted"])).await.unwrap();
    // Only what is read again and again is kept.
    for _ in 1..4 {
        assert_eq!(reader.stats().first_level_hits, 0);
        assert_eq!(reader.get_many(TABLE, &keys(&["there", "deleted"])).await.unwrap(), first);
    }
    world.redis.kill();
    assert_eq!(reader.get_many(TABLE, &keys(&["there", "deleted"])).await.unwrap(), first);
    assert_eq!(reader.get(TABLE, &key("there")).await.unwrap(), first[0]);
    assert_eq!(reader.get(TABLE, &key("deleted")).await.unwrap(), Answer::Absent);
    assert_eq!(reader.stats().first_level_hits, 4);
    // What it has is answered although the rest cannot be read.
    let some = reader.get_many(TABLE, &keys(&["there", "other"])).await.unwrap();
    assert_eq!(some, [first[0].clone(), Answer::Missing { filling: false }]);
    assert_eq!(reader.stats().unavailable, 1);
    assert!(reader.get(TABLE, &key("other")).await.is_err());
    assert!(reader.get_many(TABLE, &keys(&["other", "another"])).await.is_err());
}

#[tokio::test]
async fn it_is_kept_no_longer_than_its_time() {
    let world = World::start().await;
    world.apply("u1", 1, ChangeKind::Put, "old").await;
    let reader = reader(world.config(), Duration::from_millis(300)).await;
    let seen = async || reader.get(TABLE, &key("u1")).await.unwrap().row().unwrap().bytes().clone();
    until("it is kept", async || seen().await == "old" && reader.stats().first_level_hits > 0).await;
    world.apply("u1", 2, ChangeKind::Put, "new").await;
    until("the new item is seen", async || seen().await == "new").await;
}

#[tokio::test]
async fn a_miss_is_not_kept_and_what_the_master_says_is() {
    let world =
        World::start_with(TablePolicy { negative_ttl: Duration::from_secs(60), ..TablePolicy::default() })
            .await;
    let lonely = reader(world.config(), Duration::from_secs(60)).await;
    assert_eq!(lonely.get(TABLE, &key("u1")).await.unwrap(), Answer::Missing { filling: false });
    world.apply("u1", 1, ChangeKind::Put, "item").await;
    assert!(matches!(lonely.get(TABLE, &key("u1")).await.unwrap(), Answer::Fresh(_)));

    let reader = reader(world.config_with_master(), Duration::from_secs(60)).await;
    for _ in 0..6 {
        assert_eq!(reader.get(TABLE, &key("no-body")).await.unwrap(), Answer::Absent);
        assert!(matches!(reader.get(TABLE, &key("u2")).await.unwrap(), Answer::Fresh(_)));
    }
    let stats = reader.stats();
    assert_eq!((stats.first_level_hits, stats.from_master), (4, 2), "{stats:?}");
}
