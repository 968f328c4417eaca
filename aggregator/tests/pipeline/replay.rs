//! Replays: what the streams still hold is sent again, beside the fleet and without it.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_dynamodb::types::StreamViewType;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use warmcast_aggregator::Config;
use warmcast_aggregator::dispatch::DispatchError;
use warmcast_aggregator::replay::{Ask, ReplayError, Report, run};
use warmcast_common::clock::now_ms;
use warmcast_common::consumer::store::{Lease, StateStore};
use warmcast_common::limits::GUEST_RENEWAL_INTERVAL;
use warmcast_proto::change::{Change, ChangeKind};
use warmcast_proto::record;

use super::fake_kinesis::FakeKinesis;
use super::poison::letters_in;
use super::servers::{DynamoDb, Kinesis, data};
use super::wait::until;
use super::world::{Aggregator, STREAM, config, directory, region, text};

/// A fleet that has read two tables and was stopped; its region lost everything.
struct Lost {
    dynamodb: DynamoDb,
    region: Kinesis,
    config: Config,
    _letters: Arc<tempfile::TempDir>,
}

const NEW_IMAGE: StreamViewType = StreamViewType::NewImage;

impl Lost {
    async fn new() -> Self {
        let (dynamodb, before, letters) = (DynamoDb::start().await, region(1).await, directory());
        for table in ["budgets", "profiles"] {
            dynamodb.create_table(table, NEW_IMAGE).await;
        }
        let aggregator = Aggregator::start(config(
            &dynamodb.url,
            &["budgets", "profiles"],
            &[&before.url],
            letters.path(),
        ));
        for number in 0..30 {
            dynamodb.put("profiles", &format!("user-{}", number % 10), &number.to_string()).await;
        }
        dynamodb.delete("profiles", "user-3").await;
        dynamodb.put("budgets", "b", "1").await;
        until("everything came", async || {
            let changes = before.changes("profiles").await;
            let budgets = before.changes("budgets").await;
            changes.values().map(Vec::len).sum::<usize>() == 31 && budgets.len() == 1
        })
        .await;
        aggregator.stop().await.unwrap();
        let region = region(2).await;
        let config = config(&dynamodb.url, &["budgets", "profiles"], &[&region.url], letters.path());
        Self { dynamodb, region, config, _letters: letters }
    }

    async fn replay(&self, ask: &Ask) -> Result<Report, ReplayError> {
        run(&self.config, ask, false, &CancellationToken::new()).await
    }

    async fn leases(&self) -> Vec<Lease> {
        let store = StateStore::new(self.dynamodb.client.clone(), "state");
        let mut leases = Vec::new();
        for table in ["budgets", "profiles"] {
            for generation in store.generations(table).await.unwrap() {
                leases.extend(store.leases(&generation.stream).await.unwrap());
            }
        }
        leases
    }

    async fn jobs(&self) -> usize {
        StateStore::new(self.dynamodb.client.clone(), "state").jobs().await.unwrap().len()
    }
}

/// To the first region, all tables, as fast as can be.
fn ask() -> Ask {
    Ask {
        regions: vec!["region-0".to_owned()],
        shards: 4,
        renewal_interval: GUEST_RENEWAL_INTERVAL,
        ..Ask::default()
    }
}

fn of(table: &str) -> Vec<String> {
    vec![table.to_owned()]
}

/// The texts of each item's changes, deletions as such.
fn texts(changes: &BTreeMap<String, Vec<Change>>) -> BTreeMap<String, Vec<String>> {
    let show = |change: &Change| if change.kind == ChangeKind::Put { text(change) } else { "-".to_owned() };
    changes.iter().map(|(key, changes)| (key.clone(), changes.iter().map(show).collect())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_region_lost_is_sent_again_with_its_positions_and_as_late() {
    let lost = Lost::new().await;
    let before_ms = now_ms();
    let report = lost.replay(&ask()).await.unwrap();
    assert_eq!((report.records, report.wanted, report.changes), (32, 32, 32));
    assert!(!report.has_problems() && report.resumed_from_ms.is_none());
    let changes = lost.region.changes("profiles").await;
    let texts = texts(&changes);
    assert_eq!(texts.len(), 10);
    assert_eq!(
        (&texts["user-0"], &texts["user-3"]),
        (&strings(&["0", "10", "20"]), &strings(&["3", "13", "23", "-"]))
    );
    let mut positions: Vec<_> = changes.values().flatten().map(|change| change.position).collect();
    let all = positions.len();
    positions.sort();
    positions.dedup();
    assert_eq!(positions.len(), all);
    assert!(positions.iter().all(|position| position.generation() == 1));
    for shard in lost.region.shards(STREAM).await {
        for record in lost.region.records(STREAM, &shard.shard_id).await {
            let parts = record::read(data(record)).unwrap().parts;
            let late = |read_ms: u64| read_ms + 60_000 < before_ms;
            assert!(
                parts.iter().all(|part| part.read_ms.is_some_and(late)),
                "the cache must not believe them"
            );
        }
    }
    // A second run is another replay of the same, and leaves as little behind.
    let again = lost.replay(&ask()).await.unwrap();
    assert_eq!((again.records, again.resumed_from_ms), (32, None));
    let twice = lost.region.changes("profiles").await;
    let distinct = |changes: &BTreeMap<String, Vec<Change>>| {
        let mut changes: Vec<Change> = changes.values().flatten().cloned().collect();
        changes.sort_by_key(|change| change.position);
        changes.dedup();
        changes
    };
    assert_eq!(distinct(&twice), distinct(&changes), "the same changes, once more");
    assert_eq!(lost.jobs().await, 0);
    assert!(lost.leases().await.iter().all(|lease| lease.guest.is_none()));
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_keys_times_and_sequence_numbers_choose_what_is_sent() {
    let lost = Lost::new().await;
    let wanted = strings(&["user-3", r#"{"id":{"S":"user-4"}}"#]);
    let some = Ask { tables: of("profiles"), keys: Some(wanted), ..ask() };
    let report = lost.replay(&some).await.unwrap();
    assert_eq!((report.records, report.wanted), (31, 7));
    let changes = lost.region.changes("profiles").await;
    assert_eq!(texts(&changes).into_keys().collect::<Vec<_>>(), ["user-3", "user-4"]);
    assert!(lost.region.changes("budgets").await.is_empty());

    // The last change of user-4 and what came after it: seven changes of others.
    let sequence = changes["user-4"].last().unwrap().position.sequence().to_string();
    let from = Ask { tables: of("profiles"), from: Some(sequence.parse().unwrap()), ..ask() };
    assert_eq!(lost.replay(&from).await.unwrap().wanted, 7);

    let all = Ask { since: Some("1h".to_owned()), ..ask() };
    assert_eq!(lost.replay(&all).await.unwrap().wanted, 32);
    let older = Ask { until: Some((now_ms() - 60_000).to_string()), ..ask() };
    let report = lost.replay(&older).await.unwrap();
    assert_eq!((report.records, report.wanted), (0, 0), "all is newer");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_region_gets_what_its_filter_leaves_and_others_nothing() {
    let lost = Lost::new().await;
    let (other, letters) = (region(1).await, directory());
    let urls = [lost.region.url.as_str(), &other.url];
    let mut config = config(&lost.dynamodb.url, &["profiles"], &urls, letters.path());
    let few = "v = '20' OR v = '7'".parse().unwrap();
    config.regions[1].filters.entry("profiles".to_owned()).or_default().condition = Some(few);
    let both = Ask { regions: strings(&["region-0", "region-1"]), ..ask() };
    let report = run(&config, &both, false, &CancellationToken::new()).await.unwrap();
    assert_eq!(report.wanted, 31);
    let filtered = texts(&other.changes("profiles").await);
    assert_eq!(
        (&filtered["user-0"], &filtered["user-7"]),
        (&strings(&["-", "-", "20"]), &strings(&["7", "-", "-"]))
    );
    let only = Ask { regions: strings(&["region-1"]), ..ask() };
    let before = lost.region.changes("profiles").await;
    run(&config, &only, false, &CancellationToken::new()).await.unwrap();
    assert_eq!(lost.region.changes("profiles").await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_says_what_would_be_read_and_changes_nothing() {
    let lost = Lost::new().await;
    let report = run(&lost.config, &ask(), true, &CancellationToken::new()).await.unwrap();
    assert!(report.dry_run && report.records == 0);
    let tables: Vec<_> =
        report.streams.iter().map(|of| (of.table.as_str(), of.generation, of.shards.len())).collect();
    assert_eq!(tables, [("budgets", 1, 1), ("profiles", 1, 1)]);
    assert!(
        report.streams.iter().flat_map(|of| &of.shards).all(|of| of.from == "trim-horizon" && !of.skipped)
    );
    assert!(lost.region.changes("profiles").await.is_empty());
    assert_eq!(lost.jobs().await, 0);
    assert!(lost.leases().await.iter().all(|lease| lease.guest.is_none()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_refused_before_anything_is_sent() {
    let lost = Lost::new().await;
    let refused = async |ask: Ask| {
        let error = lost.replay(&ask).await.unwrap_err();
        assert!(matches!(error, ReplayError::Refused(_)), "{error}");
        error.to_string()
    };
    let unknown = Ask { tables: of("profile"), regions: strings(&["here"]), ..ask() };
    let text = refused(unknown).await;
    assert!(text.contains("the configuration has budgets, profiles"), "{text}");
    assert!(text.contains("the configuration has region-0"), "{text}");
    let text = refused(Ask { since: Some("25h".to_owned()), ..ask() }).await;
    assert!(text.contains("keep records for 24 h"), "{text}");
    let key = r#"{"id":{"N":"5"}}"#.to_owned();
    let text = refused(Ask { tables: of("profiles"), keys: Some(vec![key]), ..ask() }).await;
    assert!(text.contains(r#"{"id":{"S""#), "{text}");

    let (letters, missing) = (directory(), Kinesis::start().await);
    let config = config(&lost.dynamodb.url, &["profiles"], &[&missing.url], letters.path());
    let error = run(&config, &ask(), false, &CancellationToken::new()).await.unwrap_err();
    assert!(matches!(error, ReplayError::Dispatch(DispatchError::Unusable(_))), "{error}");

    // A state table of another fleet: nobody knows the positions.
    let mut other = lost.config.clone();
    other.state.table = "elsewhere".to_owned();
    let store = StateStore::new(lost.dynamodb.client.clone(), "elsewhere");
    store.ensure_table(true).await.unwrap();
    let error = run(&other, &ask(), false, &CancellationToken::new()).await.unwrap_err();
    assert!(
        error.to_string().contains("the state table elsewhere knows no stream of table budgets"),
        "{error}"
    );
    assert!(lost.region.changes("profiles").await.is_empty());
    assert_eq!(lost.jobs().await, 0);
}

/// One shard at a time, of which the second has to wait for a long time: the first has taken all the bytes.
fn slow() -> Ask {
    Ask { shards: 1, bytes_per_s: NonZeroU64::new(1), ..ask() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_was_stopped_goes_on_where_it_was() {
    let lost = Lost::new().await;
    let stop = CancellationToken::new();
    let slow = slow();
    let stopped = run(&lost.config, &slow, false, &stop);
    let stopping = async {
        until("the first table was sent", async || !lost.region.changes("budgets").await.is_empty()).await;
        until("the second is read", async || {
            let leases = lost.leases().await;
            leases.iter().any(|lease| lease.guest.is_some() && lease.stream.contains("profiles"))
        })
        .await;
        stop.cancel();
    };
    let (stopped, ()) = tokio::join!(stopped, stopping);
    let error = stopped.unwrap_err();
    assert!(matches!(error, ReplayError::Stopped { records: 1 }), "{error}");
    assert!(lost.leases().await.iter().all(|lease| lease.guest.is_none()), "its claims are released");
    assert!(lost.region.changes("profiles").await.is_empty());

    let rest = lost.replay(&Ask { bytes_per_s: None, ..slow }).await.unwrap();
    assert!(rest.resumed_from_ms.is_some());
    assert_eq!(rest.records, 31, "the first table is not read again");
    assert_eq!(lost.region.changes("budgets").await["b"].len(), 1);
    assert_eq!(texts(&lost.region.changes("profiles").await).len(), 10);
    assert_eq!(lost.jobs().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_was_killed_leaves_nothing_to_clean_up() {
    let lost = Lost::new().await;
    let mut killed = JoinSet::new();
    let config = lost.config.clone();
    killed.spawn(async move { run(&config, &slow(), false, &CancellationToken::new()).await.map(|_| ()) });
    until("the first table was sent", async || !lost.region.changes("budgets").await.is_empty()).await;
    until("the second is read", async || {
        let leases = lost.leases().await;
        leases.iter().any(|lease| lease.guest.is_some() && lease.stream.contains("profiles"))
    })
    .await;
    killed.shutdown().await;
    assert!(lost.leases().await.iter().any(|lease| lease.guest.is_some()), "its claim stays");
    // The same command takes it up at once; begun anew it sends everything.
    let again = lost.replay(&Ask { anew: true, ..ask() }).await.unwrap();
    assert_eq!((again.records, again.resumed_from_ms), (32, None));
    assert!(lost.leases().await.iter().all(|lease| lease.guest.is_none()));
    assert_eq!(lost.jobs().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_yields_to_a_region_that_is_parked_meanwhile_and_finishes_after_it() {
    let (dynamodb, near, far, letters) =
        (DynamoDb::start().await, region(1).await, FakeKinesis::start([]).await, directory());
    dynamodb.create_table("profiles", NEW_IMAGE).await;
    let mut config = config(&dynamodb.url, &["profiles"], &[&near.url, &far.url], letters.path());
    config.parking.parking.after = Duration::from_millis(500);
    let aggregator = Aggregator::start(config.clone());
    dynamodb.put("profiles", "a", &"x".repeat(1_000)).await;
    let in_far = || {
        far.landed()
            .into_iter()
            .flat_map(super::world::changes)
            .map(|change| text(&change))
            .collect::<Vec<_>>()
    };
    until("the change is in both", async || near.changes("profiles").await.len() == 1 && in_far().len() == 1)
        .await;

    // It reads the shard, and sends so slowly that it is at it for long.
    let store = StateStore::new(dynamodb.client.clone(), "state");
    let stream = store.generations("profiles").await.unwrap().remove(0).stream;
    let lease = async || store.leases(&stream).await.unwrap().remove(0);
    let slow =
        Ask { bytes_per_s: NonZeroU64::new(30), renewal_interval: Duration::from_millis(200), ..ask() };
    let (replaying, stop) = (config.clone(), CancellationToken::new());
    let mut replay = JoinSet::new();
    replay.spawn(async move { run(&replaying, &slow, false, &stop).await });
    until("it has its claim", async || lease().await.guest.is_some()).await;

    far.hold();
    dynamodb.put("profiles", "b", "2").await;
    until("the far region is parked", async || !lease().await.parked.is_empty()).await;
    until("the replay has left", async || lease().await.guest.is_none()).await;
    far.release();
    until("it is caught up", async || in_far().contains(&"2".to_owned()) && lease().await.parked.is_empty())
        .await;
    let ended = tokio::time::timeout(Duration::from_secs(20), replay.join_next()).await;
    let report = ended.expect("the replay goes on").unwrap().unwrap().unwrap();
    assert!(report.yielded >= 1, "{report:?}");
    assert!(texts(&near.changes("profiles").await)["a"].len() >= 2, "it was sent again");
    aggregator.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn replays_leave_the_dead_letters_alone_and_the_fleet_goes_on() {
    let (dynamodb, kinesis, letters) = (DynamoDb::start().await, region(1).await, directory());
    dynamodb.create_table("profiles", NEW_IMAGE).await;
    let config = config(&dynamodb.url, &["profiles"], &[&kinesis.url], letters.path());
    let aggregator = Aggregator::start(config.clone());
    dynamodb.put("profiles", "a", "1").await;
    until("the change came", async || kinesis.changes("profiles").await.len() == 1).await;
    let report = run(&config, &ask(), false, &CancellationToken::new()).await.unwrap();
    assert_eq!((report.wanted, report.yielded), (1, 0));
    dynamodb.put("profiles", "a", "2").await;
    until("the next came", async || {
        texts(&kinesis.changes("profiles").await)["a"].last().is_some_and(|text| text == "2")
    })
    .await;
    assert_eq!(texts(&kinesis.changes("profiles").await)["a"], strings(&["1", "1", "2"]));
    assert!(letters_in(letters.path()).is_empty());
    aggregator.stop().await.unwrap();
}
