//! A proxy before one region's Kinesis, in which faults are switched while it runs.
//!
//! It stands between an aggregator and the server, at the level of HTTP, so that what goes wrong looks as it does
//! with the service: calls that hang, answers that are lost after the server has taken the records, entries of one
//! call that are throttled while the others land. It also counts what passes, second by second: what was sent again,
//! how many bytes an update costs on the wire.
//!
//! The modules in the order of a request: which faults there are and which of them a request meets, what a PutRecords
//! call says, which shard its entries are for, what that shard takes, what is counted, and the connections.

mod plan;
pub(crate) mod put_records;
mod shard_map;
mod capacity;
mod traffic;
mod server;
mod connection;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

pub use capacity::Capacity;
pub use plan::{CallError, CallErrors, Faults, Latency, Loss};
pub use traffic::Second;

use capacity::Buckets;
use server::Place;
use shard_map::ShardMap;
use traffic::Traffic;

/// A running proxy. Dropping it ends its connections.
#[derive(Debug)]
pub struct FaultProxy {
    url: String,
    shared: Arc<Shared>,
    faults: watch::Sender<Faults>,
    /// How often all connections were cut.
    cuts: watch::Sender<u64>,
    _task: JoinSet<()>,
}

/// What every connection has.
struct Shared {
    upstream: String,
    faults: watch::Receiver<Faults>,
    dice: Mutex<StdRng>,
    shards: ShardMap,
    buckets: Mutex<Buckets>,
    traffic: Mutex<Traffic>,
    started: Instant,
}

impl fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Shared").field("upstream", &self.upstream).finish_non_exhaustive()
    }
}

impl FaultProxy {
    /// Starts a proxy without faults before the Kinesis at `upstream`, which is `http://` and a host with its port.
    /// What is random is drawn from `seed`.
    ///
    /// # Errors
    /// No port could be bound.
    pub async fn start(upstream: &str, seed: u64) -> io::Result<Self> {
        let place = Place::take()?;
        let listener: TcpListener = place.listen()?;
        let (faults, watched) = watch::channel(Faults::default());
        let shared = Arc::new(Shared {
            upstream: upstream.trim_start_matches("http://").trim_end_matches('/').to_owned(),
            faults: watched,
            dice: Mutex::new(StdRng::seed_from_u64(seed)),
            shards: ShardMap::new(upstream),
            buckets: Mutex::default(),
            traffic: Mutex::default(),
            started: Instant::now(),
        });
        let url = format!("http://{}", place.address());
        let cuts = watch::Sender::new(0);
        let mut task = JoinSet::new();
        task.spawn(server::serve(place, listener, Arc::clone(&shared), cuts.subscribe()));
        Ok(Self { url, shared, faults, cuts, _task: task })
    }

    /// Where it listens, for clients of the server.
    #[must_use]
    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// From now on requests meet these faults and no others. Requests that hang in a black hole stay there.
    pub fn set(&self, faults: Faults) {
        self.faults.send_replace(faults);
    }

    /// From now on everything passes.
    pub fn clear(&self) {
        self.set(Faults::default());
    }

    /// Ends every connection, those of requests that hang included. New ones are accepted at once.
    pub fn cut_connections(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// What came in each second since the proxy was started, the present one last. Only some hours are kept; what was
    /// before is added to the first.
    #[must_use]
    pub fn seconds(&self) -> Vec<Second> {
        self.shared.traffic.lock().seconds(self.shared.started.elapsed())
    }

    /// What came since the proxy was started.
    #[must_use]
    pub fn total(&self) -> Second {
        self.shared.traffic.lock().total()
    }
}

impl Shared {
    fn count(&self, what: impl FnOnce(&mut Second)) {
        what(self.traffic.lock().at(self.started.elapsed()));
    }
}
