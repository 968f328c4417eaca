//! Dead letters of the aggregator, tried again: a stream record becomes a change again, if this version can read it, and
//! goes to the regions, to each as its filter of the table says; a frame that a region refused goes to that region.
//!
//! Its position is the one it had, so a cache that has something newer does not take it. And its time is that of the
//! first attempt: the changes were read that long ago, and go into frames that say so
//! ([`FrameBuilder::read_at`](warmcast_proto::frame::FrameBuilder::read_at)). Cache-writers then treat what is older than
//! a minute as late: the key is made invalid and filled from the master, because nobody knows whether a cache has lost
//! something newer since.

mod command;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use warmcast_common::consumer::Lanes;
use warmcast_common::consumer::store::StateStore;
use warmcast_common::dead_letter::{
    Envelope, Form, Kept, Letter, LetterError, LetterId, LetterStore, Redriven,
};
use warmcast_proto::change::Change;
use warmcast_proto::record;

pub use command::{redrive_command, redrive_letters};

use crate::change::ChangeMaker;
use crate::config::Config;
use crate::filter::Feeds;
use crate::source::created_ms;
use crate::stream_record;
use crate::table::{TableError, find_stream};

/// Why a letter could not be tried. It stays as it was.
#[derive(Debug, thiserror::Error)]
pub enum RedriveError<E> {
    /// The store of dead letters.
    #[error(transparent)]
    Letters(#[from] LetterError),
    /// The changes could not be sent.
    #[error("send what letter {id} has: {error}")]
    Send {
        /// The letter.
        id: LetterId,
        /// What the sender said.
        error: E,
    },
}

/// What is needed of the tables and regions to make changes of letters.
#[derive(Clone, Debug)]
pub struct Routes {
    /// How the changes of a stream are made, and to which regions they go; by the stream.
    pub streams: BTreeMap<String, (ChangeMaker, Feeds)>,
    /// The names of the regions, in the order of their lanes.
    pub regions: Vec<Arc<str>>,
}

impl Routes {
    /// Of every generation of the configured tables.
    ///
    /// # Errors
    /// A table or its generations cannot be looked at.
    pub async fn find(
        config: &Config,
        dynamodb: &aws_sdk_dynamodb::Client,
        store: &StateStore,
    ) -> Result<Self, TableError> {
        let mut streams = BTreeMap::new();
        for table in &config.tables {
            let found = find_stream(dynamodb, &table.name).await?;
            let filters = config.regions.iter().map(|region| region.filters.get(&table.name));
            let feeds = Feeds::new(&found.key, filters);
            for generation in store.generations(&table.name).await? {
                let maker = ChangeMaker::new(&table.name, generation.number, found.key.clone());
                streams.insert(generation.stream, (maker, feeds.clone()));
            }
        }
        let regions = config.regions.iter().map(|region| region.name.as_str().into()).collect();
        Ok(Self { streams, regions })
    }

    /// What a letter has, and to which regions it goes.
    ///
    /// # Errors
    /// Why it cannot be read, or has nowhere to go.
    pub fn of(&self, kept: &Kept, letter: &Letter) -> Result<Vec<(Change, Lanes)>, String> {
        if kept.bytes_len > letter.bytes.len() as u64 {
            return Err(format!("only {} of its {} bytes were kept", letter.bytes.len(), kept.bytes_len));
        }
        match letter.envelope.form {
            Form::DynamodbStreamRecord => self.of_stream_record(letter),
            Form::Frame => self.of_frame(letter),
            form @ (Form::KinesisRecord | Form::Change) => {
                Err(format!("a {} is not the aggregator's: try it again with a cache-writer", form.as_str()))
            }
        }
    }

    /// To every region, as its filter says.
    fn of_stream_record(&self, letter: &Letter) -> Result<Vec<(Change, Lanes)>, String> {
        let record = stream_record::decode(&letter.bytes).map_err(|error| error.to_string())?;
        let stream = &*letter.envelope.origin.stream;
        let (maker, feeds) =
            self.streams.get(stream).ok_or("its stream is not one of those that are read")?;
        let change = maker.make(&record, created_ms(&record));
        let change = change.map_err(|undecodable| undecodable.reason.to_string())?;
        Ok(feeds.route(&record, change, Lanes::first(self.regions.len())))
    }

    /// To the region that refused it: its changes are what the region's filter left.
    fn of_frame(&self, letter: &Letter) -> Result<Vec<(Change, Lanes)>, String> {
        let lane = self.region_of(&letter.envelope)?;
        let contents = record::read(Bytes::copy_from_slice(&letter.bytes));
        let parts = contents.map_err(|error| error.to_string())?.parts.into_iter();
        let changes: Result<Vec<Change>, _> = parts.map(|part| part.change).collect();
        Ok(changes.map_err(|error| error.to_string())?.into_iter().map(|change| (change, lane)).collect())
    }

    fn region_of(&self, envelope: &Envelope) -> Result<Lanes, String> {
        let source = &*envelope.origin.source;
        let region = source.split_once('/').map(|(_, region)| region);
        let lane = region.and_then(|region| self.regions.iter().position(|known| &**known == region));
        let lane =
            lane.ok_or_else(|| format!("{source} names none of the regions: {}", self.regions.join(", ")))?;
        Ok(Lanes::one(lane))
    }
}

/// Tries a letter again. `send` gets its changes with the regions that are to have them, and when they were read from
/// their table's stream, in milliseconds since the Unix epoch; it succeeds when they are where they should be, and the
/// letter is deleted after that.
///
/// # Errors
/// The store, or the sender.
pub async fn redrive<E>(
    store: &LetterStore,
    id: LetterId,
    routes: &Routes,
    send: impl AsyncFnOnce(Vec<(Change, Lanes)>, u64) -> Result<(), E>,
) -> Result<Redriven, RedriveError<E>> {
    let Some((kept, letter)) = store.get(id).await? else { return Ok(Redriven::Gone) };
    match routes.of(&kept, &letter) {
        Ok(changes) => {
            let sent = changes.len();
            if sent > 0 {
                let sending = send(changes, kept.first_attempt_ms).await;
                sending.map_err(|error| RedriveError::Send { id, error })?;
            }
            store.delete(id).await?;
            Ok(Redriven::Done(sent))
        }
        Err(reason) => match store.failed_again(id, &reason).await? {
            Some(_) => Ok(Redriven::FailedAgain(reason)),
            None => Ok(Redriven::Gone),
        },
    }
}
