//! The verdict: every row of the tables against every region's Redis, attribute by attribute, and every entry
//! of every Redis against the tables.
//!
//! It reads like a stranger would: a consistent Scan of each table, plain SCAN and GET of Redis. Nothing that
//! the daemons report is believed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::DisplayErrorContext;
use redis::aio::MultiplexedConnection;
use tokio::time::{Instant, sleep};
use warmcast_proto::entry::EntryKind;

use crate::entry::{self, Entry};
use crate::profile::VERSION_ATTRIBUTE;
use crate::row::{self, Row, Value};
use crate::workload::{Expected, Ledger};
use crate::world::{KEY_ATTRIBUTE, Region, World};

/// Without any mismatch less in this time, the regions have not agreed and will not.
const PROGRESS_PATIENCE: Duration = Duration::from_secs(30);
/// A flushed cache in which nothing more has turned up for this long holds what it is going to hold.
const REFILL_PATIENCE: Duration = Duration::from_secs(2);
/// Between two looks at the keys that do not agree yet.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// Mismatches kept with both states, for the report.
const EXPLAINED_MAX: usize = 5;
/// A long value is cut in the report.
const VALUE_CHARS_MAX: usize = 160;

/// Why no verdict could be reached.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The table cannot be read.
    #[error("cannot scan the table {table}: {reason}")]
    Scan {
        /// The table.
        table: String,
        /// What DynamoDB answered.
        reason: String,
    },
    /// A region's Redis cannot be read.
    #[error("cannot read the Redis of {region}: {source}")]
    Redis {
        /// The region.
        region: String,
        /// What Redis answered.
        source: redis::RedisError,
    },
}

/// Every row that the tables hold, by its Redis key.
pub type Rows = BTreeMap<Vec<u8>, Row>;

/// One region's agreement with the tables.
#[derive(Clone, Debug, Default)]
pub struct Comparison {
    /// The region.
    pub region: String,
    /// Rows of the tables that were compared.
    pub rows: usize,
    /// Of these, rows equal in every attribute.
    pub equal: usize,
    /// Of the equal ones, those that a reader's miss brought in, not the stream.
    pub filled: usize,
    /// Rows that are a miss in a cache that was flushed: nobody asked for them since. In any other cache they are
    /// mismatches.
    pub missing: usize,
    /// Keys without a row whose entry says so: tombstones, and what a reader's miss found.
    pub tombstones: usize,
    /// Keys without a row that are a miss (always safe).
    pub absent: usize,
    /// Keys that do not agree.
    pub mismatches: usize,
    /// The first mismatches in words.
    pub explained: Vec<String>,
}

impl Comparison {
    /// Whether the region agrees in everything.
    #[must_use]
    pub fn agrees(&self) -> bool {
        self.mismatches == 0
    }
}

/// How a key's entry contradicts the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// The table has a row; the cache shows none.
    Missing {
        /// What the cache has.
        found: Entry,
    },
    /// Both have a row, with other attributes.
    Different {
        /// Name, the table's value, the cache's value.
        attributes: Vec<(String, Option<Value>, Option<Value>)>,
    },
    /// The table has no row; the cache does not say so.
    NotDeleted {
        /// What the cache has.
        found: Entry,
    },
}

/// Compares what the table holds for a key with what the cache holds.
#[must_use]
pub fn judge(row: Option<&Row>, entry: &Entry) -> Option<Mismatch> {
    match (row, entry) {
        (Some(row), Entry::Live { row: cached, .. } | Entry::Filled { row: cached, .. }) => {
            let attributes = differences(row, cached);
            (!attributes.is_empty()).then_some(Mismatch::Different { attributes })
        }
        (Some(_), found) => Some(Mismatch::Missing { found: found.clone() }),
        (None, Entry::Absent | Entry::Expired { .. }) => None,
        (None, Entry::Marker { kind: EntryKind::Tombstone | EntryKind::Negative, .. }) => None,
        (None, found) => Some(Mismatch::NotDeleted { found: found.clone() }),
    }
}

fn differences(row: &Row, cached: &Row) -> Vec<(String, Option<Value>, Option<Value>)> {
    let names: BTreeSet<&String> = row.keys().chain(cached.keys()).collect();
    let pairs =
        names.into_iter().map(|name| (name.clone(), row.get(name).cloned(), cached.get(name).cloned()));
    pairs.filter(|(_, table, cache)| table != cache).collect()
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { found } => write!(f, "in the table, but the cache has {}", shown(found)),
            Self::NotDeleted { found } => write!(f, "not in the table, but the cache has {}", shown(found)),
            Self::Different { attributes } => {
                f.write_str("differs in")?;
                for (name, table, cache) in attributes {
                    write!(f, "\n      {name}: table {}, cache {}", shown(table), shown(cache))?;
                }
                Ok(())
            }
        }
    }
}

fn shown(value: &impl fmt::Debug) -> String {
    let text = format!("{value:?}");
    match text.char_indices().nth(VALUE_CHARS_MAX) {
        Some((cut, _)) => format!("{}…", text.get(..cut).unwrap_or_default()),
        None => text,
    }
}

/// Reads every row of the tables with consistent Scans. Nobody may be writing.
///
/// # Errors
/// DynamoDB refuses.
pub async fn read_tables(client: &Client, tables: &[String]) -> Result<Rows, VerifyError> {
    let mut rows = Rows::new();
    for table in tables {
        let failed = |reason| VerifyError::Scan { table: table.clone(), reason };
        let mut pages = client.scan().table_name(table).consistent_read(true).into_paginator().items().send();
        while let Some(item) = pages.next().await {
            let item = item.map_err(|error| failed(DisplayErrorContext(error).to_string()))?;
            let row = row::from_dynamodb(&item);
            let Some(Value::Text(key)) = row.get(KEY_ATTRIBUTE) else {
                return Err(failed(format!("a row without the key attribute {KEY_ATTRIBUTE}")));
            };
            rows.insert(entry::redis_key(table, key), row);
        }
    }
    Ok(rows)
}

/// What the writers know against what the table holds: in a sound sandbox they are the same.
#[must_use]
pub fn check_ledger(table: &str, ledger: &Ledger, rows: &Rows) -> Vec<String> {
    let mut findings = Vec::new();
    for (key, expected) in ledger {
        let version = rows.get(&entry::redis_key(table, key)).map(|row| row.get(VERSION_ATTRIBUTE).cloned());
        let agrees = match (expected, &version) {
            (Expected::Deleted, None) => true,
            (Expected::Row { version: expected }, Some(Some(Value::Number(number)))) => {
                number.as_u64() == Some(*expected)
            }
            _ => false,
        };
        if !agrees {
            findings.push(format!("{key}: written {expected:?}, the table has {version:?}"));
        }
    }
    findings
}

/// Waits until a region shows all rows, as long as the number of mismatches falls, and compares everything.
/// `deleted` are keys known to have no row any more.
///
/// # Errors
/// Redis does not answer.
pub async fn compare_region(
    region: &Region,
    rows: &Rows,
    deleted: &BTreeSet<Vec<u8>>,
) -> Result<Comparison, VerifyError> {
    let failed = |source| VerifyError::Redis { region: region.name().to_owned(), source };
    let mut connection = region.redis().connect().await.map_err(failed)?;
    let expected = Expectation { rows, deleted, misses_allowed: region.redis().was_flushed() };
    let mut look = expected.look_at_all(&mut connection).await.map_err(failed)?;
    let mut progress = Instant::now();
    let mut fewest = look.open.len();
    while !look.open.is_empty() && progress.elapsed() < look.patience() {
        // The changes pass through other processes; what is in Redis can only be learnt by asking.
        sleep(LOOK_INTERVAL).await;
        let keys = std::mem::take(&mut look.open);
        look = expected.look_at(&mut connection, keys).await.map_err(failed)?;
        if look.open.is_empty() {
            // Everything has come; now once more from the start, for the final counts.
            look = expected.look_at_all(&mut connection).await.map_err(failed)?;
        }
        if look.open.len() < fewest {
            fewest = look.open.len();
            progress = Instant::now();
        }
    }
    if !look.open.is_empty() {
        look = expected.look_at_all(&mut connection).await.map_err(failed)?;
    }
    Ok(Comparison { region: region.name().to_owned(), rows: rows.len(), ..look.counts })
}

/// Compares every region of the world.
///
/// # Errors
/// A table or a Redis cannot be read.
pub async fn compare_world(world: &World, ledger: &Ledger) -> Result<Vec<Comparison>, VerifyError> {
    let rows = read_tables(&world.dynamodb(), world.tables()).await?;
    compare_rows(world, &rows, ledger).await
}

/// As [`compare_world`], with the rows already read.
///
/// # Errors
/// A Redis cannot be read.
pub async fn compare_rows(
    world: &World,
    rows: &Rows,
    ledger: &Ledger,
) -> Result<Vec<Comparison>, VerifyError> {
    let table = world.tables().first().map_or("", String::as_str);
    let deleted = ledger.iter().filter(|(_, expected)| **expected == Expected::Deleted);
    let deleted = deleted.map(|(key, _)| entry::redis_key(table, key)).collect();
    let mut comparisons = Vec::new();
    for region in world.regions() {
        comparisons.push(compare_region(region, rows, &deleted).await?);
    }
    Ok(comparisons)
}

/// What a region's cache is held against.
struct Expectation<'a> {
    rows: &'a Rows,
    deleted: &'a BTreeSet<Vec<u8>>,
    misses_allowed: bool,
}

/// Counts of one look, and the keys that may still change for the better: those that do not agree, or are missing.
#[derive(Default)]
struct Look {
    counts: Comparison,
    open: Vec<Vec<u8>>,
}

impl Look {
    fn patience(&self) -> Duration {
        if self.counts.agrees() { REFILL_PATIENCE } else { PROGRESS_PATIENCE }
    }
}

impl Expectation<'_> {
    async fn look_at_all(&self, connection: &mut MultiplexedConnection) -> redis::RedisResult<Look> {
        let mut keys = entry::all_redis_keys(connection).await?;
        keys.extend(self.rows.keys().cloned());
        keys.extend(self.deleted.iter().cloned());
        self.look_at(connection, keys.into_iter().collect()).await
    }

    async fn look_at(
        &self,
        connection: &mut MultiplexedConnection,
        keys: Vec<Vec<u8>>,
    ) -> redis::RedisResult<Look> {
        let entries = entry::get_many(connection, &keys).await?;
        let mut look = Look::default();
        for (key, entry) in keys.into_iter().zip(entries) {
            self.note(key, &entry, &mut look);
        }
        Ok(look)
    }

    fn note(&self, key: Vec<u8>, entry: &Entry, look: &mut Look) {
        let row = self.rows.get(&key);
        let counts = &mut look.counts;
        match judge(row, entry) {
            Some(_) if self.misses_allowed && entry.is_miss() => {
                // Without a row, a reader's hold or what is left of it.
                counts.missing += usize::from(row.is_some());
                look.open.push(key);
            }
            Some(mismatch) => {
                counts.mismatches += 1;
                if counts.explained.len() < EXPLAINED_MAX {
                    counts.explained.push(format!("{}: {mismatch}", String::from_utf8_lossy(&key)));
                }
                look.open.push(key);
            }
            None if row.is_some() => {
                counts.equal += 1;
                counts.filled += usize::from(matches!(entry, Entry::Filled { .. }));
            }
            None if entry.is_miss() => counts.absent += 1,
            None => counts.tombstones += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use warmcast_proto::position::Position;

    use super::*;
    use crate::row::Number;

    fn row(version: &str) -> Row {
        [
            (KEY_ATTRIBUTE.to_owned(), Value::Text("ck".to_owned())),
            (VERSION_ATTRIBUTE.to_owned(), Value::Number(Number::parse(version))),
        ]
        .into()
    }

    fn live(row: Row) -> Entry {
        Entry::Live { position: Position::ZERO, row }
    }

    fn marker(kind: EntryKind) -> Entry {
        Entry::Marker { kind, position: Position::ZERO }
    }

    fn expired(kind: EntryKind) -> Entry {
        Entry::Expired { kind, position: Position::ZERO }
    }

    #[test]
    fn equal_rows_agree() {
        assert_eq!(judge(Some(&row("3")), &live(row("3.0"))), None);
    }

    #[test]
    fn a_filled_row_is_compared_as_a_live_one() {
        let filled = |version| Entry::Filled { position: Position::ZERO, row: row(version) };
        assert_eq!(judge(Some(&row("3")), &filled("3.0")), None);
        assert!(matches!(judge(Some(&row("3")), &filled("2")), Some(Mismatch::Different { .. })));
        assert!(matches!(judge(None, &filled("2")), Some(Mismatch::NotDeleted { .. })));
    }

    #[test]
    fn a_flushed_cache_may_miss_rows_but_have_none_wrong() {
        let key = |name: &str| entry::redis_key("t", name);
        let rows: Rows = ["a", "b", "c", "d"].map(|name| (key(name), row("3"))).into();
        let found = [
            ("a", live(row("3"))),
            ("b", Entry::Absent),
            ("c", marker(EntryKind::Held)),
            ("d", live(row("2"))),
            ("gone", marker(EntryKind::Invalid)),
        ];
        let look = |misses_allowed| {
            let expected = Expectation { rows: &rows, deleted: &BTreeSet::new(), misses_allowed };
            let mut look = Look::default();
            found.iter().for_each(|(name, entry)| expected.note(key(name), entry, &mut look));
            look.counts
        };
        let (flushed, sound) = (look(true), look(false));
        assert_eq!((flushed.equal, flushed.missing, flushed.mismatches), (1, 2, 1));
        assert!(flushed.explained[0].starts_with("t:d"), "{flushed:?}");
        assert_eq!((sound.equal, sound.missing, sound.mismatches), (1, 0, 4));
    }

    #[test]
    fn an_older_row_is_a_mismatch_that_names_the_attribute() {
        let mismatch = judge(Some(&row("3")), &live(row("2"))).unwrap();
        let text = mismatch.to_string();
        assert!(text.contains("version: table Some(Number(3)), cache Some(Number(2))"), "{text}");
        assert!(!text.contains(KEY_ATTRIBUTE), "{text}");
    }

    #[test]
    fn an_attribute_more_or_less_is_a_mismatch() {
        let mut more = row("3");
        more.insert("extra".to_owned(), Value::Null);
        assert!(matches!(judge(Some(&row("3")), &live(more.clone())), Some(Mismatch::Different { .. })));
        assert!(matches!(judge(Some(&more), &live(row("3"))), Some(Mismatch::Different { .. })));
    }

    #[test]
    fn a_row_must_be_live_in_the_cache() {
        for found in [
            Entry::Absent,
            marker(EntryKind::Tombstone),
            marker(EntryKind::Negative),
            marker(EntryKind::Invalid),
            marker(EntryKind::Held),
            expired(EntryKind::Live),
            Entry::Undecodable("x".to_owned()),
        ] {
            assert!(matches!(judge(Some(&row("1")), &found), Some(Mismatch::Missing { .. })), "{found:?}");
        }
    }

    #[test]
    fn a_deleted_key_must_be_absent_or_known_absent() {
        for known in [
            Entry::Absent,
            marker(EntryKind::Tombstone),
            marker(EntryKind::Negative),
            expired(EntryKind::Filled),
            expired(EntryKind::Negative),
        ] {
            assert_eq!(judge(None, &known), None);
        }
        for wrong in [
            live(row("1")),
            marker(EntryKind::Invalid),
            marker(EntryKind::Held),
            Entry::Undecodable("x".to_owned()),
        ] {
            assert!(matches!(judge(None, &wrong), Some(Mismatch::NotDeleted { .. })), "{wrong:?}");
        }
    }

    #[test]
    fn the_writers_knowledge_is_held_against_the_table() {
        let rows: Rows =
            [(entry::redis_key("t", "a"), row("3")), (entry::redis_key("t", "b"), row("1"))].into();
        let sound: Ledger =
            [("a".to_owned(), Expected::Row { version: 3 }), ("c".to_owned(), Expected::Deleted)].into();
        assert!(check_ledger("t", &sound, &rows).is_empty());
        let unsound: Ledger = [
            ("a".to_owned(), Expected::Row { version: 4 }),
            ("b".to_owned(), Expected::Deleted),
            ("c".to_owned(), Expected::Row { version: 1 }),
        ]
        .into();
        assert_eq!(check_ledger("t", &unsound, &rows).len(), 3);
    }

    #[test]
    fn long_values_are_cut_between_characters() {
        let text = shown(&"ö".repeat(1000));
        assert_eq!(text.chars().count(), VALUE_CHARS_MAX + 1);
    }
}
