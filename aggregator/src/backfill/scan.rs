//! One segment of a parallel, strongly consistent Scan (AWS: DynamoDB Developer Guide, parallel scan).

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::ReturnConsumedCapacity;
use tokio::time::Instant;
use warmcast_common::aws::CallError;
use warmcast_common::clock::now_ms;

use super::page::{Page, read};
use super::place::At;

/// A segment of a table.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) client: Client,
    pub(super) table: String,
    pub(super) segment: i32,
    pub(super) segments: i32,
}

impl Segment {
    /// The page at this place, of at most so many rows. None: there is nothing more.
    pub(super) async fn page(&self, at: &At, rows_max: usize) -> Result<Option<Page>, CallError> {
        let from = match at {
            At::Key(key) => Some(key.clone()),
            At::End => return Ok(None),
            At::Start | At::Line(_) => None,
        };
        let limit = i32::try_from(rows_max).unwrap_or(i32::MAX);
        let one = read(|| async {
            let (began, read_ms) = (Instant::now(), now_ms());
            let scan = self.client.scan().table_name(&self.table).consistent_read(true).limit(limit);
            let scan = scan.segment(self.segment).total_segments(self.segments);
            let scan = scan.return_consumed_capacity(ReturnConsumedCapacity::Total);
            let answer = scan.set_exclusive_start_key(from.clone()).send().await;
            let answer = answer.map_err(|error| CallError::new("Scan", self.target(), error))?;
            let units = answer.consumed_capacity.and_then(|used| used.capacity_units).unwrap_or_default();
            // AWS: the end is a page without this key, not an empty page.
            let next = answer.last_evaluated_key.filter(|key| !key.is_empty()).map_or(At::End, At::Key);
            let rows = answer.items.unwrap_or_default();
            Ok(Page { rows, absent: 0, read_ms, began, units, next })
        });
        one.await.map(Some)
    }

    fn target(&self) -> String {
        format!("table {}, segment {} of {}", self.table, self.segment, self.segments)
    }
}
