//! Gaps: data that was trimmed before it was read.

use super::super::checkpoint::Checkpoint;
use super::item::{Item, s};
use super::{StateStore, StoreError};

/// A gap that was recorded ([`StateStore::record_gap`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The shard that lacks something.
    pub shard: String,
    /// What follows this is missing, up to the oldest record that there was.
    pub after: Checkpoint,
    /// When it was found, in milliseconds since the epoch.
    pub at_ms: u64,
}

impl StateStore {
    /// Gaps of a stream, at most `max`, and whether there are more. They are kept after they were repaired.
    ///
    /// # Errors
    /// When the call fails or an item is not a gap.
    pub async fn gaps(&self, stream: &str, max: u16) -> Result<(Vec<Gap>, bool), StoreError> {
        let answer = self
            .client
            .query()
            .table_name(&self.table)
            .key_condition_expression("pk = :pk")
            .expression_attribute_values(":pk", s(partition(stream)))
            .limit(i32::from(max))
            .send()
            .await;
        let answer = self.answered("Query", answer)?;
        let read = |attributes| {
            let item = Item { table: self.table(), attributes };
            item.check_format()?;
            let (shard, _) = item
                .text("sk")?
                .rsplit_once('#')
                .ok_or_else(|| item.wrong("sk is not SHARD#TIME".to_owned()))?;
            let after = item.text("after")?.parse().map_err(|e| item.wrong(format!("after: {e}")))?;
            Ok(Gap { shard: shard.to_owned(), after, at_ms: item.number("at_ms")? })
        };
        let gaps = answer.items.unwrap_or_default().iter().map(read).collect::<Result<_, StoreError>>()?;
        Ok((gaps, answer.last_evaluated_key.is_some_and(|key| !key.is_empty())))
    }
}

pub(super) fn partition(stream: &str) -> String {
    format!("gap#{stream}")
}
