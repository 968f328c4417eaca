//! One part of a backfill, a segment of a table or a file of keys: page by page, each sent while it is young, and its
//! place noted when every region has it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use warmcast_common::aws::CallError;
use warmcast_common::consumer::Lanes;
use warmcast_common::consumer::store::StateStore;
use warmcast_common::tool::{Progress, Throttle};
use warmcast_proto::change::Change;

use super::keys::KeyList;
use super::page::Page;
use super::place::{At, Place};
use super::rows::RowMaker;
use super::scan::Segment;
use super::size::PageSize;
use super::tally::Tally;
use crate::dispatch::{DeliveryError, Dispatch, DispatchError};

/// A page that cannot be sent in time for so long ends the command.
const SEND_PATIENCE: Duration = Duration::from_secs(120);
/// A place is noted so often at most: what is done again after a kill does no harm.
const NOTE_INTERVAL: Duration = Duration::from_secs(1);

/// What all parts share.
pub(super) struct Shared {
    pub(super) dispatch: Dispatch,
    /// Read request units of all parts together.
    pub(super) units: Throttle,
    /// A page must be in every region's stream so soon after its read began.
    pub(super) sent_within: Duration,
    pub(super) store: StateStore,
    /// The job's name in the state table.
    pub(super) job: String,
    pub(super) progress: Progress,
    pub(super) stop: CancellationToken,
}

/// Where a part's rows come from.
pub(super) enum Source {
    Segment(Segment),
    Keys(Box<KeyList>),
}

/// A part.
pub(super) struct Part {
    /// Its name within the job.
    pub(super) name: String,
    pub(super) source: Source,
    pub(super) maker: Arc<RowMaker>,
    pub(super) size: PageSize,
    pub(super) place: Place,
}

/// Why a part was not done to its end. What it did is done, and its place noted.
#[derive(Debug, thiserror::Error)]
pub(super) enum PartError {
    #[error("stopped by a signal; the same command goes on where it was")]
    Stopped,
    #[error(transparent)]
    Read(#[from] anyhow::Error),
    #[error(transparent)]
    Send(#[from] DispatchError),
    #[error(
        "{part}: no page was in every region's stream within {} s of its read, for {} s: {last}; give it a lower rate \
         (--bytes-per-s), or fewer segments",
        within.as_secs(),
        SEND_PATIENCE.as_secs()
    )]
    TooSlow { part: String, within: Duration, last: String },
    #[error("note where it was: {0}")]
    Note(CallError),
}

impl Part {
    /// Does what is left of it.
    pub(super) async fn run(mut self, shared: Arc<Shared>) -> Result<Tally, PartError> {
        let mut tally = Tally::default();
        let done = self.pages(&shared, &mut tally).await;
        // Also after an error, for the next run; that error is what the operator has to know of.
        let noted = shared.store.job_place(&shared.job, &self.name, &self.place.to_text()).await;
        done?;
        noted.map_err(PartError::Note)?;
        Ok(tally)
    }

    async fn pages(&mut self, shared: &Shared, tally: &mut Tally) -> Result<(), PartError> {
        let mut noted = Instant::now();
        while self.place.at != At::End {
            let page = shared.stop.run_until_cancelled(self.page(shared, tally)).await;
            page.ok_or(PartError::Stopped)??;
            if noted.elapsed() >= NOTE_INTERVAL {
                noted = Instant::now();
                let place = self.place.to_text();
                let note = shared.store.job_place(&shared.job, &self.name, &place).await;
                note.map_err(PartError::Note)?;
            }
        }
        Ok(())
    }

    /// One page, read again until it was sent in time.
    async fn page(&mut self, shared: &Shared, tally: &mut Tally) -> Result<(), PartError> {
        let began = Instant::now();
        loop {
            let Some(page) = self.read().await? else {
                self.place.at = At::End;
                return Ok(());
            };
            let (read, absent, next) = (page.rows.len() as u64, page.absent, page.next.clone());
            // For the next one: what is read is sent at once.
            let units = page.units;
            let last = match self.send(shared, page, tally).await? {
                Ok(bytes) => {
                    self.size.in_time(read, bytes);
                    self.done(shared, tally, read, absent, next);
                    shared.units.take(units_of(units)).await;
                    return Ok(());
                }
                Err(last) => last,
            };
            tally.pages_again += 1;
            self.size.too_late();
            if began.elapsed() >= SEND_PATIENCE {
                let (part, within) = (self.name.clone(), shared.sent_within);
                return Err(PartError::TooSlow { part, within, last });
            }
            shared.units.take(units_of(units)).await;
        }
    }

    async fn read(&mut self) -> Result<Option<Page>, PartError> {
        let rows_max = self.size.rows();
        match &mut self.source {
            Source::Segment(segment) => {
                let page = segment.page(&self.place.at, rows_max).await;
                page.map_err(|error| PartError::Read(error.into()))
            }
            Source::Keys(keys) => Ok(keys.page(rows_max).await?),
        }
    }

    /// Sends a page: the bytes of its rows, or why it was not in every region's stream in time.
    async fn send(
        &self,
        shared: &Shared,
        page: Page,
        tally: &mut Tally,
    ) -> Result<Result<u64, String>, PartError> {
        let Page { rows, read_ms, began, units, .. } = page;
        let (mut changes, mut seen): (Vec<(Change, Lanes)>, _) = (Vec::new(), Tally::default());
        let mut bytes = 0;
        for row in rows {
            match self.maker.views(row, read_ms) {
                Ok(views) => {
                    seen.row(&views);
                    bytes += views.iter().map(|(change, _)| change.payload.len() as u64).max().unwrap_or(0);
                    changes.extend(views);
                }
                Err(reason) => {
                    tracing::warn!(table = &*self.maker.table, %reason, "a row cannot be read and is left out");
                    seen.rows_unreadable += 1;
                }
            }
        }
        tally.read_units += units;
        let deadline = began + shared.sent_within;
        let sent = match timeout_at(deadline, shared.dispatch.send(changes, read_ms)).await {
            Ok(Ok(sent)) => sent,
            Ok(Err(error @ DispatchError::Delivery(DeliveryError::Stuck { .. }))) => {
                return Ok(Err(error.to_string()));
            }
            Ok(Err(error)) => return Err(error.into()),
            Err(_elapsed) => return Ok(Err("it takes too long".to_owned())),
        };
        tally.bytes_sent += sent.bytes;
        if Instant::now() > deadline {
            return Ok(Err("it takes too long".to_owned()));
        }
        seen.rows_too_large += sent.too_large;
        tally.add(&seen);
        Ok(Ok(bytes))
    }

    fn done(&mut self, shared: &Shared, tally: &mut Tally, read: u64, absent: u64, next: At) {
        tally.rows_read += read;
        tally.rows_absent += absent;
        self.place.rows += read + absent;
        self.place.at = match &mut self.source {
            Source::Segment(_) => next,
            Source::Keys(keys) => keys.accept(),
        };
        shared.progress.add(read + absent);
    }
}

/// Whole units: a page takes many.
fn units_of(units: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a small number, rounded up; a cast saturates"
    )]
    let whole = units.ceil() as u64;
    whole
}
