//! Requests to a collector: one POST of a protobuf message, bounded in time and in what is read of the answer.
//!
//! The client is the AWS SDK's: plain HTTP, and TLS by the same rustls as everywhere else, without another stack.

use std::io::Write as _;

use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_http_client::{Connector, proxy::ProxyConfig};
use aws_smithy_runtime_api::client::http::HttpConnector as _;
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http_body_util::{BodyExt as _, Limited};
use tokio::time::timeout;

use super::environment::Endpoint;

/// Bytes that are read of an answer: a few counts, or a sentence.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Of what a collector says of a refusal, so much is told.
const REASON_CHARS_MAX: usize = 200;

/// Sends one signal to its endpoint.
#[derive(Debug)]
pub(super) struct Client {
    endpoint: Endpoint,
    connector: Connector,
}

/// Why something was not exported. It names the collector's host, and no secret.
#[derive(Debug, thiserror::Error)]
pub(super) enum PostError {
    #[error("no answer from {host} within {timeout_ms} ms")]
    Timeout { host: String, timeout_ms: u128 },
    #[error("{host} cannot be reached: {reason}")]
    Unreachable { host: String, reason: String },
    #[error("{host} answers {status}: {reason}")]
    Refused { host: String, status: u16, reason: String },
}

impl Client {
    pub(super) fn new(endpoint: Endpoint) -> Self {
        // The system's certificates are read where they are needed only.
        let is_tls = endpoint.url.expose().starts_with("https://");
        let mut roots = TrustStore::empty().with_native_roots(is_tls);
        if let Some(certificates) = &endpoint.certificates {
            roots.add_pem_certificate(certificates.clone());
        }
        let connector = Connector::builder()
            .proxy_config(ProxyConfig::from_env())
            .tls_provider(Provider::Rustls(CryptoMode::AwsLc));
        let connector = match TlsContext::builder().with_trust_store(roots).build() {
            Ok(context) => connector.tls_context(context),
            // It has nothing to refuse: what it is given was looked through before.
            Err(_) => connector,
        };
        Self { endpoint, connector: connector.build() }
    }

    /// Posts a message and gives back the answer's body.
    pub(super) async fn post(&self, message: Vec<u8>) -> Result<Bytes, PostError> {
        let within = self.endpoint.timeout;
        match timeout(within, self.call(message)).await {
            Ok(answered) => answered,
            Err(_) => Err(PostError::Timeout { host: self.endpoint.host(), timeout_ms: within.as_millis() }),
        }
    }

    async fn call(&self, message: Vec<u8>) -> Result<Bytes, PostError> {
        let host = || self.endpoint.host();
        let unreachable = |reason: String| PostError::Unreachable { host: host(), reason };
        let request = self.request(message).map_err(&unreachable)?;
        let response = self.connector.call(request).await;
        let response = response.map_err(|error| unreachable(causes(&error)))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| unreachable(error.to_string()))?.to_bytes();
        if status.is_success() {
            return Ok(body);
        }
        // Text, or protobuf with a text in it: what can be read of it is.
        let reason = String::from_utf8_lossy(&body);
        let reason = reason.chars().filter(|c| !c.is_control()).take(REASON_CHARS_MAX).collect();
        Err(PostError::Refused { host: host(), status: status.as_u16(), reason })
    }

    fn request(&self, message: Vec<u8>) -> Result<HttpRequest, String> {
        let body =
            if self.endpoint.gzip { gzip(&message).map_err(|error| error.to_string())? } else { message };
        let mut request = HttpRequest::new(SdkBody::from(body));
        request.set_method("POST").map_err(|error| error.to_string())?;
        request.set_uri(self.endpoint.url.expose()).map_err(|error| error.to_string())?;
        let headers = request.headers_mut();
        headers.insert("content-type", "application/x-protobuf");
        headers.insert("user-agent", concat!("warmcast/", env!("CARGO_PKG_VERSION")));
        if self.endpoint.gzip {
            headers.insert("content-encoding", "gzip");
        }
        for (name, value) in &self.endpoint.headers {
            headers.insert(name.clone(), value.expose().to_owned());
        }
        Ok(request)
    }
}

fn gzip(message: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(message)?;
    encoder.finish()
}

/// An error with what is behind it.
fn causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let texts: Vec<String> = causes.map(ToString::to_string).collect();
    texts.join(": ")
}
