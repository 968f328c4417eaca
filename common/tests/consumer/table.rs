//! A real state table: an embedded DynamoDB server on a free loopback port.

use std::net::SocketAddr;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::AttributeValue;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use warmcast_common::aws::sdk_config;
use warmcast_common::config::{Secret, ServiceConfig, StaticCredentials};
use warmcast_common::consumer::Checkpoint;
use warmcast_common::consumer::store::{Lease, StateStore};

/// The server and its table. Dropping it stops the server.
pub(crate) struct Table {
    pub(crate) store: StateStore,
    pub(crate) client: Client,
    pub(crate) address: SocketAddr,
    _server: JoinSet<()>,
}

impl Table {
    /// A server with an empty state table.
    pub(crate) async fn start() -> Self {
        let table = Self::start_without_table().await;
        table.store.ensure_table(true).await.expect("the state table is created");
        table
    }

    /// A server without any table.
    pub(crate) async fn start_without_table() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let database = dynoxide::Database::memory().expect("a database in memory");
        let mut server = JoinSet::new();
        server.spawn(async move {
            // It ends with the set that owns it.
            dynoxide::server::serve_with_shutdown(listener, database, std::future::pending())
                .await
                .expect("the embedded server runs");
        });
        let client = client(address).await;
        Self { store: StateStore::new(client.clone(), "state"), client, address, _server: server }
    }

    /// The leases of a stream.
    pub(crate) async fn leases(&self, stream: &str) -> Vec<Lease> {
        self.store.leases(stream).await.expect("leases can be read")
    }

    /// The lease of a shard, if there is one.
    pub(crate) async fn lease(&self, stream: &str, shard: &str) -> Option<Lease> {
        self.leases(stream).await.into_iter().find(|lease| *lease.shard == *shard)
    }

    /// How far a shard got; `None` without a lease.
    pub(crate) async fn checkpoint(&self, stream: &str, shard: &str) -> Option<Checkpoint> {
        self.lease(stream, shard).await.map(|lease| lease.checkpoint)
    }

    /// The gaps of a stream: the shard, and the checkpoint after which data is missing.
    pub(crate) async fn gaps(&self, stream: &str) -> Vec<(String, String)> {
        let answer = self
            .client
            .query()
            .table_name("state")
            .consistent_read(true)
            .key_condition_expression("pk = :pk")
            .expression_attribute_values(":pk", AttributeValue::S(format!("gap#{stream}")))
            .send()
            .await
            .expect("gaps can be read");
        let text = |value: &AttributeValue| value.as_s().expect("a string").clone();
        answer
            .items()
            .iter()
            .map(|item| {
                let (sk, at_ms) = (text(&item["sk"]), item["at_ms"].as_n().expect("a number"));
                let shard = sk.strip_suffix(&format!("#{at_ms}")).expect("sk is SHARD#TIME");
                (shard.to_owned(), text(&item["after"]))
            })
            .collect()
    }
}

/// A client of the server at `address`.
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
