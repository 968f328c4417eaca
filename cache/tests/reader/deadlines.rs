//! No call takes longer than it may.

use std::time::Duration;

use tokio::time::Instant;
use warmcast_cache::{Answer, ReadError, Reader, ReaderConfig, reader::ReadOptions};
use warmcast_proto::entry::EntryKind;

use crate::{
    fake::{Step, TABLE},
    world::{PATIENCE, World, key, keys},
};

const DEADLINE: Duration = Duration::from_millis(80);

#[tokio::test]
async fn a_master_that_hangs_costs_no_more_than_the_deadline_and_the_fill_lands_afterwards() {
    let world = World::start().await;
    world.dynamodb.then(&[Step::Hold]);
    let reader = world.reader_with_master().await;
    let options = ReadOptions { deadline: DEADLINE, ..reader.options() };
    let started = Instant::now();
    let answers = reader.get_many_with(TABLE, &keys(&["u1", "no-body"]), options).await.unwrap();
    assert_eq!(answers, [Answer::Missing { filling: true }, Answer::Missing { filling: true }]);
    let took = started.elapsed();
    assert!(took >= DEADLINE && took < DEADLINE + Duration::from_secs(2), "{took:?}");
    world.dynamodb.until_calls(1).await;
    assert_eq!(world.entry("u1").await.unwrap().0, EntryKind::Held);
    assert_eq!(
        world.reader().await.get(TABLE, &key("u1")).await.unwrap(),
        Answer::Missing { filling: true },
        "others see that it is being filled"
    );

    world.dynamodb.release();
    world.until_entry("u1", EntryKind::Filled).await;
    world.until_entry("no-body", EntryKind::Negative).await;
    assert!(matches!(reader.get(TABLE, &key("u1")).await.unwrap(), Answer::Fresh(_)));
    assert_eq!(reader.get(TABLE, &key("no-body")).await.unwrap(), Answer::Absent);
}

#[tokio::test]
async fn a_master_that_answers_in_time_is_waited_for() {
    let world = World::start().await;
    world.dynamodb.then(&[Step::Slow(DEADLINE)]);
    let reader = world.reader_with_master().await;
    assert!(matches!(reader.get(TABLE, &key("u1")).await, Ok(Answer::Fresh(_))));
    assert_eq!(reader.stats().from_master, 1);
}

#[tokio::test]
async fn who_does_not_wait_for_the_master_is_answered_at_once_and_the_fill_lands() {
    let world = World::start().await;
    world.dynamodb.then(&[Step::Hold]);
    let reader = world.reader_with_master().await;
    let options = ReadOptions { wait_for_master: false, ..reader.options() };
    let answer = tokio::time::timeout(PATIENCE, reader.get_with(TABLE, &key("u1"), options)).await;
    assert_eq!(answer.expect("no wait"), Ok(Answer::Missing { filling: true }));
    world.dynamodb.release();
    world.until_entry("u1", EntryKind::Filled).await;
}

#[tokio::test]
async fn a_server_that_hangs_costs_no_more_than_the_deadline() {
    let world = World::start().await;
    let reader = Reader::connect(ReaderConfig { deadline: DEADLINE, ..world.config() }).await.unwrap();
    let () = redis::cmd("CLIENT")
        .arg("PAUSE")
        .arg(1_500)
        .arg("ALL")
        .query_async(&mut world.admin.clone())
        .await
        .unwrap();
    for _ in 0..2 {
        let started = Instant::now();
        let error = reader.get(TABLE, &key("u1")).await.unwrap_err();
        assert_eq!(error, ReadError::Deadline { deadline: DEADLINE });
        let error = reader.get_many(TABLE, &keys(&["u1", "u2"])).await.unwrap_err();
        assert_eq!(error, ReadError::Deadline { deadline: DEADLINE });
        assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    }
    let patient = ReadOptions { deadline: PATIENCE, ..reader.options() };
    assert_eq!(
        reader.get_with(TABLE, &key("u1"), patient).await,
        Ok(Answer::Missing { filling: false }),
        "it is back"
    );
}

#[tokio::test]
async fn a_deadline_beyond_all_time_is_none() {
    let world = World::start().await;
    let reader = world.reader().await;
    let options = ReadOptions { deadline: Duration::MAX, ..reader.options() };
    assert_eq!(reader.get_with(TABLE, &key("u1"), options).await, Ok(Answer::Missing { filling: false }));
}

#[tokio::test]
async fn a_dropped_reader_leaves_nothing_running() {
    let world = World::start().await;
    world.dynamodb.then(&[Step::Hold]);
    let reader = world.reader_with_master().await;
    let options = ReadOptions { wait_for_master: false, ..reader.options() };
    reader.get_with(TABLE, &key("u1"), options).await.unwrap();
    world.dynamodb.until_calls(1).await;
    drop(reader);
    world.dynamodb.release();
    // Another process's fill would be refused; this one's never comes.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(world.entry("u1").await.unwrap().0, EntryKind::Held);
}
