//! The listener: a port that can refuse connections and listen again, and a task for each connection.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{Shared, connection};

/// Connections that wait to be accepted.
const BACKLOG: u32 = 1_024;

/// A port that is ours whether or not anybody listens on it.
pub(super) struct Place {
    /// Bound and never listening: connections to it are refused, and nobody else gets the port.
    _held: TcpSocket,
    address: SocketAddr,
}

impl Place {
    pub(super) fn take() -> io::Result<Self> {
        let held = bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        let address = held.local_addr()?;
        Ok(Self { _held: held, address })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn listen(&self) -> io::Result<TcpListener> {
        bind(self.address)?.listen(BACKLOG)
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// Serves, and refuses to while that is the fault. Whenever `cuts` changes the connections end.
pub(super) async fn serve(
    place: Place,
    listener: TcpListener,
    shared: Arc<Shared>,
    mut cuts: watch::Receiver<u64>,
) {
    let mut faults = shared.faults.clone();
    let mut listener = Some(listener);
    loop {
        if let Some(listener) = listener.take() {
            tokio::select! {
                () = accept(&listener, &shared, &mut cuts) => return,
                refused = faults.wait_for(|faults| faults.refused) => if refused.is_err() { return },
            }
        }
        // Its connections have ended with it.
        if faults.wait_for(|faults| !faults.refused).await.is_err() {
            return;
        }
        listener = match place.listen() {
            Ok(listener) => Some(listener),
            Err(error) => {
                tracing::error!(%error, address = %place.address, "the proxy cannot listen again");
                return;
            }
        };
    }
}

/// Accepts connections until the proxy's handle is gone.
async fn accept(listener: &TcpListener, shared: &Arc<Shared>, cuts: &mut watch::Receiver<u64>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            cut = cuts.changed() => match cut {
                Ok(()) => connections.shutdown().await,
                Err(_) => return,
            },
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { continue };
                connections.spawn(connection::serve(client, Arc::clone(shared)));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}
