//! The dashboard and the alerts, held against a real Prometheus that scrapes both daemons.
//!
//! `cargo test -p warmcast-sandbox --test end_to_end panels -- --nocapture` prints every query with its answer.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tokio::net::TcpListener;
use tokio::process::Command;
use warmcast_sandbox::log::Log;
use warmcast_sandbox::process::Process;
use warmcast_sandbox::world::{World, WorldOptions};

use crate::support::*;

/// A Prometheus server of Debian's package, with this repository's rules.
struct Prometheus {
    address: String,
    log: std::sync::Arc<Log>,
    /// Dropping it ends it.
    _process: Process,
}

impl Prometheus {
    /// One that scrapes these endpoints once a second.
    async fn start(directory: &Path, aggregator: &str, cache_writer: &str, region: &str) -> Self {
        let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
        let target = |url: &str| url.trim_start_matches("http://").trim_end_matches('/').to_owned();
        let config = format!(
            "global: {{ scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s }}\n\
             rule_files: [\"{}\"]\n\
             scrape_configs:\n\
             - job_name: warmcast-aggregator\n  static_configs: [{{ targets: [\"{}\"] }}]\n\
             - job_name: warmcast-cache-writer\n  static_configs: [{{ targets: [\"{}\"], labels: {{ region: {region} }} }}]\n",
            repository().join("config/prometheus/warmcast.rules.yml").display(),
            target(aggregator),
            target(cache_writer),
        );
        let file = directory.join("prometheus.yml");
        std::fs::write(&file, config).unwrap();
        let log = Log::create("prometheus", directory).unwrap();
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", directory.join("prometheus").display()))
            .arg(format!("--web.listen-address={address}"));
        let process = Process::spawn("prometheus", command, &log).unwrap();
        Self { address, log, _process: process }
    }

    /// What an API call answers; nothing while it does not.
    async fn ask(&self, path: &str) -> Option<Value> {
        serde_json::from_str(&get(&format!("http://{}{path}", self.address)).await?).ok()
    }

    /// How many series answer a query; an error is its own.
    async fn answers(&self, query: &str) -> Result<usize, String> {
        let answer = self.ask(&format!("/api/v1/query?query={}", encoded(query))).await;
        let answer = answer.ok_or_else(|| format!("no answer\n{}", self.log.tail().join("\n")))?;
        match answer["data"]["result"].as_array() {
            Some(series) => Ok(series.len()),
            None => Err(answer.to_string()),
        }
    }
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// As a part of a URL's query.
fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() {
            encoded.push(char::from(byte));
        } else {
            write!(encoded, "%{byte:02X}").unwrap();
        }
        encoded
    })
}

/// The dashboard's queries, each with its panel's title, as Grafana would send them for all regions.
fn queries() -> Vec<(String, String)> {
    let file = std::fs::read_to_string(repository().join("config/grafana/warmcast.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&file).unwrap();
    let mut queries = Vec::new();
    collect(&dashboard["panels"], &mut queries);
    queries
}

fn collect(panels: &Value, queries: &mut Vec<(String, String)>) {
    for panel in panels.as_array().into_iter().flatten() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let query = target["expr"].as_str().unwrap();
            let query =
                query.replace("$region", ".*").replace("$__rate_interval", "30s").replace("$__range", "1m");
            queries.push((panel["title"].as_str().unwrap().to_owned(), query));
        }
        collect(&panel["panels"], queries);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_panel_and_every_rule_is_answered_by_a_prometheus_that_scrapes_both_daemons() {
    let options = WorldOptions { regions: 1, ..WorldOptions::default() };
    let world = World::start(&options).await.unwrap_or_else(|error| panic!("{error}"));
    let traffic = Traffic::start(&world);
    let writer = world.regions()[0].cache_writer();
    let aggregator_url =
        eventually("the aggregator's endpoint", || async { world.aggregator().admin_url() }).await;
    let writer_url = eventually("the cache-writer's endpoint", || async { writer.admin_url() }).await;
    let prometheus = Prometheus::start(world.directory(), &aggregator_url, &writer_url, "eu-west-1").await;
    let prometheus = &prometheus;

    let both = || async move { (prometheus.answers("up == 1").await == Ok(2)).then_some(()) };
    eventually("both daemons are scraped", both).await;
    for (title, query) in queries() {
        let answered = || async {
            let series =
                prometheus.answers(&query).await.unwrap_or_else(|error| panic!("{title}: {query}: {error}"));
            (series > 0).then_some(series)
        };
        let series = eventually(&format!("{title}: {query}"), answered).await;
        println!("{series:>3} series  {title}: {query}");
    }

    let rules = prometheus.ask("/api/v1/rules").await.unwrap();
    let groups = rules["data"]["groups"].as_array().unwrap();
    let rules: Vec<&Value> = groups.iter().flat_map(|group| group["rules"].as_array().unwrap()).collect();
    assert!(rules.len() > 30, "{rules:#?}");
    for rule in &rules {
        assert_eq!(rule["health"], "ok", "{rule:#}");
        assert_ne!(rule["state"], "firing", "{rule:#}");
    }
    println!("{} rules, none fires", rules.len());
    traffic.finish().await;
    stop(world).await;
}
