//! Whether a fleet is settled, and whether a worker is back. Pure.

use std::collections::BTreeSet;

use crate::consumer::store::Heartbeat;
use crate::status::{Summary, WorkerStatus, ago};

/// A worker as it was before its restart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Before {
    /// Its process; `None`: it did not run.
    pub instance: Option<String>,
    /// The fleet's watermark: milliseconds since the epoch.
    pub watermark_ms: Option<u64>,
}

/// Why the fleet is not settled; nothing: it is. `wanted` are workers that must live, `watermark_bound_ms` is how old the
/// watermark may be.
pub fn unsettled(summary: &Summary, wanted: &BTreeSet<String>, watermark_bound_ms: u64) -> Vec<String> {
    let mut why: Vec<String> = summary.workers.iter().filter_map(trouble_with).collect();
    let lives = |name: &String| summary.workers.iter().any(|of| of.worker == *name && is_at_work(of));
    why.extend(wanted.iter().filter(|name| !lives(name)).map(|name| {
        format!("worker {name} was restarted and is not back (--lost {name} goes on without it)")
    }));
    if !summary.workers.iter().any(is_at_work) {
        why.push("no worker was seen to beat".to_owned());
    }
    for stream in summary.streams.iter().filter(|stream| stream.is_read) {
        let counts = [
            (stream.free, "without an owner"),
            (stream.waiting, "waiting for their parents"),
            (stream.settling, "settling"),
        ];
        let there = counts.into_iter().filter(|(shards, _)| *shards > 0);
        why.extend(there.map(|(shards, how)| format!("{}: {shards} shards {how}", stream.table)));
    }
    match (summary.watermark.age_ms, &summary.watermark.why) {
        (Some(age_ms), _) if age_ms > watermark_bound_ms => {
            why.push(format!("the fleet's watermark is {} old", ago(age_ms)));
        }
        (Some(_), _) => {}
        (None, hold) => {
            let hold = hold.as_deref().unwrap_or("it is not known");
            why.push(format!("the fleet's watermark stands still: {hold}"));
        }
    }
    why
}

/// Why `worker` is not back after its restart; nothing: it is.
pub fn not_back(summary: &Summary, heartbeats: &[Heartbeat], worker: &str, before: &Before) -> Vec<String> {
    let mut why = Vec::new();
    let status = summary.workers.iter().find(|of| of.worker == worker);
    let beat = heartbeats.iter().find(|beat| beat.worker == worker);
    match (status, beat) {
        (Some(status), Some(beat)) if is_at_work(status) => {
            if before.instance.as_ref() == Some(&beat.instance) {
                why.push(format!("worker {worker} is the process of before: the command did not restart it"));
            }
            why.extend(lacks_of_share(summary, status));
        }
        _ => why.push(format!("worker {worker} was not seen to beat")),
    }
    if summary.watermark.ms.is_some() && summary.watermark.ms <= before.watermark_ms {
        why.push("the fleet's watermark is where it was before".to_owned());
    }
    why
}

fn is_at_work(worker: &WorkerStatus) -> bool {
    worker.state == "alive" && !worker.leaving
}

fn trouble_with(worker: &WorkerStatus) -> Option<String> {
    let name = &worker.worker;
    match worker.state {
        "silent" if worker.leases > 0 => Some(format!("worker {name} is silent, and has leases")),
        "missing" => Some(format!("worker {name} has leases and no heartbeat")),
        "watched" => Some(format!("worker {name} was not seen to beat yet")),
        _ if worker.leaving => Some(format!("worker {name} is stopping")),
        _ => None,
    }
}

/// A worker has its share when it has half of what is due to it, by whole leases or by throughput: a fleet is balanced by
/// one of the two, within a tenth, and a lease that was moved lately stays where it is for a while.
fn lacks_of_share(summary: &Summary, worker: &WorkerStatus) -> Option<String> {
    let fleet = || summary.workers.iter().filter(|of| is_at_work(of));
    let capacity: u64 = fleet().map(|of| u64::from(of.capacity.max(1))).sum();
    let due = |all: u64| all.saturating_mul(worker.capacity.max(1).into()) / capacity.max(1);
    let leases: usize = fleet().map(|of| of.leases).sum();
    let (leases_due, bytes_due) = (due(leases as u64), due(fleet().map(|of| of.bytes_per_s).sum()));
    let has_leases = worker.leases as u64 >= leases_due / 2 || worker.leases >= worker.leases_max;
    let has_bytes = bytes_due > 0 && worker.leases > 0 && 2 * worker.bytes_per_s >= bytes_due;
    (!has_leases && !has_bytes)
        .then(|| format!("worker {} has {} leases; its share is {leases_due}", worker.worker, worker.leases))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consumer::store::Report;
    use crate::status::{StreamStatus, WatermarkStatus};

    const NOW_MS: u64 = 1_800_000_000_000;

    fn worker(name: &str, leases: usize) -> WorkerStatus {
        WorkerStatus {
            worker: name.to_owned(),
            state: "alive",
            still_ms: None,
            leaving: false,
            leases,
            leases_max: 100,
            capacity: 100,
            bytes_per_s: 0,
            behind_ms: None,
            build: None,
        }
    }

    fn fleet() -> Summary {
        Summary {
            at_ms: NOW_MS,
            problems: Vec::new(),
            versions: Default::default(),
            restart_lock: None,
            workers: vec![worker("w1", 4), worker("w2", 4), worker("w3", 4)],
            streams: vec![StreamStatus {
                table: "profiles".to_owned(),
                is_read: true,
                held: 12,
                ..StreamStatus::default()
            }],
            shards: Vec::new(),
            watermark: WatermarkStatus::of(Ok(NOW_MS - 3_000), NOW_MS),
            regions: Vec::new(),
            gaps: Vec::new(),
            jobs: Vec::new(),
            dead_letters: None,
        }
    }

    fn why(summary: &Summary, wanted: &[&str]) -> Vec<String> {
        unsettled(summary, &wanted.iter().map(|name| (*name).to_owned()).collect(), 60_000)
    }

    /// A change to a fleet that is settled, and what is in the way then.
    type Case = (fn(&mut Summary), &'static str);

    #[test]
    fn a_fleet_is_settled_when_nothing_is_in_the_way_and_else_it_is_said_what_is() {
        assert_eq!(why(&fleet(), &["w2"]), Vec::<String>::new());
        let cases: [Case; 9] = [
            (|of| of.workers[1].state = "silent", "worker w2 is silent, and has leases"),
            (|of| of.workers[1].state = "missing", "worker w2 has leases and no heartbeat"),
            (|of| of.workers[1].state = "watched", "worker w2 was not seen to beat yet"),
            (|of| of.workers[1].leaving = true, "worker w2 is stopping"),
            (|of| of.streams[0].free = 1, "profiles: 1 shards without an owner"),
            (|of| of.streams[0].waiting = 2, "profiles: 2 shards waiting for their parents"),
            (|of| of.streams[0].settling = 3, "profiles: 3 shards settling"),
            (
                |of| of.watermark = WatermarkStatus::of(Ok(NOW_MS - 61_000), NOW_MS),
                "the fleet's watermark is 61 s old",
            ),
            (
                |of| of.watermark = WatermarkStatus::of(Err("why".to_owned()), NOW_MS),
                "the fleet's watermark stands still: why",
            ),
        ];
        for (change, expected) in cases {
            let mut summary = fleet();
            change(&mut summary);
            assert_eq!(why(&summary, &[]), [expected]);
        }
    }

    #[test]
    fn a_silent_worker_without_leases_is_in_the_way_only_if_its_restart_did_not_end() {
        let mut summary = fleet();
        summary.workers[1] = WorkerStatus { state: "silent", ..worker("w2", 0) };
        assert_eq!(why(&summary, &["w1"]), Vec::<String>::new());
        let lost = why(&summary, &["w2", "w9"]);
        assert!(lost.len() == 2 && lost[0].contains("--lost w2") && lost[1].contains("w9"), "{lost:?}");
    }

    #[test]
    fn what_nobody_reads_is_in_nobodys_way() {
        let mut summary = fleet();
        summary.streams.push(StreamStatus { free: 7, is_read: false, ..StreamStatus::default() });
        assert_eq!(why(&summary, &[]), Vec::<String>::new());
    }

    fn back(summary: &Summary, instance: &str) -> Vec<String> {
        let beat = Heartbeat {
            worker: "w1".to_owned(),
            instance: instance.to_owned(),
            counter: 1,
            report: Report::default(),
        };
        let before = Before { instance: Some("before".to_owned()), watermark_ms: Some(NOW_MS - 10_000) };
        not_back(summary, &[beat], "w1", &before)
    }

    #[test]
    fn a_worker_is_back_as_another_process_with_its_share_and_a_watermark_that_goes_on() {
        assert_eq!(back(&fleet(), "after"), Vec::<String>::new());
        assert_eq!(back(&fleet(), "before").len(), 1);
        let mut stands = fleet();
        stands.watermark = WatermarkStatus::of(Ok(NOW_MS - 10_000), NOW_MS);
        assert_eq!(back(&stands, "after"), ["the fleet's watermark is where it was before"]);
        let mut gone = fleet();
        gone.workers.remove(0);
        assert_eq!(back(&gone, "after"), ["worker w1 was not seen to beat"]);
    }

    #[test]
    fn half_of_a_share_is_one_by_leases_or_by_throughput() {
        let with = |leases: [usize; 3], bytes: [u64; 3]| {
            let mut summary = fleet();
            for ((worker, leases), bytes) in summary.workers.iter_mut().zip(leases).zip(bytes) {
                (worker.leases, worker.bytes_per_s) = (leases, bytes);
            }
            back(&summary, "after")
        };
        assert_eq!(with([2, 5, 5], [0; 3]), Vec::<String>::new());
        assert_eq!(with([1, 6, 5], [0; 3]), ["worker w1 has 1 leases; its share is 4"]);
        assert_eq!(with([1, 6, 5], [50, 100, 100]), Vec::<String>::new(), "it has the busy one");
        assert_eq!(with([0, 1, 1], [0; 3]), Vec::<String>::new(), "there are fewer leases than workers");
        assert_eq!(with([0, 2, 1], [0; 3]), Vec::<String>::new(), "one of them may be moved later");
    }
}
