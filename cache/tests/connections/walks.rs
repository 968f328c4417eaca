//! Walking through the items that a cache has values for.

use std::collections::BTreeSet;

use redis::AsyncCommands as _;
use warmcast_cache::{
    Cache, CacheConfig, EntryReads, ItemId, Outcome, ReadFrom,
    policy::{TablePolicy, Tables},
};
use warmcast_proto::change::Change;

use crate::{
    changes::{TABLE, apply, keys, put},
    support::RedisServer,
};

/// All items of a walk to its end, each once, and the strangers met.
pub(crate) async fn walk(reads: &EntryReads, table: Option<&str>) -> (BTreeSet<ItemId>, BTreeSet<Vec<u8>>) {
    let (mut items, mut strangers) = (BTreeSet::new(), BTreeSet::new());
    let mut scan = reads.scan(table);
    while let Some(page) = scan.next().await {
        let page = page.unwrap();
        items.extend(page.items);
        strangers.extend(page.strangers);
    }
    (items, strangers)
}

pub(crate) fn items(keys: &[String]) -> BTreeSet<ItemId> {
    keys.iter().map(|key| ItemId::new(TABLE, key.clone())).collect()
}

#[tokio::test]
async fn a_walk_meets_every_item_and_tells_strangers() {
    let server = RedisServer::start();
    let own_prefix = TablePolicy { key_prefix: Some("wc:own:".to_owned()), ..TablePolicy::default() };
    let tables = Tables { named: [("orders".into(), own_prefix)].into(), ..Tables::default() };
    let config = CacheConfig { tables, ..server.config() };
    let cache = Cache::connect(config.clone()).await.unwrap();
    let keys = keys(2_000);
    let mut changes: Vec<Change> = keys.iter().map(|key| put(key, 1)).collect();
    changes.push(Change { table: "orders".into(), ..put("o", 1) });
    let answers = apply(&cache, &changes).await;
    assert!(answers.iter().all(|answer| *answer == Ok(Outcome::Applied)), "{answers:?}");
    cache.publish_watermark(7).await.unwrap();
    let mut admin = server.admin().await;
    for key in ["wc:theirs", "elsewhere:profiles:user-1"] {
        let () = admin.set(key, "theirs").await.unwrap();
    }
    let () = admin.lpush("wc:profiles:list", "theirs").await.unwrap();

    let reads = EntryReads::connect(config, ReadFrom::Primary).await.unwrap();
    let mut expected = items(&keys);
    expected.extend(items(&["list".to_owned()]));
    assert_eq!(walk(&reads, Some(TABLE)).await, (expected.clone(), BTreeSet::new()));
    let orders = ItemId::new("orders", "o");
    assert_eq!(walk(&reads, Some("orders")).await.0, BTreeSet::from([orders.clone()]));
    expected.insert(orders.clone());
    assert_eq!(walk(&reads, None).await, (expected.clone(), BTreeSet::from([b"wc:theirs".to_vec()])));

    let held = [ItemId::new(TABLE, "list"), orders.clone(), ItemId::new(TABLE, "nobody")];
    assert_eq!(reads.hold_no_string(&held).await, Ok(vec![true, false, false]));

    let random = reads.random(400).await.unwrap();
    assert!(random.items.len() > 300 && random.items.iter().all(|item| expected.contains(item)));
    assert!(
        random.items.iter().collect::<BTreeSet<_>>().len() > 200,
        "they are not the same again and again"
    );
    assert_eq!(reads.watermark_ms().await, Ok(Some(7)));
    let values = reads.get_items(&[orders, ItemId::new(TABLE, "nobody")]).await;
    assert!(matches!(values.as_slice(), [Ok(Some(_)), Ok(None)]), "{values:?}");
}

#[tokio::test]
async fn an_empty_cache_has_no_items_and_one_that_restarts_is_walked_through_again() {
    let mut server = RedisServer::start();
    let reads = EntryReads::connect(server.config(), ReadFrom::Primary).await.unwrap();
    assert_eq!(walk(&reads, None).await, (BTreeSet::new(), BTreeSet::new()));
    assert_eq!(reads.random(10).await.unwrap().items, []);
    assert_eq!(reads.watermark_ms().await, Ok(None));

    let cache = Cache::connect(server.config()).await.unwrap();
    apply(&cache, &keys(1_500).iter().map(|key| put(key, 1)).collect::<Vec<_>>()).await;
    let mut scan = reads.scan(None);
    assert!(!scan.next().await.unwrap().unwrap().items.is_empty(), "in the middle");
    server.kill();
    assert!(scan.next().await.unwrap().is_err());
    assert!(server.run(), "it comes up on its port again");
    let other = Cache::connect(server.config()).await.unwrap();
    apply(&other, &[put("new", 1)]).await;
    let mut met = BTreeSet::new();
    while let Some(page) = scan.next().await {
        met.extend(page.unwrap().items);
    }
    assert_eq!(met, items(&["new".to_owned()]));
}
