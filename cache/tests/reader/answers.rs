//! What each kind of entry is to a reader.

use warmcast_cache::{Answer, Reader, ReaderConfig, ReaderError, TablePolicy, policy::PayloadForm};
use warmcast_proto::{
    change::ChangeKind,
    entry::{EntryHeader, EntryKind},
    item::Value,
};

use crate::{
    fake::TABLE,
    world::{World, encoded, key, keys, now_ms, position},
};

fn entry(kind: EntryKind, time_ms: u64, expires_ms: Option<u64>, payload: &[u8]) -> Vec<u8> {
    let header = match expires_ms {
        None => EntryHeader::new(kind, position(1), time_ms),
        Some(expires_ms) => EntryHeader::expiring(kind, position(1), time_ms, expires_ms),
    };
    [header.unwrap().encode().as_ref(), payload].concat()
}

#[tokio::test]
async fn every_kind_of_entry_has_its_answer_one_by_one_and_together() {
    let world = World::start().await;
    let (now_ms, hour_ms) = (now_ms(), 3_600_000);
    for (name, kind, time_ms, expires_ms) in [
        ("live", EntryKind::Live, now_ms, None),
        ("live-expiring", EntryKind::Live, now_ms, Some(now_ms + hour_ms)),
        ("live-expired", EntryKind::Live, now_ms, Some(now_ms - 1)),
        ("filled", EntryKind::Filled, now_ms, None),
        ("tombstone", EntryKind::Tombstone, now_ms, None),
        ("negative", EntryKind::Negative, now_ms, Some(now_ms + hour_ms)),
        ("negative-expired", EntryKind::Negative, now_ms, Some(now_ms - 1)),
        ("invalid", EntryKind::Invalid, now_ms, None),
        ("held", EntryKind::Held, now_ms + 30_000, None),
        ("given-up", EntryKind::Held, now_ms - 1, None),
    ] {
        world.set(name, &entry(kind, time_ms, expires_ms, name.as_bytes())).await;
    }
    world.set("foreign", b"text").await;
    let names = [
        "live",
        "live-expiring",
        "live-expired",
        "filled",
        "tombstone",
        "negative",
        "negative-expired",
        "invalid",
        "held",
        "given-up",
        "foreign",
        "nothing",
    ];
    let expected = [
        "live",
        "live-expiring",
        "absent",
        "filled",
        "absent",
        "absent",
        "missing",
        "missing",
        "filling",
        "missing",
        "missing",
        "missing",
    ];
    let shown = |answer: &Answer| match answer {
        Answer::Fresh(row) => String::from_utf8(row.bytes().to_vec()).unwrap(),
        Answer::Stale(_, lag) => panic!("stale by {lag:?}"),
        Answer::Absent => "absent".to_owned(),
        Answer::Missing { filling: true } => "filling".to_owned(),
        Answer::Missing { filling: false } => "missing".to_owned(),
    };
    let reader = world.reader().await;
    let together = reader.get_many(TABLE, &keys(&names)).await.unwrap();
    assert_eq!(together.iter().map(shown).collect::<Vec<_>>(), expected);
    for (name, expected) in names.iter().zip(expected) {
        let answer = reader.get(TABLE, &key(name)).await.unwrap();
        assert_eq!(shown(&answer), expected, "{name}");
    }
    assert_eq!(reader.get_many(TABLE, &[]).await, Ok(vec![]));
    let stats = reader.stats();
    assert_eq!((stats.hits, stats.absent, stats.misses), (8, 4, 12), "{stats:?}");
}

#[tokio::test]
async fn an_item_comes_back_as_the_stream_brought_it() {
    let world = World::start().await;
    let item = encoded(&[("id", Value::S("u1".to_owned())), ("score", Value::N("7".to_owned()))]);
    world.apply("u1", 1, ChangeKind::Put, item.clone()).await;
    let reader = world.reader().await;
    let answer = reader.get(TABLE, &key("u1")).await.unwrap();
    let row = answer.row().unwrap();
    assert_eq!(row.bytes(), &item);
    assert_eq!(row.item().unwrap().attributes["score"], Value::N("7".to_owned()).into());
    assert!(row.time_ms() <= now_ms() && row.time_ms() > now_ms() - 60_000);
    world.apply("u1", 2, ChangeKind::Delete, "").await;
    assert_eq!(reader.get(TABLE, &key("u1")).await.unwrap(), Answer::Absent);
}

#[tokio::test]
async fn an_items_own_expiry_makes_it_absent() {
    let policy = TablePolicy { expiry_attribute: Some("ttl".to_owned()), ..TablePolicy::default() };
    let world = World::start_with(policy).await;
    let reader = world.reader().await;
    for (name, seconds, is_there) in
        [("past", now_ms() / 1_000 - 1, false), ("coming", now_ms() / 1_000 + 60, true)]
    {
        let item = encoded(&[("id", Value::S(name.to_owned())), ("ttl", Value::N(seconds.to_string()))]);
        world.apply(name, 1, ChangeKind::Put, item).await;
        let answer = reader.get(TABLE, &key(name)).await.unwrap();
        assert_eq!(
            answer.row().and_then(|row| row.expires_ms()),
            is_there.then_some(seconds * 1_000),
            "{name}"
        );
        assert_eq!(answer == Answer::Absent, !is_there, "{name}");
    }
}

#[tokio::test]
async fn a_payload_of_one_attribute_is_its_bytes() {
    let payload = PayloadForm::Attribute("profile".to_owned());
    let policy = TablePolicy { payload, key_prefix: Some("own:".to_owned()), ..TablePolicy::default() };
    let world = World::start_with(policy).await;
    let profile = bytes::Bytes::from_static(b"\x00\xff");
    let item = encoded(&[("id", Value::S("u1".to_owned())), ("profile", Value::B(profile.clone()))]);
    world.apply("u1", 1, ChangeKind::Put, item).await;
    let reader = world.reader().await;
    let answer = reader.get(TABLE, &key("u1")).await.unwrap();
    assert_eq!(answer.row().unwrap().bytes(), &profile);
    assert!(answer.row().unwrap().item().is_err());
    assert_eq!(world.entry("u1").await, None, "it is under the table's own prefix");
}

#[tokio::test]
async fn a_configuration_that_cannot_be_used_is_refused_whole() {
    let world = World::start().await;
    let config = ReaderConfig { deadline: std::time::Duration::ZERO, ..world.config_with_master() };
    let mut fallback = world.fallback();
    fallback.master.calls_max = 0;
    fallback.filler.hold = std::time::Duration::from_millis(1);
    let error = Reader::connect(ReaderConfig { master: Some(fallback), ..config }).await.unwrap_err();
    let ReaderError::Config { violations } = &error else { panic!("{error}") };
    assert_eq!(violations.len(), 3, "{error}");
}
