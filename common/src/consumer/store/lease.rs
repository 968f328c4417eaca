//! Leases: who reads a shard, and how far it got.

use aws_sdk_dynamodb::types::{AttributeValue, ReturnValue};

use super::super::checkpoint::Checkpoint;
use super::super::source::Shard;
use super::item::{Attributes, Item, key, n, new_item, s};
use super::{StateStore, StoreError};
use crate::aws::CallError;

/// A lease as it was last read or written by us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The stream.
    pub stream: String,
    /// The shard.
    pub shard: String,
    /// The shard's parents.
    pub parents: Vec<String>,
    /// Who reads it; nobody if it was released.
    pub owner: Option<String>,
    /// Grows with each change of ownership, so that an owner cannot mistake an older tenure for its own.
    pub epoch: u64,
    /// How far it got.
    pub checkpoint: Checkpoint,
}

impl StateStore {
    /// The leases of a stream.
    ///
    /// # Errors
    /// When a call fails or an item is not a lease.
    pub async fn leases(&self, stream: &str) -> Result<Vec<Lease>, StoreError> {
        let items = self.query(&partition(stream)).await?;
        items.iter().map(|attributes| read(&Item { table: self.table(), attributes }, stream)).collect()
    }

    /// Writes the lease of a new shard, owned by nobody. A lease that is there already stays as it is.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn create_lease(
        &self,
        stream: &str,
        shard: &Shard,
        start: &Checkpoint,
    ) -> Result<(), CallError> {
        let mut item = new_item(partition(stream), sort(&shard.id));
        item.insert("epoch".to_owned(), n(0));
        item.insert("checkpoint".to_owned(), s(start.to_string()));
        if !shard.parents.is_empty() {
            item.insert("parents".to_owned(), AttributeValue::Ss(shard.parents.clone()));
        }
        self.put_new(item).await.map(|_| ())
    }

    /// Makes `owner` the owner, if the lease still has the owner and the epoch that were read. The answer has the
    /// checkpoint of the table: the former owner may have written one since.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] when it has changed hands since.
    pub async fn take_lease(&self, lease: &Lease, owner: &str) -> Result<Lease, StoreError> {
        let attributes = self
            .update(
                lease,
                "SET #owner = :new_owner, epoch = :new_epoch",
                "",
                &[(":new_owner", s(owner)), (":new_epoch", n(lease.epoch + 1))],
            )
            .await?;
        read(&Item { table: self.table(), attributes: &attributes }, &lease.stream)
    }

    /// Writes how far the shard got, if `lease` still has it. An end stays an end: a write that timed out here may
    /// land there after the next one.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] when the lease was lost.
    pub async fn checkpoint(&self, lease: &Lease, checkpoint: &Checkpoint) -> Result<(), StoreError> {
        let expression = "SET checkpoint = :checkpoint";
        let written = (":checkpoint", s(checkpoint.to_string()));
        let updated = match checkpoint {
            Checkpoint::ShardEnd => self.update(lease, expression, "", &[written]).await,
            _ => {
                let end = (":end", s(Checkpoint::ShardEnd.to_string()));
                self.update(lease, expression, " AND checkpoint <> :end", &[written, end]).await
            }
        };
        updated.map(|_| ())
    }

    /// Gives the lease up, so that another worker need not wait for it to expire.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] when the lease was lost before.
    pub async fn release_lease(&self, lease: &Lease) -> Result<(), StoreError> {
        self.update(lease, "REMOVE #owner", "", &[]).await.map(|_| ())
    }

    /// Removes the lease of a finished shard, if nobody changed it since.
    ///
    /// # Errors
    /// When the call fails; [`StoreError::Fenced`] when it has changed.
    pub async fn delete_lease(&self, lease: &Lease) -> Result<(), StoreError> {
        let answer = self
            .client
            .delete_item()
            .table_name(&self.table)
            .set_key(Some(key(partition(&lease.stream), sort(&lease.shard))))
            .condition_expression("epoch = :epoch AND checkpoint = :end")
            .expression_attribute_values(":epoch", n(lease.epoch))
            .expression_attribute_values(":end", s(Checkpoint::ShardEnd.to_string()))
            .send()
            .await
            .map_err(|e| CallError::new("DeleteItem", self.target(), e));
        fenced(answer.map(|_| ()), lease)
    }

    /// Records that data was trimmed before it was read, for a repair to answer.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn record_gap(&self, lease: &Lease, after: &Checkpoint, at_ms: u64) -> Result<(), CallError> {
        let mut item = new_item(format!("gap#{}", lease.stream), format!("{}#{at_ms}", lease.shard));
        item.insert("after".to_owned(), s(after.to_string()));
        item.insert("at_ms".to_owned(), n(at_ms));
        self.put_new(item).await.map(|_| ())
    }

    /// Updates the lease if it still has its owner and epoch, and returns it as it is then.
    /// Changes the lease if it is still as it was read, and if what `and` adds to the condition holds.
    async fn update(
        &self,
        lease: &Lease,
        expression: &str,
        and: &str,
        values: &[(&str, AttributeValue)],
    ) -> Result<Attributes, StoreError> {
        let mut request = self
            .client
            .update_item()
            .table_name(&self.table)
            .set_key(Some(key(partition(&lease.stream), sort(&lease.shard))))
            .update_expression(expression)
            .expression_attribute_names("#owner", "owner")
            .expression_attribute_values(":epoch", n(lease.epoch))
            .return_values(ReturnValue::AllNew);
        for (name, value) in values {
            request = request.expression_attribute_values(*name, value.clone());
        }
        request = match &lease.owner {
            Some(owner) => request
                .expression_attribute_values(":owner", s(owner))
                .condition_expression(format!("#owner = :owner AND epoch = :epoch{and}")),
            None => {
                request.condition_expression(format!("attribute_not_exists(#owner) AND epoch = :epoch{and}"))
            }
        };
        let answer = request.send().await.map_err(|e| CallError::new("UpdateItem", self.target(), e));
        fenced(answer.map(|updated| updated.attributes.unwrap_or_default()), lease)
    }
}

fn fenced<T>(answer: Result<T, CallError>, lease: &Lease) -> Result<T, StoreError> {
    answer.map_err(|error| match error.is_code("ConditionalCheckFailedException") {
        true => StoreError::Fenced { what: format!("lease of {} in {}", lease.shard, lease.stream) },
        false => StoreError::Call(error),
    })
}

fn read(item: &Item<'_>, stream: &str) -> Result<Lease, StoreError> {
    item.check_format()?;
    let shard = item.text("sk")?.strip_prefix("shard#");
    Ok(Lease {
        stream: stream.to_owned(),
        shard: shard.ok_or_else(|| item.wrong("sk is not shard#SHARD".to_owned()))?.to_owned(),
        parents: item.text_set("parents")?,
        owner: item.optional_text("owner")?.map(str::to_owned),
        epoch: item.number("epoch")?,
        checkpoint: item.text("checkpoint")?.parse().map_err(|e| item.wrong(format!("checkpoint: {e}")))?,
    })
}

fn partition(stream: &str) -> String {
    format!("stream#{stream}")
}

fn sort(shard: &str) -> String {
    format!("shard#{shard}")
}
