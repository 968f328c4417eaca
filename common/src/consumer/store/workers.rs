//! Heartbeats: one item for each worker, however many leases it has.

use super::item::{Item, key, n, s};
use super::{StateStore, StoreError};
use crate::aws::CallError;

const PARTITION: &str = "workers";

/// A worker's heartbeat as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// The worker's name.
    pub worker: String,
    /// The process: a name that is used by two processes shows by it.
    pub instance: String,
    /// Grows with each beat. Observers judge by their own clock how long it has not.
    pub counter: u64,
}

impl StateStore {
    /// Announces a process under its worker's name, taking the name over from an earlier process.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn announce(&self, worker: &str, instance: &str) -> Result<(), CallError> {
        self.client
            .update_item()
            .table_name(&self.table)
            .set_key(Some(key(PARTITION, format!("worker#{worker}"))))
            .update_expression("SET instance = :instance, #format = :format ADD #counter :one")
            .expression_attribute_names("#format", "format")
            .expression_attribute_names("#counter", "counter")
            .expression_attribute_values(":instance", s(instance))
            .expression_attribute_values(":format", n(1))
            .expression_attribute_values(":one", n(1))
            .send()
            .await
            .map(|_| ())
            .map_err(|e| CallError::new("UpdateItem", self.target(), e))
    }

    /// One beat.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] when another process has taken the worker's name over.
    pub async fn beat(&self, worker: &str, instance: &str) -> Result<(), StoreError> {
        let answer = self
            .client
            .update_item()
            .table_name(&self.table)
            .set_key(Some(key(PARTITION, format!("worker#{worker}"))))
            .update_expression("ADD #counter :one")
            .condition_expression("instance = :instance")
            .expression_attribute_names("#counter", "counter")
            .expression_attribute_values(":instance", s(instance))
            .expression_attribute_values(":one", n(1))
            .send()
            .await
            .map_err(|e| CallError::new("UpdateItem", self.target(), e));
        match answer {
            Ok(_) => Ok(()),
            Err(error) if error.is_code("ConditionalCheckFailedException") => {
                Err(StoreError::Fenced { what: format!("worker name {worker}") })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Every worker that ever announced itself.
    ///
    /// # Errors
    /// When a call fails or an item is not a heartbeat.
    pub async fn heartbeats(&self) -> Result<Vec<Heartbeat>, StoreError> {
        let items = self.query(PARTITION).await?;
        let read = |attributes| {
            let item = Item { table: self.table(), attributes };
            item.check_format()?;
            let worker = item.text("sk")?.strip_prefix("worker#");
            Ok(Heartbeat {
                worker: worker.ok_or_else(|| item.wrong("sk is not worker#WORKER".to_owned()))?.to_owned(),
                instance: item.text("instance")?.to_owned(),
                counter: item.number("counter")?,
            })
        };
        items.iter().map(read).collect()
    }
}
