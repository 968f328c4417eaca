//! What an import did, or would do, for people and for machines.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::lease::Unreadable;
use super::plan::{Action, Entry, Plan};
use crate::daemon::OutputFormat;

/// Everything that is told about an import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The lease table.
    pub kcl_table: String,
    /// Its stream, if it names it.
    pub kcl_stream: Option<String>,
    /// The state table.
    pub state_table: String,
    /// Our name of the stream.
    pub stream: String,
    /// Whether nothing was to be written.
    pub dry_run: bool,
    /// Shard by shard.
    pub plan: Plan,
    /// Items of the lease table that could not be read.
    pub unreadable: Vec<Unreadable>,
    /// Items of the lease table that are not leases.
    pub others: usize,
    /// What else should be known.
    pub warnings: Vec<String>,
}

/// How many leases had which fate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Written, or to be written.
    pub imported: usize,
    /// Written by an earlier import.
    pub unchanged: usize,
    /// Not taken over.
    pub skipped: usize,
    /// Of the skipped, and of what could not be read: those that need a look.
    pub problems: usize,
    /// In the way.
    pub conflicts: usize,
}

/// An entry in words.
struct Line<'a> {
    action: &'static str,
    shard: &'a str,
    kcl: Option<String>,
    ours: Option<String>,
    remark: Option<String>,
}

impl Report {
    /// How many leases had which fate.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals { problems: self.unreadable.len(), ..Totals::default() };
        for entry in &self.plan.entries {
            match &entry.action {
                Action::Import(_) => totals.imported += 1,
                Action::Unchanged(_) => totals.unchanged += 1,
                Action::Skip(skip) => {
                    totals.skipped += 1;
                    totals.problems += usize::from(skip.is_problem());
                }
                Action::Conflict { .. } => totals.conflicts += 1,
            }
        }
        totals
    }

    /// Whether our state is in the way, so that nothing is written.
    pub fn is_refused(&self) -> bool {
        self.plan.begun_at.is_some() || self.plan.conflicts() > 0
    }

    /// Whether something needs a look.
    pub fn has_problems(&self) -> bool {
        self.totals().problems > 0 || !self.warnings.is_empty()
    }

    /// The text to print.
    pub fn render(&self, format: OutputFormat) -> String {
        match format {
            OutputFormat::Human => self.human(),
            OutputFormat::Json => format!("{}\n", self.json()),
        }
    }

    fn human(&self) -> String {
        let of = self.kcl_stream.as_ref().map_or_else(String::new, |stream| format!(", stream {stream}"));
        let mut text = format!(
            "from  lease table {}{of}\nto    state table {}, stream {}\n\n",
            self.kcl_table, self.state_table, self.stream
        );
        for line in self.plan.entries.iter().map(line) {
            let [kcl, ours] = [&line.kcl, &line.ours].map(|side| side.as_deref().unwrap_or("-"));
            // A String takes whatever is written to it.
            let _ = write!(text, "{:<9}  {}  {kcl} -> {ours}", line.action, line.shard);
            let _ = match &line.remark {
                Some(remark) => writeln!(text, "  ({remark})"),
                None => writeln!(text),
            };
        }
        for unreadable in &self.unreadable {
            let _ = writeln!(text, "problem    {unreadable}");
        }
        for warning in &self.warnings {
            let _ = writeln!(text, "warning    {warning}");
        }
        let totals = self.totals();
        let _ = writeln!(
            text,
            "\n{} imported, {} unchanged, {} skipped, {} problems, {} conflicts; {} items are not leases",
            totals.imported, totals.unchanged, totals.skipped, totals.problems, totals.conflicts, self.others
        );
        if self.dry_run {
            text.push_str("dry run: nothing was written\n");
        }
        text
    }

    fn json(&self) -> Value {
        let shards: Vec<Value> = self
            .plan
            .entries
            .iter()
            .map(line)
            .map(|line| {
                json!({
                    "shard": line.shard,
                    "action": line.action,
                    "kcl": line.kcl,
                    "ours": line.ours,
                    "remark": line.remark,
                })
            })
            .collect();
        let unreadable: Vec<Value> =
            self.unreadable.iter().map(|item| json!({ "key": item.key, "reason": item.reason })).collect();
        let totals = self.totals();
        json!({
            "kcl_table": self.kcl_table,
            "kcl_stream": self.kcl_stream,
            "state_table": self.state_table,
            "stream": self.stream,
            "dry_run": self.dry_run,
            "shards": shards,
            "unreadable": unreadable,
            "warnings": self.warnings,
            "totals": {
                "imported": totals.imported,
                "unchanged": totals.unchanged,
                "skipped": totals.skipped,
                "problems": totals.problems,
                "conflicts": totals.conflicts,
                "not_leases": self.others,
            },
        })
    }
}

fn line(entry: &Entry) -> Line<'_> {
    let (action, ours, remark) = match &entry.action {
        Action::Import(planned) => {
            ("import", Some(planned.checkpoint.to_string()), planned.note.map(|note| note.to_string()))
        }
        Action::Unchanged(planned) => ("unchanged", Some(planned.checkpoint.to_string()), None),
        Action::Skip(skip) => ("skip", None, Some(skip.to_string())),
        Action::Conflict { ours, owner } => {
            let owner = owner
                .as_ref()
                .map_or_else(|| "owned by nobody".to_owned(), |owner| format!("owned by {owner}"));
            ("conflict", Some(ours.to_string()), Some(owner))
        }
    };
    Line { action, shard: &entry.shard, kcl: entry.kcl.as_ref().map(ToString::to_string), ours, remark }
}
