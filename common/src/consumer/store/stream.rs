//! What the state table knows of a stream: where it was begun, and its leases.

use std::sync::Arc;

use aws_sdk_dynamodb::types::AttributeValue;

use super::super::checkpoint::Checkpoint;
use super::super::compatibility::STATE_VERSION;
use super::item::{Item, key, new_item, s};
use super::lease::{Lease, is_lease, partition, read_lease};
use super::{StateStore, StoreError};
use crate::aws::CallError;

/// A stream in the state table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamState {
    /// Where it was begun; `None` while nobody has consumed it before. A shard that shows later is begun with its
    /// first record.
    pub start: Option<Checkpoint>,
    /// Two listings found no shard without a lease: what comes later descends from one that has a lease.
    pub listed: bool,
    /// Its leases.
    pub leases: Vec<Lease>,
}

/// Sorts before every lease.
const BEGUN: &str = "begun";

impl StateStore {
    /// The stream's state, read by one query. Unless `consistent`, it may be a moment old, at half the price.
    ///
    /// # Errors
    /// When a call fails or an item is not one of ours.
    pub async fn stream_state(&self, stream: &str, consistent: bool) -> Result<StreamState, StoreError> {
        let items = self.query(&partition(stream), consistent).await?;
        let stream: Arc<str> = stream.into();
        let mut state = StreamState { leases: Vec::with_capacity(items.len()), ..StreamState::default() };
        for attributes in &items {
            let item = Item { table: self.table(), attributes };
            if is_lease(&item)? {
                state.leases.push(read_lease(&item, &stream)?);
            } else if item.text("sk")? == BEGUN {
                item.check_format()?;
                let start = item.text("start")?.parse();
                state.start = Some(start.map_err(|e| item.wrong(format!("start: {e}")))?);
                state.listed = item.flag("listed")?;
            } else if item.format()? <= STATE_VERSION {
                return Err(item.wrong("not an item of a stream".to_owned()));
            }
        }
        Ok(state)
    }

    /// Records, once and for all, that a stream is begun, and where. Whoever comes second changes nothing.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn begin_stream(&self, stream: &str, start: &Checkpoint) -> Result<(), CallError> {
        let mut item = new_item(partition(stream), BEGUN);
        item.insert("start".to_owned(), s(start.to_string()));
        self.put_new(item).await.map(|_| ())
    }

    /// Records whether every shard of the stream that descends from none with a lease has one itself.
    ///
    /// # Errors
    /// When the call fails; [`StoreError::Fenced`] when the stream is not begun.
    pub async fn mark_listed(&self, stream: &str, listed: bool) -> Result<(), StoreError> {
        let answer = self
            .client
            .update_item()
            .table_name(&self.table)
            .set_key(Some(key(partition(stream), BEGUN)))
            .update_expression("SET listed = :listed")
            .condition_expression("attribute_exists(pk)")
            .expression_attribute_values(":listed", AttributeValue::Bool(listed))
            .send()
            .await;
        let answer = self.answered("UpdateItem", answer);
        match answer {
            Ok(_) => Ok(()),
            Err(error) if error.is_code("ConditionalCheckFailedException") => {
                Err(StoreError::Fenced { what: format!("the beginning of {stream}") })
            }
            Err(error) => Err(error.into()),
        }
    }
}
