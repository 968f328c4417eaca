//! A DynamoDB that can be started later, the two stores, and letters.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use warmcast_common::aws::sdk_config;
use warmcast_common::config::{Secret, ServiceConfig, StaticCredentials};
use warmcast_common::dead_letter::{
    DeadLetterConfig, Envelope, Form, Letter, LetterStore, Origin, ReasonClass, StoreConfig,
};

pub(crate) const TABLE: &str = "state-dead-letters";
pub(crate) const RETENTION_S: u64 = 7 * 86_400;

/// An embedded DynamoDB. Dropping it stops it.
pub(crate) struct Server {
    pub(crate) client: Client,
    _server: JoinSet<()>,
}

impl Server {
    /// With no table, on a free port.
    pub(crate) async fn start() -> Self {
        Self::start_on(TcpListener::bind("127.0.0.1:0").await.unwrap()).await
    }

    pub(crate) async fn start_on(listener: TcpListener) -> Self {
        let client = client(listener.local_addr().unwrap()).await;
        let database = dynoxide::Database::memory().unwrap();
        let mut server = JoinSet::new();
        server.spawn(async move {
            // It ends with the set that owns it.
            dynoxide::server::serve_with_shutdown(listener, database, std::future::pending()).await.unwrap();
        });
        Self { client, _server: server }
    }

    /// The table of letters, which is created when that is needed, or not.
    pub(crate) fn letters(&self, create: bool) -> LetterStore {
        table(self.client.clone(), create)
    }
}

pub(crate) fn table(client: Client, create: bool) -> LetterStore {
    let retention = Duration::from_secs(RETENTION_S);
    let store = StoreConfig::Table { table: TABLE.to_owned(), create, retention };
    LetterStore::open(&DeadLetterConfig { store }, client).unwrap()
}

/// A directory of letters.
pub(crate) async fn directory(path: &Path) -> LetterStore {
    let store = StoreConfig::Directory { directory: path.to_owned(), bytes_max: 64 << 20 };
    // It is never called.
    let client = client("127.0.0.1:1".parse().unwrap()).await;
    LetterStore::open(&DeadLetterConfig { store }, client).unwrap()
}

pub(crate) async fn client(address: SocketAddr) -> Client {
    let service = ServiceConfig {
        region: Some("eu-west-1".to_owned()),
        endpoint: Some(format!("http://{address}")),
        credentials: Some(StaticCredentials {
            access_key_id: "test".to_owned(),
            secret_access_key: Secret::new("test"),
            session_token: None,
        }),
    };
    Client::new(&sdk_config(&service).await)
}

/// A letter with everything there can be.
pub(crate) fn letter(position: &str, bytes: &[u8]) -> Letter {
    let origin = Origin {
        source: "cache-writer/eu-west-1".into(),
        stream: "warmcast".into(),
        shard: Some("shard-1".into()),
        position: Some(position.into()),
    };
    let envelope = Envelope {
        origin,
        index: Some(7),
        table: Some("profiles".into()),
        key: Some(b"user\xff1".to_vec()),
        class: ReasonClass::Refused,
        reason: format!("reason {position}"),
        form: Form::Change,
    };
    Letter::new(envelope, bytes)
}

/// A letter with as little as there can be.
pub(crate) fn bare_letter(bytes: &[u8]) -> Letter {
    let origin = Origin { source: "aggregator".into(), stream: "s".into(), shard: None, position: None };
    let envelope = Envelope {
        origin,
        index: None,
        table: None,
        key: None,
        class: ReasonClass::UndecodableRecord,
        reason: String::new(),
        form: Form::Frame,
    };
    Letter::new(envelope, bytes)
}

/// Bytes that no compression makes smaller.
pub(crate) fn noise(len: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(7);
    (0..len).map(|_| random.u8(..)).collect()
}
