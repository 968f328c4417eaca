//! Everything that was put, in its order: what a region must have in the end, and how far it is behind. Pure.
//!
//! What an update makes of its row follows from its number, so the ledger needs a few bytes for each of millions.

use std::fmt::Write as _;

use tokio::time::Instant;
use warmcast_proto::position::Position;

use crate::row::{Number, Row, Value};

/// The key attribute of the table.
pub(crate) const KEY: &str = "id";
const NUMBER: &str = "n";
const BODY: &str = "body";
/// One update in so many deletes its row.
const DELETES_EVERY: u64 = 50;
/// Bytes of an image beside its body, about.
const IMAGE_FRAME_BYTES: usize = r#"{"id":{"S":"user-12345"},"n":{"N":"1234567"},"body":{"S":""}}"#.len();
const KEY_PREFIX: &str = "user-";

/// What was put.
#[derive(Debug)]
pub struct Ledger {
    first_sequence: u128,
    image_bytes: usize,
    updates: Vec<Update>,
    /// Of each key, the number of its last update.
    last: Vec<Option<usize>>,
    /// When which update was put, and those up to the next entry.
    put: Vec<(usize, Instant)>,
}

#[derive(Clone, Copy, Debug)]
struct Update {
    order: Order,
    key: u32,
}

/// Where an update stands in the stream: higher is later. It is the sequence number less the stream's first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Order(u64);

/// What a region has of a key.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Held {
    /// The update that it reflects; `None` when the region knows nothing of the key.
    pub order: Option<Order>,
    /// The row; `None` when there is none.
    pub row: Option<Row>,
}

/// One region against the ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Keys that were put.
    pub keys: usize,
    /// Keys whose last update the region does not have.
    pub missing: usize,
    /// Keys that have it, and another row than it made, or that claim an update which never was.
    pub mismatches: usize,
    /// The first of these in words.
    pub explained: Vec<String>,
}

impl Comparison {
    /// Whether the region has the newest state of every key.
    #[must_use]
    pub fn agrees(&self) -> bool {
        self.missing == 0 && self.mismatches == 0
    }
}

/// Contradictions told in words.
const EXPLAINED_MAX: usize = 5;

impl Ledger {
    /// Nothing was put. Images will have about `image_bytes`.
    #[must_use]
    pub fn new(keys: u32, image_bytes: usize, first_sequence: u128) -> Self {
        let last = (0..keys).map(|_| None).collect();
        Self { first_sequence, image_bytes, updates: Vec::new(), last, put: Vec::new() }
    }

    /// How many keys there are.
    #[must_use]
    pub fn keys(&self) -> u32 {
        // Made from one.
        u32::try_from(self.last.len()).unwrap_or(u32::MAX)
    }

    /// The sequence number before all of the stream.
    #[must_use]
    pub fn first_sequence(&self) -> u128 {
        self.first_sequence
    }

    /// How many updates were put.
    #[must_use]
    pub fn len(&self) -> usize {
        self.updates.len()
    }

    /// Whether none was put.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.updates.is_empty()
    }

    /// What follows is put now.
    pub(crate) fn begin(&mut self, now: Instant) {
        self.put.push((self.updates.len(), now));
    }

    /// Notes an update of a key. Those of one key come in their order.
    pub(crate) fn push(&mut self, key: u32, sequence: u128) {
        let order = self.order_of(sequence);
        if let Some(last) = usize::try_from(key).ok().and_then(|key| self.last.get_mut(key)) {
            *last = Some(self.updates.len());
            self.updates.push(Update { order, key });
        }
    }

    fn order_of(&self, sequence: u128) -> Order {
        Order(u64::try_from(sequence.saturating_sub(self.first_sequence)).unwrap_or(u64::MAX))
    }

    /// The order that a position stands for. There is one stream, so its generation says nothing.
    #[must_use]
    pub fn order(first_sequence: u128, position: Position) -> Order {
        let [_, low @ ..] = position.sequence().to_be_bytes();
        Order(u64::try_from(u128::from_be_bytes(low).saturating_sub(first_sequence)).unwrap_or(u64::MAX))
    }

    /// The key and the order of an update.
    #[must_use]
    pub fn update(&self, number: usize) -> Option<(u32, Order)> {
        self.updates.get(number).map(|update| (update.key, update.order))
    }

    /// When an update was put; `None` if it was not yet.
    #[must_use]
    pub fn put_at(&self, number: usize) -> Option<Instant> {
        self.updates.get(number)?;
        let after = self.put.partition_point(|(first, _)| *first <= number);
        self.put.get(after.checked_sub(1)?).map(|(_, at)| *at)
    }

    /// The number of the first update that was put after this one, at a later moment.
    #[must_use]
    pub fn next_moment(&self, number: usize) -> usize {
        let after = self.put.partition_point(|(first, _)| *first <= number);
        self.put.get(after).map_or(self.updates.len(), |(first, _)| *first)
    }

    /// What update `number` makes of its row.
    #[must_use]
    pub fn content(&self, number: usize, key: u32) -> Content {
        let number = number as u64;
        if number % DELETES_EVERY == DELETES_EVERY - 1 {
            return Content::Deleted;
        }
        let bytes = self.image_bytes.saturating_sub(IMAGE_FRAME_BYTES);
        Content::Row { key: key_text(key), number, body: body(number, bytes) }
    }

    /// What is wrong with what a region has of a key, if anything is.
    fn judge(&self, key: u32, number: usize, held: &Held) -> Option<Wrong> {
        let order = self.update(number)?.1;
        match held.order {
            None => return Some(Wrong::Missing),
            Some(held) if held < order => return Some(Wrong::Missing),
            Some(held) if held > order => return Some(Wrong::Different),
            Some(_) => {}
        }
        (held.row != self.content(number, key).row()).then_some(Wrong::Different)
    }

    /// Compares what a region has of each key with its last update.
    pub fn compare(&self, mut held: impl FnMut(u32) -> Held) -> Comparison {
        let mut comparison = Comparison::default();
        for (key, number) in (0..self.keys()).zip(&self.last) {
            let Some(number) = *number else { continue };
            comparison.keys += 1;
            let held = held(key);
            match self.judge(key, number, &held) {
                None => continue,
                Some(Wrong::Missing) => comparison.missing += 1,
                Some(Wrong::Different) => comparison.mismatches += 1,
            }
            if comparison.explained.len() < EXPLAINED_MAX {
                let expected = (self.update(number), self.content(number, key));
                comparison.explained.push(format!("{}: expected {expected:?}, has {held:?}", key_text(key)));
            }
        }
        comparison
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    Missing,
    Different,
}

/// What an update makes of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// There is none any more.
    Deleted,
    /// This one.
    Row {
        /// Its key.
        key: String,
        /// The update's number.
        number: u64,
        /// Random text.
        body: String,
    },
}

impl Content {
    /// As the cache has it.
    #[must_use]
    pub fn row(&self) -> Option<Row> {
        let Self::Row { key, number, body } = self else { return None };
        Some(Row::from([
            (KEY.to_owned(), Value::Text(key.clone())),
            (NUMBER.to_owned(), Value::Number(Number::parse(&number.to_string()))),
            (BODY.to_owned(), Value::Text(body.clone())),
        ]))
    }

    /// As DynamoDB Streams has it.
    #[must_use]
    pub fn image(&self) -> Option<String> {
        let Self::Row { key, number, body } = self else { return None };
        Some(format!(
            r#"{{"{KEY}":{{"S":"{key}"}},"{NUMBER}":{{"N":"{number}"}},"{BODY}":{{"S":"{body}"}}}}"#
        ))
    }
}

/// The key's value.
#[must_use]
pub(crate) fn key_text(key: u32) -> String {
    format!("{KEY_PREFIX}{key}")
}

/// The key with this value.
#[must_use]
pub(crate) fn key_of(text: &[u8]) -> Option<u32> {
    str::from_utf8(text).ok()?.strip_prefix(KEY_PREFIX)?.parse().ok()
}

/// Text that does not repeat, from an update's number: the compressor finds in it what hexadecimal digits leave.
fn body(number: u64, bytes: usize) -> String {
    let mut text = String::with_capacity(bytes + 16);
    let mut state = number;
    while text.len() < bytes {
        // SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        // Writing to memory cannot fail.
        let _ = write!(text, "{:016x}", mixed ^ (mixed >> 31));
    }
    text.truncate(bytes);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: u128 = 111_700_000_000_000_000_000;

    /// Update 0 of key 0, 1 of key 1, 2 of key 0.
    fn ledger() -> Ledger {
        let mut ledger = Ledger::new(3, 200, FIRST);
        ledger.begin(Instant::now());
        for (number, key) in [0, 1, 0].into_iter().enumerate() {
            ledger.push(key, FIRST + 100 * (number as u128 + 1));
        }
        ledger
    }

    fn held(ledger: &Ledger, number: usize) -> Held {
        let (key, order) = ledger.update(number).unwrap();
        Held { order: Some(order), row: ledger.content(number, key).row() }
    }

    #[test]
    fn a_region_with_the_last_update_of_each_key_agrees() {
        let ledger = ledger();
        let comparison = ledger.compare(|key| held(&ledger, if key == 0 { 2 } else { 1 }));
        assert_eq!((comparison.keys, comparison.agrees()), (2, true));
    }

    #[test]
    fn an_older_state_and_none_are_missing_and_another_row_is_a_mismatch() {
        let ledger = ledger();
        let with =
            |of_zero: Held| ledger.compare(|key| if key == 0 { of_zero.clone() } else { held(&ledger, 1) });
        for missing in [held(&ledger, 0), Held::default()] {
            let comparison = with(missing);
            assert_eq!((comparison.missing, comparison.mismatches), (1, 0));
            assert!(comparison.explained[0].contains("user-0"));
        }
        let newest = held(&ledger, 2);
        let later = newest.order.map(|order| Order(order.0 + 1));
        let wrong_row = Held { order: newest.order, row: held(&ledger, 0).row };
        let no_row = Held { order: newest.order, row: None };
        let from_nowhere = Held { order: later, row: newest.row };
        for mismatch in [wrong_row, no_row, from_nowhere] {
            let comparison = with(mismatch);
            assert_eq!((comparison.missing, comparison.mismatches, comparison.agrees()), (0, 1, false));
        }
    }

    #[test]
    fn an_order_is_that_of_the_sequence_numbers_and_survives_the_way_through_a_position() {
        let ledger = ledger();
        let position = Position::new(1, (FIRST + 300).to_string().parse().unwrap()).unwrap();
        assert_eq!(Ledger::order(FIRST, position), ledger.update(2).unwrap().1);
    }

    #[test]
    fn an_image_has_the_size_asked_for_and_the_row_that_is_expected() {
        let content = ledger().content(2, 0);
        let image = content.image().unwrap();
        assert!((190..=210).contains(&image.len()), "{}", image.len());
        let json: serde_json::Value = serde_json::from_str(&image).unwrap();
        assert_eq!(
            content.row().unwrap()["body"],
            Value::Text(json["body"]["S"].as_str().unwrap().to_owned())
        );
        assert_eq!(ledger().content(49, 0), Content::Deleted);
        assert_eq!(key_of(key_text(17).as_bytes()), Some(17));
    }

    #[test]
    fn the_moment_of_an_update_is_that_of_its_batch() {
        let (early, late) = (Instant::now(), Instant::now() + std::time::Duration::from_secs(1));
        let mut ledger = Ledger::new(1, 100, FIRST);
        for (moment, count) in [(early, 3), (late, 2)] {
            ledger.begin(moment);
            (0..count).for_each(|_| ledger.push(0, FIRST));
        }
        let at: Vec<_> = (0..5).map(|number| ledger.put_at(number).unwrap()).collect();
        assert_eq!(at, [early, early, early, late, late]);
        assert_eq!([0, 2, 3].map(|number| ledger.next_moment(number)), [3, 3, 5]);
    }
}
