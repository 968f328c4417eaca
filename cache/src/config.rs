//! Which servers, how the tables are cached, and the bounds of talking to the servers.

#[cfg(feature = "iam")]
mod iam;
mod url;

use std::{fmt, path::PathBuf, time::Duration};

use zeroize::Zeroizing;

#[cfg(all(test, feature = "iam"))]
pub(crate) use self::iam::CUT_AFTER;
#[cfg(feature = "iam")]
pub use self::iam::Iam;
pub use self::url::UrlError;
use crate::policy::Tables;

/// The port of a server whose address names none.
pub(crate) const SERVER_PORT: u16 = 6_379;

/// The port of a sentinel whose address names none.
pub(crate) const SENTINEL_PORT: u16 = 26_379;

/// How to reach one cache, and the bounds of talking to it.
#[derive(Clone, Debug)]
pub struct CacheConfig {
    /// Where the cache is.
    pub servers: Servers,
    /// TLS to the servers, and to the sentinels; none: plain connections.
    pub tls: Option<TlsConfig>,
    /// The database number; 0 unless the server has others. A cluster has database 0 only.
    pub db: i64,
    /// The user; none: `default`.
    pub username: Option<String>,
    /// The password; none: the servers ask for none.
    pub password: Option<Password>,
    /// In place of a password: ElastiCache's authentication by IAM.
    #[cfg(feature = "iam")]
    pub iam: Option<Iam>,
    /// Put before every key: see [`warmcast_proto::key::cache_key`]. A table's policy may have another one.
    pub key_prefix: String,
    /// The longest wait for a connection and for each step of its setup.
    pub connect_timeout: Duration,
    /// The longest wait for the answers to one pipeline; then its connection is given up. The server may still
    /// execute what was sent, until the deadline of [`apply_deadline`](Self::apply_deadline).
    pub response_timeout: Duration,
    /// Connections to each server, shared by the calls. At least 1.
    pub connections: usize,
    /// The most pipelines on their way on one connection; further calls wait for their turn. At least 1.
    pub pipelines_in_flight_max: usize,
    /// The most entries in one pipeline. At least 1.
    pub pipeline_entries_max: usize,
    /// The most bytes in one pipeline; a larger single entry goes alone.
    pub pipeline_bytes_max: usize,
    /// The largest entry, header included; a larger one is refused. An item of DynamoDB is at most 400 KiB
    /// (AWS: DynamoDB quotas).
    pub value_bytes_max: usize,
    /// How long after the start of a call its changes may land, on the server's clock. Shorter than a lease takes
    /// to expire.
    pub apply_deadline: Duration,
    /// How each table is cached. The same for everybody who writes to this cache or reads from it.
    pub tables: Tables,
}

impl CacheConfig {
    /// The defaults, for the cache on these servers.
    #[must_use]
    pub fn new(servers: Servers) -> Self {
        Self {
            servers,
            tls: None,
            db: 0,
            username: None,
            password: None,
            #[cfg(feature = "iam")]
            iam: None,
            key_prefix: String::new(),
            connect_timeout: Duration::from_secs(1),
            response_timeout: Duration::from_secs(2),
            connections: 4,
            pipelines_in_flight_max: 16,
            pipeline_entries_max: 128,
            pipeline_bytes_max: 1 << 20,
            value_bytes_max: 1 << 20,
            apply_deadline: Duration::from_secs(2),
            tables: Tables::default(),
        }
    }

    /// The defaults, for the cache that a URL names.
    ///
    /// | URL | cache |
    /// |---|---|
    /// | `redis://[[user]:password@]host[:port][/db]` | one server |
    /// | `redis+unix:///path` | one server, by its Unix domain socket |
    /// | `redis+sentinel://[[user]:password@]host[:port],host[:port].../master[/db]` | the primary that these sentinels call `master` |
    /// | `redis+cluster://[[user]:password@]host[:port],host[:port]...` | the cluster that these nodes belong to |
    ///
    /// `rediss://`, `rediss+sentinel://` and `rediss+cluster://` are the same with TLS (for everything, sentinels
    /// included); `valkey` may stand for `redis`. Ports are 6379, or 26379 for sentinels, unless
    /// named. IPv6 addresses stand in brackets. Special characters in the user, the password, the name of the master
    /// and a path are percent-encoded.
    ///
    /// After a `?` may follow, joined by `&`: `db`, `user` and `pass` (for the socket's form, which has no other
    /// place for them), and `sentinel_user` and `sentinel_pass`, which the sentinels ask for.
    ///
    /// ```
    /// use warmcast_cache::{CacheConfig, Servers};
    /// let config = CacheConfig::from_url("rediss+cluster://writer:secret@10.0.0.1,10.0.0.2:7000")?;
    /// assert!(matches!(&config.servers, Servers::Cluster(seeds) if seeds.len() == 2));
    /// assert!(config.tls.is_some());
    /// # Ok::<(), warmcast_cache::UrlError>(())
    /// ```
    ///
    /// # Errors
    /// The URL has another form. The error does not repeat the URL: it may hold a password.
    pub fn from_url(url: &str) -> Result<Self, UrlError> {
        url::parse(url)
    }
}

/// Where a cache is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Servers {
    /// One server that is a primary. A name that is moved to another server in a failover will do, too.
    Standalone(Address),
    /// A primary that sentinels watch over, and name.
    Sentinel {
        /// The sentinels; any of them may be down. At least one.
        addresses: Vec<Address>,
        /// What the sentinels call the primary (`sentinel monitor NAME ...`).
        master: String,
        /// The user that the sentinels know; none: `default`.
        username: Option<String>,
        /// The password that the sentinels ask for; none: they ask for none.
        password: Option<Password>,
    },
    /// Some of a cluster's nodes; they name the others. At least one.
    Cluster(Vec<Address>),
}

impl Servers {
    /// A cluster: its keys belong to slots.
    #[must_use]
    pub const fn is_cluster(&self) -> bool {
        matches!(self, Self::Cluster(_))
    }
}

impl fmt::Display for Servers {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Standalone(address) => write!(formatter, "{address}"),
            Self::Sentinel { master, .. } => write!(formatter, "{master} (named by sentinels)"),
            Self::Cluster(seeds) => match seeds.first() {
                Some(seed) => write!(formatter, "the cluster of {seed}"),
                None => formatter.write_str("a cluster"),
            },
        }
    }
}

/// TLS: whom to trust, and who we are. The server's name is always verified.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct TlsConfig {
    /// The certificates (PEM) of the authorities to trust; none: those that the system trusts.
    pub ca_file: Option<PathBuf>,
    /// The certificate to show, for servers that ask for one; none: nothing is shown.
    pub client: Option<ClientCertificate>,
    /// The name that the servers' certificates have; none: the host that is connected to. For clusters and
    /// sentinels that name their nodes by IP addresses which are not in the certificates.
    pub server_name: Option<String>,
}

/// A certificate and its key, both in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The certificate, and those between it and the authority.
    pub certificate_file: PathBuf,
    /// Its private key.
    pub key_file: PathBuf,
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
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

/// Where a password comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Password {
    /// It is this one.
    Fixed(Secret),
    /// A file has it, on one line. It is read for each new connection, so that it can be changed while connections
    /// are open: those stay as they are.
    File(PathBuf),
}

impl From<Secret> for Password {
    fn from(secret: Secret) -> Self {
        Self::Fixed(secret)
    }
}

/// A password. It is never printed, and its memory is overwritten when it is dropped (not that of the copies which
/// libraries make of it to send it).
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Keeps a password.
    #[must_use]
    pub fn new(secret: impl Into<String>) -> Self {
        Self(Zeroizing::new(secret.into()))
    }

    /// The password itself, for the one place that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[redacted]")
    }
}
