//! Misses that the master answers.

use std::time::Duration;

use axum::http::StatusCode;
use tokio::task::JoinSet;
use warmcast_cache::{
    Answer, Reader, ReaderConfig, TablePolicy,
    master::BreakerConfig,
    policy::{PayloadForm, WritePolicy},
    reader::ReadOptions,
};
use warmcast_proto::{change::ChangeKind, entry::EntryKind, item};

use crate::{
    fake::{Step, TABLE},
    world::{World, key, keys, until, version},
};

#[tokio::test]
async fn a_miss_is_answered_by_the_master_and_the_cache_is_filled() {
    let world = World::start().await;
    let reader = world.reader_with_master().await;
    let answers = reader.get_many(TABLE, &keys(&["u1", "no-body", "u2"])).await.unwrap();
    assert_eq!(version(&answers[0].row().unwrap().item().unwrap()), 1);
    assert_eq!(answers[1], Answer::Absent);
    assert!(matches!(answers[2], Answer::Fresh(_)));
    let filled = world.until_entry("u1", EntryKind::Filled).await;
    assert_eq!(filled, answers[0].row().unwrap().bytes()[..]);
    world.until_entry("no-body", EntryKind::Negative).await;
    world.until_entry("u2", EntryKind::Filled).await;
    assert_eq!(world.dynamodb.calls().len(), 1, "one call for all");
    assert_eq!(reader.get_many(TABLE, &keys(&["u1", "no-body", "u2"])).await.unwrap(), answers);
    assert_eq!(world.dynamodb.calls().len(), 1);
    until("the fills are counted", async || reader.stats().filler.unwrap().under_way == 0).await;
    let filler = reader.stats().filler.unwrap();
    assert_eq!((filler.installed, filler.absent), (2, 1));
}

#[tokio::test]
async fn a_hundred_readers_of_a_key_read_the_master_once() {
    let world = World::start().await;
    world.dynamodb.then(&[Step::Hold]);
    let reader = world.reader_with_master().await;
    let mut readers = JoinSet::new();
    for _ in 0..100 {
        let reader = reader.clone();
        readers.spawn(async move { reader.get(TABLE, &key("hot")).await.unwrap() });
    }
    world.dynamodb.until_calls(1).await;
    // Some come later still: the key is held, by this process.
    for _ in 0..10 {
        let reader = reader.clone();
        readers.spawn(async move { reader.get(TABLE, &key("hot")).await.unwrap() });
    }
    until("all of them have missed", async || reader.stats().misses == 110).await;
    world.dynamodb.release();
    while let Some(answer) = readers.join_next().await {
        assert!(matches!(answer.unwrap(), Answer::Fresh(_)));
    }
    assert_eq!(world.dynamodb.calls(), [["hot"]]);
}

#[tokio::test]
async fn of_two_processes_one_reads_the_master_and_the_other_does_not_wait() {
    let world = World::start().await;
    world.dynamodb.then(&[Step::Hold]);
    let (first, second) = (world.reader_with_master().await, world.reader_with_master().await);
    let mut waiting = JoinSet::new();
    waiting.spawn(async move { first.get(TABLE, &key("u1")).await.unwrap() });
    world.dynamodb.until_calls(1).await;
    assert_eq!(second.get(TABLE, &key("u1")).await.unwrap(), Answer::Missing { filling: true });
    world.dynamodb.release();
    assert!(matches!(waiting.join_next().await.unwrap().unwrap(), Answer::Fresh(_)));
    assert_eq!(world.dynamodb.calls().len(), 1);
}

#[tokio::test]
async fn a_change_that_arrives_during_a_fill_voids_it() {
    // Where only what is read is kept current, the change leaves the key invalid: it was not cached yet.
    let newer = (EntryKind::Live, b"newer".to_vec());
    for (write, left) in [(WritePolicy::All, newer), (WritePolicy::Present, (EntryKind::Invalid, vec![]))] {
        let world = World::start_with(TablePolicy { write, ..TablePolicy::default() }).await;
        world.dynamodb.then(&[Step::Hold]);
        let reader = world.reader_with_master().await;
        let options = ReadOptions { wait_for_master: false, ..reader.options() };
        reader.get_with(TABLE, &key("u1"), options).await.unwrap();
        world.dynamodb.until_calls(1).await;
        world.apply("u1", 7, ChangeKind::Put, "newer").await;
        world.dynamodb.release();
        until("the fill is refused", async || reader.stats().filler.unwrap().refused == 1).await;
        assert_eq!(world.entry("u1").await.unwrap(), left);
        let answer = reader.get(TABLE, &key("u1")).await.unwrap();
        assert_eq!(answer.row().unwrap().bytes() == "newer", write == WritePolicy::All);
    }
}

#[tokio::test]
async fn keys_that_the_master_has_not_processed_hold_up_nobody_else() {
    let world = World::start().await;
    world.dynamodb.then(&[Step::Process(2), Step::Hold]);
    let reader = world.reader_with_master().await;
    let options = ReadOptions { deadline: Duration::from_secs(2), ..reader.options() };
    let answers = reader.get_many_with(TABLE, &keys(&["u1", "u2", "u3"]), options).await.unwrap();
    assert_eq!(answers.iter().filter(|answer| answer.row().is_some()).count(), 2);
    assert_eq!(answers.iter().filter(|answer| **answer == Answer::Missing { filling: true }).count(), 1);
    until("the two are filled", async || reader.stats().filler.unwrap().installed == 2).await;
    world.dynamodb.release();
    until("the third is filled", async || reader.stats().filler.unwrap().installed == 3).await;
}

#[tokio::test]
async fn an_invalid_entry_is_filled() {
    let world = World::start().await;
    world.apply("u1", 1, ChangeKind::Put, "old").await;
    world.apply("u1", 2, ChangeKind::Invalidate, "").await;
    let reader = world.reader_with_master().await;
    let answer = reader.get(TABLE, &key("u1")).await.unwrap();
    assert_eq!(version(&answer.row().unwrap().item().unwrap()), 1);
    world.until_entry("u1", EntryKind::Filled).await;
}

#[tokio::test]
async fn fills_are_shaped_as_their_table_says() {
    let world = World::start_with(TablePolicy {
        payload: PayloadForm::Attribute("version".to_owned()),
        expiry_attribute: Some("version".to_owned()),
        ..TablePolicy::default()
    })
    .await;
    world.dynamodb.set_version(4_000_000);
    let reader = world.reader_with_master().await;
    assert_eq!(reader.get(TABLE, &key("u1")).await.unwrap(), Answer::Absent, "it expired in 1970");
    world.dynamodb.set_version(2_700_000_000);
    let answer = reader.get(TABLE, &key("u2")).await.unwrap();
    assert_eq!(answer.row().unwrap().bytes(), "2700000000");
    assert_eq!(answer.row().unwrap().expires_ms(), Some(2_700_000_000_000));
    assert_eq!(world.until_entry("u2", EntryKind::Filled).await, b"2700000000");
}

#[tokio::test]
async fn an_item_without_its_payload_attribute_is_no_answer_and_no_fill() {
    let payload = PayloadForm::Attribute("profile".to_owned());
    let world = World::start_with(TablePolicy { payload, ..TablePolicy::default() }).await;
    let reader = world.reader_with_master().await;
    assert_eq!(reader.get(TABLE, &key("u1")).await.unwrap(), Answer::Missing { filling: false });
    assert_eq!(world.entry("u1").await.unwrap().0, EntryKind::Held);
    assert_eq!(reader.stats().filler.unwrap().failed, 1);
}

#[tokio::test]
async fn what_is_no_entry_is_left_alone() {
    let world = World::start().await;
    world.set("u1", b"text of somebody else").await;
    let reader = world.reader_with_master().await;
    assert_eq!(reader.get(TABLE, &key("u1")).await.unwrap(), Answer::Missing { filling: false });
    assert!(world.dynamodb.calls().is_empty());
    let value: String =
        redis::AsyncCommands::get(&mut world.admin.clone(), crate::world::redis_key("u1")).await.unwrap();
    assert_eq!(value, "text of somebody else");
}

#[tokio::test]
async fn an_open_breaker_sheds_fills_until_the_master_is_back() {
    let world = World::start().await;
    let mut fallback = world.fallback();
    fallback.master.breaker = BreakerConfig {
        calls_min: 2,
        open_for: Duration::from_millis(300),
        probes: 1,
        ..fallback.master.breaker
    };
    let config = ReaderConfig { master: Some(fallback), ..world.config() };
    let reader = Reader::connect(config).await.unwrap();
    world.dynamodb.then(&[Step::Refuse(StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError"); 2]);
    assert_eq!(reader.get(TABLE, &key("u1")).await.unwrap(), Answer::Missing { filling: false });
    let master = reader.stats().master.unwrap();
    assert!(master.is_shedding && master.breaker_opened == 1, "{master:?}");
    assert_eq!(reader.get(TABLE, &key("u2")).await.unwrap(), Answer::Missing { filling: false });
    assert_eq!(world.entry("u2").await, None, "not even its key was taken");
    assert_eq!(reader.stats().filler.unwrap().shed, 1);
    assert_eq!(world.dynamodb.calls().len(), 2);

    until("the breaker lets probes through", async || !reader.stats().master.unwrap().is_shedding).await;
    assert!(matches!(reader.get(TABLE, &key("u3")).await.unwrap(), Answer::Fresh(_)));
    assert!(matches!(reader.get(TABLE, &key("u2")).await.unwrap(), Answer::Fresh(_)));
}

#[tokio::test]
async fn many_misses_are_filled_in_full_batches() {
    let world = World::start().await;
    let reader = world.reader_with_master().await;
    let names: Vec<String> = (0..1_000).map(|number| format!("user-{number}")).collect();
    let wanted: Vec<_> = names.iter().map(|name| key(name)).collect();
    let answers = reader.get_many(TABLE, &wanted).await.unwrap();
    for (name, answer) in names.iter().zip(&answers) {
        let item = answer.row().unwrap_or_else(|| panic!("{name}: {answer:?}")).item().unwrap();
        assert_eq!(item.attributes["id"], item::Value::S(name.clone()).into());
    }
    assert!(world.dynamodb.calls().len() <= 20, "{} calls", world.dynamodb.calls().len());
    assert_eq!(world.dynamodb.describes(), 1);
    until("they are filled", async || reader.stats().filler.unwrap().installed == 1_000).await;
}
