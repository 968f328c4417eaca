//! DynamoDB tables of our own: a partition key `pk` and a sort key `sk`, both text, paid by request.

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType, TableStatus,
};

use crate::aws::CallError;

/// Whether a table can be used. `target` is what errors call it.
pub(crate) async fn table_status(
    client: &Client,
    table: &str,
    target: String,
) -> Result<Option<TableStatus>, CallError> {
    let answer = client.describe_table().table_name(table).send().await;
    let answer = answer.map_err(|e| CallError::new("DescribeTable", target, e))?;
    Ok(answer.table.and_then(|table| table.table_status))
}

/// Creates a table, unless somebody else just did.
pub(crate) async fn create_table(client: &Client, table: &str, target: String) -> Result<(), CallError> {
    let keys = [("pk", KeyType::Hash), ("sk", KeyType::Range)];
    let schema = keys
        .clone()
        .map(|(name, role)| KeySchemaElement::builder().attribute_name(name).key_type(role).build().ok());
    let attributes = keys.map(|(name, _)| {
        let text = ScalarAttributeType::S;
        AttributeDefinition::builder().attribute_name(name).attribute_type(text).build().ok()
    });
    let request = client
        .create_table()
        .table_name(table)
        .billing_mode(BillingMode::PayPerRequest)
        .set_key_schema(schema.into_iter().collect())
        .set_attribute_definitions(attributes.into_iter().collect());
    match request.send().await.map_err(|e| CallError::new("CreateTable", target, e)) {
        Err(error) if !error.is_code("ResourceInUseException") => Err(error),
        _ => Ok(()),
    }
}
