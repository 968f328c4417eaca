//! The endpoint over real connections.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock, mpsc};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{ACCEPT, ALLOW, AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{HeaderMap, Method, Request};
use prometheus_client::metrics::counter::Counter;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::config::{AdminConfig, TokenSource};
use super::server::{Admin, AdminError, Attended};
use crate::config::Secret;
use crate::health::Health;
use crate::http::{self, Bounds, send};
use crate::metrics::{Registry, registry};
use crate::telemetry::Recent;

const TOKEN: &str = "hunter2-hunter2-hunter2";
const PATIENCE: Duration = Duration::from_secs(60);

fn config() -> AdminConfig {
    AdminConfig {
        listen: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
        token: None,
        watermark_bound: Duration::from_secs(60),
    }
}

fn attended(health: &Health, registry: Registry) -> Attended {
    Attended {
        daemon: "aggregator",
        version: "1",
        worker: "w1".to_owned(),
        region: None,
        metrics: Arc::new(OnceLock::from(Arc::new(registry))),
        health: health.clone(),
        recent: Recent::default(),
        figures: Box::new(Vec::new),
    }
}

fn start(config: &AdminConfig, health: &Health) -> Admin {
    Admin::start(config, attended(health, registry())).unwrap().unwrap()
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap()
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

async fn ask(address: SocketAddr, request: Request<Full<Bytes>>) -> Answer {
    let bounds = Bounds { body_bytes_max: 1 << 20, within: PATIENCE };
    let http::Answer { status, headers, body } = send(&address.to_string(), request, bounds).await.unwrap();
    Answer { status, headers, text: body }
}

fn request(method: Method, path: &str, headers: &[(&str, &str)]) -> Request<Full<Bytes>> {
    let mut request = Request::builder().method(method).uri(path).header(HOST, "127.0.0.1");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::default()).unwrap()
}

async fn get(admin: &Admin, path: &str, headers: &[(&str, &str)]) -> Answer {
    ask(admin.address(), request(Method::GET, path, headers)).await
}

#[tokio::test]
async fn every_route_answers_and_says_what_a_browser_may_do_with_it() {
    let health = Health::default();
    let admin = start(&config(), &health);
    let types = [
        ("/", "text/html; charset=utf-8"),
        ("/metrics", "text/plain; version=0.0.4; charset=utf-8"),
        ("/healthz", "application/json"),
        ("/readyz", "application/json"),
        ("/status", "application/json"),
        ("/rates?after=0", "application/json"),
    ];
    for (path, media_type) in types {
        let answer = get(&admin, path, &[]).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
        assert_eq!(answer.header("content-type"), media_type, "{path}");
        assert_eq!(answer.header("cache-control"), "no-store");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        let policy = answer.header("content-security-policy");
        assert!(policy.starts_with("default-src 'none'; connect-src 'self'"), "{policy}");
        let head = ask(admin.address(), request(Method::HEAD, path, &[])).await;
        assert_eq!((head.status, &*head.text), (200, ""), "{path}");
    }
    admin.stop().await;
}

#[tokio::test]
async fn metrics_are_in_the_format_that_is_asked_for() {
    let (health, mut registry, counter) = (Health::default(), registry(), Counter::<u64>::default());
    registry.register("sent", "Sent", counter.clone());
    counter.inc_by(7);
    let admin = Admin::start(&config(), attended(&health, registry)).unwrap().unwrap();
    let plain = get(&admin, "/metrics", &[]).await;
    assert!(
        plain.text.contains("# TYPE warmcast_sent_total counter\nwarmcast_sent_total 7\n"),
        "{}",
        plain.text
    );
    assert!(!plain.text.contains("# EOF"));
    let open =
        get(&admin, "/metrics", &[(ACCEPT.as_str(), "application/openmetrics-text;version=1.0.0,*/*;q=0.1")])
            .await;
    assert_eq!(open.header("content-type"), crate::metrics::CONTENT_TYPE);
    assert!(
        open.text.contains("# TYPE warmcast_sent counter\n") && open.text.ends_with("# EOF\n"),
        "{}",
        open.text
    );
    admin.stop().await;
}

#[tokio::test]
async fn who_has_no_token_sees_whether_it_is_ready_and_not_why() {
    let health = Health::default();
    health.condition("redis").unmet("no answer from redis.internal:6379");
    let admin =
        start(&AdminConfig { token: Some(TokenSource::Value(Secret::new(TOKEN))), ..config() }, &health);
    let right = format!("Bearer {TOKEN}");
    for path in ["/metrics", "/status", "/rates", "/nowhere"] {
        for wrong in [&[][..], &[("authorization", "Bearer hunter2")], &[("authorization", TOKEN)]] {
            let refused = get(&admin, path, wrong).await;
            assert_eq!(
                (refused.status, refused.header("www-authenticate")),
                (401, "Bearer realm=\"warmcast\""),
                "{path}"
            );
            assert_eq!(refused.header("cache-control"), "no-store");
        }
        let admitted = get(&admin, path, &[(AUTHORIZATION.as_str(), &right)]).await;
        assert_eq!(admitted.status, if path == "/nowhere" { 404 } else { 200 }, "{path}");
        assert!(!admitted.text.contains(TOKEN));
    }
    assert_eq!(get(&admin, "/", &[]).await.status, 200, "the page has nothing in it");
    assert_eq!(get(&admin, "/healthz", &[]).await.status, 200);
    let (outside, inside) = (
        get(&admin, "/readyz", &[]).await,
        get(&admin, "/readyz", &[(AUTHORIZATION.as_str(), &right)]).await,
    );
    assert_eq!((outside.status, inside.status), (503, 503));
    assert_eq!(outside.json()["conditions"][0], serde_json::json!({"name": "redis", "met": false}));
    assert_eq!(inside.json()["conditions"][0]["why"], "no answer from redis.internal:6379");
    assert!(!format!("{admin:?}").contains(TOKEN));
    admin.stop().await;
}

#[tokio::test]
async fn what_only_reads_takes_neither_other_methods_nor_bodies_nor_the_names_of_others() {
    let admin = start(&config(), &Health::default());
    for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS] {
        let refused = ask(admin.address(), request(method.clone(), "/status", &[])).await;
        assert_eq!((refused.status, refused.header(ALLOW.as_str())), (405, "GET,HEAD"), "{method}");
    }
    let mut with_body = request(Method::GET, "/status", &[(CONTENT_TYPE.as_str(), "text/plain")]);
    *with_body.body_mut() = Full::from("x".repeat(1_000));
    assert_eq!(ask(admin.address(), with_body).await.status, 413);
    let mut rebound = request(Method::GET, "/status", &[]);
    rebound.headers_mut().insert(HOST, "evil.example:9640".parse().unwrap());
    assert_eq!(ask(admin.address(), rebound).await.status, 403);
    assert_eq!(get(&admin, "/etc/passwd", &[]).await.status, 404);
    admin.stop().await;
}

#[tokio::test]
async fn a_request_whose_head_does_not_end_is_refused() {
    let admin = start(&config(), &Health::default());
    let mut stream = TcpStream::connect(admin.address()).await.unwrap();
    let head = format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}", "x".repeat(64 * 1024));
    // It may be closed before all of it is written.
    let _closed = stream.write_all(head.as_bytes()).await;
    let mut answer = Vec::new();
    let _reset = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{answer}");
    assert_eq!(get(&admin, "/healthz", &[]).await.status, 200);
    admin.stop().await;
}

#[tokio::test]
async fn a_port_that_is_taken_is_refused_and_the_key_is_named_and_a_stopped_endpoint_gives_its_port_back() {
    let admin = start(&config(), &Health::default());
    let taken = AdminConfig { listen: Some(admin.address()), ..config() };
    let error = Admin::start(&taken, attended(&Health::default(), registry())).unwrap_err();
    assert!(matches!(error, AdminError::Listen { .. }));
    let said = error.to_string();
    assert!(
        said.starts_with(&format!("admin.listen: {} cannot be listened on: ", admin.address())),
        "{said}"
    );
    admin.stop().await;
    let again = start(&taken, &Health::default());
    assert_eq!(get(&again, "/healthz", &[]).await.status, 200);
    drop(again);
    assert!(TcpStream::connect(taken.listen.unwrap()).await.is_err(), "a dropped endpoint is stopped");
    let none = AdminConfig { listen: None, ..config() };
    assert!(Admin::start(&none, attended(&Health::default(), registry())).unwrap().is_none());
}

#[tokio::test]
async fn the_endpoint_answers_while_the_runtime_that_works_is_stuck_and_says_so() {
    let health = Health::with_patience(Duration::from_secs(2));
    let admin = start(&config(), &health);
    let (let_go, held) = mpsc::sync_channel::<()>(1);
    let end = CancellationToken::new();
    let (working, until) = (health.clone(), end.clone());
    // The runtime that does the work, with a task that blocks its only thread.
    let work = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let blocking = async { held.recv().unwrap() };
        runtime.block_on(async { tokio::join!(working.pulse(&until), blocking) });
    });
    until_status(&admin, "/healthz", 503).await;
    let stuck = get(&admin, "/healthz", &[]).await.json();
    assert_eq!(stuck["alive"], false);
    let status = get(&admin, "/status", &[]).await.json();
    assert_eq!(status["verdict"]["needs"][0]["kind"], "stuck", "{status:#}");
    let_go.send(()).unwrap();
    until_status(&admin, "/healthz", 200).await;
    end.cancel();
    work.join().unwrap();
    admin.stop().await;
}

async fn until_status(admin: &Admin, path: &str, status: u16) {
    let deadline = Instant::now() + PATIENCE;
    while get(admin, path, &[]).await.status != status {
        assert!(Instant::now() < deadline, "{path} is never {status}");
        sleep(Duration::from_millis(50)).await;
    }
}
