//! One connection to one server: opened, authenticated, and carrying pipelines.
//!
//! There is no retry here: who calls has its own backoff, and two retry loops on top of each other multiply.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use redis::{
    AsyncConnectionConfig, Cmd, ErrorKind, Pipeline, RedisConnectionInfo, RedisError, Value,
    aio::MultiplexedConnection,
};
use tokio::{
    task::{AbortHandle, JoinSet},
    time::timeout,
};

use crate::{
    config::{Address, CacheConfig, Secret, Servers},
    login::{Login, LoginError},
    reply::{describe, describe_failure},
    transport::{Transport, is_tls_failure},
};
#[cfg(feature = "iam")]
use crate::{renewal, token::TokenError};

/// Why no usable connection could be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The settings name no server, or cannot be used.
    #[error("cache at {address}: {reason}; correct the settings")]
    Settings {
        /// The server.
        address: String,
        /// What is wrong.
        reason: String,
    },
    /// Nothing answers there.
    #[error("connect to the cache at {address}: {reason}; is the server running, and is the address right?")]
    Unreachable {
        /// The server.
        address: String,
        /// What the network says.
        reason: String,
    },
    /// No answer in time.
    #[error(
        "the cache at {address} did not answer within {waited:?}; is it overloaded, or the way to it blocked?"
    )]
    Timeout {
        /// The server.
        address: String,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The two sides do not trust each other.
    #[error(
        "TLS with the cache at {address}: {reason}; check the authority that is trusted (ca_file), the name in \
         the server's certificate, and the client's certificate if the server asks for one"
    )]
    Tls {
        /// The server.
        address: String,
        /// What is wrong.
        reason: String,
    },
    /// The user or the password is wrong, or missing.
    #[error(
        "the cache at {address} does not accept the credentials ({reason}); check the user and the password"
    )]
    Credentials {
        /// The server.
        address: String,
        /// What the server says.
        reason: String,
    },
    /// There is no token to log in with (IAM authentication).
    #[cfg(feature = "iam")]
    #[error(
        "log in to the cache at {address} by IAM: {reason}; check where this machine's AWS credentials come from"
    )]
    Token {
        /// The server.
        address: String,
        /// What is wrong.
        reason: String,
        /// It may pass by itself.
        may_pass: bool,
    },
    /// The user may not run what is needed.
    #[error(
        "the cache at {address} does not permit what is needed ({reason}); docs/security.md has the rule of each kind \
         of user"
    )]
    Permission {
        /// The server.
        address: String,
        /// What the server says.
        reason: String,
    },
    /// A replica takes no writes.
    #[error("the cache at {address} is a read-only replica; the address of the primary is needed")]
    Replica {
        /// The server.
        address: String,
    },
    /// The server is still reading its data from disk.
    #[error("the cache at {address} is loading its data; wait until it is done")]
    Loading {
        /// The server.
        address: String,
    },
    /// Nobody says which servers have the data.
    #[error("find the servers of the cache {servers}: {reason}")]
    Topology {
        /// The cache.
        servers: String,
        /// What those that were asked said.
        reason: String,
    },
    /// Anything else.
    #[error("set up a connection to the cache at {address}: {reason}")]
    Setup {
        /// The server.
        address: String,
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
            | Self::Topology { .. }
            | Self::Setup { .. } => true,
            #[cfg(feature = "iam")]
            Self::Token { may_pass, .. } => *may_pass,
            Self::Settings { .. } | Self::Tls { .. } | Self::Credentials { .. } | Self::Permission { .. } => {
                false
            }
        }
    }

    fn from_io(error: &io::Error, address: &Address) -> Self {
        let (address, reason) = (address.to_string(), error.to_string());
        if is_tls_failure(error) {
            return Self::Tls { address, reason };
        }
        Self::Unreachable { address, reason }
    }

    fn from_login(error: LoginError, address: &Address) -> Self {
        let (address, reason) = (address.to_string(), error.to_string());
        match error {
            LoginError::File { .. } => Self::Settings { address, reason },
            #[cfg(feature = "iam")]
            LoginError::Token(TokenError::Credentials { may_pass, .. }) => {
                Self::Token { address, reason, may_pass }
            }
            #[cfg(feature = "iam")]
            LoginError::Token(TokenError::Signature { .. }) => {
                Self::Token { address, reason, may_pass: false }
            }
        }
    }

    fn from_redis(error: &RedisError, address: &Address) -> Self {
        let reason = describe_failure(error);
        match error.kind() {
            ErrorKind::AuthenticationFailed => Self::Credentials { address: address.to_string(), reason },
            ErrorKind::Io => Self::Unreachable { address: address.to_string(), reason },
            ErrorKind::InvalidClientConfig => Self::Settings { address: address.to_string(), reason },
            _ => Self::from_code(error.code(), reason, address),
        }
    }

    fn from_code(code: Option<&str>, reason: String, address: &Address) -> Self {
        let address = address.to_string();
        match code {
            Some("NOAUTH" | "WRONGPASS") => Self::Credentials { address, reason },
            Some("NOPERM") => Self::Permission { address, reason },
            Some("READONLY") => Self::Replica { address },
            Some("LOADING") => Self::Loading { address },
            _ => Self::Setup { address, reason },
        }
    }

    /// What a server answered while its connection was set up.
    pub(crate) fn from_answer(error: &redis::ServerError, address: &Address) -> Self {
        Self::from_code(Some(error.code()), describe(error), address)
    }
}

/// Opens connections to the servers of one cache, and to its sentinels.
pub(crate) struct Connector {
    transport: Transport,
    settings: AsyncConnectionConfig,
    server_login: Arc<Login>,
    sentinel_login: Arc<Login>,
    db: i64,
    connect_timeout: Duration,
}

/// Whom a connection is to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    Server,
    Sentinel,
}

impl Connector {
    pub(crate) fn new(config: &CacheConfig) -> Result<Self, ConnectError> {
        let unusable =
            |reason: String| ConnectError::Settings { address: config.servers.to_string(), reason };
        let transport = Transport::new(config.tls.as_ref()).map_err(|error| unusable(error.to_string()))?;
        let server_login = server_login(config).map_err(|reason| unusable(reason.to_owned()))?;
        let settings = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(Some(config.response_timeout))
            .set_pipeline_buffer_size(config.pipelines_in_flight_max);
        let (sentinel_user, sentinel_password) = match &config.servers {
            Servers::Sentinel { username, password, .. } => (username.as_deref(), password.as_ref()),
            Servers::Standalone(_) | Servers::Cluster(_) => (None, None),
        };
        Ok(Self {
            transport,
            settings,
            server_login: Arc::new(server_login),
            sentinel_login: Arc::new(Login::new(sentinel_user, sentinel_password)),
            db: config.db,
            connect_timeout: config.connect_timeout,
        })
    }

    /// Connects and logs in, within the timeout. What to log in with may take longer to come by.
    pub(crate) async fn open(&self, address: &Address, peer: Peer) -> Result<Connection, ConnectError> {
        let (login, db) = match peer {
            Peer::Server => (&self.server_login, self.db),
            Peer::Sentinel => (&self.sentinel_login, 0),
        };
        let password = login.password().await.map_err(|error| ConnectError::from_login(error, address))?;
        let info = connection_info(login.username.as_deref(), password.as_ref()).set_db(db);
        let opened = timeout(self.connect_timeout, self.open_unhurried(address, login, &info)).await;
        let opened = opened.unwrap_or_else(|_| {
            Err(ConnectError::Timeout { address: address.to_string(), waited: self.connect_timeout })
        });
        if matches!(opened, Err(ConnectError::Credentials { .. })) {
            login.refused().await;
        }
        opened
    }

    #[cfg_attr(not(feature = "iam"), expect(unused_variables, reason = "what is renewed"))]
    async fn open_unhurried(
        &self,
        address: &Address,
        login: &Arc<Login>,
        info: &RedisConnectionInfo,
    ) -> Result<Connection, ConnectError> {
        let stream =
            self.transport.open(address).await.map_err(|error| ConnectError::from_io(&error, address))?;
        let opened = MultiplexedConnection::new_with_config(info, stream, self.settings.clone()).await;
        let (multiplexed, driver) = opened.map_err(|error| match error.kind() {
            ErrorKind::Io => self.cut_off(describe_failure(&error), address),
            _ => ConnectError::from_redis(&error, address),
        })?;
        let mut tasks = JoinSet::new();
        let driver = tasks.spawn(driver);
        let is_worn = Arc::new(AtomicBool::new(false));
        #[cfg(feature = "iam")]
        if login.tokens().is_some() {
            let (login, is_worn) = (Arc::clone(login), Arc::clone(&is_worn));
            tasks.spawn(renewal::keep(login, multiplexed.clone(), address.clone(), is_worn));
        }
        Ok(Connection { multiplexed, driver, is_worn, _tasks: Arc::new(tasks) })
    }

    /// A new connection failed at its first question. With TLS 1.3 that is when a client learns that the server
    /// asks for a certificate, or does not accept the one it was shown.
    pub(crate) fn cut_off(&self, reason: String, address: &Address) -> ConnectError {
        let reason = match self.transport.has_tls() {
            true => {
                format!("{reason} (right after the TLS handshake: does the server accept our certificate?)")
            }
            false => reason,
        };
        ConnectError::Unreachable { address: address.to_string(), reason }
    }

    /// The longest wait for one step of a connection's setup.
    pub(crate) const fn step_timeout(&self) -> Duration {
        self.connect_timeout
    }
}

/// How connections to servers log in; or why they cannot.
#[cfg_attr(not(feature = "iam"), expect(clippy::unnecessary_wraps, reason = "IAM has requirements"))]
fn server_login(config: &CacheConfig) -> Result<Login, &'static str> {
    #[cfg(feature = "iam")]
    if let Some(iam) = &config.iam {
        let Some(user) = &config.username else { return Err("IAM authentication needs a username") };
        if config.password.is_some() {
            return Err("IAM authentication takes the place of a password: give one of the two");
        }
        if config.tls.is_none() {
            return Err("IAM authentication needs TLS: a token is as good as a password for 15 minutes");
        }
        return iam.violation().map_or_else(|| Ok(Login::by_tokens(iam, user)), Err);
    }
    Ok(Login::new(config.username.as_deref(), config.password.as_ref()))
}

fn connection_info(username: Option<&str>, password: Option<&Secret>) -> RedisConnectionInfo {
    // Telling the server this library's name needs a right that nothing else here needs.
    let mut info = RedisConnectionInfo::default().set_skip_set_lib_name();
    if let Some(username) = username {
        info = info.set_username(username);
    }
    if let Some(password) = password {
        info = info.set_password(password.expose());
    }
    info
}

/// An open connection. Clones share it; it is closed when the last one goes.
#[derive(Clone)]
pub(crate) struct Connection {
    multiplexed: MultiplexedConnection,
    driver: AbortHandle,
    /// It will be cut before long, because it could not log in again.
    is_worn: Arc<AtomicBool>,
    /// Runs the driver and the renewal of the login, and ends them when it is dropped.
    _tasks: Arc<JoinSet<()>>,
}

impl Connection {
    /// It is known to be closed: nothing can be sent.
    pub(crate) fn is_closed(&self) -> bool {
        self.driver.is_finished()
    }

    /// It works, but will be cut before long: another should take its place.
    pub(crate) fn is_worn(&self) -> bool {
        self.is_worn.load(Ordering::Relaxed)
    }

    /// One round trip: as many answers as there are commands, errors of the server among them, or why there are
    /// none. Then it is unknown which of them the server carried out.
    pub(crate) async fn exchange(&self, pipeline: &Pipeline) -> Result<Vec<Value>, String> {
        // Not `query_async`: it gives up all answers for one error among them.
        let answers = self.multiplexed.clone().send_packed_commands(pipeline, 0, pipeline.len()).await;
        let answers = answers.map_err(|error| describe_failure(&error))?;
        if answers.len() != pipeline.len() {
            return Err(format!("{} answers to {} commands", answers.len(), pipeline.len()));
        }
        Ok(answers)
    }

    /// One round trip of one command.
    pub(crate) async fn ask(&self, command: &Cmd) -> Result<Value, String> {
        self.multiplexed.clone().send_packed_command(command).await.map_err(|error| describe_failure(&error))
    }
}
