//! What a replay has done, or would do.

use std::fmt::Write as _;
use std::sync::atomic::Ordering::Relaxed;

use serde::Serialize;
use warmcast_common::consumer::StreamSource as _;
use warmcast_common::limits::DYNAMODB_STREAMS_RETENTION;
use warmcast_common::tool::Moment;

use super::shard::Counts;
use super::streams::{Shard, Stream};

/// Shards of a stream that are listed for people; JSON has all.
const SHARDS_SHOWN_MAX: usize = 20;

/// What a replay has done, or with `dry_run` would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Nothing was read or sent.
    pub dry_run: bool,
    /// The regions that it is sent to.
    pub regions: Vec<String>,
    /// Changes made at this time or later: milliseconds since the epoch. `None`: all that the streams still hold.
    pub since_ms: Option<u64>,
    /// Changes made at this time or earlier: milliseconds since the epoch.
    pub until_ms: u64,
    /// It goes on with a run that was begun at this time and stopped: milliseconds since the epoch.
    pub resumed_from_ms: Option<u64>,
    /// What is read.
    pub streams: Vec<StreamReport>,
    /// Streams of the tables that are not there any more.
    pub streams_gone: Vec<String>,
    /// Records read by this run.
    pub records: u64,
    /// Of these, changes of the wanted time and keys.
    pub wanted: u64,
    /// Of these, changes that a region's filter did not leave out: they are in every region's stream.
    pub changes: u64,
    /// Kinesis records that they were sent in, of all regions.
    pub entries: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Changes that no Kinesis record can hold: sent as invalidations.
    pub too_large: u64,
    /// Records that cannot be read: the daemon has set them aside as dead letters.
    pub undecodable: u64,
    /// Times that records were trimmed before they were read.
    pub trimmed: u64,
    /// Shards that were gone when they were to be read.
    pub shards_gone: u64,
    /// Times that a shard was left to a region that was parked there, or to another command.
    pub yielded: u64,
    /// How long it took.
    pub seconds: u64,
}

/// A stream that is read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct StreamReport {
    /// The table.
    pub table: String,
    /// Which stream of the table it is, counted from one.
    pub generation: u32,
    /// Its ARN.
    pub stream: String,
    /// Bytes that are to be read, of the shards for which that can be estimated.
    pub bytes_estimated: u64,
    /// Its shards.
    pub shards: Vec<ShardReport>,
}

/// A shard that is read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ShardReport {
    /// Its name.
    pub shard: String,
    /// Where it is begun.
    pub from: String,
    /// It is not read: the fleet was done with it before, or a run before has replayed it to its end.
    pub skipped: bool,
    /// Who reads it for the fleet.
    pub owner: Option<String>,
    /// The regions that are parked on it: they are caught up first.
    pub parked: Vec<String>,
    /// Bytes that are to be read, by the rate at which the fleet has read it; `None`: nobody knows.
    pub bytes_estimated: Option<u64>,
}

impl Report {
    /// Whether something needs a look.
    pub fn has_problems(&self) -> bool {
        self.undecodable > 0 || self.trimmed > 0
    }

    pub(super) fn set_counts(&mut self, counts: &Counts) {
        let of = |count: &std::sync::atomic::AtomicU64| count.load(Relaxed);
        self.records = of(&counts.records);
        self.wanted = of(&counts.wanted);
        self.changes = of(&counts.changes);
        self.entries = of(&counts.entries);
        self.bytes = of(&counts.bytes);
        self.too_large = of(&counts.too_large);
        self.undecodable = of(&counts.undecodable);
        self.trimmed = of(&counts.trimmed);
        self.shards_gone = of(&counts.gone);
        self.yielded = of(&counts.yielded);
    }

    /// The report for people.
    pub fn lines(&self) -> String {
        let mut text = String::new();
        let since = match self.since_ms {
            Some(ms) => Moment::at_ms(ms).to_string(),
            None => "the oldest record".to_owned(),
        };
        let (until, regions) = (Moment::at_ms(self.until_ms), self.regions.join(", "));
        if let Some(ms) = self.resumed_from_ms {
            let _ = writeln!(text, "goes on with the run of {}", Moment::at_ms(ms));
        }
        for stream in &self.streams_gone {
            let _ = writeln!(text, "{stream} is gone, with all that it held");
        }
        if self.dry_run {
            let _ = writeln!(text, "would replay to {regions}, from {since} until {until}:");
            self.streams.iter().for_each(|stream| stream.lines(&mut text));
            return text;
        }
        let shards: usize = self.streams.iter().map(StreamReport::read).sum();
        let _ = writeln!(
            text,
            "read {} records of {shards} shards, from {since} until {until}, in {} s",
            self.records, self.seconds
        );
        let _ = writeln!(
            text,
            "{} changes were wanted; {} went to {regions} in {} Kinesis records ({} bytes)",
            self.wanted, self.changes, self.entries, self.bytes
        );
        for (count, what) in [
            (self.too_large, "changes are too large for a Kinesis record: sent as invalidations"),
            (self.undecodable, "records cannot be read: see the daemon's dead letters (aggregator redrive)"),
            (
                self.trimmed,
                "times records were trimmed before they were read: what they had takes a backfill",
            ),
            (self.shards_gone, "shards were gone when they were to be read"),
            (self.yielded, "times a shard was left to a region that was parked there, or to another command"),
        ] {
            if count > 0 {
                let _ = writeln!(text, "{count} {what}");
            }
        }
        text
    }
}

impl StreamReport {
    pub(super) fn new(stream: &Stream, shards: Vec<ShardReport>) -> Self {
        Self {
            table: stream.table.clone(),
            generation: stream.generation.number,
            stream: stream.source.stream().to_owned(),
            bytes_estimated: shards.iter().filter_map(|shard| shard.bytes_estimated).sum(),
            shards,
        }
    }

    /// How many shards are read.
    fn read(&self) -> usize {
        self.shards.iter().filter(|shard| !shard.skipped).count()
    }

    fn lines(&self, text: &mut String) {
        let Self { table, generation, bytes_estimated, .. } = self;
        let unknown = self.shards.iter().filter(|of| !of.skipped && of.bytes_estimated.is_none()).count();
        let _ = writeln!(
            text,
            "{table}, generation {generation}: {} of {} shards, about {bytes_estimated} bytes and {unknown} shards of unknown size",
            self.read(),
            self.shards.len(),
        );
        let shown = self.shards.iter().filter(|shard| !shard.skipped);
        for ShardReport { shard, from, owner, parked, bytes_estimated, .. } in shown.take(SHARDS_SHOWN_MAX) {
            let bytes = bytes_estimated.map_or(String::new(), |bytes| format!(", about {bytes} bytes"));
            let owner = owner.as_ref().map_or(String::new(), |owner| format!(", read by {owner}"));
            let parked = match parked.is_empty() {
                true => String::new(),
                false => format!(", after {} is caught up", parked.join(", ")),
            };
            let _ = writeln!(text, "  {shard} from {from}{bytes}{owner}{parked}");
        }
        let more = self.read().saturating_sub(SHARDS_SHOWN_MAX);
        if more > 0 {
            let _ = writeln!(text, "  and {more} more (--output json has all)");
        }
    }
}

impl ShardReport {
    pub(super) fn new(stream: &Stream, shard: &Shard, from: Option<String>) -> Self {
        let retention_ms = u64::try_from(DYNAMODB_STREAMS_RETENTION.as_millis()).unwrap_or(u64::MAX);
        let lease = shard.lease.as_ref();
        Self {
            shard: shard.id.clone(),
            skipped: from.is_none(),
            bytes_estimated: from.as_ref().and_then(|_| shard.bytes_estimated(&stream.wanted, retention_ms)),
            from: from.unwrap_or_default(),
            owner: lease.and_then(|lease| lease.owner.clone()),
            parked: lease.map(|lease| lease.parked.keys().cloned().collect()).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: u64 = 1_795_341_600_000;

    fn shard(name: &str, from: &str, bytes_estimated: Option<u64>) -> ShardReport {
        let (shard, from) = (name.to_owned(), from.to_owned());
        ShardReport { shard, skipped: from.is_empty(), from, bytes_estimated, ..ShardReport::default() }
    }

    #[test]
    fn a_dry_run_says_how_far_it_has_to_scan() {
        let mut read = shard("shard-1", "trim-horizon", Some(500));
        (read.owner, read.parked) = (Some("w1".to_owned()), vec!["far".to_owned()]);
        let mut shards = vec![read, shard("shard-0", "", None)];
        shards.extend((0..SHARDS_SHOWN_MAX).map(|_| shard("more", "after:7", None)));
        let stream = StreamReport {
            table: "profiles".to_owned(),
            generation: 2,
            bytes_estimated: 500,
            shards,
            ..StreamReport::default()
        };
        let report = Report {
            dry_run: true,
            regions: vec!["near".to_owned()],
            until_ms: NOW_MS,
            resumed_from_ms: Some(NOW_MS - 60_000),
            streams: vec![stream],
            ..Report::default()
        };
        let text = report.lines();
        for expected in [
            "goes on with the run of 2026-11-22T09:59:00.000Z\n",
            "would replay to near, from the oldest record until 2026-11-22T10:00:00.000Z:\n",
            "profiles, generation 2: 21 of 22 shards, about 500 bytes and 20 shards of unknown size\n",
            "  shard-1 from trim-horizon, about 500 bytes, read by w1, after far is caught up\n",
            "  and 1 more (--output json has all)\n",
        ] {
            assert!(text.contains(expected), "{expected:?} is not in:\n{text}");
        }
        assert!(!text.contains("shard-0"), "{text}");
    }

    #[test]
    fn what_cannot_be_read_or_is_gone_needs_a_look_and_is_told() {
        let fine = Report {
            regions: vec!["near".to_owned()],
            records: 9,
            wanted: 4,
            changes: 3,
            ..Report::default()
        };
        assert!(!fine.has_problems());
        assert!(
            fine.lines().contains("4 changes were wanted; 3 went to near in 0 Kinesis records (0 bytes)\n")
        );
        let poison = Report { undecodable: 2, ..fine.clone() };
        assert!(poison.has_problems() && poison.lines().contains("2 records cannot be read"));
        assert!(Report { trimmed: 1, ..fine }.has_problems());
    }
}
