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
            LogFormat::Human => self.human(&timestamp, metadata, fields).into_bytes(),
            LogFormat::Json => self.json(&timestamp, metadata, fields).unwrap_or_default(),
        };
        line.push(b'\n');
        // Nobody to tell if standard error is closed.
        let _closed = self.writer.make_writer().write_all(&line);
    }

    fn human(&self, timestamp: &str, metadata: &Metadata<'_>, fields: &Fields) -> String {
        let level = metadata.level();
        let mut line = format!("{timestamp} ");
        // A write to a string does not fail.
        let _infallible = if self.colors {
            write!(line, "\u{1b}[{}m{level:>5}\u{1b}[0m", color(*level))
        } else {
            write!(line, "{level:>5}")
        };
        let _infallible = write!(line, " {}: {}", metadata.target(), plain(&fields.message));
        for (name, value) in &fields.values {
            let _infallible = match value {
                Value::String(text) if is_word(text) => write!(line, " {name}={text}"),
                value => write!(line, " {name}={value}"),
            };
        }
        line
    }

    fn json(
        &self,
        timestamp: &str,
        metadata: &Metadata<'_>,
        fields: &Fields,
    ) -> Result<Vec<u8>, serde_json::Error> {
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
        Ok(line)
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

/// A message without what would start a new line, or tell a terminal to do something.
fn plain(message: &str) -> String {
    let escaped = |c: char| if c.is_control() { c.escape_default().collect() } else { c.to_string() };
    message.chars().map(escaped).collect()
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io;
    use std::sync::Arc;

    use parking_lot::Mutex;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn written(format: LogFormat, log: impl FnOnce()) -> Vec<String> {
        let written = Written::default();
        let writer = written.clone();
        let identity = Identity { service: "warmcast-aggregator", worker_id: Some("worker-1".to_owned()) };
        let lines = Lines::new(format, false, identity, move || writer.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(lines), log);
        let bytes = written.0.lock().clone();
        String::from_utf8(bytes).unwrap().lines().map(str::to_owned).collect()
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
            tracing::error!(shard = "shard-1", reason = "a \"b\"\nc", count = 3, "first\nsecond\u{1b}[31m");
        });
        let [line] = <[String; 1]>::try_from(lines).unwrap();
        let (_, said) = line.split_once("tests: ").unwrap();
        assert_eq!(said, r#"first\nsecond\u{1b}[31m count=3 reason="a \"b\"\nc" shard=shard-1"#);
        assert!(line.contains(" ERROR "), "{line}");
    }

    #[test]
    fn a_storm_is_a_few_lines() {
        let lines = written(LogFormat::Json, || {
            (0..5_000).for_each(|shard| tracing::warn!(shard, "shard failed; it starts again"));
        });
        assert!((20..30).contains(&lines.len()), "{}", lines.len());
    }
}
