//! The configuration as it takes effect: every key, its value, and where that comes from. Nothing in it is secret.

use std::fmt::Write as _;

use serde::{Serialize, Serializer};
use toml::Value;

use super::document::{Document, Source};
use super::known::{KnownKey, KnownSection, KnownValue, SectionKind};
use super::section::{Section, Violation, Violations};

/// What is shown in place of a secret.
const REDACTED: &str = "[redacted]";

/// Where a line's comment begins, if the line is shorter.
const COMMENT_COLUMN: usize = 52;

/// A whole configuration, without its secrets.
#[derive(Clone, Debug, PartialEq)]
pub struct Effective {
    sections: Vec<EffectiveSection>,
}

#[derive(Clone, Debug, PartialEq)]
struct EffectiveSection {
    path: Vec<String>,
    kind: SectionKind,
    keys: Vec<EffectiveKey>,
}

/// A key with its value.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EffectiveKey {
    /// Its name, with its sections: `batch.linger_ms`.
    pub key: String,
    /// What takes effect; secrets redacted. `None`: it is not set, and nothing stands in for it.
    pub value: Option<Value>,
    /// Where that comes from.
    pub source: EffectiveSource,
}

/// Where what takes effect comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EffectiveSource {
    /// It was given.
    Given(Source),
    /// Nothing was given: it is the default, or follows from other keys.
    Default,
    /// Nothing was given, and there is no default.
    Unset,
}

/// Reads a configuration out of a document with `read`, which takes its fields out of the root section.
///
/// # Errors
/// Every violation there is.
pub fn read_effective<C>(
    document: Document,
    read: impl FnOnce(Section) -> C,
) -> Result<(C, Effective), Vec<Violation>> {
    let violations = Violations::default();
    let root = Section::root(document.clone().into_root(), &violations).with_endpoints(document.endpoints());
    let known = root.known();
    let config = read(root);
    let config = violations.into_result(config)?;
    let sections = known.take().into_iter().map(|section| EffectiveSection::of(section, &document)).collect();
    Ok((config, Effective { sections }))
}

impl Effective {
    /// Every key, section by section, in the order in which they are read.
    pub fn keys(&self) -> impl Iterator<Item = &EffectiveKey> {
        self.sections.iter().flat_map(|section| &section.keys)
    }

    /// As TOML that can be read again, but for what was redacted, with the source of each value beside it.
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        for section in &self.sections {
            section.write(&mut text);
        }
        text
    }
}

impl Serialize for Effective {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.keys())
    }
}

impl EffectiveSection {
    fn of(section: KnownSection, document: &Document) -> Self {
        let KnownSection { path, kind, keys } = section;
        let keys = keys.into_iter().map(|key| EffectiveKey::of(&path, key, document)).collect();
        Self { path, kind, keys }
    }

    fn write(&self, text: &mut String) {
        let header = self.path.iter().map(|name| bare_or_quoted(name)).collect::<Vec<_>>().join(".");
        let gap = if text.is_empty() { "" } else { "\n" };
        // Writing to a string does not fail.
        let _infallible = match self.kind {
            SectionKind::Absent => writeln!(text, "{gap}# [{header}] is not set"),
            SectionKind::NoNames => writeln!(text, "{gap}# [{header}]: there is none"),
            SectionKind::Read if self.keys.is_empty() => Ok(()),
            SectionKind::Read if self.path.is_empty() => Ok(()),
            SectionKind::Read => writeln!(text, "{gap}[{header}]"),
        };
        for key in &self.keys {
            let name = bare_or_quoted(key.key.rsplit('.').next().unwrap_or(&key.key));
            let _infallible = match &key.value {
                Some(value) => {
                    let setting = format!("{name} = {value}");
                    writeln!(text, "{setting:COMMENT_COLUMN$} # {}", key.source)
                }
                None => writeln!(text, "# {name} is not set"),
            };
        }
    }
}

impl EffectiveKey {
    fn of(section: &[String], key: KnownKey, document: &Document) -> Self {
        let KnownKey { name, value, is_secret } = key;
        let path: Vec<String> = section.iter().cloned().chain([name]).collect();
        let (value, source) = match value {
            KnownValue::Given(value) => (Some(value), EffectiveSource::Given(document.source_of(&path))),
            KnownValue::Default(value) => (Some(value), EffectiveSource::Default),
            KnownValue::Unset => (None, EffectiveSource::Unset),
        };
        let show = |value| if is_secret { Value::from(REDACTED) } else { without_password(value) };
        Self { key: path.join("."), value: value.map(show), source }
    }
}

impl std::fmt::Display for EffectiveSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Given(Source::File) => f.write_str("file"),
            Self::Given(Source::Environment(name)) => f.write_str(name),
            Self::Given(Source::Flag) => f.write_str("--set"),
            Self::Default => f.write_str("default"),
            Self::Unset => f.write_str("not set"),
        }
    }
}

/// An object: `{"from": "environment", "name": ".."}`.
impl Serialize for EffectiveSource {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (from, name) = match self {
            Self::Given(Source::File) => ("file", None),
            Self::Given(Source::Environment(name)) => ("environment", Some(name)),
            Self::Given(Source::Flag) => ("flag", None),
            Self::Default => ("default", None),
            Self::Unset => ("unset", None),
        };
        serializer.collect_map(
            [("from", Some(from)), ("name", name.map(String::as_str))]
                .into_iter()
                .filter(|(_, of)| of.is_some()),
        )
    }
}

/// A text that is a URL without what may be a password in it: everything before the last `@`, which a careless password
/// may have as well, and the values of parameters.
fn without_password(value: Value) -> Value {
    let Value::String(text) = &value else { return value };
    let Some((scheme, rest)) = text.split_once("://") else { return value };
    if user_may_end_in_parameters(rest) {
        return Value::from(format!("{scheme}://{REDACTED}"));
    }
    let (user, rest) = rest.rsplit_once('@').map_or((None, rest), |(user, rest)| (Some(user), rest));
    let (rest, parameters) = rest.split_once('?').unwrap_or((rest, ""));
    let user = match user {
        None => String::new(),
        Some(user) => match user.split_once(':') {
            Some((name, _)) => format!("{name}:{REDACTED}@"),
            None => format!("{REDACTED}@"),
        },
    };
    let parameters = parameters.split('&').filter(|of| !of.is_empty()).map(|of| {
        let name = of.split('=').next().unwrap_or_default();
        format!("{name}={REDACTED}")
    });
    let parameters = parameters.collect::<Vec<_>>().join("&");
    let mark = if parameters.is_empty() { "" } else { "?" };
    Value::from(format!("{scheme}://{user}{rest}{mark}{parameters}"))
}

/// An `@` after a `?`: of a password before the host, or of one in a parameter.
fn user_may_end_in_parameters(rest: &str) -> bool {
    rest.split_once('?').is_some_and(|(_, parameters)| parameters.contains('@'))
}

fn bare_or_quoted(name: &str) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    match !name.is_empty() && name.chars().all(is_bare) {
        true => name.to_owned(),
        false => Value::from(name).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn effective(text: &str, environment: &[(&str, &str)], flags: &[&str]) -> Effective {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let environment = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        let flags: Vec<String> = flags.iter().map(|f| (*f).to_owned()).collect();
        let document = Document::load(file.path(), environment, &flags).unwrap();
        let read = |mut root: Section| {
            root.text_or("worker_id", || "host".to_owned());
            for (_, mut region) in root.named_sections("regions") {
                region.required_text("stream");
                region.text("endpoint");
                region.finish();
            }
            let mut batch = root.section("batch");
            batch.integer("linger_ms", 0..=100, 20);
            batch.choice("mode", &[("fast", 1), ("slow", 2)], 2);
            batch.boolean("on", false);
            batch.texts("names");
            batch.finish();
            let mut redis = root.section("redis");
            redis.required_text("url");
            redis.secret("password");
            redis.secret("token");
            redis.finish();
            if let Some(master) = root.optional_section("master") {
                master.finish();
            }
            root.optional_named_sections("tables");
            root.finish();
        };
        read_effective(document, read).unwrap().1
    }

    #[test]
    fn every_key_is_shown_with_its_source_and_no_secret_is() {
        let shown = effective(
            "[regions.'eu.west']\nstream = 's'\n[redis]\nurl = 'redis://me:hunter2@cache/1?pass=hunter2'",
            &[("WARMCAST__REDIS__PASSWORD", "hunter2")],
            &["batch.linger_ms=7", "batch.names=[\"a\"]"],
        );
        let expected = r#"
worker_id = "host"                                   # default

[regions."eu.west"]
stream = "s"                                         # file
# endpoint is not set

[batch]
linger_ms = 7                                        # --set
mode = "slow"                                        # default
on = false                                           # default
names = ["a"]                                        # --set

[redis]
url = "redis://me:[redacted]@cache/1?pass=[redacted]" # file
password = "[redacted]"                              # WARMCAST__REDIS__PASSWORD
# token is not set

# [master] is not set

# [tables.NAME]: there is none
"#;
        assert_eq!(shown.to_toml(), expected.trim_start());
        assert!(shown.to_toml().parse::<toml::Table>().is_ok());
        let json = serde_json::to_value(&shown).unwrap();
        let of = |key: &str| json.as_array().unwrap().iter().find(|of| of["key"] == key).unwrap().clone();
        assert_eq!(
            of("redis.password"),
            serde_json::json!({"key": "redis.password", "value": "[redacted]",
                "source": {"from": "environment", "name": "WARMCAST__REDIS__PASSWORD"}})
        );
        assert_eq!(of("regions.eu.west.endpoint")["value"], serde_json::Value::Null);
        assert!(!format!("{shown:?}{json}").contains("hunter2"));
    }

    #[test]
    fn passwords_of_urls_are_not_shown_however_careless_they_are() {
        for (url, shown) in [
            ("redis://cache:6379", "redis://cache:6379"),
            ("redis://:p@ss/w@cache/2", "redis://:[redacted]@cache/2"),
            ("rediss+sentinel://u:p@a,b/main", "rediss+sentinel://u:[redacted]@a,b/main"),
            ("redis://token@cache", "redis://[redacted]@cache"),
            ("redis://cache?user=a&pass=p", "redis://cache?user=[redacted]&pass=[redacted]"),
            ("redis://cache:1?pass=p@ss", "redis://[redacted]"),
            ("redis://:p?@cache", "redis://[redacted]"),
            ("redis+unix:///run/redis", "redis+unix:///run/redis"),
            ("plain", "plain"),
        ] {
            assert_eq!(without_password(Value::from(url)), Value::from(shown), "{url}");
        }
    }
}
