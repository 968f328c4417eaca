//! Each table's streams: the one it has now, those it had before, and the one it gets while we run.
//!
//! A table whose stream was disabled and enabled again has a new stream, which is a new generation. What is left of
//! the old one is readable for 24 hours (AWS), so both are read; positions keep their changes apart.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use warmcast_common::aws::CallError;
use warmcast_common::clock::now_ms;
use warmcast_common::consumer::store::Generation;
use warmcast_common::consumer::{Subscription, Worker};
use warmcast_common::dead_letter::Quarantine;
use warmcast_common::retry::until_ok;

use crate::change::ChangeMaker;
use crate::config::{RegionConfig, RegionStart, TableConfig};
use crate::describes::Describes;
use crate::filter::Feeds;
use crate::intake::{Intake, Pending};
use crate::source::DynamoDbStream;
use crate::stats::Stats;
use crate::table::{KeySchema, TableError, TableStream, find_stream};

/// Pause between two looks whether a table has a new stream: one DescribeTable each.
const NEW_STREAM_INTERVAL: Duration = Duration::from_secs(30);

/// Subscribes the consumer to a table's streams.
pub struct Table {
    /// The table.
    pub table: TableConfig,
    /// The regions that its changes go to.
    pub regions: Arc<[RegionConfig]>,
    /// Where it is described.
    pub dynamodb: aws_sdk_dynamodb::Client,
    /// Where its streams are read.
    pub streams: aws_sdk_dynamodbstreams::Client,
    /// The turns for DescribeStream.
    pub describes: Describes,
    /// This process in the fleet.
    pub worker: Arc<Worker>,
    /// The consumer.
    pub consumer: mpsc::Sender<Subscription<DynamoDbStream, Intake>>,
    /// Where changes go.
    pub batcher: mpsc::Sender<Vec<Pending>>,
    /// The most bytes of one change.
    pub body_bytes_max: usize,
    /// Where what cannot be used goes.
    pub quarantine: Quarantine,
    /// What is counted.
    pub stats: Arc<Stats>,
}

impl Table {
    /// Finds the table's stream, however long that takes, and each new one, until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        shutdown.run_until_cancelled(self.follow()).await;
    }

    async fn follow(&self) {
        let mut newest = None;
        loop {
            // A table that cannot be tailed must not hold up the others: it is tried until it can.
            let (found, generations) = until_ok(&format!("table {}", self.table.name), || self.find()).await;
            let current = generations.iter().find(|generation| generation.stream == found.stream_arn);
            if let Some(current) = current
                && newest != Some(current.number)
            {
                newest = Some(current.number);
                if !found.has_new_images() {
                    tracing::info!(
                        table = found.table,
                        view_type = found.view_type.as_str(),
                        "the table's stream has no new images: its items are read from the master in each region"
                    );
                }
                let feeds = self.feeds(&found.key);
                if let Some(without_effect) = feeds.without_effect(found.view_type.as_str()) {
                    tracing::warn!(
                        table = found.table,
                        view_type = found.view_type.as_str(),
                        "{without_effect}"
                    );
                }
                for generation in &generations {
                    self.subscribe(&found, generation, generation.number < current.number).await;
                }
            }
            tokio::time::sleep(NEW_STREAM_INTERVAL).await;
        }
    }

    /// The table's stream, and all generations, that one included.
    async fn find(&self) -> Result<(TableStream, Vec<Generation>), TableError> {
        let found = find_stream(&self.dynamodb, &self.table.name).await?;
        self.worker.store().generation(&found.table, &found.stream_arn).await?;
        let generations = self.worker.store().generations(&found.table).await?;
        Ok((found, generations))
    }

    async fn subscribe(&self, found: &TableStream, generation: &Generation, superseded: bool) {
        let (table, stream) = (&found.table, &generation.stream);
        until_ok(&format!("the regions of table {table}"), || self.add_regions(stream)).await;
        tracing::info!(table, stream, generation = generation.number, superseded, "tailing table");
        let subscription = Subscription {
            source: DynamoDbStream::new(self.streams.clone(), stream, self.describes.clone()),
            processor: self.intake(table, generation.number, found.key.clone()),
            from_trim_horizon: self.table.from_trim_horizon || generation.number > 1,
            superseded,
        };
        // The consumer ends at shutdown only.
        let _ended = self.consumer.send(subscription).await;
    }

    /// Before anything is read for them.
    async fn add_regions(&self, stream: &str) -> Result<(), CallError> {
        for region in &*self.regions {
            let backfill = region.start == RegionStart::Backfill;
            self.worker.store().add_lane(&region.name, stream, backfill, now_ms()).await?;
        }
        Ok(())
    }

    /// What each region receives; its lane is its place in the configuration.
    fn feeds(&self, key: &KeySchema) -> Feeds {
        Feeds::new(key, self.regions.iter().map(|region| region.filters.get(&self.table.name)))
    }

    fn intake(&self, table: &str, generation: u32, key: KeySchema) -> Intake {
        Intake {
            feeds: self.feeds(&key),
            maker: ChangeMaker::new(table, generation, key),
            body_bytes_max: self.body_bytes_max,
            batcher: self.batcher.clone(),
            quarantine: self.quarantine.clone(),
            stats: Arc::clone(&self.stats),
            suppressed: self.stats.suppressed(table, self.regions.len()),
        }
    }
}
