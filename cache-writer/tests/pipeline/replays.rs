//! The region's stream, applied again by command.

use std::path::PathBuf;

use tokio_util::sync::CancellationToken;
use warmcast_cache::Cache;
use warmcast_cache_writer::Config;
use warmcast_cache_writer::replay::{ReplayArgs, ReplayReport, dry_run, replay};
use warmcast_common::consumer::store::StateStore;
use warmcast_common::daemon::{ConfigArgs, ConfigError, Outcome, OutputFormat};
use warmcast_proto::change::{Change, ChangeKind};
use warmcast_proto::entry::EntryKind;
use warmcast_proto::frame::FrameBuilder;
use warmcast_proto::position::Position;

use super::wait::until;
use super::world::{STREAM, World, change, frame, now_ms, put_change, redis_key, shown};

/// Everything there is, as fast as it may be read.
fn args() -> ReplayArgs {
    ReplayArgs {
        config: ConfigArgs { config: PathBuf::new(), set: Vec::new() },
        since: None,
        from_sequence: Vec::new(),
        from_horizon: true,
        until: None,
        tables: Vec::new(),
        keys: Vec::new(),
        keys_file: None,
        reads_per_s: 5,
        records_per_s: 10_000.try_into().unwrap(),
        bytes_per_s: 10_000_000.try_into().unwrap(),
        shards_at_once: 8.try_into().unwrap(),
        dry_run: false,
        output: OutputFormat::Human,
    }
}

/// Waits for the next whole second: the embedded server's records have come at whole seconds, rounded down.
async fn next_second_ms() -> u64 {
    let second = now_ms() / 1_000;
    until("the next second", async || now_ms() / 1_000 > second).await;
    now_ms() / 1_000 * 1_000
}

impl World {
    /// With a master that has an item `a`.
    fn with_master(&self) -> Config {
        Config { fallback: Some(self.fallback()), ..self.config() }
    }

    async fn replay(&self, args: &ReplayArgs, config: &Config) -> ReplayReport {
        let report = replay(args, config, &CancellationToken::new()).await.unwrap();
        assert_eq!(report.ended_by, None);
        assert!(self.state().jobs().await.unwrap().is_empty(), "what is done is forgotten");
        report
    }

    fn state(&self) -> StateStore {
        StateStore::new(self.dynamodb.client.clone(), "state")
    }

    async fn apply(&self, change: &Change) {
        let cache = Cache::connect(self.config().redis).await.unwrap();
        cache.apply(&[change]).await.remove(0).unwrap();
    }

    async fn value(&self, key: &str) -> Option<Vec<u8>> {
        redis::AsyncCommands::get(&mut self.admin.clone(), redis_key(key)).await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_cache_lacks_is_read_from_the_master_and_a_second_run_changes_nothing() {
    let world = World::new(2).await;
    world.put_into_master("a", "red").await;
    let newer = Change { table: "profiles".into(), ..put_change("newer", 9) };
    world.apply(&newer).await;
    // None of this was ever applied; the master has no `b` by now.
    world.put_at(0, frame(&[put_change("a", 3), put_change("newer", 4), put_change("a", 5)])).await;
    world.put_at(u128::MAX, frame(&[put_change("b", 3)])).await;
    world.put_at(u128::MAX, FrameBuilder::heartbeat(5_000)).await;
    world.put_at(u128::MAX, b"garbage".to_vec()).await;
    let backfill = Change { position: Position::ZERO, ..change("c", 0, ChangeKind::Backfill, "row") };
    world.put_at(u128::MAX, frame(&[backfill])).await;

    let config = world.with_master();
    let first = world.replay(&args(), &config).await;
    assert_eq!((first.shards, first.shards_done), (2, 2));
    let counts = &first.counts;
    assert_eq!((counts.records, counts.changes, counts.wanted, counts.unreadable), (5, 5, 4, 1));
    assert_eq!((counts.lacked, counts.had, counts.refilled.filled), (2, 1, 2));
    assert_eq!(first.outcome().unwrap(), Outcome::Problems, "something cannot be read");
    let (header, _) = world.entry("a").await.unwrap();
    assert_eq!(
        (header.kind(), header.position().sequence().to_string()),
        (EntryKind::Filled, "5".to_owned())
    );
    assert_eq!(world.entry("b").await.unwrap().0.kind(), EntryKind::Negative);
    assert_eq!(shown(&world.entry("newer").await.unwrap()), (EntryKind::Live, "9"));
    assert_eq!(world.entry("c").await, None);

    let entries = [world.value("a").await, world.value("b").await, world.value("newer").await];
    let second = world.replay(&args(), &config).await;
    assert_eq!((second.counts.lacked, second.counts.had), (0, 3));
    assert_eq!(entries, [world.value("a").await, world.value("b").await, world.value("newer").await]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_master_what_was_lacking_stays_a_miss_and_the_report_says_so() {
    let world = World::new(1).await;
    world.put(frame(&[put_change("a", 3)])).await;
    let report = world.replay(&args(), &world.config()).await;
    assert_eq!((report.counts.lacked, report.counts.refilled.left_missing), (1, 1));
    assert!(report.lines().contains("no [master] is configured"), "{}", report.lines());
    assert_eq!(world.entry("a").await.unwrap().0.kind(), EntryKind::Invalid);
    let again = world.replay(&args(), &world.config()).await;
    assert_eq!((again.counts.lacked, again.outcome().unwrap()), (0, Outcome::Done));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_was_asked_for_is_applied() {
    let world = World::new(1).await;
    world.put_into_master("a", "red").await;
    let early = world.put(frame(&[put_change("early", 1)])).await;
    let middle_ms = next_second_ms().await;
    let other = Change { table: "other".into(), ..put_change("late", 1) };
    let late = world.put(frame(&[put_change("late", 1), put_change("later", 1), other])).await;
    let shard = world.kinesis.shards(STREAM).await[0].shard_id.clone();
    let config = world.with_master();
    let lacked = async |args: ReplayArgs| {
        let () = redis::cmd("FLUSHALL").query_async(&mut world.admin.clone()).await.unwrap();
        let counts = world.replay(&args, &world.config()).await.counts;
        assert!(counts.lacked + counts.left_absent <= counts.wanted);
        counts.wanted
    };
    assert_eq!(lacked(args()).await, 4);
    let since = |ms: u64| ReplayArgs { since: Some(ms.to_string()), from_horizon: false, ..args() };
    assert_eq!(lacked(since(middle_ms)).await, 3);
    assert_eq!(lacked(ReplayArgs { until: Some(middle_ms.to_string()), ..args() }).await, 1);
    assert_eq!(lacked(ReplayArgs { tables: vec!["other".to_owned()], ..args() }).await, 1);
    let from = |sequence: &str| ReplayArgs {
        from_sequence: vec![format!("{shard}={sequence}").parse().unwrap()],
        from_horizon: false,
        ..args()
    };
    assert_eq!((lacked(from(&late)).await, lacked(from(&early)).await), (3, 4));
    let key = ReplayArgs { tables: vec!["profiles".to_owned()], keys: vec!["late".to_owned()], ..args() };
    assert_eq!(lacked(key.clone()).await, 1);
    let by_shape = ReplayArgs { keys: vec![r#"{"id":{"S":"late"}}"#.to_owned()], ..key };
    assert_eq!(world.replay(&by_shape, &config).await.counts.wanted, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_is_stopped_goes_on_where_it_was() {
    let world = World::new(1).await;
    world.put_into_master("a", "red").await;
    for key in ["a", "b", "c", "d"] {
        world.put(frame(&[put_change(key, 3)])).await;
    }
    let config = world.with_master();
    // So slow that it reads one record and waits.
    let slow = ReplayArgs { bytes_per_s: 1.try_into().unwrap(), ..args() };
    let stop = CancellationToken::new();
    let replaying = replay(&slow, &config, &stop);
    let stopping = async {
        until("a place is noted", async || {
            let jobs = world.state().jobs().await.unwrap_or_default();
            let Some(name) = jobs.keys().next() else { return false };
            // The times, and the place in the shard.
            world.state().begin_job(name, "", now_ms()).await.unwrap().places.len() == 2
        })
        .await;
        stop.cancel();
    };
    let (report, ()) = tokio::join!(replaying, stopping);
    let report = report.unwrap();
    assert_eq!((report.shards_done, report.ended_by.as_deref()), (0, Some("stopped by a signal")));
    assert!(report.outcome().unwrap_err().to_string().contains("run the same command again"));
    let before = report.counts.records;
    assert!((1..4).contains(&before), "{before}");
    // What came meanwhile is not of the times that were asked for.
    next_second_ms().await;
    world.put(frame(&[put_change("e", 3)])).await;
    let told = dry_run(&args(), &config).await.unwrap();
    assert!(told.goes_on && told.shards.len() == 1, "{told:?}");
    let report = world.replay(&args(), &config).await;
    assert!(report.went_on);
    assert_eq!((report.counts.records, report.counts.lacked), (4 - before, 4 - before));
    assert_eq!(world.entry("d").await.unwrap().0.kind(), EntryKind::Negative);
    assert_eq!(world.entry("e").await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_made_invalid_and_not_yet_filled_when_it_was_killed_is_filled_by_the_next_run() {
    let world = World::new(1).await;
    world.put_into_master("a", "red").await;
    world.put(frame(&[put_change("a", 3)])).await;
    let config = world.with_master();
    let mut away = config.clone();
    let fallback = away.fallback.as_mut().unwrap();
    fallback.dynamodb.endpoint = Some("http://127.0.0.1:1".to_owned());
    fallback.filler.hold = std::time::Duration::from_millis(200);
    let (args, never) = (args(), CancellationToken::new());
    tokio::select! {
        report = replay(&args, &away, &never) => panic!("{report:?}"),
        () = until("the key is not what it was", async || world.entry("a").await.is_some()) => {}
    }
    assert!(matches!(world.entry("a").await.unwrap().0.kind(), EntryKind::Invalid | EntryKind::Held));
    let report = world.replay(&args, &config).await;
    assert_eq!((report.went_on, report.counts.lacked, report.counts.refilled.filled), (true, 0, 1));
    assert_eq!(world.entry("a").await.unwrap().0.kind(), EntryKind::Filled);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_no_sense_is_refused_with_what_would_and_nothing_is_written() {
    let world = World::new(1).await;
    world.put_into_master("a", "red").await;
    let (mut missing, config) = (world.config(), world.with_master());
    missing.kinesis.stream = "elsewhere".to_owned();
    let table = |name: &str| ReplayArgs { tables: vec![name.to_owned()], ..args() };
    let sequence = |place: &str| ReplayArgs {
        from_sequence: vec![place.parse().unwrap()],
        from_horizon: false,
        ..args()
    };
    let since = |time: &str| ReplayArgs { since: Some(time.to_owned()), from_horizon: false, ..args() };
    let number = r#"{"id":{"N":"5"}}"#.to_owned();
    for (args, expected) in [
        (table("profile"), "the master has no table profile"),
        (ReplayArgs { keys: vec![number], ..table("profiles") }, r#"write {"id":{"S":"text"}}"#),
        (ReplayArgs { keys: vec!["a".to_owned()], ..args() }, "give one --table"),
        (since("30h"), "use --from-horizon"),
        (since("soon"), "is no time"),
        (ReplayArgs { until: Some("2h".to_owned()), ..since("1h") }, "nothing lies between"),
        (sequence("shardId-7=1"), "the stream has no shard shardId-7; it has shardId-000000000000"),
        (sequence("shardId-000000000000=1"), "has the sequence numbers"),
    ] {
        let error = replay(&args, &config, &CancellationToken::new()).await.unwrap_err();
        let refused = error.downcast_ref::<ConfigError>().unwrap_or_else(|| panic!("{error:?}"));
        assert!(refused.to_string().contains(expected), "{refused}");
        assert!(dry_run(&args, &config).await.is_err());
    }
    let error = replay(&args(), &missing, &CancellationToken::new()).await.unwrap_err().to_string();
    assert!(error.contains("stream elsewhere"), "{error}");
    assert!(world.state().jobs().await.map_or(true, |jobs| jobs.is_empty()));
}
