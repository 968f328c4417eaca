//! The part of a call that the master answers.
//!
//! Every miss is filled, whether the call can wait for it or not; what the call sees of it is what comes within its
//! deadline.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::timeout_at;
use warmcast_proto::key::ItemKey;

use super::{
    answer::{Answer, Row},
    call::Call,
    judge::{Known, Miss, Seen, see},
    keys::Keys,
};
use crate::{
    filler::{FillAnswer, FillError, Filler, Ticket},
    item_id::ItemId,
    shape::wall_clock_ms,
};

impl Call<'_> {
    /// Has the misses filled, and waits for the master's answers for as long as the call may.
    pub(super) async fn fall_back(&mut self, table: &str, keys: &[ItemKey], cache_keys: &Keys) {
        let Some(filler) = self.inner.filler.as_ref().filter(|_| !self.misses.is_empty()) else { return };
        // What waits for the master is counted already.
        self.inner.counters.add(&std::mem::take(&mut self.tally));
        for (index, ticket) in self.ask(filler, table, keys) {
            if !self.options.wait_for_master && ticket.is_coming() {
                self.give(index, Answer::Missing { filling: true });
                continue;
            }
            match timeout_at(self.deadline, ticket.wait()).await {
                Ok(answer) => self.take_filled(index, table, cache_keys.get(index), answer),
                Err(_) => self.give(index, Answer::Missing { filling: true }),
            }
        }
    }

    /// A ticket for each miss that is filled by this process; the others are answered.
    fn ask(&mut self, filler: &Filler, table: &str, keys: &[ItemKey]) -> Vec<(usize, Ticket)> {
        let table: Arc<str> = table.into();
        let mut tickets = Vec::with_capacity(self.misses.len());
        for (index, miss) in std::mem::take(&mut self.misses) {
            let ticket = keys.get(index).and_then(|key| {
                // A copy: the caller's key may be a part of something large.
                let id = ItemId::new(Arc::clone(&table), Bytes::copy_from_slice(key.as_bytes()));
                match miss {
                    Miss::Unknown => filler.ask(std::iter::once(&id)).pop(),
                    // By this process: its flight can be joined. By another: its fill is not waited for.
                    Miss::BeingFilled => filler.join(&id),
                    Miss::Foreign => None,
                }
            });
            match ticket {
                Some(ticket) => tickets.push((index, ticket)),
                None => self.give(index, Answer::Missing { filling: miss == Miss::BeingFilled }),
            }
        }
        tickets
    }

    fn take_filled(
        &mut self,
        index: usize,
        table: &str,
        cache_key: &[u8],
        answer: Result<FillAnswer, FillError>,
    ) {
        let now_ms = wall_clock_ms();
        let known = match answer {
            Ok(FillAnswer::Item(filling)) => Known::Item(Row {
                payload: filling.payload,
                time_ms: filling.read_ms,
                expires_ms: filling.expires_ms,
            }),
            Ok(FillAnswer::Absent) => {
                let negative_ttl = self.inner.config.cache.tables.policy(table).negative_ttl;
                let ttl_ms = u64::try_from(negative_ttl.as_millis()).unwrap_or(u64::MAX);
                // At least for this answer.
                Known::Absent { until_ms: Some(now_ms.saturating_add(ttl_ms.max(1))) }
            }
            Ok(FillAnswer::Present(entry)) => match see(Some(entry), now_ms) {
                Seen::Known(known) => known,
                Seen::Miss(_) => return self.give(index, Answer::Missing { filling: false }),
            },
            Ok(FillAnswer::Busy) => return self.give(index, Answer::Missing { filling: true }),
            Err(error) => {
                tracing::debug!(table, %error, "a miss was not filled");
                return self.give(index, Answer::Missing { filling: false });
            }
        };
        self.tally.from_master += 1;
        self.know(index, cache_key, known, self.as_of_ms, now_ms);
    }
}
