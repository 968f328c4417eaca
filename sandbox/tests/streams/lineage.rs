//! Thousands of shards, rollovers, splits and merges, and listings that are late or wrong.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use aws_sdk_dynamodbstreams::types::{Shard, ShardIteratorType, StreamStatus};
use warmcast_sandbox::streams::{Operation, Until};

use crate::support::*;

fn is_closed(shard: &Shard) -> bool {
    shard.sequence_number_range().is_some_and(|range| range.ending_sequence_number().is_some())
}

fn ids(shards: &[Shard]) -> Vec<&str> {
    shards.iter().filter_map(Shard::shard_id).collect()
}

#[tokio::test]
async fn a_large_stream_is_listed_in_pages_of_100_in_the_order_of_the_ids() {
    let fake = Fake::start().await;
    fake.script().grow(&fake.arn, 500, 7).unwrap();
    let shards = fake.listed().await;
    assert_eq!(fake.script().calls(Operation::DescribeStream), 35);
    let ids = ids(&shards);
    assert_eq!(ids.len(), 3_500);
    assert!(ids.is_sorted());
    let known: HashSet<_> = ids.iter().copied().collect();
    assert!(shards.iter().filter_map(Shard::parent_shard_id).all(|parent| known.contains(parent)));
    let open: Vec<_> = shards.iter().filter(|shard| !is_closed(shard)).filter_map(Shard::shard_id).collect();
    assert_eq!(open.len(), 500);
    let live = fake.script().live_shards(&fake.arn).unwrap();
    assert_eq!(open.iter().copied().collect::<HashSet<_>>(), live.iter().map(|id| &**id).collect());
    fake.server.stop().await;
}

#[tokio::test]
async fn a_page_ends_where_its_limit_says() {
    let fake = Fake::start().await;
    fake.script().grow(&fake.arn, 5, 1).unwrap();
    let describe = |from: Option<String>| {
        fake.client.describe_stream().stream_arn(&fake.arn).limit(3).set_exclusive_start_shard_id(from).send()
    };
    let first = describe(None).await.unwrap().stream_description.unwrap();
    assert_eq!(first.shards().len(), 3);
    assert_eq!(first.last_evaluated_shard_id(), first.shards()[2].shard_id());
    let second = describe(first.last_evaluated_shard_id).await.unwrap().stream_description.unwrap();
    assert_eq!((second.shards().len(), second.last_evaluated_shard_id()), (2, None));
    // A shard that is not there is a place in the order all the same (seen of the service).
    let beyond = describe(Some("shardId-99999999999999999999-ffffffff".into())).await.unwrap();
    assert!(beyond.stream_description.unwrap().shards().is_empty());
    fake.server.stop().await;
}

#[tokio::test]
async fn a_rolled_over_shard_ends_and_its_child_goes_on() {
    let fake = Fake::start().await;
    let script = fake.script();
    let parent = script.add_shard(&fake.arn, None).unwrap();
    let last = script.put_items(&fake.arn, &parent, 2, 300).unwrap().end;
    let child = script.rollover(&fake.arn, &parent).unwrap();
    script.put_items(&fake.arn, &child, 1, 300).unwrap();

    let page = read(&fake.client, &fake.iterator(&parent).await).await.unwrap();
    assert_eq!((page.records().len() as u64, page.next_shard_iterator()), (last, None));
    assert_eq!(fake.children(&parent).await, [child.as_str()]);
    let page = read(&fake.client, &fake.iterator(&child).await).await.unwrap();
    assert_eq!(page.records().len(), 1);
    assert!(page.next_shard_iterator().is_some());

    let listed = fake.listed().await;
    let by_id: HashMap<_, _> = listed.iter().filter_map(|shard| Some((shard.shard_id()?, shard))).collect();
    assert!(is_closed(by_id[parent.as_str()]) && !is_closed(by_id[child.as_str()]));
    assert_eq!(by_id[child.as_str()].parent_shard_id(), Some(parent.as_str()));
    assert!(script.put_items(&fake.arn, &parent, 1, 300).is_err());
    fake.server.stop().await;
}

#[tokio::test]
async fn a_split_has_two_children_and_a_merge_names_one_parent() {
    let fake = Fake::start().await;
    let script = fake.script();
    let root = script.add_shard(&fake.arn, None).unwrap();
    let [a, b] = script.split(&fake.arn, &root).unwrap();
    let children: HashSet<_> = fake.children(&root).await.into_iter().collect();
    assert_eq!(children, [a.clone(), b.clone()].into());
    let merged = script.merge(&fake.arn, &a, &b).unwrap();
    assert_eq!(fake.children(&a).await, [merged]);
    assert_eq!(fake.children(&b).await, Vec::<String>::new());
    let open = fake.listed().await.into_iter().filter(|shard| !is_closed(shard)).count();
    assert_eq!(open, 1);
    fake.server.stop().await;
}

#[tokio::test]
async fn late_children_appear_after_so_many_describes() {
    let fake = Fake::start().await;
    let script = fake.script();
    let parent = script.add_shard(&fake.arn, None).unwrap();
    script.hide_children_for(&fake.arn, &parent, Until::Describes(3)).unwrap();
    let children = script.split(&fake.arn, &parent).unwrap();
    assert_eq!(fake.children(&parent).await, Vec::<String>::new());
    assert_eq!(fake.listed_ids().await, [parent.as_str()]);
    assert_eq!(fake.children(&parent).await, Vec::<String>::new());
    assert_eq!(fake.children(&parent).await.len(), 2);
    assert_eq!(fake.listed_ids().await.len(), 3);
    // What is not listed is there all the same.
    script.hide_children_for(&fake.arn, &parent, Until::Settled).unwrap();
    read(&fake.client, &fake.iterator(&children[0]).await).await.unwrap();
    fake.server.stop().await;
}

#[tokio::test]
async fn late_children_appear_when_the_clock_says_so() {
    let fake = Fake::start().await;
    let script = fake.script();
    let parent = script.add_shard(&fake.arn, None).unwrap();
    script.hide_children_for(&fake.arn, &parent, Until::Elapsed(Duration::from_secs(30))).unwrap();
    let child = script.rollover(&fake.arn, &parent).unwrap();
    assert!(fake.children(&parent).await.is_empty());
    script.clock().advance(Duration::from_secs(29));
    assert!(fake.children(&parent).await.is_empty());
    script.clock().advance(Duration::from_secs(1));
    assert_eq!(fake.children(&parent).await, [child]);
    fake.server.stop().await;
}

#[tokio::test]
async fn a_parent_looks_open_while_its_child_is_listed_until_it_is_settled() {
    let fake = Fake::start().await;
    let script = fake.script();
    let parent = script.add_shard(&fake.arn, None).unwrap();
    script.rollover(&fake.arn, &parent).unwrap();
    script.show_as_open(&fake.arn, &parent, Until::Settled).unwrap();
    assert!(fake.listed().await.iter().all(|shard| !is_closed(shard)));
    // It only looks so.
    assert_eq!(read(&fake.client, &fake.iterator(&parent).await).await.unwrap().next_shard_iterator, None);
    script.settle_listings(&fake.arn).unwrap();
    assert_eq!(fake.listed().await.iter().filter(|shard| is_closed(shard)).count(), 1);
    fake.server.stop().await;
}

#[tokio::test]
async fn a_parent_is_missing_from_the_next_listings() {
    let fake = Fake::start().await;
    let script = fake.script();
    let parent = script.add_shard(&fake.arn, None).unwrap();
    let child = script.rollover(&fake.arn, &parent).unwrap();
    script.omit_from_listings(&fake.arn, &parent, Until::Describes(2)).unwrap();
    assert_eq!(fake.listed_ids().await, [child.as_str()]);
    assert_eq!(fake.children(&parent).await, [child.as_str()]);
    assert_eq!(fake.listed_ids().await, [child]);
    assert_eq!(fake.listed_ids().await.len(), 2);
    fake.server.stop().await;
}

#[tokio::test]
async fn a_child_is_missing_from_the_listing_but_found_by_its_parent() {
    let fake = Fake::start().await;
    let script = fake.script();
    let parent = script.add_shard(&fake.arn, None).unwrap();
    let child = script.rollover(&fake.arn, &parent).unwrap();
    script.omit_from_listings(&fake.arn, &child, Until::Settled).unwrap();
    assert_eq!(fake.listed_ids().await, [parent.as_str()]);
    assert_eq!(fake.children(&parent).await, [child]);
    fake.server.stop().await;
}

#[tokio::test]
async fn a_disabled_stream_looks_closed_everywhere_and_a_new_one_has_its_own_arn() {
    let fake = Fake::start().await;
    let script = fake.script();
    script.grow(&fake.arn, 3, 2).unwrap();
    script.set_disabled(&fake.arn).unwrap();
    let second = script.create_stream("bids", None).unwrap();
    assert_ne!(fake.arn, second);
    let described = |arn: &str| fake.client.describe_stream().stream_arn(arn).send();
    let old = described(&fake.arn).await.unwrap().stream_description.unwrap();
    assert_eq!(old.stream_status(), Some(&StreamStatus::Disabled));
    assert!(old.shards().iter().all(is_closed));
    let new = described(&second).await.unwrap().stream_description.unwrap();
    assert_eq!(new.stream_status(), Some(&StreamStatus::Enabled));
    let listed = fake.client.list_streams().table_name("bids").send().await.unwrap();
    assert_eq!(listed.streams().len(), 2);
    fake.server.stop().await;
}

#[tokio::test]
async fn a_deleted_stream_is_not_found_by_any_operation() {
    let fake = Fake::start().await;
    let shard = fake.script().add_shard(&fake.arn, None).unwrap();
    let at = fake.iterator(&shard).await;
    fake.script().delete_stream(&fake.arn).unwrap();
    let not_found = "ResourceNotFoundException";
    assert_eq!(all_shards(&fake.client, &fake.arn).await.unwrap_err(), not_found);
    let refused = iterator(&fake.client, &fake.arn, &shard, ShardIteratorType::Latest, None).await;
    assert_eq!(refused.unwrap_err(), not_found);
    assert_eq!(read(&fake.client, &at).await.unwrap_err(), not_found);
    assert!(fake.script().put_items(&fake.arn, &shard, 1, 10).is_err());
    fake.server.stop().await;
}

#[tokio::test]
async fn streams_are_listed_in_pages() {
    let fake = Fake::start().await;
    for n in 0..4 {
        fake.script().create_stream(&format!("table-{n}"), Some("2026-01-01T00:00:00.000")).unwrap();
    }
    let first = fake.client.list_streams().limit(3).send().await.unwrap();
    assert_eq!(first.streams().len(), 3);
    let rest = fake
        .client
        .list_streams()
        .limit(3)
        .set_exclusive_start_stream_arn(first.last_evaluated_stream_arn)
        .send()
        .await
        .unwrap();
    assert_eq!((rest.streams().len(), rest.last_evaluated_stream_arn()), (2, None));
    let again = fake.script().create_stream("table-0", Some("2026-01-01T00:00:00.000"));
    assert!(again.unwrap_err().to_string().contains("another label"));
    fake.server.stop().await;
}
