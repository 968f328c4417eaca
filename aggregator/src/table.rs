//! A table's stream: found by the table's name, checked for what we need of it.

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{KeyType, StreamViewType, TableDescription};
use warmcast_common::aws::CallError;
use warmcast_common::consumer::store::StoreError;

/// What is needed of a table to read its stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableStream {
    /// The table's name.
    pub table: String,
    /// Its latest stream.
    pub stream_arn: String,
    /// Its primary key.
    pub key: KeySchema,
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
    #[error("table {table} has no stream: enable one with view type NEW_IMAGE or NEW_AND_OLD_IMAGES")]
    NoStream {
        /// The table.
        table: String,
    },
    /// Its stream has no new images.
    #[error(
        "the stream of table {table} has view type {view_type}, which lacks the new image: disable the stream \
         and enable it again with view type NEW_IMAGE or NEW_AND_OLD_IMAGES"
    )]
    ViewType {
        /// The table.
        table: String,
        /// What it has.
        view_type: String,
    },
    /// The service described a table without a partition key.
    #[error("table {table} was described without a partition key")]
    NoKey {
        /// The table.
        table: String,
    },
}

impl TableError {
    /// Whether only a person can mend it, by an act that makes a new stream.
    pub fn is_permanent(&self) -> bool {
        matches!(self, Self::ViewType { .. })
    }
}

/// Looks a table up.
///
/// # Errors
/// When the call fails, or the table's stream is not what we need.
pub async fn find_stream(client: &Client, table: &str) -> Result<TableStream, TableError> {
    let answer = client
        .describe_table()
        .table_name(table)
        .send()
        .await
        .map_err(|error| CallError::new("DescribeTable", format!("table {table}"), error))?;
    stream_of(table, answer.table.unwrap_or_else(|| TableDescription::builder().build()))
}

fn stream_of(table: &str, described: TableDescription) -> Result<TableStream, TableError> {
    let table = table.to_owned();
    let specification = described.stream_specification.filter(|specification| specification.stream_enabled);
    let (Some(specification), Some(stream_arn)) = (specification, described.latest_stream_arn) else {
        return Err(TableError::NoStream { table });
    };
    match specification.stream_view_type {
        Some(StreamViewType::NewImage | StreamViewType::NewAndOldImages) => {}
        other => {
            let view_type = other.map_or_else(|| "unknown".to_owned(), |view| view.as_str().to_owned());
            return Err(TableError::ViewType { table, view_type });
        }
    }
    let attribute = |role: &KeyType| {
        let schema = described.key_schema.as_deref().unwrap_or_default();
        schema.iter().find(|element| element.key_type == *role).map(|element| element.attribute_name.clone())
    };
    let Some(partition) = attribute(&KeyType::Hash) else { return Err(TableError::NoKey { table }) };
    let key = KeySchema { partition, sort: attribute(&KeyType::Range) };
    Ok(TableStream { table, stream_arn, key })
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
    fn a_stream_with_new_images_is_what_we_need() {
        let keys = [("id", KeyType::Hash), ("at", KeyType::Range)];
        let found = stream_of("profiles", table(Some(StreamViewType::NewImage), &keys)).unwrap();
        assert_eq!(found.key, KeySchema { partition: "id".to_owned(), sort: Some("at".to_owned()) });
        assert_eq!(found.stream_arn, "arn");
    }

    #[test]
    fn what_is_wrong_with_a_table_is_said_with_the_remedy() {
        let keys = [("id", KeyType::Hash)];
        let none = stream_of("profiles", table(None, &keys)).unwrap_err();
        assert!(none.to_string().contains("table profiles has no stream: enable one"), "{none}");
        assert!(!none.is_permanent(), "somebody may enable it");
        let keys_only = stream_of("profiles", table(Some(StreamViewType::KeysOnly), &keys)).unwrap_err();
        assert!(keys_only.to_string().contains("KEYS_ONLY"), "{keys_only}");
        assert!(keys_only.is_permanent());
    }
}
