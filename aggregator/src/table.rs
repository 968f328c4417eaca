//! A table's stream: found by the table's name.

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{KeyType, ScalarAttributeType, StreamViewType, TableDescription};
use warmcast_common::aws::CallError;
use warmcast_common::consumer::store::StoreError;
use warmcast_proto::key_text::{KeyKind, KeyPart, KeyShape};

/// What is needed of a table to read its stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableStream {
    /// The table's name.
    pub table: String,
    /// Its latest stream.
    pub stream_arn: String,
    /// Its primary key.
    pub key: KeySchema,
    /// The stream's view type (AWS: `StreamViewType`).
    pub view_type: StreamViewType,
}

impl TableStream {
    /// Whether the stream has items as they are after a change. Without them it only tells which items changed.
    pub fn has_new_images(&self) -> bool {
        matches!(self.view_type, StreamViewType::NewImage | StreamViewType::NewAndOldImages)
    }
}

/// The attributes of a table's primary key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySchema {
    /// The partition key.
    pub partition: String,
    /// The sort key, if there is one.
    pub sort: Option<String>,
}

/// Why a table cannot be tailed.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// It could not be looked at.
    #[error(transparent)]
    Call(#[from] CallError),
    /// Its generation could not be read or assigned.
    #[error(transparent)]
    State(#[from] StoreError),
    /// It has no stream.
    #[error("table {table} has no stream: enable one, best with view type NEW_IMAGE")]
    NoStream {
        /// The table.
        table: String,
    },
    /// The service described a stream without its view type.
    #[error("the stream of table {table} was described without a view type")]
    NoViewType {
        /// The table.
        table: String,
    },
    /// The service described a table without a partition key.
    #[error("table {table} was described without a partition key")]
    NoKey {
        /// The table.
        table: String,
    },
}

/// How people write the keys of a table. `None`: the description lacks the key, or a type.
pub fn key_shape(described: &TableDescription) -> Option<KeyShape> {
    let part = |role: &KeyType| {
        let element = described.key_schema().iter().find(|element| element.key_type() == role)?;
        let name = element.attribute_name();
        let definitions = described.attribute_definitions();
        let definition = definitions.iter().find(|definition| definition.attribute_name() == name)?;
        let kind = match definition.attribute_type() {
            ScalarAttributeType::S => KeyKind::Text,
            ScalarAttributeType::N => KeyKind::Number,
            ScalarAttributeType::B => KeyKind::Binary,
            _ => return None,
        };
        Some(KeyPart { name: name.to_owned(), kind })
    };
    let has_sort = described.key_schema().iter().any(|element| *element.key_type() == KeyType::Range);
    let (partition, sort) = (part(&KeyType::Hash)?, part(&KeyType::Range));
    (sort.is_some() == has_sort).then_some(KeyShape { partition, sort })
}

/// Looks a table up.
///
/// # Errors
/// When the call fails, or the table has no stream.
pub async fn find_stream(client: &Client, table: &str) -> Result<TableStream, TableError> {
    stream_of(table, describe(client, table).await?)
}

/// Describes a table.
///
/// # Errors
/// When the call fails.
pub async fn describe(client: &Client, table: &str) -> Result<TableDescription, CallError> {
    let answer = client.describe_table().table_name(table).send().await;
    let answer = answer.map_err(|error| CallError::new("DescribeTable", format!("table {table}"), error))?;
    Ok(answer.table.unwrap_or_else(|| TableDescription::builder().build()))
}

/// The stream of a table that is described so.
///
/// # Errors
/// When it has none, or the description lacks something.
pub fn stream_of(table: &str, described: TableDescription) -> Result<TableStream, TableError> {
    let table = table.to_owned();
    let specification = described.stream_specification.filter(|specification| specification.stream_enabled);
    let (Some(specification), Some(stream_arn)) = (specification, described.latest_stream_arn) else {
        return Err(TableError::NoStream { table });
    };
    let Some(view_type) = specification.stream_view_type else {
        return Err(TableError::NoViewType { table });
    };
    let attribute = |role: &KeyType| {
        let schema = described.key_schema.as_deref().unwrap_or_default();
        schema.iter().find(|element| element.key_type == *role).map(|element| element.attribute_name.clone())
    };
    let Some(partition) = attribute(&KeyType::Hash) else { return Err(TableError::NoKey { table }) };
    let key = KeySchema { partition, sort: attribute(&KeyType::Range) };
    Ok(TableStream { table, stream_arn, key, view_type })
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_dynamodb::types::{KeySchemaElement, StreamSpecification};

    fn table(view: Option<StreamViewType>, keys: &[(&str, KeyType)]) -> TableDescription {
        let schema = keys.iter().map(|(name, role)| {
            KeySchemaElement::builder().attribute_name(*name).key_type(role.clone()).build().unwrap()
        });
        let mut described = TableDescription::builder().set_key_schema(Some(schema.collect()));
        if let Some(view) = view {
            let specification =
                StreamSpecification::builder().stream_enabled(true).stream_view_type(view).build().unwrap();
            described = described.stream_specification(specification).latest_stream_arn("arn");
        }
        described.build()
    }

    #[test]
    fn a_stream_is_described_with_its_key_and_whether_it_has_new_images() {
        let keys = [("id", KeyType::Hash), ("at", KeyType::Range)];
        let found = stream_of("profiles", table(Some(StreamViewType::NewImage), &keys)).unwrap();
        assert_eq!(found.key, KeySchema { partition: "id".to_owned(), sort: Some("at".to_owned()) });
        assert_eq!(found.stream_arn, "arn");
        for (view, has_new_images) in [
            (StreamViewType::NewImage, true),
            (StreamViewType::NewAndOldImages, true),
            (StreamViewType::OldImage, false),
            (StreamViewType::KeysOnly, false),
            (StreamViewType::from("SOMETHING_NEW"), false),
        ] {
            let found = stream_of("profiles", table(Some(view), &keys)).unwrap();
            assert_eq!(found.has_new_images(), has_new_images, "{}", found.view_type);
        }
    }

    #[test]
    fn what_is_wrong_with_a_table_is_said_with_the_remedy() {
        let keys = [("id", KeyType::Hash)];
        let none = stream_of("profiles", table(None, &keys)).unwrap_err();
        assert!(none.to_string().contains("table profiles has no stream: enable one"), "{none}");
        let keyless = stream_of("profiles", table(Some(StreamViewType::NewImage), &[])).unwrap_err();
        assert!(
            keyless.to_string().contains("table profiles was described without a partition key"),
            "{keyless}"
        );
    }
}
