//! An embedded DynamoDB on a free port, with tables of every kind of key.

use aws_sdk_dynamodb::{
    Client,
    types::{
        AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
    },
};
use tokio::{net::TcpListener, task::JoinSet};

use super::fake::client;

/// The server. Dropping it stops it.
pub(crate) struct DynamoDb {
    pub(crate) client: Client,
    _server: JoinSet<()>,
}

impl DynamoDb {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let database = dynoxide::Database::memory().unwrap();
        let mut server = JoinSet::new();
        server.spawn(async move {
            // It ends with the set that owns it.
            dynoxide::server::serve_with_shutdown(listener, database, std::future::pending()).await.unwrap();
        });
        Self { client: client(&url), _server: server }
    }

    /// Makes a table with the key attributes `p` and, if it has a type, `s`.
    pub(crate) async fn create_table(
        &self,
        table: &str,
        partition: ScalarAttributeType,
        sort: Option<ScalarAttributeType>,
    ) {
        let mut call = self.client.create_table().table_name(table).billing_mode(BillingMode::PayPerRequest);
        let attributes = [("p", KeyType::Hash, Some(partition)), ("s", KeyType::Range, sort)];
        for (name, role, form) in attributes {
            let Some(form) = form else { continue };
            let element = KeySchemaElement::builder().attribute_name(name).key_type(role).build().unwrap();
            let definition =
                AttributeDefinition::builder().attribute_name(name).attribute_type(form).build().unwrap();
            call = call.key_schema(element).attribute_definitions(definition);
        }
        call.send().await.unwrap();
    }

    pub(crate) async fn put(&self, table: &str, item: &[(&str, AttributeValue)]) {
        let item = item.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        self.client.put_item().table_name(table).set_item(Some(item)).send().await.unwrap();
    }
}
