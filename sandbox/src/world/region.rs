//! One target region: its Kinesis, its Redis, and its cache-writer.

use std::io;
use std::path::Path;

use crate::daemon::{CacheWriterPlan, Daemon, DaemonError, Endpoint, STREAM};
use crate::faults::FaultProxy;
use crate::kinesis::Kinesis;
use crate::process::ProcessError;
use crate::redis_server::RedisServer;
use crate::relay::Relay;

use super::{WorldError, WorldOptions};

/// Every run with the same faults has the same dice.
const FAULTS_SEED: u64 = 1;

/// One target region.
#[derive(Debug)]
pub struct Region {
    pub(super) cache_writer: Daemon,
    plan: CacheWriterPlan,
    faults: Option<FaultProxy>,
    relays: Option<KinesisRelays>,
    pub(super) redis: RedisServer,
    pub(super) kinesis: Kinesis,
    name: String,
}

/// The relays before a region's Kinesis: one on the way in, one on the way out.
#[derive(Debug)]
pub struct KinesisRelays {
    /// Between the aggregator and the Kinesis.
    pub puts: Relay,
    /// Between the Kinesis and the cache-writers.
    pub reads: Relay,
}

impl KinesisRelays {
    async fn start(url: &str) -> io::Result<Self> {
        Ok(Self { puts: Relay::start(url).await?, reads: Relay::start(url).await? })
    }

    /// The Kinesis hangs for everybody.
    pub fn close(&self) {
        self.puts.close();
        self.reads.close();
    }

    /// It goes on.
    pub fn open(&self) {
        self.puts.open();
        self.reads.open();
    }
}

impl Region {
    pub(crate) async fn start(
        name: &str,
        options: &WorldOptions,
        master: &Endpoint,
        directory: &Path,
    ) -> Result<Self, WorldError> {
        let kinesis = Kinesis::start(name).await?;
        kinesis.create_stream(STREAM, options.kinesis_shards).await?;
        let relays = if options.relays { Some(KinesisRelays::start(&kinesis.url()).await?) } else { None };
        let puts = relays.as_ref().map_or_else(|| kinesis.url(), |relays| relays.puts.url());
        let faults =
            if options.fault_proxies { Some(FaultProxy::start(&puts, FAULTS_SEED).await?) } else { None };
        let redis = RedisServer::start(name, directory).await?;
        let reads = relays.as_ref().map_or_else(|| kinesis.url(), |relays| relays.reads.url());
        let plan = CacheWriterPlan {
            number: 1,
            kinesis: Endpoint::new(name, &reads),
            dynamodb: master.clone(),
            redis_url: redis.url(),
            timing: options.timing.worker,
        };
        let cache_writer = Daemon::cache_writer(directory, plan.clone())?;
        Ok(Self { cache_writer, plan, faults, relays, redis, kinesis, name: name.to_owned() })
    }

    /// Where the aggregator puts.
    pub(crate) fn put_endpoint(&self) -> Endpoint {
        let behind = || self.relays.as_ref().map_or_else(|| self.kinesis.url(), |relays| relays.puts.url());
        Endpoint::new(&self.name, &self.faults.as_ref().map_or_else(behind, FaultProxy::url))
    }

    /// One more cache-writer of this region's fleet, not started. Its files go to `directory`.
    ///
    /// # Errors
    /// Its files cannot be written.
    pub fn another_cache_writer(&self, number: u32, directory: &Path) -> Result<Daemon, DaemonError> {
        Daemon::cache_writer(directory, CacheWriterPlan { number, ..self.plan.clone() })
    }

    /// The relays before its Kinesis, if relays were asked for.
    #[must_use]
    pub fn relays(&self) -> Option<&KinesisRelays> {
        self.relays.as_ref()
    }

    /// The proxy between the aggregator and its Kinesis, if proxies were asked for.
    #[must_use]
    pub fn faults(&self) -> Option<&FaultProxy> {
        self.faults.as_ref()
    }

    pub(crate) fn ended(&mut self) -> Option<String> {
        if let Some(status) = self.cache_writer.exit_status() {
            return Some(format!("the {} ended with {status}", self.cache_writer.name()));
        }
        let status = self.redis.exit_status()?;
        Some(format!("the Redis of {} ended with {status}", self.name))
    }

    /// The region's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its Kinesis.
    #[must_use]
    pub fn kinesis(&self) -> &Kinesis {
        &self.kinesis
    }

    /// Its Redis.
    #[must_use]
    pub fn redis(&self) -> &RedisServer {
        &self.redis
    }

    /// Its Redis, to do something to it.
    pub fn redis_mut(&mut self) -> &mut RedisServer {
        &mut self.redis
    }

    /// Its cache-writer.
    #[must_use]
    pub fn cache_writer(&self) -> &Daemon {
        &self.cache_writer
    }

    /// Its cache-writer, to do something to it.
    pub fn cache_writer_mut(&mut self) -> &mut Daemon {
        &mut self.cache_writer
    }

    /// Stops its cache-writer, then its servers.
    ///
    /// # Errors
    /// A child process cannot be signalled. The rest is stopped nevertheless.
    pub(crate) async fn stop(mut self) -> Result<(), ProcessError> {
        let stopped = self.cache_writer.terminate().await.map(drop);
        self.kinesis.stop().await;
        stopped.and(self.redis.stop().await)
    }
}
