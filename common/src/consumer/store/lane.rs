//! What the state table knows of lanes: which a fleet has had, and for which a backfill was asked for.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_dynamodb::types::AttributeValue;

use super::item::{FORMAT, Item, key, n, new_item, s};
use super::{StateStore, StoreError};
use crate::aws::CallError;

const PARTITION: &str = "lanes";
const LANE: &str = "lane#";
const BACKFILL: &str = "backfill#";
/// Why a backfill is asked for with a lane that was not there before.
const NEW_LANE: &str = "it is new";

/// A lane in the state table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LaneState {
    /// The streams that it was ever configured for, with since when, in milliseconds since the epoch.
    pub added_ms: BTreeMap<String, u64>,
    /// The streams of which every shard that is listed has it.
    pub begun: BTreeSet<String>,
    /// The streams whose tables it lacks something of, with when and why a backfill was asked for.
    pub backfills: BTreeMap<String, Backfill>,
}

/// A backfill that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backfill {
    /// When it was asked for first, in milliseconds since the epoch.
    pub asked_ms: u64,
    /// When it was asked for last: one that began before does not answer it.
    pub latest_ms: u64,
    /// Why, as of the last time.
    pub why: String,
}

impl Backfill {
    /// Asked for because the lane was new, and not because it lost something that it had.
    pub fn is_of_new_lane(&self) -> bool {
        self.why == NEW_LANE
    }
}

impl StateStore {
    /// The lanes that the fleet has had, by name, strongly consistent.
    ///
    /// # Errors
    /// When a call fails or an item is not one of ours.
    pub async fn lanes(&self) -> Result<BTreeMap<String, LaneState>, StoreError> {
        let mut lanes: BTreeMap<String, LaneState> = BTreeMap::new();
        for attributes in &self.query(PARTITION, true).await? {
            let item = Item { table: self.table(), attributes };
            item.check_format()?;
            let name = item.text("lane")?.to_owned();
            let lane = lanes.entry(name).or_default();
            let stream = item.text("stream")?.to_owned();
            match item.text("sk")?.starts_with(LANE) {
                true => {
                    if item.flag("begun")? {
                        lane.begun.insert(stream.clone());
                    }
                    lane.added_ms.insert(stream, item.number("added_ms")?);
                }
                false => {
                    let asked_ms = item.number("asked_ms")?;
                    // Earlier versions did not tell.
                    let latest_ms = item.optional_number("latest_ms")?.unwrap_or(asked_ms);
                    let backfill = Backfill { asked_ms, latest_ms, why: item.text("why")?.to_owned() };
                    lane.backfills.insert(stream, backfill);
                }
            }
        }
        Ok(lanes)
    }

    /// Records that a stream goes to a lane. If that is new, and `backfill` says so, a backfill is asked for.
    ///
    /// # Errors
    /// When a call fails.
    pub async fn add_lane(
        &self,
        lane: &str,
        stream: &str,
        backfill: bool,
        now_ms: u64,
    ) -> Result<(), CallError> {
        let sk = format!("{LANE}{lane}#{stream}");
        if self.get(key(PARTITION, &sk)).await?.is_some() {
            return Ok(());
        }
        if backfill {
            self.ask_backfill(lane, stream, NEW_LANE, now_ms).await?;
        }
        let mut item = new_item(PARTITION, sk);
        item.insert("lane".to_owned(), s(lane));
        item.insert("stream".to_owned(), s(stream));
        item.insert("added_ms".to_owned(), n(now_ms));
        self.put_new(item).await.map(|_| ())
    }

    /// Records that every shard of the stream has the lane.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn lane_begun(&self, lane: &str, stream: &str, now_ms: u64) -> Result<(), CallError> {
        let answer = self
            .client
            .update_item()
            .table_name(&self.table)
            .set_key(Some(key(PARTITION, format!("{LANE}{lane}#{stream}"))))
            .update_expression(
                "SET begun = :begun, #format = :format, #lane = :lane, #stream = :stream, \
                 added_ms = if_not_exists(added_ms, :now)",
            )
            .expression_attribute_names("#format", "format")
            .expression_attribute_names("#lane", "lane")
            .expression_attribute_names("#stream", "stream")
            .expression_attribute_values(":begun", AttributeValue::Bool(true))
            .expression_attribute_values(":format", n(FORMAT))
            .expression_attribute_values(":lane", s(lane))
            .expression_attribute_values(":stream", s(stream))
            .expression_attribute_values(":now", n(now_ms))
            .send()
            .await;
        self.answered("UpdateItem", answer).map(|_| ())
    }

    /// Asks for a backfill of the stream's table for a lane: until it is made, the lane's watermark stands still.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn ask_backfill(
        &self,
        lane: &str,
        stream: &str,
        why: &str,
        now_ms: u64,
    ) -> Result<(), CallError> {
        let answer = self
            .client
            .update_item()
            .table_name(&self.table)
            .set_key(Some(key(PARTITION, format!("{BACKFILL}{lane}#{stream}"))))
            .update_expression(
                "SET asked_ms = if_not_exists(asked_ms, :now), latest_ms = :now, why = :why, #format = :format, \
                 #lane = :lane, #stream = :stream",
            )
            .expression_attribute_names("#format", "format")
            .expression_attribute_names("#lane", "lane")
            .expression_attribute_names("#stream", "stream")
            .expression_attribute_values(":format", n(FORMAT))
            .expression_attribute_values(":lane", s(lane))
            .expression_attribute_values(":stream", s(stream))
            .expression_attribute_values(":why", s(why))
            .expression_attribute_values(":now", n(now_ms))
            .send()
            .await;
        self.answered("UpdateItem", answer).map(|_| ())
    }

    /// The backfill is made.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn backfilled(&self, lane: &str, stream: &str) -> Result<(), CallError> {
        self.delete(format!("{BACKFILL}{lane}#{stream}")).await
    }

    /// The backfill that was asked for last at `latest_ms` is made; whether that is still the last.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn backfill_made(&self, lane: &str, stream: &str, latest_ms: u64) -> Result<bool, CallError> {
        let request = self.client.delete_item().table_name(&self.table);
        let answer = request
            .set_key(Some(key(PARTITION, format!("{BACKFILL}{lane}#{stream}"))))
            // Earlier versions did not tell when it was asked for last.
            .condition_expression(
                "latest_ms = :latest OR (attribute_not_exists(latest_ms) AND asked_ms = :latest)",
            )
            .expression_attribute_values(":latest", n(latest_ms))
            .send()
            .await;
        match self.answered("DeleteItem", answer) {
            Ok(_) => Ok(true),
            Err(error) if error.is_code("ConditionalCheckFailedException") => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Forgets a lane: what it lacks is of no account any more, on every shard. Whoever reads one
    /// loses its lease, and takes it again as it is then. Returns the number of leases that spoke for it.
    ///
    /// A process that still has the lane configured makes it a new one.
    ///
    /// # Errors
    /// When a call fails.
    pub async fn forget_lane(&self, lane: &str) -> Result<usize, StoreError> {
        let mut forgotten = 0;
        let known = self.lanes().await?.remove(lane).unwrap_or_default();
        for stream in known.added_ms.keys() {
            for lease in self.leases(stream).await? {
                if !lease.lanes.contains(lane) && !lease.parked.contains_key(lane) {
                    continue;
                }
                forgotten += usize::from(self.forget_on(lane, lease).await?);
            }
        }
        for stream in known.backfills.keys() {
            self.backfilled(lane, stream).await?;
        }
        for stream in known.added_ms.keys() {
            self.delete(format!("{LANE}{lane}#{stream}")).await?;
        }
        Ok(forgotten)
    }

    /// Tries until nobody changes the lease in between.
    async fn forget_on(&self, lane: &str, mut lease: super::Lease) -> Result<bool, StoreError> {
        loop {
            match self.forget_in(&lease, lane).await {
                Ok(()) => return Ok(true),
                Err(error) if error.is_fenced() => {}
                Err(error) => return Err(error),
            }
            match self.lease(&lease.stream, &lease.shard).await? {
                Some(now) => lease = now,
                None => return Ok(false),
            }
        }
    }

    async fn delete(&self, sk: String) -> Result<(), CallError> {
        let request = self.client.delete_item().table_name(&self.table);
        let answer = request.set_key(Some(key(PARTITION, sk))).send().await;
        self.answered("DeleteItem", answer).map(|_| ())
    }
}
