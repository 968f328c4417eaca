//! What carries a key: its bucket, the shard of the region's stream, the shard's lease and worker, and what was set aside
//! of the key. Each is looked for by itself: what cannot be had is told with why.

use std::fmt::Display;

use serde::Serialize;
use warmcast_common::aws::sdk_config;
use warmcast_common::consumer::StreamSource as _;
use warmcast_common::consumer::store::StateStore;
use warmcast_common::dead_letter::{Filter, LetterReport, LetterStore, page};
use warmcast_proto::key::{Buckets, bucket, explicit_hash_key};

use super::{Known, Subject};
use crate::config::Config;
use crate::source::KinesisStream;

/// Dead letters that are told one by one.
const LETTERS_MAX: usize = 10;

/// What is known around a key.
pub(super) struct Surroundings {
    pub(super) bucket: u32,
    pub(super) buckets: u32,
    pub(super) stream: Known<StreamPart>,
    pub(super) letters: Known<Letters>,
}

/// The part of the region's stream that carries a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StreamPart {
    /// The stream.
    pub stream: String,
    /// The open shard that its changes come into.
    pub shard: String,
    /// The shard's lease; none: no worker has ever seen the shard.
    pub lease: Option<LeasePart>,
}

/// A shard's lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LeasePart {
    /// The worker that reads the shard; none: nobody does.
    pub worker: Option<String>,
    /// Whether the worker has a heartbeat in the state table.
    pub worker_is_known: bool,
    /// Grows with each change of ownership.
    pub epoch: u64,
    /// Up to where everything is in the cache.
    pub checkpoint: String,
}

/// Dead letters of a key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Letters {
    /// How many.
    pub total: u64,
    /// The newest of them.
    pub letters: Vec<LetterReport>,
}

/// Looks for all of it.
pub(super) async fn look_around(config: &Config, subject: &Subject, buckets: Buckets) -> Surroundings {
    let dynamodb = aws_sdk_dynamodb::Client::new(&sdk_config(&config.dynamodb).await);
    let of_key = bucket(&subject.id.table, &subject.id.key, buckets);
    let hash_key = explicit_hash_key(of_key, buckets);
    let (stream, letters) = tokio::join!(
        stream_part(config, dynamodb.clone(), hash_key),
        letters(config, dynamodb.clone(), subject),
    );
    Surroundings { bucket: of_key, buckets: buckets.count(), stream, letters }
}

fn unknown(error: impl Display) -> std::sync::Arc<str> {
    error.to_string().into()
}

async fn stream_part(
    config: &Config,
    dynamodb: aws_sdk_dynamodb::Client,
    hash_key: u128,
) -> Known<StreamPart> {
    let kinesis = aws_sdk_kinesis::Client::new(&sdk_config(&config.kinesis.service).await);
    let stream = KinesisStream::find(kinesis, &config.kinesis.stream).await.map_err(unknown)?;
    let shards = stream.listed().await.map_err(unknown)?;
    let shard = shards.into_iter().find(|shard| shard.is_open() && shard.has(hash_key));
    let shard = shard.ok_or_else(|| unknown("no open shard has the hash key of the key's bucket"))?.id;
    let store = StateStore::new(dynamodb, &config.state.table);
    let lease = store.lease(stream.stream(), &shard).await.map_err(unknown)?;
    let heartbeats = store.heartbeats().await.map_err(unknown)?;
    let lease = lease.map(|lease| LeasePart {
        worker_is_known: heartbeats.iter().any(|beat| Some(&beat.worker) == lease.owner.as_ref()),
        worker: lease.owner,
        epoch: lease.epoch,
        checkpoint: lease.checkpoint.to_string(),
    });
    Ok(StreamPart { stream: stream.name().to_owned(), shard, lease })
}

async fn letters(config: &Config, dynamodb: aws_sdk_dynamodb::Client, subject: &Subject) -> Known<Letters> {
    let store = LetterStore::open(&config.dead_letters, dynamodb).map_err(unknown)?;
    let filter = Filter {
        table: Some(subject.id.table.to_string()),
        key: Some(subject.id.key.to_vec()),
        ..Filter::default()
    };
    let found = page(&store, &filter, LETTERS_MAX, None).await.map_err(unknown)?;
    Ok(Letters { total: found.total, letters: found.letters })
}
