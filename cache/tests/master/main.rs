//! Reading the master: against an embedded DynamoDB, and against one that is scripted to misbehave.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking, also in its helpers"
)]

mod fake;
mod real;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use aws_sdk_dynamodb::{
    primitives::Blob,
    types::{AttributeValue, ScalarAttributeType},
};
use axum::http::StatusCode;
use fake::{FakeDynamoDb, Step, TABLE};
use real::DynamoDb;
use tokio::task::JoinSet;
use warmcast_cache::{
    ItemId,
    master::{BreakerConfig, FailureClass, Master, MasterConfig, MasterError, Segment, ShedReason},
};
use warmcast_proto::{
    item::{Item, Value},
    key::ItemKey,
};

/// As long as a busy machine may need; tests that wait for a timeout set it.
fn patient() -> MasterConfig {
    MasterConfig {
        call_timeout: Duration::from_secs(10),
        read_timeout: Duration::from_secs(20),
        breaker: BreakerConfig { slow_after: Duration::from_secs(10), ..BreakerConfig::default() },
        ..MasterConfig::default()
    }
}

fn ids(keys: impl IntoIterator<Item = String>) -> Vec<ItemId> {
    keys.into_iter().map(|key| ItemId::new(TABLE, key)).collect()
}

fn numbered(count: usize) -> Vec<ItemId> {
    ids((0..count).map(|number| format!("user-{number}")))
}

fn value(item: &Item, attribute: &str) -> Value {
    item.attributes[attribute].value.clone().unwrap()
}

#[tokio::test]
async fn items_are_read_by_keys_of_every_type() {
    let dynamodb = DynamoDb::start().await;
    let s = |text: &str| AttributeValue::S(text.to_owned());
    let n = |digits: &str| AttributeValue::N(digits.to_owned());
    let b = |bytes: &[u8]| AttributeValue::B(Blob::new(bytes));
    dynamodb.create_table("text", ScalarAttributeType::S, None).await;
    dynamodb.create_table("number", ScalarAttributeType::N, None).await;
    dynamodb.create_table("both", ScalarAttributeType::S, Some(ScalarAttributeType::B)).await;
    dynamodb.put("text", &[("p", s("a:b%")), ("is", s("text"))]).await;
    dynamodb.put("number", &[("p", n("-12.50")), ("is", s("number"))]).await;
    dynamodb.put("both", &[("p", s("a:b%")), ("s", b(b"\x00:\xff")), ("is", s("both"))]).await;

    let keys = [
        ItemId::new("both", ItemKey::composite(b"a:b%", b"\x00:\xff").into_bytes()),
        ItemId::new("number", ItemKey::partition("-12.5").into_bytes()),
        ItemId::new("text", ItemKey::partition("a:b%").into_bytes()),
        ItemId::new("text", ItemKey::partition("nobody").into_bytes()),
        ItemId::new("number", ItemKey::partition("-12.50").into_bytes()),
        ItemId::new("nowhere", ItemKey::partition("a").into_bytes()),
    ];
    let master = Master::new(dynamodb.client.clone(), patient());
    let answers = master.read_many(&keys).await;
    for (answer, table) in answers.iter().zip(["both", "number", "text"]) {
        let item = answer.as_ref().unwrap().as_ref().unwrap();
        assert_eq!(value(item, "is"), Value::S(table.to_owned()));
    }
    assert_eq!(answers[3], Ok(None));
    assert!(matches!(answers[4], Err(MasterError::Key { .. })), "{:?}", answers[4]);
    let error = answers[5].as_ref().unwrap_err();
    assert!(matches!(error, MasterError::Call { operation: "DescribeTable", .. }), "{error}");
    assert!(
        error.to_string().contains("table nowhere") && error.to_string().contains("check the table's name")
    );
    assert_eq!(master.stats().keys_read, 4);
}

#[tokio::test]
async fn a_table_is_walked_through_in_segments_and_pages() {
    let dynamodb = DynamoDb::start().await;
    let s = |text: String| AttributeValue::S(text);
    dynamodb.create_table("both", ScalarAttributeType::S, Some(ScalarAttributeType::N)).await;
    let mut expected = BTreeSet::new();
    for number in 0..60 {
        let (partition, sort) = (format!("a:{}", number % 20), number.to_string());
        let item = [("p", s(partition.clone())), ("s", AttributeValue::N(sort.clone()))];
        dynamodb.put("both", &item).await;
        expected.insert(ItemKey::composite(partition.as_bytes(), sort.as_bytes()).into_bytes());
    }
    let master = Master::new(dynamodb.client.clone(), patient());
    let table: Arc<str> = "both".into();
    let mut found = BTreeSet::new();
    for index in 0..3 {
        let mut from = None;
        loop {
            let page = master.scan(&table, Segment { index, total: 3 }, from, 7).await.unwrap();
            assert!(page.items.len() <= 7);
            for (id, item) in page.items {
                assert_eq!(master.read_many(std::slice::from_ref(&id)).await, [item.map(Some)]);
                assert!(found.insert(id.key), "each item once");
            }
            let Some(next) = page.next else { break };
            from = Some(next);
        }
    }
    assert_eq!(found, expected);
    assert_eq!(master.item_count(&table).await, Ok(60));
    let error = master.scan(&"nowhere".into(), Segment { index: 0, total: 1 }, None, 1).await.unwrap_err();
    assert!(error.to_string().contains("check the table's name"), "{error}");
    assert!(master.stats().read_units >= 60.0, "{:?}", master.stats());
}

#[tokio::test]
async fn a_walk_keeps_to_the_budget() {
    let dynamodb = DynamoDb::start().await;
    dynamodb.create_table("text", ScalarAttributeType::S, None).await;
    for number in 0..40 {
        dynamodb.put("text", &[("p", AttributeValue::S(number.to_string()))]).await;
    }
    let config = MasterConfig { read_units_per_second_max: 4.0, ..patient() };
    let master = Master::new(dynamodb.client.clone(), config);
    let (table, began) = (Arc::from("text"), tokio::time::Instant::now());
    let (mut from, mut pages) = (None, 0);
    loop {
        let page = master.scan(&table, Segment { index: 0, total: 1 }, from, 5).await.unwrap();
        pages += 1;
        let Some(next) = page.next else { break };
        from = Some(next);
    }
    // Each page takes a unit, at least; four are there at the beginning.
    assert!(began.elapsed() >= Duration::from_millis(250) * (pages - 6), "{pages} in {:?}", began.elapsed());
}

#[tokio::test]
async fn keys_of_concurrent_callers_go_into_full_calls() {
    let fake = FakeDynamoDb::start().await;
    let master = Master::new(fake.client(), MasterConfig { calls_max: 1, ..patient() });
    fake.then(&[Step::Hold]);
    let mut readers = JoinSet::new();
    let first = master.clone();
    readers.spawn(async move { first.read_many(&ids(["first".to_owned()])).await });
    fake.until_calls(1).await;
    for reader in 0..50 {
        let master = master.clone();
        // Every key is asked for twice.
        let keys = ids((0..10).map(move |key| format!("user-{}", (reader / 2) * 10 + key)));
        readers.spawn(async move { master.read_many(&keys).await });
    }
    let waiting = async {
        while master.stats().keys_waiting < 250 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), waiting).await.expect("all wait for the one place");
    fake.release();
    let mut answers = 0;
    while let Some(read) = readers.join_next().await {
        answers += read.unwrap().into_iter().filter(|answer| matches!(answer, Ok(Some(_)))).count();
    }
    assert_eq!(answers, 501);
    let calls = fake.calls();
    let sizes: Vec<usize> = calls.iter().map(Vec::len).collect();
    assert_eq!(sizes, [1, 100, 100, 50]);
    assert_eq!(fake.describes(), 1);
}

#[tokio::test]
async fn more_keys_than_a_call_holds_are_read_in_several() {
    let fake = FakeDynamoDb::start().await;
    let master = Master::new(fake.client(), patient());
    let mut keys = numbered(250);
    keys.push(ItemId::new(TABLE, "no-body"));
    let answers = master.read_many(&keys).await;
    assert!(answers[..250].iter().all(|answer| matches!(answer, Ok(Some(_)))));
    assert_eq!(answers[250], Ok(None));
    assert_eq!(value(answers[7].as_ref().unwrap().as_ref().unwrap(), "id"), Value::S("user-7".to_owned()));
    let mut sizes: Vec<usize> = fake.calls().iter().map(Vec::len).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [51, 100, 100]);
}

#[tokio::test]
async fn unprocessed_keys_are_sent_again_until_they_are_answered() {
    let fake = FakeDynamoDb::start().await;
    fake.then(&[Step::Process(3), Step::Process(0), Step::Process(2)]);
    let master = Master::new(fake.client(), patient());
    let answers = master.read_many(&numbered(10)).await;
    assert!(answers.iter().all(|answer| matches!(answer, Ok(Some(_)))), "{answers:?}");
    let sizes: Vec<usize> = fake.calls().iter().map(Vec::len).collect();
    assert_eq!(sizes, [10, 7, 7, 5]);
    let stats = master.stats();
    assert_eq!((stats.calls, stats.keys_read, stats.keys_sent_again), (4, 10, 19));
    assert!((stats.read_units - 10.0).abs() < 0.01, "{stats:?}");
}

#[tokio::test]
async fn throttling_and_failures_are_tried_again_within_the_time_of_the_read() {
    let fake = FakeDynamoDb::start().await;
    fake.then(&[
        Step::Refuse(StatusCode::BAD_REQUEST, "ProvisionedThroughputExceededException"),
        Step::Refuse(StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError"),
    ]);
    let master = Master::new(fake.client(), patient());
    assert!(matches!(master.read_many(&numbered(1)).await[..], [Ok(Some(_))]));
    assert_eq!(master.stats().calls, 3);

    fake.then(&[Step::Refuse(StatusCode::BAD_REQUEST, "ProvisionedThroughputExceededException"); 50]);
    let impatient = MasterConfig {
        read_timeout: Duration::from_millis(300),
        breaker: BreakerConfig { calls_min: 1_000, ..BreakerConfig::default() },
        ..patient()
    };
    let master = Master::new(fake.client(), impatient);
    let answers = master.read_many(&numbered(1)).await;
    let error = answers[0].as_ref().unwrap_err();
    assert!(
        matches!(error, MasterError::Timeout { .. } | MasterError::Call { .. }),
        "the read ends in its time: {error}"
    );
}

#[tokio::test]
async fn a_master_that_never_answers_is_given_up_in_time() {
    let fake = FakeDynamoDb::start().await;
    fake.then(&[Step::Hold; 100]);
    let config = MasterConfig {
        call_timeout: Duration::from_millis(50),
        read_timeout: Duration::from_millis(300),
        ..MasterConfig::default()
    };
    let master = Master::new(fake.client(), config);
    // Its first use describes the table, in a time of its own.
    let answers = tokio::time::timeout(Duration::from_secs(5), master.read_many(&numbered(3))).await.unwrap();
    for answer in answers {
        assert!(matches!(answer, Err(MasterError::Timeout { .. } | MasterError::Call { .. })), "{answer:?}");
    }
}

#[tokio::test]
async fn one_wrong_key_fails_alone() {
    let fake = FakeDynamoDb::start().await;
    let master = Master::new(fake.client(), patient());
    let mut keys = numbered(20);
    keys.insert(7, ItemId::new(TABLE, "wrong"));
    let answers = master.read_many(&keys).await;
    for (id, answer) in keys.iter().zip(&answers) {
        match answer {
            Err(MasterError::Call { failure, .. }) => {
                assert_eq!((&id.key[..], failure.class), (&b"wrong"[..], FailureClass::Permanent));
            }
            answer => assert!(matches!(answer, Ok(Some(_))), "{id:?}: {answer:?}"),
        }
    }
    assert!(matches!(answers[7], Err(MasterError::Call { .. })));
}

#[tokio::test]
async fn the_breaker_opens_while_the_master_fails_and_closes_when_it_is_back() {
    let fake = FakeDynamoDb::start().await;
    let breaker = BreakerConfig {
        calls_min: 4,
        open_for: Duration::from_millis(300),
        probes: 1,
        slow_after: Duration::from_secs(10),
        ..BreakerConfig::default()
    };
    let master = Master::new(fake.client(), MasterConfig { calls_max: 1, breaker, ..patient() });
    fake.then(&[Step::Refuse(StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError"); 4]);
    let answers = master.read_many(&numbered(1)).await;
    let shed = |answer: &Result<_, MasterError>| {
        matches!(answer, Err(MasterError::Shed { reason: ShedReason::Breaker { .. }, .. }))
    };
    assert!(shed(&answers[0]), "the fourth failure opens it, so the fifth try is not made: {answers:?}");
    assert!(!master.admits());
    assert!(shed(&master.read_many(&numbered(1)).await[0]));
    assert_eq!(fake.calls().len(), 4, "nothing more went out");
    assert_eq!(master.stats().breaker_opened, 1);

    let back = async {
        while !master.admits() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), back).await.expect("it is half open after its time");
    assert!(matches!(master.read_many(&numbered(1)).await[..], [Ok(Some(_))]));
    assert!(matches!(master.read_many(&numbered(1)).await[..], [Ok(Some(_))]), "closed");
}

#[tokio::test]
async fn slow_calls_open_the_breaker_as_failures_do() {
    let fake = FakeDynamoDb::start().await;
    let breaker =
        BreakerConfig { calls_min: 2, slow_after: Duration::from_millis(20), ..BreakerConfig::default() };
    let master = Master::new(fake.client(), MasterConfig { breaker, ..patient() });
    fake.then(&[Step::Slow(Duration::from_millis(60)); 2]);
    for _ in 0..2 {
        assert!(matches!(master.read_many(&numbered(1)).await[..], [Ok(Some(_))]));
    }
    assert!(!master.admits());
}

#[tokio::test]
async fn no_more_is_spent_than_the_budget_allows() {
    let fake = FakeDynamoDb::start().await;
    let master = Master::new(
        fake.client(),
        MasterConfig { read_units_per_second_max: 100.0, calls_max: 1, ..patient() },
    );
    let started = tokio::time::Instant::now();
    let answers = master.read_many(&numbered(300)).await;
    assert!(answers.iter().all(Result::is_ok));
    // The first second's units are there at the start, and the last call may overdraw.
    assert!(started.elapsed() >= Duration::from_millis(900), "{:?}", started.elapsed());
}

#[tokio::test]
async fn what_cannot_wait_is_shed() {
    let fake = FakeDynamoDb::start().await;
    fake.then(&[Step::Hold]);
    let master = Master::new(fake.client(), MasterConfig { calls_max: 1, queue_keys_max: 5, ..patient() });
    let mut first = JoinSet::new();
    let clone = master.clone();
    first.spawn(async move { clone.read_many(&ids(["first".to_owned()])).await });
    fake.until_calls(1).await;
    let clone = master.clone();
    let mut second = JoinSet::new();
    second.spawn(async move { clone.read_many(&numbered(8)).await });
    let shed = async {
        while master.stats().keys_shed < 3 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), shed).await.expect("three of eight keys are shed");
    fake.release();
    let answers = second.join_next().await.unwrap().unwrap();
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 5);
    let full = |error: &MasterError| {
        matches!(error, MasterError::Shed { reason: ShedReason::QueueFull { keys_max: 5 }, .. })
    };
    assert!(answers[5..].iter().all(|answer| answer.as_ref().is_err_and(full)), "{answers:?}");
}

#[tokio::test]
async fn keys_that_nobody_waits_for_any_more_are_not_read() {
    let fake = FakeDynamoDb::start().await;
    fake.then(&[Step::Hold]);
    let master = Master::new(fake.client(), MasterConfig { calls_max: 1, ..patient() });
    let mut first = JoinSet::new();
    let clone = master.clone();
    first.spawn(async move { clone.read_many(&ids(["first".to_owned()])).await });
    fake.until_calls(1).await;
    let given_up = tokio::time::timeout(Duration::from_millis(20), async {
        master.read_many(&ids(["second".to_owned()])).await
    });
    assert!(given_up.await.is_err());
    fake.release();
    first.join_next().await.unwrap().unwrap();
    master.read_many(&ids(["third".to_owned()])).await;
    assert_eq!(fake.calls(), [["first"], ["third"]]);
}

#[tokio::test]
async fn a_read_never_joins_one_that_was_begun_before() {
    let fake = FakeDynamoDb::start().await;
    fake.then(&[Step::Hold]);
    let master = Master::new(fake.client(), patient());
    let mut first = JoinSet::new();
    let clone = master.clone();
    first.spawn(async move { clone.read_many(&numbered(1)).await });
    fake.until_calls(1).await;
    fake.set_version(2);
    let second = master.read_many(&numbered(1)).await;
    let version = |answers: &[Result<Option<Item>, MasterError>]| {
        value(answers[0].as_ref().unwrap().as_ref().unwrap(), "version")
    };
    assert_eq!(version(&second), Value::N("2".to_owned()));
    fake.release();
    assert_eq!(version(&first.join_next().await.unwrap().unwrap()), Value::N("1".to_owned()));
}

#[tokio::test]
async fn a_dropped_master_leaves_nothing_running() {
    let fake = FakeDynamoDb::start().await;
    fake.then(&[Step::Hold, Step::Hold]);
    let master = Master::new(fake.client(), patient());
    let mut reading = JoinSet::new();
    let clone = master.clone();
    reading.spawn(async move { clone.read_many(&numbered(1)).await });
    fake.until_calls(1).await;
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    drop(master);
    reading.shutdown().await;
    let ended = async {
        // The caller's own, the worker and its call; whatever the client and the fake keep stays.
        while tasks() + 3 > before {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), ended).await.expect("its tasks end with it");
}
