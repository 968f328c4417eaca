//! The looks at a fleet, again and again until it is as it should be.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::settled::{Before, not_back, unsettled};
use super::tell::Teller;
use crate::consumer::store::{Heartbeat, StateStore};
use crate::status::{Criteria, Look, StreamName, Summary, Survey};

/// Pause between two looks at the fleet.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// The fleet that is upgraded, as its daemon knows it.
#[derive(Debug)]
pub struct Fleet<S, C> {
    /// Its state table.
    pub store: StateStore,
    /// The name of the worker that is configured.
    pub worker_id: String,
    /// How long a heartbeat may stand still.
    pub lease_duration: Duration,
    /// The streams that it reads, of what its workers say.
    pub streams: S,
    /// What a look is judged by.
    pub criteria: C,
}

/// Looks at a fleet, and remembers what it saw.
pub(super) struct Eyes<S, C> {
    survey: Survey,
    streams: S,
    criteria: C,
    watermark_bound_ms: u64,
}

/// What one look found.
pub(super) struct Seen {
    look: Look,
    summary: Summary,
}

impl<S, C> Eyes<S, C>
where
    S: AsyncFn(&StateStore, &[Heartbeat]) -> Result<Vec<StreamName>, anyhow::Error>,
    C: Fn(&Look) -> Criteria,
{
    /// `watermark_bound`: how old the watermark of a settled fleet may be.
    pub(super) fn of(fleet: Fleet<S, C>, watermark_bound: Duration) -> Self {
        Self {
            survey: Survey::new(fleet.store, None, fleet.lease_duration),
            streams: fleet.streams,
            criteria: fleet.criteria,
            watermark_bound_ms: u64::try_from(watermark_bound.as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// Why the fleet is not settled, `until` when it becomes so: who lives shows by the next beats.
    ///
    /// # Errors
    /// Why it is not settled, as reasons.
    pub(super) async fn settled(
        &mut self,
        wanted: &BTreeSet<String>,
        until: Instant,
    ) -> Result<Seen, Vec<String>> {
        self.until(until, |seen, bound| unsettled(&seen.summary, wanted, bound)).await
    }

    /// Waits until `worker` is back from its restart, and the fleet settled.
    ///
    /// # Errors
    /// Why it is not, as reasons.
    pub(super) async fn back(
        &mut self,
        worker: &str,
        before: &Before,
        wanted: &BTreeSet<String>,
        until: Instant,
    ) -> Result<Seen, Vec<String>> {
        let judge = |seen: &Seen, bound| {
            let mut why = not_back(&seen.summary, &seen.look.heartbeats, worker, before);
            why.extend(unsettled(&seen.summary, wanted, bound));
            why
        };
        self.until(until, judge).await
    }

    /// Looks until `judge` has nothing to say. The other answer is what it says last. A look that fails is made again.
    async fn until(
        &mut self,
        until: Instant,
        judge: impl Fn(&Seen, u64) -> Vec<String>,
    ) -> Result<Seen, Vec<String>> {
        let mut told = Teller::default();
        loop {
            let why = match Box::pin(self.look()).await {
                Ok(seen) => match judge(&seen, self.watermark_bound_ms) {
                    why if why.is_empty() => return Ok(seen),
                    why => why,
                },
                Err(error) => vec![format!("{error:#}")],
            };
            if Instant::now() + LOOK_INTERVAL > until {
                return Err(why);
            }
            told.wait("waits for the fleet", &why);
            sleep(LOOK_INTERVAL).await;
        }
    }

    async fn look(&mut self) -> Result<Seen, anyhow::Error> {
        let heartbeats = self.survey.heartbeats().await?;
        let streams = (self.streams)(self.survey.store(), &heartbeats).await?;
        let look = self.survey.look(streams).await?;
        let summary = Summary::of(&look, self.survey.observer(), &(self.criteria)(&look));
        Ok(Seen { look, summary })
    }
}

impl Seen {
    /// What its restart will change of `worker`.
    pub(super) fn before(&self, worker: &str) -> Before {
        let beat = self.look.heartbeats.iter().find(|beat| beat.worker == worker);
        Before { instance: beat.map(|beat| beat.instance.clone()), watermark_ms: self.summary.watermark.ms }
    }

    /// The workers that were seen to beat.
    pub(super) fn living(&self) -> BTreeSet<String> {
        let alive = self.summary.workers.iter().filter(|worker| worker.state == "alive");
        alive.map(|worker| worker.worker.clone()).collect()
    }
}
