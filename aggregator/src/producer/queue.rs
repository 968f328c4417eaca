//! What waits to be sent to one region, and what goes into the next request. Pure.
//!
//! There is a line for each target shard, oldest first, and one for what lands in a shard that is not known yet. A
//! request takes the oldest entries of all lines whose rate allows it, so a shard that is throttled holds up its own
//! line only. What failed goes back to its old place. The service keeps no order between entries, and neither does
//! this: positions in the cache make that harmless.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;
use warmcast_common::limits::{PARTITION_KEY_BYTES_MAX, PUT_RECORDS_ENTRIES_MAX};

use super::rate::{Rate, ShardLimits};
use super::routes::{Routes, ShardId};

/// Something to be sent, with what it is.
#[derive(Debug)]
pub struct Entry<T> {
    /// What it is.
    pub payload: T,
    /// The bucket that decides its shard.
    pub bucket: u32,
    /// How often it was sent in vain.
    pub tries: u32,
    /// What it takes of a request and of its shard's rate.
    bytes: usize,
    /// Its place among all that came.
    number: u64,
}

/// Entries that are sent as they are, in one request: part of one that the service refused as a whole.
#[derive(Debug)]
pub struct Group<T> {
    /// What is in the request.
    pub entries: Vec<Entry<T>>,
    /// The stream was seen to be there after the group was refused: if it is refused again, that is for what it is.
    pub is_tried: bool,
}

impl<T> Group<T> {
    fn bytes(&self) -> usize {
        self.entries.iter().map(|entry| entry.bytes).sum()
    }
}

/// What waits.
#[derive(Debug)]
pub struct Queue<T> {
    limits: ShardLimits,
    /// `None`: the shard is not known.
    lines: BTreeMap<Option<ShardId>, Line<T>>,
    /// Failed and not to be sent before this time.
    resting: BTreeMap<(Instant, u64), Entry<T>>,
    groups: VecDeque<Group<T>>,
    pushed: u64,
    len: usize,
    /// What waits beside the lines: resting, or in groups.
    aside_bytes: usize,
}

#[derive(Debug)]
struct Line<T> {
    rate: Rate,
    entries: BTreeMap<u64, Entry<T>>,
    bytes: usize,
}

impl<T> Line<T> {
    fn new(limits: ShardLimits, now: Instant) -> Self {
        Self { rate: Rate::new(limits, now), entries: BTreeMap::new(), bytes: 0 }
    }

    fn insert(&mut self, entry: Entry<T>) {
        self.bytes += entry.bytes;
        self.entries.insert(entry.number, entry);
    }

    fn pop(&mut self) -> Option<Entry<T>> {
        let (_, entry) = self.entries.pop_first()?;
        self.bytes -= entry.bytes;
        Some(entry)
    }

    fn front(&self) -> Option<(u64, usize)> {
        self.entries.first_key_value().map(|(number, entry)| (*number, entry.bytes))
    }
}

impl<T> Queue<T> {
    /// Nothing waits. `limits` are those of each shard.
    pub fn new(limits: ShardLimits) -> Self {
        Self {
            limits,
            lines: BTreeMap::new(),
            resting: BTreeMap::new(),
            groups: VecDeque::new(),
            pushed: 0,
            len: 0,
            aside_bytes: 0,
        }
    }

    /// How many entries wait.
    pub fn len(&self) -> usize {
        self.len
    }

    /// What they take of requests, in bytes.
    pub fn bytes(&self) -> usize {
        self.aside_bytes + self.lines.values().map(|line| line.bytes).sum::<usize>()
    }

    /// Whether none does.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds something of `data_bytes` bytes to the end.
    pub fn push(&mut self, bucket: u32, data_bytes: usize, payload: T, routes: &Routes, now: Instant) {
        self.pushed += 1;
        let bytes = data_bytes + PARTITION_KEY_BYTES_MAX;
        let entry = Entry { payload, bucket, tries: 0, bytes, number: self.pushed };
        self.put_back(entry, routes, now);
    }

    /// Puts something back to its old place.
    pub fn put_back(&mut self, entry: Entry<T>, routes: &Routes, now: Instant) {
        self.len += 1;
        self.line(routes.shard(entry.bucket), routes, now).insert(entry);
    }

    /// Puts something back that is not to be sent before `until`.
    pub fn rest(&mut self, entry: Entry<T>, until: Instant) {
        self.len += 1;
        self.aside_bytes += entry.bytes;
        self.resting.insert((until, entry.number), entry);
    }

    /// Puts entries back that are to be sent together, before all others.
    pub fn push_group(&mut self, group: Group<T>) {
        self.len += group.entries.len();
        self.aside_bytes += group.bytes();
        self.groups.push_front(group);
    }

    /// The next request: a group, or the oldest entries that their shards' rates allow, at most as many as the
    /// service takes and, from the second on, no more than `bytes_max` bytes.
    pub fn next_request(&mut self, bytes_max: usize, routes: &Routes, now: Instant) -> Option<Group<T>> {
        if let Some(group) = self.groups.pop_front() {
            self.len -= group.entries.len();
            self.aside_bytes -= group.bytes();
            return Some(group);
        }
        self.wake(routes, now);
        let ready = self.lines.iter_mut().filter(|(_, line)| !line.entries.is_empty());
        let ready = ready.filter_map(|(shard, line)| {
            let (number, _) = line.front()?;
            line.rate.is_ready(now).then(|| Reverse((number, shard.clone())))
        });
        let (mut ready, mut entries, mut bytes) = (ready.collect::<BinaryHeap<_>>(), Vec::new(), 0);
        while let Some(Reverse((_, shard))) = ready.pop() {
            let Some(line) = self.lines.get_mut(&shard) else { continue };
            let Some((_, of_entry)) = line.front() else { continue };
            if !entries.is_empty() && bytes + of_entry > bytes_max {
                break;
            }
            entries.extend(line.pop());
            bytes += of_entry;
            line.rate.send(of_entry);
            if entries.len() == PUT_RECORDS_ENTRIES_MAX {
                break;
            }
            if let Some((number, _)) = line.front().filter(|_| line.rate.is_ready(now)) {
                ready.push(Reverse((number, shard)));
            }
        }
        self.len -= entries.len();
        (!entries.is_empty()).then_some(Group { entries, is_tried: false })
    }

    /// When the next request can be made, if anything waits. `now`: at once.
    pub fn next_at(&self, now: Instant) -> Option<Instant> {
        let group = self.groups.front().map(|_| now);
        let resting = self.resting.first_key_value().map(|((until, _), _)| *until);
        let lines = self.lines.values().filter(|line| !line.entries.is_empty());
        lines.map(|line| line.rate.ready_at(now)).chain(resting).chain(group).min()
    }

    /// The shard took everything that a request had for it. `None`: which shard, is not known.
    pub fn on_taken(&mut self, shard: Option<&ShardId>, routes: &Routes, now: Instant) {
        self.line(shard, routes, now).rate.on_taken(now);
    }

    /// Of a request sent at `sent`, the shard took the part `taken` and throttled the rest.
    pub fn on_throttled(
        &mut self,
        shard: Option<&ShardId>,
        sent: Instant,
        taken: f64,
        routes: &Routes,
        now: Instant,
    ) {
        self.line(shard, routes, now).rate.on_throttled(sent, taken, now);
    }

    /// Entries stand in the lines of other shards than before: brings all into the right ones.
    pub fn route(&mut self, routes: &Routes, now: Instant) {
        let mut moving = Vec::new();
        for (shard, line) in &mut self.lines {
            let is_elsewhere = |_: &u64, entry: &mut Entry<T>| routes.shard(entry.bucket) != shard.as_ref();
            moving.extend(line.entries.extract_if(.., is_elsewhere).map(|(_, entry)| entry));
            line.bytes = line.entries.values().map(|entry| entry.bytes).sum();
        }
        for entry in moving {
            self.line(routes.shard(entry.bucket), routes, now).insert(entry);
        }
    }

    /// Forgets the lines of shards that `routes` has forgotten, if nothing waits in them.
    pub fn forget(&mut self, routes: &Routes) {
        self.lines.retain(|shard, line| {
            !line.entries.is_empty() || shard.as_ref().is_none_or(|shard| routes.knows(shard))
        });
    }

    /// Takes out what is not to be sent any more.
    pub fn sweep(&mut self, mut is_out: impl FnMut(&T) -> bool) -> Vec<T> {
        let mut out = Vec::new();
        for line in self.lines.values_mut() {
            let swept = line.entries.extract_if(.., |_, entry| is_out(&entry.payload));
            for (_, entry) in swept {
                line.bytes -= entry.bytes;
                out.push(entry.payload);
            }
        }
        let resting = self.resting.extract_if(.., |_, entry| is_out(&entry.payload));
        let mut aside: Vec<Entry<T>> = resting.map(|(_, entry)| entry).collect();
        for group in &mut self.groups {
            aside.extend(group.entries.extract_if(.., |entry| is_out(&entry.payload)));
        }
        self.aside_bytes -= aside.iter().map(|entry| entry.bytes).sum::<usize>();
        out.extend(aside.into_iter().map(|entry| entry.payload));
        self.groups.retain(|group| !group.entries.is_empty());
        self.len -= out.len();
        out
    }

    /// How long the longest line takes at its present rate.
    pub fn time_to_send(&self) -> Duration {
        let time = |line: &Line<T>| line.rate.time_to_send(line.bytes, line.entries.len());
        self.lines.values().map(time).max().unwrap_or_default()
    }

    /// The smallest share of the service's limits that a shard is sent to with.
    pub fn share_min(&self) -> f64 {
        let used = self.lines.iter().filter(|(shard, line)| shard.is_some() || !line.entries.is_empty());
        used.map(|(_, line)| line.rate.share()).fold(1.0, f64::min)
    }

    /// Brings what has rested enough back to its place.
    fn wake(&mut self, routes: &Routes, now: Instant) {
        while let Some(first) = self.resting.first_entry() {
            if first.key().0 > now {
                break;
            }
            let entry = first.remove();
            self.aside_bytes -= entry.bytes;
            self.line(routes.shard(entry.bucket), routes, now).insert(entry);
        }
    }

    /// The line of a shard. What lands in unknown shards is sent as if it were spread over all that are known.
    fn line(&mut self, shard: Option<&ShardId>, routes: &Routes, now: Instant) -> &mut Line<T> {
        let limits = if shard.is_some() { self.limits } else { self.limits.of_shards(routes.shards()) };
        let line = self.lines.entry(shard.cloned()).or_insert_with(|| Line::new(limits, now));
        line.rate.set_limits(limits);
        line
    }
}

#[cfg(test)]
mod tests;
