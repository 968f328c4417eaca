//! For how long a server keeps a key.

use std::{sync::Arc, time::Duration};

use redis::{Cmd, Pipeline, Value};
use tokio::time::Instant;

use super::{EntryReads, KEY_OVERHEAD_BYTES};
use crate::{call::ServerView, exchange::Requests, node::Node, nodes::Map, outcome::CacheError};

/// For how long a server keeps a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stay {
    /// There is no such key, of whatever type.
    Gone,
    /// Until it is deleted or evicted.
    Unbounded,
    /// So long.
    Left(Duration),
}

impl EntryReads {
    /// For how long the key's primary keeps it.
    ///
    /// # Errors
    /// The server did not answer, or may not be asked (`PTTL`).
    pub async fn stay(&self, key: &[u8]) -> Result<Stay, CacheError> {
        let answer = self.nodes.carry(&Ask { key }).await.pop();
        match answer {
            Some(Ok(Value::Int(-2))) => Ok(Stay::Gone),
            Some(Ok(Value::Int(-1))) => Ok(Stay::Unbounded),
            Some(Ok(Value::Int(ms))) => Ok(Stay::Left(Duration::from_millis(u64::try_from(ms).unwrap_or(0)))),
            Some(Err(error)) => Err(error),
            Some(Ok(_)) | None => Err(CacheError::Unavailable {
                address: self.nodes.config().servers.to_string().into(),
                reason: "PTTL was answered with something else than a number".into(),
            }),
        }
    }
}

/// One `PTTL`.
struct Ask<'k> {
    key: &'k [u8],
}

impl Requests for Ask<'_> {
    fn len(&self) -> usize {
        1
    }

    fn key(&self, _index: usize) -> &[u8] {
        self.key
    }

    fn len_max(&self, _index: usize) -> usize {
        self.key.len() + KEY_OVERHEAD_BYTES
    }

    fn write(&self, _index: usize, _view: &ServerView, pipeline: &mut Pipeline) {
        let mut command = Cmd::new();
        command.arg("PTTL").arg(self.key);
        pipeline.add_command(command);
    }

    fn deadline(&self) -> Option<Instant> {
        None
    }

    fn target<'m>(&self, map: &'m Map, _index: usize, _round: usize) -> Option<&'m Arc<Node>> {
        Some(&map.shard_of(self.key)?.primary)
    }

    fn has_other_target(&self, _round: usize) -> bool {
        false
    }
}
