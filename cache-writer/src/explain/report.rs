//! An explanation for people and for scripts.

use anyhow::anyhow;
use serde::Serialize;
use serde_json::Value;
use warmcast_cache::policy::PayloadForm;
use warmcast_cache::read::Stay;
use warmcast_common::daemon::Outcome;
use warmcast_common::tool::{Moment, RawKey};
use warmcast_proto::entry::{EntryHeader, EntryKind};
use warmcast_proto::show;

use super::surroundings::{Letters, StreamPart, Surroundings};
use super::verdict::seconds;
use super::{Cached, Conclusion, Finding, Known, Row, Subject, Watched};

/// Everything that is known about a key.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explanation {
    /// The table.
    pub table: String,
    /// The key as people write it.
    pub key: String,
    /// The key in the cache; bytes that are no plain text as `\xNN`.
    pub cache_key: String,
    /// What the cache has, or why that is no entry.
    pub entry: EntryPart,
    /// What the master has.
    pub master: MasterPart,
    /// The bucket of the key.
    pub bucket: u32,
    /// Of how many.
    pub buckets: u32,
    /// What carries its changes.
    pub stream: Part<StreamPart>,
    /// Every change made before this is applied in the region: milliseconds since the Unix epoch.
    pub watermark_ms: Option<u64>,
    /// How far that is behind.
    pub lag_ms: Option<u64>,
    /// What was set aside of the key.
    pub dead_letters: Part<Letters>,
    /// What it comes to.
    #[serde(flatten)]
    pub finding: Finding,
}

/// A part of what is known, or why it is not.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Part<T> {
    /// This.
    Known(T),
    /// It could not be had.
    Unknown {
        /// Why.
        error: String,
    },
}

/// What the cache has.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "is")]
pub enum EntryPart {
    /// Nothing.
    None,
    /// Something that is no entry.
    Foreign {
        /// What is wrong with it.
        error: String,
        /// The bytes; none: it is no string.
        bytes: Value,
    },
    /// An entry.
    Entry {
        /// Its kind.
        kind: &'static str,
        /// The generation of its position.
        generation: u32,
        /// The sequence number of its position.
        sequence: String,
        /// Its time: milliseconds since the Unix epoch. What of, says the kind.
        time_ms: u64,
        /// How long ago that is.
        age_ms: u64,
        /// Its expiry, if it has one.
        expires_ms: Option<u64>,
        /// For how long the server keeps it; none: until it is evicted, or not known.
        stays_ms: Option<u64>,
        /// What it holds.
        payload: Option<Value>,
    },
}

/// What the master has.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "is")]
pub enum MasterPart {
    /// No `[master]` is configured.
    NotConfigured,
    /// It could not be read.
    Unreadable {
        /// Why.
        error: String,
    },
    /// No such item.
    None,
    /// This.
    Row {
        /// In DynamoDB's JSON.
        item: Value,
    },
}

impl<T> From<Known<T>> for Part<T> {
    fn from(known: Known<T>) -> Self {
        match known {
            Ok(known) => Self::Known(known),
            Err(why) => Self::Unknown { error: why.to_string() },
        }
    }
}

impl Explanation {
    pub(super) fn new(subject: &Subject, watched: Watched, around: Surroundings) -> Self {
        let finding = Finding::of(&watched, &subject.policy);
        let is_item = subject.policy.payload == PayloadForm::Item;
        Self {
            table: subject.id.table.to_string(),
            key: show::key(subject.shape.as_ref(), &subject.id.key),
            cache_key: RawKey::text(&subject.cache_key),
            entry: EntryPart::of(&watched.cached, is_item),
            watermark_ms: watched.cached.watermark_ms,
            lag_ms: watched.cached.lag_ms(),
            master: match &watched.row {
                Row::NotConfigured => MasterPart::NotConfigured,
                Row::Unreadable(error) => MasterPart::Unreadable { error: error.clone() },
                Row::Read(None) => MasterPart::None,
                Row::Read(Some(item)) => MasterPart::Row { item: show::item(item) },
            },
            bucket: around.bucket,
            buckets: around.buckets,
            stream: around.stream.into(),
            dead_letters: around.letters.into(),
            finding,
        }
    }

    /// What it means for whoever asked.
    ///
    /// # Errors
    /// There is a master, and it could not be read.
    pub fn outcome(&self) -> Result<Outcome, anyhow::Error> {
        match (self.finding.verdict, &self.master) {
            (Conclusion::NotCompared, MasterPart::Unreadable { error }) => {
                Err(anyhow!("the master could not be read: {error}"))
            }
            (Conclusion::Consistent | Conclusion::Miss | Conclusion::NotCompared, _) => Ok(Outcome::Done),
            (Conclusion::Behind | Conclusion::Wrong, _) => Ok(Outcome::Problems),
        }
    }

    /// For people.
    pub fn lines(&self) -> String {
        let Self { table, key, cache_key, bucket, buckets, .. } = self;
        let master = match &self.master {
            MasterPart::NotConfigured => "not configured".to_owned(),
            MasterPart::Unreadable { error } => format!("not known: {error}"),
            MasterPart::None => "no such item".to_owned(),
            MasterPart::Row { item } => item.to_string(),
        };
        let region = match (self.watermark_ms, self.lag_ms) {
            (Some(watermark_ms), Some(lag_ms)) => {
                format!("watermark {}, {:.1} s behind", Moment::at_ms(watermark_ms), seconds(lag_ms))
            }
            _ => "no watermark".to_owned(),
        };
        let stream = match &self.stream {
            Part::Known(stream) => stream.line(),
            Part::Unknown { error } => format!("not known: {error}"),
        };
        let letters = match &self.dead_letters {
            Part::Known(letters) => letters.lines(),
            Part::Unknown { error } => format!("not known: {error}"),
        };
        let verdict = match self.finding.verdict {
            Conclusion::Consistent => "consistent",
            Conclusion::Miss => "a miss",
            Conclusion::Behind => "behind",
            Conclusion::Wrong => "WRONG",
            Conclusion::NotCompared => "not compared",
        };
        [
            ("key", format!("{table} {key} (in the cache: {cache_key})")),
            ("entry", self.entry.lines()),
            ("master", master),
            ("stream", format!("bucket {bucket} of {buckets}, {stream}")),
            ("region", region),
            ("letters", letters),
            ("verdict", format!("{verdict}: {}", self.finding.why)),
        ]
        .map(|(name, value)| format!("{name:<8} {value}\n"))
        .concat()
    }
}

impl EntryPart {
    fn of(cached: &Cached, is_item: bool) -> Self {
        let Some(value) = &cached.value else {
            let is_none = matches!(cached.stay, Some(Stay::Gone) | None);
            let foreign = || Self::Foreign { error: "it is no string".to_owned(), bytes: Value::Null };
            return if is_none { Self::None } else { foreign() };
        };
        let (header, payload) = match EntryHeader::decode(value) {
            Ok(decoded) => decoded,
            Err(error) => return Self::Foreign { error: error.to_string(), bytes: show::bytes(value) },
        };
        let has_item = matches!(header.kind(), EntryKind::Live | EntryKind::Filled);
        Self::Entry {
            kind: header.kind().as_str(),
            generation: header.position().generation(),
            sequence: header.position().sequence().to_string(),
            time_ms: header.time_ms(),
            age_ms: cached.at_ms.saturating_sub(header.time_ms()),
            expires_ms: header.expires_ms(),
            stays_ms: match cached.stay {
                Some(Stay::Left(left)) => u64::try_from(left.as_millis()).ok(),
                _ => None,
            },
            // That of a held entry is a token.
            payload: has_item.then(|| show::payload(&value.slice_ref(payload), is_item)),
        }
    }

    fn lines(&self) -> String {
        let (kind, generation, sequence, time_ms, age_ms, expires_ms, stays_ms, payload) = match self {
            Self::None => return "none".to_owned(),
            Self::Foreign { error, bytes } => return format!("no entry ({error}): {bytes}"),
            Self::Entry { kind, generation, sequence, time_ms, age_ms, expires_ms, stays_ms, payload } => {
                (kind, generation, sequence, time_ms, age_ms, expires_ms, stays_ms, payload)
            }
        };
        let position = match (*generation, sequence.as_str()) {
            (0, "0") => "no position".to_owned(),
            (generation, sequence) => format!("position {generation}:{sequence}"),
        };
        let expires = expires_ms.map_or_else(String::new, |ms| format!(", expires {}", Moment::at_ms(ms)));
        let stays = stays_ms.map_or_else(String::new, |ms| format!(", kept for {:.0} s", seconds(ms)));
        let payload = payload.as_ref().map_or_else(String::new, |payload| format!("\n         {payload}"));
        let (time, age) = (Moment::at_ms(*time_ms), seconds(*age_ms));
        format!("{kind}, {position}, time {time} ({age:.1} s ago){expires}{stays}{payload}")
    }
}

impl StreamPart {
    fn line(&self) -> String {
        let lease = match &self.lease {
            None => "no lease: no worker has seen the shard".to_owned(),
            Some(lease) => {
                let worker = match &lease.worker {
                    None => "read by nobody".to_owned(),
                    Some(worker) if lease.worker_is_known => format!("read by {worker}"),
                    Some(worker) => format!("read by {worker}, which has no heartbeat"),
                };
                format!("{worker} (epoch {}), checkpoint {}", lease.epoch, lease.checkpoint)
            }
        };
        format!("{} of stream {}: {lease}", self.shard, self.stream)
    }
}

impl Letters {
    fn lines(&self) -> String {
        if self.total == 0 {
            return "none".to_owned();
        }
        let told = |letter: &warmcast_common::dead_letter::LetterReport| {
            format!("\n         {}  {}  {}", letter.id, Moment::at_ms(letter.last_attempt_ms), letter.reason)
        };
        let told: String = self.letters.iter().map(told).collect();
        format!("{} dead letters of this key (`redrive show`, `redrive send`):{told}", self.total)
    }
}
