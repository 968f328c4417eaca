//! A DynamoDB with the lease table of a KCL application, and a stream of which only the listing matters.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use warmcast_common::aws::{CallError, sdk_config};
use warmcast_common::config::{Secret, ServiceConfig, StaticCredentials};
use warmcast_common::consumer::kcl::{Import, ImportArgs, ImportError, Report};
use warmcast_common::consumer::source::{Listing, ReadPace};
use warmcast_common::consumer::store::{StateStore, StreamState};
use warmcast_common::consumer::{Checkpoint, Page, Shard, SourceError, StreamSource, WatermarkRule};
use warmcast_common::daemon::OutputFormat;
use warmcast_common::retry::Class;

/// The name of the stream in our leases.
pub(crate) const STREAM: &str =
    "arn:aws:dynamodb:eu-west-1:123456789012:table/profiles/stream/2026-01-02T03:04:05.678";
/// The same, as the adapter for DynamoDB Streams names it in an application with several streams.
pub(crate) const KCL_STREAM: &str = "123456789012:eu-west-1$123456789012$profiles$2026-01-02T03_04_05.678:1";
/// The table whose stream it is.
pub(crate) const TABLE: &str = "profiles";
const KCL_TABLE: &str = "profiles-consumer";

/// The server, with the lease table. Dropping it stops the server.
pub(crate) struct World {
    pub(crate) client: Client,
    pub(crate) store: StateStore,
    service: ServiceConfig,
    listing: Listed,
    _server: JoinSet<()>,
}

/// One item of the lease table.
#[derive(Clone)]
pub(crate) struct Item(BTreeMap<&'static str, AttributeValue>);

/// A stream with these shards, which nobody reads.
struct Listed(Vec<Shard>);

impl World {
    /// With an empty lease table, and a stream that lists these shards and their parents.
    pub(crate) async fn start(listing: &[(&str, &[&str])]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let database = dynoxide::Database::memory().unwrap();
        let mut server = JoinSet::new();
        server.spawn(async move {
            // It ends with the set that owns it.
            dynoxide::server::serve_with_shutdown(listener, database, std::future::pending())
                .await
                .expect("the embedded server runs");
        });
        let service = service(address);
        let client = Client::new(&sdk_config(&service).await);
        create_table(&client, KCL_TABLE, "leaseKey").await;
        let shard = |(id, parents): &(&str, &[&str])| Shard {
            id: (*id).to_owned(),
            parents: parents.iter().map(|parent| (*parent).to_owned()).collect(),
        };
        Self {
            store: StateStore::new(client.clone(), "state"),
            client,
            service,
            listing: Listed(listing.iter().map(shard).collect()),
            _server: server,
        }
    }

    /// Writes items to the lease table, over what is there.
    pub(crate) async fn put(&self, items: impl IntoIterator<Item = Item>) {
        for Item(attributes) in items {
            let item = attributes.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
            self.client.put_item().table_name(KCL_TABLE).set_item(Some(item)).send().await.unwrap();
        }
    }

    /// Imports with these flags.
    pub(crate) async fn import(&self, args: &ImportArgs) -> Result<Report, ImportError> {
        let import = Import { source: &self.listing, store: &self.store, create: true, table: Some(TABLE) };
        import.import(args, &self.service).await
    }

    /// What the state table has of the stream.
    pub(crate) async fn state(&self) -> StreamState {
        self.store.stream_state(STREAM, true).await.unwrap()
    }

    /// Each lease in the state table: the shard, its epoch, its checkpoint; and where the stream is begun.
    pub(crate) async fn leases(&self) -> (Vec<(String, u64, String)>, Option<Checkpoint>) {
        let state = self.state().await;
        let lease = |lease: &warmcast_common::consumer::store::Lease| {
            assert_eq!(lease.owner, None);
            (lease.shard.to_string(), lease.epoch, lease.checkpoint.to_string())
        };
        let mut leases: Vec<_> = state.leases.iter().map(lease).collect();
        leases.sort();
        (leases, state.start)
    }

    /// Whether anything was written.
    pub(crate) async fn state_table_exists(&self) -> bool {
        let tables = self.client.list_tables().send().await.unwrap();
        tables.table_names().iter().any(|name| name == "state")
    }
}

impl Item {
    /// A lease as every version of KCL writes it.
    pub(crate) fn lease(key: &str, checkpoint: &str) -> Self {
        Self(BTreeMap::from([
            ("leaseKey", AttributeValue::S(key.to_owned())),
            ("leaseCounter", AttributeValue::N("42".to_owned())),
            ("ownerSwitchesSinceCheckpoint", AttributeValue::N("0".to_owned())),
            ("checkpoint", AttributeValue::S(checkpoint.to_owned())),
            ("checkpointSubSequenceNumber", AttributeValue::N("0".to_owned())),
        ]))
    }

    /// A lease of a stream of an application that has several.
    pub(crate) fn lease_of(stream: &str, shard: &str, checkpoint: &str) -> Self {
        Self::lease(&format!("{stream}:{shard}"), checkpoint)
            .text("streamName", stream)
            .text("shardId", shard)
    }

    /// Something that is not a lease, in a table of KCL 3.5.
    pub(crate) fn other(key: &str, entity_type: &str) -> Self {
        Self(BTreeMap::from([("leaseKey", AttributeValue::S(key.to_owned()))]))
            .text("entityType", entity_type)
    }

    /// With a text.
    pub(crate) fn text(mut self, name: &'static str, value: &str) -> Self {
        self.0.insert(name, AttributeValue::S(value.to_owned()));
        self
    }

    /// With a number.
    pub(crate) fn number(mut self, name: &'static str, value: u64) -> Self {
        self.0.insert(name, AttributeValue::N(value.to_string()));
        self
    }

    /// With parents.
    pub(crate) fn parents(mut self, parents: &[&str]) -> Self {
        let parents = parents.iter().map(|parent| (*parent).to_owned()).collect();
        self.0.insert("parentShardId", AttributeValue::Ss(parents));
        self
    }

    /// With an owner and the counter of its renewals.
    pub(crate) fn owner(self, owner: &str, counter: u64) -> Self {
        self.text("leaseOwner", owner).number("leaseCounter", counter)
    }
}

/// The flags of a plain import, with a short look at whether the application runs.
pub(crate) fn flags() -> ImportArgs {
    ImportArgs {
        kcl_table: KCL_TABLE.to_owned(),
        kcl_stream: None,
        kcl_region: None,
        kcl_endpoint: None,
        watch_ms: 200,
        force: false,
        dry_run: false,
        output: OutputFormat::Human,
    }
}

/// A table with one text key.
pub(crate) async fn create_table(client: &Client, name: &str, key: &str) {
    let text = ScalarAttributeType::S;
    let attribute = AttributeDefinition::builder().attribute_name(key).attribute_type(text).build().unwrap();
    let schema = KeySchemaElement::builder().attribute_name(key).key_type(KeyType::Hash).build().unwrap();
    client
        .create_table()
        .table_name(name)
        .attribute_definitions(attribute)
        .key_schema(schema)
        .billing_mode(BillingMode::PayPerRequest)
        .send()
        .await
        .unwrap();
}

fn service(address: SocketAddr) -> ServiceConfig {
    ServiceConfig {
        region: Some("eu-west-1".to_owned()),
        endpoint: Some(format!("http://{address}")),
        credentials: Some(StaticCredentials {
            access_key_id: "test".to_owned(),
            secret_access_key: Secret::new("test"),
            session_token: None,
        }),
    }
}

impl StreamSource for Listed {
    type Record = ();

    fn stream(&self) -> &str {
        STREAM
    }

    fn pace(&self) -> ReadPace {
        ReadPace { interval_min: Duration::ZERO, page_bytes_max: 1 }
    }

    fn silent_retention(&self) -> Option<Duration> {
        None
    }

    fn watermark_rule(&self) -> WatermarkRule {
        WatermarkRule::Carried
    }

    async fn shards(&self) -> Result<Listing, CallError> {
        Ok(Listing { shards: self.0.clone(), ..Listing::default() })
    }

    async fn children(&self, _parent: &str) -> Result<Listing, CallError> {
        Ok(Listing::default())
    }

    async fn iterator(&self, shard: &str, _from: &Checkpoint) -> Result<String, SourceError> {
        Err(not_read(shard))
    }

    async fn read(&self, shard: &str, _iterator: &str) -> Result<Page<()>, SourceError> {
        Err(not_read(shard))
    }
}

fn not_read(shard: &str) -> SourceError {
    SourceError::Call(CallError {
        operation: "GetRecords",
        target: shard.to_owned(),
        class: Class::Permanent,
        code: None,
        message: "an import reads no records".to_owned(),
    })
}
