//! Letters to and from the items of a table. Pure.

use std::collections::HashMap;
use std::sync::Arc;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;

use super::super::encoding::{Encoding, Stored};
use super::super::letter::{Envelope, Form, Kept, Letter, LetterId, Origin, ReasonClass};
use super::EXPIRES_S;

/// The version of the table's layout.
const FORMAT: u64 = 1;

/// The sort key of a letter.
pub(super) const LETTER: &str = "letter";

/// What a listing asks for: everything but the content.
const LISTED: [&str; 17] = [
    "pk",
    "sk",
    "format",
    "source",
    "stream",
    "shard",
    "position",
    "index",
    "table",
    "key",
    "class",
    "reason",
    "form",
    "bytes_len",
    "first_attempt_ms",
    "last_attempt_ms",
    "attempts",
];

/// An item as the SDK has it.
pub(super) type Attributes = HashMap<String, AttributeValue>;

/// The parts of an UpdateItem call.
pub(super) struct Update {
    pub(super) expression: String,
    pub(super) condition: Option<String>,
    pub(super) names: HashMap<String, String>,
    pub(super) values: Attributes,
}

/// How a letter's bytes are stored.
pub(super) struct Layout {
    pub(super) encoding: Encoding,
    pub(super) parts: usize,
}

pub(super) fn key(id: LetterId, sk: &str) -> Attributes {
    HashMap::from([("pk".to_owned(), s(id.to_string())), ("sk".to_owned(), s(sk))])
}

pub(super) fn part_key(number: usize) -> String {
    format!("part#{number:04}")
}

pub(super) fn part_item(id: LetterId, number: usize, content: &[u8], expires_s: u64) -> Attributes {
    let mut item = key(id, &part_key(number));
    item.insert("format".to_owned(), n(FORMAT));
    item.insert("content".to_owned(), b(content));
    item.insert(EXPIRES_S.to_owned(), n(expires_s));
    item
}

/// Writes a letter; of one that is there, the first attempt stays and the attempts are counted.
pub(super) fn set_aside(
    letter: &Letter,
    stored: &Stored,
    parts: &[&[u8]],
    at_ms: u64,
    expires_s: u64,
) -> Update {
    let Envelope { origin, index, table, key, class, reason, form } = &letter.envelope;
    let mut values = vec![
        ("format", n(FORMAT)),
        ("source", s(&*origin.source)),
        ("stream", s(&*origin.stream)),
        ("class", s(class.as_str())),
        ("reason", s(reason)),
        ("form", s(form.as_str())),
        ("bytes_len", n(letter.bytes.len() as u64)),
        ("encoding", s(stored.encoding.as_str())),
        ("last_attempt_ms", n(at_ms)),
        (EXPIRES_S, n(expires_s)),
    ];
    match parts {
        [whole] => values.extend([("parts", n(0)), ("content", b(whole))]),
        parts => values.push(("parts", n(parts.len() as u64))),
    }
    let optional = [
        ("shard", origin.shard.as_deref().map(s)),
        ("position", origin.position.as_deref().map(s)),
        ("index", index.map(|index| n(u64::from(index)))),
        ("table", table.as_deref().map(s)),
        ("key", key.as_deref().map(b)),
    ];
    values.extend(optional.into_iter().filter_map(|(name, value)| Some((name, value?))));
    let mut update = Update::set(values);
    update.name("first_attempt_ms");
    update.expression.push_str(", #first_attempt_ms = if_not_exists(#first_attempt_ms, :last_attempt_ms)");
    update.count_attempt();
    update
}

/// Notes that a letter was tried again in vain. Its retention goes on: its parts' does, too.
pub(super) fn failed_again(reason: &str, at_ms: u64) -> Update {
    let mut update = Update::set(vec![("reason", s(reason)), ("last_attempt_ms", n(at_ms))]);
    update.condition = Some("attribute_exists(pk)".to_owned());
    update.count_attempt();
    update
}

impl Update {
    /// Every name goes by a placeholder: several are reserved words.
    fn set(values: Vec<(&'static str, AttributeValue)>) -> Self {
        let mut update = Self {
            expression: String::from("SET "),
            condition: None,
            names: HashMap::new(),
            values: HashMap::new(),
        };
        for (index, (name, value)) in values.into_iter().enumerate() {
            update.name(name);
            let comma = if index == 0 { "" } else { ", " };
            update.expression.push_str(&format!("{comma}#{name} = :{name}"));
            update.values.insert(format!(":{name}"), value);
        }
        update
    }

    fn name(&mut self, name: &str) {
        self.names.insert(format!("#{name}"), name.to_owned());
    }

    fn count_attempt(&mut self) {
        self.name("attempts");
        self.values.insert(":one".to_owned(), n(1));
        self.expression.push_str(" ADD #attempts :one");
    }
}

/// The names and the projection of a listing.
pub(super) fn projection() -> (HashMap<String, String>, String) {
    let names = LISTED.map(|name| (format!("#{name}"), name.to_owned()));
    (names.into_iter().collect(), LISTED.map(|name| format!("#{name}")).join(", "))
}

/// Reads a letter, without its bytes.
pub(super) fn kept(item: &Attributes) -> Result<Kept, String> {
    match number(item, "format")? {
        FORMAT => {}
        other => return Err(format!("format {other} is not known to this version")),
    }
    let named = |name: &str| text(item, name)?.ok_or_else(|| format!("{name} is missing"));
    let shared = |name: &str| Ok::<_, String>(text(item, name)?.map(Arc::from));
    let (class, form) = (named("class")?, named("form")?);
    let index = match item.contains_key("index") {
        true => u32::try_from(number(item, "index")?).ok(),
        false => None,
    };
    let origin = Origin {
        source: named("source")?.into(),
        stream: named("stream")?.into(),
        shard: shared("shard")?,
        position: shared("position")?,
    };
    let envelope = Envelope {
        origin,
        index,
        table: shared("table")?,
        key: item.get("key").and_then(|key| key.as_b().ok()).map(|key| key.as_ref().to_vec()),
        class: ReasonClass::named(class).ok_or_else(|| format!("class {class:?} is not known"))?,
        reason: named("reason")?.to_owned(),
        form: Form::named(form).ok_or_else(|| format!("form {form:?} is not known"))?,
    };
    Ok(Kept {
        id: named("pk")?.parse().map_err(|error| format!("{error}"))?,
        envelope,
        bytes_len: number(item, "bytes_len")?,
        first_attempt_ms: number(item, "first_attempt_ms")?,
        last_attempt_ms: number(item, "last_attempt_ms")?,
        attempts: number(item, "attempts")?,
    })
}

/// How a letter's bytes are stored.
pub(super) fn layout(item: &Attributes) -> Result<Layout, String> {
    let name = text(item, "encoding")?.unwrap_or_default();
    let encoding = Encoding::named(name).ok_or_else(|| format!("encoding {name:?} is not known"))?;
    let parts = usize::try_from(number(item, "parts")?).unwrap_or(usize::MAX);
    Ok(Layout { encoding, parts })
}

/// The bytes that an item has.
pub(super) fn content(item: &Attributes) -> &[u8] {
    item.get("content").and_then(|content| content.as_b().ok()).map_or(&[], AsRef::as_ref)
}

fn text<'a>(item: &'a Attributes, name: &str) -> Result<Option<&'a str>, String> {
    match item.get(name) {
        None => Ok(None),
        Some(AttributeValue::S(text)) => Ok(Some(text)),
        Some(_) => Err(format!("{name} is not a string")),
    }
}

fn number(item: &Attributes, name: &str) -> Result<u64, String> {
    match item.get(name) {
        Some(AttributeValue::N(digits)) => {
            digits.parse().map_err(|_| format!("{name} is not a whole number: {digits:?}"))
        }
        Some(_) => Err(format!("{name} is not a number")),
        None => Err(format!("{name} is missing")),
    }
}

fn s(text: impl Into<String>) -> AttributeValue {
    AttributeValue::S(text.into())
}

fn n(number: u64) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

fn b(bytes: &[u8]) -> AttributeValue {
    AttributeValue::B(Blob::new(bytes))
}
