//! Logging in with tokens that change, and passwords that do.

use std::{
    collections::BTreeSet,
    fs,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use aws_credential_types::{
    Credentials,
    provider::{self, ProvideCredentials, SharedCredentialsProvider, error::CredentialsError, future},
};
use redis::aio::MultiplexedConnection;
use tokio::time::{Instant, sleep};
use warmcast_cache::{
    Cache, CacheConfig, ConnectError, EntryReads, Iam, Outcome, Password, ReadFrom, Secret, token::token,
};

use crate::{
    changes::{RECOVERED_WITHIN, apply, apply_at_last, keys, payloads, put},
    support::RedisServer,
    tls::Certificates,
};

const USER: &str = "warmcast-writer";

/// How long after it was signed a token may be shown here: what it says of the time is a second exactly.
const SIGNED_WITHIN: u64 = 30;

/// Credentials that are others each time, and a server that takes the tokens of the latest only, as if those of before
/// had run out. (Those of the two before them: a connection may be about to show one.)
#[derive(Debug)]
struct Identity {
    server: MultiplexedConnection,
    given: AtomicUsize,
    has_any: AtomicBool,
    tokens: Mutex<Vec<Vec<String>>>,
}

impl Identity {
    fn iam(self: &Arc<Self>) -> Iam {
        let shared = SharedCredentialsProvider::new(Shared(Arc::clone(self)));
        Iam::new("profiles-cache", "eu-west-1", shared)
    }

    async fn give(&self) -> provider::Result {
        if !self.has_any.load(Ordering::Relaxed) {
            return Err(CredentialsError::provider_error("none today"));
        }
        let number = self.given.fetch_add(1, Ordering::Relaxed);
        let credentials = Credentials::from_keys(format!("AKID{number}"), "hunter2", None);
        let iam =
            Iam::new("profiles-cache", "eu-west-1", SharedCredentialsProvider::new(credentials.clone()));
        let now = SystemTime::now();
        let signed = |second| {
            token(&iam, USER, &credentials, now + Duration::from_secs(second)).unwrap().expose().to_owned()
        };
        let taken = {
            let mut tokens = self.tokens.lock().unwrap();
            tokens.push((0..SIGNED_WITHIN).map(signed).collect());
            tokens.iter().rev().take(3).flatten().map(|token| format!(">{token}")).collect::<Vec<_>>()
        };
        let mut command = redis::cmd("ACL");
        command.arg("SETUSER").arg(USER).arg(&["reset", "on", "~*", "&*", "+@all"]).arg(taken);
        let () = command.query_async(&mut self.server.clone()).await.unwrap();
        Ok(credentials)
    }
}

#[derive(Debug)]
struct Shared(Arc<Identity>);

impl ProvideCredentials for Shared {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.0.give())
    }
}

struct World {
    server: RedisServer,
    identity: Arc<Identity>,
    config: CacheConfig,
    _certificates: Certificates,
}

impl World {
    async fn start(renew_after_ms: u64, replace_after_ms: u64) -> Self {
        let certificates = Certificates::new("127.0.0.1");
        let (server, config) = certificates.start("no");
        let identity = Arc::new(Identity {
            server: server.admin().await,
            given: AtomicUsize::new(0),
            has_any: AtomicBool::new(true),
            tokens: Mutex::default(),
        });
        let iam = Iam {
            renew_after: Duration::from_millis(renew_after_ms),
            replace_after: Duration::from_millis(replace_after_ms),
            ..identity.iam()
        };
        let config = CacheConfig { username: Some(USER.to_owned()), iam: Some(iam), ..config };
        Self { server, identity, config, _certificates: certificates }
    }

    /// Which connections the user has.
    async fn connections(&self) -> BTreeSet<String> {
        let list: String =
            redis::cmd("CLIENT").arg("LIST").query_async(&mut self.server.admin().await).await.unwrap();
        let is_ours = |line: &&str| line.contains(&format!(" user={USER} "));
        let id = |line: &str| line.split(' ').next().unwrap().to_owned();
        list.lines().filter(is_ours).map(id).collect()
    }

    /// How often anybody logged in, and how often that was refused.
    async fn logins(&self) -> (u64, u64) {
        let mut command = redis::cmd("INFO");
        let stats: String =
            command.arg("commandstats").query_async(&mut self.server.admin().await).await.unwrap();
        let line = stats.lines().find(|line| line.starts_with("cmdstat_auth:")).unwrap();
        let field = |name: &str| {
            let fields = line.split([':', ',']);
            fields.filter_map(|field| field.split_once('=')).find(|(of, _)| *of == name).unwrap().1.parse()
        };
        (field("calls").unwrap(), field("failed_calls").unwrap())
    }

    /// Applies changes, none of which may fail, until it is so.
    async fn apply_until(&self, cache: &Cache, what: &str, is_so: impl AsyncFn() -> bool) {
        let deadline = Instant::now() + RECOVERED_WITHIN;
        let mut sequence = 0;
        while !is_so().await {
            sequence += 1;
            for answer in apply(cache, &[put("user-0", sequence), put("user-1", sequence)]).await {
                assert!(matches!(answer, Ok(Outcome::Applied | Outcome::Stale)), "{answer:?}");
            }
            assert!(Instant::now() < deadline, "waited {RECOVERED_WITHIN:?} until {what}");
            sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test]
async fn open_connections_log_in_with_token_after_token_and_no_call_fails() {
    let world = World::start(400, 60_000).await;
    let cache = Cache::connect(world.config.clone()).await.unwrap();
    let reads = EntryReads::connect(world.config.clone(), ReadFrom::Primary).await.unwrap();
    let given = || world.identity.given.load(Ordering::Relaxed);
    world.apply_until(&cache, "all connections are open", async || world.connections().await.len() > 4).await;
    let before = world.connections().await;
    // One token serves all connections that are opened in these moments, of one cache.
    assert!(given() < before.len(), "{} for {before:?}", given());
    let until = given() + 8;
    world.apply_until(&cache, "the tokens were others 8 times", async || given() >= until).await;
    assert_eq!(payloads(&reads, &keys(1)).await.len(), 1);
    assert!(world.connections().await.is_superset(&before), "the same connections");
    let (logins, refused) = world.logins().await;
    assert!(logins >= 2 * before.len() as u64, "{logins}");
    assert_eq!(refused, 0);
}

#[tokio::test]
async fn a_connection_that_cannot_log_in_again_is_replaced_while_it_still_works() {
    let world = World::start(100, 300).await;
    let cache = Cache::connect(world.config.clone()).await.unwrap();
    world.identity.has_any.store(false, Ordering::Relaxed);
    world
        .apply_until(&cache, "all connections are open", async || world.connections().await.len() >= 4)
        .await;
    let before = world.connections().await;
    let is_replaced = async || world.connections().await.is_disjoint(&before);
    world.apply_until(&cache, "all are others", is_replaced).await;
    assert_eq!(*cache.failovers().borrow(), 0, "a connection that was replaced is no loss");

    // Nor can a new one be had: the old one is used for as long as the server lets it.
    let mut command = redis::cmd("ACL");
    command.arg("SETUSER").arg(USER).arg("resetpass");
    let () = command.query_async(&mut world.server.admin().await).await.unwrap();
    let refused = world.logins().await.1;
    let is_refused = async || world.logins().await.1 > refused;
    world.apply_until(&cache, "a new one was refused", is_refused).await;
    for sequence in 1_000..1_020 {
        assert_eq!(apply(&cache, &[put("user-0", sequence)]).await, [Ok(Outcome::Applied)]);
    }
}

#[tokio::test]
async fn what_cannot_be_used_with_iam_is_refused_and_missing_credentials_are_told() {
    let world = World::start(1_000, 2_000).await;
    let refused = async |config: CacheConfig| Cache::connect(config).await.unwrap_err();
    let iam = world.config.iam.clone().unwrap();
    for (config, named) in [
        (CacheConfig { tls: None, ..world.config.clone() }, "needs TLS"),
        (CacheConfig { username: None, ..world.config.clone() }, "needs a username"),
        (
            CacheConfig { password: Some(Secret::new("hunter2").into()), ..world.config.clone() },
            "give one of the two",
        ),
        (
            CacheConfig {
                iam: Some(Iam { replace_after: Duration::from_hours(12), ..iam.clone() }),
                ..world.config.clone()
            },
            "12 hours",
        ),
        (
            CacheConfig {
                iam: Some(Iam { cache_name: "a/b".to_owned(), ..iam.clone() }),
                ..world.config.clone()
            },
            "cache's name",
        ),
    ] {
        let error = refused(config).await;
        assert!(matches!(&error, ConnectError::Settings { .. }), "{error}");
        assert!(error.to_string().contains(named), "{error}");
    }
    world.identity.has_any.store(false, Ordering::Relaxed);
    let error = refused(world.config.clone()).await;
    assert!(matches!(&error, ConnectError::Token { .. }) && error.is_retryable(), "{error}");
    assert!(error.to_string().contains("none today"), "{error}");
}

#[tokio::test]
async fn a_password_that_changes_in_its_file_is_shown_by_the_next_connection() {
    let server = RedisServer::start();
    let file = server.directory().join("password");
    let change = async |password: &str| {
        fs::write(&file, format!("{password}\n")).unwrap();
        let mut command = redis::cmd("ACL");
        let rules = ["reset", "on", "~*", "&*", "+@all", &format!(">{password}")];
        command.arg("SETUSER").arg(USER).arg(&rules);
        let () = command.query_async(&mut server.admin().await).await.unwrap();
    };
    change("hunter2").await;
    let config = CacheConfig {
        username: Some(USER.to_owned()),
        password: Some(Password::File(file.clone())),
        ..server.config()
    };
    let cache = Cache::connect(config.clone()).await.unwrap();
    change("hunter3").await;
    assert_eq!(apply(&cache, &[put("user-0", 1)]).await, [Ok(Outcome::Applied)]);
    let mut command = redis::cmd("CLIENT");
    let killed: u64 =
        command.arg(&["KILL", "USER", USER]).query_async(&mut server.admin().await).await.unwrap();
    assert!(killed > 0);
    assert_eq!(apply_at_last(&cache, &[put("user-0", 2)]).await.len(), 1);

    fs::write(&file, "\n").unwrap();
    let error = Cache::connect(config).await.unwrap_err();
    assert!(matches!(&error, ConnectError::Settings { .. }), "{error}");
    assert!(error.to_string().contains("it is empty"), "{error}");
}
