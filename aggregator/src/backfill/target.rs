//! What a backfill has to know of a table before it begins.

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{TableDescription, TableStatus};
use warmcast_common::aws::CallError;
use warmcast_proto::key_text::KeyShape;

use crate::table::{TableError, TableStream, describe, key_shape, stream_of};

/// A table that can be backfilled.
#[derive(Clone, Debug)]
pub(super) struct BackfillTable {
    /// Its name, its key, and the stream that keeps current what is backfilled.
    pub(super) stream: TableStream,
    /// Its key with the types.
    pub(super) shape: KeyShape,
    /// About how many rows it has (AWS: `ItemCount`, counted every six hours).
    pub(super) rows: u64,
    /// About how large it is (AWS: `TableSizeBytes`).
    pub(super) bytes: u64,
}

/// Why a table cannot be backfilled.
#[derive(Debug, thiserror::Error)]
pub(super) enum TargetError {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("{0}; what is backfilled would never change")]
    Table(#[from] TableError),
    #[error("table {table} is {status}: wait until it is ACTIVE")]
    NotActive { table: String, status: String },
    #[error("table {table} was described without the types of its key")]
    NoKeyTypes { table: String },
}

impl BackfillTable {
    /// Bytes of a row, on average; none if it is not known.
    pub(super) fn row_bytes(&self) -> Option<u64> {
        self.bytes.checked_div(self.rows)
    }
}

pub(super) async fn look_up(client: &Client, table: &str) -> Result<BackfillTable, TargetError> {
    backfill_table(table, describe(client, table).await?)
}

fn backfill_table(table: &str, described: TableDescription) -> Result<BackfillTable, TargetError> {
    match &described.table_status {
        // A table is read and written while it is updated.
        Some(TableStatus::Active | TableStatus::Updating) => {}
        status => {
            let status = status.as_ref().map_or("in no status", TableStatus::as_str).to_owned();
            return Err(TargetError::NotActive { table: table.to_owned(), status });
        }
    }
    let count = |number: Option<i64>| number.and_then(|number| u64::try_from(number).ok()).unwrap_or(0);
    let (rows, bytes) = (count(described.item_count), count(described.table_size_bytes));
    let shape = key_shape(&described).ok_or_else(|| TargetError::NoKeyTypes { table: table.to_owned() })?;
    Ok(BackfillTable { stream: stream_of(table, described)?, shape, rows, bytes })
}

#[cfg(test)]
mod tests {
    use aws_sdk_dynamodb::types::{
        AttributeDefinition, KeySchemaElement, KeyType, ScalarAttributeType, StreamSpecification,
        StreamViewType,
    };

    use super::*;

    fn described(status: TableStatus, stream: bool) -> TableDescription {
        let keys = [("id", KeyType::Hash), ("at", KeyType::Range)];
        let types = [("at", ScalarAttributeType::N), ("id", ScalarAttributeType::S)];
        let keys = keys.map(|(name, role)| {
            KeySchemaElement::builder().attribute_name(name).key_type(role).build().unwrap()
        });
        let types = types.map(|(name, of)| {
            AttributeDefinition::builder().attribute_name(name).attribute_type(of).build().unwrap()
        });
        let view = StreamViewType::KeysOnly;
        let specification =
            StreamSpecification::builder().stream_enabled(stream).stream_view_type(view).build().unwrap();
        TableDescription::builder()
            .set_key_schema(Some(keys.to_vec()))
            .set_attribute_definitions(Some(types.to_vec()))
            .stream_specification(specification)
            .latest_stream_arn("arn")
            .table_status(status)
            .item_count(5)
            .table_size_bytes(-1)
            .build()
    }

    #[test]
    fn a_table_is_told_with_its_keys_types_and_about_how_large_it_is() {
        let table = backfill_table("profiles", described(TableStatus::Active, true)).unwrap();
        assert_eq!((table.rows, table.bytes, &*table.stream.stream_arn), (5, 0, "arn"));
        assert_eq!(table.shape.example(), r#"{"id":{"S":"text"},"at":{"N":"5"}}"#);
        assert!(backfill_table("profiles", described(TableStatus::Updating, true)).is_ok());
    }

    #[test]
    fn a_table_that_cannot_be_backfilled_is_refused_with_the_reason() {
        let refused = |described| backfill_table("profiles", described).unwrap_err().to_string();
        let creating = refused(described(TableStatus::Creating, true));
        assert_eq!(creating, "table profiles is CREATING: wait until it is ACTIVE");
        let streamless = refused(described(TableStatus::Active, false));
        assert!(
            streamless.contains("has no stream") && streamless.contains("would never change"),
            "{streamless}"
        );
        let typeless = TableDescription::builder().table_status(TableStatus::Active).build();
        assert!(refused(typeless).contains("without the types of its key"));
    }
}
