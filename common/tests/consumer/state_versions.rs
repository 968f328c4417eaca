//! Items of other versions in the state table: what takes a later one is somebody's, and is left alone.

use std::collections::BTreeSet;

use aws_sdk_dynamodb::types::AttributeValue;
use warmcast_common::consumer::compatibility::{Build, STATE_VERSION};
use warmcast_common::consumer::store::{
    Begin, Claim, Job, Lease, Progressed, Report, RestartLock, StoreError,
};
use warmcast_common::consumer::{Checkpoint, Shard};

use super::table::Table;

const STREAM: &str = "stream";

fn after(number: u64) -> Checkpoint {
    Checkpoint::After(number.to_string().parse().unwrap())
}

/// Changes one attribute of an item by hand; `None` removes it.
async fn set(table: &Table, pk: &str, sk: &str, name: &str, value: Option<AttributeValue>) {
    let update = table
        .client
        .update_item()
        .table_name("state")
        .key("pk", AttributeValue::S(pk.to_owned()))
        .key("sk", AttributeValue::S(sk.to_owned()))
        .expression_attribute_names("#name", name);
    let update = match value {
        Some(value) => {
            update.update_expression("SET #name = :value").expression_attribute_values(":value", value)
        }
        None => update.update_expression("REMOVE #name"),
    };
    update.send().await.unwrap();
}

fn version(number: u64) -> Option<AttributeValue> {
    Some(AttributeValue::N(number.to_string()))
}

async fn owned(table: &Table) -> Lease {
    let shard = Shard { id: "a".to_owned(), parents: vec!["p".to_owned()] };
    table.store.create_lease(STREAM, &shard, &after(7), Begin::AfterParents).await.unwrap();
    let lease = table.lease(STREAM, "a").await.unwrap();
    table.store.take_lease(&lease, "w1").await.unwrap()
}

fn assert_fenced<T: std::fmt::Debug>(answer: Result<T, StoreError>) {
    let error = answer.unwrap_err();
    assert!(error.is_fenced(), "{error}");
}

#[tokio::test]
async fn an_item_without_a_version_is_of_the_first_and_the_one_before_is_read() {
    let table = Table::start().await;
    let lease = owned(&table).await;
    table.store.announce("w1", "i", &Report::default()).await.unwrap();
    for format in [None, version(STATE_VERSION - 1), version(STATE_VERSION)] {
        set(&table, "stream#stream", "shard#a", "format", format.clone()).await;
        set(&table, "workers", "worker#w1", "format", format).await;
        let read = table.lease(STREAM, "a").await.unwrap();
        assert!(!read.is_newer());
        assert_eq!((&read.checkpoint, &read.parents), (&lease.checkpoint, &lease.parents));
        table.store.checkpoint(&lease, &after(8), Progressed::default()).await.unwrap();
        table.store.checkpoint(&lease, &after(7), Progressed::default()).await.unwrap();
        assert!(!table.store.heartbeats().await.unwrap()[0].report.is_newer);
    }
}

#[tokio::test]
async fn a_lease_of_a_newer_version_is_somebodys_open_shard_and_no_write_to_it_is_taken() {
    let table = Table::start().await;
    let lease = owned(&table).await;
    set(&table, "stream#stream", "shard#a", "format", version(STATE_VERSION + 1)).await;
    // As a later version may write it.
    let unknown = AttributeValue::S("of-a-later-version:7".to_owned());
    set(&table, "stream#stream", "shard#a", "checkpoint", Some(unknown)).await;

    let read = table.lease(STREAM, "a").await.unwrap();
    assert!(read.is_newer() && !read.is_over() && !read.checkpoint.is_end());
    assert_eq!((read.owner.as_deref(), read.epoch, &read.parents), (Some("w1"), 1, &lease.parents));
    let done = Progressed::default;
    for held in [&lease, &read] {
        assert_fenced(table.store.take_lease(held, "w2").await);
        assert_fenced(table.store.checkpoint(held, &after(9), done()).await);
        assert_fenced(table.store.release_lease(held, None, done(), None).await);
        assert_fenced(table.store.delete_lease(held).await);
    }
    let claim = table.store.claim_guest(STREAM, "a", "replay", 1_000).await.unwrap();
    assert_eq!(claim, Claim::Parked, "the place is its owner's");
    assert_eq!(table.lease(STREAM, "a").await.unwrap(), read);
}

#[tokio::test]
async fn what_a_newer_version_adds_to_a_stream_is_no_lease_and_what_others_write_there_is_wrong() {
    let table = Table::start().await;
    owned(&table).await;
    set(&table, "stream#stream", "something", "format", version(STATE_VERSION + 1)).await;
    assert_eq!(table.leases(STREAM).await.len(), 1);
    set(&table, "stream#stream", "something", "format", version(STATE_VERSION)).await;
    let error = table.store.leases(STREAM).await.unwrap_err().to_string();
    assert!(error.contains("stream#stream/something"), "{error}");
}

#[tokio::test]
async fn any_other_item_of_a_newer_version_is_named_and_not_guessed_at() {
    let table = Table::start().await;
    let Job { .. } = table.store.begin_job("replay", "what", 1).await.unwrap();
    set(&table, "jobs", "replay", "format", version(STATE_VERSION + 1)).await;
    let error = table.store.jobs().await.unwrap_err().to_string();
    assert!(
        error.contains("jobs/replay") && error.contains(&format!("format {}", STATE_VERSION + 1)),
        "{error}"
    );
}

#[tokio::test]
async fn a_heartbeat_tells_its_program_and_one_of_a_newer_version_only_that_it_lives() {
    let table = Table::start().await;
    let report = Report { capacity: 100, leases: 3, build: Build::this(), ..Report::default() };
    table.store.announce("w1", "new", &report).await.unwrap();
    let read = async || table.store.heartbeats().await.unwrap().remove(0);
    assert_eq!(read().await.report, report);
    // A program of before takes the name over: it knows nothing of the attribute, and leaves it as it is.
    set(&table, "workers", "worker#w1", "instance", Some(AttributeValue::S("old".to_owned()))).await;
    assert_eq!(read().await.report.build, Build::default());

    set(&table, "workers", "worker#w1", "format", version(STATE_VERSION + 1)).await;
    set(&table, "workers", "worker#w1", "capacity", Some(AttributeValue::Bool(true))).await;
    let beat = read().await;
    assert_eq!((beat.instance.as_str(), beat.counter), ("old", 1));
    assert!(beat.report.is_newer && beat.report.leaving && beat.report.coverage.is_none());
}

#[tokio::test]
async fn one_of_many_takes_the_restart_lock_and_one_who_was_overtaken_is_refused() {
    let table = Table::start().await;
    let free = table.store.restart_lock().await.unwrap();
    assert_eq!(free, RestartLock::default());
    let (one, other) =
        (free.taken("host-1", "w1", 1_000).unwrap(), free.taken("host-2", "w2", 1_000).unwrap());
    let (first, second) = tokio::join!(
        table.store.change_restart_lock(&free, &one),
        table.store.change_restart_lock(&free, &other)
    );
    assert!(first.unwrap() ^ second.unwrap());
    let held = table.store.restart_lock().await.unwrap();
    assert!(held == one || held == other);
    assert_eq!(held.taken("host-3", "w3", 2_000), None);

    let renewed = held.renewed(30_000);
    assert!(table.store.change_restart_lock(&held, &renewed).await.unwrap());
    // Who read it before the renewal, and takes it for ended.
    let overdue = held.taken("host-3", "w3", 62_000).unwrap();
    assert!(!table.store.change_restart_lock(&held, &overdue).await.unwrap());
    let next = renewed.taken("host-3", "w3", 100_000).unwrap();
    assert!(table.store.change_restart_lock(&renewed, &next).await.unwrap());
    assert!(!table.store.change_restart_lock(&renewed, &renewed.renewed(100_000)).await.unwrap());
    let released = next.released(true, &BTreeSet::new());
    assert!(table.store.change_restart_lock(&next, &released).await.unwrap());
    let read = table.store.restart_lock().await.unwrap();
    assert_eq!(read, released);
    assert_eq!((read.fence, read.unfinished.len()), (2, 1), "the first was not seen to end");
    let again = read.taken("host-1", "w1", 200_000).unwrap();
    assert!(table.store.change_restart_lock(&read, &again).await.unwrap());
}
