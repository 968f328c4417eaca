//! A connection that is opened when it is needed and given up on its first failure.
//!
//! There is no retry here: who calls has its own backoff, and two retry loops on top of each other multiply.

use std::{sync::Arc, time::Duration};

use redis::{AsyncConnectionConfig, ErrorKind, RedisError, Value, aio::MultiplexedConnection};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};

use crate::{
    command::APPLY_SCRIPT,
    config::{Address, CacheConfig},
    reply::describe,
    server_clock::Sample,
};

/// Why no usable connection could be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The settings name no server.
    #[error("cache at {address}: {reason}; correct the address")]
    Settings {
        /// The server.
        address: Address,
        /// What is wrong.
        reason: String,
    },
    /// Nothing answers there.
    #[error("connect to the cache at {address}: {reason}; is the server running, and is the address right?")]
    Unreachable {
        /// The server.
        address: Address,
        /// What the network says.
        reason: String,
    },
    /// No answer in time.
    #[error(
        "the cache at {address} did not answer within {waited:?}; is it overloaded, or the way to it blocked?"
    )]
    Timeout {
        /// The server.
        address: Address,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The user or the password is wrong, or missing.
    #[error(
        "the cache at {address} does not accept the credentials ({reason}); check the user and the password"
    )]
    Credentials {
        /// The server.
        address: Address,
        /// What the server says.
        reason: String,
    },
    /// The user may not run what is needed.
    #[error(
        "the cache at {address} does not permit what is needed ({reason}); \
         grant the user +evalsha +script|load +time +role +getrange +set +del +mget on its keys"
    )]
    Permission {
        /// The server.
        address: Address,
        /// What the server says.
        reason: String,
    },
    /// A replica takes no writes.
    #[error("the cache at {address} is a read-only replica; give the address of the primary")]
    Replica {
        /// The server.
        address: Address,
    },
    /// The server is still reading its data from disk.
    #[error("the cache at {address} is loading its data; wait until it is done")]
    Loading {
        /// The server.
        address: Address,
    },
    /// Anything else.
    #[error("set up a connection to the cache at {address}: {reason}")]
    Setup {
        /// The server.
        address: Address,
        /// What went wrong.
        reason: String,
    },
}

impl ConnectError {
    /// It may pass without anybody changing a setting.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::Timeout { .. }
            | Self::Replica { .. }
            | Self::Loading { .. }
            | Self::Setup { .. } => true,
            Self::Settings { .. } | Self::Credentials { .. } | Self::Permission { .. } => false,
        }
    }

    fn from_redis(error: &RedisError, config: &CacheConfig) -> Self {
        let address = config.address.clone();
        let reason = describe_failure(error);
        if error.is_timeout() {
            return Self::Timeout { address, waited: config.connect_timeout };
        }
        match error.kind() {
            ErrorKind::AuthenticationFailed => Self::Credentials { address, reason },
            ErrorKind::Io => Self::Unreachable { address, reason },
            ErrorKind::InvalidClientConfig => Self::Settings { address, reason },
            _ => Self::from_code(error.code(), reason, config),
        }
    }

    fn from_code(code: Option<&str>, reason: String, config: &CacheConfig) -> Self {
        let address = config.address.clone();
        match code {
            Some("NOAUTH" | "WRONGPASS") => Self::Credentials { address, reason },
            Some("NOPERM") => Self::Permission { address, reason },
            Some("READONLY") => Self::Replica { address },
            Some("LOADING") => Self::Loading { address },
            _ => Self::Setup { address, reason },
        }
    }
}

/// What a connection is opened for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Reading entries: a replica will do.
    Read,
    /// Applying changes: on a primary that has the script.
    Apply,
}

/// A place for one connection, shared by concurrent calls.
pub(crate) struct Slot {
    client: redis::Client,
    config: Arc<CacheConfig>,
    purpose: Purpose,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    open: Option<Open>,
    /// How many were opened so far: the number of the last one.
    opened: u64,
    /// The last failure to open one, and when it was known.
    failed: Option<(Instant, ConnectError)>,
}

/// An open connection.
#[derive(Clone)]
pub(crate) struct Open {
    pub(crate) connection: MultiplexedConnection,
    number: u64,
}

impl Slot {
    pub(crate) fn new(config: Arc<CacheConfig>, purpose: Purpose) -> Result<Self, ConnectError> {
        let client = config
            .connection_info()
            .and_then(redis::Client::open)
            .map_err(|error| ConnectError::from_redis(&error, &config))?;
        Ok(Self { client, config, purpose, state: Mutex::default() })
    }

    /// The open connection, or a new one. Callers that waited while another's attempt failed share its failure,
    /// so that a dead server costs each of them one timeout and not one after the other.
    ///
    /// A new connection that is to apply changes comes with a sample of the server's clock: it may be another
    /// server than before.
    pub(crate) async fn open(&self) -> Result<(Open, Option<Sample>), ConnectError> {
        let called = Instant::now();
        let mut state = self.state.lock().await;
        if let Some(open) = &state.open {
            return Ok((open.clone(), None));
        }
        if let Some((known, error)) = &state.failed
            && *known >= called
        {
            return Err(error.clone());
        }
        match self.connect().await {
            Ok((connection, clock)) => {
                state.opened += 1;
                let open = Open { connection, number: state.opened };
                state.open = Some(open.clone());
                state.failed = None;
                Ok((open, clock))
            }
            Err(error) => {
                state.failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    /// Gives up a connection that failed: the next call opens another.
    pub(crate) async fn give_up(&self, failed: &Open) {
        let mut state = self.state.lock().await;
        if state.open.as_ref().is_some_and(|open| open.number == failed.number) {
            state.open = None;
        }
    }

    async fn connect(&self) -> Result<(MultiplexedConnection, Option<Sample>), ConnectError> {
        let settings = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.config.connect_timeout))
            .set_response_timeout(Some(self.config.response_timeout));
        let mut connection = self
            .client
            .get_multiplexed_async_connection_with_config(&settings)
            .await
            .map_err(|error| ConnectError::from_redis(&error, &self.config))?;
        let checked = timeout(self.config.connect_timeout, self.check(&mut connection)).await;
        let clock = checked.unwrap_or_else(|_| {
            let (address, waited) = (self.config.address.clone(), self.config.connect_timeout);
            Err(ConnectError::Timeout { address, waited })
        })?;
        Ok((connection, clock))
    }

    /// Finds out now what would otherwise fail with the first change.
    async fn check(&self, connection: &mut MultiplexedConnection) -> Result<Option<Sample>, ConnectError> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("PING");
        if self.purpose == Purpose::Apply {
            pipeline.cmd("TIME");
            pipeline.cmd("SCRIPT").arg("LOAD").arg(APPLY_SCRIPT);
            pipeline.cmd("ROLE");
        }
        let answers = connection
            .send_packed_commands(&pipeline, 0, pipeline.len())
            .await
            .map_err(|error| ConnectError::from_redis(&error, &self.config))?;
        for answer in &answers {
            if let Value::ServerError(error) = answer {
                return Err(ConnectError::from_code(Some(error.code()), describe(error), &self.config));
            }
        }
        let role = answers.get(3).and_then(|answer| match answer {
            Value::Array(role) => role.first(),
            _ => None,
        });
        if role.is_some_and(|role| *role == Value::BulkString(b"slave".to_vec())) {
            return Err(ConnectError::Replica { address: self.config.address.clone() });
        }
        Ok(answers.get(1).and_then(Sample::read))
    }
}

/// What the client library says of a failure, in one line. Neither an address nor a password is part of it.
pub(crate) fn describe_failure(error: &RedisError) -> String {
    if error.is_timeout() { "no answer in time".to_owned() } else { error.to_string() }
}
