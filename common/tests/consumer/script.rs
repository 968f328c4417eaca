//! A stream in memory that does what the test says: shards, records, trimming, endings, and errors by call.
//!
//! An iterator is a text `TENURE:INDEX`: all iterators of a shard expire when its tenure grows.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use warmcast_common::aws::CallError;
use warmcast_common::clock::now_ms;
use warmcast_common::consumer::source::ReadPace;
use warmcast_common::consumer::store::StateStore;
use warmcast_common::consumer::{
    Checkpoint, Listing, Page, SequenceNumber, Shard, SourceError, SourceRecord, StreamSource, WatermarkRule,
};
use warmcast_common::retry::Class;

/// The name of every scripted stream.
pub(crate) const STREAM: &str = "arn:aws:dynamodb:eu-west-1:1:table/t/stream/2026";
/// What a page can weigh.
pub(crate) const PAGE_BYTES_MAX: usize = 100;
/// What a record weighs, unless the test says otherwise.
pub(crate) const RECORD_BYTES: usize = 10;
/// Records are there as soon as they are created, by the clock of those who read them.
pub(crate) const TIP_MARGIN: Duration = Duration::from_millis(10);
/// All children of a shard show at once.
const CHILDREN_SETTLE: Duration = Duration::from_millis(50);
/// A page never has more.
const PAGE_RECORDS_MAX: usize = 10;

/// The stream; cheap to clone, so that the test holds on to what the consumer reads.
#[derive(Clone)]
pub(crate) struct Script(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// Where to look how far the parents are when a shard is first read.
    store: StateStore,
}

#[derive(Default)]
struct State {
    shards: BTreeMap<String, Scripted>,
    listing_errors: VecDeque<CallError>,
    listings: usize,
    disabled: bool,
    silent_retention: Option<Duration>,
    watermark_rule: Option<WatermarkRule>,
    retention: Option<Duration>,
    /// Records were there that are not any more.
    trimmed: bool,
}

/// One shard of the script.
#[derive(Default)]
pub(crate) struct Scripted {
    /// Its parents.
    pub(crate) parents: Vec<String>,
    /// Whether a listing shows it.
    pub(crate) unlisted: bool,
    /// How many times `children` does not show it yet.
    pub(crate) late: usize,
    /// Whether it ends after its records.
    pub(crate) closed: bool,
    /// Every call on it answers that it is not there.
    pub(crate) gone: bool,
    /// Its records with lower numbers are trimmed.
    pub(crate) horizon: u64,
    /// Reads from an iterator that was made anew first answer so many empty pages, as DynamoDB Streams may.
    pub(crate) empty_pages: usize,
    empty_left: usize,
    /// What the next reads answer.
    pub(crate) read_errors: VecDeque<SourceError>,
    /// Records that reads gave out, again and again included.
    pub(crate) records_read: usize,
    /// Reads of any outcome.
    pub(crate) reads: usize,
    /// How many times its children were asked for.
    pub(crate) children_asked: usize,
    /// From where iterators were made.
    pub(crate) iterators: Vec<Checkpoint>,
    /// The parents' checkpoints in the state table when the first iterator was made.
    pub(crate) parents_then: Vec<(String, Checkpoint)>,
    records: Vec<Record>,
    tenure: u64,
}

#[derive(Clone, Copy)]
struct Record {
    sequence: u64,
    created_ms: u64,
    bytes: usize,
}

impl Script {
    /// An empty stream. `store` is only read.
    pub(crate) fn new(store: StateStore) -> Self {
        Self(Arc::new(Shared { state: Mutex::default(), store }))
    }

    /// Adds a shard.
    pub(crate) fn shard(&self, id: &str, parents: &[&str]) {
        let parents = parents.iter().map(|parent| (*parent).to_owned()).collect();
        self.0.state.lock().shards.insert(id.to_owned(), Scripted { parents, ..Scripted::default() });
    }

    /// Looks at a shard or changes it.
    pub(crate) fn with<R>(&self, id: &str, change: impl FnOnce(&mut Scripted) -> R) -> R {
        change(self.0.state.lock().shards.get_mut(id).expect("a shard of the script"))
    }

    /// Appends records with these sequence numbers, created now.
    pub(crate) fn put(&self, id: &str, sequences: impl IntoIterator<Item = u64>) {
        self.with(id, |shard| sequences.into_iter().for_each(|sequence| shard.put(sequence)));
    }

    /// Appends one record.
    pub(crate) fn put_one(&self, id: &str, sequence: u64, created_ms: u64, bytes: usize) {
        self.with(id, |shard| shard.records.push(Record { sequence, created_ms, bytes }));
    }

    /// The shard ends after the records it has.
    pub(crate) fn close(&self, id: &str) {
        self.with(id, |shard| shard.closed = true);
    }

    /// Every iterator of the shard is too old from now on.
    pub(crate) fn expire_iterators(&self, id: &str) {
        self.with(id, |shard| shard.tenure += 1);
    }

    /// The next reads of the shard fail with these.
    pub(crate) fn fail_reads(&self, id: &str, errors: impl IntoIterator<Item = SourceError>) {
        self.with(id, |shard| shard.read_errors.extend(errors));
    }

    /// The next listings fail with these.
    pub(crate) fn fail_listings(&self, errors: impl IntoIterator<Item = CallError>) {
        self.0.state.lock().listing_errors.extend(errors);
    }

    /// The watermarks of its shards are known by this rule, and by their creation otherwise.
    pub(crate) fn watermark_rule_is(&self, rule: WatermarkRule) {
        self.0.state.lock().watermark_rule = Some(rule);
    }

    /// Records are kept for so long, and a little more.
    pub(crate) fn retention_is(&self, retention: Duration) {
        self.0.state.lock().retention = Some(retention);
    }

    /// It is not whole any more.
    pub(crate) fn trim(&self) {
        self.0.state.lock().trimmed = true;
    }

    /// Listings that were asked for.
    pub(crate) fn listings(&self) -> usize {
        self.0.state.lock().listings
    }

    /// Records that reads of the shard gave out.
    pub(crate) fn records_read(&self, id: &str) -> usize {
        self.with(id, |shard| shard.records_read)
    }
}

impl Scripted {
    /// Whether reads gave out every record at least once, as far as counting tells.
    pub(crate) fn is_read_whole(&self) -> bool {
        self.records_read >= self.records.len()
    }

    /// Appends a record, created now.
    pub(crate) fn put(&mut self, sequence: u64) {
        self.put_created(sequence, now_ms());
    }

    /// Appends a record.
    pub(crate) fn put_created(&mut self, sequence: u64, created_ms: u64) {
        self.records.push(Record { sequence, created_ms, bytes: RECORD_BYTES });
    }

    /// A place to read from.
    pub(crate) fn iterator(&mut self, id: &str, from: &Checkpoint) -> Result<String, SourceError> {
        self.iterators.push(from.clone());
        if self.gone {
            return Err(error(Class::NotFound, "ResourceNotFoundException").into());
        }
        let oldest = self.records.partition_point(|record| record.sequence < self.horizon);
        let index = match from {
            // Like DynamoDB Streams: it cannot seek by time.
            Checkpoint::TrimHorizon | Checkpoint::AtTime(_) => oldest,
            Checkpoint::After(sequence) => {
                let sequence: u64 = sequence.as_str().parse().expect("a number of the script");
                let next = self.records.partition_point(|record| record.sequence <= sequence);
                if next < oldest {
                    return Err(trimmed());
                }
                next
            }
            Checkpoint::ShardEnd => panic!("an ended shard {id} is read"),
        };
        // Only where there is something to come to.
        self.empty_left = if index < self.records.len() { self.empty_pages } else { 0 };
        Ok(format!("{}:{index}", self.tenure))
    }

    fn read(&mut self, iterator: &str) -> Result<Page<u64>, SourceError> {
        self.reads += 1;
        if let Some(error) = self.read_errors.pop_front() {
            return Err(error);
        }
        if self.gone {
            return Err(error(Class::NotFound, "ResourceNotFoundException").into());
        }
        let (tenure, index) = iterator.split_once(':').expect("an iterator of the script");
        let index: usize = index.parse().expect("an index");
        if tenure != self.tenure.to_string() {
            return Err(SourceError::from_call(error(Class::Transient, "ExpiredIteratorException")));
        }
        if self.records.get(index).is_some_and(|record| record.sequence < self.horizon) {
            return Err(trimmed());
        }
        if self.empty_left > 0 {
            self.empty_left -= 1;
            return Ok(Page {
                records: Vec::new(),
                next: Some(iterator.to_owned()),
                children: Vec::new(),
                behind: None,
            });
        }
        let mut bytes = 0;
        let records: Vec<SourceRecord<u64>> = self.records[index..]
            .iter()
            .take(PAGE_RECORDS_MAX)
            .take_while(|record| {
                bytes += record.bytes;
                bytes <= PAGE_BYTES_MAX
            })
            .map(|record| SourceRecord {
                sequence: SequenceNumber::new(record.sequence.to_string()).ok(),
                created_ms: record.created_ms,
                bytes: record.bytes,
                body: record.sequence,
            })
            .collect();
        self.records_read += records.len();
        let next = index + records.len();
        let ended = self.closed && next == self.records.len();
        Ok(Page {
            records,
            next: (!ended).then(|| format!("{}:{next}", self.tenure)),
            children: Vec::new(),
            behind: None,
        })
    }
}

impl StreamSource for Script {
    type Record = u64;

    fn stream(&self) -> &str {
        STREAM
    }

    fn pace(&self) -> ReadPace {
        ReadPace { interval_min: Duration::from_millis(1), page_bytes_max: PAGE_BYTES_MAX }
    }

    fn silent_retention(&self) -> Option<Duration> {
        self.0.state.lock().silent_retention
    }

    fn retention(&self) -> Option<Duration> {
        self.0.state.lock().retention
    }

    fn watermark_rule(&self) -> WatermarkRule {
        let by_creation = WatermarkRule::Created { tip_margin: TIP_MARGIN };
        self.0.state.lock().watermark_rule.unwrap_or(by_creation)
    }

    fn is_whole(&self) -> bool {
        !self.0.state.lock().trimmed
    }

    fn children_settle(&self) -> Duration {
        CHILDREN_SETTLE
    }

    async fn shards(&self) -> Result<Listing, CallError> {
        let mut state = self.0.state.lock();
        state.listings += 1;
        if let Some(error) = state.listing_errors.pop_front() {
            return Err(error);
        }
        let listed = state.shards.iter().filter(|(_, shard)| !shard.unlisted);
        let shards =
            listed.map(|(id, shard)| Shard { id: id.clone(), parents: shard.parents.clone() }).collect();
        Ok(Listing { shards, disabled: state.disabled })
    }

    async fn children(&self, parent: &str) -> Result<Listing, CallError> {
        let mut state = self.0.state.lock();
        if let Some(shard) = state.shards.get_mut(parent) {
            shard.children_asked += 1;
        }
        let mut children = Vec::new();
        for (id, shard) in state.shards.iter_mut().filter(|(_, s)| s.parents.iter().any(|p| p == parent)) {
            match shard.late.checked_sub(1) {
                Some(later) => shard.late = later,
                None => children.push(Shard { id: id.clone(), parents: shard.parents.clone() }),
            }
        }
        Ok(Listing { shards: children, disabled: state.disabled })
    }

    async fn iterator(&self, shard: &str, from: &Checkpoint) -> Result<String, SourceError> {
        let (parents, first) = self.with(shard, |shard| (shard.parents.clone(), shard.iterators.is_empty()));
        if first && !parents.is_empty() {
            let leases = self.0.store.leases(STREAM).await.expect("leases can be read");
            let then =
                leases.into_iter().filter(|lease| parents.iter().any(|parent| **parent == *lease.shard));
            let then = then.map(|lease| (lease.shard.to_string(), lease.checkpoint)).collect();
            self.with(shard, |shard| shard.parents_then = then);
        }
        self.with(shard, |scripted| scripted.iterator(shard, from))
    }

    async fn read(&self, shard: &str, iterator: &str) -> Result<Page<u64>, SourceError> {
        self.with(shard, |shard| shard.read(iterator))
    }
}

/// A failed call.
pub(crate) fn error(class: Class, code: &str) -> CallError {
    CallError {
        operation: "GetRecords",
        target: "scripted shard".to_owned(),
        class,
        code: Some(code.to_owned()),
        message: code.to_owned(),
    }
}

fn trimmed() -> SourceError {
    SourceError::from_call(error(Class::Transient, "TrimmedDataAccessException"))
}
