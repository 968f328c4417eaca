//! What a backfill came to. Pure.

use std::collections::BTreeMap;

use warmcast_common::consumer::Lanes;
use warmcast_proto::change::Change;

/// Counters of one part, or of all of a table.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Tally {
    /// Rows that the master had.
    pub(super) rows_read: u64,
    /// Rows that at least one region was sent.
    pub(super) rows_sent: u64,
    /// Rows that are in no region's view.
    pub(super) rows_outside: u64,
    /// Keys of a list that the master has no row for.
    pub(super) rows_absent: u64,
    /// Rows of a type that this version does not know.
    pub(super) rows_unreadable: u64,
    /// Rows that no record can hold.
    pub(super) rows_too_large: u64,
    /// Rows that each region was sent, by its lane.
    pub(super) rows_of_lane: BTreeMap<usize, u64>,
    /// Bytes put to the streams, of all regions together.
    pub(super) bytes_sent: u64,
    /// Read request units.
    pub(super) read_units: f64,
    /// Pages that were read again, because they were not sent in time.
    pub(super) pages_again: u64,
}

impl Tally {
    /// Counts a row with what is sent of it.
    pub(super) fn row(&mut self, views: &[(Change, Lanes)]) {
        match views.is_empty() {
            true => self.rows_outside += 1,
            false => self.rows_sent += 1,
        }
        for lane in views.iter().flat_map(|(_, lanes)| lanes.iter()) {
            *self.rows_of_lane.entry(lane).or_default() += 1;
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.rows_read += other.rows_read;
        self.rows_sent += other.rows_sent;
        self.rows_outside += other.rows_outside;
        self.rows_absent += other.rows_absent;
        self.rows_unreadable += other.rows_unreadable;
        self.rows_too_large += other.rows_too_large;
        for (lane, rows) in &other.rows_of_lane {
            *self.rows_of_lane.entry(*lane).or_default() += rows;
        }
        self.bytes_sent += other.bytes_sent;
        self.read_units += other.read_units;
        self.pages_again += other.pages_again;
    }
}
