//! Fleets on bad days, drawn from a seed: shards that split, merge and roll over, listings that lack some, reads that
//! are throttled or fail, a state table that is slow, throttled or out of reach, records that are lost downstream, and
//! processes that die, stop, are suspended for longer than their lease, or run twice under one name.
//!
//! The [`Journal`](super::journal::Journal) watches all the while that nothing is skipped, that no child is read before
//! its parents' ends, that a lease has one writer in each epoch and its checkpoint never goes back, that what is
//! finished stays so, and that whatever was created before a watermark that is told is done. When the troubles are over everything must be read within a bound, and go on quietly.
//!
//! The seed decides the troubles, not the threads: a run that failed need not fail again, so it shows what happened.
//! `WARMCAST_SEED` sets the seed of the only run then; `WARMCAST_SEEDS` how many runs draw their own, otherwise one.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use warmcast_common::clock::now_ms;
use warmcast_common::consumer::WorkerConfig;

use super::process::{Process, Suspended};
use super::view::Odds;
use super::wire::Weather;
use super::world::{World, mortal, names};

const WORKERS: [&str; 4] = ["w1", "w2", "w3", "w4"];
const TROUBLE: Duration = Duration::from_secs(7);
/// Shards live longer than any process is suspended: hours, and a few seconds at most.
const SHARD_LIFE_MIN: Duration = Duration::from_millis(1_500);
const STEP_MS_MAX: u64 = 120;
const RUNS_AT_ONCE: usize = 3;
/// The stream has about so many shards that go on.
const OPEN_SHARDS: std::ops::RangeInclusive<usize> = 3..=10;

struct Simulation {
    world: World,
    random: fastrand::Rng,
    /// By worker.
    fleet: Vec<Option<Process>>,
    suspended: Vec<Nap>,
    /// Processes that were told to stop, or whose name another has now.
    leaving: Vec<Process>,
    /// Shards that listings do not show before then.
    late: Vec<(Instant, String)>,
    /// When each shard, by its number, came.
    born: Vec<Instant>,
}

/// A process that is suspended until then.
struct Nap {
    worker: usize,
    until: Instant,
    _suspended: Suspended,
}

fn config() -> WorkerConfig {
    WorkerConfig {
        lease_duration: Duration::from_millis(500),
        listing_interval: Duration::from_millis(200),
        stuck_after: Duration::from_secs(2),
        move_interval: Duration::from_millis(500),
        ..mortal()
    }
}

impl Simulation {
    async fn new(seed: u64) -> Self {
        let world = World::seeded(seed).await;
        world.journal.note(format!("seed {seed}"));
        for shard in names(5) {
            world.shard(&shard, &[]);
        }
        let random = fastrand::Rng::with_seed(seed);
        let mut simulation = Self {
            world,
            random,
            fleet: WORKERS.iter().map(|_| None).collect(),
            suspended: Vec::new(),
            leaving: Vec::new(),
            late: Vec::new(),
            born: vec![Instant::now(); 5],
        };
        for worker in 0..3 {
            simulation.start(worker).await;
        }
        simulation.world.assert_all_read().await;
        simulation
    }

    async fn start(&mut self, worker: usize) {
        self.fleet[worker] = Some(self.world.start(WORKERS[worker], config()).await);
    }

    /// One thing after the other goes wrong, or comes right.
    async fn trouble(&mut self) {
        let end = Instant::now() + TROUBLE;
        while Instant::now() < end {
            self.write();
            match self.random.u8(0..20) {
                0..=2 => self.split(),
                3..=4 => self.merge(),
                5 => self.roll_over(),
                6..=8 => self.change_weather(),
                9..=10 => self.change_source(),
                11 => self.change_downstream(),
                12 => self.kill().await,
                13 => self.stop(),
                14..=15 => self.suspend().await,
                _ => self.start_one().await,
            }
            self.resume(Instant::now());
            self.reveal(Instant::now());
            self.leaving.retain(|process| !process.has_ended());
            sleep(Duration::from_millis(self.random.u64(0..STEP_MS_MAX))).await;
        }
    }

    /// Records come into some of the shards.
    fn write(&mut self) {
        for shard in self.world.journal.open() {
            if self.random.bool() {
                self.world.put(&shard, self.random.u64(1..=15));
            }
        }
    }

    /// Shards that may be closed: the service shows a shard before.
    fn open(&self) -> Vec<String> {
        let mut open = self.world.journal.open();
        open.retain(|shard| self.late.iter().all(|(_, late)| late != shard));
        let of_age: Vec<bool> = self.born.iter().map(|born| born.elapsed() >= SHARD_LIFE_MIN).collect();
        let names = names(of_age.len());
        open.retain(|shard| names.iter().position(|name| name == shard).is_some_and(|number| of_age[number]));
        open
    }

    fn split(&mut self) {
        let open = self.open();
        if self.world.journal.open().len() < *OPEN_SHARDS.end()
            && let Some(parent) = self.random.choice(open)
        {
            self.replace(&[&parent], 2);
        }
    }

    fn merge(&mut self) {
        let mut open = self.open();
        self.random.shuffle(&mut open);
        if open.len() > 1 && self.world.journal.open().len() > *OPEN_SHARDS.start() {
            self.replace(&[&open[0], &open[1]], 1);
        }
    }

    fn roll_over(&mut self) {
        if let Some(parent) = self.random.choice(self.open()) {
            self.replace(&[&parent], 1);
        }
    }

    /// Children take over from their parents. Some show late, and some only in listings.
    fn replace(&mut self, parents: &[&str], children: usize) {
        for _ in 0..children {
            let child = format!("s{:02}", self.born.len());
            self.born.push(Instant::now());
            self.world.shard(&child, parents);
            if self.random.bool() {
                let asked = if self.random.bool() { usize::MAX } else { self.random.usize(0..5) };
                self.world.script.with(&child, |shard| (shard.unlisted, shard.late) = (true, asked));
                let shown = Instant::now() + Duration::from_millis(self.random.u64(0..1_000));
                self.late.push((shown, child));
            }
        }
        parents.iter().for_each(|parent| self.world.close(parent));
    }

    /// Lets listings show what is due.
    fn reveal(&mut self, now: Instant) {
        self.late.retain(|(at, shard)| {
            if *at <= now {
                self.world.script.with(shard, |shard| shard.unlisted = false);
            }
            *at > now
        });
    }

    /// The way of one process to the state table changes.
    fn change_weather(&mut self) {
        let weather = match self.random.u8(0..5) {
            0 => Weather::OUTAGE,
            1 => Weather { throttled: 0.4, ..Weather::default() },
            2 => Weather { late: 0.5, late_ms_max: 400, ..Weather::default() },
            3 => Weather { lost: 0.1, answer_lost: 0.1, throttled: 0.1, late: 0.2, late_ms_max: 100 },
            _ => Weather::default(),
        };
        let everywhere = self.random.u8(0..4) == 0;
        let one = self.random.usize(0..WORKERS.len());
        for (worker, process) in self.fleet.iter().enumerate() {
            if let Some(process) = process
                && (everywhere || worker == one)
            {
                self.world.journal.note(format!("{} has {weather:?}", WORKERS[worker]));
                process.wire.weather(weather);
            }
        }
    }

    fn change_source(&mut self) {
        let odds = match self.random.u8(0..3) {
            0 => Odds { throttled: 0.3, failed: 0.1, expired: 0.1, hidden: 0.3 },
            1 => Odds { hidden: 0.5, ..Odds::default() },
            _ => Odds::default(),
        };
        self.world.journal.note(format!("the source has {odds:?}"));
        self.world.trouble.odds(odds);
    }

    fn change_downstream(&mut self) {
        let (lost, slow) = if self.random.bool() { (0.02, 0.3) } else { (0.0, 0.0) };
        self.world.journal.note(format!("downstream loses {lost}, is slow {slow}"));
        self.world.downstream.trouble(lost, slow);
    }

    fn is_suspended(&self, worker: usize) -> bool {
        self.suspended.iter().any(|nap| nap.worker == worker)
    }

    /// One that runs, unless it is the only one.
    fn take_one(&mut self) -> Option<(usize, Process)> {
        let running: Vec<usize> = (0..WORKERS.len())
            .filter(|worker| self.fleet[*worker].is_some() && !self.is_suspended(*worker))
            .collect();
        if running.len() == 1 {
            return None;
        }
        let worker = self.random.choice(running)?;
        Some((worker, self.fleet[worker].take()?))
    }

    async fn kill(&mut self) {
        if let Some((worker, process)) = self.take_one() {
            self.world.journal.note(format!("{} dies", WORKERS[worker]));
            process.kill().await;
        }
    }

    fn stop(&mut self) {
        if let Some((worker, process)) = self.take_one() {
            self.world.journal.note(format!("{} is told to stop", WORKERS[worker]));
            process.ask_to_stop();
            self.leaving.push(process);
        }
    }

    /// Sometimes another process is started under its name meanwhile.
    async fn suspend(&mut self) {
        let Some((worker, process)) = self.take_one() else { return };
        let lease_ms = u64::try_from(config().lease_duration.as_millis()).unwrap_or(u64::MAX);
        let nap_ms = self.random.u64(lease_ms / 2..2 * lease_ms);
        self.world.journal.note(format!("{} is suspended for {nap_ms} ms", WORKERS[worker]));
        let until = Instant::now() + Duration::from_millis(nap_ms);
        self.suspended.push(Nap { worker, until, _suspended: process.suspend() });
        if self.random.u8(0..3) == 0 {
            self.leaving.push(process);
            self.start(worker).await;
        } else {
            self.fleet[worker] = Some(process);
        }
    }

    fn resume(&mut self, now: Instant) {
        self.suspended.retain(|nap| nap.until > now);
    }

    async fn start_one(&mut self) {
        let absent: Vec<usize> = (0..WORKERS.len()).filter(|worker| self.fleet[*worker].is_none()).collect();
        if let Some(worker) = self.random.choice(absent) {
            self.start(worker).await;
        }
    }

    /// The troubles are over.
    async fn calm(&mut self) {
        self.world.journal.note("all is calm".to_owned());
        self.suspended.clear();
        self.reveal(Instant::now() + Duration::from_secs(3_600));
        self.world.trouble.odds(Odds::default());
        self.world.downstream.trouble(0.0, 0.0);
        for process in self.fleet.iter().flatten().chain(&self.leaving) {
            process.wire.weather(Weather::default());
        }
        // One that was announced late may have taken its name back from the one that was started in its place.
        self.leaving.iter().for_each(Process::ask_to_stop);
        // A process whose name another took has ended by itself.
        for worker in 0..WORKERS.len() {
            if self.fleet[worker].as_ref().is_none_or(Process::has_ended) {
                self.start(worker).await;
            }
        }
    }

    async fn check(mut self) {
        let world = &self.world;
        world.assert_all_read().await;
        world.until("those who leave have left", async || self.leaving.iter().all(Process::has_ended)).await;
        world
            .until("every shard that goes on has an owner and all other leases are gone", async || {
                let leases = world.leases().await;
                let mut names: Vec<String> = leases.iter().map(|lease| lease.shard.to_string()).collect();
                names.sort();
                names == world.journal.open() && leases.iter().all(|lease| lease.owner.is_some())
            })
            .await;
        world.assert_all_read().await;
        world.until_watermark_passes(now_ms()).await;
        for process in self.fleet.drain(..).flatten() {
            process.stop().await;
        }
        assert!(world.table.store.heartbeats().await.expect("heartbeats can be read").is_empty());
        // Nobody who comes later begins anew with what is finished. What one that stopped handed to another that
        // stopped as well is free after a lease's time.
        let last = world.start("w9", config()).await;
        world.assert_all_read().await;
        world.until_watermark_passes(now_ms()).await;
        last.stop().await;
        world.journal.assert_sound();
    }
}

async fn run(seed: u64) {
    let mut simulation = Box::pin(Simulation::new(seed)).await;
    Box::pin(simulation.trouble()).await;
    simulation.world.journal.assert_sound();
    Box::pin(simulation.calm()).await;
    Box::pin(simulation.check()).await;
}

/// The seeds of the runs: some that are always the same, and others.
fn seeds() -> Vec<u64> {
    let number = |name| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
    let given: Option<u64> = number("WARMCAST_SEED");
    let drawn: u64 = number("WARMCAST_SEEDS").unwrap_or(1);
    let drawn = (0..drawn).map(|_| fastrand::u64(..));
    match given {
        Some(seed) => vec![seed],
        None => [1, 2].into_iter().chain(drawn).collect(),
    }
}

/// A run waits most of the time, so that some go on at once.
#[test]
fn fleets_survive_bad_days() {
    for seeds in seeds().chunks(RUNS_AT_ONCE) {
        std::thread::scope(|scope| {
            for seed in seeds {
                scope.spawn(|| {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                    runtime.expect("a runtime").block_on(run(*seed));
                });
            }
        });
    }
}
