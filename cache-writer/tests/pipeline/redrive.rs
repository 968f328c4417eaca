//! Dead letters that are tried again.

use warmcast_cache::Cache;
use warmcast_cache_writer::redrive::{RedriveError, Redriven, redrive};
use warmcast_common::dead_letter::{Envelope, Form, Letter, Origin, ReasonClass};
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
        let outcome = redrive(&self.letters, kept.id, cache, None).await.unwrap();
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
    assert_eq!(world.redrive(&record, 1_000, &cache).await, (Redriven::Applied(2), None));
    assert_eq!(shown(&world.entry("new").await.unwrap()), (EntryKind::Live, "5"));
    assert_eq!(shown(&world.entry("newer").await.unwrap()), (EntryKind::Live, "9"));
    let delete = json::encode(&change("document", 5, ChangeKind::Delete, ""), now_ms()).unwrap();
    let user_record = letter(Form::KinesisRecord, &delete);
    assert_eq!(world.redrive(&user_record, 1_000, &cache).await, (Redriven::Applied(1), None));
    assert_eq!(world.kind("document").await, Some(EntryKind::Tombstone));
    let single = letter(Form::Change, &encode_change(&put_change("single", 5)));
    assert_eq!(world.redrive(&single, 1_000, &cache).await, (Redriven::Applied(1), None));
    assert_eq!(world.kind("single").await, Some(EntryKind::Live));
    assert_eq!(redrive(&world.letters, single.id(), &cache, None).await.unwrap(), Redriven::Gone);
}

#[tokio::test]
async fn what_was_read_long_ago_only_says_that_its_items_are_not_known() {
    let world = World::new(1).await;
    world.letters.prepare().await.unwrap();
    let cache = Cache::connect(world.config().redis).await.unwrap();
    let before = [put_change("older", 1), put_change("newer", 9)];
    assert!(cache.apply(&[&before[0], &before[1]]).await.iter().all(Result::is_ok));
    let record = letter(Form::KinesisRecord, &frame(&[put_change("older", 5), put_change("newer", 5)]));
    assert_eq!(world.redrive(&record, 120_000, &cache).await, (Redriven::Applied(2), None));
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
