//! How far behind the region is, by its watermark.

use std::time::Duration;

use redis::AsyncCommands as _;
use warmcast_cache::{Answer, Reader, ReaderConfig, reader::FirstLevelConfig, reader::ReadOptions};
use warmcast_proto::entry::{EntryHeader, EntryKind};

use crate::{
    fake::TABLE,
    world::{World, key, now_ms, position, until},
};

const BOUND: Duration = Duration::from_secs(60);

/// An item that was changed long ago.
async fn world_with_an_old_item() -> World {
    let world = World::start().await;
    let header = EntryHeader::new(EntryKind::Live, position(1), 1_700_000_000_000).unwrap();
    world.set("u1", &[header.encode().as_ref(), b"item"].concat()).await;
    world
}

async fn reader(world: &World) -> Reader {
    Reader::connect(ReaderConfig { staleness_max: Some(BOUND), ..world.config() }).await.unwrap()
}

async fn lag(reader: &Reader) -> Option<Duration> {
    match reader.get(TABLE, &key("u1")).await.unwrap() {
        Answer::Fresh(_) => None,
        Answer::Stale(row, lag) => {
            assert_eq!(row.bytes(), "item");
            Some(lag)
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_item_is_stale_when_the_region_is_further_behind_than_the_caller_allows() {
    let world = world_with_an_old_item().await;
    world.set_watermark(now_ms() - 1_000).await;
    let reader = reader(&world).await;
    assert_eq!(lag(&reader).await, None, "an item that has not changed for long is not stale");
    assert!(reader.lag().unwrap() < BOUND);
    let strict = ReadOptions { staleness_max: Some(Duration::from_millis(1)), ..reader.options() };
    assert!(matches!(reader.get_with(TABLE, &key("u1"), strict).await, Ok(Answer::Stale(..))));
    let lax = ReadOptions { staleness_max: None, ..strict };
    assert!(matches!(reader.get_with(TABLE, &key("u1"), lax).await, Ok(Answer::Fresh(_))));

    world.set_watermark(now_ms() - 90_000).await;
    until("the reader sees the watermark go back", async || lag(&reader).await.is_some()).await;
    let lag = lag(&reader).await.unwrap();
    assert!(lag >= Duration::from_secs(90) && lag < Duration::from_secs(120), "{lag:?}");
    world.set_watermark(now_ms()).await;
    until("it is fresh again", async || self::lag(&reader).await.is_none()).await;
    assert!(reader.stats().stale > 0);
}

#[tokio::test]
async fn a_watermark_that_is_gone_or_no_number_stands_still() {
    let world = world_with_an_old_item().await;
    let watermark_ms = now_ms() - 30_000;
    world.set_watermark(watermark_ms).await;
    let reader = reader(&world).await;
    let before = reader.lag().unwrap();
    let mut admin = world.admin.clone();
    for value in [None, Some("soon")] {
        let _: () = match value {
            None => admin.del("wc:warmcast:watermark").await.unwrap(),
            Some(text) => admin.set("wc:warmcast:watermark", text).await.unwrap(),
        };
        let reads = world.reads().await;
        until("the reader asks for it again", async || world.reads().await > reads + 1).await;
        let lag = reader.lag().unwrap();
        assert!(lag > before && lag <= Duration::from_millis(now_ms() - watermark_ms), "{lag:?}");
    }
}

#[tokio::test]
async fn without_any_watermark_an_item_is_as_stale_as_it_may_be_at_most() {
    let world = world_with_an_old_item().await;
    let reader = reader(&world).await;
    assert_eq!(reader.lag(), None);
    assert!(lag(&reader).await.unwrap() > Duration::from_hours(24));
}

#[tokio::test]
async fn what_is_kept_in_the_first_level_is_judged_by_the_watermark_of_its_time() {
    let world = world_with_an_old_item().await;
    world.set_watermark(now_ms() - 10_000).await;
    let first_level = Some(FirstLevelConfig { ttl: Duration::from_secs(60), ..FirstLevelConfig::default() });
    let config = ReaderConfig { first_level, staleness_max: Some(Duration::from_secs(5)), ..world.config() };
    let reader = Reader::connect(config).await.unwrap();
    for _ in 0..4 {
        assert!(lag(&reader).await.is_some());
    }
    world.set_watermark(now_ms()).await;
    until("the reader sees the watermark", async || reader.lag().unwrap() < Duration::from_secs(5)).await;
    assert!(lag(&reader).await.is_some(), "it was read before what the watermark vouches for");
    assert_eq!(reader.stats().first_level_hits, 1);
}
