//! A fleet for people: what needs a look first, then tables. Pure.

use super::regions::RegionStatus;
use super::shards::{ShardState, ShardStatus};
use super::summary::{Summary, WatermarkStatus, WorkerStatus};
use super::text::{Table, ago, count, rate};
use crate::tool::Moment;

/// Gaps that are listed: the latest.
const GAPS_MAX: usize = 10;

impl Summary {
    /// The report. `title` says whose it is; `sections` are of the daemon's own and come after the fleet's watermark.
    pub fn to_text(&self, title: &str, sections: &str) -> String {
        let mut text = match self.problems.len() {
            0 => format!("{title} at {}: fine\n", Moment::at_ms(self.at_ms)),
            1 => format!("{title} at {}: 1 thing needs a look\n", Moment::at_ms(self.at_ms)),
            n => format!("{title} at {}: {n} things need a look\n", Moment::at_ms(self.at_ms)),
        };
        for problem in &self.problems {
            text += &format!("  ! {}\n", problem.text);
        }
        text += &format!("\nThe fleet's watermark: {}\n", watermark(&self.watermark));
        text += &self.versions.to_text(!self.regions.is_empty());
        text += &self.restart_lock.as_ref().map(|lock| lock.to_text(self.at_ms)).unwrap_or_default();
        text += sections;
        for table in [self.workers(), self.streams(), self.shards(), self.regions(), self.gaps(), self.jobs()]
        {
            if !table.is_empty() {
                text += &format!("\n{table}");
            }
        }
        text + &self.letters()
    }

    fn workers(&self) -> String {
        let mut table = Table::new(["WORKER", "STATE", "LEASES", "READS", "CAPACITY", "BEHIND"]);
        for worker in &self.workers {
            table.row([
                worker.worker.clone(),
                state(worker),
                worker.leases.to_string(),
                rate(worker.bytes_per_s),
                worker.capacity.to_string(),
                worker.behind_ms.map_or_else(|| "-".to_owned(), ago),
            ]);
        }
        table.lines()
    }

    fn streams(&self) -> String {
        let mut table = Table::new([
            "TABLE",
            "HELD",
            "FREE",
            "WAITING",
            "FINISHED",
            "SETTLING",
            "PARKED",
            "READS",
            "BEHIND AT MOST",
        ]);
        for of in &self.streams {
            let behind = match (of.behind_ms, of.unbounded) {
                (None, 0) => "-".to_owned(),
                (Some(ms), 0) => ago(ms),
                (None, unknown) => format!("unknown of {unknown}"),
                (Some(ms), unknown) => format!("{}, unknown of {unknown}", ago(ms)),
            };
            let remark = match (of.is_read, of.superseded) {
                (false, _) => " (not read)",
                (true, true) => " (superseded)",
                (true, false) => "",
            };
            let [held, free, waiting, finished, settling, parked] =
                [of.held, of.free, of.waiting, of.finished, of.settling, of.parked].map(|n| n.to_string());
            let table_name = format!("{}{remark}", of.table);
            table.row([
                table_name,
                held,
                free,
                waiting,
                finished,
                settling,
                parked,
                rate(of.bytes_per_s),
                behind,
            ]);
        }
        table.lines()
    }

    fn shards(&self) -> String {
        let mut table = Table::new(["SHARD", "TABLE", "OWNER", "BEHIND AT MOST", "CHECKPOINT", ""]);
        for shard in &self.shards {
            table.row([
                shard.shard.clone(),
                shard.table.clone(),
                shard.owner.clone().unwrap_or_else(|| "-".to_owned()),
                match (shard.state, shard.behind_ms) {
                    (ShardState::Waiting | ShardState::Finished, _) => "-".to_owned(),
                    (_, behind) => behind.map_or_else(|| "unknown".to_owned(), ago),
                },
                shard.checkpoint.clone(),
                remarks(shard),
            ]);
        }
        let (shown, read) =
            (self.shards.len(), self.streams.iter().map(|of| of.held + of.free).sum::<usize>());
        match shown < read && shown > 0 {
            true => {
                format!("Of {}, those that may be furthest behind:\n{}", count(read, "shard"), table.lines())
            }
            false => table.lines(),
        }
    }

    fn regions(&self) -> String {
        let mut table =
            Table::new(["REGION", "WARM", "WATERMARK", "PARKED ON", "BEHIND AT MOST", "SINCE", "WHY"]);
        for region in &self.regions {
            let parked = region.parked.as_ref();
            table.row([
                region.region.clone(),
                if region.warmth.is_warm { "yes" } else { "no" }.to_owned(),
                watermark(&region.watermark),
                parked.map_or_else(|| "-".to_owned(), |of| count(of.shards, "shard")),
                parked.map_or_else(|| "-".to_owned(), |of| ago(of.behind_ms)),
                parked.map_or_else(|| "-".to_owned(), |of| Moment::at_ms(of.since_ms).to_string()),
                reasons(region),
            ]);
        }
        table.lines()
    }

    fn gaps(&self) -> String {
        let mut table = Table::new(["GAP IN", "TABLE", "FOUND", "AFTER", ""]);
        for gap in self.gaps.iter().take(GAPS_MAX) {
            let answered = if gap.is_answered { "answered" } else { "" };
            let found = Moment::at_ms(gap.at_ms).to_string();
            table.row([gap.shard.clone(), gap.table.clone(), found, gap.after.clone(), answered.to_owned()]);
        }
        let more = self.gaps.len().saturating_sub(GAPS_MAX);
        if more > 0 { format!("{}and {more} older ones\n", table.lines()) } else { table.lines() }
    }

    fn jobs(&self) -> String {
        let mut table = Table::new(["UNFINISHED JOB", "BEGAN", "WHAT"]);
        for job in &self.jobs {
            let began = ago(self.at_ms.saturating_sub(job.began_ms));
            table.row([job.job.clone(), format!("{began} ago"), job.what.clone()]);
        }
        table.lines()
    }

    fn letters(&self) -> String {
        let Some(count) = &self.dead_letters else { return String::new() };
        if let Some(problem) = &count.problem {
            return format!("\nThe dead letters could not be counted: {problem}\n");
        }
        let mut table = Table::new(["DEAD LETTERS FROM", "CLASS", "LETTERS"]);
        for group in &count.groups {
            table.row([group.source.clone(), group.class.to_owned(), group.letters.to_string()]);
        }
        let more = if count.is_all { "" } else { ", and more that were not counted" };
        let last =
            count.last_ms.map(|ms| format!("; the last one {} ago", ago(self.at_ms.saturating_sub(ms))));
        let lines = table.lines();
        let gap = if lines.is_empty() { "" } else { "\n" };
        format!(
            "{gap}{lines}\n{} dead letters{more} in {}{}\n",
            count.letters,
            count.place,
            last.unwrap_or_default()
        )
    }
}

/// A watermark in a few words.
pub fn watermark(of: &WatermarkStatus) -> String {
    match (of.age_ms, &of.why) {
        (Some(age_ms), _) => format!("{} ago", ago(age_ms)),
        (None, Some(why)) => format!("stands still: {why}"),
        (None, None) => "unknown".to_owned(),
    }
}

fn state(worker: &WorkerStatus) -> String {
    let still = || ago(worker.still_ms.unwrap_or(0));
    let state = match worker.state {
        "silent" => format!("silent, seen for {}", still()),
        "watched" => format!("not seen to beat for {}", still()),
        "missing" => "no heartbeat".to_owned(),
        other => other.to_owned(),
    };
    if worker.leaving { format!("{state}, leaving") } else { state }
}

fn remarks(shard: &ShardStatus) -> String {
    let state = match shard.state {
        ShardState::Held => None,
        ShardState::Free => Some("free".to_owned()),
        ShardState::Waiting => Some("waits for its parents".to_owned()),
        ShardState::Finished => Some("finished".to_owned()),
    };
    let settling = shard.is_settling.then(|| "settling".to_owned());
    let parked =
        shard.parked.iter().map(|of| format!("{} parked at {}: {}", of.region, of.checkpoint, of.why));
    let guest = shard.guest.as_ref().map(|guest| format!("{guest} reads it, too"));
    [state, settling, guest].into_iter().flatten().chain(parked).collect::<Vec<_>>().join("; ")
}

fn reasons(region: &RegionStatus) -> String {
    let why = region.parked.iter().flat_map(|of| &of.why);
    let mut texts: Vec<String> = why.map(|(why, shards)| format!("{why} ({shards})")).collect();
    if !region.configured {
        texts.push("not configured".to_owned());
    }
    texts.join(", ")
}
