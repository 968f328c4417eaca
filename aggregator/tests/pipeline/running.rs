//! What the aggregator does while everything is well.

use std::collections::BTreeSet;
use std::time::Duration;

use aws_sdk_dynamodb::types::{AttributeValue, StreamViewType};
use warmcast_aggregator::linger::LingerBounds;
use warmcast_proto::change::ChangeKind;
use warmcast_proto::sequence::Sequence;

use super::servers::{DynamoDb, Kinesis};
use super::wait::until;
use super::world::{Aggregator, STREAM, config, directory, region, text};

const NEW_IMAGE: StreamViewType = StreamViewType::NewImage;

#[tokio::test(flavor = "multi_thread")]
async fn every_change_of_every_table_is_in_every_region_and_a_key_is_on_one_shard() {
    let (dynamodb, near, far, letters) =
        (DynamoDb::start().await, region(1).await, region(3).await, directory());
    dynamodb.create_table("profiles", NEW_IMAGE).await;
    dynamodb.create_table("budgets", StreamViewType::NewAndOldImages).await;
    let config = config(&dynamodb.url, &["profiles", "budgets"], &[&near.url, &far.url], letters.path());
    let aggregator = Aggregator::start(config);
    let keys: Vec<String> = (0..20).map(|number| format!("key-{number}")).collect();
    let splits: [Option<&str>; 4] = [None, Some("shardId-000000000000"), Some("shardId-000000000001"), None];
    for (round, split) in splits.into_iter().enumerate() {
        for key in &keys {
            dynamodb.put("profiles", key, &format!("{key} {round}")).await;
            dynamodb.put("budgets", key, &round.to_string()).await;
        }
        if let Some(shard) = split {
            until("the round's changes came", async || {
                let profiles = near.changes("profiles").await;
                keys.iter().all(|key| profiles.get(key).is_some_and(|changes| changes.len() > round))
            })
            .await;
            near.split(STREAM, shard).await;
        }
    }
    dynamodb.delete("budgets", "key-0").await;
    for region in [&near, &far] {
        until("the last changes came", async || {
            let (profiles, budgets) = (region.changes("profiles").await, region.changes("budgets").await);
            let all = |changes: &Vec<_>| changes.len() >= 4;
            profiles.values().filter(|changes| all(changes)).count() == keys.len()
                && budgets.values().filter(|changes| all(changes)).count() == keys.len()
                && budgets["key-0"].len() == 5
        })
        .await;
        let profiles = region.changes("profiles").await;
        assert_eq!(profiles.len(), keys.len());
        for (key, changes) in profiles {
            let expected: Vec<String> = (0..4).map(|round| format!("{key} {round}")).collect();
            assert_eq!(changes.iter().map(text).collect::<Vec<_>>(), expected);
            assert!(changes.iter().all(|change| change.position.generation() == 1 && change.created_ms > 0));
        }
        let deleted = region.changes("budgets").await["key-0"].last().unwrap().clone();
        assert_eq!((deleted.kind, deleted.payload.len()), (ChangeKind::Delete, 0));
        assert_each_key_is_on_one_open_shard(region).await;
    }
    aggregator.stop().await.unwrap();
}

/// A key's frames are on one of the shards that have no child; what came before a split is on its parent.
async fn assert_each_key_is_on_one_open_shard(region: &Kinesis) {
    let shards = region.shards(STREAM).await;
    let parents: BTreeSet<_> = shards.iter().filter_map(|shard| shard.parent_shard_id.clone()).collect();
    let mut seen = BTreeSet::new();
    for (shard, changes) in region.changes_by_shard().await {
        if parents.contains(&shard) {
            continue;
        }
        let keys: BTreeSet<_> = changes.into_iter().map(|change| (change.table, change.key)).collect();
        for key in keys {
            assert!(seen.insert(key.clone()), "{key:?} is on {shard} and on another shard");
        }
    }
    assert_eq!(seen.len(), 40, "every key was written after the last split");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_table_holds_up_no_other_and_is_read_when_it_is_there() {
    let (dynamodb, kinesis, letters) = (DynamoDb::start().await, region(1).await, directory());
    dynamodb.create_table("profiles", NEW_IMAGE).await;
    let config = config(&dynamodb.url, &["profiles", "later"], &[&kinesis.url], letters.path());
    let aggregator = Aggregator::start(config);
    dynamodb.put("profiles", "a", "1").await;
    until("the one table's change came", async || kinesis.changes("profiles").await.len() == 1).await;
    dynamodb.create_table("later", NEW_IMAGE).await;
    dynamodb.put("later", "b", "2").await;
    until("the other table's change came", async || kinesis.changes("later").await.len() == 1).await;
    aggregator.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_without_new_images_invalidates_what_changed_and_deletes_what_was_deleted() {
    let (dynamodb, kinesis, letters) = (DynamoDb::start().await, region(1).await, directory());
    let tables = ["bare", "old"];
    dynamodb.create_table("bare", StreamViewType::KeysOnly).await;
    dynamodb.create_table("old", StreamViewType::OldImage).await;
    let aggregator = Aggregator::start(config(&dynamodb.url, &tables, &[&kinesis.url], letters.path()));
    for table in tables {
        dynamodb.put(table, "a", "inserted").await;
        dynamodb.put(table, "a", "modified").await;
        dynamodb.delete(table, "a").await;
    }
    for table in tables {
        until("the changes came", async || {
            kinesis.changes(table).await.get("a").is_some_and(|changes| changes.len() == 3)
        })
        .await;
        let changes = kinesis.changes(table).await.remove("a").unwrap();
        let kinds: Vec<_> = changes.iter().map(|change| change.kind).collect();
        assert_eq!(kinds, [ChangeKind::Invalidate, ChangeKind::Invalidate, ChangeKind::Delete]);
        assert!(changes.iter().all(|change| change.payload.is_empty() && change.created_ms > 0));
        assert!(changes.is_sorted_by_key(|change| change.position));
    }
    aggregator.stop().await.unwrap();
    let set_aside = std::fs::read_dir(letters.path()).unwrap().count();
    assert_eq!(set_aside, 0, "it is what such streams are expected to say");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_item_too_large_for_a_frame_becomes_an_invalidation() {
    let (dynamodb, kinesis, letters) = (DynamoDb::start().await, region(1).await, directory());
    dynamodb.create_table("profiles", NEW_IMAGE).await;
    let mut config = config(&dynamodb.url, &["profiles"], &[&kinesis.url], letters.path());
    config.batch.body_bytes_max = 64 << 10;
    let aggregator = Aggregator::start(config);
    let numbers = vec![AttributeValue::N("1".to_owned()); 20_000];
    dynamodb.put_item("profiles", "large", AttributeValue::L(numbers)).await;
    dynamodb.put("profiles", "small", "fits").await;
    until("both changes came", async || kinesis.changes("profiles").await.len() == 2).await;
    let changes = kinesis.changes("profiles").await;
    let (large, small) = (&changes["large"][0], &changes["small"][0]);
    assert_eq!((large.kind, large.payload.len()), (ChangeKind::Invalidate, 0));
    assert_eq!((small.kind, text(small)), (ChangeKind::Put, "fits".to_owned()));
    assert!(large.position < small.position);
    aggregator.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_sends_what_was_read_and_a_restart_goes_on_after_it() {
    let (dynamodb, kinesis, letters) = (DynamoDb::start().await, region(1).await, directory());
    dynamodb.create_table("profiles", NEW_IMAGE).await;
    let mut config = config(&dynamodb.url, &["profiles"], &[&kinesis.url], letters.path());
    let minute = Duration::from_secs(60);
    config.batch.linger = LingerBounds { min: minute, max: minute };
    config.batch.changes_max = 3;
    let aggregator = Aggregator::start(config.clone());
    for number in 0..4 {
        dynamodb.put("profiles", "a", &number.to_string()).await;
    }
    let arrived = async || kinesis.changes("profiles").await.remove("a").unwrap_or_default();
    // The fourth closed the batch of the first three: it was read and waits for others, for a minute.
    until("the first batch came", async || arrived().await.len() == 3).await;
    aggregator.stop().await.unwrap();
    let changes = arrived().await;
    assert_eq!(changes.iter().map(text).collect::<Vec<_>>(), ["0", "1", "2", "3"]);
    let checkpoints = dynamodb.checkpoints("profiles").await;
    assert_eq!(checkpoints.len(), 1, "{checkpoints:?}");
    let last: Sequence = checkpoints[0].1.strip_prefix("after:").unwrap().parse().unwrap();
    assert_eq!(last, changes[3].position.sequence());
    let leases = dynamodb.leases_with_owner().await;
    assert_eq!(leases, 0, "a stopped worker releases its leases");

    config.batch.linger = LingerBounds { min: Duration::ZERO, max: Duration::ZERO };
    let aggregator = Aggregator::start(config);
    dynamodb.put("profiles", "a", "4").await;
    until("the change after the restart came", async || {
        arrived().await.last().is_some_and(|change| text(change) == "4")
    })
    .await;
    assert_eq!(arrived().await.len(), 5, "nothing came twice");
    aggregator.stop().await.unwrap();
}
