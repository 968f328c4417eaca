//! Byte streams to servers: TCP, TLS over it, Unix sockets.
//!
//! They are made here and not by the Redis client, because there TLS reads the system's certificates anew for each
//! connection and takes whichever cryptography the process was built with.

use std::{io, path::Path, sync::Arc, time::Duration};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::either::Either;

use crate::config::{Address, ClientCertificate, TlsConfig};

/// How long a connection may be silent before the server is asked whether it is still there; a peer that vanished
/// without a word is given up after about twice that.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(3);
const KEEPALIVE_PROBES: u32 = 3;

pub(crate) type Stream = Either<TcpStream, Either<Box<TlsStream<TcpStream>>, UnixStream>>;

/// Opens streams.
pub(crate) struct Transport {
    tls: Option<Tls>,
}

struct Tls {
    connector: TlsConnector,
    server_name: Option<ServerName<'static>>,
}

/// Why TLS cannot be set up as configured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TlsSettingsError {
    #[error("read certificates from {path}: {reason}")]
    File { path: String, reason: String },
    #[error("there are no certificates in {path}")]
    Empty { path: String },
    #[error("the system trusts no certificates ({reason}); name a ca_file")]
    System { reason: String },
    #[error("the client's certificate and its key: {reason}")]
    Client { reason: String },
    #[error("{name} is no server's name")]
    ServerName { name: String },
    #[error("{reason}")]
    Other { reason: String },
}

impl Transport {
    /// Reads the certificates.
    pub(crate) fn new(tls: Option<&TlsConfig>) -> Result<Self, TlsSettingsError> {
        Ok(Self { tls: tls.map(Tls::new).transpose()? })
    }

    pub(crate) const fn has_tls(&self) -> bool {
        self.tls.is_some()
    }

    pub(crate) async fn open(&self, address: &Address) -> io::Result<Stream> {
        let (host, port) = match address {
            Address::Unix(path) => return Ok(Either::Right(Either::Right(UnixStream::connect(path).await?))),
            Address::Tcp { host, port } => (host, *port),
        };
        let stream = TcpStream::connect((host.as_str(), port)).await?;
        // Nagle's algorithm would hold back the last part of every pipeline.
        stream.set_nodelay(true)?;
        let keepalive = TcpKeepalive::new()
            .with_time(KEEPALIVE_IDLE)
            .with_interval(KEEPALIVE_INTERVAL)
            .with_retries(KEEPALIVE_PROBES);
        SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
        match &self.tls {
            None => Ok(Either::Left(stream)),
            Some(tls) => Ok(Either::Right(Either::Left(Box::new(tls.wrap(stream, host).await?)))),
        }
    }
}

/// TLS failed for what one of the two sides is or believes, and not for the network.
pub(crate) fn is_tls_failure(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>())
}

impl Tls {
    fn new(config: &TlsConfig) -> Result<Self, TlsSettingsError> {
        let other = |error: rustls::Error| TlsSettingsError::Other { reason: error.to_string() };
        let roots = match &config.ca_file {
            Some(path) => read_roots(path)?,
            None => system_roots()?,
        };
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(other)?
            .with_root_certificates(roots);
        let client_config = match &config.client {
            None => builder.with_no_client_auth(),
            Some(ClientCertificate { certificate_file, key_file }) => {
                let key =
                    PrivateKeyDer::from_pem_file(key_file).map_err(|error| unreadable(key_file, &error))?;
                builder
                    .with_client_auth_cert(read_certificates(certificate_file)?, key)
                    .map_err(|error| TlsSettingsError::Client { reason: error.to_string() })?
            }
        };
        let server_name = config.server_name.as_deref().map(|name| {
            ServerName::try_from(name.to_owned())
                .map_err(|_| TlsSettingsError::ServerName { name: name.to_owned() })
        });
        Ok(Self {
            connector: TlsConnector::from(Arc::new(client_config)),
            server_name: server_name.transpose()?,
        })
    }

    async fn wrap(&self, stream: TcpStream, host: &str) -> io::Result<TlsStream<TcpStream>> {
        let name = match &self.server_name {
            Some(name) => name.clone(),
            None => ServerName::try_from(host.to_owned()).map_err(io::Error::other)?,
        };
        self.connector.connect(name, stream).await
    }
}

fn read_roots(path: &Path) -> Result<RootCertStore, TlsSettingsError> {
    let mut roots = RootCertStore::empty();
    for certificate in read_certificates(path)? {
        let unusable = |error: rustls::Error| TlsSettingsError::File {
            path: path.display().to_string(),
            reason: error.to_string(),
        };
        roots.add(certificate).map_err(unusable)?;
    }
    Ok(roots)
}

/// What cannot be used of the system's certificates is left out, as everywhere: such stores have oddities.
fn system_roots() -> Result<RootCertStore, TlsSettingsError> {
    let loaded = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(loaded.certs);
    if added == 0 {
        let reason = loaded.errors.first().map_or_else(|| "none found".to_owned(), ToString::to_string);
        return Err(TlsSettingsError::System { reason });
    }
    Ok(roots)
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsSettingsError> {
    let certificates: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<_, _>>)
        .map_err(|error| unreadable(path, &error))?;
    if certificates.is_empty() {
        return Err(TlsSettingsError::Empty { path: path.display().to_string() });
    }
    Ok(certificates)
}

fn unreadable(path: &Path, error: &rustls::pki_types::pem::Error) -> TlsSettingsError {
    TlsSettingsError::File { path: path.display().to_string(), reason: error.to_string() }
}
