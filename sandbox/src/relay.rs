//! A relay before a server, which can be closed: connections stay, and nothing passes either way until it is opened
//! again. So a server looks to its clients when it hangs, or when the network swallows everything.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Bytes on their way on one connection, either way.
const BUFFER_BYTES: usize = 16 * 1024;
const SCHEME: &str = "http://";

/// A running relay. Dropping it cuts its connections.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    gate: watch::Sender<Gate>,
    _task: JoinSet<()>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gate {
    Open,
    Closed,
}

impl Relay {
    /// Starts an open relay before the server at `url`, which is `http://` and a host with its port.
    ///
    /// # Errors
    /// No port could be bound.
    pub async fn start(url: &str) -> io::Result<Self> {
        let server = url.trim_start_matches(SCHEME).trim_end_matches('/').to_owned();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let (gate, watched) = watch::channel(Gate::Open);
        let mut task = JoinSet::new();
        task.spawn(serve(listener, server, watched));
        Ok(Self { address, gate, _task: task })
    }

    /// Where it listens, for clients of the server.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{SCHEME}{}", self.address)
    }

    /// Lets nothing pass.
    pub fn close(&self) {
        self.gate.send_replace(Gate::Closed);
    }

    /// Lets everything pass again, what waited first.
    pub fn open(&self) {
        self.gate.send_replace(Gate::Open);
    }
}

async fn serve(listener: TcpListener, server: String, gate: watch::Receiver<Gate>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { continue };
                connections.spawn(relay(client, server.clone(), gate.clone()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Copies both ways until either side has ended.
async fn relay(client: TcpStream, server: String, mut gate: watch::Receiver<Gate>) {
    if gate.wait_for(|gate| *gate == Gate::Open).await.is_err() {
        return;
    }
    let Ok(server) = TcpStream::connect(server).await else { return };
    // Small requests and answers: each is sent as soon as it is there, as without a relay.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::select! {
        _ = copy(from_client, to_server, gate.clone()) => {}
        _ = copy(from_server, to_client, gate) => {}
    }
}

async fn copy(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut gate: watch::Receiver<Gate>,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let len = from.read(&mut buffer).await?;
        let Some(bytes) = buffer.get(..len).filter(|bytes| !bytes.is_empty()) else { return Ok(()) };
        gate.wait_for(|gate| *gate == Gate::Open).await.map_err(io::Error::other)?;
        to.write_all(bytes).await?;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const A_WHILE: Duration = Duration::from_millis(100);
    const PATIENCE: Duration = Duration::from_secs(10);

    /// Sends back what it gets, on one connection.
    async fn echo() -> (String, JoinSet<()>) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let mut task = JoinSet::new();
        task.spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (mut from, mut to) = stream.split();
            tokio::io::copy(&mut from, &mut to).await.unwrap();
        });
        (url, task)
    }

    async fn ask(stream: &mut TcpStream, byte: u8) -> u8 {
        stream.write_all(&[byte]).await.unwrap();
        stream.read_u8().await.unwrap()
    }

    #[tokio::test]
    async fn a_closed_relay_holds_what_is_sent_until_it_is_opened() {
        let (url, _server) = echo().await;
        let relay = Relay::start(&url).await.unwrap();
        let address = relay.url().trim_start_matches(SCHEME).to_owned();
        let mut stream = TcpStream::connect(&address).await.unwrap();
        assert_eq!(timeout(PATIENCE, ask(&mut stream, 1)).await.unwrap(), 1);
        relay.close();
        assert!(timeout(A_WHILE, ask(&mut stream, 2)).await.is_err());
        relay.open();
        assert_eq!(timeout(PATIENCE, stream.read_u8()).await.unwrap().unwrap(), 2);
        assert_eq!(timeout(PATIENCE, ask(&mut stream, 3)).await.unwrap(), 3);
    }

    #[tokio::test]
    async fn the_end_of_the_server_is_the_end_of_the_connection() {
        let (url, mut server) = echo().await;
        let relay = Relay::start(&url).await.unwrap();
        let mut stream = TcpStream::connect(relay.url().trim_start_matches(SCHEME)).await.unwrap();
        assert_eq!(timeout(PATIENCE, ask(&mut stream, 1)).await.unwrap(), 1);
        server.shutdown().await;
        assert!(timeout(PATIENCE, stream.read_u8()).await.unwrap().is_err());
    }
}
