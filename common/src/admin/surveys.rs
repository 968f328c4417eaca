//! Looks at the fleet, made when somebody wants to see it, and never more often than [`INTERVAL_MIN`].
//!
//! They are made on the runtime that does the work, with its connections, and handed over: who asks gets what is there.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout};

use crate::clock::now_ms;

/// Least pause between the beginnings of two looks, however many ask: a look costs read units of the state table.
const INTERVAL_MIN: Duration = Duration::from_secs(10);
/// A look that takes longer is given up.
const LOOK_PATIENCE: Duration = Duration::from_secs(30);
/// A look that is older than this is of a time when nobody asked.
const STALE: Duration = Duration::from_secs(30);
/// How long somebody who asks waits for a look where there is none, or a stale one.
const ASK_PATIENCE: Duration = Duration::from_secs(4);

/// How a daemon's fleet is looked at.
pub trait FleetLook: Send + 'static {
    /// What `status --output json` prints.
    fn look(&mut self) -> impl Future<Output = Result<Value, anyhow::Error>> + Send;
}

/// What was last seen of the fleet. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct Surveys(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    asked: Notify,
    seen: watch::Sender<Arc<Seen>>,
}

/// The last look at the fleet.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Seen {
    /// When it was made: milliseconds since the epoch.
    pub(super) at_ms: Option<u64>,
    /// How long it took.
    pub(super) took_ms: Option<u64>,
    /// What was seen, as `status --output json` has it.
    pub(super) report: Option<Value>,
    /// Why the last look failed, or none was made; the report is of one before.
    pub(super) error: Option<String>,
    #[serde(skip)]
    pub(super) began: Option<Instant>,
}

impl Surveys {
    /// Looks whenever somebody asks, without end: drop it to stop.
    pub async fn make(&self, mut fleet: impl FleetLook) {
        loop {
            self.0.asked.notified().await;
            let began = Instant::now();
            let looked = timeout(LOOK_PATIENCE, Box::pin(fleet.look())).await.unwrap_or_else(|_| {
                Err(anyhow::anyhow!("the look at the fleet took longer than {} s", LOOK_PATIENCE.as_secs()))
            });
            let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.0.seen.send_modify(|seen| *seen = Arc::new(seen.next(looked, began, took_ms)));
            sleep_until(began + INTERVAL_MIN).await;
        }
    }

    /// What was seen last. Another look is made soon.
    pub(super) async fn ask(&self, waits: bool) -> Arc<Seen> {
        let mut seen = self.0.seen.subscribe();
        self.0.asked.notify_one();
        let is_stale = seen.borrow().began.is_none_or(|began| began.elapsed() >= STALE);
        if is_stale && waits {
            // Whoever waited in vain gets what there is, with its time.
            let _in_vain = timeout(ASK_PATIENCE, seen.changed()).await;
        }
        Arc::clone(&seen.borrow())
    }

    /// What was seen last. Nobody looks for that.
    pub(super) fn latest(&self) -> Arc<Seen> {
        Arc::clone(&self.0.seen.borrow())
    }
}

impl Seen {
    /// How old each region's watermark was, in seconds, by the region's name; that of the whole fleet has none.
    pub(super) fn ages(&self) -> Vec<(Option<&str>, Option<f64>)> {
        fn age(of: &Value) -> Option<f64> {
            of.get("watermark")?.get("age_ms")?.as_f64().map(|age_ms| age_ms / 1_000.0)
        }
        let Some(report) = &self.report else { return Vec::new() };
        let regions = report.get("regions").and_then(Value::as_array).into_iter().flatten();
        let regions = regions.map(|region| (region.get("region").and_then(Value::as_str), age(region)));
        std::iter::once((None, age(report))).chain(regions.filter(|(name, _)| name.is_some())).collect()
    }

    fn next(&self, looked: Result<Value, anyhow::Error>, began: Instant, took_ms: u64) -> Self {
        let began = Some(began);
        match looked {
            Ok(report) => Self {
                at_ms: Some(now_ms()),
                took_ms: Some(took_ms),
                report: Some(report),
                error: None,
                began,
            },
            Err(error) => Self { error: Some(format!("{error:#}")), began, ..self.clone() },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    use super::*;

    /// The second look fails; the report is the number of the look.
    struct SecondFails(Arc<AtomicU64>);

    impl FleetLook for SecondFails {
        async fn look(&mut self) -> Result<Value, anyhow::Error> {
            let number = self.0.fetch_add(1, Relaxed);
            tokio::time::sleep(Duration::from_millis(100)).await;
            if number == 1 { Err(anyhow::anyhow!("throttled")) } else { Ok(Value::from(number)) }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn however_many_ask_a_look_is_made_once_in_a_while_and_only_if_somebody_asks() {
        let (surveys, looks) = (Surveys::default(), Arc::<AtomicU64>::default());
        let asking = async {
            tokio::time::sleep(Duration::from_secs(3_600)).await;
            assert_eq!(looks.load(Relaxed), 0, "nobody asked");
            for _ in 0..100 {
                let seen = surveys.ask(true).await;
                assert_eq!(seen.report.as_ref(), Some(&Value::from(0)));
            }
            tokio::time::sleep(INTERVAL_MIN / 2).await;
            assert_eq!(looks.load(Relaxed), 1);
            surveys.ask(true).await;
            tokio::time::sleep(INTERVAL_MIN).await;
            let failed = surveys.latest();
            assert_eq!(failed.error.as_deref(), Some("throttled"));
            assert_eq!(failed.report.as_ref(), Some(&Value::from(0)), "what was seen before stays");
        };
        tokio::select! {
            () = surveys.make(SecondFails(Arc::clone(&looks))) => {}
            () = asking => {}
        }
        assert_eq!(looks.load(Relaxed), 2);
    }

    #[test]
    fn a_look_tells_how_old_the_regions_watermarks_are() {
        let report = serde_json::json!({
            "watermark": {"age_ms": 1500},
            "regions": [{"region": "a", "watermark": {"age_ms": 2000}}, {"region": "b", "watermark": {"age_ms": null}}],
        });
        let seen = Seen { report: Some(report), ..Seen::default() };
        assert_eq!(seen.ages(), [(None, Some(1.5)), (Some("a"), Some(2.0)), (Some("b"), None)]);
        assert!(Seen::default().ages().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_is_answered_although_no_look_comes_to_an_end() {
        let surveys = Surveys::default();
        let seen = surveys.ask(true).await;
        assert!(seen.report.is_none());
        let began = Instant::now();
        surveys.ask(false).await;
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
}
