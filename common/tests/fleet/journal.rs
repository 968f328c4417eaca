//! What happened in a fleet, in its order, and what must never happen.
//!
//! Writes to the state table are reported by the [`Wire`](super::wire::Wire)s in the order in which the table took
//! them; deliveries by the [`Sink`](super::sink::Sink)s before they are acknowledged. So each check here sees
//! everything that the write it judges could depend on.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;
use tokio::time::Instant;

/// Lines that are shown of a test that failed.
const TAIL_LINES: usize = 200;
const VIOLATION: &str = "VIOLATION";

/// The journal. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Journal(Arc<Shared>);

struct Shared {
    start: Instant,
    state: Mutex<State>,
    /// Held while the table takes a write, so that writes are reported in their order.
    writing: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    lines: Vec<String>,
    violations: Vec<String>,
    shards: BTreeMap<String, Facts>,
    leases: HashMap<String, Known>,
    /// Shards whose end was ever in the table.
    ended: HashSet<String>,
    gaps: HashSet<String>,
    deliveries: HashMap<String, Vec<(String, u64)>>,
    acked: HashMap<String, BTreeSet<u64>>,
    writers: HashMap<(String, u64), String>,
    moves: Vec<Move>,
    /// The last watermark that was told, by whom.
    watermark: Option<(String, u64)>,
}

/// A shard as the service knows it.
#[derive(Default)]
struct Facts {
    parents: Vec<String>,
    /// Its records are numbered from 1 to this.
    records: u64,
    /// When each was created.
    created_ms: Vec<u64>,
    /// The service does not show it in time: no watermark can wait for it.
    shows_too_late: bool,
    closed: bool,
}

/// A lease as the last write left it.
struct Known {
    epoch: u64,
    checkpoint: u64,
}

/// A lease that a worker gave to another for balance.
#[derive(Clone)]
pub(crate) struct Move {
    pub(crate) shard: String,
    pub(crate) to: String,
    pub(crate) at: Instant,
}

impl Journal {
    pub(crate) fn new() -> Self {
        let (start, state) = (Instant::now(), Mutex::default());
        Self(Arc::new(Shared { start, state, writing: tokio::sync::Mutex::default() }))
    }

    /// Held by whoever has a write under way.
    pub(crate) async fn writing(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.0.writing.lock().await
    }

    /// The service has a shard.
    pub(crate) fn shard(&self, shard: &str, parents: &[&str]) {
        let parents: Vec<String> = parents.iter().map(|parent| (*parent).to_owned()).collect();
        self.note(format!("stream: {shard} of {parents:?}"));
        self.0.state.lock().shards.insert(shard.to_owned(), Facts { parents, ..Facts::default() });
    }

    /// A shard is about to get so many records more. Returns their numbers.
    pub(crate) fn put(&self, shard: &str, records: u64, created_ms: u64) -> std::ops::RangeInclusive<u64> {
        let mut state = self.0.state.lock();
        let facts = state.shards.get_mut(shard).expect("a shard of the stream");
        let first = facts.records + 1;
        facts.records += records;
        facts.created_ms.extend((0..records).map(|_| created_ms));
        first..=facts.records
    }

    /// A shard is about to be closed.
    pub(crate) fn close(&self, shard: &str) {
        self.note(format!("stream: {shard} is closed"));
        self.0.state.lock().shards.get_mut(shard).expect("a shard of the stream").closed = true;
    }

    /// Writes a line.
    pub(crate) fn note(&self, line: String) {
        self.0.state.lock().note(self.0.start, line);
    }

    /// What must not happen did.
    pub(crate) fn violation(&self, what: String) {
        self.0.state.lock().violation(self.0.start, what);
    }

    /// A record was handed to a process.
    pub(crate) fn delivered(&self, process: &str, shard: &str, record: u64) {
        let mut state = self.0.state.lock();
        let parents = state.shards.get(shard).map(|facts| facts.parents.clone()).unwrap_or_default();
        for parent in &parents {
            if state.shards.contains_key(parent) && !state.ended.contains(parent) {
                let what =
                    format!("{process} got {shard}/{record} before the end of {parent} was in the table");
                state.violation(self.0.start, what);
            }
        }
        state.deliveries.entry(shard.to_owned()).or_default().push((process.to_owned(), record));
    }

    /// A record is about to be acknowledged.
    pub(crate) fn acked(&self, shard: &str, record: u64) {
        self.0.state.lock().acked.entry(shard.to_owned()).or_default().insert(record);
    }

    /// A process tells the fleet's watermark: whatever was created before it must be done.
    pub(crate) fn watermark(&self, process: &str, told_ms: Option<u64>) {
        let mut state = self.0.state.lock();
        state.note(self.0.start, format!("{process} tells the watermark {told_ms:?}"));
        let Some(told_ms) = told_ms else { return };
        let mut violations = Vec::new();
        for (shard, facts) in &state.shards {
            let done = state.acked.get(shard);
            let missing = (1..).zip(&facts.created_ms).find(|(record, created_ms)| {
                **created_ms < told_ms && done.is_none_or(|done| !done.contains(record))
            });
            let is_excused = facts.shows_too_late || state.gaps.contains(shard);
            if let (Some((record, created_ms)), false) = (missing, is_excused) {
                violations.push(format!(
                    "{process} tells the watermark {told_ms}, but {shard}/{record}, created at {created_ms}, is not done"
                ));
            }
        }
        for violation in violations {
            state.violation(self.0.start, violation);
        }
        state.watermark = Some((process.to_owned(), told_ms));
    }

    /// The last watermark that was told, and by whom. Nobody has told any: 0.
    pub(crate) fn last_watermark(&self) -> (String, u64) {
        self.0.state.lock().watermark.clone().unwrap_or_default()
    }

    /// The service will not show the shard for longer than its parents are kept for it.
    pub(crate) fn shows_too_late(&self, shard: &str) {
        self.0.state.lock().shards.get_mut(shard).expect("a shard of the stream").shows_too_late = true;
    }

    /// The table took a write of a process: its operation and body.
    pub(crate) fn written(&self, process: &str, operation: &str, body: &Value) {
        let mut state = self.0.state.lock();
        let at = |path: &str| body.pointer(path).and_then(Value::as_str);
        let key = if operation == "PutItem" { "/Item" } else { "/Key" };
        let (pk, sk) = (at(&format!("{key}/pk/S")), at(&format!("{key}/sk/S")));
        let (Some(pk), Some(sk)) = (pk, sk) else { return };
        if let Some(stream) = pk.strip_prefix("gap#") {
            let shard = sk.rsplit_once('#').map_or(sk, |(shard, _)| shard).to_owned();
            state.note(self.0.start, format!("{process} records a gap of {shard} in {stream}"));
            state.gaps.insert(shard);
            return;
        }
        let Some(shard) = sk.strip_prefix("shard#") else { return };
        match operation {
            "PutItem" => state.created(self.0.start, process, shard, body),
            "DeleteItem" => {
                state.note(self.0.start, format!("{process} deletes the lease of {shard}"));
                state.leases.remove(shard);
            }
            _ => state.updated(self.0.start, process, shard, body),
        }
    }

    /// Who got which records of a shard, in order.
    pub(crate) fn deliveries(&self, shard: &str) -> Vec<(String, u64)> {
        self.0.state.lock().deliveries.get(shard).cloned().unwrap_or_default()
    }

    /// The records of a shard that came, in order, whoever got them.
    pub(crate) fn got(&self, shard: &str) -> Vec<u64> {
        self.deliveries(shard).into_iter().map(|(_, record)| record).collect()
    }

    /// Leases that were given for balance.
    pub(crate) fn moves(&self) -> Vec<Move> {
        self.0.state.lock().moves.clone()
    }

    /// Whether a line has all of these.
    pub(crate) fn says(&self, words: &[&str]) -> bool {
        self.0.state.lock().lines.iter().any(|line| words.iter().all(|word| line.contains(word)))
    }

    /// Shards with records that nobody acknowledged, or closed ones whose end is not in the table.
    pub(crate) fn unread(&self) -> Vec<String> {
        let state = self.0.state.lock();
        let is_read = |shard: &str, facts: &Facts| {
            state.acked(shard, facts.records) && (!facts.closed || state.ended.contains(shard))
        };
        let unread = state.shards.iter().filter(|(shard, facts)| !is_read(shard, facts));
        unread.map(|(shard, _)| shard.clone()).collect()
    }

    /// Shards that go on.
    pub(crate) fn open(&self) -> Vec<String> {
        let state = self.0.state.lock();
        state.shards.iter().filter(|(_, facts)| !facts.closed).map(|(shard, _)| shard.clone()).collect()
    }

    /// Fails if anything happened that must not.
    pub(crate) fn assert_sound(&self) {
        let violations = self.0.state.lock().violations.clone();
        assert!(violations.is_empty(), "{violations:#?}");
    }

    /// What happened to the shards of the first violation, what happened before it, and the last lines.
    pub(crate) fn story(&self) -> String {
        let state = self.0.state.lock();
        let mut text = String::new();
        let mut tell = |title: &str, lines: &mut dyn Iterator<Item = &String>| {
            text.extend(["--- ", title, "\n"]);
            lines.for_each(|line| text.extend([line, "\n"]));
        };
        let first = state.lines.iter().position(|line| line.contains(VIOLATION));
        if let Some(first) = first {
            let is_of_it = |shard: &&String| state.lines[first].contains(shard.as_str());
            let shards: Vec<&String> = state.shards.keys().filter(is_of_it).collect();
            let names_one = |line: &&String| shards.iter().any(|shard| line.contains(shard.as_str()));
            tell("its shards", &mut state.lines[..=first].iter().filter(names_one));
            tell("before it", &mut state.lines[first.saturating_sub(TAIL_LINES)..=first].iter());
        }
        tell("the last lines", &mut state.lines[state.lines.len().saturating_sub(TAIL_LINES)..].iter());
        tell("violations", &mut state.violations.iter());
        text
    }
}

impl State {
    fn note(&mut self, start: Instant, line: String) {
        self.lines.push(format!("{:8.3} {line}", start.elapsed().as_secs_f64()));
    }

    fn violation(&mut self, start: Instant, what: String) {
        self.note(start, format!("{VIOLATION}: {what}"));
        self.violations.push(what);
    }

    fn created(&mut self, start: Instant, process: &str, shard: &str, body: &Value) {
        let owner = body.pointer("/Item/owner/S").and_then(Value::as_str);
        let epoch = number(body.pointer("/Item/epoch/N"));
        self.note(start, format!("{process} creates the lease of {shard} for {owner:?}, epoch {epoch}"));
        if self.ended.contains(shard) {
            self.violation(start, format!("{process} creates a lease of {shard}, which is finished"));
        }
        self.leases.insert(shard.to_owned(), Known { epoch, checkpoint: 0 });
    }

    fn updated(&mut self, start: Instant, process: &str, shard: &str, body: &Value) {
        let value = |name: &str| body.pointer(&format!("/ExpressionAttributeValues/{name}"));
        let text = |name: &str| value(&format!("{name}/S")).and_then(Value::as_str);
        let old_epoch = number(value(":epoch/N"));
        let epoch = value(":new_epoch/N").map_or(old_epoch, |epoch| number(Some(epoch)));
        let expression = body["UpdateExpression"].as_str().unwrap_or_default();
        let (taken, given, released) =
            (text(":new_owner"), text(":to"), expression.contains("REMOVE #owner"));
        let checkpoint = text(":checkpoint");
        self.note(start, format!(
            "{process} writes {shard}: epoch {epoch}, taken by {taken:?}, given to {given:?}, released {released}, \
            checkpoint {checkpoint:?}"
        ));
        if taken.is_some() && self.ended.contains(shard) {
            self.violation(start, format!("{process} takes {shard}, which is finished"));
        }
        if let Some(to) = given {
            self.moves.push(Move { shard: shard.to_owned(), to: to.to_owned(), at: Instant::now() });
        }
        if self.leases.get(shard).is_some_and(|known| epoch < known.epoch) {
            self.violation(start, format!("{process} brings the epoch of {shard} back to {epoch}"));
        }
        let known = self.leases.entry(shard.to_owned()).or_insert(Known { epoch, checkpoint: 0 });
        known.epoch = epoch;
        if let Some(checkpoint) = checkpoint {
            self.checkpointed(start, process, shard, old_epoch, checkpoint);
        }
    }

    fn checkpointed(&mut self, start: Instant, process: &str, shard: &str, epoch: u64, checkpoint: &str) {
        let writer = self.writers.entry((shard.to_owned(), epoch)).or_insert_with(|| process.to_owned());
        if writer != process {
            let what = format!("{process} and {writer} both checkpoint {shard} in epoch {epoch}");
            self.violation(start, what);
        }
        let rank = match checkpoint.split_once(':') {
            Some(("after", sequence)) => sequence.parse().expect("a number of the script"),
            None if checkpoint == "shard-end" => u64::MAX,
            _ => 0,
        };
        let known = self.leases.get_mut(shard).expect("it was just written");
        let before = std::mem::replace(&mut known.checkpoint, rank);
        if rank < before {
            self.violation(start, format!("{process} takes the checkpoint of {shard} back to {checkpoint}"));
        }
        let facts = self.shards.get(shard);
        let (records, closed) = facts.map_or((0, true), |facts| (facts.records, facts.closed));
        if rank == u64::MAX {
            self.ended.insert(shard.to_owned());
        }
        let skips = !self.acked(shard, rank.min(records)) || (rank == u64::MAX && !closed);
        if skips && !self.gaps.contains(shard) {
            self.violation(start, format!("{process} takes {shard} past what nobody has read: {checkpoint}"));
        }
    }

    /// Whether all records up to this one were acknowledged.
    fn acked(&self, shard: &str, upto: u64) -> bool {
        let acked = self.acked.get(shard);
        acked.map_or(0, |acked| acked.range(..=upto).count() as u64) == upto
    }
}

fn number(value: Option<&Value>) -> u64 {
    value.and_then(Value::as_str).and_then(|digits| digits.parse().ok()).unwrap_or_default()
}
