//! What commands send, against Kinesis streams that follow a script.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinSet;
use tokio::time::Instant;
use warmcast_aggregator::Config;
use warmcast_aggregator::dispatch::{DeliveryError, Dispatch, DispatchError, Sent};
use warmcast_aggregator::record_format::RecordFormat;
use warmcast_common::consumer::Lanes;
use warmcast_common::limits::PUT_RECORDS_ENTRIES_MAX;
use warmcast_proto::change::{Change, ChangeKind};
use warmcast_proto::frame::Compression;
use warmcast_proto::position::Position;
use warmcast_proto::{kpl, record};

use super::fake_kinesis::{Answer, FakeKinesis};
use super::wait::until;
use super::world::{changes, config};

const READ_MS: u64 = 7_000;
const THROTTLED: &str = "ProvisionedThroughputExceededException";

fn of(regions: &[&FakeKinesis]) -> Config {
    let urls: Vec<&str> = regions.iter().map(|region| region.url.as_str()).collect();
    let directory = std::env::temp_dir();
    config("http://127.0.0.1:1", &["profiles"], &urls, &directory)
}

fn change(key: usize, payload: &'static [u8]) -> Change {
    let position = Position::new(1, (key + 1).to_string().parse().unwrap()).unwrap();
    let (kind, payload) = (ChangeKind::Put, Bytes::from_static(payload));
    let key = key.to_string().into();
    Change { table: "profiles".into(), key, position, kind, created_ms: 1, payload }
}

/// So many changes, each for these regions.
fn many(count: usize, lanes: Lanes) -> Vec<(Change, Lanes)> {
    (0..count).map(|key| (change(key, b""), lanes)).collect()
}

/// The keys of the changes that a region has.
fn keys(region: &FakeKinesis) -> Vec<usize> {
    let landed = region.landed().into_iter().flat_map(changes);
    let key = |change: Change| String::from_utf8(change.key.to_vec()).unwrap().parse().unwrap();
    let mut keys: Vec<usize> = landed.map(key).collect();
    keys.sort_unstable();
    keys
}

#[tokio::test]
async fn each_region_gets_its_changes_in_its_format_with_the_time_they_were_read() {
    let (framed, aggregated, other) =
        (FakeKinesis::start([]).await, FakeKinesis::start([]).await, FakeKinesis::start([]).await);
    let mut config = of(&[&framed, &aggregated, &other]);
    config.regions[1].target.record_format = RecordFormat::Kpl;
    let dispatch = Dispatch::connect(&config, &[0, 1]).await.unwrap();
    dispatch.check().await.unwrap();
    let empty = || change(0, &[]);
    let invalid = |key| Change { kind: ChangeKind::Invalidate, ..change(key, b"") };
    let all = Lanes::first(3);
    let asked = vec![
        (Change { kind: ChangeKind::Delete, ..empty() }, all),
        (invalid(1), Lanes::one(0)),
        (invalid(2), Lanes::one(1)),
        (invalid(3), Lanes::one(2)),
    ];
    let sent = dispatch.send(asked, READ_MS).await.unwrap();
    assert_eq!((sent.changes, sent.too_large), (3, 0), "nobody is asked for the fourth");
    assert_eq!((keys(&framed), keys(&aggregated), keys(&other)), (vec![0, 1], vec![0, 2], vec![]));
    let landed = [framed.landed(), aggregated.landed()].concat();
    assert_eq!(
        (sent.records, sent.bytes),
        (landed.len() as u64, landed.iter().map(|r| r.len() as u64).sum())
    );
    assert!(aggregated.landed().iter().all(|record| kpl::is_aggregated(record)));
    assert!(!framed.landed().iter().any(|record| kpl::is_aggregated(record)));
    for bytes in landed {
        let parts = record::read(bytes).unwrap().parts;
        assert!(parts.iter().all(|part| part.read_ms == Some(READ_MS)));
    }
}

#[tokio::test]
async fn failed_entries_alone_are_sent_again_until_the_stream_has_all() {
    let script = [
        Answer::Entries(vec![(0, THROTTLED), (2, "InternalFailure")]),
        Answer::Fails(500, "InternalFailure"),
        Answer::Garbage,
        Answer::Entries(vec![(0, THROTTLED)]),
    ];
    let region = FakeKinesis::start(script).await;
    let dispatch = Dispatch::connect(&of(&[&region]), &[0]).await.unwrap();
    let sent = dispatch.send(many(300, Lanes::one(0)), READ_MS).await.unwrap();
    assert_eq!(sent.changes, 300);
    assert_eq!(keys(&region), (0..300).collect::<Vec<_>>(), "everything, and nothing twice");
    let first = region.calls()[0].len();
    assert!(region.calls()[1..].iter().all(|call| call.len() <= 2 && call.len() < first));
}

#[tokio::test]
async fn a_call_keeps_to_the_services_bounds_and_the_regions_own() {
    let region = FakeKinesis::start([]).await;
    let mut config = of(&[&region]);
    // A frame for each change, as many as a shard takes in some two seconds.
    config.batch.changes_max = 1;
    let dispatch = Dispatch::connect(&config, &[0]).await.unwrap();
    dispatch.send(many(1_200, Lanes::one(0)), READ_MS).await.unwrap();
    assert_eq!(keys(&region), (0..1_200).collect::<Vec<_>>());
    assert!(region.calls().iter().all(|call| call.len() <= PUT_RECORDS_ENTRIES_MAX));

    let large = FakeKinesis::start([]).await;
    let mut config = of(&[&large]);
    (config.batch.changes_max, config.batch.compression) = (1, Compression::None);
    config.regions[0].producer.request_bytes_max = 1 << 20;
    let dispatch = Dispatch::connect(&config, &[0]).await.unwrap();
    let items = (0..6).map(|key| (change(key, &[b'x'; 300 << 10]), Lanes::one(0))).collect();
    dispatch.send(items, READ_MS).await.unwrap();
    assert_eq!(keys(&large), (0..6).collect::<Vec<_>>());
    let bytes = |call: &Vec<Bytes>| call.iter().map(Bytes::len).sum::<usize>();
    assert!(large.calls().iter().all(|call| bytes(call) <= 1 << 20), "three of them to a call");
}

#[tokio::test]
async fn a_shard_that_throttles_is_sent_to_at_the_rate_that_it_takes_also_by_the_next_call() {
    let region = FakeKinesis::start([]).await;
    region.limit_shard(0, Some(100.0));
    let mut config = of(&[&region]);
    config.batch.changes_max = 1;
    let dispatch = Dispatch::connect(&config, &[0]).await.unwrap();
    for _ in 0..2 {
        dispatch.send(many(100, Lanes::one(0)), READ_MS).await.unwrap();
    }
    assert_eq!(keys(&region).len(), 200);
    let sent = region.sent_to(0);
    assert!(sent.throttled < 3 * sent.taken, "no storm: {sent:?}");
}

#[tokio::test]
async fn a_missing_stream_is_told_before_anything_is_sent() {
    let (there, missing) = (FakeKinesis::start([]).await, FakeKinesis::start([]).await);
    missing.stream_is_missing(true);
    let dispatch = Dispatch::connect(&of(&[&there, &missing]), &[0, 1]).await.unwrap();
    let error = dispatch.check().await.unwrap_err();
    let DispatchError::Unusable(errors) = &error else { panic!("{error}") };
    assert_eq!(errors.len(), 1);
    let text = error.to_string();
    assert!(text.starts_with("nothing was sent: ") && text.contains("stream warmcast in region-1"), "{text}");
    assert!(there.calls().is_empty() && missing.calls().is_empty());
}

#[tokio::test]
async fn a_stream_that_takes_nothing_more_is_named_when_patience_is_at_its_end() {
    let region = FakeKinesis::start([]).await;
    let dispatch = Dispatch::connect(&of(&[&region]), &[0]).await.unwrap();
    let dispatch = dispatch.with_patience(Duration::from_millis(300));
    dispatch.send(many(1, Lanes::one(0)), READ_MS).await.unwrap();
    region.stream_is_missing(true);
    let error = dispatch.send(many(9, Lanes::one(0)), READ_MS).await.unwrap_err().to_string();
    assert!(error.starts_with("stream warmcast in region-0 has taken nothing for "), "{error}");
    assert!(error.contains("ResourceNotFoundException"), "{error}");
    // It can be used again, and what was left behind does not come back by itself.
    region.stream_is_missing(false);
    dispatch.send(vec![(change(100, b""), Lanes::one(0))], READ_MS).await.unwrap();
    assert_eq!(keys(&region), [0, 100]);
}

#[tokio::test]
async fn a_call_that_is_refused_for_what_it_is_fails_at_once() {
    let region = FakeKinesis::start([Answer::Fails(400, "ValidationException")]).await;
    let dispatch = Dispatch::connect(&of(&[&region]), &[0]).await.unwrap();
    let error = dispatch.send(many(1, Lanes::one(0)), READ_MS).await.unwrap_err();
    assert!(matches!(error, DispatchError::Delivery(DeliveryError::Refused(_))), "{error}");
    assert!(error.to_string().contains("stream warmcast in region-0"), "{error}");
}

#[tokio::test]
async fn a_change_too_large_for_a_frame_is_an_invalidation_or_without_a_position_nothing() {
    let region = FakeKinesis::start([]).await;
    let mut config = of(&[&region]);
    config.batch.body_bytes_max = 64 << 10;
    let dispatch = Dispatch::connect(&config, &[0]).await.unwrap();
    let large = change(1, &[b'x'; 64 << 10]);
    let unplaced = Change { position: Position::ZERO, ..large.clone() };
    let sent = dispatch.send(vec![(large, Lanes::one(0)), (unplaced, Lanes::one(0))], READ_MS).await;
    let sent = sent.unwrap();
    assert_eq!((sent.changes, sent.too_large), (1, 2));
    let landed: Vec<Change> = region.landed().into_iter().flat_map(changes).collect();
    assert_eq!(landed, [Change { kind: ChangeKind::Invalidate, ..change(1, b"") }]);
    assert_eq!(dispatch.send(Vec::new(), READ_MS).await.unwrap(), Sent::default());
}

#[tokio::test]
async fn a_limited_dispatch_sends_so_many_bytes_a_second_to_each_region() {
    let region = FakeKinesis::start([]).await;
    let mut config = of(&[&region]);
    config.batch.compression = Compression::None;
    let dispatch = Dispatch::connect(&config, &[0]).await.unwrap().limited(NonZeroU64::new(100_000));
    let (began, item) = (Instant::now(), change(1, &[b'x'; 50_000]));
    for _ in 0..3 {
        dispatch.send(vec![(item.clone(), Lanes::one(0))], READ_MS).await.unwrap();
    }
    // The third waits for what the first two have taken, less what a pause may have saved up.
    assert!(began.elapsed() >= Duration::from_millis(700), "{:?}", began.elapsed());
}

#[tokio::test]
async fn what_waits_while_another_sends_goes_together_and_who_is_dropped_holds_up_nobody() {
    let region = FakeKinesis::start([]).await;
    let dispatch = Dispatch::connect(&of(&[&region]), &[0]).await.unwrap();
    let send = async |keys: std::ops::Range<usize>| {
        let changes = keys.map(|key| (change(key, b""), Lanes::one(0))).collect();
        dispatch.send(changes, READ_MS).await.unwrap().changes
    };
    region.hold();
    let (mut dropped, held) = (Box::pin(send(0..50)), async || region.calls().len() == 1);
    // Others come while it has its turn.
    let mut others = Box::pin(async { tokio::join!(send(100..110), send(110..120), send(120..130)) });
    tokio::select! {
        _ = &mut dropped => panic!("it is held"),
        _ = &mut others => panic!("it is not their turn"),
        () = until("a call is held", held) => {}
    }
    drop(dropped);
    region.release();
    assert_eq!(others.await, (10, 10, 10));
    assert_eq!(region.calls().len(), 2, "all that the others have, by whoever is first");
    let landed = keys(&region);
    assert!(landed.ends_with(&(100..130).collect::<Vec<_>>()), "{landed:?}");
}

#[tokio::test]
async fn what_was_handed_to_one_that_is_dropped_is_sent_by_another() {
    let region = FakeKinesis::start([]).await;
    let dispatch = Arc::new(Dispatch::connect(&of(&[&region]), &[0]).await.unwrap());
    region.hold();
    let send = |key: usize| {
        let dispatch = Arc::clone(&dispatch);
        async move { dispatch.send(vec![(change(key, b""), Lanes::one(0))], READ_MS).await.unwrap() }
    };
    let mut first = JoinSet::new();
    first.spawn(send(1));
    until("the first is held", async || region.calls().len() == 1).await;
    // One of these two sends for both when the first has gone, and is dropped itself.
    let (mut second, mut third) = (JoinSet::new(), JoinSet::new());
    second.spawn(send(2));
    tokio::task::yield_now().await;
    third.spawn(send(3));
    tokio::task::yield_now().await;
    first.shutdown().await;
    until("the second sends for both", async || region.calls().len() == 2).await;
    assert!(region.calls()[1].iter().cloned().flat_map(changes).count() == 2, "{:?}", region.calls());
    second.shutdown().await;
    region.release();
    third.join_next().await.unwrap().unwrap();
    assert!(keys(&region).contains(&3));
}
