//! Benchmarks of single parts: [`bytes`](mod@bytes) on the wire, and the Reader.
//!
//! `sandbox bench reader`: the [`Reader`](warmcast_cache::reader::Reader) beside a plain `redis` client, on one server
//! in one run.
//!
//! Both look up the same 32 profiles a call, in turns of some seconds, first the one and then the other, so that what
//! the machine does meanwhile meets both alike. The plain client is given the Redis keys as they are and hands back
//! 32 byte strings; the Reader makes the keys, checks every header and judges staleness, and hands back 32 rows. The
//! figures are medians over the runs. What the first level gives, by a single thread, is measured apart.

pub mod bytes;
mod profiles;
mod clients;
mod callers;
mod first_level;

use std::io;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use warmcast_cache::UrlError;
use warmcast_cache::reader::{ReadError, ReaderError};

use crate::redis_server::{RedisServer, RedisServerError};
use crate::report::{Output, Report, Target};
use crate::usage::{self, BUILD};
use callers::Round;
use clients::{CacheReader, PlainClient};
use profiles::{KEYS_PER_CALL, Profiles};

/// Of what the plain client looks up in the same time, the Reader should look up at least this part.
const THROUGHPUT_RATIO_TARGET: f64 = 0.85;
/// The Reader's p99 should be at most this multiple of the plain client's.
const P99_RATIO_TARGET: f64 = 1.2;

/// What to run.
#[derive(Clone, Debug)]
pub struct ReaderBenchOptions {
    /// Callers at a time, each number measured by itself.
    pub callers: Vec<usize>,
    /// Pairs of rounds for each number of callers.
    pub runs: usize,
    /// How long a round lasts.
    pub round: Duration,
    /// Profiles in the cache.
    pub profiles: usize,
    /// Bytes of each profile.
    pub profile_bytes: usize,
    /// Connections of either side.
    pub connections: usize,
    /// How the report is printed.
    pub output: Output,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The server.
    #[error(transparent)]
    Server(#[from] RedisServerError),
    /// The server's address.
    #[error("the URL of the Redis: {0}")]
    Url(#[from] UrlError),
    /// The plain client.
    #[error("the plain client: {0}")]
    Plain(#[from] redis::RedisError),
    /// The Reader cannot start.
    #[error(transparent)]
    Reader(#[from] ReaderError),
    /// The Reader's lookup failed.
    #[error("a lookup by the Reader: {0}")]
    Read(#[from] ReadError),
    /// An answer is not what was stored.
    #[error("{who} gave something else than the {KEYS_PER_CALL} profiles asked for: {what}")]
    Wrong {
        /// Whose answer.
        who: &'static str,
        /// What it was.
        what: String,
    },
    /// Nothing can be measured.
    #[error("the benchmark needs a run, a caller, a connection, and at least {KEYS_PER_CALL} profiles")]
    Options,
    /// The histogram could not be made.
    #[error("cannot create a histogram: {0}")]
    Histogram(#[from] hdrhistogram::CreationError),
    /// An entry cannot be made.
    #[error("cannot make an entry: {0}")]
    Entry(#[from] warmcast_proto::entry::EntryError),
    /// A task of the benchmark ended by a panic.
    #[error("a task of the benchmark failed: {0}")]
    Task(#[from] tokio::task::JoinError),
    /// The server's directory, or the output.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A signal came before the end.
    #[error("interrupted; everything is stopped")]
    Interrupted,
}

/// Runs the benchmark. `stop` ends it early, with everything stopped.
///
/// # Errors
/// See [`BenchError`]; the server is stopped in any case.
pub async fn reader(options: ReaderBenchOptions, stop: CancellationToken) -> Result<Report, BenchError> {
    let ReaderBenchOptions { callers, runs, profiles, connections, .. } = &options;
    let nothing = callers.is_empty() || callers.contains(&0) || *runs == 0 || *connections == 0;
    if nothing || *profiles < KEYS_PER_CALL {
        return Err(BenchError::Options);
    }
    let directory = tempfile::Builder::new().prefix("warmcast-bench-").tempdir()?;
    let server = RedisServer::start("the benchmark", directory.path()).await?;
    let measured = tokio::select! {
        measured = measure(&options, &server) => measured,
        () = stop.cancelled() => Err(BenchError::Interrupted),
    };
    let stopped = server.stop().await.map_err(RedisServerError::from);
    let report = measured?;
    stopped?;
    report.finish()?;
    Ok(report)
}

async fn measure(options: &ReaderBenchOptions, server: &RedisServer) -> Result<Report, BenchError> {
    let profiles = Profiles::store(server, options.profiles, options.profile_bytes).await?;
    let mut report = Report::begin(options.output, conditions(options, server).await?)?;
    let plain = PlainClient::connect(server, options.connections).await?;
    let reader = CacheReader::connect(server, options.connections).await?;
    for &callers in &options.callers {
        compare(options, callers, &profiles, (&plain, &reader), &mut report).await?;
    }
    first_level::measure(options, server, &profiles, &mut report).await?;
    Ok(report)
}

async fn conditions(options: &ReaderBenchOptions, server: &RedisServer) -> Result<Vec<String>, BenchError> {
    let cores = usage::cores();
    let threads = tokio::runtime::Handle::current().metrics().num_workers();
    let info: redis::InfoDict =
        redis::cmd("INFO").arg("server").query_async(&mut server.connect().await?).await?;
    let version: String = info.get("redis_version").unwrap_or_default();
    let ReaderBenchOptions { runs, round, profiles, profile_bytes, connections, .. } = options;
    Ok(vec![
        format!(
            "Redis {version} over loopback TCP, {profiles} profiles of {profile_bytes} bytes, \
             {KEYS_PER_CALL} of them in each call"
        ),
        format!(
            "{connections} connection(s) of each client; the Reader from the primary, without first level and master"
        ),
        format!(
            "{BUILD}; {runs} run(s), each a round of {:.1} s of each client, in turns; \
             {threads} threads for the callers; server and callers share {cores}",
            round.as_secs_f64()
        ),
    ])
}

/// Measures both with so many callers.
async fn compare(
    options: &ReaderBenchOptions,
    callers: usize,
    profiles: &Profiles,
    (plain, reader): (&PlainClient, &CacheReader),
    report: &mut Report,
) -> Result<(), BenchError> {
    report.scenario(format!("{callers} caller(s)"))?;
    // Connections, allocators and the server's tables are warm before anything counts.
    let warm_up = options.round / 4;
    callers::run(plain, callers, profiles, warm_up).await?;
    callers::run(reader, callers, profiles, warm_up).await?;
    let mut rounds = Vec::with_capacity(options.runs);
    for run in 0..options.runs {
        // Who begins changes from run to run.
        let (of_plain, of_reader) = if run % 2 == 0 {
            let of_plain = callers::run(plain, callers, profiles, options.round).await?;
            (of_plain, callers::run(reader, callers, profiles, options.round).await?)
        } else {
            let of_reader = callers::run(reader, callers, profiles, options.round).await?;
            (callers::run(plain, callers, profiles, options.round).await?, of_reader)
        };
        rounds.push((of_plain, of_reader));
    }
    tell(&rounds, report)?;
    Ok(())
}

fn tell(rounds: &[(Round, Round)], report: &mut Report) -> io::Result<()> {
    let of_plain = |figure: fn(&Round) -> f64| rounds.iter().map(|(plain, _)| figure(plain)).collect();
    let of_reader = |figure: fn(&Round) -> f64| rounds.iter().map(|(_, reader)| figure(reader)).collect();
    let ratios = |figure: fn(&Round) -> f64| {
        rounds.iter().map(|(plain, reader)| figure(reader) / figure(plain)).collect()
    };
    report.figure("profiles, plain client", "/s", of_plain(Round::profiles_per_second), None)?;
    report.figure("profiles, Reader", "/s", of_reader(Round::profiles_per_second), None)?;
    let target = Target::AtLeast(THROUGHPUT_RATIO_TARGET);
    report.figure("throughput, Reader to plain", "", ratios(Round::profiles_per_second), Some(target))?;
    report.figure("p50 of a call, plain client", "µs", of_plain(Round::p50_us), None)?;
    report.figure("p50 of a call, Reader", "µs", of_reader(Round::p50_us), None)?;
    report.figure("p99 of a call, plain client", "µs", of_plain(Round::p99_us), None)?;
    report.figure("p99 of a call, Reader", "µs", of_reader(Round::p99_us), None)?;
    let target = Target::AtMost(P99_RATIO_TARGET);
    report.figure("p99, Reader to plain", "", ratios(Round::p99_us), Some(target))
}
