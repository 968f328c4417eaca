//! What the first level gives on one core: rows from the process' own memory, asked for by a single thread.
//!
//! The thread has a runtime of its own, and the time is what it spent on a CPU, so that the figure is a core's whatever
//! else the machine does.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;
use warmcast_cache::reader::{FirstLevelConfig, Reader, ReaderConfig};

use super::clients::{self, CacheReader};
use super::profiles::{Call, KEYS_PER_CALL, Profiles, TABLE};
use super::{BenchError, ReaderBenchOptions};
use crate::redis_server::RedisServer;
use crate::report::Report;
use crate::usage;

/// Calls whose keys are asked for again and again.
const CALLS: usize = 16;
/// Passes over them before it is measured: a key is kept when it was read several times.
const WARM_PASSES: usize = 16;
/// The first level forgets how often a key was read when another key takes its place in what it counts by; so a few
/// keys of many are never kept. Only what came from the first level is counted; this share of it at least, or it is not
/// the first level that was measured.
const HITS_SHARE_MIN: f64 = 0.9;
/// The longest that rows may stay in a first level.
const TTL: Duration = Duration::from_secs(60);
/// Both measurements together end before the first row expires.
const ROUND_MAX: Duration = Duration::from_secs(20);
const BYTES_MAX: u64 = 64 << 20;

/// Hits a second of CPU time, one key a call and many.
struct Hits {
    single: f64,
    many: f64,
}

pub(super) async fn measure(
    options: &ReaderBenchOptions,
    server: &RedisServer,
    profiles: &Profiles,
    report: &mut Report,
) -> Result<(), BenchError> {
    report.scenario("first level, one thread")?;
    let (mut single, mut many) = (Vec::new(), Vec::new());
    for _ in 0..options.runs {
        let mut config = CacheReader::config(server)?;
        config.first_level = Some(FirstLevelConfig { bytes_max: BYTES_MAX, ttl: TTL });
        let (profiles, round) = (profiles.clone(), options.round.min(ROUND_MAX));
        let mut thread = JoinSet::new();
        thread.spawn_blocking(move || on_one_thread(config, &profiles, round));
        let Some(hits) = thread.join_next().await else { continue };
        let hits = hits??;
        single.push(hits.single);
        many.push(hits.many);
    }
    report.figure("hits, one profile a call", "/s of CPU", single, None)?;
    report.figure(&format!("hits, {KEYS_PER_CALL} profiles a call"), "/s of CPU", many, None)?;
    Ok(())
}

fn on_one_thread(config: ReaderConfig, profiles: &Profiles, round: Duration) -> Result<Hits, BenchError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let reader = Reader::connect(config).await?;
        let calls: Vec<&Call> = profiles.calls_of(0).take(CALLS).collect();
        warm(&reader, &calls, profiles.payload_bytes()).await?;
        let single = hits_per_second(&reader, &calls, round, Width::One).await?;
        let many = hits_per_second(&reader, &calls, round, Width::Many).await?;
        Ok(Hits { single, many })
    })
}

async fn warm(reader: &Reader, calls: &[&Call], payload_bytes: usize) -> Result<(), BenchError> {
    for _ in 0..WARM_PASSES {
        for call in calls {
            clients::check(&reader.get_many(TABLE, &call.item_keys).await?, payload_bytes)?;
        }
    }
    Ok(())
}

#[derive(Clone, Copy)]
enum Width {
    One,
    Many,
}

async fn hits_per_second(
    reader: &Reader,
    calls: &[&Call],
    round: Duration,
    width: Width,
) -> Result<f64, BenchError> {
    let (hits_before, cpu_before) = (reader.stats().first_level_hits, usage::thread_cpu());
    let end = Instant::now() + round;
    let mut asked = 0_u64;
    while Instant::now() < end {
        for call in calls {
            match width {
                Width::One => {
                    for key in &call.item_keys {
                        reader.get(TABLE, key).await?;
                    }
                }
                Width::Many => drop(reader.get_many(TABLE, &call.item_keys).await?),
            }
            asked += call.item_keys.len() as u64;
        }
        // The reader's own tasks, the watermark's among them, live on this thread, too.
        tokio::task::yield_now().await;
    }
    let hits = reader.stats().first_level_hits.saturating_sub(hits_before);
    if (hits as f64) < HITS_SHARE_MIN * asked as f64 {
        let what = format!("{hits} of {asked} came from the first level");
        return Err(BenchError::Wrong { who: "the first level", what });
    }
    let cpu = usage::thread_cpu().zip(cpu_before).map(|(after, before)| after.saturating_sub(before));
    Ok(cpu.map_or(f64::NAN, |cpu| hits as f64 / cpu.as_secs_f64()))
}
