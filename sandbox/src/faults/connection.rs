//! One connection of a client: its requests, one after the other, meet their fates. It has a connection of its own to
//! the server.

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use hyper::http::{request, response};
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::plan::{CallError, Fate, Faults, happens};
use super::put_records::{Answer, Encoding, EncodingError, Entry, EntryAnswer, PutRecords, join};
use super::{Second, Shared};

const PUT_RECORDS: &str = "Kinesis_20131202.PutRecords";
/// What a record that was lost is said to have got.
const LOST_SEQUENCE: &str = "49500000000000000000000000000000000000000000000000000000";

/// Why a request cannot be answered: the connection is cut.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("the server cannot be reached: {0}")]
    Connect(#[from] io::Error),
    #[error("the connection ended: {0}")]
    Http(#[from] hyper::Error),
    #[error("the server's answer to PutRecords is not understood")]
    Answer,
    #[error("a body is not understood: {0}")]
    Body(#[from] EncodingError),
}

/// Serves a client until it or a fault ends the connection.
pub(super) async fn serve(client: TcpStream, shared: Arc<Shared>) {
    // Small requests and answers: each is sent as soon as it is there, as without a proxy.
    if let Err(error) = client.set_nodelay(true) {
        return tracing::debug!(%error, "a connection ended before it was served");
    }
    let reset = CancellationToken::new();
    let proxy = Arc::new(Connection { shared, reset: reset.clone(), server: Mutex::default() });
    let service = service_fn(move |request| {
        let proxy = Arc::clone(&proxy);
        async move { Ok::<_, Infallible>(proxy.answer(request).await) }
    });
    let mut connection = Builder::new().serve_connection(TokioIo::new(client), service);
    tokio::select! {
        // Cut by the client or by us: there is nobody to tell.
        _ = &mut connection => {}
        () = reset.cancelled() => {
            let client = connection.into_parts().io.into_inner();
            // The drop that follows sends a RST instead of a FIN.
            if let Err(error) = client.set_zero_linger() {
                tracing::debug!(%error, "the connection ended before it was reset");
            }
        }
    }
}

struct Connection {
    shared: Arc<Shared>,
    /// Ends the client's connection.
    reset: CancellationToken,
    server: Mutex<Option<Server>>,
}

/// The connection to the server.
struct Server {
    requests: SendRequest<Full<Bytes>>,
    _driver: JoinSet<()>,
}

impl Connection {
    /// Answers one request, or never.
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        match self.handle(request).await {
            Ok(answer) => answer,
            Err(trouble) => {
                tracing::debug!(%trouble, "a call was cut");
                self.shared.count(|second| second.calls_failed += 1);
                self.cut().await
            }
        }
    }

    async fn handle(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Trouble> {
        let faults = self.shared.faults.borrow().clone();
        let (head, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        self.shared.count(|second| {
            second.calls += 1;
            second.body_bytes += body.len() as u64;
        });
        let fate = faults.fate(&mut *self.shared.dice.lock());
        if !matches!(fate, Fate::Passes { .. }) {
            self.shared.count(|second| second.calls_failed += 1);
        }
        match fate {
            Fate::Swallowed { reaches } | Fate::Reset { reaches } => {
                if reaches {
                    self.pass(head, body, &Faults::default()).await?;
                } else if let Some(encoding) = put_records(&head) {
                    self.count_entries(&encoding.read(&body)?);
                }
                match fate {
                    Fate::Reset { .. } => Ok(self.cut().await),
                    _ => pending().await,
                }
            }
            Fate::Error(error) => error_answer(error, encoding_of(&head).unwrap_or(Encoding::Json)),
            Fate::Passes { after } => {
                sleep(after).await;
                self.pass(head, body, &faults).await
            }
        }
    }

    fn count_entries(&self, call: &PutRecords) {
        let bytes: u64 = call.entries.iter().map(Entry::bytes).sum();
        self.shared.count(|second| {
            second.entries += call.entries.len() as u64;
            second.entry_bytes += bytes;
        });
    }

    /// Resets the connection.
    async fn cut<T>(&self) -> T {
        self.reset.cancel();
        pending().await
    }

    /// Sends the request to the server, without the entries that are rejected or lost.
    async fn pass(
        &self,
        head: request::Parts,
        body: Bytes,
        faults: &Faults,
    ) -> Result<Response<Full<Bytes>>, Trouble> {
        let Some(encoding) = put_records(&head) else {
            let (head, body) = self.send(head, body).await?;
            return Ok(Response::from_parts(head, Full::new(body)));
        };
        let mut call: PutRecords = encoding.read(&body)?;
        self.count_entries(&call);
        let kept = self.keep(&call, faults).await;
        if kept.iter().all(Option::is_none) {
            let (head, answer) = self.send(head, body.clone()).await?;
            self.note(&call, &head, encoding, &answer);
            return Ok(Response::from_parts(head, Full::new(answer)));
        }
        let rejected = kept.iter().flatten().filter(|answer| answer.code.is_some()).count();
        self.shared.count(|second| {
            second.entries_rejected += rejected as u64;
            second.entries_lost += (kept.iter().flatten().count() - rejected) as u64;
        });
        let mut is_kept = kept.iter().map(Option::is_some);
        call.entries.retain(|_| !is_kept.next().unwrap_or(false));
        if call.entries.is_empty() {
            let answer = join(kept, Answer::default()).ok_or(Trouble::Answer)?;
            return own_answer(StatusCode::OK, encoding, &answer);
        }
        let (mut head, answer) = self.send(head, encoding.write(&call)?.into()).await?;
        self.note(&call, &head, encoding, &answer);
        if head.status != StatusCode::OK {
            return Ok(Response::from_parts(head, Full::new(answer)));
        }
        let answer = join(kept, encoding.read(&answer)?).ok_or(Trouble::Answer)?;
        let answer = encoding.write(&answer)?;
        head.headers.insert(CONTENT_LENGTH, HeaderValue::from(answer.len()));
        Ok(Response::from_parts(head, Full::new(answer.into())))
    }

    /// Of each entry, the answer if the faults keep it from the server.
    async fn keep(&self, call: &PutRecords, faults: &Faults) -> Vec<Option<EntryAnswer>> {
        let mut kept = vec![None; call.entries.len()];
        if !faults.keeps_entries() {
            return kept;
        }
        let stream = stream_of(call);
        let shards = self.shared.shards.of(stream).await;
        let now = self.shared.started.elapsed();
        let (mut dice, mut buckets) = (self.shared.dice.lock(), self.shared.buckets.lock());
        for (entry, answer) in call.entries.iter().zip(&mut kept) {
            let shard = shards.shard_of(entry.hash_key());
            let fits = faults.capacity.is_none_or(|of| buckets.take(shard, entry.bytes(), of, now));
            if !fits {
                *answer = Some(EntryAnswer::throttled(shard, stream));
            } else if happens(faults.entry_failures, &mut *dice) {
                *answer = Some(EntryAnswer::internal_failure());
            } else if happens(faults.entry_losses, &mut *dice) {
                *answer = Some(EntryAnswer::taken(shard.to_owned(), LOST_SEQUENCE.to_owned()));
            }
        }
        kept
    }

    /// Counts what the server did with the entries, and looks for shards that are new.
    fn note(&self, call: &PutRecords, head: &response::Parts, encoding: Encoding, answer: &[u8]) {
        if head.status != StatusCode::OK {
            return self.shared.count(|second| second.calls_failed += 1);
        }
        // What is not understood here is for the client to judge.
        let Ok(answer) = encoding.read::<Answer>(answer) else { return };
        let rejected = answer.entries.iter().filter(|entry| entry.code.is_some()).count() as u64;
        let answered = answer.entries.len() as u64;
        self.shared.count(|second: &mut Second| {
            second.entries_rejected += rejected;
            second.entries_taken += answered - rejected;
        });
        self.shared
            .shards
            .check(stream_of(call), answer.entries.iter().filter_map(|entry| entry.shard.as_deref()));
    }

    async fn send(&self, mut head: request::Parts, body: Bytes) -> Result<(response::Parts, Bytes), Trouble> {
        head.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        let mut server = self.server.lock().await;
        // An idle connection may have been ended by the server.
        if let Some(idle) = server.as_mut()
            && idle.requests.ready().await.is_err()
        {
            *server = None;
        }
        let server = match &mut *server {
            Some(server) => server,
            none => none.insert(Server::connect(&self.shared.upstream).await?),
        };
        let answer = server.requests.send_request(Request::from_parts(head, Full::new(body))).await?;
        let (head, body) = answer.into_parts();
        Ok((head, body.collect().await?.to_bytes()))
    }
}

impl Server {
    async fn connect(address: &str) -> Result<Self, Trouble> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (requests, connection) = handshake(TokioIo::new(stream)).await?;
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            // Whoever waits for an answer is told.
            let _ended = connection.await;
        });
        Ok(Self { requests, _driver: driver })
    }
}

/// How a PutRecords call is written, if it is one.
fn put_records(head: &request::Parts) -> Option<Encoding> {
    let target = head.headers.get("x-amz-target").and_then(|target| target.to_str().ok());
    encoding_of(head).filter(|_| target == Some(PUT_RECORDS))
}

fn encoding_of(head: &request::Parts) -> Option<Encoding> {
    Encoding::of(head.headers.get(CONTENT_TYPE)?.to_str().ok()?)
}

/// The stream's name; of an ARN what comes after the last slash.
fn stream_of(call: &PutRecords) -> &str {
    let arn = || call.stream_arn.as_deref().and_then(|arn| arn.rsplit('/').next());
    call.stream.as_deref().or_else(arn).unwrap_or_default()
}

fn error_answer(error: CallError, encoding: Encoding) -> Result<Response<Full<Bytes>>, Trouble> {
    let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let body = serde_json::json!({ "__type": error.code(), "message": "by the proxy's script" });
    own_answer(status, encoding, &body)
}

fn own_answer(
    status: StatusCode,
    encoding: Encoding,
    body: &impl Serialize,
) -> Result<Response<Full<Bytes>>, Trouble> {
    let mut answer = Response::new(Full::new(encoding.write(body)?.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(encoding.content_type()));
    Ok(answer)
}
