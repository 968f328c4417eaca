//! A TCP relay before the state table that can hold a request up or lose it: the network as it is on a bad day.

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// The relay. Dropping it closes every connection.
pub(crate) struct Gate {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    _relay: JoinSet<()>,
}

struct Shared {
    /// What becomes of the next request with a text.
    needle: Mutex<Option<(String, Fate)>>,
    stage: watch::Sender<Stage>,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It arrives when the test lets it.
    Held,
    /// Its connection breaks before it arrives.
    Cut,
}

/// How far the request that is held up got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It did not come yet.
    Waiting,
    /// It is held up.
    Held,
    /// The test lets it pass.
    Released,
    /// The server answered it, whether or not anybody still waits for the answer.
    Answered,
}

impl Gate {
    /// A relay to `server`.
    pub(crate) async fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let shared = Arc::new(Shared { needle: Mutex::new(None), stage: watch::Sender::new(Stage::Waiting) });
        let mut relay = JoinSet::new();
        relay.spawn(accept(listener, server, Arc::clone(&shared)));
        Self { address, shared, _relay: relay }
    }

    /// Holds up the next request that has `needle` in it.
    pub(crate) fn hold(&self, needle: &str) {
        *self.shared.needle.lock() = Some((needle.to_owned(), Fate::Held));
    }

    /// Breaks the connection of the next request that has `needle` in it.
    pub(crate) fn cut(&self, needle: &str) {
        *self.shared.needle.lock() = Some((needle.to_owned(), Fate::Cut));
    }

    /// Whether a request was met since it was told to [`Gate::hold`] or to [`Gate::cut`] one.
    pub(crate) fn has_met_it(&self) -> bool {
        self.shared.needle.lock().is_none()
    }

    /// How far it got.
    pub(crate) fn stage(&self) -> Stage {
        *self.shared.stage.borrow()
    }

    /// Lets it pass.
    pub(crate) fn release(&self) {
        self.shared.stage.send_replace(Stage::Released);
    }
}

async fn accept(listener: TcpListener, server: SocketAddr, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        connections.spawn(relay(client, server, Arc::clone(&shared)));
    }
}

async fn relay(mut client: TcpStream, server: SocketAddr, shared: Arc<Shared>) {
    let Ok(mut server) = TcpStream::connect(server).await else { return };
    let (mut request, mut answer) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    loop {
        tokio::select! {
            Ok(read) = client.read(&mut request) => {
                if read == 0 {
                    return;
                }
                match shared.fate_of(&request[..read]) {
                    Some(Fate::Held) => return shared.hold(&request[..read], client, server).await,
                    Some(Fate::Cut) => return,
                    None => {}
                }
                if server.write_all(&request[..read]).await.is_err() {
                    return;
                }
            }
            Ok(read) = server.read(&mut answer) => {
                if read == 0 || client.write_all(&answer[..read]).await.is_err() {
                    return;
                }
            }
            else => return,
        }
    }
}

impl Shared {
    fn fate_of(&self, request: &[u8]) -> Option<Fate> {
        let mut needle = self.needle.lock();
        let is_it = |text: &str| request.windows(text.len()).any(|window| window == text.as_bytes());
        needle.take_if(|(text, _)| is_it(text)).map(|(_, fate)| fate)
    }

    /// Like a packet that is delayed on its way: it arrives even if its sender has given up.
    async fn hold(&self, request: &[u8], mut client: TcpStream, mut server: TcpStream) {
        self.stage.send_replace(Stage::Held);
        let mut stages = self.stage.subscribe();
        if stages.wait_for(|stage| *stage == Stage::Released).await.is_err() {
            return;
        }
        server.write_all(request).await.expect("the server is up");
        let mut answer = vec![0; 64 * 1024];
        let read = server.read(&mut answer).await.expect("the server answers");
        self.stage.send_replace(Stage::Answered);
        // The client may be gone; then the rest is of no use to anybody.
        if client.write_all(&answer[..read]).await.is_ok() {
            let _end = tokio::io::copy_bidirectional(&mut client, &mut server).await;
        }
    }
}
