//! Durations and tables for people. Pure.

/// A duration, as short as it says something.
pub fn ago(ms: u64) -> String {
    let s = ms / 1_000;
    match s {
        0..10 => format!("{s}.{} s", ms % 1_000 / 100),
        10..120 => format!("{s} s"),
        120..7_200 => format!("{} min", s / 60),
        7_200..172_800 => format!("{} h {} min", s / 3_600, s % 3_600 / 60),
        _ => format!("{} d {} h", s / 86_400, s % 86_400 / 3_600),
    }
}

/// So many of something, with its plural.
pub(super) fn count(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

/// Bytes a second.
pub(super) fn rate(bytes_per_s: u64) -> String {
    match bytes_per_s {
        0..10_000 => format!("{bytes_per_s} B/s"),
        10_000..10_000_000 => format!("{} kB/s", bytes_per_s / 1_000),
        _ => format!("{} MB/s", bytes_per_s / 1_000_000),
    }
}

/// Rows of cells, each column as wide as its widest cell. The first row is the heading.
#[derive(Clone, Debug, Default)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table with this heading.
    pub fn new<const N: usize>(heading: [&str; N]) -> Self {
        Self { rows: vec![heading.map(str::to_owned).to_vec()] }
    }

    /// One more row.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.to_vec());
    }

    /// Its lines; none if it has only a heading.
    pub fn lines(&self) -> String {
        if self.rows.len() < 2 {
            return String::new();
        }
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max()
        };
        let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
        let line = |row: &Vec<String>| {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
        };
        self.rows.iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_rates_are_short() {
        let cases =
            [(0, "0.0 s"), (9_940, "9.9 s"), (59_999, "59 s"), (600_000, "10 min"), (7_260_000, "2 h 1 min")];
        for (ms, text) in cases {
            assert_eq!(ago(ms), text);
        }
        assert_eq!(ago(3 * 86_400_000 + 3_600_000), "3 d 1 h");
        assert_eq!([rate(9_999), rate(10_000), rate(12_000_000)], ["9999 B/s", "10 kB/s", "12 MB/s"]);
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(["A", "LONGER"]);
        assert_eq!(table.lines(), "");
        table.row(["wide".to_owned(), "x".to_owned()]);
        assert_eq!(table.lines(), "A     LONGER\nwide  x\n");
    }
}
