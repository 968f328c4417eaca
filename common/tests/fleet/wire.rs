//! One process's way to the state table: a relay that reads each request, tells the journal what the table took, and
//! can be slow, lose requests or their answers, or say that the table is throttled.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::journal::Journal;

/// The relay. Dropping it closes every connection.
pub(crate) struct Wire {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    _relay: JoinSet<()>,
}

/// How likely a request is to meet each of these, from 0 to 1.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Weather {
    /// It is lost before it arrives.
    pub(crate) lost: f64,
    /// Its answer is lost.
    pub(crate) answer_lost: f64,
    /// The table has no capacity for it.
    pub(crate) throttled: f64,
    /// It is late, by up to [`Weather::late_ms_max`].
    pub(crate) late: f64,
    pub(crate) late_ms_max: u64,
}

impl Weather {
    /// Nothing gets through.
    pub(crate) const OUTAGE: Self =
        Self { lost: 1.0, answer_lost: 0.0, throttled: 0.0, late: 0.0, late_ms_max: 0 };
}

struct Shared {
    process: String,
    table: SocketAddr,
    journal: Journal,
    weather: Mutex<(Weather, fastrand::Rng)>,
    /// Requests with this text wait while it is there.
    held: watch::Sender<Option<String>>,
    /// Requests that wait for it.
    waiting: watch::Sender<usize>,
}

/// What becomes of a request.
#[derive(Clone, Copy)]
enum Fate {
    Lost,
    Throttled,
    Passed { answer_lost: bool },
}

impl Wire {
    /// A relay from `process` to the server at `table`.
    pub(crate) async fn start(process: &str, table: SocketAddr, journal: Journal, seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let shared = Arc::new(Shared {
            process: process.to_owned(),
            table,
            journal,
            weather: Mutex::new((Weather::default(), fastrand::Rng::with_seed(seed))),
            held: watch::Sender::new(None),
            waiting: watch::Sender::new(0),
        });
        let mut relay = JoinSet::new();
        relay.spawn(accept(listener, Arc::clone(&shared)));
        Self { address, shared, _relay: relay }
    }

    pub(crate) fn weather(&self, weather: Weather) {
        self.shared.weather.lock().0 = weather;
    }

    /// Holds up every request that has `needle` in it.
    pub(crate) fn hold(&self, needle: &str) {
        self.shared.held.send_replace(Some(needle.to_owned()));
    }

    /// Lets them pass.
    pub(crate) fn release(&self) {
        self.shared.held.send_replace(None);
    }

    /// Requests that are held up.
    pub(crate) fn waiting(&self) -> usize {
        *self.shared.waiting.borrow()
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        let shared = Arc::clone(&shared);
        // How a connection ends is the client's to see.
        connections.spawn(async move { relay(BufStream::new(client), shared).await.unwrap_or_default() });
    }
}

/// A request or an answer.
struct Message {
    bytes: Vec<u8>,
    head_bytes: usize,
}

async fn relay(mut client: BufStream<TcpStream>, shared: Arc<Shared>) -> std::io::Result<()> {
    let mut table = BufStream::new(TcpStream::connect(shared.table).await?);
    while let Some(request) = Message::read(&mut client).await? {
        let answer = match shared.fate(&request).await {
            Fate::Lost => return Ok(()),
            Fate::Throttled => throttled(),
            Fate::Passed { answer_lost } => {
                // It arrives even if its sender has given up.
                let answer = shared.forward(&request, &mut table).await?;
                if answer_lost {
                    return Ok(());
                }
                answer
            }
        };
        client.write_all(&answer).await?;
        client.flush().await?;
    }
    Ok(())
}

fn throttled() -> Vec<u8> {
    let body = r#"{"__type":"com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException"}"#;
    let head = "HTTP/1.1 400 Bad Request\r\ncontent-type: application/x-amz-json-1.0";
    format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

impl Shared {
    async fn fate(&self, request: &Message) -> Fate {
        self.hold(request).await;
        let (fate, late) = self.draw();
        tokio::time::sleep(late).await;
        fate
    }

    async fn hold(&self, request: &Message) {
        let has = |text: &str| request.bytes.windows(text.len()).any(|window| window == text.as_bytes());
        let mut held = self.held.subscribe();
        if held.borrow().as_ref().is_some_and(|needle| has(needle)) {
            self.waiting.send_modify(|waiting| *waiting += 1);
            drop(held.wait_for(Option::is_none).await);
            self.waiting.send_modify(|waiting| *waiting -= 1);
        }
    }

    fn draw(&self) -> (Fate, Duration) {
        let (weather, random) = &mut *self.weather.lock();
        let mut happens = |odds: f64| random.f64() < odds;
        let fate = match () {
            () if happens(weather.lost) => Fate::Lost,
            () if happens(weather.throttled) => Fate::Throttled,
            () => Fate::Passed { answer_lost: happens(weather.answer_lost) },
        };
        let late_ms = if happens(weather.late) { random.u64(0..=weather.late_ms_max) } else { 0 };
        (fate, Duration::from_millis(late_ms))
    }

    async fn forward(&self, request: &Message, table: &mut BufStream<TcpStream>) -> std::io::Result<Vec<u8>> {
        let operation = request.operation();
        let writes = ["PutItem", "UpdateItem", "DeleteItem"].contains(&operation.as_str());
        let _writing = if writes { Some(self.journal.writing().await) } else { None };
        table.write_all(&request.bytes).await?;
        table.flush().await?;
        let answer = Message::read(table).await?.ok_or(std::io::ErrorKind::UnexpectedEof)?;
        if writes && answer.bytes.starts_with(b"HTTP/1.1 200") {
            let body: Value = serde_json::from_slice(&request.bytes[request.head_bytes..])?;
            self.journal.written(&self.process, &operation, &body);
        }
        Ok(answer.bytes)
    }
}

impl Message {
    /// The next message; `None` at the connection's end.
    async fn read(from: &mut BufStream<TcpStream>) -> std::io::Result<Option<Self>> {
        let mut bytes = Vec::new();
        loop {
            let line = bytes.len();
            if from.read_until(b'\n', &mut bytes).await? == 0 {
                return Ok(None);
            }
            if bytes[line..] == *b"\r\n" {
                break;
            }
        }
        let mut message = Self { head_bytes: bytes.len(), bytes };
        let length = message.header("content-length").and_then(|length| length.parse().ok());
        let body_bytes: usize = length.expect("a message tells its length");
        message.bytes.resize(message.head_bytes + body_bytes, 0);
        from.read_exact(&mut message.bytes[message.head_bytes..]).await?;
        Ok(Some(message))
    }

    fn header(&self, name: &str) -> Option<String> {
        let head = String::from_utf8_lossy(&self.bytes[..self.head_bytes]);
        let mut headers = head.lines().filter_map(|line| line.split_once(':'));
        headers.find(|(of, _)| of.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned())
    }

    /// The operation that a request asks for.
    fn operation(&self) -> String {
        let target = self.header("x-amz-target").unwrap_or_default();
        target.rsplit_once('.').map_or_else(String::new, |(_, operation)| operation.to_owned())
    }
}
