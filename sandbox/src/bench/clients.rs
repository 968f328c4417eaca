//! The two clients that are compared.

use std::time::Duration;

use bytes::Bytes;
use redis::aio::MultiplexedConnection;
use warmcast_cache::reader::{Answer, Reader, ReaderConfig};
use warmcast_cache::{CacheConfig, ReadFrom};
use warmcast_proto::entry::HEADER_LEN;

use super::BenchError;
use super::profiles::{Call, KEYS_PER_CALL, TABLE};
use crate::redis_server::RedisServer;

/// So long ago the watermark may be, which does not move: longer than any run lasts.
const STALENESS_MAX: Duration = Duration::from_secs(24 * 3_600);
/// Beyond what a call takes on a machine that does other things, too: none is to fail.
const DEADLINE: Duration = Duration::from_secs(5);

/// A client that looks up many profiles in one call.
pub(super) trait Client: Clone + Send + Sync + 'static {
    /// Looks them up, and checks that they are all there and of this size.
    fn look_up(
        &self,
        caller: usize,
        call: &Call,
        payload_bytes: usize,
    ) -> impl Future<Output = Result<(), BenchError>> + Send;
}

/// The `redis` crate's multiplexed connection, as anyone would use it.
#[derive(Clone)]
pub(super) struct PlainClient {
    connections: Vec<MultiplexedConnection>,
}

impl PlainClient {
    pub(super) async fn connect(server: &RedisServer, connections: usize) -> Result<Self, BenchError> {
        let mut opened = Vec::with_capacity(connections);
        for _ in 0..connections {
            let client = redis::Client::open(server.url())?;
            let config = redis::AsyncConnectionConfig::new().set_response_timeout(Some(DEADLINE));
            opened.push(client.get_multiplexed_async_connection_with_config(&config).await?);
        }
        Ok(Self { connections: opened })
    }
}

impl Client for PlainClient {
    async fn look_up(&self, caller: usize, call: &Call, payload_bytes: usize) -> Result<(), BenchError> {
        let wrong = |what: String| BenchError::Wrong { who: "the plain client", what };
        let connection = self.connections.get(caller % self.connections.len());
        let mut connection = connection.cloned().ok_or_else(|| wrong("no connection".to_owned()))?;
        let values: Vec<Option<Bytes>> =
            redis::cmd("MGET").arg(&call.redis_keys).query_async(&mut connection).await?;
        let size = HEADER_LEN + payload_bytes;
        let right = values.iter().flatten().filter(|value| value.len() == size).count();
        if right == KEYS_PER_CALL { Ok(()) } else { Err(wrong(format!("{right} are right"))) }
    }
}

/// What bidders use.
#[derive(Clone)]
pub(super) struct CacheReader(Reader);

impl CacheReader {
    pub(super) async fn connect(server: &RedisServer, connections: usize) -> Result<Self, BenchError> {
        let mut config = Self::config(server)?;
        config.cache.connections = connections;
        Ok(Self(Reader::connect(config).await?))
    }

    /// The Reader by itself: no first level, no master.
    pub(super) fn config(server: &RedisServer) -> Result<ReaderConfig, BenchError> {
        let mut config = ReaderConfig::new(CacheConfig::from_url(&server.url())?);
        config.read_from = ReadFrom::Primary;
        config.deadline = DEADLINE;
        config.staleness_max = Some(STALENESS_MAX);
        config.first_level = None;
        Ok(config)
    }
}

impl Client for CacheReader {
    async fn look_up(&self, _caller: usize, call: &Call, payload_bytes: usize) -> Result<(), BenchError> {
        let answers = self.0.get_many(TABLE, &call.item_keys).await?;
        check(&answers, payload_bytes)
    }
}

/// All fresh, and of this size.
pub(super) fn check(answers: &[Answer], payload_bytes: usize) -> Result<(), BenchError> {
    let is_right = |answer: &&Answer| match answer {
        Answer::Fresh(row) => row.bytes().len() == payload_bytes,
        _ => false,
    };
    let right = answers.iter().filter(is_right).count();
    if right == KEYS_PER_CALL {
        return Ok(());
    }
    Err(BenchError::Wrong { who: "the Reader", what: format!("{right} are right") })
}
