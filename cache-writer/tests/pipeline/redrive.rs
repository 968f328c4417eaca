//! Dead letters that are tried again.

use tokio_util::sync::CancellationToken;
use warmcast_cache::Cache;
use warmcast_cache_writer::Config;
use warmcast_cache_writer::redrive::{RedriveError, Report, redrive, redrive_letters};
use warmcast_common::daemon::Outcome;
use warmcast_common::dead_letter::{
    Chosen, Envelope, Filter, Form, Letter, Origin, ReasonClass, Redriven, Sending,
};
use warmcast_proto::change::ChangeKind;
use warmcast_proto::entry::EntryKind;
use warmcast_proto::frame::encode_change;
use warmcast_proto::frame::wire::{FrameBody, Kind};
use warmcast_proto::json;

use super::bad_input::{frame_of, wire};
use super::world::{World, change, frame, now_ms, put_change, shown};

fn letter(form: Form, bytes: &[u8]) -> Letter {
    let origin = Origin {
        source: "cache-writer/eu-west-1".into(),
        stream: "warmcast".into(),
        shard: Some("shard-1".into()),
        position: Some("1".into()),
    };
    let envelope = Envelope {
        origin,
        index: (form == Form::Change).then_some(0),
        table: (form == Form::Change).then(|| "profiles".into()),
        key: None,
        class: if form == Form::Change { ReasonClass::Refused } else { ReasonClass::UndecodableRecord },
        reason: "of a test".to_owned(),
        form,
    };
    Letter::new(envelope, bytes)
}

impl World {
    /// A letter of so long ago, tried again; and whether it is still there, with its attempts.
    async fn redrive(&self, letter: &Letter, age_ms: u64, cache: &Cache) -> (Redriven, Option<u64>) {
        let kept = self.letters.set_aside(letter, now_ms() - age_ms).await.unwrap();
        let (outcome, _) = redrive(&self.letters, kept.id, cache, None).await.unwrap();
        let left = self.letters.get(kept.id).await.unwrap().map(|(kept, _)| kept.attempts);
        (outcome, left)
    }

    async fn kind(&self, key: &str) -> Option<EntryKind> {
        self.entry(key).await.map(|(header, _)| header.kind())
    }
}

#[tokio::test]
async fn what_can_be_read_by_now_is_applied_where_the_cache_lacks_it_and_the_letter_goes() {
    let world = World::new(1).await;
    world.letters.prepare().await.unwrap();
    let cache = Cache::connect(world.config().redis).await.unwrap();
    cache.apply(&[&put_change("newer", 9)]).await.remove(0).unwrap();
    let record = letter(Form::KinesisRecord, &frame(&[put_change("new", 5), put_change("newer", 5)]));
    assert_eq!(world.redrive(&record, 1_000, &cache).await, (Redriven::Done(2), None));
    assert_eq!(shown(&world.entry("new").await.unwrap()), (EntryKind::Live, "5"));
    assert_eq!(shown(&world.entry("newer").await.unwrap()), (EntryKind::Live, "9"));
    let delete = json::encode(&change("document", 5, ChangeKind::Delete, ""), now_ms()).unwrap();
    let user_record = letter(Form::KinesisRecord, &delete);
    assert_eq!(world.redrive(&user_record, 1_000, &cache).await, (Redriven::Done(1), None));
    assert_eq!(world.kind("document").await, Some(EntryKind::Tombstone));
    let single = letter(Form::Change, &encode_change(&put_change("single", 5)));
    assert_eq!(world.redrive(&single, 1_000, &cache).await, (Redriven::Done(1), None));
    assert_eq!(world.kind("single").await, Some(EntryKind::Live));
    let (again, _) = redrive(&world.letters, single.id(), &cache, None).await.unwrap();
    assert_eq!(again, Redriven::Gone);
}

#[tokio::test]
async fn what_was_read_long_ago_only_says_that_its_items_are_not_known() {
    let world = World::new(1).await;
    world.letters.prepare().await.unwrap();
    let cache = Cache::connect(world.config().redis).await.unwrap();
    let before = [put_change("older", 1), put_change("newer", 9)];
    assert!(cache.apply(&[&before[0], &before[1]]).await.iter().all(Result::is_ok));
    let record = letter(Form::KinesisRecord, &frame(&[put_change("older", 5), put_change("newer", 5)]));
    assert_eq!(world.redrive(&record, 120_000, &cache).await, (Redriven::Done(2), None));
    assert_eq!(world.kind("older").await, Some(EntryKind::Invalid));
    assert_eq!(world.kind("newer").await, Some(EntryKind::Live));
}

#[tokio::test]
async fn what_fails_again_stays_with_one_attempt_more_and_its_sound_part_is_applied() {
    let world = World::new(1).await;
    world.letters.prepare().await.unwrap();
    let mut config = world.config().redis;
    config.value_bytes_max = 1_000;
    let cache = Cache::connect(config).await.unwrap();
    let garbage = letter(Form::KinesisRecord, b"garbage");
    let (outcome, attempts) = world.redrive(&garbage, 1_000, &cache).await;
    assert!(matches!(outcome, Redriven::FailedAgain(_)), "{outcome:?}");
    assert_eq!(attempts, Some(2));

    let changes = vec![wire("sound", Kind::Delete, 0), wire("bad", Kind::Unspecified, 0)];
    let body = FrameBody { tables: vec!["profiles".to_owned()], changes, ..FrameBody::default() };
    let mixed = letter(Form::KinesisRecord, &frame_of(&body));
    let (outcome, attempts) = world.redrive(&mixed, 1_000, &cache).await;
    let Redriven::FailedAgain(reason) = outcome else { panic!("{outcome:?}") };
    assert!(reason.contains("change 1 of the frame") && attempts == Some(2), "{reason}");
    assert_eq!(world.kind("sound").await, Some(EntryKind::Tombstone));

    for age_ms in [1_000, 120_000] {
        let large = change("large", 5, ChangeKind::Put, vec![7; 1_000 + usize::try_from(age_ms).unwrap()]);
        let refused = letter(Form::Change, &encode_change(&large));
        let (outcome, attempts) = world.redrive(&refused, age_ms, &cache).await;
        let Redriven::FailedAgain(reason) = outcome else { panic!("{outcome:?}") };
        assert!(reason.contains("above 1000") && attempts == Some(2), "{reason}");
    }
}

#[tokio::test]
async fn a_cache_that_cannot_be_reached_leaves_the_letter_as_it_was() {
    let mut world = World::new(1).await;
    world.letters.prepare().await.unwrap();
    let cache = Cache::connect(world.config().redis).await.unwrap();
    let record = letter(Form::KinesisRecord, &frame(&[put_change("a", 5)]));
    let kept = world.letters.set_aside(&record, now_ms()).await.unwrap();
    world.redis.kill();
    let error = redrive(&world.letters, kept.id, &cache, None).await.unwrap_err();
    assert!(matches!(error, RedriveError::Cache { .. }), "{error}");
    assert_eq!(world.letters.get(kept.id).await.unwrap().unwrap().0, kept);
}

/// As the command does it.
async fn send_all(world: &World, config: &Config, stop: &CancellationToken) -> Report {
    let cache = Cache::connect(config.redis.clone()).await.unwrap();
    let sending = Sending::new(Chosen::Filter(Filter::default()), 10_000.try_into().unwrap());
    redrive_letters(&world.letters, config, &cache, sending, stop).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_tries_every_letter_fills_what_is_not_known_and_run_again_changes_nothing() {
    let world = World::new(1).await;
    world.letters.prepare().await.unwrap();
    world.put_into_master("a", "red").await;
    let config = Config { fallback: Some(world.fallback()), ..world.config() };
    let late = letter(Form::KinesisRecord, &frame(&[put_change("a", 5), put_change("gone", 5)]));
    world.letters.set_aside(&late, now_ms() - 120_000).await.unwrap();
    world.letters.set_aside(&letter(Form::KinesisRecord, b"garbage"), now_ms()).await.unwrap();

    let stop = CancellationToken::new();
    stop.cancel();
    let stopped = send_all(&world, &config, &stop).await.letters;
    assert_eq!((stopped.done, stopped.ended_by.as_deref()), (0, Some("stopped by a signal")));
    assert!(stopped.outcome().is_err());

    let report = send_all(&world, &config, &CancellationToken::new()).await;
    let letters = &report.letters;
    assert_eq!((letters.done, letters.changes, letters.failed_again), (1, 2, 1));
    assert_eq!(letters.outcome().unwrap(), Outcome::Problems);
    assert_eq!(report.refilled.unwrap().filled, 2);
    assert_eq!(world.kind("a").await, Some(EntryKind::Filled));
    assert_eq!(world.kind("gone").await, Some(EntryKind::Negative));

    let again = send_all(&world, &config, &CancellationToken::new()).await.letters;
    assert_eq!((again.done, again.failed_again), (0, 1), "what cannot be read stays");
    assert_eq!(world.letters().await[0].0.attempts, 3);
}
