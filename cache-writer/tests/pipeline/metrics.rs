//! What /metrics says of a run: that it agrees with what was done, and that docs/metrics.md has all of it.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use warmcast_proto::change::ChangeKind;

use super::endpoint::{address, ask};
use super::wait::until;
use super::world::{CacheWriter, World, change, frame, put_change};

const CATALOGUE: &str = include_str!("../../../docs/metrics.md");

#[tokio::test(flavor = "multi_thread")]
async fn metrics_agree_with_what_was_done_and_are_all_in_the_catalogue() {
    let world = World::new(1).await;
    world.put_into_master("d", "red").await;
    let mut config = world.config();
    config.fallback = Some(world.fallback());
    let admin = address(3);
    config.admin.listen = Some(admin);
    let writer = CacheWriter::start(config);

    let record = frame(&[put_change("a", 3), put_change("b", 2), put_change("a", 5)]);
    world.put(record.clone()).await;
    world.until_entry("a", 5).await;
    world.put(frame(&[put_change("a", 4)])).await;
    world.put(frame(&[change("c", 1, ChangeKind::Invalidate, "")])).await;
    let last = world.put("nobody can read this").await;
    world.until_checkpoint(&last).await;
    until("the invalid key was looked up", async || {
        Scrape::of(admin).await.get("fills_total{outcome=\"absent\"}") == 1.0
    })
    .await;

    let scrape = Scrape::of(admin).await;
    let of = |outcome: &str| scrape.get(&format!("changes_total{{outcome=\"{outcome}\"}}"));
    assert_eq!(scrape.get("changes_received_total"), 5.0);
    assert_eq!((of("applied"), of("coalesced"), of("stale"), of("failed")), (3.0, 1.0, 1.0, 0.0));
    assert_eq!(scrape.get("apply_lag_seconds_count"), 3.0);
    assert_eq!(scrape.get("dead_letters_total{reason=\"undecodable-record\"}"), 1.0);
    assert_eq!(scrape.get("records_read_total"), 4.0);
    assert!(scrape.get("received_bytes_total") > record.len() as f64);
    let round_trips = scrape.get("redis_calls_total{result=\"ok\"}");
    assert!(round_trips >= 5.0, "{round_trips}");
    assert_eq!(scrape.get("redis_calls_total{result=\"failed\"}"), 0.0);
    assert!(scrape.get("redis_seconds_count") >= 5.0);
    assert!(scrape.get("redis_pipeline_commands_sum") > scrape.get("redis_pipeline_commands_count"));
    assert!(scrape.get("fill_read_units_total") >= 1.0);
    assert_eq!(scrape.get("fill_seconds_count"), 1.0);
    assert_eq!((scrape.get("breaker_open"), scrape.get("rewinds_total")), (0.0, 0.0));
    // Read units alone: the stream is not on-demand. By the built-in prices of the master's region.
    let dollars = scrape.get("fill_read_units_total") * 0.1415 / 5.0;
    assert!((scrape.get("dollars_per_million_changes") - dollars).abs() < 1e-9, "{dollars}");
    assert_eq!(scrape.families(), catalogued());
    // The look reads the restart lock, which nothing else does here.
    let (reads, before) = ("state_calls_total{call=\"GetItem\",result=\"ok\"}", scrape);
    assert_eq!(ask(admin, "/status", &[]).await.unwrap().status, 200);
    until("the look at the fleet is counted", async || {
        Scrape::of(admin).await.get(reads) > before.get(reads)
    })
    .await;
    writer.stop().await;
}

/// What /metrics answered.
struct Scrape(String);

impl Scrape {
    async fn of(admin: SocketAddr) -> Self {
        let answer = ask(admin, "/metrics", &[]).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.body);
        Self(answer.body)
    }

    /// The value of one series, by its name without the prefix.
    fn get(&self, series: &str) -> f64 {
        let start = format!("warmcast_{series} ");
        let value = self.0.lines().find_map(|line| line.strip_prefix(&start));
        value.unwrap_or_else(|| panic!("{series} is not in {}", self.0)).trim().parse().unwrap()
    }

    /// Every family, named as its series are.
    fn families(&self) -> BTreeSet<String> {
        let families = self.0.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        families.map(|family| family.split(' ').next().unwrap().to_owned()).collect()
    }
}

/// Every name that the catalogue has for cache-writers.
fn catalogued() -> BTreeSet<String> {
    let (both, rest) = CATALOGUE.split_once("\n## Aggregator").unwrap();
    let (_, own) = rest.split_once("\n## Cache-writer").unwrap();
    let rows = both.lines().chain(own.lines());
    let names = rows.filter_map(|row| row.strip_prefix("| `warmcast_"));
    let names = names.map(|row| format!("warmcast_{}", row.split_once('`').unwrap().0));
    // It is there with a switch only, and is looked at where shards are.
    names.filter(|name| name != "warmcast_shard_lag_seconds").collect()
}
