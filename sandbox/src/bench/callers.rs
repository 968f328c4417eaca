//! A round: so many callers, each with one call under way, for so long.

use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::BenchError;
use super::clients::Client;
use super::profiles::{KEYS_PER_CALL, Profiles};

const LATENCY_MAX_NS: u64 = 60_000_000_000;
const NS_PER_US: f64 = 1_000.0;

/// What a round gave.
#[derive(Clone, Debug)]
pub(super) struct Round {
    lasted: Duration,
    latencies_ns: Histogram<u64>,
}

impl Round {
    /// Profiles looked up a second.
    pub(super) fn profiles_per_second(&self) -> f64 {
        let profiles = self.latencies_ns.len() as f64 * KEYS_PER_CALL as f64;
        profiles / self.lasted.as_secs_f64()
    }

    /// The median time of a call.
    pub(super) fn p50_us(&self) -> f64 {
        self.latencies_ns.value_at_quantile(0.5) as f64 / NS_PER_US
    }

    /// 99 of 100 calls took no longer.
    pub(super) fn p99_us(&self) -> f64 {
        self.latencies_ns.value_at_quantile(0.99) as f64 / NS_PER_US
    }
}

/// Lets the callers call for `lasting`.
pub(super) async fn run<C: Client>(
    client: &C,
    callers: usize,
    profiles: &Profiles,
    lasting: Duration,
) -> Result<Round, BenchError> {
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for caller in 0..callers {
        let (client, profiles) = (client.clone(), profiles.clone());
        tasks.spawn(async move { call_until(&client, caller, &profiles, started + lasting).await });
    }
    let mut latencies_ns = histogram()?;
    while let Some(ended) = tasks.join_next().await {
        // Of equal bounds: nothing is out of range.
        latencies_ns += ended??;
    }
    Ok(Round { lasted: started.elapsed(), latencies_ns })
}

async fn call_until(
    client: &impl Client,
    caller: usize,
    profiles: &Profiles,
    end: Instant,
) -> Result<Histogram<u64>, BenchError> {
    let mut latencies_ns = histogram()?;
    let mut begun = Instant::now();
    for call in profiles.calls_of(caller) {
        client.look_up(caller, call, profiles.payload_bytes()).await?;
        let now = Instant::now();
        let took = now - begun;
        latencies_ns.saturating_record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX).max(1));
        if now >= end {
            break;
        }
        begun = now;
    }
    Ok(latencies_ns)
}

fn histogram() -> Result<Histogram<u64>, hdrhistogram::CreationError> {
    Histogram::new_with_bounds(1, LATENCY_MAX_NS, 3)
}
