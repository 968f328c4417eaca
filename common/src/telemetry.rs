//! Logs: one line per fact, on standard error, for people or for machines.
//!
//! Levels: an error needs a person; a warning may heal by itself; info is what an operator wants to read of a
//! healthy day; debug is for developers.

mod fields;
mod repeats;
mod lines;
mod recent;

use std::io::IsTerminal as _;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::{FilterExt as _, Targets};
use tracing_subscriber::layer::{Filter, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, Registry};

use lines::Lines;

pub use lines::Identity;
pub use recent::{Recent, RecentLine};

use crate::config::Section;
use crate::otlp::OtlpConfig;

/// How logs look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people.
    Human,
    /// One JSON object a line, fields at its top level.
    Json,
}

/// The `[log]` section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// How lines look.
    pub format: LogFormat,
    /// The least severe level that is written; `RUST_LOG` overrides it. Of other crates than ours it is never below
    /// `debug`.
    pub level: &'static str,
    /// Pause between two `stats` lines.
    pub stats_interval: Duration,
}

impl LogConfig {
    /// Takes the section's fields.
    pub fn read(mut section: Section) -> Self {
        let levels = ["error", "warn", "info", "debug", "trace"].map(|level| (level, level));
        let config = Self {
            format: section.choice(
                "format",
                &[("human", LogFormat::Human), ("json", LogFormat::Json)],
                LogFormat::Human,
            ),
            level: section.choice("level", &levels, "info"),
            stats_interval: section.duration_ms("stats_interval_ms", 100..=3_600_000, 10_000),
        };
        section.finish();
        config
    }
}

/// What a process tells of itself beside its lines: `main` makes it, and `run` hands it to those who show it.
#[derive(Clone, Debug, Default)]
pub struct Telemetry {
    /// The latest warnings and errors.
    pub recent: Recent,
    /// What it calls itself.
    pub identity: Identity,
    /// Where to a collector's metrics and traces go, if there is one.
    pub otlp: Option<OtlpConfig>,
}

/// Starts logging for the whole process. A second call, as in tests, changes nothing.
pub fn init(config: &LogConfig, identity: Identity) -> Telemetry {
    let filter = filter(config.level, &std::env::var(EnvFilter::DEFAULT_ENV).unwrap_or_default());
    let colors = std::io::stderr().is_terminal();
    let lines = Lines::new(config.format, colors, identity.clone(), std::io::stderr);
    let telemetry = Telemetry { identity, ..Telemetry::default() };
    // What is shown to people does not depend on what is written.
    let subscriber = Registry::default().with(lines.with_filter(filter)).with(telemetry.recent.layer());
    // An error means that logging was set up before: that one stays.
    let _already_set = subscriber.try_init();
    telemetry
}

/// What is written: as the directives of `RUST_LOG` say, and at `level` where they say nothing; but `trace` of our own
/// crates alone, whatever anybody says. At that level the AWS SDK writes requests and answers with their bodies (its
/// orchestrator), what it signs, session tokens included (`aws-sigv4`), and redis its replies. Ours write none.
fn filter<S>(level: &str, directives: &str) -> impl Filter<S> + use<S> {
    let level: LevelFilter = level.parse().unwrap_or(LevelFilter::INFO);
    let asked = EnvFilter::builder().with_default_directive(level.into()).parse_lossy(directives);
    let ours = Targets::new().with_default(LevelFilter::DEBUG).with_target("warmcast_", LevelFilter::TRACE);
    asked.and(ours)
}

/// Calls `log` at every interval until `end`, and once more then.
pub async fn log_at_intervals(interval: Duration, end: &CancellationToken, log: impl Fn()) {
    let mut ticks = tokio::time::interval(interval);
    while end.run_until_cancelled(ticks.tick()).await.is_some() {
        log();
    }
    log();
}

/// A trouble that goes on while something is tried again: a warning at first, since it may heal, and an error once it
/// lasts. It is told at once, and then once in a while.
#[derive(Debug, Default)]
pub struct Trouble {
    since: Option<Instant>,
    limiter: LogLimiter,
}

/// What is to be told of a [`Trouble`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// It does not heal by itself, as far as can be seen: a person has to look.
    pub lasts: bool,
    /// How many times it was left out since it was told last.
    pub repeats: u64,
}

/// A trouble that is there for so long lasts.
pub const LASTS_AFTER: Duration = Duration::from_secs(60);

impl Trouble {
    /// It failed again. What to tell, if anything.
    pub fn again(&mut self, now: Instant) -> Option<Told> {
        let since = *self.since.get_or_insert(now);
        let lasts = now.saturating_duration_since(since) >= LASTS_AFTER;
        self.limiter.due(now).map(|repeats| Told { lasts, repeats })
    }

    /// It is over.
    pub fn over(&mut self) {
        self.since = None;
    }
}

/// Logs what a [`Told`] says of itself, as an error if the trouble lasts and as a warning if not.
#[macro_export]
macro_rules! log_trouble {
    ($told:expr, $($rest:tt)+) => {
        match $told {
            $crate::telemetry::Told { lasts: true, repeats } => tracing::error!(repeats, $($rest)+),
            $crate::telemetry::Told { lasts: false, repeats } => tracing::warn!(repeats, $($rest)+),
        }
    };
}

/// Lets a message that may repeat for hours through at once, and then once in a while with what was left out.
#[derive(Debug, Default)]
pub struct LogLimiter {
    last: Option<Instant>,
    suppressed: u64,
}

/// Pause between two lines about the same trouble.
const REPEAT_INTERVAL: Duration = Duration::from_secs(10);

impl LogLimiter {
    /// How many were left out since the last line, if a line is due; else `None`, and it is counted.
    pub fn due(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now.duration_since(last) < REPEAT_INTERVAL) {
            self.suppressed += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_dynamodb::types::AttributeValue;

    use super::lines::Written;
    use super::*;
    use crate::aws::sdk_config;
    use crate::config::{Secret, ServiceConfig, StaticCredentials};

    /// What one call of the SDK writes: a row goes there, another comes back.
    async fn written_of_a_call(level: &str, directives: &str) -> String {
        const ANSWER: &str = r#"{"Item":{"name":{"S":"hunter2-of-the-answer"}}}"#;
        let answer = || async { ([("content-type", "application/x-amz-json-1.0")], ANSWER) };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let service = ServiceConfig {
            region: Some("eu-west-1".to_owned()),
            endpoint: Some(format!("http://{}", listener.local_addr().unwrap())),
            credentials: Some(StaticCredentials {
                access_key_id: "key".to_owned(),
                secret_access_key: Secret::new("hunter2-of-the-key"),
                session_token: Some(Secret::new("hunter2-of-the-session")),
            }),
        };
        let written = Written::default();
        let writer = written.clone();
        let lines = Lines::new(LogFormat::Human, false, Identity::default(), move || writer.clone());
        let subscriber = Registry::default().with(lines.with_filter(filter(level, directives)));
        let _guard = tracing::subscriber::set_default(subscriber);
        let mut server = tokio::task::JoinSet::new();
        let app = axum::Router::new().fallback(axum::routing::any(answer));
        server.spawn(async move { axum::serve(listener, app).await });
        let client = aws_sdk_dynamodb::Client::new(&sdk_config(&service).await);
        let key = AttributeValue::S("hunter2-of-the-request".to_owned());
        let item =
            client.get_item().table_name("profiles").key("name", key).send().await.unwrap().item.unwrap();
        assert_eq!(item["name"], AttributeValue::S("hunter2-of-the-answer".to_owned()));
        tracing::trace!("ours");
        written.text()
    }

    #[tokio::test]
    async fn no_payload_and_no_secret_is_written_at_any_level_whoever_asks_for_it() {
        let of_modules = "trace,aws_smithy_runtime::client::orchestrator=trace,aws_sigv4=trace,hyper=trace";
        for (level, directives) in [("trace", ""), ("debug", ""), ("info", "trace"), ("info", of_modules)] {
            let text = written_of_a_call(level, directives).await;
            assert!(text.contains("DEBUG aws_smithy_runtime"), "{level}, {directives}: {text}");
            assert_eq!(text.contains("TRACE warmcast_common"), level == "trace" || !directives.is_empty());
            let told = text.lines().find(|line| line.contains("hunter2"));
            assert!(told.is_none(), "{level}, {directives}: {told:?}");
        }
    }

    #[test]
    fn a_repeated_message_is_logged_at_once_and_then_every_ten_seconds() {
        let (start, mut limiter) = (Instant::now(), LogLimiter::default());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(limiter.due(at(0)), Some(0));
        assert_eq!(limiter.due(at(1)), None);
        assert_eq!(limiter.due(at(9)), None);
        assert_eq!(limiter.due(at(10)), Some(2));
    }

    #[test]
    fn a_trouble_is_a_warning_until_it_lasts_and_one_anew_after_it_was_over() {
        let (start, mut trouble) = (Instant::now(), Trouble::default());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(trouble.again(at(0)), Some(Told { lasts: false, repeats: 0 }));
        assert_eq!((trouble.again(at(1)), trouble.again(at(2))), (None, None));
        assert_eq!(trouble.again(at(59)), Some(Told { lasts: false, repeats: 2 }));
        assert_eq!(trouble.again(at(61)), None);
        assert_eq!(trouble.again(at(70)), Some(Told { lasts: true, repeats: 1 }));
        trouble.over();
        assert_eq!(trouble.again(at(100)), Some(Told { lasts: false, repeats: 0 }));
    }
}
