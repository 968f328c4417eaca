//! A section of the configuration, read field by field; what is wrong is noted and reading goes on.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use toml::{Table, Value};

use super::Secret;
use super::known::{Known, SectionKind};

/// One thing that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The key, with its sections: `batch.linger_ms`.
    pub path: String,
    /// What is wrong and what is expected.
    pub message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

/// Everything that is wrong with a configuration; shared by the sections that note it.
#[derive(Clone, Debug, Default)]
pub struct Violations(Rc<RefCell<Vec<Violation>>>);

impl Violations {
    /// Notes one.
    pub fn note(&self, path: impl Into<String>, message: impl Into<String>) {
        self.0.borrow_mut().push(Violation { path: path.into(), message: message.into() });
    }

    /// Notes one about a key, unless the same was noted already: where a key is read more than once.
    pub fn note_once(&self, path: impl Into<String>, message: impl Into<String>) {
        let violation = Violation { path: path.into(), message: message.into() };
        let mut noted = self.0.borrow_mut();
        if !noted.contains(&violation) {
            noted.push(violation);
        }
    }

    /// `value` if nothing was noted, else all violations in the order in which they were found.
    ///
    /// # Errors
    /// When anything was noted.
    pub fn into_result<T>(self, value: T) -> Result<T, Vec<Violation>> {
        let noted = self.0.take();
        if noted.is_empty() { Ok(value) } else { Err(noted) }
    }
}

/// One table of the configuration. Fields are taken out of it; [`Section::finish`] notes what is left. It may
/// hold secrets, so it has no `Debug`.
pub struct Section {
    path: Vec<String>,
    table: Table,
    asked: BTreeSet<&'static str>,
    violations: Violations,
    known: Known,
    /// Its place there.
    place: usize,
    /// What the environment says of where AWS is.
    endpoints: Rc<BTreeMap<String, String>>,
}

impl Section {
    /// The whole document.
    pub fn root(table: Table, violations: &Violations) -> Self {
        let known = Known::default();
        let place = known.section(Vec::new(), SectionKind::Read);
        Self {
            path: Vec::new(),
            table,
            asked: BTreeSet::new(),
            violations: violations.clone(),
            known,
            place,
            endpoints: Rc::default(),
        }
    }

    /// Says what the environment says of where AWS is, by the variables' names.
    pub(super) fn with_endpoints(self, endpoints: &BTreeMap<String, String>) -> Self {
        Self { endpoints: Rc::new(endpoints.clone()), ..self }
    }

    /// The variable that tells the AWS SDK where a service is, if one is set, and its value. `service` is as such
    /// variables end.
    pub(super) fn endpoint_variable(&self, service: &str) -> Option<(String, String)> {
        let names = [format!("AWS_ENDPOINT_URL_{service}"), "AWS_ENDPOINT_URL".to_owned()];
        let mut set =
            names.into_iter().filter_map(|name| Some((name.clone(), self.endpoints.get(&name)?.clone())));
        set.next()
    }

    /// Notes something about a variable of the environment, once.
    pub(super) fn note_variable(&self, name: &str, message: impl Into<String>) {
        self.violations.note_once(name, message);
    }

    /// Its name, as it stands in brackets.
    pub(super) fn header(&self) -> String {
        format!("[{}]", self.path.join("."))
    }

    /// What will be read of the document through this section and those below it.
    pub(super) fn known(&self) -> Known {
        self.known.clone()
    }

    /// The full path of one of this section's keys.
    pub fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path.join(".")) }
    }

    /// Says what stands in for a key that was read and is not given, where that is decided outside.
    pub fn default_is(&self, name: &'static str, default: impl Into<Value>) {
        self.known.stands_in(self.place, name, default.into());
    }

    /// Notes something about one of this section's keys.
    pub fn note(&self, name: &str, message: impl Into<String>) {
        self.violations.note(self.path_of(name), message);
    }

    /// A section of this one; empty if it is not there.
    pub fn section(&mut self, name: &'static str) -> Section {
        self.asked.insert(name);
        let table = match self.table.remove(name) {
            None => Table::new(),
            Some(Value::Table(table)) => table,
            Some(other) => {
                self.note(name, format!("expected a section, found {}", kind(&other)));
                Table::new()
            }
        };
        self.child(name, table)
    }

    /// A section of this one, if it is there.
    pub fn optional_section(&mut self, name: &'static str) -> Option<Section> {
        self.asked.insert(name);
        if self.table.contains_key(name) {
            return Some(self.section(name));
        }
        self.known.section(self.path_with(name), SectionKind::Absent);
        None
    }

    /// The sections below a section, by name: `[regions.eu-west-1]` and so on. Notes it if there is none.
    pub fn named_sections(&mut self, name: &'static str) -> Vec<(String, Section)> {
        let sections = self.optional_named_sections(name);
        if sections.is_empty() {
            self.note(
                name,
                format!("at least one [{}] section is needed", self.path_of(&format!("{name}.NAME"))),
            );
        }
        sections
    }

    /// The sections below a section, by name, if there are any.
    pub fn optional_named_sections(&mut self, name: &'static str) -> Vec<(String, Section)> {
        let parent = self.section(name);
        if parent.table.is_empty() {
            self.known.section(parent.path_with("NAME"), SectionKind::NoNames);
        }
        let mut sections = Vec::new();
        for (child, value) in &parent.table {
            match value {
                Value::Table(table) => sections.push((child.clone(), parent.child(child, table.clone()))),
                other => parent.note(child, format!("expected a section, found {}", kind(other))),
            }
        }
        sections
    }

    /// A text, if it is there. Empty text is refused: it is always a mistake in a template.
    pub fn text(&mut self, name: &'static str) -> Option<String> {
        let text = self.text_even_empty(name)?;
        if text.trim().is_empty() {
            self.note(name, "must not be empty; leave the key out for the default");
            return None;
        }
        Some(text)
    }

    /// A text, if it is there, for which empty means something.
    pub fn text_even_empty(&mut self, name: &'static str) -> Option<String> {
        match self.take(name)? {
            Value::String(text) => Some(text),
            other => {
                self.note(name, format!("expected a string, found {}", kind(&other)));
                None
            }
        }
    }

    /// A text, or what stands in for it.
    pub fn text_or(&mut self, name: &'static str, default: impl FnOnce() -> String) -> String {
        self.text(name).unwrap_or_else(|| {
            let default = default();
            self.default_is(name, default.clone());
            default
        })
    }

    /// A text that must be there. The empty text stands in for a missing one, which is noted.
    pub fn required_text(&mut self, name: &'static str) -> String {
        let present = self.table.contains_key(name);
        let text = self.text(name);
        if !present {
            self.note(name, "is required");
        }
        text.unwrap_or_default()
    }

    /// A list of texts, if it is there; neither it nor any of them is empty.
    pub fn texts(&mut self, name: &'static str) -> Option<Vec<String>> {
        let expected = "expected a list of strings that are not empty; leave the key out for the default";
        let texts = match self.take(name)? {
            Value::Array(values) => values
                .into_iter()
                .map(|value| match value {
                    Value::String(text) if !text.trim().is_empty() => Some(text),
                    _ => None,
                })
                .collect::<Option<Vec<String>>>(),
            _ => None,
        };
        let texts = texts.filter(|texts| !texts.is_empty());
        if texts.is_none() {
            self.note(name, expected);
        }
        texts
    }

    /// A secret text, if it is there.
    pub fn secret(&mut self, name: &'static str) -> Option<Secret> {
        let secret = self.text(name).map(Secret::new);
        self.known.secret(self.place, name);
        secret
    }

    /// A secret text, if it is there: itself, or what is in the file that another key names, without the end of its line.
    /// The file is read now.
    pub fn secret_or_file(&mut self, name: &'static str, file_name: &'static str) -> Option<Secret> {
        let given = self.secret(name);
        let Some(file) = self.path(file_name) else { return given };
        if given.is_some() {
            self.note(file_name, format!("{name} is given, too: one of the two is enough"));
            return given;
        }
        match Secret::of_file(&file, SECRET_BYTES_MAX) {
            Ok(secret) => Some(secret),
            Err(error) => {
                self.note(file_name, format!("{}: {error}", file.display()));
                None
            }
        }
    }

    /// An `http://` or `https://` address, if it is there.
    pub fn http_url(&mut self, name: &'static str) -> Option<String> {
        let url = self.text(name)?;
        let host = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
        if host.is_none_or(|host| host.is_empty() || host.starts_with(['/', ':'])) {
            self.note(name, format!("expected http://HOST[:PORT] or https://HOST[:PORT], found {url:?}"));
            return None;
        }
        Some(url)
    }

    /// A directory or file, if it is there. `${CREDENTIALS_DIRECTORY}/` at its beginning is where systemd puts what a
    /// unit's `LoadCredential=` names.
    pub fn path(&mut self, name: &'static str) -> Option<PathBuf> {
        let text = self.text(name)?;
        let path = with_credentials_directory(&text, std::env::var_os("CREDENTIALS_DIRECTORY"));
        if path.is_none() {
            let missing = "CREDENTIALS_DIRECTORY is not set: systemd sets it for units with LoadCredential=";
            self.note(name, missing);
        }
        path
    }

    /// `true` or `false`.
    pub fn boolean(&mut self, name: &'static str, default: bool) -> bool {
        match self.take_or(name, default) {
            None => default,
            Some(Value::Boolean(value)) => value,
            Some(other) => {
                self.note(name, format!("expected true or false, found {}", kind(&other)));
                default
            }
        }
    }

    /// A whole number within `range`.
    pub fn integer(&mut self, name: &'static str, range: RangeInclusive<u64>, default: u64) -> u64 {
        let expected = || format!("expected a whole number from {} to {}", range.start(), range.end());
        match self.take_or(name, i64::try_from(default).unwrap_or(i64::MAX)) {
            None => default,
            Some(Value::Integer(value)) => match u64::try_from(value) {
                Ok(value) if range.contains(&value) => value,
                _ => {
                    self.note(name, format!("{}, found {value}", expected()));
                    default
                }
            },
            Some(other) => {
                self.note(name, format!("{}, found {}", expected(), kind(&other)));
                default
            }
        }
    }

    /// A whole number within `range` that must be there. The range's beginning stands in for what is noted.
    pub fn required_integer(&mut self, name: &'static str, range: RangeInclusive<u64>) -> u64 {
        if !self.table.contains_key(name) {
            self.asked.insert(name);
            self.note(name, "is required");
            return *range.start();
        }
        let start = *range.start();
        self.integer(name, range, start)
    }

    /// `true` or `false`, which must be there. `false` stands in for what is noted.
    pub fn required_boolean(&mut self, name: &'static str) -> bool {
        if !self.table.contains_key(name) {
            self.asked.insert(name);
            self.note(name, "is required");
            return false;
        }
        self.boolean(name, false)
    }

    /// A number within `range`, with a fraction or without. Without a default it must be there; the range's beginning
    /// stands in for what is noted.
    pub fn required_number(
        &mut self,
        name: &'static str,
        range: RangeInclusive<f64>,
        default: Option<f64>,
    ) -> f64 {
        let stand_in = default.unwrap_or_else(|| *range.start());
        let expected = || format!("expected a number from {} to {}", range.start(), range.end());
        let found = match self.take(name) {
            None => {
                match default {
                    Some(default) => self.default_is(name, default),
                    None => self.note(name, "is required"),
                }
                return stand_in;
            }
            Some(Value::Float(value)) if range.contains(&value) => return value,

            Some(Value::Integer(value)) if range.contains(&(value as f64)) => return value as f64,
            Some(Value::Float(value)) => value.to_string(),
            Some(Value::Integer(value)) => value.to_string(),
            Some(other) => kind(&other).to_owned(),
        };
        self.note(name, format!("{}, found {found}", expected()));
        stand_in
    }

    /// A whole number within `range`, as a size.
    pub fn size(&mut self, name: &'static str, range: RangeInclusive<usize>, default: usize) -> usize {
        let widen = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        let value = self.integer(name, widen(*range.start())..=widen(*range.end()), widen(default));
        usize::try_from(value).unwrap_or(default)
    }

    /// A number of milliseconds within `range`; the name ends in `_ms`.
    pub fn duration_ms(
        &mut self,
        name: &'static str,
        range: RangeInclusive<u64>,
        default_ms: u64,
    ) -> Duration {
        Duration::from_millis(self.integer(name, range, default_ms))
    }

    /// One of several words.
    pub fn choice<T: Clone + PartialEq>(
        &mut self,
        name: &'static str,
        choices: &[(&str, T)],
        default: T,
    ) -> T {
        let Some(word) = self.text(name) else {
            if let Some((word, _)) = choices.iter().find(|(_, choice)| *choice == default) {
                self.default_is(name, *word);
            }
            return default;
        };
        if let Some((_, value)) = choices.iter().find(|(choice, _)| *choice == word) {
            return value.clone();
        }
        let words: Vec<String> = choices.iter().map(|(choice, _)| format!("{choice:?}")).collect();
        self.note(name, format!("expected one of {}, found {word:?}", words.join(", ")));
        default
    }

    /// Notes every key that nobody asked for.
    pub fn finish(self) {
        for name in self.table.keys() {
            let known: Vec<&str> = self.asked.iter().copied().collect();
            self.note(name, format!("unknown key; known here: {}", known.join(", ")));
        }
    }

    fn take(&mut self, name: &'static str) -> Option<Value> {
        self.asked.insert(name);
        let value = self.table.remove(name);
        self.known.key(self.place, name, value.as_ref());
        value
    }

    /// As [`Section::take`], of a key that has a default.
    fn take_or(&mut self, name: &'static str, default: impl Into<Value>) -> Option<Value> {
        let value = self.take(name);
        self.default_is(name, default);
        value
    }

    fn child(&self, name: &str, table: Table) -> Section {
        let path = self.path_with(name);
        Section {
            place: self.known.section(path.clone(), SectionKind::Read),
            path,
            table,
            asked: BTreeSet::new(),
            violations: self.violations.clone(),
            known: self.known.clone(),
            endpoints: Rc::clone(&self.endpoints),
        }
    }

    fn path_with(&self, name: &str) -> Vec<String> {
        self.path.iter().cloned().chain([name.to_owned()]).collect()
    }
}

/// The largest file that is taken for one with a secret.
const SECRET_BYTES_MAX: u64 = 64 << 10;

fn with_credentials_directory(text: &str, directory: Option<OsString>) -> Option<PathBuf> {
    match text.strip_prefix("${CREDENTIALS_DIRECTORY}/") {
        None => Some(PathBuf::from(text)),
        Some(rest) => Some(PathBuf::from(directory?).join(rest)),
    }
}

/// What a value is, without showing it: it may be a secret in the wrong place.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a string",
        Value::Integer(_) => "a whole number",
        Value::Float(_) => "a fraction",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "a list",
        Value::Table(_) => "a section",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(text: &str) -> (Section, Violations) {
        let violations = Violations::default();
        (Section::root(text.parse().unwrap(), &violations), violations)
    }

    #[test]
    fn every_violation_of_a_file_is_reported_with_its_path() {
        let (mut root, violations) = section(
            "a = 1\nurl = 'localhost'\nempty = ''\nsurprise = 2\n[batch]\nlinger_ms = -5\nmode = 'fast'\nlate = true",
        );
        assert_eq!(root.text("a"), None);
        assert_eq!(root.http_url("url"), None);
        assert_eq!(root.text("empty"), None);
        assert_eq!(root.required_text("missing"), "");
        let mut batch = root.section("batch");
        assert_eq!(batch.duration_ms("linger_ms", 0..=1_000, 7), Duration::from_millis(7));
        assert_eq!(batch.choice("mode", &[("x", 1), ("y", 2)], 3), 3);
        batch.finish();
        assert!(root.named_sections("regions").is_empty());
        root.finish();
        let noted = violations.into_result(()).unwrap_err();
        let paths: Vec<&str> = noted.iter().map(|v| v.path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "a",
                "url",
                "empty",
                "missing",
                "batch.linger_ms",
                "batch.mode",
                "batch.late",
                "regions",
                "surprise"
            ]
        );
        assert_eq!(noted[4].message, "expected a whole number from 0 to 1000, found -5");
        assert_eq!(noted[6].message, "unknown key; known here: linger_ms, mode");
    }

    #[test]
    fn lists_and_sections_may_be_missing_but_not_empty() {
        let (mut root, violations) =
            section("good = ['a', 'b']\nempty = []\nmixed = ['a', 1]\n[there]\n[tables.a]\n[tables.b]");
        assert_eq!(root.texts("good").unwrap(), ["a", "b"]);
        assert_eq!(root.texts("missing"), None);
        assert_eq!((root.texts("empty"), root.texts("mixed")), (None, None));
        assert!(root.optional_section("there").is_some() && root.optional_section("nowhere").is_none());
        assert_eq!(root.optional_named_sections("tables").len(), 2);
        assert!(root.optional_named_sections("others").is_empty());
        root.finish();
        let noted = violations.into_result(()).unwrap_err();
        assert_eq!(noted.iter().map(|v| v.path.as_str()).collect::<Vec<_>>(), ["empty", "mixed"]);
    }

    #[test]
    fn values_of_the_wrong_type_are_not_shown() {
        let (mut root, violations) = section("number = 'hunter2'\nlist = ['hunter2']");
        root.integer("number", 0..=1, 0);
        root.secret("list");
        root.finish();
        let noted = violations.into_result(()).unwrap_err();
        assert_eq!(noted.len(), 2);
        assert!(!format!("{noted:?}").contains("hunter2"));
    }

    #[test]
    fn secrets_do_not_show_in_debug() {
        let (mut root, _) = section("password = 'hunter2'");
        let secret = root.secret("password");
        assert!(!format!("{secret:?}").contains("hunter2"));
        assert_eq!(secret.unwrap().expose(), "hunter2");
    }

    #[test]
    fn a_secret_is_itself_or_what_its_file_has_and_not_both() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "from-file\n").unwrap();
        let file = file.path().display();
        let read = |text: &str| {
            let (mut root, violations) = section(text);
            let secret = root.secret_or_file("password", "password_file");
            (secret.map(|secret| secret.expose().to_owned()), violations.into_result(()).is_ok())
        };
        assert_eq!(read(""), (None, true));
        assert_eq!(read("password = 'given'"), (Some("given".to_owned()), true));
        assert_eq!(read(&format!("password_file = '{file}'")), (Some("from-file".to_owned()), true));
        assert_eq!(
            read(&format!("password = 'given'\npassword_file = '{file}'")),
            (Some("given".to_owned()), false)
        );
        assert_eq!(read("password_file = '/does/not/exist'"), (None, false));
    }

    #[test]
    fn paths_may_begin_where_systemd_puts_credentials() {
        let there = || Some(OsString::from("/run/credentials/warmcast"));
        let path = |text, directory| with_credentials_directory(text, directory);
        assert_eq!(path("/etc/secret", None), Some("/etc/secret".into()));
        let named = "${CREDENTIALS_DIRECTORY}/redis";
        assert_eq!(path(named, there()), Some("/run/credentials/warmcast/redis".into()));
        assert_eq!(path(named, None), None);
    }
}
