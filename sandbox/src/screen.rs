//! What the demo shows while it runs: a small block that is refreshed in place, or plain lines where the output
//! is no terminal.
//!
//! The terminal stays as it is: no alternate screen, no raw mode. The last picture remains above the verdict,
//! Ctrl-C keeps its meaning, and all there is to restore is the cursor.

use std::io::{self, IsTerminal as _, Stdout, Write as _};
use std::time::Duration;

use crossterm::cursor::{Hide, MoveToColumn, MoveUp, Show};
use crossterm::style::Print;
use crossterm::terminal::{Clear, ClearType};
use crossterm::{execute, queue};
use tokio::time::Instant;

use crate::measure::LagSummary;
use crate::workload::Written;

/// Every line fits this.
pub const WIDTH: usize = 80;
/// Between two plain lines.
const LINE_INTERVAL: Duration = Duration::from_secs(2);

/// Whether to refresh in place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// On a terminal.
    #[default]
    Auto,
    /// Also where the output is no terminal.
    Always,
    /// Plain lines.
    Never,
}

/// One moment of a run.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// What is being done.
    pub phase: String,
    /// Since the traffic began.
    pub elapsed: Duration,
    /// Acknowledged by DynamoDB.
    pub written: Written,
    /// Writes a second, over the last few seconds.
    pub write_rate: f64,
    /// Warnings and errors that the aggregator logged.
    pub aggregator_warnings: u64,
    /// Entries that the aggregator had to send again.
    pub aggregator_retries: u64,
    /// Each region.
    pub regions: Vec<RegionSnapshot>,
}

/// One region at one moment.
#[derive(Clone, Debug, Default)]
pub struct RegionSnapshot {
    /// The region's name.
    pub name: String,
    /// Changes applied, as its cache-writer reports.
    pub applied: u64,
    /// Changes applied a second, over the last few seconds.
    pub rate: f64,
    /// Lag as a bidder sees it.
    pub lag: LagSummary,
    /// Changes that the cache already had, or had newer.
    pub stale: u64,
    /// Changes that could not be applied or read.
    pub failed: u64,
    /// Warnings and errors that its cache-writer logged.
    pub warnings: u64,
    /// Its bidder, if there is one.
    pub bidder: Option<BidderSnapshot>,
}

/// One region's bidder at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct BidderSnapshot {
    /// Auctions so far.
    pub auctions: u64,
    /// Auctions a second, over the last few seconds.
    pub rate: f64,
    /// Hits among the profiles asked for over the last few seconds, in percent.
    pub hit_percent: f64,
    /// Half of the lookups took no longer, in microseconds.
    pub p50_us: u64,
    /// 99 of 100.
    pub p99_us: u64,
    /// 999 of 1000.
    pub p999_us: u64,
    /// Auctions that missed their deadline.
    pub missed: u64,
    /// Items read from the master a second, over the last few seconds.
    pub master_reads_per_second: f64,
}

/// The block as lines of at most [`WIDTH`] columns.
#[must_use]
pub fn block(snapshot: &Snapshot) -> Vec<String> {
    let Written { creates, updates, deletes, keys, retries } = snapshot.written;
    let mut lines = vec![
        format!("  {:>6.1} s  {}", snapshot.elapsed.as_secs_f64(), snapshot.phase),
        String::new(),
        format!(
            "  DynamoDB   {:>9} rows written   {:>7.0}/s   {keys} keys",
            snapshot.written.total(),
            snapshot.write_rate
        ),
        format!("             {creates} created, {updates} updated, {deletes} deleted, {retries} retried"),
        format!(
            "  aggregator {:>9} warnings       {:>7} frames sent again",
            snapshot.aggregator_warnings, snapshot.aggregator_retries
        ),
        String::new(),
        "  region             applied        /s   lag p50     p99  stale failed  warn".to_owned(),
    ];
    lines.extend(snapshot.regions.iter().map(region_line));
    if snapshot.regions.iter().any(|region| region.bidder.is_some()) {
        lines.push(String::new());
        lines.push(
            "  bidder           auctions     /s   hits    p50    p99  p99.9 missed master/s".to_owned(),
        );
    }
    lines.extend(snapshot.regions.iter().filter_map(bidder_line));
    for line in &mut lines {
        cut(line);
    }
    lines
}

fn region_line(region: &RegionSnapshot) -> String {
    format!(
        "  {:<16} {:>9} {:>9.0} {:>9} {:>7} {:>6} {:>6} {:>5}",
        region.name,
        region.applied,
        region.rate,
        milliseconds(region.lag.p50),
        milliseconds(region.lag.p99),
        region.stale,
        region.failed,
        region.warnings
    )
}

fn bidder_line(region: &RegionSnapshot) -> Option<String> {
    let bidder = region.bidder.as_ref()?;
    Some(format!(
        "  {:<16} {:>8} {:>6.0} {:>5.1}% {:>6} {:>6} {:>6} {:>6} {:>8.1}",
        region.name,
        bidder.auctions,
        bidder.rate,
        bidder.hit_percent,
        short(bidder.p50_us),
        short(bidder.p99_us),
        short(bidder.p999_us),
        bidder.missed,
        bidder.master_reads_per_second
    ))
}

/// A lookup's time in few characters.
fn short(us: u64) -> String {
    let ms = us as f64 / 1000.0;
    if ms < 9.95 { format!("{ms:.1}ms") } else { milliseconds(Duration::from_micros(us)) }
}

/// One plain line.
#[must_use]
pub fn line(snapshot: &Snapshot) -> String {
    let mut line = format!(
        "{:>4.0} s  {}: {} written, {:.0}/s",
        snapshot.elapsed.as_secs_f64(),
        snapshot.phase,
        snapshot.written.total(),
        snapshot.write_rate
    );
    for region in &snapshot.regions {
        let (p50, p99) = (milliseconds(region.lag.p50), milliseconds(region.lag.p99));
        line.push_str(&format!("; {} {} applied, p50 {p50}, p99 {p99}", region.name, region.applied));
        if let Some(bidder) = &region.bidder {
            line.push_str(&format!(", bidder hits {:.1}%, p99 {}", bidder.hit_percent, short(bidder.p99_us)));
        }
    }
    line
}

/// A lag in few characters.
#[must_use]
pub fn milliseconds(lag: Duration) -> String {
    let ms = lag.as_secs_f64() * 1000.0;
    if lag.is_zero() {
        "-".to_owned()
    } else if ms < 10_000.0 {
        format!("{ms:.0}ms")
    } else {
        format!("{:.0}s", ms / 1000.0)
    }
}

fn cut(line: &mut String) {
    if let Some((end, _)) = line.char_indices().nth(WIDTH) {
        line.truncate(end);
    }
}

/// Where the pictures go. Dropping it shows the cursor again.
#[derive(Debug)]
pub struct Screen {
    output: Stdout,
    in_place: bool,
    /// Lines of the picture that is on the screen.
    shown: u16,
    next_line: Option<Instant>,
}

impl Screen {
    /// Prepares the standard output.
    #[must_use]
    pub fn new(mode: Mode) -> Self {
        let output = io::stdout();
        let in_place = match mode {
            Mode::Auto => output.is_terminal(),
            Mode::Always => true,
            Mode::Never => false,
        };
        let mut screen = Self { output, in_place, shown: 0, next_line: None };
        if in_place {
            // A terminal that cannot hide its cursor shows the picture with it.
            let _ = execute!(screen.output, Hide);
        }
        screen
    }

    /// Shows a moment. In plain mode at most one line every two seconds.
    ///
    /// # Errors
    /// The output is closed.
    pub fn show(&mut self, snapshot: &Snapshot) -> io::Result<()> {
        if self.in_place {
            return self.redraw(&block(snapshot));
        }
        let now = Instant::now();
        if self.next_line.is_none_or(|next| now >= next) {
            self.next_line = Some(now + LINE_INTERVAL);
            writeln!(self.output, "{}", line(snapshot))?;
        }
        Ok(())
    }

    fn redraw(&mut self, lines: &[String]) -> io::Result<()> {
        if self.shown > 0 {
            queue!(self.output, MoveUp(self.shown), MoveToColumn(0))?;
        }
        for line in lines {
            queue!(self.output, Print(line), Clear(ClearType::UntilNewLine), Print("\n"))?;
        }
        queue!(self.output, Clear(ClearType::FromCursorDown))?;
        self.shown = u16::try_from(lines.len()).unwrap_or(u16::MAX);
        self.output.flush()
    }

    /// Writes text that stays.
    ///
    /// # Errors
    /// The output is closed.
    pub fn print(&mut self, text: &str) -> io::Result<()> {
        self.shown = 0;
        writeln!(self.output, "{text}")?;
        self.output.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if self.in_place {
            // Nothing is left to do about a closed output.
            let _ = execute!(self.output, Show);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn busy() -> Snapshot {
        let lag = LagSummary {
            count: 1_000_000,
            p50: Duration::from_millis(9_999),
            p99: Duration::from_secs(59_999),
            max: Duration::from_secs(59_999),
            unseen: 3,
        };
        let region = RegionSnapshot {
            name: "ap-northeast-1".to_owned(),
            applied: 123_456_789,
            rate: 123_456.0,
            lag,
            stale: 12_345,
            failed: 1_234,
            warnings: 888,
            bidder: Some(BidderSnapshot {
                auctions: 99_999_999,
                rate: 99_999.0,
                hit_percent: 100.0,
                p50_us: 9_949,
                p99_us: 59_999_999,
                p999_us: 59_999_999,
                missed: 99_999,
                master_reads_per_second: 99_999.9,
            }),
        };
        Snapshot {
            phase: "writing user profiles".to_owned(),
            elapsed: Duration::from_secs(99_999),
            written: Written {
                creates: 99_999_999,
                updates: 99_999_999,
                deletes: 9_999_999,
                keys: 9_999_999,
                retries: 99,
            },
            write_rate: 99_999.0,
            aggregator_warnings: 9_999,
            aggregator_retries: 9_999,
            regions: vec![region; 3],
        }
    }

    #[test]
    fn every_line_fits_the_width_uncut() {
        for line in block(&busy()) {
            assert!(line.chars().count() <= WIDTH, "{line:?}");
        }
        let region = region_line(&busy().regions[0]);
        assert!(region.chars().count() <= WIDTH, "{region:?} would be cut");
        let bidder = bidder_line(&busy().regions[0]).unwrap();
        assert!(bidder.chars().count() <= WIDTH, "{bidder:?} would be cut");
    }

    #[test]
    fn columns_stand_under_their_titles() {
        let lines = block(&busy());
        let titles = lines.iter().position(|line| line.contains("lag p50")).unwrap();
        let end = |line: &str, word: &str| line.find(word).unwrap() + word.len();
        assert_eq!(end(&lines[titles], "applied"), end(&lines[titles + 1], "123456789"));
        assert_eq!(end(&lines[titles], "lag p50"), end(&lines[titles + 1], "9999ms"));
        assert_eq!(end(&lines[titles], "p99"), end(&lines[titles + 1], "59999s"));
        assert_eq!(end(&lines[titles], "failed"), end(&lines[titles + 1], "1234 ") - 1);
        assert_eq!(end(&lines[titles], "warn"), end(&lines[titles + 1], "888"));
        let titles = lines.iter().position(|line| line.contains("p99.9")).unwrap();
        assert_eq!(end(&lines[titles], "auctions"), end(&lines[titles + 1], "99999999"));
        assert_eq!(end(&lines[titles], "hits"), end(&lines[titles + 1], "100.0%"));
        assert_eq!(end(&lines[titles], "p50"), end(&lines[titles + 1], "9.9ms"));
        assert_eq!(end(&lines[titles], "master/s"), end(&lines[titles + 1], "99999.9"));
    }

    #[test]
    fn lookups_are_shown_in_tenths_of_milliseconds_while_they_are_short() {
        assert_eq!(short(412), "0.4ms");
        assert_eq!(short(9_960), "10ms");
        assert_eq!(short(100_400), "100ms");
    }

    #[test]
    fn lags_are_short() {
        assert_eq!(milliseconds(Duration::ZERO), "-");
        assert_eq!(milliseconds(Duration::from_micros(41_600)), "42ms");
        assert_eq!(milliseconds(Duration::from_secs(75)), "75s");
    }
}
