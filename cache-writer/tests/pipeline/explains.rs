//! One key, explained by command.

use std::path::PathBuf;

use aws_sdk_dynamodb::types::AttributeValue;
use redis::AsyncCommands as _;
use warmcast_cache::Cache;
use warmcast_cache_writer::Config;
use warmcast_cache_writer::explain::{Conclusion, EntryPart, ExplainArgs, Explanation, explain};
use warmcast_common::daemon::{ConfigArgs, ConfigError, Outcome, OutputFormat};
use warmcast_common::dead_letter::{Envelope, Form, Letter, Origin, ReasonClass};
use warmcast_proto::change::{Change, ChangeKind};
use warmcast_proto::item::{self, Item, Value};
use warmcast_proto::key::{Buckets, bucket, explicit_hash_key};

use super::wait::until;
use super::world::{CacheWriter, World, change, frame, now_ms, put_change, redis_key};

fn args(key: &str) -> ExplainArgs {
    ExplainArgs {
        config: ConfigArgs { config: PathBuf::new(), set: Vec::new() },
        key: key.to_owned(),
        table: "profiles".to_owned(),
        buckets: 64,
        attributes: None,
        filtered: false,
        wait: 0,
        output: OutputFormat::Json,
    }
}

/// A put of an item as the master of these tests has them.
fn colored(key: &str, sequence: u32, color: &str) -> Change {
    let attributes = [("id", key), ("color", color)];
    let attributes = attributes.map(|(name, value)| (name.to_owned(), Value::S(value.to_owned()).into()));
    change(key, sequence, ChangeKind::Put, item::encode(&Item { attributes: attributes.into() }))
}

impl World {
    async fn put_row(&self, id: &str, color: &str) {
        let put = self.dynamodb.client.put_item().table_name("profiles");
        let put = put.item("id", AttributeValue::S(id.to_owned()));
        put.item("color", AttributeValue::S(color.to_owned())).send().await.unwrap();
    }

    fn explaining(&self) -> Config {
        Config { fallback: Some(self.fallback()), ..self.config() }
    }

    async fn explain(&self, key: &str) -> Explanation {
        let explanation = explain(&args(key), &self.explaining()).await.unwrap();
        assert!(explanation.lines().contains(&explanation.finding.why), "{}", explanation.lines());
        explanation
    }

    /// Says that everything made before that is applied.
    pub(super) async fn set_watermark(&self, watermark_ms: u64) {
        let () = self.admin.clone().set("wc:warmcast:watermark", watermark_ms.to_string()).await.unwrap();
    }

    async fn plant_change(&self, change: &Change) {
        let cache = Cache::connect(self.config().redis).await.unwrap();
        cache.apply(&[change]).await.remove(0).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_told_with_its_entry_row_shard_worker_watermark_and_dead_letters() {
    let world = World::new(2).await;
    world.put_into_master("a", "red").await;
    let writer = CacheWriter::start(world.config());
    let buckets = Buckets::new(64).unwrap();
    let bucket = bucket("profiles", b"a", buckets);
    world.put_at(explicit_hash_key(bucket, buckets), frame(&[colored("a", 7, "red")])).await;
    world.until_entry("a", 7).await;
    let origin =
        Origin { source: "cache-writer/eu-west-1".into(), stream: "s".into(), shard: None, position: None };
    let envelope = Envelope {
        origin,
        index: None,
        table: Some("profiles".into()),
        key: Some(b"a".to_vec()),
        class: ReasonClass::Refused,
        reason: "of a test".to_owned(),
        form: Form::Change,
    };
    world.letters.prepare().await.unwrap();
    world.letters.set_aside(&Letter::new(envelope, b"x"), now_ms()).await.unwrap();
    world.set_watermark(now_ms() - 2_000).await;
    until("the shards have owners", async || world.dynamodb.leases_with_owner().await == 2).await;

    let explanation = world.explain("a").await;
    assert_eq!(explanation.finding.verdict, Conclusion::Consistent);
    assert_eq!(explanation.outcome().unwrap(), Outcome::Done);
    let json = serde_json::to_value(&explanation).unwrap();
    let row = serde_json::json!({"id": {"S": "a"}, "color": {"S": "red"}});
    assert_eq!((&json["entry"]["kind"], &json["entry"]["sequence"]), (&"live".into(), &"7".into()));
    assert_eq!((&json["entry"]["payload"], &json["master"]["item"]), (&row, &row));
    let shards = world.kinesis.shards("warmcast").await;
    let shard = &shards[usize::try_from(bucket / 32).unwrap()].shard_id;
    assert_eq!(json["bucket"], bucket);
    assert_eq!(
        (&json["stream"]["shard"], &json["stream"]["lease"]["worker"]),
        (&shard.as_str().into(), &"w1".into())
    );
    assert_eq!(json["stream"]["lease"]["worker_is_known"], true);
    assert_eq!(
        (&json["dead_letters"]["total"], &json["dead_letters"]["letters"][0]["reason"]),
        (&1.into(), &"of a test".into())
    );
    assert!(json["lag_ms"].as_u64().is_some_and(|ms| (2_000..60_000).contains(&ms)), "{json}");
    writer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_nothing_on_its_way_explains_is_wrong() {
    let world = World::new(1).await;
    world.put_into_master("old", "red").await;
    // The newest position, with an older row; a row that the master does not have; one that it has and the cache denies.
    world.plant_change(&colored("old", 9, "blue")).await;
    world.plant_change(&colored("back", 9, "red")).await;
    world.put_row("denied", "red").await;
    world.plant_change(&change("denied", 9, ChangeKind::Delete, "")).await;
    world.put_row("foreign", "red").await;
    let () = world.admin.clone().set(redis_key("foreign"), "theirs").await.unwrap();
    let _: i64 = world.admin.clone().lpush(redis_key("list"), "theirs").await.unwrap();
    world.set_watermark(now_ms() + 60_000).await;
    for (key, expected) in [
        ("old", "these attributes differ: color"),
        ("back", "was deleted and is back"),
        ("denied", "the entry denies it"),
        ("foreign", "no entry of this version"),
        ("list", "no string"),
    ] {
        let explanation = world.explain(key).await;
        assert_eq!(explanation.finding.verdict, Conclusion::Wrong, "{key}: {explanation:?}");
        assert!(explanation.finding.why.contains(expected), "{}", explanation.finding.why);
        assert_eq!(explanation.outcome().unwrap(), Outcome::Problems);
    }
    // An attribute that the region is not sent is not compared.
    let others = ExplainArgs { attributes: Some(vec!["id".to_owned()]), ..args("old") };
    let explanation = explain(&others, &world.explaining()).await.unwrap();
    assert_eq!(explanation.finding.verdict, Conclusion::Consistent);
    // Nor is an item that the region may not be sent.
    let filtered = ExplainArgs { filtered: true, ..args("denied") };
    let explanation = explain(&filtered, &world.explaining()).await.unwrap();
    assert_eq!(explanation.finding.verdict, Conclusion::Miss);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_may_be_on_its_way_is_no_mismatch_and_is_waited_for() {
    let world = World::new(1).await;
    world.put_into_master("a", "red").await;
    world.plant_change(&colored("a", 5, "blue")).await;
    world.set_watermark(now_ms() - 3_000).await;
    let behind = world.explain("a").await;
    assert_eq!((behind.finding.verdict, behind.outcome().unwrap()), (Conclusion::Behind, Outcome::Problems));
    assert!(behind.finding.behind_ms.is_some_and(|ms| (3_000..60_000).contains(&ms)), "{behind:?}");
    let waiting = ExplainArgs { wait: 8, ..args("a") };
    let (config, change) = (world.explaining(), colored("a", 6, "red"));
    let arriving = async {
        tokio::time::sleep(std::time::Duration::from_millis(600)).await;
        world.plant_change(&change).await;
    };
    let (explanation, ()) = tokio::join!(explain(&waiting, &config), arriving);
    assert_eq!(explanation.unwrap().finding.verdict, Conclusion::Consistent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_miss_is_told_with_why_and_is_safe() {
    let world = World::new(1).await;
    world.put_into_master("none", "red").await;
    world.put_row("invalid", "red").await;
    world.plant_change(&change("invalid", 3, ChangeKind::Invalidate, "")).await;
    for (key, expected) in [("none", "there is no entry"), ("invalid", "the entry is invalid since")] {
        let explanation = world.explain(key).await;
        assert_eq!(
            (explanation.finding.verdict, explanation.outcome().unwrap()),
            (Conclusion::Miss, Outcome::Done)
        );
        assert!(explanation.finding.why.contains(expected), "{}", explanation.finding.why);
    }
    assert_eq!(world.explain("nobody").await.finding.verdict, Conclusion::Consistent);
    // Without a master nothing is compared, and a key is its bytes.
    world.plant_change(&put_change("user\u{0}1", 3)).await;
    let explanation = explain(&args("user\\x001"), &world.config()).await.unwrap();
    assert_eq!(explanation.finding.verdict, Conclusion::NotCompared);
    assert!(matches!(explanation.entry, EntryPart::Entry { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_key_or_table_is_refused_and_a_cache_that_is_away_is_an_error() {
    let mut world = World::new(1).await;
    world.put_into_master("a", "red").await;
    let table = ExplainArgs { table: "profile".to_owned(), ..args("a") };
    let key = args(r#"{"id":{"N":"5"}}"#);
    let buckets = ExplainArgs { buckets: 3, ..args("a") };
    for (args, expected) in [
        (table, "the master has no table profile"),
        (key, r#"write {"id":{"S":"text"}}"#),
        (buckets, "not a power of two"),
    ] {
        let error = explain(&args, &world.explaining()).await.unwrap_err();
        let refused = error.downcast_ref::<ConfigError>().unwrap_or_else(|| panic!("{error:?}"));
        assert!(refused.to_string().contains(expected), "{refused}");
    }
    // While the master is away everything else is told all the same.
    world.plant_change(&put_change("a", 3)).await;
    let mut away = world.explaining();
    away.fallback.as_mut().unwrap().dynamodb.endpoint = Some("http://127.0.0.1:1".to_owned());
    let explanation = explain(&args("a"), &away).await.unwrap();
    assert!(matches!(explanation.entry, EntryPart::Entry { .. }) && explanation.outcome().is_err());
    world.redis.kill();
    let error = explain(&args("a"), &world.explaining()).await.unwrap_err();
    assert!(error.downcast_ref::<ConfigError>().is_none(), "{error:?}");
}
