//! What a request has to have before it is answered, and what every answer says.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::page::content_security_policy;
use super::token::Token;
use crate::telemetry::LogLimiter;

/// Routes that need no token: what orchestrators ask, and the page, which has nothing in it and asks for the token.
const OPEN_ROUTES: [&str; 3] = ["/", "/healthz", "/readyz"];

/// Who may ask what.
#[derive(Debug)]
pub(super) struct Guard {
    token: Option<Token>,
    /// Other machines can reach it, and that is meant: they call it what they like.
    is_beyond_loopback: bool,
    policy: HeaderValue,
    refused: Mutex<LogLimiter>,
}

impl Guard {
    pub(super) fn new(token: Option<Token>, is_beyond_loopback: bool) -> Self {
        let policy = HeaderValue::from_str(&content_security_policy());
        Self {
            token,
            is_beyond_loopback,
            policy: policy.unwrap_or_else(|_| HeaderValue::from_static("default-src 'none'")),
            refused: Mutex::default(),
        }
    }

    /// Whether this request may see more than whether the process is alive and ready.
    pub(super) fn admits(&self, headers: &HeaderMap) -> bool {
        self.token.as_ref().is_none_or(|token| shown(headers).is_some_and(|shown| token.is(shown)))
    }

    /// Why a request is not answered.
    fn refuses(&self, request: &Request) -> Option<Response> {
        let headers = request.headers();
        if has_body(headers) {
            let close = [(header::CONNECTION, HeaderValue::from_static("close"))];
            return Some(
                (StatusCode::PAYLOAD_TOO_LARGE, close, "requests here have no bodies\n").into_response(),
            );
        }
        // A page of another site whose name was made to point to this machine would be let in by the browser.
        if !self.is_beyond_loopback && self.token.is_none() && !names_this_machine(headers) {
            let text =
                "the host of this request is not this machine: ask http://127.0.0.1, or set a bearer token\n";
            return Some((StatusCode::FORBIDDEN, text).into_response());
        }
        if OPEN_ROUTES.contains(&request.uri().path()) || self.admits(headers) {
            return None;
        }
        if shown(headers).is_some()
            && let Some(repeats) = self.refused.lock().due(Instant::now())
        {
            tracing::warn!(repeats, "a request with a wrong token was refused by the admin endpoint");
        }
        let how = [(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"warmcast\""))];
        Some((StatusCode::UNAUTHORIZED, how, "a bearer token is needed\n").into_response())
    }
}

/// Answers what may be answered.
pub(super) async fn guard(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    let mut response = match guard.refuses(&request) {
        Some(refusal) => refusal,
        None => next.run(request).await,
    };
    let headers = response.headers_mut();
    let fixed = [
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    headers.extend(fixed.map(|(name, value)| (name, HeaderValue::from_static(value))));
    headers.insert(header::CONTENT_SECURITY_POLICY, guard.policy.clone());
    response
}

/// The token that a request shows (RFC 6750).
fn shown(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked("bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

fn has_body(headers: &HeaderMap) -> bool {
    let length = headers.get(header::CONTENT_LENGTH);
    headers.contains_key(header::TRANSFER_ENCODING) || length.is_some_and(|length| length != "0")
}

/// Whether the request's host is an address or `localhost`: no name that somebody else can point here.
fn names_this_machine(headers: &HeaderMap) -> bool {
    // HTTP/1.0 has none, nor have browsers that.
    let Some(host) = headers.get(header::HOST) else { return true };
    let Ok(host) = host.to_str() else { return false };
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next(),
        None => host.split(':').next(),
    };
    name.is_some_and(|name| name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: header::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn a_host_is_this_machine_only_as_an_address_or_as_localhost() {
        for host in ["127.0.0.1:9640", "localhost", "LOCALHOST:1", "[::1]:9640", "10.1.2.3:80"] {
            assert!(names_this_machine(&headers(header::HOST, host)), "{host}");
        }
        for host in ["evil.example:9640", "127.0.0.1.evil.example", "", "[evil]:1", "localhost.evil.example"]
        {
            assert!(!names_this_machine(&headers(header::HOST, host)), "{host}");
        }
    }

    #[test]
    fn a_token_is_shown_as_a_bearers() {
        let of = |value: &str| shown(&headers(header::AUTHORIZATION, value)).map(<[u8]>::to_vec);
        assert_eq!(of("Bearer abc"), Some(b"abc".to_vec()));
        assert_eq!(of("bEARER  abc "), Some(b"abc".to_vec()));
        for other in ["Basic abc", "abc", "Bear", ""] {
            assert_eq!(of(other), None, "{other:?}");
        }
    }
}
