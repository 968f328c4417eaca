//! The thread: its runtime, its port, its connections and their bounds.

use std::fmt;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::config::AdminConfig;
use super::guard::Guard;
use super::rates::{Figure, History, SAMPLE_INTERVAL};
use super::report::Identity;
use super::routes::{Shown, router};
use super::surveys::Surveys;
use super::token::{Token, TokenError};
use crate::clock::now_ms;
use crate::health::Health;
use crate::metrics::Registry;
use crate::telemetry::{LogLimiter, Recent};

/// Connections that are served at a time. Further ones wait to be accepted.
const CONNECTIONS_MAX: usize = 64;
/// A request's line and headers must have come after so long, and so must the next one's on an open connection.
const HEAD_PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of a request's line and headers. What is larger is refused.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Headers of a request.
const HEADERS_MAX: usize = 64;
/// A connection is closed after so long: then it was idle for a while, or does not read its answers.
const CONNECTION_AGE_MAX: Duration = Duration::from_secs(120);
/// At the end, what is being answered may take so long.
const STOP_PATIENCE: Duration = Duration::from_secs(1);
/// Pause after a connection that could not be accepted: too many open files, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What an endpoint tells of.
pub struct Attended {
    /// What the process is: `aggregator`.
    pub daemon: &'static str,
    /// Its version.
    pub version: &'static str,
    /// Its name in its fleet.
    pub worker: String,
    /// Of which region, if it is of one.
    pub region: Option<String>,
    /// Its metrics, from when they are there.
    pub metrics: Arc<OnceLock<Arc<Registry>>>,
    /// Its health.
    pub health: Health,
    /// Its latest warnings and errors.
    pub recent: Recent,
    /// Its figures as they are now. Called every two seconds, on the endpoint's thread: it must not wait for anything.
    pub figures: Box<dyn Fn() -> Vec<Figure> + Send + Sync>,
}

/// The endpoint of this process. Dropping it stops it.
pub struct Admin {
    address: SocketAddr,
    surveys: Surveys,
    end: CancellationToken,
    ended: oneshot::Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

/// Why there is no endpoint.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The port is taken, most likely.
    #[error(
        "admin.listen: {listen} cannot be listened on: {source}. Every process of a machine needs an address of its own \
         (port 0: any that is free); admin.enabled = false does without"
    )]
    Listen {
        /// Where.
        listen: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// The token cannot be used.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The machine gives no thread.
    #[error("the thread of the admin endpoint cannot be started: {0}")]
    Thread(std::io::Error),
}

impl Admin {
    /// Starts the endpoint, if there is to be one.
    ///
    /// # Errors
    /// When it cannot listen where it should, or has no token though it should.
    pub fn start(config: &AdminConfig, attended: Attended) -> Result<Option<Self>, AdminError> {
        let Some(listen) = config.listen else { return Ok(None) };
        let token = config.token.as_ref().map(Token::open).transpose()?;
        if config.is_beyond_loopback() && token.is_none() {
            tracing::warn!(
                %listen,
                "everybody who can reach the admin endpoint can read it: set admin.bearer_token_file, or let a firewall decide"
            );
        }
        let listener = listen_on(listen).map_err(|source| AdminError::Listen { listen, source })?;
        let address = listener.local_addr().map_err(|source| AdminError::Listen { listen, source })?;
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(AdminError::Thread)?;
        let (surveys, end) = (Surveys::default(), CancellationToken::new());
        let guard = Guard::new(token, config.is_beyond_loopback());
        let shown = attended.shown(config, surveys.clone(), guard);
        let (ending, ended) = oneshot::channel();
        let until = end.clone();
        let serve = move || {
            serve_until(&until, listener, shown, runtime);
            // Nobody waits if the process ends by an error.
            let _nobody_waits = ending.send(());
        };
        let thread =
            std::thread::Builder::new().name("admin".to_owned()).spawn(serve).map_err(AdminError::Thread)?;
        tracing::info!(%address, "the admin endpoint listens");
        Ok(Some(Self { address, surveys, end, ended, thread: Some(thread) }))
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What is asked for about the fleet.
    pub fn surveys(&self) -> Surveys {
        self.surveys.clone()
    }

    /// Stops it: what is being answered is, within a second.
    pub async fn stop(mut self) {
        self.end.cancel();
        // An error is that the thread has panicked: it has ended as well.
        let _ended = (&mut self.ended).await;
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        self.end.cancel();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the admin endpoint panicked");
        }
    }
}

impl fmt::Debug for Admin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Admin").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Attended {
    fn shown(self, config: &AdminConfig, surveys: Surveys, guard: Guard) -> Arc<Shown> {
        let bound_ms = u64::try_from(config.watermark_bound.as_millis()).unwrap_or(u64::MAX);
        let identity = Identity {
            daemon: self.daemon,
            version: self.version,
            worker: self.worker,
            region: self.region,
            pid: std::process::id(),
            started_ms: now_ms(),
            watermark_bound_ms: bound_ms,
        };
        Arc::new(Shown {
            identity,
            started: Instant::now(),
            metrics: self.metrics,
            health: self.health,
            recent: self.recent,
            surveys,
            figures: self.figures,
            history: parking_lot::Mutex::new(History::default()),
            guard: Arc::new(guard),
        })
    }
}

fn listen_on(listen: SocketAddr) -> std::io::Result<TcpListener> {
    let listener = TcpListener::bind(listen)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// The thread's whole life.
fn serve_until(end: &CancellationToken, listener: TcpListener, shown: Arc<Shown>, runtime: Runtime) {
    let sampled = Arc::clone(&shown);
    let serving = async {
        let mut ticks = interval(SAMPLE_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let sampling = async {
            let mut looked_ms = None;
            loop {
                ticks.tick().await;
                looked_ms = sampled.sample(looked_ms);
            }
        };
        tokio::select! {
            () = accept(end, listener, router(shown)) => {}
            () = sampling => {}
        }
    };
    runtime.block_on(serving);
}

/// Serves connections until `end`, and then those that are being answered for a moment.
async fn accept(end: &CancellationToken, listener: TcpListener, router: Router) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "the admin endpoint cannot listen");
            return end.cancelled().await;
        }
    };
    let (places, mut complaints) = (Arc::new(Semaphore::new(CONNECTIONS_MAX)), LogLimiter::default());
    let mut connections = JoinSet::new();
    while !end.is_cancelled() {
        let next = async {
            // Never closed.
            let place = Arc::clone(&places).acquire_owned().await;
            (listener.accept().await, place)
        };
        tokio::select! {
            biased;
            () = end.cancelled() => break,
            Some(_) = connections.join_next() => {}
            (accepted, place) = next => match accepted {
                Ok((stream, _)) => {
                    let (router, end) = (router.clone(), end.clone());
                    connections.spawn(async move {
                        connection(stream, router, &end).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    if let Some(repeats) = complaints.due(Instant::now()) {
                        tracing::warn!(%error, repeats, "the admin endpoint cannot accept a connection");
                    }
                    sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    // The rest is dropped with the set.
    let _late = timeout(STOP_PATIENCE, async { while connections.join_next().await.is_some() {} }).await;
}

async fn connection(stream: TcpStream, router: Router, end: &CancellationToken) {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_PATIENCE);
    builder.max_buf_size(HEAD_BYTES_MAX).max_headers(HEADERS_MAX);
    let served = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(served);
    // What goes wrong on a connection is the matter of who opened it.
    tokio::select! {
        _ = served.as_mut() => return,
        () = end.cancelled() => {}
        () = sleep(CONNECTION_AGE_MAX) => {}
    }
    served.as_mut().graceful_shutdown();
    let _late = timeout(HEAD_PATIENCE, served).await;
}
