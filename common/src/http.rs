//! Asks a server over plain HTTP/1.1: one request on a connection of its own, with a bound on the time and on what is read
//! of the answer. For what the daemons and their commands ask each other's admin endpoints. Redirects are not followed.

use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::HOST;
use hyper::{HeaderMap, Request, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// What asking may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes of the answer's body. More of it is an error.
    pub body_bytes_max: usize,
    /// From connecting to the answer's last byte.
    pub within: Duration,
}

/// What a server answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status: 200 say.
    pub status: u16,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body. What is not UTF-8 in it is replaced.
    pub body: String,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// It is not the address of a server that can be asked.
    #[error("expected http://HOST[:PORT][/PATH], found {url:?}")]
    Url {
        /// What was given.
        url: String,
    },
    /// There is no connection.
    #[error("connect to {server}: {source}")]
    Connect {
        /// `HOST:PORT`.
        server: String,
        /// Why.
        source: std::io::Error,
    },
    /// The connection broke, or what came is not HTTP.
    #[error("{server} does not answer over HTTP: {source}")]
    Exchange {
        /// `HOST:PORT`.
        server: String,
        /// Why.
        source: hyper::Error,
    },
    /// The body is larger than what is read.
    #[error("{server} answers with more than {body_bytes_max} bytes")]
    TooLarge {
        /// `HOST:PORT`.
        server: String,
        /// What may be read.
        body_bytes_max: usize,
    },
    /// It took too long.
    #[error("{server} does not answer within {} ms", within.as_millis())]
    Late {
        /// `HOST:PORT`.
        server: String,
        /// What it may take.
        within: Duration,
    },
}

/// Asks for what is at `url`: `http://HOST[:PORT][/PATH]`, port 80 where it has none. Any status is an answer.
///
/// # Errors
/// When the address cannot be asked, or there is no whole answer within the bounds.
pub async fn get(url: &str, headers: &[(&str, &str)], bounds: Bounds) -> Result<Answer, HttpError> {
    let refused = || HttpError::Url { url: url.to_owned() };
    let uri: Uri = url.parse().map_err(|_| refused())?;
    let authority =
        uri.authority().filter(|authority| !authority.as_str().contains('@')).ok_or_else(refused)?;
    if uri.scheme_str() != Some("http") || authority.host().is_empty() {
        return Err(refused());
    }
    let server = format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(80));
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::get(path).header(HOST, authority.as_str());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    send(&server, request.body(Full::default()).map_err(|_| refused())?, bounds).await
}

/// Sends a request to a server, `HOST:PORT`.
pub(crate) async fn send(
    server: &str,
    request: Request<Full<Bytes>>,
    bounds: Bounds,
) -> Result<Answer, HttpError> {
    let late = || HttpError::Late { server: server.to_owned(), within: bounds.within };
    let asking = exchange(server, request, bounds.body_bytes_max);
    tokio::time::timeout(bounds.within, asking).await.map_err(|_| late())?
}

async fn exchange(
    server: &str,
    request: Request<Full<Bytes>>,
    body_bytes_max: usize,
) -> Result<Answer, HttpError> {
    let unconnected = |source| HttpError::Connect { server: server.to_owned(), source };
    let broken = |source| HttpError::Exchange { server: server.to_owned(), source };
    let stream = TcpStream::connect(server).await.map_err(unconnected)?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let asking = async {
        let (parts, body) = sender.send_request(request).await.map_err(broken)?.into_parts();
        let body = read(body, body_bytes_max).await.map_err(broken)?;
        let body = body.ok_or_else(|| HttpError::TooLarge { server: server.to_owned(), body_bytes_max })?;
        let body = String::from_utf8_lossy(&body).into_owned();
        Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body })
    };
    // A connection that is closed after its answer has ended well: what the answer lacks, `asking` notices.
    let ending = async {
        let _ended = connection.await;
        std::future::pending().await
    };
    tokio::select! {
        answer = asking => answer,
        answer = ending => answer,
    }
}

/// The body, or nothing if it is larger.
async fn read(mut body: Incoming, bytes_max: usize) -> Result<Option<Vec<u8>>, hyper::Error> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        if bytes.len() + data.len() > bytes_max {
            return Ok(None);
        }
        bytes.extend_from_slice(&data);
    }
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::http::StatusCode;
    use axum::routing::get as route;
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpListener;
    use tokio::task::JoinSet;

    use super::*;

    const BOUNDS: Bounds = Bounds { body_bytes_max: 64, within: Duration::from_secs(30) };

    async fn server() -> (String, JoinSet<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = |headers: HeaderMap, uri: Uri| async move {
            format!("{uri} of {:?} as {:?}", headers["host"], headers.get("accept"))
        };
        let app = Router::new()
            .route("/", route(asked))
            .route("/asked", route(asked))
            .route("/moved", route(|| async { (StatusCode::FOUND, [("location", "/asked")], "there") }))
            .route("/large", route(|| async { "x".repeat(65) }))
            .route("/hangs", route(std::future::pending::<()>));
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, app).await.unwrap() });
        (url, server)
    }

    #[tokio::test]
    async fn what_is_asked_for_is_answered_whatever_the_status_and_no_redirect_is_followed() {
        let (url, _server) = server().await;
        let host = url.strip_prefix("http://").unwrap();
        let answer = get(&format!("{url}/asked?a=b"), &[("accept", "text/x")], BOUNDS).await.unwrap();
        assert_eq!(answer.status, 200);
        assert_eq!(answer.body, format!("/asked?a=b of {host:?} as Some(\"text/x\")"));
        let answer = get(&url, &[], BOUNDS).await.unwrap();
        assert_eq!(answer.body, format!("/ of {host:?} as None"));
        let moved = get(&format!("{url}/moved"), &[], BOUNDS).await.unwrap();
        assert_eq!((moved.status, moved.body.as_str()), (302, "there"));
        assert_eq!(moved.headers["location"], "/asked");
        assert_eq!(get(&format!("{url}/nowhere"), &[], BOUNDS).await.unwrap().status, 404);
    }

    #[tokio::test]
    async fn neither_a_large_answer_nor_one_that_never_comes_is_taken() {
        let (url, _server) = server().await;
        let large = get(&format!("{url}/large"), &[], BOUNDS).await.unwrap_err();
        assert!(matches!(large, HttpError::TooLarge { body_bytes_max: 64, .. }), "{large}");
        let soon = Bounds { within: Duration::from_millis(20), ..BOUNDS };
        let late = get(&format!("{url}/hangs"), &[], soon).await.unwrap_err();
        assert!(late.to_string().ends_with("does not answer within 20 ms"), "{late}");
    }

    #[tokio::test]
    async fn what_is_no_server_of_http_is_told_apart() {
        for url in
            ["127.0.0.1:9640", "https://127.0.0.1", "http://", "http://user@host/", "ftp://host", "/status"]
        {
            assert!(matches!(get(url, &[], BOUNDS).await, Err(HttpError::Url { .. })), "{url}");
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/healthz", listener.local_addr().unwrap());
        let answer = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"+OK\r\n\r\n").await.unwrap();
        };
        let (asked, ()) = tokio::join!(get(&url, &[], BOUNDS), answer);
        assert!(matches!(asked, Err(HttpError::Exchange { .. })), "{asked:?}");
        drop(listener);
        assert!(matches!(get(&url, &[], BOUNDS).await, Err(HttpError::Connect { .. })));
    }
}
