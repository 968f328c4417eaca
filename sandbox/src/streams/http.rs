//! The protocol: HTTP/1.1, the operation in a header, JSON in both bodies; and answers that break on the way.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use axum::serve::ListenerExt as _;
use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpListener;
use tokio::time::sleep;
use tokio_util::io::ReaderStream;
use tokio_util::sync::CancellationToken;

use super::calls::Operation;
use super::error::{ApiError, ErrorCode};
use super::fake::FakeStreams;
use super::fault::{Effect, Fault};
use super::request::Request;
use super::service::Answer;

const TARGET: &str = "x-amz-target";
const TARGET_PREFIX: &str = "DynamoDBStreams_20120810.";
const REQUEST_ID: &str = "x-amzn-requestid";
const JSON_TYPE: &str = "application/x-amz-json-1.0";
const GARBAGE: &[u8] = br#"{"Records":[{"dynamodb":{"SequenceNumber":"#;

/// What the handler of each request has.
#[derive(Clone)]
struct Shared {
    fake: FakeStreams,
    stop: CancellationToken,
}

/// Answers until `stop`.
pub(super) async fn serve(listener: TcpListener, fake: FakeStreams, stop: CancellationToken) {
    let shared = Shared { fake, stop: stop.clone() };
    let app = Router::new().route("/", post(handle)).with_state(shared);
    // A small answer must not wait for the acknowledgement of the one before.
    let listener = listener.tap_io(|connection| {
        if let Err(error) = connection.set_nodelay(true) {
            tracing::debug!(%error, "a connection ended before it was served");
        }
    });
    let serving = axum::serve(listener, app).with_graceful_shutdown(stop.cancelled_owned());
    if let Err(error) = serving.await {
        tracing::error!(%error, "the fake of DynamoDB Streams ended");
    }
}

async fn handle(State(shared): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    let Some(operation) = operation(&headers) else {
        return error_response(&ErrorCode::UnknownOperation.into());
    };
    let request = Request::parse(operation, &body);
    let reader = access_key_id(&headers);
    let (reader, effect) = shared.fake.admit(operation, reader, request.as_ref().ok());
    let request = match request {
        Ok(request) => request,
        Err(error) => return error_response(&error),
    };
    let answer = |deliver| shared.fake.answer(&request, reader, deliver);
    match effect {
        None => respond(answer(true)),
        Some(Effect::Fault(Fault::Error(code))) => error_response(&code.into()),
        Some(Effect::Fault(Fault::Delay(delay))) => {
            sleep(delay).await;
            respond(answer(true))
        }
        Some(Effect::Fault(Fault::Cut)) => cut_before_head(),
        Some(Effect::Fault(Fault::CutBody)) => cut_in_body(body_of(answer(false))),
        Some(Effect::Fault(Fault::Garbage)) => ok(GARBAGE.into()),
        Some(Effect::Hang(released)) => {
            tokio::select! {
                () = released.cancelled() => {}
                () = shared.stop.cancelled() => {}
            }
            cut_before_head()
        }
    }
}

fn operation(headers: &HeaderMap) -> Option<Operation> {
    let name = headers.get(TARGET)?.to_str().ok()?.strip_prefix(TARGET_PREFIX)?;
    Operation::ALL.into_iter().find(|operation| operation.as_str() == name)
}

/// Who signed the request, or nothing. The signature itself is not checked.
fn access_key_id(headers: &HeaderMap) -> &str {
    headers
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once("Credential="))
        .and_then(|(_, credential)| credential.split(['/', ',']).next())
        .unwrap_or_default()
}

fn respond(answer: Result<Answer, ApiError>) -> Response {
    match answer {
        Ok(answer) => ok(answer.into_body().into()),
        Err(error) => error_response(&error),
    }
}

fn body_of(answer: Result<Answer, ApiError>) -> Bytes {
    match answer {
        Ok(answer) => answer.into_body().into(),
        Err(error) => error_body(&error),
    }
}

fn ok(body: Bytes) -> Response {
    (StatusCode::OK, json_headers(), body).into_response()
}

fn error_response(error: &ApiError) -> Response {
    let status = StatusCode::from_u16(error.code.status()).unwrap_or(StatusCode::BAD_REQUEST);
    (status, json_headers(), error_body(error)).into_response()
}

fn error_body(error: &ApiError) -> Bytes {
    serde_json::json!({ "__type": error.code.wire_type(), "message": error.message }).to_string().into()
}

fn json_headers() -> [(&'static str, String); 2] {
    // In the service's form: 52 characters.
    let id = format!("{:0>52}", format!("{:X}", rand::random::<u128>()));
    [(CONTENT_TYPE.as_str(), JSON_TYPE.to_owned()), (REQUEST_ID, id)]
}

/// The connection ends and nothing of the answer was sent: a body that fails at once takes the head with it.
fn cut_before_head() -> Response {
    Response::new(Body::from_stream(ReaderStream::new(Broken { rest: Bytes::new(), flushed: true })))
}

/// The head promises the whole body, and the connection ends in the middle of it.
fn cut_in_body(body: Bytes) -> Response {
    let length = body.len();
    let half = Broken { rest: body.slice(..length / 2), flushed: false };
    let mut response = (json_headers(), Body::from_stream(ReaderStream::new(half))).into_response();
    response.headers_mut().insert(CONTENT_LENGTH, length.into());
    response
}

/// Yields what it has, and then an error.
struct Broken {
    rest: Bytes,
    /// Whether the server has had the occasion to send what was yielded.
    flushed: bool,
}

impl AsyncRead for Broken {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.rest.has_remaining() {
            let count = self.rest.len().min(buffer.remaining());
            buffer.put_slice(&self.rest.split_to(count));
            return Poll::Ready(Ok(()));
        }
        if !self.flushed {
            self.flushed = true;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, "cut by script")))
    }
}
