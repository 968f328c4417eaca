//! Rows of backfills: what a read of the master table found, written where nothing is (rule 8 of the cache protocol).
//!
//! They have no position, so they are never weighed against the changes of their key: each goes to the cache, which takes
//! it if it has nothing, and while the read is young. One that comes too late, because the stream was behind or its shard
//! is read again, is not believed; its key is filled from the master if the cache lacks it.

use std::collections::VecDeque;

use tokio::time::Instant;
use warmcast_cache::shape::{Shaped, shape_encoded};
use warmcast_cache::{Backfill, Backfilled, CacheError, ItemRef, ReadStart, Refusal};
use warmcast_common::consumer::Ack;
use warmcast_common::log_trouble;
use warmcast_common::retry::Backoff;
use warmcast_common::telemetry::Trouble;
use warmcast_proto::change::Change;

use super::{RETRY_FIRST, RETRY_MAX, Reducer, changes_of_call};
use crate::stats::Stats;
use crate::unpack::Routed;

/// A row on its way.
struct Row {
    change: Change,
    /// As its table's policy has it.
    found: Shaped,
    read: ReadStart,
    /// When its record was asked for.
    asked: Instant,
    ack: Ack,
}

impl Reducer {
    /// Backfills until the cache has answered for each row.
    pub(super) async fn backfill_all(&self, rows: Vec<Routed>) {
        let (mut pauses, mut trouble) = (Backoff::new(RETRY_FIRST, RETRY_MAX), Trouble::default());
        let mut refused = Refused::default();
        let mut pending: VecDeque<Row> =
            rows.into_iter().filter_map(|row| self.prepare(row, &mut refused)).collect();
        while !pending.is_empty() {
            // As with changes: what is another worker's by now is that worker's to acknowledge.
            pending.retain(|row| self.fence.passes(row.asked));
            let len = changes_of_call(pending.iter().map(|row| row.found.payload.len()));
            let (again, unavailable) = self.backfill(pending.drain(..len).collect(), &mut refused).await;
            if let Some(error) = unavailable {
                Stats::add(&self.stats.retries, again.len());
                if let Some(told) = trouble.again(Instant::now()) {
                    log_trouble!(told, %error, rows = again.len(), "rows are backfilled again until the cache takes them");
                }
                tokio::time::sleep(pauses.next_pause()).await;
            }
            pending.extend(again);
        }
        refused.log();
    }

    /// A row that the cache is to be asked for. None: it is done.
    fn prepare(&self, row: Routed, refused: &mut Refused) -> Option<Row> {
        let Routed { change, late, asked, ack, .. } = row;
        // What was read before its shard was begun again, or begun in its middle, may have been superseded by what was
        // before that: this shard tells no more of it.
        let Some(read) = ReadStart::at_ms(change.created_ms).filter(|_| !late) else {
            self.too_late(&change, ack);
            return None;
        };
        let policy = self.cache.config().tables.policy(&change.table);
        match shape_encoded(policy, &change.payload) {
            Ok(found) => Some(Row { change, found, read, asked, ack }),
            Err(error) => {
                self.refused_row(&change, Refusal::Shape(error), ack, refused);
                None
            }
        }
    }

    /// One call. Gives back what must be asked again, and why, if the cache was unavailable.
    async fn backfill(&self, rows: Vec<Row>, refused: &mut Refused) -> (Vec<Row>, Option<CacheError>) {
        let items: Vec<Backfill<'_>> = rows
            .iter()
            .map(|Row { change, found, read, .. }| {
                let item = ItemRef { table: &change.table, key: &change.key };
                Backfill { item, found: found.clone(), read: *read }
            })
            .collect();
        let answers = self.cache.backfill(&items).await;
        drop(items);
        let (mut again, mut unavailable) = (Vec::new(), None);
        for (row, answer) in rows.into_iter().zip(answers) {
            match answer {
                Ok(Backfilled::Written) => {
                    Stats::add(&self.stats.backfills_written, 1);
                    row.ack.done();
                }
                Ok(Backfilled::Occupied) => {
                    Stats::add(&self.stats.backfills_occupied, 1);
                    row.ack.done();
                }
                Ok(Backfilled::TooLate) => self.too_late(&row.change, row.ack),
                Err(CacheError::Refused { refusal, .. }) => {
                    self.refused_row(&row.change, refusal, row.ack, refused);
                }
                // The age of the page stands for a deadline.
                Err(error @ (CacheError::PastDeadline { .. } | CacheError::Unavailable { .. })) => {
                    unavailable = Some(error);
                    again.push(row);
                }
            }
        }
        (again, unavailable)
    }

    /// The row is not believed, and the key is filled if it is a miss.
    fn too_late(&self, change: &Change, ack: Ack) {
        Stats::add(&self.stats.backfills_too_late, 1);
        self.ask_master(&change.table, &change.key);
        ack.done();
    }

    /// The row is in the master, so it is not set aside: its key is a miss, which is what it was.
    fn refused_row(&self, change: &Change, refusal: Refusal, ack: Ack, refused: &mut Refused) {
        Stats::add(&self.stats.backfills_refused, 1);
        refused.add(change, refusal);
        ack.done();
    }
}

/// Rows that the cache will never take, for one line of the log.
#[derive(Default)]
struct Refused {
    rows: usize,
    first: Option<(Change, Refusal)>,
}

impl Refused {
    fn add(&mut self, change: &Change, refusal: Refusal) {
        self.rows += 1;
        self.first.get_or_insert_with(|| (change.clone(), refusal));
    }

    fn log(self) {
        let Some((change, refusal)) = self.first else { return };
        let (rows, table) = (self.rows, &*change.table);
        // Not worth a warning: the operator of the table has said so.
        if refusal == Refusal::NotBackfilled {
            tracing::debug!(table, rows, %refusal, "rows of a backfill are not cached");
        } else {
            tracing::warn!(table, rows, %refusal, "rows of a backfill cannot be cached; the first tells why");
        }
    }
}
