//! What the cache-writer does beside applying changes: filling, reading again after losses, telling how fresh it is.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_sdk_dynamodb::types::{AttributeValue, StreamViewType};
use redis::AsyncCommands as _;
use tokio::time::Instant;
use warmcast_cache::policy::{TablePolicy, Tables, WritePolicy};
use warmcast_cache::{FillerConfig, MasterConfig};
use warmcast_cache_writer::config::FallbackConfig;
use warmcast_proto::change::{Change, ChangeKind};
use warmcast_proto::entry::EntryKind;
use warmcast_proto::frame::{Compression, Compressor, FrameBuilder};
use warmcast_proto::item::{self, Item, Value};

use super::servers::service;
use super::wait::until;
use super::world::{CacheWriter, World, change, frame, now_ms, put_change, shown};

/// More than a watermark takes from the stream to the cache.
const QUIET: Duration = Duration::from_millis(1_500);

/// Asserts that the condition holds all the time.
async fn throughout(what: &str, condition: impl AsyncFn() -> bool) {
    let end = Instant::now() + QUIET;
    while Instant::now() < end {
        assert!(condition().await, "{what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A frame whose changes were read from their table's stream two minutes ago.
pub(crate) fn late_frame(changes: &[Change]) -> Vec<u8> {
    let mut builder = FrameBuilder::new();
    changes.iter().for_each(|change| builder.push(change));
    builder.read_at(now_ms() - 120_000);
    builder.finish(&mut Compressor::new(Compression::None).unwrap()).unwrap().to_vec()
}

pub(crate) fn item_of(attributes: &[(&str, &str)]) -> Item {
    let attribute = |(name, value): &(&str, &str)| ((*name).to_owned(), Value::S((*value).to_owned()).into());
    Item { attributes: attributes.iter().map(attribute).collect::<BTreeMap<_, _>>() }
}

impl World {
    /// The table, with one item.
    pub(crate) async fn put_into_master(&self, id: &str, color: &str) {
        self.dynamodb.create_table("profiles", StreamViewType::KeysOnly).await;
        let put = self.dynamodb.client.put_item().table_name("profiles");
        let put = put.item("id", AttributeValue::S(id.to_owned()));
        put.item("color", AttributeValue::S(color.to_owned())).send().await.unwrap();
    }

    pub(crate) fn fallback(&self) -> FallbackConfig {
        FallbackConfig {
            dynamodb: service(&self.dynamodb.url),
            master: MasterConfig::default(),
            filler: FillerConfig::default(),
        }
    }

    pub(crate) async fn until_kind(&self, key: &str, kind: EntryKind) {
        until(&format!("{key} is {kind:?}"), async || {
            self.entry(key).await.is_some_and(|(header, _)| header.kind() == kind)
        })
        .await;
    }

    async fn watermark_ms(&self) -> Option<u64> {
        let text: Option<String> = self.admin.clone().get("wc:warmcast:watermark").await.unwrap();
        text.map(|text| text.parse().unwrap())
    }

    async fn until_watermark(&self, watermark_ms: u64) {
        until(&format!("the watermark is {watermark_ms}"), async || {
            self.watermark_ms().await == Some(watermark_ms)
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_item_that_its_change_does_not_tell_is_filled_from_the_master() {
    let world = World::new(1).await;
    world.put_into_master("a", "red").await;
    let mut config = world.config();
    config.fallback = Some(world.fallback());
    let writer = CacheWriter::start(config);
    world
        .put(frame(&[change("a", 3, ChangeKind::Invalidate, ""), change("b", 3, ChangeKind::Invalidate, "")]))
        .await;
    world.until_kind("a", EntryKind::Filled).await;
    let (header, payload) = world.until_entry("a", 3).await;
    assert_eq!(item::decode(payload.into()).unwrap(), item_of(&[("id", "a"), ("color", "red")]));
    assert!(header.time_ms().abs_diff(now_ms()) < 60_000, "when the read began");
    // The master has no such item, and the floor is kept.
    world.until_kind("b", EntryKind::Negative).await;
    world.until_entry("b", 3).await;
    writer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_item_that_is_not_known_is_filled_also_by_who_did_not_apply_that() {
    let world = World::new(1).await;
    // As one that was killed: it applied the change, and asked for no fill.
    let without_master = CacheWriter::start(world.config());
    let unknown = frame(&[change("a", 3, ChangeKind::Invalidate, "")]);
    world.put(unknown.clone()).await;
    assert_eq!(shown(&world.until_entry("a", 3).await), (EntryKind::Invalid, ""));
    without_master.stop().await;

    world.put_into_master("a", "red").await;
    let mut config = world.config();
    config.fallback = Some(world.fallback());
    let writer = CacheWriter::start(config);
    world.put(unknown).await;
    world.until_kind("a", EntryKind::Filled).await;
    writer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_comes_late_only_says_that_its_items_are_not_known() {
    let world = World::new(1).await;
    let writer = CacheWriter::start(world.config());
    world.put(frame(&[put_change("newer", 9)])).await;
    world.until_entry("newer", 9).await;
    world.put(late_frame(&[put_change("new", 5), put_change("newer", 5)])).await;
    let new = world.until_entry("new", 5).await;
    assert_eq!(shown(&new), (EntryKind::Invalid, ""));
    assert_eq!(shown(&world.until_entry("newer", 9).await), (EntryKind::Live, "9"));
    writer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emptied_cache_gets_back_what_the_stream_had_lately() {
    let world = World::new(1).await;
    let writer = CacheWriter::start(world.config());
    let last = world.put(frame(&[put_change("a", 1), put_change("b", 2)])).await;
    world.until_entry("b", 2).await;
    world.until_checkpoint(&last).await;
    let () = redis::cmd("FLUSHALL").query_async(&mut world.admin.clone()).await.unwrap();
    assert_eq!(shown(&world.until_entry("a", 1).await), (EntryKind::Live, "1"));
    assert_eq!(shown(&world.until_entry("b", 2).await), (EntryKind::Live, "2"));
    writer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_that_lost_its_data_while_nobody_wrote_gets_it_back_at_the_next_start() {
    let mut world = World::new(1).await;
    let writer = CacheWriter::start(world.config());
    let last = world.put(frame(&[put_change("a", 1)])).await;
    world.until_entry("a", 1).await;
    writer.stop().await;
    world.until_checkpoint(&last).await;
    world.redis.kill();
    assert!(world.redis.run(), "the server comes up on its port again");
    world.admin = world.redis.admin().await;
    assert!(world.entry("a").await.is_none());
    let writer = CacheWriter::start(world.config());
    assert_eq!(shown(&world.until_entry("a", 1).await), (EntryKind::Live, "1"));
    writer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_regions_watermark_is_what_came_through_every_shard() {
    let world = World::new(2).await;
    let writer = CacheWriter::start(world.config());
    let (first, second) = (0, u128::MAX);
    world.put_at(first, FrameBuilder::heartbeat(5_000)).await;
    throughout("one shard alone tells nothing", async || world.watermark_ms().await.is_none()).await;
    world.put_at(second, FrameBuilder::heartbeat(4_000)).await;
    world.until_watermark(4_000).await;
    world.put_at(first, FrameBuilder::heartbeat(6_000)).await;
    throughout("the least counts", async || world.watermark_ms().await == Some(4_000)).await;
    world.put_at(second, FrameBuilder::heartbeat(7_000)).await;
    world.until_watermark(6_000).await;
    writer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_caches_what_is_read_keeps_what_is_there_current_and_nothing_else() {
    let world = World::new(1).await;
    let everything = CacheWriter::start(world.config());
    world.put(frame(&[put_change("read", 1)])).await;
    world.until_entry("read", 1).await;
    everything.stop().await;
    let mut config = world.config();
    let present = TablePolicy { write: WritePolicy::Present, ..TablePolicy::default() };
    config.redis.tables = Tables { named: [("profiles".into(), present)].into(), ..Tables::default() };
    let writer = CacheWriter::start(config);
    let last = world.put(frame(&[put_change("other", 1), put_change("read", 2)])).await;
    world.until_entry("read", 2).await;
    world.until_checkpoint(&last).await;
    assert!(world.entry("other").await.is_none());
    writer.stop().await;
}
