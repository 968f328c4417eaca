//! What `/healthz`, `/readyz` and `/status` answer. Pure, but for what is asked of others.

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::rates::Rate;
use super::surveys::Seen;
use crate::health::Health;
use crate::telemetry::RecentLine;

/// An error of this process that is not older needs a look.
const ERROR_NEWS: Duration = Duration::from_secs(600);

/// Something that the process needs, or that people want to know of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct ConditionStatus {
    name: String,
    met: bool,
    /// Why it is not. Left out for those who may not see it.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

/// What `/readyz` answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Readiness {
    pub(super) ready: bool,
    alive: bool,
    stopping: bool,
    /// It is ready when all of these are met.
    conditions: Vec<ConditionStatus>,
    /// What is only told: that one of these is not met makes nobody unready.
    also: Vec<ConditionStatus>,
}

/// What does not change while a process runs.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Identity {
    pub(super) daemon: &'static str,
    pub(super) version: &'static str,
    pub(super) worker: String,
    /// Of which region, if the process is of one.
    pub(super) region: Option<String>,
    pub(super) pid: u32,
    pub(super) started_ms: u64,
    /// A watermark that is older needs a look.
    pub(super) watermark_bound_ms: u64,
}

/// What `/status` answers.
#[derive(Debug, Serialize)]
pub(super) struct Status<'a> {
    pub(super) verdict: Verdict,
    pub(super) now_ms: u64,
    pub(super) process: ProcessStatus<'a>,
    pub(super) fleet: &'a Seen,
    pub(super) recent_errors: &'a [RecentLine],
}

/// This process.
#[derive(Debug, Serialize)]
pub(super) struct ProcessStatus<'a> {
    #[serde(flatten)]
    pub(super) identity: &'a Identity,
    pub(super) uptime_s: u64,
    #[serde(flatten)]
    pub(super) readiness: Readiness,
    /// Figures of the last seconds; of counters, how much in a second.
    pub(super) rates: Vec<Rate>,
}

/// All of it in one word.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Verdict {
    fine: bool,
    needs: Vec<Need>,
}

/// What needs a look.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Need {
    /// A word for scripts: those of `status`, and `stuck`, `stopping`, `condition`, `region`, `error`, `fleet`.
    kind: String,
    text: String,
}

impl Readiness {
    /// As it is now. `with_why`: whoever asks may know why.
    pub(super) fn of(health: &Health, with_why: bool) -> Self {
        let status = |name: String, why: Option<String>| ConditionStatus {
            name,
            met: why.is_none(),
            why: why.filter(|_| with_why),
        };
        Self {
            ready: health.is_ready(),
            alive: health.is_alive(),
            stopping: health.is_stopping(),
            conditions: health
                .conditions()
                .into_iter()
                .map(|(name, why)| status(name.to_owned(), why))
                .collect(),
            also: health.remarks().into_iter().map(|(name, why)| status(name, why)).collect(),
        }
    }

    fn needs(&self) -> Vec<Need> {
        let mut needs = Vec::new();
        if !self.alive {
            needs.push(Need::of("stuck", "this process is stuck: its runtime does not run its tasks"));
        }
        if self.stopping {
            needs.push(Need::of("stopping", "this process is stopping"));
        }
        let unmet = |of: &[ConditionStatus], kind: &str| -> Vec<Need> {
            let unmet = of.iter().filter(|condition| !condition.met);
            let text =
                |of: &ConditionStatus| format!("{}: {}", of.name, of.why.as_deref().unwrap_or("not met"));
            unmet.map(|condition| Need::of(kind, text(condition))).collect()
        };
        needs.extend(unmet(&self.conditions, "condition"));
        needs.extend(unmet(&self.also, "region"));
        needs
    }
}

impl Verdict {
    /// What follows from everything that is known.
    pub(super) fn of(readiness: &Readiness, fleet: &Seen, recent: &[RecentLine], now_ms: u64) -> Self {
        let mut needs = readiness.needs();
        let problems = fleet.report.as_ref().and_then(|report| report.get("problems")?.as_array().cloned());
        let text =
            |problem: &Value, key: &str| problem.get(key).and_then(Value::as_str).unwrap_or("?").to_owned();
        needs.extend(
            problems
                .unwrap_or_default()
                .iter()
                .map(|problem| Need { kind: text(problem, "kind"), text: text(problem, "text") }),
        );
        if let Some(error) = &fleet.error {
            needs.push(Need::of("fleet", format!("the fleet cannot be looked at: {error}")));
        }
        let is_news = |line: &&RecentLine| {
            line.level == "ERROR" && u128::from(now_ms.saturating_sub(line.last_ms)) < ERROR_NEWS.as_millis()
        };
        let errors = recent.iter().filter(is_news).count();
        if errors > 0 {
            let what = if errors == 1 { "error" } else { "errors" };
            needs.push(Need::of(
                "error",
                format!("{errors} {what} of this process in the last ten minutes, below"),
            ));
        }
        Self { fine: needs.is_empty(), needs }
    }
}

impl Need {
    fn of(kind: &str, text: impl Into<String>) -> Self {
        Self { kind: kind.to_owned(), text: text.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(level: &'static str, last_ms: u64) -> RecentLine {
        let (first_ms, count, target) = (last_ms, 1, "x");
        RecentLine {
            first_ms,
            last_ms,
            count,
            level,
            target,
            message: "m".to_owned(),
            fields: serde_json::Map::new(),
        }
    }

    fn kinds(verdict: &Verdict) -> Vec<&str> {
        verdict.needs.iter().map(|need| &*need.kind).collect()
    }

    #[test]
    fn it_is_fine_when_nothing_needs_a_look() {
        let health = Health::default();
        health.condition("leases").met();
        let readiness = Readiness::of(&health, true);
        let old = [line("WARN", 1_000_000), line("ERROR", 1)];
        let verdict = Verdict::of(&readiness, &Seen::default(), &old, 1_000_000);
        assert_eq!(verdict, Verdict { fine: true, needs: Vec::new() });
    }

    #[test]
    fn everything_that_needs_a_look_is_named_with_why() {
        let health = Health::default();
        health.condition("leases").unmet("none is read");
        health.remark("region eu-west-1 answers").unmet("its Kinesis does not answer");
        health.stop();
        let readiness = Readiness::of(&health, true);
        let report = serde_json::json!({"problems": [{"kind": "gap", "text": "lost"}]});
        let seen = Seen { report: Some(report), error: Some("throttled".to_owned()), ..Seen::default() };
        let verdict = Verdict::of(&readiness, &seen, &[line("ERROR", 1_000_000)], 1_000_001);
        assert_eq!(kinds(&verdict), ["stopping", "condition", "region", "gap", "fleet", "error"]);
        assert_eq!(verdict.needs[1].text, "leases: none is read");
        assert!(!verdict.fine);
    }

    #[test]
    fn a_region_that_does_not_answer_makes_nobody_unready() {
        let health = Health::default();
        health.condition("leases").met();
        health.remark("region eu-west-1 answers").unmet("its Kinesis does not answer");
        assert!(Readiness::of(&health, true).ready);
        let shown = serde_json::to_string(&Readiness::of(&health, false)).unwrap();
        assert!(shown.contains("eu-west-1") && !shown.contains("Kinesis"), "{shown}");
    }
}
