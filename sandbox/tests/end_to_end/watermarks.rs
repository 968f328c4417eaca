//! The watermark of a region is a promise: every change made before it is in the region's cache. It is kept at every
//! moment, also while any part of the way stands still; then the watermark stands still, too, and goes on afterwards.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use warmcast_sandbox::daemon::{Daemon, DaemonTiming, WorkerTiming};
use warmcast_sandbox::entry::{self, Entry, now_ms};
use warmcast_sandbox::world::{World, WorldOptions};

use crate::support::*;

/// The aggregator's heartbeats to the region. The cache-writer publishes once a second.
const HEARTBEAT_MS: u64 = 250;
/// A watermark that has not moved for so long stands still: it moves once a second when all is well.
const STILL: Duration = Duration::from_millis(2_200);
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// A Redis that does not answer by then is stopped.
const ANSWER_PATIENCE: Duration = Duration::from_millis(500);

fn options(kinesis_shards: i32) -> WorldOptions {
    let worker = WorkerTiming {
        // No lease is to be lost while a worker is stopped here.
        lease_duration_ms: Some(60_000),
        heartbeat_interval_ms: Some(200),
        idle_poll_max_ms: Some(100),
        ..WorkerTiming::of_a_short_life()
    };
    let timing = DaemonTiming { worker, watermark_interval_ms: Some(HEARTBEAT_MS) };
    WorldOptions { regions: 1, kinesis_shards, timing, relays: true, ..WorldOptions::default() }
}

/// What the cache is held against: rows that were written, and when DynamoDB had acknowledged them.
struct Audit {
    written: usize,
    /// Written, and not yet seen in the cache.
    pending: Vec<(String, u64)>,
}

/// What a look showed. Without an answer there is no watermark to believe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    NoAnswer,
    Watermark(Option<u64>),
}

impl Look {
    fn watermark_ms(self) -> Option<u64> {
        match self {
            Self::NoAnswer => None,
            Self::Watermark(watermark_ms) => watermark_ms,
        }
    }
}

impl Audit {
    fn new() -> Self {
        Self { written: 0, pending: Vec::new() }
    }

    /// Writes a row, and returns the moment from which on it is there.
    async fn write(&mut self, world: &World) -> u64 {
        self.written += 1;
        let key = format!("row-{}", self.written);
        put(world, TABLE, Default::default(), &key).await;
        let acknowledged_ms = now_ms();
        self.pending.push((key, acknowledged_ms));
        acknowledged_ms
    }

    /// Reads the watermark, then the rows that it says are there: they must be.
    async fn look(&mut self, world: &World) -> Look {
        let asked = timeout(ANSWER_PATIENCE, async {
            let mut redis = world.regions()[0].redis().connect().await?;
            let watermark_ms = entry::watermark_ms(&mut redis).await?;
            let keys: Vec<Vec<u8>> =
                self.pending.iter().map(|(key, _)| entry::redis_key(TABLE, key)).collect();
            let entries =
                if keys.is_empty() { Vec::new() } else { entry::get_many(&mut redis, &keys).await? };
            redis::RedisResult::Ok((watermark_ms, entries))
        })
        .await;
        let Ok(Ok((watermark_ms, entries))) = asked else { return Look::NoAnswer };
        for ((key, acknowledged_ms), entry) in self.pending.iter().zip(&entries) {
            let promised = watermark_ms.is_some_and(|watermark_ms| watermark_ms > *acknowledged_ms);
            assert!(
                is_live(entry) || !promised,
                "{key}, acknowledged at {acknowledged_ms}, is not there at the watermark {watermark_ms:?}: \
                 {entry:?}\n{}",
                world.tails()
            );
        }
        let mut entries = entries.iter();
        self.pending.retain(|_| !entries.next().is_some_and(is_live));
        Look::Watermark(watermark_ms)
    }

    /// Goes on writing and looking until the watermark is later than `ms`.
    async fn until_past(&mut self, world: &World, ms: u64) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let look = self.look(world).await;
            if look.watermark_ms().is_some_and(|watermark_ms| watermark_ms > ms) {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "the watermark does not pass {ms}: {look:?}\n{}",
                world.tails()
            );
            self.write(world).await;
            sleep(LOOK_INTERVAL).await;
        }
    }

    /// Goes on writing and looking until the watermark has stood for a while, or has not been there.
    async fn until_still(&mut self, world: &World, what: &str) -> Look {
        let deadline = Instant::now() + PATIENCE;
        let mut last = self.look(world).await;
        let mut since = Instant::now();
        while since.elapsed() < STILL {
            assert!(Instant::now() < deadline, "the watermark goes on without {what}: {last:?}");
            self.write(world).await;
            sleep(LOOK_INTERVAL).await;
            let look = self.look(world).await;
            if look != last {
                (last, since) = (look, Instant::now());
            }
        }
        last
    }
}

/// A part of the way.
#[derive(Clone, Copy, Debug)]
enum Part {
    Aggregator,
    Streams,
    Puts,
    Kinesis,
    Reads,
    CacheWriter,
    Redis,
}

impl Part {
    fn stop(self, world: &World) {
        let region = &world.regions()[0];
        let relays = region.relays().unwrap();
        match self {
            Self::Aggregator => world.aggregator().freeze().unwrap(),
            Self::Streams => world.streams_relay().unwrap().close(),
            Self::Puts => relays.puts.close(),
            Self::Kinesis => relays.close(),
            Self::Reads => relays.reads.close(),
            Self::CacheWriter => region.cache_writer().freeze().unwrap(),
            Self::Redis => region.redis().freeze().unwrap(),
        }
    }

    fn resume(self, world: &World) {
        let region = &world.regions()[0];
        let relays = region.relays().unwrap();
        match self {
            Self::Aggregator => world.aggregator().thaw().unwrap(),
            Self::Streams => world.streams_relay().unwrap().open(),
            Self::Puts => relays.puts.open(),
            Self::Kinesis => relays.open(),
            Self::Reads => relays.reads.open(),
            Self::CacheWriter => region.cache_writer().thaw().unwrap(),
            Self::Redis => region.redis().thaw().unwrap(),
        }
    }
}

/// Stops each part in turn.
async fn stop_in_turn(parts: &[Part]) {
    let world = World::start(&options(2)).await.unwrap_or_else(|error| panic!("{error}"));
    let mut audit = Audit::new();
    for part in parts {
        audit.until_past(&world, now_ms()).await;
        part.stop(&world);
        // Whatever was on its way has come through when the watermark stands; what is written later has not.
        let missing = audit.write(&world).await;
        let still = audit.until_still(&world, &format!("{part:?}")).await;
        match part {
            Part::Redis => assert_eq!(still, Look::NoAnswer),
            _ => assert!(still.watermark_ms().is_some_and(|ms| ms <= missing), "{part:?}: {still:?}"),
        }
        assert!(!audit.pending.is_empty(), "{part:?} is in nobody's way");
        part.resume(&world);
        let last = audit.write(&world).await;
        audit.until_past(&world, last).await;
        println!("{part:?}: the watermark stood at {still:?} and went on, {} rows so far", audit.written);
    }
    stop(world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_watermark_stands_while_a_part_before_the_stream_is_stopped() {
    stop_in_turn(&[Part::Aggregator, Part::Streams, Part::Puts]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_watermark_stands_while_a_part_behind_the_stream_is_stopped() {
    stop_in_turn(&[Part::Kinesis, Part::Reads, Part::CacheWriter, Part::Redis]).await;
}

/// The workers that have a lease, each as often as it has one.
async fn owners(world: &World, state_table: &str) -> Vec<String> {
    let scan = world.dynamodb().scan().table_name(state_table).consistent_read(true).send().await.unwrap();
    let mut owners = Vec::new();
    for item in scan.items() {
        let field = |name: &str| item.get(name).and_then(|value| value.as_s().ok()).cloned();
        if field("sk").is_some_and(|sort| sort.starts_with("shard#")) {
            owners.extend(field("owner"));
        }
    }
    owners.sort();
    owners
}

/// Freezes one of two cache-writers: its shard stands, the other one's goes on.
async fn freeze_one(world: &World, audit: &mut Audit, stopped: &Daemon) {
    audit.until_past(world, now_ms()).await;
    stopped.freeze().unwrap();
    let missing = audit.write(world).await;
    let still = audit.until_still(world, stopped.name()).await;
    assert!(still.watermark_ms().is_some_and(|ms| ms <= missing), "{}: {still:?}", stopped.name());
    let waiting = audit.pending.len();
    assert!(waiting > 0, "{} has no shard", stopped.name());
    stopped.thaw().unwrap();
    let last = audit.write(world).await;
    audit.until_past(world, last).await;
    println!("{}: {waiting} rows waited for it, at the watermark {still:?}", stopped.name());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_watermark_stands_while_a_single_shard_does() {
    let world = World::start(&options(2)).await.unwrap_or_else(|error| panic!("{error}"));
    let mut second = world.regions()[0].another_cache_writer(2, world.directory()).unwrap();
    second.start().unwrap();
    let first = world.regions()[0].cache_writer();
    let shared = [first.name().to_owned(), second.name().to_owned()];
    eventually("each cache-writer has a shard", || async {
        (owners(&world, first.state_table()).await == shared).then_some(())
    })
    .await;
    let mut audit = Audit::new();
    // One of them publishes the watermark; the other one's shard must hold it back all the same.
    freeze_one(&world, &mut audit, &second).await;
    freeze_one(&world, &mut audit, first).await;
    second.terminate().await.unwrap();
    stop(world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_aggregator_there_is_no_watermark() {
    // All that could make one up is there: the stream, its records, the cache-writer.
    let mut world = World::start(&options(1)).await.unwrap_or_else(|error| panic!("{error}"));
    world.aggregator_mut().kill().await.unwrap();
    let mut audit = Audit::new();
    audit.until_still(&world, "the aggregator").await;
    world.regions()[0].redis().flush().await.unwrap();
    // Afterwards the cache-writer may publish what it had; it must not be later than that.
    let still = audit.until_still(&world, "the aggregator, in an empty cache").await;
    let first = audit.pending.first().map(|(_, acknowledged_ms)| *acknowledged_ms);
    assert!(still.watermark_ms() <= first, "{still:?}");
    assert!(audit.written > 0 && audit.pending.len() == audit.written, "a row came through");
    wait_for_entry(&world, 0, (TABLE, "row-1"), |entry| *entry == Entry::Absent).await;
    stop(world).await;
}
