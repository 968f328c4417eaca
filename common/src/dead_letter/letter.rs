//! What a dead letter is, and what makes two of them the same.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use xxhash_rust::xxh3::Xxh3Default;

use crate::limits::DEAD_LETTER_REASON_BYTES_MAX;

/// Bytes that could not be used, and everything that is known about them.
#[derive(Clone, PartialEq, Eq)]
pub struct Letter {
    /// Everything but the bytes.
    pub envelope: Envelope,
    /// What could not be used, in the form that [`Envelope::form`] names. At most
    /// [`DEAD_LETTER_BYTES_MAX`](crate::limits::DEAD_LETTER_BYTES_MAX) of them are kept.
    pub bytes: Arc<[u8]>,
}

/// Everything about a letter but its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Where it came from.
    pub origin: Origin,
    /// Which part of its record it is, counted from zero: a change of a frame, or a user record of an aggregated record,
    /// all counted together. `None`: it is a whole record or frame.
    pub index: Option<u32>,
    /// The master table, if that is known.
    pub table: Option<Arc<str>>,
    /// The canonical key bytes of the item, if they are known.
    pub key: Option<Vec<u8>>,
    /// What kind of trouble it is.
    pub class: ReasonClass,
    /// Why it could not be used: of the last attempt. Cut off beyond
    /// [`DEAD_LETTER_REASON_BYTES_MAX`](crate::limits::DEAD_LETTER_REASON_BYTES_MAX).
    pub reason: String,
    /// What the bytes are.
    pub form: Form,
}

/// Where a letter came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The daemon, and the region that it serves or sends to: `cache-writer/eu-west-1`. The same for all workers of a
    /// fleet.
    pub source: Arc<str>,
    /// The stream that it was read from, or could not be put into.
    pub stream: Arc<str>,
    /// The shard that it was read from.
    pub shard: Option<Arc<str>>,
    /// The sequence number of its record in the shard.
    pub position: Option<Arc<str>>,
}

/// What the bytes of a letter are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// A record of DynamoDB Streams, as the service's JSON (AWS: DynamoDB Streams API reference, `Record`).
    DynamodbStreamRecord,
    /// The data of a Kinesis record, or of one user record of an aggregated one.
    KinesisRecord,
    /// A frame, or an aggregated record, that is not in any stream.
    Frame,
    /// One change of a frame: a `Change` of the schema; its table is the envelope's.
    Change,
}

/// What kind of trouble led to a letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReasonClass {
    /// A record or frame that cannot be read.
    UndecodableRecord,
    /// A change or a user record that cannot be read, in a record that can.
    UndecodableChange,
    /// What the next service will never take for what it is.
    Refused,
}

/// A letter as it is kept, without its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its name in its store.
    pub id: LetterId,
    /// What is known of it.
    pub envelope: Envelope,
    /// How many bytes it has, all of them counted.
    pub bytes_len: u64,
    /// When it was first set aside: milliseconds since the Unix epoch.
    pub first_attempt_ms: u64,
    /// When it was last set aside, or tried again in vain: milliseconds since the Unix epoch.
    pub last_attempt_ms: u64,
    /// How often it was; a write whose answer was lost may count twice.
    pub attempts: u64,
}

/// What names a letter: a hash of where it came from and of its bytes, so that a record that is read again makes the
/// same letter. 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LetterId(u128);

/// What is kept of a reason.
pub(super) fn cut(reason: &str) -> &str {
    reason.split_at(reason.floor_char_boundary(DEAD_LETTER_REASON_BYTES_MAX)).0
}

impl Letter {
    /// A letter of these bytes.
    pub fn new(mut envelope: Envelope, bytes: &[u8]) -> Self {
        let len = cut(&envelope.reason).len();
        envelope.reason.truncate(len);
        Self { envelope, bytes: bytes.into() }
    }

    /// What names it.
    pub fn id(&self) -> LetterId {
        let Envelope { origin, index, form, .. } = &self.envelope;
        let index = index.map(|index| index.to_string());
        let texts = [
            Some(&*origin.source),
            Some(&*origin.stream),
            origin.shard.as_deref(),
            origin.position.as_deref(),
            index.as_deref(),
            Some(form.as_str()),
        ];
        let mut hash = Xxh3Default::new();
        for text in texts {
            // Lengths first, so that no two lists of texts are the same bytes.
            hash.update(&text.map_or(u64::MAX, |text| text.len() as u64).to_be_bytes());
            hash.update(text.unwrap_or_default().as_bytes());
        }
        hash.update(&self.bytes);
        LetterId(hash.digest128())
    }
}

/// Payloads are user data: their length is all that is shown.
impl fmt::Debug for Letter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Letter")
            .field("envelope", &self.envelope)
            .field("bytes_len", &self.bytes.len())
            .finish()
    }
}

impl Form {
    /// All forms.
    pub const ALL: [Self; 4] = [Self::DynamodbStreamRecord, Self::KinesisRecord, Self::Frame, Self::Change];

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DynamodbStreamRecord => "dynamodb-stream-record",
            Self::KinesisRecord => "kinesis-record",
            Self::Frame => "frame",
            Self::Change => "change",
        }
    }

    /// The form of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|form| form.as_str() == name)
    }
}

impl ReasonClass {
    /// All classes.
    pub const ALL: [Self; 3] = [Self::UndecodableRecord, Self::UndecodableChange, Self::Refused];

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UndecodableRecord => "undecodable-record",
            Self::UndecodableChange => "undecodable-change",
            Self::Refused => "refused",
        }
    }

    /// The class of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.as_str() == name)
    }
}

impl fmt::Display for LetterId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:032x}", self.0)
    }
}

impl fmt::Debug for LetterId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// Not 32 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is not a dead letter's name, which has 32 hexadecimal digits")]
pub struct LetterIdError {
    given: String,
}

impl FromStr for LetterId {
    type Err = LetterIdError;

    fn from_str(text: &str) -> Result<Self, LetterIdError> {
        let wrong = || LetterIdError { given: text.to_owned() };
        if text.len() != 32 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        u128::from_str_radix(text, 16).map(Self).map_err(|_| wrong())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A record of this position and these bytes.
    pub(in super::super) fn letter(position: &str, bytes: &[u8]) -> Letter {
        let origin = Origin {
            source: "cache-writer/eu-west-1".into(),
            stream: "warmcast".into(),
            shard: Some("shard-1".into()),
            position: Some(position.into()),
        };
        let envelope = Envelope {
            origin,
            index: None,
            table: Some("profiles".into()),
            key: Some(b"user\xff1".to_vec()),
            class: ReasonClass::UndecodableRecord,
            reason: "bad magic".to_owned(),
            form: Form::KinesisRecord,
        };
        Letter::new(envelope, bytes)
    }

    #[test]
    fn a_letter_is_the_same_by_its_origin_and_bytes_whatever_the_reason() {
        let first = letter("42", b"abc");
        let mut again = first.clone();
        again.envelope.reason = "something else".to_owned();
        assert_eq!(again.id(), first.id());
        let others = |change: fn(&mut Letter)| {
            let mut other = first.clone();
            change(&mut other);
            other.id()
        };
        let mut ids = vec![
            first.id(),
            others(|letter| letter.bytes = b"abd".as_slice().into()),
            others(|letter| letter.envelope.index = Some(0)),
            others(|letter| letter.envelope.form = Form::Change),
            others(|letter| letter.envelope.origin.position = Some("43".into())),
            others(|letter| letter.envelope.origin.position = None),
            others(|letter| letter.envelope.origin.shard = None),
            others(|letter| letter.envelope.origin.stream = "warmcast2".into()),
            others(|letter| letter.envelope.origin.source = "cache-writer".into()),
        ];
        let len = ids.len();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), len);
        assert!(ids.iter().all(|id| id.to_string().parse() == Ok(*id)), "{ids:?}");
        assert!("x".parse::<LetterId>().is_err() && "+".repeat(32).parse::<LetterId>().is_err());
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let long = Envelope { reason: "ü".repeat(5_000), ..letter("1", b"").envelope };
        let reason = Letter::new(long, b"").envelope.reason;
        assert_eq!(reason.len(), DEAD_LETTER_REASON_BYTES_MAX);
    }

    #[test]
    fn debug_shows_no_payload() {
        let text = format!("{:?}", letter("1", b"secret-segment"));
        assert!(text.contains("bytes_len: 14") && !text.contains("secret"), "{text}");
    }
}
