//! The admin endpoint's page, as people see it: in a real browser, at a desk's width and at a phone's.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;
use warmcast_common::admin::{Admin, AdminConfig, Attended, Figure, FleetLook, Reading, TokenSource};
use warmcast_common::config::Secret;
use warmcast_common::health::Health;
use warmcast_common::metrics;
use warmcast_common::telemetry::Recent;
use warmcast_sandbox::browser::{Browser, Viewport};
use warmcast_sandbox::world::{World, WorldOptions};

use crate::support::*;

const DESK: Viewport = Viewport { width: 1280, height: 800, is_dark: false };
const PHONE: Viewport = Viewport { width: 360, height: 740, is_dark: true };
/// What would run a script if a browser took it for HTML.
const HOSTILE: &str = "<img src=x onerror=\"document.title='taken';taken=1\">";
const TOKEN: &str = "a-token-for-the-test";

/// The page has nothing in it that text could have brought in, and fits the screen.
async fn assert_inert_and_fitting(browser: &mut Browser, at: Viewport) {
    let inert = "document.querySelectorAll('img, iframe, object, embed, [onerror]').length === 0 \
                 && document.scripts.length === 1 && typeof taken === 'undefined' && document.title !== 'taken'";
    assert_eq!(browser.evaluate(inert).await.unwrap(), true);
    let widths = "[document.documentElement.scrollWidth, document.body.scrollWidth].map(Math.ceil)";
    let widths: Vec<u32> = serde_json::from_value(browser.evaluate(widths).await.unwrap()).unwrap();
    assert!(widths.iter().all(|width| *width <= at.width), "{widths:?} at {at:?}");
}

/// It has asked the endpoint, and nobody else.
fn assert_asked_only(browser: &Browser, url: &str) {
    let elsewhere: Vec<&String> =
        browser.requests().iter().filter(|asked| !asked.starts_with(url) && *asked != "data:,").collect();
    assert!(elsewhere.is_empty() && browser.requests().len() > 2, "{:?}", browser.requests());
}

async fn text_of(browser: &mut Browser, selector: &str) -> String {
    let text = browser.evaluate(&format!("document.querySelector('{selector}').textContent")).await.unwrap();
    text.as_str().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pages_of_a_real_fleet_show_it_and_say_when_contact_is_lost() {
    let options = WorldOptions { regions: 1, ..WorldOptions::default() };
    let mut world = World::start_servers(&options).await.unwrap_or_else(|error| panic!("{error}"));
    world.aggregator_mut().set(&format!("worker_id={HOSTILE}"));
    world.start_daemons().unwrap();
    world.wait_until_ready().await.unwrap_or_else(|error| panic!("{error}"));
    let mut browser = Browser::start().await.unwrap();
    let url = eventually("the aggregator's endpoint", || async { world.aggregator().admin_url() }).await;
    for at in [DESK, PHONE] {
        browser.look(at).await.unwrap();
        browser.open(&url).await.unwrap();
        let fine = "document.querySelector('#verdict .line').textContent === '✓ Fine: nothing needs a look'";
        browser.until(fine, PATIENCE).await.unwrap();
        let region = "document.querySelector('#regions article h3').textContent === 'eu-west-1' \
                      && document.querySelector('#regions .state').textContent === '✓ fed' \
                      && document.querySelectorAll('#regions svg[aria-label*=\"now; from\"]').length >= 3";
        browser.until(region, PATIENCE).await.unwrap();
        let workers = text_of(&mut browser, "#workers").await;
        assert!(workers.contains(HOSTILE), "{workers}");
        assert!(text_of(&mut browser, "#streams").await.contains("profiles"));
        assert_inert_and_fitting(&mut browser, at).await;
    }
    assert_asked_only(&browser, &url);

    let writer = world.regions()[0].cache_writer();
    let writer_url = eventually("the cache-writer's endpoint", || async { writer.admin_url() }).await;
    browser.open(&writer_url).await.unwrap();
    let warm = "document.querySelector('#regions .state')?.textContent === '✓ warm' \
                && document.querySelector('#conditions').textContent.startsWith('✓ ready')";
    browser.until(warm, PATIENCE).await.unwrap();
    assert!(text_of(&mut browser, "#regions").await.contains("changes applied"));
    assert_inert_and_fitting(&mut browser, PHONE).await;
    assert_eq!(browser.complaints(), [""; 0]);

    browser.open(&url).await.unwrap();
    browser.until("!document.getElementById('main').hidden", PATIENCE).await.unwrap();
    world.aggregator_mut().kill().await.unwrap();
    browser.until("!document.getElementById('lost').hidden", PATIENCE).await.unwrap();
    let lost = text_of(&mut browser, "#lost").await;
    assert!(lost.starts_with("✗ Lost contact since ") && lost.contains("What is below is of "), "{lost}");
    let verdict = text_of(&mut browser, "#verdict .line").await;
    assert_eq!(verdict, "✗ Not known any more: contact is lost");
    browser.stop().await.unwrap();
    stop(world).await;
}

/// A fleet whose names and reasons are scripts.
struct Hostile;

impl FleetLook for Hostile {
    async fn look(&mut self) -> Result<Value, anyhow::Error> {
        Ok(report())
    }
}

/// A report in which everything that can be wrong is, in names that nobody should have.
fn report() -> Value {
    let region = |name: &str, parked: Value| {
        json!({
            "region": name, "configured": true, "parked": parked, "shards_without": 0,
            "watermark": {"ms": null, "age_ms": null, "why": HOSTILE},
            "backfills": [{"table": HOSTILE, "asked_ms": 1, "why": HOSTILE}],
            "warmth": {"is_warm": false, "watermark_age_ms": null, "waits_for": [HOSTILE]},
        })
    };
    let parked =
        json!({"shards": 3, "since_ms": 1, "behind_ms": 90_000, "kept_for_ms": 1_000, "why": {HOSTILE: 3}});
    json!({
        "at_ms": 1,
        "problems": [{"kind": "gap", "text": HOSTILE}, {"kind": "parked", "text": "x".repeat(300)}],
        "workers": [{"worker": HOSTILE, "state": "silent", "still_ms": 9_000, "leaving": false, "leases": 1,
                     "leases_max": 2, "capacity": 100, "bytes_per_s": 1, "behind_ms": null}],
        "streams": [{"table": HOSTILE, "stream": HOSTILE, "superseded": false, "is_read": true, "held": 1, "free": 1,
                     "waiting": 0, "finished": 0, "settling": 0, "parked": 1, "bytes_per_s": 1, "behind_ms": 1, "unbounded": 1}],
        "shards": [{"table": HOSTILE, "shard": "s".repeat(100), "state": "held", "owner": HOSTILE, "checkpoint": "after:1",
                    "behind_ms": null, "bytes_per_s": 1, "is_settling": true, "seen_ms": null, "guest": null,
                    "parked": [{"region": HOSTILE, "checkpoint": "after:1", "since_ms": 1, "why": HOSTILE}]}],
        "watermark": {"ms": null, "age_ms": null, "why": HOSTILE},
        "regions": [region(HOSTILE, parked), region("eu-west-1", Value::Null)],
        "gaps": [{"table": HOSTILE, "shard": HOSTILE, "after": HOSTILE, "at_ms": 1, "is_answered": false}],
        "jobs": [{"job": HOSTILE, "what": HOSTILE, "began_ms": 1}],
        "dead_letters": {"place": HOSTILE, "letters": 1, "is_all": true, "last_ms": 1, "problem": null,
                         "groups": [{"source": HOSTILE, "class": "refused", "letters": 1}]},
    })
}

fn hostile_endpoint() -> Admin {
    let config = AdminConfig {
        listen: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
        token: Some(TokenSource::Value(Secret::new(TOKEN))),
        watermark_bound: Duration::from_secs(60),
    };
    let (health, recent) = (Health::default(), Recent::default());
    health.condition("leases").unmet(HOSTILE);
    health.remark(format!("region {HOSTILE}")).unmet(HOSTILE);
    let layer =
        tracing_subscriber::layer::SubscriberExt::with(tracing_subscriber::registry(), recent.layer());
    tracing::subscriber::with_default(layer, || tracing::error!(region = HOSTILE, "{HOSTILE}"));
    let of = |region: &str| Figure::of_region("frames_sent", region.into(), Reading::Counter(7));
    let figures = vec![of(HOSTILE), of("eu-west-1"), Figure::new("lag_seconds", Reading::Gauge(Some(1.5)))];
    let attended = Attended {
        daemon: "aggregator",
        version: "1",
        worker: HOSTILE.to_owned(),
        region: None,
        metrics: Arc::new(OnceLock::from(Arc::new(metrics::registry()))),
        health,
        recent,
        figures: Box::new(move || figures.clone()),
    };
    Admin::start(&config, attended).unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_asks_for_its_token_once_and_whatever_names_and_errors_hold_is_only_text() {
    let admin = hostile_endpoint();
    let (surveys, mut looking) = (admin.surveys(), JoinSet::new());
    looking.spawn(async move { surveys.make(Hostile).await });
    let url = format!("http://{}", admin.address());
    let mut browser = Browser::start().await.unwrap();
    browser.look(PHONE).await.unwrap();
    browser.open(&url).await.unwrap();
    browser.until("!document.getElementById('ask').hidden", PATIENCE).await.unwrap();
    let enter = |token: &str| {
        format!(
            "document.getElementById('token').value = '{token}'; document.getElementById('ask').requestSubmit()"
        )
    };
    browser.evaluate(&enter("another")).await.unwrap();
    browser
        .until("document.getElementById('refused').textContent === 'That is not it.'", PATIENCE)
        .await
        .unwrap();
    assert_inert_and_fitting(&mut browser, PHONE).await;
    browser.evaluate(&enter(TOKEN)).await.unwrap();
    for at in [PHONE, DESK] {
        browser.look(at).await.unwrap();
        // It is not asked for again.
        browser.open(&url).await.unwrap();
        browser.until("!document.getElementById('main').hidden", PATIENCE).await.unwrap();
        browser.until("document.querySelectorAll('#verdict li').length >= 4", PATIENCE).await.unwrap();
        let state = "[...document.querySelectorAll('#regions article')].some(of => of.textContent.includes('does not answer'))";
        browser.until(state, PATIENCE).await.unwrap();
        let shown: BTreeMap<&str, bool> = {
            let mut shown = BTreeMap::new();
            let parts = [
                "#who",
                "#verdict",
                "#conditions",
                "#regions",
                "#errors",
                "#fleet",
                "#workers",
                "#streams",
                "#shards",
                "#gaps",
                "#h-letters",
                "#letters",
                "#jobs",
            ];
            for part in parts {
                shown.insert(part, text_of(&mut browser, part).await.contains(HOSTILE));
            }
            shown
        };
        assert!(shown.values().all(|is_shown| *is_shown), "{shown:?}");
        assert!(text_of(&mut browser, "#regions").await.contains("parked on 3 shards since "));
        assert_inert_and_fitting(&mut browser, at).await;
    }
    assert_asked_only(&browser, &url);
    browser.stop().await.unwrap();
    looking.shutdown().await;
    admin.stop().await;
}
