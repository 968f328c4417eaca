//! Reading entries in bulk, as they are: for comparing a cache with its tables.
//!
//! Not how readers read: this has no deadline, no first level and no idea of freshness.

use std::sync::Arc;

use bytes::Bytes;
use redis::{FromRedisValue as _, Value};

use crate::{
    config::{Address, CacheConfig},
    connection::{ConnectError, Purpose, Slot, describe_failure},
    reply::describe,
};

/// The most keys in one MGET: with items of 400 KiB its answer takes 25 MiB.
const KEYS_MAX: usize = 64;

/// Reads entries of one cache over one connection.
pub struct Snapshot {
    slot: Slot,
    address: Address,
}

/// Why entries could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The server did not answer, or with an error.
    #[error("read entries from the cache at {address}: {reason}")]
    Read {
        /// The server.
        address: Address,
        /// What happened.
        reason: String,
    },
}

impl Snapshot {
    /// Connects; a replica will do.
    ///
    /// # Errors
    /// The server cannot be used; the error says what to do about it.
    pub async fn connect(config: CacheConfig) -> Result<Self, ConnectError> {
        let address = config.address.clone();
        let slot = Slot::new(Arc::new(config), Purpose::Read)?;
        slot.open().await?;
        Ok(Self { slot, address })
    }

    /// The values of these keys (see [`warmcast_proto::key::cache_key`]), in their order; nothing where there is
    /// none, or no string. [`warmcast_proto::entry::EntryHeader::decode`] reads them.
    ///
    /// # Errors
    /// The server did not answer, or with an error. The next call connects again.
    pub async fn get_many<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<Bytes>>, SnapshotError> {
        let mut values = Vec::with_capacity(keys.len());
        for keys in keys.chunks(KEYS_MAX) {
            values.extend(self.get_chunk(keys).await?);
        }
        Ok(values)
    }

    async fn get_chunk<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<Bytes>>, SnapshotError> {
        let mut command = redis::cmd("MGET");
        for key in keys {
            command.arg(key.as_ref());
        }
        let failed = |reason| SnapshotError::Read { address: self.address.clone(), reason };
        let (mut open, _) = self.slot.open().await?;
        let answer = match open.connection.send_packed_command(&command).await {
            Ok(Value::ServerError(error)) => return Err(failed(describe(&error))),
            Ok(answer) => answer,
            Err(error) => {
                self.slot.give_up(&open).await;
                return Err(failed(describe_failure(&error)));
            }
        };
        let values: Vec<Option<Vec<u8>>> =
            Vec::from_redis_value(answer).map_err(|error| failed(error.to_string()))?;
        if values.len() != keys.len() {
            return Err(failed(format!("{} values for {} keys", values.len(), keys.len())));
        }
        Ok(values.into_iter().map(|value| value.map(Bytes::from)).collect())
    }
}
