//! Walking through a table, strongly consistent and page by page, within the same budget and by the same breaker as
//! reads of keys.

use std::{collections::HashMap, sync::Arc, time::Duration};

use aws_sdk_dynamodb::{
    operation::scan::ScanOutput,
    types::{AttributeValue, ReturnConsumedCapacity},
};
use tokio::time::{Instant, sleep, timeout};
use warmcast_proto::item::{self, Item};

use super::{
    Failure, FailureClass, Master, MasterError, Shared, ShedReason, breaker::Verdict, budget::units_of,
    item::item as item_of, key::KeySchema,
};
use crate::{backoff::Backoff, item_id::ItemId};

/// How often a page is tried that does not come.
const TRIES_MAX: usize = 8;

/// Between tries.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// The most segments of a table (AWS: Scan, `TotalSegments`).
pub const SEGMENTS_MAX: u32 = 1_000_000;

/// A part of a table: one of `total`, which divide its keys evenly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Segment {
    /// From 0.
    pub index: u32,
    /// 1 to [`SEGMENTS_MAX`].
    pub total: u32,
}

/// Where in its segment a page begins.
#[derive(Clone, Debug, PartialEq)]
pub struct ScanPlace(HashMap<String, AttributeValue>);

/// Some items of a segment, as they were at a time after the call.
#[derive(Debug)]
pub struct ScanPage {
    /// Each item, or why it cannot be read.
    pub items: Vec<(ItemId, Result<Item, MasterError>)>,
    /// Where the next page begins; none: that was all.
    pub next: Option<ScanPlace>,
}

impl Master {
    /// Reads a page of a segment, strongly consistent, from its beginning or from where the last page ended: at most
    /// `items_max` items (and 1 MB: AWS, Scan). It waits for the budget as long as that takes, and tries again what
    /// may pass. It needs the permission `dynamodb:Scan`.
    ///
    /// # Errors
    /// DynamoDB refuses, or does not answer.
    pub async fn scan(
        &self,
        table: &Arc<str>,
        segment: Segment,
        from: Option<ScanPlace>,
        items_max: u32,
    ) -> Result<ScanPage, MasterError> {
        let shared = &self.owner.shared;
        let schema = shared.schemas.get(&shared.client, table, shared.config.call_timeout).await?;
        let mut backoff = Backoff::new(PAUSE_FIRST, PAUSE_MAX);
        for tries in 1.. {
            match shared.page(table, segment, from.as_ref(), items_max).await {
                Ok(answer) => return shared.read_page(table, &schema, answer),
                Err(MasterError::Call { failure, .. }) if failure.class.passes() && tries < TRIES_MAX => {}
                Err(MasterError::Shed { reason: ShedReason::Breaker { retry_after }, .. })
                    if tries < TRIES_MAX =>
                {
                    sleep(retry_after).await;
                }
                Err(error) => return Err(error),
            }
            sleep(backoff.next_pause()).await;
        }
        Err(MasterError::Stopped)
    }

    /// About how many items a table has: DynamoDB counts them every six hours (AWS: `TableDescription`, `ItemCount`).
    ///
    /// # Errors
    /// The table cannot be described.
    pub async fn item_count(&self, table: &Arc<str>) -> Result<u64, MasterError> {
        let shared = &self.owner.shared;
        let call_timeout = shared.config.call_timeout;
        let failed =
            |failure| MasterError::Call { operation: "DescribeTable", table: Arc::clone(table), failure };
        let call = shared.client.describe_table().table_name(&**table).send();
        let answer = timeout(call_timeout, call)
            .await
            .map_err(|_| failed(Failure::timeout(call_timeout)))?
            .map_err(|error| failed(Failure::new(&error)))?;
        let count = answer.table().and_then(aws_sdk_dynamodb::types::TableDescription::item_count);
        Ok(count.and_then(|count| u64::try_from(count).ok()).unwrap_or_default())
    }
}

impl Shared {
    /// One try.
    async fn page(
        &self,
        table: &Arc<str>,
        segment: Segment,
        from: Option<&ScanPlace>,
        items_max: u32,
    ) -> Result<ScanOutput, MasterError> {
        loop {
            let wait = self.state.lock().budget_wait(Instant::now());
            if wait.is_zero() {
                break;
            }
            sleep(wait).await;
        }
        let permit = self.state.lock().begin(1, Instant::now());
        let permit = permit.map_err(|reason| MasterError::Shed { table: Arc::clone(table), reason })?;
        let number = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
        let call = self
            .client
            .scan()
            .table_name(&**table)
            .consistent_read(true)
            .segment(number(segment.index))
            .total_segments(number(segment.total))
            .limit(number(items_max))
            .set_exclusive_start_key(from.map(|place| place.0.clone()))
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .send();
        let (call_timeout, started) = (self.config.call_timeout, Instant::now());
        let answer = match timeout(call_timeout, call).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(Failure::new(&error)),
            Err(_) => Err(Failure::timeout(call_timeout)),
        };
        let is_slow = started.elapsed() >= self.config.breaker.slow_after;
        let is_refused =
            |failure: &Failure| matches!(failure.class, FailureClass::NotFound | FailureClass::Permanent);
        let is_good = !is_slow && answer.as_ref().err().is_none_or(is_refused);
        let units = answer.as_ref().ok().map(units_in);
        if let Some(units) = units {
            self.counters.spend(units);
        }
        let verdict = if is_good { Verdict::Good } else { Verdict::Bad };
        self.state.lock().end(&permit, verdict, 1, units, Instant::now());
        answer.map_err(|failure| MasterError::Call { operation: "Scan", table: Arc::clone(table), failure })
    }

    fn read_page(
        &self,
        table: &Arc<str>,
        schema: &KeySchema,
        answer: ScanOutput,
    ) -> Result<ScanPage, MasterError> {
        let misfit = |what: String| MasterError::Answer { table: Arc::clone(table), what: what.into() };
        let mut items = Vec::new();
        for row in answer.items.unwrap_or_default() {
            let Some(key) = schema.canonical(&row) else {
                // What is known of the table is that of another one before it.
                self.schemas.forget(table);
                return Err(misfit("Scan answered with an item without the table's key".to_owned()));
            };
            let item = item_of(row).map_err(|unknown| {
                misfit(format!("attribute {} has a type that this version does not know", unknown.attribute))
            });
            items.push((ItemId { table: Arc::clone(table), key }, item));
        }
        let next = answer.last_evaluated_key.filter(|key| !key.is_empty()).map(ScanPlace);
        Ok(ScanPage { items, next })
    }
}

/// What a page took: as it says, or as its items' sizes together come to.
fn units_in(answer: &ScanOutput) -> f64 {
    let said = answer.consumed_capacity.as_ref().and_then(|consumed| consumed.capacity_units);
    said.unwrap_or_else(|| {
        let bytes = |row: &HashMap<String, AttributeValue>| {
            item_of(row.clone()).map_or(0, |item| item::encode(&item).len())
        };
        units_of(answer.items().iter().map(bytes).sum())
    })
}
