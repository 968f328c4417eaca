//! Servers that run inside this process, each with its own handle.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How long a stopping server may wait for its open connections.
const STOP_PATIENCE: Duration = Duration::from_secs(1);

/// A server inside this process. Dropping it stops it.
#[derive(Debug)]
pub struct EmbeddedServer {
    address: SocketAddr,
    stop: CancellationToken,
    task: JoinSet<()>,
}

impl EmbeddedServer {
    /// Binds a free loopback port and runs what `serve` makes of the listener and the stop signal.
    ///
    /// # Errors
    /// No port could be bound.
    pub async fn start<F>(serve: impl FnOnce(TcpListener, CancellationToken) -> F) -> io::Result<Self>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let stop = CancellationToken::new();
        let mut task = JoinSet::new();
        task.spawn(serve(listener, stop.clone()));
        Ok(Self { address, stop, task })
    }

    /// Where it listens.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Stops it; connections that do not end soon are cut.
    pub async fn stop(mut self) {
        self.stop.cancel();
        let ended = async { while self.task.join_next().await.is_some() {} };
        // Past the deadline the drop of the set aborts the task.
        let _ = tokio::time::timeout(STOP_PATIENCE, ended).await;
    }
}

/// A loopback port that was free a moment ago, for a child process. It can be taken before the child binds it:
/// callers try again with another.
///
/// # Errors
/// No port could be bound.
pub(crate) fn free_port() -> io::Result<u16> {
    Ok(std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}
