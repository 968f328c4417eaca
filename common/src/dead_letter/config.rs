//! The `[dead_letters]` section.

use std::path::PathBuf;
use std::time::Duration;

use crate::config::Section;
use crate::consumer::store::StateConfig;

/// Where dead letters are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetterConfig {
    /// The store, as configured.
    pub store: StoreConfig,
}

/// A store of dead letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreConfig {
    /// A DynamoDB table, in the region and with the credentials of the state table.
    Table {
        /// Its name.
        table: String,
        /// Whether to create it, and to switch its Time to Live on, if that is missing.
        create: bool,
        /// How long a letter stays after it was last set aside: whole days.
        retention: Duration,
    },
    /// A directory of this machine.
    Directory {
        /// Where; it is created if it is missing.
        directory: PathBuf,
        /// The most bytes of all files together; the oldest letters go first. At least 32 MiB, so that it holds any
        /// letter.
        bytes_max: u64,
    },
}

const DAY_S: u64 = 24 * 3_600;

impl DeadLetterConfig {
    /// Takes the section's fields. The defaults of the table come from the state table's.
    pub fn read(mut section: Section, state: &StateConfig, default_directory: &str) -> Self {
        let is_table = section.choice("store", &[("table", true), ("directory", false)], true);
        let table = section.text_or("table", || format!("{}-dead-letters", state.table));
        let create = section.boolean("create", state.create);
        let retention_days = section.integer("retention_days", 1..=3_650, 30);
        let directory = PathBuf::from(section.text_or("directory", || default_directory.to_owned()));
        let bytes_max = section.integer("bytes_max", 32 << 20..=1 << 40, 256 << 20);
        if table == state.table {
            section.note("table", "must not be the state table");
        }
        section.finish();
        let store = if is_table {
            StoreConfig::Table { table, create, retention: Duration::from_secs(retention_days * DAY_S) }
        } else {
            StoreConfig::Directory { directory, bytes_max }
        };
        Self { store }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Violations;

    fn read(text: &str) -> Result<StoreConfig, Vec<String>> {
        let violations = Violations::default();
        let state = StateConfig { table: "state".to_owned(), create: true };
        let section = Section::root(text.parse().unwrap(), &violations);
        let config = DeadLetterConfig::read(section, &state, "/letters");
        violations.into_result(config.store).map_err(|noted| noted.into_iter().map(|v| v.path).collect())
    }

    #[test]
    fn the_default_is_a_table_beside_the_state_table() {
        let retention = Duration::from_secs(30 * DAY_S);
        let expected = StoreConfig::Table { table: "state-dead-letters".to_owned(), create: true, retention };
        assert_eq!(read("").unwrap(), expected);
        let text = "table = 'letters'\ncreate = false\nretention_days = 7";
        let retention = Duration::from_secs(7 * DAY_S);
        let expected = StoreConfig::Table { table: "letters".to_owned(), create: false, retention };
        assert_eq!(read(text).unwrap(), expected);
        let expected = StoreConfig::Directory { directory: "/letters".into(), bytes_max: 256 << 20 };
        assert_eq!(read("store = 'directory'").unwrap(), expected);
    }

    #[test]
    fn every_violation_is_noted() {
        let wrong =
            "store = 'tape'\ntable = 'state'\nretention_days = 0\nbytes_max = 1\ndirectory = ''\nx = 1";
        let mut paths = read(wrong).unwrap_err();
        paths.sort();
        assert_eq!(paths, ["bytes_max", "directory", "retention_days", "store", "table", "x"]);
    }
}
