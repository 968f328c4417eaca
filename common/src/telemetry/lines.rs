//! How events become lines, for people or as JSON, and where they are written.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::SystemTime;

use serde::Serializer as _;
use serde::ser::SerializeMap as _;
use serde_json::Value;
use tokio::time::Instant;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::Context;

use super::LogFormat;
use super::fields::Fields;
use super::repeats::{LeftOut, Repeats};
use crate::plain::plain;

/// Bytes of one text of a line. What is longer is cut: a line is for reading, and collectors cut or drop large ones.
const TEXT_BYTES_MAX: usize = 8 * 1024;

/// What a line of JSON has beside an event's own fields. A field with such a name gets an underscore.
const OWN_NAMES: [&str; 7] = ["timestamp", "level", "target", "message", "service", "version", "worker_id"];

/// Who writes: in every line of JSON, since lines of many processes end up in one place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The program: `warmcast-aggregator`.
    pub service: &'static str,
    /// Its worker, if it is a daemon at work.
    pub worker_id: Option<String>,
}

/// Writes a line for each event.
pub(super) struct Lines<W> {
    format: LogFormat,
    colors: bool,
    identity: Identity,
    repeats: Repeats,
    writer: W,
}

impl<W: for<'a> MakeWriter<'a> + 'static> Lines<W> {
    pub(super) fn new(format: LogFormat, colors: bool, identity: Identity, writer: W) -> Self {
        Self { format, colors, identity, repeats: Repeats::new(Instant::now()), writer }
    }

    fn write(&self, metadata: &Metadata<'_>, fields: &Fields) {
        let timestamp = humantime::format_rfc3339_micros(SystemTime::now()).to_string();
        let mut line = match self.format {
            LogFormat::Human => self.human(&timestamp, metadata, fields),
            LogFormat::Json => self.json(&timestamp, metadata, fields).unwrap_or_default(),
        };
        line.push('\n');
        // Nobody to tell if standard error is closed.
        let _closed = self.writer.make_writer().write_all(line.as_bytes());
    }

    fn human(&self, timestamp: &str, metadata: &Metadata<'_>, fields: &Fields) -> String {
        let message = fields.message.replace('\n', "\\n").replace('\t', "\\t");
        let mut said = format!(" {}: {message}", metadata.target());
        for (name, value) in &fields.values {
            // A write to a string does not fail.
            let _infallible = match value {
                Value::String(text) if is_word(text) => write!(said, " {name}={text}"),
                value => write!(said, " {name}={value}"),
            };
        }
        let (level, said) = (metadata.level(), plain(&said));
        if self.colors {
            format!("{timestamp} \u{1b}[{}m{level:>5}\u{1b}[0m{said}", color(*level))
        } else {
            format!("{timestamp} {level:>5}{said}")
        }
    }

    fn json(
        &self,
        timestamp: &str,
        metadata: &Metadata<'_>,
        fields: &Fields,
    ) -> Result<String, serde_json::Error> {
        let mut line = Vec::with_capacity(512);
        let mut serializer = serde_json::Serializer::new(&mut line);
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("timestamp", timestamp)?;
        map.serialize_entry("level", metadata.level().as_str())?;
        map.serialize_entry("target", metadata.target())?;
        map.serialize_entry("message", &fields.message)?;
        for (name, value) in &fields.values {
            if OWN_NAMES.contains(&name.as_str()) {
                map.serialize_entry(&format!("{name}_"), value)?;
            } else {
                map.serialize_entry(name, value)?;
            }
        }
        map.serialize_entry("service", self.identity.service)?;
        map.serialize_entry("version", env!("CARGO_PKG_VERSION"))?;
        if let Some(worker_id) = &self.identity.worker_id {
            map.serialize_entry("worker_id", worker_id)?;
        }
        map.end()?;
        Ok(plain(&String::from_utf8_lossy(&line)).into_owned())
    }
}

impl<S, W> Layer<S> for Lines<W>
where
    S: Subscriber,
    W: for<'a> MakeWriter<'a> + 'static,
{
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let (metadata, now) = (event.metadata(), Instant::now());
        if let Some(left_out) = self.repeats.admit(metadata, now) {
            let mut fields = Fields::of(event, TEXT_BYTES_MAX);
            if left_out > 0 {
                fields.values.insert("left_out".to_owned(), left_out.into());
            }
            self.write(metadata, &fields);
        }
        for LeftOut { metadata, lines } in self.repeats.untold(now) {
            self.write(metadata, &Fields::left_out(metadata, lines));
        }
    }
}

impl Fields {
    fn left_out(metadata: &Metadata<'_>, lines: u64) -> Self {
        let place =
            format!("{}:{}", metadata.file().unwrap_or_default(), metadata.line().unwrap_or_default());
        Self::made(
            "lines like others before were left out".to_owned(),
            [("left_out", lines.into()), ("place", place.into())],
        )
    }
}

/// A text that can stand in a line for people without quotes.
fn is_word(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic() && !matches!(c, '"' | '=' | '\\'))
}

/// As terminals have them: red, yellow, green, blue, magenta.
fn color(level: Level) -> u8 {
    match level {
        Level::ERROR => 31,
        Level::WARN => 33,
        Level::INFO => 32,
        Level::DEBUG => 34,
        Level::TRACE => 35,
    }
}

/// Where tests have lines written to.
#[cfg(test)]
#[derive(Clone, Default)]
pub(super) struct Written(std::sync::Arc<parking_lot::Mutex<Vec<u8>>>);

#[cfg(test)]
impl Written {
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock()).into_owned()
    }
}

#[cfg(test)]
impl std::io::Write for Written {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    fn written(format: LogFormat, log: impl FnOnce()) -> Vec<String> {
        let written = Written::default();
        let writer = written.clone();
        let identity = Identity { service: "warmcast-aggregator", worker_id: Some("worker-1".to_owned()) };
        let lines = Lines::new(format, false, identity, move || writer.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(lines), log);
        written.text().lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_line_of_json_is_one_flat_object_with_who_wrote_it() {
        let lines = written(LogFormat::Json, || {
            tracing::warn!(region = "eu-west-1", pause_ms = 5_u128, error = %"no\nanswer", level = "x", "sent again");
        });
        let [line] = <[String; 1]>::try_from(lines).unwrap();
        let fields: BTreeMap<String, Value> = serde_json::from_str(&line).unwrap();
        let text = |name: &str| fields[name].as_str().unwrap();
        assert_eq!((text("level"), text("message"), text("error")), ("WARN", "sent again", "no\nanswer"));
        assert_eq!((text("service"), text("worker_id")), ("warmcast-aggregator", "worker-1"));
        assert_eq!((text("region"), fields["pause_ms"].as_u64()), ("eu-west-1", Some(5)));
        assert_eq!((text("level_"), text("version")), ("x", env!("CARGO_PKG_VERSION")));
        assert!(text("target").ends_with("lines::tests"));
        assert!(humantime::parse_rfc3339(text("timestamp")).is_ok());
        assert_eq!(fields.len(), 11, "{line}");
    }

    #[test]
    fn a_line_for_people_stays_one_line_whatever_it_says() {
        let lines = written(LogFormat::Human, || {
            tracing::error!(shard = "shard-1", reason = "a \"b\"\nc", count = 3, "first\nsecond\t\u{1b}[31m");
        });
        let [line] = <[String; 1]>::try_from(lines).unwrap();
        let (_, said) = line.split_once("tests: ").unwrap();
        assert_eq!(said, r#"first\nsecond\t\u001b[31m count=3 reason="a \"b\"\nc" shard=shard-1"#);
        assert!(line.contains(" ERROR "), "{line}");
    }

    #[test]
    fn what_a_terminal_would_obey_is_in_no_line_and_json_stays_what_it_says() {
        let hostile = "a\u{9b}31m\u{7f}\u{202e}\u{2066}\u{1b}]0;x\u{7}";
        let log = || tracing::warn!(error = hostile, shown = %format_args!("[{hostile}]"), "said {hostile}");
        for format in [LogFormat::Human, LogFormat::Json] {
            let [line] = <[String; 1]>::try_from(written(format, log)).unwrap();
            assert!(line.is_ascii() && !line.contains(char::is_control), "{line:?}");
            assert!(line.contains("\\u009b31m\\u007f\\u202e\\u2066"), "{line}");
            if format == LogFormat::Json {
                let fields: BTreeMap<String, Value> = serde_json::from_str(&line).unwrap();
                assert_eq!(fields["error"], hostile);
                assert_eq!(fields["shown"], format!("[{hostile}]"));
                assert_eq!(fields["message"], format!("said {hostile}"));
            }
        }
    }

    #[test]
    fn the_levels_color_is_the_only_thing_that_a_terminal_obeys() {
        let (written, identity) = (Written::default(), Identity::default());
        let writer = written.clone();
        let lines = Lines::new(LogFormat::Human, true, identity, move || writer.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(lines), || {
            tracing::warn!(error = "\u{1b}[2J\u{9b}2J", "sent again");
        });
        let line = written.text();
        let (_, line) = line.split_once(' ').unwrap();
        let rest = line.strip_prefix("\u{1b}[33m WARN\u{1b}[0m ").unwrap();
        assert!(!rest.trim_end().contains(char::is_control), "{rest:?}");
    }

    #[test]
    fn a_storm_is_a_few_lines() {
        let lines = written(LogFormat::Json, || {
            (0..5_000).for_each(|shard| tracing::warn!(shard, "shard failed; it starts again"));
        });
        assert!((20..30).contains(&lines.len()), "{}", lines.len());
    }
}
