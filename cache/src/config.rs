//! Which server, and the bounds of talking to it.

use std::{fmt, path::PathBuf, time::Duration};

use redis::IntoConnectionInfo as _;

/// A change older than this creates no entry (`G` of the cache protocol): beyond the 24 hours that DynamoDB
/// Streams keeps records (AWS: DynamoDB Streams, data retention).
pub const AGE_MAX: Duration = Duration::from_hours(25);

/// How long a tombstone stays, and an invalid entry: both hold a floor against replays of older changes, and a
/// change that outlives them is too old to create an entry.
pub const TOMBSTONE_TTL: Duration = Duration::from_hours(26);

const _: () =
    assert!(TOMBSTONE_TTL.as_secs() > AGE_MAX.as_secs(), "a tombstone outlives what it must refuse");

/// How to reach one standalone server, and the bounds of talking to it.
#[derive(Clone, Debug)]
pub struct CacheConfig {
    /// Where the server listens.
    pub address: Address,
    /// The database number; 0 unless the server has others.
    pub db: i64,
    /// The user; none: `default`.
    pub username: Option<String>,
    /// The password; none: the server asks for none.
    pub password: Option<Secret>,
    /// Put before every key: see [`warmcast_proto::key::cache_key`].
    pub key_prefix: String,
    /// The longest wait for a connection and for each step of its setup.
    pub connect_timeout: Duration,
    /// The longest wait for the answers to one pipeline; then the connection is given up. The server may still
    /// execute what was sent, until the deadline of [`apply_deadline`](Self::apply_deadline).
    pub response_timeout: Duration,
    /// Connections, each shared by the calls that it is given in turn. At least 1.
    pub connections: usize,
    /// The most entries in one pipeline. At least 1.
    pub pipeline_entries_max: usize,
    /// The most bytes in one pipeline; a larger single entry goes alone.
    pub pipeline_bytes_max: usize,
    /// The largest entry, header included; a larger one is refused. An item of DynamoDB is at most 400 KiB
    /// (AWS: DynamoDB quotas).
    pub value_bytes_max: usize,
    /// How long a live entry stays; none: until it is evicted.
    pub live_ttl: Option<Duration>,
    /// How long after the start of a call its changes may land, on the server's clock. Shorter than a lease takes
    /// to expire.
    pub apply_deadline: Duration,
}

impl CacheConfig {
    /// The defaults, for a server at this address.
    #[must_use]
    pub fn new(address: Address) -> Self {
        Self {
            address,
            db: 0,
            username: None,
            password: None,
            key_prefix: String::new(),
            connect_timeout: Duration::from_secs(1),
            response_timeout: Duration::from_secs(2),
            connections: 4,
            pipeline_entries_max: 128,
            pipeline_bytes_max: 1 << 20,
            value_bytes_max: 1 << 20,
            live_ttl: None,
            apply_deadline: Duration::from_secs(2),
        }
    }

    /// The defaults, for the server that a URL names: `redis://[[user]:password@]host[:port][/db]` or
    /// `redis+unix:///path[?db=...&user=...&pass=...]`.
    ///
    /// # Errors
    /// The URL has another form, or asks for TLS. The error does not repeat the URL: it may hold a password.
    pub fn from_url(url: &str) -> Result<Self, UrlError> {
        if url.starts_with("rediss:") || url.starts_with("valkeys:") {
            return Err(UrlError::Tls);
        }
        let info = url.into_connection_info().map_err(|_| UrlError::Form)?;
        let address = match info.addr() {
            redis::ConnectionAddr::Tcp(host, port) => Address::Tcp { host: host.clone(), port: *port },
            redis::ConnectionAddr::Unix(path) => Address::Unix(path.clone()),
            _ => return Err(UrlError::Tls),
        };
        let settings = info.redis_settings();
        Ok(Self {
            db: settings.db(),
            username: settings.username().map(str::to_owned),
            password: settings.password().map(Secret::new),
            ..Self::new(address)
        })
    }

    pub(crate) fn connection_info(&self) -> redis::RedisResult<redis::ConnectionInfo> {
        let address = match &self.address {
            Address::Tcp { host, port } => redis::ConnectionAddr::Tcp(host.clone(), *port),
            Address::Unix(path) => redis::ConnectionAddr::Unix(path.clone()),
        };
        let mut settings = redis::RedisConnectionInfo::default().set_db(self.db);
        if let Some(username) = &self.username {
            settings = settings.set_username(username);
        }
        if let Some(password) = &self.password {
            settings = settings.set_password(password.expose());
        }
        // Off in redis 1.x: Nagle's algorithm would hold back the last part of every pipeline.
        let tcp_settings = redis::io::tcp::TcpSettings::default().set_nodelay(true);
        Ok(address.into_connection_info()?.set_redis_settings(settings).set_tcp_settings(tcp_settings))
    }
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A host's name or IP address, and a port.
    Tcp {
        /// The host.
        host: String,
        /// The port.
        port: u16,
    },
    /// The path of a Unix domain socket.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(formatter, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(formatter, "{host}:{port}"),
            Self::Unix(path) => write!(formatter, "{}", path.display()),
        }
    }
}

/// A password. It is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps a password.
    #[must_use]
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[redacted]")
    }
}

/// Why a URL names no server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Not a URL of a Redis server.
    #[error(
        "the cache's URL is not of the form redis://[[user]:password@]host[:port][/db] or redis+unix:///path \
         (special characters in the user and the password are percent-encoded)"
    )]
    Form,
    /// TLS is not supported yet.
    #[error("the cache's URL asks for TLS, which is not supported: use redis:// through a private network")]
    Tls,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_server_database_and_user() {
        let config = CacheConfig::from_url("redis://writer:s%3Acret@cache.internal:6380/3").unwrap();
        assert_eq!(config.address, Address::Tcp { host: "cache.internal".into(), port: 6380 });
        assert_eq!(config.db, 3);
        assert_eq!(config.username.as_deref(), Some("writer"));
        assert_eq!(config.password, Some(Secret::new("s:cret")));

        let config = CacheConfig::from_url("redis://127.0.0.1").unwrap();
        assert_eq!(config.address.to_string(), "127.0.0.1:6379");
        assert_eq!((config.username, config.password), (None, None));

        let config = CacheConfig::from_url("redis+unix:///run/redis.sock?db=1").unwrap();
        assert_eq!(config.address, Address::Unix("/run/redis.sock".into()));
        assert_eq!(config.db, 1);
    }

    #[test]
    fn a_password_is_never_shown() {
        let config = CacheConfig::from_url("redis://:hunter2@localhost").unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
        for url in [
            "redis://:hunter2@localhost:port",
            "http://:hunter2@localhost",
            "redis://:hunter2@localhost/x",
            ":hunter2@",
        ] {
            let error = CacheConfig::from_url(url).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        }
        assert_eq!(CacheConfig::from_url("rediss://:hunter2@localhost").unwrap_err(), UrlError::Tls);
    }

    #[test]
    fn connections_send_without_delay() {
        let config = CacheConfig::from_url("redis://localhost").unwrap();
        assert!(config.connection_info().unwrap().tcp_settings().nodelay());
    }
}
