//! One server: its connections, and what is known of it.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use redis::{Pipeline, Value};
use tokio::{
    sync::{OnceCell, Semaphore, SemaphorePermit},
    time::{Instant, timeout},
};

use crate::{
    call::ServerView,
    config::{Address, CacheConfig},
    connection::{ConnectError, Connection, Connector, Peer},
    round_trips::RoundTrips,
    sample::{Known, Sample},
    script::Script,
    server_clock::{self, ServerClock},
};

/// Between two attempts to replace a connection that still works.
const REPLACE_PAUSE: Duration = Duration::from_secs(5);

/// What the connections are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Calling the scripts, on primaries.
    Write,
    /// Reading entries on primaries.
    ReadPrimaries,
    /// Reading entries on replicas, and on primaries where there are none.
    ReadReplicas,
}

pub(crate) struct Node {
    address: Address,
    /// The address, as errors have it.
    name: Arc<str>,
    connector: Arc<Connector>,
    config: Arc<CacheConfig>,
    purpose: Purpose,
    round_trips: RoundTrips,
    lanes: Vec<Lane>,
    calls: AtomicUsize,
    connections_lost: AtomicU64,
    state: Mutex<State>,
    /// One sample after the other, so that an older one is never judged after a newer one.
    pub(crate) sampling: tokio::sync::Mutex<()>,
}

/// What is known of a server.
struct State {
    known: Option<Known>,
    /// Who it was when it was first asked, before it is judged.
    first_identity: Option<String>,
    /// The epoch of the primaries that gave it all that it has, if they still are primaries.
    given_epoch: Option<String>,
    /// How often it turned out to be another than before: connections to the one before are not used any more.
    epoch: u64,
    sampled: Option<Instant>,
    used: Instant,
}

/// A place for one connection, shared by concurrent calls.
#[derive(Default)]
struct Lane {
    link: Mutex<Option<Arc<Link>>>,
    /// Held by who opens a connection: the last failure to, and when it was known.
    opening: tokio::sync::Mutex<Option<(Instant, ConnectError)>>,
}

/// An open connection that is set up, and the clock of whoever is behind it.
pub(crate) struct Link {
    connection: Connection,
    pub(crate) clock: ServerClock,
    /// Pipelines that may be on their way.
    permits: Semaphore,
    round_trips: RoundTrips,
    /// Set when its server has been sampled: the epoch that it belongs to.
    pub(crate) judged: OnceCell<u64>,
}

impl Node {
    pub(crate) fn new(
        address: Address,
        connector: Arc<Connector>,
        config: Arc<CacheConfig>,
        purpose: Purpose,
        round_trips: RoundTrips,
    ) -> Self {
        let state = State {
            known: None,
            first_identity: None,
            given_epoch: None,
            epoch: 0,
            sampled: None,
            used: Instant::now(),
        };
        Self {
            name: address.to_string().into(),
            address,
            connector,
            lanes: std::iter::repeat_with(Lane::default).take(config.connections.max(1)).collect(),
            config,
            purpose,
            round_trips,
            calls: AtomicUsize::new(0),
            connections_lost: AtomicU64::new(0),
            state: Mutex::new(state),
            sampling: tokio::sync::Mutex::default(),
        }
    }

    pub(crate) const fn address(&self) -> &Address {
        &self.address
    }

    pub(crate) const fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The next connection in turn, opened if it is not. It may not have been judged yet.
    pub(crate) async fn open(&self) -> Result<Arc<Link>, ConnectError> {
        self.lock().used = Instant::now();
        let turn = self.calls.fetch_add(1, Ordering::Relaxed) % self.lanes.len().max(1);
        let Some(lane) = self.lanes.get(turn) else {
            return Err(ConnectError::Settings {
                address: self.name.to_string(),
                reason: "no connections are allowed".to_owned(),
            });
        };
        self.open_lane(lane).await
    }

    /// Callers that waited while another's attempt failed share its failure, so that a dead server costs each of
    /// them one timeout and not one after the other.
    async fn open_lane(&self, lane: &Lane) -> Result<Arc<Link>, ConnectError> {
        if let Some(link) = self.usable(lane) {
            return Ok(if link.connection.is_worn() { self.replace(lane, link).await } else { link });
        }
        let called = Instant::now();
        let mut failed = lane.opening.lock().await;
        if let Some(link) = self.usable(lane) {
            return Ok(link);
        }
        if let Some((known, error)) = &*failed
            && *known >= called
        {
            return Err(error.clone());
        }
        match self.connect().await {
            Ok(link) => {
                let link = Arc::new(link);
                *lane.lock() = Some(Arc::clone(&link));
                *failed = None;
                Ok(link)
            }
            Err(error) => {
                *failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    /// Opens a connection in the place of one that works and will be cut before long. What is on its way on that one
    /// is answered there. The old one stays for as long as no new one can be had, and while another caller tries.
    async fn replace(&self, lane: &Lane, worn: Arc<Link>) -> Arc<Link> {
        let Ok(mut failed) = lane.opening.try_lock() else { return worn };
        if failed.as_ref().is_some_and(|(known, _)| known.elapsed() < REPLACE_PAUSE) {
            return worn;
        }
        match self.connect().await {
            Ok(link) => {
                let link = Arc::new(link);
                *lane.lock() = Some(Arc::clone(&link));
                *failed = None;
                link
            }
            Err(error) => {
                tracing::debug!(address = %self.name, %error, "a connection to the cache cannot be replaced yet");
                *failed = Some((Instant::now(), error));
                worn
            }
        }
    }

    /// The open connection, unless it is broken or leads to a server that is not this one any more.
    fn usable(&self, lane: &Lane) -> Option<Arc<Link>> {
        let epoch = self.lock().epoch;
        let mut place = lane.lock();
        let link = place.as_ref()?;
        if link.judged.get().is_some_and(|judged| *judged != epoch) {
            *place = None;
            return None;
        }
        if !link.connection.is_closed() {
            return Some(Arc::clone(link));
        }
        drop(place);
        self.count_loss();
        None
    }

    /// A server that ends closes all its connections: that is one loss.
    fn count_loss(&self) {
        self.connections_lost.fetch_add(1, Ordering::Relaxed);
        for lane in &self.lanes {
            lane.lock().take_if(|link| link.connection.is_closed());
        }
    }

    /// Gives up a connection that failed: the next call opens another.
    pub(crate) fn give_up(&self, failed: &Arc<Link>) {
        for lane in &self.lanes {
            let given_up = lane.lock().take_if(|link| Arc::ptr_eq(link, failed));
            if given_up.is_some() {
                self.count_loss();
            }
        }
    }

    async fn connect(&self) -> Result<Link, ConnectError> {
        let connection = self.connector.open(&self.address, Peer::Server).await?;
        let waited = self.connector.step_timeout();
        let clock = timeout(waited, self.set_up(&connection))
            .await
            .unwrap_or_else(|_| Err(ConnectError::Timeout { address: self.name.to_string(), waited }))?;
        Ok(Link {
            connection,
            clock: ServerClock::new(clock),
            permits: Semaphore::new(self.config.pipelines_in_flight_max.max(1)),
            round_trips: self.round_trips.clone(),
            judged: OnceCell::new(),
        })
    }

    /// Finds out now what would otherwise fail with the first call.
    async fn set_up(&self, connection: &Connection) -> Result<server_clock::Sample, ConnectError> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("TIME");
        pipeline.cmd("ROLE");
        match self.purpose {
            Purpose::Write => {
                for script in Script::ALL {
                    pipeline.cmd("SCRIPT").arg("LOAD").arg(script.source());
                }
            }
            Purpose::ReadReplicas if self.config.servers.is_cluster() => {
                pipeline.cmd("READONLY");
            }
            Purpose::ReadPrimaries | Purpose::ReadReplicas => {}
        }
        let answers = connection.exchange(&pipeline).await;
        let answers = answers.map_err(|reason| self.connector.cut_off(reason, &self.address))?;
        for (index, answer) in answers.iter().enumerate() {
            match answer {
                // Who may not ask for the role is told by READONLY.
                Value::ServerError(error) if index == ROLE && error.code() == "NOPERM" => {}
                Value::ServerError(error) => return Err(ConnectError::from_answer(error, &self.address)),
                _ => {}
            }
        }
        if self.purpose != Purpose::ReadReplicas && answers.get(ROLE).is_some_and(is_replica) {
            self.distrust();
            return Err(ConnectError::Replica { address: self.name.to_string() });
        }
        answers.first().and_then(server_clock::Sample::read).ok_or_else(|| ConnectError::Setup {
            address: self.name.to_string(),
            reason: "it does not tell the time".to_owned(),
        })
    }

    /// Now on the server's clock, not later than it truly is; none: there is no connection.
    pub(crate) fn now_ms(&self) -> Option<u64> {
        let now = Instant::now();
        self.lanes.iter().filter_map(|lane| Some(lane.lock().as_ref()?.clock.at(now))).min()
    }

    /// What calls have to know. `loss_ms` is the latest loss horizon of any primary.
    pub(crate) fn view(&self, deadline_ms: u64, loss_ms: u64) -> ServerView {
        match &self.lock().known {
            Some(Known { sample: Sample { evicts, evicted_keys: Some(evicted_keys), .. }, .. }) => {
                ServerView { deadline_ms, loss_ms, evicted_keys: evicts.then_some(*evicted_keys) }
            }
            // What it evicts is not told: nothing proves that a change is news, ever.
            _ => ServerView { deadline_ms, loss_ms: u64::MAX, evicted_keys: None },
        }
    }

    /// The epoch of its data, once it was looked at as one of the cache's primaries.
    pub(crate) fn epoch(&self) -> Option<String> {
        let epoch = self.lock().known.as_ref()?.epoch.clone();
        (!epoch.is_empty()).then_some(epoch)
    }

    pub(crate) fn known(&self) -> Option<Known> {
        self.lock().known.clone()
    }

    /// How old the last look at it is; none: nobody has looked at it.
    pub(crate) fn sample_age(&self) -> Option<Duration> {
        Some(self.lock().sampled?.elapsed())
    }

    pub(crate) fn set_first_identity(&self, identity: Option<String>) {
        self.lock().first_identity = identity;
    }

    pub(crate) fn is(&self, identity: &str) -> bool {
        let state = self.lock();
        let known = state.known.as_ref().map_or(&state.first_identity, |known| &known.sample.identity);
        known.as_deref() == Some(identity)
    }

    /// It has become a primary by what others gave it, which still are primaries, or not (none).
    pub(crate) fn set_given_epoch(&self, epoch: Option<String>) {
        self.lock().given_epoch = epoch;
    }

    pub(crate) fn given_epoch(&self) -> Option<String> {
        self.lock().given_epoch.clone()
    }

    pub(crate) fn sampled_since(&self, time: Instant) -> bool {
        self.lock().sampled.is_some_and(|sampled| sampled >= time)
    }

    pub(crate) fn connections_lost(&self) -> u64 {
        self.connections_lost.load(Ordering::Relaxed)
    }

    /// Keeps what was found out, and says which tenure of the server its connections belong to: a new one if it is
    /// another than before, or its data.
    pub(crate) fn learn(&self, known: Known, is_new_epoch: bool) -> u64 {
        let mut state = self.lock();
        if is_new_epoch && state.known.is_some() {
            state.epoch += 1;
        }
        state.known = Some(known);
        state.sampled = Some(Instant::now());
        state.epoch
    }

    /// It was found to be a replica: when it is a primary again, it may have other data. None of its connections is
    /// used before it is sampled again.
    pub(crate) fn distrust(&self) {
        self.lock().epoch += 1;
    }

    /// How long nobody has used it.
    pub(crate) fn idle(&self) -> Duration {
        self.lock().used.elapsed()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where the answer to ROLE stands in the setup.
const ROLE: usize = 1;

fn is_replica(role: &Value) -> bool {
    let Value::Array(role) = role else { return false };
    matches!(role.first(), Some(Value::BulkString(role)) if role == b"slave")
}

impl Lane {
    fn lock(&self) -> MutexGuard<'_, Option<Arc<Link>>> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Link {
    /// One round trip, when it is this one's turn.
    pub(crate) async fn exchange(&self, pipeline: &Pipeline) -> Result<Vec<Value>, String> {
        let _permit = self.permit().await?;
        let began = Instant::now();
        let answers = self.connection.exchange(pipeline).await;
        self.round_trips.ended(pipeline.len(), began.elapsed(), answers.is_ok());
        answers
    }

    /// One round trip of one command.
    pub(crate) async fn ask(&self, command: &redis::Cmd) -> Result<Value, String> {
        let _permit = self.permit().await?;
        let began = Instant::now();
        let answer = self.connection.ask(command).await;
        self.round_trips.ended(1, began.elapsed(), answer.is_ok());
        answer
    }

    async fn permit(&self) -> Result<SemaphorePermit<'_>, String> {
        self.permits.acquire().await.map_err(|_| "the connection is closed".to_owned())
    }
}
