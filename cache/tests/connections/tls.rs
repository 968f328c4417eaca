//! TLS, with certificates made for the test.

use std::{fs, net::IpAddr, path::PathBuf};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use tempfile::TempDir;
use warmcast_cache::{
    Address, Cache, CacheConfig, ClientCertificate, ConnectError, EntryReads, Outcome, ReadFrom, Servers,
    TlsConfig,
};

use crate::{
    changes::{apply, keys, payloads, put},
    cluster::RedisCluster,
    support::{RedisServer, free_port},
};

/// An authority, and a server's and a client's certificate by it.
pub(crate) struct Certificates {
    directory: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Certificates {
    /// For a server with this name or address.
    pub(crate) fn new(name: &str) -> Self {
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // OpenSSL takes a certificate whose issuer has its own name for one that nobody else vouches for.
        authority.distinguished_name.push(DnType::CommonName, "authority");
        let authority_key = KeyPair::generate().unwrap();
        let pem = authority.self_signed(&authority_key).unwrap().pem();
        let issuer = Issuer::new(authority, authority_key);
        let certificates = Self { directory: tempfile::tempdir().unwrap(), issuer };
        certificates.write("ca.pem", &pem);
        certificates.issue("server", name, 4096);
        certificates.issue("client", "writer", 4096);
        certificates
    }

    /// A certificate for this name or address, until the end of this year.
    fn issue(&self, file: &str, name: &str, until: i32) {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![match name.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(name.try_into().unwrap()),
        }];
        params.not_after = rcgen::date_time_ymd(until, 12, 31);
        let key = KeyPair::generate().unwrap();
        self.write(&format!("{file}.pem"), &params.signed_by(&key, &self.issuer).unwrap().pem());
        self.write(&format!("{file}.key"), &key.serialize_pem());
    }

    fn write(&self, file: &str, pem: &str) {
        fs::write(self.path(file), pem).unwrap();
    }

    fn path(&self, file: &str) -> PathBuf {
        self.directory.path().join(file)
    }

    /// What a server is started with.
    fn arguments(&self, port: u16, auth_clients: &str) -> Vec<String> {
        [
            ("--tls-port", port.to_string()),
            ("--tls-cert-file", self.path("server.pem").to_str().unwrap().to_owned()),
            ("--tls-key-file", self.path("server.key").to_str().unwrap().to_owned()),
            ("--tls-ca-cert-file", self.path("ca.pem").to_str().unwrap().to_owned()),
            ("--tls-auth-clients", auth_clients.to_owned()),
        ]
        .into_iter()
        .flat_map(|(name, value)| [name.to_owned(), value])
        .collect()
    }

    pub(crate) fn start(&self, auth_clients: &str) -> (RedisServer, CacheConfig) {
        self.start_with(auth_clients, &[])
    }

    fn start_with(&self, auth_clients: &str, more: &[&str]) -> (RedisServer, CacheConfig) {
        let port = free_port();
        let arguments = self.arguments(port, auth_clients);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).chain(more.iter().copied()).collect();
        let server = RedisServer::start_with(&arguments, &[]);
        let address = Address::Tcp { host: "127.0.0.1".to_owned(), port };
        let config = CacheConfig {
            servers: Servers::Standalone(address),
            tls: Some(TlsConfig { ca_file: Some(self.path("ca.pem")), ..TlsConfig::default() }),
            ..server.config()
        };
        (server, config)
    }

    fn client(&self) -> ClientCertificate {
        ClientCertificate { certificate_file: self.path("client.pem"), key_file: self.path("client.key") }
    }
}

#[tokio::test]
async fn a_server_whose_certificate_is_trusted_is_used() {
    let certificates = Certificates::new("127.0.0.1");
    let (_server, config) = certificates.start("no");
    let cache = Cache::connect(config.clone()).await.unwrap();
    assert_eq!(apply(&cache, &[put("user-0", 1)]).await, [Ok(Outcome::Applied)]);
    let reads = EntryReads::connect(config, ReadFrom::Primary).await.unwrap();
    assert_eq!(payloads(&reads, &keys(1)).await, [Ok(Some("user-0 as of 1".to_owned()))]);
}

#[tokio::test]
async fn a_server_that_nobody_trusted_vouches_for_is_refused() {
    let certificates = Certificates::new("127.0.0.1");
    let (_server, config) = certificates.start("no");
    let others = Certificates::new("127.0.0.1");
    let tls = TlsConfig { ca_file: Some(others.path("ca.pem")), ..TlsConfig::default() };
    let error = Cache::connect(CacheConfig { tls: Some(tls), ..config }).await.unwrap_err();
    assert!(matches!(&error, ConnectError::Tls { .. }) && !error.is_retryable(), "{error}");
    assert!(error.to_string().contains("ca_file"), "{error}");
}

#[tokio::test]
async fn a_servers_name_is_verified_and_may_be_given() {
    let certificates = Certificates::new("cache.internal");
    let (_server, config) = certificates.start("no");
    let error = Cache::connect(config.clone()).await.unwrap_err();
    assert!(matches!(&error, ConnectError::Tls { .. }), "{error}");
    assert!(error.to_string().contains("cache.internal"), "{error}");

    let tls = TlsConfig { server_name: Some("cache.internal".to_owned()), ..config.tls.clone().unwrap() };
    Cache::connect(CacheConfig { tls: Some(tls), ..config }).await.unwrap();
}

#[tokio::test]
async fn a_server_that_asks_for_a_certificate_gets_ours() {
    let certificates = Certificates::new("127.0.0.1");
    let (_server, config) = certificates.start("yes");
    let error = Cache::connect(config.clone()).await.unwrap_err();
    assert!(error.to_string().contains("certificate"), "{error}");

    let tls = TlsConfig { client: Some(certificates.client()), ..config.tls.clone().unwrap() };
    Cache::connect(CacheConfig { tls: Some(tls), ..config }).await.unwrap();
}

#[tokio::test]
async fn a_certificate_of_ours_that_the_server_does_not_trust_is_told() {
    let certificates = Certificates::new("127.0.0.1");
    let (_server, config) = certificates.start("yes");
    let others = Certificates::new("127.0.0.1");
    let tls = TlsConfig { client: Some(others.client()), ..config.tls.clone().unwrap() };
    let error = Cache::connect(CacheConfig { tls: Some(tls), ..config }).await.unwrap_err();
    assert!(error.to_string().contains("certificate"), "{error}");
}

#[tokio::test]
async fn versions_of_tls_before_1_2_are_refused() {
    let certificates = Certificates::new("127.0.0.1");
    for (version, is_good) in [("TLSv1.3", true), ("TLSv1.2", true), ("TLSv1.1", false)] {
        let (_server, config) = certificates.start_with("no", &["--tls-protocols", version]);
        let connected = Cache::connect(config).await;
        assert_eq!(connected.is_ok(), is_good, "{version}: {connected:?}");
    }
}

#[tokio::test]
async fn a_servers_new_certificate_is_looked_at_with_each_new_connection() {
    let certificates = Certificates::new("127.0.0.1");
    let (server, config) = certificates.start("no");
    let config = CacheConfig { connections: 1, ..config };
    let cache = Cache::connect(config.clone()).await.unwrap();
    let reload = async || {
        let file = certificates.path("server.pem").to_str().unwrap().to_owned();
        let key = certificates.path("server.key").to_str().unwrap().to_owned();
        let mut command = redis::cmd("CONFIG");
        command.arg(&["SET", "tls-cert-file", &file, "tls-key-file", &key]);
        let () = command.query_async(&mut server.admin().await).await.unwrap();
    };
    // By the same authority: nothing has to be done.
    certificates.issue("server", "127.0.0.1", 4095);
    reload().await;
    Cache::connect(config.clone()).await.unwrap();
    certificates.issue("server", "127.0.0.1", 2020);
    reload().await;
    let error = Cache::connect(config).await.unwrap_err();
    assert!(matches!(&error, ConnectError::Tls { .. }), "{error}");
    assert!(error.to_string().to_lowercase().contains("expired"), "{error}");
    // Connections that are open stay so.
    assert_eq!(apply(&cache, &[put("user-0", 1)]).await, [Ok(Outcome::Applied)]);
}

#[tokio::test]
async fn certificates_that_cannot_be_read_are_named() {
    let certificates = Certificates::new("127.0.0.1");
    let (server, config) = certificates.start("no");
    let missing = TlsConfig { ca_file: Some("/nowhere/ca.pem".into()), ..TlsConfig::default() };
    let empty = server.directory().join("empty.pem");
    fs::write(&empty, "").unwrap();
    for (tls, named) in [
        (missing, "/nowhere/ca.pem"),
        (TlsConfig { ca_file: Some(empty), ..TlsConfig::default() }, "empty.pem"),
        (TlsConfig { server_name: Some("no name".to_owned()), ..config.tls.clone().unwrap() }, "no name"),
    ] {
        let error = Cache::connect(CacheConfig { tls: Some(tls), ..config.clone() }).await.unwrap_err();
        assert!(matches!(&error, ConnectError::Settings { .. }) && !error.is_retryable(), "{error}");
        assert!(error.to_string().contains(named), "{error}");
    }
}

#[tokio::test]
async fn a_cluster_that_is_asked_over_tls_is_used_over_tls() {
    let certificates = Certificates::new("127.0.0.1");
    let port = free_port();
    let arguments = certificates.arguments(port, "no");
    let mut arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    // Redis 7.0 names the ports of TLS only if nodes, too, talk TLS to each other.
    arguments.extend(["--tls-cluster", "yes"]);
    let cluster = RedisCluster::start_binary("redis-server", 1, 0, &arguments).await;
    let seed = Address::Tcp { host: "127.0.0.1".to_owned(), port };
    let config = CacheConfig {
        servers: Servers::Cluster(vec![seed]),
        tls: Some(TlsConfig { ca_file: Some(certificates.path("ca.pem")), ..TlsConfig::default() }),
        ..cluster.config()
    };
    let cache = Cache::connect(config).await.unwrap();
    assert_eq!(apply(&cache, &[put("user-0", 1)]).await, [Ok(Outcome::Applied)]);
}
