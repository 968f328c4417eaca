//! What a benchmark found: figures with their targets, broken promises, and the verdict.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::time::Duration;

use serde::Serialize;

/// One figure, measured once or more often.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figure {
    /// The scenario that it is of.
    pub scenario: String,
    /// What was measured.
    pub name: String,
    /// Of the values: `s`, `/s`, `MiB` and the like.
    pub unit: &'static str,
    /// One value for each run.
    pub values: Vec<f64>,
    /// Where the median should be.
    pub target: Option<Target>,
}

/// What a figure's median is held against.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// It should not exceed this.
    AtMost(f64),
    /// It should not fall below this.
    AtLeast(f64),
}

impl Target {
    /// Whether it is met; no value meets any.
    pub(crate) fn is_met_by(self, value: f64) -> bool {
        match self {
            Self::AtMost(most) => value <= most,
            Self::AtLeast(least) => value >= least,
        }
    }

    fn in_words(self, unit: &str) -> String {
        let (bound, value) = match self {
            Self::AtMost(most) => ("at most", most),
            Self::AtLeast(least) => ("at least", least),
        };
        format!("{bound} {} {unit}", number(value)).trim_end().to_owned()
    }
}

impl Figure {
    /// The middle value; of an even number of values the mean of the two in the middle.
    #[must_use]
    pub fn median(&self) -> f64 {
        let mut sorted = self.values.clone();
        sorted.sort_by(f64::total_cmp);
        let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
        match sorted.len() {
            0 => f64::NAN,
            odd if odd % 2 == 1 => at(odd / 2),
            even => f64::midpoint(at(even / 2 - 1), at(even / 2)),
        }
    }

    /// Whether the target is met, if there is one. Without values it is not.
    #[must_use]
    pub fn meets_target(&self) -> bool {
        self.target.is_none_or(|target| target.is_met_by(self.median()))
    }

    fn line(&self) -> String {
        let Self { name, unit, values, target, .. } = self;
        let mut line = format!("  {name}: {} {unit}", number(self.median())).trim_end().to_owned();
        if values.len() > 1 {
            let least = values.iter().copied().fold(f64::INFINITY, f64::min);
            let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            line.push_str(&format!(" (median of {}, {} to {})", values.len(), number(least), number(most)));
        }
        if let Some(target) = target {
            let met = if self.meets_target() { "met" } else { "MISSED" };
            line.push_str(&format!(", target {}: {met}", target.in_words(unit)));
        }
        line
    }
}

/// Three digits are as many as such a measurement can promise.
fn number(value: f64) -> String {
    match value.abs() {
        whole if whole.fract() == 0.0 => format!("{value:.0}"),
        large if large >= 100.0 => format!("{value:.0}"),
        medium if medium >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// How and where the report goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// Lines, as soon as they are known.
    #[default]
    Human,
    /// One JSON object at the end.
    Json,
}

/// Everything that was found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What it was measured on.
    pub conditions: Vec<String>,
    /// The figures.
    pub figures: Vec<Figure>,
    /// What is to be known about them.
    pub notes: Vec<String>,
    /// Promises that were broken, whatever the speed: records lost, leases without an owner.
    pub violations: Vec<String>,
    /// What was seen from second to second, where that is told.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub seconds: Vec<serde_json::Value>,
    /// What else machines want to know, by name.
    #[serde(flatten)]
    pub facts: BTreeMap<&'static str, serde_json::Value>,
    #[serde(skip)]
    output: Output,
    #[serde(skip)]
    scenario: String,
}

impl Report {
    /// Begins with the conditions.
    ///
    /// # Errors
    /// The output is closed.
    pub fn begin(output: Output, conditions: Vec<String>) -> io::Result<Self> {
        let report = Self {
            conditions,
            figures: Vec::new(),
            notes: Vec::new(),
            violations: Vec::new(),
            seconds: Vec::new(),
            facts: BTreeMap::new(),
            output,
            scenario: String::new(),
        };
        report.print("conditions")?;
        for condition in &report.conditions {
            report.print(&format!("  {condition}"))?;
        }
        Ok(report)
    }

    /// What follows is of this scenario.
    ///
    /// # Errors
    /// The output is closed.
    pub fn scenario(&mut self, name: impl Into<String>) -> io::Result<()> {
        self.scenario = name.into();
        self.print(&self.scenario)
    }

    /// Adds a figure.
    ///
    /// # Errors
    /// The output is closed.
    pub fn figure(
        &mut self,
        name: &str,
        unit: &'static str,
        values: Vec<f64>,
        target: Option<Target>,
    ) -> io::Result<()> {
        let figure = Figure { scenario: self.scenario.clone(), name: name.to_owned(), unit, values, target };
        self.print(&figure.line())?;
        self.figures.push(figure);
        Ok(())
    }

    /// Adds a row of a table: figures of one thing, measured once, on one line. `cells` are the figures' names, units and
    /// values.
    ///
    /// # Errors
    /// The output is closed.
    pub fn row(&mut self, name: &str, cells: &[(&str, &'static str, f64)]) -> io::Result<()> {
        let mut line = format!("  {name:<24}");
        for &(of, unit, value) in cells {
            line.push_str(format!(" {:>8} {unit}", number(value)).trim_end());
            let (scenario, name) = (self.scenario.clone(), format!("{name}, {of}"));
            self.figures.push(Figure { scenario, name, unit, values: vec![value], target: None });
        }
        self.print(&line)
    }

    /// Tells of one run of several; the figure comes when all are done.
    ///
    /// # Errors
    /// The output is closed.
    pub fn progress(&self, run: usize, took: Duration) -> io::Result<()> {
        self.print(&format!("  (run {}: {} s)", run + 1, number(took.as_secs_f64())))
    }

    /// Tells what is going on; it is no part of the report.
    ///
    /// # Errors
    /// The output is closed.
    pub fn line(&self, line: &str) -> io::Result<()> {
        self.print(&format!("  {line}"))
    }

    /// Tells what was seen in a second, in words and for machines.
    ///
    /// # Errors
    /// The output is closed.
    pub fn second(&mut self, line: &str, seen: &impl Serialize) -> io::Result<()> {
        self.line(line)?;
        self.second_seen(seen)
    }

    /// Notes what was seen in a second, for machines alone.
    ///
    /// # Errors
    /// It does not fit JSON.
    pub fn second_seen(&mut self, seen: &impl Serialize) -> io::Result<()> {
        if self.output == Output::Json {
            self.seconds.push(serde_json::to_value(seen)?);
        }
        Ok(())
    }

    /// Adds a note.
    ///
    /// # Errors
    /// The output is closed.
    pub fn note(&mut self, note: String) -> io::Result<()> {
        self.print(&format!("  {note}"))?;
        self.notes.push(note);
        Ok(())
    }

    /// Adds what machines want to know; people are told by a note.
    pub fn fact(&mut self, name: &'static str, value: serde_json::Value) {
        self.facts.insert(name, value);
    }

    /// Adds a broken promise.
    ///
    /// # Errors
    /// The output is closed.
    pub fn violation(&mut self, violation: String) -> io::Result<()> {
        let violation = format!("{}: {violation}", self.scenario);
        self.print(&format!("  BROKEN {violation}"))?;
        self.violations.push(violation);
        Ok(())
    }

    /// Whether every promise was kept and every target met.
    #[must_use]
    pub fn passes(&self) -> bool {
        self.violations.is_empty() && self.missed().next().is_none()
    }

    /// Figures that miss their targets.
    pub fn missed(&self) -> impl Iterator<Item = &Figure> {
        self.figures.iter().filter(|figure| !figure.meets_target())
    }

    /// Prints the verdict.
    ///
    /// # Errors
    /// The output is closed.
    pub fn finish(&self) -> io::Result<()> {
        if self.output == Output::Json {
            let verdict = if self.passes() { "PASS" } else { "FAIL" };
            let mut object = serde_json::to_value(self)?;
            if let Some(object) = object.as_object_mut() {
                object.insert("verdict".to_owned(), verdict.into());
            }
            return writeln!(io::stdout().lock(), "{object:#}");
        }
        if self.passes() {
            return self.print("verdict: PASS");
        }
        let missed =
            self.missed().map(|figure| format!("{}: {} misses its target", figure.scenario, figure.name));
        let shortfalls: Vec<String> = self.violations.iter().cloned().chain(missed).collect();
        self.print(&format!("verdict: FAIL, {}", shortfalls.join("; ")))
    }

    fn print(&self, line: &str) -> io::Result<()> {
        match self.output {
            Output::Human => writeln!(io::stdout().lock(), "{line}"),
            Output::Json => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut report = Report::begin(Output::Json, Vec::new()).unwrap();
        report.scenario("start").unwrap();
        report
    }

    #[test]
    fn the_median_decides_and_not_the_worst() {
        let mut report = report();
        report.figure("warm", "s", vec![9.0, 30.0, 8.0], Some(Target::AtMost(10.0))).unwrap();
        assert_eq!(report.figures[0].median(), 9.0);
        assert!(report.passes());
        report.figure("warm", "s", vec![9.0, 12.0], Some(Target::AtMost(10.0))).unwrap();
        assert!(!report.passes());
    }

    #[test]
    fn a_target_without_a_value_is_missed() {
        let mut report = report();
        report.figure("warm", "s", Vec::new(), Some(Target::AtMost(10.0))).unwrap();
        assert!(!report.passes());
    }

    #[test]
    fn a_broken_promise_fails_whatever_the_speed() {
        let mut report = report();
        report.violation("3 records lost".to_owned()).unwrap();
        assert!(!report.passes());
        assert_eq!(report.violations, ["start: 3 records lost"]);
    }

    #[test]
    fn a_line_has_median_range_and_target() {
        let figure = Figure {
            scenario: "kill".to_owned(),
            name: "read again".to_owned(),
            unit: "s",
            values: vec![12.345, 11.0, 16.0],
            target: Some(Target::AtMost(15.0)),
        };
        assert_eq!(figure.line(), "  read again: 12.3 s (median of 3, 11 to 16), target at most 15 s: met");
        let ratio = Figure {
            scenario: "16 callers".to_owned(),
            name: "throughput, ours to theirs".to_owned(),
            unit: "",
            values: vec![0.8],
            target: Some(Target::AtLeast(0.85)),
        };
        assert_eq!(ratio.line(), "  throughput, ours to theirs: 0.80, target at least 0.85: MISSED");
    }
}
