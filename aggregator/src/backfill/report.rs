//! What a backfill says in the end, or would cost. Pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use super::tally::Tally;

/// What a run came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BackfillReport {
    /// The run before whose work this one went on with, if any: when it began, in milliseconds since the epoch.
    pub resumed_from_ms: Option<u64>,
    /// What was read and sent of each table, by this run.
    pub tables: Vec<TableReport>,
    /// How long this run took, in milliseconds.
    pub elapsed_ms: u64,
    /// Rows that were read in a second, on average.
    pub rows_per_s: f64,
    /// Backfills that were asked for and are made.
    pub made: Vec<Asked>,
    /// Backfills that were asked for and are not taken for made, with why.
    pub open: Vec<Asked>,
}

/// A table of a report: counters of this run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TableReport {
    /// The table.
    pub table: String,
    /// Rows that the master had.
    pub rows_read: u64,
    /// Rows that at least one region was sent.
    pub rows_sent: u64,
    /// Rows that are in no region's view.
    pub rows_outside: u64,
    /// Keys of the list that the master has no row for.
    pub rows_absent: u64,
    /// Rows of a type that this version does not know: they were left out.
    pub rows_unreadable: u64,
    /// Rows that no record can hold: they were left out, or sent as an invalidation.
    pub rows_too_large: u64,
    /// Rows that each region was sent.
    pub regions: BTreeMap<String, u64>,
    /// Bytes put to the regions' streams, together.
    pub bytes_sent: u64,
    /// Read request units.
    pub read_units: f64,
    /// Pages read again because they were not sent in time.
    pub pages_again: u64,
}

/// A backfill that a region waits for, or waited for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Asked {
    /// The region.
    pub region: String,
    /// The table.
    pub table: String,
    /// Why it was asked for; of those that stay open, what is to be done.
    pub why: String,
}

/// What a backfill would cost, as far as that can be said before.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BackfillEstimate {
    /// Nothing was sent.
    pub dry_run: bool,
    /// By table.
    pub tables: Vec<TableEstimate>,
    /// The regions.
    pub regions: Vec<String>,
    /// Read request units, all tables.
    pub read_units: u64,
    /// About how long it takes at the rates given, in seconds.
    pub seconds: u64,
}

/// A table of an estimate.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TableEstimate {
    /// The table.
    pub table: String,
    /// About how many rows are read: as DynamoDB counts them, every six hours; or the keys of the list.
    pub rows: u64,
    /// About how many bytes they have in the table.
    pub bytes: u64,
    /// Read request units.
    pub read_units: u64,
}

/// What DynamoDB takes one unit for in a strongly consistent read (AWS: read request units, 4 KB).
const UNIT_BYTES: u64 = 4_096;

impl TableEstimate {
    /// Of a Scan: the sizes of the rows of a page are added up.
    pub(super) fn of_scan(table: &str, rows: u64, bytes: u64) -> Self {
        Self { table: table.to_owned(), rows, bytes, read_units: bytes.div_ceil(UNIT_BYTES) }
    }

    /// Of so many keys of a table: each row is rounded up by itself.
    pub(super) fn of_keys(table: &str, keys: u64, row_bytes: u64) -> Self {
        let read_units = keys.saturating_mul(row_bytes.div_ceil(UNIT_BYTES).max(1));
        Self { table: table.to_owned(), rows: keys, bytes: keys.saturating_mul(row_bytes), read_units }
    }
}

impl BackfillEstimate {
    pub(super) fn new(
        tables: Vec<TableEstimate>,
        regions: Vec<String>,
        read_units_per_s: u64,
        bytes_per_s: u64,
    ) -> Self {
        let read_units: u64 = tables.iter().map(|of| of.read_units).sum();
        let bytes: u64 = tables.iter().map(|of| of.bytes).sum();
        // A region is sent at most what is read. Frames are a quarter or so of it, but aggregated records more.
        let seconds = read_units.div_ceil(read_units_per_s.max(1)).max(bytes.div_ceil(bytes_per_s.max(1)));
        Self { dry_run: true, tables, regions, read_units, seconds }
    }

    /// For people.
    pub(super) fn lines(&self) -> String {
        let mut text = format!("nothing was sent (dry run); to {}:\n", self.regions.join(", "));
        for TableEstimate { table, rows, bytes, read_units } in &self.tables {
            let _infallible = writeln!(
                text,
                "  {table}: about {rows} rows, {bytes} bytes, {read_units} read request units"
            );
        }
        let time = humantime::format_duration(Duration::from_secs(self.seconds));
        let _infallible = writeln!(text, "at the rates given at most about {time}");
        text
    }
}

impl TableReport {
    pub(super) fn new(table: &str, tally: Tally, region_of_lane: impl Fn(usize) -> String) -> Self {
        let Tally {
            rows_read,
            rows_sent,
            rows_outside,
            rows_absent,
            rows_unreadable,
            rows_too_large,
            rows_of_lane,
            bytes_sent,
            read_units,
            pages_again,
        } = tally;
        Self {
            table: table.to_owned(),
            rows_read,
            rows_sent,
            rows_outside,
            rows_absent,
            rows_unreadable,
            rows_too_large,
            regions: rows_of_lane.into_iter().map(|(lane, rows)| (region_of_lane(lane), rows)).collect(),
            bytes_sent,
            read_units,
            pages_again,
        }
    }
}

impl BackfillReport {
    /// Rows were left out, or a backfill that was asked for stays open.
    pub fn has_problems(&self) -> bool {
        let left_out = |of: &TableReport| of.rows_unreadable + of.rows_too_large > 0;
        self.tables.iter().any(left_out) || !self.open.is_empty()
    }

    /// For people.
    pub(super) fn lines(&self) -> String {
        let mut text = String::new();
        for of in &self.tables {
            let TableReport { table, rows_read, rows_sent, .. } = of;
            let mut line = format!("{table}: {rows_read} rows read, {rows_sent} sent");
            for (count, what) in [
                (of.rows_outside, "in no region's view"),
                (of.rows_absent, "not in the table"),
                (of.rows_unreadable, "of a type that this version does not know, left out"),
                (of.rows_too_large, "too large for a record"),
                (of.pages_again, "pages read again, because they were not sent in time"),
            ] {
                if count > 0 {
                    let _infallible = write!(line, "; {count} {what}");
                }
            }
            let regions: Vec<_> =
                of.regions.iter().map(|(region, rows)| format!("{rows} to {region}")).collect();
            let _infallible = writeln!(text, "{line}\n  {}", regions.join(", "));
        }
        let bytes: u64 = self.tables.iter().map(|of| of.bytes_sent).sum();
        let units: f64 = self.tables.iter().map(|of| of.read_units).sum();
        let seconds = Duration::from_millis(self.elapsed_ms).as_secs_f64();
        let _infallible = writeln!(
            text,
            "took {seconds:.1} s, {:.0} rows/s, {units:.0} read request units, {bytes} bytes sent",
            self.rows_per_s
        );
        for Asked { region, table, .. } in &self.made {
            let _infallible = writeln!(text, "{region} waits no more for a backfill of {table}");
        }
        for Asked { region, table, why } in &self.open {
            let _infallible = writeln!(text, "{region} still waits for a backfill of {table}: {why}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_estimate_says_what_it_costs_and_how_long_it_takes() {
        let scan = TableEstimate::of_scan("profiles", 1_000_000, 1_000_000_000);
        assert_eq!(scan.read_units, 244_141);
        let keys = TableEstimate::of_keys("orders", 100, 5_000);
        assert_eq!((keys.bytes, keys.read_units), (500_000, 200));
        assert_eq!(TableEstimate::of_keys("empty", 100, 0).read_units, 100);
        let regions = vec!["eu-west-1".to_owned(), "us-west-2".to_owned()];
        let estimate = BackfillEstimate::new(vec![scan, keys], regions, 1_000, 1 << 30);
        assert_eq!((estimate.read_units, estimate.seconds), (244_341, 245));
        assert_eq!(
            estimate.lines(),
            "nothing was sent (dry run); to eu-west-1, us-west-2:\n  \
             profiles: about 1000000 rows, 1000000000 bytes, 244141 read request units\n  \
             orders: about 100 rows, 500000 bytes, 200 read request units\n\
             at the rates given at most about 4m 5s\n"
        );
        let slow = BackfillEstimate::new(estimate.tables, Vec::new(), 1_000, 1_000_000);
        assert_eq!(slow.seconds, 1_001, "the regions' rate");
    }

    #[test]
    fn a_report_says_what_was_done_and_what_needs_a_look() {
        let tally = Tally {
            rows_read: 10,
            rows_sent: 7,
            rows_outside: 2,
            rows_unreadable: 1,
            rows_of_lane: [(0, 7), (1, 3)].into(),
            bytes_sent: 5_000,
            read_units: 2.5,
            ..Tally::default()
        };
        let table = TableReport::new("profiles", tally, |lane| format!("region-{lane}"));
        let asked = |why: &str| Asked {
            region: "region-0".to_owned(),
            table: "profiles".to_owned(),
            why: why.to_owned(),
        };
        let mut report = BackfillReport {
            resumed_from_ms: None,
            tables: vec![table],
            elapsed_ms: 2_000,
            rows_per_s: 5.0,
            made: vec![asked("it is new")],
            open: Vec::new(),
        };
        assert!(report.has_problems(), "a row was left out");
        report.tables[0].rows_unreadable = 0;
        assert!(!report.has_problems());
        assert_eq!(
            report.lines(),
            "profiles: 10 rows read, 7 sent; 2 in no region's view\n  7 to region-0, 3 to region-1\n\
             took 2.0 s, 5 rows/s, 2 read request units, 5000 bytes sent\n\
             region-0 waits no more for a backfill of profiles\n"
        );
        report.open = vec![asked("flush it")];
        assert!(report.has_problems());
        assert!(report.lines().ends_with("region-0 still waits for a backfill of profiles: flush it\n"));
    }
}
