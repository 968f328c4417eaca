//! The three layers of a configuration, merged into one tree: file, then environment, then flags.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

/// Environment variables with this prefix set keys: `WARMCAST__BATCH__LINGER_MS=20` sets `batch.linger_ms`.
const ENVIRONMENT_PREFIX: &str = "WARMCAST__";

/// Environment variables with this prefix tell the AWS SDK where services are.
const ENDPOINT_PREFIX: &str = "AWS_ENDPOINT_URL";

/// A merged configuration, not yet looked into. It may hold secrets, so it has no `Debug`.
#[derive(Clone, Default)]
pub struct Document {
    root: Table,
    /// What the layers above the file have set, the last one last.
    set: Vec<(Vec<String>, Source)>,
    /// What the environment says of where AWS is, by the variables' names.
    endpoints: BTreeMap<String, String>,
}

/// Where a key's value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The configuration file.
    File,
    /// The environment variable of this name.
    Environment(String),
    /// A flag, `--set`.
    Flag,
}

/// Why a configuration could not be read at all.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file could not be opened.
    #[error("configuration file {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("configuration file {path}, line {line}, is not valid TOML: {message}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, counted from one.
        line: usize,
        /// Why. The text of the line is left out: it may hold a secret.
        message: String,
    },
    /// `--set` without a key or a value.
    #[error("--set {given:?}: expected key.path=value, for example --set batch.linger_ms=20")]
    Flag {
        /// What was given.
        given: String,
    },
    /// A layer sets a key below one that holds a plain value.
    #[error("{layer}: {path} cannot be set: {parent} is a value, not a section")]
    NotASection {
        /// Which layer tried.
        layer: &'static str,
        /// The key it wanted to set.
        path: String,
        /// The key that is in the way.
        parent: String,
    },
}

impl Document {
    /// Reads `file` and overlays `environment` (only names that begin with `WARMCAST__`), then `flags`, each
    /// `key.path=value`. Of the environment it also keeps where the AWS SDK is told that services are.
    ///
    /// A value is read as TOML where it is TOML (`20`, `true`, `["a"]`), else as a string. In an environment
    /// name `__` separates keys; a segment finds an existing key that differs only in case and punctuation, so
    /// `WARMCAST__REGIONS__EU_WEST_1__STREAM` sets `regions.eu-west-1.stream`.
    ///
    /// # Errors
    /// When the file cannot be read or parsed, or a layer names a key below a plain value.
    pub fn load(
        file: &Path,
        environment: impl IntoIterator<Item = (String, String)>,
        flags: &[String],
    ) -> Result<Self, LoadError> {
        let text = std::fs::read_to_string(file)
            .map_err(|source| LoadError::File { path: file.to_owned(), source })?;
        let mut document = Self::parse(&text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start);
            let line = text.bytes().take(start).filter(|&byte| byte == b'\n').count() + 1;
            LoadError::Syntax { path: file.to_owned(), line, message: error.message().to_owned() }
        })?;
        let mut variables: Vec<_> = environment.into_iter().collect();
        variables.sort();
        for (name, value) in variables {
            if let Some(path) = name.strip_prefix(ENVIRONMENT_PREFIX) {
                let path: Vec<&str> = path.split("__").collect();
                document.set(&Source::Environment(name.clone()), &path, &value)?;
            } else if name.starts_with(ENDPOINT_PREFIX) {
                document.endpoints.insert(name, value);
            }
        }
        for flag in flags {
            let (path, value) = flag
                .split_once('=')
                .filter(|(path, _)| !path.is_empty())
                .ok_or_else(|| LoadError::Flag { given: flag.clone() })?;
            let path: Vec<&str> = path.split('.').collect();
            document.set(&Source::Flag, &path, value)?;
        }
        Ok(document)
    }

    /// Parses the text of a file alone.
    ///
    /// # Errors
    /// When it is not TOML.
    pub fn parse(text: &str) -> Result<Self, toml::de::Error> {
        Ok(Self { root: text.parse()?, ..Self::default() })
    }

    /// Where the value of a key that is there comes from.
    pub fn source_of(&self, path: &[String]) -> Source {
        let is_of = |(set, _): &&(Vec<String>, Source)| path.starts_with(set);
        self.set.iter().rev().find(is_of).map_or(Source::File, |(_, source)| source.clone())
    }

    /// What the environment says of where AWS is: `AWS_ENDPOINT_URL`, `AWS_ENDPOINT_URL_KINESIS` and so on.
    pub(super) const fn endpoints(&self) -> &BTreeMap<String, String> {
        &self.endpoints
    }

    /// The tree.
    pub fn into_root(self) -> Table {
        self.root
    }

    fn set(&mut self, source: &Source, path: &[&str], text: &str) -> Result<(), LoadError> {
        let Some((last, sections)) = path.split_last() else { return Ok(()) };
        let mut set_path = Vec::with_capacity(path.len());
        let mut table = &mut self.root;
        for (depth, segment) in sections.iter().enumerate() {
            let key = matching_key(table, segment);
            set_path.push(key.clone());
            let entry = table.entry(key).or_insert_with(|| Value::Table(Table::new()));
            table = match entry {
                Value::Table(inner) => inner,
                _ => {
                    return Err(LoadError::NotASection {
                        layer: source.layer(),
                        path: path.join("."),
                        parent: path.iter().take(depth + 1).copied().collect::<Vec<_>>().join("."),
                    });
                }
            };
        }
        let key = matching_key(table, last);
        set_path.push(key.clone());
        table.insert(key, scalar(text));
        self.set.push((set_path, source.clone()));
        Ok(())
    }
}

impl Source {
    const fn layer(&self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Environment(_) => "environment",
            Self::Flag => "flags",
        }
    }
}

/// The key of `table` that `segment` means: the same but for case and punctuation, else `segment` in lower case.
fn matching_key(table: &Table, segment: &str) -> String {
    let plain = |key: &str| key.to_ascii_lowercase().replace(|c: char| !c.is_ascii_alphanumeric(), "_");
    if table.contains_key(segment) {
        return segment.to_owned();
    }
    let wanted = plain(segment);
    table.keys().find(|key| plain(key) == wanted).cloned().unwrap_or_else(|| segment.to_ascii_lowercase())
}

/// A value as TOML reads it, or the text itself.
fn scalar(text: &str) -> Value {
    format!("value = {text}")
        .parse::<Table>()
        .ok()
        .filter(|table| table.len() == 1)
        .and_then(|mut table| table.remove("value"))
        .unwrap_or_else(|| Value::String(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str, environment: &[(&str, &str)], flags: &[&str]) -> Result<Table, LoadError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let environment = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        let flags: Vec<String> = flags.iter().map(|f| (*f).to_owned()).collect();
        Document::load(file.path(), environment, &flags).map(Document::into_root)
    }

    #[test]
    fn flags_win_over_the_environment_and_the_environment_over_the_file() {
        let root = load(
            "[batch]\nlinger_ms = 1\nbuckets = 2\ncompression = 'zstd'",
            &[("WARMCAST__BATCH__LINGER_MS", "10"), ("WARMCAST__BATCH__BUCKETS", "20"), ("PATH", "/bin")],
            &["batch.linger_ms=100"],
        )
        .unwrap();
        assert_eq!(root, "[batch]\nlinger_ms = 100\nbuckets = 20\ncompression = 'zstd'".parse().unwrap());
    }

    #[test]
    fn the_environment_finds_keys_with_punctuation_and_makes_missing_sections() {
        let root = load(
            "[regions.eu-west-1]\nstream = 'a'",
            &[("WARMCAST__REGIONS__EU_WEST_1__STREAM", "b"), ("WARMCAST__LOG__LEVEL", "debug")],
            &[],
        )
        .unwrap();
        assert_eq!(root, "[regions.eu-west-1]\nstream = 'b'\n[log]\nlevel = 'debug'".parse().unwrap());
    }

    #[test]
    fn the_layer_that_set_a_key_last_is_where_its_value_comes_from() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "[regions.eu-west-1]\nstream = 'a'\nconnections = 1").unwrap();
        let name = "WARMCAST__REGIONS__EU_WEST_1__STREAM".to_owned();
        let table = "WARMCAST__LOG".to_owned();
        let environment = [(name.clone(), "b".to_owned()), (table.clone(), "{level = 'info'}".to_owned())];
        let document = Document::load(file.path(), environment, &["log.format=json".to_owned()]).unwrap();
        let source = |path: &str| document.source_of(&path.split('.').map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(source("regions.eu-west-1.stream"), Source::Environment(name));
        assert_eq!(source("regions.eu-west-1.connections"), Source::File);
        assert_eq!(source("log.level"), Source::Environment(table));
        assert_eq!(source("log.format"), Source::Flag);
    }

    #[test]
    fn text_that_is_not_toml_is_a_string_and_cannot_add_keys() {
        let root = load("", &[], &["a=http://x:1", "b=1\nc = 2", "d=true"]).unwrap();
        assert_eq!(root.get("a").unwrap().as_str(), Some("http://x:1"));
        assert_eq!(root.get("b").unwrap().as_str(), Some("1\nc = 2"));
        assert_eq!(root.get("d").unwrap().as_bool(), Some(true));
        assert!(!root.contains_key("c"));
    }

    #[test]
    fn mistakes_in_the_layers_are_named() {
        assert!(matches!(load("a = 1", &[], &["a.b=1"]), Err(LoadError::NotASection { .. })));
        assert!(matches!(load("", &[], &["a"]), Err(LoadError::Flag { .. })));
        let syntax = load("a = 1\npassword = hunter2", &[], &[]).unwrap_err();
        assert!(matches!(syntax, LoadError::Syntax { line: 2, .. }), "{syntax}");
        assert!(!format!("{syntax} {syntax:?}").contains("hunter2"));
        let missing = Document::load(Path::new("/does/not/exist.toml"), [], &[]).err().unwrap();
        assert!(missing.to_string().contains("/does/not/exist.toml"), "{missing}");
    }
}
